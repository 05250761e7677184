"""The DSN, and one sentence for each way in which ClickHouse can be out of reach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sinks.clickhouse.connection import ClickHouseUnavailable, connect, connect_async
from sinks.clickhouse.dsn import Dsn, parse_dsn
from sinks.settings import ClickHouseSettings
from streams.events import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "clickhouse://kim:p%40ss@db.example:9123/market",
            {"host": "db.example", "port": 9123, "user": "kim", "password": "p@ss", "database": "market"},
        ),
        ("clickhouse://127.0.0.1", {"host": "127.0.0.1", "port": 8123, "database": "hitstream", "user": "default"}),
        ("clickhouses://db.example/x", {"port": 8443, "secure": True, "verify": True}),
        ("clickhouses://db.example/x?verify=false", {"secure": True, "verify": False}),
        ("clickhouse://[::1]:8124/x", {"host": "::1", "port": 8124}),
        ("clickhouse://db.example/", {"database": "hitstream"}),
    ],
)
def test_a_dsn_as_its_parts(text: str, expected: dict[str, Any]) -> None:
    dsn = parse_dsn(text)
    assert {name: getattr(dsn, name) for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "db.example:8123",
        "http://db.example/x",
        "clickhouse://",
        "clickhouse://db:port/x",
        "clickhouse://db/x/y",
        "clickhouse://db/x?compress=1",
        "clickhouse://db/x?verify=maybe",
        "clickhouse://[::1/x",
    ],
)
def test_a_wrong_dsn_is_a_configuration_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"clickhouse\.dsn"):
        parse_dsn(text)


def test_a_dsn_that_cannot_be_read_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_dsn("clickhouse://kim:sec/ret@db.example:9123/market")
    assert "sec" not in str(raised.value)


def test_what_is_shown_of_a_dsn_has_no_password() -> None:
    dsn = parse_dsn("clickhouse://kim:secret@db.example:9123/market")
    assert dsn.address == "clickhouse://db.example:9123/market"
    assert Dsn(host="::1", port=1, user="", password="", database="d", secure=True).address == "clickhouses://[::1]:1/d"


def test_the_database_is_created_when_it_is_absent(settings: ClickHouseSettings) -> None:
    with pytest.raises(ClickHouseUnavailable, match="hitstream migrate"):
        connect(settings, create=False)
    connect(settings).close()
    client = connect(settings, create=False)
    assert client.command("SELECT currentDatabase()") == parse_dsn(settings.dsn).database
    client.close()


async def test_both_clients_are_in_the_configured_database(settings: ClickHouseSettings) -> None:
    connect(settings).close()
    client = await connect_async(settings)
    assert await client.command("SELECT currentDatabase()") == parse_dsn(settings.dsn).database
    await client.close()


async def test_nobody_there_is_one_sentence_with_the_address() -> None:
    settings = ClickHouseSettings.model_validate({"dsn": "clickhouse://kim:secret@127.0.0.1:1/market"})
    sentence = r"127\.0\.0\.1:1/market can't be reached"
    with pytest.raises(ClickHouseUnavailable, match=sentence) as raised:
        connect(settings)
    assert "secret" not in str(raised.value)
    with pytest.raises(ClickHouseUnavailable, match=sentence):
        await connect_async(settings)


async def test_a_wrong_password_is_one_sentence(make_server: Callable[..., Any]) -> None:
    server = make_server(password="right")
    wrong = ClickHouseSettings.model_validate({"dsn": f"clickhouse://default:wrong@127.0.0.1:{server.port}/market"})
    with pytest.raises(ClickHouseUnavailable, match="refuses the login of default"):
        connect(wrong)
    with pytest.raises(ClickHouseUnavailable, match="refuses the login of default"):
        await connect_async(wrong)


@pytest.mark.parametrize("without", [True, False])
def test_what_inserts_lists_reads_no_numpy(without: bool) -> None:
    """The other case tells when clickhouse-connect has changed, and this is needed no more."""
    program = f"""
import sys
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from sinks.clickhouse.connection import without_frames
if {without}: without_frames()
InsertContext("t", ["a"], [get_from_name("Int64")], data=[[1], [2]])
print("numpy" in sys.modules)
"""
    pytest.importorskip("numpy")
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == str(not without)
