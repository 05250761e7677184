"""`/healthz`, `/readyz` and `/metrics` of a role, answered by a thread of its own.

A thread, so that the answer comes even while the role's event loop is busy. `/readyz` is 503 with the reason until the
role says that it is ready, and again whenever it says that it is not.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from .ports import PortTaken

_READY = Gauge("hitstream_ready", "1 while the role says that it is ready.")


class Health:
    """What a role says of itself, and the server that tells it.

    Args:
        port: port on loopback; 0 serves nothing.
        listening: a socket that listens already, handed on by a supervisor; `port` is not looked at then.
    """

    def __init__(self, port: int, listening: socket.socket | None = None) -> None:
        self.reason: str | None = "starting"
        self._server: ThreadingHTTPServer | None = None
        if listening:
            self._server = _Server(listening.getsockname(), _handler(self), bind_and_activate=False)
            self._server.socket.close()
            self._server.socket = listening
        elif port:
            try:
                self._server = _Server(("127.0.0.1", port), _handler(self))
            except OSError:
                raise PortTaken(f"Port {port} (health.port) is taken by another program; choose another one.") from None
        if self._server:
            threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def ready(self, reason: str | None) -> None:
        """Note that the role is ready (None), or why it is not."""
        self.reason = reason
        _READY.set(reason is None)

    def close(self) -> None:
        """Stop answering."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked has gone; the next one will ask again."""


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/healthz":
                    self._answer(200, b"ok\n")
                case "/readyz" if health.reason is None:
                    self._answer(200, b"ready\n")
                case "/readyz":
                    self._answer(503, f"{health.reason}\n".encode())
                case "/metrics":
                    self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                case _:
                    self._answer(404, b"/healthz /readyz /metrics\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # the role's log is for the role
            pass

    return Handler
