"""The analytics views over tiny tables whose answers were worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from msgspec.structs import replace

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.rows import COLUMNS
from streams.events import Bar

from .conftest import Server
from .tape import MONDAY, Tape

TUESDAY, FRIDAY, NEXT_MONDAY = date(2026, 3, 10), date(2026, 3, 13), date(2026, 3, 16)
FLAT = (100, 100, 100, 100)


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[Client]:
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    yield client
    client.close()


@pytest.fixture
def client(database: Client) -> Client:
    for table in COLUMNS:
        database.command(f"TRUNCATE TABLE {table}")
    return database


@pytest.fixture
def tape() -> Tape:
    return Tape()


def ask(
    client: Client, view: str, *, first: date = MONDAY, last: date = NEXT_MONDAY, **parameters: Any
) -> list[dict[str, Any]]:
    """The rows of a view over these dates."""
    given = {"from_date": first.isoformat(), "to_date": last.isoformat()} | parameters
    text = ", ".join(f"{name} = {value!r}" for name, value in given.items())
    return list(client.query(f"SELECT * FROM {view}({text})").named_results())


def horizons(client: Client, cost: float = 0.0, **wanted: Any) -> dict[str, Any]:
    """What became of the one hit, by horizon: the return, rounded to six places."""
    rows = [row for row in ask(client, "condition_returns", cost=cost) if all(row[k] == v for k, v in wanted.items())]
    assert len(rows) == 7
    return {row["horizon"]: row["return"] if row["return"] is None else round(row["return"], 6) for row in rows}


def quoted(tape: Tape) -> Tape:
    """A stock with quotes alone: bought at 1000, 1010 after one minute, 1020 after five."""
    return (
        tape.quote("005930", "09:15:20.4", 990)  # known before the hit was
        .quote("005930", "09:15:20.9", 1000)
        .quote("005930", "09:16:20.8", 1010)
        .quote("005930", "09:16:20.95", 5000)  # a moment after the minute: must not be seen
        .quote("005930", "09:20:00", 1020)
        .quote("005930", "09:20:21", 6000)
    )


def test_the_reference_is_the_first_quote_after_the_hit_was_received(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20")).write(client)
    row = ask(client, "condition_returns", cost=0.0)[0]
    assert (row["reference"], row["source"]) == (1000, "quote")
    assert row["reference_at"].isoformat() == "2026-03-09T00:15:20.900000"


def test_a_return_takes_the_last_price_known_at_its_time_and_none_after_it(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20")).write(client)
    found = horizons(client)
    assert found["1m"] == 1.0, "1010, not the 5000 of 50 ms later"
    assert found["5m"] == 2.0, "1020, not the 6000 of 100 ms later"


def test_a_price_older_than_a_minute_counts_only_where_bars_show_that_nothing_was_traded(
    client: Client, tape: Tape
) -> None:
    tape.hit("A", "005930", "09:15:20").quote("005930", "09:15:20.9", 1000)
    tape.write(client)
    assert set(horizons(client).values()) == {None}, "was the slot lost, or nothing traded? Nobody knows"
    tape.bar("005930", "09:10", (990, 990, 990, 990)).write(client)
    found = horizons(client)
    assert [found[each] for each in ("1m", "5m", "30m", "close", "best", "worst")] == [0, 0, 0, 0, 0, 0]


def test_without_quotes_a_hit_is_bought_at_the_open_of_the_first_bar_that_begins_after_it(
    client: Client, tape: Tape
) -> None:
    (
        tape.hit("A", "005930", "09:15:20")
        .bar("005930", "09:15", (900, 990, 890, 980))  # began before: neither its prices nor its extremes count
        .bar("005930", "09:16", (1000, 1030, 995, 1010))
        .bar("005930", "09:20", (1010, 1050, 1005, 1020))  # to 09:21:00
        .bar("005930", "09:21", (7000, 7000, 7000, 7000))  # after five minutes
        .bar("005930", "09:45", (1030, 1030, 900, 950))
        .bar("005930", "09:46", (8, 8, 8, 8))
        .bar("005930", "15:30", (970, 970, 970, 970))
        .on(TUESDAY)
        .daily("005930", (940, 940, 940, 940))
        .write(client)
    )
    row = ask(client, "condition_returns", cost=0.0)[0]
    assert (row["reference"], row["source"]) == (1000, "open")
    assert row["reference_at"].isoformat() == "2026-03-09T00:16:00"
    assert horizons(client) == {
        "1m": 1.0,
        "5m": 2.0,
        "30m": -5.0,
        "close": -3.0,
        "next_open": -6.0,
        "best": 600.0,
        "worst": -99.2,
    }


def test_of_quote_and_bar_the_earlier_is_the_reference(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:15:20").bar("005930", "09:16", (1000, 1000, 1000, 1000))
    tape.quote("005930", "09:30:00", 2000).write(client)
    assert ask(client, "condition_returns", cost=0.0)[0]["reference"] == 1000


@pytest.mark.parametrize(
    ("received", "counted"),
    [
        ("14:58:30", {"1m", "5m", "30m", "close", "best", "worst"}),
        ("15:00:30", {"1m", "5m", "close", "best", "worst"}),
        ("15:28:30", {"1m", "close", "best", "worst"}),
        ("15:29:30", set()),  # bought in the closing auction
        ("15:30:30", set()),
    ],
)
def test_a_horizon_that_crosses_the_close_is_not_counted(
    client: Client, tape: Tape, received: str, counted: set[str]
) -> None:
    tape.hit("A", "005930", received, received=received)
    for minute in range(14 * 60 + 50, 15 * 60 + 31):
        tape.bar("005930", f"{minute // 60}:{minute % 60:02}", FLAT)
    tape.daily("005930", FLAT).write(client)
    assert {horizon for horizon, value in horizons(client).items() if value is not None} == counted


def test_the_next_open_is_that_of_the_next_day_of_the_market_and_of_no_later_one(client: Client, tape: Tape) -> None:
    tape.on(FRIDAY).hit("A", "005930", "10:00:00").hit("A", "000660", "10:00:00")
    for code in ("005930", "000660"):
        tape.bar(code, "10:01", FLAT).daily(code, FLAT)
    tape.on(NEXT_MONDAY).daily("005930", (110, 120, 100, 115))
    tape.on(date(2026, 3, 17)).daily("005930", (500, 500, 500, 500)).daily("000660", (500, 500, 500, 500))
    tape.write(client)
    assert horizons(client, code="005930")["next_open"] == 10.0
    assert horizons(client, code="000660")["next_open"] is None, "not traded on Monday: no later open stands for it"


def test_the_daily_close_goes_before_the_last_minute(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "10:00:00").bar("005930", "10:01", FLAT).bar("005930", "15:29", (104, 104, 104, 104))
    tape.write(client)
    assert horizons(client)["close"] == 4.0
    tape.daily("005930", (90, 110, 90, 105)).write(client)
    assert horizons(client)["close"] == 5.0


def test_costs_are_taken_once_from_every_return_and_from_the_sample_alike(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20"))
    tape.bar("000020", "09:16", (100, 100, 100, 103), sample=True).write(client)
    [row] = [row for row in ask(client, "condition_returns", cost=0.25) if row["horizon"] == "1m"]
    assert (round(row["return"], 9), round(row["sample_return"], 9)) == (0.75, 2.75)
    [row] = [row for row in ask(client, "condition_performance", cost=0.25) if row["horizon"] == "1m"]
    assert (round(row["mean"], 9), round(row["sample_mean"], 9)) == (0.75, 2.75)
    assert round(row["difference"], 9) == -2.0, "the same with and without costs"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "exited"},
        {"origin": "snapshot"},
        {"origin": "snapshot", "initial": True},
        {"initial": True},
        {"origin": "day-end"},
    ],
)
def test_only_what_was_seen_to_enter_is_a_hit(client: Client, tape: Tape, fields: dict[str, Any]) -> None:
    tape.hit("A", "005930", "09:15:20", **fields)
    quoted(tape).write(client)
    assert ask(client, "condition_performance", cost=0.0) == []


def test_a_hit_without_a_price_is_counted_and_not_guessed(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20").hit("A", "000660", "09:15:20")).write(client)
    rows = {row["horizon"]: row for row in ask(client, "condition_performance", cost=0.0)}
    assert (rows["1m"]["hits"], rows["1m"]["priced"], round(rows["1m"]["mean"], 9)) == (2, 1, 1.0)
    assert (rows["30m"]["hits"], rows["30m"]["priced"]) == (2, 0)
    nothing = ("mean", "median", "q1", "q3", "positive", "low", "high", "sample_mean", "difference", "difference_low")
    assert {rows["30m"][name] for name in nothing} == {None}


def test_copies_that_were_not_merged_count_once(client: Client, tape: Tape) -> None:
    client.command("SYSTEM STOP MERGES")
    try:
        quoted(tape.hit("A", "005930", "09:15:20").hit("B", "005930", "09:15:21"))
        tape.exit("A", "005930", "09:20:00", 280.0).gap("A", "09:30", "09:31").stock("005930", "삼성전자")
        tape.bar("000020", "09:16", (100, 100, 100, 103), sample=True).bar("000020", "09:20", FLAT, sample=True)
        tape.recommendation("005930", "09:15:20", ["A"]).status("A", "refused", "09:30", "09:31")
        tape.search("A", "005930", "09:40:00", 1000)
        views = {
            "condition_performance": {"cost": 0.0},
            "condition_returns": {"cost": 0.0},
            "condition_overlap": {"within": 10},
            "condition_dwell": {},
            "condition_activity": {},
            "recommendation_performance": {"cost": 0.0},
            "data_quality": {},
            "stock_prices": {},
        }

        def answers() -> dict[str, list[str]]:
            found = {view: sorted(map(str, ask(client, view, **given))) for view, given in views.items()}
            return found | {"rec_stocks": sorted(map(str, client.query("SELECT * FROM rec_stocks").result_rows))}

        tape.write(client)
        once = answers()
        tape.write(client, times=2)
        assert int(client.command("SELECT count() FROM transitions")) == 9, "three copies of three are there"
        assert answers() == once
        assert all(once.values())
    finally:
        client.command("SYSTEM START MERGES")


def test_accounts_are_apart(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20").hit("A", "005930", "09:15:20", account="second")).write(client)
    rows = [row for row in ask(client, "condition_performance", cost=0.0) if row["horizon"] == "1m"]
    assert [(row["account"], row["hits"], round(row["mean"], 9)) for row in rows] == [
        ("main", 1, 1.0),
        ("second", 1, 1.0),
    ]
    assert [row["other"] for row in ask(client, "condition_overlap", within=10)] == []


def test_what_has_not_come_yet_has_no_return(client: Client, tape: Tape) -> None:
    """Neither the last price nor the minutes fetched while the day goes on stand for a moment that is still to come."""
    tape.hit("A", "005930", "09:15:20", received="09:15:20").quote("005930", "09:15:21", 1000)
    for minute in range(15, 20):
        tape.bar("005930", f"09:{minute}", (1000, 1300, 900, 1010), sample=True)
        tape.bar("000660", f"09:{minute}", (500, 600, 400, 500), sample=True)
    asked_at = tape.moment("09:19:30")  # by hand, in the middle of the last minute
    tape.records = [replace(it, received_at=asked_at) if isinstance(it, Bar) else it for it in tape.records]
    tape.quote("005930", "09:16:20", 1020).quote("005930", "09:19:30", 1100).write(client)

    def told() -> dict[str, tuple[Any, Any]]:
        rows = ask(client, "condition_returns", cost=0.0)
        return {row["horizon"]: (row["price"], row["sample_return"]) for row in rows}

    assert {horizon: price for horizon, (price, _) in told().items()} == {
        "1m": 1020, "5m": None, "30m": None, "close": None, "next_open": None, "best": None, "worst": None
    }  # fmt: skip
    assert {horizon for horizon, (_, sample) in told().items() if sample is not None} == {"1m"}
    Tape().quote("005930", "09:20:20", 1150).quote("000660", "09:20:22", 1).write(client)
    assert told()["5m"][0] == 1150, "it has come"


def test_a_hit_is_priced_where_it_happened(client: Client, tape: Tape) -> None:
    """KRX by its quotes and bars, NXT by its quotes, what was seen on both by whatever comes first."""
    for condition, exchange in (("krx", "KRX"), ("nxt", "NXT"), ("both", "AL")):
        tape.hit(condition, "005930", "09:15:20", exchange=exchange)
    tape.quote("005930", "09:15:21", 1000, exchange="NXT").quote("005930", "09:15:22", 1100, exchange="KRX")
    tape.quote("005930", "09:16:20", 1010, exchange="NXT").quote("005930", "09:16:21.5", 1210, exchange="KRX")
    tape.quote("000660", "09:16:22", 1).write(client)
    rows = {row["condition"]: row for row in ask(client, "condition_returns", cost=0.0) if row["horizon"] == "1m"}
    assert {name: (row["reference"], row["price"]) for name, row in rows.items()} == {
        "krx": (1100, 1210),
        "nxt": (1000, 1010),
        "both": (1000, 1010),
    }
    tape.bar("005930", "09:15", FLAT).write(client)
    rows = {row["condition"]: row for row in ask(client, "condition_returns", cost=0.0) if row["horizon"] == "30m"}
    assert {name: row["price"] for name, row in rows.items()} == {"krx": 1210, "nxt": None, "both": 1210}


def test_an_evening_hit_on_nxt_has_its_minutes_but_no_close(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "18:00:00", exchange="NXT").daily("005930", FLAT)
    tape.quote("005930", "18:00:01", 1000, exchange="NXT").quote("005930", "18:01:00", 1010, exchange="NXT")
    tape.on(TUESDAY).daily("005930", (1100, 1100, 1100, 1100)).write(client)
    found = horizons(client)
    assert (found["1m"], found["close"], found["best"], found["next_open"]) == (1.0, None, None, 10.0)


def test_a_day_is_its_own(client: Client, tape: Tape) -> None:
    """The last price of the day before stands for nothing, and dates outside the question are not read."""
    tape.quote("005930", "15:29:59", 900).hit("A", "005930", "15:29:58")
    tape.on(TUESDAY).hit("A", "005930", "09:00:01", received="09:00:01").quote("005930", "09:00:01.5", 1000)
    tape.quote("005930", "09:01:01", 1100).quote("000660", "09:01:02", 1).write(client)
    found = {
        (row["date"], row["horizon"]): row["return"] for row in ask(client, "condition_returns", cost=0.0, last=TUESDAY)
    }
    assert found[MONDAY, "1m"] is None
    assert round(found[TUESDAY, "1m"], 9) == 10.0
    assert [row["hits"] for row in ask(client, "condition_performance", cost=0.0, first=TUESDAY, last=TUESDAY)] == [
        1
    ] * 7


# --- the sample -------------------------------------------------------------------------------------------------------


def test_the_sample_is_bought_at_the_same_time_and_measured_the_same_way(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20"))
    (
        tape.bar("000020", "09:15", (50, 50, 50, 50), sample=True)  # before the hit
        .bar("000020", "09:16", (100, 101, 99, 101), sample=True)
        .bar("000020", "09:20", (101, 106, 101, 102), sample=True)
        .bar("000020", "09:21", (200, 200, 200, 200), sample=True)  # after its five minutes
        .bar("000040", "09:18", (1000, 1000, 990, 990), sample=True)  # its first trade after the hit
        .bar("000060", "09:16", (1, 9, 1, 9))  # not sampled
        .write(client)
    )
    rows = {row["horizon"]: row for row in ask(client, "condition_performance", cost=0.0)}
    assert (rows["1m"]["sample_cases"], rows["1m"]["sample_mean"]) == (2, pytest.approx(0.0))  # +1 % and -1 %
    assert (rows["5m"]["sample_cases"], rows["5m"]["sample_mean"]) == (2, pytest.approx(0.5))  # +2 % and -1 %
    assert rows["5m"]["difference"] == pytest.approx(2.0 - 0.5)
    assert rows["best"]["priced"] == 0
    assert rows["best"]["sample_mean"] is None, "what the hits have not, the sample is not asked for"


def test_a_stock_is_not_compared_with_itself(client: Client, tape: Tape) -> None:
    tape.hit("A", "000020", "09:15:20")
    tape.bar("000020", "09:16", (100, 110, 100, 110), sample=True).bar(
        "000040", "09:16", (100, 101, 100, 101), sample=True
    )
    tape.write(client)
    [row] = [row for row in ask(client, "condition_returns", cost=0.0) if row["horizon"] == "1m"]
    assert (row["return"], row["sample_cases"], row["sample_return"]) == (pytest.approx(10), 1, pytest.approx(1))


# --- the interval -----------------------------------------------------------------------------------------------------


def test_the_interval_is_clustered_by_stock_and_by_day(client: Client, tape: Tape) -> None:
    """Returns 1, 3 (Monday: a, b) and 2, 6 (Tuesday: a, b), one minute each, worked out by hand.

    Mean 3; residuals -2, 0, -1, 3. Sums by stock -3, 3: 2 * 18 / 16 = 2.25. By day -2, 2: 2 * 8 / 16 = 1. By both
    4/3 * 14 / 16 = 1.1667. Their balance is 25/12, and neither of the two is the floor: 3 ± 12.7062 * √(25/12).
    """
    for day, returns in ((MONDAY, (1, 3)), (TUESDAY, (2, 6))):
        tape.on(day)
        for code, percent in zip(("00000a", "00000b"), returns, strict=True):
            tape.hit("A", code, "09:15:20").bar(code, "09:16", (100, 100 + percent, 100, 100 + percent))
            tape.bar("000020", "09:16", (100, 101, 100, 101), sample=True)
    tape.write(client)
    [row] = [row for row in ask(client, "condition_performance", cost=0.0) if row["horizon"] == "1m"]
    assert (row["mean"], row["median"], row["q1"], row["q3"]) == tuple(map(pytest.approx, (3, 2.5, 1.75, 3.75)))
    assert row["high"] - row["mean"] == pytest.approx(12.706204736 * (25 / 12) ** 0.5)
    assert row["mean"] - row["low"] == pytest.approx(row["high"] - row["mean"])
    assert row["difference"] == pytest.approx(2)
    assert row["difference_high"] - row["difference"] == pytest.approx(row["high"] - row["mean"]), "less one everywhere"
    assert (row["stocks"], row["days"], row["positive"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("monday", "tuesday", "variance"),
    [
        # What stocks and days each add is added: by stock 2 * 2 / 16, by day the same, by both 4/3 * 2 / 16.
        pytest.param((0, 1), (1, 2), 0.25 + 0.25 - 1 / 6, id="alike"),
        # Less alike than by chance: the smaller of the two; by stock 2 * 0.5 / 16, by day the same, by both more.
        pytest.param((1, 0), (0, 2), 0.25**2, id="less alike than by chance"),
    ],
)
def test_the_variance_of_two_stocks_on_two_days(
    client: Client, tape: Tape, monday: tuple[int, int], tuesday: tuple[int, int], variance: float
) -> None:
    for day, returns in ((MONDAY, monday), (TUESDAY, tuesday)):
        tape.on(day)
        for code, percent in zip(("00000a", "00000b"), returns, strict=True):
            tape.hit("A", code, "09:15:20").bar(code, "09:16", (100, 100 + percent, 100, 100 + percent))
    tape.write(client)
    [row] = [row for row in ask(client, "condition_performance", cost=0.0) if row["horizon"] == "1m"]
    assert row["high"] - row["mean"] == pytest.approx(12.706204736 * variance**0.5)


@pytest.mark.parametrize(("codes", "days"), [(("00000a", "00000b"), (MONDAY,)), (("00000a",), (MONDAY, TUESDAY))])
def test_one_day_or_one_stock_has_no_interval(
    client: Client, tape: Tape, codes: tuple[str, ...], days: tuple[date, ...]
) -> None:
    for day in days:
        for number, code in enumerate(codes):
            tape.on(day).hit("A", code, "09:15:20").bar(code, "09:16", (100, 120, 100, 110 + number + day.day))
    tape.write(client)
    [row] = [row for row in ask(client, "condition_performance", cost=0.0) if row["horizon"] == "1m"]
    assert row["priced"] == 2
    assert (row["low"], row["high"]) == (None, None)


def test_student_s_quantile_is_right_for_any_number_of_days(client: Client, tape: Tape) -> None:
    """The interval of d days with one stock each has d - 1 degrees of freedom: compared with an integral of its own."""
    day, wanted = date(2026, 1, 1).toordinal(), (2, 3, 5, 11, 21, 22, 40)
    for number in range(max(wanted)):
        tape.on(date.fromordinal(day + number))
        for days in wanted:
            if number < days:
                code, percent = f"{days:03}{number:03}", 1 + number % 2 + number / 100
                tape.hit(f"{days}", code, "09:15:20").bar(
                    code, "09:16", (10_000, 11_000, 10_000, round(10_000 + 100 * percent))
                )
    tape.write(client)
    rows = ask(client, "condition_performance", first=date(2026, 1, 1), last=date(2026, 3, 1), cost=0.0)
    for row in (row for row in rows if row["horizon"] == "1m"):
        days = int(row["condition"])
        returns = [1 + number % 2 + number / 100 for number in range(days)]
        mean = sum(returns) / days
        # Each stock has its own day: all three components are the same, and one of them is left.
        error = (sum((each - mean) ** 2 for each in returns) / (days - 1) / days) ** 0.5
        assert within((row["high"] - row["mean"]) / error, days - 1) == pytest.approx(0.95, abs=1e-6)


def within(bound: float, freedom: int) -> float:
    """The probability that Student's t lies between -bound and bound: Simpson's rule over its density, by hand."""
    from math import exp, lgamma, log, pi

    scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / (freedom * pi) ** 0.5
    steps = 20_000
    heights = [
        exp(-(freedom + 1) / 2 * log(1 + (bound * i / steps) ** 2 / freedom))
        * (1 if i in (0, steps) else 4 if i % 2 else 2)
        for i in range(steps + 1)
    ]
    return 2 * scale * sum(heights) * bound / steps / 3


# --- splits -----------------------------------------------------------------------------------------------------------


def parts(client: Client, split: str, within: int = 0) -> dict[tuple[str, str], tuple[int, float]]:
    """Hits and mean after a minute, by condition and part; conditions of other accounts with their account before."""
    return {
        (row["condition"] if row["account"] == "main" else f"{row['account']}/{row['condition']}", row["part"]): (
            row["hits"],
            round(row["mean"], 6),
        )
        for row in ask(client, "condition_performance_by", cost=0.0, split=split, within=within)
        if row["horizon"] == "1m"
    }


def test_split_by_time_of_day_and_by_visit(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:29:59").hit("A", "005930", "09:30:00", entry=2).hit("A", "005930", "09:59:10", entry=3)
    for minute, percent in (("09:30", 1), ("09:31", 2), ("10:00", 6)):
        tape.bar("005930", minute, (100, 110, 100, 100 + percent))
    tape.write(client)
    assert parts(client, "time") == {("A", "09:00"): (1, 1.0), ("A", "09:30"): (2, 4.0)}
    assert parts(client, "visit") == {("A", "first"): (1, 1.0), ("A", "re-entry"): (2, 4.0)}
    assert parts(client, "all") == {("A", ""): (3, 3.0)}


def test_split_by_confluence_looks_back_and_never_ahead(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:10:20").hit("B", "005930", "09:15:20").hit("C", "005930", "09:25:30")
    tape.hit("B", "000660", "09:15:20").hit("C", "005930", "09:15:20", account="second")
    for minute, percent in (("09:11", 1), ("09:16", 2), ("09:26", 3)):
        tape.bar("005930", minute, (100, 110, 100, 100 + percent)).bar("000660", minute, FLAT)
    tape.write(client)
    ten = {
        ("A", "alone"): (1, 1.0),
        ("B", "+ A"): (1, 2.0),
        ("B", "alone"): (1, 0.0),
        ("C", "alone"): (1, 3.0),  # ten minutes and ten seconds after B
        ("second/C", "alone"): (1, 2.0),  # the other account's hits are none of its own
    }
    assert parts(client, "confluence", within=10) == ten
    del ten["C", "alone"]
    assert parts(client, "confluence", within=11) == ten | {("C", "+ B"): (1, 3.0)}
    assert parts(client, "confluence", within=16)["C", "+ A"] == (1, 3.0), "two companions: the hit is in both parts"


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Sums of the same figures in another order differ in the last digits."""
    return {name: round(value, 9) if isinstance(value, float) else value for name, value in row.items()}


