"""Records → Kafka, in order, with nothing lost between `offer` and the acknowledgement.

`offer` never waits: the session must go on echoing PINGs whatever Kafka does. What is offered stands in a bounded
queue until Kafka has acknowledged it. When Kafka has acknowledged nothing for `spool_after`, the queue moves to the
disk spool, and what is offered goes behind it until the spool is empty again; while Kafka takes what it is given,
nothing touches the disk. Where neither has room, `offer` refuses (`QueueFull`), and what that means is the caller's
decision – the service ends the session, so that the loss becomes a recorded gap.

The one idea: **one batch at a time**. `run` sends the head of what waits, waits until all of it is acknowledged, and
only then removes it. So order per key holds through every failure, and what is in flight is bounded by the size of a
batch. A batch that fails is sent again whole, by a new producer: possibly twice in the log, with the same identities.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from streams import clients, events, topics
from streams.events import HitstreamError, Record
from streams.tasks import TaskGroup

from . import metrics
from .spool import Spool, Spooled, SpoolFull

_log = structlog.get_logger(__name__)

_NEEDED: Final = (
    topics.CONDITION_EVENTS, topics.STATUS, topics.STOCKS, topics.QUOTES, topics.BARS, topics.FRAMES
)  # fmt: skip
_BATCH_RECORDS: Final = 1000
_BATCH_BYTES: Final = 256 * 1024
_BEHIND: Final = 5_000  # records: some batches
_WATCH_EVERY: Final = 0.2
_SYNC_EVERY: Final = 1.0
_CONDITION_RECORDS: Final = (events.ConditionEvent, events.ConditionSnapshot, events.SearchResult, events.Gap)
_by_key: Final = DefaultPartitioner()
_PACED: Final = 0.25  # share of the room that what comes quickly may take


class QueueFull(HitstreamError):
    """Kafka has taken nothing for so long that the queue is full."""


class KafkaAway(HitstreamError):
    """Kafka does not answer."""


def route(record: Record) -> tuple[str, bytes]:
    """The topic and key of a record that a producer publishes."""
    match record:
        case events.Frame():
            return topics.FRAMES.name, record.connection.encode()
        case events.ConditionEvent() | events.ConditionSnapshot() | events.SearchResult() | events.Gap():
            return topics.CONDITION_EVENTS.name, events.condition_key(record.account, record.condition)
        case events.Status():
            return topics.STATUS.name, record.component.encode()
        case events.Quote():
            return topics.QUOTES.name, record.code.encode()
        case events.Stock():
            return topics.STOCKS.name, record.code.encode()
        case events.Bar():
            return topics.BARS.name, record.code.encode()
        case _:
            raise TypeError(f"a producer does not publish {type(record).__name__}")


class Publisher:
    """The way to Kafka. `check` first, then `run` for as long as records are offered.

    Args:
        bootstrap_servers: Kafka's address.
        room: how many records may wait in memory for their acknowledgement.
        spool: where they wait while Kafka takes nothing. What an earlier process left there is sent first.
        spool_after: seconds without an acknowledgement after which the spool is used.
    """

    def __init__(
        self, bootstrap_servers: str, *, room: int = 50_000, spool: Spool | None = None, spool_after: float = 1.0
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._room = room
        self._queue: deque[Spooled] = deque()
        self._spool = spool
        self._spool_after = spool_after
        self._progress = time.monotonic()
        # `received_at` of the oldest condition record that is on the spool, but perhaps not yet on the disk.
        self._unsynced: float | None = None
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._acknowledged = 0
        self._offered = len(self)

    def __len__(self) -> int:
        return len(self._queue) + self.spooled

    @property
    def spooled(self) -> int:
        """Records that wait on the disk."""
        return 0 if self._spool is None else len(self._spool)

    @property
    def unacknowledged(self) -> float:
        """Real seconds for which Kafka has acknowledged nothing of what waits; 0 if nothing waits."""
        return time.monotonic() - self._progress if len(self) else 0.0

    @property
    def behind(self) -> bool:
        """Whether Kafka takes less than it is given: what can be said once instead of often should be, now."""
        return bool(self.spooled) or len(self._queue) > _BEHIND or self.unacknowledged > self._spool_after

    @property
    def oldest(self) -> float | None:
        """`received_at` (POSIX seconds) of the oldest condition record that a power cut would lose; None if none."""
        waiting = (r.received_at for r in self._queue if r.topic == topics.CONDITION_EVENTS.name)
        return min((at for at in (self._unsynced, next(waiting, None)) if at is not None), default=None)

    def offer(self, record: Record, *, passing: bool = False) -> None:
        """Take a record for Kafka.

        A `passing` record is left out while others wait on the disk: the next one says it better. So is a status, a
        raw frame or a quote while there is little room: the numbers of the frames tell that some are missing, and of
        quotes nothing is lost where whoever makes them looks at `behind` first. What is larger than any broker takes is
        left out, and said. Everything that is left out is counted by its reason.

        Raises:
            QueueFull: there is no room.
        """
        topic, key = route(record)
        if passing and self.spooled:
            return self._drop(topic, "superseded")
        if isinstance(record, events.Status | events.Frame | events.Quote) and self._crowded:
            return self._drop(topic, "crowded")
        value = events.encode(record)
        if len(value) > topics.MAX_RECORD:
            # No broker takes it, and what waits behind it would wait for ever.
            _log.error("a record is larger than what a broker takes, and is left out", topic=topic, bytes=len(value))
            return self._drop(topic, "too-large")
        at = record.received_at.timestamp() if isinstance(record, _CONDITION_RECORDS) else 0.0
        outgoing = Spooled(topic, key, value, at)
        if not (self.spooled and not self._queue and self._to_spool(outgoing)):
            if len(self._queue) >= self._room:
                self._drop(topic, "full")
                raise QueueFull(
                    f"Kafka at {self._bootstrap_servers} has taken nothing and {len(self):,} records wait:"
                    " check that it runs"
                )
            if not self._queue:
                self._progress = time.monotonic()
            self._queue.append(outgoing)
        self._offered += 1
        self._wake.set()
        return None

    def _drop(self, topic: str, reason: str) -> None:
        metrics.DROPPED.labels(topic, reason).inc()

    @property
    def _crowded(self) -> bool:
        return len(self._queue) * 2 >= self._room or (self._spool is not None and self._spool.crowded)

    def _to_spool(self, record: Spooled) -> bool:
        if self._spool is None:
            return False
        try:
            self._spool.append(record)
        except SpoolFull as error:
            _log.warning("the spool takes nothing", cause=str(error))
            return False
        if self._unsynced is None and record.topic == topics.CONDITION_EVENTS.name:
            self._unsynced = record.received_at
        return True

    def _divert(self) -> None:
        """Kafka takes nothing: what waits in memory goes to the disk, behind what is there."""
        if not self.spooled:
            _log.warning("kafka takes nothing; records wait on the disk", waiting=len(self._queue))
        while self._queue and self._to_spool(self._queue[0]):
            self._queue.popleft()

    async def room(self, share: float = 0.5) -> None:
        """Wait until at most this share of queue and spool is taken."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: len(self._queue) <= self._room * share and not (self._spool and self._spool.crowded)
            )

    async def pace(self) -> None:
        """Give the sending its turn; while more is offered than Kafka acknowledges, wait until it has caught up.

        Where Kafka acknowledges nothing this does not wait: then it is the spool's turn, and whoever offers has to go
        on hearing what he hears.
        """
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            while len(self._queue) > self._room * _PACED and (left := self._spool_after - self.unacknowledged) > 0:
                async with asyncio.timeout(left), self._changed:
                    await self._changed.wait()

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
            raise KafkaAway(
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
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._send(), name="sending")
                if self._spool is not None:
                    tasks.create_task(self._watch(self._spool), name="spool")
        finally:
            if self._spool is not None:
                if self._queue:
                    self._divert()
                self._spool.close()

    async def _watch(self, spool: Spool) -> None:
        """Use the spool when it is time, and bring it to the disk."""
        synced = 0.0
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            now = time.monotonic()
            if self._queue and self.unacknowledged > self._spool_after:
                self._divert()
            metrics.SPOOLED.set(spool.size)
            if now - synced < _SYNC_EVERY or (descriptor := spool.unsynced()) is None:
                continue
            synced, before = now, self._unsynced
            self._unsynced = None
            try:
                await asyncio.to_thread(os.fsync, descriptor)
            except OSError as error:
                self._unsynced = before if self.spooled else None
                _log.warning("the spool could not be brought to the disk", cause=str(error))
            finally:
                os.close(descriptor)

    async def _send(self) -> None:
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
                # What it can't deliver within a moment is not waited for: the queue still has it.
                await clients.stop(producer)
            await asyncio.sleep(1.0)

    async def _send_head(self, producer: AIOKafkaProducer) -> None:
        while not len(self):
            self._wake.clear()
            await self._wake.wait()
        batch = self._head()
        await _send_whole(producer, batch)
        # What was sent from memory may meanwhile have moved to the head of the spool.
        from_disk = min(len(batch), self.spooled)
        if self._spool is not None and from_disk:
            self._spool.advance(from_disk)
            if not self.spooled:
                self._unsynced = None  # Kafka has it all, whether it reached the disk or not
        for _ in batch[from_disk:]:
            self._queue.popleft()
        for topic, count in Counter(record.topic for record in batch).items():
            metrics.PUBLISHED.labels(topic).inc(count)
        self._progress = time.monotonic()
        metrics.WAITING.set(len(self))
        async with self._changed:
            self._acknowledged += len(batch)
            self._changed.notify_all()

    def _head(self) -> list[Spooled]:
        """What is sent next: little enough to be one batch per partition, so that it fails or arrives as a whole."""
        if self._spool is not None and self.spooled:
            return self._spool.peek(_BATCH_RECORDS, _BATCH_BYTES)
        batch: list[Spooled] = []
        size = 0
        for record in self._queue:
            size += len(record.value) + len(record.key) + 64
            if batch and (size > _BATCH_BYTES or len(batch) == _BATCH_RECORDS):
                break
            batch.append(record)
        return batch


