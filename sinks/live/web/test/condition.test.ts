import { describe, expect, it } from "vitest";
import {
  QUIET_AFTER,
  SILENT_AFTER,
  SUBSCRIPTION_STATES,
  TONES,
  componentTone,
  conditionWord,
  orderConditions,
} from "../src/lib/condition";
import { NINE, at, condition, status } from "./samples";

const nine = Date.parse(NINE);

describe("a condition", () => {
  it("without a status, or in a state nobody knows, is unknown", () => {
    expect(conditionWord(condition({ status: null }), nine)).toBe("unknown");
    expect(conditionWord(condition({ status: status({ state: "dancing" }) }), nine)).toBe("unknown");
  });

  it("has its subscription's state as its word while that is fresh", () => {
    for (const state of SUBSCRIPTION_STATES)
      expect(conditionWord(condition({ last_at: NINE, status: status({ state }) }), nine)).toBe(state);
  });

  it("that is live and says nothing is quiet, not dead", () => {
    const now = nine + QUIET_AFTER;
    const fresh = status({ at: new Date(now).toISOString() });
    expect(conditionWord(condition({ last_at: NINE, status: fresh }), now - 1)).toBe("live");
    expect(conditionWord(condition({ last_at: NINE, status: fresh }), now)).toBe("quiet");
    expect(conditionWord(condition({ last_at: null, status: fresh }), now)).toBe("quiet");
    expect(TONES.quiet).not.toBe("bad");
  });

  it("whose producer has stopped reporting is not believed, at any speed of the clock", () => {
    const view = condition({ last_at: NINE });
    expect(conditionWord(view, nine + SILENT_AFTER + 1)).toBe("silent");
    expect(conditionWord(view, nine + SILENT_AFTER + 1, 60)).toBe("live");
    expect(conditionWord(view, nine + 60 * SILENT_AFTER + 60, 60)).toBe("silent");
    expect(conditionWord(condition({ status: status({ state: "resting" }) }), nine + SILENT_AFTER + 1)).toBe("silent");
  });

  it("that was in trouble stays so in its own words when nothing more is said", () => {
    const view = condition({ status: status({ state: "displaced" }) });
    expect(conditionWord(view, nine + 10 * SILENT_AFTER)).toBe("displaced");
  });

  it("in trouble stands first, then by name in Korean order", () => {
    const views = [
      condition({ condition: "하" }),
      condition({ condition: "나", status: status({ state: "unanswered" }) }),
      condition({ condition: "가" }),
      condition({ condition: "다", status: status({ at: at(-3600) }) }),
    ];
    expect(orderConditions(views, nine, 1).map((view) => view.condition)).toEqual(["나", "다", "가", "하"]);
  });
});

it("every state that a worker or a sink says of itself is known", () => {
  expect(["starting", "working", "waiting", "failed", "stopped"].map(componentTone)).toEqual([
    "pending",
    "good",
    "bad",
    "bad",
    "rest",
  ]);
});

it("a component's state that nobody knows is shown without judgement", () => {
  expect(["live", "login", "resting", "deaf", "dancing"].map(componentTone)).toEqual([
    "good",
    "pending",
    "rest",
    "bad",
    "unknown",
  ]);
});
