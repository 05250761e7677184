# ruff: noqa: E501 – a sentence stands on one line
"""What the doctor says, in Korean and English: every finding and every verdict, in words for the person who waits.

Only words. `doctor` decides which are said; the fields in braces are the facts that it gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from .doctor import NUMBERS, Cause, Fact, Finding, Sure, Surer, Verdict

Language = Literal["ko", "en"]


class Words(NamedTuple):
    """One text in both languages."""

    en: str
    ko: str


class Advice(NamedTuple):
    """What is wrong, and what to do."""

    wrong: Words
    remedy: Words


STAGES: Final[dict[str, Words]] = {
    "settings": Words("settings", "설정"),
    "token": Words("token", "토큰"),
    "connect": Words("connect", "연결"),
    "login": Words("login", "로그인"),
    "list": Words("list", "목록"),
    "request": Words("request", "요청"),
    "response": Words("response", "응답"),
    "events": Words("events", "이벤트"),
    "experiment": Words("experiment", "실험"),
}

SURE: Final[dict[Sure, Words]] = {
    "proved": Words("proved", "확인됨"),
    "likely": Words("likely", "유력"),
    "possible": Words("possible", "가능성"),
}

TITLES: Final[dict[Cause, Words]] = {
    "healthy": Words("Kiwoom's side works", "키움 쪽은 정상"),
    "quiet": Words("Quiet, not dead", "조용함 (끊김 아님)"),
    "ready": Words("Ready for the open", "개장 준비 완료"),
    "settings": Words("Settings incomplete", "설정 미완성"),
    "token-refused": Words("Key or token refused", "키·토큰 거절"),
    "maintenance": Words("Kiwoom under maintenance", "키움 점검 중"),
    "rate-limited": Words("Too many calls", "호출 한도 초과"),
    "unreachable": Words("Kiwoom unreachable", "키움 연결 불가"),
    "login-refused": Words("LOGIN refused", "LOGIN 거절"),
    "login-silent": Words("LOGIN unanswered", "LOGIN 무응답"),
    "list-silent": Words("Condition list unanswered", "조건 목록 무응답"),
    "list-refused": Words("Condition list refused", "조건 목록 거절"),
    "missing": Words("No such condition", "조건 없음"),
    "request-refused": Words("Request refused", "요청 거절"),
    "slow": Words("Server slow", "서버 지연"),
    "connection-lost": Words("Connection lost", "연결 끊김"),
    "connection-deaf": Words("This connection was deaf", "이 연결만 먹통"),
    "registration-lost": Words("Registration dropped", "실시간 등록 누락"),
    "stream-dead": Words("Realtime is dead", "실시간 통지 죽음"),
    "no-list": Words("CNSRREQ without CNSRLST", "CNSRLST 없이 요청"),
    "burst": Words("Requests too fast", "요청이 너무 빠름"),
    "reply-not-taken": Words("Reply not taken by the program", "프로그램이 응답을 놓침"),
    "registered-already": Words("Already registered", "이미 등록됨"),
    "stale-seq": Words("Wrong condition number", "잘못된 조건 번호"),
    "no-echo": Words("PINGs not echoed", "PING 응답 누락"),
    "displaced": Words("Another program took the key", "다른 프로그램이 앱키 사용"),
    "closed-hours": Words("Market not open", "장 시간 아님"),
    "one-condition": Words("One condition is broken", "이 조건식만 이상"),
    "search-while-live": Words("No search beside realtime", "실시간 중 단건 조회 불가"),
    "no-stex-tp": Words("stex_tp left out", "stex_tp 누락"),
    "rights-withdrawn": Words("Right or conditions withdrawn", "권한·조건식 회수"),
    "module-down": Words("Server's condition module is down", "서버 조건검색 모듈 무응답"),
    "realtime-down": Words("Server's realtime conditions are down", "서버 실시간 조건검색 무응답"),
    "search-down": Words("Server's one-shot searches are down", "서버 단건 조회 무응답"),
    "reply-unreadable": Words("Reply unreadable", "응답 해독 불가"),
}

SURER: Final[dict[Surer, Words]] = {
    "": Words("", ""),
    "fresh": Words(
        "`hitstream doctor --fresh` decides: the running producer then ends its session for some seconds and lends a fresh connection, and what happens meanwhile is recorded as a gap.",
        "`hitstream doctor --fresh`로 확정할 수 있습니다. 실행 중인 수집기가 세션을 몇 초간 끊고 새 연결을 내주며, 그동안은 공백으로 기록됩니다.",
    ),
    "second-key": Words(
        "A second app key decides whether the server or this key's right is at fault: `hitstream doctor --second-key-file FILE`.",
        "서버 문제인지 이 앱키의 권한 문제인지는 두 번째 앱키로 확정할 수 있습니다: `hitstream doctor --second-key-file FILE`.",
    ),
    "in-hours": Words(
        "Only a request in trading hours decides: run `hitstream doctor` again after the open.",
        "장중의 요청만이 확정할 수 있습니다. 개장 후 `hitstream doctor`를 다시 실행하세요.",
    ),
}

FINDINGS: Final[dict[str, Words]] = {
    "settings": Words(
        "the settings are complete; {conditions} conditions configured", "설정 완료, 조건 {conditions}개"
    ),
    "settings-bad": Words("{problems}", "{problems}"),
    "token": Words("token received in {took} s", "{took}초 만에 토큰 발급"),
    "token-bad": Words("no token: {message}", "토큰 없음: {message}"),
    "connect": Words("WebSocket open in {took} s", "{took}초 만에 웹소켓 연결"),
    "connect-bad": Words("no connection: {message}", "연결 실패: {message}"),
    "login": Words("LOGIN accepted in {took} s", "{took}초 만에 LOGIN 수락"),
    "login-bad": Words("LOGIN refused: {message}", "LOGIN 거절: {message}"),
    "login-silent": Words("LOGIN is not answered ({took} s)", "LOGIN 응답 없음 ({took}초)"),
    "history": Words(
        "the session's own record: {frames} frames, {requests} requests, {silent} without an answer, {pings} PINGs",
        "세션 기록: 프레임 {frames}개, 요청 {requests}개, 무응답 {silent}개, PING {pings}개",
    ),
    "list": Words("CNSRLST lists {count} conditions in {took} s: {names}", "{took}초 만에 조건 {count}개: {names}"),
    "list-again": Words(
        "it answers CNSRLST with {count} conditions in {took} s", "새 연결에서 {took}초 만에 조건 {count}개"
    ),
    "list-bad": Words("CNSRLST refused: {code} {message}", "CNSRLST 거절: {code} {message}"),
    "list-silent": Words(
        "CNSRLST is not answered in {took} s; {pings} PINGs meanwhile", "CNSRLST {took}초간 무응답, PING {pings}개"
    ),
    "no-session": Words("the running producer has no session: {message}", "실행 중인 수집기에 세션이 없음: {message}"),
    "record": Words("there is only the record of a session that has ended", "끝난 세션의 기록만 있음"),
    "given-up": Words("the producer gave this connection up: {message}", "수집기가 이 연결을 포기함: {message}"),
    "never-listed": Words(
        "CNSRREQ was sent without a CNSRLST before it on this connection",
        "이 연결에서 CNSRLST 없이 CNSRREQ가 먼저 전송됨",
    ),
    "missing": Words("no condition is named “{condition}”", "“{condition}” 조건이 목록에 없음"),
    "stale-seq": Words(
        "“{condition}” has number {found}, not {seq} (which is now “{other}”)",
        "“{condition}”의 번호는 {seq}이 아니라 {found} ({seq}번은 이제 “{other}”)",
    ),
    "asked": Words(
        "CNSRREQ “{condition}” (type {search_type}, stex_tp {stex_tp}) sent: no answer in {took} s, {pings} PINGs",
        "CNSRREQ “{condition}” (type {search_type}, stex_tp {stex_tp}) 전송: {took}초간 무응답, PING {pings}개",
    ),
    "answered": Words(
        "“{condition}” (type {search_type}) answered in {took} s: {count} stocks",
        "“{condition}” (type {search_type}) {took}초 만에 응답: {count}종목",
    ),
    "silent": Words(
        "CNSRREQ “{condition}” (seq {seq}, type {search_type}, stex_tp {stex_tp}) has no answer",
        "CNSRREQ “{condition}” (seq {seq}, type {search_type}, stex_tp {stex_tp}) 무응답",
    ),
    "refused": Words("“{condition}” refused: {code} {message}", "“{condition}” 거절: {code} {message}"),
    "reply-in-log": Words(
        "the reply for “{condition}” came {took} s after its request, yet the program holds it for {belief}",
        "“{condition}”의 응답이 {took}초 만에 도착했으나 프로그램은 {belief} 상태로 여김",
    ),
    "reply-unreadable": Words(
        "the reply for “{condition}” came {took} s after its request, and cannot be read",
        "“{condition}”의 응답이 {took}초 만에 도착했으나 읽을 수 없음",
    ),
    "events": Words("{events} hits and exits, {pings} PINGs", "편입·이탈 {events}건, PING {pings}개"),
    "no-events": Words("no hit or exit in {seconds} s; {pings} PINGs", "{seconds}초간 편입·이탈 없음, PING {pings}개"),
    "experiment-answered": Words(
        "{tried}: “{condition}” (type {search_type}) is answered in {took} s",
        "{tried}: “{condition}” (type {search_type}) {took}초 만에 응답",
    ),
    "experiment-silent": Words(
        "{tried}: “{condition}” (type {search_type}) is not answered in {took} s",
        "{tried}: “{condition}” (type {search_type}) {took}초간 무응답",
    ),
    "others-answer": Words("other conditions are answered", "다른 조건은 응답함"),
    "not-ours": Words(
        "conditions are live on the running producer's session: it is not interrupted for a fresh connection",
        "실행 중인 수집기의 세션에 수신 중인 조건이 있어, 새 연결을 위해 끊지 않음",
    ),
    "lending": Words(
        "the running producer ends its session in good order and opens a fresh one for this",
        "실행 중인 수집기가 세션을 정상 종료하고 진단용 새 연결을 여는 중",
    ),
    "not-lent": Words(
        "the running producer gives no fresh connection: {message}", "수집기가 새 연결을 내주지 않음: {message}"
    ),
    "reconnecting": Words("a fresh connection", "새 연결 시도"),
    "with-second-key": Words("a fresh connection with the second app key", "두 번째 앱키로 새 연결"),
    "second-key-refused": Words("the second app key gives no token: {message}", "두 번째 앱키 토큰 실패: {message}"),
    "not-open": Words("the market is not open now", "지금은 장중이 아님"),
    "probe-silent": Words("CNSRLST is no longer answered", "CNSRLST가 더 이상 응답하지 않음"),
    "not-registered": Words(
        "a repeated CNSRREQ for “{condition}” is accepted as new: it was not registered any more",
        "“{condition}” 재요청이 신규로 수락됨: 등록이 사라져 있었음",
    ),
    "still-registered": Words(
        "“{condition}” is registered: a repeated CNSRREQ is refused with 900003",
        "“{condition}” 등록 유지 확인 (재요청에 900003)",
    ),
    "registration-unknown": Words(
        "a repeated CNSRREQ for “{condition}” gives no clear answer", "“{condition}” 재요청으로 등록 여부 불명"
    ),
    "nobody-moved": Words(
        "a one-shot search of “{condition}” finds the same stocks: nothing was missed",
        "“{condition}” 단건 조회 결과 동일: 놓친 것 없음",
    ),
    "moved-unseen": Words(
        "{count} stocks of “{condition}” came or went without an entry on the stream",
        "“{condition}” 종목 {count}개가 실시간 통지 없이 바뀜",
    ),
}

TRIED: Final[dict[str, Words]] = {
    "after-list": Words("after CNSRLST", "CNSRLST 후"),
    "calmly": Words("once more after a pause", "잠시 쉬고 재요청"),
    "after-clear": Words("after CNSRCLR", "CNSRCLR 후"),
    "with-stex-tp": Words("with stex_tp K", "stex_tp K 포함"),
    "other-kind": Words("the other kind of search", "다른 조회 방식"),
    "other-condition": Words("another condition", "다른 조건"),
    "quiet-session": Words("on a session without realtime conditions", "실시간 조건이 없는 세션에서"),
    "fresh-connection": Words("on a fresh connection", "새 연결에서"),
    "second-key": Words("with the second app key", "두 번째 앱키로"),
}

ADVICE: Final[dict[Cause, Advice]] = {
    "healthy": Advice(
        Words(
            "Nothing is wrong on Kiwoom's side: requests are answered and events come.",
            "키움 쪽은 이상 없음: 요청에 응답하고 이벤트가 들어옵니다.",
        ),
        Words("Nothing to do there.", "키움 쪽에는 조치가 필요 없습니다."),
    ),
    "quiet": Advice(
        Words(
            "Nothing is wrong; no stock entered or left {quiet} while we listened. Quiet is not dead: the connection lives.",
            "이상 없음. 지켜보는 동안 {quiet}에 편입·이탈이 없었을 뿐입니다. 조용한 것이지 끊긴 것이 아닙니다.",
        ),
        Words(
            "Nothing to do. If you expected hits, compare with the HTS: the condition may be narrower than you think.",
            "조치가 필요 없습니다. 편입을 기대했다면 HTS의 조건식과 비교해 보세요.",
        ),
    ),
    "ready": Advice(
        Words(
            "Ready as far as can be told before the open: key, connection, login and list ({conditions} conditions) are fine.",
            "개장 전 확인 가능한 범위에서 정상: 키, 연결, 로그인, 조건 목록({conditions}개).",
        ),
        Words(
            "Nothing to do; requests are judged once the market is open.",
            "조치가 필요 없습니다. 요청은 개장 후 점검합니다.",
        ),
    ),
    "settings": Advice(
        Words("The settings are not complete: {problems}.", "설정이 완전하지 않습니다: {problems}."),
        Words(
            "Correct them; `hitstream config` shows what is in force.",
            "설정을 고치세요. `hitstream config`로 확인할 수 있습니다.",
        ),
    ),
    "token-refused": Advice(
        Words(
            "Kiwoom does not accept the key or the token: {message}",
            "키움이 키 또는 토큰을 받아들이지 않습니다: {message}",
        ),
        Words(
            "Check app key, secret key and the registered IP address on the Open API portal (code {code}); a real key belongs"
            " to api.kiwoom.com, a paper key to mockapi.kiwoom.com.",
            "포털에서 앱키, 시크릿키, 등록 IP를 확인하세요(코드 {code}). 실전 키는 api, 모의 키는 mockapi 서버용입니다.",
        ),
    ),
    "maintenance": Advice(
        Words(
            "Kiwoom answers with a web page: the service is down for maintenance.",
            "키움이 웹페이지로 응답합니다: 점검 중입니다.",
        ),
        Words(
            "Wait and run this again; maintenance is usual at night and weekends.",
            "잠시 후 다시 실행하세요. 야간·주말 점검이 흔합니다.",
        ),
    ),
    "rate-limited": Advice(
        Words("Kiwoom allows no more calls for now: {message}", "호출 한도를 초과했습니다: {message}"),
        Words(
            "Wait a minute; look for another program that uses this key.",
            "1분 기다리고, 같은 키를 쓰는 다른 프로그램을 확인하세요.",
        ),
    ),
    "unreachable": Advice(
        Words("There is no way to Kiwoom: {message}", "키움에 연결할 수 없습니다: {message}"),
        Words(
            "Check this machine's network, proxy and firewall (port 10000), and kiwoom.rest_url and kiwoom.websocket_url.",
            "네트워크, 프록시, 방화벽(포트 10000), kiwoom.rest_url과 kiwoom.websocket_url을 확인하세요.",
        ),
    ),
    "login-refused": Advice(
        Words("LOGIN is refused: {message}", "LOGIN이 거절되었습니다: {message}"),
        Words(
            "Do what the message says; LOGIN must be the first frame.",
            "메시지 내용을 확인하세요. LOGIN은 첫 프레임이어야 합니다.",
        ),
    ),
    "login-silent": Advice(
        Words("The server takes the connection but does not answer LOGIN.", "연결은 되지만 LOGIN에 응답이 없습니다."),
        Words(
            "Wait some minutes (maintenance is usual about 08:00–08:20); if it stays, send the bundle to the broker's support.",
            "몇 분 기다리세요(08:00–08:20 점검). 계속되면 증거 파일을 고객센터에 보내세요.",
        ),
    ),
    "list-silent": Advice(
        Words(
            "LOGIN works, CNSRLST is not answered: the condition module does not take part.",
            "LOGIN은 되지만 CNSRLST에 응답이 없습니다.",
        ),
        Words(
            "Connect anew once; if it stays, the server is at fault: send the bundle to the broker's support.",
            "한 번 재접속하고, 계속되면 서버 문제이므로 증거 파일을 고객센터에 보내세요.",
        ),
    ),
    "list-refused": Advice(
        Words("CNSRLST is refused: {code} {message}", "CNSRLST가 거절되었습니다: {code} {message}"),
        Words(
            "Do what the message says; ask the broker whether the account may use conditions.",
            "메시지를 확인하고 조건검색 사용 권한을 문의하세요.",
        ),
    ),
    "missing": Advice(
        Words(
            "The account has no condition named “{condition}”; it has: {names}.",
            "계정에 “{condition}” 조건이 없습니다. 있는 조건: {names}.",
        ),
        Words(
            "Correct the name, or save the condition in the HTS under this user and upload it.",
            "이름을 고치거나 HTS에서 조건식을 저장하세요.",
        ),
    ),
    "request-refused": Advice(
        Words("Kiwoom refuses the request: {code} {message}", "키움이 요청을 거절합니다: {code} {message}"),
        Words(
            "Do what the message says; with the bundle the broker's support can tell more.",
            "메시지를 확인하고, 필요하면 증거 파일로 문의하세요.",
        ),
    ),
    "slow": Advice(
        Words(
            "The reply comes, but later than {patience} s: the server is slow.",
            "응답이 {patience}초보다 늦게 옵니다: 서버가 느립니다.",
        ),
        Words(
            "Nothing is lost: Hitstream takes late replies. Another program needs longer time-outs.",
            "Hitstream은 늦은 응답도 받습니다. 다른 프로그램은 대기 시간을 늘리세요.",
        ),
    ),
    "connection-lost": Advice(
        Words("There is no connection any more: {message}", "연결이 끊겼습니다: {message}"),
        Words(
            "Run this again; if it repeats, suspect the network or the server.",
            "다시 실행하세요. 반복되면 네트워크나 서버를 의심하세요.",
        ),
    ),
    "connection-deaf": Advice(
        Words(
            "This one connection had gone deaf: PINGs come, requests are not heard; a fresh connection is answered.",
            "이 연결만 먹통이었습니다: PING은 오지만 요청을 듣지 않으며, 새 연결은 응답합니다.",
        ),
        Words(
            "Connect anew. Hitstream does it by itself after unanswered requests.",
            "재접속하세요. Hitstream은 스스로 재접속합니다.",
        ),
    ),
    "registration-lost": Advice(
        Words(
            "“{condition}” was answered but is not registered: the server dropped it silently, so no event can come.",
            "“{condition}”은 응답을 받았지만 등록되어 있지 않아 이벤트가 올 수 없습니다.",
        ),
        Words(
            "CNSRCLR, a pause, CNSRREQ. Hitstream's audit does it; if it repeats, send the bundle to the broker.",
            "CNSRCLR 후 다시 CNSRREQ 하세요. 반복되면 증거 파일을 보내세요.",
        ),
    ),
    "stream-dead": Advice(
        Words(
            "“{condition}” is registered, yet {count} stocks came or went and the stream said nothing: realtime is dead.",
            "“{condition}” 등록은 되어 있으나 {count}종목의 변화가 통지되지 않았습니다: 실시간이 죽어 있습니다.",
        ),
        Words(
            "Connect anew; if it stays, send the bundle to the broker's support.",
            "재접속하고, 계속되면 증거 파일을 고객센터에 보내세요.",
        ),
    ),
    "no-list": Advice(
        Words(
            "CNSRREQ was sent without CNSRLST on this connection; after CNSRLST the same request is answered.",
            "이 연결에서 CNSRLST 없이 CNSRREQ를 보냈습니다. CNSRLST 후에는 같은 요청에 응답합니다.",
        ),
        Words(
            "Send CNSRLST after every LOGIN, also after a reconnect, before the first CNSRREQ.",
            "재접속을 포함해 LOGIN마다 CNSRREQ 전에 CNSRLST를 보내세요.",
        ),
    ),
    "burst": Advice(
        Words(
            "Requests came too fast ({gap} s after the one before, {after_login} s after LOGIN); asked calmly, it is answered.",
            "요청이 너무 빨랐습니다(직전 요청 {gap}초, LOGIN {after_login}초 후). 천천히 요청하면 응답합니다.",
        ),
        Words(
            "Wait 1.5 s after LOGIN and at least 0.35 s between requests (kiwoom.login_pause, kiwoom.send_spacing).",
            "LOGIN 후 1.5초, 요청 사이 0.35초 이상 두세요.",
        ),
    ),
    "reply-not-taken": Advice(
        Words(
            "The server answered “{condition}” after {took} s – the frame is in the record – and the program did not take it.",
            "서버는 “{condition}”에 {took}초 만에 응답했습니다(기록에 있음). 프로그램이 받지 못했습니다.",
        ),
        Words(
            "Look for a second reader on the socket, or for replies matched by position instead of by seq.",
            "같은 소켓의 다른 수신 코드나, seq가 아닌 순서로 응답을 맞추는 코드를 찾으세요.",
        ),
    ),
    "registered-already": Advice(
        Words(
            "“{condition}” (seq {seq}) is already registered in this session, and is refused or ignored a second time.",
            "“{condition}”(seq {seq})은 이미 이 세션에 등록되어 두 번째 요청이 거절되거나 무시됩니다.",
        ),
        Words("CNSRCLR, 0.4 s, then CNSRREQ once.", "CNSRCLR 후 0.4초 뒤 CNSRREQ를 한 번 보내세요."),
    ),
    "stale-seq": Advice(
        Words(
            "The number “{seq}” is not (or no longer) that of the condition: it is padded, or the list was edited in the HTS.",
            "번호 “{seq}”는 해당 조건의 번호가 아닙니다: 공백이 붙었거나 HTS에서 목록이 바뀌었습니다.",
        ),
        Words(
            "Configure conditions by name and resolve the number from CNSRLST at every login; never pad it.",
            "이름으로 설정하고 로그인마다 CNSRLST에서 번호를 찾으세요. 공백을 붙이지 마세요.",
        ),
    ),
    "no-echo": Advice(
        Words(
            "Kiwoom closed the session (R10002): of {pings} PINGs {echoes} were echoed.",
            "키움이 세션을 종료했습니다(R10002): PING {pings}개 중 {echoes}개 응답.",
        ),
        Words("Echo every PING verbatim and before any other work.", "모든 PING을 받은 그대로 즉시 돌려보내세요."),
    ),
    "displaced": Advice(
        Words(
            "Another program logged in with this app key (R10001), and Kiwoom ended this session.",
            "다른 프로그램이 같은 앱키로 로그인해(R10001) 이 세션이 종료되었습니다.",
        ),
        Words(
            "Stop the other program, or give it an app key of its own; then start this one again.",
            "다른 프로그램을 멈추거나 별도 앱키를 쓰고 다시 시작하세요.",
        ),
    ),
    "closed-hours": Advice(
        Words(
            "No request is answered, and the market is not open: outside hours the server may leave conditions unanswered.",
            "모든 요청이 무응답이며 지금은 장 시간이 아닙니다. 장외에는 응답하지 않을 수 있습니다.",
        ),
        Words(
            "Run this again after 09:00 on a trading day; only then does silence mean a fault.",
            "거래일 09:00 이후 다시 실행하세요.",
        ),
    ),
    "one-condition": Advice(
        Words(
            "Only “{condition}” is not answered; others are: it is broken or too wide.",
            "“{condition}”만 무응답입니다. 조건식이 손상되었거나 너무 넓습니다.",
        ),
        Words("Open it in the HTS, narrow it, save it again.", "HTS에서 열어 범위를 좁히고 다시 저장하세요."),
    ),
    "search-while-live": Advice(
        Words(
            "One-shot searches (type 0) are silent on this session, where realtime conditions are open: Kiwoom does not serve both at once.",
            "실시간 조건이 열린 세션에서 단건 조회(type 0)가 무응답입니다. 키움이 둘을 함께 처리하지 않습니다.",
        ),
        Words(
            "Hits and exits are not affected. Use a session of its own for one-shot searches, or the realtime snapshot, as Hitstream does.",
            "편입·이탈 수신에는 영향이 없습니다. 단건 조회에는 별도 세션이나, Hitstream처럼 실시간 스냅숏을 쓰세요.",
        ),
    ),
    "no-stex-tp": Advice(
        Words(
            "The realtime request without stex_tp is not answered; with stex_tp it is.",
            "stex_tp가 없는 실시간 요청은 무응답이고, 넣으면 응답합니다.",
        ),
        Words('Send stex_tp (kiwoom.stex_tp = "K").', 'stex_tp를 보내세요(kiwoom.stex_tp = "K").'),
    ),
    "rights-withdrawn": Advice(
        Words(
            "The account's conditions, right or quota for condition search seem to be withdrawn.",
            "계정의 조건식, 조건검색 권한 또는 한도가 회수된 것으로 보입니다.",
        ),
        Words(
            "Check in the HTS that conditions are saved for this user; ask the broker about the account's right.",
            "HTS에 조건식이 저장되어 있는지 확인하고 권한을 문의하세요.",
        ),
    ),
    "realtime-down": Advice(
        Words(
            "Realtime registration does not answer for any condition, while one-shot searches of the same conditions do: that part of the server's condition module is down.",
            "어떤 조건도 실시간 등록(type 1)에 응답하지 않지만 같은 조건의 단건 조회(type 0)는 응답합니다. 서버의 실시간 조건검색이 멈춰 있습니다.",
        ),
        Words(
            "Hitstream goes on asking by itself. Until it answers, `hitstream search NAME` and search_at still work; send `hitstream doctor --bundle FILE` to the broker's support.",
            "Hitstream이 계속 다시 요청합니다. 그동안 `hitstream search 조건명`과 search_at은 쓸 수 있습니다. `hitstream doctor --bundle FILE`을 고객센터에 보내세요.",
        ),
    ),
    "search-down": Advice(
        Words(
            "One-shot searches are not answered for any condition, also on a quiet session; realtime requests are.",
            "조용한 세션에서도 단건 조회(type 0)는 어떤 조건도 응답하지 않지만, 실시간 요청(type 1)은 응답합니다.",
        ),
        Words(
            "Hits and exits are not affected. Hitstream takes searches from the realtime snapshot with prices of ka10095 meanwhile; audits of quiet conditions prove nothing until searches answer again.",
            "편입·이탈 수신에는 영향이 없습니다. Hitstream은 그동안 단건 조회를 실시간 스냅숏과 ka10095 시세로 대신합니다.",
        ),
    ),
    "reply-unreadable": Advice(
        Words(
            "The server answers “{condition}”, but its reply cannot be read in full, so nothing is built on it.",
            "서버가 “{condition}”에 응답하지만 응답을 온전히 읽을 수 없어 사용하지 않습니다.",
        ),
        Words(
            "Look at the reply (`hitstream doctor --trace`): if its form is new, update Hitstream; if it is damaged, send `hitstream doctor --bundle FILE` to the broker's support.",
            "`hitstream doctor --trace`로 응답을 확인하세요. 형식이 바뀌었으면 Hitstream을 갱신하고, 손상이면 `hitstream doctor --bundle FILE`을 고객센터에 보내세요.",
        ),
    ),
    "module-down": Advice(
        Words(
            "The server's condition module does not answer: the list comes, and no condition is answered, for types 0 and 1,"
            " paced, with stex_tp.",
            "서버의 조건검색 모듈이 응답하지 않습니다: 목록은 오지만 type 0·1 모두, 간격을 두고 stex_tp를 넣어도 무응답입니다.",
        ),
        Words(
            "Nothing on this side helps. Send the evidence to the broker's support: `hitstream doctor --bundle FILE`.",
            "이쪽에서 할 수 있는 일이 없습니다. `hitstream doctor --bundle FILE`로 증거를 만들어 고객센터에 보내세요.",
        ),
    ),
}


def said(finding: Finding, language: Language) -> str:
    """A finding in words."""
    facts = dict(finding.facts)
    if (tried := facts.get("tried")) in TRIED:
        facts["tried"] = _pick(TRIED[str(tried)], language)
    return _filled(FINDINGS[finding.words], facts, language)


def wrong(verdict: Verdict, language: Language) -> str:
    """What is wrong, in one sentence."""
    return _filled(ADVICE[verdict.cause].wrong, verdict.facts, language)


def remedy(verdict: Verdict, language: Language) -> str:
    """What to do."""
    return _filled(ADVICE[verdict.cause].remedy, verdict.facts, language)


def surer(verdict: Verdict, language: Language) -> str:
    """What would decide, where the verdict is not sure; empty if nothing would."""
    return _pick(SURER[verdict.surer], language)


def title(cause: Cause, language: Language) -> str:
    """A cause in a few words."""
    return _pick(TITLES[cause], language)


def name(cause: Cause) -> str:
    """A cause as a program knows it, with its place in the list of causes."""
    number = NUMBERS.get(cause)
    return f"{cause} (#{number})" if number else cause


def stage(word: str, language: Language) -> str:
    """The name of a stage."""
    return _pick(STAGES[word], language)


def sure(word: Sure, language: Language) -> str:
    """How sure a verdict is."""
    return _pick(SURE[word], language)


def language_of(environ: Mapping[str, str]) -> Language:
    """Korean where the locale is, else English."""
    locale = next((environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(key)), "")
    return "ko" if locale.lower().startswith("ko") else "en"


class _Facts(dict[str, Fact]):
    def __missing__(self, key: str) -> str:
        return "–"


def _pick(words: Words, language: Language) -> str:
    return words.ko if language == "ko" else words.en


def _filled(words: Words, facts: Mapping[str, Fact], language: Language) -> str:
    return _pick(words, language).format_map(_Facts({name: _told(fact) for name, fact in facts.items()})).strip()


def _told(fact: Fact) -> Fact:
    """Seconds as people read them."""
    return f"{fact:.1f}" if isinstance(fact, float) and (fact >= 0.1 or fact == 0) else fact
