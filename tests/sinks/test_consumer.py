"""The loop of group-consuming sinks, against a real broker."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError
from prometheus_client import REGISTRY

from sinks import consumer as loop
from sinks.consumer import Batch, KafkaUnavailable, Refused, Retryable, TopicsMissing, consume
from streams.events import DeadLetter, HitstreamError, Record, Redrive, Stock, encode
from streams.topics import DEAD_LETTERS, Topic

pytestmark = pytest.mark.kafka

WHEN = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)


def stock(number: int) -> Stock:
    return Stock(code=f"{number:06d}", name=f"stock {number}", market="KOSPI", received_at=WHEN)


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Store:
    """What a sink applied, and how often; `down` makes it refuse everything, `poison` one code for ever."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.batches: list[int] = []
        self.prepared: list[int] = []
        self.down = False
        self.poison: str | None = None
        self.attempts = 0
        self.said: list[str | None] = []

    @property
    def is_ready(self) -> bool:
        return bool(self.said) and self.said[-1] is None

    async def prepare(self, batch: Batch) -> Batch:
        self.prepared.append(len(batch))
        return batch

    async def apply(self, batch: Batch) -> Sequence[Refused]:
        self.attempts += 1
        if self.down:
            raise Retryable("the store is down")
        refused = []
        self.batches.append(len(batch))
        for received in batch.records():
            assert isinstance(received.record, Stock)
            if received.record.code == self.poison:
                refused.append(Refused(received.source, "poison"))
            else:
                self.applied.append(received.record.code)
        return refused


