"""Several hubs behind a load balancer: a browser that is sent from one to another never goes back in time.

Two real servers read one log, each as fast as the test lets it, behind a proxy that gives every connection to the next
one. The browser is what a browser is: it knows the last event's id, and comes back with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from day import NINE, transition
from hypothesis import given
from hypothesis import strategies as st

from sinks.live import stream
from sinks.live.hub import Hub
from sinks.live.server import application, listen, serve
from sinks.live.stream import MOST_OFFSETS, Broadcaster, folded, is_ahead, parse_event_id

DEADLINE = 60.0
LOG = [transition(f"{n:06d}", at=NINE + timedelta(seconds=n)) for n in range(400)]


class Member:
    """One hub of several: a server over a hub that has read the log up to a place."""

    def __init__(self, epoch: str) -> None:
        self.hub = Hub(epoch=epoch)
        self.broadcaster = Broadcaster(self.hub, lambda: NINE)
        self.read_to = 0
        self.sock = listen("127.0.0.1", 0)
        self.port: int = self.sock.getsockname()[1]

    def read(self, place: int, end: int | None = None) -> None:
        """Read the log on to a place."""
        for record in LOG[self.read_to : place]:
            self.broadcaster.publish(self.hub.apply(record, NINE))
        self.read_to = place
        self.broadcaster.place, self.broadcaster.ends = (place,), (len(LOG) if end is None else end,)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(application(self.broadcaster), self.sock, self.broadcaster))
            group.create_task(self.broadcaster.run())


class Balancer:
    """Gives each connection to the next server, and passes bytes on."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.next = 0
        self.port = 0

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member = self.members[self.next % len(self.members)]
        self.next += 1
        there, back = await asyncio.open_connection("127.0.0.1", member.port)

        async def pump(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await one.read(65_536):
                    other.write(data)
                    await other.drain()
            other.close()

        pumps = [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))]
        try:
            await asyncio.wait(pumps)
        finally:
            for task in pumps:
                task.cancel()

    async def run(self, started: asyncio.Event) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()


