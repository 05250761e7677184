"""Topic → ClickHouse: one writer, Apache Kafka and the local engine on this machine.

Half of the records are transitions and half are quotes, the two kinds that come in numbers; the topics are full before
anybody reads. `storing.py` has the contestants. `HITSTREAM_TEST_ROWS` changes how many records there are,
`HITSTREAM_TEST_BATCHES="10000 20000 …"` measures the sink alone with batches of these sizes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import migrate
from sinks.settings import ClickHouseSettings
from streams.events import KST, Quote, Transition, encode, identity, transition_id
from streams.topics import QUOTES, TRANSITIONS

sys.path.insert(0, str(Path(__file__).parents[1] / "sinks" / "clickhouse"))
sys.path.insert(0, str(Path(__file__).parent))

from embedded import Server
from harness import Contestant, Figures, process, race
from storing import Task

ROWS = int(os.environ.get("HITSTREAM_TEST_ROWS", "400000"))
BATCHES = os.environ.get("HITSTREAM_TEST_BATCHES", "")
NINE = datetime(2026, 11, 23, 9, tzinfo=KST)


def transition(number: int) -> Transition:
    at = NINE + timedelta(seconds=number // 20)
    code, condition, entry = f"{number % 2000:06d}", f"조건 {number % 23}", 1 + number // 4000
    return Transition(
        id=transition_id("main", condition, code, at.date(), entry, "entered"),
        account="main",
        condition=condition,
        code=code,
        kind="exited" if number % 2 else "entered",
        origin="realtime",
        date=at.date(),
        entry=entry,
        at=at,
        since=at,
        dwell=float(number % 900) if number % 2 else None,
        event_id=identity(number),
        session="main-20261123-085900",
        received_at=at.astimezone(UTC) + timedelta(microseconds=number % 999_983),
    )


def quote(number: int) -> Quote:
    at = NINE + timedelta(seconds=number // 300)
    price = 10_000 + 10 * (number % 700)
    return Quote(
        code=f"{number % 150:06d}",
        at=at,
        received_at=at.astimezone(UTC) + timedelta(microseconds=number % 999_983),
        price=price,
        high=price + 10,
        low=price - 10,
        volume=number % 5_000,
        trades=number % 40,
        change_rate=round(number % 3_000 / 100, 2),
        day_volume=10 * number,
        session="main-20261123-085900",
    )


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "clickhouse")
    server.start()
    yield server
    server.kill()


async def fill(kafka: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=20, max_batch_size=131_072)
    await producer.start()
    try:
        for number in range(ROWS // 2):
            for topic, record in ((TRANSITIONS, transition(number)), (QUOTES, quote(number))):
                await producer.send(topic.name, encode(record), key=record.code.encode())
        await producer.flush()
    finally:
        await producer.stop()


async def store(way: str, kafka: str, server: Server, batch_rows: int) -> Figures:
    """Let one of them store all of it in a database of its own, which is dropped once its rows are counted."""
    database = f"bench_{uuid.uuid4().hex[:8]}"
    settings = ClickHouseSettings(dsn=f"clickhouse://127.0.0.1:{server.port}/{database}")
    await asyncio.to_thread(migrate, settings)
    task = Task(kafka=kafka, dsn=settings.dsn, group=database, batch_rows=batch_rows, records=2 * (ROWS // 2))
    figures = await process("storing.py", way, msgspec.json.encode(task).decode(), within=200)
    await asyncio.to_thread(check, settings)
    return figures


def check(settings: ClickHouseSettings) -> None:
    client: Client = connect(settings)
    try:
        for table in ("transitions", "quotes"):
            assert client.command(f"SELECT uniqExact(_partition, _offset) FROM {table}") == ROWS // 2
        client.command(f"DROP DATABASE {client.database} SYNC")
    finally:
        client.close()


async def bench_topic_to_clickhouse(fresh_kafka: str, clickhouse: Server) -> None:
    """Rows a second and the writer's CPU, of the limit, ours and the peer."""
    await fill(fresh_kafka)
    rows: int = ClickHouseSettings.model_fields["batch_rows"].default
    ways: dict[str, Any] = {"clickhouse-connect, columns prepared": "limit", "hitstream sink clickhouse": "ours"}
    ways["plain consumer, json, row inserts"] = "peer"
    await race(
        "topic-to-clickhouse",
        f"Topic → ClickHouse: {ROWS:,} records, batches of {rows:,}",
        [Contestant(name, way, partial(store, way, fresh_kafka, clickhouse, rows)) for name, way in ways.items()],
        ratios=["rows/s"],
        note="One process each; the local engine and Apache Kafka share the machine. ",
        warm_up=False,
    )


@pytest.mark.skipif(not BATCHES, reason="a curve, to choose the default from: set HITSTREAM_TEST_BATCHES")
async def bench_batch_sizes(fresh_kafka: str, clickhouse: Server) -> None:
    """The sink alone, by the size of its batches."""
    await fill(fresh_kafka)
    await race(
        "clickhouse-batches",
        f"Rows of a batch: {ROWS:,} records",
        [
            Contestant(f"{rows:,}", "", partial(store, "ours", fresh_kafka, clickhouse, rows))
            for rows in map(int, BATCHES.split())
        ],
        warm_up=False,
    )
