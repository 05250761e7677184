import { describe, expect, it } from "vitest";
import { connectionState, reception, STALE_AFTER } from "../src/lib/freshness";
import { SILENT_AFTER } from "../src/lib/condition";
import { WORDS } from "../src/lib/words";
import { NINE, at, condition, status } from "./samples";

const nine = Date.parse(NINE);
const of = (state: string, over = {}) => condition({ status: status({ state, ...over }) });

describe("the page's connection", () => {
  it.each([
    [false, false, 0, "connecting"],
    [true, false, STALE_AFTER - 1, "live"],
    [true, false, STALE_AFTER, "stale"],
    [true, true, 0, "stale"],
  ])("has state %s, broken %s, silent for %d ms: %s", (hasState, broken, age, word) => {
    expect(connectionState(hasState, broken, age)).toBe(word);
  });
});

describe("what is received of the conditions", () => {
  it.each([
    ["received", []],
    ["received", ["live"]],
    ["received", ["displaced", "live", "resting", "requested"]],
    ["resting", ["resting", "resting"]],
    ["cut", ["displaced", "displaced"]],
    ["cut", ["resting", "displaced"]],
    ["cut", ["disconnected", "missing"]],
    ["cut", ["a state nobody knows"]],
    ["starting", ["listing", "requested"]],
    ["starting", ["requested", "refused"]],
  ])("is %s where the conditions are %j", (feed, states) => {
    expect(reception(states.map((state) => of(state)), nine, 1).feed).toBe(feed);
  });

  it("is received while conditions are merely quiet", () => {
    const quiet = condition({ last_at: at(-600) });
    expect(reception([quiet], nine, 1).feed).toBe("received");
  });

  it("is cut when the producer has gone silent, whatever it said last, at any speed of the clock", () => {
    const later = nine + SILENT_AFTER + 1;
    for (const state of ["live", "resting"]) {
      expect(reception([of(state)], later, 1).feed).toBe("cut");
      expect(reception([of(state)], later, 60).feed).not.toBe("cut");
    }
  });

  it("ended with the last proof of life of any condition, not with the last change of a state", () => {
    const views = [
      of("displaced", { proof_of_life: at(-90), since: at(-5) }),
      of("displaced", { proof_of_life: at(-50), since: at(-5) }),
      of("displaced", { proof_of_life: null, since: at(-5) }),
    ];
    expect(reception(views, nine, 1).until).toBe(nine - 50_000);
    expect(reception([of("displaced", { proof_of_life: null })], nine, 1).until).toBeNull();
  });

  it("is said with the time since when nothing is known, where there is one", () => {
    expect(WORDS.ko.feedState.cut("14:03:10")).toBe("조건 수신이 끊겼습니다 – 14:03:10 이후의 진입·이탈은 알 수 없습니다.");
    expect(WORDS.ko.feedState.cut(null)).toBe("조건 수신이 끊겼습니다 – 진입·이탈은 알 수 없습니다.");
    expect(WORDS.en.feedState.cut("14:03:10")).toBe("No condition is received – entries and exits since 14:03:10 are not known.");
    expect(WORDS.en.feedState.cut(null)).toBe("No condition is received – entries and exits are not known.");
  });
});
