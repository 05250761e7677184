"""Topics that grow: keys move, their state moves along, and the effect is that of a log that never changed."""

from __future__ import annotations

import signal
from typing import Any

import msgspec
import pytest
from fleet import (
    CONDITIONS,
    GROUP,
    RECOMMEND,
    START,
    Fleet,
    Market,
    by_id,
    caught_up,
    decoded,
    eventually,
    fleet,
    hit,
    publish,
    read,
)

from streams import membership, repartition, topics
from streams.app import check
from streams.changelog import Writer
from streams.events import HitstreamError, encode
from streams.lane import MembershipLane, StandingLane
from streams.outbox import partition_of
from streams.recommend import Policy

KEYS = [f"{n:06}" for n in range(12)]


def test_a_value_that_moves_forgets_its_position() -> None:
    """Position is where a record stands in a partition: in another one it means nothing. One that stays keeps it."""
    member = membership.Member(date=START.date(), inside=True, entry=3, position=77)
    changelog = topics.MEMBERS_STATE.name
    for partitions in range(2, 9):
        there = partition_of(b"main/x", partitions)
        key, value = msgspec.json.encode([there, "main", "x", "005930"]), msgspec.json.encode(member)
        assert repartition.moved(changelog, key, value, partitions) is None
        elsewhere = msgspec.json.encode([there + 1, "main", "x", "005930"])
        expected = msgspec.json.encode(msgspec.structs.replace(member, position=-1))
        assert repartition.moved(changelog, elsewhere, value, partitions) == (there, key, expected)


def step(number: int) -> list[Any]:
    """Of every condition half of the stocks enter, and of those that entered before some leave."""
    records = []
    for condition in (rule.name for rule in CONDITIONS):
        for n, code in enumerate(KEYS):
            action = "hit" if (n + number) % 2 else "exit"
            records.append(hit(code, 100 * number + n, action, condition))  # type: ignore[arg-type]
    return records


async def work_off(workers: Fleet, clock: Market) -> None:
    """Let a worker take what there is, and stop it."""
    worker = workers.start(clock)
    await worker.ready()
    await eventually(lambda: caught_up(workers.kafka))
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.kafka
async def test_topics_grow(fresh_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 4 to 6 partitions, interrupted once: nothing is lost or told twice, and the refusals say what to do."""
    clock, log = Market(speed=0), [step(0), step(1), step(2)]
    await publish(fresh_kafka, log[0])
    with fleet(fresh_kafka) as workers:
        with pytest.raises(repartition.NotNow, match="are still to be taken"):
            await repartition.grow(fresh_kafka, GROUP, 6)
        worker = workers.start(clock)
        await worker.ready()
        with pytest.raises(repartition.NotNow, match="stop the producers"):
            await repartition.grow(fresh_kafka, GROUP, 6)
        await eventually(lambda: caught_up(fresh_kafka))
        assert worker.end(signal.SIGTERM) == 0

        with monkeypatch.context() as patch:
            patch.setattr(Writer, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                await repartition.grow(fresh_kafka, GROUP, 6)
        with pytest.raises(HitstreamError, match="run `hitstream topics --partitions 6`"):
            await check(fresh_kafka)
        assert await repartition.grow(fresh_kafka, GROUP, 6) > 0
        assert await repartition.grow(fresh_kafka, GROUP, 6) == 0
        with pytest.raises(repartition.NotNow, match="can't take partitions away"):
            await repartition.grow(fresh_kafka, GROUP, 4)

        for records in log[1:]:
            await publish(fresh_kafka, records)
            await work_off(workers, clock)

    transitions = await read_all(fresh_kafka, topics.TRANSITIONS)
    revisions = await read_all(fresh_kafka, topics.RECOMMENDATIONS)
    assert {record.partition for record in transitions} - {0, 1, 2, 3}
    # One lane that takes everything in order, whatever its partition, is what a log that never changed would be.
    lane = MembershipLane(0, [], 0)
    outputs = [o for n, r in enumerate(r for s in log for r in s) for o in lane.take(encode(r), n).outputs]
    told = list(decoded([transitions], "transition"))
    assert by_id(told) == by_id(msgspec.json.decode(encode(o.record)) for o in outputs)
    assert len(told) == len(outputs)
    standings = StandingLane(0, [], 0, Policy.of(CONDITIONS, RECOMMEND))
    expected = [o for n, r in enumerate(transitions) for o in standings.take(r.value, n).outputs]
    assert by_id(decoded([revisions], "recommendation")) == by_id(
        msgspec.json.decode(encode(o.record)) for o in expected
    )
    assert len(revisions) == len(expected)


async def interrupted(*_: Any) -> int:
    """Stands for a write during which the person loses patience."""
    raise KeyboardInterrupt


async def read_all(kafka: str, topic: topics.Topic) -> list[Any]:
    """Everything on a topic of 6 partitions, in the order in which it was appended."""
    partitions = await read(kafka, msgspec.structs.replace(topic, partitions=6))
    return sorted((r for records in partitions for r in records), key=lambda r: (r.timestamp, r.offset))
