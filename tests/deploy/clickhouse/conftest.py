"""Local ClickHouse servers for tests: each is a process, because the engine is its process's only one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest


class Server:
    """A local ClickHouse on a free port, started."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = arguments
        self.process: subprocess.Popen[str] | None = None

    def launch(self) -> subprocess.Popen[str]:
        module = [sys.executable, "-m", "deploy.local.clickhouse"]
        return subprocess.Popen(
            [*module, "--port", str(self.port), "--data-dir", str(self.data_dir), *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def start(self) -> Server:
        self.process = self.launch()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready "):
                return self
        raise RuntimeError(self.process.communicate()[1])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode

    def sql(self, statement: str | bytes, **parameters: str | int) -> str:
        """Run a statement as curl does; raises for anything but success."""
        answer = httpx.post(self.url, params=parameters, content=statement, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text.removesuffix("\n")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only speak to it; each uses tables of its own."""
    server = Server(tmp_path_factory.mktemp("clickhouse") / "data").start()
    yield server
    server.end()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of this test's own, not started: `new_server("--password", "x")`."""
    made: list[Server] = []

    def make(*arguments: str, data_dir: Path | None = None) -> Server:
        made.append(Server(data_dir or tmp_path / "data", *arguments))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.end(signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def table(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty table (a UInt64, s String) of this test's own on the shared server."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    server.sql(f"CREATE OR REPLACE TABLE `{name}` (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    yield name
    server.sql(f"DROP TABLE `{name}`")
