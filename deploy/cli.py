"""The `hitstream` command.

Every command takes `--config FILE`, ends with 0 (done), 1 (failed) or 2 (called wrongly), and says what is wrong in one
sentence. What a command needs is imported when it runs, so that a role starts quickly.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from streams.events import ConfigError, HitstreamError

from . import logs, reporter, roles
from .clock import Clock, clock_of
from .files import unread
from .lifeline import watch_lifeline
from .settings import LogSettings, bootstrap_of, example, load, needed, origins

app = App(
    name="hitstream",
    help="Kiwoom condition searches (조건검색) as events, recommendations, rows and a live dashboard.",
    version=lambda: version("hitstream"),
)
sink = App(name="sink", help="Run one sink: clickhouse or live.")
local = App(name="local", help="Run one of the three local servers alone: kafka, clickhouse or kiwoom.")
app.command(sink)
app.command(local)
_ROLES = ("produce", "stream", "sink")


@cache
def _add_what_people_ask() -> None:
    """Add the commands of other modules: a role that starts need not read them."""
    from .account_commands import conditions, doctor, search
    from .bars_command import bars
    from .dead_letter_commands import dead_letters
    from .journal_commands import journal, replay
    from .report_command import report
    from .sql_commands import backup, export, restore, sql
    from .status_command import status

    for command in (
        doctor, conditions, search, bars, status, journal, replay, sql, report, export, backup, restore, dead_letters,
    ):  # fmt: skip
        app.command(command)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes.

    Parameters
    ----------
    config
        Settings file (default: ./hitstream.toml if it is there).
    """

    config: Path | None = None


_COMMON = Common()
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]
Port = Annotated[int | None, Parameter(name="--port", help="Port to listen on, instead of the configured one.")]


@app.command
def up(*, live: bool = False, common: Common = _COMMON) -> int:
    """Run everything on this machine, with a local server for whatever address is not configured.

    Parameters
    ----------
    live
        Use the real account (kiwoom.app_key) instead of the simulated market.
    """
    from rich.console import Console

    from . import up as product

    settings = load(common.config)
    logs.configure(settings.log, least="error")
    return asyncio.run(product.up(settings, live=live, config=common.config, console=Console()))


@app.command
def produce(*, common: Common = _COMMON) -> int:
    """Keep the conditions open and publish every hit and exit to Kafka."""
    settings = load(common.config)
    needed(settings.kiwoom.rest_url, "kiwoom.rest_url", "https://api.kiwoom.com")
    needed(settings.kiwoom.websocket_url, "kiwoom.websocket_url", "wss://api.kiwoom.com:10000/api/dostk/websocket")
    needed(settings.kiwoom.app_key.get_secret_value(), "kiwoom.app_key", "the app key of the Open REST API")
    needed(settings.kiwoom.secret_key.get_secret_value(), "kiwoom.secret_key", "the secret key that belongs to it")
    if not settings.conditions:
        raise ConfigError("No condition is configured; add [[conditions]] with the name of a saved condition search.")
    bootstrap = bootstrap_of(settings)
    from producers.service import produce as role

    return roles.run(
        "produce",
        settings,
        lambda ready: role(
            kiwoom=settings.kiwoom,
            conditions=settings.conditions,
            bootstrap_servers=bootstrap,
            now=clock_of(settings).now,
            ready=ready,
            state_dir=settings.local.data_dir / "producer",
            speed=settings.clock.speed,
            bars=settings.bars,
            quotes=settings.quotes,
        ),
    )


@app.command
def stream(*, common: Common = _COMMON) -> int:
    """Deduplicate hits and exits, and derive recommendations (Faust worker)."""
    settings = load(common.config)
    bootstrap = bootstrap_of(settings)
    from streams.app import work

    return roles.run(
        "stream",
        settings,
        lambda ready: work(
            bootstrap_servers=bootstrap,
            conditions=settings.conditions,
            recommend=settings.recommend,
            stream=settings.stream,
            now=clock_of(settings).now,
            ready=ready,
        ),
        reporter.WORKER,
        fast=True,
    )


@sink.command(name="clickhouse")
def sink_clickhouse(*, common: Common = _COMMON) -> int:
    """Write every record to ClickHouse."""
    settings = load(common.config)
    needed(settings.clickhouse.dsn, "clickhouse.dsn", "clickhouse://127.0.0.1:8123/hitstream")
    bootstrap = bootstrap_of(settings)
    from sinks.clickhouse.connection import without_frames
    from sinks.clickhouse.writer import run as role

    without_frames()
    return roles.run(
        "clickhouse-sink",
        settings,
        lambda ready: role(
            settings=settings.clickhouse,
            bootstrap_servers=bootstrap,
            now=clock_of(settings).now,
            ready=ready,
        ),
        reporter.CLICKHOUSE,
    )


