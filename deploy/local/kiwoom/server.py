"""The local Kiwoom's shell: one port for REST and WebSocket, the clock that drives the market, the ledger's file.

All decisions are made elsewhere (`exchange`, `protocol`, `rest`); here are sockets, timers and the order in which
things reach the wire. Each connection has one bounded queue of frames to send: a client that does not read is cut off,
as by a broker, and holds up nobody.

Beside Kiwoom's own paths there is `/local/…` (see `control`), for tests and for the curious.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvicorn

from deploy.clock import Clock
from deploy.ports import PortTaken

from . import control
from .exchange import Exchange, Happening, Hours, Ledger
from .faults import NONE, Faults, UnknownFault
from .plants import Plant
from .protocol import Close, LoggedIn, Output, Rules, Send, SendBytes, Session
from .recorded import RecordedSession, Tape
from .rest import Limits, Reply, Rest, Tokens

WEBSOCKET_PATH: Final = "/api/dostk/websocket"
LARGEST_BODY: Final = 1 << 20
STEP: Final = 0.02
"""Least real seconds between two steps of the market: what happens within is told in one frame."""

LONGEST_SLEEP: Final = 30.0
"""Most real seconds between two looks at the clock, for a machine that was suspended."""

BACKLOG: Final = 20_000
"""Frames that may wait for a client before it is cut off."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
SendMessage = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = structlog.get_logger(__name__)


async def serve(
    *,
    host: str,
    port: int,
    seed: int,
    clock: Clock,
    state_dir: Path | None,
    hours: Hours = "always",
    ping_interval: float = 10.0,
    activity: float = 1.0,
    ready: Callable[[str | None], None],
    app_key: str = "local-app-key",
    secret_key: str = "local-secret-key",  # noqa: S107 – known to all, opens nothing but the simulated market
    rules: Rules | None = None,
    limits: Limits | None = None,
    faults: Faults = NONE,
    tape: Tape | None = None,
    plants: tuple[Plant, ...] = (),
    neutral: bool = False,
) -> None:
    """Run a simulated Kiwoom until cancelled: REST at `http://host:port`, WebSocket at `/api/dostk/websocket`.

    Args:
        host, port: where to listen.
        seed: of the simulated world; the same seed, date and time of start give the same day.
        clock: market time.
        state_dir: folder that remembers the day, so that a restart goes on with it; None forgets.
        hours: `always` open, or `market` for 09:00–15:30 KST on weekdays.
        ping_interval: real seconds between two PINGs.
        activity: multiplies trades and hits; 0 is a silent market.
        ready: told None once the server answers, and why not before.
        app_key, secret_key: the account's; `<app_key>-…` are further keys of it.
        rules, limits: other limits than Kiwoom's, for tests.
        faults: what goes wrong from the beginning.
        tape: a recorded day that is played over the WebSocket instead; the market then stands still.
        plants: what follows the hits of which condition.
        neutral: nothing else moves prices, and conditions hold stocks at random.

    Raises:
        PortTaken: the port is in use.
    """
    listener = _bind(host, port)
    try:
        ready("the simulated market is catching up with its day")
        store = _Store(state_dir if tape is None else None)
        exchange = Exchange(
            seed=seed,
            hours=hours,
            activity=activity if tape is None else 0.0,
            now=clock.now(),
            start=clock.start,
            ledger=store.load(),
            plants=plants,
            neutral=neutral,
        )
        _log.info("market begins", date=str(exchange.ledger.date), seed=seed, hours=hours, resumed=exchange.resumed)
        server = _Server(
            exchange,
            clock=clock,
            store=store,
            tokens=Tokens(app_key, secret_key),
            rules=(rules or Rules())._replace(ping_interval=ping_interval),
            limits=limits or Limits(),
            tape=tape,
            app_key=app_key,
        )
        server.set_faults(faults)
        await server.catch_up()
        async with _listening(server.app, listener):
            _log.info(
                "local Kiwoom answers", rest=f"http://{host}:{port}", websocket=f"ws://{host}:{port}{WEBSOCKET_PATH}"
            )
            ready(None)
            try:
                await server.run()
            finally:
                await server.leave()
    finally:
        listener.close()


class _Connection:
    """A session and its queue of frames to send; a None in the queue only wakes the sender."""

    def __init__(self, session: Session | RecordedSession) -> None:
        self.session = session
        self.queue: asyncio.Queue[Output | None] = asyncio.Queue(BACKLOG)
        self.cut_off: Callable[[], object] = lambda: None

    def offer(self, outputs: list[Output]) -> None:
        for output in outputs:
            if self.queue.full():
                _log.warning("client does not read and is cut off", session=self.session.name)
                self.session.closed = True
                self.cut_off()
                return
            self.queue.put_nowait(output)

    def wake(self) -> None:
        if self.queue.empty():
            self.queue.put_nowait(None)


