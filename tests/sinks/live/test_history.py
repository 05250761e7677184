"""What the API asks ClickHouse, on the local engine: every question, its pages, and every way of having no answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import ConsumerRecord
from day import NINE, transition

sys.path.insert(0, str(Path(__file__).parents[1] / "clickhouse"))

from embedded import Server

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.writer import insert_again
from sinks.consumer import Received
from sinks.live import history as module
from sinks.live.answers import Candle
from sinks.live.cursor import place_of
from sinks.live.history import History
from sinks.live.hub import Hub, Limits
from sinks.live.server import application
from sinks.live.stream import Broadcaster
from sinks.settings import ClickHouseSettings
from streams.events import Bar, ConditionEvent, Quote, Record, Status, Stock, Transition, encode

TODAY = NINE
YESTERDAY = NINE - timedelta(days=1)
PAST = YESTERDAY.date()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("clickhouse") / "data")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def settings(server: Server) -> ClickHouseSettings:
    """A database with a past day, and what was dropped from memory of today."""
    settings = server.settings()
    migrate(settings)
    records: list[Record] = [Stock(code="000001", name="하나", market="KOSPI", received_at=NINE)]
    for day in (YESTERDAY, TODAY):
        for n in range(20):
            # Two of one moment: the order must be whole, or a page would lose one of them.
            at = day + timedelta(seconds=n // 2, microseconds=123_456)
            records.append(transition(f"{n:06d}", at=at))
            records.append(transition(f"{n:06d}", at=at, kind="exited", dwell=2.5))
    for n in range(5):
        at = YESTERDAY + timedelta(seconds=n)
        records.append(
            ConditionEvent(
                id=f"e{n}", account="main", condition="신고가 돌파", seq="1", code=f"{n:06d}",
                action="hit" if n % 2 else "exit", at=at, received_at=at, session="s", frame=n, entry=1,
            )
        )  # fmt: skip
    for n in range(3):
        for interval, step in (("1m", timedelta(minutes=n)), ("1d", timedelta(days=n - 3))):
            at = YESTERDAY + step
            records.append(
                Bar(code="000001", interval=interval, at=at, open=1, high=3, low=1, close=2, volume=n, received_at=at)  # type: ignore[arg-type]
            )

    def received(offset: int, record: Record) -> Received:
        value = encode(record)
        return Received(record, ConsumerRecord("topic", 0, offset, 0, 0, b"k", value, None, 1, len(value), ()))

    refused = asyncio.run(insert_again(settings, [received(n, record) for n, record in enumerate(records)]))
    assert list(refused) == []
    return settings


@asynccontextmanager
async def asking(settings: ClickHouseSettings | None, limits: Limits | None = None) -> AsyncIterator[httpx.AsyncClient]:
    hub = Hub(epoch="e", limits=limits)
    broadcaster = Broadcaster(hub, lambda: NINE + timedelta(minutes=10))
    for n in range(20):
        at = TODAY + timedelta(seconds=n // 2, microseconds=123_456)
        hub.apply(transition(f"{n:06d}", at=at), at)
        hub.apply(transition(f"{n:06d}", at=at, kind="exited", dwell=2.5), at)
    broadcaster.open()
    history = History(settings)
    app = application(broadcaster, history=history, now=lambda: NINE)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://localhost",
    ) as client:
        try:
            yield client
        finally:
            await history.close()


async def pages(client: httpx.AsyncClient, path: str, limit: int) -> list[Any]:
    """All lines of a list, page by page."""
    lines: list[Any] = []
    cursor = ""
    while True:
        answer = await client.get(f"{path}&limit={limit}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        lines += page["items"]
        if page["next"] is None:
            return lines
        assert len(page["items"]) == limit
        cursor = f"&cursor={page['next']}"


def ids(lines: list[Any]) -> list[str]:
    return [line["transition"]["id"] for line in lines]


@pytest.mark.parametrize("limit", [1, 3, 7, 1_000])
async def test_a_past_day_is_paged_without_loss_or_repeat(settings: ClickHouseSettings, limit: int) -> None:
    async with asking(settings) as client:
        lines = await pages(client, f"/api/transitions?date={PAST}", limit)
        assert len(lines) == 40
        assert len(set(ids(lines))) == 40
        moments = [(line["transition"]["received_at"]) for line in lines]
        assert moments == sorted(moments, reverse=True)


async def test_what_memory_dropped_of_today_comes_from_clickhouse(settings: ClickHouseSettings) -> None:
    async with asking(settings, Limits(transitions=10)) as client, asking(settings) as whole:
        for wanted in ("account=main", "code="):
            joined = await pages(client, f"/api/transitions?{wanted}", 7)
            assert ids(joined) == ids(await pages(whole, f"/api/transitions?{wanted}", 7))
        assert len(joined) == 40
    async with asking(None, Limits(transitions=10)) as client:
        assert len(await pages(client, "/api/transitions?account=main", 7)) == 10, "without it, what is there"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("code=000003", 2), ("kind=exited", 20), ("condition=none", 0), ("account=main&code=000003&kind=entered", 1)],
)
async def test_a_past_day_is_filtered(settings: ClickHouseSettings, wanted: str, expected: int) -> None:
    async with asking(settings) as client:
        assert len(await pages(client, f"/api/transitions?date={PAST}&{wanted}", 100)) == expected


async def test_a_past_transition_is_told_like_one_of_today(settings: ClickHouseSettings) -> None:
    async with asking(settings) as client:
        (line,) = await pages(client, f"/api/transitions?date={PAST}&code=000003&kind=exited", 10)
        told = line["transition"]
        expected = transition(
            "000003", at=YESTERDAY + timedelta(seconds=1, microseconds=123_456), kind="exited", dwell=2.5
        )
        for name in ("id", "account", "condition", "code", "kind", "origin", "entry", "dwell", "initial", "session"):
            assert told[name] == getattr(expected, name), name
        for name in ("at", "since", "received_at"):
            assert datetime.fromisoformat(told[name]) == getattr(expected, name), name
        assert (told["date"], told["gap_from"]) == (PAST.isoformat(), None)


async def test_events_are_told_as_kiwoom_said_them(settings: ClickHouseSettings) -> None:
    async with asking(settings) as client:
        lines = await pages(client, f"/api/events?date={PAST}", 2)
        assert [line["id"] for line in lines] == ["e4", "e3", "e2", "e1", "e0"]
        assert (lines[3]["name"], lines[3]["action"], lines[3]["frame"]) == ("하나", "hit", 1)
        assert len(await pages(client, f"/api/events?date={PAST}&action=hit", 2)) == 2
        assert await pages(client, "/api/events?account=main", 2) == []


async def test_a_stocks_history_and_bars(settings: ClickHouseSettings) -> None:
    async with asking(settings) as client:
        days = (await client.get("/api/stocks/000001/history?days=2")).json()
        assert [(day["date"], day["visits"], day["dwell"]) for day in days] == [
            (TODAY.date().isoformat(), 1, 2.5),
            (PAST.isoformat(), 1, 2.5),
        ]
        assert len((await client.get("/api/stocks/000001/history?days=1")).json()) == 1
        minutes = (await client.get(f"/api/stocks/000001/bars?date={PAST}")).json()
        assert (minutes["source"], [bar["volume"] for bar in minutes["bars"]]) == ("bars", [0, 1, 2])
        assert datetime.fromisoformat(minutes["bars"][1]["at"]) == YESTERDAY + timedelta(minutes=1)
        daily = (await client.get(f"/api/stocks/000001/bars?interval=1d&date={PAST}")).json()
        assert [bar["volume"] for bar in daily["bars"]] == [0, 1, 2]


class Own(History):
    """A ClickHouse that has the first minute of today's own bars, or that is away."""

    def __init__(self) -> None:
        super().__init__(ClickHouseSettings(dsn="clickhouse://nowhere"))
        self.is_away = False

    async def bars(self, code: str, interval: str, day: date) -> tuple[Candle, ...]:
        if self.is_away:
            raise module.HistoryAway("It is away.")
        return (Candle(at=TODAY, open=1, high=2, low=1, close=2, volume=7),)


