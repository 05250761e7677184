"""Secrets appear nowhere: producer and market live through good and bad moments, and all that they left is searched."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
import structlog
from aiokafka import AIOKafkaConsumer
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import rest as market_rest
from deploy.local.kiwoom import serve
from producers.journal import Header, frames
from producers.journal import record as record_journal
from producers.kiwoom.client import Backoff
from producers.kiwoom.session import Timing
from producers.service import produce
from producers.settings import ConditionSource, KiwoomSettings
from streams import topics
from streams.events import HitstreamError

pytestmark = pytest.mark.kafka

APP_KEY, SECRET_KEY = "app-key-Vq7hT2", "secret-key-Zx93Lm"
QUICK = Timing(login_pause=0.0, send_spacing=0.0, clear_pause=0.01, goodbye_reply=0.2, login_deadline=1.0)
SOON = Backoff(first=0.02, most=0.1, closed=0.1)
FAULTS = (
    "quoting-refusals",
    "bad-token",
    "refuse-login",
    "other-ip",
    "wrong-environment",
    "login-unheard",
    "silent-login",
    "maintenance",
)
MOMENTS = ("token-expired", "close-abrupt", "garbage-frames", "heartbeat-lost", "token-expired", "close")


async def test_secrets_are_nowhere(broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    kafka = broker.address
    tokens: list[str] = []
    issue = market_rest.Tokens.issue

    def issued(self: Any, *args: Any, **options: Any) -> str:
        tokens.append(issue(self, *args, **options))
        return tokens[-1]

    monkeypatch.setattr(market_rest.Tokens, "issue", issued)
    caplog.set_level(0)
    printed = io.StringIO()
    errors: list[str] = []
    kept: dict[str, str] = {}
    with redirect_stdout(printed), redirect_stderr(printed), structlog.testing.capture_logs() as logged:
        await live_through(broker, tmp_path, errors, kept)
    journal = tmp_path / "day.zst"
    count = await record_journal(path=journal, first=Header(), bootstrap_servers=kafka)
    assert count > 20
    assert [frame async for frame in frames(kafka) if '"LOGIN","token":"***"' in frame.text]

    assert "LOGIN" in kept["control port"]
    assert "LOGIN" in kept["spool"]
    told = kept | {
        "logs": repr(logged) + caplog.text,
        "output": printed.getvalue(),
        "errors": "\n".join(errors),
        "metrics": prometheus_client.generate_latest().decode(),
    }
    told |= {topic.name: await content(kafka, topic.name) for topic in topics.ALL if not topic.name.count("state-")}
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        if path.stat().st_mode & 0o077 == 0 and "token" in path.name:
            continue  # the one place where a token belongs: a file for its owner only
        told[str(path)] = path.read_bytes().decode("latin-1")
    from producers.journal import Journal

    told["journal"] = "\n".join(frame.text for frame in Journal(journal))
    assert len(tokens) > 2
    assert logged
    for secret in (APP_KEY, SECRET_KEY, *tokens):
        assert [where for where, text in told.items() if secret in text] == []


async def live_through(broker: Any, folder: Path, errors: list[str], kept: dict[str, str]) -> None:
    """A good day with bad moments, an hour of it without Kafka, then a start with keys that are wrong.

    What only exists meanwhile – what the control port tells, what waits on the disk – is put into `kept`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    up = asyncio.Event()
    market = asyncio.create_task(
        serve(
            host="127.0.0.1",
            port=port,
            seed=1,
            clock=Clock(),
            state_dir=folder / "market",
            app_key=APP_KEY,
            secret_key=SECRET_KEY,
            ready=lambda why_not: up.set() if why_not is None else None,
        )
    )
    async with asyncio.timeout(100), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as local:
        await up.wait()
        words: list[str | None] = ["not started"]

        def producer(secret: str) -> asyncio.Task[None]:
            words[:] = ["not started"]
            return asyncio.create_task(
                produce(
                    kiwoom=KiwoomSettings(
                        rest_url=f"http://127.0.0.1:{port}",
                        websocket_url=f"ws://127.0.0.1:{port}/api/dostk/websocket",
                        app_key=SecretStr(APP_KEY),
                        secret_key=SecretStr(secret),
                        account="secrets",
                        hours="always",
                        state_dir=str(folder / "shared"),
                    ),
                    conditions=[ConditionSource(name="신고가 돌파")],
                    bootstrap_servers=broker.address,
                    now=lambda: datetime.now(UTC),
                    ready=words.append,
                    state_dir=folder / "producer",
                    timing=QUICK,
                    backoff=SOON,
                )
            )

        async def until(live: bool) -> None:
            while (words[-1] is None) != live:
                await asyncio.sleep(0.01)

        running = producer(SECRET_KEY)
        await until(True)
        for moment in MOMENTS:
            seen = len(words)
            await local.post("/local/faults", json={"name": moment})
            if moment not in ("token-expired", "garbage-frames"):
                while len(words) == seen:
                    await asyncio.sleep(0.01)
            await until(True)
        for fault in FAULTS:
            await local.post("/local/faults", json={"name": fault})
            await local.post("/local/faults", json={"name": "close-abrupt"})
            await until(False)
            await asyncio.sleep(0.1)
            await local.post("/local/faults", json={"clear": True})
            await until(True)
        kept["control port"] = await control_port(folder / "shared")
        await asyncio.to_thread(broker.stop)
        for fault in ("quoting-refusals", "token-expired"):
            await local.post("/local/faults", json={"name": fault})
            await local.post("/local/faults", json={"name": "close-abrupt"})
            await until(False)
            await local.post("/local/faults", json={"clear": True})
            await until(True)
        spool = folder / "producer"
        while (waiting := content_of(spool.rglob("*.spool"))).count("LOGIN") < 4:
            await asyncio.sleep(0.05)
        kept["spool"] = waiting
        await asyncio.to_thread(broker.start)
        while list(spool.rglob("*.spool")):
            await asyncio.sleep(0.05)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await local.post("/local/faults", json={"name": "token-expired"})
        refused = producer("wrong-" + SECRET_KEY)
        while not refused.done() and "8002" not in str(words) and len(words) < 40:
            await asyncio.sleep(0.01)
        refused.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await refused
            except HitstreamError as error:
                errors.append(str(error))
        errors += map(str, words)
        assert "8002" in str(errors), errors
        market.cancel()
        with suppress(asyncio.CancelledError):
            await market


