"""Migrations: applied once, again where they were cut off, by one at a time, never over a newer schema."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
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
        assert not {"_offset", "_partition", "_topic", "session", "received_at", "inserted_at"} & set(
            key.replace("(", " ").replace(")", " ").replace(",", " ").split()
        )


def test_a_migration_that_was_cut_off_is_run_again(client: Client) -> None:
    first = migrations()[0]
    for statement in first.statements[:3]:
        client.command(statement)
    assert apply(client, migrations()) == NAMES
    assert set(COLUMNS) <= tables(client)


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
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(done) == [[], [], [], NAMES]


def test_a_lock_that_a_killed_migrator_left_runs_out(settings: ClickHouseSettings, client: Client) -> None:
    client.command(f"CREATE TABLE {LOCK} (held UInt8) ENGINE = Memory COMMENT '1000 another host'")
    assert migrate(settings) == NAMES


def test_a_lock_that_is_held_is_respected(
    settings: ClickHouseSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.5)
    client.command(f"CREATE TABLE {LOCK} (held UInt8) ENGINE = Memory COMMENT '4000000000 another host'")
    with pytest.raises(MigrationFailed, match="another host"):
        migrate(settings)
