"""The local ClickHouse as a server: sockets, start, stop. What is said over HTTP is `interface`'s."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import structlog
import uvicorn

from streams.events import ConfigError, HitstreamError

from .engine import Engine
from .interface import Interface

log = structlog.get_logger(__name__)

# Seconds that running inserts get to finish when the server stops; a client that sends no rows is cut off then.
_GRACE: Final = 3
# The longest request line and headers (ClickHouse: http_max_uri_size).
_LONGEST_LINE: Final = 1 << 20


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: who calls `serve` decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    *, host: str, port: int, data_dir: Path, password: str = "", ready: Callable[[str | None], None]
) -> None:
    """Serve ClickHouse's HTTP interface until cancelled.

    When cancelled, reads are given up, inserts that run are finished, and the engine is closed. One at a time per
    process: the engine is the process's only one.

    Args:
        host: address to listen on; anything but loopback needs a password.
        port: port to listen on; 0 takes a free one.
        data_dir: folder that keeps the data, made if it is not there.
        password: of the user `default`; empty means that none is asked for.
        ready: called with None once the server answers, with a text while it starts or stops.

    Raises:
        ConfigError: the host is not loopback and there is no password.
        HitstreamError: the port is taken, or the folder is in use.
    """
    if not password and not _is_loopback(host):
        raise ConfigError(f"The local ClickHouse listens on {host} only with a password; set one, or use 127.0.0.1.")
    ready("starting")
    with _listen(host, port) as listening:
        engine = await _opened(data_dir)
        closing = asyncio.Event()
        interface = Interface(engine, password, closing)
        server = _Server(
            uvicorn.Config(
                interface,
                interface="asgi3",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_GRACE,
                h11_max_incomplete_event_size=_LONGEST_LINE,
            )
        )
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(server.serve(sockets=[listening]))
                try:
                    while not server.started and not running.done():  # noqa: ASYNC110 – uvicorn has no event for it
                        await asyncio.sleep(0.005)
                    address = f"http://{host}:{listening.getsockname()[1]}"
                    log.info("local ClickHouse answers", address=address, version=engine.version, data=str(data_dir))
                    ready(None)
                    await asyncio.wait([running])
                finally:
                    ready("stopping")
                    closing.set()
                    server.should_exit = True
                    await asyncio.wait([running])
        finally:
            closed = asyncio.ensure_future(_closed(interface, engine))
            while not closed.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(closed)


async def _opened(data_dir: Path) -> Engine:
    """Open the engine off the event loop; if that is given up, close it again."""
    opening = asyncio.ensure_future(asyncio.to_thread(Engine.open, data_dir))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with contextlib.suppress(HitstreamError):
            (await opening).close()
        raise


async def _closed(interface: Interface, engine: Engine) -> None:
    await interface.close()
    await asyncio.to_thread(engine.close)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        HitstreamError: the address cannot be listened on, and why.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Said to be TCP, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an acknowledgement.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(256)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise HitstreamError(
            f"The local ClickHouse cannot listen on {host}:{port}: {error.strerror}; stop what uses that port or choose"
            " another one."
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
