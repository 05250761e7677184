"""Token and TR calls against a scripted server: what is asked, what is kept, and one class per thing that fails."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from producers.kiwoom.errors import (
    CallRefused,
    KiwoomError,
    Maintenance,
    RateLimited,
    TokenRefused,
    Unreachable,
    embedded_code,
)
from producers.kiwoom.rest import Rest, listed
from producers.kiwoom.token import Tokens, short_name

URL = "https://kiwoom.test"
NOW = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
ISSUED = {
    "expires_dt": "20261124083713",
    "token_type": "bearer",
    "token": "T1",
    "return_code": 0,
    "return_msg": "정상적으로 처리되었습니다",
}
REFUSED = {"return_code": 3, "return_msg": "인증에 실패했습니다[8005:Token이 유효하지 않습니다]"}


class Kiwoom:
    """Answers each request with the next reply of its script; the last one stays."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx.Response):
            return reply
        return httpx.Response(200, json=reply)

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


def tokens(kiwoom: Kiwoom, folder: Path, *, now: Callable[[], datetime] = lambda: NOW, url: str = URL) -> Tokens:
    return Tokens(
        kiwoom.http(),
        rest_url=url,
        app_key=SecretStr("key"),
        secret_key=SecretStr("secret"),
        now=now,
        folder=folder,
    )


# --- the token


async def test_a_token_is_asked_for_as_the_protocol_says(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED)
    assert await tokens(kiwoom, tmp_path).get() == "T1"
    (request,) = kiwoom.requests
    assert (request.method, str(request.url)) == ("POST", f"{URL}/oauth2/token")
    assert request.headers["content-type"] == "application/json;charset=UTF-8"
    assert json.loads(request.content) == {"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"}


async def test_a_token_is_kept_for_the_next_run_and_only_for_its_owner(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED)
    await tokens(kiwoom, tmp_path).get()
    assert await tokens(kiwoom, tmp_path).get() == "T1"
    assert len(kiwoom.requests) == 1
    (file,) = tmp_path.glob("*.json")
    assert file.name == f"token-{short_name('key')}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "secret" not in file.read_text()


async def test_a_token_is_renewed_ten_minutes_before_its_end_in_kst(tmp_path: Path) -> None:
    ends = datetime(2026, 11, 23, 23, 37, 13, tzinfo=UTC)  # 08:37:13 KST on the 24th
    times = [NOW]
    kiwoom = Kiwoom(ISSUED, ISSUED | {"token": "T2", "expires_dt": "20261125083713"})
    source = tokens(kiwoom, tmp_path, now=lambda: times[-1])
    await source.get()
    times.append(ends - timedelta(minutes=10, seconds=1))
    assert await source.get() == "T1"
    times.append(ends - timedelta(minutes=10))
    assert await source.get() == "T2"


async def test_a_token_of_another_server_is_not_used(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED, ISSUED | {"token": "T2"})
    await tokens(kiwoom, tmp_path).get()
    assert await tokens(kiwoom, tmp_path, url="https://mock.test").get() == "T2"


async def test_a_discarded_token_is_not_given_out_again(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED, ISSUED | {"token": "T2"})
    source = tokens(kiwoom, tmp_path)
    source.discard(await source.get())
    assert await source.get() == "T2"


async def test_a_damaged_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / f"token-{short_name('key')}.json").write_text("{")
    assert await tokens(Kiwoom(ISSUED), tmp_path).get() == "T1"


