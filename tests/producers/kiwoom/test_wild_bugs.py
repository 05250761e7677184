"""The bugs that other clients of this API shipped, one by one: what each did, and that this one does not.

Each is a row of one of two tables. `HEARD` needs only frames: what Kiwoom says to a session that has asked for two
conditions, and what may be published of it. `LIVED` needs a life: a day, a second connection, a second process. Where
a rule has more to it than its bug, the files beside this one have the rest.
"""

# ruff: noqa: E501 – frames stand on one line, as they do on the wire
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from websockets.exceptions import ConnectionClosedError

from producers.calendar import Calendar
from producers.kiwoom import client as shell
from producers.kiwoom.client import Backoff, Client
from producers.kiwoom.errors import Unreachable
from producers.kiwoom.session import Entry, Moment, Notice, Send, Session, SessionState, Snapshot, Timing, Wanted

from .test_audit import live as quiet_server
from .test_session import LOGIN_OK, PING, Talk, conditions, live, real, reply, request

# --- what a frame comes to --------------------------------------------------------------------------------------------

Said = set[str] | tuple[str, str]
NOBODY: list[tuple[str, Said]] = [("순위", set()), ("CCI", set())]
REPLIES = [reply("1"), reply("3")]


def entry(seq: str | None = "1", code: str = "005930", action: str | None = "I", kind: str = "02") -> dict[str, Any]:
    values = {"841": seq, "9001": code, "843": action, "20": "093000"}
    return {"values": {k: v for k, v in values.items() if v is not None}, "type": kind, "item": code}


def frame(*entries: Any) -> str:
    return json.dumps({"trnm": "REAL", "data": list(entries)})


# bug: (what Kiwoom says after CNSRREQ for 순위 (seq 1) and CCI (seq 3), what is published of it in this order)
HEARD: dict[str, tuple[list[str], list[tuple[str, Said]]]] = {
    "an entry without 843 was taken for an enter": (
        [*REPLIES, frame(entry(action=None), entry(action=""), entry(action="D", code="000660"))],
        [*NOBODY, ("순위", ("000660", "exit"))],
    ),
    "841 was ignored: the entry went to whichever condition was at hand": (
        [*REPLIES, frame(entry("3"), entry("2", "000660"), entry(None, "000660"), entry("1", "035720"))],
        [*NOBODY, ("CCI", ("005930", "hit")), ("순위", ("035720", "hit"))],
    ),
    "lstrip('A') ate more than the one letter before a code": (
        [reply("1", "A00123"), reply("3"), frame(entry(code="A00124"), entry(code="AA00125"), entry(code="A005930"))],
        [
            ("순위", {"A00123"}),
            ("CCI", set()),
            ("순위", ("A00124", "hit")),
            ("순위", ("A00125", "hit")),
            ("순위", ("005930", "hit")),
        ],
    ),
    r"\d{6} dropped alphanumeric codes": (
        [reply("1", "0004V0"), reply("3"), frame(entry("3", "0004V0"), entry("3", "0010G0_AL"))],
        [("순위", {"0004V0"}), ("CCI", set()), ("CCI", ("0004V0", "hit")), ("CCI", ("0010G0", "hit"))],
    ),
    "the rows of the snapshot were reported as new hits": (
        [reply("1", "005930", "000660"), reply("3")],
        [("순위", {"005930", "000660"}), ("CCI", set())],
    ),
    "REAL before the CNSRREQ reply was lost": (
        [real(("1", "005930", "I"), ("1", "000660", "D")), reply("1", "000660"), reply("3")],
        [("순위", {"000660"}), ("순위", ("005930", "hit")), ("순위", ("000660", "exit")), ("CCI", set())],
    ),
    "frames were routed by their first entry": (
        [*REPLIES, frame(entry(kind="0B"), entry("3", "000660"), entry(kind="0D"), entry("1", "035720"), "?", None)],
        [*NOBODY, ("CCI", ("000660", "hit")), ("순위", ("035720", "hit"))],
    ),
    "data: null crashed the reader": (
        [
            '{"trnm":"REAL","data":null}',
            '{"trnm":"CNSRREQ","seq":"1","return_code":0,"data":null}',
            '{"trnm":"REAL","data":[{"values":null,"type":"02","item":"005930"}]}',
            reply("3"),
            frame(entry("3")),
        ],
        [*NOBODY, ("CCI", ("005930", "hit"))],
    ),
}


