"""How long a partition's stocks are unheard after a worker was killed, with 100,000 memberships in state.

`make bench` prints the table. A worker reads snapshots until it holds the memberships, then it is killed while hits
come ten times a second; told is how long it took, from SIGKILL on, until transitions of every partition came out
again. Three ways on: another worker stands by; the supervisor starts a nameless worker anew; it starts a named one
(`stream.instance`) anew. `HITSTREAM_TEST_MEMBERS` changes the number.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

sys.path.insert(0, str(Path(__file__).parents[1] / "streams"))

from fleet import START, Market, caught_up, decoded, eventually, fleet, hit, producing, publish, read

from streams import topics
from streams.events import ConditionSnapshot, condition_key, encode

MEMBERS = int(os.environ.get("HITSTREAM_TEST_MEMBERS", "100000"))
STOCKS = 2000


def snapshots() -> list[Any]:
    """Conditions that hold `STOCKS` stocks each, until there are enough memberships."""
    codes = tuple(f"{n:06}" for n in range(STOCKS))
    common: Any = {"account": "main", "seq": "1", "session": "a", "frame": 1}
    return [
        ConditionSnapshot(
            id=f"snapshot-{n}",
            condition=f"condition {n}",
            codes=codes,
            at=START,
            received_at=START.astimezone(UTC),
            **common,
        )
        for n in range(MEMBERS // STOCKS)
    ]


async def heard_again(kafka: str, conditions: Iterable[str], kill: Callable[[], None]) -> float:
    """Let hits of each condition come ten times a second, kill; seconds until each has been heard again."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topics.TRANSITIONS.name, n) for n in range(topics.TRANSITIONS.partitions)])
        await consumer.seek_to_end()
        killed, unheard, second = 0.0, set(conditions), 0
        async with producing(kafka) as producer:
            while unheard:
                second += 1
                for condition in conditions:
                    event = hit(f"9{second:05}", second, condition=condition)
                    await producer.send(
                        topics.CONDITION_EVENTS.name, encode(event), key=condition_key("main", condition)
                    )
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    unheard -= {told["condition"] for told in decoded([records], "transition")}
                if not unheard and not killed:
                    kill()
                    killed, unheard = time.monotonic(), set(conditions)
                    while await consumer.getmany(timeout_ms=100):
                        pass  # what the killed worker had said before
        return time.monotonic() - killed
    finally:
        await consumer.stop()


@pytest.mark.parametrize("way", ["a worker stands by", "started anew", "started anew, by name"])
async def bench_takeover(fresh_kafka: str, way: str) -> None:
    """SIGKILL to the first transitions after it."""
    clock = Market(START + timedelta(minutes=1), speed=0)
    options: Any = {"instance": "one"} if way.endswith("by name") else {}
    with fleet(fresh_kafka) as workers:
        await publish(fresh_kafka, snapshots())
        started = time.monotonic()
        first = workers.start(clock, **options)
        await eventually(lambda: caught_up(fresh_kafka), within=300)
        built = time.monotonic() - started
        if way == "a worker stands by":
            await workers.start(clock).ready()
            await first.ready()

        def kill() -> None:
            first.end(signal.SIGKILL)
            if way != "a worker stands by":
                workers.start(clock, **options)

        # One condition of each partition: whichever of them the worker held, it is waited for.
        events = await read(fresh_kafka, topics.CONDITION_EVENTS)
        conditions = [next(decoded([records], "condition-snapshot"))["condition"] for records in events]
        seconds = await heard_again(fresh_kafka, conditions, kill)
        await eventually(lambda: caught_up(fresh_kafka), within=300)
    print(f"\n{MEMBERS:,} memberships, built in {built:.0f} s; {way}: heard again after {seconds:.1f} s")
