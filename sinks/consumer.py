"""The loop that sinks of a consumer group share: fetch a batch, apply it, then remember the offsets.

A batch is applied before its offsets are committed, so a sink that dies at any instant is handed the batch again: what
it applies must have the same effect twice. What a batch means is the sink's business (`prepare`, `apply`); reading
topics without a group, as the live hub does, is not done here.

While a batch is applied, which is mostly waiting for a store, the next one is fetched, decoded and prepared. It is
applied once the one before is committed: there are never more than these two, and offsets only follow their order.

What holds, whatever fails:

| happens                                   | then                                                                    |
|-------------------------------------------|-------------------------------------------------------------------------|
| `apply` returns                           | dead letters are acknowledged, then exactly this batch is committed      |
| `apply` raises `Retryable`                | the batch is tried again, for as long as needed; one more is fetched     |
| a rebalance while a batch is in hand      | the batch is not committed: its partitions are fetched anew by whoever   |
| a record that can't be read               | its bytes go to dead-letters; the rest of the batch goes on              |
| Kafka away                                | said through `ready`; the consumer is made anew when that goes on        |
| Kafka back with its data deleted          | everything is read from the beginning                                    |
| cancelled                                 | the batch in hand is left uncommitted, and comes again                   |

The one idea that is not common: a committed offset carries the fingerprint of the record before it. An offset alone
can't tell that its topic was deleted and created anew; where the new one has grown past it, whatever stands before it
would be skipped without a word. So after every assignment that one record is read again and compared.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import reduce
from itertools import chain
from operator import or_
from typing import Final, Generic, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import Counter, Gauge

from streams import clients
from streams.events import DeadLetter, HitstreamError, LetterCause, Record, dead_letter, encode, identity
from streams.topics import DEAD_LETTERS, Topic

log = structlog.get_logger(__name__)

_START_SECONDS: Final = 15.0  # for Kafka's first answer
_TOPIC_ATTEMPTS: Final = 12  # three seconds
_JOIN_SECONDS: Final = 45.0
_COMMIT_SECONDS: Final = 15.0
_SESSION_SECONDS: Final = 10.0  # without a heartbeat: the group goes on without this member
_SILENCE_SECONDS: Final = 10.0  # without an answer to a fetch: Kafka is away (an idle one answers twice a second)
_DEAF_SECONDS: Final = 45.0  # so long that the consumer itself is no longer trusted, and made anew
_POLL_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 3.0
_BATCH_BYTES: Final = 32 * 1024 * 1024
_FETCH_BYTES: Final = 1024 * 1024  # per partition
_FIRST_DELAY: Final = 0.25
_LONGEST_DELAY: Final = 10.0

_lag = Gauge("hitstream_sink_lag_records", "Records not yet applied.", ["group", "topic", "partition"])
_applied = Counter("hitstream_sink_records_total", "Records applied and committed.", ["group", "topic"])
_retries = Counter(
    "hitstream_sink_retries_total", "Batches tried again because the store could not take them.", ["group"]
)
_abandoned = Counter("hitstream_sink_abandoned_batches_total", "Batches left to be read again.", ["group"])
_dead = Counter(
    "hitstream_sink_dead_letters_total",
    "Records that went to dead-letters, by the class of the reason.",
    ["group", "topic", "cause"],
)
_tombstones = Counter(
    "hitstream_sink_tombstones_total", "Records without a value: nothing to apply.", ["group", "topic"]
)
_anew = Counter(
    "hitstream_sink_rereads_total", "Partitions read from the beginning: the topic is another one.", ["group"]
)


_progress = Gauge(
    "hitstream_sink_progress_timestamp_seconds",
    "Unix time at which a batch was last committed, or Kafka last said that nothing waits.",
    ["group"],
)


class Retryable(HitstreamError):
    """The store can't take the batch now; the sentence says what it waits for. The batch is tried again."""


