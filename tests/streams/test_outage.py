"""Kafka goes away and comes back, in every phase of a supervised worker: nobody has to lend a hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fleet import Market, assert_effect, caught_up, eventually, hit, publish, task

from deploy.supervisor import Child

pytestmark = pytest.mark.kafka

#: Seconds after which the worker of this test gives up a write, and longer ones of an outage.
PATIENCE = 3.0
OUTAGE = float(os.environ.get("HITSTREAM_TEST_OUTAGE", "5"))


def freeze(broker: Any) -> Callable[[], None]:
    """Kafka hangs; returns what wakes it."""
    serving = psutil.Process(broker.process.pid)
    processes = [*serving.children(recursive=True), serving]
    for process in processes:
        process.send_signal(signal.SIGSTOP)

    def thaw() -> None:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)

    return thaw


def crash(broker: Any) -> Callable[[], None]:
    """Kafka is killed; returns what starts it again."""
    broker.kill()
    return broker.start  # type: ignore[no-any-return]


def close(broker: Any) -> Callable[[], None]:
    """Kafka is stopped in order; returns what starts it again."""
    broker.stop()
    return broker.start  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def supervised(kafka: str, folder: Path) -> AsyncIterator[Child]:
    """A worker that its supervisor starts again whenever it ends."""
    command = task(kafka, Market(speed=0), instance="one", patience=PATIENCE)
    child = Child("stream", command, dict(os.environ), folder / "stream.log", lambda _: None)
    async with asyncio.TaskGroup() as group:
        group.create_task(child.run())
        try:
            yield child
        finally:
            await child.stop(12)


def step(number: int) -> list[Any]:
    """Stocks enter; those of the step before leave."""
    hits = [hit(f"{number:02}{n:04}", 1000 * number + n) for n in range(200)]
    exits = [hit(f"{number - 1:02}{n:04}", 1000 * number + 500 + n, "exit") for n in range(200 if number else 0)]
    return [*hits, *exits]


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("durable")
async def test_an_outage_ends_without_a_hand(broker: Any, tmp_path: Path) -> None:
    """Kafka away at the start, amid work, amid recovery and at the end: the worker goes on, and nothing is lost."""
    kafka = broker.address
    await publish(kafka, step(0))
    back = close(broker)
    async with supervised(kafka, tmp_path) as worker, httpx.AsyncClient() as client:
        await asyncio.sleep(OUTAGE)
        assert await worker.readiness(client) is not None
        await asyncio.to_thread(back)
        await eventually(lambda: caught_up(kafka))

        await publish(kafka, step(1))
        back = freeze(broker)
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(back)
        await publish(kafka, step(2))
        await eventually(lambda: caught_up(kafka))

        await publish(kafka, step(3))
        worker.kill()

        async def recovering() -> bool:
            return "partitions are being assigned" in (tmp_path / "stream.log").read_text()

        await eventually(recovering)
        back = crash(broker)
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(back)
        await eventually(lambda: caught_up(kafka))

        await publish(kafka, step(4))
        back = freeze(broker)
        stopping = time.monotonic()
        await worker.stop(12)
        assert time.monotonic() - stopping < 11
        await asyncio.to_thread(back)
    async with supervised(kafka, tmp_path):
        await eventually(lambda: caught_up(kafka))
    transitions, _ = await assert_effect(kafka)
    assert len(transitions) == 5 * 200 + 4 * 200
