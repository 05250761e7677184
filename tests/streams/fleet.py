"""Stream workers for tests: a market clock, workers in processes of their own, and what Kafka holds after them."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from streams import topics
from streams.checkpoint import Point
from streams.events import KST, ConditionEvent, ConditionSnapshot, condition_key, encode, event_id
from streams.lane import MembershipLane, StandingLane
from streams.recommend import Policy
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

CONDITIONS = (
    ConditionRule(name="신고가 돌파", cooldown=20),
    ConditionRule(name="대왕개미단타", weight=0.5, hold=10),
    ConditionRule(name="third", weight=0.5),
)
RECOMMEND = RecommendSettings(expiry=600)
START = datetime(2026, 3, 2, 9, tzinfo=KST)
SPEED = 60.0
CODES = [f"{n:06d}" for n in range(100, 140)]

GROUP = StreamSettings().app_id

_WORKER = """
import asyncio, json, os, signal, sys
from datetime import UTC, datetime
from deploy import roles
from deploy.settings import load
from streams import app, changelog
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

task = json.loads(sys.argv[1])
anchor, start = (datetime.fromisoformat(moment) for moment in task["clock"])
apps, stops = [], task["stops"]

def make_app(*arguments, make=app._make_app):
    apps.append(make(*arguments))
    return apps[-1]

async def checkpoint(point, topic):
    if not stops or stops[0][:2] != [point, topic]:
        return
    stops[0][2] -= 1
    if stops[0][2] == 0:
        number = stops.pop(0)[3]
        if point == "output-sent":
            await apps[0].producer.flush()
        os.kill(os.getpid(), number)

app._make_app = make_app
app.SEND_TIMEOUT = changelog.TIMEOUT = task["patience"]

def work(ready):
    def tell(reason):
        print("ready:", reason, flush=True)
        ready(reason)

    return app.work(
        bootstrap_servers=task["kafka"],
        conditions=[ConditionRule(**c) for c in task["conditions"]],
        recommend=RecommendSettings(**task["recommend"]),
        stream=StreamSettings(**task["stream"]),
        now=lambda: start + (datetime.now(UTC) - anchor) * task["speed"],
        ready=tell,
        checkpoint=checkpoint,
    )

