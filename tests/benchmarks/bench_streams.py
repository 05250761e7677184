"""The stream worker – condition events → transitions → recommendations – beside its limit and its peers.

One topic of events is written once; each contestant, a process of its own, reads it from the beginning and writes its
own transitions and recommendations. Timed is by Kafka's own clock (`LogAppendTime`): from the first transition that it
has taken to the last recommendation. Starting, joining the group and waiting for the end are not in it; how far a
changelog is behind the last recommendation is told beside it. Every contestant's output is counted: the same
transitions, by id, and as many recommendations for each stock. Faust as one writes it first gets a tenth of the events,
because it would take minutes for all.

**Of a machine that others use too**, events per second say how often a process got a processor, and one whose client
has threads outside the interpreter gets more turns. So Linux is asked what the busiest thread did: `ran %` of the time,
`no processor %` of it ready to run, and the rest waiting for Kafka or for other threads. `events/s, had it one` leaves
out the time without a processor: what the contestant would do if it had one whenever it wanted, beside a broker that
has to wait for its turns.

`HITSTREAM_TEST_EVENTS` changes the number of events; `HITSTREAM_TEST_ONLY=raw,Quix` leaves out what is called
otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "streams"))

from fleet import administering
from harness import HERE, PEERS, ROOT, Contestant, race

from deploy.topics import ensure
from streams import topics
from streams.events import KST, ConditionEvent, condition_key, encode, event_id
from streams.settings import ConditionRule

EVENTS = int(os.environ.get("HITSTREAM_TEST_EVENTS", "40000"))
#: What takes longer is stopped, and told by what it has done until then.
LIMIT = 20.0
#: Seconds that changelogs get to follow the last recommendation.
BEHIND = 2.5
START = datetime(2026, 3, 2, 9, tzinfo=KST)
CONDITIONS = [ConditionRule(name=f"조건식 {n:02}") for n in range(20)]
STOCKS = 1000
#: Our changelogs, and the peer's.
STATE = [
    "{prefix}" + topic.name.removeprefix(topics.PREFIX) for topic in (topics.MEMBERS_STATE, topics.STANDINGS_STATE)
]
QUIX_STATE = [
    f"changelog__{{group}}--{source}--default" for source in (topics.CONDITION_EVENTS.name, "{prefix}transitions")
]


def condition_events(count: int) -> list[ConditionEvent]:
    """A lively morning: 50 hits, exits and re-entries a second, every sixth said again by another producer.

    A stock is in one or two conditions at a time.
    """
    chance, events = random.Random(5), list[ConditionEvent]()
    inside: list[tuple[str, str]] = []
    there: set[tuple[str, str]] = set()
    while len(events) < count:
        n = len(events)
        at = START + timedelta(seconds=n // 50)
        action: Literal["hit", "exit"] = "exit" if inside and chance.random() < 0.47 else "hit"
        if action == "exit":
            index = chance.randrange(len(inside))
            inside[index], inside[-1] = inside[-1], inside[index]
            condition, code = inside.pop()
        else:
            condition, code = chance.choice(CONDITIONS).name, f"{chance.randrange(STOCKS):06}"
            if (condition, code) in there:
                continue
            inside.append((condition, code))
        there ^= {(condition, code)}
        for session, milliseconds in (("a", 130), ("b", 170)) if n % 6 == 0 else (("a", 130),):
            events.append(
                ConditionEvent(
                    id=event_id("main", condition, code, action, at, n),
                    account="main",
                    condition=condition,
                    seq="1",
                    code=code,
                    action=action,
                    at=at,
                    ordinal=n,
                    received_at=(at + timedelta(milliseconds=milliseconds)).astimezone(UTC),
                    session=f"main-{session}",
                    frame=n + 1,
                    entry=1,
                )
            )
    return events[:count]


@dataclass
class Use:
    """CPU seconds and memory of a process, looked at 50 times a second; and, ten times, what its threads waited for."""

    process: psutil.Process
    at: list[tuple[float, float]] = field(default_factory=list)
    threads: list[tuple[float, dict[str, tuple[float, float]]]] = field(default_factory=list)
    peak: float = 0.0

    def watch(self, done: threading.Event) -> None:
        for look in itertools.count():
            if done.wait(0.02):
                return
            try:
                times, memory = self.process.cpu_times(), self.process.memory_info().rss / 2**20
            except psutil.Error:
                return
            self.at.append((time.time(), times.user + times.system))
            self.peak = max(self.peak, memory)
            if look % 5 == 0:
                self.threads.append((time.time(), turns(self.process.pid)))

    def between(self, start: float, end: float) -> float:
        """CPU seconds between two moments."""
        return self._cpu(end) - self._cpu(start)

    def busiest(self, start: float, end: float) -> tuple[float, float] | None:
        """Shares of the time between two moments: how long the busiest thread ran, and how long it could have run but
        had no processor. The rest it waited for Kafka or for other threads. None: the machine does not tell (Linux
        does)."""
        (t0, before), (t1, after) = self._threads(start), self._threads(end)
        if t1 <= t0 or not after:
            return None
        nothing = (0.0, 0.0)
        return max(
            ((run - before.get(thread, nothing)[0]) / (t1 - t0), (queued - before.get(thread, nothing)[1]) / (t1 - t0))
            for thread, (run, queued) in after.items()
        )

    def _threads(self, moment: float) -> tuple[float, dict[str, tuple[float, float]]]:
        return min(self.threads, key=lambda look: abs(look[0] - moment))

    def _cpu(self, moment: float) -> float:
        before = [(at, cpu) for at, cpu in self.at if at <= moment] or self.at[:1]
        after = [(at, cpu) for at, cpu in self.at if at > moment] or self.at[-1:]
        (t0, c0), (t1, c1) = before[-1], after[0]
        return c0 if t1 <= t0 else c0 + (c1 - c0) * (moment - t0) / (t1 - t0)


def turns(pid: int) -> dict[str, tuple[float, float]]:
    """Of each thread of a process: seconds that it ran, and seconds that it was ready to and had no processor."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            ran, queued, _ = (task / "schedstat").read_text().split()
            found[task.name] = int(ran) / 1e9, int(queued) / 1e9
    return found


