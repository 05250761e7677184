import { describe, expect, test } from "vitest";
import { toCsv } from "../src/lib/csv";
import { feedRows, recommendationRows } from "../src/lib/sheets";
import { WORDS } from "../src/lib/words";
import { feed, recommendation } from "./samples";

const line = (cell: string | number | null): string => toCsv(["h"], [[cell]]).split("\r\n")[1]!;

describe("a CSV file", () => {
  test("begins with the mark that tells Excel its encoding, and ends each line as Excel does", () => {
    expect(toCsv(["가", "b"], [["나", 1]])).toBe("\uFEFF가,b\r\n나,1\r\n");
  });
  test.each([
    ["a,b", '"a,b"'],
    ['say "x"', '"say ""x"""'],
    ["two\nlines", '"two\nlines"'],
    ["semi;colon", '"semi;colon"'],
    [" padded", '" padded"'],
    ["", ""],
    [null, ""],
    [-1.5, "-1.5"],
    [Number.NaN, ""],
    ["005930", "005930"],
  ])("%j becomes %j", (cell, expected) => expect(line(cell)).toBe(expected));

  test.each(["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"])(
    "%j is text for every spreadsheet, never a formula",
    (cell) => expect(line(cell).replace(/^"/, "").startsWith("'")).toBe(true),
  );
});

test("a file has a column for every heading, in both languages", () => {
  for (const words of Object.values(WORDS)) {
    const entry = { view: recommendation(), arrived: null, revised: null };
    expect(recommendationRows([entry], new Map())[0]).toHaveLength(words.sheet.recommendations.length);
    expect(feedRows([{ item: feed(), order: 1, arrived: null }], words)[0]).toHaveLength(words.sheet.feed.length);
  }
});
