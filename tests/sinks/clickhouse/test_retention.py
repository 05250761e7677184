"""How long tables keep their rows: as the settings say, changed where it differs; nobody else's rule is touched."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.cluster import clustered
from sinks.clickhouse.migrate import LOCK, migrate
from sinks.clickhouse.retention import TABLES, Change, changes, kept
from sinks.clickhouse.rows import COLUMNS, DERIVED
from sinks.settings import ClickHouseSettings


def keeping(settings: ClickHouseSettings, **days: int) -> ClickHouseSettings:
    return settings.model_copy(update=days)


def engine(client: Client, table: str) -> str:
    return str(
        client.command(f"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'")
    )


def test_every_table_with_days_has_a_setting() -> None:
    named = [table for tables in TABLES.values() for table in tables]
    assert sorted(named) == sorted((COLUMNS.keys() | {*DERIVED}) - {"stocks"})
    assert TABLES.keys() <= ClickHouseSettings.model_fields.keys()


def test_rows_are_kept_for_ever_unless_somebody_says_otherwise(settings: ClickHouseSettings, client: Client) -> None:
    assert {kept(engine(client, table)) for table in COLUMNS} == {0}
    assert changes(client, settings) == []


def test_a_setting_is_checked_applied_once_changed_and_taken_back(settings: ClickHouseSettings, client: Client) -> None:
    for days, words in ((90, "quotes kept 90 days"), (30, "quotes kept 30 days"), (0, "quotes kept for ever")):
        wanted = keeping(settings, keep_quotes=days)
        assert migrate(wanted, check=True) == [words]
        assert migrate(wanted) == [words]
        assert kept(engine(client, "quotes")) == days
        assert migrate(wanted, check=True) == migrate(wanted) == []
    assert client.command(f"EXISTS TABLE {LOCK}") == 0


def test_a_setting_reaches_each_of_its_tables_and_no_other(settings: ClickHouseSettings, client: Client) -> None:
    days = {setting: 100 + number for number, setting in enumerate(TABLES)}
    migrate(keeping(settings, **days))
    for setting, tables in TABLES.items():
        assert {kept(engine(client, table)) for table in tables} == {days[setting]}
    assert kept(engine(client, "stocks")) == 0


def test_what_is_older_goes_and_what_is_not_stays(settings: ClickHouseSettings, client: Client) -> None:
    client.command(
        "INSERT INTO quotes (date, code, received_at) SELECT today() - number, '005930', now64(6) FROM numbers(10)"
    )
    migrate(keeping(settings, keep_quotes=4))
    client.command("OPTIMIZE TABLE quotes FINAL")
    assert client.query("SELECT max(today() - date), count() FROM quotes").first_row == (3, 4)


def test_a_rule_of_the_operator_s_own_is_left_alone(settings: ClickHouseSettings, client: Client) -> None:
    client.command("ALTER TABLE quotes MODIFY TTL date + INTERVAL 2 MONTH")
    before = engine(client, "quotes")
    with structlog.testing.capture_logs() as logged:
        assert migrate(keeping(settings, keep_quotes=7)) == []
    assert engine(client, "quotes") == before
    assert [(entry["table"], entry["setting"]) for entry in logged] == [("quotes", "keep_quotes")]
    assert migrate(settings) == []


@pytest.mark.parametrize(
    ("definition", "days"),
    [
        ("ReplacingMergeTree ORDER BY code SETTINGS index_granularity = 8192", 0),
        ("ReplacingMergeTree PARTITION BY m ORDER BY (date, code) TTL date + toIntervalDay(7) SETTINGS a = 1", 7),
        ("ReplacingMergeTree(at) ORDER BY date TTL date + toIntervalDay(365)", 365),
        ("ReplicatedReplacingMergeTree('/p', '{r}', at) ORDER BY date TTL date + toIntervalDay(9) SETTINGS a = 1", 9),
        ("ReplacingMergeTree ORDER BY date TTL date + toIntervalMonth(1) SETTINGS a = 1", None),
        ("ReplacingMergeTree ORDER BY date TTL date + toIntervalDay(7) TO VOLUME 'cold' SETTINGS a = 1", None),
        ("ReplacingMergeTree ORDER BY date TTL date + toIntervalDay(7), date + toIntervalDay(1) TO DISK 'x'", None),
    ],
)
def test_a_definition_is_read(definition: str, days: int | None) -> None:
    assert kept(definition) == days


@pytest.mark.parametrize("days", [0, 30])
def test_on_a_cluster_the_tables_that_hold_rows_are_changed(client: Client, days: int) -> None:
    """Parsed by the engine; no cluster runs here."""
    (statement,) = clustered(Change("quotes", days).statement, "two shards")
    formatted: Any = client.query("SELECT formatQuery({s:String})", parameters={"s": statement}).first_row[0]
    assert "quotes_local ON CLUSTER `two shards`" in formatted


def test_on_a_cluster_the_tables_that_hold_rows_are_compared(settings: ClickHouseSettings, client: Client) -> None:
    client.command("CREATE TABLE quotes_local AS quotes")
    wanted = keeping(settings, cluster="x", keep_quotes=5)
    assert changes(client, wanted) == [Change("quotes", 5)]
    client.command("ALTER TABLE quotes_local MODIFY TTL date + toIntervalDay(5)")
    assert changes(client, wanted) == []