class Browser:
    """What a page knows, and the id with which it comes back."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/live"
        self.id = ""
        self.known: set[str] = set()
        self.synced: list[str] = []  # the epochs that it was brought up to date by
        self.waits = 0

    async def visit(self) -> bool:
        """One stream: until it has been brought up to date; False if it ended before."""
        headers = {"Last-Event-ID": self.id} if self.id else {}
        async with (
            asyncio.timeout(DEADLINE),
            httpx.AsyncClient(timeout=DEADLINE) as client,
            client.stream("GET", self.url, headers=headers) as answer,
        ):
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                    continue
                told, event = event, {}
                if told.get("event") == "heartbeat":
                    self.waits += 1
                elif "event" in told:
                    self._take(told)
                    return True
        return False

    def _take(self, told: dict[str, str]) -> None:
        body: Any = json.loads(told["data"])
        if told["event"] == "snapshot":
            there = {line["transition"]["id"] for line in body["feed"]}
            gone = self.known - there
            assert not gone, f"{len(gone)} lines that the reader had seen were gone"
            self.known = there
        else:
            assert parse_event_id(self.id).epoch == parse_event_id(told["id"]).epoch  # type: ignore[union-attr]
            self.known |= {c["transition"]["id"] for c in body["changes"] if c["change"] == "feed"}
        self.id = told["id"]
        self.synced.append(parse_event_id(self.id).epoch)  # type: ignore[union-attr]


@asynccontextmanager
async def two_hubs() -> AsyncIterator[tuple[Member, Member, Balancer]]:
    a, b = Member("a"), Member("b")
    balancer, started = Balancer([a, b]), asyncio.Event()
    for member in (a, b):
        member.hub.limits = type(member.hub.limits)(feed=len(LOG))
        member.read(0)
        member.broadcaster.open()
    tasks = [asyncio.create_task(work) for work in (a.run(), b.run(), balancer.run(started))]
    try:
        await started.wait()
        yield a, b, balancer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=DEADLINE)


@pytest.fixture(autouse=True)
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.05)
    monkeypatch.setattr(stream, "HOLD", 0.3)


async def test_another_hub_that_is_as_far_gives_a_snapshot() -> None:
    async with two_hubs() as (a, b, balancer):
        a.read(10)
        b.read(12)
        browser = Browser(balancer.port)
        assert await browser.visit()
        assert await browser.visit()
        assert (browser.synced, len(browser.known)) == (["a", "b"], 12)


async def test_a_hub_that_lags_tells_the_state_when_it_has_got_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HOLD", 60.0)
    async with two_hubs() as (a, b, balancer):
        a.read(10)
        b.read(5)
        browser = Browser(balancer.port)
        assert await browser.visit()
        visit = asyncio.create_task(browser.visit())
        while browser.waits < 3:
            await asyncio.sleep(0.01)
        b.read(9)
        await asyncio.sleep(0.2)
        assert not visit.done(), "one record is still missing"
        b.read(11)
        assert await visit
        assert (browser.synced, len(browser.known)) == (["a", "b"], 11)


async def test_a_hub_that_goes_on_lagging_sends_the_browser_to_another() -> None:
    async with two_hubs() as (a, b, balancer):
        a.read(10)
        b.read(5)
        browser = Browser(balancer.port)
        assert await browser.visit()
        a.read(13)
        assert not await browser.visit(), "the stream of the hub that lags ends"
        assert await browser.visit()
        assert (browser.synced, len(browser.known)) == (["a", "a"], 13)


async def test_a_place_that_the_log_has_not_reached_is_of_another_log() -> None:
    async with two_hubs() as (a, b, balancer):
        a.read(10)
        browser = Browser(balancer.port)
        assert await browser.visit()
        browser.known.clear()
        b.read(5, end=6)
        assert await browser.visit()
        assert (browser.synced, len(browser.known)) == (["a", "b"], 5)


async def test_while_a_hub_reads_its_day_a_browser_of_another_waits() -> None:
    async with two_hubs() as (a, b, balancer):
        a.read(10)
        b.broadcaster.close()
        b.read(5)
        browser = Browser(balancer.port)
        assert await browser.visit()
        visit = asyncio.create_task(browser.visit())
        while browser.waits < 2:
            await asyncio.sleep(0.01)
        b.broadcaster.open()
        b.read(10)
        assert await visit
        assert (browser.synced, len(browser.known)) == (["a", "b"], 10)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_the_hubs_do_a_browser_only_goes_forward(seed: int) -> None:
    chance = random.Random(seed)
    async with two_hubs() as (a, b, balancer):
        browser = Browser(balancer.port)

        async def go_on() -> None:
            while min(a.read_to, b.read_to) < len(LOG):
                member = chance.choice([a, a, b])
                member.read(min(len(LOG), member.read_to + chance.randrange(1, 25)))
                if chance.random() < 0.05:
                    member.broadcaster.close()
                    await asyncio.sleep(0.05)
                    member.broadcaster.open()
                await asyncio.sleep(chance.random() * 0.05)

        going = asyncio.create_task(go_on())
        while not going.done():
            await browser.visit()
            await asyncio.sleep(chance.random() * 0.05)
        await going
        while not await browser.visit():
            pass
        assert len(browser.known) == len(LOG)
        assert {"a", "b"} <= set(browser.synced)


# --- ids --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**60), max_size=12), st.integers(0, 10**17))
def test_an_event_id_says_where_a_hub_stood(place: list[int], number: int) -> None:
    broadcaster = Broadcaster(Hub(epoch="0af3"), lambda: NINE)
    broadcaster.place, broadcaster.hub.number = tuple(place), number
    seen = parse_event_id(broadcaster._event_id())
    assert seen is not None
    assert (seen.epoch, seen.place, seen.number) == ("0af3", tuple(place), number)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 5)), max_size=200))
def test_a_place_stays_short_and_who_is_ahead_everywhere_is_seen_to_be(offsets: list[tuple[int, int]]) -> None:
    place, further = folded([at for at, _ in offsets]), folded([at + more for at, more in offsets])
    assert len(place) <= MOST_OFFSETS
    assert is_ahead(further, place) is any(more for _, more in offsets)
    assert not is_ahead(place, further)
    broadcaster = Broadcaster(Hub(epoch="0af3"), lambda: NINE)
    broadcaster.place = place
    assert parse_event_id(broadcaster._event_id()) is not None


@pytest.mark.parametrize("text", ["", "a", "a-", "a~-1", "a~1..2-1", "a~x-1", "~1-1", "a-1-2", "a-" + "1" * 19])
def test_what_is_no_event_id_is_none(text: str) -> None:
    assert parse_event_id(text) is None


@pytest.mark.parametrize(
    ("place", "of", "expected"),
    [
        ((), (), False),
        ((1, 2), (1, 2), False),
        ((1, 3), (1, 2), True),
        ((1, 3), (9, 2), True),
        ((1, 2), (2, 2), False),
        ((5,), (1, 2), False),
    ],
)
def test_a_place_is_ahead_if_one_partition_is(place: tuple[int, ...], of: tuple[int, ...], expected: bool) -> None:
    assert is_ahead(place, of) is expected
