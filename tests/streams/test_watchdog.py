"""The watchdog tells a hang from a quiet worker, and from a Kafka that is in the way; a hang ends the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from streams import topics
from streams.app import Worker
from streams.checkpoint import pass_by
from streams.events import KST
from streams.recommend import Policy
from streams.settings import ConditionRule, RecommendSettings, StreamSettings
from streams.watchdog import Judge, Kafka, Look, Progress

from .fleet import decoded, eventually, hit, publish, read
from .workers import Clock, Role

PLACE = ("hitstream.transitions", 1)
OTHER = ("hitstream.commands", 0)
NOON = datetime(2026, 3, 2, 12, tzinfo=KST)
NOTHING: dict[str, float] = {}


@dataclass
class Story:
    """Looks of one kind after the other, a second apart, at a worker whose loop turns and which has recovered."""

    judge: Judge = field(default_factory=lambda: Judge(10))
    at: float = 1000.0
    beats: int = 0
    said: list[str | None] = field(default_factory=list)
    wanted: list[str | None] = field(default_factory=list)

    def looks(
        self,
        count: int,
        *,
        loop: bool = True,
        moves: bool = True,
        waiting: bool = True,
        answers: bool = True,
        settled: bool = True,
        leaderless: bool = False,
        written: float | None = None,
        every: float = 1.0,
    ) -> Story:
        """`count` looks; `moves`: at the partition that records wait in, while another one always moves."""
        for _ in range(count):
            self.at += every
            self.beats += loop
            position = int(self.at) if moves else 7
            progress = Progress(
                beats=self.beats,
                settled=settled,
                positions={PLACE: position, OTHER: int(self.at)},
                unacknowledged=NOTHING if written is None else {"hitstream.recommendations": written},
            )
            kafka = Kafka(frozenset({PLACE, OTHER} if waiting else {OTHER}), frozenset({PLACE} if leaderless else ()))
            verdict = self.judge.judge(self.at, Look(progress, kafka if answers else None))
            self.said.append(verdict.hang)
            self.wanted.append(verdict.want)
        return self


HANGS = {
    "a loop that does not turn": (Story().looks(11, loop=False), "its event loop has not turned"),
    "a loop that does not turn, with nothing to do": (
        Story().looks(11, loop=False, waiting=False),
        "its event loop has not turned",
    ),
    "a loop that does not turn, while Kafka is away": (
        Story().looks(11, loop=False, answers=False),
        "its event loop has not turned",
    ),
    "one partition that does not move while another does": (
        Story().looks(11, moves=False),
        "hitstream.transitions/1 did not move",
    ),
    "state that is not recovered": (
        Story().looks(31, settled=False),
        "it did not get its partitions and their state",
    ),
    "a partition that does not move, after Kafka came back": (
        Story().looks(9, moves=False).looks(30, answers=False).looks(11, moves=False),
        "hitstream.transitions/1 did not move",
    ),
}

LIVES = {
    "a worker that works": Story().looks(50),
    "nothing to read": Story().looks(50, moves=False, waiting=False),
    "Kafka is away": Story().looks(50, moves=False, answers=False),
    "Kafka comes back in between": Story().looks(9, moves=False).looks(1, answers=False).looks(9, moves=False),
    "it moves at the last moment": Story().looks(10, moves=False).looks(1).looks(10, moves=False),
    "the group waits for a member that has gone": Story().looks(29, settled=False).looks(20),
    "a changelog has no leader": Story().looks(50, settled=False, leaderless=True, waiting=False),
    "the whole process is stopped for an hour": Story()
    .looks(1)
    .looks(1, loop=False, moves=False, every=3600)
    .looks(20),
}


@pytest.mark.parametrize(("story", "what"), HANGS.values(), ids=HANGS)
def test_a_hang_is_named_after_the_time_that_is_given(story: Story, what: str) -> None:
    assert story.said[:-1] == [None] * (len(story.said) - 1)
    assert what in (story.said[-1] or "")
    assert "10 s (stream.stalled_after)" in (story.said[-1] or "")


@pytest.mark.parametrize("story", LIVES.values(), ids=LIVES)
def test_what_is_no_hang_is_left_alone(story: Story) -> None:
    assert set(story.said) == {None}


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (Story().looks(8, answers=False), "Kafka does not answer: start it again"),
        (Story().looks(8, leaderless=True), "hitstream.transitions/1 without a leader: start the broker"),
        (Story().looks(8, written=1000.0), "does not acknowledge what is written to hitstream.recommendations"),
        (Story().looks(8, answers=False, written=1000.0), "Kafka does not answer"),
    ],
)
def test_what_kafka_lacks_is_told_with_the_remedy_and_taken_back(story: Story, words: str) -> None:
    assert story.wanted[:3] == [None] * 3
    assert set(story.said) == {None}
    for want in story.wanted[3:]:
        assert words in (want or "")
        assert "the worker goes on by itself" in (want or "")
    assert set(story.looks(5).wanted[8:]) == {None}


def test_writes_that_are_acknowledged_one_after_the_other_are_no_want() -> None:
    story = Story()
    for n in range(20):
        story.looks(1, written=float(n))
    assert set(story.wanted) == {None}


# --- real hangs -------------------------------------------------------------------------------------------------------

#: A user's rule that hangs: the first starts of the worker each in another way, the last not at all.
WEDGES = """
import asyncio, time
from pathlib import Path