async def test_a_token_without_a_readable_end_is_used_until_it_is_refused(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED | {"expires_dt": "?"})
    source = tokens(kiwoom, tmp_path)
    assert (await source.get(), await source.get(), len(kiwoom.requests)) == ("T1", "T1", 1)


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (
            {"return_code": 3, "return_msg": "인증에 실패했습니다[8001:App Key와 Secret Key 검증에 실패했습니다]"},
            TokenRefused,
            "check kiwoom.app_key",
        ),
        ({"return_code": 3, "return_msg": "[8002:…]"}, TokenRefused, "check kiwoom.secret_key"),
        ({"return_code": 3, "return_msg": "[8050:지정단말기 인증 실패]"}, TokenRefused, "register this machine's IP"),
        ({"return_code": 3, "return_msg": "[8103:…]"}, TokenRefused, "register this machine's IP"),
        ({"return_code": 3, "return_msg": "[8030:…]"}, TokenRefused, "the other environment"),
        ({"return_code": 0}, TokenRefused, "no token"),
        ({"return_code": 5, "return_msg": "허용된 요청 개수를 초과하였습니다[1700:…]"}, RateLimited, "too many"),
        (httpx.Response(429, json={}), RateLimited, "no more calls"),
        (httpx.Response(200, text="<html>점검중</html>"), Maintenance, "maintenance"),
        (httpx.Response(502, text=""), Maintenance, "HTTP 502"),
        (httpx.Response(200, json=[]), Maintenance, "no JSON"),
        (httpx.ConnectError("refused"), Unreachable, "does not answer at https://kiwoom.test"),
        (httpx.ReadTimeout(""), Unreachable, "ReadTimeout"),
    ],
)  # fmt: skip
async def test_what_goes_wrong_with_a_token_is_one_sentence(
    tmp_path: Path, reply: Any, error: type[KiwoomError], says: str
) -> None:
    with pytest.raises(error, match=says):
        await tokens(Kiwoom(reply), tmp_path).get()
    assert not list(tmp_path.glob("*.json"))


async def test_secrets_that_a_refusal_quotes_are_masked(tmp_path: Path) -> None:
    quoting = {"return_code": 3, "return_msg": "[8001:appkey=key-1, secretkey=hush]"}
    source = Tokens(
        Kiwoom(quoting).http(),
        rest_url=URL,
        app_key=SecretStr("key-1"),
        secret_key=SecretStr("hush"),
        now=lambda: NOW,
        folder=tmp_path,
    )
    with pytest.raises(TokenRefused, match=r"\[8001:appkey=\*\*\*, secretkey=\*\*\*\]"):
        await source.get()
    kiwoom = Kiwoom(ISSUED, {"return_code": 3, "return_msg": "[8050:token=T1]"})
    with pytest.raises(TokenRefused, match=r"\[8050:token=\*\*\*\]"):
        await all_pages(kiwoom, tmp_path)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("인증에 실패했습니다[8005:Token이 유효하지 않습니다]", "8005"),
        ("토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]", "8005"),
        ("허용된 요청 개수를 초과하였습니다[1700:허용된 요청 개수를 초과하였습니다. API ID=ka10099]", "1700"),
        ("정상", ""),
    ],
)
def test_the_code_inside_a_message_is_found(text: str, code: str) -> None:
    assert embedded_code(text) == code


# --- TR calls


def rest(kiwoom: Kiwoom, folder: Path) -> Rest:
    return Rest(kiwoom.http(), tokens(kiwoom, folder), rest_url=URL, spacing=0)


async def all_pages(kiwoom: Kiwoom, folder: Path) -> list[dict[str, Any]]:
    return [page async for page in rest(kiwoom, folder).pages("ka10099", "/api/dostk/stkinfo", {"mrkt_tp": "0"})]


@pytest.mark.parametrize(
    ("url", "seconds"), [("https://api.kiwoom.com", 0.2), ("https://mockapi.kiwoom.com", 1.0)], ids=["real", "paper"]
)
async def test_all_who_ask_take_turns_at_the_pace_that_the_server_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, seconds: float
) -> None:
    waits: list[float] = []
    slept = asyncio.sleep

    async def sleep(delay: float) -> None:
        waits.append(delay)
        await slept(0)

    kiwoom = Kiwoom(ISSUED, *(httpx.Response(200, json={"return_code": 0}) for _ in range(3)))
    calls = Rest(kiwoom.http(), tokens(kiwoom, tmp_path), rest_url=url)
    monkeypatch.setattr("producers.kiwoom.rest.asyncio.sleep", sleep)

    async def ask() -> None:
        async for _ in calls.pages("ka10080", "/api/dostk/chart", {}):
            pass

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(ask())
    assert [round(wait / seconds) for wait in sorted(waits)[-2:]] == [1, 1]


