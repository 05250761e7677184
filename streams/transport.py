"""The batch lane: how records reach the Faust app, and what may be committed.

Faust's own transport builds four tasks for every record, and commits what was *acknowledged*: also a record whose agent
raised, one that was dropped from a queue during a rebalance, one that stands in a gap of offsets. And it loses records
where a partition has no committed offset yet: what was fetched and dropped while it got ready is not read again.
So here

- an agent gets one message for each batch fetched from a partition (`message.batch`);
- only what the app declared done (`Consumer.done`) is ever committed;
- `Consumer.expected` says where the next batch of a partition must begin; where one begins later, the partition is
  read again from there, and what was taken already is left out;
- a partition that stays ours through a rebalance goes on where it was (`Consumer.kept`).

Faust keeps what it is good at: the group, the assignment, the agents. Written against faust-streaming 0.15.3; the tests
of `streams.app` kill workers to prove it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from . import metrics
from .checkpoint import Checkpoint, pass_by

log = structlog.get_logger(__name__)

#: How often a hole is read again before it is taken for one in the log.
_REREADS: Final = 5


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread in which Faust has its Kafka consumer."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust says 1.5 s, for which whoever goes to another offset may wait: an answer must come before he is asked.
        consumer._fetch_max_wait_ms = int(self.transport.fetch_wait * 1000)
        return consumer

    def close(self) -> None:
        """Close the connections, in the loop that reads from them.

        Faust, which is asked to where partitions come while it stops, does it in the app's loop. A process on uvloop
        does not survive that.
        """
        if self._consumer is not None:
            self._consumer._closed = True
            for part in (self._consumer._client, self._consumer._coordinator):
                asyncio.run_coroutine_threadsafe(part.close(), self.thread_loop)


class _NothingRead(dict[Any, Any]):
    """Faust drops what lies before the last offset that it passed on. Here `Consumer.expected` decides instead."""

    def __getitem__(self, tp: Any) -> None:
        return None


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Hands out batches, without a hole, and commits what is done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The offset after the last record of each partition whose outputs and state Kafka has acknowledged.
        self.done: dict[Any, int] = {}
        #: Where the next batch of each partition must begin.
        self.expected: dict[Any, int] = {}
        #: Where partitions go on that stay ours: their state here is ahead of what is committed.
        self.kept: dict[Any, int] = {}
        self._read_offset = _NothingRead()
        self._seeks: Counter[Any] = Counter()
        self._holes: Counter[tuple[Any, int]] = Counter()

    def _new_consumer_thread(self) -> Any:
        # A loop of the same kind as ours (uvloop): Faust would make one of asyncio's.
        thread = _Thread(self, loop=self.loop, beacon=self.beacon, thread_loop=type(self.loop)())
        thread._close_thread_loop_on_stop = True
        return thread

    def pass_over(self, tp: Any, offset: int) -> None:
        """Expect the next batch at `offset`: what stands before it was taken."""
        if tp in self.expected:
            self.expected[tp] = offset

    def finish(self, tp: Any, offset: int) -> None:
        """Declare everything before `offset` done."""
        self.done[tp] = offset

    async def next_of(self, message: Any) -> Sequence[Any]:
        """The records of a batch that are next in their partition: none where it is stale, or where others are missing.

        What is missing is read again. A hole that stays is one in the log (retention, transactions): it is said and
        passed over.
        """
        tp, batch = message.tp, message.batch
        if message.generation_id != self.app.consumer_generation_id or message.seeks != self._seeks[tp]:
            return ()
        first, expected = batch[0].offset, self.expected.get(tp)
        if expected is None:
            return ()  # fetched before we went to where this partition goes on
        if first > expected:
            place = {"topic": tp.topic, "partition": tp.partition, "offset": expected}
            self._holes[tp, expected] += 1
            if self._holes[tp, expected] <= _REREADS:
                log.info("records were skipped, reading again", **place)
                self._seeks[tp] += 1
                await self._thread.seek_wait({tp: expected})
                return ()
            log.warning("records are missing from the log", until=first, **place)
        elif first < expected:
            if (await self.highwaters(tp))[tp] >= expected:
                return [record for record in batch if record.offset >= expected]
            log.warning("the log was cut, reading what there is", topic=tp.topic, partition=tp.partition, offset=first)
        return batch  # type: ignore[no-any-return]

    async def perform_seek(self) -> None:
        """Go to where each partition goes on: what was kept, else the committed offset, else the log's beginning."""
        self.expected.clear()
        committed = {
            TP(tp.topic, tp.partition): (tp, offset) for tp, offset in (await self.seek_to_committed()).items()
        }
        kept = {tp: offset for tp, offset in self.kept.items() if tp in committed}
        if kept:
            await self._thread.seek_wait(kept)
        fresh = [aiokafka_tp for tp, (aiokafka_tp, offset) in committed.items() if not offset and tp not in kept]
        beginnings = await self.earliest_offsets(*fresh) if fresh else {}
        if fresh:
            await self._thread.seek_wait({TP(tp.topic, tp.partition): beginnings[tp] for tp in fresh})
        for tp, (aiokafka_tp, offset) in committed.items():
            if offset:
                self._committed_offset[tp] = offset
            self.expected[tp] = kept[tp] if tp in kept else offset or beginnings[aiokafka_tp]
            self._seeks[tp] += 1

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 – Faust's signature
        """One message for each batch of a partition."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        seeks = self._seeks.copy()
        if records is None or self.should_stop or not self.flow_active:
            return  # what was fetched while a rebalance began is read again after it
        for aiokafka_tp, fetched in records.items():
            tp = TP(aiokafka_tp.topic, aiokafka_tp.partition)
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                continue
            most = self.transport.batch_records
            for start in range(0, len(fetched), most):
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                message = self._to_message(tp, fetched[min(start + most, len(fetched)) - 1])
                message.batch = fetched[start : start + most]
                message.seeks = seeks[tp]
                message.value = b""  # Faust swallows a message without a value, and with it the batch
                yield tp, message

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        self.expected.clear()  # no batch is begun any more; what is on its way is waited for
        await super().on_partitions_revoked(revoked)
        self.done.clear()

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        committed = bool(await super()._commit(offsets))
        metrics.COMMITS.labels("done" if committed else "refused").inc()
        for topic in {tp.topic for tp in offsets}:
            await self.transport.checkpoint("offset-committed", topic)
        return committed

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterable[Any]:
        return [tp for tp in self.done if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: Any) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self.done.get(tp)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Gaps do not matter: what is done says it."""


class Producer(driver.Producer):  # type: ignore[misc]
    """Every record acknowledged by all replicas and written once, in the order in which it was sent."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    @property
    def kafka(self) -> Any:
        """The `AIOKafkaProducer` behind it."""
        return self._ensure_producer()


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the two above.

    `batch_records` and `fetch_wait` (seconds) are those of `StreamSettings`.
    """

    batch_records: int
    fetch_wait: float
    Consumer = Consumer
    Producer = Producer
    checkpoint: Checkpoint = staticmethod(pass_by)
