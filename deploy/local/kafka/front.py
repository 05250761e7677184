"""A TCP front that gives noida-db what it lacks as a broker.

- *Long polls.* noida-db answers a Fetch that finds nothing at once, whatever the client's `max_wait`, so idle consumers
  would ask thousands of times a second. The front keeps such an answer back until something was produced – through it,
  by any connection, to a partition that the fetch names – or the wait is over, and then asks again.
- *Members that die.* noida-db waits for ever for a group's member that was killed. The front makes it leave.
- *Its own address* in place of the broker's, Fetch versions that it can read, and the right words during a rebalance
  (`wire.rebalancing`, `assigned`, `outdated`).

Everything else passes as it is. One request of a connection is answered before the next is passed on, as Kafka itself
does, so answers keep the order of requests. What is read ahead is bounded by two frames.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator

import structlog

from . import wire
from .groups import Groups

log = structlog.get_logger(__name__)

_READ_AHEAD = 2
_SWEEP_SECONDS = 0.5
_READDRESSED = {wire.METADATA, wire.FIND_COORDINATOR, wire.DESCRIBE_CLUSTER}

Partition = tuple[str, int]


class Front:
    """Listens for clients and passes what they say on to the broker at `broker`.

    Args:
        broker: host and port of the broker behind.
        advertised: host and port by which clients reach the front.

    `passed_on` counts requests that reached the broker, by api key.
    """

    def __init__(self, broker: tuple[str, int], advertised: tuple[str, int]) -> None:
        self._broker = broker
        self._advertised = advertised
        self._waiting: defaultdict[Partition, set[asyncio.Event]] = defaultdict(set)
        self.groups = Groups()
        self.passed_on: Counter[int] = Counter()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve clients until the block is left. Raises OSError if the address cannot be listened on."""
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            connections[task] = writer
            task.add_done_callback(connections.pop)

        server = await asyncio.start_server(connected, host, port)
        sweeping = asyncio.ensure_future(self._sweep())
        try:
            yield
        finally:
            server.close()
            ending = [sweeping, *connections]
            for writer in connections.values():
                writer.close()  # also of a connection whose task has not begun
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(*self._broker)
        except OSError:
            writer.close()
            return
        connection = _Connection(self, broker_reader, broker_writer, writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.read(reader))
                tasks.create_task(connection.answer())
        except* (OSError, asyncio.IncompleteReadError, _FrameTooLarge) as gone:
            log.debug("connection ended", causes=[repr(cause) for cause in gone.exceptions])
        except* Exception:
            log.exception("a client's connection was ended by a fault of the front")
        finally:
            writer.close()
            broker_writer.close()

    async def _sweep(self) -> None:
        """Make members leave their groups that have been silent for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for group, member in self.groups.overdue(loop.time()):
                self.groups.left(group, member)
                log.warning("a member of a consumer group is silent and leaves it", group=group, member=member)
                try:
                    async with asyncio.timeout(5):
                        reader, writer = await asyncio.open_connection(*self._broker)
                        try:
                            await _write_frame(writer, wire.leave_request(1, group, member))
                            await _read_frame(reader)
                        finally:
                            writer.close()
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    log.warning("the broker did not take that", group=group, member=member, error=repr(error))

    # --- who waits for what -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watch(self, partitions: Iterable[Partition]) -> Iterator[asyncio.Event]:
        """An event that is set whenever something was produced to one of the partitions."""
        produced = asyncio.Event()
        watched = set(partitions)
        for partition in watched:
            self._waiting[partition].add(produced)
        try:
            yield produced
        finally:
            for partition in watched:
                self._waiting[partition].discard(produced)
                if not self._waiting[partition]:
                    del self._waiting[partition]

    def produced(self, partitions: Iterable[Partition] | None) -> None:
        """Wake who waits for these partitions (None: for any)."""
        for partition in list(self._waiting) if partitions is None else partitions:
            for event in self._waiting.get(partition, ()):
                event.set()

    def outward(self, frame: bytes, head: wire.Header) -> bytes:
        """A broker's answer as the client is told it."""
        if head.key in _READDRESSED:
            return wire.readdressed(frame, head, self._broker, self._advertised)
        if head.key == wire.API_VERSIONS:
            return wire.narrowed(frame, head.version)
        if head.key == wire.SYNC_GROUP:
            return wire.assigned(frame, head.version)
        if head.key == wire.OFFSET_COMMIT:
            return wire.rebalancing(frame, head.version)
        return frame