async def test_a_call_carries_token_and_id_and_follows_every_page(tmp_path: Path) -> None:
    first = httpx.Response(200, json={"return_code": 0, "n": 1}, headers={"cont-yn": "Y", "next-key": "K2"})
    second = httpx.Response(200, json={"return_code": 0, "n": 2}, headers={"cont-yn": "N", "next-key": ""})
    kiwoom = Kiwoom(ISSUED, first, second)
    assert [page["n"] for page in await all_pages(kiwoom, tmp_path)] == [1, 2]
    _, one, two = kiwoom.requests
    assert (one.headers["authorization"], one.headers["api-id"]) == ("Bearer T1", "ka10099")
    assert "cont-yn" not in one.headers
    assert (two.headers["cont-yn"], two.headers["next-key"]) == ("Y", "K2")


async def test_a_refused_token_is_replaced_once(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED, REFUSED, ISSUED | {"token": "T2"}, {"return_code": 0})
    await all_pages(kiwoom, tmp_path)
    assert kiwoom.requests[-1].headers["authorization"] == "Bearer T2"


async def test_a_token_that_stays_refused_is_an_error(tmp_path: Path) -> None:
    kiwoom = Kiwoom(ISSUED, REFUSED, ISSUED | {"token": "T2"}, REFUSED)
    with pytest.raises(TokenRefused, match="8005"):
        await all_pages(kiwoom, tmp_path)
    assert len(kiwoom.requests) == 4


async def test_a_rate_limit_is_waited_out(tmp_path: Path) -> None:
    limited = {"return_code": 5, "return_msg": "허용된 요청 개수를 초과하였습니다[1700:…]"}
    kiwoom = Kiwoom(ISSUED, limited, {"return_code": 0, "n": 1})
    assert [page["n"] for page in await all_pages(kiwoom, tmp_path)] == [1]


async def test_another_error_of_a_call_is_told(tmp_path: Path) -> None:
    with pytest.raises(CallRefused, match="ka10099 was refused"):
        await all_pages(Kiwoom(ISSUED, {"return_code": 20, "return_msg": "조회 결과가 없습니다"}), tmp_path)


async def test_the_listed_stocks_come_from_both_markets(tmp_path: Path) -> None:
    kospi = {
        "return_code": 0,
        "list": [
            {"code": "005930", "name": "삼성전자", "lastPrice": "00071500", "marketCode": "0"},
            {"code": "0004V0", "name": " 이름 ", "lastPrice": "00000000"},
            {"code": "X", "name": "no stock"},
            "garbage",
        ],
    }
    kosdaq = {"return_code": 0, "list": [{"code": "A000250", "name": "삼천당제약", "lastPrice": "x"}]}
    kiwoom = Kiwoom(ISSUED, kospi, kosdaq)
    found = [stock async for stock in rest(kiwoom, tmp_path).stocks(lambda: NOW)]
    assert [(s.code, s.name, s.market, s.previous_close) for s in found] == [
        ("005930", "삼성전자", "KOSPI", 71500),
        ("0004V0", "이름", "KOSPI", None),
        ("000250", "삼천당제약", "KOSDAQ", None),
    ]
    assert [json.loads(r.content) for r in kiwoom.requests[1:]] == [{"mrkt_tp": "0"}, {"mrkt_tp": "10"}]


@pytest.mark.parametrize("row", [None, [], {}, {"code": 5, "name": "x"}, {"code": "005930", "name": " "}])
def test_a_row_that_is_no_stock_is_left_out(row: Any) -> None:
    assert listed(row, "KOSPI", NOW) is None
