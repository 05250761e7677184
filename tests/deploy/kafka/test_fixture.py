"""The shared broker fixtures do what the others rely on."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from streams import topics

pytestmark = pytest.mark.kafka


async def _roundtrip(address: str) -> None:
    mark = uuid.uuid4().bytes
    async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as producer:
        await producer.send_and_wait(topics.STATUS.name, mark, key=b"a")
    async with AIOKafkaConsumer(
        topics.STATUS.name, bootstrap_servers=address, group_id=mark.hex(), auto_offset_reset="earliest"
    ) as consumer:
        while (await consumer.getone()).value != mark:
            pass


async def test_shared_broker_has_every_topic_and_carries_records(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        described = await admin.describe_topics([t.name for t in topics.ALL])
    finally:
        await admin.close()
    assert {t["topic"]: len(t["partitions"]) for t in described} == {t.name: t.partitions for t in topics.ALL}
    await _roundtrip(kafka)


async def test_fresh_broker_is_another_one(kafka: str, fresh_kafka: str) -> None:
    assert kafka != fresh_kafka
    await _roundtrip(fresh_kafka)


async def test_a_start_that_is_cut_short_leaves_no_connection(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[AIOKafkaConnection] = []
    send = AIOKafkaConnection.send

    def ask(self: AIOKafkaConnection, request: Any, **options: bool) -> Awaitable[Any]:
        if not isinstance(request, MetadataRequest):
            return send(self, request, **options)
        asked.append(self)
        return asyncio.get_running_loop().create_future()  # an answer that never comes

    monkeypatch.setattr(AIOKafkaConnection, "send", ask)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    starting = asyncio.create_task(producer.start())
    while not asked:
        await asyncio.sleep(0.01)
    assert asked[0].connected()
    starting.cancel()
    await asyncio.wait([starting])
    await producer.stop()
    assert starting.cancelled()
    assert [connection for connection in asked if connection.connected()] == []
