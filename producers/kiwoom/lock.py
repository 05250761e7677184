"""One login per app key: the lock that keeps a second process of this machine from taking the first one's session.

Kiwoom ends the session of an app key when the key logs in again (R10001), so whoever wants to log in takes the key's
lock first and keeps it for as long as it may be logged in. The system frees it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import KiwoomError


class KeyInUse(KiwoomError):
    """Another process of this machine is logged in with this app key."""


@contextmanager
def login_lock(folder: Path, key: str) -> Iterator[None]:
    """Hold the right to log in with an app key.

    Args:
        folder: the state folder that all processes of the key share.
        key: short name of the app key (`token.short_name`).

    Raises:
        KeyInUse: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"login-{key}.lock"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(20).strip() or "unknown"
            raise KeyInUse(
                f"process {holder} is logged in with this app key, and a second login would end its session:"
                " stop that one, or use another app key"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
