"""A broker that is away for long while hits flow, as a story that a test tells in half a minute and `make soak` in ten.

The producer's session goes on, the spool grows on the disk, the producer is killed and started anew with Kafka still
away, then Kafka comes back. What was heard is on the topic: all of it, in order, each with the identity that follows
from the market's own account of the day.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from product import CONDITIONS, until
from roles import KEY, Roles, expected_ids

from streams import events, topics


@dataclass
class Figures:
    """What the story has come to."""

    away: float
    """Market seconds without Kafka."""
    heard: int = 0
    lost: list[dict[str, Any]] = field(default_factory=list)
    """What the market said outside the recorded gaps, or while a producer was there to hear it, and is not in Kafka."""
    missed: int = 0
    """Hits and exits of the moments in which no producer ran."""
    repeats: int = 0
    """Records that are in the log twice, byte for byte."""
    most_spooled: int = 0
    """Bytes."""
    drained: float = 0.0
    """Real seconds from Kafka's return until nothing waited any more."""


async def told(roles: Roles, broker: Any, seconds: float, say: Callable[[str], None] = lambda _: None) -> Figures:
    """Live through it. What may not happen on the way is asserted; whether anything was lost is the caller's question.

    Args:
        roles: around `broker`, nothing started yet.
        seconds: real seconds without Kafka.
        say: is told what happens.
    """
    await roles.start_market()
    await roles.control("POST", "pause")
    begun = int((await roles.control("GET", "truth"))["total"])
    roles.start("producer", "produce")
    await roles.all_live(KEY)
    (session,) = (await roles.state())["sessions"]
    await roles.control("POST", "resume")
    await roles.market_says(50)

    say("Kafka goes away")
    await asyncio.to_thread(broker.stop)
    left, left_market = time.monotonic(), await market_time(roles)
    figures = Figures(0.0)
    sizes: list[int] = []
    while time.monotonic() < left + seconds / 2:
        await asyncio.sleep(min(1.0, seconds / 10))
        sizes.append(spooled(roles))
    assert sizes[-1] > sizes[len(sizes) // 2] > 0, f"the spool does not grow: {sizes}"
    (still,) = (await roles.state())["sessions"]
    assert still["session"] == session["session"], "the session did not go on"
    assert still["pings"] > session["pings"]
    assert still["echoes"] >= still["pings"] - 1, "PINGs were not echoed while Kafka was away"

    say("the producer is killed and started anew")
    killed_at = await market_time(roles)
    roles.end("producer")
    on_disk = spooled(roles)
    roles.start("producer", "produce")
    await roles.all_live(KEY)
    assert spooled(roles) >= on_disk, "what waited was thrown away"
    while time.monotonic() < left + seconds:
        await asyncio.sleep(min(1.0, seconds / 10))
    figures.most_spooled = spooled(roles)
    assert figures.most_spooled > on_disk

    say("Kafka comes back")
    figures.away = (await market_time(roles) - left_market).total_seconds()
    await asyncio.to_thread(broker.start)
    back = time.monotonic()

    async def drained() -> bool:
        return spooled(roles) == 0

    await until(drained, "an empty spool", 60 + seconds)
    figures.drained = time.monotonic() - back
    await roles.market_says(20)
    await roles.control("POST", "pause")
    truth = await roles.control("GET", "truth")
    truth = {"events": truth["events"][begun:]}
    expected = expected_ids(truth)
    log = await settled(roles, sum(map(len, expected.values())))

    gaps = [r for _, r in log if isinstance(r, events.Gap)]
    assert {gap.condition for gap in gaps} == set(CONDITIONS)
    assert all(gap.to > killed_at - timedelta(seconds=roles.speed) for gap in gaps), "a gap that nothing has made"
    happened = dict(zip(in_order(truth), truth["events"], strict=True))
    for condition, ids in expected.items():
        said = [r for _, r in log if isinstance(r, events.ConditionEvent) and r.entry and r.condition == condition]
        first = dict.fromkeys(r.id for r in said)  # of what was sent twice, the first one counts
        absent = {id_: happened[id_] for id_ in ids if id_ not in first}
        assert list(first) == [id_ for id_ in ids if id_ not in absent], f"{condition}: order or identity differs"
        for event in absent.values():
            at = datetime.fromisoformat(event["at"])
            if at < killed_at - slack(roles) or not in_gap(at, condition, gaps):
                figures.lost.append(event)
            else:
                figures.missed += 1
        figures.heard += len(first)
    copies = Counter(value for value, _ in log)
    distinct = Counter(r.id for r in dict(log).values())
    assert [id_ for id_, count in distinct.items() if count > 1] == [], "one id, two records"
    figures.repeats = sum(count - 1 for count in copies.values())
    return figures


def slack(roles: Roles) -> timedelta:
    """Market time that may lie between what the market says and what the producer has written down."""
    return timedelta(seconds=0.5 * roles.speed)


def in_order(truth: dict[str, Any]) -> list[str]:
    """The identities of all hits and exits, in the market's order."""
    following = {name: iter(ids) for name, ids in expected_ids(truth).items()}
    return [next(following[event["condition"]]) for event in truth["events"]]


def in_gap(at: datetime, condition: str, gaps: list[events.Gap]) -> bool:
    second = timedelta(seconds=1)  # Kiwoom's times have whole seconds
    return any(g.condition == condition and g.from_ - second <= at <= g.to + second for g in gaps)


def spooled(roles: Roles) -> int:
    """Bytes that wait on the disk."""
    found = 0
    for path in (roles.folder / "data" / "producer").glob("spool-*/*.spool"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:  # sent meanwhile
            continue
    return found


async def market_time(roles: Roles) -> datetime:
    return datetime.fromisoformat((await roles.state())["market_time"])


async def settled(roles: Roles, most: int) -> list[tuple[bytes, Any]]:
    """The condition records, bytes and value, once nothing more comes."""
    found: list[tuple[bytes, Any]] = []

    async def quiet() -> bool:
        nonlocal found
        before = len(found)
        found = await log_of(roles.kafka)
        return len(found) == before and before > most / 2

    await until(quiet, "rest on the topic", 60)
    return found


async def log_of(kafka: str) -> list[tuple[bytes, Any]]:
    """Everything on `condition-events` in the order of each partition."""
    topic = topics.CONDITION_EVENTS
    decoder = msgspec.json.Decoder(events.ConditionRecord)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list[tuple[bytes, Any]] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [(message.value, decoder.decode(message.value)) for message in batch]
        return found
    finally:
        await consumer.stop()