@sink.command(name="live")
def sink_live(*, common: Common = _COMMON) -> int:
    """Serve the dashboard and its live stream."""
    settings = load(common.config)
    bootstrap = bootstrap_of(settings)
    from sinks.live.server import run as role

    return roles.run(
        "live",
        settings,
        lambda ready: role(
            settings=settings.live,
            bootstrap_servers=bootstrap,
            now=clock_of(settings).now,
            speed=settings.clock.speed,
            ready=ready,
            clickhouse=settings.clickhouse,
        ),
        reporter.LIVE,
    )


@local.command(name="kafka")
def local_kafka(
    *, port: Port = None, engine: Literal["auto", "apache", "noida"] | None = None, common: Common = _COMMON
) -> int:
    """A local Kafka: Apache Kafka where Java 17 and its jars can be had, else noida-db.

    Parameters
    ----------
    engine
        Which of the two, instead of the configured one.
    """
    settings = load(common.config)
    from .local import kafka

    return roles.run(
        "kafka",
        settings,
        lambda ready: kafka.serve(
            host="127.0.0.1",
            port=settings.local.kafka_port if port is None else port,
            data_dir=settings.local.data_dir / "kafka",
            engine=engine or settings.local.kafka_engine,
            report=_say,
            ready=ready,
        ),
    )


@local.command(name="clickhouse")
def local_clickhouse(
    *, port: Port = None, host: str = "127.0.0.1", password_file: Path | None = None, common: Common = _COMMON
) -> int:
    """A local ClickHouse: the engine in this process behind ClickHouse's HTTP interface.

    Parameters
    ----------
    host
        Address to listen on; anything but loopback needs a password.
    password_file
        File with the password of the user `default`; without it none is asked for.
    """
    settings = load(common.config)
    try:
        password = password_file.read_text("utf-8").strip() if password_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--password-file {password_file} can't be read: {unread(error)}.") from None
    if password_file and not password:
        raise ConfigError(f"--password-file {password_file} is empty.")
    from .local import clickhouse

    return roles.run(
        "clickhouse",
        settings,
        lambda ready: clickhouse.serve(
            host=host,
            port=settings.local.clickhouse_port if port is None else port,
            data_dir=settings.local.data_dir / "clickhouse",
            password=password,
            ready=ready,
        ),
    )


@local.command(name="kiwoom")
def local_kiwoom(
    *,
    port: Port = None,
    seed: int | None = None,
    speed: float | None = None,
    fault: list[str] | None = None,
    journal: Path | None = None,
    plant: list[str] | None = None,
    neutral: bool | None = None,
    common: Common = _COMMON,
) -> int:
    """A simulated Kiwoom: REST and WebSocket, a market that moves, eight saved conditions.

    Parameters
    ----------
    seed
        The same seed gives the same day.
    speed
        Market seconds per real second.
    fault
        What goes wrong from the start, by name: NAME, or NAME:SEQ,SEQ for some conditions; may be given again.
    journal
        Live this recorded day again, at --speed times its pace, instead of a simulated one.
    plant
        What follows a condition's hits, as "NAME=+1.0%/5m"; may be given again. A name that the account does not have
        becomes a condition that holds stocks at random.
    neutral
        A market without surges or trends in which all conditions hold stocks at random: what is planted is then all
        that there is to find.
    """
    settings = load(common.config)
    if speed is not None and not 0 < speed <= 3600:
        raise ConfigError("--speed must be above 0 and at most 3600.")
    clock = clock_of(settings)
    from .local.kiwoom import server as kiwoom
    from .local.kiwoom.faults import named
    from .local.kiwoom.plants import plants

    planted = plants(settings.local.market_plants if plant is None else plant)
    faults = named(fault or ())
    tape = None
    if journal is not None:
        from .journal_commands import tape_of

        tape, clock = tape_of(journal, clock.speed if speed is None else speed)
    return roles.run(
        "kiwoom",
        settings,
        lambda ready: kiwoom.serve(
            host="127.0.0.1",
            port=settings.local.kiwoom_port if port is None else port,
            seed=settings.local.market_seed if seed is None else seed,
            clock=clock if speed is None else Clock(clock.start, speed, clock.anchor),
            state_dir=settings.local.data_dir / "kiwoom",
            hours=settings.local.market_hours,
            activity=settings.local.market_activity,
            faults=faults,
            tape=tape,
            plants=planted,
            neutral=settings.local.market_neutral if neutral is None else neutral,
            ready=ready,
        ),
    )


