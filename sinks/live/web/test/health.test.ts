import { describe, expect, it } from "vitest";
import { componentTones, componentWord, figures, gapsOf, health, isSearch, moment, statusTone } from "../src/lib/health";
import { applyDelta, applySnapshot, type State } from "../src/lib/store";
import { kstMoment } from "../src/lib/time";
import { NINE, at, component, condition, delta, gap, snapshot, status } from "./samples";

const nine = Date.parse(NINE);
const session = (over = {}) => status({ component: "session/main/p1", kind: "session", condition: "", ...over });
const diagnosis = (state: string, over = {}) =>
  status({ component: "doctor/main/p1", kind: "diagnosis", condition: "", state, ...over });
const start = (over = {}): State => applySnapshot(null, snapshot(over), 0);

describe("a component", () => {
  it.each(["session", "worker", "sink"] as const)("of kind %s that stops reporting is silent, and that is bad", (kind) => {
    const said = session({ kind, state: "running" });
    expect(componentWord(said, nine + 30_000, 1)).toBe("running");
    expect(componentWord(said, nine + 30_001, 1)).toBe("silent");
    expect(statusTone(said, nine + 30_001, 1)).toBe("bad");
  });

  it("that said goodbye, or was in trouble, is what it said last", () => {
    for (const state of ["stopped", "displaced", "disconnected"])
      expect(componentWord(session({ state }), nine + 3_600_000, 1)).toBe(state);
  });

  it.each([
    ["stuck", "bad", { proof_of_life: at(-21) }],
    ["working", "good", { proof_of_life: at(-20) }],
    ["working", "good", { proof_of_life: at(-21), figures: { lag: 0 } }],
    ["working", "good", { proof_of_life: null }],
    ["waiting", "bad", { proof_of_life: at(-21), state: "waiting" }],
  ] as const)("that gets nothing done of what waits is stuck: %s, %s, %o", (word, tone, over) => {
    const said = session({ component: "sink/clickhouse/a", kind: "sink", state: "working", figures: { lag: 3 }, ...over });
    expect([componentWord(said, nine, 1), statusTone(said, nine, 1)]).toEqual([word, tone]);
    expect(componentWord(said, nine, 60)).toBe(said.state);
  });

  it("that is stuck is in trouble beside another of its role that works", () => {
    const sink = (name: string, over = {}) => ({
      change: "component" as const,
      status: session({ component: `sink/clickhouse/${name}`, kind: "sink", state: "working", ...over }),
    });
    const stuck = sink("a", { proof_of_life: at(-60), figures: { lag: 3 } });
    expect(health(start({ components: [stuck, sink("b")] }), nine).troubles).toBe(1);
  });

  it("of kind diagnosis speaks only when it runs, and is never silent", () => {
    expect(componentWord(diagnosis("healthy"), nine + 3_600_000, 1)).toBe("healthy");
  });

  it.each([
    ["healthy", {}, "good"],
    ["quiet", {}, "good"],
    ["module-down", {}, "bad"],
    ["some-verdict-to-come", { good: 1 }, "good"],
    ["some-verdict-to-come", { good: 0 }, "bad"],
    ["scheduled", {}, "rest"],
    ["running", {}, "pending"],
    ["done", {}, "good"],
    ["failed", {}, "bad"],
    ["missed", {}, "bad"],
  ])("diagnosis %s %o is %s", (state, counted, tone) => {
    expect(statusTone(diagnosis(state, { figures: counted }), nine, 1)).toBe(tone);
  });

  it("is a search if it is about a condition", () => {
    expect([isSearch(diagnosis("done")), isSearch(diagnosis("done", { condition: "신고가 돌파" }))]).toEqual([false, true]);
  });

  it("shows every figure it has but those that have a place of their own", () => {
    const counted = session({ figures: { waiting: 2, last: 1, next: 2, rows: 3, connections: 1, something_new: 7 } });
    expect(figures(counted)).toEqual([["connections", 1], ["something_new", 7], ["waiting", 2]]);
    expect(moment(counted, "next")).toBe(2000);
    expect(moment(session(), "next")).toBeNull();
  });
});