sys.exit(roles.run("stream", load(), work, fast=True))
"""


class Market:
    """The clock of a test: from `START` on, `SPEED` times as fast."""

    def __init__(self, start: datetime = START, speed: float = SPEED) -> None:
        self.anchor, self.start, self.speed = datetime.now(UTC), start, speed

    def now(self) -> datetime:
        return self.start + (datetime.now(UTC) - self.anchor) * self.speed


class Stop(NamedTuple):
    """The `nth` time at which a worker comes to a point of a topic, and the signal that it sends itself there."""

    point: Point
    topic: str
    nth: int = 1
    number: signal.Signals = signal.SIGKILL


def task(
    kafka: str,
    clock: Market,
    *,
    stops: Sequence[Stop] = (),
    group: str = GROUP,
    instance: str = "",
    patience: float = 30.0,
) -> list[str]:
    """The command line of a worker.

    Args:
        stops: points at which it sends itself a signal, one after the other; the outputs that it had handed over are
            in Kafka then.
        group, instance: its group and its name in it, see `StreamSettings`.
        patience: seconds that Kafka gets to take a write.
    """
    words = {
        "kafka": kafka,
        "clock": [clock.anchor.isoformat(), clock.start.isoformat()],
        "speed": clock.speed,
        "conditions": [c.model_dump() for c in CONDITIONS],
        "recommend": RECOMMEND.model_dump(),
        "stops": stops,
        "stream": {"app_id": group, "instance": instance},
        "patience": patience,
    }
    return [sys.executable, "-c", _WORKER, json.dumps(words)]


class WorkerProcess:
    """A worker in a process of its own, to be killed; arguments as of `task`."""

    def __init__(self, kafka: str, clock: Market, **options: Any) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 – it lives as long as the process
        self.process = subprocess.Popen(task(kafka, clock, **options), stdout=self._said, stderr=self._said)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)

    def close(self) -> None:
        """Forget what it said."""
        self._said.close()

    def said(self) -> list[str]:
        """What it has said so far."""
        self._said.seek(0)
        return self._said.read().splitlines()

    def readiness(self) -> str:
        """Its last word on its readiness; `None` if it is ready."""
        return ["nothing", *(line.partition(" ")[2] for line in self.said() if line.startswith("ready:"))][-1]

    async def ready(self) -> None:
        """Wait until it holds its partitions."""

        async def is_ready() -> bool:
            assert self.process.poll() is None, "\n".join(self.said())
            return self.readiness() == "None"

        await eventually(is_ready)

    async def ended(self) -> int:
        """Wait until it has ended by itself; returns its exit code."""

        async def has_ended() -> bool:
            return self.process.poll() is not None

        await eventually(has_ended)
        return int(self.process.returncode)

    async def stopped(self) -> None:
        """Wait until it has stopped itself."""

        async def is_stopped() -> bool:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

        await eventually(is_stopped)


class Fleet:
    """The workers of a test, all gone at its end."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.workers: list[WorkerProcess] = []

    def start(self, clock: Market, **options: Any) -> WorkerProcess:
        self.workers.append(WorkerProcess(self.kafka, clock, **options))
        return self.workers[-1]

    def end(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end(signal.SIGKILL)
            worker.close()


@contextmanager
def fleet(kafka: str) -> Iterator[Fleet]:
    workers = Fleet(kafka)
    try:
        yield workers
    finally:
        workers.end()


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read(kafka: str, topic: topics.Topic, isolation_level: str = "read_uncommitted") -> list[list[Any]]:
    """Everything on a topic now, by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest", isolation_level=isolation_level)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: dict[Any, list[Any]] = {tp: [] for tp in partitions}
        for tp in partitions:
            consumer.seek(tp, 0)
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[tp] += batch
        return [records[tp] for tp in partitions]
    finally:
        await consumer.stop()


async def committed(kafka: str, group: str = GROUP) -> dict[tuple[str, int], int]:
    async with administering(kafka) as admin:
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            return {}  # no group has ever been here
    return {(tp.topic, tp.partition): o.offset for tp, o in offsets.items()}


@asynccontextmanager
async def administering(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def eventually(condition: Callable[[], Any], within: float = 90.0) -> Any:
    """Wait until the awaitable that `condition` makes is true."""
    async with asyncio.timeout(within):
        while not (result := await condition()):
            await asyncio.sleep(0.1)
        return result


async def caught_up(kafka: str, group: str = GROUP) -> bool:
    """Whether the group has committed all that is on its topics."""
    done = await committed(kafka, group)
    sources = {topics.CONDITION_EVENTS.name, topics.TRANSITIONS.name, topics.COMMANDS.name}
    async with administering(kafka) as admin:
        partitions = [
            TopicPartition(topic["topic"], place["partition"])
            for topic in await admin.describe_topics()
            if topic["topic"] in sources
            for place in topic["partitions"]
        ]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
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


def replayed(partitions: Sequence[Sequence[Any]], lanes: Sequence[Any]) -> list[Any]:
    """What the pure modules make of a log, as JSON."""
    outputs = []
    for records, lane in zip(partitions, lanes, strict=True):
        for record in records:
            if record.value not in POISON:
                outputs += lane.take(record.value, record.offset).outputs
    return [json.loads(encode(output.record)) for output in outputs]


def hit(code: str, second: int, action: Literal["hit", "exit"] = "hit", condition: str = CONDITIONS[0].name) -> Any:
    """A hit or exit, so many seconds after `START`."""
    at = START + timedelta(seconds=second)
    return ConditionEvent(
        id=event_id("main", condition, code, action, at, 0),
        account="main",
        condition=condition,
        seq="1",
        code=code,
        action=action,
        at=at,
        received_at=at.astimezone(UTC),
        session="a",
        frame=second,
        entry=0,
    )


async def publish(kafka: str, events: Iterable[Any]) -> None:
    """Append records to the log of conditions; Kafka has them then."""
    async with producing(kafka) as producer:
        for event in events:
            key = condition_key(event.account, event.condition)
            await producer.send(topics.CONDITION_EVENTS.name, encode(event), key=key)
        await producer.flush()


async def assert_effect(kafka: str) -> tuple[list[Any], list[Any]]:
    """What is on the topics is, by id, what the pure modules make of the logs; returns transitions and revisions."""
    events, transitions = await read(kafka, topics.CONDITION_EVENTS), await read(kafka, topics.TRANSITIONS)
    recommendations = await read(kafka, topics.RECOMMENDATIONS)
    entered = replayed(events, [MembershipLane(n, [], 0) for n in range(topics.CONDITION_EVENTS.partitions)])
    assert by_id(decoded(transitions, "transition")) == by_id(entered)
    policy = Policy.of(CONDITIONS, RECOMMEND)
    revisions = replayed(transitions, [StandingLane(n, [], 0, policy) for n in range(topics.TRANSITIONS.partitions)])
    assert by_id(decoded(recommendations, "recommendation")) == by_id(revisions)
    return entered, revisions
