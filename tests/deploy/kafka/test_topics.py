"""Topics are created, verified, set right – or refused – and nothing is changed when only asked to look."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy import topics
from deploy.topics import Found
from streams.topics import ALL, Topic


def topic(name: str, *, partitions: int = 2, retention_ms: int | None = 60_000) -> Topic:
    return Topic(name=name, key="k", partitions=partitions, retention_ms=retention_ms, records=(), doc="")


@asynccontextmanager
async def admin(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def settings(address: str, name: str) -> dict[str, str]:
    async with admin(address) as client:
        (response,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return {entry[0]: entry[1] for entry in response.resources[0][4]}


# --- pure -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Found(2), None),
        (Found(1), "t has 1 partition, but 2 are needed"),
        (Found(8), None),
    ],
)
def test_another_number_of_partitions_is_told_with_what_to_do(found: Found, words: str | None) -> None:
    told = topics.partitions_differ(topic("t"), found)
    assert told is words or (told is not None and words is not None and told.startswith(words))
    assert told is None or "delete the topic" in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cleanup.policy": "delete", "retention.ms": "60000", "segment.ms": "1"}, None),
        (None, None),
        ({"cleanup.policy": "compact", "retention.ms": "60000"}, "cleanup.policy is compact, not delete"),
        ({"cleanup.policy": "delete"}, "retention.ms is not set, not 60000"),
    ],
)
def test_settings_that_differ_are_named(settings: dict[str, str] | None, words: str | None) -> None:
    assert topics.settings_differ(topic("t"), Found(2, 0, settings)) == words


# --- against a broker -------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_every_topic_of_the_program_is_there_and_verified(kafka: str) -> None:
    report = await topics.ensure(kafka)
    assert report.verified == tuple(t.name for t in ALL)
    assert (report.created, report.missing, report.drift, report.unverified) == ((), (), {}, "")
    assert (report.brokers, report.replication_factor) == (1, 1)


@pytest.mark.kafka
async def test_a_missing_topic_is_created_and_the_next_time_verified(kafka: str) -> None:
    wanted = [topic("created-a"), topic("created-b", retention_ms=None)]
    assert (await topics.ensure(kafka, wanted=wanted)).created == ("created-a", "created-b")
    again = await topics.ensure(kafka, wanted=wanted)
    assert (again.created, again.verified) == ((), ("created-a", "created-b"))
    assert (await settings(kafka, "created-b"))["cleanup.policy"] == "compact"


@pytest.mark.kafka
async def test_looking_changes_nothing(kafka: str) -> None:
    name = "only-looked-at"
    assert (await topics.ensure(kafka, check=True, wanted=[topic(name)])).missing == (name,)
    assert (await topics.ensure(kafka, check=True, wanted=[topic(name)])).missing == (name,)
    await topics.ensure(kafka, wanted=[topic(name)])
    report = await topics.ensure(kafka, check=True, wanted=[topic(name, retention_ms=90_000)])
    assert report.drift == {name: "retention.ms is 60000, not 90000"}
    assert report.verified == ()
    assert (await settings(kafka, name))["retention.ms"] == "60000"


@pytest.mark.kafka
async def test_a_setting_that_drifted_is_set_right_and_others_are_left(kafka: str) -> None:
    name = "drifted"
    async with admin(kafka) as client:
        configs = {"cleanup.policy": "delete", "retention.ms": "1000", "segment.ms": "123456"}
        await client.create_topics([NewTopic(name, 2, 1, topic_configs=configs)])
    report = await topics.ensure(kafka, wanted=[topic(name)])
    assert report.drift == {name: "retention.ms is 1000, not 60000"}
    now = await settings(kafka, name)
    assert (now["retention.ms"], now["segment.ms"]) == ("60000", "123456")
    assert (await topics.ensure(kafka, wanted=[topic(name)])).verified == (name,)


@pytest.mark.kafka
async def test_another_number_of_partitions_is_refused(kafka: str) -> None:
    name = "one-partition"
    async with admin(kafka) as client:
        await client.create_topics([NewTopic(name, 1, 1, topic_configs=topic(name).config)])
    with pytest.raises(topics.PartitionsDiffer, match="one-partition has 1 partition, but 2 are needed"):
        await topics.ensure(kafka, wanted=[topic(name)])
    report = await topics.ensure(kafka, check=True, wanted=[topic(name)])
    assert list(report.drift) == [name]
    assert (report.created, report.verified, report.missing) == ((), (), ())


@pytest.mark.kafka
async def test_a_refusal_of_the_cluster_is_told(kafka: str) -> None:
    with pytest.raises(topics.NotCreated, match="refused to create bad name!: InvalidTopic"):
        await topics.ensure(kafka, wanted=[topic("bad name!")])


async def test_no_broker_is_told_with_the_address(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "_PATIENCE", 0.3)
    with pytest.raises(topics.Unreachable, match=f"No Kafka broker answers at 127.0.0.1:{unused_tcp_port}"):
        await topics.ensure(f"127.0.0.1:{unused_tcp_port}")
