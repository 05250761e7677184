"""Run one role in the foreground: its log, its health port, its signals, its exit code.

SIGINT and SIGTERM cancel the role, which then has `GRACE` seconds to leave in order. What is wrong is said in one
sentence on stderr; the exit code is 0 (stopped), 1 (failed) or 2 (called wrongly).
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from streams.events import ConfigError, HitstreamError
from streams.tasks import told

from . import logs
from .clock import clock_of
from .health import Health
from .lifeline import handed_over
from .reporter import Kind, Reporter, instance
from .settings import Settings

GRACE = 8.0
_M_ARENA_MAX = -8  # glibc's malloc.h

Ready = Callable[[str | None], None]


def run(
    name: str,
    settings: Settings,
    role: Callable[[Ready], Coroutine[Any, Any, None]],
    kind: Kind | None = None,
    *,
    fast: bool = False,
) -> int:
    """Run `role` until it ends or a signal comes.

    Args:
        name: the role's name, for its log lines.
        role: makes the coroutine, given the callable with which it says that it is ready.
        kind: as what its status is told to others; None where it tells that itself, or nobody asks.
        fast: on uvloop, where it is to be had.

    Returns:
        the exit code.
    """
    faulthandler.enable()
    _keep_memory_together()
    logs.configure(settings.log)
    structlog.contextvars.bind_contextvars(role=name)
    try:
        health = Health(settings.health.port, handed_over())
    except HitstreamError as error:
        return fail(name, error)
    watchdog = _Watchdog(name)
    try:
        new_loop = _fast_loop if fast else None
        with _reported(role, health, settings, kind) as work, asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_until_signalled(work, watchdog))
    except HitstreamError as error:
        return fail(name, error)
    except BaseExceptionGroup as group:
        return fail(name, first(group))
    finally:
        watchdog.cancel()
        health.close()
    return 0


def _keep_memory_together() -> None:
    """Have glibc take memory from two arenas instead of eight for each core.

    A role computes in one thread; what its others (health, files, requests to ClickHouse) free in arenas of their own
    stays with the process and is not used again.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


@contextmanager
def _reported(
    role: Callable[[Ready], Coroutine[Any, Any, None]], health: Health, settings: Settings, kind: Kind | None
) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
    """The role's work, with a reporter beside it."""
    if kind is None:
        yield lambda: told(role(health.ready))
        return
    clock = clock_of(settings)
    with instance(kind.role, settings.health.instance) as name:

        async def work() -> None:
            reporter = Reporter(
                kind,
                name,
                bootstrap_servers=settings.kafka.bootstrap_servers,
                now=clock.now,
                speed=settings.clock.speed,
            )

            def ready(reason: str | None) -> None:
                health.ready(reason)
                reporter.ready(reason)

            await reporter.beside(told(role(ready)))

        yield work


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


def _fast_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Watchdog:
    """Ends the process when a role that is to leave does not: its supervisor must not wait for it for ever.

    A role may have ended and still not be gone: tasks that swallow their cancellation keep the event loop open.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._timer: threading.Timer | None = None

    def start(self, error: BaseException | None = None) -> None:
        """Give it `GRACE` seconds from now; `error` is what it ended with, to be said before it is ended."""
        self.cancel()
        self._timer = threading.Timer(GRACE, self._end, args=(error,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _end(self, error: BaseException | None) -> None:
        code = 1
        if isinstance(error, BaseExceptionGroup):
            error = first(error)
        if isinstance(error, HitstreamError):
            code = fail(self._name, error)
        os._exit(code)


async def _until_signalled(role: Callable[[], Coroutine[Any, Any, None]], watchdog: _Watchdog) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(role(), name="role")

    def stop() -> None:
        if not task.cancelling():
            watchdog.start()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    except Exception as error:
        watchdog.start(error)
        raise
