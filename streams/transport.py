"""The batch lane: how records reach the Faust app, and what may be committed.

Faust's own transport builds four tasks for every record and commits what was *acknowledged* – and it acknowledges a
record whose agent raised, one that was dropped from a queue during a rebalance, and, where offsets have gaps, ones
that nobody has seen. Here an agent gets one message for each batch fetched from a partition (`message.batch`), and only
what the app itself declared done (`Consumer.done`) is ever committed. Faust keeps what it is good at: the group, the
assignment, and recovering tables from their changelogs.

Written against faust-streaming 0.15.3; the tests of `streams.app` kill workers to prove it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

#: Records in one batch, at most: what is decided, sent, written and committed together.
MAX_BATCH: Final = 500


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Hands out batches and commits what is done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The offset after the last record of each partition whose outputs and state Kafka has acknowledged.
        self.done: dict[Any, int] = {}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 – Faust's signature
        """One message for each batch of a partition; changelogs record by record, as table recovery reads them."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            # A rebalance began while we fetched: what was fetched is fetched again after it.
            await self.perform_seek()
            return
        for aiokafka_tp, fetched in records.items():
            tp = TP(aiokafka_tp.topic, aiokafka_tp.partition)
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                continue
            step = 1 if self._is_changelog_tp(tp) else MAX_BATCH
            for start in range(0, len(fetched), step):
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                chunk = fetched[start : start + step]
                message = self._to_message(tp, chunk[-1])
                if step > 1:
                    message.batch = chunk
                    message.value = b""  # Faust swallows a message without a value, and with it the batch
                yield tp, message

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self.done.pop(tp, None)

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


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the two above."""

    Consumer = Consumer
    Producer = Producer