def test_not_split_it_is_the_performance(client: Client, tape: Tape) -> None:
    for number, day in enumerate((MONDAY, TUESDAY, FRIDAY)):
        tape.on(day).hit("A", "005930", "09:10:20").hit("A", "000660", "09:10:20").hit("B", "000660", "09:10:20")
        tape.bar("005930", "09:11", (100, 110, 100, 101 + number)).bar("000660", "09:11", (100, 110, 90, 104))
        tape.bar("000020", "09:11", (100, 110, 90, 99), sample=True)
    tape.gap("A", "09:10", "09:20").write(client)
    whole = ask(client, "condition_performance", cost=0.1)
    split = ask(client, "condition_performance_by", cost=0.1, split="all", within=0)
    assert [rounded(row | {"part": ""}) for row in whole] == [rounded(row) for row in split]
    assert len(whole) == 14
    assert whole[0]["low"] < whole[0]["mean"] < whole[0]["high"]


def test_an_unknown_split_is_refused_with_a_sentence(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:10:20").write(client)
    with pytest.raises(DatabaseError, match="split is one of all, time, visit, confluence"):
        parts(client, "weekday")


@pytest.mark.parametrize(
    "view",
    [
        "stock_prices(",
        "condition_returns(cost = 0, ",
        "condition_performance(cost = 0, ",
        "condition_performance_by(cost = 0, split = 'all', within = 0, ",
        "condition_performance_stored(cost = 0, ",
        "condition_overlap(within = 5, ",
        "condition_dwell(",
        "condition_activity(",
        "recommendation_performance(cost = 0, ",
        "data_heard(",
        "data_quality(",
        "data_quality_stored(",
    ],
)
@pytest.mark.parametrize("dates", [("2026-13-09", "2026-03-09"), ("2026-03-09", "2026-03-00")])
def test_what_is_no_day_is_refused_instead_of_taken_for_another(
    client: Client, view: str, dates: tuple[str, str]
) -> None:
    assert client.query(f"SELECT * FROM {view}from_date = '2026-03-09', to_date = '2026-03-09')").result_rows == []
    with pytest.raises(DatabaseError, match="from_date and to_date are days: write them as 2026-03-09"):
        client.query(f"SELECT * FROM {view}from_date = '{dates[0]}', to_date = '{dates[1]}')")


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_a_figure_across_a_gap_says_so(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:15:20").hit("B", "005930", "09:15:20")
    for minute in ("09:16", "09:17", "09:25", "15:29"):
        tape.bar("005930", minute, FLAT)
    tape.gap("A", "09:18", "09:20").gap("A", "09:00", "09:15").gap("A", "16:00", "16:01")
    tape.on(date(2026, 3, 6)).gap("A", "14:00", "15:00").write(client)  # the Friday before
    rows = {(row["condition"], row["horizon"]): row for row in ask(client, "condition_performance", cost=0.0)}
    assert {name: rows["A", name]["across_gap"] for name in ("1m", "5m", "30m", "close", "best")} == {
        "1m": 0,
        "5m": 1,
        "30m": 1,
        "close": 1,
        "best": 1,
    }
    assert rows["A", "1m"]["gaps"] == 3, "of the days that were asked for"
    assert (rows["B", "5m"]["gaps"], rows["B", "5m"]["across_gap"]) == (0, 0), "it was another condition's"


# --- overlap, dwell, activity -----------------------------------------------------------------------------------------


def test_overlap_counts_a_stock_and_day_once_and_says_who_came_first(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:10:00").hit("A", "005930", "11:00:00", entry=2).hit("B", "005930", "09:12:00")
    tape.hit("A", "000660", "10:30:00").hit("B", "000660", "10:00:00").hit("A", "000270", "09:00:00")
    tape.on(TUESDAY).hit("A", "005930", "09:10:00").hit("B", "005930", "09:10:00").write(client)
    rows = {(row["condition"], row["other"]): row for row in ask(client, "condition_overlap", within=10)}
    assert rows.keys() == {("A", "B"), ("B", "A")}
    names = ("stocks", "both", "share", "first", "second", "near", "median_lead")
    assert [rows["A", "B"][name] for name in names] == [4, 3, 0.75, 1, 1, 2, 0.0]
    assert [rows["B", "A"][name] for name in names] == [3, 3, 1.0, 1, 1, 2, 0.0]


def test_dwell_tells_what_was_seen_from_what_was_inferred_and_what_the_day_cut_off(client: Client, tape: Tape) -> None:
    for entry, (dwell, origin) in enumerate(
        ((10, "realtime"), (30, "realtime"), (50, "snapshot"), (36_000, "day-end")), start=1
    ):
        tape.exit("A", "005930", "15:00:00", dwell, origin=origin, entry=entry)
    tape.write(client)
    [row] = ask(client, "condition_dwell")
    assert (row["visits"], row["seen"], row["inferred"], row["stayed"]) == (4, 2, 1, 1)
    assert (row["under_a_minute"], row["q1"], row["median"]) == (0.75, 25, 40)


def test_activity_is_by_minute_in_korea_and_tells_news_from_state(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:00:59").hit("A", "000660", "09:00:01").hit("A", "000270", "09:01:00")
    tape.hit("A", "000020", "09:00:30", origin="snapshot", initial=True).exit("A", "005930", "09:01:59", 60.0)
    tape.exit("A", "000660", "15:00:00", 60.0, origin="day-end").write(client)
    found = [
        (str(row["minute"])[11:16], row["hits"], row["revealed"], row["exits"])
        for row in ask(client, "condition_activity")
    ]
    assert found == [("09:00", 2, 1, 0), ("09:01", 1, 0, 1)]


# --- recommendations --------------------------------------------------------------------------------------------------


def test_how_a_recommendation_fared(client: Client, tape: Tape) -> None:
    tape.stock("005930", "삼성전자").recommendation("005930", "09:15:20", ["A"])
    tape.recommendation("005930", "09:30:00", ["A", "B"], opened="09:15:20", revision=2)
    tape.recommendation("005930", "10:00:00", ["B"], opened="09:15:20", revision=3, state="closed", cause="score")
    tape.quote("005930", "09:15:21", 1000, high=3000).quote("005930", "09:18:21", 1020, high=1050, low=990)
    tape.quote("005930", "09:25:21", 1010, low=900).quote("005930", "14:00:00", 1015).gap("B", "09:20", "09:21")
    tape.write(client)
    [row] = ask(client, "recommendation_performance", cost=0.5)
    assert (row["name"], row["conditions"], row["score"]) == ("삼성전자", ["A", "B"], 2.0)
    assert (row["state"], row["cause"], str(row["closed_at"])[11:19]) == ("closed", "score", "10:00:00")
    assert (row["reference"], row["source"], row["price"], row["is_close"]) == (1000, "quote", 1015, False)
    assert row["return"] == pytest.approx(1.5 - 0.5)
    assert (row["best"], row["minutes_to_best"]) == (pytest.approx(5 - 0.5), 3.0), "not the 3000 from before it"
    assert (row["worst"], row["minutes_to_worst"]) == (pytest.approx(-10 - 0.5), 10.0)
    assert row["gaps"] == 1
    tape.daily("005930", (990, 1060, 880, 1040)).write(client)
    [row] = ask(client, "recommendation_performance", cost=0.0)
    assert (row["price"], row["is_close"], row["return"]) == (1040, True, pytest.approx(4))


def test_a_recommendation_without_a_price_is_there_without_figures(client: Client, tape: Tape) -> None:
    tape.recommendation("005930", "09:15:20", ["A"]).quote("005930", "09:15:20", 1000)
    tape.quote("005930", "09:17:00", 1000).on(TUESDAY).quote("005930", "09:00:00", 2000).write(client)
    [row] = ask(client, "recommendation_performance", cost=0.0)
    assert {row[name] for name in ("reference", "price", "return", "best", "worst", "minutes_to_best")} == {None}


# --- data quality -----------------------------------------------------------------------------------------------------


def test_what_a_day_lacks(client: Client, tape: Tape) -> None:
    tape.hit("A", "005930", "09:15:20").hit("A", "000660", "09:15:20").hit("A", "000270", "09:16:00", origin="snapshot")
    tape.hit("A", "000270", "09:00:00", origin="snapshot", initial=True, entry=2)
    tape.exit("A", "000270", "09:20:00", 60.0, origin="snapshot").bar("005930", "09:16", FLAT)
    tape.gap("A", "09:15:30", "09:16:00").status("A", "unanswered", "09:30", "09:32").status(
        "A", "live", "09:32", "15:30"
    )
    tape.hit("B", "005930", "09:15:20").status("C", "resting", "09:00", "10:00")
    tape.bar("000020", "09:16", FLAT, sample=True).write(client)
    rows = {row["condition"]: row for row in ask(client, "data_quality")}
    assert rows.keys() == {"A", "B", "C"}
    a = rows["A"]
    assert (a["hits"], a["revealed"], a["standing"], a["inferred_exits"]) == (2, 1, 1, 1)
    assert (a["gaps"], a["gap_seconds"], a["causes"]) == (1, 30, ["the connection broke"])
    assert (a["not_live_seconds"], a["troubles"]) == (120, ["unanswered"])
    assert (a["without_price"], a["without_bars"], a["sample_stocks"]) == (1, 1, 1)
    assert a["lacks"] == ["gaps", "unseen", "subscription", "prices", "bars"]
    assert rows["B"]["lacks"] == []
    assert rows["C"]["lacks"] == []


# --- rec_stocks -------------------------------------------------------------------------------------------------------


def recommended(client: Client) -> dict[tuple[date, str], tuple[Any, Any, int]]:
    rows = client.query(
        "SELECT recommendation_date, stock_code, closing_price, change_rate, is_final FROM rec_stocks"
    ).result_rows
    return {(day, code): (price, rate, final) for day, code, price, rate, final in rows}


def test_rec_stocks_has_the_search_s_price_during_the_day_and_the_close_after_it(client: Client, tape: Tape) -> None:
    tape.search("A", "005930", "09:40:00", 1020, change=20, change_rate=2.0).quote("005930", "10:00:00", 1100)
    tape.recommendation("000660", "09:15:20", ["B"]).write(client)
    assert recommended(client) == {(MONDAY, "005930"): (1020, 2.0, 0), (MONDAY, "000660"): (None, None, 0)}
    tape.daily("005930", (1000, 1100, 1000, 1050)).daily("000660", (1, 1, 1, 500)).write(client)
    assert recommended(client) == {
        (MONDAY, "005930"): (1050, 5.0, 0),  # against 1020 - 20
        (MONDAY, "000660"): (500, None, 0),
    }
    tape.on(date(2026, 3, 6)).daily("000660", (1, 1, 1, 400)).write(client)
    assert recommended(client)[MONDAY, "000660"] == (500, 25.0, 0), "against the close of the trading day before"


def test_rec_stocks_without_a_daily_bar_has_the_last_price_once_the_day_is_over(client: Client, tape: Tape) -> None:
    tape.recommendation("005930", "09:15:20", ["A"]).recommendation("000660", "09:15:20", ["A"])
    tape.quote("005930", "15:29:00", 1000, change_rate=1.0).quote("005930", "15:30:10", 1100, change_rate=10.0)
    tape.quote("005930", "18:00:00", 1200, exchange="NXT").bar("000660", "15:30", (50, 50, 50, 51)).write(client)
    assert recommended(client)[MONDAY, "005930"] == (None, None, 0), "the day is not over"
    tape.on(TUESDAY).hit("A", "000020", "09:00:00").write(client)
    assert recommended(client) == {(MONDAY, "005930"): (1100, 10.0, 1), (MONDAY, "000660"): (51, None, 1)}


# --- whoever asks -----------------------------------------------------------------------------------------------------


def test_settings_of_whoever_asks_change_nothing(client: Client, tape: Tape) -> None:
    quoted(tape.hit("A", "005930", "09:15:20").hit("A", "000660", "09:15:20")).bar("000020", "09:16", FLAT, sample=True)
    tape.hit("B", "005930", "09:15:20").recommendation("005930", "09:15:20", ["A"]).gap(
        "A", "09:15:30", "09:16:00"
    ).write(client)
    span = f"from_date = '{MONDAY}', to_date = '{MONDAY}'"
    for view in (
        f"condition_performance({span}, cost = 0)",
        f"condition_performance_by({span}, cost = 0, split = 'confluence', within = 5)",
        f"condition_returns({span}, cost = 0)",
        f"recommendation_performance({span}, cost = 0)",
        f"data_quality({span})",
        f"condition_overlap({span}, within = 5)",
        f"condition_performance_by({span}, cost = 0, split = 'time', within = 0)",
        f"condition_activity({span})",
        "rec_stocks",
    ):
        asked = f"SELECT * FROM {view} ORDER BY ALL FORMAT TSV"
        plain = client.raw_query(asked)
        assert plain
        assert (
            client.raw_query(asked, settings={"join_use_nulls": 1, "session_timezone": "America/New_York"}) == plain
        ), view


def test_only_the_dates_that_are_asked_for_are_read(client: Client, tape: Tape) -> None:
    """Each read of a table is narrowed by its first key, so that a year of rows costs a week nothing."""
    for month in range(1, 7):
        tape.on(date(2026, month, 9)).hit("A", "005930", "09:15:20").recommendation("005930", "09:15:20", ["A"])
        quoted(tape).bar("005930", "09:16", FLAT, sample=True).daily("005930", FLAT).gap("A", "09:20", "09:21")
        tape.status("A", "live", "09:00", "15:30")
    tape.write(client)
    span = f"from_date = '{MONDAY}', to_date = '{MONDAY}'"
    lines = client.query(f"EXPLAIN indexes = 1 SELECT * FROM condition_performance({span}, cost = 0)").result_rows
    reads = "\n".join(str(row[0]) for row in lines).split("ReadFromMergeTree (")[1:]
    assert {read.split(")")[0].rpartition(".")[2] for read in reads} == {"transitions", "quotes", "bars", "gaps"}
    for read in reads:
        parts = re.findall(r"Parts: (\d+)/6\n", read)
        assert parts, f"not narrowed: {read}"
        assert int(parts[0]) <= 2, f"{parts} of 6: {read}"