class KafkaUnavailable(HitstreamError):
    """Kafka can't be reached at its address, or refuses what a consumer must do."""


class TopicsMissing(HitstreamError):
    """Topics that the product needs are not there."""


class Received(msgspec.Struct, frozen=True, gc=False):  # many of them live briefly, and none is part of a cycle
    """A record, and the Kafka record that it was read from."""

    record: Record
    source: ConsumerRecord


class Refused(msgspec.Struct, frozen=True):
    """A record that can never be applied, and why. Its untouched bytes go to dead-letters.

    `cause` is the class of the reason, as in `DeadLetter`.
    """

    source: ConsumerRecord
    reason: str
    cause: LetterCause = "refused"


class Batch(msgspec.Struct, frozen=True):
    """Records to apply, by topic-partition and in its order."""

    partitions: dict[TopicPartition, list[Received]]

    def records(self) -> Iterator[Received]:
        """All of them, partition by partition."""
        return chain.from_iterable(self.partitions.values())

    def __len__(self) -> int:
        return sum(map(len, self.partitions.values()))


Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

Prepare = Callable[[Batch], Awaitable[Prepared]]
"""Makes of a batch what `Apply` takes: whatever needs no store, while the batch before is being applied."""

Apply = Callable[[Prepared], Awaitable[Sequence[Refused]]]
"""Makes a whole batch take effect before it returns; returns the records that never can. May raise `Retryable`, and is
then called with the same again."""