@pytest.mark.parametrize("bug", HEARD)
def test_a_bug_in_reading(bug: str) -> None:
    heard, expected = HEARD[bug]
    talk = Talk("순위", "CCI")
    talk.listed()
    talk.wait_for(request("1"))
    talk.wait_for(request("3"))
    for text in heard:
        talk.hear(text)
    published: list[tuple[str, Said]] = [
        (action.condition, set(action.codes) if isinstance(action, Snapshot) else (action.code, action.action))
        for action in talk.actions
        if isinstance(action, Snapshot | Entry)
    ]
    assert published == expected
    assert (talk.state("순위"), talk.state("CCI"), talk.session.over) == ("live", "live", False)


# --- what a life comes to ---------------------------------------------------------------------------------------------


async def reg_was_restored_after_a_reconnect_but_the_conditions_were_not() -> None:
    kiwoom = Kiwoom()
    async with running(kiwoom, calendar=Calendar()):
        await kiwoom.asked("REG", 1)
        kiwoom.cut()
        await kiwoom.asked("REG", 2)
    for socket in kiwoom.sockets[:2]:
        assert socket.order()[:5] == ["LOGIN", "CNSRLST", "CNSRREQ 1", "CNSRREQ 3", "REG"]


async def cnsrreq_was_sent_on_the_first_connection_only() -> None:
    kiwoom = Kiwoom()
    async with running(kiwoom):
        for connection in (1, 2, 3):
            await kiwoom.asked("CNSRREQ", 2 * connection)
            kiwoom.cut()
    for socket in kiwoom.sockets[:3]:
        assert socket.order()[:4] == ["LOGIN", "CNSRLST", "CNSRREQ 1", "CNSRREQ 3"]


async def a_refused_reg_went_unnoticed() -> None:
    talk = live("순위", market_clock=True)
    register = '{"trnm":"REG","grp_no":"90","refresh":"1","data":[{"item":[""],"type":["0s"]}]}'
    talk.wait_for(register)
    talk.hear('{"trnm":"REG","return_code":105111,"return_msg":"실시간 항목 등록에 실패했습니다"}')
    assert talk.ignored == ["register-refused"]
    for _ in range(6):
        talk.wait(9.9)
        talk.hear(PING)
    talk.wait_for(register, within=5)


async def a_frame_was_sent_before_the_socket_was_open() -> None:
    session = Session([Wanted("순위")], token="T")
    early = [*session.tick(Moment(0.0, NOON)), *session.ask('{"trnm":"CNSRLST"}', Moment(0.0, NOON))]
    assert [action for action in early if isinstance(action, Send)] == []
    kiwoom = Kiwoom(opens=asyncio.Event())
    async with running(kiwoom) as (client, _):
        await until(lambda: kiwoom.sockets)
        assert not client.asking
        with pytest.raises(Unreachable):
            client.ask('{"trnm":"CNSRREQ","seq":"1","search_type":"0"}')
        assert kiwoom.sockets[0].sent == []
        kiwoom.opens.set()
        await kiwoom.asked("CNSRREQ", 2)
    assert kiwoom.sockets[0].order()[0] == "LOGIN"