describe("the health of everything", () => {
  it("is good while all report, and counts whoever is in trouble", () => {
    const state = start({ conditions: [condition()], components: [component()] });
    expect(health(state, nine)).toEqual({ tone: "good", troubles: 0 });
    const bad = start({
      conditions: [condition({ status: status({ state: "unanswered" }) })],
      components: [component(), { change: "component", status: diagnosis("module-down") }],
    });
    expect(health(bad, nine)).toEqual({ tone: "bad", troubles: 2 });
  });

  it("of a quiet condition is good: quiet is not dead", () => {
    const state = start({ conditions: [condition({ last_at: at(-600) })] });
    expect(health(state, nine).troubles).toBe(0);
  });

  it("is not troubled by a standby that has ended", () => {
    const standby = component({ component: "session/main/p2", state: "disconnected" });
    expect(health(start({ components: [component(), standby] }), nine).troubles).toBe(0);
    expect(health(start({ components: [standby] }), nine).troubles).toBe(1);
  });

  it("knows the words of workers and sinks: who waits is in trouble, unless another one of its role works", () => {
    const sink = (name: string, state: string) =>
      component({ component: `sink/clickhouse/${name}`, kind: "sink", state, cause: "ClickHouse can't take rows now" });
    expect(health(start({ components: [component(), sink("box", "working")] }), nine)).toEqual({ tone: "good", troubles: 0 });
    expect(health(start({ components: [component(), sink("box", "waiting")] }), nine)).toEqual({ tone: "bad", troubles: 1 });
    expect(health(start({ components: [sink("box", "waiting"), sink("box-2", "working")] }), nine).troubles).toBe(0);
  });

  it.each([
    ["worker", "worker"],
    ["sink", "sink/clickhouse"],
  ] as const)("misses a %s that was stopped, as long as no other one of its role works", (kind, role) => {
    const one = (name: string, state: string) => component({ component: `${role}/${name}`, kind, state, cause: "stopped" });
    const stopped = start({ components: [component(), one("box", "stopped")] });
    expect(health(stopped, nine)).toEqual({ tone: "bad", troubles: 1 });
    expect(componentTones(stopped, nine).get(`${role}/box`)).toBe("bad");
    const relieved = start({ components: [component(), one("box", "stopped"), one("box-2", "working")] });
    expect(health(relieved, nine)).toEqual({ tone: "good", troubles: 0 });
    expect(componentTones(relieved, nine).get(`${role}/box`)).toBe("rest");
    const strange = component({ component: "other/box", kind, state: "working" });
    expect(health(start({ components: [one("box", "stopped"), strange] }), nine).troubles).toBe(1);
  });

  it("does not miss for longer than a day what was stopped", () => {
    const old = component({ component: "sink/clickhouse/box", kind: "sink", state: "stopped" });
    const day = 86_400_000;
    expect(health(start({ components: [old] }), nine + day).tone).toBe("bad");
    expect(health(start({ components: [old] }), nine + day + 1).tone).toBe("rest");
  });

  it("is good while the bars of the day are fetched: nothing waits for them", () => {
    const bars = component({ component: "bars/main/p1", kind: "diagnosis", state: "running" });
    expect(health(start({ components: [component(), bars] }), nine)).toEqual({ tone: "good", troubles: 0 });
  });

  it("is unknown while nobody has said anything", () => {
    expect(health(start(), nine).tone).toBe("unknown");
  });
});

describe("gaps", () => {
  it("come with the snapshot and by deltas, once each, the latest first", () => {
    const state = start({ gaps: [gap({ id: "a", to: at(10) })] });
    const after = applyDelta(state, { epoch: "e", number: 12 }, delta(gap({ id: "b", to: at(20) }), gap({ id: "a", to: at(10) })), 0);
    expect(gapsOf(after).map((one) => one.id)).toEqual(["b", "a"]);
  });
});

describe("what is no longer configured", () => {
  it("leaves the page", () => {
    const state = start({ conditions: [condition()], components: [component()] });
    const retired = condition({ status: status({ state: "retired" }) });
    const after = applyDelta(state, { epoch: "e", number: 12 }, delta(retired, component({ state: "retired", at: at(1) })), 0);
    expect([after.conditions.size, after.components.size]).toEqual([0, 0]);
  });
});

it("a moment of another day has its date", () => {
  expect(kstMoment(nine, nine)).toBe("09:00");
  expect(kstMoment(nine, nine, true)).toBe("09:00:00");
  expect(kstMoment(nine + 86_400_000, nine)).toBe("07-14 09:00");
});
