"""The writer between a real broker and the embedded ClickHouse: nothing missing, nothing twice, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from clickhouse_connect.driver.client import Client

from sinks import consumer as loop
from sinks.clickhouse import returns, writer
from sinks.clickhouse.connection import ClickHouseUnavailable, connect
from sinks.clickhouse.dsn import parse_dsn
from sinks.clickhouse.migrate import migrate
from sinks.settings import ClickHouseSettings
from streams.events import (
    KST,
    Bar,
    ConditionEvent,
    ConditionSnapshot,
    DeadLetter,
    Due,
    Gap,
    Quote,
    Reason,
    Recommend,
    Recommendation,
    Record,
    Redrive,
    SearchReason,
    SearchResult,
    SearchRow,
    Status,
    Stock,
    Transition,
    Withdraw,
    encode,
    event_id,
    transition_id,
)
from streams.topics import (
    BARS,
    CONDITION_EVENTS,
    DEAD_LETTERS,
    QUOTES,
    RECOMMENDATIONS,
    STATUS,
    STOCKS,
    TRANSITIONS,
    Topic,
)

from .front import Front

pytestmark = pytest.mark.kafka

TOPICS = writer.TOPICS
DAY = date(2026, 11, 23)
NEXT_DAY = date(2026, 11, 24)
NINE = datetime(2026, 11, 23, 9, tzinfo=KST)
NOW = datetime(2026, 11, 23, 1, tzinfo=UTC)


def hit(number: int, *, day: date = DAY, session: str = "s1") -> ConditionEvent:
    """The n-th hit of a day, one per second."""
    at = datetime(day.year, day.month, day.day, 9, tzinfo=KST) + timedelta(seconds=number)
    code = f"{number % 300:06d}"
    return ConditionEvent(
        id=event_id("main", "신고가 돌파", code, "hit", at, 0),
        account="main",
        condition="신고가 돌파",
        seq="7",
        code=code,
        action="hit",
        at=at,
        received_at=at + timedelta(microseconds=123_456),
        session=session,
        frame=number + 1,
        entry=0,
    )


def transition(code: str, *, day: date = DAY, origin: str = "realtime") -> Transition:
    at = datetime(day.year, day.month, day.day, 9, tzinfo=KST)
    return Transition(
        id=transition_id("main", "신고가 돌파", code, day, 1, "entered"),
        account="main",
        condition="신고가 돌파",
        code=code,
        kind="entered",
        origin=origin,  # type: ignore[arg-type]
        date=day,
        entry=1,
        at=at,
        since=at,
        event_id="e",
        session="s1",
        received_at=at,
    )


def recommendation(code: str, revision: int = 1, *, day: date = DAY, **changes: Any) -> Recommendation:
    at = datetime(day.year, day.month, day.day, 9, 0, revision, 500_000, tzinfo=KST)
    made = Recommendation(
        id=f"{day}-{code}-{revision}",
        recommendation_id=f"{day}-{code}",
        revision=revision,
        account="main",
        code=code,
        date=day,
        state="open",
        cause="threshold",
        cause_id="t",
        rule="sum",
        score=1.0,
        threshold=1.0,
        reasons=(Reason(kind="condition", condition="신고가 돌파", since=at, score=1.0),),
        opened_at=at,
        at=at,
        received_at=at,
    )
    return msgspec.structs.replace(made, **changes)


def quote(number: int) -> Quote:
    """The n-th quote of a stock, one per second."""
    at = NINE + timedelta(seconds=number)
    price = 71_000 + number
    return Quote(
        code="005930",
        at=at,
        received_at=at.astimezone(UTC) + timedelta(microseconds=250_001),
        price=price,
        high=price,
        low=price,
        volume=10,
        trades=3,
        day_volume=10_000_000_000,
        session="s1",
    )


def bar(number: int, **changes: Any) -> Bar:
    """The n-th minute of a stock."""
    price = 71_000 + number
    made = Bar(
        code="005930",
        interval="1m",
        at=NINE + timedelta(minutes=number),
        open=price,
        high=price,
        low=price,
        close=price,
        volume=10,
        received_at=NOW,
        sample=True,
    )
    return msgspec.structs.replace(made, **changes)


def status(number: int, **changes: Any) -> Status:
    """The n-th time that a subscription says how it is: every five seconds the same."""
    made = Status(
        component="subscription/main/key/신고가 돌파",
        kind="subscription",
        state="live",
        since=NINE,
        at=NINE + timedelta(seconds=5 * number),
        account="main",
        condition="신고가 돌파",
        members=number,
        figures={"hits": float(number)},
    )
    return msgspec.structs.replace(made, **changes)


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds, asking it in a thread."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(lambda: bool(condition())):
            await asyncio.sleep(0.05)


class Log:
    """The topics of one test: those of the product, or on a shared broker ones of its own that stand for them."""

    def __init__(self, bootstrap: str, suffix: str = "") -> None:
        self.bootstrap = bootstrap
        self.topics = tuple(msgspec.structs.replace(topic, name=topic.name + suffix) for topic in TOPICS)

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic.name, topic.partitions, 1) for topic in self.topics])
        finally:
            await admin.close()

    async def publish(self, *records: tuple[Topic, Record | bytes]) -> None:
        names = {real.name: own.name for real, own in zip(TOPICS, self.topics, strict=True)}
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            for topic, record in records:
                key = getattr(record, "code", None) or getattr(record, "condition", None) or "k"
                value = record if isinstance(record, bytes) else encode(record)
                await producer.send(names[topic.name], value, key=str(key).encode())
            await producer.flush()
        finally:
            await producer.stop()

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        """The dead letters of these topics, as soon as there are so many."""
        names = {topic.name for topic in self.topics}
        consumer = AIOKafkaConsumer(DEAD_LETTERS.name, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found: list[DeadLetter] = []
        try:
            async with asyncio.timeout(30):
                while len(found) < count:
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        letters = (msgspec.json.decode(record.value, type=DeadLetter | Redrive) for record in records)
                        found += [one for one in letters if isinstance(one, DeadLetter) and one.topic in names]
        finally:
            await consumer.stop()
        return found


@pytest.fixture
async def log(kafka: str, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Topics of this test's own on the shared broker, from which the writer reads."""
    log = Log(kafka, f"-{uuid.uuid4().hex[:8]}")
    await log.create()
    monkeypatch.setattr(writer, "TOPICS", log.topics)
    return log


