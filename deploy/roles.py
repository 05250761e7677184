"""Run one role in the foreground: its log, its health port, its signals, its exit code.

SIGINT and SIGTERM cancel the role, which then has `GRACE` seconds to leave in order. What is wrong is said in one
sentence on stderr; the exit code is 0 (stopped), 1 (failed) or 2 (called wrongly).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from streams.events import ConfigError, HitstreamError

from . import logs
from .health import Health
from .settings import Settings
from .supervisor import handed_over

GRACE = 8.0

Ready = Callable[[str | None], None]


def run(name: str, settings: Settings, role: Callable[[Ready], Coroutine[Any, Any, None]]) -> int:
    """Run `role` until it ends or a signal comes.

    Args:
        name: the role's name, for its log lines.
        role: makes the coroutine, given the callable with which it says that it is ready.

    Returns:
        the exit code.
    """
    logs.configure(settings.log)
    structlog.contextvars.bind_contextvars(role=name)
    try:
        health = Health(settings.health.port, handed_over())
    except HitstreamError as error:
        return fail(name, error)
    try:
        asyncio.run(_until_signalled(role(health.ready)))
    except HitstreamError as error:
        return fail(name, error)
    except BaseExceptionGroup as group:
        return fail(name, first(group))
    finally:
        health.close()
    return 0


def fail(name: str, error: HitstreamError) -> int:
    """Say in one line what is wrong; returns the exit code that goes with it."""
    print(f"hitstream {name}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return 2 if isinstance(error, ConfigError) else 1


def first(group: BaseExceptionGroup[BaseException]) -> HitstreamError:
    """The first of our own errors in a group; a group that holds any other error is a bug and is raised as it is."""
    ours, others = group.split(HitstreamError)
    if others or ours is None:
        raise group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, HitstreamError)
    return error


async def _until_signalled(role: Awaitable[None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(role)

    def stop() -> None:
        if not task.cancelling():
            # A role that does not leave is left: its supervisor must not wait for it for ever.
            watchdog = threading.Timer(GRACE, os._exit, args=(1,))
            watchdog.daemon = True
            watchdog.start()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
