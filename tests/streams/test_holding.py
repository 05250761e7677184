"""Holdings: what is settled is written, whatever happens to a write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from streams import app, topics
from streams.app import Worker
from streams.checkpoint import Point, pass_by
from streams.events import KST, Recommend, Withdraw, encode
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


def holding(log: Any) -> Holding:
    lane: Any = None
    return Holding(lane, log, log, CHANGELOG)


async def test_batches_are_written_together_and_settled_as_far_as_they_were_added() -> None:
    """Two batches cost one write; the later value of a key counts."""
    log = Log()
    held = holding(log)
    held.add([(b"a", b"1"), (b"b", b"1")], 5)
    held.add([(b"a", b"2"), (b"b", None)], 9)
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
    held.add([(b"a", b"1"), (b"b", b"1")], 5)
    log.error = error
    with pytest.raises(type(error)):
        await held.settle()
    assert held.settled is None
    held.add([(b"a", b"2")], 9)
    log.error = None
    assert await held.settle() == 9
    assert log.values == {b"a": b"2", b"b": b"1"}


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_batch_counts_only_for_the_lane_that_has_taken_it(replaced: bool, tmp_path: Path) -> None:
    """Where another lane has come in its place meanwhile, that one must read the batch from where it was made."""
    tp = TP(topics.TRANSITIONS.name, 0)

    async def checkpoint(point: Point, _topic: str) -> None:
        if replaced and point == "outputs-acknowledged":
            worker._holdings[tp] = Holding(StandingLane(0, [], 0, POLICY), log, log, CHANGELOG)

    partitions = {topic.name: topic.partitions for topic in topics.ALL}
    worker = Worker(
        "127.0.0.1:1", partitions, POLICY, StreamSettings(), str(tmp_path), lambda: NOON, lambda _: None, checkpoint
    )
    log: Any = Log()
    passed: list[int] = []
    worker._app._consumer = SimpleNamespace(pass_over=lambda _, offset: passed.append(offset))
    worker._app._producer = SimpleNamespace()
    worker._holdings[tp] = Holding(StandingLane(0, [], 0, POLICY), log, log, CHANGELOG)
    command = Withdraw(id="w", code="005930", by="kim", at=NOON)
    await worker._derive(tp, [SimpleNamespace(value=encode(command), offset=7, key=b"005930")])
    assert passed == ([] if replaced else [8])
    assert worker._holdings[tp].ahead == (None if replaced else 8)


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
            values.update(earlier.writes())
            end = 1

    async def hold(_: Any) -> dict[bytes, bytes | None]:
        return values

    async def highwaters(*_: Any) -> dict[Any, int]:
        return {tp: end}

    monkeypatch.setattr(app, "Writer", lambda *_: Opened())
    partitions = {topic.name: topic.partitions for topic in topics.ALL}
    worker = Worker(
        "127.0.0.1:1", partitions, POLICY, StreamSettings(), str(tmp_path), lambda: NOON, lambda _: None, pass_by
    )
    worker._app._consumer = SimpleNamespace(highwaters=highwaters, assignment=lambda: {tp}, finish=lambda *_: None)
    worker._replica = SimpleNamespace(hold=hold)  # type: ignore[assignment]
    await worker._on_assigned()
    assert worker._holdings[tp].lane.take(command, 0, code).ignored == ["replayed"]
