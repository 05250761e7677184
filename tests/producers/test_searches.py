"""One-shot searches over the local market, and when a scheduled one is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from deploy.local.kiwoom.protocol import Rules
from producers import searches
from producers.kiwoom import frames
from producers.kiwoom.line import Line, logged_in
from producers.kiwoom.rest import Rest, watched
from producers.kiwoom.token import Tokens
from producers.searches import NoSuchCondition, Run, SearchFailed, due, missed, next_run, planned
from streams.events import KST, SearchResult, SearchRow

from .local_market import unhurried

NAME = "등락률 5~15%"


class World:
    """A local market with one session that is logged in."""

    def __init__(self, line: Line, http: httpx.AsyncClient, rest: Rest) -> None:
        self.line = line
        self.http = http
        self.rest = rest

    async def fault(self, name: str, **options: object) -> None:
        assert (await self.http.post("/local/faults", json={"name": name, **options})).status_code == 200

    async def search(self, name: str = NAME, scheduled_for: datetime | None = None) -> SearchResult:
        return await searches.search(
            self.line,
            name,
            account="main",
            now=lambda: datetime.now(UTC),
            rest=self.rest,
            scheduled_for=scheduled_for,
            within=0.5,
        )


@contextlib.asynccontextmanager
async def world(folder: Path, free: int, page: int = 100) -> AsyncIterator[World]:
    up = asyncio.Event()
    task = asyncio.create_task(
        serve(
            host="127.0.0.1",
            port=free,
            seed=7,
            clock=Clock(datetime(2026, 3, 9, 10, 0, tzinfo=KST), 1.0),
            state_dir=None,
            activity=1.0,
            ready=lambda why: up.set() if why is None else None,
            rules=Rules(burst=1000, per_second=1000.0, page=page),
        )
    )
    url = f"http://127.0.0.1:{free}"
    try:
        async with asyncio.timeout(30), httpx.AsyncClient(base_url=url, timeout=10) as http:
            await up.wait()
            tokens = Tokens(
                http,
                rest_url=url,
                app_key=SecretStr("local-app-key"),
                secret_key=SecretStr("local-secret-key"),
                now=lambda: datetime.now(UTC),
                folder=folder,
            )
            websocket = f"ws://127.0.0.1:{free}/api/dostk/websocket"
            async with logged_in(websocket, tokens, spacing=0.01, pause=0.0) as line:
                yield World(line, http, Rest(http, tokens, rest_url=url, spacing=0.01))
    finally:
        task.cancel()
        await asyncio.wait((task,))


@pytest.fixture
def free() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@unhurried
async def test_all_pages_are_one_result(tmp_path: Path, free: int) -> None:
    async with world(tmp_path, free, page=2) as kiwoom:
        await kiwoom.http.post("/local/pause")
        result = await kiwoom.search()
        truth = (await kiwoom.http.get("/local/truth")).json()["members"][NAME]
    assert {row.code for row in result.rows} == set(truth)
    assert len(result.rows) > 2
    assert result.source == "search"
    assert all(row.price and row.name and 4 < (row.change_rate or 0) < 16 for row in result.rows)


@unhurried
async def test_a_scheduled_result_has_the_identity_of_its_run(tmp_path: Path, free: int) -> None:
    at = datetime(2026, 3, 9, 15, 37, tzinfo=KST)
    async with world(tmp_path, free) as kiwoom:
        first, again = await kiwoom.search(scheduled_for=at), await kiwoom.search(scheduled_for=at)
        asked = await kiwoom.search()
    assert first.id == again.id != asked.id
    assert first.scheduled_for == at


@unhurried
async def test_silent_searches_are_answered_from_the_realtime_side_with_prices(tmp_path: Path, free: int) -> None:
    async with world(tmp_path, free) as kiwoom:
        await kiwoom.http.post("/local/pause")
        plain = await kiwoom.search()
        await kiwoom.fault("silent-search")
        result = await kiwoom.search()
        state = (await kiwoom.http.get("/local/state")).json()
    assert result.source == "snapshot"
    assert {row.code: (row.price, row.change, row.volume) for row in result.rows} == {
        row.code: (row.price, row.change, row.volume) for row in plain.rows
    }
    assert state["sessions"][0]["conditions"] == []  # cleared again


@unhurried
async def test_a_condition_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, free: int) -> None:
    async with world(tmp_path, free) as kiwoom:
        with pytest.raises(NoSuchCondition, match=r"없는 조건.*등락률"):
            await kiwoom.search("없는 조건")


@unhurried
async def test_silence_for_both_kinds_is_said(tmp_path: Path, free: int) -> None:
    async with world(tmp_path, free) as kiwoom:
        await kiwoom.fault("silent-cnsrreq")
        with pytest.raises(SearchFailed, match="hitstream doctor"):
            await kiwoom.search()


def test_fields_are_read_as_kiwoom_writes_them() -> None:
    reply = frames.decode(
        '{"trnm":"CNSRREQ","seq":"0","cont_yn":"N","next_key":"","return_code":0,"data":[{"9001":"A002810",'
        '"302":"삼영무역","10":"-00019600","25":"5","11":"-00000740","12":"-00003920","13":"000019493",'
        '"16":"000018860","17":"000019830","18":"000018810"}]}'
    )
    assert isinstance(reply, frames.ConditionReply)
    assert reply.rows == (
        SearchRow(
            code="002810", name="삼영무역", price=19600, change=-740, change_rate=-3.92, volume=19493, open=18860,
            high=19830, low=18810,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"stk_cd": "005930", "cur_prc": "-70000", "pred_pre": "-500", "pred_pre_sig": "5", "flu_rt": "-0.71"},
         SearchRow(code="005930", price=70000, change=-500, change_rate=-0.71)),
        ({"stk_cd": "A0004V0", "stk_nm": " 새내기 ", "cur_prc": "+1000", "pred_pre": "10", "pred_pre_sig": "2"},
         SearchRow(code="0004V0", name="새내기", price=1000, change=10)),
        ({"stk_cd": "005930_NX"}, SearchRow(code="005930", exchange="NXT")),
        ({"stk_cd": ""}, None),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
def test_a_row_of_ka10095_is_read(row: object, expected: SearchRow | None) -> None:
    assert watched(row) == expected


# --- the schedule -----------------------------------------------------------------------------------------------------

PLAN = planned([("신고가 돌파", [time(15, 37)]), ("대왕개미단타", [time(14, 22)]), ("없음", [])])
MONDAY, TUESDAY, SATURDAY = date(2026, 3, 9), date(2026, 3, 10), date(2026, 3, 14)


def weekday(day: date) -> bool:
    return day.weekday() < 5


def moment(day: date, at: str) -> datetime:
    return datetime.combine(day, time.fromisoformat(at), KST)


HIGH, ANTS = Run("신고가 돌파", moment(MONDAY, "15:37")), Run("대왕개미단타", moment(MONDAY, "14:22"))


@pytest.mark.parametrize(
    ("now", "done", "expected"),
    [
        (moment(MONDAY, "14:21"), {}, []),
        (moment(MONDAY, "14:22"), {}, [ANTS]),
        (moment(MONDAY, "14:22"), {ANTS.key: MONDAY}, []),
        (moment(MONDAY, "14:22"), {ANTS.key: date(2026, 3, 6)}, [ANTS]),
        (moment(MONDAY, "23:59"), {}, [ANTS, HIGH]),  # caught up within the day
        (moment(MONDAY, "23:59"), {ANTS.key: MONDAY}, [HIGH]),
        (moment(TUESDAY, "00:00"), {}, []),  # not after it
        (moment(SATURDAY, "16:00"), {}, []),
    ],
)
def test_a_run_is_due_on_its_day_from_its_time_until_it_is_done(
    now: datetime, done: dict[str, date], expected: list[Run]
) -> None:
    assert due(PLAN, now, done, weekday) == expected


@pytest.mark.parametrize(
    ("since", "done", "expected"),
    [
        (None, {}, []),
        (MONDAY, {ANTS.key: MONDAY, HIGH.key: MONDAY}, []),
        (MONDAY, {ANTS.key: MONDAY}, [HIGH]),
        (date(2026, 3, 7), {ANTS.key: MONDAY, HIGH.key: MONDAY}, []),
        (TUESDAY, {}, []),
    ],
)
def test_a_run_that_was_never_done_is_reported(since: date | None, done: dict[str, date], expected: list[Run]) -> None:
    assert missed(PLAN, moment(TUESDAY, "08:00"), done, since, weekday) == expected


def test_the_next_run_is_on_the_next_trading_day() -> None:
    friday = date(2026, 3, 13)
    assert next_run(PLAN, moment(friday, "14:30"), weekday) == Run("신고가 돌파", moment(friday, "15:37"))
    assert next_run(PLAN, moment(friday, "15:37"), weekday) == Run("대왕개미단타", moment(date(2026, 3, 16), "14:22"))
    assert next_run(PLAN, moment(friday, "14:30"), weekday, ("대왕개미단타",)) == Run(
        "대왕개미단타", moment(date(2026, 3, 16), "14:22")
    )
    assert next_run(planned([]), moment(friday, "14:30"), weekday) is None
