"""What the dashboard and the report ask ClickHouse, over a day, a month and a year of rows; and what rows weigh.

`past.py` makes the rows. By default 250 trading days of 20,000 transitions, as many events, 200,000 quotes and 76,000
minute bars: 5 million transitions and 50 million quotes, about 1.5 GB and some minutes. `HITSTREAM_TEST_DAYS`,
`HITSTREAM_TEST_TRANSITIONS` and `HITSTREAM_TEST_QUOTES` (of a day) change that. Each query is its caller's own, asked
as it asks it, once to warm up and `HITSTREAM_TEST_ROUNDS` times; told is the time until all rows are with the client.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

sys.path.insert(0, str(Path(__file__).parents[1] / "sinks" / "clickhouse"))
sys.path.insert(0, str(Path(__file__).parent))

import past
from embedded import Server
from harness import ROUNDS, Result, keep

from sinks.clickhouse import uncounted
from sinks.clickhouse.connection import connect, connect_async, first_line
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.returns import CAME, fill, look
from sinks.live import history
from sinks.report import reading
from sinks.settings import ClickHouseSettings

DAYS = int(os.environ.get("HITSTREAM_TEST_DAYS", "250"))
SCALE = past.Scale(
    transitions=int(os.environ.get("HITSTREAM_TEST_TRANSITIONS", "20000")),
    quotes=int(os.environ.get("HITSTREAM_TEST_QUOTES", "200000")),
)
MONTH = 21

Asked = tuple[str, dict[str, Any]]

FREE = {
    "quotes of a stock": """
        SELECT received_at, price, high, low FROM quotes FINAL
        WHERE date = {day:Date} AND code = {code:String} ORDER BY received_at""",
    "latest price of every stock": """
        SELECT code, argMax(price, received_at) FROM quotes WHERE date = {day:Date} GROUP BY code""",
    "first price after each hit": """
        SELECT t.condition, t.code, t.received_at, q.price
        FROM (SELECT condition, code, received_at FROM transitions FINAL
            WHERE date = {day:Date} AND kind = 'entered') AS t
        ASOF LEFT JOIN (SELECT code, received_at, price FROM quotes FINAL WHERE date = {day:Date}) AS q
            ON q.code = t.code AND q.received_at >= t.received_at""",
    "hits a minute by condition": """
        SELECT condition, toStartOfMinute(at) AS minute, count() FROM transitions FINAL
        WHERE date = {day:Date} AND kind = 'entered' GROUP BY condition, minute ORDER BY condition, minute""",
    "rec_stocks": "SELECT * FROM rec_stocks WHERE recommendation_date = {day:Date}",
}
"""What anybody may ask."""

VIEWS = {
    "condition_performance": "cost = 0.23",
    "condition_performance_stored": "cost = 0.23",
    "condition_overlap": "within = 10",
    "condition_dwell": "",
    "condition_activity": "",
    "recommendation_performance": "cost = 0.23",
    "data_quality": "",
    "data_quality_stored": "",
}


def of_dashboard(day: date, code: str) -> dict[str, Asked]:
    """What `sinks.live.history` asks, by what it is for."""
    page = {"day": day, "account": "", "condition": "", "code": "", "kind": "", "id": "", "step": 0, "limit": 200}
    page["at"] = "2200-01-01 00:00:00.000000"
    of_stock = {"code": code, "day": day, "first": day - timedelta(days=365), "last": day}
    week = {"first": day - timedelta(days=6), "last": day}
    return {
        "transitions, newest 200": (history._TRANSITIONS, page),
        "transitions of one condition, newest 200": (history._TRANSITIONS, page | {"condition": "조건 7"}),
        "events with names, newest 200": (history._EVENTS, page),
        "minute bars of a stock": (history._MINUTES, of_stock),
        "daily bars of a stock, 365 days": (history._DAYS, of_stock),
        "a stock's visits in the last 365 days": (history._HISTORY, of_stock),
        "performance of a week, whether it is kept": (history._FILLED, week),
        "why hits of a week have no return, kept": (uncounted.STORED, week),
        "why hits of 28 days have no return, kept": (uncounted.STORED, week | {"first": day - timedelta(days=28)}),
    }


def of_report(day: date, codes: list[str]) -> dict[str, Asked]:
    """What `sinks.report.reading` asks beside the views' own figures, which are asked as in `VIEWS`."""
    at = {"from_date": day, "to_date": day, "cost": 0.23}
    month = {"first": day - timedelta(days=28), "last": day, "cost": 0.23}
    return {
        "report: whether 28 days are kept": (CAME, month),
        "report: performance of 28 days, kept": (
            reading._PERFORMANCE.replace("{view}", "condition_performance_stored"),
            at | {"from_date": month["first"]},
        ),
        "report: recommendations": (reading._RECOMMENDATIONS, at),
        "report: lines of 20 stocks": (reading._LINES, at | {"codes": codes[:20]}),
        "report: visits": (reading._VISITS, at),
        "report: most members at once": (reading._MOST, at),
        "report: hits a minute": (reading._ACTIVITY, at),
        "report: gaps": (reading._GAPS, at),
        "report: how fetching bars went": (reading._BARS, at),
    }


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[ClickHouseSettings]:
    server = Server(tmp_path / "clickhouse")
    server.start()
    settings = server.settings()
    migrate(settings)
    yield settings
    server.kill()


