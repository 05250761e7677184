"""One login per app key: the lock that keeps a second process of this machine from taking the first one's session.

Kiwoom ends the session of an app key when the key logs in again (R10001), so whoever wants to log in takes the key's
lock first and keeps it for as long as it may be logged in. The system frees it when the process ends, however it ends.
Lock, token and whatever else the processes of a key share are in one folder per user and server (`state_folder`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from streams.events import KST

from .errors import KiwoomError, Unreachable

_POLL: Final = 0.05


class KeyInUse(KiwoomError):
    """Another process of this machine is logged in with this app key."""


def state_folder(setting: str, websocket_url: str) -> Path:
    """The folder that all processes of this user share which talk to one server.

    Args:
        setting: `kiwoom.state_dir`; empty takes `$XDG_STATE_HOME/hitstream` or `~/.local/state/hitstream`.
        websocket_url: the server: an app key of another server is another key.
    """
    home = os.environ.get("XDG_STATE_HOME", "")
    root = Path(setting) if setting else (Path(home) if home else Path.home() / ".local" / "state") / "hitstream"
    return root / (re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(websocket_url).netloc.rpartition("@")[2]) or "server")


@contextmanager
def login_lock(folder: Path, key: str, who: str = "") -> Iterator[None]:
    """Hold the right to log in with an app key.

    Args:
        folder: the state folder that all processes of the key share.
        key: short name of the app key (`token.short_name`).
        who: what this process is, for the one that is kept out.

    Raises:
        KeyInUse: another process holds it; the sentence says which.
    """
    with _opened(folder / f"login-{key}.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "unknown"
            raise KeyInUse(
                f"process {holder} is logged in with this app key, and a second login would end its session:"
                " stop that one, or use another app key"
            ) from None
        name = who or Path(sys.argv[0]).name
        os.ftruncate(file, 0)
        os.pwrite(
            file, f"{os.getpid()} ({name}, since {datetime.now(UTC).astimezone(KST):%m-%d %H:%M} KST)".encode(), 0
        )
        yield


@asynccontextmanager
async def alone(path: Path, *, within: float) -> AsyncIterator[None]:
    """Hold a lock file for a moment, after whoever holds it now.

    Raises:
        Unreachable: it was not free within so many seconds.
    """
    with _opened(path) as file:
        try:
            async with asyncio.timeout(within):
                while not _taken(file):  # noqa: ASYNC110 – the one who frees it is another process
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise Unreachable(f"another process has held {path.name} for {within:g} s: is it stuck?") from None
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
