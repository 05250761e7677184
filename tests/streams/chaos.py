"""Chaos: workers and the broker are killed, stopped and continued while records flow, and nothing of it may show.

`run` makes the chaos and returns its figures. `check` then compares what is on the topics with what should be,
computed from the log that each stage read: transitions from `condition-events` as they stand in Kafka, recommendations
from `transitions` as they stand there, the state from both; by the lanes (a pure fold), and by the naive model.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topics
from streams.events import KST, ConditionRecord, StockRecord, encode, letter_id
from streams.lane import Decision, MembershipLane, StandingLane, Unreadable, relay
from streams.recommend import Policy
from streams.settings import ConditionRule, RecommendSettings

from . import reference
from .fleet import eventually, read
from .market import Market, Written
from .workers import GROUP, Clock, Role, administering

CONDITIONS = (
    ConditionRule(name="신고가 돌파", cooldown=20),
    ConditionRule(name="대왕개미단타", weight=0.5, hold=10),
    ConditionRule(name="third", weight=0.5),
    ConditionRule(name="fourth", weight=0.25, hold=60, cooldown=120),
    ConditionRule(name="fifth", weight=0.75),
)
RECOMMEND = RecommendSettings(expiry=900)
ACCOUNTS = ("main", "other", "third")
#: Ten o'clock at night: a few minutes of the run are some days.
START = datetime(2026, 3, 2, 22, tzinfo=KST)
MOST_WORKERS = 4


@dataclass
class Plan:
    """What is to happen. A step is one of `actions`, taken in random order while its share of the events flows.

    `speed` is the clock's, `stocks` how many there are, `workers` how many begin; `pause` is the longest wait in a
    step, in seconds.
    """

    seed: int
    events: int
    actions: dict[str, int]
    speed: float
    stocks: int
    pause: float
    workers: int = 1


@dataclass
class Chaos:
    """A run: the workers that there are, and what was done to them."""

    plan: Plan
    broker: Any
    folder: Path
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    workers: list[Role] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.clock = Clock(START, self.plan.speed)
        self.allowed = 0
        self.written = 0
        self.released = asyncio.Event()

    async def run(self) -> None:
        """All steps, then everything that is left to do, in peace."""
        actions = [action for action, times in self.plan.actions.items() for _ in range(times)]
        self.chance.shuffle(actions)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self._feed())
            for _ in range(self.plan.workers):
                self._join(group)
            for n, action in enumerate(actions, 1):
                self.allowed = self.plan.events * n // len(actions)
                self.released.set()
                before = self.written
                await self._step(group, action)
                self.done[action] += 1
                self.say(
                    f"{time.monotonic() - started:4.0f} s  {n}/{len(actions)} {action}, {len(self.workers)} workers, "
                    f"{self.written - before} events"
                )
            await feeding
            # The last worker lives two days later: every deadline has passed, every stock has left.
            while self.workers:
                await self._leave(self.workers[0])
            self.clock = Clock(self.clock.now() + timedelta(days=2), 1.0)
            self.say(f"{time.monotonic() - started:4.0f} s  the last worker")
            self._join(group)
            await eventually(self._is_over, within=180)
            await self._leave(self.workers[0])
            self.say(f"{time.monotonic() - started:4.0f} s  over")

    # --- records ----------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Write what the market says, step by step, through every outage, in order."""
        conditions = [(account, rule.name) for account in ACCOUNTS for rule in CONDITIONS]
        market = Market(self.plan.seed, conditions, self.plan.stocks)
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker.address, enable_idempotence=True, request_timeout_ms=180_000
        )
        await producer.start()
        try:
            while self.written < self.plan.events:
                if self.written >= self.allowed:
                    self.released.clear()
                    await self.released.wait()
                    continue
                pending = [await self._write(producer, w) for _ in range(10) for w in market.records(self.clock.now())]
                self.written += sum(topic == topics.CONDITION_EVENTS.name for topic, _ in pending)
                await asyncio.gather(*(future for _, future in pending))
        finally:
            await producer.stop()

    async def _write(self, producer: AIOKafkaProducer, written: Written) -> tuple[str, asyncio.Future[Any]]:
        return written.topic, await producer.send(written.topic, written.value, key=written.key)

    # --- what is done to them ---------------------------------------------------------------------------------------

    async def _step(self, group: asyncio.TaskGroup, action: str) -> None:
        if self.chance.random() < 0.7:
            await self._until_something_moves()
        await asyncio.sleep(self.chance.uniform(0, self.plan.pause))
        worker = self.chance.choice(self.workers)
        match action:
            case "kill":
                self._signal(worker, signal.SIGKILL)
            case "freeze":
                self._signal(worker, signal.SIGSTOP)
                # Past the session time-out it is a zombie: its partitions have gone to others when it goes on.
                await asyncio.sleep(self.chance.choice((0.5, 3, 8)))
                self._signal(worker, signal.SIGCONT)
            case "join" if len(self.workers) < MOST_WORKERS:
                self._join(group)
            case "join" | "leave" if len(self.workers) > 1:
                await self._leave(worker)
            case "leave":
                self._join(group)
            case "stop broker" | "kill broker":
                await asyncio.to_thread(self.broker.stop if action == "stop broker" else self.broker.kill)
                await asyncio.sleep(self.chance.uniform(0, self.plan.pause))
                await asyncio.to_thread(self.broker.start)

    async def _until_something_moves(self) -> None:
        """Wait for a transition that was not there, so that work is cut off in its middle; not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(15):
                consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.address)
                await consumer.start()
                try:
                    partitions = [TopicPartition(topics.TRANSITIONS.name, n) for n in range(4)]
                    before = await consumer.end_offsets(partitions)
                    while await consumer.end_offsets(partitions) == before:
                        await asyncio.sleep(0.05)
                finally:
                    await consumer.stop()

    def _signal(self, worker: Role, number: signal.Signals) -> None:
        if (pid := worker.child.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _join(self, group: asyncio.TaskGroup) -> None:
        name = f"worker-{len(self.roles)}"
        # Every other one has a name in the group, and its partitions back at once.
        instance = {"HITSTREAM_STREAM__INSTANCE": name} if len(self.roles) % 2 else {}
        worker = Role(name, self.broker.address, self.folder, self.clock, CONDITIONS, RECOMMEND, instance)
        self.workers.append(worker)
        self.roles.append(worker)
        group.create_task(worker.child.run())

    async def _leave(self, worker: Role) -> None:
        self.workers.remove(worker)
        await worker.child.stop(15)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _is_over(self) -> bool:
        """Whether the group has read everything, and a moment later still has: deadlines were told in between."""
        if await self.workers[0].readiness() is not None or await lag(self.broker.address):
            return False
        await asyncio.sleep(1)
        return not await lag(self.broker.address)

    def figures(self, seconds: float) -> dict[str, object]:
        """What was done, and how the workers bore it."""
        logs = [role.log.read_text() for role in self.roles if role.log.exists()]
        return {
            "seconds": round(seconds),
            **self.done,
            "worker starts": sum(log.count("partitions taken over") > 0 for log in logs)
            + sum(role.child.restarts for role in self.roles),
            "takeovers": sum(log.count("partitions taken over") for log in logs),
            "gave up by themselves": sum(log.count("the worker gives up") for log in logs),
            "taken for hung": sum(log.count("the stream worker hangs") for log in logs) // 2,
        }


async def lag(kafka: str) -> int:
    """Records that the group has not committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        async with administering(kafka) as admin:
            offsets = await admin.list_consumer_group_offsets(GROUP)
        partitions = [
            TopicPartition(topic.name, n)
            for topic in (topics.CONDITION_EVENTS, topics.TRANSITIONS, topics.COMMANDS)
            for n in range(topic.partitions)
        ]
        ends = await consumer.end_offsets(partitions)
        done = {(tp.topic, tp.partition): offset.offset for tp, offset in offsets.items()}
        return sum(max(0, ends[tp] - max(0, done.get((tp.topic, tp.partition), 0))) for tp in partitions)
    finally:
        await consumer.stop()


