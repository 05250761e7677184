"""The dashboard's server: the live stream, the JSON API, the page – and the role `hitstream sink live`.

    GET /api/live             server-sent events (see `views`)
    GET /api/recommendations  GET /api/conditions  GET /api/transitions  GET /api/status
    GET /openapi.json         what these answer, generated from the structs
    GET /                     the page

What is true is the hub's, how it is told is `stream`'s, who may ask is `guard`'s. Until the day has been rebuilt from
the topics the API answers 503, and the stream stays open with heartbeats only.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import msgspec
import structlog
import uvicorn
from litestar import Litestar, MediaType, Request, Response, asgi, get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import QueryParameter
from litestar.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sinks.settings import LiveSettings
from streams.events import Gap, HitstreamError, Status

from . import page
from .guard import App, Guard, check_exposure
from .hub import Hub, new_epoch
from .reader import Reader
from .stream import Broadcaster
from .views import ConditionView, FeedItem, RecommendationView

STOP_SECONDS: Final = 1.0  # for clients to take the end of their answer
_TRANSPORT: Final = "hitstream.transport"
_log = structlog.get_logger(__name__)


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """What every component and every producer's subscription is doing."""

    now: datetime
    components: tuple[Status, ...]
    subscriptions: tuple[Status, ...]


# --- the application --------------------------------------------------------------------------------------------------


def application(broadcaster: Broadcaster, *, token: str = "", dist: Path = page.DIST) -> App:
    """The whole ASGI application over one broadcaster and its hub.

    Args:
        token: what requests must bring; empty for none.
        dist: folder of the built page.
    """

    def hub() -> Hub:
        if not broadcaster.is_open:
            raise ServiceUnavailableException(
                "The day is being read from Kafka: try again in a moment.", headers={"retry-after": "1"}
            )
        broadcaster.roll()
        return broadcaster.hub

    unready = [ServiceUnavailableException]

    @asgi("/api/live", copy_scope=False)
    async def live(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "GET":
            response = Response({"status_code": 405, "detail": "Method Not Allowed"}, status_code=405)
            await response.to_asgi_response(None, Request(scope))(scope, receive, send)
            return
        if broadcaster.is_full:
            raise ServiceUnavailableException("Too many browsers are connected.", headers={"retry-after": "10"})
        headers = dict(scope["headers"])
        transport: asyncio.Transport | None = scope.get("state", {}).get(_TRANSPORT)
        await broadcaster.serve(
            headers.get(b"last-event-id", b"").decode("latin-1"),
            transport.abort if transport else lambda: None,
            cast("Any", receive),
            cast("Any", send),
        )

    @get("/api/recommendations", raises=unready, sync_to_thread=False)
    def recommendations(
        wanted: Annotated[
            Literal["open", "closed"] | None, QueryParameter(name="state", description="Only those in this state.")
        ] = None,
        code: Annotated[str | None, QueryParameter(description="Only those of this stock.")] = None,
    ) -> tuple[RecommendationView, ...]:
        """Today's recommendations, each in its latest revision; the one that changed last is last."""
        return tuple(
            view
            for view in hub().recommendations()
            if wanted in (None, view.recommendation.state) and code in (None, view.recommendation.code)
        )

    @get("/api/conditions", raises=unready, sync_to_thread=False)
    def conditions() -> tuple[ConditionView, ...]:
        """Every condition, its counts today and the state of its subscription."""
        return hub().conditions()

    @get("/api/transitions", raises=[*unready, NotFoundException], sync_to_thread=False)
    def transitions(
        limit: Annotated[int, QueryParameter(ge=1, le=1_000, description="At most so many.")] = 100,
        before: Annotated[
            str | None, QueryParameter(description="Id of a transition: only lines older than it, to page backwards.")
        ] = None,
        condition: Annotated[str | None, QueryParameter(description="Only those of this condition.")] = None,
        code: Annotated[str | None, QueryParameter(description="Only those of this stock.")] = None,
    ) -> tuple[FeedItem, ...]:
        """Today's newest transitions, newest first, as far back as the hub keeps them."""
        found = hub().transitions(limit=limit, before=before, condition=condition, code=code)
        if found is None:
            raise NotFoundException("No transition of this id is kept (any more): ask without `before`.")
        return found

    @get("/api/gaps", raises=unready, sync_to_thread=False)
    def gaps() -> tuple[Gap, ...]:
        """Today's gaps: from when until when a condition was not heard, and why."""
        return tuple(view.gap for view in hub().gaps())

    @get("/api/status", raises=unready, sync_to_thread=False)
    def status() -> StatusView:
        """What every component and every producer's subscription is doing."""
        now = hub()
        return StatusView(
            now=broadcaster.roll(),
            components=tuple(view.status for view in now.components()),
            subscriptions=now.subscriptions(),
        )

    @get("/openapi.json", include_in_schema=False, media_type="application/json", sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> dict[str, Any]:
        return request.app.openapi_schema.to_schema()

    @get(["/", "/{path:path}"], include_in_schema=False)
    async def files(request: Request[Any, Any, Any]) -> Response[bytes]:
        found = await asyncio.to_thread(page.find, dist, request.scope["path"])
        if found is None:
            raise NotFoundException("There is no such page.")
        return Response(found.content, media_type=found.media_type, headers={"cache-control": found.cache})

    app = Litestar(
        [live, recommendations, conditions, transitions, gaps, status, openapi, files],
        openapi_config=OpenAPIConfig(
            title="Hitstream",
            version="1",
            description="What the dashboard shows. `/api/live` is a stream of server-sent events.",
            use_handler_docstrings=True,
            path="/openapi",
            render_plugins=[JsonRenderPlugin(path="/openapi.json", media_type=MediaType.JSON)],
        ),
        before_send=[_keep_answers_fresh],
        logging_config=None,
    )
    return Guard(cast("App", app), token)


async def _keep_answers_fresh(message: Any, scope: Scope) -> None:
    """The API's answers are of this moment: nobody may keep them."""
    if message["type"] == "http.response.start" and scope["path"].startswith("/api/"):
        headers = message.setdefault("headers", [])
        if not any(name.lower() == b"cache-control" for name, _ in headers):
            message["headers"] = [*headers, (b"cache-control", b"no-store")]


# --- the server -------------------------------------------------------------------------------------------------------


class _Protocol(H11Protocol):
    """Hands its transport to the application, so that a client that takes nothing can be cut off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}


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
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32_768,
    )
    server = _Server(config)
    async with asyncio.TaskGroup() as group:
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
) -> None:
    """Serve the dashboard until cancelled.

    Args:
        settings: where to listen, and with which token.
        bootstrap_servers: Kafka.
        now: market time.
        speed: market seconds per real second.
        ready: is told None once the day has been rebuilt, and why not while it has not.

    Raises:
        ConfigError: others can reach the address and there is no token.
        HitstreamError: the port is taken, or Kafka can't be reached at the start.
    """
    token = settings.token.get_secret_value()
    check_exposure(settings.host, token)
    ready("starting")
    sock = listen(settings.host, settings.port)
    try:
        hub = Hub(epoch=new_epoch(), speed=speed)
        broadcaster = Broadcaster(hub, now)
        reader = Reader(broadcaster, bootstrap_servers=bootstrap_servers, now=now, speed=speed, ready=ready)
        host, port = sock.getsockname()[:2]
        _log.info("live.listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(application(broadcaster, token=token), sock, broadcaster))
            group.create_task(broadcaster.run())
            group.create_task(reader.run())
    finally:
        sock.close()