class _FrameTooLarge(Exception):
    """A peer announced a frame that no Kafka broker would take."""


class _Connection:
    def __init__(
        self,
        front: Front,
        broker_reader: asyncio.StreamReader,
        broker_writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        self._front = front
        self._broker_reader = broker_reader
        self._broker_writer = broker_writer
        self._client = client
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue(_READ_AHEAD)
        self._client_done = asyncio.Event()

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Queue the client's requests; at the end of its stream, say so and let the answers finish."""
        try:
            while (frame := await _read_frame(reader)) is not None:
                await self._requests.put(frame)
        finally:
            self._client_done.set()
        await self._requests.put(None)

    async def answer(self) -> None:
        while (frame := await self._requests.get()) is not None:
            reply = await self._reply(frame)
            if reply is not None:
                await _write_frame(self._client, reply)

    async def _reply(self, frame: bytes) -> bytes | None:
        try:
            head = wire.header(frame)
        except wire.Unreadable:
            return await self._ask(frame, -1)
        try:
            if head.key == wire.FETCH:
                return await self._fetch(frame, head, wire.fetch(frame, head))
            if head.key == wire.PRODUCE:
                return await self._produce(frame, head, wire.produce(frame, head))
            if head.key in wire.GROUP_CALLS:
                return await self._group_call(frame, head, wire.group_call(frame, head))
        except wire.Unreadable:
            log.warning("request of a version that is not known", key=head.key, version=head.version)
        # noida-db would make a topic, with one partition, for whoever asks about it.
        reply = await self._ask(wire.looking(frame, head) if head.key == wire.METADATA else frame, head.key)
        if head.key in (wire.PRODUCE, wire.END_TXN):  # the end of a transaction makes its records visible
            self._front.produced(None)
        return self._front.outward(reply, head)

    async def _fetch(self, frame: bytes, head: wire.Header, fetch: wire.Fetch) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + fetch.max_wait
        with self._front.watch(fetch.partitions) as produced:
            while True:
                produced.clear()  # before asking, so that nothing falls between the answer and the wait
                reply = await self._ask(frame, wire.FETCH)
                if fetch.min_bytes <= 0 or not wire.answers_nothing(reply, head.version):
                    return reply
                if not await self._either(produced, deadline - loop.time()):
                    return reply

    async def _either(self, produced: asyncio.Event, seconds: float) -> bool:
        """Wait for something produced. False if the time is over or the client has closed its side first."""
        waits = [asyncio.ensure_future(produced.wait()), asyncio.ensure_future(self._client_done.wait())]
        try:
            await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return produced.is_set() and not self._client_done.is_set()

    async def _produce(self, frame: bytes, head: wire.Header, produce: wire.Produce) -> bytes | None:
        # What nobody acknowledges is written some time later: have it acknowledged, and keep the answer to ourselves.
        asked = frame if produce.acks else wire.acknowledged(frame, produce)
        reply = await self._ask(asked, wire.PRODUCE)
        self._front.produced(produce.partitions)
        return reply if produce.acks else None

    async def _group_call(self, frame: bytes, head: wire.Header, call: wire.GroupCall) -> bytes:
        loop, groups = asyncio.get_running_loop(), self._front.groups
        with groups.asking(call, loop.time()):
            reply = await self._ask(frame, head.key)
        groups.answered(call, loop.time())
        if head.key == wire.JOIN_GROUP and (admitted := wire.joined(reply, head.version)):
            groups.joined(call, *admitted, loop.time())
        if head.key == wire.HEARTBEAT and groups.outdated(call):
            return wire.outdated(reply, head.version)
        return self._front.outward(reply, head)

    async def _ask(self, frame: bytes, key: int) -> bytes:
        self._front.passed_on[key] += 1
        await _write_frame(self._broker_writer, frame)
        reply = await _read_frame(self._broker_reader)
        if reply is None:
            raise ConnectionResetError("the broker closed the connection")
        return reply


async def _read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    try:
        size = int.from_bytes(await reader.readexactly(4), signed=True)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    if not 0 <= size <= wire.MAX_FRAME:
        raise _FrameTooLarge(size)
    return await reader.readexactly(size)


async def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.writelines((len(frame).to_bytes(4), frame))
    await writer.drain()
