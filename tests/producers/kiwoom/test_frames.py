"""Frames: every frame of the protocol page, character for character, and everything that could break a reader."""

# ruff: noqa: E501 – frames stand on one line, as they do on the wire
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.kiwoom import frames
from producers.kiwoom.frames import (
    ClearReply,
    ClockEntry,
    ConditionEntry,
    ConditionReply,
    Discarded,
    ListReply,
    LoginReply,
    Member,
    Ping,
    Real,
    RegisterReply,
    System,
    TradeEntry,
    Unreadable,
    decode,
)
from streams.events import SearchRow

HIT = '{"data":[{"values":{"841":"4","9001":"005930","843":"I","20":"152028","907":"2"},"type":"02","name":"조건검색","item":"005930"}],"trnm":"REAL"}'
EXIT = '{"trnm":"REAL","data":[{"values":{"841":"1","9001":"001210","843":"D","20":"095654"},"type":"02","name":"조건검색","item":"001210"}]}'
TRADE = '{"values":{"20":"145428","10":"-316500","11":"-17500","12":"-5.24","27":"-316500","28":"-316000","15":"+2","13":"20631648","14":"6647893","16":"+334500","17":"+339000","18":"-311500","25":"5","228":"77.98","290":"2","311":"18503472","9081":"KRX"},"type":"0B","name":"주식체결","item":"005930"}'
SEARCH = """{"trnm":"CNSRREQ","seq":"0","cont_yn":"N","next_key":"","return_code":0,"data":[
 {"9001":"A002810","302":"삼영무역","10":"000019600","25":"2","11":"000000740","12":"000003920","13":"000019493","16":"000018860","17":"000019830","18":"000018810"}]}"""