class Course:
    """The broker, its input on the topic `source`, and one run of a contestant after the other."""

    def __init__(
        self,
        kafka: str,
        events: Sequence[ConditionEvent],
        partitions: int = 4,
        source: str = topics.CONDITION_EVENTS.name,
    ) -> None:
        self.kafka = kafka
        self.events = events
        self.partitions = partitions
        self.source = source
        self._runs = itertools.count()
        self.moves = self._moves()

    def _moves(self) -> Counter[str]:
        """How many transitions of each stock the events are."""
        seen: set[str] = set()
        moves: Counter[str] = Counter()
        for event in self.events:
            if event.id not in seen:
                moves[event.code] += 1
                seen.add(event.id)
        return moves

    async def fill(self) -> None:
        await self._make([self.source])
        async with producing(self.kafka) as producer:
            for event in self.events:
                await producer.send(self.source, encode(event), key=condition_key("main", event.condition))

    async def run(self, command: Sequence[str], prefix: str = "", state: Sequence[str] = ()) -> dict[str, float]:
        """Let a contestant work through the events; its figures.

        Args:
            command: its command line; {kafka}, {group}, {prefix} (of its topics), {source} and {folder} are filled in.
            prefix: begins the names of its topics; empty: they are the product's.
            state: its changelogs; {prefix} and {group} are filled in.
        """
        number = next(self._runs)
        prefix = f"{prefix}-{number}-" if prefix else topics.PREFIX
        names = [f"{prefix}{name}" for name in ("transitions", "recommendations")]
        group = f"{prefix}{number}"
        logs = [name.format(prefix=prefix, group=group) for name in state]
        await self._make([*names, *logs])
        with tempfile.TemporaryDirectory() as folder:
            blanks = {"kafka": self.kafka, "group": group, "prefix": prefix, "source": self.source, "folder": folder}
            words = [word.format(**blanks) for word in command]
            output = Path(folder) / "said"
            with output.open("wb") as said:
                child = await asyncio.create_subprocess_exec(
                    *words, cwd=HERE / "peers", env=os.environ | ours(self.kafka, group), stdout=said, stderr=said
                )
            use, done = Use(psutil.Process(child.pid)), threading.Event()
            watch = threading.Thread(target=use.watch, args=(done,))
            watch.start()
            try:
                await self._finished(names[-1], child, output)
            finally:
                done.set()
                watch.join()
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        return await self._figures(names, logs, use)

    async def _make(self, names: Sequence[str]) -> None:
        async with administering(self.kafka) as admin:
            there = set(await admin.list_topics())
            if there & set(names):
                await admin.delete_topics(sorted(there & set(names)))
                while there & set(names):
                    await asyncio.sleep(0.1)
                    there = set(await admin.list_topics())
            configs = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics([NewTopic(name, self.partitions, 1, topic_configs=configs) for name in names])
        await ensure(self.kafka, wanted=[t for t in topics.ALL if t.name not in {*names, *there}])

    async def _finished(self, topic: str, child: asyncio.subprocess.Process, output: Path) -> None:
        """Wait until all recommendations are there, and what is written behind them."""
        wanted, started = sum(self.moves.values()), 0.0
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, n) for n in range(self.partitions)]
            deadline = time.monotonic() + 120
            while True:
                assert child.returncode is None, output.read_text()
                assert time.monotonic() < deadline or started, output.read_text()
                count = sum((await consumer.end_offsets(partitions)).values())
                if count and not started:
                    started = time.monotonic()
                if count >= wanted or (started and time.monotonic() - started > LIMIT):
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(BEHIND)
        finally:
            await consumer.stop()

    async def _figures(self, names: Sequence[str], logs: Sequence[str], use: Use) -> dict[str, float]:
        transitions, recommendations = [await everything(self.kafka, name) for name in names]
        values = [record for log in logs for record in await everything(self.kafka, log)]
        ids = {msgspec.json.decode(record.value)["id"] for record in transitions}
        revisions = Counter(record.key.decode() for record in recommendations)
        wanted = sum(self.moves.values())
        share = len(recommendations) / wanted
        assert share < 1 or (len(ids) == wanted and revisions == self.moves), "not the same job"
        start = min(record.timestamp for record in transitions) / 1000
        end = max(record.timestamp for record in recommendations) / 1000
        events = len(self.events) * min(1.0, share)
        figures = {
            "events/s": events / (end - start),
            "CPU ms / 1,000": 1e6 * use.between(start, end) / events,
            "peak MiB": use.peak,
        }
        if (busiest := use.busiest(start, end)) is not None:
            ran, queued = busiest
            figures |= {"ran %": 100 * ran, "no processor %": 100 * queued}
            figures["events/s, had it one"] = events / ((end - start) * max(1 - queued, ran))
        if values:
            figures["state behind, s"] = max(0.0, max(record.timestamp for record in values) / 1000 - end)
        return figures


