import { describe, expect, test } from "vitest";
import { barsOf, chartTime, EDGE, marksOf, namedOf, rangeOf, timesOf, withPrice } from "../src/lib/candles";
import type { Candle, PriceView, Visit } from "../src/lib/contract";
import { parse } from "../src/lib/time";
import { at, NINE, recommendation } from "./samples";

const candle = (seconds: number, close: number, over: Partial<Candle> = {}): Candle => ({
  at: at(seconds),
  open: close,
  high: close + 10,
  low: close - 10,
  close,
  volume: 5,
  ...over,
});
const price = (seconds: number, value: number): PriceView => ({
  change: "price", code: "005930", price: value, at: at(seconds), change_rate: null, day_volume: null,
});
const visit = (since: number, until: number | null, condition = "신고가 돌파"): Visit => ({
  account: "main", condition, entry: 1, since: at(since), until: until === null ? null : at(until), dwell: null,
  origin: "realtime", initial: false, gap_from: null, gap_to: null,
});

test("the chart is told Korean time, whatever zone it is in", () => {
  expect(new Date(chartTime(parse(NINE), "1m") * 1000).toISOString()).toBe("2026-07-13T09:00:00.000Z");
  expect(new Date(chartTime(parse(at(299)), "5m") * 1000).toISOString()).toBe("2026-07-13T09:00:00.000Z");
  expect(new Date(chartTime(parse(NINE), "1d") * 1000).toISOString()).toBe("2026-07-13T00:00:00.000Z");
});

describe("bars", () => {
  test("of five minutes are made of those of one", () => {
    const [first, second] = barsOf([candle(0, 100), candle(60, 130), candle(240, 90), candle(300, 95)], "5m");
    expect(first).toMatchObject({ open: 100, high: 140, low: 80, close: 90, volume: 15 });
    expect(second).toMatchObject({ open: 95, close: 95, volume: 5 });
  });
  test("out of order are left out: the chart would refuse all", () =>
    expect(barsOf([candle(60, 100), candle(0, 90)], "1m")).toHaveLength(1));
  test("follow the price: the running one grows, another begins, an old one changes nothing", () => {
    const bars = barsOf([candle(0, 100), candle(60, 110)], "1m");
    expect(withPrice(bars, price(90, 150), "1m").at(-1)).toMatchObject({ open: 110, high: 150, low: 100, close: 150 });
    expect(withPrice(bars, price(130, 90), "1m").at(-1)).toMatchObject({ open: 110, high: 110, low: 90, close: 90, volume: 0 });
    expect(withPrice(bars, price(30, 1), "1m")).toBe(bars);
    expect(withPrice(bars, undefined, "1m")).toBe(bars);
  });
});

describe("marks", () => {
  const bars = barsOf([candle(0, 100), candle(60, 110), candle(180, 120)], "1m");
  test("stand at their own time: at its bar, without one at the last price, before all bars at no price", () => {
    const marks = marksOf([visit(-600, 70), visit(150, null)], [recommendation({ opened_at: at(61), score: 2 })], bars, "1m");
    expect(marks.map((mark) => [mark.kind, mark.time - bars[0]!.time, mark.at])).toEqual([
      ["entered", -600, "foot"],
      ["exited", 60, "bar"],
      ["opened", 60, "bar"],
      ["entered", 120, 110],
    ]);
    expect(timesOf(bars, marks).map((time) => time - bars[0]!.time)).toEqual([-600, 0, 60, 120, 180]);
  });
  test("of one kind in one bar are one", () => {
    const [mark, ...more] = marksOf([visit(1, null, "a"), visit(2, null, "b")], [], bars, "1m");
    expect(mark!.names).toEqual(["a", "b"]);
    expect(more).toEqual([]);
  });
  test("have room for their words at both edges of the chart", () => {
    const { from, to } = rangeOf(20, 308)!;
    const pixels = 308 / (to - from);
    expect((-0.5 - from) * pixels).toBeCloseTo(EDGE);
    expect((to - 19.5) * pixels).toBeCloseTo(EDGE);
    expect(rangeOf(20, 100)).toBeNull();
  });
  test("are none without bars", () => expect(marksOf([visit(0, null)], [], [], "1m")).toEqual([]));
  test("have their names only where there is room", () => {
    const marks = marksOf([visit(0, null, "a"), visit(60, 60, "b"), visit(180, null, "c")], [], bars, "1m");
    const named = namedOf(marks, timesOf(bars, marks), 2);
    expect(marks.filter((mark) => named.has(mark)).map((mark) => `${mark.kind} ${mark.names[0]}`)).toEqual(["entered a", "exited b", "entered c"]);
  });
});