async def test_todays_minutes_are_kiwooms_own_once_these_have_been_fetched() -> None:
    hub, history = Hub(epoch="e"), Own()
    broadcaster = Broadcaster(hub, lambda: NINE + timedelta(minutes=10))
    for minute in range(3):
        at = TODAY + timedelta(minutes=minute)
        price = 100 + minute
        hub.apply(
            Quote(code="000001", at=at, received_at=at, price=price, high=price, low=price, volume=1, trades=1), at
        )
    broadcaster.open()
    app = application(broadcaster, history=history, now=lambda: NINE)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

        async def told() -> tuple[str, list[int]]:
            answer = (await client.get("/api/stocks/000001/bars")).json()
            return answer["source"], [bar["close"] for bar in answer["bars"]]

        assert await told() == ("quotes", [100, 101, 102])
        figures = {"day": float(f"{TODAY:%Y%m%d}"), "bars": 3.0}
        hub.apply(
            Status(component="bars/main/p1", kind="diagnosis", state="partial", since=TODAY, at=TODAY, figures=figures),
            TODAY,
        )
        assert await told() == ("bars", [2, 101, 102]), "what they do not reach to is what was heard"
        history.is_away = True
        assert await told() == ("quotes", [100, 101, 102])


VIEW = """
CREATE VIEW condition_performance AS
SELECT 'main' AS account, 'a' AS condition, arrayJoin(['best', '5m', 'close']) AS horizon, toUInt64(12) AS hits,
       toUInt64(10) AS priced, {cost:Float64} AS mean, 0.5 AS median, nan AS q1, CAST(NULL, 'Nullable(Float64)') AS q3,
       0.5 AS positive, 0.1 AS low, inf AS high, 0.2 AS sample_mean, toUInt64(99) AS sample_cases, 0.3 AS difference,
       0.4 AS difference_low, 0.6 AS difference_high, toUInt64(1) AS gaps, toUInt64(3) AS stocks
FROM numbers(1) WHERE {from_date:Date} > toDate(0) AND {from_date:Date} <= {to_date:Date}
"""
# Of the hits of `a` two have no reference; one has it at 15:29:30, one at 15:10 on NXT.
HITS = """
CREATE VIEW condition_returns AS
SELECT {from_date:Date} AS date, 'main' AS account, 'a' AS condition, '1m' AS horizon, hit.1 AS exchange,
       toDateTime64(date, 6, 'Asia/Seoul') + toIntervalSecond(hit.2) AS reference_at
FROM (SELECT arrayJoin([('KRX', NULL), ('KRX', NULL), ('KRX', 55770), ('NXT', 54600)]) AS hit)
WHERE {to_date:Date} = {to_date:Date} AND {cost:Float64} = 0
"""


