"""A Kiwoom that costs next to nothing: it answers what a client must ask, then writes frames that are ready-made bytes.

So that in a benchmark the server is never what one waits for. It runs as a process of its own, one connection at a
time, and speaks just enough: the token and an empty list of stocks over REST, LOGIN, CNSRLST, CNSRREQ and CNSRCLR over
WebSocket. `GET /go?count=…&shape=…&rate=…` has it write that many frames to the connection, as fast as they are read,
or at `rate` frames a second; the answer comes once all are written, with the moment (CLOCK_MONOTONIC) of the first,
and of each if they are paced. `from=…` counts entries from there on.

Frames are shaped as Kiwoom's captures are. `shape`:

- `hits`: one entry of type 02 in each frame;
- `mixed`: one frame in ten is that, the others are a trade (0B) – what a session with price slots hears;
- `burst`: ten entries of type 02 in each frame.

What they say is consistent, as an audit would see: each stock enters each condition, then leaves each, in turn.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qsl, urlsplit

KST = timezone(timedelta(hours=9))
CONDITIONS = [f"condition {n}" for n in range(8)]
STOCKS = 2000
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 256 * 1024


def code(number: int) -> str:
    """The n-th stock."""
    return f"{100000 + number % STOCKS:06}"


def hit(number: int, clock: str) -> str:
    """The n-th entry of type 02, of `clock` (HHMMSS)."""
    seq = number // STOCKS % len(CONDITIONS)
    action = "ID"[number // (STOCKS * len(CONDITIONS)) % 2]
    stock = code(number)
    return (
        f'{{"values":{{"841":"{seq}","9001":"{stock}","843":"{action}","20":"{clock}","907":"2"}},'
        f'"type":"02","name":"조건검색","item":"{stock}"}}'
    )


def trade(number: int, clock: str) -> str:
    """The n-th trade, of `clock`, as long as a captured one."""
    price, stock = 50000 + number % 1000, code(number * 7)
    return (
        f'{{"values":{{"20":"{clock}","10":"-{price}","11":"-1750","12":"-3.24","27":"-{price}","28":"-{price - 50}",'
        f'"15":"+{1 + number % 90}","13":"{20_000_000 + number}","14":"6647893","16":"+{price + 900}",'
        f'"17":"+{price + 1200}","18":"-{price - 300}","25":"5","26":"-59822","29":"-15216","30":"-77.4","31":"0.3",'
        '"32":"118","228":"77.98","311":"18503472","290":"2","691":"0","567":"000000","568":"000000","851":"",'
        f'"1890":"","1891":"","1892":"","1030":"9","9081":"KRX"}},"type":"0B","name":"주식체결","item":"{stock}"}}'
    )


def texts(shape: str, count: int, clock: str, first: int = 0) -> Iterator[bytes]:
    """The frames of a shape."""
    for number in range(first, first + count):
        if shape == "burst":
            entries = ",".join(hit(10 * number + n, clock) for n in range(10))
        elif shape == "mixed" and number % 10:
            entries = trade(number, clock)
        else:
            entries = hit(number // 10 if shape == "mixed" else number, clock)
        yield f'{{"trnm":"REAL","data":[{entries}]}}'.encode()


def framed(text: bytes) -> bytes:
    """A text frame from a server, as it goes on the wire."""
    if len(text) < 126:
        return bytes([0x81, len(text)]) + text
    if len(text) < 1 << 16:
        return b"\x81\x7e" + len(text).to_bytes(2, "big") + text
    return b"\x81\x7f" + len(text).to_bytes(8, "big") + text


class Feed:
    """The server; `serve` until cancelled."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: a REST call, `/go`, or the session."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                target = urlsplit(first.split()[1])
                if "sec-websocket-key" in headers:
                    await self._session(reader, writer, headers["sec-websocket-key"])
                    return
                if length := int(headers.get("content-length", 0)):
                    await reader.readexactly(length)
                reply = (
                    await self._go(dict(parse_qsl(target.query))) if target.path == "/go" else self._rest(target.path)
                )
                body = json.dumps(reply).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _rest(self, path: str) -> dict[str, object]:
        if path == "/oauth2/token":
            until = datetime.now(KST) + timedelta(days=1)
            return {"token": "token", "token_type": "bearer", "expires_dt": f"{until:%Y%m%d%H%M%S}", "return_code": 0}
        return {"return_code": 0, "return_msg": "", "list": []}

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self._writer = writer
        while True:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
            mask = await reader.readexactly(4)
            sent = bytes(byte ^ mask[n % 4] for n, byte in enumerate(await reader.readexactly(length)))
            if first & 0x0F == 8:
                writer.write(bytes([0x88, len(sent)]) + sent)
                return
            if first & 0x0F == 1 and (reply := self._reply(json.loads(sent))) is not None:
                writer.write(framed(json.dumps(reply, ensure_ascii=False).encode()))

    def _reply(self, asked: dict[str, str]) -> dict[str, object] | None:
        common: dict[str, object] = {"trnm": asked["trnm"], "return_code": 0, "return_msg": ""}
        match asked["trnm"]:
            case "LOGIN" | "REG" | "REMOVE":
                return common
            case "CNSRLST":
                return common | {"data": [[str(n), name] for n, name in enumerate(CONDITIONS)]}
            case "CNSRREQ":
                return common | {"seq": asked["seq"], "data": None}
            case "CNSRCLR":
                return common | {"seq": asked["seq"]}
        return None

    async def _go(self, asked: dict[str, str]) -> dict[str, object]:
        assert self._writer is not None
        rate = float(asked.get("rate", 0))
        count, first = int(asked["count"]), int(asked.get("from", 0))
        shape, clock = asked.get("shape", "hits"), f"{datetime.now(KST):%H%M%S}"
        frames = [framed(text) for text in texts(shape, count, clock, first)]
        began = time.monotonic()
        moments = await self._paced(frames, rate, began) if rate else []
        if not rate:
            await self._at_once(frames)
        return {"began": began, "written": time.monotonic(), "moments": moments}

    async def _at_once(self, frames: list[bytes]) -> None:
        assert self._writer is not None
        whole = b"".join(frames)
        for start in range(0, len(whole), _CHUNK):
            self._writer.write(whole[start : start + _CHUNK])
            await self._writer.drain()

    async def _paced(self, frames: list[bytes], rate: float, began: float) -> list[float]:
        """Write them evenly; returns when each was written."""
        assert self._writer is not None
        sent = 0
        moments: list[float] = []
        while sent < len(frames):
            due = min(len(frames), int((time.monotonic() - began) * rate) + 1)
            if due > sent:
                self._writer.write(b"".join(frames[sent:due]))
                moments += [time.monotonic()] * (due - sent)
                await self._writer.drain()
                sent = due
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
        return moments


async def serve(ready: Callable[[int], None]) -> None:
    """Serve on a free loopback port, told to `ready`, until cancelled."""
    server = await asyncio.start_server(Feed().answer, "127.0.0.1", 0)
    ready(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":

    async def main() -> None:
        # Ends with whoever started it: its standard input is a pipe from there.
        asyncio.get_running_loop().add_reader(sys.stdin, asyncio.current_task().cancel)
        await serve(lambda port: print(port, flush=True))

    with suppress(asyncio.CancelledError):
        asyncio.run(main())
