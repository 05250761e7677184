"""Ten minutes without Kafka in trading hours: nothing is lost, the order is kept, every identity is the first one.

The market, the session, the publisher's queue and the spool on the disk are the real ones, on virtual time; only the
broker is a list. The producer is also killed in the middle of it, with what it had in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from producers import publisher
from producers.publisher import Publisher
from producers.spool import Spool
from streams import events, topics
from streams.events import KST, ConditionRecord, Gap, Record

from .days import LOGIN
from .virtual import Kiwoom, Ledger, Loop, Producer

MONDAY = date(2026, 3, 9)
TORN = 3
"""Records of a batch that arrive before its connection breaks."""


class Batch:
    """What a producer puts records into before it sends them together."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []

    def append(self, *, key: bytes, value: bytes, timestamp: None) -> object:
        self.records.append((key, value))
        return self


class Kafka:
    """A broker that keeps what it is sent, and can go away in the middle of a batch."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes, bytes]] = []
        self.away = False
        self._still = 0

    def tear(self) -> None:
        """Of the next batch some records arrive, and nobody hears of it."""
        self._still = TORN

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[object]:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        for key, value in batch.records:
            if self.away and not self._still:
                future.set_exception(KafkaConnectionError("away"))
                return future
            self._still = max(0, self._still - 1)
            self.log.append((topic, key, value))
        future.set_result(None)
        return future


class Road:
    """The way from a producer to Kafka. What `Publisher.run` does with tasks and sleeps is done by the virtual loop."""

    def __init__(self, loop: Loop, kafka: Kafka, folder: Path, runner: asyncio.Runner) -> None:
        self.publisher = Publisher("kafka", spool=Spool(folder, limit=1 << 30))
        self.offered: list[bytes] = []
        self.killed = False
        self._loop = loop
        self._kafka = kafka
        self._runner = runner
        self._busy = False
        self._watch()
        self._pump()

    def offer(self, record: Record) -> None:
        if isinstance(record, events.Status):
            return
        self.publisher.offer(record)
        self.offered.append(events.encode(record))
        if not self._busy:
            self._busy = True
            self._loop.call_in(0.005, self._pump)

    def kill(self, covered: dict[str, datetime]) -> dict[str, datetime]:
        """SIGKILL: memory is gone, the files are what they are. Until when each condition is covered (`service`)."""
        self.killed = True
        self.close()  # Its bytes were the system's already: nothing is written here.
        oldest = self.publisher.oldest
        limit = datetime.max.replace(tzinfo=UTC) if oldest is None else datetime.fromtimestamp(oldest, UTC)
        return {name: min(at, limit) for name, at in covered.items()}

    def close(self) -> None:
        assert self.publisher._spool is not None
        self.publisher._spool._close()

    def _pump(self) -> None:
        if self.killed:
            return
        self._busy = True
        try:
            while len(self.publisher):
                self._runner.run(self.publisher._send_head(cast(AIOKafkaProducer, self._kafka)))
        except KafkaConnectionError:
            self._loop.call_in(1.0, self._pump)
        else:
            self._busy = False

    def _watch(self) -> None:
        waiting = self.publisher
        if waiting._queue and self._loop.t - waiting._progress > waiting._spool_after:
            waiting._divert()
        if not self.killed:
            self._loop.call_in(publisher._WATCH_EVERY, self._watch)


class Stage:
    """The beginning of a trading day without Kafka from 09:01 to 09:11; meanwhile Kiwoom cuts the connection twice."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.loop = Loop(datetime.combine(MONDAY, LOGIN, KST), seed=11)
        self.kiwoom = Kiwoom(self.loop, seed=11, activity=3.0)
        self.kafka = Kafka()
        self._folder = folder
        self._runner = runner
        self.roads: list[Road] = []
        self.most_in_memory = 0

    def start(self, covered: dict[str, datetime] | None = None) -> Producer:
        road = Road(self.loop, self.kafka, self._folder, self._runner)
        self.roads.append(road)
        producer = Producer(self.loop, self.kiwoom, on_record=road.offer, covered=covered)
        producer.start()
        return producer

    def until(self, hour: int, minute: int, second: float = 0) -> None:
        moment = datetime.combine(MONDAY, time(hour, minute), KST) + timedelta(seconds=second)
        self.loop.run(self.loop.second(moment))

    def records(self) -> list[tuple[bytes, ConditionRecord]]:
        decode = msgspec.json.Decoder(ConditionRecord).decode
        return [(v, decode(v)) for topic, _, v in self.kafka.log if topic == topics.CONDITION_EVENTS.name]

    def wrong(self) -> list[str]:
        """What the log, read in its order, is short of, and what it says too much."""
        ledger = Ledger(self.loop)
        for _, record in self.records():
            ledger.record(cast(Record, record))
        return ledger.check(self.kiwoom.exchange, self.kiwoom.happened, [])


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        stage = Stage(tmp_path / "spool", runner)
        monkeypatch.setattr(publisher, "time", SimpleNamespace(monotonic=lambda: stage.loop.t))
        yield stage
        stage.roads[-1].close()