async def test_performance_is_what_the_view_says_and_what_is_not_known_is_null(server: Server) -> None:
    """The view is played, by its signature: what it computes is not this module's matter."""
    bare = server.settings()
    maker = connect(bare)
    maker.command(VIEW)
    maker.command(HITS)
    maker.close()
    async with asking(bare) as client:
        told = (await client.get(f"/api/performance?from={PAST}&to={PAST}&cost=0.25")).json()
        assert [row["horizon"] for row in told] == ["5m", "close", "best"], "in the order of time"
        assert {(row["hits"], row["priced"], row["mean"], row["sample_cases"]) for row in told} == {(12, 10, 0.25, 99)}
        assert (told[0]["q1"], told[0]["q3"], told[0]["high"], told[0]["low"]) == (None, None, None, 0.1)
        assert [(row["without_price"], row["past_close"]) for row in told] == [(2, 1), (2, 0), (2, 0)]
        ever = (await client.get(f"/api/performance?from=1960-01-01&to={PAST}&cost=0.25")).json()
        assert ever == told, "the views refuse 1970-01-01 and what is before it"
        assert (await client.get(f"/api/performance?from={PAST}&to=2020-01-01")).status_code == 400
        for wrong in ("cost=-1", "cost=nan", "cost=x", "cost=1e999"):
            assert (await client.get(f"/api/performance?from={PAST}&to={PAST}&{wrong}")).status_code == 400, wrong


