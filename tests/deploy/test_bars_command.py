"""`hitstream bars` and the producer behind it, against a local market after its close and a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from deploy.local.kiwoom.catalog import by_code
from producers import hit_codes
from producers.kiwoom.charts import sample
from producers.service import produce
from producers.settings import BarsSettings, ConditionSource, KiwoomSettings
from streams import topics
from streams.events import (
    KST,
    Bar,
    ConditionEvent,
    ConditionSnapshot,
    Recommend,
    Record,
    SearchReason,
    Status,
    condition_key,
    encode,
    event_id,
)

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
KEY, SECRET = "hush-app-key", "hush-secret-key"
NAME = "대왕개미단타"
MONDAY = date(2026, 3, 9)
CLOSED = datetime(2026, 3, 9, 15, 50, tzinfo=KST)
SAMPLE = sample([stock.code for stock in by_code().values() if not stock.etn], 3)


class Market:
    """A local market whose day is over, an account's log of that day, and the command as a person starts it."""

    def __init__(self, port: int, kafka: str, folder: Path, http: httpx.AsyncClient, clock: Clock) -> None:
        self.port, self.kafka, self.folder, self.http, self.clock = port, kafka, folder, http, clock
        self.account = f"a{uuid.uuid4().hex[:8]}"

    @property
    def kiwoom(self) -> KiwoomSettings:
        return KiwoomSettings(
            rest_url=f"http://127.0.0.1:{self.port}",
            websocket_url=f"ws://127.0.0.1:{self.port}/api/dostk/websocket",
            app_key=SecretStr(KEY),
            secret_key=SecretStr(SECRET),
            state_dir=str(self.folder / "state"),
            account=self.account,
        )

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
        kiwoom = self.kiwoom
        environ = {
            "HITSTREAM_KIWOOM__REST_URL": kiwoom.rest_url,
            "HITSTREAM_KIWOOM__WEBSOCKET_URL": kiwoom.websocket_url,
            "HITSTREAM_KIWOOM__APP_KEY": KEY,
            "HITSTREAM_KIWOOM__SECRET_KEY": SECRET,
            "HITSTREAM_KIWOOM__STATE_DIR": kiwoom.state_dir,
            "HITSTREAM_KIWOOM__ACCOUNT": self.account,
            "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.kafka,
            "HITSTREAM_CLOCK__START": self.clock.start.isoformat(),
            "HITSTREAM_CLOCK__ANCHOR": self.clock.anchor.isoformat(),
            "HITSTREAM_BARS__SAMPLE": "3",
            "HITSTREAM_LOCAL__DATA_DIR": str(self.folder),
            "HITSTREAM_CONDITIONS": json.dumps([{"name": NAME}], ensure_ascii=False),
        }
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "deploy.cli", "bars", *arguments],
            cwd=self.folder,
            env=clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "LC_ALL": "C.UTF-8"} | environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    async def log(self, *records: Record) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka)
        await producer.start()
        try:
            for record in records:
                heard = isinstance(record, ConditionEvent | ConditionSnapshot)
                topic = topics.CONDITION_EVENTS if heard else topics.TRANSITIONS
                await producer.send_and_wait(topic.name, encode(record), condition_key(self.account, NAME))
        finally:
            await producer.stop()

    async def bars(self) -> list[Bar]:
        return [bar for bar in await everything(self.kafka, topics.BARS.name, Bar) if bar.code in WATCHED]


HIT = next(code for code in sorted(by_code()) if code not in SAMPLE and code.endswith("50"))
SNAPPED, BY_HAND, FOUND, EARLIER = [code for code in sorted(by_code()) if code not in SAMPLE and code[-2:] == "00"][:4]
WATCHED = {HIT, SNAPPED, BY_HAND, FOUND, EARLIER, *SAMPLE}


async def everything(address: str, topic: str, kind: Any) -> list[Any]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None)
    decoder, found = msgspec.json.Decoder(kind), []
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    with contextlib.suppress(msgspec.MsgspecError):  # the broker is shared
                        found.append(decoder.decode(record.value or b""))
    finally:
        await consumer.stop()
    return found


def event(account: str, code: str, at: datetime, action: Any = "hit") -> ConditionEvent:
    return ConditionEvent(
        id=event_id(account, NAME, code, action, at, 0), account=account, condition=NAME, seq="5", code=code,
        action=action, at=at, received_at=at, session="s", frame=1, entry=1,
    )  # fmt: skip


def day_s_log(account: str) -> list[Record]:
    at = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
    return [
        event(account, HIT, at),
        event(account, HIT, at + timedelta(minutes=1), "exit"),
        event(account, "000270", at, "exit"),  # an exit is no hit
        event("somebody-else", "000270", at),
        ConditionSnapshot(
            id=uuid.uuid4().hex, account=account, condition=NAME, seq="5", codes=(SNAPPED,), at=at, received_at=at,
            session="s", frame=1,
        ),
        Recommend(id=uuid.uuid4().hex, account=account, code=BY_HAND, at=at, by="me"),
        SearchReason(
            id=uuid.uuid4().hex, account=account, condition=NAME, code=FOUND, date=MONDAY, at=at, received_at=at,
            search_id="s",
        ),
        event(account, EARLIER, at - timedelta(days=3)),
    ]  # fmt: skip


