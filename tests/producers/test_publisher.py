"""The publisher against a real broker: order, identities, acknowledgements, and a broker that is not there."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import REGISTRY

from producers.publisher import Publisher, QueueFull, _partition, route
from producers.spool import Spool
from streams import events, topics

T0 = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)


def event(account: str, condition: str, n: int) -> events.ConditionEvent:
    at = T0 + timedelta(seconds=n)
    return events.ConditionEvent(
        id=events.event_id(account, condition, "005930", "hit", at, 0),
        account=account,
        condition=condition,
        seq="1",
        code="005930",
        action="hit",
        at=at,
        received_at=at,
        session="s",
        frame=n,
        entry=1,
    )


def status(component: str = "session/main/x") -> events.Status:
    return events.Status(component=component, kind="session", state="live", since=T0, at=T0)


def quote(code: str = "0004V0") -> events.Quote:
    return events.Quote(code=code, at=T0, received_at=T0, price=1, high=1, low=1, volume=1, trades=1, session="s")


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def events_of(address: str, account: str, count: int) -> list[events.ConditionEvent]:
    """The first `count` condition events of an account, in the order of the log per partition."""
    consumer = AIOKafkaConsumer(
        topics.CONDITION_EVENTS.name, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None
    )
    found: list[events.ConditionEvent] = []
    decoder = msgspec.json.Decoder(events.ConditionRecord)
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        if (record.key or b"").startswith(account.encode()):  # others may have spoilt theirs
                            said = decoder.decode(record.value)
                            assert record.key == events.condition_key(account, said.condition)
                            found.append(said)
    finally:
        await consumer.stop()
    return found


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.kafka
async def test_records_arrive_in_order_per_key_and_flush_waits_for_them(kafka: str) -> None:
    account = f"a{uuid.uuid4().hex[:8]}"
    sent = [event(account, f"조건{n % 5}", n) for n in range(3000)]
    publisher = Publisher(kafka)
    await publisher.check()
    async with running(publisher):
        for record in sent:
            publisher.offer(record)
        async with asyncio.timeout(60):
            await publisher.flush()
        assert len(publisher) == 0
    found = await events_of(kafka, account, len(sent))
    for condition in {e.condition for e in sent}:
        assert [e.id for e in found if e.condition == condition] == [e.id for e in sent if e.condition == condition]


@pytest.mark.kafka
async def test_what_comes_faster_than_kafka_takes_it_is_paced_and_not_refused(kafka: str) -> None:
    account = f"a{uuid.uuid4().hex[:8]}"
    sent = [event(account, f"조건{n % 5}", n) for n in range(3000)]
    publisher = Publisher(kafka, room=200, spool_after=60.0)
    await publisher.check()
    async with asyncio.timeout(60), running(publisher):
        for record in sent:
            publisher.offer(record)
            await publisher.pace()
        await publisher.flush()
    found = await events_of(kafka, account, len(sent))
    assert {e.id for e in found} == {e.id for e in sent}


async def test_nobody_is_paced_by_a_kafka_that_takes_nothing() -> None:
    publisher = Publisher(f"127.0.0.1:{closed_port()}", room=100, spool_after=0.05)
    for n in range(50):
        publisher.offer(event("a", "c", n))
    async with asyncio.timeout(60):
        for _ in range(100):
            await publisher.pace()
    assert len(publisher) == 50


@pytest.mark.parametrize(
    ("key", "partition"), [(b"foobar", 2), (b"21", 0), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 1)]
)
def test_a_key_is_in_the_partition_where_every_client_has_it(key: bytes, partition: int) -> None:
    """From the Java client's own tests of murmur2 (-790332482, -973932308, -58897971), of 4 partitions."""
    assert _partition(key, 4) == partition


