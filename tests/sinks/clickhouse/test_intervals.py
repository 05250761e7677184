"""Whether the 95 % intervals of `condition_performance` hold what was planted, and no less in the cases that matter.

In worlds made for it, where hits are alike by stock and by day, and on the local market with planted effects. A short
version runs with the tests; `make intervals` (`HITSTREAM_TEST_WORLDS=200`) is the full one and prints what it finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import sqrt
from statistics import NormalDist, fmean, stdev
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate

from .conftest import Server
from .worlds import PLANTED, Size, write, write_markets

WORLDS = int(os.environ.get("HITSTREAM_TEST_WORLDS", "40"))
MARKETS = WORLDS if WORLDS >= 200 else WORLDS // 2
NORMAL = NormalDist().inv_cdf(0.975)


def bounds(share: float, cases: int, lowest: float, highest: float) -> tuple[float, float]:
    """What a true share between `lowest` and `highest` gives in so many cases, but for one time in a thousand."""
    z = NormalDist().inv_cdf(0.9995)
    return lowest - z * sqrt(share * (1 - share) / cases), highest + z * sqrt(share * (1 - share) / cases)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    yield client
    client.close()


@pytest.fixture(scope="module")
def worlds(client: Client) -> list[dict[str, Any]]:
    """The row of each condition in each world after five minutes, with the naive error of the mean beside it."""
    first, last = write(client, range(WORLDS), Size())
    given = f"from_date = '{first}', to_date = '{last}', cost = 0.0"
    rows = list(client.query(f"SELECT * FROM condition_performance({given}) WHERE horizon = '5m'").named_results())
    naive = client.query(
        f"SELECT account, condition, stddevSamp(return) / sqrt(count()) FROM condition_returns({given}) "
        "WHERE horizon = '5m' GROUP BY account, condition"
    ).result_rows
    errors = {(account, condition): error for account, condition, error in naive}
    return [row | {"naive": errors[row["account"], row["condition"]]} for row in rows]


def test_every_world_has_all_its_hits(worlds: list[dict[str, Any]]) -> None:
    assert len(worlds) == WORLDS * len(PLANTED)
    assert {(row["hits"], row["priced"], row["sample_cases"]) for row in worlds} == {(150, 150, 600)}


@pytest.mark.parametrize("condition", PLANTED)
@pytest.mark.parametrize("figure", ["mean", "difference"])
def test_the_planted_figure_is_inside(worlds: list[dict[str, Any]], condition: str, figure: str) -> None:
    low, high = ("low", "high") if figure == "mean" else ("difference_low", "difference_high")
    rows = [row for row in worlds if row["condition"] == condition]
    planted = PLANTED[condition]
    share = fmean(row[low] <= planted <= row[high] for row in rows)
    naive = fmean(abs(row[figure] - planted) <= NORMAL * row["naive"] for row in rows)
    print(
        f"\n{figure} of {condition} ({planted:+} %): inside in {share:.1%}; with hits taken one by one in {naive:.1%}"
    )
    least, most = (0.91, 0.98) if len(rows) >= 200 else bounds(0.95, len(rows), 0.95, 0.95)
    assert least <= share <= most
    assert naive < 0.8, "hits of one stock or day are alike: who ignores it is wrong more often than he says"


def test_where_nothing_was_planted_nothing_is_found_but_one_time_in_twenty(worlds: list[dict[str, Any]]) -> None:
    rows = [row for row in worlds if row["condition"] == "3"]
    found = fmean(row["difference_low"] > 0 or row["difference_high"] < 0 for row in rows)
    print(f"\nfound where nothing is: {found:.1%}")
    assert found <= bounds(0.05, len(rows), 0.05, 0.05)[1]


def test_an_effect_of_one_percent_is_found(worlds: list[dict[str, Any]]) -> None:
    rows = [row for row in worlds if row["condition"] == "5"]
    assert fmean(row["difference_low"] > 0 for row in rows) > 0.9
    assert fmean(row["difference"] for row in rows) == pytest.approx(
        1, abs=5 * stdev(r["difference"] for r in rows) / sqrt(len(rows))
    )


def test_the_width_falls_with_the_root_of_the_number(server: Server) -> None:
    """Four times the stocks, days and hits: half the standard error (the width without Student's quantile)."""
    errors = []
    for factor in (1, 4):
        settings = server.settings()
        migrate(settings)
        client = connect(settings)
        size = Size(stocks=15 * factor, days=15 * factor, hits=75 * factor)
        first, last = write(client, range(max(8, WORLDS // 8)), size)
        rows = client.query(
            f"SELECT avg(high - mean) FROM condition_performance(from_date = '{first}', to_date = '{last}', cost = 0) "
            "WHERE horizon = '5m'"
        ).result_rows
        quantile = {1: 2.144787, 4: 2.000995}[factor]  # Student's t, 14 and 59 degrees of freedom
        errors.append(rows[0][0] / quantile)
        client.close()
    print(f"\nthe standard error falls by {errors[0] / errors[1]:.2f} (2 expected)")
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.12)


@pytest.fixture(scope="module")
def rehearsed(server: Server) -> list[dict[str, Any]]:
    """The row of each condition after five minutes, for many seeds of the local market: an hour of eight days each."""
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    found: list[dict[str, Any]] = []
    for start in range(0, MARKETS, 20):
        first, last = write_markets(client, range(start, min(start + 20, MARKETS)))
        given = f"from_date = '{first}', to_date = '{last}', cost = 0"
        rows = client.query(f"SELECT * FROM condition_performance({given}) WHERE horizon = '5m'")
        found += rows.named_results()
    client.close()
    return found


def test_on_the_local_market_the_planted_figure_is_inside(rehearsed: list[dict[str, Any]]) -> None:
    """After 1 -0.5 %, after 3 nothing, after 5 +1 %: of the mean, and of the difference to stocks that none hits."""
    assert len(rehearsed) > 2.9 * MARKETS
    for condition, planted in PLANTED.items():
        rows = [row for row in rehearsed if row["condition"] == condition and row["low"] is not None]
        for low, high in (("low", "high"), ("difference_low", "difference_high")):
            share = fmean(row[low] <= planted <= row[high] for row in rows)
            print(f"\nlocal market, {condition} ({planted:+} %), {low}: inside in {share:.1%} of {len(rows)}")
            # Hits are not alike by stock or day here: the greatest of three variances errs on the safe side.
            assert share >= (0.91 if len(rows) >= 190 else bounds(0.95, len(rows), 0.95, 0.95)[0])


def test_on_the_local_market_nothing_is_found_where_nothing_was_planted(rehearsed: list[dict[str, Any]]) -> None:
    rows = [row for row in rehearsed if row["condition"] == "3" and row["low"] is not None]
    found = fmean(row["difference_low"] > 0 or row["difference_high"] < 0 for row in rows)
    print(f"\nlocal market, found where nothing is: {found:.1%}")
    assert found <= bounds(0.05, len(rows), 0.05, 0.05)[1]
