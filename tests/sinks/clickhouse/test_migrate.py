"""Migrations: applied once, again where they were cut off, by one at a time, never over a newer schema."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import structlog
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import migrate as module
from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import LOCK, Migration, MigrationFailed, apply, migrate, migrations, pending, statements
from sinks.clickhouse.rows import COLUMNS
from sinks.settings import ClickHouseSettings

NAMES = [migration.name for migration in migrations()]


@pytest.fixture
def client(settings: ClickHouseSettings) -> Iterator[Client]:
    client = connect(settings)
    yield client
    client.close()


def tables(client: Client) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows}


def test_numbers_are_consecutive_from_1() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(NAMES) + 1))


# Databases have these: what one of them should have said differently, a new one says.
FIXED = {
    "0001_records": "42f18d8dcee5dab7",
    "0002_rec_stocks": "800164779ab12508",
}


def test_a_migration_that_databases_have_is_never_changed() -> None:
    folder = files("sinks.clickhouse").joinpath("migrations")
    found = {name: hashlib.sha256(folder.joinpath(f"{name}.sql").read_bytes()).hexdigest()[:16] for name in FIXED}
    assert found == FIXED


def test_statements_end_with_a_semicolon_at_the_end_of_a_line() -> None:
    text = "-- a comment; not a statement\nSELECT ';' AS a,\n    1;\n\n-- another\nSELECT 2;  \nSELECT 3"
    assert statements(text) == ("SELECT ';' AS a,\n    1", "SELECT 2", "SELECT 3")


def test_the_first_run_applies_all_and_the_second_nothing(settings: ClickHouseSettings) -> None:
    assert migrate(settings) == NAMES
    assert migrate(settings) == []


def test_check_names_what_is_pending_and_changes_nothing(settings: ClickHouseSettings) -> None:
    assert migrate(settings, check=True) == NAMES, "the database is not even there"
    client = connect(settings)
    try:
        assert migrate(settings, check=True) == NAMES
        assert tables(client) == set()
        migrate(settings)
        assert migrate(settings, check=True) == []
    finally:
        client.close()


def test_the_tables_have_the_columns_that_rows_fills(settings: ClickHouseSettings, client: Client) -> None:
    migrate(settings)
    for table, columns in COLUMNS.items():
        described = [row[0] for row in client.query(f"DESCRIBE TABLE {table}").result_rows]
        assert described == [*columns, "inserted_at"], table


def test_a_table_is_partitioned_and_sorted_by_the_identity_alone(settings: ClickHouseSettings, client: Client) -> None:
    """What differs between two copies of a record – place, session, time of receipt – must not keep them apart."""
    migrate(settings)
    rows = client.query(
        "SELECT name, engine, sorting_key, partition_key FROM system.tables WHERE database = currentDatabase()"
    ).result_rows
    found = {name: (engine, sorting + partition) for name, engine, sorting, partition in rows}
    for table in COLUMNS:
        engine, key = found[table]
        assert engine == "ReplacingMergeTree"
        # A quote is told from others by these very two: a session never receives two of a stock at one microsecond.
        own = {"session", "received_at"} if table == "quotes" else set()
        named = set(key.replace("(", " ").replace(")", " ").replace(",", " ").split())
        assert not {"_offset", "_partition", "_topic", "session", "received_at", "inserted_at"} & (named - own)


class Cut(Exception):
    """The migrator is gone."""


class CutOff:
    """A client whose program ends before its n-th statement of a migration."""

    def __init__(self, client: Client, allowed: int) -> None:
        self._client = client
        self._allowed = allowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def command(self, statement: str) -> Any:
        if statement in {one for migration in migrations() for one in migration.statements}:
            self._allowed -= 1
            if self._allowed < 0:
                raise Cut
        return self._client.command(statement)


def test_a_migration_that_was_cut_off_anywhere_is_run_again(client: Client) -> None:
    """By a migrator that is cut off one statement later each time; the last one has nothing left to do."""
    allowed = 0
    while allowed < sum(len(one.statements) for one in migrations() if one.name in pending(client, migrations())):
        with pytest.raises(Cut):
            apply(CutOff(client, allowed), migrations())  # type: ignore[arg-type]
        allowed += 1
        if allowed == 3:
            client.command("INSERT INTO condition_events (date, id) VALUES ('2026-11-23', 'x')")
    assert allowed > len(migrations()[0].statements)
    apply(client, migrations())
    assert pending(client, migrations()) == []
    assert set(COLUMNS) <= tables(client)
    assert client.command("SELECT count() FROM condition_events") == 1, "what was there stays"


@pytest.mark.parametrize("version", range(1, len(NAMES)))
def test_every_earlier_schema_is_brought_up_with_its_data(client: Client, version: int) -> None:
    assert apply(client, migrations()[:version]) == NAMES[:version]
    before = {}
    for table in sorted(tables(client) & set(COLUMNS)):
        columns = [row[0] for row in client.query(f"DESCRIBE TABLE {table}").result_rows]
        # One row: two random ones may have one identity, and be one.
        client.command(f"INSERT INTO {table} SELECT * FROM generateRandom() LIMIT 1")
        asked = f"SELECT {', '.join(f'`{name}`' for name in columns)} FROM {table} ORDER BY ALL FORMAT TSV"
        before[asked] = client.raw_query(asked)
        assert before[asked].count(b"\n") == 1
    assert before
    assert apply(client, migrations()) == NAMES[version:]
    assert {asked: client.raw_query(asked) for asked in before} == before


@pytest.mark.parametrize("version", range(1, len(NAMES)))
def test_what_was_half_brought_up_from_an_earlier_schema_is_finished_with_its_data(
    client: Client, version: int
) -> None:
    """Cut off at each statement of the way in turn, with rows coming in between, as an old writer's still may."""
    apply(client, migrations()[:version])
    rows = 0
    while rows < sum(len(one.statements) for one in migrations() if one.name in pending(client, migrations())):
        with pytest.raises(Cut):
            apply(CutOff(client, rows), migrations())  # type: ignore[arg-type]
        client.command(f"INSERT INTO condition_events (date, id) VALUES ('2026-11-23', 'x{rows}')")
        rows += 1
    assert rows
    assert apply(client, migrations())
    assert pending(client, migrations()) == []
    assert set(COLUMNS) <= tables(client)
    assert client.command("SELECT count() FROM condition_events FINAL") == rows


