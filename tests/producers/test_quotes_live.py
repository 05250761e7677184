"""Prices over a real socket and a real broker: what is on the topic is what was traded on the local market."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from prometheus_client import REGISTRY
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from deploy.local.kiwoom.exchange import Exchange
from deploy.local.kiwoom.market import Trade
from deploy.local.kiwoom.protocol import Rules
from producers.kiwoom.client import Backoff
from producers.kiwoom.session import Timing
from producers.kiwoom.token import short_name
from producers.service import produce
from producers.settings import ConditionSource, KiwoomSettings, QuotesSettings
from streams import topics
from streams.events import KST, Frame, Quote, Recommendation, Status, encode, trading_date

# A busy machine trades slowly, and these wait for trades.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

BEGINS = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
SPEED = 20.0
CONDITIONS = ("평균가 돌파", "신고가 돌파")  # some 50 members together, of which some have a letter in their code
QUICK = Timing(
    login_pause=0.0, send_spacing=0.05, clear_pause=0.01, goodbye_reply=0.2, slow_down=0.2, price_spacing=0.2
)
SOON = Backoff(first=0.02, most=0.1, closed=0.1)


class World(NamedTuple):
    """A local market with app keys of its own, and the clock that it shares with the producers."""

    key: str
    port: int
    clock: Clock
    local: httpx.AsyncClient

    def keys(self) -> list[str]:
        """Two app keys of the account, the one whose session tells prices first."""
        return sorted((self.key, f"{self.key}-2"), key=short_name)

    async def fault(self, name: str, **options: Any) -> None:
        (await self.local.post("/local/faults", json={"name": name, **options})).raise_for_status()

    async def registered(self) -> dict[str, set[str]]:
        """The codes that are registered for prices, by app key."""
        sessions = (await self.local.get("/local/state")).json()["sessions"]
        return {session["app_key"]: set(session["codes"]) for session in sessions}


@contextlib.asynccontextmanager
async def world(**rules: Any) -> AsyncIterator[World]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    key, clock, up = f"k{uuid.uuid4().hex[:8]}", Clock(BEGINS, SPEED), asyncio.Event()
    task = asyncio.create_task(
        serve(
            host="127.0.0.1", port=port, seed=7, clock=clock, state_dir=None, ping_interval=0.5, app_key=key,
            ready=lambda why: up.set() if why is None else None, rules=Rules(**({"patience": 1000.0} | rules)),
        )
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=150) as local:
            async with asyncio.timeout(150):
                await up.wait()
            yield World(key, port, clock, local)
    finally:
        task.cancel()
        await asyncio.wait((task,))


@contextlib.asynccontextmanager
async def producing(
    world: World, kafka: str, folder: Path, account: str, key: str = "", **quotes: Any
) -> AsyncIterator[list[Frame]]:
    """A producer; what is yielded are the frames that it sends and receives."""
    frames: list[Frame] = []
    task = asyncio.create_task(
        produce(
            kiwoom=KiwoomSettings(
                hours="always", account=account, state_dir=str(folder / "shared"),
                rest_url=f"http://127.0.0.1:{world.port}",
                websocket_url=f"ws://127.0.0.1:{world.port}/api/dostk/websocket",
                app_key=SecretStr(key or world.key), secret_key=SecretStr("local-secret-key"),
            ),
            conditions=[ConditionSource(name=name) for name in CONDITIONS],
            bootstrap_servers=kafka,
            now=world.clock.now,
            ready=lambda _: None,
            state_dir=folder,
            timing=QUICK,
            backoff=SOON,
            on_frame=frames.append,
            speed=SPEED,
            quotes=QuotesSettings(**quotes),
        )
    )  # fmt: skip
    try:
        yield frames
    finally:
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([task])


class Log:
    """The quotes of some app keys, as they come on the topic."""

    def __init__(self, consumer: AIOKafkaConsumer, *keys: str) -> None:
        self._consumer = consumer
        self._names = tuple(f"{short_name(key)}-" for key in keys)
        self.quotes: list[Quote] = []

    async def until(self, enough: Callable[[], object], within: float = 150.0) -> None:
        async with asyncio.timeout(within):
            while not enough():
                await self.read()

    async def read(self) -> None:
        for records in (await self._consumer.getmany(timeout_ms=100)).values():
            for record in records:
                quote = msgspec.json.decode(record.value, type=Quote)
                assert record.key == quote.code.encode()
                if quote.session.startswith(self._names):
                    self.quotes.append(quote)

    def of(self, key: str) -> list[Quote]:
        return [quote for quote in self.quotes if quote.session.startswith(f"{short_name(key)}-")]

    def sessions(self) -> list[str]:
        return list(dict.fromkeys(quote.session for quote in self.quotes))


@contextlib.asynccontextmanager
async def quotes(kafka: str, *keys: str) -> AsyncIterator[Log]:
    consumer = AIOKafkaConsumer(
        topics.QUOTES.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        yield Log(consumer, *keys)
    finally:
        await consumer.stop()


def tape(until: datetime) -> dict[str, list[Trade]]:
    """Everything that was traded: the market is a function of its seed, so it is simulated once more."""
    exchange = Exchange(seed=7, hours="always", activity=1.0, now=BEGINS, start=BEGINS)
    traded: dict[str, list[Trade]] = defaultdict(list)
    while not exchange.caught_up(until):
        for happened in exchange.advance(until):
            if isinstance(happened, Trade):
                traded[happened.code].append(happened)
    return traded


def compare(told: list[Quote], *, gaps: bool = False) -> int:
    """Every quote of one session against the trades between it and the one before; how many were compared.

    With `gaps`, slots were lost and had again: then a quote tells the last of those trades only.
    """
    truth = tape(max(quote.received_at for quote in told) + timedelta(seconds=5))
    before: dict[str, Quote] = {}
    compared = 0
    for quote in told:
        if (last := before.get(quote.code)) is not None:
            assert last.day_volume is not None
            assert quote.day_volume is not None
            assert last.received_at < quote.received_at
            trades = [t for t in truth[quote.code] if last.day_volume < t.volume <= quote.day_volume]
            trades = trades[-quote.trades :] if gaps else trades
            assert (quote.price, quote.high, quote.low, quote.volume, quote.trades) == (
                trades[-1].price,
                max(t.price for t in trades),
                min(t.price for t in trades),
                sum(abs(t.size) for t in trades),
                len(trades),
            )
            assert quote.at.hour * 3600 + quote.at.minute * 60 + quote.at.second == int(trades[-1].at)
            compared += 1
        before[quote.code] = quote
    return compared


@pytest.fixture
def account() -> str:
    return f"a{uuid.uuid4().hex[:10]}"


async def test_what_is_told_is_what_was_traded_also_after_a_reconnection(
    kafka: str, account: str, tmp_path: Path
) -> None:
    async with world() as market, quotes(kafka, market.key) as log:
        async with producing(market, kafka, tmp_path, account, slots=20):
            await log.until(lambda: len(log.quotes) > 60)
            assert len((await market.registered())[market.key]) == 20
            await market.fault("close-abrupt")
            await log.until(lambda: len(log.sessions()) == 2 and len(log.quotes) > 140)
        before, after = log.sessions()
        count = sum(compare([q for q in log.quotes if q.session == session]) for session in (before, after))
        assert count > 70
        assert {q.change_rate is None for q in log.quotes} == {False}


async def test_a_recommended_stock_has_its_prices_told(kafka: str, account: str, tmp_path: Path) -> None:
    async with (
        world() as market,
        quotes(kafka, market.key) as log,
        producing(market, kafka, tmp_path, account, slots=3),
    ):
        await log.until(lambda: log.quotes)
        held = (await market.registered())[market.key]
        day = tape(market.clock.now())
        code = max(day.keys() - held, key=lambda code: len(day[code]))
        await recommend(kafka, account, code, market.clock.now())
        await log.until(lambda: any(q.code == code for q in log.quotes))
        assert len((await market.registered())[market.key]) <= 3


async def recommend(kafka: str, account: str, code: str, at: datetime) -> None:
    record = Recommendation(
        id=f"{account}-1", recommendation_id=account, revision=1, account=account, code=code, date=trading_date(at),
        state="open", cause="threshold", cause_id="", rule="sum", score=1.0, threshold=1.0, reasons=(), opened_at=at,
        at=at, received_at=at.astimezone(UTC),
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        await producer.send_and_wait(topics.RECOMMENDATIONS.name, encode(record), code.encode())
    finally:
        await producer.stop()


@pytest.mark.parametrize(
    ("fault", "slots"), [("few-slots", 40), ("refuse-some-reg", 40), ("duplicate-real", 20), ("silent-reg", 20)]
)
async def test_faults_leave_prices_right(kafka: str, account: str, tmp_path: Path, fault: str, slots: int) -> None:
    async with world() as market, quotes(kafka, market.key) as log:
        await market.fault(fault)
        async with producing(market, kafka, tmp_path, account, slots=slots) as frames:
            await log.until(lambda: len(log.quotes) > 60 and len({quote.code for quote in log.quotes}) > 8)
            registered = (await market.registered())[market.key]
        assert compare(log.quotes) > 10
        assert len({q.code for q in log.quotes} & registered) > 5
        answers = [f.text for f in frames if f.direction == "in" and '"trnm":"REG"' in f.text]
        refused = any('"return_code":0' not in text for text in answers)
        assert (refused, bool(answers)) == (fault in ("few-slots", "refuse-some-reg"), fault != "silent-reg")


async def test_one_of_two_sessions_tells_prices_and_the_other_takes_over(
    kafka: str, account: str, tmp_path: Path
) -> None:
    async with world() as market:
        first, second = market.keys()
        async with quotes(kafka, first, second) as log:
            async with producing(market, kafka, tmp_path, account, second, slots=10):
                await log.until(lambda: log.of(second))
                async with producing(market, kafka, tmp_path, account, first, slots=10):
                    await log.until(lambda: log.of(first))
                    await until_registered(market, {first: 10, second: 0})
                    told = len(log.of(second))
                    more = len(log.of(first)) + 30
                    await log.until(lambda: len(log.of(first)) > more)
                    assert len(log.of(second)) <= told + 20, "what was on its way, at most"
                    await log.read()
                    told = len(log.of(second))
                # It has said goodbye.
                await log.until(lambda: len(log.of(second)) > told + 20)
                await until_registered(market, {second: 10})
            statuses = await said(kafka, account)
        assert compare(log.of(first)) > 5
        assert compare(log.of(second), gaps=True) > 5
        assert {"quotes", "slots", "slots_registered", "slots_wanted"} <= statuses[-1].figures.keys()


async def test_while_kafka_is_away_quotes_are_gathered_and_nothing_of_them_is_lost(
    broker: Any, account: str, tmp_path: Path
) -> None:
    dropped = {"topic": topics.QUOTES.name, "reason": "superseded"}

    def figure(name: str, labels: dict[str, str] | None = None) -> float:
        return REGISTRY.get_sample_value(f"hitstream_producer_{name}", labels or {}) or 0.0

    async with world() as market, quotes(broker.address, market.key) as log:
        async with producing(market, broker.address, tmp_path, account, slots=20):
            await log.until(lambda: len(log.quotes) > 30)
            before = figure("dropped_total", dropped), figure("quotes_held_back_total")
            await asyncio.to_thread(broker.stop)
            async with asyncio.timeout(150):
                while figure("quotes_held_back_total") < before[1] + 20:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(broker.start)
            told = len(log.quotes)
            await log.until(lambda: len(log.quotes) > told + 60)
        assert figure("dropped_total", dropped) == before[0], "something was left out"
        assert len(log.sessions()) == 1
        seen = {(q.code, q.received_at): q for q in log.quotes}  # a batch that failed is sent twice
        assert compare(list(seen.values())) > 60
        assert max(q.trades for q in log.quotes) > 5, "nothing was gathered"


async def until_registered(market: World, expected: dict[str, int], within: float = 150.0) -> None:
    async with asyncio.timeout(within):
        while {key: len(codes) for key, codes in (await market.registered()).items()} != expected:
            await asyncio.sleep(0.05)


async def said(kafka: str, account: str) -> list[Status]:
    """What the sessions of an account have said."""
    consumer = AIOKafkaConsumer(
        topics.STATUS.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    found = []
    try:
        async with asyncio.timeout(150):
            while not found:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    statuses = [msgspec.json.decode(r.value, type=Status) for r in records if b"session/" in r.key]
                    found += [s for s in statuses if s.account == account and s.state == "live"]
    finally:
        await consumer.stop()
    return found


async def test_frames_of_nothing_but_prices_are_left_out_of_the_journal_and_counted(
    kafka: str, account: str, tmp_path: Path
) -> None:
    async with world() as market, quotes(kafka, market.key) as log:
        async with producing(market, kafka, tmp_path, account, slots=20) as frames:
            await log.until(lambda: len(log.quotes) > 30)
        (connection,) = {frame.connection for frame in frames}
        journal = await journalled(kafka, connection, last=frames[-1])
        assert not [f for f in journal if '"0B"' in f.text and f.direction == "in" and '"02"' not in f.text]
        assert [f for f in frames if '"0B"' in f.text and f.direction == "in"]
        inward = [f for f in journal if f.direction == "in"]
        for earlier, later in itertools.pairwise(inward):
            assert later.number - earlier.number - 1 == later.left_out - earlier.left_out


async def journalled(kafka: str, connection: str, last: Frame) -> list[Frame]:
    consumer = AIOKafkaConsumer(
        topics.FRAMES.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    found: list[Frame] = []
    try:
        async with asyncio.timeout(150):
            while not found or (found[-1].direction, found[-1].number) != (last.direction, last.number):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [msgspec.json.decode(r.value, type=Frame) for r in records if r.key == connection.encode()]
    finally:
        await consumer.stop()
    return found
