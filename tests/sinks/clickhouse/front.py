"""A front before ClickHouse that makes of inserts what no engine on a test's machine can be brought to do."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Mode = Literal["pass", "refuse", "hold", "lose"]


class Front:
    """Passes requests on to a ClickHouse, and treats inserts as told.

    `refuse(code, name)` answers them with that error; `hold()` takes them and answers nothing until `open()`;
    `lose()` lets them happen and breaks the connection instead of answering.
    """

    def __init__(self, port: int) -> None:
        self.inserts: list[tuple[dict[str, str], bytes]] = []
        """Parameters and body of each insert, in order."""
        self._upstream = port
        self._mode: Mode = "pass"
        self._error = (0, "")
        self._opened = threading.Event()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                front.handle(self)

            do_GET = do_POST  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def refuse(self, code: int, name: str) -> None:
        self._mode, self._error = "refuse", (code, name)

    def hold(self) -> None:
        self._opened.clear()
        self._mode = "hold"

    def lose(self) -> None:
        self._mode = "lose"

    def open(self) -> None:
        self._mode = "pass"
        self._opened.set()

    def close(self) -> None:
        self.open()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = _body(request)
        parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.path).query))
        statement = parameters.get("query", "").encode() + body[:100]
        mode: Mode = "pass"
        if b"INSERT INTO" in statement and b"schema_migrations" not in statement:
            self.inserts.append((parameters, body))
            mode = self._mode
        if mode == "refuse":
            code, name = self._error
            _answer(
                request,
                500,
                f"Code: {code}. DB::Exception: {name} here. ({name}) (version 26.9)\n".encode(),
                {"X-ClickHouse-Exception-Code": str(code)},
            )
            return
        if mode == "hold":
            self._opened.wait(60)
        upstream = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("transfer-encoding", "host")}
            upstream.request(request.command, request.path, body, headers | {"Content-Length": str(len(body))})
            answer = upstream.getresponse()
            content = answer.read()
            if mode == "lose":
                request.close_connection = True
                request.connection.close()
                return
            passed = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "content-length")}
            _answer(request, answer.status, content, passed)
        finally:
            upstream.close()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


def _answer(request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    try:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
    except OSError:  # the client has given up: what was held is answered to nobody
        request.close_connection = True
