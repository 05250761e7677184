"""clickhouse-connect, unmodified, takes the local ClickHouse for a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from .conftest import Server

AT = datetime(2026, 11, 23, 0, 0, 12, 345678, tzinfo=UTC)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port, tz_mode="aware") as client:
        yield client


def test_it_connects_and_asks(client: Client) -> None:
    assert client.ping()
    assert client.server_version.startswith("26.")
    assert client.command("SELECT 41 + 1") == 42
    assert client.query("SELECT number, toString(number) AS s FROM numbers(3)").result_rows == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]
    assert client.query("SELECT 1 WHERE 0").result_rows == []
    assert client.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names == ("a", "b")


TYPES: list[tuple[str, Any]] = [
    ("DateTime64(6, 'UTC')", AT),
    ("Date", date(2026, 11, 23)),
    ("String", "조건검색 \t\n\0'\\"),
    ("LowCardinality(String)", "KRX"),
    ("Array(Tuple(String, Float64))", [("급등주", 0.5), ("돌파", -1.25)]),
    ("Map(String, UInt64)", {"a": 1, "b": 2**63}),
    ("Nullable(Int64)", None),
    ("Nullable(Float64)", 3.92),
    ("Decimal(18, 4)", Decimal("12345.6789")),
    ("Float64", 1e300),
    ("UInt64", 2**64 - 1),
    ("Bool", True),
    ("UUID", UUID(int=255)),
]


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_a_value_of_each_type_comes_back_as_it_was_inserted(server: Server, compress: str | bool) -> None:
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _) in enumerate(TYPES))
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, compress=compress, tz_mode="aware"
    ) as client:
        client.command(f"CREATE TEMPORARY TABLE typed ({columns}) ENGINE = Memory")
        client.insert("typed", [[value for _, value in TYPES]])
        [found] = client.query("SELECT * FROM typed").result_rows
    assert dict(zip((kind for kind, _ in TYPES), found, strict=True)) == dict(TYPES)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_a_large_insert_by_columns_is_whole(server: Server, table: str, compress: str | bool) -> None:
    rows = 100_000
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port, compress=compress) as client:
        summary = client.insert(
            table, [list(range(rows)), [f"행 {n}" for n in range(rows)]], ["a", "s"], column_oriented=True
        )
        assert summary.written_rows == rows
        assert client.query(
            f"SELECT count(), sum(a), countIf(s = concat('행 ', toString(a))) FROM {table}"
        ).first_row == (
            rows,
            rows * (rows - 1) // 2,
            rows,
        )
        assert len(client.query(f"SELECT * FROM {table}").result_rows) == rows


def test_parameters_are_bound_by_the_server_and_by_the_client(client: Client) -> None:
    text = "it's \\ a\ttab\n조건"
    bound = {"s": text, "n": 7, "d": date(2026, 11, 23), "at": AT, "codes": ["005930", "0004V0"]}
    row = client.query(
        "SELECT {s:String}, {n:UInt8}, {d:Date}, {at:DateTime64(6, 'UTC')}, {codes:Array(String)}", parameters=bound
    ).first_row
    assert row == (text, 7, date(2026, 11, 23), AT, ["005930", "0004V0"])
    assert client.query("SELECT %(s)s", parameters={"s": text}).first_row == (text,)
    assert client.command("SELECT {n:UInt8} + 1", parameters={"n": 7}) == 8


def test_many_parameters_are_sent_as_a_form(client: Client) -> None:
    text = "x" * 100_000
    assert client.query("SELECT length({s:String})", parameters={"s": text}).first_row == (100_000,)


def test_data_frames_and_arrow(client: Client, table: str) -> None:
    client.insert(table, [[n, str(n)] for n in range(1000)])
    frame = client.query_df(f"SELECT * FROM {table} ORDER BY a")
    assert (frame["a"].sum(), frame["s"][999]) == (499_500, "999")
    arrow = client.query_arrow(f"SELECT * FROM {table} ORDER BY a")
    assert (arrow.num_rows, arrow["a"][999].as_py()) == (1000, 999)
    client.insert_df(table, frame)
    client.insert_arrow(table, arrow)
    assert client.command(f"SELECT count() FROM {table}") == 3000


def test_data_frames_and_arrow_are_streamed(client: Client, table: str) -> None:
    client.insert(table, [[n, str(n)] for n in range(1000)])
    asked = f"SELECT * FROM {table} ORDER BY a"
    small = {"max_block_size": 100}
    with client.query_df_stream(asked, settings=small) as frames:
        assert sum(frame["a"].sum() for frame in frames) == 499_500
    with client.query_arrow_stream(asked, settings=small) as batches:
        assert sum(batch.num_rows for batch in batches) == 1000
    with client.query_column_block_stream(asked, settings=small) as blocks:
        assert sum(sum(block[0]) for block in blocks) == 499_500
    with client.raw_stream(f"{asked} LIMIT 3", fmt="CSV") as stream:
        assert b"".join(stream) == b'0,"0"\n1,"1"\n2,"2"\n'
    client.raw_insert(table, ["a", "s"], (f"{n},x\n".encode() for n in range(1000, 3000)), fmt="CSV")
    assert client.command(f"SELECT count() FROM {table}") == 3000


def test_rows_are_streamed(client: Client) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as blocks:
        assert sum(row[0] for block in blocks for row in block) == 499_999_500_000


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELECT * FROM nowhere", 60),
        ("SELECT nothing", 47),
        ("SELECT nofunction(1)", 46),
        ("SELEC", 62),
        ("SELECT 1 FORMAT", 62),
        ("SELECT throwIf(number = 8) FROM numbers(10)", 395),
        ("CREATE TABLE default.broken (a Nothing2) ENGINE = Memory", 50),
        ("DROP TABLE nowhere", 60),
        ("INSERT INTO nowhere VALUES (1)", 60),
    ],
)
def test_an_error_is_a_database_error_with_its_code(client: Client, statement: str, code: int) -> None:
    with pytest.raises(DatabaseError) as raised:
        client.command(statement)
    assert raised.value.code == code
    assert f"Code: {code}. DB::Exception: " in str(raised.value)


def test_an_error_in_the_middle_of_a_stream_is_raised(client: Client) -> None:
    with (
        pytest.raises(StreamFailureError, match="throwIf"),
        client.query_row_block_stream("SELECT throwIf(number = 900000) FROM numbers(1000000)") as blocks,
    ):
        for _ in blocks:
            pass
    assert client.command("SELECT 1") == 1


def test_an_insert_of_a_wrong_type_is_refused_and_nothing_stays(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError):
        client.raw_insert(table, ["a", "s"], "1,x\nno number,y\n", fmt="CSV")
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_settings_hold_for_their_statement_only(client: Client) -> None:
    ask = "SELECT getSetting('max_block_size'), getSetting('max_threads')"
    default = client.query(ask).first_row
    assert client.query(ask, settings={"max_block_size": 1234}).first_row == (1234, default[1])
    assert client.query(ask).first_row == default
    client.command("SET max_threads = 3")
    assert client.query(ask, settings={"max_threads": 1}).first_row == (default[0], 1)
    assert client.query(ask).first_row == (default[0], 3)
    with pytest.raises(DatabaseError) as raised:
        client.command("SELECT 1 SETTINGS nonsense = 1")
    assert raised.value.code == 115


def test_a_session_keeps_its_temporary_tables_to_itself(server: Server, client: Client) -> None:
    client.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.insert("mine", [[1]], ["a"])
    assert client.command("SELECT count() FROM mine") == 1
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port) as other, pytest.raises(DatabaseError):
        other.command("SELECT count() FROM mine")


def test_databases(server: Server, client: Client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS hits")
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port, database="hits") as there:
        there.command("CREATE OR REPLACE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
        there.insert("t", [[1], [2]])
        assert there.command("SELECT currentDatabase()") == "hits"
    assert client.command("SELECT sum(a) FROM hits.t") == 3
    with pytest.raises(DatabaseError) as raised:
        clickhouse_connect.get_client(host="127.0.0.1", port=server.port, database="nowhere")
    assert raised.value.code == 81


def test_what_is_said_twice_collapses(client: Client) -> None:
    client.command(
        "CREATE OR REPLACE TABLE twice (id String, at DateTime64(6, 'UTC'), v UInt64) ENGINE = ReplacingMergeTree(v)"
        " ORDER BY id"
    )
    for version in range(3):
        client.insert("twice", [[f"id {n}", AT, version] for n in range(10)])
    assert client.query("SELECT count(), min(v) FROM twice FINAL").first_row == (10, 2)
    client.command("OPTIMIZE TABLE twice FINAL")
    assert client.command("SELECT count() FROM twice") == 10


def test_a_view_takes_parameters(client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE days (d Date, code String) ENGINE = MergeTree ORDER BY d")
    client.insert("days", [[date(2026, 11, 23) + timedelta(days=n), str(n)] for n in range(3)])
    client.command("CREATE OR REPLACE VIEW of_day AS SELECT code FROM days WHERE d = {d:Date}")
    assert client.query("SELECT * FROM of_day(d = '2026-11-24')").result_rows == [("1",)]
    assert client.query("SELECT * FROM of_day(d = {day:Date})", parameters={"day": date(2026, 11, 25)}).result_rows == [
        ("2",)
    ]


async def test_the_async_client(server: Server, table: str) -> None:
    async with await clickhouse_connect.get_async_client(host="127.0.0.1", port=server.port) as client:
        await client.insert(table, [[n, "x"] for n in range(1000)], settings={"async_insert": 0})
        answers = await asyncio.gather(*(client.query(f"SELECT sum(a) + {n} FROM {table}") for n in range(20)))
        assert [answer.first_row[0] for answer in answers] == [499_500 + n for n in range(20)]
        with pytest.raises(DatabaseError):
            await client.query("SELECT nothing")


async def test_the_async_client_with_data_frames_and_arrow(server: Server, table: str) -> None:
    async with await clickhouse_connect.get_async_client(host="127.0.0.1", port=server.port) as client:
        await client.insert(table, [[n, str(n)] for n in range(1000)])
        frame = await client.query_df(f"SELECT * FROM {table}")
        arrow = await client.query_arrow(f"SELECT * FROM {table}")
        await client.insert_df(table, frame)
        await client.insert_arrow(table, arrow)
        rows = 0
        async with await client.query_row_block_stream(f"SELECT * FROM {table}") as blocks:
            async for block in blocks:
                rows += len(block)
        assert rows == 3000


def test_readers_beside_writers_see_whole_inserts_and_every_one(server: Server, table: str) -> None:
    """Inserts of 500 rows each: any count that a reader sees is a multiple, and never falls."""
    inserts, rows, writers = 15, 500, 3
    seen: list[list[int]] = [[] for _ in range(3)]
    done = threading.Event()
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        with clickhouse_connect.get_client(host="127.0.0.1", port=server.port) as client:
            for insert in range(inserts):
                start = (writer * inserts + insert) * rows
                client.insert(table, [[n, "x"] for n in range(start, start + rows)], settings={"async_insert": 0})

    def read(counts: list[int]) -> None:
        with clickhouse_connect.get_client(host="127.0.0.1", port=server.port) as client:
            while not done.is_set():
                counts.append(int(client.command(f"SELECT count() FROM {table}")))

    def run(work: Any, *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    readers = [run(read, counts) for counts in seen]
    for thread in [run(write, writer) for writer in range(writers)]:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert failures == []
    total = inserts * rows * writers
    assert (
        server.sql(f"SELECT count(), uniqExact(a), sum(a) FROM {table}")
        == f"{total}\t{total}\t{total * (total - 1) // 2}"
    )
    for counts in seen:
        assert counts == sorted(counts)
        assert all(count % rows == 0 for count in counts)


def test_a_long_read_does_not_stop_a_writer(server: Server, table: str) -> None:
    long = threading.Thread(
        target=lambda: server.sql("SELECT sleepEachRow(0.05) FROM numbers(60) FORMAT Null", max_block_size=1)
    )
    long.start()
    with clickhouse_connect.get_client(host="127.0.0.1", port=server.port) as client:
        for n in range(10):
            client.insert(table, [[n, "x"]])
        assert client.command(f"SELECT count() FROM {table}") == 10
        assert long.is_alive()
    long.join()
