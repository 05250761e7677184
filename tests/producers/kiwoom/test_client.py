"""How long to wait before the next connection, and what is heard at the end of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection, serve

from producers.kiwoom.client import Backoff, Client
from producers.kiwoom.session import Action, Moment, Timing, Wanted
from producers.kiwoom.token import Tokens

TAKEN = {"trnm": "SYSTEM", "code": "R10001", "message": "동일한 App key로 접속이 되었습니다."}


@pytest.mark.parametrize("failures", [1, 2, 3, 4, 10, 1000])
def test_a_wait_grows_is_jittered_and_has_a_cap(failures: int) -> None:
    for urgent, most in ((True, 5.0), (False, 60.0)):
        waits = [Backoff().wait(failures, urgent=urgent) for _ in range(200)]
        longest = min(most, 2.0 ** min(failures - 1, 10))
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 100, "everybody would come back at once"


class Told:
    """Who is told by the client: how each connection ended."""

    def __init__(self) -> None:
        self.connections = 0
        self.ends: list[tuple[str, str]] = []

    def connecting(self, connection: str) -> None:
        self.connections += 1

    def handle(self, actions: Sequence[Action], now: Moment, *, frame: bool) -> None:
        pass

    def disconnected(self, cause: str, state: str) -> None:
        self.ends.append((state, cause))

    async def room(self) -> None:
        pass

    async def pace(self) -> None:
        pass


class AnyToken:
    async def get(self) -> str:
        return "token"


async def kiwoom(connection: ServerConnection) -> None:
    """Takes the login and the list, and with the list's reply comes the end: all of it in one piece."""
    async for text in connection:
        trnm = json.loads(text)["trnm"]
        if trnm == "LOGIN":
            await connection.send(json.dumps({"trnm": "LOGIN", "return_code": 0, "return_msg": ""}))
        elif trnm == "CNSRLST":
            listed: dict[str, Any] = {"trnm": "CNSRLST", "return_code": 0, "return_msg": "", "data": [["7", "돌파"]]}
            async with connection.send_context():
                for frame in (listed, TAKEN):
                    connection.protocol.send_text(json.dumps(frame).encode())
                connection.protocol.send_close(1000)


async def test_that_the_app_key_was_taken_is_heard_although_the_next_request_finds_the_connection_closed() -> None:
    """Taken for a lost connection it would be opened again, and the program that has the key now thrown out."""
    told = Told()
    async with serve(kiwoom, "127.0.0.1", 0) as server, asyncio.timeout(60):
        port = next(iter(server.sockets)).getsockname()[1]
        await Client(
            url=f"ws://127.0.0.1:{port}",
            producer="test",
            tokens=cast("Tokens", AnyToken()),
            wanted=[Wanted("돌파")],
            stex_tp="K",
            timing=Timing(login_pause=0.0, send_spacing=0.0),
            backoff=Backoff(first=0.05, most=0.1, closed=0.1),
            now=lambda: datetime.now(UTC),
            handler=told,
        ).run()
    assert told.connections == 1
    [(state, cause)] = told.ends
    assert state == "displaced"
    assert "R10001" in cause
