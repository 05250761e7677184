"""Locks on folders that processes share, held by an open file: whoever dies lets go of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path


class Held(Exception):
    """Somebody else holds the lock and did not let go in time."""


@contextlib.asynccontextmanager
async def exclusive(path: Path, *, patience: float, waiting: Callable[[], None] | None = None) -> AsyncIterator[int]:
    """Hold the lock file at `path`; gives its file descriptor, which a child may inherit to hold it as long.

    Args:
        patience: seconds to wait for whoever holds it.
        waiting: called once when there is somebody to wait for.

    Raises:
        Held: it was not let go within `patience`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Held(path) from None
            if waiting is not None:
                waiting()
                waiting = None
            await asyncio.sleep(0.05)
        yield file.fileno()
