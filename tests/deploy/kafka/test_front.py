"""The front holds what would otherwise be asked thousands of times a second, and is otherwise not there."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy import topics
from deploy.local.kafka import noida, wire
from deploy.local.kafka.address import free_port
from deploy.local.kafka.front import Front
from streams.topics import Topic

HOST = "127.0.0.1"
NAME = "t"
LONG = 100_000  # ms: longer than any test may take
TOPIC = Topic(name=NAME, key="k", partitions=2, retention_ms=60_000, records=(), doc="")

Answer = Callable[[bytes], Awaitable[bytes | None]]


@contextlib.asynccontextmanager
async def fronted(inner: int) -> AsyncIterator[tuple[Front, int]]:
    port = free_port(HOST)
    front = Front((HOST, inner), (HOST, port))
    async with front.listening(HOST, port):
        yield front, port


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[tuple[Front, str]]:
    """A front before noida-db with one topic, and the address that clients use."""
    async with noida.run(tmp_path) as (_, inner, _), fronted(inner) as (front, port):
        await topics.ensure(f"{HOST}:{port}", wanted=[TOPIC])
        yield front, f"{HOST}:{port}"


@contextlib.asynccontextmanager
async def broker_that(answer: Answer) -> AsyncIterator[int]:
    """A broker that answers as told (None: closes); gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while (reply := await answer(await receive(reader))) is not None:
                await send(writer, reply)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])


@contextlib.asynccontextmanager
async def raw(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address.split(":"))
    try:
        yield reader, writer
    finally:
        writer.close()


def fetch(correlation: int, max_wait: int, *, min_bytes: int = 1, partition: int = 0, topic: str = NAME) -> bytes:
    """A Fetch version 4 of one partition from its start."""
    head = struct.pack(">hhih", wire.FETCH, 4, correlation, -1)
    body = struct.pack(">iiiib", -1, max_wait, min_bytes, 1 << 20, 0)
    listed = struct.pack(">ih", 1, len(topic)) + topic.encode() + struct.pack(">iiqi", 1, partition, 0, 1 << 20)
    return head + body + listed


def correlation(frame: bytes) -> int:
    return int.from_bytes(frame[:4])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_waiting_consumer_asks_once(front: tuple[Front, str]) -> None:
    it, address = front
    async with raw(address) as (_, idle), raw(address) as (reader, writer):
        await send(idle, fetch(1, LONG))
        await until(lambda: it.passed_on[wire.FETCH] == 1)
        for n in range(300):  # time enough for a spin to show
            await send(writer, wire.brokers_request(n))
            assert correlation(await receive(reader)) == n
        assert it.passed_on[wire.FETCH] == 1


async def test_idle_consumers_of_a_group_ask_no_more_than_their_wait_says(front: tuple[Front, str]) -> None:
    it, address = front
    wait = 0.5
    async with contextlib.AsyncExitStack() as stack:
        consumers = [
            AIOKafkaConsumer(NAME, bootstrap_servers=address, group_id="g", fetch_max_wait_ms=int(wait * 1000))
            for _ in range(3)
        ]
        for consumer in consumers:
            await stack.enter_async_context(consumer)
        await until(lambda: sum(len(consumer.assignment()) for consumer in consumers) == TOPIC.partitions)
        reader, writer = await stack.enter_async_context(raw(address))
        before, started = it.passed_on[wire.FETCH], time.monotonic()
        for n in range(500):
            await send(writer, wire.brokers_request(n))
            await receive(reader)
        waits = (time.monotonic() - started) / wait
        assert it.passed_on[wire.FETCH] - before <= 3 * (waits + 2)


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_a_record_reaches_a_waiting_consumer_at_once(front: tuple[Front, str], acks: int | str) -> None:
    it, address = front
    consumer = AIOKafkaConsumer(bootstrap_servers=address, fetch_max_wait_ms=LONG, auto_offset_reset="earliest")
    async with consumer, AIOKafkaProducer(bootstrap_servers=address, acks=acks) as producer:
        consumer.assign([TopicPartition(NAME, 0)])  # a client asks for what it has read all of: with two, not for both
        for n in range(20):
            waiting = asyncio.ensure_future(consumer.getone())
            await until(lambda: any(it._waiting.values()))
            await producer.send(NAME, b"%d" % n, partition=0)
            async with asyncio.timeout(60):
                assert (await waiting).value == b"%d" % n


async def test_a_record_for_another_partition_does_not_wake(front: tuple[Front, str]) -> None:
    it, address = front
    async with raw(address) as (_, idle), AIOKafkaProducer(bootstrap_servers=address) as producer:
        await send(idle, fetch(1, LONG, partition=0))
        await until(lambda: it.passed_on[wire.FETCH] == 1)
        for _ in range(20):
            await producer.send_and_wait(NAME, b"x", partition=1)
        assert it.passed_on[wire.FETCH] == 1


