"""The reader against a real broker: the day is there before the first snapshot, and outlives what brokers do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import REGISTRY

from sinks.live import reader
from sinks.live.hub import Hub
from sinks.live.reader import Reader, decode, is_replaced
from sinks.live.server import run
from sinks.live.stream import Broadcaster
from sinks.settings import LiveSettings
from streams import topics
from streams.events import (
    Due,
    Gap,
    HitstreamError,
    Quote,
    Recommendation,
    Record,
    Status,
    Stock,
    Transition,
    encode,
    trading_date,
    transition_id,
)

DEADLINE = 60.0  # s, for whatever a test waits for


class Broker(Protocol):
    address: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wipe(self) -> None: ...


class Running:
    """A reader at work, and what it said of itself."""

    def __init__(self, hub: Hub, broadcaster: Broadcaster) -> None:
        self.hub = hub
        self.broadcaster = broadcaster
        self.said: list[str | None] = []

    def codes(self) -> set[str]:
        return {line.transition.code for line in self.hub.snapshot(datetime.now(UTC)).feed}


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def reading(address: str, *, clock: Callable[[], datetime] = now, speed: float = 1.0) -> AsyncIterator[Running]:
    hub = Hub(epoch="first", speed=speed)
    broadcaster = Broadcaster(hub, clock)
    it = Running(hub, broadcaster)
    role = Reader(broadcaster, bootstrap_servers=address, now=clock, speed=speed, ready=it.said.append)
    task = asyncio.create_task(role.run())
    try:
        await until(lambda: broadcaster.is_open or task.done())
        yield it
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        if not task.cancelled():
            await task  # failed


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not true():
            await asyncio.sleep(0.02)


async def write(address: str, *records: Record | bytes, ago: timedelta = timedelta(0)) -> None:
    """Write records where they belong; bytes go among the transitions."""
    written = (topics.TRANSITIONS, topics.STATUS, topics.STOCKS, topics.QUOTES, topics.RECOMMENDATIONS)
    of: Mapping[type, str] = {r: t.name for t in written for r in t.records} | {Gap: topics.CONDITION_EVENTS.name}
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all")
    await producer.start()
    try:
        for record in records:
            is_bytes = isinstance(record, bytes)
            await producer.send_and_wait(
                topics.TRANSITIONS.name if is_bytes else of[type(record)],
                record if is_bytes else encode(record),
                key=getattr(record, "code", "").encode(),
                timestamp_ms=int((now() - ago).timestamp() * 1000),
            )
    finally:
        await producer.stop()


def transition(code: str, *, at: datetime | None = None, entry: int = 1) -> Transition:
    at = at or now()
    day = trading_date(at)
    return Transition(
        id=transition_id("main", "a", code, day, entry, "entered"), account="main", condition="a", code=code,
        kind="entered", origin="realtime", date=day, entry=entry, at=at, since=at, event_id="e", session="s",
        received_at=at,
    )  # fmt: skip


def counted(name: str, topic: str) -> float:
    return REGISTRY.get_sample_value(f"hitstream_live_{name}", {"topic": topic}) or 0.0


@pytest.fixture(autouse=True)
def _probe_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PROBE_SECONDS", 1.0)


# --- pure -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not json",
        b"[]",
        b'{"type":"transition"}',
        b'{"type":"something-new","id":"1"}',
        b"\xff\xfe",
        encode(transition("005930", at=datetime(2026, 3, 4))),  # noqa: DTZ001 - a time without a zone is the point
    ],
)
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        decode(topics.TRANSITIONS.name, value)


def gap() -> Gap:
    return Gap(
        id="g",
        account="main",
        condition="a",
        from_=now(),
        to=now(),
        cause="c",
        at=now(),
        received_at=now(),
        session="s",
    )


def test_every_record_of_the_topics_that_are_read_can_be_decoded() -> None:
    assert {topic.name for topic in reader.TOPICS} == reader._decoders.keys()
    due = Due(id="d", kind="hold", at=now(), account="main")
    assert decode(topics.TRANSITIONS.name, encode(due)) == due
    assert decode(topics.STATUS.name, None) is None


def test_of_the_condition_events_only_gaps_are_decoded() -> None:
    said = gap()
    assert decode(topics.CONDITION_EVENTS.name, encode(said)) == said
    assert decode(topics.CONDITION_EVENTS.name, encode(Due(id="d", kind="day-end", at=now(), account="main"))) is None
    assert decode(topics.CONDITION_EVENTS.name, b'{"type":"condition-event","and":"whatever follows') is None
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        decode(topics.CONDITION_EVENTS.name, b'{"type":"gap"}')


@pytest.mark.parametrize(
    ("before", "after", "position", "end", "expected"),
    [
        pytest.param((0, 5), (0, 5), 3, 3, False, id="nothing new"),
        pytest.param((0, 5), (0, 5), 3, 9, False, id="more to read"),
        pytest.param((0, 5), (2, 7), 3, 9, False, id="the oldest were deleted as they should be"),
        pytest.param((0, 5), None, 3, 3, False, id="all were deleted as they should be"),
        pytest.param(None, (0, 5), 0, 1, False, id="the first record ever"),
        pytest.param((0, 5), None, 3, 0, True, id="empty again"),
        pytest.param((0, 5), (0, 9), 3, 2, True, id="another log, shorter"),
        pytest.param((0, 5), (0, 9), 3, 8, True, id="another log, longer"),
        pytest.param((4, 5), (0, 9), 6, 8, True, id="another log, from 0"),
    ],
)
def test_a_replaced_log_is_noticed(
    before: tuple[int, int] | None, after: tuple[int, int] | None, position: int, end: int, expected: bool
) -> None:
    first, second = (reader._First(*of) if of else None for of in (before, after))
    assert is_replaced(first, second, position, end) is expected


NESTED = b'{"type":"transition","x":' + b"[" * 100_000


# --- with a broker ----------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_the_day_is_there_before_the_first_snapshot_and_goes_on(fresh_kafka: str) -> None:
    """Bad records are counted and skipped, older days are not shown, and a second hub ends in the same state."""
    yesterday = now() - timedelta(days=1)
    session = Status(component="session/main/p", kind="session", state="live", since=now(), at=now())
    name = Stock(code="000001", name="하나", market="KOSPI", received_at=now())
    early = [transition(f"{n:06d}") for n in range(300)]
    missed = gap()
    await write(fresh_kafka, session, name, missed, b"bad", transition("yester", at=yesterday), *early, NESTED)
    before = counted("bad_records_total", topics.TRANSITIONS.name)
    async with reading(fresh_kafka) as live:
        told = live.hub.snapshot(now())
        assert live.codes() == {record.code for record in early[-live.hub.limits.feed :]}
        assert [view.members for view in told.conditions] == [300]
        assert [view.gap for view in told.gaps] == [missed]
        assert {view.status.component for view in told.components} == {"session/main/p", reader.COMPONENT}
        assert counted("bad_records_total", topics.TRANSITIONS.name) == before + 2
        assert live.said[-1] is None
        assert any(said and "records to go" in said for said in live.said), "it is not ready before"
        await write(fresh_kafka, transition("late01"), b"bad", early[0], transition("late02"))
        await until(lambda: {"late01", "late02"} <= live.codes())
        async with reading(fresh_kafka) as second:
            a, b = live.hub.snapshot(now()), second.hub.snapshot(now())
            assert (a.feed, a.conditions) == (b.feed, b.conditions)


def quote(code: str, price: int, *, at: datetime) -> Quote:
    return Quote(code=code, at=at, received_at=at, price=price, high=price, low=price, volume=1, trades=1)


def recommendation(code: str, *, at: datetime) -> Recommendation:
    return Recommendation(
        id=f"{code}-1", recommendation_id=code, revision=1, account="main", code=code, date=trading_date(at),
        state="open", cause="threshold", cause_id="c", rule="sum", score=1.0, threshold=1.0, reasons=(), opened_at=at,
        at=at, received_at=at,
    )  # fmt: skip


@pytest.mark.kafka
async def test_prices_are_read_last_and_joined_to_what_was_recommended_before(fresh_kafka: str) -> None:
    """However many quotes stand before and after it: what a quote is a quote of is known when it is read."""
    began = now() - timedelta(seconds=1)
    moments = [began + timedelta(milliseconds=n) for n in range(300)]
    quotes = [quote("000001", 1_000 + n, at=at) for n, at in enumerate(moments)]
    await write(fresh_kafka, *quotes, recommendation("000001", at=moments[100]))
    async with reading(fresh_kafka) as live:
        assert live.hub.recommendations(), "the day is shown before its prices are"
        await until(lambda: live.hub.shows_prices)
        (view,) = live.hub.recommendations()
        assert view.track is not None
        assert (view.track.reference.price, view.track.high.price, view.track.low.price) == (1_100, 1_299, 1_100)
        assert [price.price for price in live.hub.snapshot(now()).prices] == [1_299]
        hub = next(view.status for view in live.hub.components() if view.status.component == reader.COMPONENT)
        assert (hub.state, hub.cause) == ("live", "")
        await write(fresh_kafka, quote("000001", 2_000, at=now()))
        await until(lambda: [price.price for price in live.hub.snapshot(now()).prices] == [2_000])
        assert len(live.broadcaster.place) == topics.RECOMMENDATIONS.partitions + topics.TRANSITIONS.partitions
        assert sum(live.broadcaster.place) == 1
        await until(lambda: live.broadcaster.ends == live.broadcaster.place)


@pytest.mark.kafka
async def test_a_real_clock_reads_today_and_a_simulated_one_all_that_is_kept(fresh_kafka: str) -> None:
    then = datetime(2026, 3, 4, 1, tzinfo=UTC)
    await write(fresh_kafka, transition("old001", at=then), transition("old002", at=then), ago=timedelta(days=3))
    await write(fresh_kafka, transition("new001"))
    before = counted("records_total", topics.TRANSITIONS.name)
    async with reading(fresh_kafka) as live:
        assert live.codes() == {"new001"}
    today = counted("records_total", topics.TRANSITIONS.name) - before
    assert today < 3, "what was written before today is not read"
    async with reading(fresh_kafka, clock=lambda: then, speed=60.0) as live:
        lines = live.hub.snapshot(then).feed
        assert {line.transition.code for line in lines} == {"old001", "old002"}


@pytest.mark.kafka
async def test_a_broker_that_comes_back_is_read_on(broker: Broker) -> None:
    await write(broker.address, transition("000001"))
    async with reading(broker.address) as live:
        epoch = live.hub.epoch
        await asyncio.to_thread(broker.stop)
        await until(lambda: live.said[-1] is not None)
        assert "does not answer" in str(live.said[-1])
        assert {v.status.component: v.status.state for v in live.hub.components()}[reader.COMPONENT] == "deaf"
        assert live.broadcaster.is_open, "what is known is still shown"
        await asyncio.to_thread(broker.start)
        await write(broker.address, transition("000002"))
        await until(lambda: "000002" in live.codes())
        await until(lambda: live.said[-1] is None)
        assert live.codes() == {"000001", "000002"}
        assert live.hub.epoch == epoch


@pytest.mark.kafka
@pytest.mark.parametrize("records", [1, 40])
async def test_a_broker_that_lost_its_data_is_read_anew(broker: Broker, records: int) -> None:
    """Whether the new log is shorter than the place read last, or has grown past it already."""
    await write(broker.address, *(transition("000001", entry=n) for n in range(1, 11)))
    async with reading(broker.address) as live:
        assert live.codes() == {"000001"}
        await asyncio.to_thread(broker.wipe)
        await asyncio.to_thread(broker.start)
        await write(broker.address, *(transition("000001", entry=n) for n in range(1, records + 1)))
        await until(lambda: live.hub.epoch != "first" and live.broadcaster.is_open)
        await until(lambda: [view.entered for view in live.hub.conditions()] == [records])
        await until(lambda: live.said[-1] is None)


@pytest.mark.kafka
async def test_the_role_serves_what_kafka_holds_until_it_is_cancelled(fresh_kafka: str) -> None:
    await write(fresh_kafka, transition("000001"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said: list[str | None] = []
    role = asyncio.create_task(
        run(settings=LiveSettings(port=port), bootstrap_servers=fresh_kafka, now=now, speed=1.0, ready=said.append)
    )
    try:
        await until(lambda: role.done() or (bool(said) and said[-1] is None))
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client,
            client.stream("GET", "/api/live") as live,
        ):
            events = live.aiter_lines()
            assert any(["000001" in line async for line in _until_blank(events, times=2)])
            await write(fresh_kafka, transition("000002"))
            while "000002" not in await anext(events):
                pass
            role.cancel()
            async with asyncio.timeout(DEADLINE):
                await asyncio.wait([role])
            assert role.cancelled()
    finally:
        role.cancel()
        await asyncio.wait([role], timeout=DEADLINE)


async def _until_blank(lines: AsyncIterator[str], times: int) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        times -= not line
        if not times:
            return


@pytest.mark.kafka
async def test_missing_topics_are_named(fresh_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = topics.Topic(name="hitstream.absent", key="", partitions=1, retention_ms=1, records=(), doc="")
    monkeypatch.setattr(reader, "TOPICS", (*reader.TOPICS, absent))
    task: Any = Reader(
        Broadcaster(Hub(epoch="e"), now), bootstrap_servers=fresh_kafka, now=now, speed=1.0, ready=lambda _: None
    ).run()
    with pytest.raises(HitstreamError, match=r"has no topic hitstream\.absent: create it with hitstream topics"):
        await task
