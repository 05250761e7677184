"""The watchdog: end a worker that hangs, and say what Kafka lacks while it waits.

An event loop that hangs can't notice it, and a Faust consumer that has stopped fetching leaves a loop that looks
alive. So progress is watched from a thread with an event loop and a Kafka client of its own. What it sees (`Look`)
is judged by `Judge`, which does no I/O: work that could go on and has not for `stream.stalled_after` is a hang. The
process then says where every thread and task stands and ends; its supervisor starts it again, and the order output →
state → offset makes that harmless. What a worker can't go on with because of Kafka is no hang: it is told as the
worker's readiness, with what to do.

A thread needs the interpreter. Code that never gives it up (one regular expression in a rule is enough) is ended by
faulthandler's timer, which needs nothing and is wound up again with every look.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import io
import linecache
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, NamedTuple, NoReturn

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from . import clients, topics

log = structlog.get_logger(__name__)

Place = tuple[str, int]

#: Real seconds for which something may be in the way before it is told.
PATIENCE: Final = 3.0
#: Real seconds that the group may wait for a member that has gone (session and rebalance time-outs): no hang of ours.
REBALANCE: Final = 20.0
#: Real seconds between two looks, at most.
_PERIOD: Final = 2.0
#: Real seconds that Kafka gets to answer a look.
_ANSWER: Final = 5.0
#: Topics that a worker reads or writes.
_TOPICS: Final = (
    topics.CONDITION_EVENTS,
    topics.COMMANDS,
    topics.TRANSITIONS,
    topics.RECOMMENDATIONS,
    topics.DEAD_LETTERS,
    topics.MEMBERS_STATE,
    topics.STANDINGS_STATE,
)


class Progress(NamedTuple):
    """What a worker shows of itself.

    `beats` counts the turns of its event loop. `positions` says up to where each partition that it owns is done,
    `settled` that partitions are assigned and their state is there. `unacknowledged` are the topics to which something
    was written that Kafka has not acknowledged, each with the moment (monotonic seconds) of the oldest write.
    """

    beats: int
    settled: bool
    positions: Mapping[Place, int]
    unacknowledged: Mapping[str, float]


class Kafka(NamedTuple):
    """What Kafka shows: the partitions with a record at or after the worker's position, and those without a leader."""

    waiting: frozenset[Place]
    leaderless: frozenset[Place]


class Look(NamedTuple):
    """A worker and Kafka at one moment; `kafka` is None while it does not answer."""

    worker: Progress
    kafka: Kafka | None


class Verdict(NamedTuple):
    """What follows from all looks so far, each a sentence or None: how it hangs, and what it waits for."""

    hang: str | None
    want: str | None


