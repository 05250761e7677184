"""The server's side of one WebSocket session, as a state machine: frames in, frames out.

Sans-I/O: no socket, no clock, no await. `receive` takes a frame, `publish` what happened on the market, `tick` the
passing of real time (`due` says when to call it); all return what to send. It is as strict as Kiwoom is known to be:
what Kiwoom meets with silence is met with silence here and counted in `state()["ignored"]`, so that somebody who tests
a client can see what the server thought of it.

Time arguments named `now` are real seconds of any monotonic clock: heartbeats and rate limits are not market time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from .catalog import by_code, tick_size
from .conditions import Condition, Standing
from .exchange import Bell, Exchange, Happening
from .faults import MUTE, NONE, TOKEN_REFUSALS, Faults
from .market import Crossing, Trade

LATE: Final = 5.0
"""Seconds by which the fault `late-reply` delays, and after which `before-ack-real` gives up waiting."""

BURST_GAP: Final = 0.3
"""Seconds that must lie between two requests under the fault `swallow-bursts`."""

SETTLING: Final = 1.4
"""Seconds after the LOGIN reply in which, under the fault `deaf-after-login`, requests get no reply."""

SMALL_PAGE: Final = 5
"""Rows of a page under the faults `small-pages` and `missing-page`."""

FEW_SLOTS: Final = 20
"""Codes that a session registers at most under the fault `few-slots`."""

NEXT_REPLY: Final = 1.0
"""Seconds that a reply waits for the next one under the fault `replies-out-of-order`."""

CONTEST: Final = 3.0
"""Seconds after a login until, under the fault `contested-key`, another one follows."""

R10001: Final = "동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"
R10002: Final = "사용자 프로그램으로부터 Heartbeat(연결유지) 메시지가 오지않아서 접속을 종료합니다"
R10004: Final = "접속허용요청(토큰)이 들어오지 않았습니다"
BAD_TOKEN: Final = "토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]"  # noqa: S105
PING: Final = {"trnm": "PING"}
_TOO_MANY: Final = "해당 TRNM으로 허용된 요청 건수를 초과하였습니다 (TRNM={})"
_ODD_ENTRIES: Final[list[Any]] = [
    {"values": {"841": "4", "9001": "005930", "20": "100000"}, "type": "02", "name": "조건검색", "item": "005930"},
    {"values": {"9001": "005930", "843": "I", "20": "100000"}, "type": "02", "name": "조건검색", "item": "005930"},
    {"values": {"841": "4", "9001": "삼성", "843": "I", "20": "100000"}, "type": "02", "name": "조건검색", "item": ""},
    {"values": None, "type": "02", "name": "조건검색", "item": "005930"},
    {"values": {"20": "100000"}, "type": "9Z", "name": "?", "item": "005930"},
    "005930",
    None,
]


class Rules(NamedTuple):
    """What is known, or assumed, of Kiwoom's limits.

    `ping_interval` and `login_timeout` are real seconds; a session whose oldest unanswered PING is `patience`
    intervals old is closed. `burst` and `per_second` bound the requests of one TRNM. `page` is the number of rows of
    one one-shot reply, `entries` the most a REAL frame holds, `codes` the most a session or a group registers.
    """

    ping_interval: float = 10.0
    patience: float = 2.0
    login_timeout: float = 10.0
    burst: int = 5
    per_second: float = 5.0
    page: int = 100
    entries: int = 100
    codes: int = 200


class Send(NamedTuple):
    """Send this text frame."""

    text: str


class SendBytes(NamedTuple):
    """Send this binary frame; Kiwoom never does."""

    content: bytes


class Close(NamedTuple):
    """Close the connection; without a code, cut it."""

    code: int | None = 1000
    reason: str = "Bye"


class LoggedIn(NamedTuple):
    """The session now belongs to this app key: the key's other session is to be displaced."""

    app_key: str


Output = Send | SendBytes | Close | LoggedIn


