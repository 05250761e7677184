"""The server's side of a session, frame by frame, as the protocol page has it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from deploy.local.kiwoom.catalog import by_code
from deploy.local.kiwoom.exchange import Bell, Exchange
from deploy.local.kiwoom.faults import MOMENTARY, MUTE, NONE, STANDING, UnknownFault
from deploy.local.kiwoom.market import Crossing, Trade
from deploy.local.kiwoom.protocol import Close, LoggedIn, Output, Rules, Send, Session
from streams.events import KST

from .worlds import settle, world

NOW = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
BYE = Close(1000, "Bye")
SILENCE: list[Any] = []
LOGIN = {"trnm": "LOGIN", "return_code": 0, "return_msg": "", "sor_yn": "Y"}


@pytest.fixture(scope="module")
def market() -> Exchange:
    exchange = world(NOW)
    settle(exchange, NOW)
    return exchange


class Talk:
    """A session and its time; sends frames and reads what came back as objects."""

    def __init__(self, market: Exchange, *, login: bool = True, listed: bool = True, **rules: Any) -> None:
        self.now = 1_000.0
        self.session = Session(
            "1",
            now=self.now,
            exchange=market,
            app_key_of=lambda token: "key" if token == "good" else None,
            rules=Rules(**rules),
        )
        if login:
            assert self.say({"trnm": "LOGIN", "token": "good"}) == [LOGIN, LoggedIn("key")]
            if listed:
                self.say('{"trnm":"CNSRLST"}')

    def say(self, frame: dict[str, Any] | str, *, after: float = 1.0) -> list[Any]:
        self.now += after
        text = frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False)
        return self.read(self.session.receive(text, self.now))

    def wait(self, seconds: float) -> list[Any]:
        self.now += seconds
        return self.read(self.session.tick(self.now))

    def told(self, *happened: Trade | Crossing | Bell) -> list[Any]:
        return self.read(self.session.publish(happened))

    def fault(self, name: str, *seqs: str) -> None:
        self.session.faults = self.session.faults.switched(name, True, seqs)

    @staticmethod
    def read(outputs: list[Output]) -> list[Any]:
        return [json.loads(output.text) if isinstance(output, Send) else output for output in outputs]


def crossing(seq: str, code: str = "005930", action: Any = "hit", at: int = 55_288) -> Crossing:
    return Crossing(0, seq, code, action, at, 70_000)


def trade(code: str = "005930", price: int = 71_200, size: int = 2) -> Trade:
    return Trade(52_468.9, code, price, size, 71_400, 71_500, 71_100, 300, 21_390_000, 100)


def realtime(seq: str) -> dict[str, Any]:
    return {"trnm": "CNSRREQ", "seq": seq, "search_type": "1", "stex_tp": "K"}


# --- login


@pytest.mark.parametrize(
    "first", ['{"trnm":"CNSRLST"}', '{"trnm":"PING"}', "no json", "[]", '{"trnm":5}', realtime("7"), "{}"]
)
def test_anything_before_login_ends_the_session_with_r10004(market: Exchange, first: Any) -> None:
    message = "접속허용요청(토큰)이 들어오지 않았습니다"
    assert Talk(market, login=False).say(first) == [{"trnm": "SYSTEM", "code": "R10004", "message": message}, BYE]


def test_no_login_in_time_ends_the_session_with_r10004(market: Exchange) -> None:
    talk = Talk(market, login=False, login_timeout=10.0)
    assert talk.session.due == talk.now + 10.0
    assert talk.wait(9.9) == SILENCE
    assert talk.wait(0.1)[0]["code"] == "R10004"


@pytest.mark.parametrize("token", ["bad", "Bearer good", "", None, 5])
def test_a_bad_token_is_refused_and_the_connection_closed(market: Exchange, token: Any) -> None:
    refusal = {
        "trnm": "LOGIN",
        "return_code": 805004,
        "return_msg": "토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]",
    }
    assert Talk(market, login=False).say({"trnm": "LOGIN", "token": token}) == [refusal, BYE]


def test_a_displaced_session_is_told_so_and_hears_nothing_more(market: Exchange) -> None:
    talk = Talk(market)
    message = "동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"
    assert talk.read(talk.session.displace()) == [{"trnm": "SYSTEM", "code": "R10001", "message": message}, BYE]
    assert talk.say('{"trnm":"CNSRLST"}') == SILENCE
    assert talk.wait(100) == SILENCE


# --- heartbeat


def test_a_ping_comes_every_interval_and_its_echo_keeps_the_session(market: Exchange) -> None:
    talk = Talk(market, ping_interval=10.0)
    for _ in range(5):
        assert talk.wait(talk.session.due - talk.now) == [{"trnm": "PING"}]
        assert talk.say('{"trnm": "PING"}') == SILENCE
    state = talk.session.state()
    assert (state["pings"], state["echoes"]) == (5, 5)


def test_without_an_echo_the_session_ends_with_r10002(market: Exchange) -> None:
    talk = Talk(market, ping_interval=10.0, patience=2.0)
    frames: list[Any] = []
    while not talk.session.closed:
        frames += talk.wait(talk.session.due - talk.now)
    assert [frame["trnm"] for frame in frames[:-1]] == ["PING", "PING", "SYSTEM"]
    assert frames[-2]["code"] == "R10002"
    assert frames[-2]["message"] == "사용자 프로그램으로부터 Heartbeat(연결유지) 메시지가 오지않아서 접속을 종료합니다"
    assert frames[-1] == BYE


def test_a_changed_echo_is_none(market: Exchange) -> None:
    talk = Talk(market)
    talk.wait(10)
    talk.say('{"trnm":"PING","x":1}')
    assert talk.session.state()["echoes"] == 0


# --- conditions


def test_the_list_is_pairs_of_seq_and_name(market: Exchange) -> None:
    (reply,) = Talk(market, listed=False).say('{"trnm":"CNSRLST"}')
    assert reply["trnm"] == "CNSRLST"
    assert (reply["return_code"], reply["return_msg"]) == (0, "")
    assert ["7", "신고가 돌파"] in reply["data"]
    assert len(reply["data"]) == 8


@pytest.mark.parametrize(
    "request_",
    [
        '{"trnm":"CNSRREQ","seq":"7","search_type":"1","stex_tp":"K"}',
        '{"trnm":"CNSRREQ","seq":"7","search_type":"0","stex_tp":"K","cont_yn":"N","next_key":""}',
        '{"trnm":"CNSRREQ","seq":"99","search_type":"1","stex_tp":"K"}',
    ],
)
def test_without_cnsrlst_on_this_connection_there_is_only_ping(market: Exchange, request_: str) -> None:
    talk = Talk(market, listed=False)
    for _ in range(3):
        assert talk.say(request_) == SILENCE
        assert talk.told(crossing("7")) == SILENCE
        assert talk.wait(10) == [{"trnm": "PING"}]
        talk.say('{"trnm":"PING"}')
    talk.say('{"trnm":"CNSRLST"}')
    assert talk.say(request_) != SILENCE


def test_a_realtime_request_is_answered_with_the_members_codes_only(market: Exchange) -> None:
    (reply,) = Talk(market).say('{"trnm":"CNSRREQ","seq":"7","search_type":"1","stex_tp":"K"}')
    members = [{"jmcode": by_code()[code].prefixed} for code in market.day.members["7"]]
    assert members
    assert reply == {"trnm": "CNSRREQ", "seq": "7", "return_code": 0, "data": members}


def test_an_empty_condition_has_null_for_data() -> None:
    silent = world(NOW, activity=0.0)
    (reply,) = Talk(silent).say(realtime("33"))
    assert reply == {"trnm": "CNSRREQ", "seq": "33", "return_code": 0, "data": None}
    (reply,) = Talk(silent).say({**realtime("33"), "search_type": "0"})
    assert reply["data"] is None


def test_a_one_shot_search_pads_every_number(market: Exchange) -> None:
    talk = Talk(market)
    (reply,) = talk.say('{"trnm":"CNSRREQ","seq":"18","search_type":"0","stex_tp":"K","cont_yn":"N","next_key":""}')
    assert {key: value for key, value in reply.items() if key != "data"} == {
        "trnm": "CNSRREQ", "seq": "18", "cont_yn": "N", "next_key": "", "return_code": 0,
    }  # fmt: skip
    for row in reply["data"]:
        assert list(row) == ["9001", "302", "10", "25", "11", "12", "13", "16", "17", "18"]
        code = row["9001"][1:]
        standing = market.day.standing(code)
        assert standing is not None
        assert row["10"] == f"{standing.price:09d}"
        assert int(row["12"]) == round((standing.price / standing.previous_close - 1) * 100_000)
        assert int(row["11"]) == standing.price - standing.previous_close
        assert all(len(row[name]) == 9 for name in ("10", "11", "12", "16", "17", "18"))
        assert len(row["302"].encode("cp949")) <= 20
    assert talk.told(crossing("18")) == SILENCE  # a search registers nothing


def test_a_fall_is_written_with_the_sign_inside_the_padding(market: Exchange) -> None:
    stock = next(s for s in by_code() if (p := market.day.standing(s)) is not None and p.price < p.previous_close)
    row = Talk(market).session._search_row(stock)
    assert row["11"][0] == row["12"][0] == "-"
    assert len(row["11"]) == len(row["12"]) == 9
    assert row["25"] in "45"


def test_a_long_search_is_paged(market: Exchange) -> None:
    talk = Talk(market, page=7)
    asked = {"trnm": "CNSRREQ", "seq": "18", "search_type": "0", "stex_tp": "K", "cont_yn": "N", "next_key": ""}
    rows: list[str] = []
    pages = 0
    while True:
        (reply,) = talk.say(asked)
        pages += 1
        rows += [row["9001"][1:] for row in reply["data"]]
        assert len(reply["data"]) <= 7
        if reply["cont_yn"] == "N":
            break
        asked |= {"cont_yn": "Y", "next_key": reply["next_key"]}
    assert rows == list(market.day.members["18"])
    assert pages == -(-len(rows) // 7) > 1


def test_a_second_realtime_request_is_refused_without_a_seq_of_its_own(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(realtime("4"))
    assert talk.say(realtime("4")) == [
        {"trnm": "CNSRREQ", "return_code": 900003, "return_msg": "이미 등록된 조건검색 일련번호입니다.(seq=4)"}
    ]
    cleared = {"trnm": "CNSRCLR", "seq": "4", "return_code": 0, "return_msg": "정상종료되었습니다."}
    assert talk.say('{"trnm":"CNSRCLR","seq":"4"}') == [cleared]
    assert talk.say(realtime("4"))[0]["return_code"] == 0


@pytest.mark.parametrize("seq", ["99", "7 ", "7  ", "007", "", 7, None])
def test_an_unknown_or_padded_seq_is_refused(market: Exchange, seq: Any) -> None:
    refusal = {"trnm": "CNSRREQ", "return_code": 900004, "return_msg": f"존재하지 않는 일련번호입니다.(seq={seq})"}
    assert Talk(market).say(realtime(seq)) == [refusal]


def test_stex_tp_may_be_left_out(market: Exchange) -> None:
    talk = Talk(market)
    assert talk.say('{"trnm":"CNSRREQ","seq":"7","search_type":"1"}')[0]["return_code"] == 0
    talk.fault("require-stex-tp")
    assert talk.say('{"trnm":"CNSRREQ","seq":"5","search_type":"1"}') == SILENCE


def test_hits_and_exits_reach_only_who_registered_the_condition(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(realtime("7"))
    hit = {"841": "7", "9001": "005930", "843": "I", "20": "152128", "907": "2"}
    exit_ = {"841": "7", "9001": "0004V0", "843": "D", "20": "000000"}
    assert talk.told(crossing("7"), crossing("5"), crossing("7", "0004V0", "exit", 0)) == [
        {
            "trnm": "REAL",
            "data": [
                {"values": hit, "type": "02", "name": "조건검색", "item": "005930"},
                {"values": exit_, "type": "02", "name": "조건검색", "item": "0004V0"},
            ],
        }
    ]
    talk.say({"trnm": "CNSRCLR", "seq": "7"})
    assert talk.told(crossing("7")) == SILENCE


def test_clearing_is_a_matter_of_the_session_that_registered(market: Exchange) -> None:
    one, other = Talk(market), Talk(market)
    one.say(realtime("7"))
    other.say({"trnm": "CNSRCLR", "seq": "7"})
    assert one.told(crossing("7")) != SILENCE
    assert other.say({"trnm": "CNSRCLR", "seq": "99"})[0]["return_code"] == 900004


def test_many_entries_are_spread_over_frames(market: Exchange) -> None:
    talk = Talk(market, entries=3)
    talk.say(realtime("7"))
    frames = talk.told(*(crossing("7") for _ in range(8)))
    assert [len(frame["data"]) for frame in frames] == [3, 3, 2]


# --- the captures: a reply has the fields, in shape and order, of what Kiwoom was seen to send

CAPTURED_ROW = (
    '{"9001":"A002810","302":"삼영무역","10":"000019600","25":"2","11":"000000740","12":"000003920","13":"000019493",'
    '"16":"000018860","17":"000019830","18":"000018810"}'
)
CAPTURES = (
    ('{"trnm":"LOGIN","token":"good"}', '{"trnm":"LOGIN","return_code":0,"return_msg":"","sor_yn":"Y"}'),
    (
        '{"trnm":"CNSRLST"}',
        '{"trnm":"CNSRLST","return_code":0,"return_msg":"","data":[["0","test1"],["1","순위"],["2","신용융자E군"],["3","CCI"]]}',
    ),
    (
        '{"trnm":"CNSRREQ","seq":"4","search_type":"0","stex_tp":"K","cont_yn":"N","next_key":""}',
        '{"trnm":"CNSRREQ","seq":"0","cont_yn":"N","next_key":"","return_code":0,"data":[' + CAPTURED_ROW + "]}",
    ),
    (
        '{"trnm":"CNSRREQ","seq":"4","search_type":"1","stex_tp":"K"}',
        '{"trnm":"CNSRREQ","seq":"0","return_code":0,"data":[{"jmcode":"A002810"},{"jmcode":"Q760020"}]}',
    ),
    (
        '{"trnm":"CNSRREQ","seq":"4","search_type":"1","stex_tp":"K"}',
        '{"trnm":"CNSRREQ","return_code":900003,"return_msg":"이미 등록된 조건검색 일련번호입니다.(seq=3)"}',
    ),
    (
        '{"trnm":"CNSRCLR","seq":"0"}',
        '{"trnm":"CNSRCLR","seq":"0","return_code":0,"return_msg":"정상종료되었습니다."}',
    ),
    (
        '{"trnm":"REG","grp_no":"1","refresh":"1","data":[{"item":["005930"],"type":["0B"]}]}',
        '{"trnm":"REG","return_code":0,"return_msg":""}',
    ),
    (
        '{"trnm":"REMOVE","grp_no":"1","data":[{"item":["005930"],"type":["0B"]}]}',
        '{"trnm":"REMOVE","return_code":0,"return_msg":""}',
    ),
)
CAPTURED_REAL = (
    '{"data":[{"values":{"841":"4","9001":"005930","843":"I","20":"152028","907":"2"},"type":"02","name":"조건검색",'
    '"item":"005930"}],"trnm":"REAL"}',
    '{"trnm":"REAL","data":[{"values":{"841":"1","9001":"001210","843":"D","20":"095654"},"type":"02","name":"조건검색",'
    '"item":"001210"}]}',
)
CAPTURED_TRADE = (
    '{"values":{"20":"145428","10":"-316500","11":"-17500","12":"-5.24","27":"-316500","28":"-316000","15":"+2",'
    '"13":"20631648","14":"6647893","16":"+334500","17":"+339000","18":"-311500","25":"5","228":"77.98","290":"2",'
    '"311":"18503472","9081":"KRX"},"type":"0B","name":"주식체결","item":"005930"}'
)


def shape(value: Any) -> Any:
    """A value with every text and number replaced by its kind, and every list by its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value)