async def a_quiet_condition_was_taken_for_a_dead_connection() -> None:
    server = quiet_server("돌파", "눌림목")
    server.wait(6.5 * 3600)
    assert not server.session.over
    assert (server.count("LOGIN"), server.count("CNSRREQ", "1"), server.count("CNSRCLR")) == (1, 2, 0)
    assert set(server.outcomes()) == {"agrees"}


async def the_seq_was_remembered_across_edits_in_the_hts() -> None:
    kiwoom = Kiwoom()
    async with running(kiwoom):
        await kiwoom.asked("CNSRREQ", 2)
        kiwoom.listed = {"1": "test1", "3": "순위", "7": "CCI"}
        kiwoom.cut()
        await kiwoom.asked("CNSRREQ", 4)
    assert kiwoom.sockets[1].order()[2:4] == ["CNSRREQ 3", "CNSRREQ 7"]
    # The same within one connection: the old number now means another condition, and is not asked for again.
    talk = live("순위")
    talk.hear(conditions(("1", "test1"), ("3", "순위")))
    talk.wait_for('{"trnm":"CNSRCLR","seq":"1"}')
    talk.wait_for(request("3"))
    talk.hear(real(("1", "005930", "I")))
    assert talk.all(Entry) == []


async def the_first_frame_was_taken_for_the_login_reply() -> None:
    talk = Talk("순위")
    talk.open()
    talk.hear('{"trnm":"SYSTEM","code":"N00001","message":"[공지] 서비스 점검 안내"}')
    talk.hear(PING)
    talk.wait(5)
    assert talk.sent == ['{"trnm":"LOGIN","token":"SECRET"}', PING], "something was asked before we were logged in"
    talk.hear(LOGIN_OK)
    talk.wait_for('{"trnm":"CNSRLST"}')


async def system_was_echoed_like_a_ping() -> None:
    talk = live("순위")
    for code in ("N00001", "R10001"):
        said = len(talk.sent)
        talk.hear(f'{{"trnm":"SYSTEM","code":"{code}","message":"…"}}')
        assert talk.sent[said:] == []
    assert [notice.code for notice in talk.all(Notice)] == ["N00001"], "not every SYSTEM is a farewell"
    assert talk.over.why == "displaced"


async def two_processes_of_one_app_key_reconnected_against_each_other() -> None:
    kiwoom = Kiwoom()
    async with running(kiwoom) as (_, first):
        await kiwoom.asked("CNSRREQ", 2)
        async with running(kiwoom) as (_, second):
            await until(first.done)
            await kiwoom.asked("CNSRREQ", 4)
            assert len(kiwoom.sockets) == 2, "whoever was displaced has come back"
            assert not second.done()


LIVED: list[Callable[[], Awaitable[None]]] = [
    reg_was_restored_after_a_reconnect_but_the_conditions_were_not,
    cnsrreq_was_sent_on_the_first_connection_only,
    a_refused_reg_went_unnoticed,
    a_frame_was_sent_before_the_socket_was_open,
    a_quiet_condition_was_taken_for_a_dead_connection,
    the_seq_was_remembered_across_edits_in_the_hts,
    the_first_frame_was_taken_for_the_login_reply,
    system_was_echoed_like_a_ping,
    two_processes_of_one_app_key_reconnected_against_each_other,
]


@pytest.mark.parametrize("bug", LIVED, ids=lambda bug: bug.__name__)
async def test_a_bug_in_living(bug: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "connect", lambda url, **_: Kiwoom.at[url].open())
    async with asyncio.timeout(60):
        await bug()


# --- a Kiwoom for the shell around the session -------------------------------------------------------------------------

NOON = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)  # a Monday
AT_ONCE = Timing(login_pause=0.0, send_spacing=0.0, clear_pause=0.0, slow_down=0.0, goodbye_reply=0.05)


