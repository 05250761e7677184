"""What a broker can do to a worker: each is told with its remedy while it lasts, and over when it is over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from streams import topics
from streams.events import KST
from streams.settings import ConditionRule, RecommendSettings

from ..conftest import Broker
from .cluster import Second, place
from .fleet import decoded, eventually, hit, publish, read
from .workers import Clock, Role

pytestmark = pytest.mark.kafka

CONDITION = ConditionRule(name="신고가 돌파")


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, kafka_engine: str) -> Iterator[tuple[Broker, Second]]:
    """Two brokers; one partition of `transitions` is on the second one alone, `recommendations` must be on both."""
    if kafka_engine != "apache":
        pytest.skip("two brokers can be had of Apache Kafka only")
    folder = tmp_path_factory.mktemp("brokers")
    first = Broker(folder / "first", kafka_engine)
    second = Second(first, folder / "second")
    try:
        first.start()
        second.start()
        both = [(1, 2)] * topics.RECOMMENDATIONS.partitions
        asyncio.run(place(first.address, topics.TRANSITIONS, [(2,), (1,), (1,), (1,)]))
        asyncio.run(place(first.address, topics.RECOMMENDATIONS, both, min_insync_replicas="2"))
        yield first, second
    finally:
        second.wipe()
        first.wipe()


class Flow:
    """A worker at work, and hits of one stock after the other for it."""

    def __init__(self, kafka: str, role: Role) -> None:
        self.kafka = kafka
        self.role = role
        self._codes: list[str] = []

    async def hits(self, count: int) -> None:
        """Write hits of stocks that were not hit before."""
        codes = [f"{next(_numbers):06d}" for _ in range(count)]
        self._codes += codes
        await publish(self.kafka, [hit(code, 0) for code in codes])

    async def is_told(self, *words: str) -> None:
        """Wait until its readiness says these words."""

        async def says() -> bool:
            reason = await self.role.readiness() or ""
            return all(word in reason for word in words)

        await eventually(says)

    async def is_done(self) -> None:
        """Wait until it is ready and every stock that was hit is recommended."""

        async def done() -> bool:
            found = decoded(await read(self.kafka, topics.RECOMMENDATIONS), "recommendation")
            return set(self._codes) <= {r["code"] for r in found} and await self.role.readiness() is None

        await eventually(done)


_numbers = iter(range(1, 1_000_000))


@asynccontextmanager
async def flowing(kafka: str, folder: Path) -> AsyncIterator[Flow]:
    role = Role(
        "stream", kafka, folder, Clock(datetime(2026, 3, 2, 9, tzinfo=KST), 1.0), [CONDITION], RecommendSettings()
    )
    async with role.running():
        flow = Flow(kafka, role)
        await flow.hits(20)
        await flow.is_done()
        yield flow


async def test_a_partition_without_a_leader_and_one_that_takes_no_writes(
    brokers: tuple[Broker, Second], tmp_path: Path
) -> None:
    """With the second broker a partition of `transitions` has no leader and `recommendations` too few replicas."""
    first, second = brokers
    async with flowing(first.address, tmp_path) as flow:
        await asyncio.to_thread(second.stop)
        await flow.hits(40)
        await flow.is_told("hitstream.transitions/0 without a leader: start the broker")
        await flow.is_told("does not acknowledge what is written to", "hitstream.recommendations", "full disk")
        await asyncio.to_thread(second.start)
        await flow.is_done()
    assert "without a leader" in flow.role.log.read_text()


async def test_a_broker_that_is_killed_and_comes_back(brokers: tuple[Broker, Second], tmp_path: Path) -> None:
    """Killed in the middle of batches; the worker says what it waits for, and goes on."""
    first, second = brokers
    async with flowing(first.address, tmp_path) as flow:
        await flow.hits(200)
        await asyncio.gather(asyncio.to_thread(first.kill), asyncio.to_thread(second.kill))
        await flow.is_told("Kafka does not answer: start it again")
        await asyncio.to_thread(first.start)
        await asyncio.to_thread(second.start)
        await flow.is_done()


async def test_a_broker_that_is_slow(brokers: tuple[Broker, Second], tmp_path: Path) -> None:
    """Both brokers run for a twentieth of the time: everything takes longer, and nothing is given up."""
    first, second = brokers
    async with flowing(first.address, tmp_path) as flow:
        slowing = asyncio.create_task(slow_down([first, second], 12))
        await flow.hits(100)
        await slowing
        await flow.is_done()
        assert flow.role.child.restarts == 0


async def slow_down(brokers: list[Broker], bursts: int) -> None:
    """Let the brokers run in bursts."""
    javas = [
        child
        for broker in brokers
        if broker.process is not None
        for child in psutil.Process(broker.process.pid).children(recursive=True)
        if child.name() == "java"
    ]
    assert javas
    for _ in range(bursts):
        for number, seconds in ((signal.SIGSTOP, 0.4), (signal.SIGCONT, 0.02)):
            for java in javas:
                os.kill(java.pid, number)
            await asyncio.sleep(seconds)
