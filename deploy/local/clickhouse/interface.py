"""ClickHouse's HTTP interface as an ASGI application over an `Engine`.

A request is a statement with its settings, parameters and data, wherever HTTP has put them: `query=`, the body, both,
a form, headers. The answer is the result in the format asked for, or `Code: N. DB::Exception: …` with the status that
ClickHouse gives it. Facts are ClickHouse's own (HTTPHandler, exceptionCodeToHTTPStatus) unless a comment says why not.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import inspect
import ipaddress
import json
import secrets
import tempfile
import time
import urllib.parse
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, Final

import structlog

from . import compression, native
from .compression import BadBody
from .engine import PIECE, Engine, Handle, Refusal, Tally
from .sessions import Sessions
from .statement import Statement, by_client_id, parse

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# As much of a request as is looked at to tell a statement from its data (ClickHouse: max_query_size).
_HEAD: Final = 256 << 10
# The longest statement, and the most data that go with one in memory (forms, INSERT … SELECT FROM input()).
_LONGEST: Final = 256 << 20
_SPOOL_IN_MEMORY: Final = 8 << 20
# The most progress headers of one answer: many clients take no more than 16 KiB of headers.
_PROGRESS_HEADERS: Final = 32

_NAMES_OF_HTTP: Final = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "query_id",
        "initial_query_id",
        "stacktrace",
        "compress",
        "decompress",
        "wait_end_of_query",
        "buffer_size",
        "client_protocol_version",
        "role",
        "log_comment",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "readonly",
        "cancel_http_readonly_queries_on_client_close",
        "add_http_cors_header",
    }
)

# The client's query id of what runs, as the engine knows it: within the mark.
_CLIENT_ID: Final = b"extract(Settings['log_comment'], '^hitstream (.*) [0-9a-f]{8}$')"

_STATUS: Final = (
    {194: 401, 307: 413, 48: 501, 209: 503, 76: 503, 439: 503, 381: 411, 159: 408}
    | dict.fromkeys((192, 193, 516, 512, 497), 403)
    | dict.fromkeys(
        (36, 427, 6, 25, 26, 38, 41, 72, 649, 675, 676, 27, 376, 15, 44, 8, 183, 184, 167, 168, 172, 62, 117, 53, 321),
        400,
    )
    | dict.fromkeys((60, 46, 47, 50, 56, 81, 115, 199, 63, 73, 336, 78, 511), 404)
)

_CONTENT_TYPES: Final = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONColumns": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
    "Prometheus": "text/plain; version=0.0.4; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNames": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "ORC": "application/octet-stream",
    "Avro": "application/octet-stream",
    "MsgPack": "application/octet-stream",
}


class _Gone(Exception):
    """The client has left in the middle of its request."""


@dataclass
class _Request:
    """An HTTP request with its body still to be read; names of headers are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    parameters: dict[str, str]
    receive: Receive
    query_id: str = ""
    mark: str = ""
    tally: Tally = field(default_factory=Tally)
    progress: deque[str] = field(default_factory=lambda: deque(maxlen=_PROGRESS_HEADERS))
    _ended: bool = False
    _progressed: float = 0.0

    def asked(self, parameter: str, header: str, default: str = "") -> str:
        return self.parameters.get(parameter) or self.headers.get(header) or default

    def flag(self, parameter: str, default: bool = False) -> bool:
        value = self.parameters.get(parameter)
        return default if value is None else value.lower() in ("1", "true")

    def progressed(self, figures: dict[str, int]) -> None:
        """Note how far the statement is; called on the engine's thread, many times a second."""
        now = time.monotonic()
        interval = self.parameters.get("http_headers_progress_interval_ms", "")
        if now - self._progressed >= (int(interval) if interval.isdecimal() else 100) / 1000:
            self._progressed = now
            self.progress.append(_figures(figures))

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes over the wire."""
        while not self._ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            self._ended = not message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def drain(self) -> None:
        """Read what is left, so that the client, still sending, comes to read its answer."""
        async for _ in self.pieces():
            pass


class Interface:
    """The ASGI application.

    Args:
        engine: the open engine.
        password: of the user `default`; empty means that none is asked for.
        closing: set when the server stops: running reads are given up, running inserts finish.
    """

    def __init__(self, engine: Engine, password: str, closing: asyncio.Event) -> None:
        self._engine = engine
        self._password = password
        self._closing = closing
        self._sessions = Sessions(engine)
        self._queries: set[str] = set()  # the query ids that clients have chosen, of what runs
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(
            scope["method"],
            scope["path"],
            {name.decode("latin-1").lower(): value.decode(errors="replace") for name, value in scope["headers"]},
            _parameters_of(scope["query_string"].decode("latin-1")),
            receive,
        )
        answer = _Answer(send, request, self._engine)
        self._requests += 1
        self._idle.clear()
        try:
            await self._respond(request, answer)
        except _Gone:
            log.debug("client left", query_id=request.query_id)
        except Refusal as refusal:
            await self._refuse(request, answer, refusal)
        except BadBody as bad:
            await self._refuse(request, answer, Refusal(bad.code, f"{bad} ({bad.name})"))
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def close(self) -> None:
        """Wait for the requests that run, which nobody makes any more, and end the sessions."""
        await self._idle.wait()
        await self._sessions.close()

    async def _refuse(self, request: _Request, answer: _Answer, refusal: Refusal) -> None:
        try:
            await request.drain()
        except _Gone:
            return
        await answer.refuse(refusal)

    async def _respond(self, request: _Request, answer: _Answer) -> None:
        if request.path in ("/ping", "/replicas_status") or (
            request.path == "/" and request.method in ("GET", "HEAD") and "query" not in request.parameters
        ):
            await request.drain()
            await answer.plain(200, "Ok.\n")
        elif request.path not in ("/", "/query"):
            await request.drain()
            await answer.plain(404, f"There is no handle {request.path}\n\nUse / or /ping for health checks.\n")
        elif request.method not in ("GET", "POST", "HEAD", "PUT"):
            await request.drain()
            await answer.plain(501, f"{request.method} is not supported.\n")
        else:
            self._admit(request)
            async with self._named(request):
                await self._query(request, answer)

    def _admit(self, request: _Request) -> None:
        """Check who asks.

        Without a password everything on this machine may ask, but no page of another site in a browser on it: such a
        page can reach a loopback port, and shows in the headers Origin or, after a DNS trick, Host.
        """
        user = request.headers.get("x-clickhouse-user", "")
        password = request.headers.get("x-clickhouse-key", "")
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise Refusal(516, "Invalid HTTP authorization. (AUTHENTICATION_FAILED)") from error
        user = request.parameters.get("user", user) or "default"
        password = request.parameters.get("password", password)
        if user != "default" or (
            self._password and not hmac.compare_digest(password.encode(), self._password.encode())
        ):
            raise Refusal(
                516,
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
                " (AUTHENTICATION_FAILED)",
            )
        if not self._password:
            origin = urllib.parse.urlsplit(request.headers.get("origin", "")).hostname
            host = urllib.parse.urlsplit("//" + request.headers.get("host", "localhost")).hostname
            if not _is_local(host) or ("origin" in request.headers and not _is_local(origin)):
                raise Refusal(
                    497, "A page of another site may not use a server without password; set one. (ACCESS_DENIED)"
                )

    @asynccontextmanager
    async def _named(self, request: _Request) -> AsyncIterator[None]:
        """Give the request its query id: the client's, which no other may have meanwhile, or one of its own.

        The engine gives ids of its own; by the log_comment it can be found under the client's (`by_client_id`).
        """
        request.query_id = request.parameters.get("query_id") or str(uuid.uuid4())
        if request.query_id in self._queries:
            raise Refusal(
                216,
                f"Query with id = {request.query_id} is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)",
            )
        request.mark = f"hitstream {request.query_id} {secrets.token_hex(4)}"
        self._queries.add(request.query_id)
        try:
            yield
        finally:
            self._queries.discard(request.query_id)

    async def _query(self, request: _Request, answer: _Answer) -> None:
        """Run the request's statement and give its result."""
        tables: list[tuple[str, str, str, bytes]] = []
        content_type = _content_type(request.headers.get("content-type", ""))
        if content_type.get_content_type() == "multipart/form-data":
            tables = await self._form(request, str(content_type.get_param("boundary", "")))
        body = self._body(request)
        async with aclosing(body):
            head = request.parameters.get("query", "").encode(errors="surrogateescape")
            if head and (first := await anext(body, b"")):
                # Data behind a statement begin on the next line.
                head = head.rstrip() + b"\n" + first
            async for piece in body:
                head += piece
                if len(head) >= _HEAD:
                    break
            statement = parse(head)
            if statement.kind == "insert" and statement.rows_at is not None:
                await self._insert(request, answer, statement, head[statement.rows_at :], body)
                return
            async for piece in body:
                head += piece
                if len(head) > _LONGEST:
                    raise Refusal(307, "The statement is too large. (TOO_MANY_BYTES)")
            statement = parse(head)
        _check(statement)
        work = self._read(request, answer, statement, tables)
        await (self._until_gone(request, answer, work) if statement.kind == "select" else work)

    async def _body(self, request: _Request) -> AsyncGenerator[bytes, None]:
        """The body, decompressed, in pieces of about a megabyte."""
        codec = compression.decoder(request.headers.get("content-encoding", ""))
        blocks: compression.Codec = compression.Plain()
        if request.flag("decompress"):
            trusting = request.flag("http_native_compression_disable_checksumming_on_decompress")
            blocks = compression.Blocks(check=not trusting)
        plain = isinstance(codec, compression.Plain) and isinstance(blocks, compression.Plain)
        held = bytearray()

        def feed(piece: bytes) -> bytes:
            return blocks.feed(codec.feed(piece))

        async with aclosing(request.pieces()) as pieces:
            async for piece in pieces:
                held += piece
                if len(held) >= PIECE:
                    full, held = bytes(held), bytearray()
                    if not plain:
                        full = await self._engine.call("", feed, full)
                    if full:
                        yield full
        last = feed(bytes(held)) + blocks.feed(codec.finish()) + blocks.finish()
        if last:
            yield last

    async def _form(self, request: _Request, boundary: str) -> list[tuple[str, str, str, bytes]]:
        """Take in a form: its plain fields are parameters, its files are tables that the statement may use."""
        body = bytearray()
        async for piece in self._body(request):
            body += piece
            if len(body) > _LONGEST:
                raise Refusal(307, "The form is too large. (TOO_MANY_BYTES)")
        tables = []
        for part in (b"\r\n" + bytes(body)).split(b"\r\n--" + boundary.encode())[1:-1]:
            lines, _, content = part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
            about = Message()
            for line in lines.decode(errors="replace").split("\r\n"):
                name, _, value = line.partition(":")
                about[name.strip()] = value.strip()
            field_name = str(about.get_param("name", "", "content-disposition"))
            if about.get_param("filename", None, "content-disposition") is None:
                request.parameters[field_name] = content.decode(errors="surrogateescape")
            else:
                tables.append((field_name, content))
        return [
            (
                name,
                request.parameters.pop(f"{name}_structure", "")
                or ", ".join(
                    f"_{number} {kind}"
                    for number, kind in enumerate(request.parameters.pop(f"{name}_types", "").split(","), 1)
                ),
                request.parameters.pop(f"{name}_format", "TabSeparated"),
                content,
            )
            for name, content in tables
        ]

    @asynccontextmanager
    async def _handle(self, request: _Request, statement: Statement) -> AsyncIterator[Handle]:
        """A handle prepared for the request: of its session, or of its own."""
        settings = {
            name: value
            for name, value in request.parameters.items()
            if name not in _NAMES_OF_HTTP and not name.startswith(("param_", "http_"))
        }
        readonly = request.parameters.get("readonly", "0")
        if request.method in ("GET", "HEAD") and readonly == "0":
            readonly = "2"

        def prepare(handle: Handle) -> None:
            # A session's handle would stay read-only, so there the statement is judged; others the engine holds too.
            if readonly != "0" and handle.changes(statement):
                raise Refusal(
                    164,
                    "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You"
                    " should use method POST for modifying queries. (READONLY)",
                )
            own = {"log_comment": request.mark}
            if readonly != "0" and not handle.lasting:
                own["readonly"] = readonly
            handle.prepare({**settings, **own}, request.asked("database", "x-clickhouse-database"))

        async with self._sessions.use(
            request.parameters.get("session_id", ""),
            prepare,
            lasts=request.parameters.get("session_timeout", ""),
            must_exist=request.flag("session_check"),
            end=request.flag("close_session"),
        ) as handle:
            yield handle

    async def _insert(
        self, request: _Request, answer: _Answer, statement: Statement, first: bytes, body: AsyncIterator[bytes]
    ) -> None:
        """Put rows into a table: acknowledged when they are in it, and none are if their client leaves before the end.

        The engine's inserts know no input(): its rows go to a temporary table first, which then stands in its place.
        """
        _check(statement)
        parameters = _parameters(request)
        call = self._engine.call
        path = self._engine.scratch / f"rows-{uuid.uuid4()}"
        async with self._handle(request, statement) as handle:
            try:
                file = await call("", path.open, "wb")
                try:
                    await call("", file.write, first)
                    async for piece in body:
                        await call("", file.write, piece)
                finally:
                    await call("", file.close)
                if statement.input is None:
                    await call("", handle.insert, statement, path, parameters, request.tally)
                else:
                    await self._insert_through(handle, statement, path, parameters, request.tally)
            except OSError as error:
                raise Refusal(
                    243, f"Cannot keep the rows of an insert: {error.strerror}. (NOT_ENOUGH_SPACE)"
                ) from error
            finally:
                await call("", path.unlink, missing_ok=True)
        await answer.result("", iter(()), compress=False)
        await answer.end()

    async def _insert_through(
        self, handle: Handle, statement: Statement, rows: Path, parameters: dict[str, str], tally: Tally
    ) -> None:
        """INSERT INTO … SELECT … FROM input('…'): by way of a temporary table."""
        assert statement.input is not None
        call = self._engine.call
        structure, start, end = statement.input
        table = f"input_{secrets.token_hex(8)}"
        await call("", handle.make_table, table, structure)
        try:
            into = Statement("insert", f"INSERT INTO {table}".encode(), statement.format)
            await call("", handle.insert, into, rows, {}, Tally())
            select = Statement("insert", statement.text[:start] + table.encode() + statement.text[end:])
            await call("", list, handle.read(select, "Null", parameters, tally))
        finally:
            await call("", handle.drop_table, table)

    async def _read(
        self,
        request: _Request,
        answer: _Answer,
        statement: Statement,
        tables: list[tuple[str, str, str, bytes]],
    ) -> None:
        """Run a statement and send its result."""
        if request.flag("compress"):
            answer.frame(request.parameters.get("network_compression_method", "LZ4"))
        async with self._handle(request, statement) as handle:
            call = self._engine.call
            for table in tables:
                await call("", handle.table, *table)
            output = request.asked("default_format", "x-clickhouse-format", "TabSeparated")
            if request.flag("send_progress_in_http_headers"):
                await call("", handle.watch, request.progressed)
            result = handle.read(by_client_id(statement, _CLIENT_ID), output, _parameters(request), request.tally)
            newer = request.parameters.get("client_protocol_version", "")
            pieces: Iterator[bytes] = result
            if (statement.format or output) == "Native" and newer.isdecimal() and int(newer) >= native.REVISION:
                pieces = _in_newer_layout(result)
            try:
                await answer.result(
                    statement.format or output,
                    pieces,
                    compress=request.flag("enable_http_compression", self._engine.compresses),
                    whole=request.flag("wait_end_of_query"),
                    finish=lambda: handle.settled(statement),
                )
            finally:
                if inspect.getgeneratorstate(result) != inspect.GEN_CLOSED:
                    await call("", result.close)
                if handle.lasting and request.flag("send_progress_in_http_headers"):
                    await call("", handle.watch, None)
        await answer.end()

    async def _until_gone(self, request: _Request, answer: _Answer, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, but give it up when the client leaves or the server stops."""
        refused: Refusal | None = None

        async def attempt() -> None:
            nonlocal refused
            try:
                await work
            except Refusal as refusal:
                refused = refusal

        async def watch(task: asyncio.Task[None]) -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            if not answer.ended:
                task.cancel()

        async def stop(task: asyncio.Task[None]) -> None:
            await self._closing.wait()
            task.cancel()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(attempt())
            watchers = [group.create_task(watch(task)), group.create_task(stop(task))]
            await asyncio.wait([task])
            for watcher in watchers:
                watcher.cancel()
        if refused is not None:
            raise refused
        if task.cancelled():
            if self._closing.is_set():
                raise Refusal(236, "The server is stopping. (ABORTED)")
            raise _Gone


class _Answer:
    """The one answer to a request: headers once, then a body, or what went wrong.

    Attributes:
        ended: everything has been handed to the server.
    """

    def __init__(self, send: Send, request: _Request, engine: Engine) -> None:
        self._send = send
        self._request = request
        self._engine = engine
        self._tag = secrets.token_hex(8)
        self._codec: compression.Codec = compression.Plain()
        self._method = ""
        self._headers: list[tuple[str, str]] = []
        self._output = ""
        self._spool: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._last = b""
        self._started = False
        self.ended = False

    def frame(self, method: str) -> None:
        """Put what follows, a refusal too, into ClickHouse's own blocks (`compress=1`).

        Raises:
            Refusal: there is no such method.
        """
        try:
            compression.ToBlocks(method)
        except BadBody as bad:
            raise Refusal(bad.code, f"{bad} ({bad.name})") from bad
        self._method = method

    async def plain(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        body = text.encode()
        if self._method:
            blocks = compression.ToBlocks(self._method)
            body = blocks.feed(body) + blocks.finish()
        await self._start(
            status, ("Content-Type", "text/plain; charset=UTF-8"), ("Content-Length", str(len(body))), *headers
        )
        await self._end(body)

    async def refuse(self, refusal: Refusal) -> None:
        """Say what went wrong: with its status if nothing was sent yet, else in the body and tagged."""
        text = (
            f"Code: {refusal.code}. DB::Exception: {refusal.text} (version {self._engine.version} (official build))\n"
        )
        if self._started:
            note = text.encode()
            tag = self._tag.encode()
            block = b"__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, note, len(note), tag)
            await self._end(self._codec.feed(b"\r\n" + block) + self._codec.finish())
            return
        headers = [("X-ClickHouse-Exception-Code", str(refusal.code))]
        if refusal.code == 194:
            headers.append(("WWW-Authenticate", 'Basic realm="ClickHouse server HTTP API"'))
        await self.plain(_STATUS.get(refusal.code, 500), text, *headers, *self._about(""))

    async def result(
        self,
        output: str,
        pieces: Iterator[bytes],
        *,
        compress: bool,
        whole: bool = False,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        """Send a result up to its end, which is `end`'s.

        The first piece is awaited before the headers, so that most errors still have a status. With `whole` all of it
        is awaited (in memory, then in a file), and no error can come late. `finish` is called on the engine's thread
        behind the last piece.
        """
        encoding, codec = compression.encoder(self._request.headers.get("accept-encoding", "") if compress else "")
        if self._method:
            codec = compression.Chain(compression.ToBlocks(self._method), codec)
        request = self._request

        def following() -> bytes | None:
            for piece in pieces:
                if packed := codec.feed(piece):
                    return packed
            finish()
            return None

        def rest() -> tempfile.SpooledTemporaryFile[bytes]:
            spool = tempfile.SpooledTemporaryFile(_SPOOL_IN_MEMORY, dir=str(self._engine.scratch))  # noqa: SIM115
            while (piece := following()) is not None:
                spool.write(piece)
            spool.write(codec.finish())
            return spool

        self._output = output
        self._headers = [("Content-Type", _CONTENT_TYPES.get(output, "text/plain; charset=UTF-8"))]
        if encoding:
            self._headers.append(("Content-Encoding", encoding))
        call = self._engine.call
        if whole:
            self._spool = await call(request.mark, rest)
            return
        piece = await call(request.mark, following)
        if piece is not None:
            self._codec = codec
            await self._start(200, *self._headers, *self._about(output))
        while piece is not None:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await call(request.mark, following)
        self._last = codec.finish()

    async def end(self) -> None:
        """Let the client see the end. By then its session must be free: its next request is on the way at once."""
        if self._spool is not None:
            with self._spool as spool:
                length = spool.tell()
                await self._start(200, *self._headers, ("Content-Length", str(length)), *self._about(self._output))
                spool.seek(0)
                while part := spool.read(PIECE):
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
        elif not self._started:
            length = len(self._last)
            await self._start(200, *self._headers, ("Content-Length", str(length)), *self._about(self._output))
        await self._end(self._last)

    def _about(self, output: str) -> list[tuple[str, str]]:
        tally = self._request.tally
        summary = {
            "read_rows": tally.read_rows,
            "read_bytes": tally.read_bytes,
            "written_rows": tally.written_rows,
            "written_bytes": tally.written_bytes,
            "total_rows_to_read": tally.read_rows,
            "result_rows": tally.written_rows or tally.result_rows,
            "result_bytes": tally.written_bytes or tally.result_bytes,
            "elapsed_ns": int(tally.elapsed * 1e9),
        }
        about = [
            *(("X-ClickHouse-Progress", figures) for figures in self._request.progress),
            ("X-ClickHouse-Server-Display-Name", self._engine.name),
            ("X-ClickHouse-Query-Id", _line(self._request.query_id)),
            ("X-ClickHouse-Timezone", self._engine.timezone),
            ("X-ClickHouse-Exception-Tag", self._tag),
            ("X-ClickHouse-Summary", _figures(summary)),
        ]
        if output:
            about.append(("X-ClickHouse-Format", output))
        return about

    async def _start(self, status: int, *headers: tuple[str, str]) -> None:
        self._started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers],
            }
        )

    async def _end(self, body: bytes) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _figures(figures: dict[str, int]) -> str:
    """Figures of a statement as ClickHouse's headers have them: JSON with every number as a text."""
    return json.dumps({name: str(value) for name, value in figures.items()}, separators=(",", ":"))


def _in_newer_layout(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A result in Native for a client of a newer protocol; see `native`."""
    try:
        yield from native.blocks(pieces)
    except native.Unknown as unknown:
        raise Refusal(48, f"{unknown} by this server; ask for another format. (NOT_IMPLEMENTED)") from unknown


def _check(statement: Statement) -> None:
    """Refuse what ClickHouse refuses over HTTP."""
    if statement.kind == "nothing":
        raise Refusal(62, "Syntax error: Empty query. (SYNTAX_ERROR)")
    if statement.several:
        raise Refusal(62, "Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)")
    if statement.file_clause:
        raise Refusal(358, "INTO OUTFILE and FROM INFILE are not allowed over HTTP. (INTO_OUTFILE_NOT_ALLOWED)")


def _parameters_of(query_string: str) -> dict[str, str]:
    """The parameters of an address. `query` keeps bytes that are not UTF-8: it may carry rows."""
    pairs = urllib.parse.parse_qsl(query_string, keep_blank_values=True, errors="surrogateescape")
    return {
        name: value if name == "query" else value.encode(errors="surrogateescape").decode(errors="replace")
        for name, value in pairs
    }


def _parameters(request: _Request) -> dict[str, str]:
    """The values of {name:Type} in the statement."""
    return {name[6:]: value for name, value in request.parameters.items() if name.startswith("param_")}


def _content_type(header: str) -> Message:
    message = Message()
    message["content-type"] = header or "application/octet-stream"
    return message


def _is_local(host: str | None) -> bool:
    if not host:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")
