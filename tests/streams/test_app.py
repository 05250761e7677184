"""The worker against a real broker: killed in the middle, it comes to what the pure modules come to."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams import app, topics
from streams.events import (
    KST,
    ConditionEvent,
    ConditionSnapshot,
    HitstreamError,
    Recommend,
    condition_key,
    encode,
    event_id,
    letter_id,
)
from streams.lane import MembershipLane, StandingLane
from streams.recommend import Policy
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

pytestmark = pytest.mark.kafka

CONDITIONS = (
    ConditionRule(name="신고가 돌파", cooldown=20),
    ConditionRule(name="대왕개미단타", weight=0.5, hold=10),
    ConditionRule(name="third", weight=0.5),
)
RECOMMEND = RecommendSettings(expiry=600)
START = datetime(2026, 3, 2, 9, tzinfo=KST)
SPEED = 60.0
CODES = [f"{n:06d}" for n in range(100, 140)]

_WORKER = """
import json, sys
from datetime import UTC, datetime
from streams.app import run_worker
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

task = json.loads(sys.argv[1])
anchor, start = (datetime.fromisoformat(moment) for moment in task["clock"])
run_worker(
    bootstrap_servers=task["kafka"],
    conditions=[ConditionRule(**c) for c in task["conditions"]],
    recommend=RecommendSettings(**task["recommend"]),
    stream=StreamSettings(app_id="hitstream-streams"),
    now=lambda: start + (datetime.now(UTC) - anchor) * task["speed"],
    ready=lambda reason: print("READY" if reason is None else reason, flush=True),
)
"""


class Market:
    """The clock of a test: from `START` on, `SPEED` times as fast."""

    def __init__(self, start: datetime = START) -> None:
        self.anchor, self.start = datetime.now(UTC), start

    def now(self) -> datetime:
        return self.start + (datetime.now(UTC) - self.anchor) * SPEED


class WorkerProcess:
    """A worker in a process of its own, to be killed."""

    def __init__(self, kafka: str, clock: Market) -> None:
        task = {
            "kafka": kafka,
            "clock": [clock.anchor.isoformat(), clock.start.isoformat()],
            "speed": SPEED,
            "conditions": [c.model_dump() for c in CONDITIONS],
            "recommend": RECOMMEND.model_dump(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, json.dumps(task)], stdout=subprocess.DEVNULL, env=os.environ
        )

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read(kafka: str, topic: topics.Topic) -> list[list[Any]]:
    """Everything on a topic now, by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: dict[Any, list[Any]] = {tp: [] for tp in partitions}
        for tp in partitions:
            await consumer.seek_to_beginning(tp)
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[tp] += batch
        return [records[tp] for tp in partitions]
    finally:
        await consumer.stop()


