"""A worker stopped between any two steps of a batch: what it leaves behind, and that whoever goes on loses nothing."""

from __future__ import annotations

import json
import signal
from typing import Any, NamedTuple

import pytest
from fleet import Market, Stop, assert_effect, caught_up, committed, decoded, eventually, fleet, hit, publish, read

from streams import topics
from streams.checkpoint import Point

pytestmark = pytest.mark.kafka

EVENTS, STATE = topics.CONDITION_EVENTS.name, topics.MEMBERS_STATE.name


class Crash(NamedTuple):
    """Where a worker is killed, and what Kafka has then: how many outputs, the state, the offset."""

    point: Point
    topic: str
    nth: int
    outputs: int
    state: bool = False
    offset: bool = False


HITS, EXITS = 20, 5
ALL = HITS + EXITS
#: In this order every crash meets what the one before it has left: records to be decided again, or none.
CRASHES = (
    Crash("state-written", STATE, 1, ALL, state=True),
    Crash("decided", EVENTS, 1, 0),
    Crash("output-sent", EVENTS, 7, 7),
    Crash("outputs-acknowledged", EVENTS, 1, ALL),
    Crash("value-sent", STATE, 5, ALL),
    Crash("values-acknowledged", STATE, 1, ALL),
    Crash("offset-committed", EVENTS, 1, ALL, state=True, offset=True),
)


def step(number: int) -> list[Any]:
    """Records of a step: new stocks enter, some of the step before leave. Each is one transition."""
    hits = [hit(f"{number:02}{n:04}", 100 * number + n) for n in range(HITS)]
    exits = [hit(f"{number - 1:02}{n:04}", 100 * number + HITS + n, "exit") for n in range(EXITS)]
    return [*hits, *exits]


async def test_killed_at_any_point(fresh_kafka: str) -> None:
    """Each crash leaves exactly what its point says; the next worker goes on, and the effect is that of the rules."""
    clock, again = Market(speed=0), 0
    await publish(fresh_kafka, [hit(f"00{n:04}", n) for n in range(EXITS)])
    with fleet(fresh_kafka) as workers:
        worker = workers.start(clock, instance="one")
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0
        for number, crash in enumerate(CRASHES, 1):
            records = step(number)
            await publish(fresh_kafka, records)
            nth = crash.nth + again if crash.point == "output-sent" else crash.nth
            worker = workers.start(clock, instance="one", stops=[Stop(crash.point, crash.topic, nth)])
            assert await worker.ended() == -signal.SIGKILL, "\n".join(worker.said())
            assert await left(fresh_kafka, records) == crash[3:], crash
            again = 0 if crash.state else again + ALL
        worker = workers.start(clock, instance="one")
        await worker.ready()
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0
    transitions, revisions = await assert_effect(fresh_kafka)
    assert len(transitions) == EXITS + ALL * len(CRASHES)
    assert len(revisions) == len(transitions)


async def left(kafka: str, records: list[Any]) -> tuple[int, bool, bool]:
    """How many outputs of these records Kafka has, whether it has their state, and their offset."""
    ids = {record.id for record in records}
    outputs = {t["id"] for t in decoded(await read(kafka, topics.TRANSITIONS), "transition") if t["event_id"] in ids}
    values = [
        json.loads(value.key)[3]
        for partition in await read(kafka, topics.MEMBERS_STATE, "read_committed")
        for value in partition
        if len(json.loads(value.key)) == 4
    ]
    state = {record.code for record in records if record.action == "hit"} <= set(values)
    ends = [len(partition) for partition in await read(kafka, topics.CONDITION_EVENTS)]
    done = await committed(kafka)
    return len(outputs), state, all(done.get((EVENTS, n), 0) >= end for n, end in enumerate(ends))