def without_kafka(stage: Stage, killed_at: float | None) -> None:
    producer = stage.start()
    stage.until(9, 1)
    stage.kafka.away = True
    if killed_at is None or killed_at > 60:
        stage.until(9, 3)
        stage.kiwoom.befall("close-abrupt")
        stage.until(9, 4)
        stage.kafka.tear()
    if killed_at is not None:
        stage.until(9, 1, killed_at)
        covered = stage.roads[-1].kill(producer.kill())
        stage.until(9, 1, killed_at + 5)
        producer = stage.start(covered)
    stage.until(9, 9)
    stage.kiwoom.befall("close-abrupt")
    stage.until(9, 11)
    assert stage.roads[-1].publisher.spooled > 50, "nothing waited on the disk"
    assert not stage.roads[-1].publisher._queue, "what waits for long waits in memory"
    stage.kafka.away = False
    stage.until(9, 14)
    assert len(stage.roads[-1].publisher) == 0


def once(values: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(values))


def test_ten_minutes_without_kafka_lose_nothing_and_keep_the_order(stage: Stage) -> None:
    without_kafka(stage, killed_at=None)
    assert stage.wrong() == []
    told = [value for value, _ in stage.records()]
    assert len(told) > len(once(told)), "the batch that was torn did not come again"
    assert once(told) == stage.roads[0].offered
    outage = [event for _, record in stage.records() if isinstance(event := record, Gap)]
    assert {gap.cause for gap in outage} == {"the connection broke"}, "the absence of Kafka is no gap"


@pytest.mark.parametrize("killed_at", [301.5, 455.0])
def test_a_producer_that_is_killed_meanwhile_loses_nothing_either(stage: Stage, killed_at: float) -> None:
    without_kafka(stage, killed_at)
    assert stage.wrong() == []
    told = once([value for value, _ in stage.records()])
    assert told == stage.roads[0].offered + stage.roads[1].offered, "what the first one had said comes first"
    assert "the producer was not running" in {r.cause for _, r in stage.records() if isinstance(r, Gap)}


def test_one_that_is_killed_before_the_disk_was_used_tells_the_gap(stage: Stage) -> None:
    """What was in memory alone is lost – and the gap begins before it."""
    without_kafka(stage, killed_at=0.9)
    assert stage.wrong() == []
    told = once([value for value, _ in stage.records()])
    lost = [value for value in stage.roads[0].offered if value not in set(told)]
    gaps = [r for _, r in stage.records() if isinstance(r, Gap) and r.cause == "the producer was not running"]
    decode = msgspec.json.Decoder(ConditionRecord).decode
    for record in map(decode, lost):
        assert any(g.condition == record.condition and g.from_ <= record.received_at <= g.to for g in gaps)