class _Held(NamedTuple):
    """A CNSRREQ reply that waits until `at`, or until a REAL entry of the condition `awaits` (its seq) was sent.

    `awaits` is empty where it waits for the next reply.
    """

    reply: Send
    at: float
    awaits: str | None


class Session:
    """One connection, from its opening to its end.

    Args:
        name: for `state()`.
        now: when it was opened.
        exchange: the market; read, never advanced.
        app_key_of: the app key a token belongs to, None for a bad one.
        rules, faults: limits, and what goes wrong; `faults` may be set anew at any time.
    """

    def __init__(
        self,
        name: str,
        *,
        now: float,
        exchange: Exchange,
        app_key_of: Callable[[str], str | None],
        rules: Rules,
        faults: Faults = NONE,
    ) -> None:
        self.name = name
        self.faults = faults
        self.app_key: str | None = None
        self.closed = False
        self._exchange = exchange
        self._app_key_of = app_key_of
        self._rules = rules
        self._opened = now
        self._listed = False
        self._registered: dict[str, str] = {}  # the condition's own seq → its seq on the wire
        self._groups: dict[str, dict[str, set[str]]] = {}  # group → item → types
        self._ticking: dict[str, list[str]] = {}  # code → registered items that get its 0B entries
        self._clock_notices = False
        self._held: list[_Held] = []
        self._pages: dict[str, list[dict[str, str]]] = {}
        self._buckets: dict[str, tuple[float, float]] = {}
        self._last_request = -1e9
        self._logged_in_at = -1e9
        self._next_ping = 0.0
        self._unanswered: float | None = None
        self._was_deaf = False
        self._deaf_until = 0.0
        self._contested_at: float | None = None
        self._cleared: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()

    # --- what drives it

    def receive(self, text: str, now: float) -> list[Output]:
        """Take in one frame from the client."""
        if self.closed:
            return []
        self._counts["frames_in"] += 1
        if self._deaf:
            return self._ignore("sent under the fault half-open")
        try:
            frame = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            frame = None
        trnm = frame.get("trnm") if isinstance(frame, dict) else None
        if self.app_key is None and trnm != "LOGIN":
            return self._end(_system("R10004", R10004))
        if not isinstance(frame, dict) or not isinstance(trnm, str):
            return self._ignore("no JSON object with a trnm")
        if trnm == "PING":
            return self._ignore("echo that did not arrive") if self.faults.on("echo-unheard") else self._echoed(frame)
        if trnm == "LOGIN":
            return self._login(frame, now)
        answer = self._ANSWERS.get(trnm)
        if answer is None:
            return self._ignore(f"unknown trnm {trnm[:20]}")
        hasty = now - self._last_request < BURST_GAP
        self._last_request = now
        if hasty and self.faults.on("swallow-bursts"):
            return self._ignore("sent in a burst")
        if now - self._logged_in_at < SETTLING and self.faults.on("deaf-after-login"):
            return self._ignore("sent too soon after LOGIN")
        if not self._within_rate(trnm, now):
            return self._out(_refused(trnm, 105110, _TOO_MANY.format(trnm)))
        return self._out(*answer(self, frame, now))

    def publish(self, happened: Iterable[Happening]) -> list[Output]:
        """Tell the client what it registered for, of what happened on the market (in that order)."""
        if self.closed or self.app_key is None or self.faults.on("zombie") or self._deaf:
            return []
        mixed = self.faults.on("mixed-frames")
        hits: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = hits if mixed else []
        told: set[str] = set()
        for event in happened:
            if isinstance(event, Crossing):
                wire = self._registered.get(event.seq)
                if wire is not None:
                    hits.append(_condition_entry(wire, event, odd=self.faults.on("odd-codes")))
                    told.add(wire)
            elif isinstance(event, Trade):
                for item in self._ticking.get(event.code, ()):
                    others.append(_trade_entry(item, event, self._exchange))
            elif isinstance(event, Bell) and self._clock_notices:
                others.append(_bell_entry(event))
        if self.faults.on("reorder-real"):
            hits.sort(key=lambda entry: str(entry["item"])[::-1])  # stable: those of one stock keep their order
        if hits and self.faults.on("odd-entries"):
            hits += _ODD_ENTRIES
        frames = [*self._real(hits), *([] if mixed else self._real(others))]
        if self.faults.on("duplicate-real"):
            frames = [frame for frame in frames for _ in range(2)]
        return self._out(*frames, *self._released(lambda held: held.awaits in told))

    def tick(self, now: float) -> list[Output]:
        """Do what is due: PINGs, deadlines, replies that were held back."""
        if self.closed:
            return []
        if self._deaf:
            self._deaf_until = now + 1.0
            if self.faults.on("half-open"):
                return []
            self.closed = True  # What was under way is lost: such a connection does not come back.
            return [Close(None, "")]
        if self.app_key is None:
            late = now >= self._opened + self._rules.login_timeout
            return self._end(_system("R10004", R10004)) if late else []
        overdue = self._rules.ping_interval * self._rules.patience
        if self._unanswered is not None and now >= self._unanswered + overdue:
            return self._end(_system("R10002", R10002))
        if self._contested_at is not None and now >= self._contested_at:
            return self.displace()
        outputs: list[Output] = [*self._released(lambda held: now >= held.at)]
        if now >= self._next_ping:
            self._next_ping = now + self._rules.ping_interval
            if not self.faults.on("no-ping"):
                self._counts["pings"] += 1
                self._unanswered = now if self._unanswered is None else self._unanswered
                outputs.append(_frame(PING))
        self._counts["frames_out"] += len(outputs)
        return outputs

    @property
    def due(self) -> float:
        """When `tick` is to be called next."""
        if self._deaf:
            return self._deaf_until if self.faults.on("half-open") else 0.0
        if self.app_key is None:
            return self._opened + self._rules.login_timeout
        times = [self._next_ping, *(held.at for held in self._held)]
        if self._unanswered is not None:
            times.append(self._unanswered + self._rules.ping_interval * self._rules.patience)
        if self._contested_at is not None:
            times.append(self._contested_at)
        return min(times)

    @property
    def _deaf(self) -> bool:
        """Whether nothing gets through, now or since the fault `half-open` was in force."""
        self._was_deaf = self._was_deaf or self.faults.on("half-open")
        return self._was_deaf

    def displace(self) -> list[Output]:
        """The app key has logged in elsewhere."""
        return [] if self.closed else self._end(_system("R10001", R10001))

    def befall(self, fault: str, seqs: Iterable[str] = ()) -> list[Output]:
        """Let a momentary fault (a name of `faults.MOMENTARY`) happen to a session that is logged in."""
        if self.closed or self.app_key is None or (self.faults.on("half-open") and fault not in MUTE):
            return []
        match fault:
            case "close":
                return self._end()
            case "close-abrupt":
                self.closed = True
                return [Close(None, "")]
            case "displaced":
                return self.displace()
            case "heartbeat-lost":
                return self._end(_system("R10002", R10002))
            case "login-missing":
                return self._end(_system("R10004", R10004))
            case "list-forgotten":
                self._listed = False
                return []
            case "forget-prices":
                self._groups = {
                    group: {item: kinds - {"0B"} for item, kinds in items.items() if kinds - {"0B"}}
                    for group, items in self._groups.items()
                }
                self._index()
                return []
            case "forget-registration":
                for seq in tuple(seqs) or tuple(self._registered):
                    self._registered.pop(seq, None)
                return []
            case "null-real":
                return self._out(_frame({"trnm": "REAL", "data": None}))
            case "garbage-frame":
                return self._out(Send('{"trnm":"REAL","data":[{"values":'))
            case "garbage-frames":
                self._counts["frames_out"] += len(_GARBAGE)
                return list(_GARBAGE)
            case "large-frame":
                entry = {"values": {"841": "9999", "9001": "005930", "843": "I", "20": "100000"}, "type": "02"}
                return self._out(_frame({"trnm": "REAL", "data": [entry] * 50_000}))
            case "oversized-frame":
                return self._out(Send('{"trnm":"REAL","data":null,"filling":"' + "0" * (17 << 20) + '"}'))
            case "system-notice":
                return self._out(_system("N00001", "[공지] 시장운영 안내: 장중 동시호가 없이 정상 운영합니다"))
            case _:
                return []

    def leave(self) -> list[Output]:
        """The server goes down in an orderly way."""
        return [] if self.closed else self._end()

    def state(self) -> dict[str, Any]:
        """What the session has come to, for `/local/state`."""
        return {
            "session": self.name,
            "app_key": self.app_key,
            "listed": self._listed,
            "conditions": sorted(self._registered.values()),
            "codes": sorted(self._ticking),
            "pings": self._counts["pings"],
            "echoes": self._counts["echoes"],
            "frames_in": self._counts["frames_in"],
            "frames_out": self._counts["frames_out"],
            "ignored": dict(self._ignored),
        }

    # --- session

    def _login(self, frame: dict[str, Any], now: float) -> list[Output]:
        token = frame.get("token")
        if self.faults.on("silent-login"):
            return self._ignore("LOGIN under the fault silent-login")
        if self.faults.on("login-unheard"):
            return self._end(_system("R10004", R10004))
        if refused := self.faults.refusal(TOKEN_REFUSALS):
            return self._end(_refused_login(*refused))
        if self.faults.on("quoting-refusals"):
            return self._end(_refused_login(8005, f"Token이 유효하지 않습니다(token={token})"))
        app_key = self._app_key_of(token) if isinstance(token, str) else None
        if app_key is None or self.faults.on("refuse-login"):
            return self._end(_frame({"trnm": "LOGIN", "return_code": 805004, "return_msg": BAD_TOKEN}))
        first = self.app_key is None
        self.app_key = app_key
        self._logged_in_at = now
        if first and self.faults.on("contested-key"):
            self._contested_at = now + CONTEST
        outputs: list[Output] = []
        if first:
            self._next_ping = now + self._rules.ping_interval
            if self.faults.on("early-system"):
                self._counts["pings"] += 1
                self._unanswered = now
                outputs += self._out(_system("N00001", "[공지] 서비스 점검 안내"), _frame(PING))
        reply = _frame({"trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"})
        return [*outputs, *self._out(reply), LoggedIn(app_key)]

    def _echoed(self, frame: dict[str, Any]) -> list[Output]:
        if frame != PING:
            return self._ignore("PING echoed otherwise than sent")
        if self._unanswered is None:
            return self._ignore("PING that nobody asked for")
        self._unanswered = None
        self._counts["echoes"] += 1
        return []

    # --- conditions

    def _offered(self) -> dict[str, Condition]:
        """The account's conditions: seq on the wire → condition."""
        offered = {
            str(int(condition.seq) + (100 if self.faults.on("renumbered") else 0)): condition
            for condition in self._exchange.day.conditions
            if not self.faults.on("withdrawn", condition.seq)
        }
        swapped = [seq for seq, condition in offered.items() if self.faults.on("reassigned", condition.seq)]
        offered |= dict(zip(swapped, [offered[seq] for seq in (*swapped[1:], *swapped[:1])], strict=True))
        twins = [(seq, condition) for seq, condition in offered.items() if self.faults.on("twin-names", condition.seq)]
        return offered | {str(int(seq) + 50): condition for seq, condition in twins}

    def _list(self, _frame_: dict[str, Any], _now: float) -> list[Send]:
        if self.faults.on("silent-cnsrlst"):
            return self._silence("CNSRLST under the fault silent-cnsrlst")
        self._listed = True
        shift = 200 if self.faults.on("stale-list") else 0
        listed = [(str(int(seq) + shift), condition.name) for seq, condition in self._offered().items()]
        if self.faults.on("object-list"):
            rows: list[Any] = [{"seq": f"{seq:<3}", "name": name} for seq, name in listed]
        else:
            rows = [list(pair) for pair in listed]
        return [_frame({"trnm": "CNSRLST", "return_code": 0, "return_msg": "", "data": rows})]

    def _request(self, frame: dict[str, Any], now: float) -> list[Send]:
        if not self._listed:
            return self._silence("CNSRREQ without CNSRLST on this connection")
        seq, search_type = frame.get("seq"), frame.get("search_type")
        if search_type not in ("0", "1"):
            return self._silence("CNSRREQ without search_type 0 or 1")
        if self.faults.on("require-stex-tp") and not frame.get("stex_tp"):
            return self._silence("CNSRREQ without stex_tp")
        if self.faults.on("rate-limited"):
            return [_refused("CNSRREQ", 105110, _TOO_MANY.format("CNSRREQ"))]
        condition = self._offered().get(seq) if isinstance(seq, str) else None
        if condition is None or not isinstance(seq, str):
            return [_refused("CNSRREQ", 900004, f"존재하지 않는 일련번호입니다.(seq={seq})")]
        if (why := self._mute(condition, search_type, frame.get("cont_yn"))) is not None:
            return self._silence(why)
        if self.faults.on("refuse-cnsrreq", condition.seq):
            return [_refused("CNSRREQ", 900099, f"조건검색 요청이 거부되었습니다.(seq={seq})")]
        told = f"{seq:<3}" if self.faults.on("padded-seq") else seq
        if search_type == "0":
            reply = _frame({"trnm": "CNSRREQ", "seq": told} | self._search(seq, condition, frame))
        else:
            contested = self.faults.on("already-registered", condition.seq) and condition.seq not in self._cleared
            if condition.seq in self._registered or contested:
                if self.faults.on("silent-repeat"):
                    return self._silence("CNSRREQ for a registered seq")
                return [_refused("CNSRREQ", 900003, f"이미 등록된 조건검색 일련번호입니다.(seq={seq})")]
            reply = _frame({"trnm": "CNSRREQ", "seq": told} | self._subscribe(seq, condition))
        if self.faults.on("late-reply", condition.seq):
            self._held.append(_Held(reply, now + LATE, awaits=None))
            return []
        if search_type == "1" and self.faults.on("before-ack-real", condition.seq):
            self._held.append(_Held(reply, now + LATE, awaits=seq))
            return []
        if self.faults.on("replies-out-of-order"):
            if before := self._released(lambda held: held.awaits == ""):
                return [reply, *before]
            self._held.append(_Held(reply, now + NEXT_REPLY, awaits=""))
            return []
        return [reply]

    def _mute(self, condition: Condition, search_type: str, cont_yn: object) -> str | None:
        """Why a CNSRREQ gets no reply; None if it gets one."""
        if self.faults.on("silent-cnsrreq", condition.seq):
            return "CNSRREQ under the fault silent-cnsrreq"
        if self.faults.on("silent-realtime" if search_type == "1" else "silent-search", condition.seq):
            return f"CNSRREQ of type {search_type} that is kept silent"
        if self.faults.on("key-without-right") and not _further_key(self.app_key or ""):
            return "CNSRREQ with a key that has no right"
        if search_type == "0" and cont_yn == "Y" and self.faults.on("missing-page", condition.seq):
            return "one-shot CNSRREQ for a page that is missing"
        if search_type == "0" and self._registered and self.faults.on("no-search-while-live"):
            return "one-shot CNSRREQ while a realtime one is registered"
        return None

    def _subscribe(self, seq: str, condition: Condition) -> dict[str, Any]:
        if not self.faults.on("drop-registration", condition.seq):
            self._registered[condition.seq] = seq
        members = [{"jmcode": by_code()[code].prefixed} for code in self._exchange.day.members[condition.seq]]
        if self.faults.on("incomplete-reply", condition.seq):
            members.append({})
        success = {} if self.faults.on("no-return-code", condition.seq) else {"return_code": 0}
        return success | {"data": members or None}

    def _search(self, seq: str, condition: Condition, frame: dict[str, Any]) -> dict[str, Any]:
        start = 0
        key = frame.get("next_key")
        if frame.get("cont_yn") == "Y" and seq in self._pages and isinstance(key, str) and key.isdigit():
            start = int(key)
        else:
            members = self._exchange.day.members[condition.seq]
            self._pages[seq] = [self._search_row(code) for code in members]
        small = self.faults.on("small-pages", condition.seq) or self.faults.on("missing-page", condition.seq)
        following = start + (SMALL_PAGE if small else self._rules.page)
        rows = self._pages[seq][start:following]
        more = following < len(self._pages[seq])
        if not more:
            del self._pages[seq]
        return {
            "cont_yn": "Y" if more else "N",
            "next_key": f"{following:010d}" if more else "",
            "return_code": 0,
            "data": rows or None,
        }

    def _search_row(self, code: str) -> dict[str, str]:
        listing = by_code()[code]
        standing = self._exchange.day.standing(code)
        assert standing is not None
        return {
            "9001": listing.prefixed,
            "302": listing.name.encode("cp949")[:20].decode("cp949", "ignore"),
            "10": f"{standing.price:09d}",
            "25": sign_of(standing.price, standing),
            "11": f"{standing.price - standing.previous_close:09d}",
            "12": f"{round(standing.rate * 1000):09d}",
            "13": f"{standing.volume:09d}",
            "16": f"{standing.open:09d}",
            "17": f"{standing.high:09d}",
            "18": f"{standing.low:09d}",
        }

    def _clear(self, frame: dict[str, Any], _now: float) -> list[Send]:
        seq = frame.get("seq")
        own = next((own for own, wire in self._registered.items() if wire == seq), None)
        if isinstance(seq, str) and (offered := self._offered().get(seq)) is not None:
            self._cleared.add(offered.seq)
        if own is None and (not isinstance(seq, str) or seq not in self._offered()):
            return [_refused("CNSRCLR", 900004, f"존재하지 않는 일련번호입니다.(seq={seq})")]
        if own is not None:
            del self._registered[own]
        if self.faults.on("silent-cnsrclr"):
            return self._silence("CNSRCLR under the fault silent-cnsrclr")
        return [_frame({"trnm": "CNSRCLR", "seq": seq, "return_code": 0, "return_msg": "정상종료되었습니다."})]

    # --- prices

    def _register(self, frame: dict[str, Any], _now: float) -> list[Send]:
        if (kept_from := self._kept_from_prices("REG")) is not None:
            return kept_from
        wanted = _registrations(frame)
        group = frame.get("grp_no")
        odd = self.faults.on("refuse-some-reg") and not all(item[:6].isdigit() for item, _ in wanted or () if item)
        if wanted is None or not isinstance(group, str) or self.faults.on("refuse-reg") or odd:
            return [_refused("REG", 105111, "실시간 항목 등록에 실패했습니다")]
        kept = self._groups.get(group, {}) if frame.get("refresh", "1") != "0" else {}
        changed = {item: set(types) for item, types in kept.items()}
        for item, types in wanted:
            changed.setdefault(item, set()).update(types)
        others = {item for name, items in self._groups.items() if name != group for item in items}
        if len(changed) > self._rules.codes:
            return [_refused("REG", 105118, f"그룹당 등록 가능한 종목수({self._rules.codes})를 초과하였습니다")]
        most = FEW_SLOTS if self.faults.on("few-slots") else self._rules.codes
        if len(others | changed.keys()) > most:
            return [_refused("REG", 105115, f"세션당 등록 가능한 종목수({most})를 초과하였습니다")]
        if not self.faults.on("drop-reg"):
            self._groups[group] = changed
            self._index()
        return self._answered_prices("REG")

    def _remove(self, frame: dict[str, Any], _now: float) -> list[Send]:
        if (kept_from := self._kept_from_prices("REMOVE")) is not None:
            return kept_from
        unwanted = _registrations(frame)
        group = frame.get("grp_no")
        if unwanted is None or not isinstance(group, str):
            return [_refused("REMOVE", 105111, "실시간 항목 해지에 실패했습니다")]
        registered = self._groups.get(group, {})
        for item, types in unwanted:
            left = registered.get(item, set()) - types
            if left:
                registered[item] = left
            else:
                registered.pop(item, None)
        self._index()
        return self._answered_prices("REMOVE")

    def _kept_from_prices(self, trnm: str) -> list[Send] | None:
        """What a REG or REMOVE gets instead of being done; None if nothing is in its way."""
        if self.faults.on("deaf-reg"):
            return self._silence(f"{trnm} under the fault deaf-reg")
        if self.faults.on("rate-limited-reg"):
            return [_refused(trnm, 105110, _TOO_MANY.format(trnm))]
        return None

    def _answered_prices(self, trnm: str) -> list[Send]:
        if self.faults.on("silent-reg"):
            return self._silence(f"{trnm} under the fault silent-reg")
        return [_frame({"trnm": trnm, "return_code": 0, "return_msg": ""})]

    def _index(self) -> None:
        types: dict[str, set[str]] = {}
        for items in self._groups.values():
            for item, wanted in items.items():
                types.setdefault(item, set()).update(wanted)
        self._ticking = {}
        for item, wanted in types.items():
            if "0B" in wanted:
                self._ticking.setdefault(item.removesuffix("_AL"), []).append(item)
        self._clock_notices = any("0s" in wanted for wanted in types.values())

    # --- inside

    _ANSWERS: Final[dict[str, Callable[[Session, dict[str, Any], float], list[Send]]]] = {
        "CNSRLST": _list,
        "CNSRREQ": _request,
        "CNSRCLR": _clear,
        "REG": _register,
        "REMOVE": _remove,
    }

    def _released(self, due: Callable[[_Held], bool]) -> list[Send]:
        """The held replies that are due, which are held no longer."""
        ready = [held.reply for held in self._held if due(held)]
        self._held = [held for held in self._held if not due(held)]
        return ready

    def _within_rate(self, trnm: str, now: float) -> bool:
        tokens, at = self._buckets.get(trnm, (float(self._rules.burst), now))
        tokens = min(float(self._rules.burst), tokens + (now - at) * self._rules.per_second)
        allowed = tokens >= 1
        self._buckets[trnm] = (tokens - allowed, now)
        return allowed

    def _real(self, entries: list[dict[str, Any]]) -> list[Send]:
        size = self._rules.entries
        return [_frame({"trnm": "REAL", "data": entries[n : n + size]}) for n in range(0, len(entries), size)]

    def _out(self, *frames: Send) -> list[Output]:
        self._counts["frames_out"] += len(frames)
        return list(frames)

    def _end(self, *last: Send) -> list[Output]:
        self.closed = True
        return [*self._out(*last), Close()]

    def _ignore(self, why: str) -> list[Output]:
        self._ignored[why] += 1
        return []

    def _silence(self, why: str) -> list[Send]:
        self._ignored[why] += 1
        return []


