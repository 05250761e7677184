"""`day_returns`: the figures of the live views, day by day, and again whenever something came."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from deploy.local.kiwoom.plants import Plant
from deploy.local.kiwoom.rehearsal import Rehearsed, rehearse
from sinks.clickhouse import returns as module
from sinks.clickhouse.connection import connect_async
from sinks.clickhouse.migrate import migrations
from sinks.clickhouse.returns import fill, keep, kept, look, stale
from sinks.settings import ClickHouseSettings

from .market import tapes
from .tape import MONDAY, Tape
from .worlds import Size, write

TUESDAY = MONDAY + timedelta(days=1)
THURSDAY = date(2026, 3, 12)


@pytest.fixture
async def filler(settings: ClickHouseSettings, client: Client) -> AsyncIterator[AsyncClient]:
    filler = await connect_async(settings)
    yield filler
    await filler.close()


def figures(client: Client, view: str, first: date, last: date, cost: float = 0.2) -> list[dict[str, Any]]:
    given = f"from_date = '{first}', to_date = '{last}', cost = {cost}"
    return list(client.query(f"SELECT * FROM {view}({given})").named_results())


def same(client: Client, first: date, last: date, cost: float = 0.2) -> int:
    """Compares the kept figures with those that are worked out now; returns how many rows there are."""
    live = figures(client, "condition_performance", first, last, cost)
    kept = figures(client, "condition_performance_stored", first, last, cost)
    assert len(kept) == len(live)
    for mine, theirs in zip(kept, live, strict=True):
        # Sums in another order; all else – names, counts, what is unknown – is the same.
        sums = {name for name, value in theirs.items() if isinstance(value, float)}
        assert {name: mine[name] for name in mine.keys() - sums} == {n: theirs[n] for n in theirs.keys() - sums}
        assert [mine[name] for name in sorted(sums)] == pytest.approx(
            [theirs[n] for n in sorted(sums)], rel=1e-9, abs=1e-9
        )
    return len(live)


# --- what is stale ----------------------------------------------------------------------------------------------------

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
EARLY = NOON - timedelta(hours=1)
CASES: dict[str, tuple[list[tuple[str, date, datetime]], list[date]]] = {
    "nothing": ([], []),
    "prices alone need no figures": ([("quotes", MONDAY, NOON), ("1m", MONDAY, NOON)], []),
    "never filled": ([("hits", MONDAY, EARLY)], [MONDAY]),
    "filled since": ([("hits", MONDAY, EARLY), ("filled", MONDAY, NOON)], []),
    "an insert may have been on its way": (
        [("hits", MONDAY, NOON - timedelta(seconds=60)), ("filled", MONDAY, NOON)],
        [MONDAY],
    ),
    "a hit came": ([("hits", MONDAY, LATER), ("filled", MONDAY, NOON)], [MONDAY]),
    **{
        f"{what} came": ([("hits", MONDAY, EARLY), ("filled", MONDAY, NOON), (what, MONDAY, LATER)], [MONDAY])
        for what in ("quotes", "1m", "1d", "gaps")
    },
    "the next day's open came, which may be days later": (
        [("hits", MONDAY, EARLY), ("filled", MONDAY, NOON), ("1d", MONDAY, EARLY), ("1d", THURSDAY, LATER)],
        [MONDAY],
    ),
    "of the days after the next one nothing is looked at": (
        [("hits", MONDAY, EARLY), ("filled", MONDAY, NOON), ("1d", TUESDAY, EARLY), ("1d", THURSDAY, LATER)],
        [],
    ),
    "too late for a next open": (
        [("hits", MONDAY, EARLY), ("filled", MONDAY, NOON), ("1d", MONDAY + timedelta(days=15), LATER)],
        [],
    ),
    "newest first": (
        [("hits", MONDAY, NOON), ("hits", THURSDAY, NOON), ("hits", TUESDAY, NOON)],
        [THURSDAY, TUESDAY, MONDAY],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_stale(case: str) -> None:
    came, expected = CASES[case]
    assert stale(came, -timedelta(seconds=90)) == expected


def test_kept_is_what_nothing_came_for_since_it_was_filled() -> None:
    filled = [("hits", MONDAY, EARLY), ("filled", MONDAY, NOON), ("hits", TUESDAY, NOON), ("filled", TUESDAY, LATER)]
    assert kept(filled, MONDAY, TUESDAY) == LATER
    assert kept(filled, MONDAY, MONDAY) == NOON
    assert kept(filled, THURSDAY, THURSDAY) is None
    came = [*filled, ("1d", MONDAY, NOON + timedelta(minutes=1))]
    assert kept(came, MONDAY, TUESDAY) is None
    assert kept(came, TUESDAY, TUESDAY) == LATER
    assert kept(came, MONDAY, TUESDAY, timedelta(minutes=5)) == LATER
    assert kept([*filled, ("hits", THURSDAY, NOON)], MONDAY, THURSDAY) is None


# --- the figures ------------------------------------------------------------------------------------------------------


async def test_the_kept_figures_of_simulated_days_are_those_of_the_live_view(
    client: Client, filler: AsyncClient
) -> None:
    plants = [Plant("5", 0.01, 300.0), Plant("3", 0.0, 300.0), Plant("1", -0.005, 300.0)]
    days: list[Rehearsed] = list(rehearse(7, THURSDAY, 3, plants, stocks=12, gap=40.0, every=5400.0))
    for tape in tapes(days):
        tape.write(client)
    dates = [day.date for day in days]
    assert await look(filler) == dates[::-1]
    for day in dates:
        await fill(filler, day)
    for first, last in [(dates[0], dates[-1]), *((day, day) for day in dates)]:
        assert same(client, first, last) == 21
    assert same(client, dates[0], dates[-1], cost=0.0) == 21
    # Filled twice, merged or not: the last fill counts, once.
    await fill(filler, dates[1])
    assert same(client, dates[0], dates[-1]) == 21
    client.command("OPTIMIZE TABLE day_returns FINAL")
    assert same(client, dates[0], dates[-1]) == 21


async def test_the_kept_figures_of_many_days_and_stocks_are_those_of_the_live_view(
    client: Client, filler: AsyncClient
) -> None:
    """In worlds whose intervals are known to hold, so that those of the kept figures do as well."""
    first, last = write(client, range(4), Size())
    for day in await look(filler):
        await fill(filler, day)
    assert same(client, first, last, cost=0.0) == same(client, first, last) == 4 * 3 * 7


async def test_each_hit_is_told_as_last_worked_out(client: Client, filler: AsyncClient) -> None:
    tape = Tape().hit("A", "005930", "09:15:20").quote("005930", "09:15:20.9", 1000).quote("005930", "09:16:20.8", 1010)
    tape.hit("A", "000660", "09:20").hit("B", "005930", "09:30").write(client)
    await fill(filler, MONDAY)
    Tape().hit("A", "005930", "09:40", entry=2).quote("005930", "09:40:01", 1020).write(client)
    await fill(filler, MONDAY)
    live: dict[tuple[Any, ...], list[list[Any]]] = {}
    for *hit, returned, sampled, cases, across in client.query(
        "SELECT condition, code, entry, reference, reference_at, complete, return, sample_return, sample_cases,"
        f" across_gap FROM condition_returns(from_date = '{MONDAY}', to_date = '{MONDAY}', cost = 0)"
        " ORDER BY condition, code, entry, indexOf(['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'], horizon)"
    ).result_rows:
        figures = live.setdefault(tuple(hit), [[], [], [], []])
        for array, figure in zip(figures, (returned, sampled, cases, across), strict=True):
            array.append(figure)
    kept = client.query(
        "SELECT condition, code, entry, reference, reference_at, complete, returns, sample_returns, sample_cases,"
        " across_gap FROM hit_returns ORDER BY condition, code, entry"
    ).result_rows
    assert [row[:3] for row in kept] == [("A", "000660", 1), ("A", "005930", 1), ("A", "005930", 2), ("B", "005930", 1)]
    assert {row[:6]: list(row[6:]) for row in kept} == live
    assert kept[1][6][0] == pytest.approx(1.0)


async def test_a_spread_of_nothing_is_nothing(client: Client, filler: AsyncClient) -> None:
    """Returns that are all the same leave no room between low and high, and no root of less than nothing."""
    for day in (MONDAY, TUESDAY, THURSDAY):
        tape = Tape(day)
        for code in ("005930", "000660", "000020"):
            tape.hit("A", code, "09:15:20").quote(code, "09:15:20.9", 3000).quote(code, "09:16:20.8", 3100)
            tape.quote(code, "10:00", 3100)
        tape.write(client)
        await fill(filler, day)
    assert same(client, MONDAY, THURSDAY) == 7
    [row] = [row for row in figures(client, "condition_performance_stored", MONDAY, THURSDAY) if row["horizon"] == "1m"]
    assert (row["priced"], row["low"], row["high"]) == (9, row["mean"], row["mean"])


async def test_what_comes_late_makes_a_day_stale_and_its_figures_those_of_the_live_view_again(
    client: Client, filler: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MARGIN", timedelta(0))
    tape = Tape().hit("A", "005930", "09:15:20").quote("005930", "09:15:20.9", 1000).quote("005930", "09:16:20.8", 1010)
    tape.write(client)
    assert await look(filler) == [MONDAY]
    await fill(filler, MONDAY)
    assert await look(filler) == []
    assert same(client, MONDAY, MONDAY) == 7
    later: list[Tape] = [
        Tape().bar("005930", "09:16", (1000, 1100, 900, 1050)).bar("000020", "09:16", (100, 101, 99, 101), sample=True),
        Tape().daily("005930", (1000, 1100, 900, 1070)),
        Tape().gap("A", "09:15:30", "09:16:00"),
        Tape().on(TUESDAY).daily("005930", (1090, 1100, 900, 1070)),
        Tape().hit("A", "000660", "10:00"),
        Tape().bar("005930", "09:16", (1000, 1200, 900, 1060)),  # fetched again, and not the same
    ]
    for what in later:
        before = figures(client, "condition_performance_stored", MONDAY, MONDAY)
        what.write(client)
        assert await look(filler) == [MONDAY]
        await fill(filler, MONDAY)
        assert same(client, MONDAY, MONDAY) == 7
        assert figures(client, "condition_performance_stored", MONDAY, MONDAY) != before
        assert await look(filler) == []


async def test_a_day_is_seen_whole_or_not_at_all(client: Client, filler: AsyncClient) -> None:
    """A fill is one part; and what a fill left unmarked – rows without the day's own – counts for nothing."""
    Tape().hit("A", "005930", "09:15:20").hit("B", "000660", "09:15:20").write(client)
    await fill(filler, MONDAY)
    parts = client.command(
        "SELECT count() FROM system.parts WHERE table = 'day_returns' AND database = currentDatabase()"
    )
    assert parts == 1
    client.command(
        "INSERT INTO day_returns SELECT * REPLACE(now64(6) AS filled_at, 'C' AS condition) FROM day_returns"
        " WHERE condition != ''"
    )
    assert same(client, MONDAY, MONDAY) == 14