def ours(kafka: str, group: str) -> dict[str, str]:
    """The environment of our worker."""
    return {
        "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "HITSTREAM_STREAM__APP_ID": group,
        "HITSTREAM_CLOCK__START": (START + timedelta(hours=2)).isoformat(),
        "HITSTREAM_CONDITIONS": json.dumps([condition.model_dump(mode="json") for condition in CONDITIONS]),
        "PYTHONPATH": str(ROOT),
    }


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, max_batch_size=1 << 17, linger_ms=5)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def everything(kafka: str, topic: str) -> list[Any]:
    """All records on a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
        ends = await consumer.end_offsets(partitions)
        records: list[Any] = []
        for tp in partitions:
            consumer.seek(tp, 0)
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def bench_streams(fresh_kafka: str) -> None:
    """Events per second of one worker process, guarantees on."""
    course = Course(fresh_kafka, condition_events(EVENTS))
    few = Course(fresh_kafka, condition_events(EVENTS // 10), source="few.condition-events")
    for each in (course, few):
        await each.fill()
    peer, here = str(PEERS), sys.executable

    def contestant(
        name: str, kind: Any, command: Sequence[str], prefix: str, *state: str, over: Course = course
    ) -> Contestant:
        return Contestant(name, kind, lambda: over.run(command, prefix, state))

    arguments = ["{kafka}", "{group}", "{prefix}"]
    raw, naive = [here, "raw_loop.py", *arguments], [peer, "naive_faust.py", *arguments, "{folder}", "{source}"]
    contestants = [
        contestant("raw loop, changelog", "limit", [*raw, "1"], "raw", "{prefix}members", "{prefix}standings"),
        contestant("raw loop, no changelog", "", [*raw, "0"], "bare"),
        contestant("hitstream stream", "ours", [here, "-m", "deploy.cli", "stream"], "", *STATE),
        contestant("Quix Streams", "peer", [peer, "quix.py", *arguments, "{folder}"], "quix", *QUIX_STATE),
        contestant("FastStream, no changelog", "peer", [peer, "faststream_batch.py", *arguments], "faststream"),
        contestant("Faust, naive, a tenth", "peer", [*naive, "worker", "-l", "warn"], "faust", over=few),
    ]
    if only := os.environ.get("HITSTREAM_TEST_ONLY"):
        contestants = [each for each in contestants if any(word in each.name for word in only.split(","))]
    title = f"{EVENTS:,} condition events → transitions → recommendations, one worker process"
    await race("streams", title, contestants, ratios=["events/s"], warm_up=False)