import streams.app, streams.transport

start = Path(__file__).with_name("starts")
starts = int(start.read_text()) if start.exists() else 0
start.write_text(str(starts + 1))


def rule(memberships):
    if starts == 0 and memberships:  # it is tried without any at the start
        time.sleep(1e6)
    return [membership.weight for membership in memberships]


async def awaits_for_ever(self, tp, batch):
    await asyncio.Event().wait()


class Deaf(streams.transport.Consumer):
    async def getmany(self, timeout):
        async for message in super().getmany(timeout):
            while self.expected:
                await asyncio.sleep(3600)
            yield message


if starts == 1:
    streams.app.Worker._derive = awaits_for_ever
if starts == 2:
    streams.transport.Transport.Consumer = Deaf
"""


async def test_to_look_at_a_worker_that_is_just_starting_changes_nothing(tmp_path: Path) -> None:
    """The watchdog's thread once made Faust a second consumer while Faust made its own, and no worker came of it."""
    partitions = {topic.name: topic.partitions for topic in topics.ALL}
    policy = Policy.of([], RecommendSettings())
    worker = Worker(
        "127.0.0.1:1", partitions, policy, StreamSettings(), str(tmp_path), lambda: NOON, lambda _: None, pass_by
    )
    worker._app._started.set()
    looked = await asyncio.to_thread(worker._progress)
    assert (looked.settled, looked.positions) == (False, {})
    assert await asyncio.to_thread(worker._loops) == [asyncio.get_running_loop()]
    assert worker._app._consumer is None


@pytest.mark.kafka
async def test_a_worker_that_hangs_is_replaced_and_the_work_is_done(fresh_kafka: str, tmp_path: Path) -> None:
    """A rule that never returns, an agent that awaits for ever, a consumer that has stopped fetching: one after the
    other, each ends the process with its stacks in the log, and the one that the supervisor starts next goes on."""
    (tmp_path / "wedges.py").write_text(WEDGES)
    installed = tmp_path / "wedges-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wedges\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[hitstream.rules]\nwedged = wedges:rule\n")
    clock = Clock(datetime(2026, 3, 2, 9, tzinfo=KST), 1.0)
    role = Role(
        "stream",
        fresh_kafka,
        tmp_path,
        clock,
        [ConditionRule(name="신고가 돌파")],
        RecommendSettings(rule="wedged"),
        {"PYTHONPATH": str(tmp_path), "HITSTREAM_STREAM__STALLED_AFTER": "2"},
    )

    async def recommended() -> bool:
        return any(decoded(await read(fresh_kafka, topics.RECOMMENDATIONS), "recommendation"))

    async with role.running():
        await publish(fresh_kafka, [hit("005930", 0)])
        await eventually(recommended, within=240)
        assert role.child.restarts == 3

    log = role.log.read_text()
    assert log.count("[critical") == 3
    for words in (
        "its event loop has not turned, for 2 s",
        "time.sleep(1e6)",
        "did not move although records wait",
        "await asyncio.Event().wait()",
        "await asyncio.sleep(3600)",
    ):
        assert words in log
    assert sum("the stream worker hangs" in line and "starts again" in line for line in role.said) == 3


#: A regular expression that takes for ever, and never gives up the interpreter meanwhile.
GREEDY = """
import re
from streams.watchdog import Progress, Watchdog

with Watchdog("127.0.0.1:1", 1.0, lambda: Progress(0, True, {}, {}), lambda want: None, lambda: ()):
    re.match("(a+)+$", "a" * 64 + "b")
"""


def test_a_rule_that_hangs_when_it_is_tried_is_ended_at_the_start() -> None:
    code = "import time\nfrom streams.watchdog import within\nwith within(0.5): time.sleep(1e6)"
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert 'File "<string>", line 3' in ended.stderr


def test_code_that_never_gives_up_the_interpreter_is_ended_too() -> None:
    """The watchdog's thread can't run then; faulthandler's timer ends the process, with the stacks."""
    ended = subprocess.run([sys.executable, "-c", GREEDY], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "Timeout (" in ended.stderr
    assert "re.match" in ended.stderr or 'File "<string>"' in ended.stderr