def test_an_old_database_takes_what_it_had_no_table_for(settings: ClickHouseSettings, client: Client) -> None:
    """Brought up by what the sink does when it starts: the tables, and how long they keep their rows."""
    apply(client, migrations()[:2])
    client.command("INSERT INTO stocks (code, name) VALUES ('005930', '삼성전자')")
    client.command("INSERT INTO transitions (date, code, kind) VALUES (today(), '005930', 'entered')")
    keeping = settings.model_copy(update={"keep_decisions": 30})
    assert migrate(keeping, check=True)[0] == NAMES[2]
    assert migrate(keeping)[: len(NAMES) - 2] == NAMES[2:]
    client.command("INSERT INTO quotes (date, code, price) VALUES (today(), '005930', 71000)")
    joined = client.query(
        "SELECT s.name, t.kind, q.price FROM transitions AS t FINAL JOIN quotes AS q USING (code) "
        "JOIN stocks AS s USING (code)"
    ).result_rows
    assert joined == [("삼성전자", "entered", 71_000)]
    assert "TTL date + toIntervalDay(30)" in client.command("SHOW CREATE TABLE transitions").replace("\\n", " ")


def test_every_statement_may_run_twice(client: Client) -> None:
    for migration in migrations():
        for statement in migration.statements:
            client.command(statement)
            client.command(statement)


def test_one_that_fails_says_which_and_leaves_those_before_it_recorded(client: Client) -> None:
    broken = Migration(len(NAMES) + 1, "9999_broken", ("SELECT 1", "CREATE NONSENSE"))
    with pytest.raises(MigrationFailed, match="Statement 2 of migration 9999_broken"):
        apply(client, [*migrations(), broken])
    assert pending(client, [*migrations(), broken]) == ["9999_broken"]
    assert LOCK not in tables(client), "the lock is given back"


@pytest.mark.parametrize("check", [False, True])
def test_a_newer_schema_is_left_alone(settings: ClickHouseSettings, client: Client, check: bool) -> None:
    migrate(settings)
    client.command("INSERT INTO schema_migrations (number, name) VALUES (4711, '4711_from_the_future')")
    with pytest.raises(MigrationFailed, match=r"4711_from_the_future by a newer Hitstream.*upgrade"):
        migrate(settings, check=check)


def test_a_migration_of_another_program_is_not_taken_for_ours(settings: ClickHouseSettings, client: Client) -> None:
    migrate(settings)
    client.command("INSERT INTO schema_migrations (number, name) VALUES (2, '0002_something_else')")
    with pytest.raises(MigrationFailed, match=r"0002_something_else where this Hitstream has 0002_rec_stocks.*another"):
        migrate(settings)


def test_migrators_at_once_do_the_work_once(settings: ClickHouseSettings) -> None:
    connect(settings).close()
    done: list[list[str]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(migrate(settings))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    with structlog.testing.capture_logs() as logged:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert [entry["migration"] for entry in logged if entry["event"] == "migration applied"] == NAMES
    assert sorted(done) == [[], [], [], NAMES]


def test_a_lock_that_a_killed_migrator_left_runs_out(settings: ClickHouseSettings, client: Client) -> None:
    client.command(f"CREATE TABLE {LOCK} (held UInt8) ENGINE = Memory COMMENT '1000 another host'")
    assert migrate(settings) == NAMES


def test_a_lock_that_is_held_is_respected(
    settings: ClickHouseSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.5)
    client.command(f"CREATE TABLE {LOCK} (held UInt8) ENGINE = Memory COMMENT '4000000000 another host'")
    with structlog.testing.capture_logs() as logged, pytest.raises(MigrationFailed, match="another host"):
        migrate(settings)
    assert [(entry["event"], entry["owner"]) for entry in logged] == [("waiting for another migrator", "another host")]
