"""Whole neutral days: the planted figure is what prices give, to within the ticks, and nothing is where nothing was."""

from __future__ import annotations

import datetime as dt
import os
from bisect import bisect_right
from statistics import mean, stdev

import pytest

from deploy.local.kiwoom.plants import plants
from deploy.local.kiwoom.rehearsal import Rehearsed, rehearse

MONDAY = dt.date(2026, 3, 9)
PLANTS = plants(["조건 5=+1.0%/5m", "조건 3=0%/5m", "조건 1=-0.5%/5m"])
WORLDS = int(os.environ.get("HITSTREAM_TEST_REHEARSALS", "4"))
"""Worlds of two short days; 150 of them find a bias of 0.01 %."""

pytestmark = pytest.mark.timeout(3600 if WORLDS > 10 else 300)


@pytest.fixture(scope="module")
def days() -> list[Rehearsed]:
    return [
        each
        for seed in range(WORLDS)
        for each in rehearse(seed, MONDAY, 2, PLANTS, closes=11 * 3600.0, every=1_800.0, stocks=60)
    ]


def last(trades: list[tuple[float, int]], moment: float) -> int:
    return trades[bisect_right(trades, (moment, 1 << 60)) - 1][1]


@pytest.mark.parametrize("planted", PLANTS, ids=[each.condition for each in PLANTS])
def test_the_mean_return_is_the_planted_one(days: list[Rehearsed], planted: object) -> None:
    name, effect, horizon = planted  # type: ignore[misc]
    returns = [
        last(each.trades[hit.code], hit.at + horizon) / hit.reference - 1
        for each in days
        for hit in each.hits
        if hit.condition == name and hit.reference is not None and hit.at + horizon < 11 * 3600
    ]
    assert len(returns) > 30 * WORLDS
    error = stdev(returns) / len(returns) ** 0.5
    assert error < 0.0009
    assert mean(returns) == pytest.approx(effect, abs=4 * error)


def test_stocks_that_are_left_alone_have_no_trend_and_no_hit(days: list[Rehearsed]) -> None:
    returns = [
        last(each.trades[code], moment + 300) / last(each.trades[code], moment) - 1
        for each in days
        for code in each.untouched
        for moment in range(9 * 3600 + 600, 11 * 3600 - 300, 300)
    ]
    assert mean(returns) == pytest.approx(0, abs=4 * stdev(returns) / len(returns) ** 0.5)
    for each in days:
        assert each.untouched
        assert not each.untouched & {hit.code for hit in each.hits}


def test_a_hit_knows_its_reference_and_its_exit(days: list[Rehearsed]) -> None:
    for each in days:
        for hit in each.hits:
            assert hit.exit_at is not None
            assert hit.exit_at >= hit.at
            following = next((trade for trade in each.trades[hit.code] if trade[0] > hit.at + 1), None)
            if hit.reference_at is not None:
                assert (hit.reference_at, hit.reference) in each.trades[hit.code]
                assert following is None or hit.at <= hit.reference_at <= following[0]


def test_a_world_goes_on_from_its_closes_over_the_weekend_and_is_the_same_again() -> None:
    friday, monday = rehearse(3, dt.date(2026, 3, 13), 2, PLANTS, closes=10 * 3600.0)
    assert (friday.date, monday.date) == (dt.date(2026, 3, 13), dt.date(2026, 3, 16))
    assert friday.untouched == monday.untouched
    for code, bar in monday.daily.items():
        assert bar.open == pytest.approx(friday.daily[code].close, rel=0.05)
    again, _ = rehearse(3, dt.date(2026, 3, 13), 2, PLANTS, closes=10 * 3600.0)
    assert (again.hits, again.trades) == (friday.hits, friday.trades)


def test_by_default_a_stock_is_hit_once_a_day() -> None:
    (only,) = rehearse(5, MONDAY, 1, PLANTS, stocks=12, gap=120.0)
    codes = [hit.code for hit in only.hits]
    assert len(codes) == len(set(codes)) > 0
