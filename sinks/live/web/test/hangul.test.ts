import { describe, expect, it } from "vitest";
import { initial, matchesStock, normalise } from "../src/lib/hangul";

const found = (typed: string, name: string, code = "005930") => matchesStock(normalise(typed), name, code);

describe("finding a stock", () => {
  it.each([
    ["ㅅㅅㅈㅈ", "삼성전자", true],
    ["ㅅㅈ", "삼성전자", true],
    ["ㅅㅈㅅ", "삼성전자", false],
    ["삼성", "삼성전자", true],
    ["삼ㅅ전", "삼성전자", true],
    ["사", "삼성전자", true],
    ["삼서", "삼성전자", true],
    ["서자", "삼성전자", false],
    ["성자", "삼성전자", false],
    ["sk하", "SK하이닉스", true],
    ["SKㅎㅇ", "SK하이닉스", true],
    ["ㄳ", "강산전자", true],
    ["ㅆㅇ", "쌍용정보통신", true],
    ["lg 에너지", "LG에너지솔루션", true],
    ["", "아무거나", true],
    ["  ", "아무거나", true],
  ])("%j in %s: %s", (typed, name, expected) => expect(found(typed, name)).toBe(expected));

  it.each([
    ["0059", "005930", true],
    ["5930", "005930", false],
    ["0004v", "0004V0", true],
  ])("%j at the start of the code %s: %s", (typed, code, expected) => expect(found(typed, "이름", code)).toBe(expected));

  it("reads names in decomposed form as they are typed on some systems", () => {
    expect(found("삼성".normalize("NFD"), "삼성전자")).toBe(true);
  });

  it("knows the initial of every syllable and leaves other characters", () => {
    expect([..."가까힣A1"].map(initial)).toEqual(["ㄱ", "ㄲ", "ㅎ", "A", "1"]);
  });
});
