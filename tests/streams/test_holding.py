"""Holdings: what is settled is written, whatever happens to a write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.types import TP

from streams import app, topics
from streams.app import Worker
from streams.checkpoint import Checkpoint, Point, pass_by
from streams.events import KST, HitstreamError, Recommend, encode
from streams.holding import Holding
from streams.lane import StandingLane
from streams.recommend import Policy
from streams.settings import RecommendSettings, StreamSettings

CHANGELOG = TopicPartition("changelog", 0)
NOON = datetime(2026, 3, 2, 12, tzinfo=KST)
POLICY = Policy.of([], RecommendSettings())


class Log:
    """A changelog that takes writes, or refuses them."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.error: BaseException | None = None

    async def write(self, values: Mapping[bytes, bytes | None]) -> int:
        if self.error is not None:
            raise self.error
        self.values.update(values)
        return len(self.values)

    def keep(self, *_: Any) -> None:
        """The replica's part: nothing to remember here."""


def holding(log: Any) -> Any:
    lane: Any = None
    return Holding(lane, log, log, CHANGELOG)


async def test_batches_are_written_together_and_settled_as_far_as_they_were_added() -> None:
    """Two batches cost one write; the later value of a key counts."""
    log = Log()
    held = holding(log)
    held.add([(b"a", 1), (b"b", 1)], 5)
    held.add([(b"a", 2), (b"b", None)], 9)
    assert await held.settle() == 9
    assert log.values == {b"a": b"2", b"b": None}
    assert held.settled == 9


async def test_a_batch_without_changes_is_settled_without_a_write() -> None:
    """Records that change nothing move the offset all the same."""
    log = Log()
    log.error = AssertionError("nothing is to be written")
    held = holding(log)
    held.add([], 3)
    assert await held.settle() == 3


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
async def test_a_write_that_failed_is_not_forgotten(error: BaseException) -> None:
    """After a failed or interrupted write nothing is settled until it is written, newer values winning."""
    log = Log()
    held = holding(log)
    held.add([(b"a", 1), (b"b", 1)], 5)
    log.error = error
    with pytest.raises(type(error)):
        await held.settle()
    assert held.settled is None
    held.add([(b"a", 2)], 9)
    log.error = None
    assert await held.settle() == 9
    assert log.values == {b"a": b"2", b"b": b"1"}


class Broker:
    """A producer's broker, which acknowledges a batch when it is told to."""

    def __init__(self) -> None:
        self.batches: list[asyncio.Future[Any]] = []

    async def partitions_for(self, _: str) -> set[int]:
        return {0}

    def create_batch(self) -> Any:
        return BatchBuilder(1 << 16, 0)

    async def send_batch(self, _batch: Any, _topic: str, *, partition: int) -> asyncio.Future[Any]:
        self.batches.append(asyncio.get_running_loop().create_future())
        return self.batches[-1]

    def acknowledge(self, number: int) -> None:
        self.batches[number].set_result(SimpleNamespace(offset=0))


def made(tmp_path: Path, checkpoint: Checkpoint = pass_by) -> Worker:
    """A worker that no Kafka answers."""
    partitions = {topic.name: topic.partitions for topic in topics.ALL}
    settings = StreamSettings()
    return Worker("127.0.0.1:1", partitions, POLICY, settings, str(tmp_path), lambda: NOON, lambda _: None, checkpoint)


def working(tmp_path: Path, checkpoint: Checkpoint = pass_by) -> tuple[Worker, Broker, Any, list[int]]:
    """A worker that holds a partition of transitions, its broker, the partition, and where it would read on."""
    worker = made(tmp_path, checkpoint)
    broker, passed, log, tp = Broker(), list[int](), Log(), TP(topics.TRANSITIONS.name, 0)
    worker._app._consumer = SimpleNamespace(pass_over=lambda _, offset: passed.append(offset))
    worker._app._producer = SimpleNamespace(kafka=broker)
    worker._holdings[tp] = Holding(StandingLane(0, [], 0, POLICY), log, log, CHANGELOG)  # type: ignore[arg-type]
    return worker, broker, tp, passed


def recommended(offset: int) -> Any:
    """A record that leads to a recommendation."""
    code = f"{offset:06}"
    command = Recommend(id="r", code=code, by="kim", at=NOON)
    return SimpleNamespace(value=encode(command), offset=offset, key=code.encode())