@pytest.fixture
def client(settings: ClickHouseSettings) -> Iterator[Client]:
    client = connect(settings)
    yield client
    client.close()


async def keep_up(settings: ClickHouseSettings, first: date) -> list[float]:
    """Fill `day_returns` from `first` on, as the sink does; milliseconds of each day."""
    client = await connect_async(settings)
    rounds = []
    for day in await look(client, first):
        started = time.perf_counter()
        await fill(client, day)
        rounds.append(1000 * (time.perf_counter() - started))
    await client.close()
    return rounds


def asked(client: Client, day: date, views: set[str]) -> dict[str, Asked]:
    """The questions by name; those of views as far as the database has them."""
    found = client.query("SELECT DISTINCT code FROM quotes WHERE date = {day:Date}", parameters={"day": day})
    codes = sorted(str(row[0]) for row in found.result_rows)
    questions = of_dashboard(day, codes[0]) | of_report(day, codes)
    questions |= {name: (query, {"day": day, "code": codes[0]}) for name, query in FREE.items()}
    for view, more in VIEWS.items():
        if view in views:
            rest = f", {more}" if more else ""
            for span, first, last in (
                ("of nothing", date(2100, 1, 1), date(2100, 1, 1)),
                ("a day", day, day),
                ("a week", day - timedelta(days=6), day),
            ):
                query = f"SELECT * FROM {view}(from_date = '{first}', to_date = '{last}'{rest})"
                questions[f"{view}, {span}"] = (query, {})
    return questions


def timed(client: Client, query: str, parameters: dict[str, Any]) -> list[float]:
    """Milliseconds of each round; of a query that fails or takes longer than half a minute, none but a word of it."""
    given = {name: value for name, value in parameters.items() if f"{{{name}:" in query}
    rounds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        try:
            client.query(query, parameters=given, settings={"max_execution_time": 30})
        except (ClickHouseError, OSError) as error:
            print(f"{' '.join(query.split())[:100]}: {first_line(error)}", flush=True)
            return [float("nan")]
        rounds.append(1000 * (time.perf_counter() - started))
    return rounds[1:]


def insert_again(client: Client, day: date) -> list[float]:
    """Milliseconds of inserting 10,000 quotes of the day once more: copies, which collapse."""
    answer = client.query(
        "SELECT * EXCEPT inserted_at FROM quotes WHERE date = {day:Date} LIMIT 10000", parameters={"day": day}
    )
    rounds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        client.insert("quotes", answer.result_columns, answer.column_names, column_oriented=True)
        rounds.append(1000 * (time.perf_counter() - started))
    return rounds[1:]


def bench_queries(client: Client, settings: ClickHouseSettings) -> None:
    """The same questions about the last day, with more and more days behind it."""
    past.list_stocks(client)
    views = {row[0] for row in client.query("SHOW TABLES").result_rows}
    calendar = past.days(DAYS)
    values: dict[str, dict[str, list[float]]] = {}
    began = time.monotonic()
    for number, day in enumerate(calendar, 1):
        past.live(client, day, SCALE)
        if number not in {1, MONTH, DAYS}:
            continue
        figure = f"ms, {number} day{'s' if number > 1 else ''}"
        print(f"{number} days after {time.monotonic() - began:.0f} s", flush=True)
        values.setdefault("insert 10,000 quotes", {})[figure] = insert_again(client, day)
        values.setdefault("fill a day of day_returns", {})[figure] = asyncio.run(
            keep_up(settings, day - timedelta(days=28))
        )[-ROUNDS:]
        for name, (query, parameters) in asked(client, day, views).items():
            values.setdefault(name, {})[figure] = timed(client, query, parameters)
    rows = client.query(
        "SELECT table, sum(rows), sum(data_compressed_bytes) / sum(rows) FROM system.parts "
        "WHERE active AND database = currentDatabase() GROUP BY table HAVING sum(rows) > 100 ORDER BY sum(rows) DESC"
    ).result_rows
    note = "; ".join(f"{table} {count:,} rows of {size:.1f} bytes" for table, count, size in rows)
    keep(Result("queries", "What is asked, by how much there is", dict.fromkeys(values, ""), values, note=f"{note}. "))