class Kiwoom:
    """Answers as Kiwoom does, CNSRREQ only after CNSRLST; one session per app key, and all here have the same."""

    at: ClassVar[dict[str, Kiwoom]] = {}

    def __init__(self, opens: asyncio.Event | None = None) -> None:
        self.url = f"ws://{id(self)}"
        self.at[self.url] = self
        self.listed = {"1": "순위", "3": "CCI"}
        self.sockets: list[Socket] = []
        self.opens = opens or asyncio.Event()
        if opens is None:
            self.opens.set()

    async def open(self) -> Socket:
        socket = Socket(self)
        self.sockets.append(socket)
        await self.opens.wait()
        return socket

    def cut(self) -> None:
        self.sockets[-1].told.put_nowait(None)

    async def asked(self, trnm: str, times: int) -> None:
        """Wait until something was sent so often, over all connections."""
        await until(lambda: sum(f["trnm"] == trnm for s in self.sockets for f in s.sent) >= times)

    def answer(self, socket: Socket, frame: dict[str, Any]) -> dict[str, Any] | None:
        match frame:
            case {"trnm": "LOGIN"}:
                for other in self.sockets:
                    if other is not socket:
                        other.told.put_nowait(
                            '{"trnm":"SYSTEM","code":"R10001","message":"동일한 App key로 접속이 되었습니다"}'
                        )
                        other.told.put_nowait(None)
                return {"return_code": 0}
            case {"trnm": "CNSRLST"}:
                return {"return_code": 0, "data": [list(pair) for pair in self.listed.items()]}
            case {"trnm": "CNSRREQ", "seq": seq} if "CNSRLST" in socket.order():
                return {"seq": seq, "return_code": 0, "data": None}
            case {"trnm": "CNSRCLR", "seq": seq}:
                return {"seq": seq, "return_code": 0}
            case {"trnm": "REG"}:
                return {"return_code": 0}
        return None


class Socket:
    """The client's end of a connection, as far as the shell uses it."""

    def __init__(self, kiwoom: Kiwoom) -> None:
        self.sent: list[dict[str, Any]] = []
        self.told: asyncio.Queue[str | None] = asyncio.Queue()
        self._kiwoom = kiwoom

    async def recv(self, *, decode: bool) -> bytes:
        if (text := await self.told.get()) is None:
            self.told.put_nowait(None)  # once closed, it stays so
            raise ConnectionClosedError(None, None)
        return text.encode()

    async def send(self, text: str) -> None:
        frame = json.loads(text)
        self.sent.append(frame)
        if (said := self._kiwoom.answer(self, frame)) is not None:
            self.told.put_nowait(json.dumps({"trnm": frame["trnm"]} | said))

    async def close(self) -> None:
        """Nothing to be done."""

    def order(self) -> list[str]:
        return [f"{f['trnm']} {f.get('seq', '')}".strip() for f in self.sent]


class Tokens:
    """There is always one."""

    async def get(self) -> str:
        return "T"

    def discard(self, token: str) -> None:
        raise AssertionError("nobody refused it")


class Deaf:
    """A handler that does nothing with what it is told."""

    def connecting(self, connection: str) -> None: ...

    def handle(self, actions: Any, now: Moment, *, frame: bool) -> None: ...

    def disconnected(self, cause: str, state: SessionState) -> None: ...

    async def room(self) -> None: ...

    async def pace(self) -> None: ...


@asynccontextmanager
async def running(kiwoom: Kiwoom, calendar: Calendar | None = None) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    """A client that keeps 순위 and CCI open, stopped at the end."""
    options: dict[str, Any] = {} if calendar is None else {"calendar": lambda: calendar}
    tokens: Any = Tokens()
    client = Client(
        url=kiwoom.url,
        producer="p",
        tokens=tokens,
        wanted=[Wanted("순위"), Wanted("CCI")],
        stex_tp="K",
        timing=AT_ONCE,
        backoff=Backoff(first=0.005, most=0.01),
        now=lambda: NOON,
        handler=Deaf(),
        **options,
    )
    task = asyncio.create_task(client.run())
    try:
        yield client, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)