class _Server:
    """The ASGI application, the market's loop, and the sessions that live on both."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        clock: Clock,
        store: _Store,
        tokens: Tokens,
        rules: Rules,
        limits: Limits,
        tape: Tape | None,
        app_key: str,
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._store = store
        self._tokens = tokens
        self._rules = rules
        self._rest = Rest(exchange, tokens, limits)
        self._tape = tape
        self._app_key = app_key
        self._faults: Faults = NONE
        self._connections: list[_Connection] = []
        self._owners: dict[str, _Connection] = {}
        self._opened = 0
        self._nudge = asyncio.Event()
        self._switched = asyncio.Event()
        self._empty = asyncio.Event()

    def set_faults(self, faults: Faults) -> None:
        """What goes wrong from now on, for every session there is and will be."""
        self._faults = self._rest.faults = faults
        self._switched.set()
        self._switched = asyncio.Event()
        for connection in self._connections:
            connection.session.faults = faults
            connection.wake()

    # --- the market

    async def catch_up(self) -> None:
        """Simulate from the day's beginning to now, before anybody listens."""
        now = self._clock.now()  # once: a clock that runs on is never reached
        while not self._exchange.caught_up(now):
            self._exchange.advance(now)
            await asyncio.sleep(0)
        self._store.save(self._exchange.ledger)

    async def run(self) -> None:
        """Drive the market by the clock, for ever."""
        while True:
            now = self._clock.now()
            while not self._exchange.caught_up(now):
                self._publish(self._exchange.advance(now))
                await asyncio.sleep(0)
            self._store.save(self._exchange.ledger)
            rest = (self._exchange.next_event(now) - now).total_seconds() / self._clock.speed
            self._nudge.clear()
            await asyncio.sleep(STEP)
            if rest > STEP:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudge.wait(), min(rest - STEP, LONGEST_SLEEP))

    def _step(self) -> None:
        """Let everything happen that is due, and tell the sessions."""
        now = self._clock.now()
        while not self._exchange.caught_up(now):
            self._publish(self._exchange.advance(now))
        self._store.save(self._exchange.ledger)

    def _publish(self, happened: list[Happening]) -> None:
        for connection in self._connections:
            connection.offer(connection.session.publish(happened))

    async def leave(self) -> None:
        """Take leave of every session, and give them a moment to read it."""
        for connection in self._connections:
            connection.offer(connection.session.leave())
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), 1.0)

    # --- the wire

    async def app(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        """The ASGI application."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        await receive()  # websocket.connect
        if scope["path"] != WEBSOCKET_PATH:
            await send({"type": "websocket.close", "code": 1008})
            return
        while self._faults.on("hang-connection"):
            await self._switched.wait()
        if self._faults.on("refuse-connection"):
            await send({"type": "websocket.close", "code": 1008})
            return
        loop = asyncio.get_running_loop()
        self._opened += 1
        session = self._session(loop.time())
        connection = _Connection(session)
        await send({"type": "websocket.accept"})
        self._connections.append(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(connection, receive))
                writer = tasks.create_task(self._write(connection, send))
                connection.cut_off = writer.cancel
                await asyncio.wait((writer,))
                reader.cancel()
        finally:
            session.closed = True
            self._connections.remove(connection)
            if not self._connections:
                self._empty.set()
            if session.app_key is not None and self._owners.get(session.app_key) is connection:
                del self._owners[session.app_key]

    def _session(self, now: float) -> Session | RecordedSession:
        if self._tape is not None:
            return RecordedSession(f"{self._opened}", now=now, tape=self._tape, app_key=self._app_key)
        return Session(
            f"{self._opened}",
            now=now,
            exchange=self._exchange,
            app_key_of=lambda token: self._tokens.app_key_of(token, self._latest()),
            rules=self._rules,
            faults=self._faults,
        )

    async def _read(self, connection: _Connection, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                connection.session.closed = True
                connection.offer([Close(None, "")])
                return
            text = message.get("text")
            if text is None:
                text = (message.get("bytes") or b"").decode(errors="replace")
            self._step()  # whatever happened before the request is not part of its answer
            for output in connection.session.receive(text, loop.time()):
                if isinstance(output, LoggedIn):
                    self._own(output.app_key, connection)
                else:
                    connection.offer([output])
            connection.wake()

    def _own(self, app_key: str, connection: _Connection) -> None:
        before = self._owners.get(app_key)
        self._owners[app_key] = connection
        if before is not None and before is not connection:
            before.offer(before.session.displace())

    async def _write(self, connection: _Connection, send: SendMessage) -> None:
        """Send what is queued, and keep the session's time, until it closes."""
        loop = asyncio.get_running_loop()
        session = connection.session
        while True:
            try:
                async with asyncio.timeout_at(None if session.closed else session.due):
                    output = await connection.queue.get()
            except TimeoutError:
                connection.offer(session.tick(loop.time()))
                continue
            try:
                if isinstance(output, Send):
                    await send({"type": "websocket.send", "text": output.text})
                elif isinstance(output, SendBytes):
                    await send({"type": "websocket.send", "bytes": output.content})
                elif isinstance(output, Close):
                    if output.code is not None:
                        await send({"type": "websocket.close", "code": output.code, "reason": output.reason})
                    return
            except OSError:  # the client is gone
                return

    # --- REST and the control surface

    async def _http(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > LARGEST_BODY:
                break
        while self._faults.on("hang-rest") and not scope["path"].startswith("/local/"):
            await self._switched.wait()
        reply = self._answer(scope, body)
        if isinstance(reply.body, str):
            content, kind = reply.body.encode(), b"text/html;charset=UTF-8"
        else:
            content, kind = msgspec.json.encode(reply.body), b"application/json;charset=UTF-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Scope, body: bytes) -> Reply:
        path, method = scope["path"], scope["method"]
        if len(body) > LARGEST_BODY:
            return Reply({"error": "The body is too large."}, 413)
        if path.startswith("/local/"):
            return self._control(method, path.removeprefix("/local/"), scope["query_string"].decode(), body)
        if method != "POST" or not path.startswith(("/oauth2/", "/api/dostk/")):
            return Reply({"error": f"There is nothing at {method} {path}."}, 404)
        self._step()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        real = asyncio.get_running_loop().time()
        return self._rest.answer(path, headers, body, real=real, latest=self._latest())

    def _latest(self) -> datetime:
        return max(self._clock.now(), datetime.now(UTC))

    def _control(self, method: str, name: str, query: str, body: bytes) -> Reply:
        actions: dict[tuple[str, str], Callable[[], Reply]] = {
            ("GET", "truth"): lambda: control.truth(self._exchange.day, query),
            ("GET", "state"): lambda: control.state(
                self._exchange, self._clock, self._faults, [connection.session for connection in self._connections]
            ),
            ("GET", "faults"): lambda: control.faults(self._faults),
            ("POST", "faults"): lambda: self._switch_fault(body),
            ("POST", "pause"): lambda: self._pause(True),
            ("POST", "resume"): lambda: self._pause(False),
        }
        action = actions.get((method, name))
        if action is None:
            known = ", ".join(f"{verb} /local/{known}" for verb, known in actions)
            return Reply({"error": f"There is nothing at {method} /local/{name}; there are {known}."}, 404)
        self._step()
        return action()

    def _pause(self, pause: bool) -> Reply:
        now = self._clock.now()
        (self._exchange.pause if pause else self._exchange.resume)(now)
        self._store.save(self._exchange.ledger)
        self._nudge.set()
        return Reply({"paused": self._exchange.paused})

    def _switch_fault(self, body: bytes) -> Reply:
        try:
            wanted = control.fault_wanted(body)
        except UnknownFault as error:
            return Reply({"error": str(error)}, 400)
        if isinstance(wanted, tuple):
            name, seqs = wanted
            if name == "token-expired":
                self._tokens.expire()
            for connection in self._connections:
                connection.offer(connection.session.befall(name, seqs))
        else:
            self.set_faults(wanted(self._faults))
        return Reply({"in_force": self._faults.listed()})


class _Store:
    """The ledger's file, replaced as a whole and only when the ledger has changed."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / "market.json" if folder is not None else None
        self._saved: Ledger | None = None

    def load(self) -> Ledger | None:
        if self._path is None or not self._path.exists():
            return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Ledger)
        except msgspec.MsgspecError as error:
            _log.warning("the market's file is not readable and is ignored", path=str(self._path), error=str(error))
            return None

    def save(self, ledger: Ledger) -> None:
        if self._path is None or ledger is self._saved:
            return
        self._saved = ledger
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(ledger))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"The local Kiwoom cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): stop the program that "
            "uses this port, or give another one with --port."
        ) from error
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def _listening(
    app: Callable[[Scope, Receive, SendMessage], Awaitable[None]], listener: socket.socket
) -> AsyncIterator[None]:
    """Serve an ASGI application on a bound socket for the duration of the context.

    `uvicorn.Server.serve` would take over the command's signals and poll ten times a second; its two halves do not.
    """
    config = uvicorn.Config(
        app,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        ws_ping_interval=None,
        ws_max_size=16 << 20,
        ws_per_message_deflate=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield
    finally:
        await server.shutdown(sockets=[listener])
