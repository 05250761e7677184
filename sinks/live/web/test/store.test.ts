import { describe, expect, it } from "vitest";
import {
  FEED_LIMIT,
  PRICE_LIMIT,
  RECOMMENDATION_LIMIT,
  applyDelta,
  applyHeartbeat,
  applySnapshot,
  closedRecommendations,
  holdOrder,
  hubTrouble,
  openRecommendations,
  scoreScale,
  type State,
} from "../src/lib/store";
import { at, component, condition, delta, feed, recommendation, snapshot } from "./samples";

const id = (number: number, epoch = "e") => ({ epoch, number });
const start = (over = {}): State => applySnapshot(null, snapshot(over), 0);
const codes = (state: State) => state.feed.map((entry) => entry.item.transition.id);

describe("a snapshot", () => {
  it("is the whole state, its feed newest first", () => {
    const state = start({ feed: [feed({ id: "old" }), feed({ id: "new" })], conditions: [condition()] });
    expect(codes(state)).toEqual(["new", "old"]);
    expect([...state.conditions.keys()]).toEqual(["main/신고가 돌파"]);
    expect(state.now).toBe(Date.parse("2026-07-13T00:00:00Z"));
  });

  it("marks nothing as new to a reader who has just come", () => {
    const state = start({ feed: [feed()], recommendations: [recommendation()] });
    expect(state.feed[0]!.arrived).toBeNull();
    expect(state.recommendations.get("r1")!.arrived).toBeNull();
  });

  it("after a break marks only what the reader has not seen", () => {
    const before = start({ feed: [feed({ id: "a" })], recommendations: [recommendation()] });
    const after = applySnapshot(
      before,
      snapshot({
        number: 20,
        feed: [feed({ id: "a" }), feed({ id: "b" })],
        recommendations: [recommendation(), recommendation({ recommendation_id: "r2" })],
      }),
      500,
    );
    expect(after.feed.map((entry) => entry.arrived)).toEqual([500, null]);
    expect([...after.recommendations.values()].map((entry) => entry.arrived)).toEqual([null, 500]);
    expect(after.feed.at(-1)!.order).toBeGreaterThan(before.feed[0]!.order);
  });

  it("replaces everything, also with less", () => {
    const before = start({ recommendations: [recommendation()] });
    expect(applySnapshot(before, snapshot({ epoch: "other", number: 1 }), 0).recommendations.size).toBe(0);
  });

  it("of the same epoch that is older than what is held changes nothing", () => {
    const before = start();
    expect(applySnapshot(before, snapshot({ number: 9, feed: [feed()] }), 0)).toBe(before);
  });

  it("longer than the page keeps is cut to the newest", () => {
    const lines = Array.from({ length: FEED_LIMIT + 5 }, (_, index) => feed({ id: `t${index}` }));
    const state = start({ feed: lines });
    expect(state.feed).toHaveLength(FEED_LIMIT);
    expect(codes(state)[0]).toBe(`t${FEED_LIMIT + 4}`);
  });
});

