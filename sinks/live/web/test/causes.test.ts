import { describe, expect, it } from "vitest";
import { WORDS } from "../src/lib/words";
import { CAUSES, koreanCause } from "../src/lib/words-causes";

const HOLE = /\{([a-z]+)\*?\}/g;

describe("a cause in Korean", () => {
  it.each([
    ["CNSRLST was not answered within 10 s; next try in 3.2 s", "10초 안에 CNSRLST 응답 없음 · 3.2초 뒤 다시 시도"],
    ["CNSRREQ was not answered within 5 s (try 2 of 3)", "5초 안에 CNSRREQ 응답 없음 (3번 중 2번째 시도)"],
    ["quiet since 09:31:02; audit at 09:36:02: agrees", "09:31:02부터 조용함 · 09:36:02 점검: 일치"],
    [
      "quiet since 09:31:02; audit at 09:36:02: silent (the search was not answered within 5 s)",
      "09:31:02부터 조용함 · 09:36:02 점검: 응답 없음 (5초 안에 단건 조회 응답 없음)",
    ],
    [
      "dead: nothing said for 312 s while a search shows 2 others (+000660 −005930); it is requested anew",
      "끊김: 312초 동안 신호가 없는데 단건 조회와 다름 – 2종목 차이 (+000660 −005930) · 다시 요청합니다",
    ],
    ["market holiday: The second day of Korean New Year; goes on 02-19 08:30 KST", "휴장일: 설날 다음날 · 02-19 08:30에 다시 시작"],
    ["market holiday: National Foundation Day; Chuseok; goes on 10-05 08:30 KST", "휴장일: 개천절; 추석 · 10-05 08:30에 다시 시작"],
    ["the account has no condition named 돌파; it has: 눌림목, 급등; 강세", "계정에 돌파 조건이 없음. 있는 조건: 눌림목, 급등; 강세"],
    [
      "2026-11-25: 398 of 400 charts, 1 empty, 1 failed; refused: ka10080 was refused ([1700] 초과); next 11-26 15:40",
      "2026-11-25: 차트 400개 중 398개, 거래 없음 1개, 실패 1개; 거절됨: ka10080 거절됨 ([1700] 초과); 다음 11-26 15:40",
    ],
    ["11-26 08:50: 12 stocks, from the realtime snapshot (caught up 3 min late)", "11-26 08:50: 12종목, 실시간 목록에서 (3분 늦게)"],
    [
      "Kiwoom gives no token ([8005] Token이 유효하지 않습니다): set kiwoom.app_key and kiwoom.secret_key; next try in 5.0 s",
      "키움이 토큰을 주지 않음 ([8005] Token이 유효하지 않습니다): kiwoom.app_key와 kiwoom.secret_key를 설정하세요 · 5.0초 뒤 다시 시도",
    ],
  ])("%s", (english, korean) => {
    expect(koreanCause(english)).toBe(korean);
    expect([WORDS.ko.told(english), WORDS.en.told(english)]).toEqual([korean, english]);
  });

  it.each(["", "900001: 조건검색 결과가 없습니다", "8005 Token; 다시 로그인하세요", "something (that nobody knows)", "no words of ours: x"])(
    "that is not the product's own stays as it is: %s",
    (cause) => expect(koreanCause(cause)).toBe(cause),
  );

  it("has its known parts in Korean where others are not known", () =>
    expect(koreanCause("R10001 다른 곳에서 접속; next try in 1.0 s")).toBe("R10001 다른 곳에서 접속 · 1.0초 뒤 다시 시도"));

  it.each(CAUSES)("loses nothing of what differs: %s", (english, korean) => {
    const inside = [...english.matchAll(HOLE)].map((hole) => hole[1]);
    const told = [...korean.matchAll(HOLE)].map((hole) => hole[1]);
    expect(new Set(told)).toEqual(new Set(inside.filter((name) => name !== "s")));
    const numbered = english.replace(HOLE, (_, name: string) => (name === "s" ? "s" : `${inside.indexOf(name) + 41}`));
    const said = koreanCause(numbered);
    expect(said).toMatch(/[가-힣]/);
    for (const name of new Set(told)) expect(said).toContain(`${inside.indexOf(name) + 41}`);
    expect(said).not.toMatch(/[{}*]/);
  });
});
