"""Recommendations and what components say of themselves are followed through an outage of Kafka."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from producers import recommended
from producers.recommended import Follower
from streams.events import Status, encode
from streams.topics import STATUS

from ..conftest import Broker

pytestmark = pytest.mark.kafka


async def test_one_that_starts_over_while_kafka_is_away_goes_on_when_it_is_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is let go of just then can't end the follower: a standby would hear nobody any more."""
    monkeypatch.setattr(recommended, "_AFRESH", 3.0)
    monkeypatch.setattr(recommended, "_FIRST_PAUSE", 0.1)
    heard: list[str] = []
    follower = Follower(
        bootstrap_servers=broker.address,
        now=lambda: datetime.now(UTC),
        speed=1.0,
        recommendation=lambda record: None,
        status=lambda status, age: heard.append(status.component),
    )

    async def say(component: str) -> None:
        at = datetime.now(UTC)
        status = Status(component=component, kind="session", state="open", since=at, at=at)
        async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
            await producer.send_and_wait(STATUS.name, encode(status), component.encode())
        while component not in heard:
            assert not following.done(), "the follower has ended"
            await asyncio.sleep(0.02)

    following = asyncio.create_task(follower.run())
    try:
        async with asyncio.timeout(120):
            await say("before")
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(4.0)  # it has started over by now, and found nobody
            assert not following.done(), "the follower has ended"
            await asyncio.to_thread(broker.start)
            await say("after")
    finally:
        following.cancel()
        await asyncio.wait([following])
