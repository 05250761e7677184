import { describe, expect, test } from "vitest";
import type { PriceView } from "../src/lib/contract";
import { normalise } from "../src/lib/hangul";
import { arrange, type Wanted } from "../src/lib/ranked";
import { holdOrder, type RecommendationEntry } from "../src/lib/store";
import { at, NINE, reason, recommendation } from "./samples";

const entry = (id: string, code: string, name: string, score: number, opened = NINE, condition = "신고가 돌파"): RecommendationEntry => ({
  view: recommendation({ recommendation_id: id, code, score, opened_at: opened, reasons: [reason({ condition })] }, name),
  arrived: null,
  revised: null,
});
const OPEN = [
  entry("a", "005930", "삼성전자", 3, at(0)),
  entry("b", "000660", "SK하이닉스", 2, at(60), "눌림목"),
  entry("c", "035420", "NAVER", 1, at(30)),
];
const price = (code: string, value: number, change_rate: number | null): [string, PriceView] => [
  code,
  { change: "price", code, price: value, at: at(100), change_rate, day_volume: null },
];
const PRICES = new Map([price("005930", 100, -1), price("000660", 100, 2)]);
const wanted = (over: Partial<Wanted> = {}): Wanted => ({
  query: "",
  condition: "",
  sort: "score",
  isDescending: true,
  pins: new Set(),
  ...over,
});
const ids = (over: Partial<Wanted>): string =>
  arrange(OPEN, wanted(over), PRICES)
    .map((each) => each.view.recommendation.recommendation_id)
    .join("");

describe("the table of recommendations", () => {
  test.each([
    ["by rank as it comes", {}, "abc"],
    ["the other way round", { isDescending: false }, "cba"],
    ["the newest first", { sort: "opened" }, "bca"],
    ["by the day's change, those without a price last", { sort: "day" }, "bac"],
    ["and last also the other way round", { sort: "day", isDescending: false }, "abc"],
    ["by name, Korean order", { sort: "name", isDescending: false }, "acb"],
    ["pinned above all", { pins: new Set(["035420"]) }, "cab"],
    ["of one condition", { condition: "눌림목" }, "b"],
    ["by initial consonants", { query: normalise("ㅅㅅㅈㅈ") }, "a"],
    ["by the beginning of a code", { query: "0354" }, "c"],
    ["by part of a name in any case", { query: normalise("sk하") }, "b"],
    ["nothing that matches", { query: "zzz" }, ""],
  ] as [string, Partial<Wanted>, string][])("%s", (_, over, expected) => {
    expect(ids(over)).toBe(expected);
  });
});

describe("a list under the hand", () => {
  test("keeps its rows where they are, and new ones follow", () => {
    expect(holdOrder([OPEN[1]!, OPEN[0]!, OPEN[2]!], ["a", "b"])).toEqual([OPEN[0], OPEN[1], OPEN[2]]);
  });
  test("keeps the place of what closes, so that nothing below it moves", () => {
    const closed = { ...OPEN[0]!, view: recommendation({ recommendation_id: "a", state: "closed" }) };
    expect(holdOrder([OPEN[1]!], ["a", "b"], (id) => (id === "a" ? closed : undefined))).toEqual([closed, OPEN[1]]);
    expect(holdOrder([OPEN[1]!], ["a", "b"])).toEqual([OPEN[1]]);
  });
});
