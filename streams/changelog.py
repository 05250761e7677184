"""The state of the lanes in Kafka: written by the one worker that holds a partition, followed by all.

A `Replica` follows every changelog from its beginning, so that each worker has the state of every partition at hand
and takes one over without reading it first. A `Writer` writes the state of one partition, and only the worker that
opened it last can: it is a transactional producer whose transactional id is the partition's. Opening it makes the
broker refuse whatever an earlier holder – hung, cut off, taken for dead – still tries to write, and ends what that one
had begun. What is in a lane is decided elsewhere (`lane`), when it is written too (`holding`).

The one idea: **open, then read to the end**. After a writer has been opened nobody else can add to the changelog, so
what stands there then is all that was ever remembered of the partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from . import clients, outbox
from .checkpoint import Checkpoint
from .events import HitstreamError

#: Seconds that Kafka gets to take a write, or to hand over a partition.
TIMEOUT: Final = 30.0
#: Milliseconds between two looks at what came, where nothing comes.
_POLL_MS: Final = 50
#: Milliseconds that a broker may hold an empty answer: how long a partition waits that is followed anew.
_FETCH_WAIT_MS: Final = 250


class Fenced(HitstreamError):
    """Another worker holds the partition now; what this one still wanted to write of it was refused."""


class Replica:
    """What the changelogs hold, by partition: the last committed value of each key.

    A partition that this worker holds itself is not followed: `keep` says what it has written there.
    """

    def __init__(self, bootstrap_servers: str, partitions: Sequence[TopicPartition]) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._partitions = partitions
        self._values: dict[TopicPartition, dict[bytes, bytes]] = {tp: {} for tp in self._partitions}
        self._reached: dict[TopicPartition, int] = {}
        # Where each partition that is held will be followed from again.
        self._held: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self._consumer: AIOKafkaConsumer | None = None

    async def follow(self) -> None:
        """Follow the changelogs until cancelled.

        Raises:
            HitstreamError: one of them can't be read on, because it was cut or made anew.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        try:
            await consumer.start()
            consumer.assign(self._partitions)
            await consumer.seek_to_beginning()
            self._consumer = consumer
            while True:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                for tp, records in fetched.items():
                    if tp not in self._held:
                        self._take(tp, ((record.key, record.value) for record in records))
                async with self._moved:
                    for tp in self._partitions:
                        self._reached[tp] = await consumer.position(tp)
                    self._moved.notify_all()
        except KafkaError as error:
            raise HitstreamError(f"the state can't be read from Kafka: {error!r}") from error
        finally:
            self._consumer = None
            await clients.stop(consumer)

    async def hold(self, tp: TopicPartition) -> Mapping[bytes, bytes]:
        """All values of a partition whose writer has been opened. It is followed no more.

        Raises:
            TimeoutError: they could not be read in time.
        """
        async with asyncio.timeout(TIMEOUT):
            async with self._moved:
                await self._moved.wait_for(lambda: self._reached)
            assert self._consumer is not None
            end = (await self._consumer.end_offsets([tp]))[tp]
            async with self._moved:
                await self._moved.wait_for(lambda: self._reached[tp] >= end)
        self._held[tp] = self._reached[tp]
        self._consumer.pause(tp)
        return self._values[tp]

    def keep(self, tp: TopicPartition, writes: Mapping[bytes, bytes | None], position: int) -> None:
        """Take over what the holder itself has written; `position` is the offset after it."""
        self._take(tp, writes.items())
        self._held[tp] = position

    def release(self, tp: TopicPartition) -> None:
        """Follow a partition again from where it was known last."""
        position = self._held.pop(tp)
        if self._consumer is not None:
            self._consumer.seek(tp, position)
            self._reached[tp] = position
            self._consumer.resume(tp)

    def _take(self, tp: TopicPartition, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        values = self._values[tp]
        for key, value in writes:
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value


class _Entry(msgspec.Struct):
    """A value on its way to a changelog; None: forgotten."""

    topic: str
    key: bytes
    value: bytes | None


class Writer:
    """Writes the state of one partition, for as long as no other worker opens it."""

    def __init__(self, bootstrap_servers: str, app_id: str, tp: TopicPartition, checkpoint: Checkpoint) -> None:
        self._tp = tp
        self._checkpoint = checkpoint
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            transactional_id=f"{app_id}-{tp.topic}-{tp.partition}",
            transaction_timeout_ms=int(TIMEOUT * 1000),
            max_batch_size=outbox.BATCH_BYTES,
            request_timeout_ms=int(TIMEOUT * 1000),
        )

    async def open(self) -> None:
        """Shut out whoever held the partition before, and end what was begun there."""
        async with asyncio.timeout(TIMEOUT):
            await self._producer.start()

    async def write(self, values: Mapping[bytes, bytes | None]) -> int:
        """Write all values or none; returns the offset after the last one.

        Raises:
            Fenced: another worker holds the partition.
            KafkaError, TimeoutError: they were not taken, or nobody knows.
        """
        producer, (topic, partition) = self._producer, self._tp
        try:
            async with asyncio.timeout(TIMEOUT):
                await producer.begin_transaction()
                sent = await outbox.send(
                    producer,
                    (_Entry(topic, key, value) for key, value in values.items()),
                    partition,
                    lambda: self._checkpoint("value-sent", topic),
                )
                end = await sent.acknowledged()
                await self._checkpoint("values-acknowledged", topic)
                await producer.commit_transaction()
        except ProducerFenced as error:
            raise Fenced(f"another worker has taken over {topic}[{partition}]") from error
        await self._checkpoint("state-written", topic)
        return end

    async def close(self) -> None:
        """Let go of the connection. What is not written by now never will be."""
        await clients.stop(self._producer, within=1)
