"""A client is let go of whatever state the broker is in: nothing of it stays, and nobody ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import clients
from streams.topics import STATUS

from ..conftest import Broker

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """No task that is begun here outlives it, once the loop has gone round."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0.05)
    assert [task for task in asyncio.all_tasks() - before if not task.done()] == []


async def reading(address: str, group: str | None, **options: Any) -> AIOKafkaConsumer:
    """A consumer with a place in its topic, and a fetch on its way."""
    consumer = AIOKafkaConsumer(
        STATUS.name, bootstrap_servers=address, group_id=group, auto_offset_reset="earliest", **options
    )
    await consumer.start()
    for place in consumer.assignment():
        await consumer.position(place)
    await consumer.getmany(timeout_ms=100)
    return consumer


def connections(client: Any) -> list[Any]:
    return [one for one in client._conns.values() if one.connected()]


async def between_tries(consumer: AIOKafkaConsumer) -> None:
    """Wait until a fetch has failed and waits for its next try: from then on that is how it spends its time."""
    async with asyncio.timeout(30):
        while not any(map(_sleeps, consumer._fetcher._pending_tasks)):
            await asyncio.sleep(0.01)


def _sleeps(task: asyncio.Task[Any]) -> bool:
    # A fetch that is at the broker stands in `send`, one that waits for its next try in a handler of its own.
    awaited = task.get_coro().cr_await  # type: ignore[union-attr]
    return awaited is not None and getattr(awaited, "__name__", "") == "sleep"


@pytest.mark.parametrize("group", [None, "somebody"])
async def test_a_consumer_of_a_broker_that_answers_ends_in_order(kafka: str, group: str | None) -> None:
    async with alone():
        consumer = await reading(kafka, group)
        assert await clients.stop(consumer)
        assert connections(consumer._client) == []


async def test_a_consumer_that_waits_for_its_next_try_ends_and_nobody_with_it(broker: Broker) -> None:
    """aiokafka itself would raise a CancelledError here, and whoever follows a topic would end without a word."""
    async with alone():
        consumer = await reading(broker.address, None, retry_backoff_ms=20_000)
        broker.kill()
        await between_tries(consumer)
        assert await clients.stop(consumer)
        assert connections(consumer._client) == []


async def test_a_member_whose_broker_is_gone_leaves_no_task_behind(broker: Broker) -> None:
    async with alone():
        consumer = await reading(broker.address, "somebody")
        broker.kill()
        assert not await clients.stop(consumer, within=0.5)
        assert connections(consumer._client) == []


async def test_a_producer_whose_broker_is_gone_fails_what_it_has_and_leaves_no_task_behind(broker: Broker) -> None:
    async with alone():
        producer = AIOKafkaProducer(bootstrap_servers=broker.address, enable_idempotence=True)
        await producer.start()
        broker.kill()
        waiting = await producer.send(STATUS.name, b"{}", b"nobody")
        assert not await clients.stop(producer, within=0.5)
        assert connections(producer.client) == []
        with pytest.raises(KafkaError, match="given up"):
            await waiting


async def test_what_a_producer_has_is_sent_before_it_ends(kafka: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=500)
    await producer.start()
    waiting = await producer.send(STATUS.name, b"{}", b"nobody")
    assert await clients.stop(producer)
    assert (await waiting).topic == STATUS.name


async def test_whoever_is_cancelled_while_he_lets_go_is_cancelled_and_leaves_nothing(broker: Broker) -> None:
    async with alone():
        consumer = await reading(broker.address, "somebody")
        broker.kill()
        letting_go = asyncio.create_task(clients.stop(consumer, within=60))
        await asyncio.sleep(0.2)
        letting_go.cancel()
        await asyncio.wait([letting_go])
        assert letting_go.cancelled()
        assert connections(consumer._client) == []


async def test_a_client_that_never_began_is_let_go_of() -> None:
    async with alone():
        assert await clients.stop(AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1"))
        assert await clients.stop(AIOKafkaProducer(bootstrap_servers="127.0.0.1:1"))
