"""The embedded ClickHouse in a process of its own, which a test may stop, kill and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

from sinks.settings import ClickHouseSettings


class Server:
    """The embedded ClickHouse on a fixed port and data folder."""

    def __init__(self, data_dir: Path, password: str = "") -> None:
        self.data_dir = data_dir
        self.password = password
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "deploy.local.clickhouse",
                    "--port",
                    str(self.port),
                    "--data-dir",
                    str(self.data_dir),
                    "--password",
                    self.password,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.data_dir.parent / f"{self.data_dir.name}.log").read_text()[-4000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def settings(self, **options: object) -> ClickHouseSettings:
        """Settings of a database that no one else uses."""
        database = f"test_{uuid.uuid4().hex[:10]}"
        chosen: dict[str, object] = {
            "dsn": f"clickhouse://127.0.0.1:{self.port}/{database}",
            "group": f"group-{database}",
            "batch_seconds": 0.05,
        }
        return ClickHouseSettings.model_validate(chosen | options)