class Judge:
    """Decides from one look after the other whether a worker hangs.

    Args:
        after: real seconds without progress that are a hang. What passed between two looks counts for half of it at
            most: where nobody looked, the whole process was stopped, and nobody could have made progress.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._at: float | None = None
        self._still: dict[object, tuple[Any, float]] = {}

    def judge(self, at: float, look: Look) -> Verdict:
        """Take in what was seen at `at` (monotonic seconds)."""
        passed = 0.0 if self._at is None else min(at - self._at, self._after / 2)
        self._at = at
        still: dict[object, tuple[Any, float]] = {}
        for subject, mark in _subjects(look):
            before = self._still.get(subject)
            still[subject] = (mark, before[1] + passed if before is not None and before[0] == mark else 0.0)
        self._still = still
        return Verdict(self._hang(), self._want())

    def _hang(self) -> str | None:
        hung = {subject: seconds for subject, (_, seconds) in self._still.items() if seconds >= self._after}
        stuck = sorted(subject for subject in hung if isinstance(subject, _Stuck))
        if "loop" in hung:
            what = "its event loop has not turned"
        elif stuck:
            what = f"{_named(stuck)} did not move although records wait and Kafka answers"
        elif hung.get("assignment", 0.0) >= self._after + REBALANCE:
            what = "it did not get its partitions and their state although Kafka answers"
        else:
            return None
        return f"the stream worker hangs: {what}, for {self._after:g} s (stream.stalled_after)"

    def _want(self) -> str | None:
        lasting = {subject: mark for subject, (mark, seconds) in self._still.items() if seconds >= PATIENCE}
        if "kafka" in lasting:
            return "Kafka does not answer: start it again or look at the network; the worker goes on by itself"
        wants = []
        if "leaders" in lasting:
            wants.append(
                f"{_named(sorted(lasting['leaders']))} without a leader: start the broker that has it, or look for a "
                "failed disk in its log"
            )
        if written := sorted(subject.topic for subject in lasting if isinstance(subject, _Written)):
            wants.append(
                f"Kafka does not acknowledge what is written to {', '.join(written)}: look in the broker's log for a "
                "full disk or missing replicas (min.insync.replicas)"
            )
        return "; ".join([*wants, "the worker goes on by itself"]) if wants else None


class _Stuck(NamedTuple):
    """The subject of a partition in which records wait."""

    topic: str
    partition: int


class _Written(NamedTuple):
    """The subject of a write that is not acknowledged."""

    topic: str


def _subjects(look: Look) -> Iterator[tuple[object, Any]]:
    """Whatever should change, with what shows that it did. What is not named has nothing to wait for."""
    worker, kafka = look
    yield "loop", worker.beats
    if kafka is None:
        yield "kafka", None
        return
    if kafka.leaderless:
        yield "leaders", kafka.leaderless
    if worker.settled:
        for place in kafka.waiting & worker.positions.keys():
            yield _Stuck(*place), worker.positions[place]
    elif not kafka.leaderless:
        yield "assignment", None
    for topic, since in worker.unacknowledged.items():
        yield _Written(topic), since


def _named(places: Iterable[Place]) -> str:
    return ", ".join(f"{topic}/{partition}" for topic, partition in places)


class Watchdog:
    """The thread that looks, and ends the process.

    Args:
        bootstrap_servers: Kafka's address.
        after: real seconds without progress that are a hang.
        look: shows the worker; called in the watchdog's thread.
        want: told what the worker waits for, None: for nothing; called in the watchdog's thread.
        loops: the event loops whose tasks are to be shown, for the worker's last words.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        after: float,
        look: Callable[[], Progress],
        want: Callable[[str | None], None],
        loops: Callable[[], Iterable[asyncio.AbstractEventLoop]],
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._after = after
        self._period = min(_PERIOD, after / 5)
        self._look = look
        self._want = want
        self._loops = loops
        self._leaving = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._wind_up()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        if self._loop is not None and self._watching is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._watching.cancel)
        self._thread.join(_ANSWER)
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._watch())

    async def _watch(self) -> None:
        self._watching, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        judge = Judge(self._after)
        told: str | None = None
        async with contextlib.AsyncExitStack() as stack:
            probe = await stack.enter_async_context(_Probe(self._bootstrap_servers))
            while not self._leaving:
                self._wind_up()
                worker = self._look()
                kafka = await probe.ask(worker.positions)
                hang, want = judge.judge(time.monotonic(), Look(self._look(), kafka))
                if hang is not None:
                    end(hang, self._loops())
                if want != told:
                    self._want(told := want)
                await asyncio.sleep(self._period)

    def _wind_up(self) -> None:
        """Let the timer go off if this thread does not come to its next look."""
        faulthandler.dump_traceback_later(self._after + self._period + _ANSWER, exit=True, file=2)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """End the process, with its stacks on stderr, if the block is not left in time: for what runs before there is a
    worker to be watched."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Probe:
    """Asks Kafka, with a client that belongs to no group, for what is there to be read."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> _Probe:
        return self

    async def __aexit__(self, *_: object) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await clients.stop(consumer)

    async def ask(self, positions: Mapping[Place, int]) -> Kafka | None:
        """What Kafka shows; None if it does not answer in time."""
        try:
            async with asyncio.timeout(_ANSWER):
                return await self._ask(positions)
        except (KafkaError, OSError, TimeoutError):
            pass
        except Exception:  # a client that fails in another way is no reason to end a worker
            log.exception("the watchdog can't ask Kafka")
        await self.__aexit__()
        return None

    async def _ask(self, positions: Mapping[Place, int]) -> Kafka:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap_servers,
                request_timeout_ms=int(_ANSWER * 1000),
                max_partition_fetch_bytes=1 << 14,
                enable_auto_commit=False,
            )
            await self._consumer.start()
        cluster = await self._consumer._client.fetch_all_metadata()
        leaderless = frozenset(
            (topic.name, partition)
            for topic in _TOPICS
            for partition in (cluster.partitions_for_topic(topic.name) or ())
            if cluster.leader_for_partition(TopicPartition(topic.name, partition)) in (None, -1)
        )
        return Kafka(await self._waiting({p: o for p, o in positions.items() if p not in leaderless}), leaderless)

    async def _waiting(self, positions: Mapping[Place, int]) -> frozenset[Place]:
        """The partitions with a record to read: an end offset would also count what no consumer is ever given."""
        if not positions:
            return frozenset()
        assert self._consumer is not None
        partitions = [TopicPartition(*place) for place in positions]
        self._consumer.assign(partitions)
        for partition, offset in zip(partitions, positions.values(), strict=True):
            self._consumer.seek(partition, offset)
        waiting: set[Place] = set()
        while found := await self._consumer.getmany(timeout_ms=500):
            waiting.update((tp.topic, tp.partition) for tp in found)
            self._consumer.pause(*found)
        self._consumer.pause(*partitions)  # nothing is fetched until somebody asks again
        return frozenset(waiting)


_KINDS: Final = {CoroutineType: "cr", GeneratorType: "gi", AsyncGeneratorType: "ag"}


# --- last words -------------------------------------------------------------------------------------------------------


def end(sentence: str, loops: Iterable[asyncio.AbstractEventLoop]) -> NoReturn:
    """End the process with exit code 1, its stacks in the log and the sentence last."""
    try:
        try:
            where = stacks(loops)
        except Exception as error:  # the loops go on while they are looked at; the sentence must be said all the same
            where = f"no stacks: {error!r}"
        log.critical(f"{sentence}\n{where}")
        # What a supervisor shows of a process that has ended is its last line.
        print(f"hitstream stream: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(1)


def stacks(loops: Iterable[asyncio.AbstractEventLoop]) -> str:
    """Where every thread and every task of the loops stands, as text."""
    text = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        text.write(f"thread {names.get(ident, ident)}:\n")
        text.writelines(traceback.format_stack(frame))
    for loop in loops:
        for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
            text.write(f"task {task.get_name()} {task.get_coro()!r}:\n")
            text.writelines(_line(frame) for frame in _awaiting(task.get_coro()))
    return text.getvalue()


def _awaiting(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, and of what it awaits. (`Task.get_stack` knows only the first.)"""
    while awaitable is not None:
        kind = _kind(awaitable)
        if kind is None:
            # Wrappers (`coroutine.__await__()`, `anext()`) show what they wrap only to the garbage collector.
            awaitable = next(filter(_kind, gc.get_referents(awaitable)), None)
            continue
        if frame := getattr(awaitable, f"{kind}_frame"):
            yield frame
        awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _kind(awaitable: object) -> str | None:
    """The prefix of its attributes, if it is something that has a frame."""
    return next((kind for type_, kind in _KINDS.items() if isinstance(awaitable, type_)), None)


def _line(frame: FrameType) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno).strip()
    return f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n    {source}\n'
