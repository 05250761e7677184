import { describe, expect, test } from "vitest";
import { Cooldowns, type AlertRule } from "../src/lib/alerts";
import type { Transition } from "../src/lib/contract";
import type { FeedEntry } from "../src/lib/store";
import { parse } from "../src/lib/time";
import { at, feed, NINE } from "./samples";

const RULE: AlertRule = { sound: true, desktop: false, cooldown: 60 };
const RULES = { "신고가 돌파": RULE };
const NOW = parse(NINE) + 1000;
const hit = (over: Partial<Transition> = {}, arrived: number | null = 5): FeedEntry => ({ item: feed(over), order: 1, arrived });
const calls = (entries: FeedEntry[], over: { rules?: Record<string, AlertRule>; now?: number; speed?: number } = {}): number =>
  new Cooldowns().callsOf(entries, over.rules ?? RULES, over.now ?? NOW, over.speed ?? 1, 0).length;

describe("what calls", () => {
  test("is a hit that happens now, of a condition that is to call", () => expect(calls([hit()])).toBe(1));
  test.each([
    ["an exit", hit({ kind: "exited" })],
    ["what stood in the day's first list", hit({ initial: true, origin: "snapshot" })],
    ["what a list after a gap shows", hit({ origin: "snapshot" })],
    ["what was there when the page came", hit({}, null)],
    ["what happened long ago", hit({ at: at(-60) })],
    ["another condition", hit({ condition: "눌림목" })],
  ])("is not %s", (_, entry) => expect(calls([entry])).toBe(0));
  test("is nothing while neither sound nor notification is wanted", () =>
    expect(calls([hit()], { rules: { "신고가 돌파": { ...RULE, sound: false } } })).toBe(0));
  test("is judged late by real time, where the market's clock runs fast", () =>
    expect(calls([hit({ at: at(-100) })], { speed: 60 })).toBe(1));
  test("comes in the order in which it happened", () => {
    const found = new Cooldowns().callsOf([hit({ code: "B" }), hit({ code: "A" })], RULES, NOW, 1, 0);
    expect(found.map((call) => call.entry.item.transition.code)).toEqual(["A", "B"]);
  });
});

describe("the cool-down", () => {
  test("keeps the same stock quiet for this condition, and no other", () => {
    const cooldowns = new Cooldowns();
    const call = (entry: FeedEntry, steady: number): number => cooldowns.callsOf([entry], RULES, NOW, 1, steady).length;
    expect(call(hit(), 0)).toBe(1);
    expect(call(hit(), 59_999)).toBe(0);
    expect(call(hit({ code: "000660" }), 59_999)).toBe(1);
    expect(call(hit(), 60_000)).toBe(1);
  });
  test("remembers only so many", () => {
    const cooldowns = new Cooldowns();
    for (let n = 0; n < 5000; n++) cooldowns.callsOf([hit({ code: String(n) })], RULES, NOW, 1, n);
    expect(cooldowns.size).toBe(2000);
  });
});
