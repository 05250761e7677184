import { describe, expect, it } from "vitest";
import { WORDS, figureName, figureValue, formatScore, inferredNote } from "../src/lib/words";
import { at, feed } from "./samples";

const { ko, en } = WORDS;

describe("durations", () => {
  it.each([
    [-3, "0초", "0s"],
    [12.9, "12초", "12s"],
    [192, "3분 12초", "3m 12s"],
    [180, "3분", "3m"],
    [3900, "1시간 5분", "1h 5m"],
    [7200, "2시간", "2h"],
  ])("%d s", (seconds, korean, english) => {
    expect(ko.duration(seconds)).toBe(korean);
    expect(en.duration(seconds)).toBe(english);
  });

  it("in brief do not twitch: tens of seconds, then minutes, then hours", () => {
    expect([3, 27, 119, 3600].map(ko.brief)).toEqual(["방금", "20초", "1분", "1시간"]);
    expect([3, 27].map((seconds) => en.ago(en.brief(seconds)))).toEqual(["now", "20s ago"]);
  });

  it("as ages lose their seconds after ten minutes", () => {
    expect([599, 601, 4000].map(ko.age)).toEqual(["9분 59초", "10분", "1시간 6분"]);
  });
});

describe("how we know of a transition", () => {
  const note = (over: Parameters<typeof feed>[0]) => inferredNote(feed(over).transition, ko);

  it("is not said when it was seen as it happened", () => expect(note({})).toBeNull());
  it("is said of the day's first list", () => expect(note({ origin: "snapshot", initial: true })!.text).toBe("첫 목록"));
  it("is said of the day's end", () => expect(note({ origin: "day-end", kind: "exited" })!.text).toBe("하루 마감"));
  it("is said of what happened in a gap, with its span where it is known", () => {
    const known = note({ origin: "snapshot", gap_from: at(-120), gap_to: at(-60) })!;
    expect(known.text).toBe("공백 중");
    expect(known.title).toContain("08:58:00–08:59:00");
    expect(note({ origin: "snapshot" })!.title).not.toContain("–");
  });
});

it("re-entries, scores and numbers read alike in a column", () => {
  expect(ko.reentry(2)).toBe("재진입 2회");
  expect([1, 0.125, 12].map(formatScore)).toEqual(["1.00", "0.13", "12.00"]);
  expect(ko.number(12345)).toBe("12,345");
});

it("the feed has one name, in its heading, on a phone and among the keys", () => {
  const plain = (text: string) => text.replaceAll(" ", "");
  expect([ko.feedShort, ko.keys.feed].map(plain)).toEqual([plain(ko.feed), plain(ko.feed)]);
});

describe("what a component counts", () => {
  // The names of `deploy/reporter.py`, `producers/conditions.py` and `producers/service.py`.
  it.each([
    "audits", "bad_records", "browsers", "connections", "dead_letters", "events", "frames", "lag", "open_recommendations",
    "partitions", "records", "retries", "spooled", "transitions", "waiting",
  ])("%s has a Korean word", (name) => expect(figureName(name, ko)).toMatch(/[가-힣]/));

  it("is a number, or yes or no where it is one of those", () => {
    expect([figureValue("lag", 1234.567, ko), figureValue("quotes", 1, ko), figureValue("quotes", 0, en)]).toEqual(["1,234.57", "예", "no"]);
  });

  it("and is not known yet has its own name, to be read", () => {
    expect([figureName("something_new", ko), figureName("something_new", en)]).toEqual(["something new", "something new"]);
  });
});

it("every word of one language is there in the other", () => {
  const shape = (value: unknown): unknown =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, key === "componentState" ? "" : shape(inner)]))
      : typeof value;
  expect(shape(en)).toEqual(shape(ko));
});