async def control_port(shared: Path) -> str:
    """Every byte that a client is told who asks for all there is, and for what it may not have."""
    (found,) = shared.rglob("control-*.json")
    told = b""
    for lines, answers in ASKED:
        reader, writer = await asyncio.open_unix_connection(json.loads(found.read_bytes())["socket"])
        writer.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        while not all(answer in told for answer in answers):
            told += await reader.readline()
        writer.close()
    return told.decode()


ASKED = [
    ([{"ask": "status"}], [b'"view"']),
    (
        [{"ask": "attach"}, {"send": '{"trnm":"CNSRLST"}'}, {"send": '{"trnm":"LOGIN","token":"x"}'}],
        [b"cannot be sent", b'\\"CNSRLST\\",\\"return_code'],
    ),
]
"""What the control port is asked, and what has to be in its answers before it has told all."""


def content_of(paths: Iterable[Path]) -> str:
    """Everything in some files, as text."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.read_bytes().decode("latin-1"))
    return "".join(found)


async def content(kafka: str, topic: str) -> str:
    """Everything on a topic, as text."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        parts = [part async for part in _all(consumer)]
    finally:
        await consumer.stop()
    return b"\n".join(parts).decode("latin-1")


async def _all(consumer: AIOKafkaConsumer) -> Any:
    places = list(consumer.assignment())
    ends = await consumer.end_offsets(places)
    while any([await consumer.position(place) < ends[place] for place in places]):
        for messages in (await consumer.getmany(timeout_ms=500)).values():
            for message in messages:
                yield message.key or b""
                yield message.value or b""