async def test_the_next_batch_is_decided_while_outputs_are_on_their_way(tmp_path: Path) -> None:
    """State follows in the order of the log: what Kafka acknowledges early waits for what stands before it."""
    worker, broker, tp, passed = working(tmp_path)
    await worker._derive(tp, [recommended(7)])
    await worker._derive(tp, [recommended(8)])
    assert passed == [8, 9]
    broker.acknowledge(1)
    await asyncio.sleep(0)
    assert worker._holdings[tp].ahead is None
    broker.acknowledge(0)
    await worker._land()
    assert worker._holdings[tp].ahead == 9


async def test_nothing_is_decided_that_too_many_are_on_their_way_before(tmp_path: Path) -> None:
    """Kafka sets the pace: what it has not acknowledged is bounded."""
    worker, broker, tp, passed = working(tmp_path)
    for offset in range(app.IN_FLIGHT):
        await worker._derive(tp, [recommended(offset)])
    waiting = asyncio.create_task(worker._derive(tp, [recommended(app.IN_FLIGHT)]))
    await asyncio.sleep(0)
    assert passed[-1] == app.IN_FLIGHT
    broker.acknowledge(0)
    await waiting
    assert passed[-1] == app.IN_FLIGHT + 1
    for number in range(1, len(broker.batches)):
        broker.acknowledge(number)
    await worker._land()


async def test_a_batch_of_many_outputs_is_sent_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is done by itself: the state that follows ends where its records end."""
    monkeypatch.setattr(app, "MAX_OUTPUTS", 2)
    worker, broker, tp, passed = working(tmp_path)
    await worker._derive(tp, [recommended(offset) for offset in range(5)])
    assert passed == [2, 4, 5]
    broker.acknowledge(0)
    await asyncio.wait_for(eventually_ahead(worker, tp), 60)
    assert worker._holdings[tp].ahead == 2
    for number in (1, 2):
        broker.acknowledge(number)
    await worker._land()
    assert worker._holdings[tp].ahead == 5


async def eventually_ahead(worker: Worker, tp: Any) -> None:
    while worker._holdings[tp].ahead is None:
        await asyncio.sleep(0)


async def test_after_a_batch_that_failed_no_state_follows(tmp_path: Path) -> None:
    """The batches behind it may be in Kafka, but nothing of them is remembered: they are decided again."""
    worker, broker, tp, _ = working(tmp_path)
    await worker._derive(tp, [recommended(7)])
    await worker._derive(tp, [recommended(8)])
    broker.acknowledge(1)
    broker.batches[0].set_exception(KafkaError("refused"))
    await worker._land()
    assert worker._holdings[tp].ahead is None
    with pytest.raises(HitstreamError, match="gave up: Kafka has not acknowledged what was written"):
        await worker._failure


async def test_a_batch_counts_only_for_the_lane_that_has_taken_it(tmp_path: Path) -> None:
    """Where another lane has come in its place meanwhile, that one's state does not follow."""
    log: Any = Log()

    async def checkpoint(point: Point, _topic: str) -> None:
        if point == "outputs-acknowledged":
            worker._holdings[tp] = Holding(StandingLane(0, [], 0, POLICY), log, log, CHANGELOG)

    worker, broker, tp, _ = working(tmp_path, checkpoint)
    await worker._derive(tp, [recommended(7)])
    broker.acknowledge(0)
    await worker._land()
    assert worker._holdings[tp].ahead is None


async def test_what_an_earlier_holder_still_remembers_until_it_is_shut_out_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take a record and write its state while its partition is taken over: that is no log that was cut."""
    tp, code = TP(topics.TRANSITIONS.name, 0), b"005930"
    command = encode(Recommend(id="r", code=code.decode(), by="kim", at=NOON))
    values: dict[bytes, bytes | None] = {}
    end = 0

    class Opened(Log):
        async def open(self) -> None:
            nonlocal end
            earlier = StandingLane(0, [], 0, POLICY)
            earlier.take(command, 0, code)
            values.update((key, msgspec.json.encode(value)) for key, value in earlier.writes())
            end = 1

    async def hold(_: Any) -> dict[bytes, bytes | None]:
        return values

    async def highwaters(*_: Any) -> dict[Any, int]:
        return {tp: end}

    monkeypatch.setattr(app, "Writer", lambda *_: Opened())
    worker = made(tmp_path)
    worker._app._consumer = SimpleNamespace(highwaters=highwaters, assignment=lambda: {tp}, finish=lambda *_: None)
    worker._replica = SimpleNamespace(hold=hold)  # type: ignore[assignment]
    await worker._on_assigned()
    assert worker._holdings[tp].lane.take(command, 0, code).ignored == ["replayed"]
