"""From Kafka to the hub: reads every partition of six topics by itself, without a consumer group.

The hub's state is in memory, so what counts is not where a group stopped but where the day begins: after each start the
reader goes back there, and only when it has caught up with the ends it saw are browsers told anything. A record that
can't be read is counted and skipped; the sink that keeps rows puts it among the dead letters.

Of the condition events, which are many, only the gaps are wanted: the others are told by their first bytes and not
decoded.

Prices are read last. They are by far the most, and a quote is worth something only where it is known what it is a
quote of: so browsers are shown the day as soon as the other topics are read, and prices when those of the day are.

Where the day begins: `stocks` and `status` are read whole. A transition, recommendation, gap or quote of a day is
written on that day, so with a real clock reading starts at the first record written since an hour before the day began.
With a simulated clock Kafka's timestamps say nothing about market time, and everything that is kept is read.

The log may be replaced under a running hub (a broker whose data was deleted): its first record is then another one, or
it ends before the place that was read last. What was read is then no longer what is, and the hub starts over in a new
epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from prometheus_client import Counter, Gauge

from streams import clients, events, topics
from streams.events import HitstreamError, Record, Status
from streams.tasks import TaskGroup

from .hub import Hub, new_epoch
from .stream import Broadcaster, folded

TOPICS: Final = (
    topics.STOCKS, topics.STATUS, topics.RECOMMENDATIONS, topics.TRANSITIONS, topics.CONDITION_EVENTS, topics.QUOTES
)  # fmt: skip
OF_THE_DAY: Final = (topics.RECOMMENDATIONS, topics.TRANSITIONS, topics.CONDITION_EVENTS, topics.QUOTES)
MARGIN: Final = timedelta(hours=1)  # for clocks that differ, and records dated a little ahead
CONNECT_SECONDS: Final = 15.0
PROBE_SECONDS: Final = 5.0  # between two looks at the log's ends, and for each
PLACED: Final = (topics.RECOMMENDATIONS.name, topics.TRANSITIONS.name)  # what a browser must never see go back
PRICES_FOLLOW: Final = "reading the prices of today"
COMPONENT: Final = "live/hub"
TOLD_OF_HUBS: Final = "sink/live/"  # what hubs are called on the topic

_records = Counter("hitstream_live_records_total", "Records read.", ["topic"])
_bad = Counter("hitstream_live_bad_records_total", "Records that could not be read, and were skipped.", ["topic"])
_left_out = Counter(
    "hitstream_live_left_out_total", "What the hub had no room for, or dropped to make room: the oldest.", ["what"]
)
_lag = Gauge("hitstream_live_lag_records", "Records written and not read yet.")
_rebuilds = Counter("hitstream_live_rebuilds_total", "How often the log was replaced and the day read anew.")
_log = structlog.get_logger(__name__)

_GATHERING: Final = 0.004  # s between two reads

_decoders: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    topics.STOCKS.name: msgspec.json.Decoder(events.Stock),
    topics.STATUS.name: msgspec.json.Decoder(events.Status),
    topics.RECOMMENDATIONS.name: msgspec.json.Decoder(events.Recommendation),
    topics.TRANSITIONS.name: msgspec.json.Decoder(events.StockRecord),
    topics.CONDITION_EVENTS.name: msgspec.json.Decoder(events.ConditionRecord),
    topics.QUOTES.name: msgspec.json.Decoder(events.Quote),
}
# The others begin with their tag, as `events.encode` writes them.
_PASSED_OVER: Final = tuple(
    f'{{"type":"{record.__struct_config__.tag}"'.encode()
    for record in (events.ConditionEvent, events.ConditionSnapshot, events.SearchResult, events.Due)
)


class _Replaced(Exception):
    """The log is not the one that was read before."""


class _First(msgspec.Struct, frozen=True):
    """The first record that a partition keeps: its offset, and its Kafka timestamp in ms."""

    offset: int
    timestamp: int


def decode(topic: str, value: bytes | None) -> Record | None:
    """A record of a topic; None for one that deletes its key.

    Raises:
        ValueError: the bytes are no record of this topic, or its times have no zone.
        RecursionError: they are nested too deeply to be one.
    """
    if value is None or (topic == topics.CONDITION_EVENTS.name and value.startswith(_PASSED_OVER)):
        return None
    record: Record = _decoders[topic].decode(value)
    for name in ("at", "received_at", "from_", "to"):
        moment = getattr(record, name, None)
        if moment is not None and moment.tzinfo is None:
            raise ValueError(f"{name} has no time zone")
    return record


def is_replaced(before: _First | None, after: _First | None, position: int, end: int) -> bool:
    """Whether a partition is another one than was read up to `position`.

    Its end never moves back, and its first record only moves on, when the broker deletes or compacts.
    """
    if end < position:
        return True
    if before is None or after is None:
        return False
    return after.offset < before.offset or (after.offset == before.offset and after.timestamp != before.timestamp)


class Reader:
    """Feeds the hub of a broadcaster from the topics, and says when it may be shown.

    Args:
        broadcaster: is opened when the hub has caught up, and closed while it is rebuilt.
        bootstrap_servers: Kafka.
        now: market time.
        speed: market seconds per real second.
        ready: is told None when caught up, and otherwise why not.
        fetch_wait: seconds that Kafka may hold an empty answer. A partition that is not part of the fetch that is on
            its way – its last records were still being applied – waits for that answer.
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        *,
        bootstrap_servers: str,
        now: Callable[[], datetime],
        speed: float,
        ready: Callable[[str | None], None],
        fetch_wait: float = 0.1,
    ) -> None:
        self._fetch_wait = fetch_wait
        self._broadcaster = broadcaster
        self._hub: Hub = broadcaster.hub
        self._servers = bootstrap_servers
        self._now = now
        self._speed = speed
        self._ready = ready
        self._first: dict[TopicPartition, _First | None] = {}
        # What the next record of the `PLACED` topics is, in one order for all hubs.
        self._place: dict[TopicPartition, int] = {}
        self._state = "starting"
        self._since = now()

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            HitstreamError: Kafka can't be reached at the start, or has not all topics.
        """
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            client_id="hitstream-live",
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=10_000,
            fetch_max_wait_ms=int(self._fetch_wait * 1000),
            retry_backoff_ms=200,
        )
        try:
            partitions = await self._connect(consumer)
            while True:
                try:
                    async with TaskGroup() as group:
                        group.create_task(self._read(consumer, partitions))
                        group.create_task(self._watch(consumer, partitions))
                except* _Replaced as group_of_one:
                    _rebuilds.inc()
                    _log.warning("live.log_replaced", why=str(group_of_one.exceptions[0]))
                    self._broadcaster.close()
                    self._hub.clear(new_epoch())
                    self._first = {}
        finally:
            await clients.stop(consumer)

    async def _connect(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        self._ready(f"connecting to Kafka at {self._servers}")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await consumer.start()
                return await self._assign(consumer)
        except (KafkaError, OSError, TimeoutError) as error:
            raise HitstreamError(
                f"Kafka can't be reached at {self._servers}: start it, or set kafka.bootstrap_servers."
            ) from error

    async def _assign(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        there = await consumer.topics()
        missing = [topic.name for topic in TOPICS if topic.name not in there]
        if missing:
            raise HitstreamError(
                f"Kafka at {self._servers} has no topic {missing[0]}: create it with hitstream topics."
            )
        consumer.assign([TopicPartition(topic.name, 0) for topic in TOPICS])
        partitions = []
        for topic in TOPICS:
            while not (found := consumer.partitions_for_topic(topic.name)):  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.02)
            partitions += [TopicPartition(topic.name, p) for p in sorted(found)]
        consumer.assign(partitions)
        return partitions

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._tell("rebuilding", "reading the day from Kafka")
        ends = await self._go_to_the_day(consumer, partitions)
        quotes = [tp for tp in partitions if tp.topic == topics.QUOTES.name]
        self._hub.show_prices(False)
        consumer.pause(*quotes)
        async for behind in self._catch_up(consumer, {tp: ends[tp] for tp in partitions if tp not in quotes}):
            self._ready(f"reading the day from Kafka: {behind} records to go")
        self._broadcaster.open()
        self._tell("live", PRICES_FOLLOW)
        _log.info("live.caught_up", recommendations=len(self._hub.recommendations()))
        consumer.resume(*quotes)
        async for _ in self._catch_up(consumer, {tp: ends[tp] for tp in quotes}):
            pass
        self._hub.show_prices(True)
        self._tell("live")
        while True:
            await self._take(consumer)

    async def _catch_up(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> AsyncIterator[int]:
        """Read until these ends, which stood there before; before each step, how many records are to go."""
        while behind := sum([max(0, end - await consumer.position(tp)) for tp, end in ends.items()]):
            yield behind
            await self._take(consumer)

    async def _go_to_the_day(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Seek every partition to where the day begins; where each ends now."""
        while True:
            try:
                ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
                starts: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
                if self._is_real():
                    day = events.trading_date(self._now())
                    since = events.day_end(day) - timedelta(days=1) - MARGIN
                    of_the_day = {topic.name for topic in OF_THE_DAY}
                    asked = {tp: int(since.timestamp() * 1000) for tp in partitions if tp.topic in of_the_day}
                    found = await consumer.offsets_for_times(asked)
                    starts |= {tp: at.offset if at else ends[tp] for tp, at in found.items()}
                first = await self._first_records(consumer, partitions)
            except KafkaError as error:
                self._ready(f"Kafka at {self._servers} does not answer")
                _log.warning("live.kafka_silent", why=str(error) or type(error).__name__)
                await asyncio.sleep(1)
            else:
                for tp, offset in starts.items():
                    consumer.seek(tp, offset)
                self._first = first
                self._place = {tp: starts[tp] for tp in partitions if tp.topic in PLACED}
                self._broadcaster.place = folded(tuple(self._place.values()))
                return ends

    def _is_real(self) -> bool:
        return self._speed == 1 and abs(self._now() - datetime.now(UTC)) < timedelta(minutes=1)

    async def _take(self, consumer: AIOKafkaConsumer) -> None:
        try:
            batches: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                timeout_ms=500, max_records=1_000
            )
        except OffsetOutOfRangeError as error:
            raise _Replaced("a partition ends before the place that was read last") from error
        now = self._now()
        for tp, messages in batches.items():
            _records.labels(tp.topic).inc(len(messages))
            self._apply(messages, now)
            if messages and tp in self._place:
                self._place[tp] = messages[-1].offset + 1
        self._broadcaster.place = folded(tuple(self._place.values()))
        # A fetch costs the same whatever it brings, and browsers are to be served in between: let some more come.
        await asyncio.sleep(_GATHERING)

    def _apply(self, messages: Iterable[ConsumerRecord], now: datetime) -> None:
        for message in messages:
            try:
                record = decode(message.topic, message.value)
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                _bad.labels(message.topic).inc()
                _log.warning(
                    "live.bad_record",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                    why=str(error),
                )
                continue
            # Of itself a hub tells its browsers directly: what it would read was true some seconds ago.
            if record is not None and not (isinstance(record, Status) and record.component.startswith(TOLD_OF_HUBS)):
                self._broadcaster.publish(self._hub.apply(record, now), message.timestamp / 1000)
        for what, number in self._hub.left_out.items():
            _left_out.labels(what).inc(number)
        self._hub.left_out.clear()

    # --- watching ----------------------------------------------------------------------------------------------------

    async def _watch(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Look at the log from time to time: whether Kafka answers, what is not read yet, whether it was replaced."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            before = self._first  # empty while there is no place yet that could be compared
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    positions = {tp: await consumer.position(tp) for tp in before}
                    ends = await consumer.end_offsets(partitions)
                    after = await self._first_records(consumer, partitions)
            except (KafkaError, TimeoutError) as error:
                if self._state == "live":
                    _log.warning("live.kafka_silent", why=str(error) or type(error).__name__)
                if self._broadcaster.is_open:
                    self._tell("deaf", f"Kafka at {self._servers} does not answer")
                continue
            if self._first is not before:
                continue
            for tp, position in positions.items():
                if is_replaced(before[tp], after[tp], position, ends[tp]):
                    raise _Replaced(f"{tp.topic}/{tp.partition} was deleted and made anew")
            self._broadcaster.ends = folded([ends[tp] for tp in self._place])
            if before:
                self._first = after
                _lag.set(sum(max(0, ends[tp] - position) for tp, position in positions.items()))
            if self._broadcaster.is_open:
                if self._state == "deaf":
                    _log.info("live.kafka_back")
                self._tell("live")

    async def _first_records(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, _First | None]:
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, 0))
        return {tp: _First(at.offset, at.timestamp) if at else None for tp, at in found.items()}

    def _tell(self, state: str, cause: str = "") -> None:
        """Say what the hub itself is doing: to the supervisor, and as a component to the browsers."""
        now = self._now()
        if state != self._state:
            self._state, self._since = state, now
        self._ready(None if state == "live" else cause)
        status = Status(
            component=COMPONENT,
            kind="sink",
            state=state,
            cause=cause,
            since=self._since,
            at=now,
            proof_of_life=now if state == "live" else None,
        )
        self._broadcaster.publish(self._hub.apply(status, now))