# --- what rows weigh --------------------------------------------------------------------------------------------------

CODED = (
    "received_at", "at", "price", "high", "low", "volume", "trades", "change_rate", "day_volume", "_offset",
    "inserted_at",
)  # fmt: skip
LAYOUTS: dict[str, str] = {
    "as it is": "",
    "no codecs": ", ".join(f"MODIFY COLUMN {column} CODEC(Default)" for column in CODED),
    "prices T64": (
        "MODIFY COLUMN price CODEC(T64, ZSTD(1)), MODIFY COLUMN high CODEC(T64, ZSTD(1)),"
        " MODIFY COLUMN low CODEC(T64, ZSTD(1)), MODIFY COLUMN volume CODEC(T64, ZSTD(1))"
    ),
    "prices DoubleDelta": (
        "MODIFY COLUMN price CODEC(DoubleDelta, ZSTD(1)), MODIFY COLUMN high CODEC(DoubleDelta, ZSTD(1)),"
        " MODIFY COLUMN low CODEC(DoubleDelta, ZSTD(1))"
    ),
    "rate Gorilla": "MODIFY COLUMN change_rate CODEC(Gorilla, ZSTD(1))",
    "received_at DoubleDelta": "MODIFY COLUMN received_at CODEC(DoubleDelta, ZSTD(1))",
    "session and _topic String": "MODIFY COLUMN session String, MODIFY COLUMN _topic String",
    "ZSTD(3)": (
        "MODIFY COLUMN received_at CODEC(Delta, ZSTD(3)), MODIFY COLUMN price CODEC(Delta, ZSTD(3)),"
        " MODIFY COLUMN high CODEC(Delta, ZSTD(3)), MODIFY COLUMN low CODEC(Delta, ZSTD(3)),"
        " MODIFY COLUMN volume CODEC(ZSTD(3)), MODIFY COLUMN day_volume CODEC(Delta, ZSTD(3))"
    ),
}
KEYS = (
    "(date, code, exchange, received_at, session)",
    "(date, received_at, code, exchange, session)",
    "(code, date, exchange, received_at, session)",
)


def bench_layouts(client: Client) -> None:
    """Bytes a row of ten days of quotes, by codec and by sorting key; and what two questions cost by key."""
    calendar = past.days(10)
    for day in calendar:
        past.live(client, day, SCALE)
    values: dict[str, dict[str, list[float]]] = {}
    for name, changes in LAYOUTS.items():
        client.command("CREATE TABLE other AS quotes")
        if changes:
            client.command(f"ALTER TABLE other {changes}")
        values[name] = {"bytes/row": [weigh(client)]}
    day, code = calendar[-1], client.command(f"SELECT any(code) FROM quotes WHERE date = '{calendar[-1]}'")
    made = str(client.command("SHOW CREATE TABLE quotes")).replace("\\n", "\n").replace("\\'", "'")
    head, _, tail = made.partition("ORDER BY ")
    for key in KEYS:
        client.command(f"{head.replace('.quotes', '.other')} ORDER BY {key} {tail[tail.index('SETTINGS') :]}")
        weight = weigh(client, drop=False)
        of_day = {"day": day, "code": code}
        values[f"key {key}"] = {
            "bytes/row": [weight],
            "ms, a stock's day": timed(client, FREE["quotes of a stock"].replace("quotes", "other"), of_day),
            "ms, a day's latest prices": timed(
                client, FREE["latest price of every stock"].replace("quotes", "other"), of_day
            ),
            "ms, first price after each hit": timed(
                client, FREE["first price after each hit"].replace("quotes", "other"), of_day
            ),
        }
        client.command("DROP TABLE other SYNC")
    keep(Result("layouts", f"Quotes, {10 * SCALE.quotes:,} rows", dict.fromkeys(values, ""), values))


def weigh(client: Client, *, drop: bool = True) -> float:
    """Compressed bytes of a row of `other`, filled with all quotes and merged."""
    client.command("INSERT INTO other SELECT * FROM quotes")
    client.command("OPTIMIZE TABLE other FINAL")
    size: Any = client.command(
        "SELECT sum(data_compressed_bytes) / sum(rows) FROM system.parts WHERE active AND table = 'other'"
        " AND database = currentDatabase()"
    )
    if drop:
        client.command("DROP TABLE other SYNC")
    return float(size)
