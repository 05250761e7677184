import { describe, expect, test } from "vitest";
import type { PriceView, Track } from "../src/lib/contract";
import { changePercent, directionOf, fateOf, formatPercent, levelIn, linePath } from "../src/lib/prices";
import { at, NINE, recommendation } from "./samples";

const track = (over: Partial<Track> = {}): Track => ({
  reference: { price: 10_000, at: at(1) },
  high: { price: 10_200, at: at(60) },
  low: { price: 9_900, at: at(90) },
  line_from: NINE,
  line_step: 60,
  line: [10_100, 9_950],
  ...over,
});
const price = (over: Partial<PriceView> = {}): PriceView => ({
  change: "price",
  code: "005930",
  price: 10_050,
  at: at(120),
  change_rate: 1.5,
  day_volume: 1000,
  ...over,
});
const view = (over: Partial<Track> | null, state: "open" | "closed" = "open") => ({
  ...recommendation({ state }),
  track: over === null ? null : track(over),
});

describe("a change in percent", () => {
  test.each([
    [100, 150, 50],
    [100, 100, 0],
    [null, 100, null],
    [100, undefined, null],
    [0, 100, null],
  ])("from %s to %s is %s", (from, to, expected) => expect(changePercent(from, to)).toBe(expected));

  test.each([
    [1.234, "+1.23%", "up"],
    [-0.4, "−0.40%", "down"],
    [-0.001, "0.00%", "flat"],
    [0.004999, "0.00%", "flat"],
    [0.005001, "+0.01%", "up"],
    [null, "–", "flat"],
  ])("%s reads %s and points %s: sign, colour and figure never contradict each other", (change, text, direction) => {
    expect(formatPercent(change)).toBe(text);
    expect(directionOf(change)).toBe(direction);
  });
});

describe("how a recommendation has done", () => {
  test("is measured from its reference to the latest price", () => {
    const fate = fateOf(view({}), price());
    expect(fate.change).toBeCloseTo(0.5);
    expect(fate.best).toBeCloseTo(2);
    expect(fate.worst).toBeCloseTo(-1);
    expect(fate.line).toEqual([10_000, 10_100, 9_950, 10_050]);
  });

  test("goes beyond what the hub last called the extremes, if the latest price does", () => {
    expect(fateOf(view({}), price({ price: 10_300 })).best).toBeCloseTo(3);
    expect(fateOf(view({}), price({ price: 9_800 })).worst).toBeCloseTo(-2);
  });

  test("is not known without a track, and says the price all the same", () => {
    expect(fateOf(view(null), price())).toEqual({ price: 10_050, change: null, best: null, worst: null, line: [] });
  });

  test("is not measured by a price from before it opened", () => {
    expect(fateOf(view({}), price({ price: 20_000, at: at(-60) })).change).toBe(0);
  });

  test("ends with the recommendation: what the stock did later is not counted", () => {
    const fate = fateOf(view({}, "closed"), price({ price: 20_000 }));
    expect(fate.change).toBeCloseTo(-0.5);
    expect(fate.best).toBeCloseTo(2);
    expect(fate.line).toEqual([10_000, 10_100, 9_950]);
  });
});

describe("the small line", () => {
  test("goes from left to right, the highest at the top", () => {
    expect(linePath([1, 3, 2], 10, 8)).toBe("M0.0 8.0L5.0 0.0L10.0 4.0");
  });
  test("is flat where nothing moved, and none for less than two points", () => {
    expect(linePath([5, 5], 10, 8)).toBe("M0.0 8.0L10.0 8.0");
    expect(linePath([5], 10, 8)).toBe("");
  });
  test("has its level where the reference stands", () => {
    expect(levelIn([1, 3, 2], 2, 8)).toBe(4);
    expect(levelIn([1, 3], 4, 8)).toBeNull();
    expect(levelIn([1, 3], null, 8)).toBeNull();
  });
});