def hits(numbers: Iterable[int], **options: Any) -> list[tuple[Topic, Record | bytes]]:
    return [(CONDITION_EVENTS, hit(number, **options)) for number in numbers]


@contextlib.asynccontextmanager
async def writing(settings: ClickHouseSettings, bootstrap: str) -> AsyncIterator[list[str | None]]:
    """A running writer; gives what it says of its readiness."""
    said: list[str | None] = []
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            writer.run(settings=settings, bootstrap_servers=bootstrap, now=lambda: NOW, ready=said.append)
        )
        try:
            yield said
        finally:
            task.cancel()


@pytest.fixture
def tables(settings: ClickHouseSettings) -> Any:
    """The test's database, migrated, to be asked."""
    migrate(settings)
    client = connect(settings)
    yield client
    client.close()


def ids(client: Client, table: str = "condition_events") -> list[str]:
    return sorted(row[0] for row in client.query(f"SELECT id FROM {table} FINAL").result_rows)


async def test_every_record_is_stored_with_its_values(settings: ClickHouseSettings, tables: Client, log: Log) -> None:
    search = SearchResult(
        id="search",
        account="main",
        condition="대왕개미단타",
        seq="5",
        rows=(SearchRow(code="005930", name="삼성전자", price=71_000, change_rate=-0.7), SearchRow(code="0004V0")),
        at=NINE,
        received_at=NOW,
        session="s1",
    )
    await log.publish(
        (CONDITION_EVENTS, hit(1)),
        (
            CONDITION_EVENTS,
            ConditionSnapshot(
                id="snap",
                account="main",
                condition="신고가 돌파",
                seq="7",
                codes=("005930", "0004V0"),
                at=NINE,
                received_at=NOW,
                session="s1",
                frame=3,
            ),
        ),
        (CONDITION_EVENTS, search),
        (
            CONDITION_EVENTS,
            Gap(
                id="gap",
                account="main",
                condition="신고가 돌파",
                from_=NINE,
                to=NINE + timedelta(minutes=1),
                cause="R10001",
                at=NINE,
                received_at=NOW,
                session="s2",
            ),
        ),
        (CONDITION_EVENTS, Due(id="due", kind="day-end", at=NINE, account="main")),
        (TRANSITIONS, transition("005930")),
        (
            TRANSITIONS,
            SearchReason(
                id="sr",
                account="main",
                condition="대왕개미단타",
                code="005930",
                date=DAY,
                at=NINE,
                received_at=NOW,
                search_id="search",
            ),
        ),
        (TRANSITIONS, Recommend(id="c1", code="005930", by="kim", at=NINE, expires_at=NINE + timedelta(hours=1))),
        (TRANSITIONS, Withdraw(id="c2", code="005930", by="lee", note="memo", at=NINE)),
        (RECOMMENDATIONS, recommendation("005930")),
        (STOCKS, Stock(code="005930", name="삼성전자", market="KOSPI", previous_close=71_500, received_at=NOW)),
        (QUOTES, quote(1)),
        (BARS, bar(1)),
        (STATUS, status(1)),
    )
    counts = {
        "condition_events": 1,
        "condition_snapshots": 1,
        "searches": 1,
        "search_results": 2,
        "gaps": 1,
        "transitions": 1,
        "search_reasons": 1,
        "commands": 2,
        "recommendations": 1,
        "stocks": 1,
        "quotes": 1,
        "bars": 1,
        "statuses": 1,
    }
    async with writing(settings, log.bootstrap):
        await until(lambda: {table: tables.command(f"SELECT count() FROM {table}") for table in counts} == counts)
    event = tables.query(
        "SELECT date, condition, code, at, received_at, _topic FROM condition_events FINAL"
    ).result_rows[0]
    assert event[:3] == (DAY, "신고가 돌파", "000001")
    assert event[3] == hit(1).at
    assert event[4].replace(tzinfo=UTC) == hit(1).received_at
    assert event[5] == log.topics[0].name
    assert tables.query("SELECT codes, members FROM condition_snapshots").result_rows == [(["005930", "0004V0"], 2)]
    assert tables.query("SELECT code, price, change_rate, volume FROM search_results ORDER BY code").result_rows == [
        ("0004V0", None, None, None),
        ("005930", 71_000, -0.7, None),
    ]
    assert tables.query("SELECT action, `by`, note, expires_at FROM commands ORDER BY id").result_rows[1] == (
        "withdraw",
        "lee",
        "memo",
        None,
    )
    reasons = tables.query(
        "SELECT r.kind, r.condition, r.since, r.visits, r.score FROM recommendations FINAL ARRAY JOIN reasons AS r"
    ).result_rows
    assert reasons == [("condition", "신고가 돌파", recommendation("005930").reasons[0].since, 1, 1.0)]
    assert tables.query("SELECT at, price, trades, change_rate, day_volume FROM quotes").result_rows == [
        (quote(1).at, 71_001, 3, None, 10_000_000_000)
    ]
    assert tables.query("SELECT at, close, value, sample FROM bars").result_rows == [(bar(1).at, 71_001, None, True)]
    assert tables.query("SELECT state, members, last_ping, figures FROM statuses").result_rows == [
        ("live", 1, None, {"hits": 1.0})
    ]


