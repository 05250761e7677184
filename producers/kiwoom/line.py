"""A session with Kiwoom as somebody sees it who asks single questions: requests in, every frame out.

`Line` is what searches and the doctor talk through. Three things are one: a connection of our own (`own_line`, here),
the running producer's session from inside (`producers.control.Tap`), and the same from another process
(`producers.control.attach`). A line that is `borrowed` is somebody else's session and is never ended for a question.

PINGs are echoed by whoever owns the connection. Every frame that comes out is masked.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from streams.events import Frame

from . import frames
from .errors import STALE_TOKEN, TokenRefused, Unreachable, embedded_code, masked, remedy
from .token import Tokens

_MAX_FRAME: Final = 16 * 1024 * 1024
_OPEN_TIMEOUT: Final = 10.0
_KEPT: Final = 20_000
_QUEUED: Final = 10.0  # Seconds that a request may wait its turn among the running session's own.


class Line(Protocol):
    """A way to ask a session something."""

    @property
    def name(self) -> str:
        """The connection's name."""

    @property
    def borrowed(self) -> bool:
        """Whether the session is somebody else's."""

    @property
    def ended(self) -> str:
        """Why there is no connection any more; empty while there is."""

    @property
    def history(self) -> tuple[Frame, ...]:
        """The session's frames before we came."""

    @property
    def members(self) -> Mapping[str, Collection[str]]:
        """Per condition, by name: who the session's owner knows to be in it."""

    async def send(self, text: str) -> None:
        """Send a frame, paced. Raises `Unreachable` where there is no connection any more."""

    async def hear(self, within: float) -> Frame | None:
        """The next frame, sent or received, within so many seconds; None if there was none or the line has ended."""


async def ask(line: Line, text: str, within: float) -> frames.Received | None:
    """Send a request and wait for its answer.

    Args:
        within: real seconds for the answer, counted from when the request was really sent.

    Returns:
        the answer; None if none came in time.

    Raises:
        Unreachable: the connection has ended.
    """
    loop = asyncio.get_running_loop()
    asked = frames.request(text)
    while await line.hear(0) is not None:
        pass
    await line.send(text)
    until = loop.time() + within + _QUEUED
    sent = False
    while (left := until - loop.time()) > 0:
        frame = await line.hear(left)
        if frame is None:
            if line.ended:
                raise Unreachable(f"the connection to Kiwoom ended: {line.ended}")
        elif frame.direction == "out":
            if not sent and frames.request(frame.text) == asked:
                sent, until = True, loop.time() + within
        elif sent and frames.answers(asked, reply := frames.decode(frame.text)):
            return reply
    return None


class Heard:
    """Frames that wait to be heard: at most so many, the oldest given up first."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()
        self.ended = ""

    def add(self, frame: Frame) -> None:
        """A frame was sent or received."""
        self._frames.append(frame)
        self._news.set()

    def end(self, cause: str) -> None:
        """There will be no more."""
        self.ended = self.ended or cause
        self._news.set()

    async def hear(self, within: float) -> Frame | None:
        """The next frame; None if there was none in time, or there will be no more."""
        try:
            async with asyncio.timeout(within):
                while not self._frames and not self.ended:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._frames.popleft() if self._frames else None


class OwnLine:
    """A connection of our own. `hear` and `send` as `Line` says; `tell` numbers and masks what goes by."""

    borrowed = False
    history: tuple[Frame, ...] = ()
    members: Mapping[str, Collection[str]] = {}

    def __init__(
        self, socket: ClientConnection, *, now: Callable[[], datetime], secrets: Collection[str], spacing: float
    ) -> None:
        self._socket = socket
        self._now = now
        self._secrets = tuple(secret for secret in secrets if secret)
        self._spacing = spacing
        self._next_send = 0.0
        self._heard = Heard()
        self._numbers: dict[Literal["in", "out"], int] = {"in": 0, "out": 0}
        self.name = f"own-{random.randrange(16**6):06x}"

    @property
    def ended(self) -> str:
        """Why the connection is gone; empty while it is there."""
        return self._heard.ended

    async def send(self, text: str) -> None:
        """Send one frame, at least `spacing` seconds after the one before."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next_send - loop.time()))
        self._next_send = loop.time() + self._spacing
        self._tell("out", text)
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            self._heard.end(closed_because(error))
            raise Unreachable(self._heard.ended) from None

    async def hear(self, within: float) -> Frame | None:
        """The next frame."""
        return await self._heard.hear(within)

    async def listen(self, *, echo: bool) -> None:
        """Receive until the connection ends, echoing each PING before anything else."""
        try:
            async for raw in self._socket:
                text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
                ping = isinstance(frames.decode(text), frames.Ping)
                if ping and echo:
                    await self._socket.send(text)
                self._tell("in", text)
                if ping and echo:
                    self._tell("out", text)
            self._heard.end("closed by Kiwoom")
        except ConnectionClosed as error:
            self._heard.end(closed_because(error))

    def _tell(self, direction: Literal["in", "out"], text: str) -> None:
        self._numbers[direction] += 1
        text = masked(text, *self._secrets)
        self._heard.add(
            Frame(
                connection=self.name,
                number=self._numbers[direction],
                direction=direction,
                at=self._now(),
                text=text,
            )
        )


