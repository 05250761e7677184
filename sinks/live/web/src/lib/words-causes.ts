/**
 * What the product itself gives as a cause, or as the reason of a refused question, in Korean. Pure.
 *
 * Causes travel as English sentences, made where they arise. A row below is such a sentence with `{…}` for what differs,
 * and its Korean; `{…*}` is again something of this table. What Kiwoom says is not in it, and stays as it is. Every row
 * is held to the sources, and the sources to the rows, by `tests/sinks/live/test_causes.py`, which reads this file: one
 * row a line, both parts in double quotes.
 */

// prettier-ignore
export const CAUSES: readonly (readonly [english: string, korean: string])[] = [
  // What is said around another cause. These come first: the others take whatever follows.
  ["{cause*}; next try in {seconds} s", "{cause*} · {seconds}초 뒤 다시 시도"],
  ["{cause*}; goes on {moment} KST", "{cause*} · {moment}에 다시 시작"],
  ["{cause*}; it is requested anew", "{cause*} · 다시 요청합니다"],
  ["the run of {time} failed: {cause*}; it is tried again", "{time} 실행 실패: {cause*} · 다시 시도합니다"],
  ["{cause*}; next {moment}", "{cause*}; 다음 {moment}"],
  ["{cause*}; no further run", "{cause*}; 다음 실행 없음"],
  ["{date}: {there} of {all} charts{more*}", "{date}: 차트 {all}개 중 {there}개{more*}"],
  ["{cause*} (try {number} of {all})", "{cause*} ({all}번 중 {number}번째 시도)"],
  ["{cause*} – another program has logged in with this app key. No other process of this user holds the key's lock, so it runs on another machine, under another user, or is no Hitstream: stop it, or give it an app key of its own, then restart this one", "{cause*} – 다른 프로그램이 이 앱 키로 로그인했습니다. 이 사용자의 다른 프로세스는 키를 쓰지 않으므로 다른 컴퓨터나 다른 사용자, 또는 Hitstream이 아닌 프로그램입니다. 그쪽을 끄거나 다른 앱 키를 주고 다시 시작하세요"],

  // A condition's subscription.
  ["quiet since {time}; {audit*}", "{time}부터 조용함 · {audit*}"],
  ["quiet since {time}", "{time}부터 조용함"],
  ["audit at {time}: agrees", "{time} 점검: 일치"],
  ["audit at {time}: silent ({cause*})", "{time} 점검: 응답 없음 ({cause*})"],
  ["audit at {time}: refused ({cause*})", "{time} 점검: 거부됨 ({cause*})"],
  ["audit at {time}: refuted ({cause*})", "{time} 점검: 차이를 풀지 못함 ({cause*})"],
  ["audit at {time}: unsettled ({cause*})", "{time} 점검: 결론 없음 ({cause*})"],
  ["audit at {time}: dead ({cause*})", "{time} 점검: 끊긴 것으로 판정 ({cause*})"],
  ["audit at {time}: missed ({cause*})", "{time} 점검: 놓친 것 있음 ({cause*})"],
  ["audit at {time}: {outcome}", "{time} 점검: {outcome}"],
  ["no longer configured", "설정에서 빠짐"],
  ["starting", "시작하는 중"],
  ["stopped", "멈춤"],
  ["the condition was requested anew", "조건을 다시 요청함"],
  ["the producer was not running", "수집기가 꺼져 있었음"],
  ["its registration was lost", "실시간 등록이 사라짐"],
  ["its number changed to {seq}", "조건 번호가 {seq}번으로 바뀜"],
  ["audited by a new request: searches come to nothing", "새 요청으로 점검 중: 단건 조회가 되지 않음"],
  ["CNSRREQ was not answered within {seconds} s", "{seconds}초 안에 CNSRREQ 응답 없음"],
  ["the reply to CNSRREQ was incomplete", "CNSRREQ 응답이 온전하지 않음"],
  ["CNSRREQ is not answered, though the list and other conditions are: is this condition too wide?", "목록과 다른 조건은 응답하는데 이 조건의 CNSRREQ에는 응답이 없음: 조건식이 너무 넓지 않은지 확인하세요"],
  ["{condition}: {count} CNSRREQs were not answered", "{condition}: CNSRREQ {count}번에 응답 없음"],
  ["the account has {count} conditions named {name} (seq {numbers}): set seq to say which one is meant", "계정에 {name} 조건이 {count}개 있음 (번호 {numbers}): 어느 것인지 seq로 정하세요"],
  ["seq {seq} is now {title}, not {name}: correct seq or leave it out", "{seq}번은 이제 {name} 조건이 아니라 {title} 조건임: seq를 고치거나 지우세요"],
  ["the account has no condition named {name}; it has: {names}", "계정에 {name} 조건이 없음. 있는 조건: {names}"],
  ["the account has no condition {name} with seq {seq}; it has: {names}", "계정에 {seq}번 {name} 조건이 없음. 있는 조건: {names}"],
  ["missed: another hit of {code}, which had not left", "놓침: 나간 적 없는 {code} 종목이 또 진입"],
  ["missed: an exit of {code}, which was not in", "놓침: 들어 있지 않던 {code} 종목이 이탈"],
  ["missed: it speaks, but a search shows {others*}", "놓침: 신호는 오지만 단건 조회와 다름 – {others*}"],
  ["dead: nothing said for {seconds} s while a search shows {others*}", "끊김: {seconds}초 동안 신호가 없는데 단건 조회와 다름 – {others*}"],
  ["dead: nothing said for {seconds} s while a new request shows {others*}", "끊김: {seconds}초 동안 신호가 없는데 새 요청과 다름 – {others*}"],
  ["the search and the registration differ for good: {others*}", "단건 조회와 실시간 등록이 계속 다름 – {others*}"],
  ["every look at it differed: {others*}", "볼 때마다 다름 – {others*}"],
  ["{count} other{s} ({codes})", "{count}종목 차이 ({codes})"],
  ["the search was not answered within {seconds} s", "{seconds}초 안에 단건 조회 응답 없음"],
  ["the search's answer was incomplete", "단건 조회 응답이 온전하지 않음"],

  // The session.
  ["no PING for {seconds} s", "{seconds}초 동안 PING 없음"],
  ["LOGIN was not answered within {seconds} s", "{seconds}초 안에 LOGIN 응답 없음"],
  ["LOGIN was refused: {said}", "LOGIN 거절: {said}"],
  ["CNSRLST was not answered within {seconds} s: `hitstream doctor` says why", "{seconds}초 안에 CNSRLST 응답 없음: hitstream doctor가 까닭을 말해 줍니다"],
  ["CNSRLST was not answered within {seconds} s", "{seconds}초 안에 CNSRLST 응답 없음"],
  ["CNSRLST was refused {count} times: {said*}", "CNSRLST가 {count}번 거절됨: {said*}"],
  ["the list of conditions was unreadable", "조건 목록을 읽을 수 없음"],
  ["the connection broke", "연결이 끊어짐"],
  ["the connection ended", "연결이 끝남"],
  ["closed by Kiwoom ({said})", "키움이 연결을 닫음 ({said})"],
  ["Kiwoom does not answer at {address}: {why*}", "키움이 응답하지 않음 ({address}): {why*}"],
  ["no answer in time", "시간 안에 답이 없음"],
  ["Kiwoom answers {address} with HTTP {status}: it may be closed for maintenance", "키움 {address}의 응답이 HTTP {status}임: 점검 중일 수 있습니다"],
  ["Kiwoom answered {address} with HTTP {status} and no JSON: it may be closed for maintenance", "키움 {address}의 응답이 HTTP {status}이고 JSON이 아님: 점검 중일 수 있습니다"],
  ["Kiwoom has taken nothing for {seconds} s", "{seconds}초 동안 키움이 아무것도 받지 않음"],
  ["{why}: correct kiwoom.websocket_url", "{why}: kiwoom.websocket_url을 고치세요"],
  ["{address} is no address ({why}): correct kiwoom.rest_url", "주소가 아님: {address} ({why}): kiwoom.rest_url을 고치세요"],
  ["a diagnosis asked for a fresh connection", "진단이 새 연결을 씀"],
  ["the diagnosis over a fresh connection has ended", "새 연결로 한 진단이 끝남"],
  ["the trading day begins", "거래일이 시작됨"],
  ["before the market opens", "장 시작 전"],
  ["after the close", "장 마감 뒤"],
  ["weekend", "주말"],
  ["closed by kiwoom.days", "kiwoom.days에 쉬는 날로 적힘"],
  ["market holiday: {name*}", "휴장일: {name*}"],
  ["there is no session with Kiwoom at the moment", "지금은 키움 세션이 없음"],

  // The token and calls.
  ["Kiwoom gives no token for now ({said*}): too many were asked for", "키움이 지금은 토큰을 주지 않음 ({said*}): 너무 많이 요청했습니다"],
  ["Kiwoom gives no token ({said*}): {remedy*}", "키움이 토큰을 주지 않음 ({said*}): {remedy*}"],
  ["no reason given", "이유 없음"],
  ["Kiwoom allows no more calls for now ({said})", "키움 호출 한도 초과 ({said})"],
  ["{call} was refused ({said}): {remedy*}", "{call} 거절됨 ({said}): {remedy*}"],
  ["{call} was refused ({said})", "{call} 거절됨 ({said})"],
  ["{call} has more than {pages} pages", "{call} 응답이 {pages}쪽을 넘음"],
  ["{call} was not answered in {tries} tries", "{call}에 {tries}번 모두 응답 없음"],
  ["{name} was not answered within {seconds} s, for types 0 and 1: `hitstream doctor` says why", "{seconds}초 안에 {name} 응답 없음 (유형 0과 1): hitstream doctor가 까닭을 말해 줍니다"],
  ["{name} has the numbers {numbers}: set seq to say which one is meant", "{name} 조건의 번호가 여럿임 ({numbers}): 어느 것인지 seq로 정하세요"],
  ["check kiwoom.app_key against the Open API portal", "kiwoom.app_key를 Open API 포털과 비교하세요"],
  ["check kiwoom.secret_key against the Open API portal", "kiwoom.secret_key를 Open API 포털과 비교하세요"],
  ["the token was issued to another IP address: remove the cached token and start again from this machine", "다른 IP에서 받은 토큰임: 저장된 토큰을 지우고 이 컴퓨터에서 다시 시작하세요"],
  ["set kiwoom.app_key and kiwoom.secret_key", "kiwoom.app_key와 kiwoom.secret_key를 설정하세요"],
  ["the key belongs to the other environment: use a real key with api.kiwoom.com, a paper key with mockapi", "다른 환경의 키임: 실전 키는 api.kiwoom.com, 모의 키는 mockapi에서 쓰세요"],
  ["the token or this device is not accepted: register this machine's IP address on the Open API portal", "토큰이나 단말기가 거절됨: 이 컴퓨터의 IP를 Open API 포털에 등록하세요"],
  ["register this machine's IP address on the Open API portal", "이 컴퓨터의 IP를 Open API 포털에 등록하세요"],
  ["check kiwoom.app_key, kiwoom.secret_key and the registered IP address on the portal", "kiwoom.app_key, kiwoom.secret_key와 포털에 등록한 IP를 확인하세요"],
  ["another process has held {file} for {seconds} s: is it stuck?", "다른 프로세스가 {file} 파일을 {seconds}초째 쥐고 있음: 멈춰 있지 않은지 확인하세요"],

  // Scheduled searches and diagnoses.
  ["the run of {time} was missed: the producer was not running", "{time} 실행을 놓침: 수집기가 꺼져 있었음"],
  ["the run of {time} was missed: it never succeeded", "{time} 실행을 놓침: 한 번도 성공하지 못함"],
  ["{run*} (caught up {minutes} min late)", "{run*} ({minutes}분 늦게)"],
  ["the run of {time}", "{time} 실행"],
  ["{time}: {count} stocks{more*}", "{time}: {count}종목{more*}"],
  [", from the realtime snapshot{more*}", ", 실시간 목록에서{more*}"],
  ["no longer planned", "예약에서 빠짐"],
  ["next {moment}", "다음 {moment}"],
  ["no further run", "다음 실행 없음"],

  // The bars of a day.
  [", {count} empty{more*}", ", 거래 없음 {count}개{more*}"],
  [", {count} failed{more*}", ", 실패 {count}개{more*}"],
  [", {count} missing{more*}", ", 빠짐 {count}개{more*}"],
  ["reading which stocks were hit", "어느 종목이 포착됐는지 읽는 중"],
  ["waiting {seconds} s: {cause*}", "{seconds}초 기다리는 중: {cause*}"],
  ["refused: {said*}", "거절됨: {said*}"],
  ["{said*} (and {count} others)", "{said*} (그 밖에 {count}개)"],
  ["{count} rows could not be read", "{count}줄을 읽지 못함"],
  ["no hit of this day is on Kafka", "이날의 포착이 Kafka에 없음"],
  ["the day goes on: all of it is fetched after the close", "아직 장중임: 마감 뒤에 모두 받습니다"],
  ["{name} is fetching the bars of {date}", "{name} 수집기가 {date} 봉을 받는 중"],
  ["{name} has fetched the bars of {date}", "{name} 수집기가 {date} 봉을 받음"],
  ["fetched by {name}", "{name} 수집기가 받음"],
  ["a fault of ours: {error}", "프로그램 오류: {error}"],
  ["no longer wanted", "더는 쓰지 않음"],

  // Workers and sinks.
  ["waiting for Kafka", "Kafka를 기다리는 중"],
  ["reading the state", "상태를 읽는 중"],
  ["stopping", "멈추는 중"],
  ["partitions are being assigned", "파티션을 나누는 중"],
  ["connecting to Kafka at {address}", "Kafka({address})에 연결하는 중"],
  ["reading the day from Kafka: {count} records to go", "Kafka에서 오늘 기록을 읽는 중: {count}건 남음"],
  ["reading the day from Kafka", "Kafka에서 오늘 기록을 읽는 중"],
  ["reading the prices of today", "오늘 시세를 읽는 중"],
  ["Kafka at {address} does not answer", "Kafka({address})가 응답하지 않음"],
  ["Kafka at {address} has not answered yet.", "Kafka({address})가 아직 응답하지 않음"],
  ["Kafka at {address} has not answered lately.", "Kafka({address})가 한동안 응답하지 않음"],
  ["Kafka at {address} answered no fetch for too long; asking again.", "Kafka({address})가 너무 오래 기록을 주지 않음: 다시 요청합니다"],
  ["Kafka at {address} did not admit a member to the group {group} for too long; asking again.", "Kafka({address})가 너무 오래 그룹 {group}에 받아 주지 않음: 다시 요청합니다"],
  ["Kafka at {address} refuses the group {group}: {error}", "Kafka({address})가 {group} 그룹을 거절함: {error}"],
  ["Kafka at {address} can't be reached; check kafka.bootstrap_servers and that it runs.", "Kafka({address})에 닿지 않음: kafka.bootstrap_servers와 실행 여부를 확인하세요"],
  ["Kafka at {address} can't be reached; start it or correct kafka.bootstrap_servers", "Kafka({address})에 닿지 않음: 시작하거나 kafka.bootstrap_servers를 고치세요"],
  ["Kafka can't be reached at {address}: start it, or set kafka.bootstrap_servers.", "Kafka({address})에 닿지 않음: 시작하거나 kafka.bootstrap_servers를 정하세요"],
  ["Kafka at {address} lacks {topics}; run `hitstream topics` to create them.", "Kafka({address})에 {topics} 토픽이 없음: hitstream topics로 만드세요"],
  ["Kafka at {address} has no topic {topic}: create it with hitstream topics.", "Kafka({address})에 {topic} 토픽이 없음: hitstream topics로 만드세요"],
  ["Kafka at {address} has no topic {topics}: run `hitstream topics`", "Kafka({address})에 {topics} 토픽이 없음: hitstream topics를 실행하세요"],
  ["{state} has {there} partitions and {source} {here}: they must be the same, run `hitstream topics --partitions {count}`", "파티션 수가 다름 – {state} {there}개, {source} {here}개: 같아야 하니 hitstream topics --partitions {count}를 실행하세요"],
  ["the stream worker gave up: {cause*}", "스트림 처리기가 멈춤: {cause*}"],
  ["Faust stopped by itself", "Faust가 스스로 멈춤"],
  ["Kafka has not acknowledged what was written to {topics} within {seconds} s: look in the broker's log for a full disk or missing replicas, and at the network", "{seconds}초 안에 {topics} 쓰기를 Kafka가 확인하지 않음: 브로커 로그(디스크, 복제본)와 네트워크를 보세요"],
  ["Kafka has not acknowledged what was written to {topics} {error}: look in the broker's log for a full disk or missing replicas, and at the network", "{topics} 쓰기를 Kafka가 확인하지 않음 {error}: 브로커 로그(디스크, 복제본)와 네트워크를 보세요"],
  ["the state can't be read from Kafka: {error}", "Kafka에서 상태를 읽지 못함: {error}"],
  ["another worker has taken over {topic}[{number}]", "다른 처리기가 {topic}의 {number}번 파티션을 넘겨받음"],
  ["ClickHouse at {address} has not answered yet.", "ClickHouse({address})가 아직 응답하지 않음"],
  ["Rows are stored, but what became of hits can't be worked out: {error}", "기록은 저장되지만 포착 후 수익률을 계산하지 못함: {error}"],
  ["ClickHouse at {address} can't take rows now: {error}", "ClickHouse({address})가 지금 기록을 받지 못함: {error}"],
  ["ClickHouse at {address} refuses the login of {user}; check user and password.", "ClickHouse({address})가 {user} 로그인을 거절함: 사용자와 암호를 확인하세요"],
  ["ClickHouse at {address} can't be reached; check clickhouse.dsn and that the server runs.", "ClickHouse({address})에 닿지 않음: clickhouse.dsn과 실행 여부를 확인하세요"],
  ["ClickHouse at {address} refused: {error}", "ClickHouse({address})가 거절함: {error}"],
  ["There is no database {name} at {address}; run `hitstream migrate`.", "{address}에 {name} 데이터베이스가 없음: hitstream migrate를 실행하세요"],

  // What a question is refused with.
  ["This needs ClickHouse: set clickhouse.dsn (HITSTREAM_CLICKHOUSE__DSN) and restart.", "ClickHouse가 있어야 합니다: clickhouse.dsn을 설정하고 다시 시작하세요."],
  ["from: {first} is after to, {last}: give the earlier day first.", "시작일({first})이 종료일({last})보다 뒤입니다. 앞선 날짜를 먼저 쓰세요."],
  ["ClickHouse is busy with other questions: ask again in a moment.", "ClickHouse가 다른 질문에 답하고 있습니다. 잠시 뒤 다시 시도하세요."],
  ["ClickHouse does not answer this in time: ask again, or for less.", "ClickHouse가 시간 안에 답하지 못했습니다. 다시 시도하거나 기간을 줄이세요."],
  ["ClickHouse has not all tables and views yet: run `hitstream migrate`.", "ClickHouse에 아직 없는 표가 있습니다: hitstream migrate를 실행하세요."],
  ["It would have expired already: give an expires_at that is still to come.", "유효 기간이 이미 지났습니다. 더 뒤의 시각을 고르세요."],
  ["It would expire later than in a year: give an earlier expires_at, or none.", "유효 기간이 1년을 넘습니다. 더 이른 시각을 고르세요."],
  ["Kafka did not take the command: see whether it shows, and send it again with the same request if not.", "Kafka가 명령을 받지 않았습니다. 나타나는지 보고, 나타나지 않으면 다시 보내세요."],
  ["This dashboard has no Kafka to give commands to.", "이 화면에는 명령을 보낼 Kafka가 없습니다."],
  ["This is a fault of the dashboard; its log says more.", "화면 서버의 오류입니다. 자세한 것은 그 기록에 있습니다."],
  ["The day is being read from Kafka: try again in a moment.", "오늘 기록을 읽고 있습니다. 잠시 뒤 다시 시도하세요."],
  ["No condition of this name has reported today.", "오늘 이 이름의 조건은 소식이 없습니다."],
  ["There is no stock of this code, and nothing was heard of it today.", "이 코드의 종목이 없고, 오늘 소식도 없습니다."],
  ["There is no listed stock {code}.", "상장 종목에 없는 코드입니다: {code}."],
  ["There is no account {name}: GET /api/session lists those there are.", "{name} 계정이 없습니다."],
  ["There is no place of this cursor: give `next` of a page, or none for the newest.", "이어 볼 자리를 찾지 못했습니다. 처음부터 다시 보세요."],
  ["There is nothing at this address: GET /openapi.json lists what there is.", "이 주소에는 아무것도 없습니다."],
  ["The body is nested too deeply to be read.", "보낸 내용이 너무 깊어 읽지 못했습니다."],
  ["The body is not UTF-8: send JSON in UTF-8.", "보낸 내용이 UTF-8이 아닙니다."],
];

