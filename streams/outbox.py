"""Many records to Kafka at once: one batch for each partition that they go to.

aiokafka's `send` costs a coroutine, a future and a murmur2 in Python for each record, which is more than what the rules
cost. Here records are appended to batches directly (`create_batch`, `send_batch`). What that must not change: a key
goes to the partition that every Kafka client sends it to, the records of a partition keep their order, and a batch is
either there with all of its records or not.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from aiokafka.partitioner import murmur2

#: Bytes of a batch, before compression. A partition takes the next one only when the one before is on its way to the
#: broker, so what is decided together should fit into one; a broker takes 1 MiB by default.
BATCH_BYTES: Final = 512 * 1024


class Message(Protocol):
    """One record as Kafka takes it."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes | None: ...


class Sent:
    """Records that were handed to a producer: batches that Kafka has yet to acknowledge."""

    def __init__(self) -> None:
        self._batches: list[tuple[asyncio.Future[Any], int]] = []

    def add(self, acknowledged: asyncio.Future[Any], records: int) -> None:
        """One more batch, and the future of its place."""
        self._batches.append((acknowledged, records))

    async def acknowledged(self) -> int:
        """Wait until Kafka has all of them; returns the offset after the last one (0: there was none).

        Raises:
            KafkaError: it has not taken a batch in the producer's request time-out, or has refused it.
        """
        places = await asyncio.gather(*(future for future, _ in self._batches))
        return int(places[-1].offset) + self._batches[-1][1] if places else 0


@functools.lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's clients send a key on a topic of so many partitions."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


async def send(
    producer: Any,
    messages: Iterable[Message],
    partition: int | None = None,
    handed_over: Callable[[], Awaitable[None]] | None = None,
) -> Sent:
    """Hand records to an `AIOKafkaProducer`; `handed_over` is awaited after each batch.

    They go to `partition`, or each to that of its key. A partition takes one batch at a time, so this waits where one
    is full while another is on its way.

    Raises:
        KafkaError: a batch was not taken in the producer's request time-out.
    """
    counts: dict[str, int] = {}
    batches: dict[tuple[str, int], list[Any]] = {}
    now = int(time.time() * 1000)
    for message in messages:
        topic, key, value = message.topic, message.key, message.value
        if topic not in counts:
            counts[topic] = len(await producer.partitions_for(topic))
        place = topic, partition_of(key, counts[topic]) if partition is None else partition
        of_place = batches.get(place)
        if of_place is None:
            of_place = batches[place] = [producer.create_batch()]
        if of_place[-1].append(timestamp=now, key=key, value=value) is None:
            # Full. The first record of a batch is always taken.
            of_place.append(producer.create_batch())
            of_place[-1].append(timestamp=now, key=key, value=value)
    sent = Sent()
    for (topic, number), of_place in batches.items():
        for batch in of_place:
            batch.close()
            sent.add(await producer.send_batch(batch, topic, partition=number), batch.record_count())
            if handed_over is not None:
                await handed_over()
    return sent
