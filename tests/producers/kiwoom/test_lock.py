"""What the processes of one app key share: the right to log in, and the token."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from producers.kiwoom.errors import Unreachable
from producers.kiwoom.lock import KeyInUse, alone, login_lock, state_folder
from producers.kiwoom.token import Tokens

URL = "wss://api.kiwoom.com:10000/api/dostk/websocket"


def test_the_folder_is_per_server_and_where_programs_keep_their_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_folder("", URL) == Path("/state/hitstream/api.kiwoom.com-10000")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert state_folder("", URL) == Path("/home/x/.local/state/hitstream/api.kiwoom.com-10000")
    assert state_folder("/own", "ws://u:p@127.0.0.1:10001/x") == Path("/own/127.0.0.1-10001")


def test_a_second_login_is_told_who_has_the_key(tmp_path: Path) -> None:
    with login_lock(tmp_path, "abcd", "hitstream produce"):
        says = rf"process {os.getpid()} \(hitstream produce, since \d\d-\d\d \d\d:\d\d KST\) is logged in"
        with pytest.raises(KeyInUse, match=says), login_lock(tmp_path, "abcd"):
            pass
        with login_lock(tmp_path, "another key"):
            pass
    with login_lock(tmp_path, "abcd"):
        pass


def test_a_process_that_is_killed_leaves_the_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from producers.kiwoom.lock import login_lock\n"
        f"with login_lock(Path({str(tmp_path)!r}), 'k'):\n    print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(KeyInUse, match=f"process {child.pid}"), login_lock(tmp_path, "k"):
            pass
        child.kill()
        child.wait()
    with login_lock(tmp_path, "k"):
        pass


async def test_a_lock_that_is_never_freed_is_not_waited_for(tmp_path: Path) -> None:
    async with alone(tmp_path / "x.lock", within=1):
        with pytest.raises(Unreachable, match=r"x\.lock"):
            async with alone(tmp_path / "x.lock", within=0.1):
                pass


async def test_processes_that_need_a_token_at_once_ask_for_one(tmp_path: Path) -> None:
    asked = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return httpx.Response(200, json={"return_code": 0, "token": f"T{asked}", "expires_dt": "20991231000000"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        sources = [
            Tokens(
                http,
                rest_url="https://kiwoom.test",
                app_key=SecretStr("key"),
                secret_key=SecretStr("secret"),
                now=lambda: datetime(2026, 11, 23, tzinfo=UTC),
                folder=tmp_path,
            )
            for _ in range(5)
        ]
        assert set(await asyncio.gather(*(source.get() for source in sources))) == {"T1"}
        # One of them finds out that Kiwoom no longer takes it: the others get the new one without asking.
        sources[0].discard("T1")
        assert await sources[0].get() == "T2"
        sources[1].discard("T1")
        assert await sources[1].get() == "T2"
    assert asked == 2
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