/** Days on which the market is closed, as the calendar's library names them. */
// prettier-ignore
const HOLIDAYS: readonly (readonly [english: string, korean: string])[] = [
  ["Alternative holiday for {name*}", "{name*} 대체 휴일"],
  ["The day preceding {name*}", "{name*} 전날"],
  ["The second day of {name*}", "{name*} 다음날"],
  ["New Year's Day", "신정"],
  ["Korean New Year", "설날"],
  ["Independence Movement Day", "삼일절"],
  ["Labor Day", "노동절"],
  ["Workers' Day", "근로자의 날"],
  ["Children's Day", "어린이날"],
  ["Buddha's Birthday", "부처님오신날"],
  ["Memorial Day", "현충일"],
  ["Constitution Day", "제헌절"],
  ["Liberation Day", "광복절"],
  ["Chuseok", "추석"],
  ["Armed Forces Day", "국군의 날"],
  ["National Foundation Day", "개천절"],
  ["Hangul Day", "한글날"],
  ["Christmas Day", "성탄절"],
  ["End of Year Holiday", "연말 휴장일"],
  ["Temporary Public Holiday", "임시공휴일"],
  ["National Assembly Election Day", "국회의원 선거일"],
  ["Presidential Election Day", "대통령 선거일"],
  ["Local Election Day", "지방선거일"],
];