describe("a delta", () => {
  it("replaces by key and puts new lines of the feed first, the last one on top", () => {
    const state = applyDelta(
      start({ feed: [feed({ id: "a" })], conditions: [condition({ members: 1 })] }),
      id(13),
      delta(feed({ id: "b" }), feed({ id: "c" }), condition({ members: 3 })),
      100,
    );
    expect(codes(state)).toEqual(["c", "b", "a"]);
    expect(state.feed.map((entry) => entry.arrived)).toEqual([100, 100, null]);
    expect(state.conditions.get("main/신고가 돌파")!.members).toBe(3);
    expect(state.number).toBe(13);
  });

  it("gives each line of the feed a higher order than the one below it", () => {
    const state = applyDelta(start({ feed: [feed({ id: "a" })] }), id(12), delta(feed({ id: "b" }), feed({ id: "c" })), 0);
    const orders = state.feed.map((entry) => entry.order);
    expect(orders).toEqual([...orders].sort((x, y) => y - x));
    expect(new Set(orders).size).toBe(3);
  });

  it("that names a known line corrects it where it stands", () => {
    const before = start({ feed: [feed({ id: "a" }, ""), feed({ id: "b" })] });
    const state = applyDelta(before, id(11), delta(feed({ id: "a" }, "카카오")), 0);
    expect(codes(state)).toEqual(["b", "a"]);
    expect(state.feed[1]!.item.name).toBe("카카오");
    expect(state.feed[1]!.arrived).toBeNull();
  });

  it("that says one line twice shows it once", () => {
    const state = applyDelta(start(), id(12), delta(feed({ id: "a" }, "1"), feed({ id: "a" }, "2")), 0);
    expect(state.feed.map((entry) => entry.item.name)).toEqual(["2"]);
  });

  it("keeps the feed bounded and does not bring back what was forgotten", () => {
    const lines = Array.from({ length: FEED_LIMIT }, (_, index) => feed({ id: `t${index}`, at: at(index) }));
    const full = start({ feed: lines });
    const state = applyDelta(full, id(12), delta(feed({ id: "new", at: at(9999) }), feed({ id: "ancient", at: at(-5) })), 0);
    expect(state.feed).toHaveLength(FEED_LIMIT);
    expect(codes(state)[0]).toBe("new");
    expect(codes(state)).not.toContain("ancient");
    expect(codes(state)).not.toContain("t0");
  });

  it("never takes a recommendation back to an earlier revision", () => {
    const before = start({ recommendations: [recommendation({ revision: 3, score: 3 })] });
    const lower = applyDelta(before, id(11), delta(recommendation({ revision: 2, score: 2 })), 5);
    expect(lower.recommendations.get("r1")!.view.recommendation.score).toBe(3);
    expect(lower.recommendations).toBe(before.recommendations);
    const higher = applyDelta(lower, id(12), delta(recommendation({ revision: 4, score: 4 })), 7);
    expect(higher.recommendations.get("r1")).toMatchObject({ arrived: null, revised: 7 });
  });

  it("with the same revision corrects the name without calling it a revision", () => {
    const before = start({ recommendations: [recommendation({}, "")] });
    const entry = applyDelta(before, id(11), delta(recommendation({}, "삼성전자")), 5).recommendations.get("r1")!;
    expect(entry.view.name).toBe("삼성전자");
    expect(entry.revised).toBeNull();
  });

  it("never takes a component back to an earlier status, unless the clock was set back", () => {
    const before = start({ components: [component({ at: at(0), state: "live" })] });
    const older = applyDelta(before, id(11), delta(component({ at: at(-5), state: "connecting" })), 0);
    expect(older.components.get("session/main/p1")!.status.state).toBe("live");
    const ahead = start({ components: [component({ at: at(3600), state: "live" })] });
    const reset = applyDelta(ahead, id(11), delta(component({ at: at(0), state: "connecting" })), 0);
    expect(reset.components.get("session/main/p1")!.status.state).toBe("connecting");
  });

  it("that was had already, or is of another epoch, brings nothing", () => {
    const before = start();
    for (const had of [id(10), id(4)]) {
      const state = applyDelta(before, had, delta(feed()), 50);
      expect(state.feed).toHaveLength(0);
      expect(state.number).toBe(10);
      expect(state.received).toBe(50);
    }
    expect(applyDelta(before, id(99, "other"), delta(feed()), 50)).toBe(before);
  });

  it("leaves what it does not touch identical, so that it is not drawn again", () => {
    const before = start({ recommendations: [recommendation()], conditions: [condition()], feed: [feed({ id: "a" })] });
    const state = applyDelta(before, id(11), delta(feed({ id: "b" })), 0);
    expect(state.recommendations).toBe(before.recommendations);
    expect(state.conditions).toBe(before.conditions);
    expect(state.components).toBe(before.components);
    expect(state.feed[1]).toBe(before.feed[0]);
    expect(before.feed).toHaveLength(1);
  });

  it("in any split into deltas gives the same state", () => {
    const changes = [
      recommendation({ revision: 1 }),
      feed({ id: "a" }),
      recommendation({ revision: 3, score: 9 }),
      condition({ members: 4 }),
      recommendation({ revision: 2 }),
      feed({ id: "b" }),
      feed({ id: "a" }, "개명"),
      component({ at: at(2) }),
      component({ at: at(1), state: "old" }),
    ];
    const content = (state: State) => ({
      recommendations: [...state.recommendations].map(([key, entry]) => [key, entry.view]),
      feed: state.feed.map((entry) => entry.item),
      conditions: [...state.conditions],
      components: [...state.components],
    });
    const whole = applyDelta(start(), id(19), { now: at(5), changes }, 0);
    for (let cut = 1; cut < changes.length; cut++) {
      const first = applyDelta(start(), id(10 + cut), { now: at(5), changes: changes.slice(0, cut) }, 0);
      const both = applyDelta(first, id(19), { now: at(5), changes: changes.slice(cut) }, 0);
      expect(content(both)).toEqual(content(whole));
    }
  });
});

it("a heartbeat moves the clock forward, never back", () => {
  const before = start();
  expect(applyHeartbeat(before, at(3), 9)).toMatchObject({ now: Date.parse(at(3)), received: 9 });
  expect(applyHeartbeat(before, at(-3), 9).now).toBe(before.now);
});

