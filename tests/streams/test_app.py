"""The worker against a real broker: killed in the middle, it comes to what the pure modules come to."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from fleet import (
    CODES,
    CONDITIONS,
    POISON,
    RECOMMEND,
    START,
    Market,
    WorkerProcess,
    assert_effect,
    caught_up,
    decoded,
    eventually,
    fleet,
    producing,
    random_record,
    read,
)

from streams import app, topics
from streams.events import ConditionEvent, HitstreamError, Recommend, condition_key, encode, letter_id
from streams.settings import StreamSettings

pytestmark = pytest.mark.kafka


async def feed(producer: AIOKafkaProducer, log: list[Any], clock: Market, chance: random.Random) -> None:
    """Publish 1,000 more records at a pace, with poison and commands between them."""
    for n in range(len(log), len(log) + 1000):
        record = random_record(n, clock.now(), log, chance)
        log.append(record)
        key = condition_key("main", record.condition)
        await producer.send(topics.CONDITION_EVENTS.name, encode(record), key=key)
        if n % 1000 == 500:
            for poison in POISON:
                await producer.send(topics.CONDITION_EVENTS.name, poison, key=key)
        if n % 200 == 0:
            code = chance.choice(CODES)
            command = Recommend(id=f"r{n}", code=code, by="kim", at=record.at)
            await producer.send(topics.COMMANDS.name, encode(command), key=code.encode())
        if n % 20 == 0:
            await asyncio.sleep(0.1)
    await producer.flush()


async def kill(kafka: str, worker: WorkerProcess) -> None:
    """Kill a worker once it has told 100 transitions, in the middle of whatever it does then."""
    before = sum(map(len, await read(kafka, topics.TRANSITIONS)))

    async def moving() -> bool:
        return sum(map(len, await read(kafka, topics.TRANSITIONS))) > before + 100

    await eventually(moving)
    assert worker.process.poll() is None
    worker.end(signal.SIGKILL)


async def test_killed_workers_come_to_what_the_rules_say(fresh_kafka: str) -> None:
    """Killed several times in the middle of a log with poison in it, workers lose nothing and say nothing twice."""
    chance, clock, log = random.Random(20260302), Market(), []
    with fleet(fresh_kafka) as workers:
        async with producing(fresh_kafka) as producer:
            for part in range(4):
                worker = workers.start(clock)
                async with asyncio.TaskGroup() as group:
                    group.create_task(feed(producer, log, clock, chance))
                    if part < 3:
                        group.create_task(kill(fresh_kafka, worker))
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0
        worker = workers.start(Market(START + timedelta(days=2)))
        await eventually(lambda: day_ended(fresh_kafka))
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0

    entered, revisions = await assert_effect(fresh_kafka)
    assert len(entered) > 1000
    assert {"threshold", "command", "reason", "score", "expired"} <= {r["cause"] for r in revisions}
    events, letters = await read(fresh_kafka, topics.CONDITION_EVENTS), await read(fresh_kafka, topics.DEAD_LETTERS)
    poison = {
        letter_id("stream", r.topic, r.partition, r.offset, r.timestamp) for p in events for r in p if r.value in POISON
    }
    assert {r["id"] for r in decoded(letters, "dead-letter")} == poison
    assert len(poison) == 16


async def day_ended(kafka: str) -> bool:
    """Whether no stock is in a condition and no recommendation open any more."""
    transitions = decoded(await read(kafka, topics.TRANSITIONS), "transition")
    revisions = decoded(await read(kafka, topics.RECOMMENDATIONS), "recommendation")
    inside = {(t["condition"], t["code"]): t["kind"] for t in transitions}
    state = {r["recommendation_id"]: r["state"] for r in revisions}
    return set(inside.values()) == {"exited"} and set(state.values()) == {"closed"}


@asynccontextmanager
async def working(kafka: str, app_id: str, now: Callable[[], datetime]) -> AsyncIterator[None]:
    """A worker in this process, ready."""
    ready = asyncio.Event()
    task = asyncio.create_task(
        app.work(
            bootstrap_servers=kafka,
            conditions=CONDITIONS,
            recommend=RECOMMEND,
            stream=StreamSettings(app_id=app_id),
            now=now,
            ready=lambda reason: ready.set() if reason is None else ready.clear(),
        )
    )
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=90, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        assert ready.is_set()
        yield
    finally:
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)


async def test_a_hit_becomes_a_recommendation_and_time_closes_it(fresh_kafka: str) -> None:
    """The worker passes deadlines by its own clock: an expiry closes, a day-end empties the condition."""
    clock = {"now": START}
    hit = ConditionEvent(
        id="hit-1",
        account="main",
        condition="신고가 돌파",
        seq="7",
        code="005930",
        action="hit",
        at=START,
        received_at=START.astimezone(UTC),
        session="a",
        frame=1,
        entry=0,
    )

    async def causes() -> list[str]:
        return [r["cause"] for r in decoded(await read(fresh_kafka, topics.RECOMMENDATIONS), "recommendation")]

    async def becomes(expected: list[str]) -> None:
        async def told() -> bool:
            return await causes() == expected

        await eventually(told)

    async with working(fresh_kafka, "one", lambda: clock["now"]), producing(fresh_kafka) as producer:
        key = condition_key("main", hit.condition)
        await producer.send_and_wait(topics.CONDITION_EVENTS.name, encode(hit), key=key)
        await becomes(["threshold"])
        clock["now"] = START + timedelta(seconds=601)
        await becomes(["threshold", "expired"])
        clock["now"] = START + timedelta(days=1)

        async def emptied() -> Any:
            return [
                t
                for t in decoded(await read(fresh_kafka, topics.TRANSITIONS), "transition")
                if t["origin"] == "day-end"
            ]

        (left,) = await eventually(emptied)
        assert (left["kind"], left["code"]) == ("exited", "005930")


async def test_unreachable_kafka_is_one_sentence(monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Any) -> None:
    """Where nothing listens, the worker says so, naming the address, instead of hanging."""
    monkeypatch.setattr(app, "CONNECT_TIMEOUT", 1.0)
    address = f"127.0.0.1:{unused_tcp_port_factory()}"
    with pytest.raises(HitstreamError, match=f"Kafka at {address} can't be reached"):
        await app.check(address)


async def test_missing_topics_are_named(fresh_kafka: str) -> None:
    """Where topics are missing, the worker says which, and what to run."""
    admin = AIOKafkaAdminClient(bootstrap_servers=fresh_kafka)
    await admin.start()
    try:
        await admin.delete_topics([topics.STANDINGS_STATE.name])
    finally:
        await admin.close()

    async def refused() -> str:
        try:
            await app.check(fresh_kafka)
        except HitstreamError as error:
            return str(error)
        return ""

    sentence = await eventually(refused)
    assert "hitstream.state-standings" in sentence
    assert "hitstream topics" in sentence