interface Pattern {
  readonly matches: RegExp;
  /** Names in the order in which they stand in the English; those with `*` are again causes. */
  readonly names: readonly string[];
  readonly korean: string;
}

/** What is a number matches nothing else, and a word not several causes: what others say must not look like ours. */
const NUMBERS = new Set(["all", "count", "here", "minutes", "number", "pages", "seconds", "status", "there", "tries"]);
const WORDS = new Set(["date", "moment", "time"]);
const HOLE = /\{([a-z]+\*?)\}/g;

const PATTERNS: readonly Pattern[] = [...CAUSES, ...HOLIDAYS].map(([english, korean]) => ({
  matches: new RegExp(`^${english.split(HOLE).map((part, index) => (index % 2 ? (NUMBERS.has(part) ? "([\\d.]+)" : WORDS.has(part) ? "([^;]*?)" : part === "call" ? "([^;:]*?)" : "(.*?)") : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))).join("")}$`, "s"),
  names: [...english.matchAll(HOLE)].map((hole) => hole[1]!),
  korean,
}));

/** The Korean of a cause as one of the table; null if it is not in it. */
function known(cause: string): string | null {
  for (const { matches, names, korean } of PATTERNS) {
    const found = matches.exec(cause);
    if (found) {
      return korean.replace(HOLE, (_, name: string) => {
        const value = found[names.indexOf(name) + 1]!;
        return name.endsWith("*") ? translated(value) : value;
      });
    }
  }
  return null;
}

/** What was said lately, by the cause: the same few are on the screen again and again. */
const said = new Map<string, string>();
const KEPT = 200;

/** A cause in Korean; several, which `; ` joins, each by itself; and what is not known as it came. */
export function koreanCause(cause: string): string {
  let korean = said.get(cause);
  if (korean === undefined) {
    korean = translated(cause);
    if (said.size >= KEPT) said.clear();
    said.set(cause, korean);
  }
  return korean;
}

function translated(cause: string): string {
  const whole = known(cause);
  if (whole !== null) return whole;
  for (let at = cause.lastIndexOf("; "); at > 0; at = cause.lastIndexOf("; ", at - 1)) {
    const head = known(cause.slice(0, at));
    if (head !== null) return `${head}; ${translated(cause.slice(at + 2))}`;
  }
  const first = cause.indexOf("; ");
  return first < 0 ? cause : `${cause.slice(0, first)}; ${translated(cause.slice(first + 2))}`;
}
