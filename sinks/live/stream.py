"""The live stream: what the hub says, as server-sent events to every browser at once.

Changes are gathered per tick, encoded once, and the same bytes are queued for every client. A client is never waited
for: one that does not take what is queued for it is cut off, and comes back with the `Last-Event-ID` it saw. What the
state is, is the hub's; how requests get here is `server`'s.

The one idea: **the first change after a quiet moment goes out at once; the tick is what the next ones wait for.** It is
10 ms, and widens to 100 ms when there is much to say or many to say it to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from .hub import Hub, gather
from .views import Change, Delta, Heartbeat

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

MIN_TICK: Final = 0.010  # s
MAX_TICK: Final = 0.100  # s
MUCH: Final = 20  # changes gathered in one tick that widen the next
WRITES_PER_SECOND: Final = 20_000  # to all clients together
HEARTBEAT: Final = 1.0  # s
RETRY_MS: Final = 1_000  # a browser's wait before it comes back
PLAUSIBLE_LATENCY: Final = 600.0  # s; beyond it a record is old, not late

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

_clients = Gauge("hitstream_live_clients", "Browsers on the live stream.")
_changes = Counter("hitstream_live_changes_total", "Changes told to browsers, after gathering.")
_ticks = Counter("hitstream_live_ticks_total", "Deltas encoded.")
_cut_off = Counter("hitstream_live_cut_off_total", "Clients cut off because they did not keep up.")
_latency = Histogram(
    "hitstream_live_latency_seconds",
    "From a record's Kafka timestamp to the delta that tells it.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may owe before it is cut off, and how many clients there may be."""

    clients: int = 1_000
    queued_events: int = 500
    queued_bytes: int = 4_000_000
    send_seconds: float = 10.0


def event(name: str, body: msgspec.Struct, event_id: str = "") -> bytes:
    """One server-sent event. JSON has no raw line breaks, so its data is one line."""
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return b"".join((head.encode(), _encoder.encode(body), b"\n\n"))


def next_tick(tick: float, gathered: int, clients: int) -> float:
    """Seconds to gather for, after a tick that gathered so many changes for so many clients."""
    if gathered > MUCH:
        tick *= 2
    elif gathered < MUCH // 4:
        tick /= 2
    return min(MAX_TICK, max(MIN_TICK, tick, clients / WRITES_PER_SECOND))


class Client:
    """One browser: a bounded queue of encoded events, and how to cut it off."""

    def __init__(self, limits: ClientLimits, abort: Callable[[], None]) -> None:
        self.synced = False  # has been given the state; until then only heartbeats
        self.last_event_id = ""
        self.closed = False
        self._limits = limits
        self._abort = abort
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()

    def put(self, encoded: bytes) -> None:
        """Queue an event, or cut the client off if it owes too much."""
        if self.closed:
            return
        # What it owes already counts, not this event: a large snapshot alone is not a reason to cut off.
        if len(self._queue) >= self._limits.queued_events or self._queued > self._limits.queued_bytes:
            self.cut_off("queue full")
            return
        self._queue.append(encoded)
        self._queued += len(encoded)
        self._wake.set()

    def cut_off(self, why: str) -> None:
        """Drop the connection with what is queued for it."""
        _cut_off.inc()
        _log.info("live.client_cut_off", why=why, queued=len(self._queue))
        self.close()
        self.abort()

    def close(self) -> None:
        """End the stream once what is being written is written."""
        self.closed = True
        self._queue.clear()
        self._wake.set()

    def abort(self) -> None:
        """Drop the connection now."""
        self._abort()

    async def write(self, send: Send) -> None:
        """Send what is queued until the client is closed or gone."""
        while not self.closed:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                encoded = self._queue.popleft()
                self._queued -= len(encoded)
                try:
                    async with asyncio.timeout(self._limits.send_seconds):
                        await send({"type": "http.response.body", "body": encoded, "more_body": True})
                except TimeoutError:
                    self.cut_off("no progress")
                    return


