"""The ClickHouse sink: records become rows, and a batch counts as applied once every table has acknowledged its part.

`consumer` fetches, retries and commits; `rows` says what a row is; this module inserts. An insert may happen twice (a
crash between insert and commit, two writers during a takeover) and need not be prevented: the tables collapse copies
by the record's identity. So the server's own deduplication is off – it drops rows by the look of a block, also ones
that somebody deleted and reads again.
"""

from __future__ import annotations

import asyncio
import gc
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

from ..consumer import Batch, Reasons, Received, Refused, Retryable, consume, slices
from ..settings import ClickHouseSettings
from .connection import REQUEST_SECONDS, connect_async, first_line
from .dsn import parse_dsn
from .migrate import migrate
from .returns import keep
from .rows import COLUMNS, Part, gather, parts

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

_MEMORY_LIMIT_EXCEEDED: Final = 241

_inserted = Counter("hitstream_clickhouse_rows_total", "Rows that ClickHouse acknowledged.", ["table"])
_batch_rows = Histogram(
    "hitstream_clickhouse_batch_rows", "Rows of a batch, over all tables.", buckets=(1, 10, 100, 1_000, 10_000, 100_000)
)
_insert_seconds = Histogram("hitstream_clickhouse_insert_seconds", "Time of one insert into one table.", ["table"])

_ELSEWHERE: Final = TopicPartition("", 0)  # of records that are in no batch of a consumer's; their source says more


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
    reasons = Reasons(ready)

    def failing(why: str | None) -> None:
        # Rows go on being stored, of which status and page should not say that everything is fine.
        reasons.note(returns=why and f"Rows are stored, but what became of hits can't be worked out: {why}")

    reasons.note(rows=f"ClickHouse at {parse_dsn(settings.dsn).address} has not answered yet.")
    # A batch is tens of thousands of objects that live for a second and are in no cycle. By default the collector walks
    # over all of them again and again: a quarter of this process's time.
    gc.set_threshold(50_000, 20, 20)
    await asyncio.to_thread(migrate, settings)
    client = await connect_async(settings)
    writer = Writer(client, parse_dsn(settings.dsn).address)
    keeping = asyncio.create_task(keep(settings, now, failing), name="day_returns")
    try:
        await consume(
            bootstrap_servers=bootstrap_servers,
            topics=TOPICS,
            group=settings.group,
            component=COMPONENT,
            prepare=writer.prepare,
            apply=writer.apply,
            batch_rows=settings.batch_rows,
            batch_seconds=settings.batch_seconds,
            now=now,
            ready=lambda reason: reasons.note(rows=reason),
        )
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await client.close()


async def insert_again(settings: ClickHouseSettings, records: Sequence[Received]) -> Sequence[Refused]:
    """Store records that were refused before, outside the group; returns those that are refused again.

    Raises `HitstreamError` if ClickHouse can't be reached or can't take rows now.
    """
    client = await connect_async(settings)
    writer = Writer(client, parse_dsn(settings.dsn).address)
    try:
        return await writer.apply(await writer.prepare(Batch({_ELSEWHERE: list(records)})))
    finally:
        await client.close()


class Work:
    """What of a batch is not stored yet, and what of it never can be."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.refused: list[Refused] = []


class Writer:
    """Puts batches into the tables. `address` is ClickHouse's, for what is said of it."""

    def __init__(self, client: AsyncClient, address: str) -> None:
        self._client = client
        self._address = address
        self._contexts: dict[str, InsertContext] = {}

    async def prepare(self, batch: Batch) -> Work:
        """Make the rows of a batch."""
        work = Work()
        for some in slices(list(batch.records())):
            await asyncio.sleep(0)
            made, refused = parts(some)
            for part in made:
                gather(work.parts, part)
            work.refused += [Refused(source, reason) for source, reason in refused]
        _batch_rows.observe(sum(map(len, work.parts.values())))
        return work

    async def apply(self, work: Work) -> Sequence[Refused]:
        """Store a batch, all tables of it at once. Called again with the same work, it goes on where it failed."""
        tables = list(work.parts)
        ends = await asyncio.gather(*(self._table(table, work) for table in tables), return_exceptions=True)
        failures = [end for end in ends if isinstance(end, BaseException)]
        for failure in failures:
            if not isinstance(failure, Error | OSError | TimeoutError):
                raise failure
        if failures:
            # The types of a table may have changed under us: look at them again next time.
            self._contexts.clear()
            raise Retryable(
                f"ClickHouse at {self._address} can't take rows now: {first_line(failures[0])}"
            ) from failures[0]
        return work.refused

    async def _table(self, table: str, work: Work) -> None:
        await self._store(work.parts[table], work.refused)
        del work.parts[table]

    async def _store(self, part: Part, refused: list[Refused]) -> None:
        """Insert a part; where a row is refused or all are too much, by halves: the rest is stored."""
        try:
            await self._insert(part)
        except ClickHouseError as error:
            if len(part) > 1 and (_row_is_wrong(error) or _too_much(error)):
                half = len(part) // 2
                await self._store(part[:half], refused)
                await self._store(part[half:], refused)
                return
            if not _row_is_wrong(error):
                raise
            source = part.sources[0]
            if not any(one.source is source for one in refused):  # a search has many rows
                refused.append(Refused(source, f"{part.table}: {first_line(error)}"))

    async def _insert(self, part: Part) -> None:
        context = await self._context(part.table)
        context.data = part.columns
        started = time.monotonic()
        # The client's own time-out is for silence; this one is for the whole.
        async with asyncio.timeout(REQUEST_SECONDS):
            await self._client.data_insert(context)
        _insert_seconds.labels(part.table).observe(time.monotonic() - started)
        _inserted.labels(part.table).inc(len(part))

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


def _row_is_wrong(error: ClickHouseError) -> bool:
    """Whether it is the values that are refused: by the client while it packs them, or by the server."""
    return isinstance(error, DataError) or (isinstance(error, Error) and error.code in _ROW_IS_WRONG)


def _too_much(error: ClickHouseError) -> bool:
    """Whether a smaller insert may do: the server had no memory for this one. A single row's waits like any outage."""
    return isinstance(error, Error) and error.code == _MEMORY_LIMIT_EXCEEDED