@asynccontextmanager
async def own_line(
    url: str,
    *,
    secrets: Collection[str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    spacing: float = 0.35,
    echo: bool = True,
) -> AsyncIterator[OwnLine]:
    """A connection of our own, closed at the end. Nothing is sent by itself but the echo of PINGs.

    Args:
        secrets: what is masked in every frame.
        now: stamps the frames.
        spacing: least real seconds between two frames that are sent.
        echo: whether PINGs are echoed; without, Kiwoom ends the session.

    Raises:
        Unreachable: there is no connection to be had.
    """
    try:
        socket = await connect(
            url, ping_interval=None, max_size=_MAX_FRAME, open_timeout=_OPEN_TIMEOUT, close_timeout=1.0
        )
    except InvalidURI as error:
        raise Unreachable(f"{error}: correct kiwoom.websocket_url") from None
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise Unreachable(f"Kiwoom does not answer at {url}: {str(error) or 'no answer in time'}") from None
    line = OwnLine(socket, now=now, secrets=secrets, spacing=spacing)
    async with socket:
        # Not a task group: an error of whoever asks stays the error it is.
        listening = asyncio.create_task(line.listen(echo=echo), name="line")
        try:
            yield line
        finally:
            listening.cancel()
            await asyncio.wait((listening,))


def closed_because(error: ConnectionClosed) -> str:
    """Why a connection was closed, in words."""
    close = error.rcvd or error.sent
    return f"closed by Kiwoom ({close.code} {close.reason})".replace(" )", ")") if close else "the connection broke"


@asynccontextmanager
async def logged_in(
    url: str, tokens: Tokens, *, secrets: Collection[str] = (), spacing: float, pause: float, within: float = 10.0
) -> AsyncIterator[OwnLine]:
    """A session of our own, after LOGIN. Whoever calls it holds the app key's lock.

    Args:
        pause: real seconds after the LOGIN reply in which nothing is sent.
        within: real seconds to wait for it.

    Raises:
        KiwoomError: no token, no connection, or LOGIN was refused.
    """
    for last in (False, True):
        token = await tokens.get()
        async with own_line(url, secrets=[token, *secrets], spacing=spacing) as line:
            reply = await ask(line, frames.LoginRequest(token=token).text(), within)
            if not isinstance(reply, frames.LoginReply):
                raise Unreachable(f"LOGIN was not answered within {within:g} s: `hitstream doctor` says why")
            if reply.code == 0:
                await asyncio.sleep(pause)
                yield line
                return
            tokens.discard(token)
            stale = {str(reply.code), embedded_code(reply.message)} & STALE_TOKEN
            if last or not stale:
                said = reply.message or reply.code
                raise TokenRefused(f"LOGIN was refused ({said}): {remedy(embedded_code(reply.message))}")
