"""The whole product in a folder of its own: `hitstream up` as a person starts it, and what its readers see.

The end-to-end tests ask four independent readers: the market's own truth, Kafka through a plain consumer, ClickHouse
over HTTP, and the live stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import operator
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.up import LOCAL_CONDITIONS
from streams import events, topics

ROOT = Path(__file__).parents[2]
CONDITIONS = [str(condition["name"]) for condition in LOCAL_CONDITIONS]


def free_ports(count: int) -> list[int]:
    """Free loopback ports, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 90.0) -> None:
    """Wait for a condition; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:.0f} s")
        await asyncio.sleep(0.2)


async def records(kafka: str, topic: topics.Topic) -> list[events.Record]:
    """Everything on a topic, read by a plain consumer, in the order of the partitions."""
    union: Any = functools.reduce(operator.or_, topic.records)
    decoder = msgspec.json.Decoder(union)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[events.Record] = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                batch = await consumer.getmany(partition, timeout_ms=1000)
                for message in batch.get(partition, []):
                    with contextlib.suppress(msgspec.DecodeError):  # what a test has spoilt on purpose
                        found.append(decoder.decode(message.value))
        return found
    finally:
        await consumer.stop()


class Product:
    """One `hitstream up` on free ports.

    Args:
        folder: working directory and data of the product.
        engine: which local Kafka.
        environ: further settings.
    """

    def __init__(self, folder: Path, engine: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        ports = free_ports(4)
        self.kafka = f"127.0.0.1:{ports[0]}"
        self.clickhouse_port = ports[1]
        self.market = f"http://127.0.0.1:{ports[2]}"
        self.dashboard = f"http://127.0.0.1:{ports[3]}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
        self.environ = clean | {
            "PYTHONPATH": str(ROOT),
            "HITSTREAM_LOCAL__DATA_DIR": str(folder / "data"),
            "HITSTREAM_LOCAL__KAFKA_ENGINE": engine,
            "HITSTREAM_LOCAL__KAFKA_PORT": str(ports[0]),
            "HITSTREAM_LOCAL__CLICKHOUSE_PORT": str(ports[1]),
            "HITSTREAM_LOCAL__KIWOOM_PORT": str(ports[2]),
            "HITSTREAM_LIVE__PORT": str(ports[3]),
            **(environ or {}),
        }
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []

    def start(self) -> None:
        """Start it and return at once; `wait_running` waits."""
        self.output = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "up"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            self.output.extend(iter(process.stdout.readline, ""))

    async def wait_running(self, seconds: float = 180.0) -> None:
        """Wait for the line with the dashboard's address."""

        async def running() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            return "Hitstream is running" in self.said() and (self.folder / "data" / "up.json").exists()

        try:
            await until(running, "the start of the product", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def said(self) -> str:
        """Everything it has printed so far."""
        return "".join(self.output)

    def tree(self) -> list[psutil.Process]:
        """Every process of it, `up` first."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def pid(self, role: str) -> int | None:
        """Process id of a role, as `up` notes it."""
        try:
            noted = json.loads((self.folder / "data" / "up.json").read_text())
        except FileNotFoundError:
            return None
        pid = noted["children"][role]["pid"]
        return None if pid is None else int(pid)

    async def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a role and wait until the supervisor has it running again."""
        before = self.pid(role)
        assert before is not None
        os.kill(before, number)

        async def back() -> bool:
            return self.pid(role) not in (None, before)

        await until(back, f"the restart of {role}")

    def stop(self, seconds: float = 30.0) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(seconds)
        self.reader.join()
        return code

    def end(self) -> None:
        """Whatever happened: leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            left = self.tree()
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
            for process in psutil.wait_procs(left, timeout=5)[1]:
                process.kill()
            self.reader.join()

    # --- readers ------------------------------------------------------------------------------------------------------

    async def control(self, method: str, path: str, **query: Any) -> Any:
        """Ask the local market's control surface."""
        async with httpx.AsyncClient(base_url=self.market, timeout=30) as client:
            answer = await client.request(method, path, params=query)
            answer.raise_for_status()
            return answer.json()

    async def records(self, topic: topics.Topic) -> list[events.Record]:
        """Everything on a topic."""
        return await records(self.kafka, topic)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask ClickHouse over HTTP."""
        import clickhouse_connect

        client = clickhouse_connect.get_client(host="127.0.0.1", port=self.clickhouse_port, database="hitstream")
        try:
            return [tuple(row) for row in client.query(query).result_rows]
        finally:
            client.close()


class Live:
    """A reader of the live stream that keeps what it is told, as a browser does, resuming where it was cut off.

    `since` is the server's clock at its last snapshot, whose feed holds only the newest lines of what was before.
    """

    def __init__(self, dashboard: str) -> None:
        self.dashboard = dashboard
        self.transitions: dict[str, dict[str, Any]] = {}
        self.recommendations: dict[str, dict[str, Any]] = {}
        self.conditions: dict[str, dict[str, Any]] = {}
        self.said_twice: list[tuple[str, str]] = []
        self.connections = 0
        self.since: datetime | None = None
        self._last = ""
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Read until cancelled."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(10.0)) as client:
            while True:
                try:
                    headers = {"Last-Event-ID": self._last} if self._last else {}
                    async with client.stream("GET", f"{self.dashboard}/api/live", headers=headers) as answer:
                        self.connections += 1
                        await self._read(answer)
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)

    async def _read(self, answer: httpx.Response) -> None:
        kind, last, data = "", "", ""
        async for line in answer.aiter_lines():
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("id:"):
                last = line[3:].strip()
            elif line.startswith("data:"):
                data += line[5:].strip()
            elif not line and data:
                self._apply(kind, json.loads(data))
                self._last = last or self._last
                kind, last, data = "", "", ""

    def _apply(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "snapshot":
            self.since = datetime.fromisoformat(data["now"])
            # A snapshot begins anew: what an earlier hub had said already may come again after it.
            self._told = {(item["transition"]["id"], item["name"]) for item in data["feed"]}
            for item in data["feed"]:
                self.transitions[item["transition"]["id"]] = item["transition"]
            self.recommendations = {
                item["recommendation"]["recommendation_id"]: item["recommendation"] for item in data["recommendations"]
            }
            self.conditions = {item["condition"]: item for item in data["conditions"]}
        elif kind == "delta":
            for change in data["changes"]:
                match change["change"]:
                    case "feed":
                        line = change["transition"]["id"], change["name"]  # it comes again when its stock's name does
                        if line in self._told:
                            self.said_twice.append(line)
                        self._told.add(line)
                        self.transitions[change["transition"]["id"]] = change["transition"]
                    case "recommendation":
                        new = change["recommendation"]
                        self.recommendations[new["recommendation_id"]] = new
                    case "condition":
                        self.conditions[change["condition"]] = change
