"""The live stream: what the hub says, as server-sent events to every browser at once.

Changes are gathered per tick, encoded and compressed once, and the same bytes are written to every client's transport.
There is no queue and no task per client: what a client has not taken is in its transport's buffer, and one that owes
too much, or takes nothing, is cut off and comes back with the `Last-Event-ID` it saw. A client is never waited for.
What the state is, is the hub's; how requests get here is `server`'s.

Two ideas:

**The first change after a quiet moment goes out at once; the tick is what the next ones wait for.** It is 5 ms, and
widens up to 100 ms so that telling takes a tenth of the time: by what telling took, not by how much there was to say.

**A browser that comes from another hub must not go back in time.** An event's id carries the hub's *place* in the log
beside its number: the next offsets of what must never go back. A browser whose place is ahead of this hub's is told the
state only when the hub has got there; if that takes too long, its stream ends, and it tries another hub. Offsets that
the log has not reached at all are of another log, and mean nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from streams.tasks import TaskGroup

from .hub import Hub, gather
from .views import Change, Delta, Heartbeat

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Place = tuple[int, ...]
"""Where a hub stands in the log: next offsets, in an order that is the same for all hubs."""

MIN_TICK: Final = 0.005  # s
MAX_TICK: Final = 0.100  # s
SHARE: Final = 0.1  # of the time is for telling, unless MAX_TICK is reached
HEARTBEAT: Final = 1.0  # s
RETRY_MS: Final = 1_000  # a browser's wait before it comes back
HOLD: Final = 10.0  # s that a browser which is ahead of this hub is kept waiting
MOST_OFFSETS: Final = 32  # in an event's id
PLAUSIBLE_LATENCY: Final = 600.0  # s; beyond it a record is old, not late

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"accept-encoding"),
)
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_LEVEL: Final = 6
_EVENT_ID: Final = re.compile(r"([^~-]{1,64})(?:~([0-9a-f.]{1,512}))?-([0-9]{1,18})")

_clients = Gauge("hitstream_live_clients", "Browsers on the live stream.")
_changes = Counter("hitstream_live_changes_total", "Changes told to browsers, after gathering.")
_ticks = Counter("hitstream_live_ticks_total", "Deltas encoded.")
_cut_off = Counter("hitstream_live_cut_off_total", "Clients cut off because they did not keep up.")
_sent_elsewhere = Counter(
    "hitstream_live_sent_elsewhere_total", "Streams ended because the browser had seen more than this hub had read."
)
_latency = Histogram(
    "hitstream_live_latency_seconds",
    "From a record's Kafka timestamp to the delta that tells it.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may owe before it is cut off, what all may together, and how many there may be."""

    clients: int = 2_000
    owed_bytes: int = 1_000_000
    owed_bytes_of_all: int = 256_000_000
    stalled_seconds: float = 10.0


class Transport(Protocol):
    """What is needed of an `asyncio.Transport`."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...


def event(name: str, body: msgspec.Struct, event_id: str = "") -> bytes:
    """One server-sent event. JSON has no raw line breaks, so its data is one line."""
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return b"".join((head.encode(), _encoder.encode(body), b"\n\n"))


def next_tick(took: float) -> float:
    """Seconds to gather for, after a tick that took so many seconds of the processor to tell."""
    return min(MAX_TICK, max(MIN_TICK, took * (1 / SHARE - 1)))


class Seen(msgspec.Struct, frozen=True):
    """What a browser saw last: the id of an event, taken apart."""

    epoch: str
    place: Place
    number: int


def parse_event_id(text: str) -> Seen | None:
    """`epoch-number` or `epoch~place-number`, None for anything else; the place is hexadecimal, with dots."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        return None
    epoch, place, number = match.groups()
    try:
        offsets = tuple(int(offset, 16) for offset in place.split(".")) if place else ()
    except ValueError:  # nothing between two dots
        return None
    return Seen(epoch, offsets, int(number))


def folded(offsets: Sequence[int]) -> Place:
    """Offsets as a place, of at most `MOST_OFFSETS` numbers: beyond it several partitions share one, as their sum."""
    if len(offsets) <= MOST_OFFSETS:
        return tuple(offsets)
    return tuple(sum(offsets[n::MOST_OFFSETS]) for n in range(MOST_OFFSETS))


def is_ahead(place: Place, of: Place) -> bool:
    """Whether somebody at `place` has seen what somebody at `of` has not; places of other lengths say nothing."""
    return len(place) == len(of) and any(a > b for a, b in zip(place, of, strict=True))


