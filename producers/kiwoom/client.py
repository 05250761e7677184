"""The I/O shell around `session`: a socket, timers, and a new connection whenever one ends.

It decides nothing about the protocol. Per input it does what the session says: what is to be sent goes first – so the
echo of a PING precedes everything else and waits for nothing but the socket – then the rest goes to `handle`.
Reconnecting is jittered and backs off; it ends for good only when another login has taken the app key.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, Protocol

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from streams.events import Frame, HitstreamError

from .. import metrics
from .errors import TokenRefused, Unreachable
from .session import Action, Moment, Over, Send, Session, Timing, Traced, Wanted
from .token import Tokens

_log = structlog.get_logger(__name__)

_MAX_FRAME: Final = 16 * 1024 * 1024
_OPEN_TIMEOUT: Final = 10.0
_CLOSE_TIMEOUT: Final = 2.0


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before the next connection, in real seconds.

    It doubles from `first` to `most`, each wait jittered to between half and all of it, and starts over once a
    connection has been live for `steady`.
    """

    first: float = 1.0
    most: float = 30.0
    steady: float = 30.0

    def wait(self, failures: int) -> float:
        """The wait after so many failures in a row (from 1)."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


class Handler(Protocol):
    """Who is told. Nothing here waits: it is called between a frame and the next."""

    def connecting(self, connection: str) -> None:
        """A connection is about to be opened."""

    def handle(self, actions: Sequence[Action], now: Moment, *, frame: bool) -> None:
        """What an input made; `frame` if it was a received frame. May raise `HitstreamError` to end the connection."""

    def disconnected(self, cause: str, state: Literal["disconnected", "refused", "displaced"]) -> None:
        """There is no connection, and why."""

    async def room(self) -> None:
        """Wait until a new connection makes sense."""


class Client:
    """Keeps one session open.

    Args:
        url: Kiwoom's WebSocket address.
        producer: short name of the app key; begins the name of each connection.
        wanted: the conditions to keep open.
        now: the product's clock, for stamps; waits are real.
        handler: who is told.
        on_frame: is given every raw frame, secrets masked.
    """

    def __init__(
        self,
        *,
        url: str,
        producer: str,
        tokens: Tokens,
        wanted: Sequence[Wanted],
        stex_tp: Literal["K", "N", "A", ""],
        timing: Timing,
        backoff: Backoff,
        now: Callable[[], datetime],
        handler: Handler,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self._url = url
        self._producer = producer
        self._tokens = tokens
        self._wanted = wanted
        self._stex_tp = stex_tp
        self._timing = timing
        self._backoff = backoff
        self._now = now
        self._handler = handler
        self._on_frame = on_frame
        self._connection = ""
        self._outbox: deque[str] = deque()
        self._asked: deque[str] = deque()
        self._ended: Over | None = None
        self._patient: frozenset[str] = frozenset()
        self._live_since: float | None = None
        self._session: Session | None = None
        self._waiting: asyncio.Timeout | None = None

    @property
    def asking(self) -> bool:
        """Whether there is a session that would send somebody else's request."""
        return self._session is not None and self._session.asking

    def ask(self, text: str) -> None:
        """Have the session send a request of somebody else's, as paced as its own; `on_frame` is given the answer.

        Raises:
            Unreachable: there is no session that is logged in.
        """
        if self._session is None or not self._session.asking:
            raise Unreachable("there is no session with Kiwoom at the moment")
        self._asked.append(text)
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Keep a session open until cancelled, which clears the conditions first; return if the app key was taken.

        Raises:
            TokenRefused: the very first token was refused.
        """
        failures = 0
        renewed = False
        begun = False
        while True:
            await self._handler.room()
            self._ended = None
            self._live_since = None
            state: Literal["disconnected", "refused"] = "disconnected"
            try:
                token = await self._tokens.get()
                begun = True
                ended = await self._connect(token)
            except TokenRefused as error:
                if not begun:
                    raise
                cause, state = str(error), "refused"
            except HitstreamError as error:
                # Kiwoom is not there, or nobody takes what we hear: better no session than one whose events are lost.
                cause = str(error)
            else:
                cause = ended.cause
                match ended.why:
                    case "displaced":
                        self._handler.disconnected(
                            f"{cause} – another program logged in with this app key: stop it, then restart this one",
                            "displaced",
                        )
                        return
                    case "token":
                        self._tokens.discard(token)
                        if not renewed:
                            renewed = True
                            continue
                        state = "refused"
                    case "refused":
                        state = "refused"
                    case _:
                        pass
                if ended.condition:
                    self._patient |= {ended.condition}
            if (live_for := self._live_for()) is not None:
                renewed = False
                if live_for >= self._backoff.steady:
                    failures = 0
            failures += 1
            wait = self._backoff.wait(failures)
            self._handler.disconnected(f"{cause}; next try in {wait:.1f} s", state)
            _log.warning("disconnected", cause=cause, next_try=round(wait, 1), failures=failures)
            await asyncio.sleep(wait)

    def _live_for(self) -> float | None:
        return None if self._live_since is None else asyncio.get_running_loop().time() - self._live_since

    async def _connect(self, token: str) -> Over:
        at = self._now()
        self._connection = f"{self._producer}-{at:%Y%m%dT%H%M%S}-{random.randrange(16**4):04x}"
        self._handler.connecting(self._connection)
        self._outbox.clear()
        self._asked.clear()
        session = Session(self._wanted, token=token, stex_tp=self._stex_tp, timing=self._timing, patient=self._patient)
        try:
            socket = await connect(
                self._url,
                ping_interval=None,
                max_size=_MAX_FRAME,
                open_timeout=_OPEN_TIMEOUT,
                close_timeout=_CLOSE_TIMEOUT,
            )
        except InvalidURI as error:
            raise _Unreachable(f"{error}: correct kiwoom.websocket_url") from None
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise _Unreachable(f"Kiwoom does not answer at {self._url}: {str(error) or 'no answer in time'}") from None
        metrics.CONNECTIONS.inc()
        self._session = session
        try:
            await self._talk(socket, session)
        finally:
            self._session = None
            await socket.close()
        return self._ended or Over(why="lost", cause="the connection ended")

    async def _talk(self, socket: ClientConnection, session: Session) -> None:
        try:
            now = self._moment()
            await self._do(socket, session.opened(now), now)
            await self._listen(socket, session)
        except ConnectionClosed as error:
            self._lost(session, error)
        except asyncio.CancelledError:
            await self._leave(socket, session)
            raise

    async def _listen(self, socket: ClientConnection, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while not session.over:
            deadline = session.deadline
            raw: bytes | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(loop.time() if self._asked else deadline) as self._waiting:
                    raw = await socket.recv(decode=False)
            self._waiting = None
            now = self._moment()
            actions = session.tick(now) if raw is None else session.received(raw, now)
            await self._do(socket, actions, now, frame=raw is not None)
            while self._asked:
                await self._do(socket, session.ask(self._asked.popleft(), now), now)
            if self._live_since is None and session.live:
                self._live_since = loop.time()

    async def _leave(self, socket: ClientConnection, session: Session) -> None:
        """Say goodbye: every condition is cleared, and what still comes meanwhile is still told."""
        try:
            now = self._moment()
            await self._do(socket, session.clear(now), now)
            await self._listen(socket, session)
        except ConnectionClosed as error:
            self._lost(session, error)
        except HitstreamError as error:
            _log.warning("stopped without clearing the conditions", cause=str(error))

    def _lost(self, session: Session, error: ConnectionClosed) -> None:
        now = self._moment()
        self._tell(session.closed(_closed_because(error), now), now)

    async def _do(self, socket: ClientConnection, actions: list[Action], now: Moment, *, frame: bool = False) -> None:
        """Send what is to be sent, then tell the rest."""
        self._outbox.extend(action.text for action in actions if isinstance(action, Send))
        try:
            while self._outbox:
                await socket.send(self._outbox[0])
                self._outbox.popleft()
        finally:
            # Also when the socket is gone or we are cancelled: what was received was received.
            self._tell(actions, now, frame=frame)

    def _tell(self, actions: list[Action], now: Moment, *, frame: bool = False) -> None:
        for action in actions:
            if isinstance(action, Over):
                self._ended = action
            elif isinstance(action, Traced) and self._on_frame is not None:
                self._on_frame(
                    Frame(
                        connection=self._connection,
                        number=action.number,
                        direction=action.direction,
                        at=action.at,
                        text=action.text,
                    )
                )
        self._handler.handle(actions, now, frame=frame)

    def _moment(self) -> Moment:
        return Moment(asyncio.get_running_loop().time(), self._now())


class _Unreachable(HitstreamError):
    """No WebSocket connection could be made."""


def _closed_because(error: ConnectionClosed) -> str:
    close = error.rcvd or error.sent
    return f"closed by Kiwoom ({close.code} {close.reason})".replace(" )", ")") if close else "the connection broke"
