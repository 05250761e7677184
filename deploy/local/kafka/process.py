"""A server process that never outlives this one.

The child is its own session and process group, so that Ctrl-C reaches only us and we stop it in order. A shell in
that group holds the reading end of a pipe whose writing end is ours: when we are gone, however that happened, the
read ends and the shell ends the group. That works wherever there is a POSIX shell; nothing needs to be said to the
kernel, and no order of events leaves an orphan. What it cannot do: outlive a SIGKILL of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Final, Literal

# $1 is what the group is told first when we are gone; "$@" the command, which replaces the shell and keeps its pid.
_LEASH: Final = """
farewell=$1; shift
exec 3<&0 </dev/null
(
  trap '' TERM
  read -r _ <&3
  kill -s "$farewell" 0
  sleep 3
  kill -s KILL 0
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class Child:
    """A running child; made by `child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Return its exit status when it has ended (negative: the signal that ended it)."""
        return await self._process.wait()

    async def stop(self, grace: float) -> bool:
        """Ask it to end, and end it after `grace` seconds. True if it ended by itself."""
        in_order = True
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await self._process.wait()
            except TimeoutError:
                in_order = False
        self.kill()
        await self._process.wait()
        return in_order

    def kill(self) -> None:
        """End its whole group at once, the shell that watches over it included."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str | Path],
    *,
    log: Path,
    grace: float,
    cwd: Path | None = None,
    farewell: Literal["KILL", "TERM"] = "KILL",
    keep_open: Sequence[int] = (),
) -> AsyncIterator[Child]:
    """Run `command` until the block is left, then stop it within `grace` seconds.

    Args:
        log: file that takes what it prints, emptied first.
        farewell: first signal if we die without a word; KILL follows after 3 seconds.
        keep_open: file descriptors that the child inherits, so that a lock lasts as long as it does.
    """
    with log.open("wb") as output:
        process = await _spawn(command, output, cwd, farewell, keep_open)
    running = Child(process)
    try:
        yield running
    finally:
        # Shielded by doing it in a task that is awaited to its end: a second cancellation must not leave it running.
        stopping = asyncio.ensure_future(running.stop(grace))
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            running.kill()
            await stopping
            raise


async def _spawn(
    command: Sequence[str | Path], output: IO[bytes], cwd: Path | None, farewell: str, keep_open: Sequence[int]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        _LEASH,
        "leash",
        farewell,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=output,
        stderr=output,
        cwd=cwd,
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )


_FRAME: Final = re.compile(r"\s*at [\w.$/<>]+\(|\s*\.\.\. \d+ (more|common frames omitted)")
_CAUSE: Final = re.compile(r"\s*(Caused by: )?[\w.$]+(Exception|Error)\b|.*\b(ERROR|FATAL)\b")
_DRESS: Final = re.compile(r"^(\S+ \S+ (?:ERROR|FATAL) \S+ - )|^(?:Caused by: )?(?:[a-z_]\w*\.)+(?=[A-Z])")


def last_lines(log: Path, count: int = 3, since: int = 0) -> str:
    """What the end of a log says, as one line for an error message: what went wrong where it says so, no stack frames.

    Args:
        since: bytes of the log that are not of this run.
    """
    try:
        with log.open("rb") as file:
            file.seek(since if since <= file.seek(0, os.SEEK_END) else 0)  # shorter: begun anew meanwhile
            text = file.read().decode(errors="replace")
    except OSError:
        return "no log"
    lines = [line for line in text.splitlines() if line.strip() and not _FRAME.match(line)]
    causes = dict.fromkeys(_DRESS.sub("", line.strip()) for line in lines if _CAUSE.match(line))
    return " | ".join([*(causes or map(str.strip, lines))][-count:]) or "empty log"
