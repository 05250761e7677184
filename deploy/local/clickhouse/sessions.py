"""HTTP sessions: a client's settings, current database and temporary tables between its requests.

A session is a lasting handle under the client's own name. It serves one request at a time, and ends some time after
the last one. A request without a session has a handle for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from .engine import Engine, Handle, Refusal

# Seconds (ClickHouse: default_session_timeout, max_session_timeout).
_TIMEOUT: Final = 60
_LONGEST: Final = 3600
_MOST: Final = 512
# Seconds that a request waits for the one before it in its session.
_PATIENCE: Final = 1.0


@dataclass
class _Session:
    handle: Handle
    ends: float
    busy: bool = False


class Sessions:
    """The sessions of one server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[str, _Session] = {}

    @asynccontextmanager
    async def use(
        self, name: str, prepare: Callable[[Handle], None], *, lasts: str, must_exist: bool, end: bool
    ) -> AsyncIterator[Handle]:
        """A handle for one request, after `prepare` has run with it on the engine's thread.

        Raises:
            Refusal: `prepare` refuses, or the session is in use (373), is not there though it must (372), its timeout
                is wrong (374), or there are too many (203).
        """
        await self._expire()
        if not name:
            handle = await self._engine.call("", self._opened, prepare)
            try:
                yield handle
            finally:
                await self._engine.call("", handle.close)
            return
        seconds = _seconds(lasts)
        # A client that has let go of a stream asks on before we can see that it is gone.
        patience = time.monotonic() + _PATIENCE
        while (session := self._sessions.get(name)) is not None and session.busy:
            if time.monotonic() > patience:
                raise Refusal(373, f"Session {name} is locked by a concurrent client. (SESSION_IS_LOCKED)")
            await asyncio.sleep(0.01)
        if session is None:
            if must_exist:
                raise Refusal(372, f"Session {name} not found (SESSION_NOT_FOUND)")
            if len(self._sessions) >= _MOST:
                raise Refusal(203, "There are too many sessions. (NO_FREE_CONNECTION)")
            # Opening takes a fifth of a millisecond, and nobody else may open the same one meanwhile.
            session = self._sessions[name] = _Session(self._engine.handle(lasting=True), 0.0)
        session.busy = True
        try:
            await self._engine.call("", prepare, session.handle)
            yield session.handle
        finally:
            session.busy = False
            session.ends = time.monotonic() + (0 if end else seconds)

    def _opened(self, prepare: Callable[[Handle], None]) -> Handle:
        handle = self._engine.handle()
        try:
            prepare(handle)
        except BaseException:
            handle.close()
            raise
        return handle

    async def _expire(self) -> None:
        now = time.monotonic()
        for name, session in list(self._sessions.items()):
            if not session.busy and session.ends <= now:
                del self._sessions[name]
                await self._engine.call("", session.handle.close)

    async def close(self) -> None:
        """End every session; none may be in use."""
        for session in self._sessions.values():
            await self._engine.call("", session.handle.close)
        self._sessions.clear()


def _seconds(timeout: str) -> int:
    if not timeout:
        return _TIMEOUT
    if not timeout.isdecimal():
        raise Refusal(374, f"Invalid session timeout: '{timeout}' (INVALID_SESSION_TIMEOUT)")
    if int(timeout) > _LONGEST:
        raise Refusal(
            374,
            f"Session timeout '{timeout}' is larger than max_session_timeout: {_LONGEST}. Maximum session timeout could"
            " be modified in configuration file. (INVALID_SESSION_TIMEOUT)",
        )
    return int(timeout)
