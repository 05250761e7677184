"""A role ends when it is told to, and any other end is a failure that its supervisor sees."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_ROLE = """
import asyncio, sys
from deploy import roles
from deploy.settings import load

async def cancelled_by_what_it_awaits(ready):
    other = asyncio.create_task(asyncio.sleep(60))
    other.cancel()
    await other

async def told(ready):
    print("ready", flush=True)
    await asyncio.Event().wait()

sys.exit(roles.run("sink", load(None), {role}))
"""


def test_one_that_is_cancelled_by_what_it_awaits_has_failed() -> None:
    """With exit code 0 nobody would start it again."""
    program = _ROLE.format(role="cancelled_by_what_it_awaits")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "hitstream sink: role was cancelled by something it waited for" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_told_to_end_has_not(number: signal.Signals) -> None:
    program = [sys.executable, "-c", _ROLE.format(role="told")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(number)
        assert running.wait(60) == 0
