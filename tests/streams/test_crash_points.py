"""A worker stopped between any two steps of a batch: what it leaves behind, and that whoever goes on loses nothing."""

from __future__ import annotations

import json
import signal
from typing import Any, Literal, NamedTuple

import pytest
from fleet import Market, Stop, assert_effect, caught_up, committed, decoded, eventually, fleet, hit, publish, read

from streams import topics
from streams.checkpoint import Point

pytestmark = pytest.mark.kafka

EVENTS, STATE = topics.CONDITION_EVENTS.name, topics.MEMBERS_STATE.name


class Crash(NamedTuple):
    """Where a worker is killed, and what Kafka has then: no, some or all outputs, the state, the offset."""

    point: Point
    topic: str
    outputs: Literal["none", "some", "all"]
    state: bool = False
    offset: bool = False


HITS, EXITS = 20, 5
ALL = HITS + EXITS
#: In this order every crash meets what the one before it has left: records to be decided again, or none.
CRASHES = (
    Crash("state-written", STATE, "all", state=True),
    Crash("decided", EVENTS, "none"),
    Crash("output-sent", EVENTS, "some"),
    Crash("outputs-acknowledged", EVENTS, "all"),
    Crash("value-sent", STATE, "all"),
    Crash("values-acknowledged", STATE, "all"),
    Crash("offset-committed", EVENTS, "all", state=True, offset=True),
)


def step(number: int) -> list[Any]:
    """Records of a step: new stocks enter, some of the step before leave. Each is one transition."""
    hits = [hit(f"{number:02}{n:04}", 100 * number + n) for n in range(HITS)]
    exits = [hit(f"{number - 1:02}{n:04}", 100 * number + HITS + n, "exit") for n in range(EXITS)]
    return [*hits, *exits]


async def test_killed_at_any_point(fresh_kafka: str) -> None:
    """Each crash leaves exactly what its point says; the next worker goes on, and the effect is that of the rules."""
    clock = Market(speed=0)
    await publish(fresh_kafka, [hit(f"00{n:04}", n) for n in range(EXITS)])
    with fleet(fresh_kafka) as workers:
        worker = workers.start(clock, instance="one")
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0
        for number, crash in enumerate(CRASHES, 1):
            records = step(number)
            await publish(fresh_kafka, records)
            worker = workers.start(clock, instance="one", stops=[Stop(crash.point, crash.topic)])
            assert await worker.ended() == -signal.SIGKILL, "\n".join(worker.said())
            assert await left(fresh_kafka, records) == crash[2:], crash
        worker = workers.start(clock, instance="one")
        await worker.ready()
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0
    transitions, revisions = await assert_effect(fresh_kafka)
    assert len(transitions) == EXITS + ALL * len(CRASHES)
    assert len(revisions) == len(transitions)


async def left(kafka: str, records: list[Any]) -> tuple[str, bool, bool]:
    """Which outputs of these records Kafka has, whether it has their state, and their offset."""
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
    share = "none" if not outputs else "all" if len(outputs) == ALL else "some"
    return share, state, all(done.get((EVENTS, n), 0) >= end for n, end in enumerate(ends))