async def test_what_is_read_anew_or_sent_twice_is_one_row(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    """Two producers say the same hit over two sessions; a second group reads the topics from the beginning."""
    await log.publish(*hits(range(50)), *hits(range(50), session="s2"), (TRANSITIONS, transition("005930")))
    for group in ("first", "second"):
        again = settings.model_copy(update={"group": f"{settings.group}-{group}"})
        before = int(tables.command("SELECT count() FROM transitions"))
        async with writing(again, log.bootstrap):
            await until(lambda before=before: tables.command("SELECT count() FROM transitions") == before + 1)
            await until(lambda: len(ids(tables)) == 50)
    assert ids(tables) == sorted(hit(number).id for number in range(50))
    assert ids(tables, "transitions") == [transition("005930").id]


async def test_a_stock_is_what_was_received_last_also_when_read_anew(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    old = Stock(code="005930", name="old", market="KOSPI", received_at=NOW)
    new = Stock(code="005930", name="new", market="KOSPI", received_at=NOW + timedelta(days=1))
    await log.publish((STOCKS, new), (STOCKS, old), (STOCKS, old))
    async with writing(settings, log.bootstrap):
        await until(lambda: tables.command("SELECT uniqExact(_offset) FROM stocks") >= 1)
        await until(lambda: tables.query("SELECT name FROM stocks FINAL").result_rows == [("new",)])


async def test_a_bar_that_is_fetched_again_replaces_the_one_before(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    """Also where the topic is read anew, and the older one is inserted last."""
    final = bar(1, close=72_000, received_at=NOW + timedelta(hours=1))
    await log.publish((BARS, final), (BARS, bar(1)), (BARS, bar(2)))
    async with writing(settings, log.bootstrap):
        await until(lambda: int(tables.command("SELECT count() FROM bars FINAL")) == 2)
    assert tables.query("SELECT close FROM bars FINAL ORDER BY at").result_rows == [(72_000,), (71_002,)]


async def test_what_a_component_says_again_is_one_row_until_something_is_new(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    """In whatever order it is inserted: a row says from when to when it was so."""
    later = NINE + timedelta(hours=1)
    night = datetime(2026, 11, 24, 0, 0, 1, tzinfo=KST)
    await log.publish(
        *((STATUS, status(number)) for number in (3, 1, 2)),
        (STATUS, status(0, state="unanswered", cause="No reply for 10 s.", since=later, at=later)),
        (STATUS, status(4, state="live", since=later + timedelta(seconds=7), at=later + timedelta(seconds=9))),
        (STATUS, status(5, state="live", since=later + timedelta(seconds=7), at=night)),
    )
    query = "SELECT date, state, since, at, members FROM statuses FINAL ORDER BY since, at"
    async with writing(settings, log.bootstrap):
        await until(lambda: len(tables.query(query).result_rows) == 4)
    live = later + timedelta(seconds=7)
    found = [(day, state, since.replace(tzinfo=UTC), at.replace(tzinfo=UTC), members)
             for day, state, since, at, members in tables.query(query).result_rows]  # fmt: skip
    assert found == [
        (DAY, "live", NINE, status(3).at, 3),
        (DAY, "unanswered", later, later, 0),
        (DAY, "live", live, later + timedelta(seconds=9), 4),
        (NEXT_DAY, "live", live, night, 5),
    ]


async def test_clickhouse_away_is_said_waited_out_and_costs_nothing(
    own_server: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LONGEST_DELAY", 0.3)
    settings = own_server.settings(batch_rows=100)
    async with writing(settings, log.bootstrap) as said:
        await until(lambda: said and said[-1] is None)
        await log.publish(*hits(range(250)))
        await asyncio.to_thread(own_server.kill)
        await log.publish(*hits(range(250, 500)))
        await until(lambda: said[-1] is not None)
        assert f"127.0.0.1:{own_server.port}" in str(said[-1])
        assert "can't take rows now" in str(said[-1])
        await asyncio.to_thread(own_server.start)
        client = await asyncio.to_thread(connect, settings)
        await until(lambda: len(ids(client)) >= 500)
        await until(lambda: said[-1] is None)
    assert ids(client) == sorted(hit(number).id for number in range(500))
    client.close()


async def test_the_broker_s_data_deleted_between_two_runs(
    settings: ClickHouseSettings, tables: Client, broker: Any
) -> None:
    """Rows that ClickHouse had stay, and records at offsets that were taken before are stored, not taken for old."""
    log = Log(broker.address)
    await log.publish(*hits(range(60)))
    async with writing(settings, broker.address):
        await until(lambda: len(ids(tables)) == 60)
    await asyncio.to_thread(broker.wipe)
    await asyncio.to_thread(broker.start)
    await log.publish(*hits(range(40, 100)))
    async with writing(settings, broker.address):
        await until(lambda: len(ids(tables)) == 100)
    assert ids(tables) == sorted(hit(number).id for number in range(100))


async def test_rows_that_can_never_be_stored_go_to_dead_letters_and_the_others_are_stored(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    """Refused by the reader, by us, and by the client that packs the block: each alone among others."""
    early = msgspec.structs.replace(hit(300), id="early", at=datetime(1960, 1, 1, tzinfo=KST))
    huge = msgspec.structs.replace(hit(301), id="huge", frame=2**70)
    await log.publish(
        *hits(range(60)),
        (CONDITION_EVENTS, b"no record"),
        (CONDITION_EVENTS, early),
        (CONDITION_EVENTS, huge),
        *hits(range(60, 120)),
    )
    async with writing(settings, log.bootstrap) as said:
        await until(lambda: len(ids(tables)) == 120)
        letters = await log.dead_letters(3)
        await until(lambda: said[-1] is None)
    assert ids(tables) == sorted(hit(number).id for number in range(120))
    values = {letter.value for letter in letters}
    assert values == {b"no record", encode(early), encode(huge)}
    assert len(letters) == 3
    assert all(letter.component == "clickhouse-sink" and letter.reason for letter in letters)


async def test_a_record_that_was_refused_is_stored_once_its_fault_is_mended(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    """Handed to ClickHouse again with its first place; one that is still refused comes back with the reason."""
    late = msgspec.structs.replace(hit(1), frame=300)
    frame = tables.query("SELECT type FROM system.columns WHERE table = 'condition_events' AND name = 'frame'")
    tables.command("ALTER TABLE condition_events MODIFY COLUMN frame UInt8")
    await log.publish((CONDITION_EVENTS, hit(0)), (CONDITION_EVENTS, late))
    async with writing(settings, log.bootstrap):
        (letter,) = await log.dead_letters(1)
    place = (letter.topic, letter.partition, letter.offset)
    again = loop.Received(late, ConsumerRecord(*place, 0, 0, letter.key, letter.value, None, 0, 0, ()))
    (refused,) = await writer.insert_again(settings, [again])
    assert (refused.source, refused.reason) == (again.source, letter.reason)
    tables.command(f"ALTER TABLE condition_events MODIFY COLUMN frame {frame.result_rows[0][0]}")
    assert await writer.insert_again(settings, [again, again]) == []
    stored = tables.query("SELECT id, _topic, _partition, _offset FROM condition_events FINAL WHERE frame = 300")
    assert [tuple(row) for row in stored.result_rows] == [(late.id, *place)]


async def test_a_table_that_is_missing_holds_the_batch_back_and_condemns_no_record(
    settings: ClickHouseSettings, tables: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LONGEST_DELAY", 0.2)
    async with writing(settings, log.bootstrap) as said:
        await until(lambda: said and said[-1] is None)
        create = str(tables.command("SHOW CREATE TABLE condition_events")).replace("\\n", "\n").replace("\\'", "'")
        tables.command("DROP TABLE condition_events SYNC")
        await log.publish(*hits(range(20)), (TRANSITIONS, transition("005930")))
        await until(lambda: said[-1] is not None)
        tables.command(create)
        await until(lambda: len(ids(tables)) == 20 and len(ids(tables, "transitions")) == 1)


async def test_a_batch_that_spans_many_months_is_stored(settings: ClickHouseSettings, tables: Client, log: Log) -> None:
    """ClickHouse refuses an insert into more than 100 partitions with the code of `too many parts`."""
    days = [date(2010 + month // 12, month % 12 + 1, 5) for month in range(130)]
    await log.publish(*((CONDITION_EVENTS, hit(0, day=day)) for day in days))
    async with writing(settings, log.bootstrap):
        await until(lambda: len(ids(tables)) == 130)


async def test_rec_stocks_has_one_row_per_date_algorithm_and_stock(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    since = NINE
    named = Reason(kind="condition", condition="신고가 돌파", algorithm_id="A1", since=since, score=1.0)
    unnamed = Reason(kind="condition", condition="급등", since=since, score=1.0)
    found = Reason(kind="search", condition="대왕개미단타", algorithm_id="S1", since=since, score=1.0)
    manual = Reason(kind="manual", since=since, score=1.0, by="kim")
    reason = SearchReason(
        id="sr1",
        account="main",
        condition="대왕개미단타",
        code="000003",
        date=DAY,
        at=NINE,
        received_at=NOW,
        price=5_000,
        change_rate=2.5,
        search_id="s",
    )
    await log.publish(
        (STOCKS, Stock(code="000001", name="하나", market="KOSPI", received_at=NOW)),
        (STOCKS, Stock(code="000003", name="셋", market="KOSDAQ", received_at=NOW)),
        (RECOMMENDATIONS, recommendation("000001", 1, reasons=(named,))),
        (RECOMMENDATIONS, recommendation("000001", 2, cause="reason", reasons=(named, unnamed))),
        (RECOMMENDATIONS, recommendation("000001", 3, cause="score", state="closed", reasons=())),
        (RECOMMENDATIONS, recommendation("000002", 1, cause="command", reasons=(manual,))),
        (RECOMMENDATIONS, recommendation("000003", 1, reasons=(found,))),
        (TRANSITIONS, reason),
        (TRANSITIONS, msgspec.structs.replace(reason, id="sr0", at=NINE - timedelta(minutes=1), price=4_900)),
        (TRANSITIONS, msgspec.structs.replace(reason, id="sr2", code="000004", price=None, change_rate=None)),
        (RECOMMENDATIONS, recommendation("000001", 1, day=NEXT_DAY, reasons=(named,))),
    )
    expected = [
        ("하나", "000001", DAY, "A1", None, None, 1),
        ("하나", "000001", DAY, "급등", None, None, 1),
        ("", "000002", DAY, "manual", None, None, 1),
        ("셋", "000003", DAY, "S1", 5_000, 2.5, 1),
        ("", "000004", DAY, "S1", None, None, 1),
        ("하나", "000001", NEXT_DAY, "A1", None, None, 0),
    ]
    query = (
        "SELECT stock_name, stock_code, recommendation_date, algorithm_id, closing_price, change_rate, is_final "
        "FROM rec_stocks ORDER BY recommendation_date, stock_code, algorithm_id"
    )
    async with writing(settings, log.bootstrap):
        await until(lambda: int(tables.command("SELECT count() FROM rec_stocks")) == len(expected))
        await until(lambda: tables.query(query).result_rows == expected)
        ended = msgspec.structs.replace(transition("000009", day=NEXT_DAY, origin="day-end"), kind="exited")
        await log.publish((TRANSITIONS, ended))
        await until(lambda: tables.query(query).result_rows[-1][-1] == 1)


async def test_no_clickhouse_at_the_start_is_one_sentence(log: Log) -> None:
    settings = ClickHouseSettings.model_validate({"dsn": "clickhouse://127.0.0.1:1/x"})
    with pytest.raises(ExceptionGroup) as raised:
        async with writing(settings, log.bootstrap):
            await asyncio.Event().wait()
    assert raised.group_contains(ClickHouseUnavailable, match=r"127\.0\.0\.1:1/x can't be reached")


@pytest.fixture
def front(settings: ClickHouseSettings) -> Iterator[Front]:
    """A front before the shared ClickHouse, which may spoil inserts."""
    front = Front(parse_dsn(settings.dsn).port)
    yield front
    front.close()


def through(front: Front, settings: ClickHouseSettings, **changes: object) -> ClickHouseSettings:
    """The same database by way of the front."""
    database = parse_dsn(settings.dsn).database
    return settings.model_copy(update={"dsn": f"clickhouse://127.0.0.1:{front.port}/{database}", **changes})


OUTAGES = [(252, "TOO_MANY_PARTS"), (243, "NOT_ENOUGH_SPACE"), (242, "TABLE_IS_READ_ONLY"), (159, "TIMEOUT_EXCEEDED")]
"""What no engine on a test's machine can be brought to say; `test_apply` has the codes one by one."""


async def test_a_server_that_takes_nothing_is_waited_out_in_its_own_words(
    settings: ClickHouseSettings, tables: Client, log: Log, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One outage after another: the batch in hand is tried again, nothing more is fetched, nothing is dropped."""
    monkeypatch.setattr(loop, "_LONGEST_DELAY", 0.05)
    published = 0
    async with writing(through(front, settings), log.bootstrap) as said:
        await until(lambda: said and said[-1] is None)
        for code, name in OUTAGES:
            front.refuse(code, name)
            await log.publish(*hits(range(published, published + 10)))
            await until(lambda name=name: name in str(said[-1]))
            begun = len(front.inserts)
            await log.publish(*hits(range(published + 10, published + 20)))
            await until(lambda begun=begun: len(front.inserts) >= begun + 3)
            assert len({body for _, body in front.inserts[begun:]}) == 1, "what comes meanwhile waits in Kafka"
            published += 20
            front.open()
            await until(lambda published=published: len(ids(tables)) == published)
            await until(lambda: said[-1] is None)
    assert ids(tables) == sorted(hit(number).id for number in range(published))
    assert tables.command("SELECT count() FROM condition_events") == published, "nothing was stored in part"


async def test_a_server_that_hangs_or_whose_answer_is_lost_costs_nothing_and_shows_nothing_twice(
    settings: ClickHouseSettings, tables: Client, log: Log, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LONGEST_DELAY", 0.05)
    monkeypatch.setattr(writer, "REQUEST_SECONDS", 0.5)
    async with writing(through(front, settings), log.bootstrap) as said:
        await until(lambda: said and said[-1] is None)
        front.hold()
        await log.publish(*hits(range(20)))
        await until(lambda: said[-1] is not None and len(front.inserts) >= 2)
        front.open()
        await until(lambda: len(ids(tables)) == 20 and said[-1] is None)
        front.lose()
        await log.publish(*hits(range(20, 40)))
        await until(lambda: said[-1] is not None)
        await until(lambda: int(tables.command("SELECT count() FROM condition_events")) > 40)
        front.open()
        await until(lambda: said[-1] is None)
    assert ids(tables) == sorted(hit(number).id for number in range(40))


async def test_a_batch_that_the_server_has_no_memory_for_is_stored_by_halves(
    settings: ClickHouseSettings, tables: Client, log: Log, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by the engine itself, which is given room for some hundreds of rows. No row is condemned for it."""
    monkeypatch.setitem(writer._INSERT, "max_memory_usage", 6_000_000)
    await log.publish(*hits(range(6000)))
    async with writing(through(front, settings, batch_rows=6000, batch_seconds=2.0), log.bootstrap) as said:
        await until(lambda: len(ids(tables)) == 6000)
        await until(lambda: said[-1] is None)
    assert ids(tables) == sorted(hit(number).id for number in range(6000))
    sizes = [len(body) for _, body in front.inserts]
    assert min(sizes) < max(sizes) / 1.5, "it took several smaller ones"


async def test_a_takeover_in_the_middle_of_an_insert_shows_nothing_twice(
    settings: ClickHouseSettings, tables: Client, log: Log, front: Front
) -> None:
    """One writer's insert is on its way when another takes its partitions over and inserts the same."""
    tables.command("SYSTEM STOP MERGES condition_events")  # copies stay, for us to know that there were some
    async with writing(through(front, settings, batch_rows=40), log.bootstrap) as first:
        await until(lambda: first and first[-1] is None)
        front.hold()
        await log.publish(*hits(range(200)))
        await until(lambda: front.inserts)
        async with writing(settings.model_copy(update={"batch_rows": 40}), log.bootstrap) as second:
            await until(lambda: second and second[-1] is None)
            await until(lambda: len(ids(tables)) > 0)
            front.open()
            await until(lambda: len(ids(tables)) == 200)
            await until(lambda: int(tables.command("SELECT count() FROM condition_events")) > 200)
    assert ids(tables) == sorted(hit(number).id for number in range(200))


async def test_an_insert_says_what_acknowledged_and_deduplicated_mean(
    settings: ClickHouseSettings, tables: Client, log: Log, front: Front
) -> None:
    """No default of a server's, which differ between versions, decides either."""
    async with writing(through(front, settings), log.bootstrap):
        await log.publish(*hits(range(3)))
        await until(lambda: len(ids(tables)) == 3)
    for parameters, _ in front.inserts:
        assert {
            name: parameters.get(name) for name in ("async_insert", "insert_deduplicate", "deduplicate_insert")
        } == {
            "async_insert": "0",
            "insert_deduplicate": "0",
            "deduplicate_insert": "disable",
        }
        assert parameters["distributed_foreground_insert"] == "1"


async def test_a_row_that_the_server_refuses_goes_to_dead_letters_and_the_rest_of_its_batch_is_stored(
    settings: ClickHouseSettings, tables: Client, log: Log
) -> None:
    tables.command("ALTER TABLE condition_events ADD CONSTRAINT known CHECK code != '000007'")
    await log.publish(*hits(range(60)))
    async with writing(settings, log.bootstrap) as said:
        await until(lambda: len(ids(tables)) == 59)
        [letter] = await log.dead_letters(1)
        await until(lambda: said[-1] is None)
    assert letter.value == encode(hit(7))
    assert "VIOLATED_CONSTRAINT" in letter.reason
    assert hit(7).id not in ids(tables)


async def test_what_becomes_of_hits_is_missed_while_rows_go_on(
    settings: ClickHouseSettings, tables: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the prices that ClickHouse can't read any more is nothing that may be called fine."""
    monkeypatch.setattr(returns, "EVERY", 0.05)
    monkeypatch.setattr(returns, "_REST", 0.0)
    tables.command("RENAME TABLE day_returns TO elsewhere")
    async with writing(settings, log.bootstrap) as said:
        await log.publish(*hits(range(20)))
        await until(lambda: said and str(said[-1]).startswith("Rows are stored, but what became of hits can't be"))
        await until(lambda: len(ids(tables)) == 20)
        tables.command("RENAME TABLE elsewhere TO day_returns")
        await until(lambda: said[-1] is None)