@app.command
def topics(
    *, check: bool = False, partitions: int | None = None, as_json: Json = False, common: Common = _COMMON
) -> int:
    """Create the topics, and verify those that are there.

    Parameters
    ----------
    check
        Change nothing; exit code 1 if something is missing or differs.
    partitions
        Give every topic that is spread over partitions so many, and move the state of the stream workers along. Stop
        the producers, let the workers take everything, stop them, then call this (docs/operations.md).
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from .topics import ensure
    from .up import beside

    settings = beside(common.config, "kafka.bootstrap_servers")
    bootstrap = bootstrap_of(settings)

    logs.configure(LogSettings(), least="error")
    if partitions is not None:
        from streams.repartition import grow

        moved = asyncio.run(grow(bootstrap, settings.stream.app_id, partitions))
        if not as_json:
            _say(f"Topics have {partitions} partitions; {moved} values of the state moved with their keys.")
    report = asyncio.run(ensure(bootstrap, check=check))
    if as_json:
        _say(msgspec.json.encode(report).decode())
    else:
        table = Table("topic", "state")
        for state in ("created", "verified", "missing", "drift"):
            found = getattr(report, state)
            for name in found:
                table.add_row(name, f"{state}: {found[name]}" if isinstance(found, dict) else state)
        Console().print(table)
        if report.unverified:
            _say(report.unverified)
    return 1 if check and (report.missing or report.drift) else 0


@app.command
def migrate(*, check: bool = False, as_json: Json = False, common: Common = _COMMON) -> int:
    """Bring ClickHouse's tables up to date.

    Parameters
    ----------
    check
        Change nothing; exit code 1 if a migration, or how long a table keeps its rows, is pending.
    """
    from sinks.clickhouse.migrate import migrate as bring_up

    from .up import beside

    settings = beside(common.config, "clickhouse.dsn")
    needed(settings.clickhouse.dsn, "clickhouse.dsn", "clickhouse://127.0.0.1:8123/hitstream")

    logs.configure(settings.log, least="error")
    names = bring_up(settings.clickhouse, check=check)
    word = "pending" if check else "applied"
    if as_json:
        _say(json.dumps({word: names}))
    else:
        _say("\n".join(f"{word}: {name}" for name in names) or "The tables are up to date.")
    return 1 if check and names else 0


@app.command
def config(
    *,
    show_example: Annotated[bool, Parameter(name="--example", negative=())] = False,
    of_up: Annotated[bool, Parameter(name="--up", negative=())] = False,
    as_json: Json = False,
    common: Common = _COMMON,
) -> int:
    """Print what is in force and where each value came from, and check it as the roles do.

    Parameters
    ----------
    show_example
        Print an annotated example of hitstream.toml instead.
    of_up
        Print what `hitstream up` gives its roles: with its own addresses and defaults for what is not set.
    """
    if show_example:
        _say(example().rstrip())
        return 0
    from contextlib import suppress
    from urllib.parse import urlsplit

    from rich.console import Console
    from rich.table import Table

    from . import up as product
    from .checks import check

    settings, sources = load(common.config), origins(common.config)
    filled: frozenset[str] = frozenset()
    if of_up:
        configured = settings
        settings, filled = product.given(configured, common.config)
        check(configured)
        sources |= dict.fromkeys(filled, "hitstream up")
    values = settings.model_dump(mode="json")
    values["clickhouse"]["dsn"] = _masked(values["clickhouse"]["dsn"], urlsplit(values["clickhouse"]["dsn"]).password)
    flat = {key: values[key.split(".")[0]][key.split(".")[1]] if "." in key else values[key] for key in sources}
    if as_json:
        _say(json.dumps({k: {"value": v, "from": sources[k]} for k, v in flat.items()}, ensure_ascii=False))
    else:
        table = Table("setting", "value", "from")
        for key, value in flat.items():
            shown = ", ".join(row["name"] for row in value) if key == "conditions" else value
            table.add_row(key, "" if shown is None else str(shown), sources[key])
        Console().print(table)
    check(settings)
    if not (as_json or of_up):
        with suppress(ConfigError):  # what `up` would miss is no matter of roles that are started one by one
            filled = product.given(settings, common.config)[1]
            keys = ", ".join(sorted(filled))
            _say(f"`hitstream up` has values of its own for {keys}: `hitstream config --up` shows them.")
    return 0


def main() -> None:
    """Entry point of the `hitstream` program."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    watch_lifeline()
    if not arguments or arguments[0] not in _ROLES:
        _add_what_people_ask()
    try:
        code = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return 2
    except HitstreamError as error:
        return roles.fail(" ".join(word for word in arguments[:1] if not word.startswith("-")), error)
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # `… | head`: the reader has what it wanted. What is still buffered goes nowhere, without a second complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _masked(text: str, secret: str | None) -> str:
    return text.replace(f":{secret}@", ":**********@") if secret else text


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
