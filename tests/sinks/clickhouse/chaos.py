"""Writer, ClickHouse and broker killed at random while records flow; then every table is compared with its topic.

Compared is record by record, by identity and by content, with what this module itself makes of the topics: none is
missing, none stands there twice, none is different. A writer is killed while it starts, or once it has stored a random
number of rows more; a server in the middle of a writer's life, and it comes back a moment later with what it had.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.writer import TOPICS
from sinks.settings import ClickHouseSettings
from streams.events import (
    KST,
    Bar,
    ConditionEvent,
    Quote,
    Record,
    SearchResult,
    SearchRow,
    Transition,
    encode,
    event_id,
    identity,
    transition_id,
)
from streams.topics import BARS, CONDITION_EVENTS, QUOTES, TRANSITIONS, Topic

NINE: Final = datetime(2026, 11, 23, 9, tzinfo=KST)
CONDITIONS: Final = ("신고가 돌파", "대왕개미단타", "급등")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The role, but that a dead member is missed as soon as Kafka allows it.
PROGRAM: Final = """
import asyncio, sys
from datetime import UTC, datetime
import sinks.consumer
from sinks.clickhouse.writer import run
from sinks.settings import ClickHouseSettings

sinks.consumer._SESSION_SECONDS = 6.0
settings = ClickHouseSettings.model_validate_json(sys.argv[1])
now = lambda: datetime.now(UTC)
asyncio.run(run(settings=settings, bootstrap_servers=sys.argv[2], now=now, ready=lambda why: None))
"""


class Plan(msgspec.Struct, frozen=True):
    """How many records flow, and how often each is killed meanwhile."""

    seed: int
    records: int
    writer: int
    clickhouse: int
    broker: int
    batch_rows: int = 500


# --- what flows -------------------------------------------------------------------------------------------------------


def record(number: int) -> tuple[Topic, Record]:
    """The n-th record: of 20, nine are quotes, five hits, four transitions, one a bar and one a search."""
    at = NINE + timedelta(days=number // 60_000, seconds=number // 40)
    heard = at.astimezone(UTC) + timedelta(microseconds=number)
    code, condition = f"{number % 900:06d}", CONDITIONS[number % 3]
    common: Any = {"account": "main", "condition": condition, "session": "s1", "received_at": heard}
    match number % 20:
        case 0 | 2 | 4 | 6 | 8 | 10 | 12 | 14 | 16:
            price = 1000 + number
            return QUOTES, Quote(
                code=code, at=at, received_at=heard, price=price, high=price + 5, low=price - 5,
                volume=number, trades=number % 7, session="s1",
            )  # fmt: skip
        case 1 | 5 | 9 | 13 | 17:
            return CONDITION_EVENTS, ConditionEvent(
                id=event_id("main", condition, code, "hit", at, number), seq="1", code=code, action="hit", at=at,
                ordinal=number, frame=number, entry=1, **common,
            )  # fmt: skip
        case 3 | 7 | 11 | 15:
            day, entry = at.date(), number
            return TRANSITIONS, Transition(
                id=transition_id("main", condition, code, day, entry, "entered"), code=code, kind="entered",
                origin="realtime", date=day, entry=entry, at=at, since=at, event_id=identity(number), **common,
            )  # fmt: skip
        case 18:
            minute = at.replace(second=0) + timedelta(minutes=number)
            return BARS, Bar(
                code=code, interval="1m", at=minute, open=1, high=number, low=0, close=2, volume=number,
                received_at=heard,
            )  # fmt: skip
    rows = tuple(SearchRow(code=f"{n:06d}", price=number + n) for n in range(number % 5))
    return CONDITION_EVENTS, SearchResult(id=identity("search", number), seq="1", rows=rows, at=at, **common)


async def publish(bootstrap: str, numbers: range, done: Callable[[int], None]) -> None:
    """Send records until each of them is acknowledged; what an outage has failed is sent again."""
    left = list(numbers)
    while left:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, request_timeout_ms=5_000)
        try:
            async with asyncio.timeout(60):
                await producer.start()
                while left:
                    some = left[:500]
                    sent = []
                    for number in some:
                        topic, made = record(number)
                        key = getattr(made, "code", getattr(made, "condition", "k")).encode()
                        sent.append(await producer.send(topic.name, encode(made), key=key))
                    await asyncio.gather(*sent)
                    left = left[500:]
                    done(len(numbers) - len(left))
        except (KafkaError, TimeoutError, OSError):
            await asyncio.sleep(0.2)
        finally:
            try:
                async with asyncio.timeout(5):
                    await producer.stop()
            except (KafkaError, TimeoutError):
                pass


# --- what should be there ---------------------------------------------------------------------------------------------


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def told(found: Record) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows of a record as the queries below show them; the first values are its identity."""
    match found:
        case ConditionEvent():
            yield (
                "condition_events",
                (found.id, found.condition, found.code, micros(found.at), micros(found.received_at), found.frame),
            )
        case SearchResult():
            yield "searches", (found.id, found.condition, micros(found.at), len(found.rows))
            for row in found.rows:
                yield "search_results", (found.id, row.code, row.price)
        case Transition():
            yield (
                "transitions",
                (found.id, found.condition, found.code, found.date, found.entry, micros(found.received_at)),
            )
        case Quote():
            yield (
                "quotes",
                (found.code, micros(found.received_at), found.session, micros(found.at), found.price, found.high,
                 found.low, found.volume, found.trades),
            )  # fmt: skip
        case Bar():
            yield "bars", (found.code, found.interval, micros(found.at), found.high, found.volume)


