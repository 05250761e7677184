"""The three that `bench_clickhouse_writer` compares, each a process of its own: `python storing.py WAY JSON`.

`ours`   the sink as it is run, on topics that are full already.
`peer`   what one writes first: a plain aiokafka consumer, `json`, and clickhouse-connect's insert of rows.
`limit`  clickhouse-connect inserting the very columns that ours makes of these records: no Kafka, nothing to decode.

Each prints its figures as a line of JSON. They are of what lies between the first commit (for the limit: the first
insert) and the last one: starting, joining the group and the first batch are in none of them. CPU is the process's own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from harness import tell

from sinks.clickhouse.connection import connect_async
from sinks.clickhouse.rows import COLUMNS as COLUMNS_OF
from sinks.settings import ClickHouseSettings
from streams.events import Quote, Transition
from streams.topics import QUOTES, TRANSITIONS

if TYPE_CHECKING:
    from sinks.clickhouse.writer import Work

BATCH_SECONDS = 0.5


class Task(msgspec.Struct):
    """What to store: all records of two topics, into a database that has its tables."""

    kafka: str
    dsn: str
    group: str
    batch_rows: int
    records: int


class Course:
    """Notes how far the work is, and tells of it once all is done."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.marks: list[tuple[int, float, float]] = []

    def mark(self, rows: int) -> bool:
        """Note that so many rows are stored in all; whether that is all of them."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.marks.append((rows, time.perf_counter(), used.ru_utime + used.ru_stime))
        return rows >= self.total

    def tell(self) -> None:
        (rows, begun, cpu), (all_rows, ended, all_cpu) = self.marks[0], self.marks[-1]
        rows = all_rows - rows
        tell(**{"rows/s": rows / (ended - begun), "CPU ms per 1,000": 1e6 * (all_cpu - cpu) / rows})


async def ours(task: Task) -> None:
    """The role, with its commits watched."""
    from sinks.clickhouse.writer import run

    course, done = Course(task.records), asyncio.Event()
    stored: dict[TopicPartition, int] = {}
    commit = AIOKafkaConsumer.commit

    async def watched(self: AIOKafkaConsumer, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        await commit(self, offsets)
        stored.update((partition, at.offset) for partition, at in offsets.items())
        if course.mark(sum(stored.values())):
            done.set()

    AIOKafkaConsumer.commit = watched
    settings = ClickHouseSettings(
        dsn=task.dsn, group=task.group, batch_rows=task.batch_rows, batch_seconds=BATCH_SECONDS
    )
    async with asyncio.TaskGroup() as tasks:
        role = tasks.create_task(
            run(
                settings=settings,
                bootstrap_servers=task.kafka,
                now=lambda: datetime.now(UTC),
                ready=lambda reason: None,
            )
        )
        await done.wait()
        course.tell()
        role.cancel()


COLUMNS = {
    "transition": "date account condition code entry kind id exchange origin at since dwell initial gap_from gap_to"
    " event_id session received_at",
    "quote": "date code exchange received_at session at price high low volume trades change_rate day_volume",
}


def row(said: dict[str, Any], audit: tuple[Any, ...]) -> tuple[Any, ...]:
    """A record's values, as one writes it first."""
    for name in ("at", "since", "received_at", "gap_from", "gap_to"):
        if said.get(name) is not None:
            said[name] = datetime.fromisoformat(said[name])
    said["date"] = date.fromisoformat(said["date"]) if "date" in said else said["at"].date()
    return (*(said[name] for name in COLUMNS[said["type"]].split()), *audit)


async def peer(task: Task) -> None:
    client = await connect_async(ClickHouseSettings(dsn=task.dsn))
    consumer = AIOKafkaConsumer(
        TRANSITIONS.name,
        QUOTES.name,
        bootstrap_servers=task.kafka,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    course, stored = Course(task.records), 0
    while True:
        tables: dict[str, list[tuple[Any, ...]]] = {}
        for records in (await consumer.getmany(timeout_ms=500, max_records=task.batch_rows)).values():
            for record in records:
                said = json.loads(record.value)
                tables.setdefault(said["type"], []).append(row(said, (record.topic, record.partition, record.offset)))
        if not tables:
            continue
        for kind, rows in tables.items():
            names = [*COLUMNS[kind].split(), "_topic", "_partition", "_offset"]
            await client.insert(f"{kind}s", rows, names, settings={"async_insert": 0})
            stored += len(rows)
        await consumer.commit()
        if course.mark(stored):
            break
    course.tell()
    await consumer.stop()
    await client.close()


async def limit(task: Task) -> None:
    client = await connect_async(ClickHouseSettings(dsn=task.dsn))
    batches = await prepared(task)
    course, stored = Course(task.records), 0
    contexts = {
        table: await client.create_insert_context(
            table, list(COLUMNS_OF[table]), column_oriented=True, settings={"async_insert": 0}
        )
        for table in ("transitions", "quotes")
    }
    for batch in batches:
        for table, part in batch.parts.items():
            contexts[table].data = part.columns
            await client.data_insert(contexts[table])
            stored += len(part)
        course.mark(stored)
    course.tell()
    await client.close()


async def prepared(task: Task) -> list[Work]:
    """The columns of each table, of batches as large as the sink's."""
    from sinks.clickhouse.writer import Writer
    from sinks.consumer import Batch, Received

    decoder = msgspec.json.Decoder(Transition | Quote)
    consumer = AIOKafkaConsumer(
        TRANSITIONS.name, QUOTES.name, bootstrap_servers=task.kafka, group_id=task.group, auto_offset_reset="earliest"
    )
    await consumer.start()
    made: list[Work] = []
    left = task.records
    while left:
        received: list[Received] = []
        while len(received) < min(left, task.batch_rows):
            answer = await consumer.getmany(timeout_ms=500, max_records=task.batch_rows - len(received))
            for records in answer.values():
                received += [Received(decoder.decode(record.value), record) for record in records]
        left -= len(received)
        made.append(await Writer(None, "").prepare(Batch({TopicPartition("", 0): received})))  # type: ignore[arg-type]
    await consumer.stop()
    return made


if __name__ == "__main__":
    asyncio.run({"ours": ours, "peer": peer, "limit": limit}[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=Task)))