_GARBAGE: Final[tuple[Output, ...]] = (
    SendBytes(b"\xff\xfe\x00garbage"),
    SendBytes(b'{"trnm":"SYSTEM","code":"N00001","message":"\xb0\xf8\xc1\xf6"}'),  # a notice in CP949
    Send(""),
    Send("null"),
    Send("[]"),
    Send("조건검색"),
    Send('{"trnm":null}'),
    Send('{"trnm":"CNSRREQ"}'),
    Send('{"trnm":"CNSRREQ","seq":{},"return_code":"x","data":"005930"}'),
    Send('{"trnm":"CNSRLST","return_code":1,"data":{}}'),
    Send('{"trnm":"WHATEVER","data":[]}'),
    Send('{"trnm":"REAL","data":{"values":7}}'),
    Send('{"trnm":"REAL","data":' + "[" * 5_000 + "]" * 5_000 + "}"),
)


def _further_key(app_key: str) -> bool:
    """Whether this is one of the account's further keys (`<app_key>-2`)."""
    head, _, number = app_key.rpartition("-")
    return bool(head) and number.isdigit()


def _refused_login(code: int, text: str) -> Send:
    said = f"토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE={code}, MESSAGE={text}]"
    return _frame({"trnm": "LOGIN", "return_code": 805004, "return_msg": said})


