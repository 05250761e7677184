"""What is recommended now, and how the other sessions of the account are: from Kafka to the prices.

The producer follows two topics by itself, without a consumer group: `recommendations`, as a recommended stock has a
price slot, and `status`, as one session of an account tells prices (`turns`). Neither is needed: without Kafka the
members of conditions have prices all the same, and what was last known stays in force.

Kafka being away is waited out, and only said once. A record that can't be read is passed over: whoever keeps rows puts
it among the dead letters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import clients, events, topics
from streams.events import Recommendation, Status

from .reading import decoded, seek

_log = structlog.get_logger(__name__)

_TOPICS: Final = (topics.RECOMMENDATIONS, topics.STATUS)
_MARGIN: Final = timedelta(hours=1)  # for clocks that differ
_POLL_MS: Final = 500
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0
_ANSWER: Final = 20.0
_AFRESH: Final = 3600.0

_recommendations = msgspec.json.Decoder(Recommendation)
_statuses = msgspec.json.Decoder(Status)


class Recommended:
    """The stocks of an account that are recommended: pure.

    A revision may come again after a later one, so the highest counts, never the last.
    """

    def __init__(self, account: str) -> None:
        self._account = account
        self._newest: dict[str, Recommendation] = {}

    def apply(self, revision: Recommendation) -> bool:
        """Take a revision in; whether it is news."""
        if revision.account != self._account:
            return False
        known = self._newest.get(revision.recommendation_id)
        if known is not None and known.revision >= revision.revision:
            return False
        if known is None:
            # A recommendation ends with its day, also where nobody was there to say so.
            earlier = [name for name, other in self._newest.items() if other.date < revision.date]
            for name in earlier:
                del self._newest[name]
        self._newest[revision.recommendation_id] = revision
        return True

    def codes(self, day: date) -> frozenset[str]:
        """The stocks that are recommended on this trading date."""
        return frozenset(r.code for r in self._newest.values() if r.state == "open" and r.date == day)


class Follower:
    """Reads both topics, for ever.

    Args:
        now: market time; `speed` its seconds per real second.
        recommendation: is given every revision of the day.
        status: is given every status, and how many real seconds ago it was said, as far as that is known.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        now: Callable[[], datetime],
        speed: float,
        recommendation: Callable[[Recommendation], None],
        status: Callable[[Status, float], None],
    ) -> None:
        self._servers = bootstrap_servers
        self._now = now
        self._speed = speed
        self._recommendation = recommendation
        self._status = status
        self.caught_up = False

    async def run(self) -> None:
        """Follow until cancelled; Kafka's absence is waited out."""
        failures = 0
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._servers,
                client_id="hitstream-producer",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                request_timeout_ms=10_000,
                retry_backoff_ms=500,
            )
            try:
                async with asyncio.timeout(_ANSWER):
                    await consumer.start()
                    ends = await self._assign(consumer)
                failures = 0
                await self._read(consumer, ends)
            except (KafkaError, OSError, TimeoutError) as error:
                if not failures:
                    _log.warning("recommendations are not followed: kafka does not answer", error=repr(error))
                failures += 1
            finally:
                await clients.stop(consumer)
            await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 8)))

    async def _assign(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Take every partition, from where the day begins; where each ends now.

        The topics are looked for among all: asking for one by name could create it.
        """
        there = await consumer.topics()
        wanted = [topic for topic in _TOPICS if topic.name in there]
        consumer.assign([TopicPartition(topic.name, 0) for topic in wanted])
        partitions = []
        for topic in wanted:
            while not (found := consumer.partitions_for_topic(topic.name)):  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.02)
            partitions += [TopicPartition(topic.name, number) for number in sorted(found)]
        consumer.assign(partitions)
        midnight = events.day_end(events.trading_date(self._now())) - timedelta(days=1)
        return await seek(consumer, partitions, midnight - _MARGIN if self._is_real() else None)

    def _is_real(self) -> bool:
        """Whether Kafka's timestamps are those of our clock."""
        return self._speed == 1 and abs(self._now() - datetime.now(UTC)) < timedelta(minutes=1)

    async def _read(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        behind = {place for place, end in ends.items() if await consumer.position(place) < end}
        # Partitions that are added to a topic are found by starting over, once in a while.
        until = time.monotonic() + _AFRESH
        while time.monotonic() < until:
            self.caught_up = self.caught_up or not behind
            for place, messages in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                for message in messages:
                    self._take(place.topic, message.value, old=message.offset < ends[place])
                if messages and messages[-1].offset + 1 >= ends[place]:
                    behind.discard(place)
            await asyncio.sleep(0)

    def _take(self, topic: str, value: bytes | None, *, old: bool) -> None:
        if not value:
            return
        record = decoded(_statuses if topic == topics.STATUS.name else _recommendations, value)
        if record is None:
            return
        if isinstance(record, Status):
            # What is read as it is said is heard now, whatever the other's clock says.
            age = max(0.0, (self._now() - record.at).total_seconds() / self._speed) if old else 0.0
            self._status(record, age)
        else:
            self._recommendation(record)
