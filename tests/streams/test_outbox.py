"""The outbox: what it must share with `AIOKafkaProducer.send`, which it stands in for."""

from __future__ import annotations

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from streams import outbox, topics


class Message(msgspec.Struct):
    topic: str
    key: bytes
    value: bytes | None


class Producer:
    """Takes batches of a few hundred bytes, and acknowledges each at an offset."""

    def __init__(self, partitions: int = 3) -> None:
        self.partitions = partitions
        self.batches: list[tuple[str, int, int]] = []
        self.offset = 100

    async def partitions_for(self, _: str) -> set[int]:
        return set(range(self.partitions))

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(300, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        self.batches.append((topic, partition, batch.record_count()))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=self.offset))
        self.offset += batch.record_count()
        return future


def test_no_batch_is_larger_than_what_a_broker_takes() -> None:
    """A broker refuses a whole batch that is larger than the record it would take."""
    assert outbox.BATCH_BYTES < topics.MAX_RECORD


@given(st.binary(min_size=1, max_size=40), st.integers(1, 64))
def test_keys_stand_where_the_producers_put_them(key: bytes, partitions: int) -> None:
    """The place of a key is the one that Kafka's default partitioner gives it."""
    places = list(range(partitions))
    assert outbox.partition_of(key, partitions) == DefaultPartitioner()(key, places, places)


async def test_a_full_batch_is_followed_by_another() -> None:
    """However much it is, and however large one record is, all of it goes, in as many batches as it takes."""
    producer = Producer(partitions=1)
    messages = [Message("t", b"k", b"x" * 100) for _ in range(5)] + [Message("t", b"k", b"x" * 1000)]
    sent = await outbox.send(producer, messages)
    assert [count for _, _, count in producer.batches] == [2, 2, 1, 1]
    assert await sent.acknowledged() == 106


async def test_a_given_partition_takes_all() -> None:
    """State stands where its source stands, whatever its keys."""
    producer = Producer()
    await outbox.send(producer, [Message("t", str(n).encode(), None) for n in range(6)], 2)
    assert {partition for _, partition, _ in producer.batches} == {2}


async def test_nothing_to_send_is_acknowledged_at_once() -> None:
    """A batch of records that lead to nothing writes nothing."""
    sent = await outbox.send(Producer(), [])
    assert await sent.acknowledged() == 0


async def test_one_refused_batch_is_an_error() -> None:
    """What is not acknowledged is never taken for it."""
    refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    refused.set_exception(KafkaError("full"))
    taken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    taken.set_result(SimpleNamespace(offset=0))
    sent = outbox.Sent()
    sent.add(taken, 1)
    sent.add(refused, 1)
    with pytest.raises(KafkaError):
        await sent.acknowledged()


@pytest.mark.kafka
async def test_keys_and_order_are_those_of_send(kafka: str) -> None:
    """A key goes to the partition to which every client sends it, and a partition keeps its order."""
    topic = f"outbox-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 5, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        keys = [f"{n % 40:06}".encode() for n in range(400)]
        there = {key: (await producer.send_and_wait(topic, b"sent", key)).partition for key in set(keys)}
        messages = [Message(topic, key, str(n).encode()) for n, key in enumerate(keys)]
        await (await outbox.send(producer, messages)).acknowledged()
        consumer.assign([TopicPartition(topic, n) for n in range(5)])
        found: dict[int, list[Any]] = {n: [] for n in range(5)}
        async with asyncio.timeout(30):
            while sum(map(len, found.values())) < len(there) + len(keys):
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[tp.partition] += records
        for partition, records in found.items():
            assert {record.key for record in records} == {key for key, number in there.items() if number == partition}
            numbers = [int(record.value) for record in records if record.value != b"sent"]
            assert numbers == sorted(numbers)
    finally:
        await consumer.stop()
        await producer.stop()
