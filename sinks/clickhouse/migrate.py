"""Bring ClickHouse's tables up to date: the numbered files in `migrations/`, each applied once and recorded.

ClickHouse has no transactions over its tables, so a migration that was cut off is simply run again: every statement in
the files may run twice. The lock is a table whose creation only one of many can do (any ClickHouse has that, with or
without Keeper), and which says when it runs out; it keeps migrators from doing the same work at once, and if it ever
fails to, running twice does no harm. On a cluster (`clickhouse.cluster`) it keeps apart those that ask the same node.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, Error

from streams.events import HitstreamError

from ..settings import ClickHouseSettings
from .cluster import NotForCluster, clustered
from .connection import DatabaseAbsent, connect, first_line
from .dsn import parse_dsn
from .retention import changes

log = structlog.get_logger(__name__)

LOCK: Final = "schema_migrations_lock"
_LEASE_SECONDS: Final = 30
_PATIENCE_SECONDS: Final = 90.0  # longer than a lease: what a killed migrator left runs out while we wait
_POLL_SECONDS: Final = 0.2
_TABLE_ALREADY_EXISTS: Final = 57
_UNKNOWN_TABLE: Final = 60

_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number     UInt32,
    name       String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY number
COMMENT 'The migrations that were applied to this database'
"""


class MigrationFailed(HitstreamError):
    """A migration could not be applied, or the database is not one that this program may touch."""


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, its name and its statements in order."""

    number: int
    name: str
    statements: tuple[str, ...]


def migrations() -> list[Migration]:
    """The migrations that this program knows, in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append(Migration(int(match[1]), file.name.removesuffix(".sql"), statements(file.read_text("utf-8"))))
    return sorted(found, key=lambda migration: migration.number)