async def chaos(plan: Plan, broker: Any, folder: Path, say: Callable[[str], None]) -> dict[str, object]:
    """Run a plan and check what came of it; returns the figures."""
    started = time.monotonic()
    run = Chaos(plan, broker, folder, say)
    try:
        await run.run()
    finally:
        for role in run.roles:
            role.child.kill()
    figures = run.figures(time.monotonic() - started)
    return figures | await check(broker.address)


# --- what should be ---------------------------------------------------------------------------------------------------


async def check(kafka: str) -> dict[str, object]:
    """Compare the topics with what each stage should have made of its log; returns the counts."""
    events = await read(kafka, topics.CONDITION_EVENTS)
    commands = await read(kafka, topics.COMMANDS)
    transitions = await read(kafka, topics.TRANSITIONS)
    recommendations = await read(kafka, topics.RECOMMENDATIONS)
    letters = await read(kafka, topics.DEAD_LETTERS)
    policy = Policy.of(CONDITIONS, RECOMMEND)

    derived = said(transitions, "transition", "search-reason")
    accepted = said(transitions, "recommend", "withdraw")
    dues = said(transitions, "due")
    revisions = said(recommendations, "recommendation")
    folded, members, poison = fold(events, lambda n: MembershipLane(n, [], 0))
    differs("transitions", derived, folded)
    last = {
        (t["account"], t["condition"], t["code"]): t["kind"]
        for t in map(msgspec.json.decode, derived.values())
        if t["type"] == "transition"
    }
    assert set(last.values()) == {"exited"}
    relayed, refused = fold(commands, lambda _: Relay())[::2]
    differs("commands", accepted, relayed)
    poison += refused
    differs("dead letters", dict.fromkeys(said(letters, "dead-letter")), dict.fromkeys(poison))
    folded, standings, unread = fold(transitions, lambda n: StandingLane(n, [], 0, policy))
    differs("recommendations", revisions, folded)
    assert unread == []
    # The day-ends that the fold met in `condition-events` are dated by the clock; nothing else is on `transitions`.
    assert len(derived) + len(accepted) + len(dues) == len(ids(transitions))

    differs("membership state", await table(kafka, topics.MEMBERS_STATE), members)
    differs("standing state", await table(kafka, topics.STANDINGS_STATE), standings)

    decode: Any = msgspec.json.Decoder(ConditionRecord).decode
    differs("transitions, naively", derived, encoded(reference.transitions(readable(events, decode))))
    decode = msgspec.json.Decoder(StockRecord).decode
    differs(
        "recommendations, naively", revisions, encoded(reference.recommendations(readable(transitions, decode), policy))
    )
    return {
        "condition events": sum(map(len, events)),
        "commands": sum(map(len, commands)),
        "transitions": len(derived),
        "recommendations": len(revisions),
        "dead letters": len(poison),
        "state values": len(members) + len(standings),
        "repeats on transitions": sum(map(len, transitions)) - len(ids(transitions)),
        "repeats on recommendations": sum(map(len, recommendations)) - len(ids(recommendations)),
    }