def test_every_captured_request_is_answered_in_the_captured_shape() -> None:
    later = NOW + timedelta(hours=1)
    exchange = world(later, start=NOW)
    settle(exchange, later)
    assert exchange.day.members["4"]
    talk = Talk(exchange, login=False)
    for request_, reply in CAPTURES:
        answer = talk.say(request_)[0]
        assert shape(answer) == shape(json.loads(reply)), request_
        assert list(answer) == list(json.loads(reply))


def test_every_captured_entry_is_pushed_in_the_captured_shape(market: Exchange) -> None:
    talk = Talk(market)
    for seq, capture in zip(("4", "1"), CAPTURED_REAL, strict=True):
        talk.say(realtime(seq))
        entry = json.loads(capture)["data"][0]
        values = entry["values"]
        action = "hit" if values["843"] == "I" else "exit"
        hour, minute, second = (int(values["20"][n : n + 2]) for n in (0, 2, 4))
        happened = Crossing(0, seq, entry["item"], action, hour * 3600 + minute * 60 + second, 1)
        assert talk.told(happened) == [{"trnm": "REAL", "data": [entry]}]
    talk.say(REG)
    (frame,) = talk.told(trade())
    captured = json.loads(CAPTURED_TRADE)
    assert shape(frame["data"][0]) == shape(captured)
    assert list(frame["data"][0]["values"]) == list(captured["values"])