class _Fetched:
    """What was fetched under one assignment and is not committed: the batch before it is decoded."""

    def __init__(self, assignment: int) -> None:
        self.assignment = assignment
        self.records: dict[TopicPartition, list[ConsumerRecord]] = {}
        self.count = 0
        self.bytes = 0

    def add(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        self.records.setdefault(partition, []).extend(records)
        self.count += len(records)
        self.bytes += sum(len(record.value or b"") for record in records)


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Numbers the states of our assignment: what was fetched in another one than the present must not be committed."""

    def __init__(self) -> None:
        self.number = 0
        self.changed = asyncio.Event()

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._change()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._change()

    def _change(self) -> None:
        self.number += 1
        self.changed.set()
        self.changed = asyncio.Event()


class _Placed(msgspec.Struct):
    """Where reading stands in one assignment; `expected` are the records that must still be met again.

    By partition: their offset and the fingerprint that the group committed for them.
    """

    assignment: int = -1
    expected: dict[TopicPartition, tuple[int, str]] = {}


class _Deaf(Exception):
    """The consumer has had no answer for so long that it is made anew; the text says to what."""


async def consume(
    *,
    bootstrap_servers: str,
    topics: Sequence[Topic],
    group: str,
    component: str,
    prepare: Prepare[Prepared],
    apply: Apply[Prepared],
    batch_rows: int,
    batch_seconds: float,
    now: Callable[[], datetime],
    ready: Callable[[str | None], None],
) -> None:
    """Hand the records of `topics` to `prepare` and `apply`, in batches, until cancelled.

    A batch ends with `batch_rows` records, or `batch_seconds` after its first one. `component` signs dead letters.

    Raises `KafkaUnavailable` or `TopicsMissing` if it can't begin. Once it has begun it stays, through any outage.
    """
    sink = _Sink(
        bootstrap_servers,
        topics,
        group,
        component,
        prepare,
        apply,
        batch_rows,
        batch_seconds,
        now,
        _once_per_change(group, ready),
    )
    await sink.run()


class Reasons:
    """Why a sink is not ready, by the part of it that is not. `ready` is told the first one, or None."""

    def __init__(self, ready: Callable[[str | None], None]) -> None:
        self._ready = ready
        self._waits: dict[str, str | None] = {}

    def note(self, **reasons: str | None) -> None:
        """Note why parts are not ready, or that they are again (None)."""
        self._waits.update(reasons)
        self._ready(next((reason for reason in self._waits.values() if reason is not None), None))


class _Sink(Generic[Prepared]):
    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[Topic],
        group: str,
        component: str,
        prepare: Prepare[Prepared],
        apply: Apply[Prepared],
        batch_rows: int,
        batch_seconds: float,
        now: Callable[[], datetime],
        ready: Callable[[str | None], None],
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topics = topics
        self.group = group
        self.component = component
        self.prepare = prepare
        self.apply = apply
        self.batch_rows = batch_rows
        self.batch_seconds = batch_seconds
        self.now = now
        self.ready = Reasons(ready).note  # for `kafka` and the `store`: why not
        self.decoders = {topic.name: msgspec.json.Decoder(reduce(or_, topic.records)) for topic in topics}
        self.heard = 0.0  # time.time() of the last moment that Kafka showed itself alive

    async def run(self) -> None:
        self.ready(kafka=f"Kafka at {self.bootstrap_servers} has not answered yet.")
        begun = False
        delay = _FIRST_DELAY
        while True:
            try:
                async with self._membership() as (consumer, assignments):
                    begun, delay = True, _FIRST_DELAY
                    await self._consume(consumer, assignments)
            except (KafkaError, TimeoutError, OSError, _Deaf, KafkaUnavailable, TopicsMissing) as error:
                if not begun and not isinstance(error, _Deaf):
                    raise self._explained(error) from error
                self.ready(kafka=str(self._explained(error)))
            await asyncio.sleep(delay)
            delay = min(_LONGEST_DELAY, delay * 2)

    def _explained(self, error: BaseException) -> HitstreamError:
        if isinstance(error, HitstreamError):
            return error
        if isinstance(error, _Deaf):
            return KafkaUnavailable(f"Kafka at {self.bootstrap_servers} {error} for too long; asking again.")
        if isinstance(error, KafkaError) and not error.retriable and not isinstance(error, CommitFailedError):
            return KafkaUnavailable(f"Kafka at {self.bootstrap_servers} refuses the group {self.group}: {error}")
        return KafkaUnavailable(
            f"Kafka at {self.bootstrap_servers} can't be reached; check kafka.bootstrap_servers and that it runs."
        )

    @asynccontextmanager
    async def _membership(self) -> AsyncIterator[tuple[AIOKafkaConsumer, _Assignments]]:
        """A consumer that has joined the group, once all topics are known to be there."""
        await self._check_topics()
        assignments = _Assignments()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=self.group,
            client_id=self.component,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
            # A batch may wait for its store for as long as it takes. Heartbeats go on beside it and tell the group
            # that this member lives; an application that hangs is bounded by the deadlines of its own requests.
            max_poll_interval_ms=7 * 86_400_000,
            session_timeout_ms=int(1000 * _SESSION_SECONDS),
            heartbeat_interval_ms=int(1000 * _SESSION_SECONDS / 3),
            request_timeout_ms=20_000,
            retry_backoff_ms=400,
            # Topics that come into being after the group has formed are noticed so late, at most.
            metadata_max_age_ms=5_000,
        )
        consumer.subscribe([topic.name for topic in self.topics], listener=assignments)
        try:
            # Joining waits for the members that are there; one that died is missed only when its session ends.
            try:
                async with asyncio.timeout(_JOIN_SECONDS):
                    await consumer.start()
            except TimeoutError:
                raise _Deaf(f"did not admit a member to the group {self.group}") from None
            yield consumer, assignments
        finally:
            if not await clients.stop(consumer):
                log.warning("left the consumer group without goodbye", group=self.group)

    async def _check_topics(self) -> None:
        """Asked as a list, because asking for a topic by name may create it, with one partition.

        A topic that was created a moment ago, or a broker that has just started, is given a moment to know it.
        """
        wanted = [topic.name for topic in (*self.topics, DEAD_LETTERS)]
        async with self._admin() as admin:
            for attempt in range(_TOPIC_ATTEMPTS):
                there = set(await admin.list_topics())
                missing = [name for name in wanted if name not in there]
                if not missing:
                    return
                if attempt + 1 < _TOPIC_ATTEMPTS:
                    await asyncio.sleep(_FIRST_DELAY)
        raise TopicsMissing(
            f"Kafka at {self.bootstrap_servers} lacks {', '.join(missing)}; run `hitstream topics` to create them."
        )

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, client_id=self.component)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await admin.start()
                yield admin
        finally:
            await admin.close()

    async def _consume(self, consumer: AIOKafkaConsumer, assignments: _Assignments) -> None:
        placed = _Placed()
        before: asyncio.Task[None] | None = None  # the batch that is being applied while the next one is made
        try:
            while True:
                try:
                    if placed.assignment != assignments.number:
                        if before is not None:  # it commits, or finds that it may not
                            await before
                            before = None
                        placed = await self._place(consumer, assignments)
                    fetched = await self._fetch(consumer, assignments, placed)
                except IllegalStateError:  # a partition was taken away between two steps: place what we have now
                    placed = _Placed()
                    continue
                batch, refused = await self._decode(fetched)
                prepared = await self.prepare(batch) if len(batch) else None
                if before is not None:
                    await before
                    before, self.heard = None, time.time()
                if fetched.count:
                    before = asyncio.create_task(self._settle(consumer, assignments, fetched, prepared, refused))
                _progress.labels(self.group).set(self.heard)
        finally:
            if before is not None:
                before.cancel()
                await asyncio.gather(before, return_exceptions=True)

    async def _place(self, consumer: AIOKafkaConsumer, assignments: _Assignments) -> _Placed:
        """Go to where the group was; and one record back where a fingerprint tells which one that must be.

        Every partition is placed explicitly, because what was fetched before may have been dropped.
        """
        placed = _Placed(assignments.number)
        partitions = list(consumer.assignment())
        if partitions:
            async with self._admin() as admin:
                committed = await admin.list_consumer_group_offsets(self.group, partitions=partitions)
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                if placed.assignment != assignments.number:
                    break  # placed again after the next assignment
                at = committed.get(partition)
                if at is None or at.offset < 0:
                    await consumer.seek_to_beginning(partition)
                elif at.offset > ends[partition]:
                    await self._start_over(consumer, partition, "its offset lies beyond the end")
                elif at.offset > 0 and at.metadata:
                    consumer.seek(partition, at.offset - 1)
                    placed.expected[partition] = (at.offset - 1, at.metadata)
                else:
                    consumer.seek(partition, at.offset)
        self.heard = time.time()
        return placed

    async def _start_over(self, consumer: AIOKafkaConsumer, partition: TopicPartition, why: str) -> None:
        log.warning(
            "reading a partition from the beginning: the topic is not the one that was read before",
            topic=partition.topic,
            partition=partition.partition,
            because=why,
        )
        _anew.labels(self.group).inc()
        await consumer.seek_to_beginning(partition)

    async def _fetch(self, consumer: AIOKafkaConsumer, assignments: _Assignments, placed: _Placed) -> _Fetched:
        """The next batch: complete, or empty after a quiet second or because of a new assignment."""
        loop = asyncio.get_running_loop()
        fetched = _Fetched(placed.assignment)
        deadline = loop.time() + _POLL_SECONDS
        while fetched.count < self.batch_rows and fetched.bytes < _BATCH_BYTES:
            left = deadline - loop.time()
            if left <= 0:
                break
            async with asyncio.timeout(_DEAF_SECONDS):  # a rebalance makes it wait past its own time-out
                answer: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                    timeout_ms=max(1, int(left * 1000)), max_records=self.batch_rows - fetched.count
                )
            if assignments.number != placed.assignment:
                # What came is of the new assignment and what we hold is of the old one: neither is kept. The new one
                # is placed at the committed offsets again, which all of it lies behind.
                return _Fetched(placed.assignment)
            self._watch(consumer)
            first = not fetched.count
            for partition, records in answer.items():
                if partition in placed.expected:
                    records = await self._compare(consumer, partition, records, placed)  # noqa: PLW2901
                if records:
                    fetched.add(partition, records)
            if first and fetched.count:
                deadline = loop.time() + self.batch_seconds
        return fetched

    async def _compare(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, records: list[ConsumerRecord], placed: _Placed
    ) -> list[ConsumerRecord]:
        """The records that are new: all but the one that the committed offset remembers, if it is that one."""
        offset, fingerprint = placed.expected.pop(partition)
        if records[0].offset != offset:
            # Compaction or retention took the record, or the log ended before it and was begun anew from its start.
            return records
        if _fingerprint(records[0]) == fingerprint:
            return records[1:]
        await self._start_over(consumer, partition, "the record at its offset is another one")
        return []

    def _watch(self, consumer: AIOKafkaConsumer) -> None:
        """Tell an idle Kafka, which answers each fetch with nothing in it, from one that is away.

        A topic that is gone counts as silence, too: the group would go on without it, and say nothing.
        """
        partitions = consumer.assignment()
        if all(consumer.partitions_for_topic(topic.name) for topic in self.topics):
            if not partitions:  # a standby: others have them all
                self.heard = time.time()
            for partition in partitions:
                self.heard = max(self.heard, (consumer.last_poll_timestamp(partition) or 0) / 1000)
        silence = time.time() - self.heard
        if silence > _DEAF_SECONDS:
            raise _Deaf("answered no fetch")
        silent = f"Kafka at {self.bootstrap_servers} has not answered lately."
        self.ready(kafka=silent if silence > _SILENCE_SECONDS else None)

    async def _settle(
        self,
        consumer: AIOKafkaConsumer,
        assignments: _Assignments,
        fetched: _Fetched,
        prepared: Prepared | None,
        refused: list[Refused],
    ) -> None:
        """Apply a batch and commit it, or leave it whole if its partitions are taken away meanwhile.

        `refused` are its records that could not even be read; if none could, nothing is `prepared`.
        """
        # What is in hand waits, too: a store that hangs would otherwise leave no lag to be seen.
        self._note_lag(consumer, {partition: records[0].offset for partition, records in fetched.records.items()})
        delay = _FIRST_DELAY
        while prepared is not None:
            if fetched.assignment != assignments.number:
                return self._abandon(fetched)
            try:
                refused += await self.apply(prepared)
                self.ready(store=None)
                break
            except Retryable as error:
                self.ready(store=str(error))
                _retries.labels(self.group).inc()
            await self._report_lag(consumer, fetched)
            await _wait(assignments.changed, delay * random.uniform(0.75, 1.0))
            delay = min(_LONGEST_DELAY, delay * 2)
        if refused:
            await self._bury(refused)
        if fetched.assignment != assignments.number:
            return self._abandon(fetched)
        await self._commit(consumer, fetched)
        return None

    async def _decode(self, fetched: _Fetched) -> tuple[Batch, list[Refused]]:
        batch = Batch({})
        refused: list[Refused] = []
        for partition, records in fetched.records.items():
            read = batch.partitions.setdefault(partition, [])
            decode = self.decoders[partition.topic].decode
            for some in slices(records):
                await asyncio.sleep(0)
                for source in some:
                    if source.value is None:  # a tombstone: compaction's own, no record
                        _tombstones.labels(self.group, partition.topic).inc()
                        continue
                    try:
                        read.append(Received(decode(source.value), source))
                    except msgspec.ValidationError as error:
                        refused.append(Refused(source, str(error), "invalid"))
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                        refused.append(Refused(source, str(error), "malformed"))
        return batch, refused

    async def _bury(self, refused: Sequence[Refused]) -> None:
        """Put records on dead-letters and wait until Kafka has them."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            client_id=self.component,
            acks="all",
            enable_idempotence=True,
            max_request_size=16 * _FETCH_BYTES,
        )
        try:
            async with asyncio.timeout(_DEAF_SECONDS):
                await producer.start()
                for letter in map(self._letter, refused):
                    try:
                        await self._post(producer, letter)
                    except MessageSizeTooLargeError:  # the topic was given less room than it should have
                        size = len(letter.value or b"")
                        await self._post(producer, msgspec.structs.replace(letter, value=None, omitted=size))
        finally:
            if not await clients.stop(producer):
                log.warning("could not end the producer of dead letters in order")

    async def _post(self, producer: AIOKafkaProducer, letter: DeadLetter) -> None:
        await producer.send_and_wait(DEAD_LETTERS.name, encode(letter), key=letter.topic.encode())
        _dead.labels(self.group, letter.topic, letter.cause).inc()
        log.error(
            "a record went to dead-letters",
            topic=letter.topic,
            partition=letter.partition,
            offset=letter.offset,
            reason=letter.reason,
        )

    def _letter(self, refused: Refused) -> DeadLetter:
        source = refused.source
        return dead_letter(
            component=self.component,
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            timestamp=source.timestamp,
            key=source.key,
            value=source.value,
            cause=refused.cause,
            reason=refused.reason,
            at=self.now(),
            headers=source.headers,
        )

    async def _commit(self, consumer: AIOKafkaConsumer, fetched: _Fetched) -> None:
        offsets = {
            partition: OffsetAndMetadata(records[-1].offset + 1, _fingerprint(records[-1]))
            for partition, records in fetched.records.items()
        }
        try:
            async with asyncio.timeout(_COMMIT_SECONDS):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return self._abandon(fetched)
        for partition, records in fetched.records.items():
            _applied.labels(self.group, partition.topic).inc(len(records))
        self._note_lag(consumer, {partition: records[-1].offset + 1 for partition, records in fetched.records.items()})
        return None

    def _note_lag(self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
        """Tell how much waits from these offsets on, as far as the last fetch knew."""
        for partition, position in positions.items():
            end = consumer.highwater(partition) if partition in consumer.assignment() else None
            if end is not None:
                _lag.labels(self.group, partition.topic, partition.partition).set(max(0, end - position))

    def _abandon(self, fetched: _Fetched) -> None:
        log.info(
            "partitions were taken away: a batch is left to be read again", group=self.group, records=fetched.count
        )
        _abandoned.labels(self.group).inc()

    async def _report_lag(self, consumer: AIOKafkaConsumer, fetched: _Fetched) -> None:
        """Tell how much waits behind a batch that can't be applied; where Kafka is away as well, nothing."""
        try:
            async with asyncio.timeout(_LAG_SECONDS):
                ends = await consumer.end_offsets(list(fetched.records))
        except (KafkaError, TimeoutError):
            return
        for partition, records in fetched.records.items():
            waiting = max(0, ends[partition] - records[0].offset)
            _lag.labels(self.group, partition.topic, partition.partition).set(waiting)


def slices(items: list[Item], size: int = 1000) -> Iterator[list[Item]]:
    """So many at a time: between two slices of long work the event loop gets a turn, and an insert on its way, too."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _fingerprint(record: ConsumerRecord) -> str:
    """What tells a record from any other that may stand at its offset: its time and its content."""
    return identity("record", record.offset, record.timestamp, record.key, record.value)[:16]


def _once_per_change(group: str, ready: Callable[[str | None], None]) -> Callable[[str | None], None]:
    """`ready`, called and logged only when what it says has changed."""
    said: list[str | None] = []

    def say(why_not: str | None) -> None:
        if said and said[-1] == why_not:
            return
        if why_not is not None and said:
            log.warning("not ready", group=group, because=why_not)
        elif why_not is None:
            log.info("ready", group=group)
        said[:] = [why_not]
        ready(why_not)

    return say


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event happens, at most so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
