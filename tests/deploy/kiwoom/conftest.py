"""A local Kiwoom for a test: started on a free port, stopped afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from deploy.local.kiwoom.protocol import Rules
from streams.events import KST

MONDAY_TEN = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
KEYS = {"grant_type": "client_credentials", "appkey": "local-app-key", "secretkey": "local-secret-key"}
DEADLINE = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Wire:
    """A WebSocket to the server; frames are read as objects, PINGs are echoed and passed over."""

    socket: ClientConnection
    echo: bool = True

    async def send(self, frame: dict[str, Any] | str) -> None:
        await self.socket.send(frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False))

    async def receive(self) -> dict[str, Any]:
        while True:
            async with asyncio.timeout(DEADLINE):
                text = await self.socket.recv()
            frame: dict[str, Any] = json.loads(text)
            if frame["trnm"] != "PING":
                return frame
            if self.echo:
                await self.socket.send(text)

    async def until(self, trnm: str) -> dict[str, Any]:
        """The next frame of this TRNM; others are passed over."""
        while (frame := await self.receive())["trnm"] != trnm:
            pass
        return frame

    async def ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        await self.send(frame)
        return await self.until(frame["trnm"])


@dataclass
class Local:
    """A running server."""

    port: int
    http: httpx.AsyncClient
    task: asyncio.Task[None]

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/dostk/websocket"

    async def token(self, appkey: str = "local-app-key") -> str:
        reply = (await self.http.post("/oauth2/token", json=KEYS | {"appkey": appkey})).json()
        assert reply["return_code"] == 0
        return str(reply["token"])

    async def call(self, api_id: str, path: str, body: dict[str, str], **headers: str) -> httpx.Response:
        authorization = {"authorization": f"Bearer {await self.token()}", "api-id": api_id}
        return await self.http.post(path, json=body, headers=authorization | headers)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        async with websockets.connect(self.websocket_url, ping_interval=None) as socket:
            yield Wire(socket)

    @contextlib.asynccontextmanager
    async def login(self, appkey: str = "local-app-key", *, listed: bool = True) -> AsyncIterator[Wire]:
        async with self.connect() as wire:
            reply = await wire.ask({"trnm": "LOGIN", "token": await self.token(appkey)})
            assert reply["return_code"] == 0
            if listed:
                await wire.ask({"trnm": "CNSRLST"})
            yield wire

    async def state(self) -> dict[str, Any]:
        return dict((await self.http.get("/local/state")).json())

    async def truth(self, query: str = "") -> dict[str, Any]:
        return dict((await self.http.get(f"/local/truth{query}")).json())

    async def fault(self, name: str, **options: Any) -> None:
        assert (await self.http.post("/local/faults", json={"name": name, **options})).status_code == 200

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


Start = Callable[..., Coroutine[Any, Any, Local]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server: the same arguments as `serve`; by default a market of 2026-03-09 from 10:00, 60 times as fast."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**options: Any) -> Local:
            port = options.pop("port", None) or free_port()
            answering = asyncio.Event()

            def ready(why_not: str | None) -> None:
                if why_not is None:
                    answering.set()

            speed = options.pop("speed", 60.0)
            settings = {
                "host": "127.0.0.1",
                "port": port,
                "seed": 7,
                "state_dir": None,
                "clock": Clock(options.pop("at", MONDAY_TEN), speed),
                "ready": ready,
                "rules": Rules(patience=100.0),
            } | options
            task = asyncio.create_task(serve(**settings))
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE)
            )
            local = Local(port, http, task)
            stack.push_async_callback(local.stop)
            waiting = asyncio.create_task(answering.wait())
            await asyncio.wait((task, waiting), timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done():
                await task
            assert answering.is_set()
            return local

        yield begin


def later(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)
