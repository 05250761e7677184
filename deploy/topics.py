"""Create the topics of `streams.topics`, and verify those that are there.

Whatever is missing is created; a setting that differs is set right; too few partitions are refused, because adding some
would send a key's next records to another place than its earlier ones: `streams.repartition` does that with care, and
what it has made more stays so. With `check` nothing is changed and everything is only told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code

from streams import topics
from streams.events import HitstreamError

log = structlog.get_logger(__name__)

_PATIENCE: Final = 10.0
_REPLICAS: Final = 3
_ALREADY_EXISTS: Final = 36
_SET_ON_TOPIC: Final = 1  # ConfigSource.TOPIC_CONFIG: set on the topic itself, not inherited


class Unreachable(HitstreamError):
    """No broker answered at the bootstrap address."""


class PartitionsDiffer(HitstreamError):
    """A topic has another number of partitions than the program relies on."""


class NotCreated(HitstreamError):
    """The cluster refused to create or to change a topic."""


class TopicsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done.

    `verified` are those that were there and are as they should be. `drift` says per topic what differs, or differed:
    without `check` its settings have been set right. `unverified` says why settings could not be looked at, if so.
    """

    bootstrap_servers: str
    brokers: int
    replication_factor: int
    created: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    drift: dict[str, str] = {}
    unverified: str = ""


class Found(msgspec.Struct, frozen=True):
    """A topic as the cluster has it.

    `leaderless` counts partitions that no broker leads at the moment. `settings` None: they could not be looked at;
    `own` are those set on the topic itself.
    """

    partitions: int
    leaderless: int = 0
    settings: Mapping[str, str] | None = None
    own: Mapping[str, str] = {}


def partitions_differ(wanted: topics.Topic, found: Found) -> str | None:
    """What is wrong with a topic's number of partitions and what to do; None if nothing is."""
    if found.partitions == wanted.partitions or found.partitions > wanted.partitions > 1:
        return None
    return (
        f"{wanted.name} has {found.partitions} partition{'s' if found.partitions != 1 else ''}, but "
        f"{wanted.partitions} are needed: delete the topic (its records go with it) and run `hitstream topics`"
    )


def unavailable(wanted: topics.Topic, found: Found) -> str | None:
    """What to say of a topic that cannot be read or written in full; None if it can."""
    return f"{found.leaderless} of its partitions have no leader: a broker is down" if found.leaderless else None


def settings_differ(wanted: topics.Topic, found: Found) -> str | None:
    """Which of a topic's settings differ; None if none do."""
    if found.settings is None:
        return None
    differing = [
        f"{name} is {found.settings.get(name, 'not set')}, not {value}"
        for name, value in wanted.config.items()
        if found.settings.get(name) != value
    ]
    return "; ".join(differing) or None


async def ensure(
    bootstrap_servers: str, *, check: bool = False, wanted: Sequence[topics.Topic] = topics.ALL
) -> TopicsReport:
    """Create and verify the topics; with `check`, only look.

    Raises:
        Unreachable: nothing answered at `bootstrap_servers` for 10 seconds.
        PartitionsDiffer: a topic has another number of partitions (not with `check`: then it is in `drift`).
        NotCreated: the cluster refused to create or change a topic.
    """
    async with _admin(bootstrap_servers) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        report = TopicsReport(
            bootstrap_servers=bootstrap_servers, brokers=brokers, replication_factor=max(1, min(_REPLICAS, brokers))
        )
        there = await _topics(admin)
        missing = [topic for topic in wanted if topic.name not in there]
        created: list[str] = []
        if missing and not check:
            created = await _create(admin, missing, report.replication_factor)
            there = await _await_leaders(admin, [topic.name for topic in missing])
            missing = []
        present = [topic for topic in wanted if topic.name in there and topic.name not in created]
        settings, unverified = await _settings(admin, [topic.name for topic in present])
        drift: dict[str, str] = {}
        refused: list[str] = []
        for topic in present:
            found = Found(*there[topic.name], *settings.get(topic.name, (None, {})))
            partitions, differing = partitions_differ(topic, found), settings_differ(topic, found)
            if partitions:
                refused.append(partitions)
            if differing and not check:
                await _alter(admin, topic, found.own)
                await _await_settings(admin, topic)
            if words := "; ".join(filter(None, (partitions, unavailable(topic, found), differing))):
                drift[topic.name] = words
        if refused and not check:
            raise PartitionsDiffer(". ".join(refused) + ".")
        return msgspec.structs.replace(
            report,
            created=tuple(created),
            verified=tuple(topic.name for topic in present if topic.name not in drift),
            missing=tuple(topic.name for topic in missing),
            drift=drift,
            unverified=unverified,
        )