def said(partitions: Iterable[Iterable[Any]], *types: str) -> dict[str, bytes]:
    """The records of these types by id; what is said twice must be the same, byte for byte, in one partition."""
    found: dict[str, tuple[int, bytes, bytes]] = {}
    for partition in partitions:
        for record in partition:
            value = msgspec.json.decode(record.value)
            if value["type"] in types:
                is_ = (record.partition, record.key, record.value)
                if "dead-letter" not in types:  # a letter tells when it was written
                    first = found.setdefault(value["id"], is_)
                    assert first == is_, f"said twice, and not the same: {first} and {is_}"
                found.setdefault(value["id"], is_)
    return {id_: value for id_, (_, _, value) in found.items()}


def ids(partitions: Iterable[Iterable[Any]]) -> set[str]:
    return {msgspec.json.decode(record.value)["id"] for partition in partitions for record in partition}


def fold(
    partitions: Sequence[Sequence[Any]], lane_of: Callable[[int], Any]
) -> tuple[dict[str, bytes], dict[bytes, bytes], list[str]]:
    """What the lanes make of a log: outputs by id, the state, and the ids of the dead letters."""
    outputs: dict[str, bytes] = {}
    state: dict[bytes, bytes | None] = {}
    poison: list[str] = []
    for n, partition in enumerate(partitions):
        lane = lane_of(n)
        for record in partition:
            try:
                decision = lane.take(record.value, record.offset)
            except Unreadable:
                poison.append(letter_id("stream", record.topic, record.partition, record.offset, record.timestamp))
                continue
            for output in decision.outputs:
                value = encode(output.record)
                assert outputs.setdefault(output.record.id, value) == value
            state.update(lane.writes())
    return outputs, {key: msgspec.json.encode(value) for key, value in state.items() if value is not None}, poison


class Relay:
    """A partition of `commands`: no state."""

    def take(self, value: bytes | None, _: int) -> Decision:
        return Decision([relay(value)], [])

    def writes(self) -> list[tuple[bytes, bytes | None]]:
        return []


async def table(kafka: str, changelog: topics.Topic) -> dict[bytes, bytes]:
    """The last committed value of each key."""
    values: dict[bytes, bytes | None] = {}
    for partition in await read(kafka, changelog, isolation_level="read_committed"):
        values.update((record.key, record.value) for record in partition)
    return {key: value for key, value in values.items() if value is not None}


def readable(partitions: Iterable[Iterable[Any]], decode: Callable[[bytes], Any]) -> list[Any]:
    found = []
    for partition in partitions:
        for record in partition:
            with suppress(msgspec.DecodeError, TypeError, UnicodeDecodeError):
                found.append(decode(record.value))
    return found


def encoded(records: Iterable[Any]) -> dict[str, bytes]:
    return {record.id: encode(record) for record in records}


def differs(what: str, found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Say what is missing, what is extra and what is different, and fail if anything is."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    different = [id_ for id_ in expected.keys() & found.keys() if expected[id_] != found[id_]]
    examples = "".join(f"\n  missing {expected[id_]!r}" for id_ in sorted(missing)[:3])
    examples += "".join(f"\n  extra {found[id_]!r}" for id_ in sorted(extra)[:3])
    examples += "".join(f"\n  is {found[id_]!r}\n  not {expected[id_]!r}" for id_ in sorted(different)[:3])
    wrong = len(missing) + len(extra) + len(different)
    assert wrong == 0, (
        f"{what}: of {len(expected)}, {len(missing)} missing, {len(extra)} extra, {len(different)} different{examples}"
    )
