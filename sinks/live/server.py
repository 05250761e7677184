"""The dashboard's server: the live stream, the JSON API, the page – and the role `hitstream sink live`.

    GET /api/live       server-sent events (see `views`)
    …   /api/…          questions and commands (see `api`)
    GET /openapi.json   what these take and answer, generated from the structs
    GET /               the page

What is true is the hub's, how it is told is `stream`'s, who may ask is `guard`'s. Until the day has been rebuilt from
the topics the API answers 503, and the stream stays open with heartbeats only.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qs

import msgspec
import structlog
import uvicorn
from litestar import Litestar, MediaType, Request, Response, asgi, get
from litestar.config.compression import CompressionConfig
from litestar.exceptions import MethodNotAllowedException, NotFoundException, ServiceUnavailableException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sinks.settings import ClickHouseSettings, LiveSettings
from streams.events import HitstreamError
from streams.tasks import TaskGroup

from . import api, page
from .access import Access, tokens
from .answers import Problem, RecommendCommand, WithdrawCommand
from .commands import Commands
from .guard import SECURITY_HEADERS, App, Guard, check_exposure, with_head
from .history import History
from .hub import Hub, new_epoch
from .parameters import refuse_unknown
from .proxies import Network, networks
from .reader import Reader
from .stream import Broadcaster

STOP_SECONDS: Final = 1.0  # for clients to take the end of their answer
REQUEST_SECONDS: Final = 10.0  # for a new connection to ask something
STREAM: Final = "/api/live"
_TRANSPORT: Final = "hitstream.transport"
_UNREADABLE: Final = (
    "This is no HTTP request that can be read. In an address whatever is not ASCII is percent-encoded: "
    "curl -G --data-urlencode 'q=삼성' http://…/api/stocks does it."
)
_log = structlog.get_logger(__name__)


# --- the application --------------------------------------------------------------------------------------------------


def application(
    broadcaster: Broadcaster,
    *,
    access: Access | None = None,
    history: History | None = None,
    commands: Commands | None = None,
    user: str = "owner",
    trusted: Sequence[Network] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    dist: Path = page.DIST,
) -> App:
    """The whole ASGI application over one broadcaster and its hub.

    Args:
        access: the tokens that requests must bring; None for none.
        history: ClickHouse; None where there is none.
        commands: where commands go; None where they can't be sent.
        user: who gives the commands where there are no tokens.
        trusted: proxies whose headers are believed.
        now: market time.
        dist: folder of the built page.
    """

    @asgi(STREAM, copy_scope=False, compresses=True)
    async def live(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "GET":
            raise MethodNotAllowedException(headers={"allow": "GET"})
        if broadcaster.is_full:
            raise ServiceUnavailableException("Too many browsers are connected.", headers={"retry-after": "10"})
        headers = dict(scope["headers"])
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        await broadcaster.serve(
            headers.get(b"last-event-id", b"").decode("latin-1") or asked.get("after", [""])[0],
            scope["state"][_TRANSPORT],
            cast("Any", receive),
            cast("Any", send),
            gzip=takes_gzip(headers.get(b"accept-encoding", b"")),
            chunked=scope["http_version"] != "1.0",
        )

    @get("/openapi.json", include_in_schema=False, media_type="application/json", sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
        described = request.app.openapi_schema.to_schema()
        for taken in (RecommendCommand, WithdrawCommand):  # a misspelt expires_at must not be passed over
            described["components"]["schemas"][taken.__name__]["additionalProperties"] = False
        return described

    @get(["/", "/{path:path}"], include_in_schema=False, compresses=True)
    async def files(request: Request[Any, Any, Any]) -> Response[bytes]:
        found = await asyncio.to_thread(page.find, dist, request.scope["path"])
        if found is None:
            raise NotFoundException("There is no such page.")
        headers = {"cache-control": found.cache, "vary": "accept-encoding"}
        if found.gzipped is None or not takes_gzip(request.headers.get("accept-encoding", "").encode()):
            return Response(found.content, media_type=found.media_type, headers=headers)
        return Response(found.gzipped, media_type=found.media_type, headers=headers | {"content-encoding": "gzip"})

    app = Litestar(
        [live, *api.handlers(broadcaster, history or History(None), commands, now), openapi, files],
        openapi_config=OpenAPIConfig(
            title="Hitstream",
            version="1",
            description="What the dashboard shows. `/api/live` is a stream of server-sent events (docs/api.md).",
            use_handler_docstrings=True,
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            path="/openapi",
            render_plugins=[JsonRenderPlugin(path="/openapi.json", media_type=MediaType.JSON)],
        ),
        # The stream and the files are compressed by themselves, once for all; this is done while everybody waits.
        compression_config=CompressionConfig(
            backend="gzip", minimum_size=1_000, gzip_compress_level=1, exclude_opt_key="compresses"
        ),
        exception_handlers=api.PROBLEMS,
        before_request=refuse_unknown,
        before_send=[_keep_answers_fresh],
        request_max_body_size=api.BODY_BYTES,
        logging_config=None,
    )

    def takes(method: str, path: str) -> str | None:
        if path == STREAM:
            return None if method == "GET" else with_head("GET")
        try:
            app.asgi_router.handle_routing(path=path, method=cast("Any", method))
        except MethodNotAllowedException as error:
            allowed = (error.headers or {}).get("allow")
            return with_head(allowed) if allowed else None
        except NotFoundException:
            pass
        return None

    return Guard(_answering_heads(cast("App", app)), access or Access(), user=user, trusted=trusted, takes=takes)


def _answering_heads(app: App) -> App:
    """`app`, which takes HEAD wherever it takes GET: the same answer without its body; of the stream its type alone."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return
        if scope["path"] == STREAM:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_head(message: Any) -> None:
            await send(message | {"body": b""} if message["type"] == "http.response.body" else message)

        await app({**scope, "method": "GET"}, receive, send_head)

    return answer


