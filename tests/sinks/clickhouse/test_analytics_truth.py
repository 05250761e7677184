"""The views against the market's own truth: its trades, from which polars works everything out in another way.

ClickHouse gets what the product would have – hits, a quote per trade of some stocks, minute and daily bars of all – and
answers from windows and ASOF joins over bars and quotes. Here nothing but the tape of trades is looked at.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

import polars as pl
import pytest

from deploy.local.kiwoom.plants import Plant
from deploy.local.kiwoom.rehearsal import Rehearsed, rehearse
from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from streams.events import KST

from .conftest import Server
from .market import DELAY, quoted, tapes

FIRST = date(2026, 3, 12)  # a Thursday: the next open of its second day is Monday's
CLOSE = 15.5 * 3600
COST = 0.2
HORIZONS = {"1m": 60, "5m": 300, "30m": 1800}


@pytest.fixture(scope="module")
def days() -> list[Rehearsed]:
    plants = [Plant("5", 0.01, 300.0), Plant("3", 0.0, 300.0), Plant("1", -0.005, 300.0)]
    return list(rehearse(7, FIRST, 3, plants, stocks=16, gap=40.0, every=5400.0))


@pytest.fixture(scope="module")
def answers(server: Server, days: list[Rehearsed]) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """What `condition_returns` and `condition_performance` say of these days."""
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    for tape in tapes(days):
        tape.write(client)
    given = f"from_date = '{days[0].date}', to_date = '{days[-1].date}', cost = {COST}"
    frame = pl.from_arrow(client.query_arrow(f"SELECT * FROM condition_returns({given})"))
    performance = list(client.query(f"SELECT * FROM condition_performance({given})").named_results())
    client.close()
    assert isinstance(frame, pl.DataFrame)
    return frame, performance


@pytest.fixture
def told(answers: tuple[pl.DataFrame, list[dict[str, Any]]]) -> pl.DataFrame:
    return answers[0]


def whole(seconds: float) -> float:
    """A time of the tape as it is stored: in microseconds."""
    return round(seconds * 1e6) / 1e6


def bought(day: Rehearsed, code: str, since: float, *, by_bar: bool) -> tuple[float, int] | None:
    """Time and price of the first trade after `since`; by bars, of the first one in a minute that begins after it."""
    begins = -(-since // 60) * 60 if by_bar else since
    for at, price in day.trades[code]:
        if (whole(at) >= begins) if by_bar else (whole(at) > begins):
            return (at // 60 * 60 if by_bar else whole(at)), price
    return None


def outcomes(days: list[Rehearsed], number: int, code: str, at: float, paid: int, *, by_bar: bool) -> dict[str, int]:
    """The price of each horizon of what was bought at `at`, from the trades alone.

    A trade is known at once, by bars when its minute is over.
    """
    day = days[number]
    trades = pl.DataFrame(day.trades[code], schema=["at", "price"], orient="row").with_columns(pl.col("at").round(6))
    # A minute's extremes can't be cut: what counts are the minutes that begin at the purchase or after it.
    later = trades.filter(pl.col("at") >= -(-at // 60) * 60)
    found: dict[str, int] = {}
    for horizon, seconds in HORIZONS.items():
        if at + seconds <= CLOSE:
            until = (pl.col("at") // 60 + 1) * 60 if by_bar else pl.col("at")
            last = trades.filter(until <= at + seconds)
            held = last.filter(pl.col("at") >= at)
            found[horizon] = int(held["price"][-1]) if len(held) else paid
    if at < CLOSE:
        found["close"] = int(trades["price"][-1])
        found["best"] = max(paid, int(later["price"].max() or 0))  # type: ignore[call-overload]
        found["worst"] = min(paid, int(later["price"].min() or paid))  # type: ignore[call-overload]
    if number + 1 < len(days):
        found["next_open"] = days[number + 1].trades[code][0][1]
    return found


def test_prices_and_returns_are_those_of_the_trades(told: pl.DataFrame, days: list[Rehearsed]) -> None:
    expected = []
    for number, day in enumerate(days):
        for hit in day.hits:
            since = hit.at + DELAY
            candidates = [bought(day, hit.code, since, by_bar=True)]
            if quoted(hit.code):
                candidates.append(bought(day, hit.code, since, by_bar=False))
            start = min((each for each in candidates if each), default=None)
            if start is None:  # nothing was traded after it: no reference, and nothing to say of it
                continue
            for horizon, price in outcomes(days, number, hit.code, *start, by_bar=not quoted(hit.code)).items():
                expected.append((day.date, hit.condition, hit.code, float(hit.at), horizon, start[1], price))
    truth = pl.DataFrame(
        expected, schema=["date", "condition", "code", "at", "horizon", "reference", "price"], orient="row"
    )
    mine = told.filter(pl.col("price").is_not_null()).select(
        pl.col("date").cast(pl.Date)
        if told["date"].dtype != pl.UInt16
        else pl.col("date").cast(pl.Int32).cast(pl.Date),
        pl.col("condition").cast(pl.String),
        pl.col("code").cast(pl.String),
        seconds(told),
        pl.col("horizon").cast(pl.String),
        "reference",
        "price",
        "return",
    )
    keys = ["date", "condition", "code", "at", "horizon"]
    assert len(truth) > 500
    both = truth.join(mine, on=keys, how="full", suffix="_told", coalesce=True).sort(keys)
    wrong = both.filter(
        (pl.col("reference").ne_missing(pl.col("reference_told"))) | (pl.col("price").ne_missing(pl.col("price_told")))
    )
    assert wrong.is_empty(), str(wrong)
    returned = (both["price"] / both["reference"] - 1) * 100 - COST
    assert float((returned - both["return"]).abs().max()) < 1e-9  # type: ignore[arg-type]


def seconds(told: pl.DataFrame) -> pl.Expr:
    at = pl.col("at").dt.convert_time_zone("Asia/Seoul")
    return (at.dt.hour().cast(pl.Int64) * 3600 + at.dt.minute().cast(pl.Int64) * 60 + at.dt.second()).cast(pl.Float64)


def test_means_quartiles_and_the_sample_are_those_of_the_trades(
    answers: tuple[pl.DataFrame, list[dict[str, Any]]], days: list[Rehearsed]
) -> None:
    told, performance = answers
    assert len(performance) == 21
    for row in performance:
        mine = told.filter(
            (pl.col("condition").cast(pl.String) == row["condition"])
            & (pl.col("horizon").cast(pl.String) == row["horizon"])
            & pl.col("return").is_not_null()
        )
        returned = mine["return"]
        assert (row["priced"], row["mean"]) == (len(mine), pytest.approx(returned.mean(), abs=1e-9))
        for name, share in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
            assert row[name] == pytest.approx(returned.quantile(share, "linear"), abs=1e-9)
        compared = [sample(days, each) for each in mine.iter_rows(named=True)]
        means = [sum(each) / len(each) - COST for each in compared if each]
        assert row["sample_cases"] == sum(map(len, compared))
        assert row["sample_mean"] == pytest.approx(sum(means) / len(means), abs=1e-9)
        gained = [r - (sum(each) / len(each) - COST) for r, each in zip(returned, compared, strict=True) if each]
        assert row["difference"] == pytest.approx(sum(gained) / len(gained), abs=1e-9)


def sample(days: list[Rehearsed], row: dict[str, Any]) -> list[float]:
    """What each untouched stock did over this horizon, bought by bars at the first minute from the reference on."""
    reference_at = row["reference_at"].astimezone(UTC).astimezone(KST)
    number = next(n for n, day in enumerate(days) if day.date == reference_at.date())
    at = (reference_at - datetime.combine(reference_at.date(), time(), KST)).total_seconds()
    found = []
    for code in sorted(days[number].untouched):
        start = bought(days[number], code, at, by_bar=True)
        if start is None:
            continue
        moved = outcomes(days, number, code, *start, by_bar=True).get(str(row["horizon"]))
        if moved is not None:
            found.append((moved / start[1] - 1) * 100)
    return found
