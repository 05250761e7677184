"""`hitstream status`: what every component last said of itself, and how long ago.

Read from the `status` topic and from nothing else, so it works wherever Kafka can be reached. Words are chosen with
care: a *quiet* subscription is live and has nothing to say; a *silent* component has stopped saying how it is, which
is how a dead one looks from here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from cyclopts import Parameter

from streams import topics
from streams.events import HitstreamError, Status

from .clock import Clock

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]

SILENT_AFTER: Final = 20.0
"""Real seconds without a word after which a component counts as silent; each says how it is every five."""

QUIET_AFTER: Final = 60.0
"""Seconds of the market's clock without a hit or exit after which a live subscription is called quiet."""

FORGOTTEN_AFTER: Final = timedelta(days=1)

_FINE: Final = {
    "session": {"live", "resting"},
    "subscription": {"live", "resting"},
    "worker": {"working"},
    "sink": {"working", "live"},
    "diagnosis": {"healthy", "quiet", "ready", "scheduled", "running", "done"},
}


class Line(NamedTuple):
    """One component, judged."""

    status: Status
    word: str
    age: float
    fine: bool


def judge(statuses: Iterable[Status], now: datetime, speed: float = 1.0) -> list[Line]:
    """What each component is, at a moment.

    Args:
        now: of the product's clock; `speed` its seconds per real second.

    A standby's trouble is nobody's trouble: where one of several producers of a condition is live, the condition is;
    where one of several processes of a role works, the role does.
    """
    lines: list[Line] = []
    for status in statuses:
        age = max(0.0, (now - status.at).total_seconds() / speed)
        if now - status.at > FORGOTTEN_AFTER and age > SILENT_AFTER:
            continue
        word = status.state
        fine = status.state in _FINE.get(status.kind, set())
        if status.kind == "diagnosis":
            pass  # It says how it is only when it runs.
        elif age > SILENT_AFTER and status.cause != "stopped":
            word, fine = "silent", False
        elif (
            status.kind == "subscription" and status.state == "live" and status.figures.get("quiet", 0.0) > QUIET_AFTER
        ):
            word = "quiet"
        lines.append(Line(status, word, age, fine))
    covered = {_what(line.status) for line in lines if line.fine}
    return [line._replace(fine=line.fine or _what(line.status) in covered) for line in lines]


def _what(status: Status) -> tuple[str, str, str]:
    """What several producers of a condition, or several processes of a role, have in common."""
    match status.kind:
        case "session" | "subscription":
            return (status.kind, status.account, status.condition)
        case "worker" | "sink":
            return (status.kind, status.component.rpartition("/")[0], "")
        case _:
            return (status.kind, status.component, "")


async def read(bootstrap_servers: str, within: float = 15.0) -> list[Status]:
    """The last status of every component.

    Raises:
        HitstreamError: Kafka does not answer.
    """
    last: dict[str, Status] = {}
    try:
        async with asyncio.timeout(within):
            async for status in _all(bootstrap_servers):
                last[status.component] = status
    except TimeoutError:
        raise HitstreamError(
            f"Kafka does not answer at {bootstrap_servers}: start it, or correct kafka.bootstrap_servers."
        ) from None
    return [last[name] for name in sorted(last)]


async def _all(bootstrap_servers: str) -> Any:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    consumer = AIOKafkaConsumer(
        topics.STATUS.name, bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
    except (KafkaError, OSError):
        await consumer.stop()
        raise TimeoutError from None
    decoder = msgspec.json.Decoder(Status)
    try:
        parts = list(consumer.assignment())
        if not parts:
            raise HitstreamError("Kafka has no topic for statuses: run `hitstream topics` first.")
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(*parts, timeout_ms=200)).values():
                for record in records:
                    if record.value:
                        try:
                            yield decoder.decode(record.value)
                        except msgspec.MsgspecError:
                            continue
    finally:
        await consumer.stop()


def status(
    *,
    watch: Annotated[bool, Parameter(name="--watch", negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")] = False,
    config: Config = None,
) -> int:
    """Every component and subscription: its state, since when, why, and how old that knowledge is.

    Ends with 1 if something is not live.

    Parameters
    ----------
    watch
        Stay, and show it anew every two seconds, until Ctrl-C.
    """
    from streams.events import ConfigError

    from .up import beside

    settings = beside(config)
    bootstrap = settings.kafka.bootstrap_servers
    if not bootstrap:
        raise ConfigError(
            "kafka.bootstrap_servers is not set; put it into hitstream.toml or HITSTREAM_KAFKA__BOOTSTRAP_SERVERS "
            "(for example: 127.0.0.1:9092)."
        )
    if watch and as_json:
        raise ConfigError("--watch and --json do not go together.")
    clock = Clock(settings.clock.start, settings.clock.speed, settings.clock.anchor)

    def look() -> list[Line]:
        return judge(asyncio.run(read(bootstrap)), clock.now(), clock.speed)

    if watch:
        import time

        from rich.live import Live

        with Live(refresh_per_second=4) as live:
            while True:
                live.update(_table(look()))
                time.sleep(2.0)
    lines = look()
    if as_json:
        rows = [
            msgspec.to_builtins(line.status) | {"word": line.word, "age": round(line.age, 1), "fine": line.fine}
            for line in lines
        ]
        fine = bool(rows) and all(line.fine for line in lines)
        print(json.dumps({"fine": fine, "components": rows}, ensure_ascii=False), flush=True)  # noqa: T201
    else:
        from rich.console import Console

        Console().print(_table(lines))
        if not lines:
            Console().print("No component has said anything: is a producer running?")
    return 0 if lines and all(line.fine for line in lines) else 1


def _table(lines: list[Line]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("component", "state", "since", "cause", "proof of life", "members", "lag", "said")
    for line in lines:
        s = line.status
        style = "green" if line.fine else "bold red"
        table.add_row(
            Text(s.component),
            Text(line.word, style="dim green" if line.word == "quiet" else style),
            _time(s.since),
            Text(s.cause),
            _time(s.proof_of_life),
            "" if s.members is None else str(s.members),
            f"{s.figures['lag']:.0f}" if "lag" in s.figures else "",
            f"{line.age:.0f} s ago",
        )
    return table


def _time(at: datetime | None) -> str:
    from streams.events import KST

    return "" if at is None else f"{at.astimezone(KST):%m-%d %H:%M:%S}"