FROM_THE_PAGE = [
    pytest.param(
        '{"trnm":"LOGIN","return_code":0,"return_msg":"","sor_yn":"Y"}', LoginReply(code=0), id="login"
    ),
    pytest.param(
        '{"trnm":"LOGIN","return_code":805004,"return_msg":"토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]"}',
        LoginReply(
            code=805004,
            message="토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]",
        ),
        id="login-bad-token",
    ),
    pytest.param('{"trnm":"SYSTEM","code":"R10001","message":"…"}', System(code="R10001", message="…"), id="system"),
    pytest.param(
        '{"trnm":"CNSRLST","return_code":0,"return_msg":"","data":[["0","test1"],["1","순위"],["2","신용융자E군"],["3","CCI"]]}',
        ListReply(code=0, conditions=(("0", "test1"), ("1", "순위"), ("2", "신용융자E군"), ("3", "CCI"))),
        id="list",
    ),
    pytest.param(
        SEARCH,
        ConditionReply(
            seq="0",
            search_type="0",
            code=0,
            members=(Member("002810"),),
            rows=(
                SearchRow(
                    code="002810",
                    name="삼영무역",
                    price=19600,
                    change=740,
                    change_rate=3.92,
                    open=18860,
                    high=19830,
                    low=18810,
                    volume=19493,
                ),
            ),
        ),
        id="one-shot",
    ),
    pytest.param(
        '{"trnm":"CNSRREQ","seq":"0","return_code":0,"data":[{"jmcode":"A002810"},{"jmcode":"Q760020"}]}',
        ConditionReply(seq="0", search_type="1", code=0, members=(Member("002810"), Member("760020"))),
        id="snapshot",
    ),
    pytest.param(
        '{"trnm":"CNSRREQ","seq":"33","return_code":0,"data":null}', ConditionReply(seq="33", code=0), id="empty-snapshot"
    ),
    pytest.param(
        HIT,
        Real(entries=(ConditionEntry(seq="4", code="005930", exchange="KRX", action="hit", time="152028"),)),
        id="hit",
    ),
    pytest.param(
        EXIT,
        Real(entries=(ConditionEntry(seq="1", code="001210", exchange="KRX", action="exit", time="095654"),)),
        id="exit",
    ),
    pytest.param(
        '{"trnm":"CNSRCLR","seq":"0","return_code":0,"return_msg":"정상종료되었습니다."}',
        ClearReply(seq="0", code=0, message="정상종료되었습니다."),
        id="clear",
    ),
    pytest.param(
        '{"trnm":"CNSRREQ","return_code":900003,"return_msg":"이미 등록된 조건검색 일련번호입니다.(seq=3)"}',
        ConditionReply(seq="3", code=900003, message="이미 등록된 조건검색 일련번호입니다.(seq=3)"),
        id="registered",
    ),
    pytest.param(
        '{"trnm":"REG","return_code":0,"return_msg":""}', RegisterReply(trnm="REG", code=0), id="registration"
    ),
    pytest.param(
        f'{{"trnm":"REAL","data":[{TRADE}]}}',
        Real(
            entries=(
                TradeEntry(
                    code="005930",
                    exchange="KRX",
                    time="145428",
                    price=316500,
                    change=-17500,
                    change_rate=-5.24,
                    size=2,
                    day_volume=20631648,
                    value=6647893,
                    open=334500,
                    high=339000,
                    low=311500,
                ),
            )
        ),
        id="trade",
    ),
    pytest.param('{"trnm":"PING"}', Ping(), id="ping"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FROM_THE_PAGE)
def test_a_frame_of_the_protocol_page_is_read(text: str, expected: frames.Received) -> None:
    assert decode(text) == expected
    assert decode(text.encode()) == expected


SENT = [
    (frames.LoginRequest(token="T"), '{"trnm":"LOGIN","token":"T"}'),
    (frames.ListRequest(), '{"trnm":"CNSRLST"}'),
    (
        frames.SearchRequest(seq="4"),
        '{"trnm":"CNSRREQ","seq":"4","search_type":"0","stex_tp":"K","cont_yn":"N","next_key":""}',
    ),
    (
        frames.RealtimeRequest(seq="4", search_type="1", stex_tp="K"),
        '{"trnm":"CNSRREQ","seq":"4","search_type":"1","stex_tp":"K"}',
    ),
    (frames.RealtimeRequest(seq="4", search_type="1"), '{"trnm":"CNSRREQ","seq":"4","search_type":"1"}'),
    (frames.ClearRequest(seq="0"), '{"trnm":"CNSRCLR","seq":"0"}'),
    (
        frames.RegisterRequest(grp_no="1", data=[frames.Items(item=["005930"], type=["0B"])]),
        '{"trnm":"REG","grp_no":"1","refresh":"1","data":[{"item":["005930"],"type":["0B"]}]}',
    ),
    (
        frames.RemoveRequest(grp_no="1", data=[frames.Items(item=["005930"], type=["0B"])]),
        '{"trnm":"REMOVE","grp_no":"1","data":[{"item":["005930"],"type":["0B"]}]}',
    ),
]


@pytest.mark.parametrize(("request_", "text"), SENT)
def test_a_request_is_written_as_on_the_protocol_page(request_: frames.Request, text: str) -> None:
    assert request_.text() == text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("005930", ("005930", "KRX")),
        ("A005930", ("005930", "KRX")),
        ("J005930", ("005930", "KRX")),
        ("Q760020", ("760020", "KRX")),
        ("0004V0", ("0004V0", "KRX")),
        ("A0004V0", ("0004V0", "KRX")),
        # Six characters that begin with A are a code: only a seventh is a prefix.
        ("A00123", ("A00123", "KRX")),
        ("AA00123", ("A00123", "KRX")),
        ("005930_NX", ("005930", "NXT")),
        ("A005930_NX", ("005930", "NXT")),
        ("005930_AL", ("005930", "AL")),
        ("  005930 ", ("005930", "KRX")),
        ("005930_XX", None),
        ("B005930", None),
        ("59300", None),
        ("00593０", None),
        ("", None),
    ],
)
def test_a_code_loses_one_prefix_and_its_suffix_names_the_exchange(written: str, expected: Any) -> None:
    assert frames.stock(written) == expected


