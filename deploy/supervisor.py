"""Start the roles as child processes, restart one that dies, and stop them all in order.

A child runs in a process group of its own, so that Ctrl-C on the terminal reaches the supervisor alone and the stop
happens in order. Each child holds the reading end of a pipe (`LIFELINE`) whose writing end only the supervisor has:
however the supervisor dies, the children see the end of that pipe and leave. Each child also answers its health
questions on a socket that the supervisor listens on and hands over, so that no port can be lost to another program
between two starts.

What a child prints goes to its log file; warnings and errors are shown too, with the child's name before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx
from rich.markup import escape

from streams.events import HitstreamError

from .lifeline import HEALTH, LIFELINE

NO_ANSWER: Final = "does not answer"
_BACKOFF: Final = (0.5, 15.0)
_PROVED: Final = 60.0
_LOG_BYTES: Final = 10_000_000

Say = Callable[[str], None]


class RoleFailed(HitstreamError):
    """A role ended and a restart would not help; the sentence is what the role said last."""

    def __init__(self, name: str, code: int, words: str) -> None:
        super().__init__(words.removeprefix(f"hitstream {name}: ") or f"{name} ended with exit code {code}.")
        self.code = code


class Child:
    """One role's process.

    Args:
        name: what it is called in messages.
        command: the command line.
        environment: the whole environment of the process.
        log: file that takes what it prints; the one before is kept as `….1`.
        say: prints one line for the person at the terminal.
        spoken: whether what it prints on stdout is for that person too.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: dict[str, str],
        log: Path,
        say: Say,
        *,
        spoken: bool = False,
    ) -> None:
        self.name = name
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.health = int(self._listening.getsockname()[1])
        self.restarts = 0
        self.ready = asyncio.Event()
        self.last_words = ""
        self._command = command
        self._environment = environment
        self._log = log
        self._say = say
        self._spoken = spoken
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self, *, once_ready: bool = False) -> None:
        """Keep the process running until it is stopped.

        Args:
            once_ready: a failure before it has ever been ready is final (a local server whose port is taken).

        Raises:
            RoleFailed: it was called wrongly, or `once_ready` applies.
        """
        with self._listening:
            await self._restart(once_ready=once_ready)

    async def wait_ready(self, client: httpx.AsyncClient) -> None:
        """Return when the process has answered `/readyz` with 200."""
        while not self.ready.is_set():
            if await self.readiness(client) is None:
                self.ready.set()
            else:
                await asyncio.sleep(0.05)

    async def readiness(self, client: httpx.AsyncClient) -> str | None:
        """None if the process says that it is ready, else why not."""
        if self.pid is None:
            return "not running"
        try:
            answer = await client.get(f"http://127.0.0.1:{self.health}/readyz", timeout=2.0)
        except httpx.HTTPError:
            return NO_ANSWER
        return None if answer.status_code == 200 else answer.text.strip()

    def kill(self) -> None:
        """End the process, however little it does; `run` starts it again."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """Ask the process to leave, and end it (and its process group) when `grace` seconds are over."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            self._say(f"[yellow]{self.name} did not stop within {grace:.0f} s and was killed[/]")
            self.kill()
            await process.wait()

    async def _restart(self, *, once_ready: bool) -> None:
        delay = _BACKOFF[0]
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if code == 2 or (once_ready and not self.ready.is_set()):
                raise RoleFailed(self.name, code, self.last_words)
            if time.monotonic() - started > _PROVED:
                delay = _BACKOFF[0]
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            words = f" – {escape(self.last_words.removeprefix(f'hitstream {self.name}: '))}" if code == 1 else ""
            self._say(f"[yellow]{self.name} {how}{words}; it starts again in {delay:.1f} s[/]")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                return
            delay = min(delay * 2, _BACKOFF[1])
            self.restarts += 1

    async def _run_once(self) -> int:
        self.last_words = ""
        lifeline, held = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment | {LIFELINE: str(lifeline), HEALTH: str(self._listening.fileno())},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=(lifeline, self._listening.fileno()),
            )
            os.close(lifeline)
            if self._stopping.is_set():  # asked while it was being started
                self.kill()
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(self._process.stdout, spoken=self._spoken))
                group.create_task(self._pump(self._process.stderr, spoken=False))
            return await self._process.wait()
        finally:
            os.close(held)

    async def _pump(self, stream: asyncio.StreamReader, *, spoken: bool) -> None:
        """Copy lines to the log file, and what a person should see to the terminal."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the reader's limit: its parts are dropped, the pipe stays open
                continue
            if not line:
                return
            self._write(line)
            text = line.decode(errors="replace").rstrip()
            if text:
                self.last_words = text
            if spoken:
                self._say(f"[dim]{self.name}: {escape(text)}[/]")
            elif "[warning" in text or "[error" in text or "[critical" in text:
                self._say(f"[yellow]{self.name}[/] {escape(text)}")

    def _write(self, line: bytes) -> None:
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as file:
            file.write(line)