QUERIES: Final = {
    "condition_events": "id, condition, code, toUnixTimestamp64Micro(at), toUnixTimestamp64Micro(received_at), frame",
    "searches": "id, condition, toUnixTimestamp64Micro(at), stocks",
    "search_results": "search_id, code, price",
    "transitions": "id, condition, code, date, entry, toUnixTimestamp64Micro(received_at)",
    "quotes": "code, toUnixTimestamp64Micro(received_at), session, toUnixTimestamp64Micro(at), price, high, low,"
    " volume, trades",
    "bars": "code, interval, toUnixTimestamp64Micro(at), high, volume",
}


async def logged(bootstrap: str) -> dict[str, Counter[tuple[Any, ...]]]:
    """What the topics say: the rows of each table, each record once however often it was sent."""
    decoders = {topic.name: msgspec.json.Decoder(_union(topic)) for topic in TOPICS}
    rows: dict[str, set[tuple[Any, ...]]] = {table: set() for table in QUERIES}
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for topic in TOPICS for n in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for one in records:
                    for table, row in told(decoders[partition.topic].decode(one.value)):
                        rows[table].add(row)
    finally:
        await consumer.stop()
    return {table: Counter(found) for table, found in rows.items()}


def _union(topic: Topic) -> Any:
    kinds: Any = topic.records[0]
    for kind in topic.records[1:]:
        kinds = kinds | kind
    return kinds


async def settled(bootstrap: str, group: str) -> bool:
    """Whether the group has committed everything."""
    partitions = [TopicPartition(topic.name, n) for topic in TOPICS for n in range(topic.partitions)]
    admin, consumer = AIOKafkaAdminClient(bootstrap_servers=bootstrap), AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    try:
        ends = await consumer.end_offsets(partitions)
        committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
    finally:
        await admin.close()
        await consumer.stop()
    return all(end == 0 or committed[partition].offset == end for partition, end in ends.items())


# --- the run ----------------------------------------------------------------------------------------------------------


class Figures(msgspec.Struct):
    """What a run was like."""

    records: int = 0
    rows: int = 0
    writer_kills: int = 0
    kills_at_work: int = 0
    clickhouse_kills: int = 0
    broker_kills: int = 0
    stored_twice: int = 0
    seconds: float = 0.0


