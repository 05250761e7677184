"""Holdings: what is settled is written, whatever happens to a write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams.holding import Holding

CHANGELOG = TopicPartition("changelog", 0)


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
