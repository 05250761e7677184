"""One way of bringing frames from a WebSocket to Kafka, as a process: the contestants of `bench_ingest`.

`ingest.py CONTESTANT FEED-PORT KAFKA SHAPE COUNT RATE`. Each connects to the feed, gets Kafka ready, lets the feed go,
and ends once Kafka has acknowledged (`acks=all`, idempotent) what the frames lead to:

- `limit-frame`: `recv`, then `send` of the frame's bytes – one record a frame, nothing between;
- `limit-same`: `recv`, then `send` of two ready-made records as long as those that Hitstream makes of the frame;
- `hitstream`: the producer role as `hitstream produce` runs it, the journal of raw frames on, as it is by default;
- `hitstream-no-journal`: the same with `kiwoom.journal = false`;
- `peer`: kiwoom-client's receive path, a dict, `json.dumps`, `send`, all futures awaited at the end (runs in the peers'
  environment); `peer-awaits`: as one writes it first, each hit awaited until Kafka has it.

`HITSTREAM_TEST_PROFILE=FILE` has py-spy write the stacks between `go` and the last acknowledgement there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import PEERS, tell

TOPIC, FRAMES = "hitstream.condition-events", "hitstream.frames"
_SETTLE = 0.3
_IDLE = 2.2  # until the second in which the session joined is over, after which entries need no confirmation


class Run:
    """One run: what was used from `go` until the last acknowledgement."""

    def __init__(self, arguments: list[str]) -> None:
        self.name, port, self.kafka, self.shape, count, self.rate = arguments
        self.port, self.count = int(port), int(count)
        self.hits = {"hits": self.count, "mixed": self.count // 10, "burst": self.count * 10}[self.shape]
        self.written = 0.0
        self._profiler: asyncio.subprocess.Process | None = None

    async def go(self) -> None:
        """Have the feed write; this returns at once."""
        if file := os.environ.get("HITSTREAM_TEST_PROFILE"):
            self._profiler = await asyncio.create_subprocess_exec(
                PEERS.with_name("py-spy"), "record", "-p", str(os.getpid()), "-r", "500", "-f", "raw", "-o", file,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            await asyncio.sleep(1.0)
        self._writing = asyncio.create_task(asyncio.to_thread(self._write))
        self._cpu, self._began = time.process_time(), time.monotonic()

    def _write(self) -> None:
        address = f"http://127.0.0.1:{self.port}/go?count={self.count}&shape={self.shape}&rate={self.rate}"
        with urllib.request.urlopen(address) as answer:
            reply = json.load(answer)
        self._began, self.written = reply["began"], reply["written"]

    async def done(self) -> None:
        """Everything is acknowledged: say what it took."""
        ended, cpu = time.monotonic(), time.process_time() - self._cpu
        await self._writing
        if self._profiler is not None:
            self._profiler.send_signal(signal.SIGINT)
            await self._profiler.wait()
        seconds = ended - self._began
        tell(**{
            "frames/s": self.count / seconds,
            "CPU ms / 1,000 frames": 1e6 * cpu / self.count,
            "of one core %": 100 * cpu / seconds,
        })  # fmt: skip


def producer(kafka: str, linger_ms: int = 5) -> Any:
    """The producer of limit and peer, with the settings that serve it best at what ours promises."""
    from aiokafka import AIOKafkaProducer

    return AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, linger_ms=linger_ms, max_batch_size=256 * 1024
    )


async def limit(run: Run, lengths: tuple[int, ...]) -> None:
    """Nothing between `recv` and `send`. `lengths` are those of the records to be sent; 0 is the frame itself."""
    from websockets.asyncio.client import connect

    topics, made = (TOPIC, FRAMES), [b"x" * length for length in lengths]
    keys = [f"main/condition {n}".encode() for n in range(8)]
    async with (
        connect(f"ws://127.0.0.1:{run.port}/", ping_interval=None, compression=None) as socket,
        producer(run.kafka) as kafka,
    ):
        await asyncio.sleep(_SETTLE)
        await run.go()
        sent = []
        for number in range(run.count):
            frame = await socket.recv(decode=False)
            for topic, value in zip(topics, made or [frame], strict=False):
                sent.append(
                    await kafka.send(topic, value, keys[number // 2000 % 8] if topic == TOPIC else b"connection")
                )
        await asyncio.gather(*sent)
        await run.done()


async def peer(run: Run, *, awaits: bool) -> None:
    """What somebody writes who has kiwoom-client and aiokafka."""
    from kiwoom_client.websocket import KiwoomWebSocket

    sent: list[Any] = []
    client = KiwoomWebSocket("token", ws_url=f"ws://127.0.0.1:{run.port}/")
    # Who waits for each acknowledgement has nothing to gain from lingering.
    async with producer(run.kafka, linger_ms=0 if awaits else 5) as kafka:

        async def hit(entry: dict[str, Any]) -> None:
            values = entry["values"]
            event = {
                "condition": values["841"],
                "code": values["9001"],
                "action": "hit" if values["843"] == "I" else "exit",
                "time": values["20"],
                "received_at": datetime.now(UTC).isoformat(),
            }
            future = await kafka.send(TOPIC, json.dumps(event).encode(), f"main/{values['841']}".encode())
            if awaits:
                await future
            sent.append(future)

        client.on("02", hit)
        await client.connect()
        listening = asyncio.create_task(client.listen())
        await asyncio.sleep(_SETTLE)
        await run.go()
        while len(sent) < run.hits:
            await asyncio.sleep(0.005)
        await asyncio.gather(*sent)
        await run.done()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


async def hitstream(run: Run, *, journal: bool) -> None:
    """The producer role. What Kafka has acknowledged is told by the role's own counters."""
    from feed import CONDITIONS

    from deploy import logs
    from deploy.settings import LogSettings
    from producers import metrics
    from producers.service import produce
    from producers.settings import ConditionSource, KiwoomSettings

    logs.configure(LogSettings(level="error"))

    def acknowledged(topic: str) -> float:
        return metrics.PUBLISHED.labels(topic)._value.get()

    with tempfile.TemporaryDirectory() as folder:
        settings = KiwoomSettings(
            rest_url=f"http://127.0.0.1:{run.port}",
            websocket_url=f"ws://127.0.0.1:{run.port}/",
            app_key="key",
            secret_key="secret",
            hours="always",
            state_dir=folder,
            login_pause=0.01,
            send_spacing=0.01,
            journal=journal,
        )
        live = asyncio.Event()
        role = asyncio.create_task(
            produce(
                kiwoom=settings,
                conditions=[ConditionSource(name=name) for name in CONDITIONS],
                bootstrap_servers=run.kafka,
                now=lambda: datetime.now(UTC),
                ready=lambda reason: live.set() if reason is None else None,
                state_dir=Path(folder),
            )
        )
        waiting = asyncio.create_task(live.wait())
        await asyncio.wait({role, waiting}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(_IDLE)
        events, frames = acknowledged(TOPIC) + run.hits, acknowledged(FRAMES) + run.count
        await run.go()
        while not role.done() and (acknowledged(TOPIC) < events or (journal and acknowledged(FRAMES) < frames)):
            await asyncio.sleep(0.005)
        if not role.done():
            await run.done()
            role.cancel()
        with suppress(asyncio.CancelledError):
            await role


async def main() -> None:
    run = Run(sys.argv[1:])
    match run.name:
        case "limit-frame":
            await limit(run, ())
        case "limit-same":
            await limit(run, (400, 330))
        case "peer" | "peer-awaits":
            await peer(run, awaits=run.name == "peer-awaits")
        case "hitstream":
            await hitstream(run, journal=True)
        case "hitstream-no-journal":
            await hitstream(run, journal=False)


if __name__ == "__main__":
    asyncio.run(main())