async def committed(kafka: str) -> dict[tuple[str, int], int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets("hitstream-streams")
        return {(tp.topic, tp.partition): o.offset for tp, o in offsets.items()}
    finally:
        await admin.close()


async def eventually(condition: Callable[[], Any], within: float = 40.0) -> Any:
    """Wait until the awaitable that `condition` makes is true."""
    async with asyncio.timeout(within):
        while not (result := await condition()):
            await asyncio.sleep(0.1)
        return result


async def caught_up(kafka: str) -> bool:
    """Whether the group has committed all that is on its topics."""
    done = await committed(kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(t.name, n)
            for t in (topics.CONDITION_EVENTS, topics.TRANSITIONS, topics.COMMANDS)
            for n in range(t.partitions)
        ]
        ends = await consumer.end_offsets(partitions)
        return all(done.get((tp.topic, tp.partition), 0) >= ends[tp] for tp in partitions)
    finally:
        await consumer.stop()


def random_record(n: int, now: datetime, log: Sequence[Any], chance: random.Random) -> Any:
    """A hit, an exit or a snapshot of a condition as two producers tell them; some are repeated, some are late."""
    rule, session = chance.choice(CONDITIONS), chance.choice("aab")
    common: Any = {
        "account": "main",
        "condition": rule.name,
        "seq": "1",
        "received_at": now.astimezone(UTC),
        "session": session,
        "frame": n,
    }
    if chance.random() < 0.02:
        return ConditionSnapshot(id=f"snapshot-{n}", codes=tuple(chance.sample(CODES, 15)), at=now, **common)
    if log and chance.random() < 0.1:
        return chance.choice(log[-50:])
    code, action = chance.choice(CODES), chance.choice(("hit", "exit"))
    at = now.replace(microsecond=0) - timedelta(seconds=chance.choice((0, 0, 0, 3)))
    id_ = event_id("main", rule.name, code, action, at, n % 7)
    return ConditionEvent(id=id_, code=code, action=action, at=at, ordinal=n % 7, entry=0, **common)


def by_id(records: Iterable[Any]) -> dict[str, Any]:
    """Records by id; two with one id must be the same."""
    found: dict[str, Any] = {}
    for record in records:
        assert found.setdefault(record["id"], record) == record
    return found


def decoded(partitions: Sequence[Sequence[Any]], *types: str) -> Iterable[Any]:
    for records in partitions:
        for record in records:
            value = json.loads(record.value)
            if value["type"] in types:
                yield value


POISON = (b"{not json", b'{"type":"unheard-of"}', None, b"\xff\xff")


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
    workers: list[WorkerProcess] = []
    try:
        async with producing(fresh_kafka) as producer:
            for part in range(4):
                workers.append(WorkerProcess(fresh_kafka, clock))
                async with asyncio.TaskGroup() as group:
                    group.create_task(feed(producer, log, clock, chance))
                    if part < 3:
                        group.create_task(kill(fresh_kafka, workers[-1]))
        await eventually(lambda: caught_up(fresh_kafka))
        assert workers[-1].end(signal.SIGTERM) == 0
        workers.append(WorkerProcess(fresh_kafka, Market(START + timedelta(days=2))))
        await eventually(lambda: day_ended(fresh_kafka))
        await eventually(lambda: caught_up(fresh_kafka))
        assert workers[-1].end(signal.SIGTERM) == 0
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.end(signal.SIGKILL)

    events = await read(fresh_kafka, topics.CONDITION_EVENTS)
    transitions = await read(fresh_kafka, topics.TRANSITIONS)
    recommendations = await read(fresh_kafka, topics.RECOMMENDATIONS)
    letters = await read(fresh_kafka, topics.DEAD_LETTERS)

    expected = replayed(events, [MembershipLane(n, [], 0) for n in range(4)])
    assert by_id(decoded(transitions, "transition")) == by_id(expected)
    assert len(expected) > 1000
    policy = Policy.of(CONDITIONS, RECOMMEND)
    expected = replayed(transitions, [StandingLane(n, [], 0, policy) for n in range(4)])
    assert by_id(decoded(recommendations, "recommendation")) == by_id(expected)
    assert {"threshold", "command", "reason", "score", "expired"} <= {r["cause"] for r in expected}

    poison = {
        letter_id("stream", r.topic, r.partition, r.offset, r.timestamp) for p in events for r in p if r.value in POISON
    }
    assert {r["id"] for r in decoded(letters, "dead-letter")} == poison
    assert len(poison) == 16


def replayed(partitions: Sequence[Sequence[Any]], lanes: Sequence[Any]) -> list[Any]:
    """What the pure modules make of a log, as JSON."""
    outputs = []
    for records, lane in zip(partitions, lanes, strict=True):
        for record in records:
            if record.value not in POISON:
                outputs += lane.take(record.value, record.offset).outputs
    return [json.loads(encode(output.record)) for output in outputs]


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
        await asyncio.wait({task, waiting}, timeout=40, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        assert ready.is_set()
        yield
    finally:
        task.cancel()
        async with asyncio.timeout(6):
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