# --- prices

REG = '{"trnm":"REG","grp_no":"1","refresh":"1","data":[{"item":["005930"],"type":["0B"]}]}'
REMOVE = '{"trnm":"REMOVE","grp_no":"1","data":[{"item":["005930"],"type":["0B"]}]}'


def reg(*codes: str, group: str = "1", refresh: str = "1", types: Any = ("0B",)) -> dict[str, Any]:
    return {"trnm": "REG", "grp_no": group, "refresh": refresh, "data": [{"item": codes, "type": types}]}


def test_registered_codes_get_their_trades(market: Exchange) -> None:
    talk = Talk(market)
    assert talk.told(trade()) == SILENCE
    assert talk.say(REG) == [{"trnm": "REG", "return_code": 0, "return_msg": ""}]
    (frame,) = talk.told(trade("000660"), trade())
    (entry,) = frame["data"]
    assert (entry["type"], entry["name"], entry["item"]) == ("0B", "주식체결", "005930")
    assert entry["values"] == {
        "20": "143428", "10": "-71200", "11": "-100", "12": "-0.14", "27": "-71200", "28": "-71100", "15": "+2",
        "13": "300", "14": "21", "16": "+71400", "17": "+71500", "18": "-71100", "25": "5", "228": "50.00",
        "290": "2", "311": "4250485", "9081": "KRX",
    }  # fmt: skip
    assert talk.say(REMOVE) == [{"trnm": "REMOVE", "return_code": 0, "return_msg": ""}]
    assert talk.told(trade()) == SILENCE