async def test_the_sink_keeps_them_and_goes_on_after_an_outage(
    settings: ClickHouseSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.05)
    monkeypatch.setattr(module, "_REST", 0.0)
    client.command("RENAME TABLE day_returns TO elsewhere")
    Tape().hit("A", "005930", "09:15:20").on(TUESDAY).hit("A", "005930", "09:15:20").write(client)
    failing: list[str | None] = []
    task = asyncio.create_task(keep(settings, lambda: NOON, failing.append))
    try:
        async with asyncio.timeout(30):
            while not failing:
                await asyncio.sleep(0.01)
        assert "day_returns" in str(failing[0]), "it is said why"
        assert not task.done()
        await asyncio.to_thread(client.command, "RENAME TABLE elsewhere TO day_returns")
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(
                client.command, "SELECT uniqExact(date) = 2 FROM day_returns WHERE condition = ''"
            ):
                await asyncio.sleep(0.1)
            while failing[-1] is not None:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert same(client, MONDAY, TUESDAY) == 7


def test_the_three_views_estimate_alike() -> None:
    """Word for word, but for the parts into which one of them splits."""

    def of(view: str, begins: str) -> str:
        [text] = [one for each in migrations() for one in each.statements if f"VIEW {view} AS" in one]
        return text[text.index(f"    {begins} AS") : text.index("COMMENT")]

    assert of("condition_performance_stored", "errors") == of("condition_performance", "errors")
    assert re.sub(r",\s*part\b", "", of("condition_performance_by", "sums")) == of("condition_performance", "sums")
