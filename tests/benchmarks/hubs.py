"""A hub with many browsers: one server as a process of its own, and its clients as another. Used by `bench_hub`.

    python tests/benchmarks/hubs.py ours --clients 1000 --rate 200 --seconds 10 [--stalled 50] [--kafka HOST:PORT]

`limit` is a bare server: what is gathered in a tick is encoded once and written to N sockets. `ours` is the product:
records go into the hub, and the application tells browsers. `channels` is Litestar's channels plugin as it comes: a
subscription for each client, a message for each change.

Every change carries the moment at which it was given to the server. The clients, which share the machine's clock, look
for it in whatever arrives; the time of a change is that until the *last* client has it. Figures are of the seconds
after the first: times in ms, CPU of the server's process, memory that a client adds to it. Servers run on asyncio's own
loop, as `hitstream sink live` does, unless `--loop` says otherwise; clients on uvloop, as they only have to be cheap.

With `--kafka` changes are given by a process of its own (`writer`) to Kafka, whence the server reads them – the product
with its own reader, the limit with a bare consumer –, and the time begins when Kafka appended the record, as Kafka
stamps it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psutil

HERE = Path(__file__).parent
MARK = b"@t"  # what a stamp stands after: 16 digits of nanoseconds follow
DIGITS = 16
WARM_UP = 1.0

Give = Callable[[Any], None]


def stamp() -> str:
    """The moment, as a change carries it."""
    return f"@t{time.monotonic_ns():016d}"


# --- servers ----------------------------------------------------------------------------------------------------------


class Bare(asyncio.Protocol):
    """A socket that was greeted with the head of an answer, and is written to from then on."""

    def __init__(self, everybody: set[asyncio.Transport]) -> None:
        self._everybody = everybody

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of a class of their own

    def data_received(self, data: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._everybody.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._everybody.discard(self._transport)


async def limit(port: int, kafka: str) -> tuple[int, Callable[[], int], Give]:
    """One encode and N socket writes, at the product's own ticks."""
    from sinks.live.stream import as_chunk, event, next_tick
    from sinks.live.views import Delta

    everybody: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Bare(everybody), "127.0.0.1", port, backlog=2_000)
    pending: list[Any] = []
    wake = asyncio.Event()

    def give(record: Any) -> None:
        pending.extend(views(record))
        wake.set()

    if kafka:
        keep(consume(await consumer_of(kafka), give))

    async def tick_on() -> None:
        while True:
            await wake.wait()
            wake.clear()
            began = time.thread_time()
            chunk = as_chunk(event("delta", Delta(now=datetime.now(UTC), changes=tuple(pending)), "e-1"))
            pending.clear()
            for transport in everybody:
                transport.write(chunk)
            await asyncio.sleep(next_tick(time.thread_time() - began))

    keep(tick_on())
    return server.sockets[0].getsockname()[1], lambda: len(everybody), give


async def consumer_of(kafka: str) -> Any:
    """A bare consumer at the end of what the benchmark writes."""
    from aiokafka import AIOKafkaConsumer

    from streams import topics

    consumer = AIOKafkaConsumer(
        topics.TRANSITIONS.name, topics.QUOTES.name, bootstrap_servers=kafka, enable_auto_commit=False,
        auto_offset_reset="latest", fetch_max_wait_ms=100,
    )  # fmt: skip
    await consumer.start()
    await consumer.seek_to_end()
    return consumer


async def consume(consumer: Any, give: Give) -> None:
    """Give what a consumer reads."""
    from sinks.live.reader import decode

    while True:
        for messages in (await consumer.getmany(timeout_ms=500)).values():
            for message in messages:
                give(decode(message.topic, message.value))