def sign_of(price: int, standing: Standing) -> str:
    """FID 25 of a price: 1 limit-up, 2 up, 3 flat, 4 limit-down, 5 down."""
    if price == standing.previous_close:
        return "3"
    if price > standing.previous_close:
        return "1" if price >= standing.upper_limit else "2"
    return "4" if price <= standing.lower_limit else "5"


def signed(price: int, previous_close: int) -> str:
    """A price as Kiwoom writes it: its sign is the direction against the previous close."""
    return f"{'+' if price > previous_close else '-' if price < previous_close else ''}{price}"


def _frame(content: dict[str, Any]) -> Send:
    return Send(msgspec.json.encode(content).decode())


def _system(code: str, message: str) -> Send:
    return _frame({"trnm": "SYSTEM", "code": code, "message": message})


def _refused(trnm: str, code: int, text: str) -> Send:
    return _frame({"trnm": trnm, "return_code": code, "return_msg": text})


def _registrations(frame: dict[str, Any]) -> list[tuple[str, set[str]]] | None:
    """Item and types of a REG or REMOVE; None where they are not arrays of strings."""
    data = frame.get("data")
    if not isinstance(data, list) or not data:
        return None
    wanted: list[tuple[str, set[str]]] = []
    for part in data:
        items, types = (part.get("item"), part.get("type")) if isinstance(part, dict) else (None, None)
        if not isinstance(items, list) or not isinstance(types, list):
            return None
        if not all(isinstance(text, str) for text in (*items, *types)):
            return None
        wanted += [(item, set(types)) for item in items]
    return wanted


