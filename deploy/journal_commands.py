"""`hitstream journal` and `hitstream replay`: raw frames into a file, and a file lived again.

The commands' own part only: arguments, signals, what is printed. Files are `producers.journal`'s business, what the
frames come to is `producers.replay`'s.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from streams.events import KST, ConfigError, Record

from . import logs
from .clock import Clock
from .settings import LogSettings, bootstrap_of

if TYPE_CHECKING:
    from .local.kiwoom.recorded import Tape

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]
Since = Annotated[datetime | None, Parameter(name="--since", help="Only from this moment on (KST unless it says).")]
Until = Annotated[datetime | None, Parameter(name="--until", help="Only what was before this moment.")]


def journal(
    file: Path,
    /,
    *,
    follow: Annotated[bool, Parameter(name="--follow", negative=())] = False,
    since: Since = None,
    until: Until = None,
    config: Config = None,
) -> int:
    """Record raw frames, as received and sent, from the `frames` topic into a compressed file.

    Parameters
    ----------
    file
        A file that does not exist yet: JSON lines in zstd, readable also while it is written, and after a crash.
    follow
        Go on with what is still to come, until Ctrl-C.
    """
    from producers import journal as journals

    from .up import beside

    logs.configure(LogSettings(), least="error")  # a broker that is tried in vain is told in one sentence
    settings = beside(config, "kafka.bootstrap_servers")
    first = journals.header(settings.kiwoom, settings.conditions, settings.clock.speed)
    told = [0]

    def report(count: int) -> None:
        told[0] = count
        if sys.stderr.isatty():
            print(f"\r{count:,} frames", end="", file=sys.stderr, flush=True)  # noqa: T201

    async def record() -> None:
        count = await journals.record(
            path=file,
            first=first,
            bootstrap_servers=bootstrap_of(settings),
            follow=follow,
            since=_aware(since),
            until=_aware(until),
            report=report,
        )
        report(count)

    stopped = _run(record())
    print(f"\r{told[0]:,} frames in {file}" + (" so far" if stopped else ""), file=sys.stderr)  # noqa: T201
    return 0 if follow or not stopped else 1


def replay(
    file: Path,
    /,
    *,
    speed: Annotated[float | None, Parameter(name="--speed")] = None,
    publish: Annotated[bool, Parameter(name="--publish", negative=())] = False,
    since: Since = None,
    until: Until = None,
    config: Config = None,
) -> int:
    """Feed a journal through the session again: the same hits, exits, snapshots and gaps, with the same identities.

    Parameters
    ----------
    file
        What `hitstream journal` has written.
    speed
        Seconds of the journal per second; without it, as fast as it goes.
    publish
        Publish the records to the configured Kafka, instead of printing them as JSON lines.
    """
    from producers import replay as replays
    from producers.journal import Journal

    from .up import beside

    if speed is not None and speed <= 0:
        raise ConfigError("--speed must be above 0.")
    settings = beside(config, "kafka.bootstrap_servers") if publish else beside(config)
    read = Journal(file)
    if not read.header.conditions:
        raise ConfigError(f"{file} was recorded with no conditions configured, so nothing can come of it.")
    run = replays.Replay(read.header)
    records = replays.replayed(_between(read, _aware(since), _aware(until)), run, speed)

    async def show(records: AsyncIterator[Record]) -> None:
        from streams.events import encode

        async for record in records:
            sys.stdout.buffer.write(encode(record) + b"\n")
            if speed is not None:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()

    try:
        stopped = _run(replays.publish(records, bootstrap_of(settings)) if publish else show(records))
    except BrokenPipeError:  # whoever read it has seen enough
        sys.stderr.close()
        return 0
    figures = run.figures
    said = f"{figures.records:,} records of {figures.frames:,} frames on {figures.connections:,} connections"
    remarks = {
        "frames are missing": figures.lost,
        "frames of connections whose beginning is missing": figures.skipped,
        "frames were too long and are cut": figures.cut,
        "sent frames differ": figures.unlike,
        "lines are no frames": read.unreadable,
    }
    said += "".join(f"; {count:,} {words}" for words, count in remarks.items() if count)
    print(said + ("; the file's end is torn" if read.torn else ""), file=sys.stderr)  # noqa: T201
    return 1 if stopped else 0


def tape_of(file: Path, speed: float) -> tuple[Tape, Clock]:
    """A journal for the local market to play, and a clock that begins when it does.

    Raises:
        ConfigError: there is no whole connection in it.
        JournalError: it cannot be read.
    """
    from producers.journal import Journal

    from .local.kiwoom.recorded import Tape

    tape = Tape(Journal(file), speed)
    if tape.begins is None:
        raise ConfigError(f"{file} has no connection from its beginning, so there is nothing to play.")
    clock = Clock(tape.begins, speed)
    print(  # noqa: T201
        f"{tape.connections} connection(s) from {tape.begins.astimezone(KST):%Y-%m-%d %H:%M:%S} KST. For the same hits,"
        f" let the producer's clock begin there:\n  HITSTREAM_CLOCK__START={tape.begins.astimezone(KST).isoformat()}"
        f" HITSTREAM_CLOCK__SPEED={speed:g}",
        file=sys.stderr,
    )
    return tape, clock


def _between(frames: Any, since: datetime | None, until: datetime | None) -> Iterator[Any]:
    return (f for f in frames if (since is None or f.at >= since) and (until is None or f.at < until))


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=KST) if moment is not None and moment.tzinfo is None else moment


def _run(work: Coroutine[Any, Any, object]) -> bool:
    """Run something until it ends or a signal comes; returns whether it was a signal."""

    async def main() -> bool:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    return asyncio.run(main())