class Records:
    """Half transitions, half prices, each with the moment it was made in. No two processes make one twice."""

    def __init__(self) -> None:
        self.number = int(time.time() * 1_000) * 1_000

    def next(self, stamped: str) -> Any:
        from streams.events import Quote, Transition, trading_date

        self.number += 1
        now, code = datetime.now(UTC), f"{self.number % 200:06d}"
        if self.number % 2:
            return Transition(
                id=f"{self.number:032d}", account="main", condition="신고가 돌파", code=f"{self.number % 100_000:06d}",
                kind="entered", origin="realtime", date=trading_date(now), entry=self.number // 100_000, at=now,
                since=now, event_id="e" * 32, session=stamped, received_at=now,
            )  # fmt: skip
        # A price has no text of its own: its cumulative volume is the stamp.
        return Quote(
            code=code, at=now, received_at=now, price=70_000, high=70_000, low=70_000, volume=1, trades=1,
            change_rate=1.0, day_volume=1,
        )  # fmt: skip


def views(record: Any) -> list[Any]:
    """What a hub would tell of a record."""
    from sinks.live.views import ConditionView, FeedItem, PriceView
    from streams.events import Transition

    if isinstance(record, Transition):
        counts = ConditionView(account="main", condition="신고가 돌파", members=1, entered=1, exited=1)
        return [FeedItem(name="삼성전자", transition=record), counts]
    return [PriceView(code=record.code, price=record.price, at=record.at, change_rate=1.0, day_volume=1)]


async def ours(port: int, kafka: str) -> tuple[int, Callable[[], int], Give]:
    """The product: application, server and hub; with Kafka its reader, too."""
    from prometheus_client import REGISTRY

    from sinks.live.hub import Hub
    from sinks.live.server import application, listen, serve
    from sinks.live.stream import Broadcaster

    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, lambda: datetime.now(UTC))
    sock = listen("127.0.0.1", port)
    keep(serve(application(broadcaster), sock, broadcaster))
    keep(broadcaster.run())
    if kafka:
        from sinks.live.reader import Reader
        from sinks.settings import LiveSettings

        caught_up = asyncio.Event()
        reader = Reader(
            broadcaster, bootstrap_servers=kafka, now=lambda: datetime.now(UTC), speed=1.0,
            ready=lambda reason: caught_up.set() if reason is None else None, fetch_wait=LiveSettings().fetch_wait,
        )  # fmt: skip
        keep(reader.run())
        async with asyncio.timeout(60):
            await caught_up.wait()
    else:
        broadcaster.open()

    def give(record: Any) -> None:
        broadcaster.publish(hub.apply(record, datetime.now(UTC)), time.time())

    return sock.getsockname()[1], lambda: int(REGISTRY.get_sample_value("hitstream_live_clients") or 0), give


async def channels(port: int, _: str) -> tuple[int, Callable[[], int], Give]:
    """Litestar's channels as they come: a subscriber's queue and a generator for each client."""
    import msgspec
    import uvicorn
    from litestar import Litestar, get
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends.memory import MemoryChannelsBackend
    from litestar.response import ServerSentEvent

    plugin = ChannelsPlugin(backend=MemoryChannelsBackend(), channels=["live"])
    everybody: set[object] = set()

    @get("/api/live", signature_namespace={"ServerSentEvent": ServerSentEvent})
    async def live() -> ServerSentEvent:
        async def told() -> Any:
            me = object()
            everybody.add(me)
            try:
                async with plugin.start_subscription(["live"]) as subscriber:
                    async for message in subscriber.iter_events():
                        yield message
            finally:
                everybody.discard(me)

        return ServerSentEvent(told())

    app = Litestar([live], plugins=[plugin])
    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, lifespan="on")
    from sinks.live.server import listen

    sock = listen("127.0.0.1", port)
    keep(uvicorn.Server(config).serve([sock]))

    def give(record: Any) -> None:
        plugin.publish(msgspec.json.encode(views(record)), "live")

    return sock.getsockname()[1], lambda: len(everybody), give