class Broadcaster:
    """All browsers on the stream, and the ticks in which they are told.

    Until `open` is called, clients get heartbeats only; the state follows when the day has been rebuilt.
    """

    def __init__(self, hub: Hub, now: Callable[[], datetime], limits: ClientLimits | None = None) -> None:
        self.hub = hub
        self.is_open = False
        self._now = now
        self._limits = limits or ClientLimits()
        self._clients: set[Client] = set()
        self._stopped = False
        self._generation = hub.generation
        self._pending: list[Change] = []
        self._oldest: float | None = None  # Kafka timestamp of the oldest record in `_pending`
        self._wake = asyncio.Event()
        self._snapshot: tuple[tuple[str, int, int], datetime, bytes] | None = None

    # --- from the reader ---------------------------------------------------------------------------------------------

    def publish(self, changes: Iterable[Change], written_at: float | None = None) -> None:
        """Tell what changed. `written_at` is the Kafka timestamp of the record, in seconds."""
        if not self.is_open:
            return
        self._pending.extend(changes)
        if self._pending and written_at is not None:
            self._oldest = written_at if self._oldest is None else min(self._oldest, written_at)
        if self._pending or self.hub.generation != self._generation:
            self._wake.set()

    def open(self) -> None:
        """The hub's state is complete: give it to every client."""
        self.is_open = True
        self._start_over()

    def close(self) -> None:
        """The hub's state is not complete (any more): heartbeats only, until `open`."""
        self.is_open = False
        self._pending.clear()
        self._oldest = None

    # --- ticks -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell changes and heartbeats until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick_on())
            group.create_task(self._beat())

    async def _tick_on(self) -> None:
        tick = MIN_TICK
        while True:
            await self._wake.wait()
            self._wake.clear()
            tick = next_tick(tick, self.flush(), len(self._clients))
            await asyncio.sleep(tick)

    def roll(self) -> datetime:
        """Market time now, the hub being in its day; a day that began is told with the next tick."""
        now = self._now()
        if self.hub.roll(now):
            self._wake.set()
        return now

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            beat = event("heartbeat", Heartbeat(now=self.roll()))
            for client in tuple(self._clients):
                client.put(beat)

    def flush(self) -> int:
        """Tell what is pending now; how many changes were gathered."""
        if not self.is_open:
            return 0
        if self.hub.generation != self._generation:
            self._start_over()
            return MUCH
        gathered = len(self._pending)
        if not gathered:
            return 0
        changes = gather(self._pending)
        self._pending.clear()
        delta = event("delta", Delta(now=self._now(), changes=changes), self._event_id())
        for client in tuple(self._clients):
            if client.synced:
                client.put(delta)
        _ticks.inc()
        _changes.inc(len(changes))
        if self._oldest is not None and 0 <= (waited := time.time() - self._oldest) < PLAUSIBLE_LATENCY:
            _latency.observe(waited)
        self._oldest = None
        return gathered

    def _start_over(self) -> None:
        self._pending.clear()
        self._oldest = None
        # A snapshot may itself begin a new day.
        encoded = self._encoded_snapshot()
        self._generation = self.hub.generation
        for client in tuple(self._clients):
            client.synced = True
            client.put(encoded)

    def _event_id(self) -> str:
        return f"{self.hub.epoch}-{self.hub.number}"

    def _encoded_snapshot(self) -> bytes:
        """The snapshot event; browsers that come together are given the same bytes."""
        now = self.roll()
        key = (self.hub.epoch, self.hub.generation, self.hub.number)
        if self._snapshot is None or self._snapshot[0] != key or not _same_moment(self._snapshot[1], now):
            self._snapshot = (key, now, event("snapshot", self.hub.snapshot(now), self._event_id()))
        return self._snapshot[2]

    # --- clients ---------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """No further client can be taken."""
        return self._stopped or len(self._clients) >= self._limits.clients

    def _join(self, client: Client) -> None:
        """Bring a client up to date. What is pending goes to the others first: the state that it is given holds it."""
        self.flush()
        self._clients.add(client)
        _clients.set(len(self._clients))
        client.put(f"retry: {RETRY_MS}\n\n".encode())
        if not self.is_open:
            client.put(event("heartbeat", Heartbeat(now=self._now())))
            return
        client.synced = True
        now = self.roll()
        missed = self.hub.since(client.last_event_id) if client.last_event_id else None
        if missed is None:
            client.put(self._encoded_snapshot())
        else:
            client.put(event("delta", Delta(now=now, changes=missed), self._event_id()))

    async def serve(self, last_event_id: str, abort: Callable[[], None], receive: Receive, send: Send) -> None:
        """Answer one request for the stream: until the browser goes, is cut off, or `stop` is called.

        Args:
            last_event_id: what the browser saw last, empty if nothing.
            abort: drops its connection without waiting for it.
            receive, send: the request's ASGI channels.
        """
        client = Client(self._limits, abort)
        client.last_event_id = last_event_id
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        self._join(client)
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_watch(receive, client))
                await client.write(send)
                watcher.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._clients.discard(client)
            _clients.set(len(self._clients))

    def stop(self) -> None:
        """End every stream and take no new one."""
        self._stopped = True
        for client in tuple(self._clients):
            client.close()

    def abort(self) -> None:
        """Drop the connections of clients that did not take the end of their stream."""
        for client in tuple(self._clients):
            client.abort()


async def _watch(receive: Receive, client: Client) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    client.close()


def _same_moment(a: datetime, b: datetime) -> bool:
    return abs((b - a).total_seconds()) < MAX_TICK
