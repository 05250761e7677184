"""The tables on a cluster: what the same migrations become, as the engine itself reads it. No cluster runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import migrate as module
from sinks.clickhouse.cluster import NotForCluster, clustered
from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import MigrationFailed, apply, migrations
from sinks.clickhouse.rows import COLUMNS, DERIVED
from sinks.settings import ClickHouseSettings

CLUSTER = "two shards"
STATEMENTS = [statement for migration in migrations() for statement in migration.statements]


@pytest.fixture
def client(settings: ClickHouseSettings) -> Iterator[Client]:
    client = connect(settings)
    yield client
    client.close()


def formatted(client: Client, statement: str) -> str:
    """The statement as the engine understands it; one that it can't parse is an error."""
    return str(client.query("SELECT formatQuery({s:String})", parameters={"s": statement}).first_row[0])


def test_every_migration_is_parsed_and_says_on_cluster(client: Client) -> None:
    for statement in [module._RECORD.strip(), *STATEMENTS]:
        for part in clustered(statement, CLUSTER):
            assert "ON CLUSTER `two shards`" in formatted(client, part)


def test_each_table_is_replicated_and_distributed_by_its_identity(client: Client) -> None:
    made = {}
    for statement in STATEMENTS:
        for part in clustered(statement, CLUSTER):
            text = formatted(client, part)
            if match := re.match(r"CREATE TABLE IF NOT EXISTS (\w+) ", text):
                made[match[1]] = text
    assert made.keys() == {*COLUMNS, *DERIVED, *(f"{table}_local" for table in (*COLUMNS, *DERIVED))}
    versions = {"stocks": ", received_at", "bars": ", received_at", "statuses": ", at", "day_returns": ", filled_at"}
    for table in (*COLUMNS, *DERIVED):
        local, distributed = made[f"{table}_local"], made[table]
        engine = re.search(r"ENGINE = (\w+)\('([^']*)', '([^']*)'(.*)\)", local)
        assert engine is not None
        assert engine[1] == "ReplicatedReplacingMergeTree"
        assert engine[2] == "/clickhouse/tables/{shard}/{database}/{table}"
        assert engine[3] == "{replica}"
        assert engine[4] == versions.get(table, "")
        key = re.search(r"ORDER BY (.*)", local)
        assert key is not None
        assert f"AS {table}_local" in distributed
        assert re.search(rf"Distributed\('two shards', currentDatabase\(\), {table}_local, cityHash64\(", distributed)
        assert distributed.endswith(f"cityHash64({key[1].strip('()')}))")


def test_a_change_reaches_the_rows_and_where_there_are_columns_the_distributed_table(client: Client) -> None:
    added = clustered("ALTER TABLE gaps ADD COLUMN note String", "c")
    assert added == (
        "ALTER TABLE gaps_local ON CLUSTER `c` ADD COLUMN note String",
        "ALTER TABLE gaps ON CLUSTER `c` ADD COLUMN note String",
    )
    assert clustered("ALTER TABLE gaps MODIFY TTL date + INTERVAL 1 YEAR", "c") == (
        "ALTER TABLE gaps_local ON CLUSTER `c` MODIFY TTL date + INTERVAL 1 YEAR",
    )
    for statement in added:
        formatted(client, statement)


def test_the_record_of_the_migrations_is_on_every_node() -> None:
    [made] = clustered(module._RECORD.strip(), "c")
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/all/{database}/{table}', '{shard}-{replica}')" in made


def test_a_statement_of_another_kind_is_refused() -> None:
    with pytest.raises(NotForCluster, match="OPTIMIZE TABLE gaps"):
        clustered("OPTIMIZE TABLE gaps FINAL", "c")


def test_without_such_a_cluster_migrating_says_which_statement_failed(client: Client) -> None:
    with pytest.raises((MigrationFailed, module.ClickHouseError), match="no_such_cluster"):
        apply(client, migrations(), "no_such_cluster")
    assert client.query("SHOW TABLES").result_rows == [], "nothing was made, and the lock was given back"