@pytest.mark.kafka
async def test_a_broker_that_goes_away_loses_nothing_and_keeps_the_order(broker: Any) -> None:
    account = f"a{uuid.uuid4().hex[:8]}"
    sent = [event(account, "조건", n) for n in range(600)]
    publisher = Publisher(broker.address)
    await publisher.check()
    async with running(publisher):
        for record in sent[:200]:
            publisher.offer(record)
        async with asyncio.timeout(60):
            await publisher.flush()
        await asyncio.to_thread(broker.stop)
        for record in sent[200:]:
            publisher.offer(record)
        assert len(publisher) == 400
        await asyncio.to_thread(broker.start)
        async with asyncio.timeout(60):
            await publisher.flush()
    found = await events_of(broker.address, account, len(sent))
    first_seen = list(dict.fromkeys(e.id for e in found))
    assert first_seen == [e.id for e in sent]


@pytest.mark.kafka
async def test_missing_topics_are_named_with_what_to_do(broker: Any) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        await admin.delete_topics([topics.STOCKS.name])
        async with asyncio.timeout(60):
            while topics.STOCKS.name in await admin.list_topics():
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
    with pytest.raises(events.HitstreamError, match=r"no topic hitstream.stocks: run `hitstream topics`"):
        await Publisher(broker.address).check()


async def test_an_unreachable_broker_is_named_with_what_to_do() -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(events.HitstreamError, match=f"Kafka does not answer at {address}: start it, or correct"):
        await Publisher(address).check(within=0.5)


async def test_a_full_queue_refuses_records_and_leaves_statuses_out_before_that() -> None:
    publisher = Publisher("127.0.0.1:1", room=10)
    for n in range(5):
        publisher.offer(event("a", "c", n))
    publisher.offer(status())
    assert len(publisher) == 5
    for n in range(5):
        publisher.offer(event("a", "c", n))
    with pytest.raises(QueueFull, match="has taken nothing and 10 records wait"):
        publisher.offer(event("a", "c", 11))


async def test_the_oldest_event_that_waits_is_known() -> None:
    publisher = Publisher("127.0.0.1:1")
    publisher.offer(status())
    assert publisher.oldest is None
    publisher.offer(event("a", "c", 3))
    publisher.offer(event("a", "c", 4))
    assert publisher.oldest == (T0 + timedelta(seconds=3)).timestamp()


@pytest.mark.kafka
async def test_what_waited_on_the_disk_is_not_waited_for_once_kafka_has_it(broker: Any, tmp_path: Path) -> None:
    """A stall that ends before the disk was asked to keep its records must not be the begin of a gap hours later."""
    publisher = Publisher(broker.address, spool=Spool(tmp_path, limit=1_000_000))
    publisher.offer(event("stalled", "c", 1))
    publisher._divert()
    assert (publisher.spooled, publisher.oldest) == (1, (T0 + timedelta(seconds=1)).timestamp())
    async with running(publisher), asyncio.timeout(60):
        await publisher.flush()
        assert publisher.oldest is None


async def test_for_how_long_kafka_has_acknowledged_nothing_of_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"now": 100.0}
    monkeypatch.setattr("producers.publisher.time.monotonic", lambda: seconds["now"])
    publisher = Publisher("127.0.0.1:9")
    seconds["now"] = 200.0
    assert publisher.unacknowledged == 0.0
    publisher.offer(event("waits", "c", 1))
    seconds["now"] = 207.0
    publisher.offer(event("waits", "c", 2))
    assert publisher.unacknowledged == 7.0


async def test_it_is_behind_when_kafka_acknowledges_nothing_or_less_than_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {"now": 100.0}
    monkeypatch.setattr("producers.publisher.time.monotonic", lambda: seconds["now"])
    publisher = Publisher("127.0.0.1:9", spool_after=1.0)
    publisher.offer(event("behind", "c", 0))
    seconds["now"] = 101.0
    assert not publisher.behind
    seconds["now"] = 101.1
    assert publisher.behind
    burst = Publisher("127.0.0.1:9", spool_after=1.0)
    for n in range(5_001):
        assert not burst.behind
        burst.offer(event("behind", "c", n))
    assert burst.behind
    spool: Any = FullSpool()
    assert Publisher("127.0.0.1:9", spool=spool).behind


