"""noida-db: a small Kafka-protocol broker without Java, which keeps its records in memory.

It writes them to its data folder about once a second and when it is stopped in order. Clients speak to the front,
which gives it the long polls it lacks; noida-db itself listens on a port of its own.
"""

from __future__ import annotations

import importlib.resources
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from streams.events import HitstreamError

from .address import free_port
from .process import Child, child, last_lines
from .ready import until_ready

HOST: Final = "127.0.0.1"
STATE: Final = "kafka.json"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


class Unavailable(HitstreamError):
    """noida-db is not installed."""


def binary() -> Path:
    """noida-db's program. Raises Unavailable."""
    try:
        path = Path(str(importlib.resources.files("noida_db"))) / "noida-db"
    except ModuleNotFoundError:
        path = Path()
    if not path.is_file():
        raise Unavailable("noida-db is not installed: install hitstream[embedded].")
    if not os.access(path, os.X_OK):  # an installer may have dropped the bit
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return path


@asynccontextmanager
async def run(folder: Path, *, keep_open: tuple[int, ...] = ()) -> AsyncIterator[tuple[Child, int, Path]]:
    """A broker on a free loopback port until the block is left; with it, the port and the file of its log.

    `folder` (absolute) is where its state is.
    """
    log = folder / "noida.log"
    port = free_port(HOST)
    command = _command(folder, port)
    async with child(command, log=log, grace=_STOP_SECONDS, farewell="TERM", keep_open=keep_open) as broker:
        if not await until_ready(broker, HOST, port, _START_SECONDS):
            raise HitstreamError(f"noida-db did not start; the end of {log}: {last_lines(log)}")
        yield broker, port, log


def _command(folder: Path, port: int) -> list[str | Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [binary(), "start", "--data-dir", folder, "--host", HOST, "--only", "kafka", "--kafka-port", str(port)]