async def _send_whole(producer: AIOKafkaProducer, records: Iterable[Spooled]) -> None:
    """Send records as one batch for each partition, and wait until all are acknowledged.

    The batches are put together here: handing aiokafka one record after another costs ten times as much, for a future
    and a choice of the partition each.
    """
    batches: dict[tuple[str, int], list[BatchBuilder]] = {}
    partitions: dict[str, list[int]] = {}
    for record in records:
        if (known := partitions.get(record.topic)) is None:
            known = partitions[record.topic] = sorted(await producer.partitions_for(record.topic))
        place = record.topic, known[_partition(record.key, len(known))]
        made = batches.get(place)
        if made is None:
            made = batches[place] = [producer.create_batch()]
        if made[-1].append(key=record.key, value=record.value, timestamp=None) is None:
            # It is full. A batch takes its first record whatever its size.
            made.append(producer.create_batch())
            made[-1].append(key=record.key, value=record.value, timestamp=None)
    futures: list[asyncio.Future[object]] = []
    for (topic, partition), made in batches.items():
        for batch in made:
            future = await producer.send_batch(batch, topic, partition=partition)
            future.add_done_callback(clients.overlook)
            futures.append(future)
    await asyncio.gather(*futures)


@lru_cache(maxsize=8192)
def _partition(key: bytes, count: int) -> int:
    """Which of so many partitions a key belongs to: as every Kafka client has it by default."""
    return int(_by_key(key, range(count), ()))
