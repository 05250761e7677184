"""What each fault looks like from a client's chair: one row per fault, and none without a row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import websockets

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import Exchange
from deploy.local.kiwoom.faults import MOMENTARY, STANDING, named
from deploy.local.kiwoom.market import Crossing
from deploy.local.kiwoom.protocol import Close, Output, Rules, Send, SendBytes, Session
from deploy.local.kiwoom.rest import Limits, Rest, Tokens
from streams.events import KST, ConfigError

from .conftest import Start
from .worlds import settle, world

NOW = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
LOGIN = {"trnm": "LOGIN", "token": "good"}
LIST = {"trnm": "CNSRLST"}
REGISTER = {"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": [""], "type": ["0s"]}]}


@pytest.fixture(scope="module")
def market() -> Exchange:
    exchange = world(NOW)
    settle(exchange, NOW)
    return exchange


def ask(seq: str = "7", kind: str = "1") -> dict[str, Any]:
    return {"trnm": "CNSRREQ", "seq": seq, "search_type": kind, "stex_tp": "K"}


def crossing(seq: str = "7", code: str = "005930", index: int = 0) -> Crossing:
    return Crossing(index, seq, code, "hit", 55_288, 70_000)


class Talk:
    """A session under a fault; what comes back is read as objects."""

    def __init__(self, market: Exchange, fault: str = "", *steps: dict[str, Any]) -> None:
        self.now = 1_000.0
        self.session = Session(
            "1",
            now=self.now,
            exchange=market,
            app_key_of=lambda token: "key-2" if token == "further" else "key" if token == "good" else None,
            rules=Rules(),
        )
        self.switch(fault)
        for step in steps:
            self.say(step)

    def switch(self, fault: str) -> None:
        self.session.faults = named([fault] if fault else [])

    def say(self, frame: dict[str, Any], after: float = 0.5) -> list[Any]:
        self.now += after
        return self.read(self.session.receive(json.dumps(frame), self.now))

    def wait(self, seconds: float) -> list[Any]:
        told = []
        until = self.now + seconds
        while self.session.due <= until and not self.session.closed:
            self.now = max(self.now, self.session.due)
            told += self.read(self.session.tick(self.now))
            self.now += 0.01
        self.now = until
        return told

    def befall(self, fault: str, *seqs: str) -> list[Any]:
        return self.read(self.session.befall(fault, seqs))

    def told(self, *crossings: Crossing) -> list[Any]:
        return self.read(self.session.publish(crossings))

    @staticmethod
    def read(outputs: list[Output]) -> list[Any]:
        return [json.loads(output.text) if isinstance(output, Send) else output for output in outputs]


def code(frames: list[Any]) -> Any:
    """The return code of the last frame, or the kind of what else came last."""
    last = frames[-1] if frames else None
    return last.get("return_code", last.get("code")) if isinstance(last, dict) else last


def system(frames: list[Any]) -> Any:
    return [frame["code"] for frame in frames if isinstance(frame, dict) and frame["trnm"] == "SYSTEM"]


# Each fault: what to do (given a function that makes a session under the fault), and what a client then sees.
Make = Callable[..., Talk]
READY = (LOGIN, LIST)
ROWS: dict[str, Callable[[Make], tuple[Any, Any]]] = {
    "half-open": lambda new: ((new(LOGIN).say(LIST), new(LOGIN).wait(60)), ([], [])),
    "no-ping": lambda new: (new(*READY).wait(60), []),
    "echo-unheard": lambda new: (
        (talk := new(*READY), talk.wait(11), talk.say({"trnm": "PING"}), system(talk.wait(25)))[-1],
        ["R10002"],
    ),
    "contested-key": lambda new: (system(new(LOGIN).wait(4)), ["R10001"]),
    "zombie": lambda new: ((talk := new(*READY, ask())).told(crossing()) + talk.wait(11), [{"trnm": "PING"}]),
    "silent-login": lambda new: (new().say(LOGIN), []),
    "refuse-login": lambda new: (new().say(LOGIN)[0]["return_code"], 805004),
    "login-unheard": lambda new: (system(new().say(LOGIN)), ["R10004"]),
    "early-system": lambda new: ([f["trnm"] for f in new().say(LOGIN)[:-1]], ["SYSTEM", "PING", "LOGIN"]),
    "silent-cnsrlst": lambda new: (new(LOGIN).say(LIST), []),
    "renumbered": lambda new: (new(LOGIN).say(LIST)[0]["data"][0][0], "100"),
    "reassigned": lambda new: (new(LOGIN).say(LIST)[0]["data"][0], ["0", "거래량 급증"]),
    "stale-list": lambda new: (
        (talk := new(LOGIN), code(talk.say(ask(talk.say(LIST)[0]["data"][0][0]))))[-1],
        900004,
    ),
    "withdrawn": lambda new: (new(LOGIN).say(LIST)[0]["data"], []),
    "twin-names": lambda new: (len(new(LOGIN).say(LIST)[0]["data"]), 16),
    "object-list": lambda new: (new(LOGIN).say(LIST)[0]["data"][0], {"seq": "0  ", "name": "등락률 5~15%"}),
    "silent-cnsrreq": lambda new: (new(*READY).say(ask()) + new(*READY).say(ask(kind="0")), []),
    "silent-realtime": lambda new: ((new(*READY).say(ask()), code(new(*READY).say(ask(kind="0")))), ([], 0)),
    "silent-search": lambda new: ((new(*READY).say(ask(kind="0")), code(new(*READY).say(ask()))), ([], 0)),
    "key-without-right": lambda new: (
        (new(*READY).say(ask()), code(new({**LOGIN, "token": "further"}, LIST).say(ask()))),
        ([], 0),
    ),
    "refuse-cnsrreq": lambda new: (code(new(*READY).say(ask())), 900099),
    "rate-limited": lambda new: (code(new(*READY).say(ask())), 105110),
    "swallow-bursts": lambda new: (
        (new(*READY).say(ask(), after=0.1), code(new(*READY).say(ask(), after=0.4))),
        ([], 0),
    ),
    "require-stex-tp": lambda new: (
        (new(*READY).say({"trnm": "CNSRREQ", "seq": "7", "search_type": "1"}), code(new(*READY).say(ask()))),
        ([], 0),
    ),
    "no-search-while-live": lambda new: (new(*READY, ask()).say(ask("5", "0")), []),
    "already-registered": lambda new: (
        (
            talk := new(*READY),
            [code(talk.say(frame)) for frame in (ask(), {"trnm": "CNSRCLR", "seq": "7"}, ask())],
        )[-1],
        [900003, 0, 0],
    ),
    "silent-repeat": lambda new: (new(*READY, ask()).say(ask()), []),
    "drop-registration": lambda new: ((talk := new(*READY), code(talk.say(ask())), talk.told(crossing()))[1:], (0, [])),
    "late-reply": lambda new: ((talk := new(*READY), talk.say(ask()), code(talk.wait(5.5)))[1:], ([], 0)),
    "replies-out-of-order": lambda new: (
        (talk := new(*READY), talk.say(ask("7")), [frame["seq"] for frame in talk.say(ask("5"))])[1:],
        ([], ["5", "7"]),
    ),
    "before-ack-real": lambda new: (
        (talk := new(*READY), talk.say(ask()), [frame["trnm"] for frame in talk.told(crossing())])[1:],
        ([], ["REAL", "CNSRREQ"]),
    ),
    "incomplete-reply": lambda new: (new(*READY).say(ask())[0]["data"][-1], {}),
    "no-return-code": lambda new: ("return_code" in new(*READY).say(ask())[0], False),
    "padded-seq": lambda new: (new(*READY).say(ask())[0]["seq"], "7  "),
    "duplicate-real": lambda new: (len(new(*READY, ask()).told(crossing())), 2),
    "reorder-real": lambda new: (
        [
            entry["item"]
            for entry in new(*READY, ask()).told(crossing(code="000020"), crossing(code="000010"))[0]["data"]
        ],
        ["000010", "000020"],
    ),
    "odd-entries": lambda new: (len(new(*READY, ask()).told(crossing())[0]["data"]), 8),
    "deaf-after-login": lambda new: ((new(LOGIN).say(LIST), code(new(LOGIN).say(LIST, after=1.5))), ([], 0)),
    "small-pages": lambda new: (
        (talk := new(*READY), page := talk.say(ask("0", "0"))[0], len(page["data"]), page["cont_yn"],
         len(talk.say(ask("0", "0") | {"cont_yn": "Y", "next_key": page["next_key"]})))[2:],
        (5, "Y", 1),
    ),
    "missing-page": lambda new: (
        (talk := new(*READY), page := talk.say(ask("0", "0"))[0], len(page["data"]), page["cont_yn"],
         talk.say(ask("0", "0") | {"cont_yn": "Y", "next_key": page["next_key"]}))[2:],
        (5, "Y", []),
    ),
    "silent-cnsrclr": lambda new: (
        (talk := new(*READY, ask()), talk.say({"trnm": "CNSRCLR", "seq": "7"}), talk.told(crossing()))[1:],
        ([], []),
    ),
    "refuse-reg": lambda new: (code(new(LOGIN).say(REGISTER)), 105111),
    "odd-codes": lambda new: (
        [
            new(*READY, ask()).told(crossing(index=index))[0]["data"][0]["values"]["9001"]
            for index in range(4)
        ],
        ["A005930", "005930_AL", " 005930 ", "005930_NX"],
    ),
}  # fmt: skip

MOMENTS: dict[str, Callable[[Talk], tuple[Any, Any]]] = {
    "close": lambda talk: (talk.befall("close"), [Close(1000, "Bye")]),
    "close-abrupt": lambda talk: (talk.befall("close-abrupt"), [Close(None, "")]),
    "system-notice": lambda talk: (system(talk.befall("system-notice")), ["N00001"]),
    "garbage-frame": lambda talk: (len(talk.session.befall("garbage-frame")), 1),
    "garbage-frames": lambda talk: (
        {type(output) for output in talk.session.befall("garbage-frames")},
        {Send, SendBytes},
    ),
    "large-frame": lambda talk: (len(talk.befall("large-frame")[0]["data"]), 50_000),
    "oversized-frame": lambda talk: (len(talk.session.befall("oversized-frame")[0][0]) > 16 << 20, True),
    "null-real": lambda talk: (talk.befall("null-real"), [{"trnm": "REAL", "data": None}]),
    "list-forgotten": lambda talk: (
        (talk.befall("list-forgotten"), talk.say(ask("5")), code(talk.say(LIST)), code(talk.say(ask("5")))),
        ([], [], 0, 0),
    ),
    "forget-registration": lambda talk: (
        (
            talk.say(ask("5")),
            talk.befall("forget-registration", "7"),
            talk.told(crossing("7")),
            len(talk.told(crossing("5"))),
        )[1:],
        ([], [], 1),
    ),
    "displaced": lambda talk: (system(talk.befall("displaced")), ["R10001"]),
    "heartbeat-lost": lambda talk: (system(talk.befall("heartbeat-lost")), ["R10002"]),
    "login-missing": lambda talk: (system(talk.befall("login-missing")), ["R10004"]),
}  # fmt: skip

# return_code and code of: a token, a TR call with a good token, LOGIN with one.
REST: dict[str, tuple[str, str, str]] = {
    "bad-token": ("", "[8005:", "CODE=8005,"),
    "quoting-refusals": ("appkey=key, secretkey=secret", "[8005:", "token=good"),
    "short-tokens": ("", "", ""),
    "one-token": ("", "", ""),
    "wrong-app-key": ("[8001:", "", ""),
    "wrong-secret-key": ("[8002:", "", ""),
    "missing-keys": ("[8020:", "", ""),
    "unknown-ip": ("[8050:", "", ""),
    "other-ip": ("", "[8010:", "CODE=8010,"),
    "wrong-environment": ("[8030:", "[8031:", "CODE=8031,"),
    "unknown-device": ("", "[8103:", "CODE=8103,"),
    "too-many": ("", "[1700:", ""),
    "too-many-tokens": ("[1700:", "", ""),
    "maintenance": ("<!DOCTYPE html>", "<!DOCTYPE html>", ""),
    "server-error": ("", "", ""),
}
# Told with trades, or registrations, in test_protocol.
TRADES = {
    "mixed-frames", "refuse-some-reg", "rate-limited-reg", "silent-reg", "deaf-reg", "few-slots", "drop-reg",
    "forget-prices",
}  # fmt: skip
CHARTS = {"padded-charts", "broken-charts", "refuse-charts"}  # in test_charts and test_bars_command
SOCKETS = {"refuse-connection", "hang-connection", "hang-rest", "token-expired"}


def test_every_fault_has_a_test() -> None:
    assert STANDING.keys() | MOMENTARY.keys() == ROWS.keys() | MOMENTS.keys() | REST.keys() | SOCKETS | TRADES | CHARTS


@pytest.mark.parametrize("name", ROWS)
def test_a_standing_fault(market: Exchange, name: str) -> None:
    seen, expected = ROWS[name](lambda *steps: Talk(market, name, *steps))
    assert seen == expected


@pytest.mark.parametrize("name", ROWS)
def test_a_standing_fault_makes_the_difference(market: Exchange, name: str) -> None:
    seen, expected = ROWS[name](lambda *steps: Talk(market, "", *steps))
    assert seen != expected


@pytest.mark.parametrize("name", MOMENTS)
def test_a_momentary_fault(market: Exchange, name: str) -> None:
    seen, expected = MOMENTS[name](Talk(market, "", LOGIN, LIST, ask()))
    assert seen == expected


def test_a_half_open_session_is_cut_when_the_fault_is_over(market: Exchange) -> None:
    talk = Talk(market, "half-open")
    assert talk.say(LOGIN) == []
    assert talk.wait(60) == []
    talk.switch("")
    assert talk.wait(0.1) == [Close(None, "")]


def test_a_fault_can_be_limited_to_some_conditions(market: Exchange) -> None:
    talk = Talk(market, "silent-cnsrreq:7,5", *READY)
    assert [len(talk.say(ask(seq))) for seq in ("7", "5", "4")] == [0, 0, 1]


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--fault nonsense:7: There is no standing fault 'nonsense'; there are"):
        named(["nonsense:7"])


@pytest.mark.parametrize("name", REST)
def test_a_fault_of_the_rest_half(market: Exchange, name: str) -> None:
    tokens = Tokens("key", "secret")
    rest = Rest(market, tokens, Limits())

    def post(path: str, token: str = "", **body: str) -> str:
        headers = {"authorization": f"Bearer {token}", "api-id": "ka10099"}
        reply = rest.answer(path, headers, json.dumps(body).encode(), real=0.0, latest=NOW)
        return str(reply.body if isinstance(reply.body, str) else reply.body["return_msg"])

    token = tokens.issue("key", NOW + timedelta(hours=1), 1)
    keys = {"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"}
    for fault, expected in ((name, REST[name]), ("", ("", "", ""))):
        rest.faults = named([fault] if fault else [])
        assert expected[0] in post("/oauth2/token", **keys)
        assert expected[1] in post("/api/dostk/stkinfo", token, mrkt_tp="0")
        talk = Talk(market, fault)
        assert expected[2] in talk.say(LOGIN)[0].get("return_msg")


def test_short_tokens_end_after_a_minute(market: Exchange) -> None:
    tokens = Tokens("key", "secret")
    rest = Rest(market, tokens, Limits())
    rest.faults = named(["short-tokens"])
    body = b'{"grant_type":"client_credentials","appkey":"key","secretkey":"secret"}'
    reply = rest.answer("/oauth2/token", {}, body, real=0.0, latest=NOW).body
    assert isinstance(reply, dict)
    assert tokens.app_key_of(reply["token"], NOW + timedelta(seconds=59)) == "key"
    assert tokens.app_key_of(reply["token"], NOW + timedelta(seconds=61)) is None


def test_a_new_token_can_end_the_ones_before(market: Exchange) -> None:
    tokens = Tokens("key", "secret")
    rest = Rest(market, tokens, Limits())

    def issue(app_key: str) -> str:
        body = json.dumps({"grant_type": "client_credentials", "appkey": app_key, "secretkey": "secret"})
        reply = rest.answer("/oauth2/token", {}, body.encode(), real=0.0, latest=NOW).body
        assert isinstance(reply, dict)
        return str(reply["token"])

    def valid(*issued: str) -> list[bool]:
        return [tokens.app_key_of(token, NOW) is not None for token in issued]

    first, of_another = issue("key"), issue("key-2")
    kept = issue("key")
    assert valid(first, of_another, kept) == [True, True, True]
    rest.faults = named(["one-token"])
    assert valid(issue("key"), first, kept, of_another) == [True, False, False, True]


async def test_expired_tokens_are_refused_and_new_ones_are_not(start: Start) -> None:
    local = await start()
    old = await local.token()
    await local.fault("token-expired")
    async with local.connect() as wire:
        assert "CODE=8005" in (await wire.ask({"trnm": "LOGIN", "token": old}))["return_msg"]
    async with local.login():
        pass


async def test_a_handshake_can_be_refused_or_never_answered(start: Start) -> None:
    local = await start(faults=named(["refuse-connection"]))
    with pytest.raises(websockets.exceptions.InvalidStatus):
        async with local.connect():
            pass
    await local.fault("refuse-connection", on=False)
    await local.fault("hang-connection")
    waiting = asyncio.create_task(websockets.connect(local.websocket_url, ping_interval=None).__aenter__())
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await local.fault("hang-connection", on=False)
    await (await waiting).close()


async def test_rest_can_be_silent_while_faults_are_still_switched(start: Start) -> None:
    local = await start()
    await local.fault("hang-rest")
    with pytest.raises(httpx.ReadTimeout):
        await local.http.post("/oauth2/token", json={}, timeout=0.2)
    waiting = asyncio.create_task(local.token())
    await local.fault("hang-rest", on=False)
    assert await waiting


async def test_a_registration_is_dropped_while_it_runs(start: Start) -> None:
    local = await start()
    async with local.login() as wire:
        for seq in ("7", "5"):
            await wire.ask(ask(seq))
        await local.fault("forget-registration", seqs=["7"])
        (session,) = (await local.state())["sessions"]
        assert session["conditions"] == ["5"]


def test_the_catalogue_knows_the_stock_that_the_rows_use() -> None:
    assert any(listing.code == "005930" for listing in listings())
