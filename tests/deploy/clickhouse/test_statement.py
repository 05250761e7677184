"""Where a statement ends, where its rows begin, and what is only a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.clickhouse.statement import parse


@pytest.mark.parametrize(
    ("query", "statement", "layout", "rows"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", b"INSERT INTO t", "CSV", b"1,2\n"),
        (b"insert into t format RowBinary\n\n\x00", b"insert into t", "RowBinary", b"\n\x00"),
        (b"INSERT INTO t FORMAT RowBinary \t\r\n \x00", b"INSERT INTO t", "RowBinary", b" \x00"),
        (b"INSERT INTO t FORMAT TSV 1\t2", b"INSERT INTO t", "TSV", b"1\t2"),
        (b"INSERT INTO t FORMAT TSV;\n1\t2", b"INSERT INTO t", "TSV", b"1\t2"),
        (b"INSERT INTO d.t (a, `format`) VALUES (1, 'x')", b"INSERT INTO d.t (a, `format`)", "Values", b" (1, 'x')"),
        (b"INSERT INTO TABLE values VALUES (1)", b"INSERT INTO TABLE values", "Values", b" (1)"),
        (b"INSERT INTO format (format) FORMAT Native\n\xff", b"INSERT INTO format (format)", "Native", b"\xff"),
        (b"INSERT INTO `my db`.`t` FORMAT CSV\n", b"INSERT INTO `my db`.`t`", "CSV", b""),
        (
            b"INSERT INTO FUNCTION remote('x', 'FORMAT CSV') (a) FORMAT CSV\n1",
            b"INSERT INTO FUNCTION remote('x', 'FORMAT CSV') (a)",
            "CSV",
            b"1",
        ),
        (
            b"/* FORMAT X */ INSERT INTO t -- VALUES\nSETTINGS async_insert = 0 FORMAT CSV\n1",
            b"/* FORMAT X */ INSERT INTO t -- VALUES\nSETTINGS async_insert = 0",
            "CSV",
            b"1",
        ),
        (b"INSERT INTO {t:Identifier} (a) FORMAT CSV\n1", b"INSERT INTO {t:Identifier} (a)", "CSV", b"1"),
    ],
)
def test_an_insert_is_split_before_its_rows(query: bytes, statement: bytes, layout: str, rows: bytes) -> None:
    parsed = parse(query)
    assert parsed.kind == "insert"
    assert (parsed.text, parsed.format) == (statement, layout)
    assert parsed.rows_at is not None
    assert query[parsed.rows_at :] == rows


@pytest.mark.parametrize(
    "query",
    [
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
        b"INSERT INTO t SELECT format FROM values FORMAT CSV\n1",
        b"INSERT INTO t",
    ],
)
def test_an_insert_without_rows_of_its_own_is_left_whole(query: bytes) -> None:
    parsed = parse(query)
    assert (parsed.kind, parsed.text, parsed.rows_at) == ("insert", query, None)


def test_an_insert_through_input_tells_what_input_is() -> None:
    query = b"INSERT INTO t SELECT a * 2 FROM input('a UInt8, s Enum(\\'x\\')') WHERE a > 0 FORMAT CSV\n1,x\n"
    parsed = parse(query)
    assert parsed.input is not None
    structure, start, end = parsed.input
    assert structure == "a UInt8, s Enum('x')"
    assert parsed.text[:start] + b"rows" + parsed.text[end:] == b"INSERT INTO t SELECT a * 2 FROM rows WHERE a > 0"
    assert (parsed.format, query[parsed.rows_at or 0 :]) == ("CSV", b"1,x\n")


@pytest.mark.parametrize(
    ("query", "kind", "layout"),
    [
        (b"SELECT 1", "select", None),
        (b"(SELECT 1) UNION ALL (SELECT 2) FORMAT JSON", "select", "JSON"),
        (b"WITH 1 AS x SELECT x FORMAT Native", "select", "Native"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "select", "CSV"),
        (b"SELECT a, (1) FORMAT CSV", "select", "CSV"),
        (b"SELECT 1 + {n:UInt8} FORMAT CSV", "select", "CSV"),
        (b"SELECT a, [1][1] FORMAT CSV", "select", "CSV"),
        (b"SELECT format('{}', a) FROM t", "select", None),
        (b"SELECT format FROM t", "select", None),
        (b"SELECT a, format FROM t ORDER BY format LIMIT 1", "select", None),
        (b"SELECT a FROM t ORDER BY format DESC", "select", None),
        (b"SELECT 'FORMAT JSON' AS format", "select", None),
        (b"SELECT 1 -- FORMAT JSON", "select", None),
        (b"SELECT $$ FORMAT JSON $$", "select", None),
        (b"SELECT 1 AS format FORMAT JSON;\n", "select", "JSON"),
        (b"SHOW TABLES FORMAT JSON", "other", "JSON"),
        (b"DESCRIBE t", "other", None),
        (b"SET max_threads = 1", "set", None),
        (b"USE d", "use", None),
        (b"CREATE TABLE t (a UInt8) ENGINE = Memory", "other", None),
        (b"", "nothing", None),
        (b"-- nothing\n", "nothing", None),
        (b"\x1f\x8b\x08\x00 binary", "nothing", None),
    ],
)
def test_the_kind_and_format_of_a_statement(query: bytes, kind: str, layout: str | None) -> None:
    parsed = parse(query)
    assert (parsed.kind, parsed.format, parsed.several) == (kind, layout, False)


@pytest.mark.parametrize(
    ("query", "several"),
    [
        (b"SELECT 1; SELECT 2", True),
        (b"DROP TABLE t; SELECT 2", True),
        (b"SELECT ';'; -- ;\n;", False),
        (b"SELECT 1;\n", False),
    ],
)
def test_more_than_one_statement_is_noticed(query: bytes, several: bool) -> None:
    assert parse(query).several is several


@pytest.mark.parametrize("query", [b"SELECT 1 INTO OUTFILE 'x'", b"INSERT INTO t FROM INFILE 'x' FORMAT CSV"])
def test_a_clause_for_the_client_is_noticed(query: bytes) -> None:
    assert parse(query).file_clause


@given(st.binary())
def test_any_rows_come_through_untouched(rows: bytes) -> None:
    query = b"INSERT INTO t (a) FORMAT Native\n"
    parsed = parse(query + rows)
    assert parsed.rows_at == len(query)


@given(st.binary())
def test_any_bytes_are_parsed(query: bytes) -> None:
    assert parse(query).text in query