@contextmanager
def writer(settings: ClickHouseSettings, bootstrap: str) -> Iterator[subprocess.Popen[bytes]]:
    """The role as a process of its own, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, settings.model_dump_json(), bootstrap],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stored(client: Client) -> int:
    """Rows in all tables, copies included; merges may make it less. 0 while ClickHouse is away."""
    try:
        rows = client.command(
            "SELECT sum(rows) FROM system.parts WHERE database = currentDatabase() AND active"
            " AND table IN {ours:Array(String)}",
            parameters={"ours": list(QUERIES)},
        )
        return int(rows or 0)
    except (ClickHouseError, OSError):
        return 0


async def chaos(plan: Plan, broker: Any, server: Any, say: Callable[[str], None]) -> Figures:
    """Do as planned, and fail where a table is not what its topic says."""
    luck = random.Random(plan.seed)
    settings: ClickHouseSettings = server.settings(batch_rows=plan.batch_rows)
    await asyncio.to_thread(migrate, settings)
    client = await asyncio.to_thread(connect, settings)
    figures, begun = Figures(records=plan.records), time.monotonic()
    blows = ["clickhouse"] * plan.clickhouse + ["broker"] * plan.broker
    lives = [*blows, *[""] * (plan.writer - len(blows))]
    luck.shuffle(lives)
    published = 0

    def note(count: int) -> None:
        nonlocal published
        published = count

    async with asyncio.TaskGroup() as tasks:
        flow = tasks.create_task(publish(broker.address, range(plan.records), note))
        for number, blow in enumerate(lives, 1):
            early = not blow and luck.random() < 0.4
            with writer(settings, broker.address) as process:
                if early:
                    await asyncio.sleep(luck.uniform(0.0, 3.0))
                else:
                    figures.kills_at_work += await _at_work(client, luck, plan, blow, broker, server, figures)
                process.kill()
            figures.writer_kills += 1
            say(f"{number} of {len(lives)}: {blow or 'writer'}; {published} published, {stored(client)} rows stored")
        await flow
        with writer(settings, broker.address):
            async with asyncio.timeout(300):
                while not await settled(broker.address, settings.group):
                    await asyncio.sleep(0.3)
    expected = await logged(broker.address)
    for table, columns in QUERIES.items():
        found = Counter(map(tuple, client.query(f"SELECT {columns} FROM {table} FINAL").result_rows))
        assert found == expected[table], _difference(table, found, expected[table])
        figures.rows += found.total()
    figures.stored_twice = stored(client) - figures.rows
    figures.seconds = round(time.monotonic() - begun)
    client.close()
    return figures


async def _at_work(
    client: Client, luck: random.Random, plan: Plan, blow: str, broker: Any, server: Any, figures: Figures
) -> bool:
    """Wait until the writer has stored some more rows, and let the blow fall meanwhile; whether it did store some."""
    before = await asyncio.to_thread(stored, client)
    goal = luck.randrange(1, 2 * plan.records // plan.writer)
    middle = luck.randrange(goal) if blow else goal
    deadline = time.monotonic() + 40  # what is left may be less than the goal
    more = 0
    while more < goal and time.monotonic() < deadline:
        more = await asyncio.to_thread(stored, client) - before
        if blow and more >= middle:
            victim = server if blow == "clickhouse" else broker
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(luck.uniform(0.0, 2.0))
            await asyncio.to_thread(victim.start)
            if blow == "clickhouse":
                figures.clickhouse_kills += 1
            else:
                figures.broker_kills += 1
            blow = ""
        await asyncio.sleep(0.02)
    return more > 0


def _difference(table: str, found: Counter[Any], expected: Counter[Any]) -> str:
    missing, extra = expected - found, found - expected
    return f"{table}: {missing.total()} rows missing, {extra.total()} too many: {list(missing)[:3]} {list(extra)[:3]}"