def test_an_unchanged_price_has_a_blank_before_its_zero(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(REG)
    (frame,) = talk.told(trade(price=71_300, size=-5))
    values = frame["data"][0]["values"]
    assert [values[name] for name in ("10", "11", "12", "15", "25")] == ["71300", " 0", "0.00", "-5", "3"]


def test_refresh_keeps_or_drops_the_group_s_earlier_codes(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(reg("005930"))
    talk.say(reg("000660"))
    assert talk.session.state()["codes"] == ["000660", "005930"]
    talk.say(reg("035420", refresh="0"))
    assert talk.session.state()["codes"] == ["035420"]


def test_a_bogus_code_is_acknowledged_too(market: Exchange) -> None:
    assert Talk(market).say(reg("BOGUS1", "005930_NX", types=["0B", "0A"]))[0]["return_code"] == 0


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        [{"item": "005930", "type": ["0B"]}],
        [{"item": ["005930"], "type": "0B"}],
        [{"item": [5], "type": []}],
    ],
)
def test_items_and_types_must_be_arrays(market: Exchange, data: Any) -> None:
    (reply,) = Talk(market).say({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": data})
    assert (reply["return_code"], reply["return_msg"]) == (105111, "실시간 항목 등록에 실패했습니다")


def test_more_than_two_hundred_codes_are_refused_as_a_whole(market: Exchange) -> None:
    codes = [f"{number:06d}" for number in range(201)]
    talk = Talk(market)
    assert talk.say(reg(*codes))[0]["return_code"] == 105118
    assert talk.session.state()["codes"] == []
    assert talk.say(reg(*codes[:200]))[0]["return_code"] == 0
    assert talk.say(reg(codes[200], group="2"))[0]["return_code"] == 105115
    assert talk.say(reg(codes[0], group="2"))[0]["return_code"] == 0
    assert len(talk.session.state()["codes"]) == 200


def test_a_burst_is_refused_and_a_steady_pace_is_not(market: Exchange) -> None:
    talk = Talk(market)
    codes = [talk.say(REG, after=0.001)[0]["return_code"] for _ in range(50)]
    assert codes.count(0) == 5
    text = "해당 TRNM으로 허용된 요청 건수를 초과하였습니다 (TRNM=REG)"
    assert talk.say(REG, after=0) == [{"trnm": "REG", "return_code": 105110, "return_msg": text}]
    assert all(talk.say(REG, after=0.3)[0]["return_code"] == 0 for _ in range(50))


def remove(*codes: str, group: str = "1") -> dict[str, Any]:
    return {"trnm": "REMOVE", "grp_no": group, "data": [{"item": codes, "type": ["0B"]}]}


def test_a_refused_registration_leaves_what_was_registered(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(reg("005930"))
    assert talk.say(reg(*(f"{number:06d}" for number in range(200))))[0]["return_code"] == 105118
    assert talk.session.state()["codes"] == ["005930"]


def test_a_code_of_two_groups_counts_once_and_stays_until_it_is_in_neither(market: Exchange) -> None:
    talk = Talk(market, codes=2)
    talk.say(reg("005930", "000660"))
    assert talk.say(reg("005930", group="2"))[0]["return_code"] == 0
    talk.say(reg("035420", group="2", refresh="0"))
    assert talk.session.state()["codes"] == ["000660", "005930"], "the third was not refused"
    talk.say(remove("005930"))
    assert talk.session.state()["codes"] == ["000660", "005930"]
    talk.say(remove("005930", group="2"))
    assert talk.session.state()["codes"] == ["000660"]


def test_what_is_not_registered_can_be_removed(market: Exchange) -> None:
    assert Talk(market).say(remove("005930", "BOGUS1", group="7"))[0]["return_code"] == 0


def test_a_trade_is_told_under_the_item_that_was_registered(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(reg("005930_AL", "005930_NX"))
    (frame,) = talk.told(trade())
    assert [entry["item"] for entry in frame["data"]] == ["005930_AL"], "the local market trades on KRX only"


@pytest.mark.parametrize(
    ("fault", "code", "registered"),
    [
        ("refuse-reg", 105111, []),
        ("refuse-some-reg", 105111, []),
        ("rate-limited-reg", 105110, []),
        ("drop-reg", 0, []),
        ("silent-reg", None, ["0004V0", "005930"]),
        ("deaf-reg", None, []),
    ],
)
def test_registrations_can_go_wrong(market: Exchange, fault: str, code: int | None, registered: list[str]) -> None:
    talk = Talk(market)
    talk.fault(fault)
    replies = talk.say(reg("005930", "0004V0"))
    assert ([reply["return_code"] for reply in replies] or [None]) == [code]
    assert talk.session.state()["codes"] == registered


def test_a_refusal_of_some_takes_the_others(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("refuse-some-reg")
    assert talk.say(reg("005930"))[0]["return_code"] == 0
    assert talk.say(reg("", types=["0s"]))[0]["return_code"] == 0


def test_a_session_may_have_few_slots(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("few-slots")
    codes = [f"{number:06d}" for number in range(21)]
    assert talk.say(reg(*codes))[0]["return_code"] == 105115
    assert talk.say(reg(*codes[:20]))[0]["return_code"] == 0


def test_prices_can_be_forgotten_without_a_word(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(reg("", types=["0s"], group="90"))
    talk.say(REG)
    assert talk.session.befall("forget-prices") == SILENCE
    assert talk.told(trade()) == SILENCE
    assert talk.told(Bell(32_400, "3")) != SILENCE


def test_the_market_clock_is_told_to_who_asked(market: Exchange) -> None:
    talk = Talk(market)
    assert talk.told(Bell(32_400, "3")) == SILENCE
    talk.say(reg("", types=["0s"]))
    (frame,) = talk.told(Bell(32_400, "3"))
    assert frame["data"][0]["values"]["215"] == "3"
    assert frame["data"][0]["values"]["20"] == "090000"
    assert frame["data"][0]["type"] == "0s"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"trnm":"SYSTEM"}', '{"trnm":"NOPE"}', '{"no":1}', "\x00"])
def test_what_kiwoom_does_not_know_gets_no_answer(market: Exchange, text: str) -> None:
    talk = Talk(market)
    assert talk.say(text) == SILENCE
    assert sum(talk.session.state()["ignored"].values()) == 1


# --- faults


def test_a_dropped_registration_is_acknowledged_and_silent(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("drop-registration", "7")
    assert talk.say(realtime("7"))[0]["return_code"] == 0
    talk.say(realtime("5"))
    (frame,) = talk.told(crossing("7"), crossing("5"))
    assert [entry["values"]["841"] for entry in frame["data"]] == ["5"]


def test_a_condition_can_fall_silent_alone_or_with_all(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("silent-cnsrreq", "7")
    assert talk.say(realtime("7")) == SILENCE
    assert talk.say(realtime("5")) != SILENCE
    talk.fault("silent-cnsrreq")
    assert talk.say(realtime("18")) == SILENCE


def test_entries_can_come_before_the_reply(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("before-ack-real")
    assert talk.say(realtime("7")) == SILENCE
    assert talk.told(crossing("5")) == SILENCE
    real, reply = talk.told(crossing("7"))
    assert (real["trnm"], reply["trnm"], reply["return_code"]) == ("REAL", "CNSRREQ", 0)


def test_a_reply_can_come_late(market: Exchange) -> None:
    for name in ("late-reply", "before-ack-real"):
        talk = Talk(market)
        talk.fault(name)
        assert talk.say(realtime("7")) == SILENCE
        assert talk.wait(4.9) == SILENCE
        assert talk.wait(0.1)[0]["seq"] == "7"


def test_one_frame_can_mix_types(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(realtime("7"))
    talk.say(REG)
    happened = (trade(), crossing("7"), trade())
    assert [[entry["type"] for entry in frame["data"]] for frame in talk.told(*happened)] == [["02"], ["0B", "0B"]]
    talk.fault("mixed-frames")
    assert [[entry["type"] for entry in frame["data"]] for frame in talk.told(*happened)] == [["0B", "02", "0B"]]


def test_pings_can_stop(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("no-ping")
    assert [talk.wait(10) for _ in range(5)] == [SILENCE] * 5
    assert not talk.session.closed


def test_a_zombie_pings_and_says_nothing_else(market: Exchange) -> None:
    talk = Talk(market)
    talk.say(realtime("7"))
    talk.fault("zombie")
    assert talk.told(crossing("7")) == SILENCE
    assert talk.wait(10) == [{"trnm": "PING"}]


def test_a_notice_and_a_ping_can_come_before_the_login_reply(market: Exchange) -> None:
    talk = Talk(market, login=False)
    talk.fault("early-system")
    frames = talk.say({"trnm": "LOGIN", "token": "good"})
    assert [frame["trnm"] for frame in frames[:3]] == ["SYSTEM", "PING", "LOGIN"]


def test_conditions_can_be_renumbered_and_withdrawn(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("renumbered")
    talk.fault("withdrawn", "5")
    (reply,) = talk.say('{"trnm":"CNSRLST"}')
    assert ["107", "신고가 돌파"] in reply["data"]
    assert len(reply["data"]) == 7
    assert talk.say(realtime("7"))[0]["return_code"] == 900004
    assert talk.say(realtime("107"))[0]["seq"] == "107"
    (frame,) = talk.told(crossing("7"))
    assert frame["data"][0]["values"]["841"] == "107"


@pytest.mark.parametrize(
    ("name", "prepare", "request_"),
    [
        ("silent-repeat", [realtime("7")], realtime("7")),
        ("silent-cnsrlst", [], {"trnm": "CNSRLST"}),
        ("no-search-while-live", [realtime("7")], {**realtime("5"), "search_type": "0"}),
    ],
)
def test_other_silences(market: Exchange, name: str, prepare: list[Any], request_: Any) -> None:
    talk = Talk(market)
    for frame in prepare:
        talk.say(frame)
    assert talk.say(request_) != SILENCE
    talk.fault(name)
    assert talk.say(request_) == SILENCE


def test_a_burst_can_be_swallowed(market: Exchange) -> None:
    talk = Talk(market)
    talk.fault("swallow-bursts")
    assert talk.say(realtime("7"), after=0.1) == SILENCE
    assert talk.say(realtime("5"), after=0.4) != SILENCE


def test_login_can_be_refused_or_ignored(market: Exchange) -> None:
    for name, expected in (("refuse-login", 805004), ("bad-token", 805004), ("silent-login", None)):
        talk = Talk(market, login=False)
        talk.fault(name)
        frames = talk.say({"trnm": "LOGIN", "token": "good"})
        assert (frames[0]["return_code"] if frames else None) == expected


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("close", [BYE]),
        ("close-abrupt", [Close(None, "")]),
        ("null-real", [{"trnm": "REAL", "data": None}]),
    ],
)
def test_momentary_faults(market: Exchange, name: str, last: list[Any]) -> None:
    talk = Talk(market)
    assert talk.read(talk.session.befall(name)) == last


def test_a_notice_is_a_system_frame_that_ends_nothing(market: Exchange) -> None:
    talk = Talk(market)
    (frame,) = talk.read(talk.session.befall("system-notice"))
    assert frame["trnm"] == "SYSTEM"
    assert not talk.session.closed


def test_garbage_is_no_json(market: Exchange) -> None:
    (output,) = Talk(market).session.befall("garbage-frame")
    assert isinstance(output, Send)
    with pytest.raises(json.JSONDecodeError):
        json.loads(output.text)


def test_every_fault_has_one_meaning_and_unknown_ones_are_refused(market: Exchange) -> None:
    assert not STANDING.keys() & MOMENTARY.keys()
    with pytest.raises(UnknownFault, match="nonsense"):
        NONE.switched("nonsense", True)
    for name in MOMENTARY:
        assert bool(Talk(market).session.befall(name)) == (name not in MUTE)
        assert Talk(market, login=False).session.befall(name) == SILENCE


def test_time_of_day_is_market_time_in_kst(market: Exchange) -> None:
    exchange = world(NOW + timedelta(minutes=1))
    settle(exchange, NOW + timedelta(minutes=1))
    talk = Talk(exchange)
    talk.say(realtime("18"))
    happened = settle(exchange, NOW + timedelta(minutes=3))
    entries = [entry for frame in talk.told(*happened) for entry in frame["data"]]
    assert entries
    assert all("100100" <= entry["values"]["20"] <= "100300" for entry in entries)
