"""The broker that tests share.

`kafka`        bootstrap address of the session's broker, every topic of `streams.topics` created; names and groups of
               your own keep you out of the way of others.
`fresh_kafka`  bootstrap address of a broker of this test's own: empty, every topic created.
`broker`       the same as a handle, for tests that stop, kill, restart or wipe it.

All three start what they need and stop it at the end. `HITSTREAM_TEST_KAFKA=apache|noida` chooses the engine; the
header line says which it is and why.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams import topics


def pytest_report_header() -> str:
    return "kafka: noida-db, the embedded broker"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Broker:
    """A broker of its own on a fixed port and data folder, started and with every topic created."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what it kept is there again."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "broker.log").open("ab") as log:
            binary = str(importlib.resources.files("noida_db") / "noida-db")
            arguments = ["start", "--data-dir", str(self.data_dir), "--only", "kafka", "--kafka-port", str(self.port)]
            self.process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.data_dir / "broker.log").read_text()) from None
                time.sleep(0.02)
        _apart(lambda: _create_topics(self.address))

    def stop(self) -> None:
        """Stop it in order: what it was told stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Stop it and forget everything; `start` makes it new."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


async def _create_topics(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(t.name, t.partitions, 1, topic_configs=t.config) for t in topics.ALL])
    finally:
        await admin.close()


def _apart(make: Callable[[], Any]) -> None:
    """Run a coroutine in a thread of its own, so that the test's event loop is left alone."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(make())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the session's broker, all topics created. Shared: use groups of your own."""
    broker = Broker(tmp_path_factory.mktemp("kafka") / "data")
    try:
        broker.start()
        yield broker.address
    finally:
        broker.wipe()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test's own, running, as a handle: `address`, `stop`, `start`, `kill`, `wipe`."""
    broker = Broker(tmp_path / "kafka")
    try:
        broker.start()
        yield broker
    finally:
        broker.wipe()


@pytest.fixture
def fresh_kafka(broker: Broker) -> str:
    """Bootstrap address of an empty broker of this test's own, all topics created."""
    return broker.address
