import { describe, expect, it } from "vitest";
import { parseEventId } from "../src/lib/contract";
import { STALE_AFTER, connectionState } from "../src/lib/freshness";
import { extrapolate, kstDate, kstTime, kstWeekday, parse, untilNextSecond } from "../src/lib/time";

describe("market time", () => {
  it("is KST in every zone", () => {
    const instant = parse("2026-07-12T23:59:58.123456Z");
    expect(kstTime(instant)).toBe("08:59:58");
    expect(kstDate(instant)).toBe("2026-07-13");
    expect(kstWeekday(instant)).toBe(1);
    expect(kstTime(parse("2026-07-13T09:03:12+09:00"))).toBe("09:03:12");
  });

  it("goes on by itself at its speed, and never backwards", () => {
    expect(extrapolate(1000, 500, 60)).toBe(31_000);
    expect(extrapolate(1000, -500, 60)).toBe(1000);
  });

  it.each([
    [12_000, 1, 1000],
    [12_250, 1, 750],
    [12_999, 1, 200],
    [12_000, 60, 200],
    [12_000, 0.5, 1000],
  ])("at %d ms and speed %d is told again after %d ms", (now, speed, expected) =>
    expect(untilNextSecond(now, speed)).toBe(expected),
  );
});

describe("the connection", () => {
  it.each([
    [false, false, 0, "connecting"],
    [false, true, Infinity, "connecting"],
    [true, false, 0, "live"],
    [true, false, STALE_AFTER - 1, "live"],
    [true, false, STALE_AFTER, "stale"],
    [true, true, 0, "stale"],
  ])("with state %s, broken %s, age %d is %s", (hasState, broken, age, expected) =>
    expect(connectionState(hasState, broken, age)).toBe(expected),
  );
});

it("an event id is an epoch and a number", () => {
  expect(parseEventId("ab12-7")).toEqual({ epoch: "ab12", number: 7 });
  expect(parseEventId("2026-07-13-42")).toEqual({ epoch: "2026-07-13", number: 42 });
  expect(parseEventId("ab12~1f.0.3e8-42")).toEqual({ epoch: "ab12", number: 42 });
  for (const wrong of ["", "7", "ab-", "ab-x", "-7"]) expect(parseEventId(wrong)).toBeNull();
});
