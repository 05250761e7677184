"""The ClickHouse sink: records become rows, and a batch counts as applied once every table has acknowledged its part.

`consumer` fetches, retries and commits; `rows` says what a row is; this module inserts. An insert may happen twice (a
crash between insert and commit, two writers during a takeover) and need not be prevented: the tables collapse copies
by the record's identity. So the server's own deduplication is off – it drops rows by the look of a block, also ones
that somebody deleted and reads again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError, Error
from clickhouse_connect.driver.insert import InsertContext
from prometheus_client import Counter, Histogram

from streams.topics import BARS, CONDITION_EVENTS, QUOTES, RECOMMENDATIONS, STATUS, STOCKS, TRANSITIONS

from ..consumer import Batch, Received, Refused, Retryable, consume
from ..settings import ClickHouseSettings
from .connection import REQUEST_SECONDS, connect_async, first_line, parse_dsn
from .migrate import migrate
from .rows import COLUMNS, Place, Unstorable, Values, rows

log = structlog.get_logger(__name__)

TOPICS: Final = (CONDITION_EVENTS, TRANSITIONS, RECOMMENDATIONS, STOCKS, QUOTES, BARS, STATUS)
COMPONENT: Final = "clickhouse-sink"

_INSERT: Final[dict[str, Any]] = {
    "async_insert": 0,  # acknowledged means stored
    "insert_deduplicate": 0,
    "deduplicate_insert": "disable",  # the same, of newer servers
    "distributed_foreground_insert": 1,  # on a cluster, too
    "max_partitions_per_insert_block": 0,  # a re-read of years is one batch like any other
    "max_execution_time": REQUEST_SECONDS,
}
# What the server says of a row's values, and nothing else: any other refusal is about the table, the server or our
# rights, and holds for all rows alike. Those wait for a remedy; they must never send good rows to dead-letters.
_ROW_IS_WRONG: Final = frozenset({
    6,  # CANNOT_PARSE_TEXT
    27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  # CANNOT_PARSE_DATE
    41,  # CANNOT_PARSE_DATETIME
    69,  # ARGUMENT_OUT_OF_BOUND
    117,  # INCORRECT_DATA
    131,  # TOO_LARGE_STRING_SIZE
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    407,  # DECIMAL_OVERFLOW
    469,  # VIOLATED_CONSTRAINT
})  # fmt: skip

_inserted = Counter("hitstream_clickhouse_rows_total", "Rows that ClickHouse acknowledged.", ["table"])
_batch_rows = Histogram(
    "hitstream_clickhouse_batch_rows", "Rows of a batch, over all tables.", buckets=(1, 10, 100, 1_000, 10_000, 100_000)
)
_insert_seconds = Histogram("hitstream_clickhouse_insert_seconds", "Time of one insert into one table.", ["table"])

_Part = list[tuple[Values, Received]]
"""Rows of one table, each with the record that it is of."""


async def run(
    *,
    settings: ClickHouseSettings,
    bootstrap_servers: str,
    now: Callable[[], datetime],
    ready: Callable[[str | None], None],
) -> None:
    """Bring the tables up to date, then write every record to ClickHouse until cancelled.

    Raises `HitstreamError` if ClickHouse or Kafka can't be reached at the start; later outages are waited out.
    """
    ready(f"ClickHouse at {parse_dsn(settings.dsn).address} has not answered yet.")
    await asyncio.to_thread(migrate, settings)
    client = await connect_async(settings)
    try:
        await consume(
            bootstrap_servers=bootstrap_servers,
            topics=TOPICS,
            group=settings.group,
            component=COMPONENT,
            apply=Writer(client, parse_dsn(settings.dsn).address).apply,
            batch_rows=settings.batch_rows,
            batch_seconds=settings.batch_seconds,
            now=now,
            ready=ready,
        )
    finally:
        await client.close()


async def insert_again(settings: ClickHouseSettings, records: Sequence[Received]) -> Sequence[Refused]:
    """Store records that were refused before, outside the group; returns those that are refused again.

    Raises `HitstreamError` if ClickHouse can't be reached or can't take rows now.
    """
    client = await connect_async(settings)
    batch = Batch({})
    for received in records:
        source = received.source
        batch.partitions.setdefault(TopicPartition(source.topic, source.partition), []).append(received)
    try:
        return await Writer(client, parse_dsn(settings.dsn).address).apply(batch)
    finally:
        await client.close()


class Writer:
    """Puts batches into the tables. `address` is ClickHouse's, for what is said of it."""

    def __init__(self, client: AsyncClient, address: str) -> None:
        self._client = client
        self._address = address
        self._contexts: dict[str, InsertContext] = {}
        self._batch: Batch | None = None  # the one in hand, and what of it is not stored yet
        self._parts: dict[str, _Part] = {}
        self._refused: list[Refused] = []

    async def apply(self, batch: Batch) -> Sequence[Refused]:
        """Store a batch, all tables of it. Called again with the same batch, it goes on where it failed."""
        if batch is not self._batch:
            self._batch = batch
            self._parts, self._refused = _parts(batch)
            _batch_rows.observe(sum(map(len, self._parts.values())))
        try:
            for table in list(self._parts):
                await self._store(table, self._parts[table])
                del self._parts[table]
        except (Error, OSError, TimeoutError) as error:
            # The types of a table may have changed under us: look at them again next time.
            self._contexts.clear()
            raise Retryable(f"ClickHouse at {self._address} can't take rows now: {first_line(error)}") from error
        refused, self._batch, self._refused = self._refused, None, []
        return refused

    async def _store(self, table: str, part: _Part) -> None:
        """Insert a part; where a row is refused, find it by halving, and store the rest."""
        try:
            await self._insert(table, [values for values, _ in part])
        except ClickHouseError as error:
            if not _row_is_wrong(error):
                raise
            if len(part) > 1:
                half = len(part) // 2
                await self._store(table, part[:half])
                await self._store(table, part[half:])
                return
            source = part[0][1].source
            if not any(refused.source is source for refused in self._refused):  # a search has many rows
                self._refused.append(Refused(source, f"{table}: {first_line(error)}"))

    async def _insert(self, table: str, values: list[Values]) -> None:
        context = await self._context(table)
        context.data = list(zip(*values, strict=True))
        started = time.monotonic()
        # The client's own time-out is for silence; this one is for the whole.
        async with asyncio.timeout(REQUEST_SECONDS):
            await self._client.data_insert(context)
        _insert_seconds.labels(table).observe(time.monotonic() - started)
        _inserted.labels(table).inc(len(values))

    async def _context(self, table: str) -> InsertContext:
        context = self._contexts.get(table)
        if context is None:
            known = self._client.server_settings
            context = await self._client.create_insert_context(
                table,
                list(COLUMNS[table]),
                column_oriented=True,
                settings={name: value for name, value in _INSERT.items() if name in known},
            )
            self._contexts[table] = context
        return context


def _parts(batch: Batch) -> tuple[dict[str, _Part], list[Refused]]:
    parts: dict[str, _Part] = {}
    refused: list[Refused] = []
    for received in batch.records():
        source = received.source
        try:
            made = rows(received.record, Place(source.topic, source.partition, source.offset))
        except Unstorable as error:
            refused.append(Refused(source, str(error)))
            continue
        for row in made:
            parts.setdefault(row.table, []).append((row.values, received))
    return parts, refused


def _row_is_wrong(error: ClickHouseError) -> bool:
    """Whether it is the values that are refused: by the client while it packs them, or by the server."""
    return isinstance(error, DataError) or (isinstance(error, Error) and error.code in _ROW_IS_WRONG)