def statements(text: str) -> tuple[str, ...]:
    """The statements of a file. Each ends with a semicolon at the end of a line; whole-line comments are dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return tuple(part.strip() for part in re.split(r";[ \t]*(?:\n|$)", "\n".join(lines)) if part.strip())


def migrate(settings: ClickHouseSettings, check: bool = False) -> list[str]:
    """Apply what is missing and return its names; with `check` only return them and change nothing.

    Also brings about how long the tables keep their rows (`retention`), which is settings and no migration.

    Raises `ClickHouseUnavailable` and `MigrationFailed`.
    """
    try:
        client = connect(settings, create=not check)
    except DatabaseAbsent:  # only with `check`
        return [migration.name for migration in migrations()]
    cluster = settings.cluster
    try:
        if check:
            return [*pending(client, migrations()), *(change.name for change in changes(client, settings))]
        if cluster:
            database, on = quote_identifier(client.database), quote_identifier(cluster)
            client.command(f"CREATE DATABASE IF NOT EXISTS {database} ON CLUSTER {on}")
        return [*apply(client, migrations(), cluster), *_keep(client, settings)]
    except ClickHouseError as error:
        address = parse_dsn(settings.dsn).address
        raise MigrationFailed(
            f"The tables at {address} could not be brought up to date: {first_line(error)}"
        ) from error
    finally:
        client.close()


def pending(client: Client, known: list[Migration]) -> list[str]:
    """Names of the known migrations that the database lacks. Raises `MigrationFailed` if it is newer than we are."""
    applied = _applied(client)
    newest = max((migration.number for migration in known), default=0)
    if newer := {number: name for number, name in applied.items() if number > newest}:
        raise MigrationFailed(
            f"The database {client.database} was brought to {newer[max(newer)]} by a newer Hitstream, "
            f"and this one knows its tables only up to {newest:04d}: upgrade this one."
        )
    for migration in known:
        if (name := applied.get(migration.number, migration.name)) != migration.name:
            raise MigrationFailed(
                f"The database {client.database} has migration {name} where this Hitstream has {migration.name}: it "
                "is another program's, or a version's that was never released; give clickhouse.dsn another database."
            )
    return [migration.name for migration in known if migration.number not in applied]


def apply(client: Client, known: list[Migration], cluster: str = "") -> list[str]:
    """Apply the missing ones of the known migrations, in order, under the lock; returns their names.

    With `cluster` on that cluster, as `clustered` has them.
    """
    if not pending(client, known):
        return []
    with _locked(client) as renew:
        _command(client, _RECORD.strip(), cluster)
        missing = set(pending(client, known))  # again: another migrator may have been at work while we waited
        for migration in known:
            if migration.name not in missing:
                continue
            for number, statement in enumerate(migration.statements, 1):
                renew()
                try:
                    _command(client, statement, cluster)
                except (DatabaseError, NotForCluster) as error:
                    raise MigrationFailed(
                        f"Statement {number} of migration {migration.name} failed: {first_line(error)}"
                    ) from error
            client.insert(
                "schema_migrations",
                [[migration.number, migration.name]],
                column_names=["number", "name"],
                settings={"async_insert": 0},
            )
            log.info("migration applied", migration=migration.name, database=client.database)
    return [migration.name for migration in known if migration.name in missing]


def _keep(client: Client, settings: ClickHouseSettings) -> list[str]:
    """Let the tables keep their rows as long as the settings say; returns what was changed."""
    if not changes(client, settings):
        return []
    done = []
    with _locked(client) as renew:
        for change in changes(client, settings):
            renew()
            _command(client, change.statement, settings.cluster)
            log.info("retention changed", table=change.table, days=change.days, database=client.database)
            done.append(change.name)
    return done


def _command(client: Client, statement: str, cluster: str) -> None:
    """Run a statement; with `cluster` what `clustered` makes of it."""
    for part in clustered(statement, cluster) if cluster else (statement,):
        client.command(part)


def _applied(client: Client) -> dict[int, str]:
    try:
        rows = client.query("SELECT number, name FROM schema_migrations FINAL").result_rows
    except Error as error:
        if error.code == _UNKNOWN_TABLE:
            return {}
        raise
    return {int(number): str(name) for number, name in rows}


@contextmanager
def _locked(client: Client) -> Iterator[Callable[[], None]]:
    """Hold the lock table; yields a function that renews the lease.

    The lease ends at a time of the server's clock, which stands in the table's comment beside its owner.
    """
    owner = f"{socket.gethostname()} process {os.getpid()}"

    def lease() -> str:
        until = client.command(f"SELECT toUnixTimestamp(now()) + {_LEASE_SECONDS}")
        return "'" + f"{until} {owner}".replace("\\", "").replace("'", "") + "'"

    deadline = time.monotonic() + _PATIENCE_SECONDS
    waiting = False
    while True:
        try:
            client.command(f"CREATE TABLE {LOCK} (held UInt8) ENGINE = Memory COMMENT {lease()}")
            break
        except DatabaseError as error:
            if error.code != _TABLE_ALREADY_EXISTS:
                raise
        holder = _holder(client)
        if holder is not None and holder[0] <= 0:
            log.warning("taking the migration lock over from a migrator that left it", owner=holder[1])
            client.command(f"DROP TABLE IF EXISTS {LOCK} SYNC")
        elif time.monotonic() > deadline:
            by = holder[1] if holder else "somebody"
            raise MigrationFailed(
                f"Another migrator ({by}) has held {client.database}.{LOCK} for too long; look at it."
            )
        else:
            if not waiting and holder is not None:
                waiting = True
                log.warning("waiting for another migrator", owner=holder[1])
            time.sleep(_POLL_SECONDS)
    try:
        yield lambda: _renew(client, lease())
    finally:
        client.command(f"DROP TABLE IF EXISTS {LOCK} SYNC")


def _renew(client: Client, lease: str) -> None:
    client.command(f"ALTER TABLE {LOCK} MODIFY COMMENT {lease}")


def _holder(client: Client) -> tuple[int, str] | None:
    """Seconds that the lease still has, and its owner; None if nobody holds the lock."""
    rows = client.query(
        "SELECT toInt64(toUInt32OrZero(splitByChar(' ', comment)[1])) - toInt64(toUnixTimestamp(now())), comment "
        "FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": LOCK},
    ).result_rows
    return (int(rows[0][0]), str(rows[0][1]).partition(" ")[2]) if rows else None
