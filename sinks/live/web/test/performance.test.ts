import { describe, expect, test } from "vitest";
import type { Performance } from "../src/lib/contract";
import { expiryAt } from "../src/lib/expiry";
import { listedOf, minutesOf, spanOf, ticksOf } from "../src/lib/minutes";
import { asOf, byCondition, differenceOf, leftOut, meanOf, positiveOf } from "../src/lib/performance";
import { kstTime, parse } from "../src/lib/time";
import { at, condition, NINE } from "./samples";

const row = (over: Partial<Performance> = {}): Performance => ({
  account: "main", condition: "신고가 돌파", horizon: "5m", hits: 110, priced: 100, mean: 0.4, median: 0.3, q1: -0.2, q3: 0.9,
  positive: 0.6, low: 0.1, high: 0.7, sample_mean: 0.05, sample_cases: 4000, difference: 0.35, difference_low: 0.05,
  difference_high: 0.65, gaps: 0, ...over,
});

describe("a figure", () => {
  test("never comes without its interval and its cases", () =>
    expect(meanOf(row())).toEqual({ value: 0.4, interval: "+0.10 … +0.70", cases: 100, isClear: true }));
  test("is unclear where the interval holds zero, or the cases are few", () => {
    expect(meanOf(row({ low: -0.1 })).isClear).toBe(false);
    expect(meanOf(row({ priced: 29 })).isClear).toBe(false);
  });
  test("without an interval says so by having none, and is unclear", () =>
    expect(meanOf(row({ low: null, high: null, priced: 1 }))).toEqual({ value: 0.4, interval: "", cases: 1, isClear: false }));
  test("of the difference counts the fewer of both sides", () => expect(differenceOf(row({ sample_cases: 40 })).cases).toBe(40));
});

describe("the share that rose", () => {
  // Wilson's interval for 60 of 100, as tables have it: 0.502 to 0.691.
  test("has Wilson's interval", () => expect(positiveOf(row()).interval).toBe("50 … 69"));
  test("stays within 0 and 100", () => {
    expect(positiveOf(row({ positive: 1, priced: 3 })).interval).toBe("44 … 100");
    expect(positiveOf(row({ positive: 0, priced: 3 })).interval).toBe("0 … 56");
  });
  test("is no figure without cases", () => expect(positiveOf(row({ positive: null, priced: 0 })).value).toBeNull());
});

describe("hits that are left out", () => {
  const whole = { hits: 110, priced: 110 };
  test("are none without a price where only the next open is not known yet", () =>
    expect(leftOut([row({ horizon: "1m", ...whole }), row({ horizon: "close", ...whole }), row({ horizon: "next_open", hits: 110, priced: 0 })])).toEqual({
      withoutPrice: 0,
      pastClose: [],
      unknown: [{ horizon: "next_open", count: 110 }],
    }));
  test("are told apart by cause and horizon", () =>
    expect(
      leftOut([
        row({ horizon: "1m", priced: 107, without_price: 3 }),
        row({ horizon: "30m", priced: 90, without_price: 3, past_close: 12 }),
        row({ horizon: "close", priced: 105, without_price: 3, past_close: 2 }),
      ]),
    ).toEqual({
      withoutPrice: 3,
      pastClose: [{ horizon: "30m", count: 12 }, { horizon: "close", count: 2 }],
      unknown: [{ horizon: "30m", count: 5 }],
    }));
});

describe("as of when figures are", () => {
  const now = parse(at(19_920)); // 14:32
  test.each([
    ["worked out for the answer: when it came", null, { moment: "14:32", age: null }],
    ["a minute old: as new as they get", at(19_860), { moment: "14:31", age: null }],
    ["older: how old, too", at(17_640), { moment: "13:54", age: 2_280 }],
    ["of a past day: its date", at(19_920 - 3 * 86_400), { moment: "07-10 14:32", age: null }],
  ] as const)("%s", (_, as_of, said) => expect(asOf([row({ as_of })], now, now)).toEqual(said));
  test("is when the answer came as long as it could not be renewed", () =>
    expect(asOf([row()], now - 600_000, now)).toEqual({ moment: "14:22", age: 600 }));
});

