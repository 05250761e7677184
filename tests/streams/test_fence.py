"""Two workers that both believe to hold a partition: only the later one can write its state."""

from __future__ import annotations

import signal
from contextlib import nullcontext

import pytest
from aiokafka import TopicPartition
from fleet import Market, Stop, assert_effect, caught_up, eventually, fleet, hit, publish, read

from streams import topics
from streams.changelog import Fenced, Writer
from streams.checkpoint import Point, pass_by

pytestmark = pytest.mark.kafka

EVENTS, STATE = topics.CONDITION_EVENTS.name, topics.MEMBERS_STATE.name
CODE = "005930"


async def hang(kafka: str, stop: Stop) -> int:
    """One worker hangs at a point and is taken for dead; another one works on; the first one wakes up and writes.

    A third one goes on from what they left. Returns the exit code of the one that hung.
    """
    clock = Market(speed=0)
    with fleet(kafka) as workers:
        await publish(kafka, [hit(CODE, 1)])
        sleeper = workers.start(clock, stops=[stop])
        await sleeper.stopped()
        await publish(kafka, [hit(CODE, 2, "exit"), hit(CODE, 3), hit(CODE, 4, "exit")])
        successor = workers.start(clock)
        await eventually(lambda: caught_up(kafka))
        assert successor.end(signal.SIGTERM) == 0
        sleeper.process.send_signal(signal.SIGCONT)
        code = await sleeper.ended()
        print(*sleeper.said(), sep="\n")
        await publish(kafka, [hit(CODE, 5)])
        heir = workers.start(clock)
        await eventually(lambda: caught_up(kafka))
        assert heir.end(signal.SIGTERM) == 0
    return code


@pytest.mark.parametrize(("point", "topic"), [("outputs-acknowledged", EVENTS), ("values-acknowledged", STATE)])
async def test_who_was_taken_for_dead_writes_no_state(fresh_kafka: str, point: Point, topic: str) -> None:
    """A worker that hung and wakes up after another took over is refused, says so and ends; nothing is lost."""
    assert await hang(fresh_kafka, Stop(point, topic, number=signal.SIGSTOP)) == 1
    transitions, _ = await assert_effect(fresh_kafka)
    assert [(t["kind"], t["entry"]) for t in transitions] == [
        ("entered", 1),
        ("exited", 1),
        ("entered", 2),
        ("exited", 2),
        ("entered", 3),
    ]


async def test_without_the_fence_the_older_value_would_be_the_last(fresh_kafka: str) -> None:
    """Who opened a partition first and writes last is refused. Without one id for both it would not be.

    The last value of a key is what a recovery loads, and what a compaction keeps.
    """
    partition = TopicPartition(topics.MEMBERS_STATE.name, 0)
    for key, ids, refused in ((b"fenced", ("app", "app"), True), (b"open", ("app-1", "app-2"), False)):
        older, later = (Writer(fresh_kafka, id_, partition, pass_by) for id_ in ids)
        await older.open()
        await later.open()
        try:
            await later.write({key: b"newer"})
            with pytest.raises(Fenced) if refused else nullcontext():
                await older.write({key: b"older"})
        finally:
            await older.close()
            await later.close()
        values = [record.value for record in (await read(fresh_kafka, topics.MEMBERS_STATE))[0] if record.key == key]
        assert values[-1] == (b"newer" if refused else b"older")
