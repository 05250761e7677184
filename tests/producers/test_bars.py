"""Bars after the close: each chart once, whatever happens in between; by one producer; what lacks is said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.bars import Bars, NotADay
from producers.calendar import ALWAYS, Calendar, days_of
from producers.calendar import Hours as TradingHours
from producers.day_bars import Progress, Wanted, planned
from producers.hit_codes import Codes, NotRead
from producers.kiwoom.charts import sample
from producers.kiwoom.errors import CallRefused, RateLimited, TokenRefused
from producers.settings import BarsSettings
from streams.events import KST, Bar, Record, Status

FRIDAY, MONDAY, TUESDAY = date(2026, 3, 6), date(2026, 3, 9), date(2026, 3, 10)
LISTED = [f"00{number:02d}00" for number in range(40)]
SAMPLE = sample(LISTED, 4)
HIT = {
    FRIDAY: Codes(frozenset({"100010"}), frozenset({"100020"})),
    MONDAY: Codes(frozenset({"200010", SAMPLE[0]}), frozenset({"200020"})),
}
ROW = {"cur_prc": "+1000", "open_pric": "1000", "high_pric": "1000", "low_pric": "1000", "trde_qty": "5"}


class Kiwoom:
    """Answers every chart with two minutes or one day; says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.untraded: set[str] = set()
        self.troubles: list[Exception] = []
        self.refused: set[str] = set()
        self.stops_after: int | None = None

    async def companies(self) -> list[str]:
        return list(LISTED)

    async def pages(self, api_id: str, path: str, body: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
        await asyncio.sleep(0)
        while self.stops_after is not None and len(self.asked) >= self.stops_after:
            await asyncio.sleep(0.005)
        if self.troubles:
            raise self.troubles.pop(0)
        code, day = body["stk_cd"], body["base_dt"]
        self.asked.append(("1m" if api_id == "ka10080" else "1d", code))
        if code in self.refused:
            raise CallRefused("no such stock", "1902")
        minutes = [ROW | {"cntr_tm": f"{day}09{minute:02d}00"} for minute in (1, 0)]
        rows = [] if code in self.untraded else minutes if api_id == "ka10080" else [ROW | {"dt": day}]
        yield {"stk_min_pole_chart_qry": rows, "stk_dt_pole_chart_qry": rows}


class Kafka:
    """Takes everything; acknowledges it unless it is `away`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.away = False
        self.flushed = 0

    def offer(self, record: Record, *, passing: bool = False) -> None:
        self.records.append(record)

    async def room(self, share: float = 0.5) -> None:
        await asyncio.sleep(0)

    async def flush(self) -> None:
        while self.away:
            await asyncio.sleep(0.01)
        self.flushed = len(self.records)

    @property
    def bars(self) -> list[Bar]:
        return [record for record in self.records if isinstance(record, Bar)]

    @property
    def said(self) -> list[Status]:
        return [record for record in self.records if isinstance(record, Status)]


class World:
    """A producer's bars, with a clock that is set."""

    def __init__(
        self, folder: Path, at: str = "15:44", *, day: date = MONDAY, calendar: Calendar | None = None, name: str = "p"
    ) -> None:
        self.clock = datetime.combine(day, time.fromisoformat(at), KST)
        self.folder = folder
        self.name = name
        self.calendar = calendar or Calendar()
        self.kiwoom, self.kafka = Kiwoom(), Kafka()
        self.others: list[Status] = []
        self.known: Mapping[date, Codes] | Exception = HIT
        self.settings = BarsSettings(sample=4)

    def bars(self) -> Bars:
        async def codes(since: date) -> Mapping[date, Codes]:
            if isinstance(self.known, Exception):
                raise self.known
            return {day: found for day, found in self.known.items() if day >= since}

        async def statuses() -> list[Status]:
            return self.others

        return Bars(
            self.settings, account="main", producer=self.name, rest=self.kiwoom, kafka=self.kafka, codes=codes,
            statuses=statuses, now=lambda: self.clock, calendar=lambda: self.calendar, folder=self.folder,
            again=0.05, pauses=(0.0,), stagger=0.0,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Bars]:
        bars = self.bars()
        task = asyncio.create_task(bars.run())
        try:
            yield bars
        finally:
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.result()

    @property
    def state(self) -> str:
        return self.kafka.said[-1].state if self.kafka.said else ""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_day_s_charts_are_its_hits_and_the_sample_and_yesterday_s_hits_for_their_next_open() -> None:
    assert planned(MONDAY, FRIDAY, HIT, SAMPLE) == [
        *(Wanted("1m", code) for code in sorted({"200010", *SAMPLE})),
        *(Wanted("1d", code) for code in sorted({"200010", "200020", "100010", "100020", *SAMPLE})),
    ]


async def test_they_are_fetched_once_after_the_close_and_say_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.running():
        await until(lambda: world.state == "scheduled")
        assert "next 03-09 15:45" in world.kafka.said[-1].cause
        await asyncio.sleep(0.02)
        assert world.kiwoom.asked == []
        world.clock += timedelta(minutes=1)
        await until(lambda: world.state == "done")
        world.clock += timedelta(hours=2)
        await asyncio.sleep(0.05)
    assert sorted(world.kiwoom.asked) == sorted((w.interval, w.code) for w in planned(MONDAY, FRIDAY, HIT, SAMPLE))
    minutes = [bar for bar in world.kafka.bars if bar.interval == "1m"]
    assert {bar.code: bar.sample for bar in minutes} == {"200010": False} | dict.fromkeys(SAMPLE, True)
    assert {bar.at.date() for bar in world.kafka.bars} == {MONDAY}
    done = world.kafka.said[-1]
    assert done.component == "bars/main/p"
    assert done.kind == "diagnosis"
    told = {name: done.figures[name] for name in ("expected", "fetched", "empty", "failed", "missing", "bars", "day")}
    assert told == {"expected": 13, "fetched": 13, "empty": 0, "failed": 0, "missing": 0, "bars": 18, "day": 20260309}
    assert done.cause.startswith("2026-03-09: 13 of 13 charts")


async def test_a_crash_repeats_only_what_kafka_had_not_acknowledged(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kafka.away = True
    async with world.running():
        await until(lambda: len(world.kiwoom.asked) == 10)
        await asyncio.sleep(0.05)
        assert len(world.kiwoom.asked) == 10  # nothing more is asked for while Kafka takes nothing
    again = World(tmp_path, "15:51")
    again.kiwoom.stops_after = 10
    async with again.running():
        await until(lambda: (tmp_path / "bars-main-p.json").read_text().count('"1m/') == 5)
    third = World(tmp_path, "15:52")
    async with third.running():
        await until(lambda: third.state == "done")
    assert len(third.kiwoom.asked) == 3
    assert not set(again.kiwoom.asked) & set(third.kiwoom.asked)
    assert third.kafka.said[-1].figures["fetched"] == 13
    last = World(tmp_path, "16:00")
    async with last.running():
        await until(lambda: last.state == "done")
        await asyncio.sleep(0.05)
    assert last.kiwoom.asked == []
    assert last.kafka.said[-1].figures["bars"] == 18


async def test_a_day_that_was_missed_is_caught_up_the_oldest_first(tmp_path: Path) -> None:
    async with World(tmp_path, "12:00", day=FRIDAY).running():
        await asyncio.sleep(0.02)
    world = World(tmp_path, "15:50")
    async with world.running():
        await until(
            lambda: [s.figures.get("day") for s in world.kafka.said if s.state == "done"] == [20260306, 20260309]
        )
    new = World(tmp_path / "new", "12:00", day=TUESDAY)  # who was never there owes nothing
    async with new.running():
        await asyncio.sleep(0.05)
    assert new.kiwoom.asked == []


async def test_while_kiwoom_answers_nobody_it_waits_and_then_goes_on_where_it_was(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.troubles = [RateLimited("1700"), RateLimited("1700"), RateLimited("1700")]
    async with world.running():
        await until(lambda: world.state == "done")
    assert world.kafka.said[-1].figures["fetched"] == 13
    assert any("1700" in status.cause for status in world.kafka.said)


async def test_a_refused_token_ends_the_run_which_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.troubles = [TokenRefused("check the key")]
    async with world.running():
        await until(lambda: world.state == "done")
    assert next(status.cause for status in world.kafka.said if status.state == "failed").startswith(
        "2026-03-09: 0 of 13 charts, 13 missing; check the key"
    )


async def test_a_fault_of_ours_ends_the_run_and_not_the_producer(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.troubles = [ZeroDivisionError("boom")]
    async with world.running():
        await until(lambda: world.state == "failed")
        assert "a fault of ours: ZeroDivisionError('boom')" in world.kafka.said[-1].cause
        await until(lambda: world.state == "done")


async def test_what_is_refused_is_tried_three_times_and_then_said_to_lack(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.refused = {"200010"}
    world.kiwoom.untraded = {"100010"}
    async with world.running():
        await until(lambda: world.state == "done")
        await asyncio.sleep(0.15)
    assert world.kiwoom.asked.count(("1m", "200010")) == world.kiwoom.asked.count(("1d", "200010")) == 3
    assert world.kiwoom.asked.count(("1d", "100010")) == 1
    figures = world.kafka.said[-1].figures
    assert (figures["fetched"], figures["empty"], figures["failed"], figures["missing"]) == (10, 1, 2, 0)
    assert "refused: no such stock" in world.kafka.said[-1].cause
    assert {"running", "incomplete", "done"} <= {status.state for status in world.kafka.said}


async def test_without_a_hit_on_kafka_the_sample_is_fetched_and_it_is_said(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.known = {}
    async with world.running():
        await until(lambda: world.state == "done")
    assert "no hit of this day is on Kafka" in world.kafka.said[-1].cause
    assert world.kafka.said[-1].figures["fetched"] == 8


async def test_a_kafka_that_cannot_be_read_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.known = NotRead("start Kafka")
    async with world.running():
        await until(lambda: world.state == "failed")
        assert world.kiwoom.asked == []
        world.known = HIT
        await until(lambda: world.state == "done")


# --- days and hours


@pytest.mark.parametrize(
    ("calendar", "at", "fetches"),
    [
        (Calendar(), "15:50", True),
        (Calendar(), "15:40", False),
        (Calendar(days={MONDAY: None}), "15:50", False),
        (Calendar(days=days_of(["2026-03-09 10:00-16:30"], TradingHours())), "15:50", False),
        (Calendar(days=days_of(["2026-03-09 10:00-16:30"], TradingHours())), "16:35", True),
        (ALWAYS, "15:50", False),
    ],
    ids=["after the close", "before its time", "closed", "a late day", "after a late day", "never closes"],
)
async def test_a_day_is_fetched_once_it_is_over(tmp_path: Path, calendar: Calendar, at: str, fetches: bool) -> None:
    world = World(tmp_path, at, calendar=calendar)
    async with world.running():
        if fetches:
            await until(lambda: world.state == "done")
        else:
            await asyncio.sleep(0.05)
            assert world.kiwoom.asked == []


async def test_a_market_that_never_closes_is_over_at_midnight(tmp_path: Path) -> None:
    world = World(tmp_path, "23:59", calendar=ALWAYS)
    async with world.running():
        await until(lambda: world.state == "scheduled")
        assert "next 03-10 00:00" in world.kafka.said[-1].cause
        world.clock += timedelta(minutes=1)
        await until(lambda: world.state == "done")
    assert {bar.at.date() for bar in world.kafka.bars} == {MONDAY}


async def test_switched_off_they_are_fetched_by_hand_only_and_said_to_be_retired_once(tmp_path: Path) -> None:
    async with World(tmp_path, "12:00").running():
        await asyncio.sleep(0.02)
    world = World(tmp_path, "15:50")
    world.settings = BarsSettings(enabled=False, sample=4)
    async with world.running() as bars:
        await until(lambda: world.state == "retired")
        await asyncio.sleep(0.05)
        assert world.kiwoom.asked == []
        assert len(world.kafka.said) == 1
        run = bars.ask(MONDAY)
        await run.over.wait()
    assert run.progress.fetched == 13


# --- by hand


async def test_by_hand_a_day_that_goes_on_is_fetched_and_not_remembered(tmp_path: Path) -> None:
    world = World(tmp_path, "11:00")
    async with world.running() as bars:
        run = bars.ask()
        await run.over.wait()
        assert run.progress.state == "partial"
        assert run.progress.fetched == 5
        assert "the day goes on" in run.progress.cause
        assert {interval for interval, _ in world.kiwoom.asked} == {"1m"}  # its close is not known yet
        world.clock = datetime(2026, 3, 9, 15, 46, tzinfo=KST)
        await until(lambda: world.state == "done")
    assert len(world.kiwoom.asked) == 5 + 13


async def test_who_asks_for_a_day_that_is_being_fetched_is_told_of_the_same_run(tmp_path: Path) -> None:
    world = World(tmp_path, "12:00", day=TUESDAY)
    world.kiwoom.stops_after = 0
    async with world.running() as bars:
        run = bars.ask(MONDAY)
        assert bars.ask(MONDAY) is run
        await until(lambda: run.progress.expected == 13)
        assert (run.progress.state, run.progress.missing) == ("running", 13)
        world.kiwoom.stops_after = None
        await run.over.wait()
        assert run.progress.state == "done"
        once = len(world.kiwoom.asked)
        await bars.ask(MONDAY).over.wait()
        assert len(world.kiwoom.asked) == once
        await bars.ask(MONDAY, again=True).over.wait()
        assert len(world.kiwoom.asked) == 2 * once


async def test_who_asks_while_the_clock_s_run_is_at_work_is_told_of_that_one(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.stops_after = 3
    async with world.running() as bars:
        await until(lambda: len(world.kiwoom.asked) == 3)
        run = bars.ask(MONDAY)
        assert run.progress.fetched == 3
        world.kiwoom.stops_after = None
        await run.over.wait()
    assert len(world.kiwoom.asked) == 13


@pytest.mark.parametrize(("day", "said"), [(TUESDAY, "yet to come"), (date(2026, 3, 8), "no trading day")])
async def test_a_day_without_bars_is_refused_in_a_sentence(tmp_path: Path, day: date, said: str) -> None:
    with pytest.raises(NotADay, match=said):
        World(tmp_path).bars().ask(day)


async def test_on_a_market_that_never_closes_a_weekend_has_bars_only_where_something_was_hit(tmp_path: Path) -> None:
    saturday = date(2026, 3, 7)
    world = World(tmp_path, calendar=ALWAYS)
    bars = world.bars()
    said = "2026-03-07 is no trading day, and nothing was hit on it: there are no bars of it"
    progress = await bars.once(saturday, tell=lambda _: None)
    assert (progress.state, progress.cause) == ("failed", said)
    assert world.kiwoom.asked == []
    assert world.state == "scheduled", "nothing is wrong with the bars"
    world.known = {**HIT, saturday: HIT[MONDAY]}
    await bars.once(saturday, tell=lambda _: None)
    assert world.kiwoom.asked
    world.known = HIT
    world.kiwoom.asked.clear()
    await bars.once(MONDAY, tell=lambda _: None)
    assert world.kiwoom.asked


@pytest.mark.parametrize(
    ("at", "day", "expected"),
    [
        ("08:59", MONDAY, FRIDAY),
        ("09:00", MONDAY, MONDAY),
        ("18:00", MONDAY, MONDAY),
        ("12:00", date(2026, 3, 8), FRIDAY),
    ],
)
async def test_without_a_day_the_last_one_that_has_bars_is_meant(
    tmp_path: Path, at: str, day: date, expected: date
) -> None:
    assert World(tmp_path, at, day=day).bars().ask().day == expected


async def test_a_process_of_its_own_does_one_day_and_ends(tmp_path: Path) -> None:
    world, told = World(tmp_path, "18:00"), list[Progress]()
    progress = await world.bars().once(tell=told.append)
    assert (progress.state, progress.fetched) == ("done", 13)
    assert told


# --- two producers


def other(state: str, at: datetime, day: date = MONDAY) -> Status:
    return Status(
        component="bars/main/q", kind="diagnosis", state=state, since=at, at=at, account="main",
        figures={"day": float(f"{day:%Y%m%d}")},
    )  # fmt: skip


async def test_another_producer_that_is_done_leaves_nothing_to_do(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.others = [other("done", world.clock - timedelta(minutes=2))]
    async with world.running():
        await until(lambda: world.state == "standby")
        await asyncio.sleep(0.1)
    assert world.kiwoom.asked == []
    assert "q has fetched the bars of 2026-03-09" in world.kafka.said[-1].cause


async def test_another_producer_at_work_is_waited_for_and_replaced_when_it_falls_silent(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.others = [other("running", world.clock - timedelta(seconds=5))]
    async with world.running():
        await until(lambda: world.state == "standby")
        assert world.kiwoom.asked == []
        world.clock += timedelta(seconds=90)
        await until(lambda: world.state == "done")
    assert len(world.kiwoom.asked) == 13


@pytest.mark.parametrize("state", ["failed", "incomplete", "partial", "standby", "scheduled"])
async def test_what_else_another_one_says_stops_nobody(tmp_path: Path, state: str) -> None:
    world = World(tmp_path, "15:50")
    world.others = [other(state, world.clock), other("done", world.clock, FRIDAY)]
    async with world.running():
        await until(lambda: world.state == "done")


# --- what is remembered


async def test_a_damaged_file_costs_a_repetition_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "bars-main-p.json").write_bytes(b"{torn")
    world = World(tmp_path, "15:50")
    async with world.running():
        await until(lambda: world.state == "done")
    kept = msgspec.json.decode((tmp_path / "bars-main-p.json").read_bytes())
    assert len(kept["days"]["2026-03-09"]["fetched"]) == 13


async def test_the_sample_of_a_day_stays_even_if_the_list_has_changed_when_it_is_resumed(tmp_path: Path) -> None:
    world = World(tmp_path, "15:50")
    world.kiwoom.refused = {"200010"}
    async with world.running():
        await until(lambda: world.state == "incomplete")
        listed = [code for code in LISTED if code not in SAMPLE]
        world.kiwoom.companies = lambda: asyncio.sleep(0, listed)  # type: ignore[method-assign]
        await until(lambda: world.state == "done")
    assert {bar.code for bar in world.kafka.bars if bar.sample} == set(SAMPLE)