def takes_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for part in accepted.lower().split(b","):
        coding, _, weight = part.replace(b" ", b"").partition(b";q=")
        if coding == b"gzip":
            return weight.strip(b"0.") != b"" if weight else True
    return False


async def _keep_answers_fresh(message: Any, scope: Scope) -> None:
    """The API's answers are of this moment: nobody may keep them."""
    if message["type"] == "http.response.start" and scope["path"].startswith("/api/"):
        headers = message.setdefault("headers", [])
        if not any(name.lower() == b"cache-control" for name, _ in headers):
            message["headers"] = [*headers, (b"cache-control", b"no-store")]


# --- the server -------------------------------------------------------------------------------------------------------


class _Protocol(H11Protocol):
    """Hands its transport to the application, which writes the stream to it and cuts off who takes nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        # uvicorn waits for the first request for ever; whoever asks nothing holds a connection that others may need.
        self._patience = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._drop_if_silent)

    def send_400_response(self, msg: str) -> None:
        """Refuse in the API's words what is no HTTP; most often it is an address with letters that are not encoded."""
        cycle = getattr(self, "cycle", None)
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = msgspec.json.encode(Problem(error=_UNREADABLE))
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *SECURITY_HEADERS,
            ]
            head = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, body))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def _drop_if_silent(self) -> None:
        if getattr(self, "cycle", None) is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: who started the role decides when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        HitstreamError: the port is taken, or the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise HitstreamError(
                f"Port {port} on {host} is taken: stop what listens there, or set live.port to a free one."
            ) from error
        raise HitstreamError(f"The dashboard can't listen on {host}:{port}: {error.strerror or error}.") from error
    sock.setblocking(False)
    return sock


async def serve(app: App, sock: socket.socket, broadcaster: Broadcaster) -> None:
    """Answer requests on `sock` until cancelled; then end every stream, and drop what does not end in time."""
    config = uvicorn.Config(
        cast("Any", app),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # which proxies are believed is the guard's to say
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32_768,
    )
    server = _Server(config)
    async with TaskGroup() as group:
        serving = group.create_task(server.serve([sock]))
        try:
            await asyncio.shield(serving)
        finally:
            broadcaster.stop()
            server.should_exit = True
            _, late = await asyncio.wait([serving], timeout=STOP_SECONDS)
            if late:
                broadcaster.abort()
                await asyncio.wait([serving], timeout=STOP_SECONDS)


async def run(
    *,
    settings: LiveSettings,
    bootstrap_servers: str,
    now: Callable[[], datetime],
    speed: float,
    ready: Callable[[str | None], None],
    clickhouse: ClickHouseSettings | None = None,
) -> None:
    """Serve the dashboard until cancelled.

    Args:
        settings: where to listen, and with which tokens.
        bootstrap_servers: Kafka.
        now: market time.
        speed: market seconds per real second.
        ready: is told None once the day has been rebuilt, and why not while it has not.
        clickhouse: where history is asked for; None, or without a DSN, for nowhere.

    Raises:
        ConfigError: others can reach the address and there is no token, or tokens or proxies can't be read.
        HitstreamError: the port is taken, or Kafka can't be reached at the start.
    """
    given = tokens(settings)
    check_exposure(settings.host, given)
    access, trusted = Access(given), networks(settings.trusted_proxies)
    ready("starting")
    sock = listen(settings.host, settings.port)
    history = History(clickhouse if clickhouse and clickhouse.dsn else None)
    commands = Commands(bootstrap_servers, now)
    try:
        hub = Hub(epoch=new_epoch(), speed=speed)
        broadcaster = Broadcaster(hub, now)
        reader = Reader(
            broadcaster,
            bootstrap_servers=bootstrap_servers,
            now=now,
            speed=speed,
            ready=ready,
            fetch_wait=settings.fetch_wait,
        )
        host, port = sock.getsockname()[:2]
        _log.info("live.listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        app = application(
            broadcaster,
            access=access,
            history=history,
            commands=commands,
            user=settings.user,
            trusted=trusted,
            now=now,
        )
        async with TaskGroup() as group:
            group.create_task(serve(app, sock, broadcaster))
            group.create_task(broadcaster.run())
            group.create_task(reader.run())
    finally:
        sock.close()
        await commands.close()
        await history.close()