class Told:
    """An event's bytes as they go on the wire, each form made once and only if a client needs it."""

    __slots__ = ("_chunk", "_deflated", "_deflated_chunk", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._chunk: bytes | None = None
        self._deflated: bytes | None = None
        self._deflated_chunk: bytes | None = None

    def form(self, gzip: bool, chunked: bool) -> bytes:
        """The bytes for a client that takes gzip or not, in an answer that is chunked or not (HTTP/1.0)."""
        if not gzip:
            if not chunked:
                return self.plain
            if self._chunk is None:
                self._chunk = as_chunk(self.plain)
            return self._chunk
        if self._deflated is None:
            # Nothing refers to what came before, and it ends on a whole byte: so it fits into any client's stream.
            deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            self._deflated = deflate.compress(self.plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
        if not chunked:
            return self._deflated
        if self._deflated_chunk is None:
            self._deflated_chunk = as_chunk(self._deflated)
        return self._deflated_chunk


def as_chunk(body: bytes) -> bytes:
    """A body as one chunk of HTTP/1.1's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(body), body)


class Client:
    """One browser: its transport, what it owes, and how to end it.

    The answer's head has been written. From then on this writes to the transport itself: to bring every event through
    the HTTP machine once for each client would cost ten times as much.
    """

    __slots__ = (
        "_crc",
        "_limits",
        "_size",
        "_stalled_since",
        "_taken",
        "_transport",
        "_written",
        "chunked",
        "closed",
        "gzip",
        "joined",
        "place",
        "seen",
        "synced",
    )

    def __init__(self, transport: Transport, limits: ClientLimits, *, gzip: bool = False, chunked: bool = True) -> None:
        self.synced = False  # has been given the state; until then only heartbeats
        self.seen: Seen | None = None
        self.joined = time.monotonic()
        self.closed = False
        self.gzip = gzip
        self.chunked = chunked
        self._limits = limits
        self._transport = transport
        self._crc = 0
        self._size = 0
        self._written = 0
        self._taken = 0  # by the kernel, of what was written, when last looked at
        self._stalled_since: float | None = None
        if gzip:
            self._write(as_chunk(_GZIP_HEAD) if chunked else _GZIP_HEAD)

    @property
    def owed(self) -> int:
        """Bytes that were written and not taken."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def put(self, told: Told) -> None:
        """Write an event, or cut the client off if it owes too much."""
        if self.closed or self._transport.is_closing():
            return
        # What it owes already counts, not this event: a large snapshot alone is not a reason to cut off.
        if self._transport.get_write_buffer_size() > self._limits.owed_bytes:
            self.cut_off("owes too much")
            return
        if self.gzip:
            self._crc = zlib.crc32(told.plain, self._crc)
            self._size += len(told.plain)
        self._write(told.form(self.gzip, self.chunked))

    def _write(self, encoded: bytes) -> None:
        self._written += len(encoded)
        self._transport.write(encoded)

    def look(self, now: float) -> None:
        """Cut the client off if it has taken nothing of what it owes for too long. `now` is any steady clock's."""
        taken = self._written - self.owed
        if taken > self._taken or taken == self._written:
            self._taken, self._stalled_since = taken, None
        elif self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since > self._limits.stalled_seconds:
            self.cut_off("no progress")

    def cut_off(self, why: str) -> None:
        """Drop the connection with what is owed to it."""
        if self.closed:
            return
        _cut_off.inc()
        _log.info("live.client_cut_off", why=why, owed=self.owed)
        self.closed = True
        self.abort()

    def close(self) -> None:
        """End the stream, and the connection once what is owed has been taken."""
        if self.closed or self._transport.is_closing():
            return
        self.closed = True
        if self.gzip:
            foot = zlib.compressobj(wbits=-zlib.MAX_WBITS).flush() + self._crc.to_bytes(4, "little")
            foot += (self._size & 0xFFFFFFFF).to_bytes(4, "little")
            self._write(as_chunk(foot) if self.chunked else foot)
        if self.chunked:
            self._write(b"0\r\n\r\n")
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection now."""
        self._transport.abort()


class Broadcaster:
    """All browsers on the stream, and the ticks in which they are told.

    Until `open` is called, clients get heartbeats only; the state follows when the day has been rebuilt.
    """

    def __init__(self, hub: Hub, now: Callable[[], datetime], limits: ClientLimits | None = None) -> None:
        self.hub = hub
        self.is_open = False
        self.place: Place = ()  # where the hub stands in the log; the reader says it
        self.ends: Place = ()  # where the log ended when the reader looked last
        self._now = now
        self._limits = limits or ClientLimits()
        self._clients: set[Client] = set()
        self._stopped = False
        self._generation = hub.generation
        self._pending: list[Change] = []
        self._oldest: float | None = None  # Kafka timestamp of the oldest record in `_pending`
        self._wake = asyncio.Event()
        self._snapshot: tuple[tuple[str, int, int], datetime, Told] | None = None

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
        async with TaskGroup() as group:
            group.create_task(self._tick_on())
            group.create_task(self._beat())

    async def _tick_on(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = time.thread_time()  # what it costs, not for how long others had the processor meanwhile
            self.flush()
            await asyncio.sleep(next_tick(time.thread_time() - began))

    def roll(self) -> datetime:
        """Market time now, the hub being in its day; a day that began is told with the next tick."""
        now = self._now()
        if self.hub.roll(now):
            self._wake.set()
        return now

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            beat, now = Told(event("heartbeat", Heartbeat(now=self.roll()))), time.monotonic()
            owed: list[tuple[int, Client]] = []
            for client in tuple(self._clients):
                client.look(now)
                client.put(beat)
                if owes := client.owed:
                    owed.append((owes, client))
            self._judge_waiting()
            self._cut_down(owed)

    def _cut_down(self, owed: list[tuple[int, Client]]) -> None:
        """Cut off those who owe most, until all together owe no more than they may."""
        total = sum(owes for owes, _ in owed)
        for owes, client in sorted(owed, key=lambda pair: pair[0], reverse=True):
            if total <= self._limits.owed_bytes_of_all:
                return
            client.cut_off("all owe too much")
            total -= owes

    def _judge_waiting(self) -> None:
        """Bring those up to date who had seen more than the hub had read, or send them away after too long."""
        if not self.is_open:
            return
        for client in [client for client in self._clients if not client.synced and not client.closed]:
            if not self._is_behind(client):
                self._sync(client)
            elif time.monotonic() - client.joined > HOLD and client.seen is not None:
                if is_ahead(client.seen.place, self.ends):
                    self._sync(client)  # what it saw is not of this log
                else:
                    _sent_elsewhere.inc()
                    client.close()

    def _is_behind(self, client: Client) -> bool:
        seen = client.seen
        return seen is not None and seen.epoch != self.hub.epoch and is_ahead(seen.place, self.place)

    def flush(self) -> None:
        """Tell what is pending now."""
        if not self.is_open:
            return
        if self.hub.generation != self._generation:
            self._start_over()
            return
        if not self._pending:
            return
        changes = gather(self._pending)
        self._pending.clear()
        delta = Told(event("delta", Delta(now=self._now(), changes=changes), self._event_id()))
        for client in tuple(self._clients):
            if client.synced:
                client.put(delta)
        _ticks.inc()
        _changes.inc(len(changes))
        if self._oldest is not None and 0 <= (waited := time.time() - self._oldest) < PLAUSIBLE_LATENCY:
            _latency.observe(waited)
        self._oldest = None

    def _start_over(self) -> None:
        self._pending.clear()
        self._oldest = None
        # A snapshot may itself begin a new day.
        encoded = self._encoded_snapshot()
        self._generation = self.hub.generation
        for client in tuple(self._clients):
            if client.synced or not self._is_behind(client):
                client.synced = True
                client.put(encoded)

    def _event_id(self) -> str:
        place = f"~{'.'.join([f'{offset:x}' for offset in self.place])}" if self.place else ""
        return f"{self.hub.epoch}{place}-{self.hub.number}"

    def _encoded_snapshot(self) -> Told:
        """The snapshot event; browsers that come together are given the same bytes."""
        now = self.roll()
        key = (self.hub.epoch, self.hub.generation, self.hub.number)
        if self._snapshot is None or self._snapshot[0] != key or not _same_moment(self._snapshot[1], now):
            self._snapshot = (key, now, Told(event("snapshot", self.hub.snapshot(now), self._event_id())))
        return self._snapshot[2]

    # --- clients ---------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """No further client can be taken."""
        return self._stopped or len(self._clients) >= self._limits.clients

    def _join(self, client: Client) -> None:
        """Take a client in, and bring it up to date if the hub can."""
        # What is pending goes to the others first: the state that it is given holds it.
        self.flush()
        self._clients.add(client)
        _clients.set(len(self._clients))
        client.put(Told(f"retry: {RETRY_MS}\n\n".encode()))
        if self.is_open and not self._is_behind(client):
            self._sync(client)
        else:
            client.put(Told(event("heartbeat", Heartbeat(now=self._now()))))

    def _sync(self, client: Client) -> None:
        client.synced = True
        now = self.roll()
        seen = client.seen
        missed = self.hub.since(seen.epoch, seen.number) if seen else None
        if missed is None:
            client.put(self._encoded_snapshot())
        else:
            client.put(Told(event("delta", Delta(now=now, changes=missed), self._event_id())))

    async def serve(
        self,
        last_event_id: str,
        transport: Transport,
        receive: Receive,
        send: Send,
        *,
        gzip: bool = False,
        chunked: bool = True,
    ) -> None:
        """Answer one request for the stream: until the browser goes, is cut off, or `stop` is called.

        Args:
            last_event_id: what the browser saw last, empty if nothing.
            transport: the connection, to which everything after the answer's head is written.
            receive, send: the request's ASGI channels.
            gzip: the browser takes it.
            chunked: the answer is chunked (HTTP/1.1), which the HTTP machine decides by itself.
        """
        encoding = ((b"content-encoding", b"gzip"),) if gzip else ()
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *encoding]})
        client = Client(transport, self._limits, gzip=gzip, chunked=chunked)
        client.seen = parse_event_id(last_event_id)
        try:
            self._join(client)
            # Where the stream ends on our side the connection does too, so there is one thing to wait for.
            while (await receive())["type"] != "http.disconnect":
                pass
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


def _same_moment(a: datetime, b: datetime) -> bool:
    return abs((b - a).total_seconds()) < MAX_TICK