test("rows are found by account and condition, in the order of time", () => {
  const found = byCondition([row({ horizon: "close" }), row({ horizon: "1m" }), row({ account: "other" })]);
  expect(found.get("main/신고가 돌파")!.map((each) => each.horizon)).toEqual(["1m", "close"]);
  expect(found.get("other/신고가 돌파")).toHaveLength(1);
});

describe("hits per minute", () => {
  type Hits = Parameters<typeof minutesOf>[0];
  const alone = (detail: Hits, now: number) => minutesOf(detail, spanOf([detail], now));
  test("go on with zeros until now: a quiet hour is seen as one", () =>
    expect(alone({ minutes_from: NINE, hits: [2, 0, 1] }, parse(at(290))).hits).toEqual([2, 0, 1, 0, 0]));
  test("end with the close, unless a hit came after it", () => {
    const hits = Array.from({ length: 400 }, () => 0);
    expect(alone({ minutes_from: NINE, hits: [1] }, parse(NINE) + 12 * 3_600_000).times.length).toBe(391);
    expect(alone({ minutes_from: NINE, hits }, parse(NINE) + 12 * 3_600_000).times.length).toBe(400);
  });
  test("go on from a hit before nine, too, which is of the day before in UTC", () =>
    expect(alone({ minutes_from: at(-3600), hits: [1] }, parse(at(60))).times.length).toBe(62));
  test("are none before the first", () => expect(alone({ minutes_from: null, hits: [] }, parse(NINE)).times).toEqual([]));
  test("of several conditions have one span: from the first hit of any of them until now", () => {
    const details: Hits[] = [
      { minutes_from: at(60), hits: [1] },
      { minutes_from: at(180), hits: [2, 3] },
      { minutes_from: null, hits: [] },
    ];
    const span = spanOf(details, parse(at(300)));
    expect(details.map((detail) => minutesOf(detail, span).hits)).toEqual([[1, 0, 0, 0, 0], [0, 0, 2, 3, 0], []]);
    expect(minutesOf(details[0]!, span).times).toEqual(minutesOf(details[1]!, span).times);
  });
  test("leave out entries that a list told of, which are counted", () => {
    expect(listedOf({ condition: condition({ entered: 29 }), hits: [] })).toBe(29);
    expect(listedOf({ condition: condition({ entered: 3 }), hits: [1, 0, 2] })).toBe(0);
  });
  test.each([
    [0, 0, 6, ["09:00"]],
    [-40, 220, 6, ["09:00", "09:01", "09:02", "09:03"]],
    [0, 540, 6, ["09:00", "09:02", "09:04", "09:06", "09:08"]],
    [0, 390 * 60, 6, ["10:00", "12:00", "14:00"]],
    [0, 390 * 60, 12, ["09:00", "10:00", "11:00", "12:00", "13:00", "14:00", "15:00"]],
  ])("have labels that differ: %d to %d s after nine, at most %d", (from, until, most, labels) => {
    const nine = parse(NINE) / 1000;
    expect(ticksOf(nine + from, nine + until, most).map((time) => kstTime(time * 1000).slice(0, 5))).toEqual(labels);
  });
});

describe("an expiry", () => {
  const nine = parse(NINE);
  test.each([
    ["day", null],
    ["10m", 10],
    ["1h", 60],
    ["close", 390],
  ] as const)("%s is so many minutes after nine: %s", (expiry, minutes) =>
    expect(expiryAt(expiry, nine)).toBe(minutes === null ? null : nine + minutes * 60_000));
  test("at the close is none after the close", () => expect(expiryAt("close", nine + 390 * 60_000)).toBeNull());
});
