"""A local market for a test of the doctor's, and the table's rows run at once.

The rows wait far more than they work, so each runs in a thread with an event loop of its own. Market, producer and
doctor share that loop, and its clock hardly moves but while all of them wait: to be slow is no silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec

import httpx
import pytest
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from deploy.local.kiwoom.protocol import Rules
from producers.kiwoom.token import Tokens
from streams.events import KST

MONDAY_TEN = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
NAME, SEQ = "대왕개미단타", "5"
BUSY, BUSY_SEQ = "등락률 5~15%", "0"
SECRET = "local-secret-key"
KEY = "local-app-key"
AT_ONCE = 5
P = ParamSpec("P")

# To invent a day takes a quarter of a second of one core: were it done by all at once, nobody else's clock would hold.
_INVENTING = threading.Lock()


class _Waits(selectors.DefaultSelector):
    """Counts the seconds in which nothing was to be done – of a wait that was overslept only what was asked for – and
    a tenth of the others: whoever looks again until something is due would look for ever at a clock that stands."""

    _MOST = 0.05
    _WORK = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.time = self._ended = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        most = self._MOST if timeout is None else min(max(timeout, 0.0), self._MOST)
        begun = time.monotonic()
        ready = super().select(most)
        worked, self._ended = begun - self._ended, time.monotonic()
        self.time += min(self._ended - begun, most) + worked * self._WORK
        return ready


class Unhurried(asyncio.SelectorEventLoop):
    """An event loop whose clock hardly moves while it works, or while the machine lets it wait to work."""

    def __init__(self) -> None:
        self._waits = _Waits()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.time


def unhurried(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A coroutine function as one that runs on such a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=Unhurried) as runner:
            runner.run(test(*args, **kwargs))

    return run


_BEGAN = datetime.now(UTC) - timedelta(seconds=time.monotonic())


def now() -> datetime:
    """What the frames of the running loop are stamped with."""
    return _BEGAN + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Market:
    """A running local market."""

    port: int
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/dostk/websocket"

    def tokens(self, folder: Path, key: str = KEY) -> Tokens:
        return Tokens(
            self.http,
            rest_url=f"http://127.0.0.1:{self.port}",
            app_key=SecretStr(key),
            secret_key=SecretStr(SECRET),
            now=lambda: datetime.now(KST),
            folder=folder,
        )

    async def fault(self, name: str, **options: Any) -> None:
        reply = await self.http.post("/local/faults", json={"name": name, **options})
        assert reply.status_code == 200, reply.text


@contextlib.asynccontextmanager
async def market(
    *, ping_interval: float = 0.2, patience: float = 1000.0, activity: float = 1.0
) -> AsyncIterator[Market]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    up = asyncio.Event()
    task = asyncio.create_task(
        serve(
            host="127.0.0.1",
            port=port,
            seed=7,
            clock=Clock(MONDAY_TEN, 120.0),
            state_dir=None,
            ping_interval=ping_interval,
            activity=activity,
            ready=lambda why: up.set() if why is None else None,
            rules=Rules(patience=patience, burst=1000, per_second=1000.0),
        )
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            with _INVENTING:
                waiting = asyncio.create_task(up.wait())
                await asyncio.wait((task, waiting), timeout=30, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            if task.done():
                await task
            yield Market(port, http)
    finally:
        task.cancel()
        await asyncio.wait((task,))


def on(name: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """A fault, switched on."""
    return (name, options)


@contextmanager
def at_once(
    request: pytest.FixtureRequest,
    folders: pytest.TempPathFactory,
    row: Callable[[str, Path], Coroutine[Any, Any, None]],
) -> Iterator[Callable[[str], None]]:
    """Run the rows that this module's tests ask for; what is yielded waits for one, and fails as that did."""
    module = request.node.nodeid
    asked = [item for item in request.session.items if item.nodeid.startswith(module)]
    names = [
        item.callspec.params["name"] for item in asked if hasattr(item, "callspec") and "name" in item.callspec.params
    ]
    with ThreadPoolExecutor(AT_ONCE, "row") as pool:

        def run(name: str) -> None:
            unhurried(row)(name, folders.mktemp("row"))

        running: dict[str, Future[None]] = {name: pool.submit(run, name) for name in names}
        try:
            yield lambda name: running[name].result()
        finally:
            for future in running.values():
                future.cancel()