async def test_performance_comes_out_of_what_is_kept_and_is_asked_anew_when_a_day_was_filled_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both views are played: which one answers is told by `mean`."""
    bare = server.settings()
    maker = connect(bare)
    maker.command(VIEW)
    maker.command(HITS)
    maker.command(
        VIEW.replace("condition_performance", "condition_performance_stored").replace("{cost:Float64}", "77.")
    )
    maker.command(
        "CREATE TABLE transitions (date Date, account String, condition String, code String, entry UInt32, kind String,"
        " exchange String, received_at DateTime64(6, 'UTC'), inserted_at DateTime64(3, 'UTC')) "
        "ENGINE = MergeTree ORDER BY date"
    )
    for table in ("quotes", "bars"):
        maker.command(
            f"CREATE TABLE {table} (date Date, received_at DateTime64(6, 'UTC'), inserted_at DateTime64(3, 'UTC')) "
            "ENGINE = MergeTree ORDER BY date"
        )
    maker.command(
        "CREATE TABLE day_returns (date Date, account String, condition String, codes Array(String), "
        "entries Array(UInt32), reference_ats Array(Nullable(DateTime64(6, 'UTC'))), filled_at DateTime64(6, 'UTC')) "
        "ENGINE = MergeTree ORDER BY date"
    )

    def came(day: date, at: str, table: str = "transitions", heard: str = "2026-03-04 01:00:00.25") -> None:
        maker.command(f"INSERT INTO {table} (date, received_at, inserted_at) VALUES ('{day}', '{heard}', '{at}')")

    def kept(day: date, at: str) -> None:
        maker.command(f"INSERT INTO day_returns (date, filled_at) VALUES ('{day}', '{at}')")

    asked: list[str] = []
    ask = History._ask

    async def noted(self: History, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        if "AS filled_at" in query or ("(from_date" in query and "AS past_close" not in query):
            asked.append("kept" if "_stored(" in query else "live" if "condition_performance(" in query else "days")
        return await ask(self, query, parameters)

    monkeypatch.setattr(History, "_ask", noted)
    two_days = f"/api/performance?from={PAST}&to={TODAY.date()}&cost=1"
    noon, later = "2026-11-24 03:00:00", "2026-11-24 03:10:00"
    async with asking(bare) as client:

        async def told(path: str = two_days) -> set[tuple[float, str | None]]:
            asked.clear()
            return {(row["mean"], row["as_of"]) for row in (await client.get(path)).json()}

        came(PAST, noon)
        came(TODAY.date(), noon)
        came(TODAY.date(), noon, "quotes", heard="2026-03-04 01:00:02.5")
        came(TODAY.date(), "2026-11-24 03:11:00", "quotes", heard="2026-03-04 01:11:00")  # after the fill
        kept(PAST, noon)
        assert await told() == {(1.0, None)}, "one of the days was never filled"
        kept(TODAY.date(), later)
        assert await told() == {(77.0, "2026-03-04T01:00:02.500000Z")}, "how far the newest day goes, by the market"
        assert asked == ["days", "kept"]
        assert len(await told()) == 1
        assert asked == ["days"], "the answer was kept"
        assert len(await told(two_days.replace("cost=1", "cost=2"))) == 1
        assert asked == ["days", "kept"]
        kept(PAST, later)
        assert await told() == {(77.0, "2026-03-04T01:00:02.500000Z")}, "an earlier day filled again is not newer"
        assert asked == ["days", "kept"]
        both = await asyncio.gather(*(client.get(two_days.replace("cost=1", "cost=3")) for _ in range(3)))
        assert asked.count("kept") == 2, "who asks at once asks once"
        assert len({answer.text for answer in both}) == 1
        came(TODAY.date(), "2026-11-24 03:16:00")
        assert await told() == {(1.0, None)}, "nobody fills it any more"
    maker.close()


# --- no answer --------------------------------------------------------------------------------------------------------

QUESTIONS = (
    f"/api/transitions?date={PAST}",
    "/api/events",
    "/api/stocks/000001/history",
    f"/api/stocks/000001/bars?date={PAST}",
    f"/api/performance?from={PAST}&to={PAST}",
)


@pytest.mark.parametrize("path", QUESTIONS)
async def test_without_clickhouse_it_says_which_setting_is_missing(path: str) -> None:
    async with asking(None) as client:
        answer = await client.get(path)
        assert answer.status_code == 503
        assert "clickhouse.dsn" in answer.json()["error"]


@pytest.mark.parametrize("path", QUESTIONS)
async def test_a_clickhouse_that_is_away_is_said_without_its_password(path: str) -> None:
    async with asking(ClickHouseSettings(dsn="clickhouse://user:hush@127.0.0.1:1/market")) as client:
        answer = await client.get(path)
        assert answer.status_code == 503
        assert "can't be reached" in answer.json()["error"]
        assert "hush" not in answer.text


async def test_a_database_without_tables_names_the_command(server: Server) -> None:
    bare = server.settings()
    connect(bare).close()
    async with asking(bare) as client:
        answer = await client.get(f"/api/transitions?date={PAST}")
        assert (answer.status_code, "hitstream migrate" in answer.json()["error"]) == (503, True)


async def test_a_question_that_takes_too_long_is_given_up(
    settings: ClickHouseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(settings) as client:
        assert (await client.get(f"/api/transitions?date={PAST}")).status_code == 200
        monkeypatch.setattr(module, "_TRANSITIONS", "SELECT sleepEachRow(1) FROM numbers(3) WHERE {limit:UInt32} > 0")
        monkeypatch.setattr(module, "QUERY_SECONDS", 0.2)
        answer = await client.get(f"/api/transitions?date={PAST}")
        assert (answer.status_code, "in time" in answer.json()["error"]) == (503, True)


async def test_questions_wait_for_their_turn_only_so_long(
    settings: ClickHouseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    history = History(settings)
    for _ in range(module.AT_ONCE):
        await history._turns.acquire()
    with pytest.raises(module.HistoryAway, match="busy"):
        await history.visits("000001", date(2026, 3, 1), date(2026, 3, 2))
    history._turns.release()
    assert await history.visits("000001", date(2026, 3, 1), date(2026, 3, 2)) == ()
    await history.close()


def test_todays_lines_and_past_ones_are_in_one_order() -> None:
    one = transition("000001", at=datetime(2026, 3, 4, 1, 2, 3, 4, tzinfo=UTC))
    place = place_of(one)
    assert isinstance(one, Transition)
    assert (place.at, place.step, place.id) == (one.received_at, 2, one.id)
