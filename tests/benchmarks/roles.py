"""The roles as processes of their own, fed with frames by `feed`: what is measured is the product, not a copy of it.

`Roles` starts any of `produce`, `stream`, `sink live`, `sink clickhouse` and `local clickhouse` against one Kafka, and
tells when each is ready and what it uses. `Stream` is a reader of `/api/live` that costs little: it notes when each
transition and each recommendation first arrived.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from feed import CONDITIONS
from harness import ROOT, peak

from deploy.local.kafka.address import free_port

READY_WITHIN = 120.0
_CODE = re.compile(rb'"code":"(\w{6})"')
_CONDITION = re.compile(rb'"condition":"([^"]+)"')


def cpu(process: psutil.Process) -> float:
    """CPU seconds that a process has used so far."""
    times = process.cpu_times()
    return times.user + times.system


def memory(process: psutil.Process) -> float:
    """MiB that a process has of its own or shares in proportion (PSS); resident size where there is no PSS."""
    full = process.memory_full_info()
    return float(getattr(full, "pss", full.rss)) / 2**20


class Role:
    """One process of a role."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._port = free_port("127.0.0.1")
        self._log = folder / f"{name.replace(' ', '-')}.log"
        self.started = time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", *name.split(), *arguments],
                cwd=folder,
                env={**environ, "HITSTREAM_HEALTH__PORT": str(self._port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> float:
        """Wait until it says that it is ready; seconds since it was started."""
        while time.monotonic() - self.started < READY_WITHIN:
            if self.process.poll() is not None:
                break
            # The server stands in the thread of its health, so a wrong moment is answered with "not yet".
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{self._port}/readyz", timeout=5)
                return time.monotonic() - self.started
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.name} is not ready:\n{self._log.read_text()[-4000:]}")

    def metrics(self) -> dict[str, float]:
        """What it counts: the sum of each metric over its labels."""
        found: dict[str, float] = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if not line.startswith("#"):
                    name, _, value = line.rpartition(" ")
                    name = name.partition("{")[0]
                    found[name] = found.get(name, 0.0) + float(value)
        return found

    def memory(self) -> float:
        """MiB that it has in memory."""
        return memory(psutil.Process(self.process.pid))

    def peak(self) -> float:
        """The most MiB that it has been resident with."""
        return peak(self.process.pid)

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu(psutil.Process(self.process.pid))

    def stop(self) -> None:
        """Have it leave, or end it."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Roles:
    """Starts roles, all with the same settings.

    Args:
        folder: where they run and keep what they keep.
        kafka: the broker's address, topics created.
        feed: the feed's port; 0 where no producer is started.
    """

    def __init__(self, folder: Path, kafka: str, feed: int, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.live_port, self.clickhouse_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.running: dict[str, Role] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
        conditions = [{"name": name, "weight": 1.0} for name in CONDITIONS]
        self.environ = clean | {
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(folder / "state"),
            "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "HITSTREAM_KIWOOM__REST_URL": f"http://127.0.0.1:{feed}",
            "HITSTREAM_KIWOOM__WEBSOCKET_URL": f"ws://127.0.0.1:{feed}/",
            "HITSTREAM_KIWOOM__APP_KEY": "key",
            "HITSTREAM_KIWOOM__SECRET_KEY": "secret",
            "HITSTREAM_KIWOOM__HOURS": "always",
            "HITSTREAM_KIWOOM__LOGIN_PAUSE": "0.01",
            "HITSTREAM_KIWOOM__SEND_SPACING": "0.01",
            "HITSTREAM_CONDITIONS": json.dumps(conditions),
            "HITSTREAM_CLICKHOUSE__DSN": f"clickhouse://127.0.0.1:{self.clickhouse_port}/hitstream",
            "HITSTREAM_LOCAL__DATA_DIR": str(folder / "data"),
            "HITSTREAM_LIVE__PORT": str(self.live_port),
            "HITSTREAM_LOG__LEVEL": "warning",
            **(environ or {}),
        }

    def start(self, name: str, *arguments: str) -> Role:
        """Start a role; `ready` of what this returns waits for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        role = self.running[name] = Role(name, list(arguments), self.environ, self.folder)
        return role

    async def start_all(self, *, clickhouse: bool) -> None:
        """Everything from the producer to the browser, and ClickHouse if wanted; returns when all are ready."""
        if clickhouse:
            await self.start("local clickhouse", "--port", str(self.clickhouse_port)).ready()
            await self.start("sink clickhouse").ready()
        for name in ("stream", "sink live", "produce"):
            await self.start(name).ready()

    def rows(self, query: str) -> int:
        """One number from ClickHouse."""
        address = f"http://127.0.0.1:{self.clickhouse_port}/?database=hitstream"
        with urllib.request.urlopen(address, data=query.encode(), timeout=20) as answer:
            return int(answer.read())

    def stop(self) -> None:
        """Stop whatever runs, the producer first."""
        for name in reversed(list(self.running)):
            self.running.pop(name).stop()


@contextmanager
def roles(folder: Path, kafka: str, feed: int, environ: Mapping[str, str] | None = None) -> Iterator[Roles]:
    """Roles that are stopped at the end, whatever that end is."""
    started = Roles(folder, kafka, feed, environ)
    try:
        yield started
    finally:
        started.stop()


class Stream:
    """A reader of the live stream: when (CLOCK_MONOTONIC) what first came of each (condition, code) and each code."""

    def __init__(self, port: int, path: str = "/api/live") -> None:
        self.transitions: dict[tuple[str, str], float] = {}
        self.recommendations: dict[str, float] = {}
        self._port = port
        self._path = path

    async def run(self) -> None:
        """Read until cancelled. Bytes are looked at once a whole event is there; its time is that of its last bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=64 * 2**20)
        try:
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
            rest = b""
            while chunk := await reader.read(1 << 18):
                now = time.monotonic()
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    if b"event: snapshot" not in event:  # that is what was before
                        self._note(event, now)
        finally:
            writer.close()

    def _note(self, event: bytes, now: float) -> None:
        for change in event.split(b'{"change":')[1:]:
            code = _CODE.search(change)
            if code is None:
                continue
            if change.startswith(b'"recommendation"'):
                self.recommendations.setdefault(code[1].decode(), now)
            elif change.startswith(b'"feed"') and (condition := _CONDITION.search(change)):
                self.transitions.setdefault((condition[1].decode(), code[1].decode()), now)


async def go(feed: int, **asked: Any) -> dict[str, Any]:
    """Have the feed write frames; what it answers once all are written."""
    query = "&".join(f"{name}={value}" for name, value in asked.items())

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{feed}/go?{query}", timeout=300) as answer:
            return dict(json.load(answer))

    return await asyncio.to_thread(ask)
