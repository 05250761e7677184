"""Hits without a return, by cause: what is told of them is what the views leave out."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.connection import connect_async
from sinks.clickhouse.returns import fill
from sinks.clickhouse.uncounted import LIVE, STORED, Uncounted, by_horizon
from sinks.settings import ClickHouseSettings

from .tape import MONDAY, Tape

TUESDAY = MONDAY + timedelta(days=1)
FLAT = (100, 100, 100, 100)


def told(client: Client, statement: str, first: date = MONDAY, last: date = TUESDAY) -> dict[Any, Uncounted]:
    answer = client.query(statement, parameters={"first": first, "last": last})
    return {key: each for key, each in by_horizon(answer.named_results()).items() if any(each)}


async def test_hits_without_a_return_are_told_by_cause_live_and_kept(
    client: Client, settings: ClickHouseSettings
) -> None:
    tape = Tape()
    tape.hit("A", "005930", "10:00:00").hit("A", "005930", "14:59:30", entry=2).hit("A", "005930", "15:00:30", entry=3)
    tape.hit("A", "005930", "15:28:30", entry=4).hit("A", "005930", "15:29:30", entry=5)
    tape.hit("A", "000660", "10:00:00")  # no price at all
    tape.hit("N", "005930", "15:28:40", exchange="NXT").hit("N", "005930", "19:58:00", entry=2, exchange="NXT")
    for second in (41, 45):
        tape.quote("005930", f"15:28:{second}", 100, exchange="NXT")
    tape.quote("005930", "19:58:01", 100, exchange="NXT")
    tape.hit("W", "005930", "10:00:00")  # nothing is left out
    for minute in range(9 * 60, 15 * 60 + 31):
        tape.bar("005930", f"{minute // 60:02}:{minute % 60:02}", FLAT)
    tape.daily("005930", FLAT).write(client)
    filler = await connect_async(settings)
    for day in (MONDAY, TUESDAY):
        await fill(filler, day)
        await fill(filler, day)  # what was filled before does not count twice
    await filler.close()
    expected = {
        ("main", "A", "1m"): Uncounted(1, 1),  # bought in the closing auction
        ("main", "A", "5m"): Uncounted(1, 2),
        ("main", "A", "30m"): Uncounted(1, 3),
        ("main", "A", "close"): Uncounted(1, 1),
        ("main", "A", "best"): Uncounted(1, 1),
        ("main", "A", "worst"): Uncounted(1, 1),
        ("main", "A", "next_open"): Uncounted(1, 0),
        ("main", "N", "5m"): Uncounted(0, 1),
        ("main", "N", "30m"): Uncounted(0, 1),
        ("main", "N", "close"): Uncounted(0, 1),
        ("main", "N", "best"): Uncounted(0, 1),
        ("main", "N", "worst"): Uncounted(0, 1),
    }
    assert told(client, LIVE) == expected
    assert told(client, STORED) == expected
    rows = client.query(
        f"SELECT condition, horizon, hits, priced FROM condition_performance(from_date = '{MONDAY}', "
        f"to_date = '{TUESDAY}', cost = 0)"
    ).result_rows
    for condition, horizon, hits, priced in rows:
        if condition == "A" and horizon in ("1m", "5m", "30m", "close"):
            assert priced == hits - sum(expected["main", condition, horizon])


@pytest.mark.parametrize("statement", [LIVE, STORED])
def test_a_day_without_hits_has_none(client: Client, statement: str) -> None:
    assert told(client, statement) == {}