def real(*entries: Any) -> str:
    return json.dumps({"trnm": "REAL", "data": list(entries)})


def condition(**values: Any) -> dict[str, Any]:
    fields = {"841": "4", "9001": "005930", "843": "I", "20": "152028"} | values
    return {"values": {k: v for k, v in fields.items() if v is not None}, "type": "02", "item": fields["9001"]}


def only_entry(text: str) -> frames.Entry:
    frame = decode(text)
    assert isinstance(frame, Real)
    (entry,) = frame.entries
    return entry


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (condition(**{"843": None}), "no-action"),
        (condition(**{"843": ""}), "no-action"),
        (condition(**{"843": "X"}), "bad-action"),
        (condition(**{"841": None}), "no-seq"),
        (condition(**{"9001": "12"}), "bad-code"),
        ({"type": "02", "values": {"841": "4", "843": "I"}}, "no-code"),
        ({"type": "02"}, "no-values"),
        ({"type": "0D", "values": {"841": "4", "9001": "005930", "843": "I"}}, "other-type"),
        ({"values": {"841": "4", "9001": "005930", "843": "I"}}, "other-type"),
        ("garbage", "not-an-entry"),
        (None, "not-an-entry"),
    ],
)
def test_an_entry_that_does_not_say_enough_is_discarded_with_its_reason(entry: Any, reason: str) -> None:
    assert only_entry(real(entry)) == Discarded(reason=reason)


@pytest.mark.parametrize("time", [None, "", "246060", "9:30", "95654"])
def test_a_hit_without_a_readable_time_is_still_a_hit(time: str | None) -> None:
    entry = only_entry(real(condition(**{"20": time})))
    assert isinstance(entry, ConditionEntry)
    assert entry.time is None


def test_entries_of_a_mixed_frame_are_told_apart_one_by_one() -> None:
    clock = {"type": "0s", "name": "장시작시간", "item": "", "values": {"215": "3", "20": "090000"}}
    frame = decode(real(json.loads(TRADE), condition(), {"type": "0D", "values": {}}, clock, condition(**{"843": "D"})))
    assert isinstance(frame, Real)
    kinds = [type(entry) for entry in frame.entries]
    assert kinds == [TradeEntry, ConditionEntry, Discarded, ClockEntry, ConditionEntry]


@pytest.mark.parametrize("text", ['{"trnm":"REAL","data":null}', '{"trnm":"REAL","data":[]}', '{"trnm":"REAL"}'])
def test_a_real_frame_may_be_empty(text: str) -> None:
    assert decode(text) == Real()


def test_list_entries_may_be_objects_and_are_stripped() -> None:
    text = '{"trnm":"CNSRLST","return_code":0,"data":[{"seq":"1  ","name":" 순위 "},["2 "," CCI"]]}'
    assert decode(text) == ListReply(code=0, conditions=(("1", "순위"), ("2", "CCI")))


@pytest.mark.parametrize("data", ['"x"', '[["1"]]', '[["", "name"]]', "[5]"])
def test_a_list_that_is_partly_unreadable_is_not_complete(data: str) -> None:
    frame = decode(f'{{"trnm":"CNSRLST","return_code":0,"data":{data}}}')
    assert isinstance(frame, ListReply)
    assert not frame.complete


def test_an_account_without_conditions_has_an_empty_list() -> None:
    assert decode('{"trnm":"CNSRLST","return_code":0,"data":null}') == ListReply(code=0)


def test_a_padded_reply_seq_is_stripped() -> None:
    frame = decode('{"trnm":"CNSRREQ","seq":"2  ","return_code":"0","data":[]}')
    assert frame == ConditionReply(seq="2", code=0)


@pytest.mark.parametrize("tail", ['"data":"x"', '"data":[{"other":1}]', '"data":[],"cont_yn":"Y"', '"data":[null]'])
def test_a_reply_that_is_partly_unreadable_or_goes_on_is_not_complete(tail: str) -> None:
    frame = decode(f'{{"trnm":"CNSRREQ","seq":"2","return_code":0,{tail}}}')
    assert isinstance(frame, ConditionReply)
    assert not frame.complete


