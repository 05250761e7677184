"""Two workers that both believe to hold a partition: only the later one can write its state."""

from __future__ import annotations

import signal

import pytest
from fleet import Market, Stop, assert_effect, caught_up, decoded, eventually, fleet, hit, publish, read

from streams import topics
from streams.checkpoint import Point

pytestmark = pytest.mark.kafka

EVENTS, STATE = topics.CONDITION_EVENTS.name, topics.MEMBERS_STATE.name
CODE = "005930"


async def hang(kafka: str, *stops: Stop, fenced: bool) -> int:
    """One worker hangs at a point and is taken for dead; another one works on; the first one wakes up and writes.

    A third one goes on from what they left. Returns the exit code of the one that hung.
    """
    clock = Market(speed=0)
    with fleet(kafka) as workers:
        await publish(kafka, [hit(CODE, 1)])
        sleeper = workers.start(clock, stops=stops, fenced=fenced)
        await sleeper.stopped()
        await publish(kafka, [hit(CODE, 2, "exit"), hit(CODE, 3), hit(CODE, 4, "exit")])
        successor = workers.start(clock, fenced=fenced)
        await eventually(lambda: caught_up(kafka))
        assert successor.end(signal.SIGTERM) == 0
        sleeper.process.send_signal(signal.SIGCONT)
        code = await sleeper.ended()
        await publish(kafka, [hit(CODE, 5)])
        heir = workers.start(clock, fenced=fenced)
        await eventually(lambda: caught_up(kafka))
        assert heir.end(signal.SIGTERM) == 0
    return code


@pytest.mark.parametrize(("point", "topic"), [("outputs-acknowledged", EVENTS), ("values-acknowledged", STATE)])
async def test_who_was_taken_for_dead_writes_no_state(fresh_kafka: str, point: Point, topic: str) -> None:
    """A worker that hung and wakes up after another took over is refused, says so and ends; nothing is lost."""
    assert await hang(fresh_kafka, Stop(point, topic, number=signal.SIGSTOP), fenced=True) == 1
    transitions, _ = await assert_effect(fresh_kafka)
    assert [(t["kind"], t["entry"]) for t in transitions] == [
        ("entered", 1),
        ("exited", 1),
        ("entered", 2),
        ("exited", 2),
        ("entered", 3),
    ]


@pytest.mark.usefixtures("durable")
async def test_without_the_fence_an_effect_is_lost(fresh_kafka: str) -> None:
    """The same without the fence: the old value lands after the newer one, and the next entry is taken for a repeat."""
    stops = Stop("outputs-acknowledged", EVENTS, number=signal.SIGSTOP), Stop("state-written", STATE)
    assert await hang(fresh_kafka, *stops, fenced=False) == -signal.SIGKILL
    transitions = decoded(await read(fresh_kafka, topics.TRANSITIONS), "transition")
    assert {t["entry"] for t in transitions} == {1, 2}
