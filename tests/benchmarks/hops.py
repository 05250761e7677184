"""The limit of `bench_latency`: three Kafka hops of raw aiokafka and one write to a browser, nothing decided between.

`hops.py KAFKA FEED-PORT SSE-PORT` in one process of each part, as the product has: `in` receives frames and sends their
bytes to the first topic; `relay` takes them to the second, and from there to the third; `out` writes each record that
it reads from the third to every client, as one server-sent event. `acks=all` and idempotence throughout, no linger.
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from websockets.asyncio.client import connect

TOPICS = ("hops.first", "hops.second", "hops.third")


def producer(kafka: str) -> AIOKafkaProducer:
    """As the product's: nothing lost, nothing twice."""
    return AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True, linger_ms=0)


async def records(kafka: str, topic: str):
    """What comes to a topic from now on, batch by batch of a partition."""
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        partitions = sorted(consumer.partitions_for_topic(topic) or range(4))
        consumer.assign([TopicPartition(topic, n) for n in partitions])
        await consumer.seek_to_end()
        while True:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                yield batch


async def take_in(kafka: str, feed: int) -> None:
    """Frames → the first topic."""
    async with (
        producer(kafka) as to,
        connect(f"ws://127.0.0.1:{feed}/", ping_interval=None, compression=None) as socket,
    ):
        print("ready", flush=True)
        async for frame in socket:
            text = frame.encode() if isinstance(frame, str) else frame
            await to.send(TOPICS[0], text, text.partition(b'"9001":"')[2][:6])


async def relay(kafka: str) -> None:
    """Each topic → the next."""

    async def one(source: str, target: str, to: AIOKafkaProducer) -> None:
        async for batch in records(kafka, source):
            await asyncio.gather(*[await to.send(target, record.value, record.key) for record in batch])

    async with producer(kafka) as to, asyncio.TaskGroup() as group:
        group.create_task(one(TOPICS[0], TOPICS[1], to))
        group.create_task(one(TOPICS[1], TOPICS[2], to))
        await asyncio.sleep(1)
        print("ready", flush=True)


async def give_out(kafka: str, port: int) -> None:
    """The last topic → every client."""
    clients: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        clients.add(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        reading = records(kafka, TOPICS[2])
        print("ready", flush=True)
        async for batch in reading:
            for record in batch:
                code = record.value.partition(b'"9001":"')[2][:6]
                for client in clients:
                    client.write(b'data: {"change":"recommendation","code":"%s"}\n\n' % code)


if __name__ == "__main__":
    part, address, number = sys.argv[1:]
    match part:
        case "in":
            asyncio.run(take_in(address, int(number)))
        case "relay":
            asyncio.run(relay(address))
        case "out":
            asyncio.run(give_out(address, int(number)))
