"""Records → Kafka, in order, with nothing lost between `offer` and the acknowledgement.

`offer` never waits: the session must go on echoing PINGs whatever Kafka does. What is offered stands in one bounded
queue until Kafka has acknowledged it. A full queue refuses (`QueueFull`), and what that means is the caller's
decision – the service ends the session, so that the loss becomes a recorded gap.

The one idea: **one batch at a time**. `run` sends the head of the queue, waits until all of it is acknowledged, and
only then removes it. So order per key holds through every failure, and what is in flight is bounded by the size of a
batch. A batch that fails is sent again whole, by a new producer: possibly twice in the log, with the same identities.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams import events, topics
from streams.events import HitstreamError, Record

from . import metrics

_log = structlog.get_logger(__name__)

_NEEDED: Final = (topics.CONDITION_EVENTS, topics.STATUS, topics.STOCKS, topics.FRAMES)
_BATCH_RECORDS: Final = 1000
_BATCH_BYTES: Final = 256 * 1024


class QueueFull(HitstreamError):
    """Kafka has taken nothing for so long that the queue is full."""


class Outgoing(NamedTuple):
    """A record on its way: where it goes, and its bytes."""

    topic: str
    key: bytes
    value: bytes
    received_at: float


def route(record: Record) -> tuple[str, bytes]:
    """The topic and key of a record that a producer publishes."""
    match record:
        case events.ConditionEvent() | events.ConditionSnapshot() | events.SearchResult() | events.Gap():
            return topics.CONDITION_EVENTS.name, events.condition_key(record.account, record.condition)
        case events.Status():
            return topics.STATUS.name, record.component.encode()
        case events.Stock():
            return topics.STOCKS.name, record.code.encode()
        case events.Frame():
            return topics.FRAMES.name, record.connection.encode()
        case _:
            raise TypeError(f"a producer does not publish {type(record).__name__}")


class Publisher:
    """The way to Kafka. `check` first, then `run` for as long as records are offered.

    Args:
        bootstrap_servers: Kafka's address.
        room: how many records may wait for their acknowledgement.
    """

    def __init__(self, bootstrap_servers: str, *, room: int = 50_000) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._room = room
        self._queue: deque[Outgoing] = deque()
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._acknowledged = 0
        self._offered = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> float | None:
        """`received_at` (POSIX seconds) of the oldest condition record not yet acknowledged; None if there is none."""
        return next((r.received_at for r in self._queue if r.topic == topics.CONDITION_EVENTS.name), None)

    def offer(self, record: Record) -> None:
        """Take a record for Kafka.

        A status or a raw frame is left out while the queue is half full: the next status says it better, and the
        numbers of the frames tell that some are missing.

        Raises:
            QueueFull: there is no room.
        """
        topic, key = route(record)
        if isinstance(record, events.Status | events.Frame) and len(self._queue) * 2 >= self._room:
            metrics.DROPPED.labels(topic).inc()
            return
        if len(self._queue) >= self._room:
            metrics.DROPPED.labels(topic).inc()
            raise QueueFull(
                f"Kafka at {self._bootstrap_servers} has taken nothing and {len(self._queue):,} records wait:"
                " check that it runs"
            )
        at = record.received_at.timestamp() if hasattr(record, "received_at") else 0.0
        self._queue.append(Outgoing(topic, key, events.encode(record), at))
        self._offered += 1
        self._wake.set()

    async def room(self, share: float = 0.5) -> None:
        """Wait until at most this share of the queue is taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._queue) <= self._room * share)

    async def flush(self) -> None:
        """Wait until everything offered so far is acknowledged."""
        until = self._offered
        async with self._changed:
            await self._changed.wait_for(lambda: self._acknowledged >= until)

    async def check(self, *, within: float = 10.0) -> None:
        """Make sure that Kafka answers and has the topics.

        Raises:
            HitstreamError: it does not answer within so many seconds, or a topic is missing.
        """
        try:
            async with asyncio.timeout(within):
                present = await self._topics()
        except TimeoutError:
            raise HitstreamError(
                f"Kafka does not answer at {self._bootstrap_servers}: start it, or correct kafka.bootstrap_servers"
            ) from None
        if missing := [topic.name for topic in _NEEDED if topic.name not in present]:
            raise HitstreamError(f"Kafka has no topic {', '.join(missing)}: run `hitstream topics` first")

    async def _topics(self) -> set[str]:
        while True:
            # The admin client asks for all topics: asking for one by name could create it.
            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap_servers, request_timeout_ms=5_000)
            try:
                await admin.start()
                return set(await admin.list_topics())
            except (KafkaError, OSError) as error:
                _log.info("kafka does not answer yet", address=self._bootstrap_servers, error=str(error))
                await asyncio.sleep(0.5)
            finally:
                await admin.close()

    async def run(self) -> None:
        """Send what is offered, for ever. Kafka's absence is waited out."""
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=2 * _BATCH_BYTES,
                request_timeout_ms=10_000,
                metadata_max_age_ms=30_000,
            )
            try:
                await producer.start()
                while True:
                    await self._send_head(producer)
            except (KafkaError, OSError) as error:
                metrics.PUBLISH_FAILURES.inc()
                _log.warning("kafka did not take a batch; it is sent again", error=repr(error), waiting=len(self))
            finally:
                await _stop(producer)
            await asyncio.sleep(1.0)

    async def _send_head(self, producer: AIOKafkaProducer) -> None:
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        batch = self._head()
        futures: list[asyncio.Future[object]] = []
        for record in batch:
            future = await producer.send(record.topic, record.value, record.key)
            future.add_done_callback(_retrieve)
            futures.append(future)
        await asyncio.gather(*futures)
        for record in batch:
            self._queue.popleft()
            metrics.PUBLISHED.labels(record.topic).inc()
        metrics.WAITING.set(len(self._queue))
        async with self._changed:
            self._acknowledged += len(batch)
            self._changed.notify_all()

    def _head(self) -> list[Outgoing]:
        """What is sent next: little enough to be one batch per partition, so that it fails or arrives as a whole."""
        batch: list[Outgoing] = []
        size = 0
        for record in self._queue:
            size += len(record.value) + len(record.key) + 64
            if batch and (size > _BATCH_BYTES or len(batch) == _BATCH_RECORDS):
                break
            batch.append(record)
        return batch


async def _stop(producer: AIOKafkaProducer) -> None:
    """Close a producer. What it can't deliver within a moment is not waited for: the queue still has it."""
    with suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(2.0):
            await producer.stop()
            return
    # aiokafka has no public way to give up: close its sockets, so that what is in flight fails, then end its sender.
    await producer.client.close()
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
        await asyncio.wait([sender], timeout=2.0)
    producer._message_accumulator.fail_all(KafkaError("given up"))


def _retrieve(outcome: asyncio.Future[object]) -> None:
    """Look at a future's exception, so that asyncio does not call it forgotten."""
    if not outcome.cancelled():
        outcome.exception()