async def test_stopping_does_not_wait_for_a_broker_that_is_not_there() -> None:
    publisher = Publisher(f"127.0.0.1:{closed_port()}")
    publisher.offer(event("a", "c", 1))
    async with asyncio.timeout(60), running(publisher):
        await asyncio.sleep(0)
    assert len(publisher) == 1


@pytest.mark.parametrize(
    ("record", "topic", "key"),
    [
        (event("main", "신고가 돌파", 1), topics.CONDITION_EVENTS.name, "main/신고가 돌파"),
        (status("subscription/main/x/돌파"), topics.STATUS.name, "subscription/main/x/돌파"),
        (quote(), topics.QUOTES.name, "0004V0"),
        (
            events.Stock(code="0004V0", name="이름", market="KOSPI", received_at=T0),
            topics.STOCKS.name,
            "0004V0",
        ),
    ],
)
def test_every_record_has_its_topic_and_key(record: events.Record, topic: str, key: str) -> None:
    assert route(record) == (topic, key.encode())


def test_a_record_of_others_is_not_published() -> None:
    with pytest.raises(TypeError):
        route(events.Withdraw(id="1", code="005930", by="x", at=T0))


class FullSpool:
    """A spool in which something waits, and which has no more room where that is said."""

    def __init__(self, *, crowded: bool = False) -> None:
        self.crowded = crowded

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("reason", "room", "spool", "record", "options"),
    [
        ("superseded", 10, FullSpool(), status(), {"passing": True}),
        ("crowded", 10, FullSpool(crowded=True), status(), {}),
        ("superseded", 10, FullSpool(), quote(), {"passing": True}),
        ("crowded", 10, FullSpool(crowded=True), quote(), {}),
        ("crowded", 0, None, status(), {}),
        ("full", 0, None, event("drops", "c", 1), {}),
        ("too-large", 10, None, event("drops", "c" * topics.MAX_RECORD, 1), {}),
    ],
)
def test_what_is_not_taken_is_counted_by_its_reason(
    reason: str, room: int, spool: Any, record: events.Record, options: dict[str, bool]
) -> None:
    """Nothing is left out without a figure; a hit that finds no room is refused aloud besides."""
    publisher = Publisher("127.0.0.1:9", room=room, spool=spool)
    topic, _ = route(record)
    labels = {"topic": topic, "reason": reason}
    before = REGISTRY.get_sample_value("hitstream_producer_dropped_total", labels) or 0.0
    with pytest.raises(QueueFull) if reason == "full" else nullcontext():
        publisher.offer(record, **options)
    assert REGISTRY.get_sample_value("hitstream_producer_dropped_total", labels) == before + 1
    assert len(publisher) == (0 if spool is None else 1)


async def test_a_record_that_no_broker_takes_does_not_hold_up_the_others(kafka: str) -> None:
    """A search of thousands of stocks is taken; what is larger still is left out, and what comes behind it arrives."""
    account = uuid.uuid4().hex
    row = events.SearchRow(
        code="005930", name="삼성전자우선주", price=1_316_500, change=-12_300, change_rate=-5.24, open=1_316_500,
        high=1_316_500, low=1_316_500, volume=123_456_789,
    )  # fmt: skip

    def search(rows: int) -> events.SearchResult:
        return events.SearchResult(
            id=f"{account}-{rows}", account=account, condition="c", seq="1", rows=(row,) * rows, at=T0, received_at=T0,
            session="s",
        )  # fmt: skip

    publisher = Publisher(kafka)
    async with running(publisher):
        for record in (search(4_000), search(8_000), event(account, "c", 1)):
            publisher.offer(record)
        found: list[Any] = await events_of(kafka, account, 2)
    assert [type(record).__name__ for record in found] == ["SearchResult", "ConditionEvent"]
    assert len(found[0].rows) == 4_000
