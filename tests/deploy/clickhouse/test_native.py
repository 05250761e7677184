"""FORMAT Native for a newer protocol: the engine's own bytes, with what that protocol puts between them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from deploy.local.clickhouse import native

from .conftest import Server

INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
ROWS = 100

# One column of each type that a table of ours, or an analyst's query, has.
COLUMNS = {
    "toUInt8(number)": "UInt8",
    "toInt64(number)": "Int64",
    "number % 2 = 1": "UInt8",
    "CAST(number % 2 AS Bool)": "Bool",
    "number / 3": "Float64",
    "toFloat32(number)": "Float32",
    "toUInt256(number)": "UInt256",
    "toDecimal64(number, 3)": "Decimal(18, 3)",
    "toDecimal256(number, 2)": "Decimal(76, 2)",
    "repeat('조', number % 90)": "String",
    "toFixedString('abc', 5)": "FixedString(5)",
    "toLowCardinality(toString(number % 7))": "LowCardinality(String)",
    "toLowCardinality(toNullable(toString(number % 7)))": "LowCardinality(Nullable(String))",
    "if(number % 3 = 0, NULL, toString(number))": "Nullable(String)",
    "toDate('2026-11-23') + number": "Date",
    "toDateTime(number, 'Asia/Seoul')": "DateTime",  # protocol 0 leaves its time zone out
    "toDateTime64(number, 6, 'Asia/Seoul')": "DateTime64(6, 'Asia/Seoul')",
    "toIntervalDay(number)": "IntervalDay",
    "toIPv4('1.2.3.4')": "IPv4",
    "toIPv6('::1')": "IPv6",
    "toUUID('00000000-0000-0000-0000-0000000000ff')": "UUID",
    "NULL": "Nullable(Nothing)",
    "[]": "Array(Nothing)",
    "range(number % 5)": "Array(UInt8)",
    "emptyArrayString()": "Array(String)",
    "CAST(range(number % 3) AS Array(LowCardinality(String)))": "Array(LowCardinality(String))",
    "[[1, 2], range(number % 4)]": "Array(Array(UInt8))",
    "(number, 'a', toNullable(1.5))": "Tuple(UInt64, String, Nullable(Float64))",
    "map('a', number, 'b', 2)": "Map(String, UInt64)",
    "CAST('b,(x' AS Enum8('a' = 1, 'b,(x' = 2))": "Enum8('a' = 1, 'b,(x' = 2)",
    "CAST([(1, 'z')] AS Array(Tuple(`b c` UInt8, s LowCardinality(String))))": (
        "Array(Tuple(`b c` UInt8, s LowCardinality(String)))"
    ),
    "CAST([[(1., 2.)]] AS Polygon)": "Polygon",
    "CAST(number AS SimpleAggregateFunction(max, UInt64))": "SimpleAggregateFunction(max, UInt64)",
}


def ask(server: Server, statement: str, **parameters: str | int) -> bytes:
    answer = httpx.post(server.url, params={"default_format": "Native", **parameters}, content=statement)
    assert answer.status_code == 200, answer.text
    return answer.content


def column(server: Server, expression: str, kind: str) -> tuple[bytes, bytes]:
    """A column as the engine alone writes it: its name and type, and its values."""
    block = ask(server, f"SELECT {expression} AS c FROM numbers({ROWS})")
    name = bytes([1]) + b"c" + bytes([len(kind)]) + kind.encode()
    head = bytes([1, ROWS]) + name
    assert block.startswith(head), block[:80]
    return name, block.removeprefix(head)


def test_each_block_has_its_info_and_each_column_its_serialization(server: Server) -> None:
    """The columns one by one tell where each begins and ends; together they must be the same bytes."""
    parts = [column(server, expression, kind) for expression, kind in COLUMNS.items()]
    expected = INFO + bytes([len(parts), ROWS]) + b"".join(name + b"\x00" + values for name, values in parts)
    listed = ", ".join(f"{expression} AS c{n}" for n, expression in enumerate(COLUMNS))
    for n in range(len(parts)):
        expected = expected.replace(b"\x01c", b"%bc%d" % (bytes([len(str(n)) + 1]), n), 1)
    assert ask(server, f"SELECT {listed} FROM numbers({ROWS})", client_protocol_version=54460) == expected


def test_the_blocks_of_a_long_result_are_told_apart_in_pieces_of_any_size(server: Server) -> None:
    statement = "SELECT number, repeat('x', number % 300) AS s FROM numbers(3000) SETTINGS max_block_size = 1000"
    plain = ask(server, statement)

    def pieces(size: int) -> Iterator[bytes]:
        return (plain[at : at + size] for at in range(0, len(plain), size))

    newer = ask(server, statement, client_protocol_version=54460)
    assert newer.count(INFO) == 3
    for size in (1000, 4096, len(plain)):
        assert b"".join(native.blocks(pieces(size))) == newer


def test_an_older_protocol_is_answered_as_by_a_server_that_knows_none(server: Server) -> None:
    assert ask(server, "SELECT 1", client_protocol_version=54405) == ask(server, "SELECT 1")


def test_a_type_that_cannot_be_told_apart_is_refused_by_name(server: Server) -> None:
    parameters = {"default_format": "Native", "client_protocol_version": 54460}
    answer = httpx.post(server.url, params=parameters, content="SELECT sumState(number) FROM numbers(3)")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (501, "48")
    assert "AggregateFunction(sum, UInt64)" in answer.text


def test_a_result_that_ends_within_a_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends within a block"):
        list(native.blocks(iter([b"\x01\x01\x01c\x05UInt8"])))
