"""More partitions: where keys and their state stand when topics grow.

Kafka spreads keys over partitions by their number, so with more of them most keys move. Records that are there stay
where they are; only what comes after goes to the new place. That is harmless once everything before has been taken –
and if what is remembered of a key moves with it. `grow` makes sure of the first, does the second, and can be run again
wherever it was stopped: the topics of records grow last, and workers refuse to start until then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import GroupCoordinatorNotAvailableError

from . import clients, membership, recommend, topics
from .changelog import Replica, Writer
from .checkpoint import pass_by
from .events import HitstreamError, condition_key
from .outbox import partition_of

#: Topics whose records a worker takes.
_SOURCES: Final = (topics.CONDITION_EVENTS, topics.TRANSITIONS, topics.COMMANDS)
_STATE: Final = (topics.MEMBERS_STATE, topics.STANDINGS_STATE)
#: Everything that is spread over partitions.
SPREAD: Final = tuple(topic for topic in topics.ALL if topic.partitions > 1)


class NotNow(HitstreamError):
    """Partitions can't be added while somebody is at work, or while something is still to be done."""


def moved(changelog: str, key: bytes, value: bytes, partitions: int) -> tuple[int, bytes, bytes] | None:
    """Partition, key and value of a value of the state among so many partitions; None if it stays.

    A moved value holds no position: those are of the partition that it leaves.
    """
    partition, *owner = msgspec.json.decode(key)
    kind: Any = recommend.Standing
    source = owner[1].encode()
    if changelog == topics.MEMBERS_STATE.name:
        account, condition, *code = owner
        kind = membership.Member if code else membership.Day
        source = condition_key(account, condition)
    there = partition_of(source, partitions)
    if there == partition:
        return None
    forgotten = msgspec.structs.replace(msgspec.json.decode(value, type=kind), position=-1)
    return there, msgspec.json.encode([there, *owner]), msgspec.json.encode(forgotten)


async def grow(bootstrap_servers: str, app_id: str, partitions: int) -> int:
    """Give every spread topic so many partitions; returns how many values of the state have moved.

    Nobody may write to the topics meanwhile.

    Raises:
        NotNow: a worker is running, or has not taken everything; or there are more partitions already.
        KafkaError, OSError: Kafka did not do it. It may be tried again.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        missing = [topic.name for topic in SPREAD if topic.name not in counts]
        if missing:
            raise NotNow(f"there is no topic {', '.join(missing)}: run `hitstream topics` first")
        larger = [f"{topic.name} ({counts[topic.name]})" for topic in SPREAD if counts[topic.name] > partitions]
        if larger:
            raise NotNow(f"Kafka can't take partitions away: {', '.join(larger)} has more than {partitions}")
        await _idle(admin, app_id)
        await _caught_up(bootstrap_servers, admin, app_id, counts)
        await _add(admin, _STATE, partitions)
        count = await _move(bootstrap_servers, app_id, partitions)
        await _add(admin, SPREAD, partitions)
    finally:
        await admin.close()
    return count


async def _idle(admin: AIOKafkaAdminClient, app_id: str) -> None:
    try:
        (response,) = await admin.describe_consumer_groups([app_id])
    except GroupCoordinatorNotAvailableError:
        return  # no group has ever been here
    members = response.groups[0][5]
    if members:
        raise NotNow(
            f"{len(members)} worker(s) of {app_id} are still there: stop the producers, let the workers take what is "
            "left, stop them too and try again (one that was killed is missed after 6 seconds)"
        )


async def _caught_up(
    bootstrap_servers: str, admin: AIOKafkaAdminClient, app_id: str, counts: Mapping[str, int]
) -> None:
    places = [TopicPartition(topic.name, n) for topic in _SOURCES for n in range(counts[topic.name])]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(places)
    finally:
        await clients.stop(consumer)
    try:
        done = await admin.list_consumer_group_offsets(app_id)
    except GroupCoordinatorNotAvailableError:
        done = {}
    for tp in places:
        taken = done[tp].offset if tp in done else 0
        if taken < ends[tp]:
            raise NotNow(
                f"{ends[tp] - taken} records of {tp.topic}[{tp.partition}] are still to be taken: start "
                "`hitstream stream` without the producers until it has taken them, then stop it and try again"
            )


async def _add(admin: AIOKafkaAdminClient, grown: tuple[topics.Topic, ...], partitions: int) -> None:
    there = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    if lacking := {t.name: NewPartitions(partitions) for t in grown if there[t.name] < partitions}:
        await admin.create_partitions(lacking)
        async with asyncio.timeout(30):
            while True:
                there = {
                    topic["topic"]: sum(p["leader"] >= 0 for p in topic["partitions"])
                    for topic in await admin.describe_topics()
                }
                if all(there[name] == partitions for name in lacking):
                    return
                await asyncio.sleep(0.05)


async def _move(bootstrap_servers: str, app_id: str, partitions: int) -> int:
    """Write every value to where it belongs now, and only then forget it where it was."""
    places = [TopicPartition(topic.name, n) for topic in _STATE for n in range(partitions)]
    replica = Replica(bootstrap_servers, places)
    writers = {tp: Writer(bootstrap_servers, app_id, tp, pass_by) for tp in places}
    following = asyncio.create_task(replica.follow())
    try:
        arriving: dict[TopicPartition, dict[bytes, bytes | None]] = defaultdict(dict)
        leaving: dict[TopicPartition, dict[bytes, bytes | None]] = defaultdict(dict)
        for tp in places:
            await writers[tp].open()
            for key, value in (await replica.hold(tp)).items():
                if (move := moved(tp.topic, key, value, partitions)) is not None:
                    arriving[TopicPartition(tp.topic, move[0])][move[1]] = move[2]
                    leaving[tp][key] = None
        for writes in (arriving, leaving):
            for tp, values in writes.items():
                await writers[tp].write(values)
        return sum(map(len, leaving.values()))
    finally:
        following.cancel()
        await asyncio.gather(following, *(writer.close() for writer in writers.values()), return_exceptions=True)