@pytest.fixture
async def market(kafka: str, tmp_path: Path) -> AsyncIterator[Market]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    up, clock = asyncio.Event(), Clock(CLOSED, 1.0, datetime.now(UTC))
    task = asyncio.create_task(
        serve(
            host="127.0.0.1", port=port, seed=7, clock=clock, state_dir=None, hours="market", activity=0.3,
            ready=lambda why: up.set() if why is None else None, app_key=KEY, secret_key=SECRET,
        )
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            async with asyncio.timeout(90):
                await up.wait()
            yield Market(port, kafka, tmp_path, http, clock)
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_what_was_hit_is_read_back_from_kafka(kafka: str, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as http:
        log = Market(0, kafka, tmp_path, http, Clock(CLOSED, 1.0, datetime.now(UTC)))
        await log.log(*day_s_log(log.account))
    both = await hit_codes.codes(kafka, log.account, date(2026, 3, 6), lambda: CLOSED)
    assert both == {
        MONDAY: hit_codes.Codes(frozenset({HIT, SNAPPED, BY_HAND}), frozenset({FOUND})),
        date(2026, 3, 6): hit_codes.Codes(frozenset({EARLIER})),
    }
    assert set(await hit_codes.codes(kafka, log.account, MONDAY, lambda: CLOSED)) == {MONDAY}
    # By the machine's own clock the log is read from the day's stamps on, which these records are after.
    assert await hit_codes.codes(kafka, log.account, MONDAY, lambda: datetime.now(UTC)) == {MONDAY: both[MONDAY]}


async def test_a_kafka_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(hit_codes.NotRead, match="start Kafka"):
        await hit_codes.codes("127.0.0.1:9", "main", MONDAY, lambda: CLOSED, within=3.0)


async def test_the_bars_of_a_day_reach_kafka_alone_and_beside_a_producer(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.bars._STAGGER", 1)
    await market.log(*day_s_log(market.account))
    alone = await market.run("2026-03-09", "--json")
    assert alone.returncode == 0, alone.stderr
    told = json.loads(alone.stdout)
    assert (told["state"], told["hit"], told["sample"], told["failed"], told["missing"]) == ("done", 3, 3, 0, 0)
    assert told["expected"] == 6 + 8
    bars = {(bar.code, bar.interval, bar.at): bar for bar in await market.bars()}
    assert {bar.code for bar in bars.values() if bar.interval == "1m"} <= {HIT, SNAPPED, BY_HAND, *SAMPLE}
    assert {bar.code for bar in bars.values() if bar.sample} <= set(SAMPLE)
    assert {bar.code for bar in bars.values() if bar.interval == "1d"} >= {HIT, FOUND, EARLIER}
    for code in (HIT, SAMPLE[0]):
        minutes = sorted((bar for bar in bars.values() if (bar.code, bar.interval) == (code, "1m")), key=lambda b: b.at)
        (day,) = (bar for bar in bars.values() if (bar.code, bar.interval) == (code, "1d"))
        assert (minutes[0].open, minutes[-1].close) == (day.open, day.close)
        assert (max(b.high for b in minutes), min(b.low for b in minutes)) == (day.high, day.low)
        assert sum(bar.volume for bar in minutes) == day.volume

    async with running(market):
        await said(market, "done")
        count = len(await market.bars())
        again = await market.run("--json")
        assert (again.returncode, json.loads(again.stdout)["bars"]) == (0, told["bars"]), again.stderr
        assert len(await market.bars()) == count  # what an earlier process has fetched is there
        await market.http.post("/local/faults", json={"name": "refuse-charts"})
        refused = await market.run("--again")
        await market.http.post("/local/faults", json={"clear": True})
        assert (refused.returncode, f"1m/{HIT}: ka10080 was refused" in refused.stdout) == (1, True), refused.stdout
        tomorrow = await market.run("2026-03-10")
        assert (tomorrow.returncode, "yet to come" in tomorrow.stderr) == (1, True)
    wrong = await market.run("yesterday")
    assert (wrong.returncode, "write it as 2026-03-09" in wrong.stderr) == (2, True), wrong.stderr


@contextlib.asynccontextmanager
async def running(market: Market) -> AsyncIterator[None]:
    words: list[str | None] = []
    task = asyncio.create_task(
        produce(
            kiwoom=market.kiwoom, conditions=[ConditionSource(name=NAME)], bootstrap_servers=market.kafka,
            now=market.clock.now, ready=words.append, state_dir=market.folder / "producer",
            bars=BarsSettings(sample=3),
        )
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            while not words or words[-1] is not None:
                assert not task.done()
                await asyncio.sleep(0.05)
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=60)


async def said(market: Market, state: str) -> Status:
    async with asyncio.timeout(90):
        while True:
            found = await hit_codes.statuses(market.kafka, f"bars/{market.account}/")
            if found and found[0].state == state:
                return found[0]
            await asyncio.sleep(0.2)