# --- what is asked of the cluster -------------------------------------------------------------------------------------


@asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = None
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=15_000)
                try:
                    await admin.start()
                    break
                except (KafkaError, OSError) as error:
                    log.debug("no broker yet", bootstrap_servers=bootstrap_servers, error=repr(error))
                    await admin.close()
                await asyncio.sleep(0.25)
    except TimeoutError:
        if admin is not None:
            await admin.close()
        raise Unreachable(
            f"No Kafka broker answers at {bootstrap_servers}; is it running, and is kafka.bootstrap_servers right?"
        ) from None
    try:
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unreachable(f"The Kafka broker at {bootstrap_servers} stopped answering: {error!r}.") from error
    finally:
        await admin.close()


async def _topics(admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
    """Partitions of every topic, and how many have no leader. All are asked for: naming one might create it."""
    return {
        topic["topic"]: (len(topic["partitions"]), sum(p["leader"] < 0 for p in topic["partitions"]))
        for topic in await admin.describe_topics()
        if topic["partitions"]
    }


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[topics.Topic], replicas: int) -> list[str]:
    response = await admin.create_topics(
        [NewTopic(t.name, t.partitions, replicas, topic_configs=t.config) for t in missing]
    )
    created = []
    for name, code, *message in response.topic_errors:
        if code == 0:
            created.append(name)
        elif code != _ALREADY_EXISTS:  # somebody else was quicker: verified like any other
            raise NotCreated(f"The Kafka cluster refused to create {name}: {_words(code, message)}.")
    return created


async def _await_leaders(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Wait until topics just created can be written to."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                there = await _topics(admin)
                if all(there.get(name, (0, 1))[1] == 0 for name in names):
                    return there
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotCreated(f"The Kafka cluster found no leader for {', '.join(names)} within 10 s.") from None


async def _settings(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> tuple[dict[str, tuple[dict[str, str], dict[str, str]]], str]:
    """Settings in force and those set on the topic itself, by topic; and why they could not be read, if so."""
    if not names:
        return {}, ""
    try:
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    except IncompatibleBrokerVersion:
        return {}, "the broker does not tell its topics' settings"
    found = {}
    for code, message, _, name, entries in (r for response in responses for r in response.resources):
        if code:
            return {}, f"the broker does not tell its topics' settings: {_words(code, [message])}"
        in_force = {entry[0]: entry[1] for entry in entries}
        found[name] = (in_force, {entry[0]: entry[1] for entry in entries if entry[3] == _SET_ON_TOPIC})
    return found, ""


async def _alter(admin: AIOKafkaAdminClient, topic: topics.Topic, own: Mapping[str, str]) -> None:
    """Set a topic's settings right. The request replaces all that are set on the topic: the others go along."""
    settings = {**own, **topic.config}
    responses = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, settings)])
    for code, message, *_ in (r for response in responses for r in response.resources):
        if code:
            raise NotCreated(f"The Kafka cluster refused to change {topic.name}: {_words(code, [message])}.")


async def _await_settings(admin: AIOKafkaAdminClient, topic: topics.Topic) -> None:
    """Wait until the broker tells what was set: its controller has taken it, the brokers hear of it a little later."""
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                settings, _ = await _settings(admin, [topic.name])
                in_force, own = settings.get(topic.name, (None, {}))
                if settings_differ(topic, Found(topic.partitions, 0, in_force, own)) is None:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotCreated(f"The Kafka cluster still tells the old settings of {topic.name} after 10 s.") from None


def _words(code: int, message: Iterable[Any]) -> str:
    said = " ".join(str(m) for m in message if m)
    return f"{for_code(code).__name__}{f' ({said})' if said else ''}"