it("the hub's own trouble is known from its component", () => {
  const hub = (state: string) => start({ components: [component({ component: "live/hub", kind: "sink", state })] });
  expect(hubTrouble(hub("live"))).toBeNull();
  expect(hubTrouble(start())).toBeNull();
  expect(hubTrouble(hub("deaf"))?.state).toBe("deaf");
});

describe("what the screen asks", () => {
  const some = start({
    recommendations: [
      recommendation({ recommendation_id: "low", score: 1, opened_at: at(9) }),
      recommendation({ recommendation_id: "earlier", score: 2, opened_at: at(1) }),
      recommendation({ recommendation_id: "later", score: 2, opened_at: at(2) }),
      recommendation({ recommendation_id: "shut1", state: "closed", cause: "score", at: at(3) }),
      recommendation({ recommendation_id: "shut2", state: "closed", cause: "expired", at: at(4) }),
    ],
  });
  const ids = (entries: readonly { view: { recommendation: { recommendation_id: string } } }[]) =>
    entries.map((entry) => entry.view.recommendation.recommendation_id);

  it("open ones by score, then the latest first; closed ones the latest closed first", () => {
    expect(ids(openRecommendations(some))).toEqual(["later", "earlier", "low"]);
    expect(ids(closedRecommendations(some))).toEqual(["shut2", "shut1"]);
  });

  it("a held order keeps rows in place, drops closed ones and lets new ones follow", () => {
    expect(ids(holdOrder(openRecommendations(some), ["low", "gone", "earlier"]))).toEqual(["low", "earlier", "later"]);
  });

  it.each([
    [[0.4], 1, 1.5],
    [[1.2], 1, 1.5],
    [[6], 2, 7.5],
    [[83], 50, 100],
  ])("bars of scores %j with threshold %d are full at %d", (scores, threshold, full) => {
    const entries = scores.map((score) => ({ view: recommendation({ score, threshold }), arrived: null, revised: null }));
    expect(scoreScale(entries)).toBe(full);
  });

  it("bars without any score have a scale all the same", () => expect(scoreScale([])).toBe(1));
});

describe("prices", () => {
  const price = (code: string, value: number, seconds = 0) =>
    ({ change: "price", code, price: value, at: at(seconds), change_rate: null, day_volume: null }) as const;
  const track = (value: number) => ({
    reference: { price: value, at: at(0) },
    high: { price: value, at: at(0) },
    low: { price: value, at: at(0) },
    line_from: at(0),
    line_step: 60,
    line: [value],
  });

  it("are those of the snapshot, and then the latest of each stock", () => {
    let state = start({ prices: [price("005930", 100)] });
    state = applyDelta(state, id(11), delta(price("005930", 110, 5), price("000660", 50)), 1);
    expect([...state.prices.values()].map((each) => each.price)).toEqual([110, 50]);
  });
  it("never go back in time", () => {
    const state = applyDelta(start({ prices: [price("005930", 100, 10)] }), id(11), delta(price("005930", 90, 5)), 1);
    expect(state.prices.get("005930")!.price).toBe(100);
  });
  it("leave recommendations alone, whose rows are not drawn anew for them", () => {
    const before = start({ recommendations: [recommendation()] });
    const after = applyDelta(before, id(11), delta(price("005930", 90)), 1);
    expect(after.recommendations).toBe(before.recommendations);
    expect(after.feed).toBe(before.feed);
  });
  it("of a recommendation's way replace what it held, and are nothing for one that is not there", () => {
    const before = start({ recommendations: [recommendation()] });
    const after = applyDelta(
      before,
      id(11),
      delta(
        { change: "track", recommendation_id: "r1", track: track(100) },
        { change: "track", recommendation_id: "other", track: track(1) },
      ),
      1,
    );
    expect(after.recommendations.get("r1")!.view.track!.reference.price).toBe(100);
    expect(after.recommendations.size).toBe(1);
  });
  it("and all that is kept is bounded, over however long a day", () => {
    let state = start();
    for (let n = 0; n < 60; n++) {
      const changes = Array.from({ length: 100 }, (_, i) => n * 100 + i).flatMap((each) => [
        price(String(each), 1),
        recommendation({ recommendation_id: `r${each}`, code: String(each), state: each % 50 === 0 ? "open" : "closed" }),
        feed({ id: `t${each}` }),
      ]);
      state = applyDelta(state, id(11 + n), delta(...changes), n);
    }
    expect(state.prices.size).toBe(PRICE_LIMIT);
    expect(state.recommendations.size).toBe(RECOMMENDATION_LIMIT);
    expect(openRecommendations(state)).toHaveLength(120);
    expect(state.feed).toHaveLength(FEED_LIMIT);
  });
});