class Feed:
    """A topic and a group of this test's own."""

    def __init__(self, bootstrap: str, partitions: int = 2) -> None:
        self.bootstrap = bootstrap
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.group = f"group-{name}"
        self.topic = Topic(
            name=name, key="code", partitions=partitions, retention_ms=86_400_000, records=(Stock,), doc="of a test"
        )

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(self.topic.name, self.topic.partitions, 1)])
        finally:
            await admin.close()

    async def delete(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([self.topic.name])
        finally:
            await admin.close()

    async def send(self, *values: Record | bytes | None, partition: int | None = None) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            for number, value in enumerate(values):
                raw = encode(value) if isinstance(value, Record) else value
                to = number % self.topic.partitions if partition is None else partition
                await producer.send(self.topic.name, raw, key=b"k", partition=to)
            await producer.flush()
        finally:
            await producer.stop()

    async def committed(self) -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(
                self.group, partitions=[TopicPartition(self.topic.name, p) for p in range(self.topic.partitions)]
            )
        except GroupCoordinatorNotAvailableError:  # a new broker, on which no group has been yet
            return {}
        finally:
            await admin.close()
        return {p.partition: o.offset for p, o in offsets.items() if o.offset >= 0}

    async def settled(self, total: int) -> None:
        """Wait until the group has committed so many records."""
        async with asyncio.timeout(60):
            while sum((await self.committed()).values()) != total:
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def sink(self, store: Store, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
        """A running sink, cancelled at the end."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "topics": (self.topic,),
            "group": self.group,
            "component": "test-sink",
            "prepare": store.prepare,
            "apply": store.apply,
            "batch_rows": 1000,
            "batch_seconds": 0.05,
            "now": lambda: WHEN,
            "ready": store.said.append,
        }
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(consume(**(arguments | options)))
            try:
                yield task
            finally:
                task.cancel()


@pytest.fixture
async def feed(kafka: str) -> Feed:
    feed = Feed(kafka)
    await feed.create()
    return feed


async def dead_letters(bootstrap: str, topic: str, count: int) -> list[DeadLetter]:
    """The dead letters of a topic, as soon as there are so many."""
    consumer = AIOKafkaConsumer(DEAD_LETTERS.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[DeadLetter] = []
    try:
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    letters = (msgspec.json.decode(r.value, type=DeadLetter | Redrive) for r in records)
                    found += [one for one in letters if isinstance(one, DeadLetter) and one.topic == topic]
    finally:
        await consumer.stop()
    return found


async def test_everything_is_applied_once_and_then_committed(feed: Feed) -> None:
    store = Store()
    await feed.send(*map(stock, range(100)))
    async with feed.sink(store):
        await feed.settled(100)
        await feed.send(*map(stock, range(100, 120)))
        await feed.settled(120)
    assert sorted(store.applied) == [stock(n).code for n in range(120)]


async def test_a_restart_goes_on_behind_what_was_committed(feed: Feed) -> None:
    first, second = Store(), Store()
    await feed.send(*map(stock, range(10)))
    async with feed.sink(first):
        await feed.settled(10)
    await feed.send(*map(stock, range(10, 14)))
    async with feed.sink(second):
        await feed.settled(14)
    assert sorted(second.applied) == [stock(n).code for n in range(10, 14)]


async def test_a_batch_ends_by_its_rows(feed: Feed) -> None:
    store = Store()
    await feed.send(*map(stock, range(50)))
    async with feed.sink(store, batch_rows=7, batch_seconds=60):
        await until(lambda: len(store.applied) >= 49)
    assert store.batches[:7] == [7] * 7


async def test_a_batch_ends_by_its_time(feed: Feed) -> None:
    """One record after quiet does not wait for others."""
    store = Store()
    async with feed.sink(store, batch_rows=1000, batch_seconds=0.05):
        await until(lambda: store.is_ready)
        await feed.send(stock(1))
        await until(lambda: store.applied)
    assert store.batches == [1]


async def test_a_store_that_is_down_is_waited_for_and_loses_nothing(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LONGEST_DELAY", 0.2)
    store = Store()
    async with feed.sink(store):
        await until(lambda: store.is_ready)
        store.down = True
        await feed.send(*map(stock, range(20)))
        await until(lambda: store.attempts >= 5)
        assert store.applied == []
        assert await feed.committed() in ({}, {0: 0, 1: 0})
        store.down = False
        await feed.settled(20)
    assert sorted(store.applied) == [stock(n).code for n in range(20)]
    changes = [said for said in store.said if said in (None, "the store is down")]
    assert changes == [None, "the store is down", None], "each change of state is said once"


async def test_what_a_store_hangs_on_is_lag(feed: Feed) -> None:
    """A store that neither takes nor refuses: what is in hand is the only thing that tells."""
    held, free = asyncio.Event(), asyncio.Event()

    class Hanging(Store):
        async def apply(self, batch: Batch) -> Sequence[Refused]:
            held.set()
            await free.wait()
            return await super().apply(batch)

    def lag() -> float:
        labels = [{"group": feed.group, "topic": feed.topic.name, "partition": str(p)} for p in range(2)]
        return sum(REGISTRY.get_sample_value("hitstream_sink_lag_records", each) or 0.0 for each in labels)

    await feed.send(*map(stock, range(6)), partition=0)
    async with feed.sink(Hanging()):
        async with asyncio.timeout(60):
            await held.wait()
        assert lag() == 6
        free.set()
        await feed.settled(6)
        await until(lambda: lag() == 0)


async def test_while_a_batch_is_applied_the_next_one_is_prepared_and_no_other(feed: Feed) -> None:
    """Nothing is applied or committed out of its order, and what comes after two batches waits in Kafka."""
    free = asyncio.Event()
    running = 0

    class Slow(Store):
        async def apply(self, batch: Batch) -> Sequence[Refused]:
            nonlocal running
            running += 1
            assert running == 1, "one at a time"
            await free.wait()
            running -= 1
            return await super().apply(batch)

    store = Slow()
    await feed.send(*map(stock, range(10)), partition=0)
    async with feed.sink(store, batch_rows=2):
        await until(lambda: len(store.prepared) == 2)
        await asyncio.sleep(0.3)  # long enough for a third one, if it came
        assert store.prepared == [2, 2]
        assert await feed.committed() == {}
        free.set()
        await feed.settled(10)
    assert store.applied == [stock(n).code for n in range(10)]


async def test_what_was_prepared_behind_a_batch_that_was_cut_off_comes_again_in_order(feed: Feed) -> None:
    hanging = asyncio.Event()

    class Hanging(Store):
        async def apply(self, batch: Batch) -> Sequence[Refused]:
            hanging.set()
            await asyncio.Event().wait()
            return []

    store, after = Hanging(), Store()
    await feed.send(*map(stock, range(6)), partition=0)
    async with feed.sink(store, batch_rows=2):
        await until(lambda: len(store.prepared) == 2 and hanging.is_set())
    assert await feed.committed() == {}
    async with feed.sink(after):
        await feed.settled(6)
    assert after.applied == [stock(n).code for n in range(6)]


async def test_a_batch_that_is_abandoned_by_cancelling_comes_again(feed: Feed) -> None:
    store, after = Store(), Store()
    store.down = True
    await feed.send(*map(stock, range(5)))
    async with feed.sink(store):
        await until(lambda: store.attempts >= 1)
    async with feed.sink(after):
        await feed.settled(5)
    assert len(after.applied) == 5


@pytest.mark.parametrize(
    "bad",
    [b"not json", b"\xff\xfe", b'{"type":"stock","code":1}', b'{"type":"unheard-of"}', b"[" * 5000],
    ids=["text", "bytes", "wrong-field", "unknown-type", "nested"],
)
async def test_a_record_that_cannot_be_read_goes_to_dead_letters_and_the_rest_goes_on(feed: Feed, bad: bytes) -> None:
    store = Store()
    await feed.send(stock(1), bad, stock(2), partition=1)
    async with feed.sink(store):
        await feed.settled(3)
    assert store.applied == [stock(1).code, stock(2).code]
    (letter,) = await dead_letters(feed.bootstrap, feed.topic.name, 1)
    assert (letter.value, letter.key) == (bad, b"k")
    assert (letter.partition, letter.offset, letter.component) == (1, 1, "test-sink")
    assert letter.reason


async def test_a_record_that_the_store_refuses_for_ever_goes_to_dead_letters(feed: Feed) -> None:
    store = Store()
    store.poison = stock(3).code
    await feed.send(*map(stock, range(6)))
    async with feed.sink(store):
        await feed.settled(6)
    (letter,) = await dead_letters(feed.bootstrap, feed.topic.name, 1)
    assert letter.reason == "poison"
    assert msgspec.json.decode(letter.value or b"", type=Stock) == stock(3)
    assert len(store.applied) == 5


async def test_a_tombstone_is_passed_over(feed: Feed) -> None:
    store = Store()
    await feed.send(stock(1), None, stock(2), partition=0)
    async with feed.sink(store):
        await feed.settled(3)
    assert store.applied == [stock(1).code, stock(2).code]


async def test_a_second_sink_takes_over_without_loss(feed: Feed) -> None:
    """A rebalance while a batch is in hand: what is not committed is read again by whoever has the partition then."""
    stuck, other = Store(), Store()
    stuck.down = True
    await feed.send(*map(stock, range(40)))
    async with feed.sink(stuck):
        await until(lambda: stuck.attempts >= 1)
        async with feed.sink(other):
            await until(lambda: len(other.applied) == 20)  # its one of the two partitions
            stuck.down = False
            await feed.settled(40)
    assert {*stuck.applied, *other.applied} == {stock(n).code for n in range(40)}


async def test_a_topic_that_was_deleted_and_has_grown_past_the_old_offset_is_read_from_its_start(feed: Feed) -> None:
    """An offset alone can't tell: the broker may have kept the group's offsets, or a client may have set them."""
    store, after = Store(), Store()
    await feed.send(*map(stock, range(10)), partition=0)
    async with feed.sink(store):
        await feed.settled(10)
    other = Feed(feed.bootstrap)
    await other.create()
    await other.send(*map(stock, range(100, 125)), partition=0)
    await _give_offsets_of(feed, other)
    async with other.sink(after):
        await until(lambda: len(after.applied) >= 25)
        await other.settled(25)
    assert after.applied == [stock(n).code for n in range(100, 125)]


async def test_an_offset_beyond_the_end_reads_from_the_start(feed: Feed) -> None:
    store, after = Store(), Store()
    await feed.send(*map(stock, range(10)), partition=0)
    async with feed.sink(store):
        await feed.settled(10)
    other = Feed(feed.bootstrap)
    await other.create()
    await other.send(*map(stock, range(100, 104)), partition=0)
    await _give_offsets_of(feed, other)
    async with other.sink(after):
        await other.settled(4)
    assert after.applied == [stock(n).code for n in range(100, 104)]


async def _give_offsets_of(old: Feed, new: Feed) -> None:
    """Commit for the new topic and group what the old ones have: what a topic created anew under its name finds."""
    admin = AIOKafkaAdminClient(bootstrap_servers=old.bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(old.group, partitions=[TopicPartition(old.topic.name, 0)])
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=old.bootstrap, group_id=new.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(new.topic.name, 0)])
        await consumer.commit({TopicPartition(new.topic.name, 0): next(iter(offsets.values()))})
    finally:
        await consumer.stop()


async def test_a_broker_that_comes_back_empty_between_two_runs_is_read_anew(broker: Any) -> None:
    feed = Feed(broker.address)
    await feed.create()
    before, after = Store(), Store()
    await feed.send(*map(stock, range(30)))
    async with feed.sink(before):
        await feed.settled(30)
    await asyncio.to_thread(broker.wipe)
    await asyncio.to_thread(broker.start)
    await feed.create()
    await feed.send(*map(stock, range(50, 58)))
    async with feed.sink(after):
        await feed.settled(8)
    assert sorted(after.applied) == [stock(n).code for n in range(50, 58)]


async def test_a_broker_that_comes_back_empty_under_a_running_sink_is_read_anew(broker: Any) -> None:
    feed = Feed(broker.address)
    await feed.create()
    store = Store()
    await feed.send(*map(stock, range(30)))
    async with feed.sink(store):
        await feed.settled(30)
        await asyncio.to_thread(broker.wipe)
        await asyncio.to_thread(broker.start)
        await feed.create()
        await feed.send(*map(stock, range(50, 130)))
        await until(lambda: {stock(n).code for n in range(50, 130)} <= set(store.applied), 60)


async def test_kafka_away_is_said_and_survived(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SILENCE_SECONDS", 0.8)
    feed = Feed(broker.address)
    await feed.create()
    store = Store()
    async with feed.sink(store):
        await until(lambda: store.is_ready)
        await asyncio.to_thread(broker.stop)
        await until(lambda: not store.is_ready)
        assert broker.address in str(store.said[-1])
        await asyncio.to_thread(broker.start)
        await until(lambda: store.is_ready, 60)
        await feed.send(stock(1))
        await until(lambda: store.applied)


async def test_no_kafka_at_the_start_is_one_sentence_with_its_address() -> None:
    feed = Feed("127.0.0.1:1")
    with pytest.raises(ExceptionGroup) as raised:
        async with feed.sink(Store()) as task:
            await asyncio.wait([task])
    assert raised.group_contains(KafkaUnavailable, match="127.0.0.1:1")
    assert issubclass(KafkaUnavailable, HitstreamError)


async def test_missing_topics_are_named_with_the_command_that_creates_them(kafka: str) -> None:
    feed = Feed(kafka)
    with pytest.raises(ExceptionGroup) as raised:
        async with feed.sink(Store()) as task:
            await asyncio.wait([task])
    assert raised.group_contains(TopicsMissing, match=f"{feed.topic.name}.*hitstream topics")
