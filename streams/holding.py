"""A holding: one partition that this worker holds, with its lane and what of it is still to be written.

The order of durability is kept here. A batch is added once Kafka has all of its outputs; then its state is written,
several batches together; then its offset may be committed. Batches that are decided meanwhile do not wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from aiokafka import TopicPartition

from .changelog import Replica, Writer
from .lane import Lane, Value


class Holding:
    """A lane, the writer of its state, and how far both are.

    `ahead` is the offset after the last record whose outputs Kafka has, `settled` after the last one whose state it has
    too (None: nothing yet).
    """

    def __init__(self, lane: Lane, writer: Writer, replica: Replica, changelog: TopicPartition) -> None:
        self.lane = lane
        self.ahead: int | None = None
        self.settled: int | None = None
        self._writer = writer
        self._replica = replica
        self._changelog = changelog
        self._pending: dict[bytes, Value | None] = {}
        self._settling = asyncio.Lock()

    def add(self, writes: Iterable[tuple[bytes, Value | None]], ahead: int) -> None:
        """Note what changed up to `ahead`; Kafka must have all outputs of it.

        Values are frozen, and only the last one of a key is written: none is encoded before.
        """
        self._pending.update(writes)
        self.ahead = ahead

    async def settle(self) -> int | None:
        """Write what was added; returns what is settled now. Errors as of `Writer.write`."""
        async with self._settling:
            pending, self._pending = self._pending, {}
            ahead = self.ahead
            if pending:
                try:
                    values = {
                        key: None if value is None else msgspec.json.encode(value) for key, value in pending.items()
                    }
                    position = await self._writer.write(values)
                except BaseException:
                    # It is still to be written: nothing after it may be taken for settled.
                    self._pending = pending | self._pending
                    raise
                self._replica.keep(self._changelog, values, position)
            self.settled = ahead
        return ahead

    async def give_up(self) -> None:
        """Hold the partition no more. What was not settled is decided again by whoever holds it next."""
        self._replica.release(self._changelog)
        await self._writer.close()