def _hhmmss(second: float) -> str:
    minutes, seconds = divmod(int(second), 60)
    return f"{minutes // 60:02d}{minutes % 60:02d}{seconds:02d}"


def _condition_entry(seq: str, crossing: Crossing, *, odd: bool) -> dict[str, Any]:
    code = crossing.code
    if odd:
        code = (f"A{code}", f"{code}_AL", f" {code} ", f"{code}_NX")[crossing.index % 4]
    values = {
        "841": seq,
        "9001": code,
        "843": "I" if crossing.action == "hit" else "D",
        "20": _hhmmss(crossing.at),
    }
    if crossing.action == "hit":
        values["907"] = "2"
    return {"values": values, "type": "02", "name": "조건검색", "item": crossing.code}


def _trade_entry(item: str, trade: Trade, exchange: Exchange) -> dict[str, Any]:
    listing = by_code()[trade.code]
    standing = exchange.day.standing(trade.code)
    assert standing is not None
    before = standing.previous_close
    change = trade.price - before
    tick = tick_size(trade.price, etn=listing.etn)
    ask, bid = (trade.price, trade.price - tick) if trade.size > 0 else (trade.price + tick, trade.price)
    sold = trade.volume - trade.bought
    values = {
        "20": _hhmmss(trade.at),
        "10": signed(trade.price, before),
        "11": f"{change:+d}" if change else " 0",
        "12": f"{change / before * 100:+.2f}" if change else "0.00",
        "27": signed(ask, before),
        "28": signed(bid, before),
        "15": f"{trade.size:+d}",
        "13": str(trade.volume),
        "14": str(trade.value // 1_000_000),
        "16": signed(trade.open, before),
        "17": signed(trade.high, before),
        "18": signed(trade.low, before),
        "25": sign_of(trade.price, standing),
        "228": f"{trade.bought / sold * 100 if sold else 500.0:.2f}",
        "290": "2",
        "311": str(trade.price * listing.shares // 100_000_000),
        "9081": "KRX",
    }
    return {"values": values, "type": "0B", "name": "주식체결", "item": item}


def _bell_entry(bell: Bell) -> dict[str, Any]:
    values = {"20": _hhmmss(bell.at), "214": "000000", "215": bell.code}
    return {"values": values, "type": "0s", "name": "장시작시간", "item": ""}
