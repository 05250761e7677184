"""Several workers share the partitions: whoever decides a record, and when, it comes to the same."""

from __future__ import annotations

import json
import random
import signal
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from fleet import (
    CONDITIONS,
    RECOMMEND,
    Market,
    administering,
    caught_up,
    eventually,
    fleet,
    publish,
    random_record,
    read,
)

from deploy.topics import ensure
from streams import topics
from streams.events import encode
from streams.lane import MembershipLane, StandingLane
from streams.recommend import Policy

pytestmark = pytest.mark.kafka

RECORDS = 1500
DERIVED = (topics.TRANSITIONS, topics.RECOMMENDATIONS, topics.MEMBERS_STATE, topics.STANDINGS_STATE)

#: What is told of each (condition, code) or stock, in order, each once.
Told = dict[tuple[str, ...], list[bytes]]


def told(values: Iterable[bytes], *fields: str) -> Told:
    """The records of a topic as bytes, by these fields; repeats of an id left out."""
    found: Told = defaultdict(list)
    seen = set()
    for value in values:
        record = json.loads(value)
        if record["id"] not in seen:
            found[tuple(record[name] for name in fields)].append(value)
            seen.add(record["id"])
    return dict(found)


def values(partitions: Sequence[Sequence[Any]], type_: str) -> Iterable[bytes]:
    """The records of a type, as bytes."""
    return (r.value for records in partitions for r in records if json.loads(r.value)["type"] == type_)


def decided(partitions: Sequence[Sequence[Any]], lanes: Sequence[Any]) -> Iterable[bytes]:
    """What the pure lanes make of a log."""
    for records, lane in zip(partitions, lanes, strict=True):
        for record in records:
            yield from (encode(output.record) for output in lane.take(record.value, record.offset).outputs)


async def forget(kafka: str) -> None:
    """Delete everything that was derived; the log of conditions stays."""
    async with administering(kafka) as admin:
        await admin.delete_topics([topic.name for topic in DERIVED])

        async def gone() -> bool:
            return not {topic.name for topic in DERIVED} & set(await admin.list_topics())

        await eventually(gone)
    await ensure(kafka)


async def assert_same(kafka: str, expected: Told | None) -> Told:
    """What was told of every (condition, code) is what was expected; recommendations follow from their log."""
    transitions = await read(kafka, topics.TRANSITIONS)
    entered = told(values(transitions, "transition"), "condition", "code")
    events = await read(kafka, topics.CONDITION_EVENTS)
    assert entered == told(decided(events, [MembershipLane(n, [], 0) for n in range(len(events))]), "condition", "code")
    assert expected is None or entered == expected
    policy = Policy.of(CONDITIONS, RECOMMEND)
    revisions = told(decided(transitions, [StandingLane(n, [], 0, policy) for n in range(len(transitions))]), "code")
    assert told(values(await read(kafka, topics.RECOMMENDATIONS), "recommendation"), "code") == revisions
    return entered


async def test_any_number_of_workers_tells_the_same(fresh_kafka: str) -> None:
    """Four that join and leave while records come, two, and one: the same transitions, byte for byte, at any speed."""
    chance, clock = random.Random(4), Market(speed=30)
    log: list[Any] = []

    async def feed() -> None:
        fresh = []
        for n in range(len(log), len(log) + RECORDS // 5):
            fresh.append(random_record(n, clock.now(), log, chance))
            log.append(fresh[-1])
        await publish(fresh_kafka, fresh)

    with fleet(fresh_kafka) as workers:
        for joining in (1, 1, 2, 0, 0):
            for worker in [workers.start(clock, group="four") for _ in range(joining)]:
                await worker.ready()
            await feed()
            if not joining:
                leaving = workers.workers.pop(0)
                leaving.end(signal.SIGTERM)
                leaving.close()
        await eventually(lambda: caught_up(fresh_kafka, "four"))
        assert any("kept=['" in line for worker in workers.workers for line in worker.said())
    expected = await assert_same(fresh_kafka, None)
    assert len(expected) > 80

    for group, count, speed in (("two", 2, 600), ("one", 1, 0)):
        await forget(fresh_kafka)
        with fleet(fresh_kafka) as workers:
            clock = Market(clock.now(), speed)
            for _ in range(count):
                workers.start(clock, group=group)
            await eventually(lambda group=group: caught_up(fresh_kafka, group))  # type: ignore[misc]
        await assert_same(fresh_kafka, expected)
