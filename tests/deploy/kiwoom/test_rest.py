"""Tokens and TR calls, as function from request to reply."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import Exchange
from deploy.local.kiwoom.faults import NONE
from deploy.local.kiwoom.rest import Limits, Reply, Rest, Tokens
from streams.events import KST

from .worlds import settle, world

NOW = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
KEYS = {"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"}
STOCKS, CHARTS = "/api/dostk/stkinfo", "/api/dostk/chart"


@pytest.fixture(scope="module")
def market() -> Exchange:
    exchange = world(NOW)
    settle(exchange, NOW)
    return exchange


class Caller:
    def __init__(self, market: Exchange, **limits: Any) -> None:
        self.rest = Rest(market, Tokens("key", "secret"), Limits(**limits))
        self.real = 0.0
        self.latest = NOW

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return self.rest.answer(path, headers or {}, content, real=self.real, latest=self.latest)

    def token(self, **keys: str) -> dict[str, Any]:
        body = self.post("/oauth2/token", KEYS | keys).body
        assert isinstance(body, dict)
        return body

    def call(self, api_id: str, path: str, body: dict[str, str], **headers: str) -> Reply:
        authorization = {"authorization": f"Bearer {self.token()['token']}", "api-id": api_id}
        return self.post(path, body, authorization | {key.replace("_", "-"): value for key, value in headers.items()})

    def content(self, *args: Any, **headers: str) -> dict[str, Any]:
        reply = self.call(*args, **headers)
        assert reply.status == 200
        assert isinstance(reply.body, dict)
        return reply.body


def test_a_token_is_given_for_a_day_and_says_so_in_kst(market: Exchange) -> None:
    token = Caller(market).token()
    assert token | {"token": ""} == {
        "expires_dt": "20260310100000",
        "token_type": "bearer",
        "token": "",
        "return_code": 0,
        "return_msg": "정상적으로 처리되었습니다",
    }


@pytest.mark.parametrize(
    ("keys", "code", "inside"),
    [
        ({"appkey": "other"}, 3, "[8001:"),
        ({"secretkey": "other"}, 3, "[8002:"),
        ({"appkey": ""}, 2, "[8020:"),
        ({"grant_type": "password"}, 2, "[1516:"),
    ],
)
def test_wrong_keys_are_refused_with_http_200(market: Exchange, keys: dict[str, str], code: int, inside: str) -> None:
    reply = Caller(market).post("/oauth2/token", KEYS | keys)
    assert reply.status == 200
    assert isinstance(reply.body, dict)
    assert reply.body["return_code"] == code
    assert inside in reply.body["return_msg"]


def test_further_keys_of_the_account_are_other_keys(market: Exchange) -> None:
    tokens = Tokens("key", "secret")
    token = tokens.issue("key-2", NOW + timedelta(hours=1), 1)
    assert tokens.refusal("key-2", "secret") is None
    assert tokens.app_key_of(token, NOW) == "key-2"


def test_a_token_survives_the_server_and_not_its_end_nor_a_revocation() -> None:
    token = Tokens("key", "secret").issue("key", NOW + timedelta(hours=1), 1)
    again = Tokens("key", "secret")
    assert again.app_key_of(token, NOW) == "key"
    assert again.app_key_of(token, NOW + timedelta(hours=1)) is None
    assert Tokens("key", "other secret").app_key_of(token, NOW) is None
    again.revoke(token)
    assert again.app_key_of(token, NOW) is None
    assert again.app_key_of(Tokens("key", "secret").issue("key", NOW + timedelta(hours=1), 2), NOW) == "key"


@pytest.mark.parametrize("token", ["", "x", "zz.yy", "é", "6b.6b", "Bearer"])
def test_anything_else_is_no_token(token: str) -> None:
    assert Tokens("key", "secret").app_key_of(token, NOW) is None


@pytest.mark.parametrize("authorization", ["", "Bearer nonsense", "Basic x"])
def test_a_bad_token_is_http_200_with_return_code_3(market: Exchange, authorization: str) -> None:
    reply = Caller(market).post(STOCKS, {"mrkt_tp": "0"}, {"authorization": authorization, "api-id": "ka10099"})
    assert reply.status == 200
    assert reply.body == {"return_code": 3, "return_msg": "인증에 실패했습니다[8005:Token이 유효하지 않습니다]"}


def test_a_revoked_token_is_good_no_more(market: Exchange) -> None:
    caller = Caller(market)
    token = caller.token()["token"]
    reply = caller.post("/oauth2/revoke", {"appkey": "key", "secretkey": "secret", "token": token})
    assert reply.body == {"return_code": 0, "return_msg": "정상적으로 처리되었습니다"}
    reply = caller.post(STOCKS, {"mrkt_tp": "0"}, {"authorization": f"Bearer {token}", "api-id": "ka10099"})
    assert isinstance(reply.body, dict)
    assert reply.body["return_code"] == 3


@pytest.mark.parametrize(
    ("api_id", "path", "body", "inside"),
    [
        ("", STOCKS, {}, "[1501:"),
        ("ka10099", CHARTS, {"mrkt_tp": "0"}, "[1504:"),
        ("ka99999", STOCKS, {}, "[1504:"),
        ("ka10099", STOCKS, {}, "[1511:"),
        ("ka10080", CHARTS, {"stk_cd": "005930"}, "[1511:"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(
    market: Exchange, api_id: str, path: str, body: dict[str, str], inside: str
) -> None:
    content = Caller(market).content(api_id, path, body)
    assert content["return_code"] == 2
    assert inside in content["return_msg"]


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"5"])
def test_a_body_that_is_no_object_is_refused(market: Exchange, body: bytes) -> None:
    reply = Caller(market).post("/oauth2/token", body)
    assert isinstance(reply.body, dict)
    assert reply.body["return_code"] == 2


def test_too_many_calls_are_http_429_with_1700(market: Exchange) -> None:
    caller = Caller(market, burst=3, per_second=1.0)
    replies = [caller.call("ka10001", STOCKS, {"stk_cd": "005930"}) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert isinstance(replies[3].body, dict)
    assert replies[3].body["return_code"] == 5
    assert "[1700:" in replies[3].body["return_msg"]
    assert caller.call("ka10099", STOCKS, {"mrkt_tp": "0"}).status == 200  # each TR has its own count
    caller.real += 1.0
    assert caller.call("ka10001", STOCKS, {"stk_cd": "005930"}).status == 200


@pytest.mark.parametrize(("number", "market_name"), [("0", "KOSPI"), ("10", "KOSDAQ")])
def test_the_list_of_stocks_is_paged_by_headers(market: Exchange, number: str, market_name: str) -> None:
    caller = Caller(market, page=30)
    rows: list[dict[str, str]] = []
    headers = {}
    while True:
        reply = caller.call("ka10099", STOCKS, {"mrkt_tp": number}, **headers)
        assert isinstance(reply.body, dict)
        rows += reply.body["list"]
        paging = dict(reply.headers)
        if paging["cont-yn"] == "N":
            break
        headers = {"cont_yn": "Y", "next_key": paging["next-key"]}
    expected = [stock for stock in listings() if stock.market == market_name]
    assert [row["code"] for row in rows] == [stock.code for stock in expected]
    assert [int(row["lastPrice"]) for row in rows] == [stock.close for stock in expected]
    assert {row["marketCode"] for row in rows} == {number}
    assert all(len(row["lastPrice"]) == 8 for row in rows)


def test_an_unknown_market_has_no_stocks(market: Exchange) -> None:
    assert Caller(market).content("ka10099", STOCKS, {"mrkt_tp": "8"})["list"] == []


def test_minute_bars_come_newest_first_and_can_be_gathered(market: Exchange) -> None:
    caller = Caller(market, page=900)
    ones = caller.content("ka10080", CHARTS, {"stk_cd": "005930", "tic_scope": "1"})["stk_min_pole_chart_qry"]
    tens = caller.content("ka10080", CHARTS, {"stk_cd": "005930", "tic_scope": "10"})["stk_min_pole_chart_qry"]
    times = [row["cntr_tm"] for row in ones]
    assert times == sorted(times, reverse=True)
    assert all("20260309094000" <= time <= "20260309100000" and time.endswith("00") for time in times)
    assert {row["cntr_tm"][-4] for row in tens} <= set("012345")
    assert len(tens) <= 3
    assert sum(int(row["trde_qty"]) for row in ones) == sum(int(row["trde_qty"]) for row in tens)
    assert max(abs(int(row["high_pric"])) for row in ones) == max(abs(int(row["high_pric"])) for row in tens)


def test_daily_bars_reach_back_before_today(market: Exchange) -> None:
    caller = Caller(market)
    rows = caller.content("ka10081", CHARTS, {"stk_cd": "005930", "base_dt": "20260309"})["stk_dt_pole_chart_qry"]
    assert [row["dt"] for row in rows[:3]] == ["20260309", "20260306", "20260305"]
    assert len(rows) > 30
    assert int(rows[1]["cur_prc"]) == 71_300
    assert int(rows[0]["cur_prc"]) - 71_300 == int(rows[0]["pred_pre"])
    older = caller.content("ka10081", CHARTS, {"stk_cd": "005930", "base_dt": "20260305"})["stk_dt_pole_chart_qry"]
    assert older == rows[2:]


def test_one_stock_and_a_watch_list_agree_with_the_market(market: Exchange) -> None:
    caller = Caller(market)
    one = caller.content("ka10001", STOCKS, {"stk_cd": "005930"})
    rows = caller.content("ka10095", STOCKS, {"stk_cd": "005930|BOGUS1|0004V0"})["atn_stk_infr"]
    standing = market.day.standing("005930")
    assert standing is not None
    assert one["stk_nm"] == "삼성전자"
    assert abs(int(one["cur_prc"])) == standing.price
    assert [row["stk_cd"] for row in rows] == ["005930", "0004V0"]
    assert rows[0]["cur_prc"] == one["cur_prc"]
    assert rows[0]["base_pric"] == "71300"


def test_faults_of_rest(market: Exchange) -> None:
    caller = Caller(market)
    caller.rest.faults = NONE.switched("bad-token", True)
    assert caller.content("ka10001", STOCKS, {"stk_cd": "005930"})["return_code"] == 3
    caller.rest.faults = NONE.switched("too-many", True)
    assert caller.call("ka10001", STOCKS, {"stk_cd": "005930"}).status == 429
    caller.rest.faults = NONE.switched("maintenance", True)
    assert str(caller.post("/oauth2/token", KEYS).body).startswith("<!DOCTYPE html>")
