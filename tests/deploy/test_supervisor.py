"""The supervisor restarts what dies, gives up on what is called wrongly, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psutil
import pytest

from deploy import lifeline
from deploy.supervisor import Child, RoleFailed

ROOT = Path(__file__).parents[2]

# A role: answers /readyz, and leaves on SIGTERM; {extra} runs first.
ROLE = """
import signal, sys, time
from deploy.health import Health
from deploy.lifeline import handed_over, watch_lifeline
watch_lifeline()
{extra}
health = Health(0, handed_over())
health.ready(None)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(600)
"""


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Made:
    """A child running `ROLE`, and what was said of it."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.said: list[str] = []
        self.child = Child(
            "role",
            [sys.executable, "-c", ROLE.format(extra=extra)],
            os.environ | {"PYTHONPATH": str(ROOT)},
            folder / "role.log",
            self.said.append,
        )


@contextlib.asynccontextmanager
async def running(made: Made) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
        group.create_task(made.child.run())
        async with asyncio.timeout(60):
            await made.child.wait_ready(client)
        yield
        await made.child.stop(60.0)


async def test_a_killed_role_is_restarted_and_said_so(tmp_path: Path) -> None:
    made = Made(tmp_path)
    async with running(made):
        first = made.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: made.child.pid not in (None, first))
    assert made.child.restarts == 1
    assert ["was killed by SIGKILL" in line for line in made.said] == [True]
    assert made.child.pid is None


async def test_warnings_are_shown_and_everything_is_logged(tmp_path: Path) -> None:
    extra = "print('quiet', flush=True); print('[warning] loud', file=sys.stderr, flush=True)"
    made = Made(tmp_path, extra)
    async with running(made):
        await until(lambda: bool(made.said))
    assert (tmp_path / "role.log").read_text().splitlines() == ["quiet", "[warning] loud"] or (
        sorted((tmp_path / "role.log").read_text().splitlines()) == ["[warning] loud", "quiet"]
    )
    assert [line.endswith("[warning] loud") for line in made.said] == [True]


async def test_a_role_that_is_called_wrongly_is_not_restarted(tmp_path: Path) -> None:
    made = Made(tmp_path, "print('hitstream role: no such key.', file=sys.stderr); sys.exit(2)")
    with pytest.raises(RoleFailed, match=r"^no such key\.$") as error:
        await made.child.run()
    assert error.value.code == 2


async def test_a_server_that_never_came_up_is_not_restarted(tmp_path: Path) -> None:
    made = Made(tmp_path, "sys.exit(1)")
    with pytest.raises(RoleFailed):
        await made.child.run(once_ready=True)


async def test_a_role_that_ignores_the_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path, "signal.signal = lambda *_: None; __import__('_signal').signal(15, lambda *_: None)")
    async with running(made):
        pid = made.child.pid
        await made.child.stop(0.3)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert "was killed" in made.said[-1]


async def test_a_role_that_is_stopped_between_two_starts_does_not_start_again(tmp_path: Path) -> None:
    made = Made(tmp_path, "sys.exit(1)")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(made.child.run())
        await until(lambda: any("starts again" in line for line in made.said))
        await made.child.stop(60.0)
    assert made.child.pid is None
    assert made.child.restarts == 0


async def test_a_line_without_end_does_not_block_the_role(tmp_path: Path) -> None:
    made = Made(tmp_path, "print('x' * 1_000_000, flush=True); print('[error] after', flush=True)")
    async with running(made):
        await until(lambda: bool(made.said))
    assert made.said[-1].endswith("[error] after")


def test_children_leave_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the supervisor no time to stop anything: the end of the lifeline does it."""
    script = f"""
import asyncio, os, sys
from pathlib import Path
import httpx
from deploy.supervisor import Child
async def main():
    child = Child("role", [sys.executable, "-c", {ROLE.format(extra="")!r}], dict(os.environ),
                  Path({str(tmp_path / "role.log")!r}), print)
    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
        group.create_task(child.run())
        await child.wait_ready(client)
        print(child.pid, flush=True)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert child.wait(timeout=60) in (0, None)


def test_the_lifeline_is_nothing_without_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.LIFELINE, raising=False)
    lifeline.watch_lifeline()
