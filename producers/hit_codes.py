"""Which stocks an account's conditions hit on which day, read back from Kafka.

What the producer itself heard is gone after a restart, and a standby has heard the rest; the topics have it all:
`condition-events` what producers said (kept 7 days), `transitions` what else makes recommendations – searches and
commands (kept 30 days, and only where a stream worker runs). `statuses` reads in the same way what components said
last. Nothing is committed: each reading begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import clients, topics
from streams.events import (
    KST,
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    HitstreamError,
    Recommend,
    SearchReason,
    Status,
    StockRecord,
    Transition,
    trading_date,
)

from .reading import decoded, seek

_WITHIN: Final = 120.0  # Real seconds for reading a topic.
_SAME_CLOCK: Final = timedelta(hours=1)


class Codes(NamedTuple):
    """A day's codes: `hit` were in a condition or recommended by hand, `found` only by a one-shot search."""

    hit: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()


class NotRead(HitstreamError):
    """Kafka does not let its topics be read."""


async def codes(
    bootstrap_servers: str, account: str, since: date, now: Callable[[], datetime], *, within: float = _WITHIN
) -> dict[date, Codes]:
    """The codes of each day from `since` on.

    Raises:
        NotRead: Kafka does not answer in time.
    """
    hit: dict[date, set[str]] = {}
    found: dict[date, set[str]] = {}
    condition_records = msgspec.json.Decoder(ConditionRecord)
    stock_records = msgspec.json.Decoder(StockRecord)
    # Kafka's stamps are of its own clock: they lead to a simulated day only by chance.
    real = abs(now() - datetime.now(UTC)) < _SAME_CLOCK
    start = datetime.combine(since, datetime.min.time(), KST) - _SAME_CLOCK if real else None
    async for value in _values(bootstrap_servers, topics.CONDITION_EVENTS.name, start, within):
        _sort(decoded(condition_records, value), account, hit, found)
    async for value in _values(bootstrap_servers, topics.TRANSITIONS.name, start, within):
        _sort(decoded(stock_records, value), account, hit, found)
    days = {day for day in hit.keys() | found.keys() if day >= since}
    return {day: Codes(frozenset(hit.get(day, ())), frozenset(found.get(day, ()))) for day in days}


async def statuses(bootstrap_servers: str, prefix: str, *, within: float = _WITHIN) -> list[Status]:
    """The last status of every component whose name begins so.

    Raises:
        NotRead: Kafka does not answer in time.
    """
    last: dict[str, Status] = {}
    decoder = msgspec.json.Decoder(Status)
    async for value in _values(bootstrap_servers, topics.STATUS.name, None, within):
        status = decoded(decoder, value)
        if status is not None and status.component.startswith(prefix):
            last[status.component] = status
    return list(last.values())


def _sort(record: Any, account: str, hit: dict[date, set[str]], found: dict[date, set[str]]) -> None:
    if record is None or getattr(record, "account", None) != account:
        return
    match record:
        case ConditionEvent(action="hit"):
            hit.setdefault(trading_date(record.at), set()).add(record.code)
        case ConditionSnapshot():
            hit.setdefault(trading_date(record.at), set()).update(record.codes)
        case Transition(kind="entered"):
            hit.setdefault(record.date, set()).add(record.code)
        case Recommend():
            hit.setdefault(trading_date(record.at), set()).add(record.code)
        case SearchReason():
            found.setdefault(record.date, set()).add(record.code)


async def _values(bootstrap_servers: str, topic: str, start: datetime | None, within: float) -> AsyncIterator[bytes]:
    """What stands on a topic now, from what Kafka stamped at `start` on; all of it for None."""
    try:
        async with asyncio.timeout(within):
            async for value in _read(bootstrap_servers, topic, start):
                yield value
    except (TimeoutError, KafkaError, OSError) as error:
        raise NotRead(
            f"{topic} could not be read at {bootstrap_servers} ({str(error) or 'no answer'}): start Kafka"
        ) from None


async def _read(bootstrap_servers: str, topic: str, start: datetime | None) -> AsyncIterator[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        await consumer.start()
        parts = sorted(consumer.assignment())
        if not parts:
            return
        ends = await seek(consumer, parts, start)
        while open_parts := [part for part in parts if await consumer.position(part) < ends[part]]:
            for records in (await consumer.getmany(*open_parts, timeout_ms=500, max_records=2_000)).values():
                for record in records:
                    if record.value and record.offset < ends[TopicPartition(record.topic, record.partition)]:
                        yield record.value
            await asyncio.sleep(0)
    finally:
        await clients.stop(consumer)
