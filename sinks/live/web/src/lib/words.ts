/** Every word on the page, in Korean and in English. Pure. */

import type { ConditionWord } from "./condition";
import type { Cause, Transition } from "./contract";
import { kstTime, parse } from "./time";

export type Language = "ko" | "en";

const PARTS_KO = ["시간", "분", "초"] as const;
const PARTS_EN = ["h", "m", "s"] as const;

function parts(seconds: number): [number, number, number] {
  const whole = Math.max(0, Math.floor(seconds));
  return [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
}

/** `1시간 5분`, `3분 12초`, `12초`: the two largest parts. */
function duration(seconds: number, units: readonly [string, string, string]): string {
  const [hours, minutes, rest] = parts(seconds);
  if (hours > 0) return minutes > 0 ? `${hours}${units[0]} ${minutes}${units[1]}` : `${hours}${units[0]}`;
  if (minutes > 0) return rest > 0 ? `${minutes}${units[1]} ${rest}${units[2]}` : `${minutes}${units[1]}`;
  return `${rest}${units[2]}`;
}

/** `3분 12초` for the first ten minutes, then `12분`, `1시간 5분`: seconds that nobody reads do not tick. */
function age(seconds: number, units: readonly [string, string, string]): string {
  return duration(seconds < 600 ? seconds : Math.floor(seconds / 60) * 60, units);
}

/** `1시간`, `3분`, `10초`: the largest part alone and seconds in tens, for places that must not twitch. */
function brief(seconds: number, units: readonly [string, string, string]): string {
  const [hours, minutes, rest] = parts(seconds);
  return hours > 0 ? `${hours}${units[0]}` : minutes > 0 ? `${minutes}${units[1]}` : `${rest - (rest % 10)}${units[2]}`;
}

const numbers = new Intl.NumberFormat("ko-KR");

const ko = {
  skip: "추천으로 건너뛰기",
  tagline: "조건검색 실시간",
  connection: { live: "실시간", stale: "갱신 멈춤", connecting: "연결 중" },
  connectionHint: {
    live: "서버와 이어져 있고, 화면은 지금 상태입니다.",
    stale: "서버 소식이 끊겼습니다. 다시 연결하고 있습니다.",
    connecting: "서버에 연결하고 있습니다.",
  },
  staleTitle: (time: string) => `${time} 이후 갱신 없음`,
  staleText: (seconds: number) => `아래 내용은 지금 상태가 아닙니다. 다시 연결하는 중입니다 (${numbers.format(seconds)}초째).`,
  deafTitle: (time: string) => `${time}부터 새 소식을 듣지 못합니다`,
  deafText: (cause: string) => `화면 서버는 살아 있지만 소식이 오지 않습니다. ${cause}`,
  loginTitle: "로그인이 필요합니다",
  loginText: "로그인 시간이 끝났습니다.",
  login: "로그인",
  rebuildingTitle: "오늘 기록을 읽고 있습니다",
  rebuildingText: "서버가 다시 시작했습니다. 다 읽으면 바로 이어집니다.",
  connectingTitle: "서버에 연결하고 있습니다",
  unreachableTitle: "서버에 닿지 않습니다",
  unreachableText: "hitstream이 실행 중인지 확인하세요. 연결은 계속 다시 시도합니다.",
  clock: "장 시계",
  speed: (speed: number) => `${numbers.format(speed)}배속`,
  weekdays: ["일", "월", "화", "수", "목", "금", "토"],
  countRecommendations: "추천",
  countConditions: "조건 수신",
  countEntered: "진입",
  countExited: "이탈",
  today: "오늘",
  language: "English",
  languageHint: "Switch to English",
  theme: { system: "시스템 테마", light: "밝은 테마", dark: "어두운 테마" },
  themeHint: "누르면 다음 테마로 바뀝니다.",
  navigation: "화면 구역",

  now: "지금 추천",
  nowShort: "추천",
  nowCaption: "열려 있는 추천, 점수가 높은 순",
  nowEmpty: "열려 있는 추천이 없습니다",
  nowEmptyText: "조건에 들어온 종목의 점수가 기준을 넘으면 여기에 바로 나타납니다.",
  heldOrder: "순서 고정 중",
  heldOrderHint: "가리키는 동안 줄이 움직이지 않습니다.",
  stock: "종목",
  score: "점수",
  reasons: "이유",
  ageColumn: "경과",
  opened: "시작",
  openedAt: (time: string) => `${time} 시작`,
  newMark: "새 추천",
  announce: (names: string) => `새 추천: ${names}`,
  threshold: (value: string) => `기준 ${value}`,
  scoreTitle: (score: string, threshold: string, rule: string) => `점수 ${score} · 기준 ${threshold} · 규칙 ${rule}`,
  expires: (time: string) => `${time}까지 유효`,
  revision: (count: number) => `${numbers.format(count)}번째 판`,
  detailsOpen: (name: string) => `${name} 이유 펼치기`,
  detailsClose: (name: string) => `${name} 이유 접기`,
  since: "시작",
  visits: "진입 횟수",
  part: "점수 몫",
  visitsShort: (count: number) => `${numbers.format(count)}회`,
  visitsTitle: (count: number) => `오늘 ${numbers.format(count)}번 진입`,
  reasonKind: { condition: "조건", search: "검색", manual: "직접" },
  manualBy: (by: string) => (by ? `직접 추천 · ${by}` : "직접 추천"),
  partTitle: (part: string, share: number) => `점수 몫 ${part} (${share}%)`,
  sinceTitle: (time: string) => `${time}부터`,
  closedToday: "오늘 닫힌 추천",
  closedMore: (count: number) => `앞선 ${numbers.format(count)}건은 보이지 않습니다.`,
  cause: {
    threshold: "점수가 기준을 넘음",
    command: "사람이 추천함",
    reason: "이유가 바뀜",
    score: "점수가 기준 아래로 내려감",
    expired: "유효 시간이 끝남",
    withdrawn: "사람이 거둠",
    "day-end": "하루가 끝남",
  } satisfies Record<Cause, string>,

  feed: "진입 · 이탈",
  feedShort: "포착",
  feedCaption: "새것이 위",
  feedEmpty: "아직 진입이나 이탈이 없습니다",
  feedEmptyText: "조건에 종목이 들어오거나 나가면 바로 나타납니다.",
  feedNoMatch: "찾는 종목이나 조건의 기록이 없습니다",
  feedNoMatchText: "검색어나 조건 선택을 바꿔 보세요.",
  search: "종목명, 코드, 초성 (ㅅㅅㅈㅈ)",
  searchLabel: "진입·이탈에서 종목 찾기",
  clear: "지우기",
  allConditions: "모든 조건",
  conditionFilter: "조건 고르기",
  pause: "멈춤",
  resume: "이어 보기",
  pausedByHover: "가리키는 동안 멈춤",
  paused: "멈춰 있음",
  waiting: (count: number) => `새 기록 ${numbers.format(count)}건 대기`,
  newest: "새 기록 보기",
  limited: (count: number) => `최근 ${numbers.format(count)}건만 보입니다.`,
  kind: { entered: "진입", exited: "이탈" },
  reentry: (times: number) => `재진입 ${numbers.format(times)}회`,
  dwell: (text: string) => `${text} 머묾`,
  notes: {
    initial: "첫 목록",
    gap: "공백 중",
    dayEnd: "하루 마감",
  },
  noteTitles: {
    initial: "오늘 첫 목록에 이미 들어 있던 종목입니다. 방금 진입한 것이 아닙니다.",
    gap: (span: string) => `연결이 비어 있던 동안 일어난 일을 나중 목록에서 알았습니다${span ? ` (${span})` : ""}.`,
    dayEnd: "하루가 끝나 닫혔습니다. 이탈 신호가 온 것은 아닙니다.",
  },

  conditions: "조건",
  conditionsCaption: (listening: number, total: number) => `${total}개 중 ${listening}개 수신`,
  conditionsEmpty: "조건 소식이 아직 없습니다",
  conditionsEmptyText: "hitstream.toml의 [[conditions]]에 적은 조건이 여기에 나타납니다.",
  members: "현재",
  enteredToday: "진입",
  exitedToday: "이탈",
  lastEvent: "기록",
  lastEventHint: "마지막 진입이나 이탈",
  proof: "생존",
  proofHint: "살아 있음을 마지막으로 확인한 때",
  ago: (text: string) => (text === "방금" ? text : `${text} 전`),
  none: "없음",
  sinceState: (time: string) => `${time}부터`,
  conditionState: {
    live: "수신 중",
    quiet: "조용함",
    listing: "목록 확인 중",
    requested: "요청함",
    resting: "휴식",
    disconnected: "연결 끊김",
    refused: "거부됨",
    unanswered: "응답 없음",
    missing: "목록에 없음",
    displaced: "밀려남",
    silent: "소식 끊김",
    unknown: "소식 없음",
  } satisfies Record<ConditionWord, string>,
  conditionStateHint: {
    live: "진입과 이탈을 받고 있습니다.",
    quiet: "수신은 살아 있고, 최근에 진입이나 이탈이 없을 뿐입니다.",
    listing: "조건 목록을 받아 이름을 찾고 있습니다.",
    requested: "실시간 등록을 요청하고 답을 기다립니다.",
    resting: "장 시간이 아니라 쉬고 있습니다.",
    disconnected: "키움과 연결되어 있지 않습니다.",
    refused: "키움이 등록을 거부했습니다.",
    unanswered: "등록 요청에 답이 없습니다.",
    missing: "계정의 조건 목록에 이 이름이 없습니다.",
    displaced: "같은 앱 키로 다른 곳에서 접속해 밀려났습니다.",
    silent: "수집기가 상태를 알리지 않습니다. 멈췄는지 확인하세요.",
    unknown: "이 조건의 구독 상태를 아직 듣지 못했습니다.",
  } satisfies Record<ConditionWord, string>,

  components: "구성 요소",
  componentKind: { session: "세션", subscription: "구독", worker: "스트림", sink: "싱크", diagnosis: "진단" },
  componentState: {
    live: "정상",
    ready: "준비됨",
    running: "실행 중",
    ok: "정상",
    connected: "연결됨",
    starting: "시작 중",
    connecting: "연결 중",
    login: "로그인 중",
    listing: "목록 확인 중",
    requested: "요청함",
    rebuilding: "다시 읽는 중",
    recovering: "복구 중",
    stopping: "멈추는 중",
    stopped: "멈춤",
    closed: "닫힘",
    idle: "대기",
    standby: "대기",
    resting: "휴식",
    disconnected: "연결 끊김",
    refused: "거부됨",
    unanswered: "응답 없음",
    missing: "없음",
    displaced: "밀려남",
    failed: "실패",
    deaf: "듣지 못함",
    silent: "소식 끊김",
    lagging: "밀림",
  } as Readonly<Record<string, string>>,

  number: (value: number) => numbers.format(value),
  duration: (seconds: number) => duration(seconds, PARTS_KO),
  age: (seconds: number) => age(seconds, PARTS_KO),
  brief: (seconds: number) => (seconds < 10 ? "방금" : brief(seconds, PARTS_KO)),
};

export type Words = typeof ko;

const en: Words = {
  skip: "Skip to recommendations",
  tagline: "Condition searches, live",
  connection: { live: "Live", stale: "Stale", connecting: "Connecting" },
  connectionHint: {
    live: "Connected: the page shows what is true now.",
    stale: "The server has gone silent. Reconnecting.",
    connecting: "Connecting to the server.",
  },
  staleTitle: (time) => `No update since ${time}`,
  staleText: (seconds) => `What is below is not current. Reconnecting (${numbers.format(seconds)} s).`,
  deafTitle: (time) => `No news since ${time}`,
  deafText: (cause) => `The dashboard's server is alive but hears nothing. ${cause}`,
  loginTitle: "Log in again",
  loginText: "The login has ended.",
  login: "Log in",
  rebuildingTitle: "Reading the day",
  rebuildingText: "The server has restarted; the page goes on when it has read the day.",
  connectingTitle: "Connecting to the server",
  unreachableTitle: "The server cannot be reached",
  unreachableText: "Check that hitstream is running. The page keeps trying.",
  clock: "Market clock",
  speed: (speed) => `${numbers.format(speed)}×`,
  weekdays: ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"],
  countRecommendations: "Open",
  countConditions: "Conditions",
  countEntered: "Entered",
  countExited: "Exited",
  today: "Today",
  language: "한국어",
  languageHint: "한국어로 바꾸기",
  theme: { system: "System theme", light: "Light theme", dark: "Dark theme" },
  themeHint: "Press for the next theme.",
  navigation: "Sections",

  now: "Recommended now",
  nowShort: "Now",
  nowCaption: "Open recommendations, highest score first",
  nowEmpty: "Nothing is recommended",
  nowEmptyText: "A stock appears here the moment its score reaches the threshold.",
  heldOrder: "Order held",
  heldOrderHint: "Rows stay where they are while you point at them.",
  stock: "Stock",
  score: "Score",
  reasons: "Why",
  ageColumn: "Age",
  opened: "Opened",
  openedAt: (time) => `opened ${time}`,
  newMark: "New",
  announce: (names) => `New recommendation: ${names}`,
  threshold: (value) => `threshold ${value}`,
  scoreTitle: (score, threshold, rule) => `Score ${score} · threshold ${threshold} · rule ${rule}`,
  expires: (time) => `valid until ${time}`,
  revision: (count) => `revision ${numbers.format(count)}`,
  detailsOpen: (name) => `Show why ${name}`,
  detailsClose: (name) => `Hide why ${name}`,
  since: "Since",
  visits: "Visits",
  part: "Part of score",
  visitsShort: (count) => `×${numbers.format(count)}`,
  visitsTitle: (count) => (count === 1 ? "1 visit today" : `${numbers.format(count)} visits today`),
  reasonKind: { condition: "Condition", search: "Search", manual: "By hand" },
  manualBy: (by) => (by ? `By hand · ${by}` : "By hand"),
  partTitle: (part, share) => `${part} of the score (${share}%)`,
  sinceTitle: (time) => `since ${time}`,
  closedToday: "Closed today",
  closedMore: (count) => `${numbers.format(count)} earlier ones are not shown.`,
  cause: {
    threshold: "Score reached the threshold",
    command: "Recommended by hand",
    reason: "A reason changed",
    score: "Score fell below the threshold",
    expired: "Expired",
    withdrawn: "Withdrawn by hand",
    "day-end": "The day ended",
  },

  feed: "Entries and exits",
  feedShort: "Feed",
  feedCaption: "Newest first",
  feedEmpty: "No entries or exits yet",
  feedEmptyText: "A line appears the moment a stock enters or leaves a condition.",
  feedNoMatch: "Nothing matches",
  feedNoMatchText: "Change the search or the condition.",
  search: "Name, code or initials (ㅅㅅㅈㅈ)",
  searchLabel: "Find a stock among entries and exits",
  clear: "Clear",
  allConditions: "All conditions",
  conditionFilter: "Choose a condition",
  pause: "Pause",
  resume: "Resume",
  pausedByHover: "Paused while you point",
  paused: "Paused",
  waiting: (count) => `${numbers.format(count)} new waiting`,
  newest: "Newest",
  limited: (count) => `The latest ${numbers.format(count)} are shown.`,
  kind: { entered: "In", exited: "Out" },
  reentry: (times) => `re-entry ${numbers.format(times)}`,
  dwell: (text) => `stayed ${text}`,
  notes: { initial: "first list", gap: "during gap", dayEnd: "day end" },
  noteTitles: {
    initial: "Already in the first list of the day: not a fresh entry.",
    gap: (span) => `Happened while the connection was away; a later list showed it${span ? ` (${span})` : ""}.`,
    dayEnd: "Closed because the day ended; no exit was received.",
  },

  conditions: "Conditions",
  conditionsCaption: (listening, total) => `${listening} of ${total} live`,
  conditionsEmpty: "No word of any condition yet",
  conditionsEmptyText: "The [[conditions]] of hitstream.toml appear here.",
  members: "Now",
  enteredToday: "In",
  exitedToday: "Out",
  lastEvent: "Last",
  lastEventHint: "Last entry or exit",
  proof: "Alive",
  proofHint: "Last proof of life",
  ago: (text) => (text === "now" ? text : `${text} ago`),
  none: "none",
  sinceState: (time) => `since ${time}`,
  conditionState: {
    live: "Live",
    quiet: "Quiet",
    listing: "Listing",
    requested: "Requested",
    resting: "Resting",
    disconnected: "Disconnected",
    refused: "Refused",
    unanswered: "Unanswered",
    missing: "Not in the list",
    displaced: "Displaced",
    silent: "Gone silent",
    unknown: "No word",
  },
  conditionStateHint: {
    live: "Entries and exits are being received.",
    quiet: "Alive; there simply was no entry or exit lately.",
    listing: "Reading the list of conditions to find the name.",
    requested: "Registration was requested; waiting for the answer.",
    resting: "Outside market hours.",
    disconnected: "Not connected to Kiwoom.",
    refused: "Kiwoom refused the registration.",
    unanswered: "The registration was not answered.",
    missing: "The account has no condition of this name.",
    displaced: "Another login with the same app key took the session.",
    silent: "The producer has stopped reporting: check that it runs.",
    unknown: "The state of this subscription has not been heard yet.",
  },

  components: "Components",
  componentKind: { session: "Session", subscription: "Subscription", worker: "Stream", sink: "Sink", diagnosis: "Diagnosis" },
  componentState: {},

  number: (value) => numbers.format(value),
  duration: (seconds) => duration(seconds, PARTS_EN),
  age: (seconds) => age(seconds, PARTS_EN),
  brief: (seconds) => (seconds < 10 ? "now" : brief(seconds, PARTS_EN)),
};

export const WORDS: Readonly<Record<Language, Words>> = { ko, en };

/** A score, always with as many decimals as its neighbours. */
export const formatScore = (score: number): string => score.toFixed(2);

export interface Note {
  readonly text: string;
  readonly title: string;
}

/** What marks a transition as inferred instead of seen, in words; null if it was seen as it happened. */
export function inferredNote(transition: Transition, words: Words): Note | null {
  if (transition.origin === "day-end") return { text: words.notes.dayEnd, title: words.noteTitles.dayEnd };
  if (transition.initial) return { text: words.notes.initial, title: words.noteTitles.initial };
  if (transition.origin === "snapshot") {
    const { gap_from: from, gap_to: to } = transition;
    const span = from && to ? `${kstTime(parse(from))}–${kstTime(parse(to))}` : "";
    return { text: words.notes.gap, title: words.noteTitles.gap(span) };
  }
  return null;
}
