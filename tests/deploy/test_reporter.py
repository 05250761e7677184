"""What a process says of itself: its state in words, its figures, its last word – and a name that does not multiply."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry, Counter, Gauge

from deploy import reporter
from deploy.reporter import CLICKHOUSE, LIVE, WORKER, Kind, Reporter, instance
from deploy.status_command import judge, read
from streams.events import HitstreamError, Status

NOW = datetime(2026, 3, 2, tzinfo=UTC)
KIND = Kind("worker", "worker", {"lag": "test_lag", "records": "test_records_total"}, "test_progress_timestamp_seconds")


def reporting(
    bootstrap_servers: str = "127.0.0.1:9",
    name: str = "here",
    *,
    kind: Kind = KIND,
    now: Callable[[], datetime] = lambda: NOW,
    speed: float = 1.0,
    registry: CollectorRegistry | None = None,
) -> Reporter:
    return Reporter(
        kind, name, bootstrap_servers=bootstrap_servers, now=now, speed=speed, registry=registry or CollectorRegistry()
    )


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "state", "cause", "since"),
    [
        ([], "starting", "", 0),
        (["waiting for Kafka"], "starting", "waiting for Kafka", 0),
        (["waiting for Kafka", "recovering tables"], "starting", "recovering tables", 0),
        (["recovering tables", None], "working", "", 2),
        ([None, None, None], "working", "", 1),
        ([None, "Kafka is away"], "waiting", "Kafka is away", 2),
        ([None, "Kafka is away", "ClickHouse is away"], "waiting", "ClickHouse is away", 2),
        ([None, "Kafka is away", None], "working", "", 3),
    ],
)
def test_a_state_follows_from_what_the_role_says(reasons: list[str | None], state: str, cause: str, since: int) -> None:
    """`since` is when the state began, not its latest cause."""
    clock = {"now": NOW}
    one = reporting(now=lambda: clock["now"])
    for n, reason in enumerate(reasons, 1):
        clock["now"] = NOW + timedelta(seconds=n)
        one.ready(reason)
    status = one.status()
    assert (status.state, status.cause, status.since) == (state, cause, NOW + timedelta(seconds=since))
    assert (status.component, status.kind, status.at) == ("worker/here", "worker", clock["now"])


def test_figures_are_sums_of_what_the_role_counts() -> None:
    registry = CollectorRegistry()
    lag = Gauge("test_lag", "-", ["partition"], registry=registry)
    lag.labels("0").set(3)
    lag.labels("1").set(4)
    Counter("test_records", "-", registry=registry).inc(9)
    assert reporting(registry=registry).status().figures == {"lag": 7.0, "records": 9.0}
    assert reporting().status().figures == {"lag": 0.0, "records": 0.0}


def test_proof_of_life_is_the_last_progress_on_the_products_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    registry = CollectorRegistry()
    progress = Gauge("test_progress_timestamp_seconds", "-", registry=registry)
    one = reporting(registry=registry, speed=60.0)
    assert one.status().proof_of_life is None
    progress.set(990)
    assert one.status().proof_of_life == NOW - timedelta(minutes=10)
    other = reporting(kind=KIND._replace(progress=""))
    assert other.status().proof_of_life is None
    other.ready(None)
    assert other.status().proof_of_life == NOW


@pytest.mark.parametrize("kind", [WORKER, CLICKHOUSE, LIVE])
def test_every_figure_is_of_a_metric_that_there_is(kind: Kind) -> None:
    """A metric that is renamed would leave its figure at zero without a word."""
    for module in ("streams.app", "sinks.clickhouse.writer", "sinks.live.server"):
        importlib.import_module(module)
    known = {family.name for family in reporter.REGISTRY.collect()}
    for metric in (*kind.figures.values(), *filter(None, (kind.progress,))):
        assert metric.removesuffix("_total") in known


# --- how it gets there ------------------------------------------------------------------------------------------------


async def last(kafka: str, component: str) -> Status | None:
    return next((s for s in await read(kafka) if s.component == component), None)


async def until(kafka: str, component: str, state: str) -> Status:
    async with asyncio.timeout(60):
        while (status := await last(kafka, component)) is None or status.state != state:
            await asyncio.sleep(0.05)
        return status


async def test_a_process_says_how_it_is_and_how_it_ends(kafka: str) -> None:
    """Each change at once; the last word is that it was stopped."""
    name = f"told-{os.getpid()}"
    one = reporting(kafka, name, now=lambda: datetime.now(UTC))
    gone_on = asyncio.Event()

    async def role() -> None:
        one.ready("waiting for a friend")
        await gone_on.wait()
        one.ready(None)
        await asyncio.Event().wait()

    running = asyncio.create_task(one.beside(role()))
    assert (await until(kafka, one.component, "starting")).cause == "waiting for a friend"
    gone_on.set()
    await until(kafka, one.component, "working")
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    stopped = await last(kafka, one.component)
    assert stopped is not None
    assert (stopped.state, stopped.cause) == ("stopped", "stopped")


async def test_a_process_that_fails_says_why(kafka: str) -> None:
    name = f"failed-{os.getpid()}"
    one = reporting(kafka, name)

    async def role() -> None:
        await until(kafka, one.component, "starting")
        raise HitstreamError("the disk is full: make room")

    with pytest.raises(HitstreamError, match="the disk is full"):
        await one.beside(role())
    failed = await last(kafka, one.component)
    assert failed is not None
    assert (failed.state, failed.cause) == ("failed", "the disk is full: make room")


@pytest.mark.parametrize("outcome", [None, HitstreamError("wrong"), ValueError("a bug")])
async def test_where_nobody_listens_a_role_runs_and_ends_as_it_would(
    outcome: Exception | None, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saying how it is must never hold up what it is about."""
    monkeypatch.setattr(reporter, "_LAST_SECONDS", 0.1)
    one = reporting(f"127.0.0.1:{unused_tcp_port}")
    ran = []

    async def role() -> None:
        ran.append(True)
        if outcome:
            raise outcome

    work: Coroutine[Any, Any, None] = one.beside(role())
    if outcome:
        with pytest.raises(type(outcome), match=str(outcome)):
            await work
    else:
        await work
    assert ran == [True]


