"""The control port: how other commands use the running producer's session instead of logging in beside it.

A Unix socket that only its owner can open, in the folder that all processes of an app key share; a file beside it says
where. One JSON object a line. A client says `{"ask": "status"}` and gets one line, or `{"ask": "attach"}`: it then gets
the session's frames so far, and from then on every frame as it goes by, and may send requests of its own
(`{"send": "…"}`). No secret goes over it: frames are masked, and LOGIN can't be sent.

`Switchboard` is the producer's side without a socket: what has gone by on the present connection, and who listens.
Nothing that is asked may end what is live: a CNSRCLR of a live condition is refused. The one exception is asked for by
name: `{"ask": "fresh"}` has the producer end its session in good order and open one on which nothing is registered, for
as long as the client stays. It is the producer that logs in, so nobody is displaced, and what is missed meanwhile is a
gap like any other.

`{"ask": "bars", "day": "2026-03-09"}` has a day's bars fetched; the client is told how far they are until they are
there, and may leave before that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog

from streams.events import Frame, HitstreamError, Status

from .bars import Bars
from .day_bars import Progress
from .kiwoom import frames
from .kiwoom.errors import NotLent, Unreachable
from .kiwoom.line import Heard

_log = structlog.get_logger(__name__)

_ALLOWED: Final = frozenset({"CNSRLST", "CNSRREQ", "CNSRCLR"})
_KEPT_FRAMES: Final = 2_000
_KEPT_BEATS: Final = 500
_LONGEST_LINE: Final = 64 * 1024 * 1024
_LONGEST_PATH: Final = 100  # Bytes; the system allows 107.
_ANSWER_WITHIN: Final = 10.0
_SESSION_WITHIN: Final = 8.0
_NEEDED: Final = 120.0  # Seconds for which a session that was opened for a question stays.
_FRESH_WITHIN: Final = 25.0  # Our goodbye, the next connection, its LOGIN and the pause after it.
_FAILS: Final = 2  # Connections that may fail before there is none to be had.
_KAFKA_AWAY: Final = 3.0  # Real seconds without an acknowledgement after which Kafka is said to take nothing.
_PROGRESS_EVERY: Final = 0.25
_PROGRESS_AT_LEAST: Final = 5.0  # Also while Kiwoom answers nobody, or another day's turn comes first.
_LENT: Final = 240.0  # Seconds after which a fresh session is taken back, whoever has it.


class NotRunning(HitstreamError):
    """No producer of this app key answers on this machine."""


class NotAllowed(HitstreamError):
    """The request would harm the running session."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the producer says of itself.

    `states`: condition → (state, cause). `members`: condition → who is known to be in it. `asking`: whether there is a
    session that takes requests. `speed`: of the clock that stamps its frames. `spooled`: records that wait on the disk
    for Kafka; `unacknowledged`: real seconds for which it has acknowledged nothing of what waits.
    """

    pid: int
    account: str
    producer: str
    session: tuple[str, str]
    asking: bool
    states: dict[str, tuple[str, str]] = {}
    members: dict[str, tuple[str, ...]] = {}
    statuses: tuple[Status, ...] = ()
    speed: float = 1.0
    spooled: int = 0
    unacknowledged: float = 0.0

    @property
    def stranded(self) -> int:
        """Records that wait on the disk for a Kafka that takes none; 0 while it takes some."""
        return self.spooled if self.unacknowledged > _KAFKA_AWAY else 0


class Loan(Protocol):
    """Who can end the session in good order and open one on which nothing is registered: `Client`."""

    @property
    def lent(self) -> bool:
        """Whether it is there."""

    def lend(self) -> None:
        """Do it."""

    def take_back(self) -> None:
        """Go back to the session as it was."""


def _told(view: View) -> str:
    state, cause = view.session
    return f"the session is {state}" + (f": {cause}" if cause else "")


class Switchboard:
    """The running session, for others: what went by on it, and who listens.

    Args:
        ask: sends somebody else's request among the session's own (`Client.ask`).
        need: has a session kept or opened for so many real seconds, also while it would rest.
        view: what the producer says of itself now.

    Attributes:
        loan: lends and takes back a session on which nothing is registered (`Client`); None: that can't be had.
        bars: fetches bars; None: this producer fetches none.
    """

    def __init__(
        self, *, ask: Callable[[str], None], view: Callable[[], View], need: Callable[[float], None] = lambda _: None
    ) -> None:
        self._ask = ask
        self._need = need
        self.loan: Loan | None = None
        self.bars: Bars | None = None
        self._is_lent = False
        self._losses = 0
        self._view = view
        self._connection = ""
        self._number = 0
        self._frames: deque[tuple[int, Frame]] = deque(maxlen=_KEPT_FRAMES)
        self._beats: deque[tuple[int, Frame]] = deque(maxlen=_KEPT_BEATS)
        self._taps: set[Tap] = set()
        self._names: dict[str, str] = {}

    def on_frame(self, frame: Frame) -> None:
        """A frame went by, masked."""
        if frame.connection != self._connection:
            self._end("the session was made anew")
            self._connection = frame.connection
            self._frames.clear()
            self._beats.clear()
        self._number += 1
        beat = frame.text.startswith(('{"trnm":"PING"', '{"trnm":"REAL"', '{"data":'))
        (self._beats if beat else self._frames).append((self._number, frame))
        if not beat and frame.direction == "in" and '"CNSRLST"' in frame.text:
            reply = frames.decode(frame.text)
            if isinstance(reply, frames.ListReply) and reply.code == 0:
                self._names = dict(reply.conditions)
        for tap in self._taps:
            tap.heard.add(frame)

    def lost(self, cause: str) -> None:
        """The connection is gone, or there is none to be had: whoever listens is told."""
        self._losses += 1
        self._end(cause)

    def _end(self, cause: str) -> None:
        self._names = {}
        for tap in self._taps:
            tap.heard.end(cause)

    @property
    def history(self) -> tuple[Frame, ...]:
        """The frames of the present connection: all requests and replies, and the last PINGs and entries."""
        return tuple(frame for _, frame in sorted((*self._frames, *self._beats), key=lambda item: item[0]))

    @property
    def view(self) -> View:
        """What the producer says of itself now."""
        return self._view()

    async def there(self, within: float) -> None:
        """Wait until there is a session that takes requests; one that rests is opened.

        Raises:
            Unreachable: there was none in time; the sentence says why not.
        """
        self._need(within + _NEEDED)
        try:
            async with asyncio.timeout(within):
                while not (self.view.asking and self._names):  # noqa: ASYNC110 – the view is asked, it does not tell
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise Unreachable(_told(self.view)) from None

    @asynccontextmanager
    async def fresh(self, *, anyway: bool, within: float = _FRESH_WITHIN) -> AsyncIterator[Tap]:
        """A session on which nothing is registered, in the place of ours, which comes back at the end.

        Args:
            anyway: also while a condition is live; what happens meanwhile is then missed.

        Raises:
            NotLent: somebody has one already, something is live, or this producer lends none.
            Unreachable: there was none in time; the sentence says why not.
        """
        loan = self.loan
        if loan is None or self._is_lent:
            raise NotLent("another diagnosis has the session" if self._is_lent else "this producer lends no session")
        live = sorted(name for name, (state, _) in self.view.states.items() if state == "live")
        if live and not anyway:
            raise NotLent(f"{', '.join(live)} would be interrupted")
        self._is_lent = True
        loan.lend()
        try:
            losses = self._losses
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    while not loan.lent and self._losses < losses + _FAILS:  # noqa: ASYNC110 – it is asked, as the view
                        await asyncio.sleep(0.05)
            if not loan.lent:
                raise Unreachable(_told(self.view))
            with self.tap() as tap:
                yield tap
        finally:
            self._is_lent = False
            loan.take_back()

    @contextmanager
    def tap(self) -> Iterator[Tap]:
        """Listen to the session and ask it."""
        tap = Tap(self, self.history)
        self._taps.add(tap)
        try:
            yield tap
        finally:
            self._taps.discard(tap)

    def send(self, text: str) -> None:
        """Send somebody's request.

        Raises:
            NotAllowed: it is none of those that may be sent, or would end what is live.
            Unreachable: there is no session at the moment.
        """
        asked = frames.request(text)
        if asked.trnm not in _ALLOWED:
            raise NotAllowed(f"{asked.trnm or 'this'} cannot be sent over the producer's session")
        name = self._names.get(asked.seq.strip(), "")
        if asked.trnm == "CNSRCLR" and self.view.states.get(name, ("", ""))[0] == "live":
            raise NotAllowed(f"{name} is live: it is not cleared for a question")
        self._ask(text)


class Tap:
    """The running session as a `Line`, from inside the producer."""

    borrowed = True

    def __init__(self, board: Switchboard, history: tuple[Frame, ...]) -> None:
        self._board = board
        self.history = history
        self.heard = Heard()

    @property
    def name(self) -> str:
        """The connection's name."""
        return self.history[-1].connection if self.history else ""

    @property
    def ended(self) -> str:
        """Why the connection is gone; empty while it is there."""
        return self.heard.ended

    @property
    def members(self) -> Mapping[str, Collection[str]]:
        """Who is in each condition."""
        return self._board.view.members

    async def send(self, text: str) -> None:
        """Queue a request among the session's own."""
        self._board.send(text)

    async def hear(self, within: float) -> Frame | None:
        """The next frame of the session."""
        return await self.heard.hear(within)