SERVERS: dict[str, Callable[[int, str], Awaitable[tuple[int, Callable[[], int], Give]]]] = {
    "limit": limit,
    "ours": ours,
    "channels": channels,
}

_kept: set[asyncio.Task[Any]] = set()


def keep(work: Any) -> None:
    """Let something run as long as the process does."""
    _kept.add(asyncio.ensure_future(work))


async def serve(options: argparse.Namespace) -> dict[str, float]:
    """Run the server with its clients once; the figures."""
    port, there, give = await SERVERS[options.kind](0, options.kafka)
    me = psutil.Process()
    market = Records()
    writer: subprocess.Popen[bytes] | None = None
    gc.collect()
    before = me.memory_info().rss
    clients = subprocess.Popen(  # noqa: ASYNC220 - before anything that would wait for it
        [sys.executable, __file__, "clients", "--port", str(port), "--clients", str(options.clients),
         "--stalled", str(options.stalled), "--gzip", str(int(options.gzip))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ) | {"PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while there() < options.clients:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        gc.collect()
        memory = (me.memory_info().rss - before) / options.clients / 1024
        loop = asyncio.get_running_loop()
        if options.kafka:
            writer = subprocess.Popen(  # noqa: ASYNC220 - before what is measured
                [sys.executable, __file__, "writer", "--kafka", options.kafka, "--rate", str(options.rate),
                 "--seconds", str(options.seconds)],
                stdout=subprocess.PIPE, env=dict(os.environ) | {"PYTHONPATH": str(HERE.parents[1])},
            )  # fmt: skip
            assert writer.stdout is not None
            await asyncio.to_thread(writer.stdout.readline)
        began, given = loop.time(), 0
        used: float | None = None
        since = began
        while (now := loop.time()) < began + WARM_UP + options.seconds:
            if used is None and now > began + WARM_UP:
                used, since = time.process_time(), now
            # As a reader gives them: whatever is due by now, at once.
            while not options.kafka and given < (now - began) * options.rate:
                give(market.next(stamp()))
                given += 1
            await asyncio.sleep(0.1 if options.kafka else 0.001)
        assert used is not None
        share = (time.process_time() - used) / (loop.time() - since)
        appended = None
        if writer is not None:
            appended = json.loads(await asyncio.to_thread(writer.stdout.read))  # type: ignore[union-attr]
        await asyncio.sleep(0.5)
        assert clients.stdin is not None
        clients.stdin.close()
        out = await asyncio.to_thread(clients.stdout.read)  # type: ignore[union-attr]
    finally:
        for process in (clients, writer):
            if process is not None:
                process.kill()
                process.wait()
    seen = json.loads(out) | until_last(json.loads(out)["seen"], appended, options.clients - options.stalled)
    # The stalled ones count as clients, and cost what they cost.
    times = {} if options.gzip else {"p50 ms": seen["p50"], "p99 ms": seen["p99"], "missed": seen["missed"]}
    return {
        **times,
        "CPU %": 100 * share,
        "clients / core": options.clients / share,
        "KiB / client": memory,
        "KiB/s to a client": seen["bytes"] / options.seconds / max(1, options.clients - options.stalled) / 1024,
    }


def until_last(seen: dict[str, tuple[int, int]], appended: dict[str, int] | None, readers: int) -> dict[str, float]:
    """Percentiles of the time until the last client has a change, in ms, and how many times one had it not.

    Of the changes of one tick the first counts, which the others came with.

    Args:
        seen: by the moment in which a change was given, when the last client had it, and how many did.
        appended: by the same when Kafka appended the record, which counts then; None without Kafka.
    """
    first = min(map(int, appended or seen), default=0) + int(WARM_UP * 1e9)
    counted = {made: told for made, told in seen.items() if int(made) >= first}
    began = {made: int(made) if appended is None else appended[made] for made in counted}
    times = [(last - began[made]) / 1e6 for made, (last, _) in counted.items()]
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [float("nan")] * 99
    missed = sum(readers - count for _, count in counted.values())
    return {"p50": cuts[49], "p99": cuts[98], "missed": missed}


# --- Kafka ------------------------------------------------------------------------------------------------------------


async def write(options: argparse.Namespace) -> None:
    """Write changes to Kafka, each when it is due; print when Kafka appended each transition, by its stamp."""
    from aiokafka import AIOKafkaProducer

    from streams import topics
    from streams.events import Transition, encode

    producer = AIOKafkaProducer(bootstrap_servers=options.kafka, acks="all")
    await producer.start()
    market, loop = Records(), asyncio.get_running_loop()
    sent: dict[str, asyncio.Future[Any]] = {}
    print("ready", flush=True)
    began, given = loop.time(), 0
    while (now := loop.time()) < began + WARM_UP + options.seconds:
        while given < (now - began) * options.rate:
            stamped = stamp()
            record = market.next(stamped)
            is_line = isinstance(record, Transition)
            topic = topics.TRANSITIONS if is_line else topics.QUOTES
            acknowledged = await producer.send(topic.name, encode(record), record.code.encode())
            if is_line:
                sent[stamped.removeprefix(MARK.decode())] = acknowledged
            given += 1
        await asyncio.sleep(0.001)
    await producer.stop()
    # Kafka's clock is the machine's, and ours does not jump.
    apart = time.time_ns() - time.monotonic_ns()
    print(json.dumps({made: one.result().timestamp * 1_000_000 - apart for made, one in sent.items()}), flush=True)


# --- clients ----------------------------------------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    """A browser that notes when the earliest change of what arrived was made."""

    def __init__(self, ask: bytes, last: dict[bytes, list[int]], count: list[int], looks: bool) -> None:
        self._looks = looks
        self._ask = ask
        self._last = last
        self._count = count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._ask)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._count[0] += len(data)
        at = data.find(MARK) if self._looks else -1
        while at >= 0:
            made = data[at + 2 : at + 2 + DIGITS]
            seen = self._last.get(made)
            if seen is None:
                self._last[made] = [now, 1]
            else:
                seen[0] = now
                seen[1] += 1
            # Others of the same tick came with it: only another event in these bytes can be of another one.
            nxt = data.find(b"\n\n", at)
            at = data.find(MARK, nxt) if nxt >= 0 else -1


async def read(options: argparse.Namespace) -> None:
    """Be all clients until standard input ends; print what they saw."""
    loop = asyncio.get_running_loop()
    accept = b"Accept-Encoding: gzip\r\n" if options.gzip else b""
    ask = b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n" + accept + b"\r\n"
    last: dict[bytes, list[int]] = {}
    count = [0]
    open_ones = []
    for _ in range(options.clients - options.stalled):
        open_ones.append(
            await loop.create_connection(lambda: Reader(ask, last, count, not options.gzip), "127.0.0.1", options.port)
        )
    for _ in range(options.stalled):
        import socket

        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", options.port))
        await loop.sock_sendall(sock, ask)
        open_ones.append((sock, None))  # type: ignore[arg-type]
    gc.freeze()
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"seen": {made.decode(): seen for made, seen in last.items()}, "bytes": count[0]}))


def main() -> None:
    """Be a server with its clients, or its clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*SERVERS, "clients", "writer"])
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--stalled", type=int, default=0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--gzip", type=int, default=0)
    parser.add_argument("--kafka", default="", help="where changes come from; else they are given to the server")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="asyncio")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.kind in ("clients", "writer") or options.loop == "uvloop":
        import uvloop

        run: Any = uvloop.run
    else:
        run = asyncio.run
    if options.kind in ("clients", "writer"):
        run(read(options) if options.kind == "clients" else write(options))
        return
    figures = run(serve(options))
    print(json.dumps(figures), flush=True)
    os._exit(0)  # nothing of this is worth an orderly end


if __name__ == "__main__":
    main()