# --- names ------------------------------------------------------------------------------------------------------------


async def test_a_process_that_kafka_does_not_hear_does_not_try_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it waits for changed once, before the first try: that is one more try at most, not one after the other."""
    tries = 0

    class Deaf(AIOKafkaProducer):
        async def start(self) -> None:
            nonlocal tries
            tries += 1
            raise KafkaConnectionError("nobody listens")

    async def role() -> None:
        one.ready("waiting for Kafka")
        for _ in range(1_000):
            await asyncio.sleep(0)

    monkeypatch.setattr(reporter, "AIOKafkaProducer", Deaf)
    one = reporting()
    await one.beside(role())
    assert 1 <= tries <= 3


def test_names_are_used_again_and_do_not_multiply(tmp_path: Path) -> None:
    """The machine's name for the first process of a role, a number for each further one, and the first that is free."""
    host = socket.gethostname()
    with instance("worker", folder=tmp_path) as first, instance("sink/live", folder=tmp_path) as other_role:
        with instance("worker", folder=tmp_path) as second, instance("worker", folder=tmp_path) as third:
            assert (first, second, third, other_role) == (host, f"{host}-2", f"{host}-3", host)
        with instance("worker", folder=tmp_path) as again:
            assert again == f"{host}-2"
    with instance("worker", folder=tmp_path) as again:
        assert again == host


def test_a_configured_name_is_used_as_it_is(tmp_path: Path) -> None:
    with instance("worker", "pod-0", tmp_path) as name, instance("worker", "pod-0", tmp_path) as same:
        assert (name, same) == ("pod-0", "pod-0")


def test_where_no_lock_can_be_held_a_process_still_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with instance("worker", folder=tmp_path / "file" / "below") as name:
        assert name == f"{socket.gethostname()}-{os.getpid()}"


# --- how it is read ---------------------------------------------------------------------------------------------------


def status(component: str, state: str, age: float = 1.0) -> Status:
    kind: Any = "worker" if component.startswith("worker") else "sink"
    return Status(component=component, kind=kind, state=state, since=NOW, at=NOW - timedelta(seconds=age))


@pytest.mark.parametrize(
    ("statuses", "words", "fine"),
    [
        ([status("worker/a", "working")], ["working"], [True]),
        ([status("worker/a", "starting")], ["starting"], [False]),
        ([status("worker/a", "working", age=21)], ["silent"], [False]),
        ([status("worker/a", "stopped")], ["stopped"], [False]),
        ([status("worker/a", "stopped"), status("worker/b", "working")], ["stopped", "working"], [True, True]),
        ([status("worker/a", "working"), status("worker/b", "working", age=60)], ["working", "silent"], [True, True]),
        ([status("worker/a", "working"), status("sink/live/a", "waiting")], ["working", "waiting"], [True, False]),
        (
            [status("sink/live/a", "working"), status("sink/clickhouse/a", "failed")],
            ["working", "failed"],
            [True, False],
        ),
    ],
)
def test_a_role_is_fine_where_one_of_its_processes_is(
    statuses: list[Status], words: list[str], fine: list[bool]
) -> None:
    lines = judge(statuses, NOW)
    assert ([line.word for line in lines], [line.fine for line in lines]) == (words, fine)