# --- the socket -------------------------------------------------------------------------------------------------------


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a producer answers."""

    socket: str
    pid: int


@asynccontextmanager
async def serving(board: Switchboard, folder: Path, key: str) -> AsyncIterator[None]:
    """Answer on the control port for the duration of the context.

    Args:
        folder: the folder that all processes of the app key share.
        key: short name of the app key.
    """
    path, own, listener = _listener(folder, key)
    handlers: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await _answer(board, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError, TimeoutError, asyncio.CancelledError):
            pass  # The client is gone, or speaks something else; or we are, and nobody awaits this task but ourselves.
        finally:
            handlers.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(handle, sock=listener, limit=_LONGEST_LINE)
    address = folder / f"control-{key}.json"
    address.write_bytes(msgspec.json.encode(Address(socket=str(path), pid=os.getpid())))
    try:
        yield
    finally:
        address.unlink(missing_ok=True)
        server.close()
        for task in handlers:
            task.cancel()
        if handlers:
            await asyncio.wait(set(handlers), timeout=1.0)
        path.unlink(missing_ok=True)
        if own is not None:
            own.rmdir()


def _listener(folder: Path, key: str) -> tuple[Path, Path | None, socket.socket]:
    """The bound socket and its path; a folder of its own where the path would be longer than the system allows."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = (folder / f"control-{key}.sock").absolute()
    own: Path | None = None
    if len(os.fsencode(path)) > _LONGEST_PATH:
        own = Path(tempfile.mkdtemp(prefix="hitstream-"))
        path = own / "control.sock"
    return path, own, _bind(path)