async def test_a_committed_transaction_reaches_who_reads_committed(front: tuple[Front, str]) -> None:
    it, address = front
    consumer = AIOKafkaConsumer(
        bootstrap_servers=address,
        fetch_max_wait_ms=LONG,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    async with consumer, AIOKafkaProducer(bootstrap_servers=address, transactional_id="x") as producer:
        consumer.assign([TopicPartition(NAME, 0)])
        waiting = asyncio.ensure_future(consumer.getone())
        await until(lambda: any(it._waiting.values()))
        async with producer.transaction():
            await producer.send_and_wait(NAME, b"committed", partition=0)
            await until(lambda: any(it._waiting.values()))
        async with asyncio.timeout(60):
            assert (await waiting).value == b"committed"


@pytest.mark.parametrize("request_", [fetch(1, 30), fetch(1, 0), fetch(1, LONG, min_bytes=0)])
async def test_an_empty_answer_comes_when_the_wait_is_over(front: tuple[Front, str], request_: bytes) -> None:
    _, address = front
    async with raw(address) as (reader, writer), asyncio.timeout(60):
        await send(writer, request_)
        reply = await receive(reader)
        assert correlation(reply) == 1
        assert wire.answers_nothing(reply, 4)


async def test_an_error_is_told_at_once(front: tuple[Front, str]) -> None:
    _, address = front
    async with raw(address) as (reader, writer), asyncio.timeout(60):
        await send(writer, fetch(1, LONG, topic="no-such-topic"))
        assert not wire.answers_nothing(await receive(reader), 4)


async def test_answers_keep_the_order_of_requests(front: tuple[Front, str]) -> None:
    _, address = front
    async with raw(address) as (reader, writer), asyncio.timeout(60):
        for n in range(40):
            await send(writer, fetch(n, 10) if n % 4 == 0 else wire.brokers_request(n))
        assert [correlation(await receive(reader)) for _ in range(40)] == list(range(40))


async def test_a_client_that_says_no_more_gets_its_answers_without_waiting(front: tuple[Front, str]) -> None:
    it, address = front
    async with raw(address) as (reader, writer), asyncio.timeout(60):
        await send(writer, fetch(1, LONG))
        await send(writer, wire.brokers_request(2))
        writer.write_eof()
        assert [correlation(await receive(reader)) for _ in range(2)] == [1, 2]
        assert await reader.read() == b""
    assert not it._waiting


async def test_clients_are_told_the_front_and_never_what_is_behind_it(front: tuple[Front, str]) -> None:
    it, address = front
    port, inner = int(address.split(":")[1]), it._broker[1]
    async with raw(address) as (reader, writer):
        await send(writer, wire.brokers_request(1))
        metadata = await receive(reader)
        coordinator = struct.pack(">hhihh1sb", wire.FIND_COORDINATOR, 1, 2, -1, 1, b"g", 0)
        await send(writer, coordinator)
        found = await receive(reader)
    for frame in (metadata, found):
        assert struct.pack(">i", port) in frame
        assert struct.pack(">i", inner) not in frame


async def test_large_records_pass(front: tuple[Front, str]) -> None:
    _, address = front
    values = [bytes([n]) * 900_000 for n in range(8)]
    consumer = AIOKafkaConsumer(NAME, bootstrap_servers=address, auto_offset_reset="earliest", fetch_max_wait_ms=100)
    async with AIOKafkaProducer(bootstrap_servers=address) as producer, consumer, asyncio.timeout(60):
        for value in values:
            await producer.send_and_wait(NAME, value, partition=0)
        assert [(await consumer.getone()).value for _ in values] == values


async def test_a_frame_of_many_megabytes_passes_both_ways() -> None:
    async def echo(frame: bytes) -> bytes:
        return frame[4:]

    async with broker_that(echo) as inner, fronted(inner) as (_, port), raw(f"{HOST}:{port}") as (reader, writer):
        frame = struct.pack(">hhih", 99, 0, 7, -1) + bytes(30_000_000)
        sending = asyncio.ensure_future(send(writer, frame))
        assert await receive(reader) == frame[4:]
        await sending


async def test_a_frame_larger_than_kafka_takes_ends_the_connection() -> None:
    async def never(frame: bytes) -> bytes:
        raise AssertionError(frame)

    async with broker_that(never) as inner, fronted(inner) as (_, port), raw(f"{HOST}:{port}") as (reader, writer):
        writer.write(struct.pack(">i", wire.MAX_FRAME + 1))
        async with asyncio.timeout(60):
            assert await reader.read() == b""


async def test_a_broker_that_closes_ends_the_connection() -> None:
    async def close(_: bytes) -> None:
        return None

    async with broker_that(close) as inner, fronted(inner) as (_, port), raw(f"{HOST}:{port}") as (reader, writer):
        await send(writer, wire.brokers_request(1))
        async with asyncio.timeout(60):
            assert await reader.read() == b""


async def test_no_broker_behind_ends_the_connection() -> None:
    async with fronted(free_port(HOST)) as (_, port), raw(f"{HOST}:{port}") as (reader, _), asyncio.timeout(60):
        assert await reader.read() == b""


async def test_a_request_that_is_not_understood_passes_as_it_is() -> None:
    seen: list[bytes] = []

    async def note(frame: bytes) -> bytes:
        seen.append(frame)
        return b"\0\0\0\7as it is"

    future = struct.pack(">hhih", wire.FETCH, 99, 7, -1) + b"\0new fields"
    broken = fetch(7, LONG)[:-9]
    async with broker_that(note) as inner, fronted(inner) as (_, port), raw(f"{HOST}:{port}") as (reader, writer):
        for frame in (future, broken, b"x"):
            await send(writer, frame)
            assert await receive(reader) == b"\0\0\0\7as it is"
    assert seen == [future, broken, b"x"]


async def test_clients_still_connected_do_not_keep_the_front(front: tuple[Front, str]) -> None:
    _, address = front
    async with fronted(int(address.split(":")[1])) as (outer, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        await send(writer, fetch(1, LONG))
        await until(lambda: outer.passed_on[wire.FETCH] == 1)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
