"""What is done by the clock: each run once, caught up on its day, reported where it was missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from pydantic import SecretStr

from producers.control import Switchboard, View
from producers.errands import Done, Errands
from producers.kiwoom import frames
from producers.kiwoom.rest import Rest
from producers.settings import ConditionSource, KiwoomSettings
from streams.events import KST, Frame, Record, SearchResult, Status

NAME = "신고가 돌파"
LIST = '{"trnm":"CNSRLST"}'
LISTED = f'{{"trnm":"CNSRLST","return_code":0,"data":[["7","{NAME}"]]}}'
FOUND = (
    '{"trnm":"CNSRREQ","seq":"7","cont_yn":"N","return_code":0,"data":[{"9001":"A005930","10":"70000","12":"3920"}]}'
)
REGISTERED = '{"trnm":"CNSRREQ","return_code":900003,"return_msg":"이미 등록된 조건검색 일련번호입니다.(seq=7)"}'
MONDAY = date(2026, 3, 9)


class World:
    """A session that answers, a clock that is set, and what was published."""

    def __init__(self, folder: Path, at: str, *, day: date = MONDAY) -> None:
        self.clock = datetime.combine(day, time.fromisoformat(at), KST)
        self.folder = folder
        self.published: list[Record] = []
        self.silent = False
        self.asking = True
        self.taken = False
        self.needed: list[float] = []
        self.board = Switchboard(ask=self.ask, need=self.need, view=self.view)
        self.goes_by("out", LIST)
        self.goes_by("in", LISTED)

    def need(self, seconds: float) -> None:
        self.needed.append(seconds)
        self.asking = self.asking or not self.taken

    def view(self) -> View:
        state = ("live", "") if self.asking else ("resting", "after the close")
        state = ("displaced", "R10001") if self.taken else state
        return View(
            pid=1, account="main", producer="p", session=state, asking=self.asking, states={NAME: ("live", "")},
            members={NAME: ("005930",)},
        )  # fmt: skip

    def ask(self, text: str) -> None:
        self.goes_by("out", text)
        asked = frames.request(text)
        if asked.trnm == "CNSRLST":
            self.goes_by("in", LISTED)
        elif not self.silent:
            self.goes_by("in", FOUND if asked.search_type == "0" else REGISTERED)

    def goes_by(self, direction: Any, text: str) -> None:
        self.board.on_frame(Frame(connection="c", number=1, direction=direction, at=datetime.now(UTC), text=text))

    @property
    def results(self) -> list[SearchResult]:
        return [r for r in self.published if isinstance(r, SearchResult)]

    def said(self, component: str = "search") -> list[Status]:
        return [r for r in self.published if isinstance(r, Status) and r.component.startswith(component)]

    @contextlib.asynccontextmanager
    async def running(self, *, doctor_at: tuple[time, ...] = (), again: float = 0.05) -> AsyncIterator[None]:
        errands = Errands(
            kiwoom=KiwoomSettings(app_key=SecretStr("hush-key"), secret_key=SecretStr("hush"), doctor_at=doctor_at),
            conditions=[ConditionSource(name=NAME, search_at=() if doctor_at else (time(15, 37),))],
            producer="p",
            board=self.board,
            rest=cast(Rest, None),
            offer=self.published.append,
            now=lambda: self.clock,
            trading=lambda day: day.weekday() < 5,
            hours=lambda at: "open" if 9 <= at.astimezone(KST).hour < 15 else "before",
            folder=self.folder,
            again=again,
            patience=0.2,
            observe=0.2,
            session_within=0.3,
        )
        task = asyncio.create_task(errands.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_run_is_made_once_at_its_time(tmp_path: Path) -> None:
    world = World(tmp_path, "15:36")
    async with world.running():
        await until(world.said)
        assert "next 03-09 15:37" in world.said()[-1].cause
        assert world.results == []
        world.clock += timedelta(minutes=1)
        await until(lambda: world.said() and world.said()[-1].state == "done")
        world.clock += timedelta(minutes=1)
        await until(lambda: "next 03-10 15:37" in world.said()[-1].cause)
    (result,) = world.results
    assert result.scheduled_for == datetime(2026, 3, 9, 15, 37, tzinfo=KST)
    assert [(row.code, row.price, row.change_rate) for row in result.rows] == [("005930", 70000, 3.92)]


async def test_a_run_opens_a_session_that_rests(tmp_path: Path) -> None:
    world = World(tmp_path, "15:37")
    world.asking = False
    async with world.running():
        await until(lambda: world.results)
    assert world.needed


async def test_a_run_that_the_machine_slept_through_is_caught_up_and_not_repeated_by_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, "18:00")
    async with world.running():
        await until(lambda: world.results and world.said()[-1].state == "done")
    assert "caught up 143 min late" in world.said()[-1].cause
    again = World(tmp_path, "19:00")
    async with again.running():
        await until(again.said)
    assert again.results == []


async def test_a_failed_run_is_tried_again_until_it_succeeds(tmp_path: Path) -> None:
    world = World(tmp_path, "15:37")
    world.silent = True
    async with world.running():
        await until(lambda: any(s.state == "failed" for s in world.said()))
        assert "hitstream doctor" in next(s.cause for s in world.said() if s.state == "failed")
        world.silent = False
        await until(lambda: world.said()[-1].state == "done")
    assert len(world.results) == 1


async def test_what_a_run_came_to_is_known_after_a_restart_and_gone_with_its_plan(tmp_path: Path) -> None:
    world = World(tmp_path, "15:37")
    async with world.running():
        await until(lambda: world.results and world.said()[-1].state == "done")
    assert world.said()[-1].figures == {
        "rows": 1.0,
        "last": world.clock.timestamp(),
        "next": datetime(2026, 3, 10, 15, 37, tzinfo=KST).timestamp(),
    }
    again = World(tmp_path, "19:00")
    async with again.running():
        await until(again.said)
    assert (again.said()[0].state, again.said()[0].figures) == ("done", world.said()[-1].figures)
    other = World(tmp_path, "20:00")
    async with other.running(doctor_at=(time(8, 50),)):
        await until(lambda: other.said("search") and other.said("doctor"))
    assert [status.state for status in other.said("search")] == ["retired"]
    third = World(tmp_path, "21:00")
    async with third.running(doctor_at=(time(8, 50),)):
        await until(lambda: third.said("doctor"))
    assert third.said("search") == [], "once is enough"


async def test_a_run_whose_day_is_over_is_reported(tmp_path: Path) -> None:
    (tmp_path / "errands-main-p.json").write_bytes(msgspec.json.encode(Done(watched=MONDAY)))
    world = World(tmp_path, "08:00", day=MONDAY + timedelta(days=1))
    async with world.running():
        await until(lambda: any(s.state == "missed" for s in world.said()))
    assert "the run of 03-09 15:37 was missed" in world.said()[0].cause
    assert world.results == []


@pytest.mark.parametrize(("at", "verdict"), [("08:50", "ready"), ("10:00", "quiet")])
async def test_the_scheduled_diagnosis_is_on_status_and_before_the_open_judges_up_to_the_list(
    tmp_path: Path, at: str, verdict: str
) -> None:
    world = World(tmp_path, at)
    async with world.running(doctor_at=(time.fromisoformat(at),)):
        await until(lambda: any(s.state == verdict for s in world.said("doctor")))
    assert all(s.kind == "diagnosis" for s in world.said("doctor"))
    assert "hush" not in str(world.published)


async def test_a_diagnosis_without_a_session_says_what_took_it(tmp_path: Path) -> None:
    world = World(tmp_path, "10:00")
    world.asking, world.taken = False, True
    world.goes_by("in", '{"trnm":"SYSTEM","code":"R10001","message":"동일한 App key로 접속이 되었습니다"}')
    async with world.running(doctor_at=(time(10, 0),)):
        await until(lambda: any(s.state == "displaced" for s in world.said("doctor")))