def _bind(path: Path) -> socket.socket:
    """A socket that only its owner can open from its first moment on."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


class _Said(msgspec.Struct):
    """A line from a client."""

    ask: str = ""
    send: str = ""
    anyway: bool = False
    day: date | None = None
    again: bool = False


async def _answer(board: Switchboard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        try:
            said = msgspec.json.decode(line, type=_Said)
        except msgspec.MsgspecError:
            await _write(writer, {"error": "one JSON object a line: ask or send"})
            continue
        match said.ask:
            case "status":
                await _write(writer, {"view": board.view})
            case "attach":
                with suppress(Unreachable):  # The view then says that there is no session, and why.
                    await board.there(_SESSION_WITHIN)
                with board.tap() as tap:
                    await _attached(board, tap, reader, writer)
                return
            case "fresh":
                try:
                    async with asyncio.timeout(_LENT), board.fresh(anyway=said.anyway) as tap:
                        await _attached(board, tap, reader, writer)
                except HitstreamError as error:
                    await _write(writer, {"error": str(error), "kept": isinstance(error, NotLent)})
                except TimeoutError:
                    await _write(writer, {"ended": f"a fresh connection is lent for {_LENT:g} s at most"})
                return
            case "bars":
                try:
                    await _fetched(board, said, writer)
                except HitstreamError as error:
                    await _write(writer, {"error": str(error)})
            case _:
                await _write(writer, {"error": "there are status, attach, fresh and bars"})


async def _fetched(board: Switchboard, said: _Said, writer: asyncio.StreamWriter) -> None:
    if board.bars is None:
        raise NotAllowed("this producer fetches no bars")
    run = board.bars.ask(said.day, again=said.again)
    told: Progress | None = None
    told_at = 0.0
    loop = asyncio.get_running_loop()
    while not run.over.is_set():
        if run.progress != told or loop.time() - told_at > _PROGRESS_AT_LEAST:
            told, told_at = run.progress, loop.time()
            await _write(writer, {"progress": told})
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROGRESS_EVERY):
                await run.over.wait()
    await _write(writer, {"progress": run.progress, "over": True})


async def _attached(board: Switchboard, tap: Tap, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for frame in tap.history:
        await _write(writer, {"frame": frame})
    await _write(writer, {"view": board.view})
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell(tap, writer))
        while line := await reader.readline():
            try:
                board.send(msgspec.json.decode(line, type=_Said).send)
            except (HitstreamError, msgspec.MsgspecError) as error:
                await _write(writer, {"error": str(error)})
            else:
                await _write(writer, {"sent": True})
        telling.cancel()


async def _tell(tap: Tap, writer: asyncio.StreamWriter) -> None:
    while not tap.ended:
        if (frame := await tap.hear(60.0)) is not None:
            await _write(writer, {"frame": frame})
    await _write(writer, {"ended": tap.ended})


async def _write(writer: asyncio.StreamWriter, said: Mapping[str, Any]) -> None:
    writer.write(msgspec.json.encode(said) + b"\n")
    async with asyncio.timeout(_ANSWER_WITHIN):
        await writer.drain()


# --- the other side ---------------------------------------------------------------------------------------------------


class _Heard(msgspec.Struct):
    """A line from the producer."""

    frame: Frame | None = None
    view: View | None = None
    ended: str = ""
    error: str = ""
    kept: bool = False
    sent: bool = False
    progress: Progress | None = None
    over: bool = False


class Attached:
    """The running producer's session as a `Line`, from another process."""

    borrowed = True

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, view: View, history: tuple[Frame, ...]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = Heard()
        self._answers: asyncio.Queue[str] = asyncio.Queue(100)
        self.view = view
        self.history = history

    @property
    def name(self) -> str:
        """The connection's name."""
        return self.history[-1].connection if self.history else ""

    @property
    def ended(self) -> str:
        """Why the connection is gone; empty while it is there."""
        return self._heard.ended

    @property
    def members(self) -> Mapping[str, Collection[str]]:
        """Who was in each condition when we came."""
        return self.view.members

    async def send(self, text: str) -> None:
        """Have the producer send a request.

        Raises:
            Unreachable: it has no session at the moment, or is gone.
            NotAllowed: it refuses.
        """
        try:
            await _write(self._writer, {"send": text})
            async with asyncio.timeout(_ANSWER_WITHIN):
                error = await self._answers.get()
        except (ConnectionError, TimeoutError):
            raise Unreachable("the running producer does not answer on its control port") from None
        if error:
            raise (NotAllowed if "cannot be sent" in error or "is live" in error else Unreachable)(error)

    async def hear(self, within: float) -> Frame | None:
        """The next frame of the session."""
        return await self._heard.hear(within)

    async def listen(self) -> None:
        """Take in what the producer says, until it ends."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while line := await self._reader.readline():
                said = msgspec.json.decode(line, type=_Heard)
                if said.frame is not None:
                    self._heard.add(said.frame)
                elif said.ended:
                    self._heard.end(said.ended)
                elif said.sent or said.error:
                    with suppress(asyncio.QueueFull):
                        self._answers.put_nowait(said.error)
        self._heard.end("the running producer has stopped")


async def look(folder: Path, key: str) -> View:
    """What the running producer says of itself.

    Raises:
        NotRunning: none answers.
    """
    reader, writer = await _open(folder, key)
    try:
        await _write(writer, {"ask": "status"})
        said = await _read(reader)
    finally:
        writer.close()
    if said.view is None:
        raise NotRunning(f"the control port gave no view: {said.error}")
    return said.view


async def bars(folder: Path, key: str, day: date | None, *, again: bool, tell: Callable[[Progress], None]) -> Progress:
    """Have the running producer fetch a day's bars, and wait until they are there.

    Args:
        day: None is the last that has any.
        again: also those that are there already.
        tell: is given how far it is, now and then.

    Raises:
        NotRunning: no producer answers.
        HitstreamError: it fetches none of that day; the sentence says why not.
    """
    reader, writer = await _open(folder, key)
    try:
        await _write(writer, {"ask": "bars", "day": day, "again": again})
        while True:
            said = await _read(reader, _ANSWER_WITHIN + _PROGRESS_AT_LEAST)
            if said.progress is None:
                raise HitstreamError(said.error)
            tell(said.progress)
            if said.over:
                return said.progress
    finally:
        writer.close()


@asynccontextmanager
async def attach(folder: Path, key: str, *, fresh: Literal["", "free", "anyway"] = "") -> AsyncIterator[Attached]:
    """The running producer's session.

    Args:
        fresh: instead of it one on which nothing is registered, for as long as the context: `free` only if nothing is
            live, `anyway` in any case.

    Raises:
        NotRunning: none answers.
        NotLent: it gives no fresh one.
        Unreachable: it could open no fresh one; the sentence says why not.
    """
    reader, writer = await _open(folder, key)
    try:
        await _write(writer, {"ask": "fresh" if fresh else "attach", "anyway": fresh == "anyway"})
        history: list[Frame] = []
        view: View | None = None
        while view is None:
            said = await _read(reader, _ANSWER_WITHIN + (_FRESH_WITHIN if fresh else _SESSION_WITHIN))
            if said.error:
                raise (NotLent if said.kept else Unreachable)(said.error)
            view = said.view
            if said.frame is not None:
                history.append(said.frame)
        attached = Attached(reader, writer, view, tuple(history))
        listening = asyncio.create_task(attached.listen(), name="control")
        try:
            yield attached
        finally:
            listening.cancel()
            await asyncio.wait((listening,))
    finally:
        writer.close()


async def _open(folder: Path, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        address = msgspec.json.decode((folder / f"control-{key}.json").read_bytes(), type=Address)
        async with asyncio.timeout(_ANSWER_WITHIN):
            return await asyncio.open_unix_connection(address.socket, limit=_LONGEST_LINE)
    except (OSError, msgspec.MsgspecError, TimeoutError):
        raise NotRunning("no producer of this app key runs on this machine: start `hitstream produce`") from None


async def _read(reader: asyncio.StreamReader, within: float = _ANSWER_WITHIN) -> _Heard:
    try:
        async with asyncio.timeout(within):
            line = await reader.readline()
        return msgspec.json.decode(line, type=_Heard)
    except (TimeoutError, ConnectionError, ValueError, msgspec.MsgspecError):
        raise NotRunning("the running producer does not answer on its control port") from None
