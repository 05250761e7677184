"""`conditions`, `search` and `doctor` against a local market: alone, and beside a running producer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import uuid
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from deploy.clock import Clock
from deploy.local.kiwoom import serve
from producers.control import look
from producers.kiwoom.lock import login_lock, state_folder
from producers.kiwoom.session import Timing
from producers.kiwoom.token import short_name
from producers.publisher import Publisher
from producers.service import produce
from producers.settings import ConditionSource, KiwoomSettings
from producers.spool import Spool, Spooled
from streams.events import KST

ROOT = Path(__file__).parents[2]
KEY, SECRET = "hush-app-key", "hush-secret-key"
NAME = "대왕개미단타"


@dataclass
class Market:
    """A running local market, and the commands as a person starts them against it."""

    port: int
    folder: Path
    http: httpx.AsyncClient

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HITSTREAM_KIWOOM__REST_URL": f"http://127.0.0.1:{self.port}",
            "HITSTREAM_KIWOOM__WEBSOCKET_URL": f"ws://127.0.0.1:{self.port}/api/dostk/websocket",
            "HITSTREAM_KIWOOM__APP_KEY": KEY,
            "HITSTREAM_KIWOOM__SECRET_KEY": SECRET,
            "HITSTREAM_KIWOOM__STATE_DIR": str(self.folder / "state"),
            "HITSTREAM_KIWOOM__HOURS": "always",
            "HITSTREAM_KIWOOM__LOGIN_PAUSE": "0.1",
            "HITSTREAM_CONDITIONS": json.dumps([{"name": NAME}], ensure_ascii=False),
        }

    @property
    def settings(self) -> KiwoomSettings:
        """What a producer beside the commands is given."""
        return KiwoomSettings(
            rest_url=self.environ["HITSTREAM_KIWOOM__REST_URL"],
            websocket_url=self.environ["HITSTREAM_KIWOOM__WEBSOCKET_URL"],
            app_key=SecretStr(KEY),
            secret_key=SecretStr(SECRET),
            state_dir=str(self.folder / "state"),
            account=f"a{uuid.uuid4().hex[:8]}",
            hours="always",
        )

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HITSTREAM_")}
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=self.folder,
            env=clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "LC_ALL": "C.UTF-8"} | self.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    async def fault(self, name: str, **options: Any) -> None:
        assert (await self.http.post("/local/faults", json={"name": name, **options})).status_code == 200

    def secrets(self) -> list[str]:
        tokens = [json.loads(file.read_text())["token"] for file in self.folder.rglob("token-*.json")]
        assert tokens
        return [KEY, SECRET, *tokens]


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    up = asyncio.Event()
    task = asyncio.create_task(
        serve(
            host="127.0.0.1",
            port=port,
            seed=7,
            clock=Clock(datetime(2026, 3, 9, 10, 0, tzinfo=KST), 30.0),
            state_dir=None,
            ping_interval=0.5,
            ready=lambda why: up.set() if why is None else None,
            app_key=KEY,
            secret_key=SECRET,
        )
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            async with asyncio.timeout(60):
                await up.wait()
            yield Market(port, tmp_path, http)
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def test_the_commands_log_in_by_themselves_and_show_no_secret(market: Market) -> None:
    listed = await market.run("conditions", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)["conditions"]
    assert [row["name"] for row in rows if row["configured"]] == [NAME]
    assert len(rows) == 8
    found = await market.run("search", NAME, "--json")
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["source"] == "search"
    assert all(row["price"] for row in result["rows"])
    table = await market.run("search", NAME)
    assert "rate %" in table.stdout
    missing = await market.run("search", "없는 조건")
    assert (missing.returncode, "없는 조건" in missing.stderr) == (1, True)
    diagnosis = await market.run("doctor", "--json", "--trace", "--bundle", "evidence.zip", "--observe", "5")
    told = json.loads(diagnosis.stdout)
    assert (told["cause"], told["stranded"], diagnosis.returncode) == ("healthy", None, 0)
    assert any('"LOGIN","token":"***"' in frame["text"] for frame in told["frames"])
    printed = [done.stdout + done.stderr for done in (listed, found, table, missing, diagnosis)]
    with zipfile.ZipFile(market.folder / "evidence.zip") as bundle:
        assert set(bundle.namelist()) == {"verdict.txt", "examination.json", "frames.jsonl", "about.json"}
        printed += [bundle.read(name).decode() for name in bundle.namelist()]
    for secret in market.secrets():
        assert not [text for text in printed if secret in text]


async def test_a_refused_key_is_named_without_being_told(market: Market) -> None:
    await market.fault("wrong-app-key")
    done = await market.run("doctor", "--trace")
    assert done.returncode == 1
    assert "Key or token refused – proved  [token-refused" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


async def test_nobody_logs_in_beside_a_process_that_holds_the_key(market: Market) -> None:
    folder = state_folder(str(market.folder / "state"), market.environ["HITSTREAM_KIWOOM__WEBSOCKET_URL"])
    with login_lock(folder, short_name(KEY), "another program"):
        for command in (["conditions"], ["search", NAME], ["doctor"]):
            done = await market.run(*command)
            assert (done.returncode, "another program" in done.stderr) == (1, True), done.stderr
    assert (await market.http.get("/local/state")).json()["sessions"] == []


@contextlib.asynccontextmanager
async def producing(kiwoom: KiwoomSettings, kafka: str, folder: Path) -> AsyncIterator[list[str | None]]:
    """A producer beside the commands, ready; what it says of its readiness."""
    words: list[str | None] = []
    task = asyncio.create_task(
        produce(
            kiwoom=kiwoom,
            conditions=[ConditionSource(name=NAME)],
            bootstrap_servers=kafka,
            now=lambda: datetime.now(UTC),
            ready=words.append,
            state_dir=folder,
            timing=Timing(login_pause=0.05, send_spacing=0.02),
        )
    )
    try:
        async with asyncio.timeout(60):
            while not words or words[-1] is not None:
                assert not task.done()
                await asyncio.sleep(0.05)
        yield words
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,), timeout=60)


@pytest.mark.kafka
async def test_beside_a_running_producer_its_session_is_used_and_not_taken(market: Market, kafka: str) -> None:
    async with producing(market.settings, kafka, market.folder / "producer") as words:
        (before,) = (await market.http.get("/local/state")).json()["sessions"]
        gaps = REGISTRY.get_sample_value("hitstream_producer_gaps_total", {"condition": NAME}) or 0
        diagnosis = await market.run("doctor", "--json", "--trace", "--bundle", "beside.zip", "--observe", "5")
        told = json.loads(diagnosis.stdout)
        assert (told["cause"], told["borrowed"], told["stranded"]) == ("healthy", True, 0), told
        with zipfile.ZipFile(market.folder / "beside.zip") as bundle:
            printed = [diagnosis.stdout, diagnosis.stderr, *(bundle.read(n).decode() for n in bundle.namelist())]
        assert any("LOGIN" in text for text in printed)
        for secret in market.secrets():
            assert not [text for text in printed if secret in text]
        assert (await market.run("conditions")).returncode == 0
        assert json.loads((await market.run("search", NAME, "--json")).stdout)["source"] == "search"
        await market.fault("silent-search")
        assert json.loads((await market.run("search", NAME, "--json")).stdout)["source"] == "snapshot"
        (after,) = (await market.http.get("/local/state")).json()["sessions"]
        assert after["session"] == before["session"]
        assert after["conditions"] == before["conditions"]
        assert words[-1] is None
        await market.fault("silent-search", on=False)
        await market.fault("no-search-while-live")
        sure = await market.run("doctor", "--fresh", "--lang", "ko")
        assert "실시간 중 단건 조회 불가 – 확인됨  [search-while-live (#9)" in sure.stdout, sure.stdout
        async with asyncio.timeout(60):
            while words[-1] is not None:
                await asyncio.sleep(0.05)
        (anew,) = (await market.http.get("/local/state")).json()["sessions"]
        assert anew["session"] != before["session"]
        assert anew["conditions"] == before["conditions"]
        assert REGISTRY.get_sample_value("hitstream_producer_gaps_total", {"condition": NAME}) == gaps + 1
        await market.fault("displaced")
        async with asyncio.timeout(60):
            while words[-1] is None:
                await asyncio.sleep(0.05)
        displaced = await market.run("doctor", "--json")
        assert json.loads(displaced.stdout)["cause"] == "displaced", displaced.stdout


async def test_a_good_verdict_names_the_records_that_a_dead_kafka_does_not_take(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kiwoom's side works, and nothing arrives: whoever asks at 08:59 has to read both."""
    monkeypatch.setattr(Publisher, "check", functools.partialmethod(Publisher.check, within=0.3))
    kiwoom, key = market.settings, short_name(KEY)
    spool = Spool(market.folder / "producer" / f"spool-{kiwoom.account}-{key}", limit=1 << 20)
    spool.append(Spooled("hitstream.status", b"k", b"{}", 0.0))
    spool.close()
    async with producing(kiwoom, "127.0.0.1:9", market.folder / "producer"):
        async with asyncio.timeout(60):
            shared = state_folder(kiwoom.state_dir, kiwoom.websocket_url)
            while not (await look(shared, key)).stranded:
                await asyncio.sleep(0.05)
        shown = await market.run("doctor", "--observe", "5", "--lang", "en")
        assert ("✓ Kiwoom's side works" in shown.stdout, shown.returncode) == (True, 0), shown.stdout
        assert "records wait on the disk for Kafka, which takes none: `hitstream status` says more" in shown.stdout