def test_rows_of_what_is_no_stock_are_left_out_and_counted() -> None:
    frame = decode(
        '{"trnm":"CNSRREQ","seq":"2","return_code":0,"data":[{"jmcode":"KOSPI200F"},{"jmcode":"005930_AL"}]}'
    )
    assert frame == ConditionReply(seq="2", search_type="1", code=0, members=(Member("005930", "AL"),), discarded=1)


def test_a_falling_stock_of_a_search_has_a_negative_change() -> None:
    row = {"9001": "005930", "10": "-00000100", "25": "5", "11": "000000010", "12": "000001500"}
    frame = decode(json.dumps({"trnm": "CNSRREQ", "seq": "2", "return_code": 0, "data": [row]}))
    assert isinstance(frame, ConditionReply)
    assert (frame.rows[0].price, frame.rows[0].change, frame.rows[0].change_rate) == (100, -10, -1.5)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not-json"),
        (b"<html>", "not-json"),
        (b"\xff\xfe", "not-json"),
        (b"[" * 100_000, "not-an-object"),
        (b'{"trnm":' + b"[" * 100_000, "not-json"),
        ("{\"trnm\":\"\ud800\"}", "not-json"),
        (b"[]", "not-an-object"),
        (b"5", "not-an-object"),
        (b"{}", "no-trnm"),
        (b'{"trnm":5}', "no-trnm"),
        (b'{"trnm":"NEWS"}', "unknown-trnm"),
    ],
)  # fmt: skip
def test_what_is_no_frame_has_a_reason(raw: bytes | str, reason: str) -> None:
    frame = decode(raw)
    assert isinstance(frame, Unreadable)
    assert frame.reason == reason


@settings(deadline=None)
@given(st.binary())
def test_bytes_never_raise(raw: bytes) -> None:
    decode(raw)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["I", "D", "02", "0B", "0s", "005930", "A005930_NX", "152028", "Y", "R10001"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["841", "9001", "843", "20", "10", "25", "12", "215", "type", "values", "item", "jmcode", "seq", "name"]),
        inner,
        max_size=6,
    ),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["REAL", "CNSRREQ", "CNSRLST", "CNSRCLR", "LOGIN", "SYSTEM", "REG", "REMOVE", "PING", "X"]),
    st.dictionaries(
        st.sampled_from(["data", "seq", "return_code", "return_msg", "cont_yn", "next_key", "code", "message"]),
        anything,
    ),
)
def test_no_field_of_any_type_raises(trnm: str, fields: dict[str, Any]) -> None:
    frame = decode(msgspec.json.encode({"trnm": trnm} | fields))
    assert not isinstance(frame, Unreadable) or trnm == "X"


_TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "I", "D", "02", "02 ", "0B", "0s", "005930", "A005930", "005930_NX", "093000", " 093000", "-316500",
         " 0", "+2", "-5.24", "KRX", "NXT", "NXT ", "4", "3", "９"]
    ),
    st.text(max_size=8),
)  # fmt: skip
_VALUES = st.dictionaries(
    st.sampled_from(
        [*["10", "11", "12", "13", "14", "15", "16", "17", "18", "20", "215", "841", "843", "9001", "9081", "907"]]
    ),
    _TEXTS,
)
_ENTRY = st.fixed_dictionaries({"values": _VALUES, "type": _TEXTS}, optional={"item": _TEXTS, "name": _TEXTS})


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_ENTRY, max_size=4))
def test_a_frame_as_kiwoom_writes_it_says_the_same_as_if_nothing_were_promised_of_it(entries: list[Any]) -> None:
    """Most frames are read into structs at once; what that can't read is read field by field, by the same rules."""
    raw = json.dumps({"trnm": "REAL", "data": entries}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert decode(raw) == frames._decode_any(raw)
