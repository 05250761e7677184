"""The I/O shell around `session`: a socket, timers, and a new connection whenever one ends.

It decides nothing about the protocol. Per input it does what the session says: what is to be sent goes first – so the
echo of a PING precedes everything else and waits for nothing but the socket – then the rest goes to `handle`.
Reconnecting is jittered and backs off; it ends for good only when another login has taken the app key. Outside the
calendar's hours it rests, unless somebody needs a session (`need`). A diagnosis may have a session of its own lent to
it (`lend`): the app key has only one, so ours ends in good order first and is opened again afterwards.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from streams.events import KST, Frame, HitstreamError

from .. import metrics
from ..calendar import ALWAYS, Calendar, Rest
from .errors import Maintenance, TokenRefused, Unreachable
from .line import closed_because
from .registrations import MAX_CODES
from .session import Action, Moment, Over, Send, Session, Timing, Traced, Wanted
from .token import Tokens

_log = structlog.get_logger(__name__)

_MAX_FRAME: Final = 16 * 1024 * 1024
_OPEN_TIMEOUT: Final = 10.0
_CLOSE_TIMEOUT: Final = 2.0
_SEND_TIMEOUT: Final = 10.0
_INSTANT: Final = 0.0005  # Seconds; to ask the clock for every frame of a burst would be a tenth of its cost.
_TURN: Final = 0.002  # Seconds for which frames that have come are told before others have their turn.
# Real seconds between two looks at the calendar: its clock may run at any speed.
_LOOK_EVERY: Final = 0.5
_DISPLACED: Final = (
    "another program has logged in with this app key. No other process of this user holds the key's lock, so it runs"
    " on another machine, under another user, or is no Hitstream: stop it, or give it an app key of its own, then"
    " restart this one"
)
_LOAN: Final = "a diagnosis asked for a fresh connection"
_LOAN_OVER: Final = "the diagnosis over a fresh connection has ended"


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before the next connection, in real seconds.

    It doubles from `first` to `most` – to `closed` outside trading hours and during maintenance – each wait jittered to
    between half and all of it. It starts over once a connection has proved itself: every condition was answered and a
    PING came after that, or it has been live for `steady`.
    """

    first: float = 1.0
    most: float = 5.0
    closed: float = 60.0
    steady: float = 30.0

    def wait(self, failures: int, *, urgent: bool = True) -> float:
        """The wait after so many failures in a row (from 1)."""
        most = self.most if urgent else self.closed
        return min(most, self.first * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


class Handler(Protocol):
    """Who is told. Nothing here waits: it is called between a frame and the next."""

    def connecting(self, connection: str) -> None:
        """A connection is about to be opened."""

    def handle(self, actions: Sequence[Action], now: Moment, *, frame: bool) -> None:
        """What an input made; `frame` if it was a received frame. May raise `HitstreamError` to end the connection."""

    def disconnected(self, cause: str, state: Literal["disconnected", "refused", "displaced", "resting"]) -> None:
        """There is no connection, and why."""

    async def room(self) -> None:
        """Wait until a new connection makes sense."""

    async def pace(self) -> None:
        """Give others their turn among frames that come at once; wait while they are passed on more slowly than they
        come, but not for somebody who takes nothing: PINGs are among them."""


class Client:
    """Keeps one session open.

    Args:
        url: Kiwoom's WebSocket address.
        producer: short name of the app key; begins the name of each connection.
        wanted: the conditions to keep open.
        now: the product's clock, for stamps; waits are real.
        handler: who is told.
        on_frame: is given every raw frame, secrets masked.
        calendar: the calendar as it is known at the moment.
        prices: most codes that are registered for prices at any moment.
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
        calendar: Callable[[], Calendar] = lambda: ALWAYS,
        prices: int = MAX_CODES,
    ) -> None:
        self._prices = prices
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
        self._last = Moment(-math.inf, datetime.min.replace(tzinfo=UTC))
        self._outbox: deque[str] = deque()
        self._asked: deque[str] = deque()
        # The codes to be told the trades of; None where nobody ever asked for any. Whether the session knows them.
        self._priced: tuple[str, ...] | None = None
        self._price_told = True
        self._ended: Over | None = None
        self._patient: frozenset[str] = frozenset()
        self._live_since: float | None = None
        self._proved = False
        self._session: Session | None = None
        self._waiting: asyncio.Timeout | None = None
        self._calendar = calendar
        self._needed_until: datetime | None = None
        self._needed = asyncio.Event()
        # Which loan the session is wanted for, and which the present one was opened for; 0: it is ours.
        self._loan = 0
        self._loans = 0
        self._lent = 0

    def lend(self) -> None:
        """End the session in good order, and open one that registers nothing: whoever examines Kiwoom may try anything
        on it. `lent` tells when it is there; it lasts until `take_back`."""
        self._loans += 1
        self._loan = self._loans
        self._look()

    def take_back(self) -> None:
        """The loan is over: the next session is ours again, at once."""
        self._loan = 0
        self._look()

    @property
    def lent(self) -> bool:
        """Whether there is the session that was asked for by the last `lend`, and it would send a request."""
        return self._loan != 0 and self._lent == self._loan and self.asking

    def need(self, until: datetime) -> None:
        """Keep or open a session until this moment of the product's clock, also while it would rest.

        A session that is opened for this logs in and has the list of conditions, but registers none of ours. `asking`
        tells when it can be used.
        """
        if self._needed_until is None or until > self._needed_until:
            self._needed_until = until
        self._needed.set()

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
        self._look()

    def price(self, codes: Sequence[str]) -> None:
        """Have the trades of these codes told, the most important first, on this connection and those to come."""
        self._priced, self._price_told = tuple(codes), False
        self._look()

    def _look(self) -> None:
        """Have the loop look at once at what is wanted, whatever it is waiting for."""
        self._needed.set()
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
            begun = await self._rest(begun)
            await self._handler.room()
            self._ended = None
            self._live_since = None
            self._proved = False
            maintenance = False
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
                cause, maintenance = str(error), isinstance(error, Maintenance)
            else:
                cause = ended.cause
                match ended.why:
                    case "displaced":
                        self._handler.disconnected(f"{cause} – {_DISPLACED}", "displaced")
                        return
                    case "stopped":
                        failures = 0
                        continue
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
                if self._proved or live_for >= self._backoff.steady:
                    failures = 0
            failures += 1
            urgent = self._calendar().urgent(self._now(), maintenance=maintenance)
            wait = self._backoff.wait(failures, urgent=urgent)
            self._handler.disconnected(f"{cause}; next try in {wait:.1f} s", state)
            _log.warning("disconnected", cause=cause, next_try=round(wait, 1), failures=failures)
            await self._pause(wait, loan=self._loan)

    async def _pause(self, wait: float, *, loan: int) -> None:
        """Wait before the next connection; a loan that begins or ends meanwhile waits no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while loan == self._loan:
                    self._needed.clear()
                    await self._needed.wait()

    async def _rest(self, begun: bool) -> bool:
        """Wait until a session is wanted; returns whether a token has been had."""
        shown = ""
        while (rest := self._resting()) is not None:
            cause = f"{rest.cause}; goes on {rest.until.astimezone(KST):%m-%d %H:%M} KST"
            if cause != shown:
                shown = cause
                self._handler.disconnected(cause, "resting")
                _log.info("resting", cause=cause)
            if not begun:
                # Whoever starts this in the evening wants to know now, not in the morning, that the key is wrong.
                begun = True
                try:
                    await self._tokens.get()
                except TokenRefused:
                    raise
                except HitstreamError as error:
                    _log.info("no token yet", cause=str(error))
            self._needed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._needed.wait()
        return begun

    def _resting(self) -> Rest | None:
        now = self._now()
        if self._loan or (self._needed_until is not None and now < self._needed_until):
            return None
        return self._calendar().rest(now)

    def _live_for(self) -> float | None:
        return None if self._live_since is None else asyncio.get_running_loop().time() - self._live_since

    async def _connect(self, token: str) -> Over:
        at = self._now()
        self._connection = f"{self._producer}-{at:%Y%m%dT%H%M%S}-{random.randrange(16**4):04x}"
        self._handler.connecting(self._connection)
        self._outbox.clear()
        self._asked.clear()
        self._lent = self._loan
        in_hours = self._calendar().rest(at) is None
        session = Session(
            self._wanted if in_hours and not self._lent else (),
            token=token,
            stex_tp=self._stex_tp,
            timing=self._timing,
            patient=self._patient,
            trading=lambda at: self._calendar().trading(at),
            market_clock=in_hours and not self._lent and not self._calendar().always,
            prices=self._prices,
        )
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
        except InvalidStatus as error:
            status = error.response.status_code
            raise Maintenance(
                f"Kiwoom answers {self._url} with HTTP {status}: it may be closed for maintenance"
            ) from None
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise _Unreachable(f"Kiwoom does not answer at {self._url}: {str(error) or 'no answer in time'}") from None
        metrics.CONNECTIONS.inc()
        self._session = session
        try:
            await self._talk(socket, session, in_hours=in_hours)
        finally:
            self._session = self._waiting = None
            await socket.close()
        return self._ended or Over(why="lost", cause="the connection ended")

    async def _talk(self, socket: ClientConnection, session: Session, *, in_hours: bool) -> None:
        try:
            now = self._moment()
            await self._do(socket, session.opened(now), now)
            self._price_told = False
            await self._listen(socket, session, in_hours=in_hours)
        except ConnectionClosed as error:
            await self._lost(socket, session, error)
        except asyncio.CancelledError:
            await self._leave(socket, session)
            raise

    async def _listen(self, socket: ClientConnection, session: Session, *, in_hours: bool | None = None) -> None:
        """Do what has to be done until the session is over. `in_hours` is how it was opened; None while it leaves."""
        loop = asyncio.get_running_loop()
        while not session.over:
            deadline = min(session.deadline or math.inf, loop.time() + _LOOK_EVERY)
            heard: tuple[list[Action], Moment] | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(
                    loop.time() if self._asked or not self._price_told else deadline
                ) as self._waiting:
                    heard = await self._hear(socket, session, deadline)
            self._waiting = None
            if heard is None:
                now = self._moment()
                await self._do(socket, session.tick(now), now)
            else:
                now = heard[1]
                await self._do(socket, *heard, frame=True)
            while self._asked:
                await self._do(socket, session.ask(self._asked.popleft(), now), now)
            if not self._price_told:
                self._price_told = True
                if in_hours and not self._lent and self._priced is not None:
                    await self._do(socket, session.price(self._priced, now), now)
            if in_hours is not None and self._loan != self._lent:
                await self._do(socket, session.clear(now, "disconnected", _LOAN if self._loan else _LOAN_OVER), now)
            elif in_hours is not None and (cause := self._leaves_because(in_hours)):
                await self._do(socket, session.clear(now, "resting", cause), now)
            self._proved = self._proved or session.proved
            if self._live_since is None and session.live:
                self._live_since = loop.time()

    async def _hear(
        self, socket: ClientConnection, session: Session, deadline: float
    ) -> tuple[list[Action], Moment] | None:
        """Receive until there is more to be done about a frame than to tell of it; returns that frame's actions.

        Frames that come together share one timer and are told one after another, which is most of what a frame would
        cost; but every `_TURN` others have theirs – Kafka's answers among them. None when the deadline has come.
        """
        turn = 0.0
        while True:
            raw = await socket.recv(decode=False)
            now = self._moment()
            actions = session.received(raw, now)
            if self._outbox or not session.only_told:
                return actions, now
            self._tell(actions, now, frame=True)
            if now.t >= deadline:
                return None
            if now.t >= turn:
                await self._handler.pace()
                turn = asyncio.get_running_loop().time() + _TURN

    def _leaves_because(self, in_hours: bool) -> str:
        """Why a session is to end in good order; empty if it is not."""
        if (rest := self._resting()) is not None:
            return rest.cause
        if not in_hours and self._calendar().rest(self._now()) is None:
            return "the trading day begins"
        return ""

    async def _leave(self, socket: ClientConnection, session: Session) -> None:
        """Say goodbye: every condition is cleared, and what still comes meanwhile is still told."""
        try:
            now = self._moment()
            await self._do(socket, session.clear(now), now)
            await self._listen(socket, session)
        except ConnectionClosed as error:
            await self._lost(socket, session, error)
        except HitstreamError as error:
            _log.warning("stopped without clearing the conditions", cause=str(error))

    async def _lost(self, socket: ClientConnection, session: Session, error: ConnectionClosed) -> None:
        """Hear what had come before the end, which a request that could not be sent any more must not hide: it may be
        that another program has taken the app key, and who missed that would come back and throw the other one out."""
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                while not session.over:
                    raw = await socket.recv(decode=False)
                    now = self._moment()
                    self._tell(session.received(raw, now), now, frame=True)
        if not session.over:
            now = self._moment()
            self._tell(session.closed(closed_because(error), now), now)

    async def _do(self, socket: ClientConnection, actions: list[Action], now: Moment, *, frame: bool = False) -> None:
        """Send what is to be sent, then tell the rest."""
        self._outbox.extend(action.text for action in actions if isinstance(action, Send))
        if not self._outbox:
            self._tell(actions, now, frame=frame)
            return
        try:
            async with asyncio.timeout(_SEND_TIMEOUT):
                while self._outbox:
                    await socket.send(self._outbox[0])
                    self._outbox.popleft()
        except TimeoutError:
            raise _Unreachable(f"Kiwoom has taken nothing for {_SEND_TIMEOUT:g} s") from None
        finally:
            # Also when the socket is gone or we are cancelled: what was received was received.
            self._tell(actions, now, frame=frame)

    def _tell(self, actions: list[Action], now: Moment, *, frame: bool = False) -> None:
        for action in actions:
            if type(action) is Over:
                self._ended = action
            elif type(action) is Traced and self._on_frame is not None:
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
        """Now; frames that come within `_INSTANT` of each other have come together."""
        t = asyncio.get_running_loop().time()
        if not 0 <= t - self._last.t < _INSTANT:
            self._last = Moment(t, self._now())
        return self._last


class _Unreachable(HitstreamError):
    """No WebSocket connection could be made."""
