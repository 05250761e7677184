"""The HTTP interface as curl sees it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import brotli
import httpx
import lz4.frame
import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd

from deploy.local.clickhouse.compression import ToBlocks

from .conftest import Server, until


def post(server: Server, content: bytes | str = b"", **parameters: str | int) -> httpx.Response:
    return httpx.post(server.url, params=parameters, content=content, timeout=60)


def test_it_says_that_it_is_there(server: Server) -> None:
    for path in ("/ping", "/", "/replicas_status"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.text) == (200, "Ok.\n")
    assert httpx.get(server.url + "/nothing").status_code == 404


def test_a_statement_comes_in_the_query_the_body_or_both(server: Server) -> None:
    assert httpx.get(server.url, params={"query": "SELECT 1"}).text == "1\n"
    assert post(server, query="SELECT 1").text == "1\n"
    assert post(server, "SELECT 1").text == "1\n"
    assert post(server, "1 + 1", query="SELECT").text == "2\n"
    assert post(server, gzip.compress(b"SELECT 3")).status_code == 400
    assert (
        httpx.post(server.url, content=gzip.compress(b"SELECT 3"), headers={"Content-Encoding": "gzip"}).text == "3\n"
    )
    assert httpx.post(server.url, files={"query": (None, "SELECT 4")}).text == "4\n"


def test_parameters(server: Server) -> None:
    assert post(server, "SELECT {a:UInt8} + {b:UInt8}", param_a=1, param_b=2).text == "3\n"
    assert post(server, "SELECT {s:String} FORMAT TSVRaw", param_s="a\\tb'\\\\").text == "a\tb'\\\n"
    assert post(server, "SELECT {d:Date}", param_d="2026-11-23").text == "2026-11-23\n"
    assert post(server, "SELECT {s:Array(String)} FORMAT TSVRaw", param_s="['a','b']").text == "['a','b']\n"
    form = {"query": (None, "SELECT {x:String}"), "param_x": (None, "y")}
    assert httpx.post(server.url, files=form).text == "y\n"
    missing = post(server, "SELECT {a:UInt8}")
    assert missing.headers["X-ClickHouse-Exception-Code"] == "456"


def test_parameters_of_an_insert(server: Server, table: str) -> None:
    assert post(server, "1,x\n", query="INSERT INTO {t:Identifier} FORMAT CSV", param_t=table).status_code == 200
    assert post(server, "INSERT INTO {t:Identifier} SELECT {a:UInt8}, 'y'", param_t=table, param_a=2).status_code == 200
    assert server.sql(f"SELECT * FROM {table} ORDER BY a") == "1\tx\n2\ty"


ROW_BINARY = struct.pack("<QB1sQB4s", 1, 1, b"\n", 2, 4, b"\x00\xff;'")


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        ("CSV", b'1,"\\N"\n2,"b"\n'),
        ("TabSeparated", b"1\ta\n2\tb\n"),
        ("JSONEachRow", b'{"a": 1, "s": "a"}\n{"a": 2, "s": "b"}\n'),
        ("Values", b"(1, 'a'), (1 + 1, 'b')"),
        ("RowBinary", ROW_BINARY),
    ],
)
@pytest.mark.parametrize("where", ["body", "query and body"])
def test_rows_of_any_format_are_inserted(server: Server, table: str, layout: str, rows: bytes, where: str) -> None:
    statement = f"INSERT INTO {table} (a, s) FORMAT {layout}"
    in_one = where == "body"
    answer = post(server, statement.encode() + b"\n" + rows) if in_one else post(server, rows, query=statement)
    assert (answer.status_code, answer.content) == (200, b"")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert server.sql(f"SELECT count(), sum(a) FROM {table}") == "2\t3"


def test_columnar_rows_are_inserted(server: Server, table: str) -> None:
    rows = pyarrow.table({"a": pyarrow.array([1, 2], pyarrow.uint64()), "s": ["a", "b"]})
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(rows, parquet)
    arrow = io.BytesIO()
    with pyarrow.ipc.new_stream(arrow, rows.schema) as writer:
        writer.write_table(rows)
    native = post(server, "SELECT toUInt64(number) AS a, 'x' AS s FROM numbers(2) FORMAT Native").content
    for layout, body in (("Parquet", parquet.getvalue()), ("ArrowStream", arrow.getvalue()), ("Native", native)):
        assert post(server, body, query=f"INSERT INTO {table} FORMAT {layout}").status_code == 200
    assert server.sql(f"SELECT count() FROM {table}") == "6"


def test_binary_rows_of_all_bytes_come_back(server: Server, table: str) -> None:
    text = bytes(range(256)) * 4000
    length = len(text)
    size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    body = struct.pack("<Q", 7) + size + text
    assert post(server, body, query=f"INSERT INTO {table} FORMAT RowBinary").status_code == 200
    assert post(server, f"SELECT a, s FROM {table} FORMAT RowBinary").content == body


def test_binary_rows_in_the_address(server: Server, table: str) -> None:
    row = struct.pack("<QB2s", 7, 2, b"\xff\x00")
    statement = f"INSERT INTO {table} FORMAT RowBinary\n".encode() + row
    assert httpx.post(f"{server.url}/?query={quote(statement)}").status_code == 200
    assert post(server, f"SELECT a, s FROM {table} FORMAT RowBinary").content == row


def test_an_insert_from_its_data_through_a_select(server: Server, table: str) -> None:
    statement = f"INSERT INTO {table} SELECT a * 2, upper(s) FROM input('a UInt64, s String') FORMAT CSV"
    assert post(server, "1,x\n2,y\n", query=statement).status_code == 200
    assert server.sql(f"SELECT * FROM {table} ORDER BY a") == "2\tX\n4\tY"


def blocks(content: bytes) -> bytes:
    """ClickHouse's own framing of a body, LZ4 and then ZSTD."""
    half = len(content) // 2
    first, second = ToBlocks("LZ4"), ToBlocks("ZSTD")
    return first.feed(content[:half]) + first.finish() + second.feed(content[half:]) + second.finish()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstd.compress),
        ("lz4", lz4.frame.compress),
        ("br", lambda body: brotli.compress(body, quality=1)),
        ("xz", lzma.compress),
        ("", blocks),
    ],
)
def test_compressed_rows_are_inserted(
    server: Server, table: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    rows = b"".join(b"%d,text %d\n" % (n, n) for n in range(100_000))
    parameters = {"query": f"INSERT INTO {table} FORMAT CSV", "decompress": "0" if encoding else "1"}
    headers = {"Content-Encoding": encoding} if encoding else {}
    assert httpx.post(server.url, params=parameters, content=pack(rows), headers=headers).text == ""
    assert server.sql(f"SELECT count(), sum(a) FROM {table}") == f"100000\t{100_000 * 99_999 // 2}"


def test_a_body_that_is_not_what_it_says_is_refused(server: Server, table: str) -> None:
    parameters = {"query": f"INSERT INTO {table} FORMAT CSV"}
    for encoding in ("gzip", "br", "snappy"):
        answer = httpx.post(server.url, params=parameters, content=b"1,x\n", headers={"Content-Encoding": encoding})
        assert answer.status_code >= 400
    assert server.sql(f"SELECT count() FROM {table}") == "0"


def test_a_checksum_is_looked_at_unless_told_otherwise(server: Server, table: str) -> None:
    parameters = {"query": f"INSERT INTO {table} FORMAT CSV", "decompress": "1"}
    torn = bytes(16) + blocks(b"1,x\n2,y\n")[16:]
    answer = httpx.post(server.url, params=parameters, content=torn)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "40")
    assert server.sql(f"SELECT count() FROM {table}") == "0"
    trusting = {"http_native_compression_disable_checksumming_on_decompress": "1"}
    assert httpx.post(server.url, params=parameters | trusting, content=torn).status_code == 200
    assert server.sql(f"SELECT count() FROM {table}") == "2"


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "unpack"),
    [
        ("gzip", gzip.decompress),
        ("deflate", zlib.decompress),
        ("zstd", zstd.decompress),
        ("lz4", lz4.frame.decompress),
        ("br", brotli.decompress),
        ("", bytes),
    ],
)
def test_results_are_compressed_as_asked(
    server: Server, encoding: str, unpack: Callable[[bytes], bytes], whole: int
) -> None:
    parameters = {
        "enable_http_compression": 1,
        "wait_end_of_query": whole,
        "query": "SELECT number FROM numbers(500000)",
    }
    with httpx.stream(
        "POST", server.url, params=parameters, headers={"Accept-Encoding": f"snappy, {encoding}" if encoding else ""}
    ) as answer:
        assert answer.headers.get("Content-Encoding", "") == encoding
        body = b"".join(answer.iter_raw())
    assert unpack(body) == b"".join(b"%d\n" % n for n in range(500_000))


def test_results_in_every_kind_of_format(server: Server) -> None:
    statement = "SELECT number AS n, toString(number) AS s FROM numbers(70000)"
    for layout in ("JSON", "JSONCompact"):
        answer = post(server, f"{statement} FORMAT {layout}")
        assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert answer.headers["X-ClickHouse-Format"] == layout
        assert (answer.json()["rows"], len(answer.json()["data"])) == (70_000, 70_000)
    assert post(server, f"{statement} FORMAT JSONEachRow").text.count("\n") == 70_000
    assert post(server, statement, default_format="CSVWithNames").text.splitlines()[:2] == ['"n","s"', '0,"0"']
    assert len(post(server, statement, default_format="CSVWithNames").text.splitlines()) == 70_001
    assert httpx.post(server.url, content="SELECT 1", headers={"X-ClickHouse-Format": "CSV"}).text == "1\n"
    parquet = post(server, f"{statement} FORMAT Parquet").content
    assert pyarrow.parquet.read_table(io.BytesIO(parquet)).num_rows == 70_000
    stream = post(server, f"{statement} FORMAT ArrowStream SETTINGS max_threads = 1").content
    assert pyarrow.ipc.open_stream(stream).read_all().num_rows == 70_000
    assert post(server, f"{statement} FORMAT Null").content == b""
    assert post(server, "SHOW DATABASES FORMAT JSON").json()["rows"] >= 2
    assert post(server, "SELECT 1 AS n WHERE 0 FORMAT JSON").json()["meta"] == [{"name": "n", "type": "UInt8"}]
    totals = "SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k"
    assert post(server, totals).text == "0\t5\n1\t5\n\n0\t10\n"


def test_headers_tell_about_the_query(server: Server) -> None:
    answer = post(server, "SELECT number FROM numbers(10) FORMAT TSV", query_id="my query", wait_end_of_query=1)
    assert answer.headers["X-ClickHouse-Query-Id"] == "my query"
    assert answer.headers["X-ClickHouse-Format"] == "TSV"
    assert answer.headers["X-ClickHouse-Timezone"] == server.sql("SELECT timezone()")
    assert answer.headers["X-ClickHouse-Server-Display-Name"] == server.sql("SELECT hostName()")
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"], summary["result_bytes"]) == ("10", "10", "20")


@pytest.mark.parametrize(
    ("statement", "status", "code", "name"),
    [
        ("SELECT * FROM nowhere", 404, 60, "UNKNOWN_TABLE"),
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1 FORMAT NoFormat", 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT toDate('x')", 400, 38, "CANNOT_PARSE_DATE"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT 1 INTO OUTFILE 'x'", 500, 358, "INTO_OUTFILE_NOT_ALLOWED"),
        ("SELECT 1 SETTINGS nonsense = 1", 404, 115, "UNKNOWN_SETTING"),
    ],
)
def test_an_error_has_its_status_code_and_text(
    server: Server, statement: str, status: int, code: int, name: str
) -> None:
    answer = post(server, statement)
    assert answer.status_code == status
    assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
    version = server.sql("SELECT version()")
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert answer.text.endswith(f"({name}) (version {version} (official build))\n")


def test_settings_come_as_parameters(server: Server) -> None:
    assert post(server, "SELECT getSetting('max_threads')", max_threads=1).text == "1\n"
    assert post(server, "SELECT getSetting('session_timezone')", session_timezone="Asia/Seoul").text == "Asia/Seoul\n"
    assert post(server, "SELECT 1", nonsense=1).headers["X-ClickHouse-Exception-Code"] == "115"
    assert (
        post(server, "SELECT number FROM numbers(100)", max_result_rows=5).headers["X-ClickHouse-Exception-Code"]
        == "396"
    )
    late = post(server, "SELECT count() FROM numbers(1000000000000) WHERE number % 3 = 1", max_execution_time=1)
    assert (late.status_code, late.headers["X-ClickHouse-Exception-Code"]) == (408, "159")


def test_get_only_reads(server: Server, table: str) -> None:
    for statement in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}", f"TRUNCATE TABLE {table}"):
        for session in ({}, {"session_id": "reader"}):
            answer = httpx.get(server.url, params={"query": statement, **session})
            assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
    assert httpx.get(server.url, params={"query": f"SELECT count() FROM {table}"}).text == "0\n"
    assert (
        post(server, f"INSERT INTO {table} VALUES (1, 'x')", readonly=1).headers["X-ClickHouse-Exception-Code"] == "164"
    )


def test_the_database_is_asked_for_in_either_way(server: Server) -> None:
    assert post(server, "SELECT currentDatabase()", database="system").text == "system\n"
    headers = {"X-ClickHouse-Database": "system"}
    assert httpx.post(server.url, content="SELECT currentDatabase()", headers=headers).text == "system\n"
    assert post(server, "SELECT 1", database="nowhere").status_code == 404


def test_a_session_remembers(server: Server) -> None:
    def ask(statement: str, **parameters: str | int) -> str:
        answer = post(server, statement, session_id="s1", **parameters)
        assert answer.status_code == 200, answer.text
        return answer.text.removesuffix("\n")

    ask("CREATE TEMPORARY TABLE mine AS SELECT 5 AS a")
    assert ask("SELECT a FROM mine") == "5"
    ask("SET max_threads = 3")
    assert ask("SELECT getSetting('max_threads')", max_threads=1) == "1"
    assert ask("SELECT getSetting('max_threads')") == "3"
    ask("USE system")
    assert ask("SELECT currentDatabase()", database="default") == "default"
    assert ask("SELECT currentDatabase()", close_session=1) == "system"
    assert post(server, "SELECT 1", session_id="s1", session_check=1).headers["X-ClickHouse-Exception-Code"] == "372"


def test_a_session_serves_one_at_a_time(server: Server) -> None:
    long = threading.Thread(target=lambda: post(server, "SELECT sleep(2)", session_id="s2"))
    long.start()
    until(
        lambda: (
            post(server, "SELECT 1", session_id="s2", session_check=1).headers.get("X-ClickHouse-Exception-Code")
            == "373"
        )
    )
    long.join()
    assert post(server, "SELECT 1", session_id="s2").text == "1\n"


def test_data_that_come_with_a_query_are_a_table(server: Server) -> None:
    answer = httpx.post(
        server.url,
        params={
            "query": "SELECT sum(a) FROM mine",
            "mine_structure": "a UInt8, s String",
            "mine_format": "CSV",
        },
        files={"mine": ("mine", b"1,x\n2,y\n")},
    )
    assert answer.text == "3\n"


def test_a_stream_that_breaks_says_so_in_its_body(server: Server) -> None:
    answer = post(server, "SELECT throwIf(number = 900000) FROM numbers(1000000)")
    tag = answer.headers["X-ClickHouse-Exception-Tag"]
    assert answer.status_code == 200
    assert f"__exception__\r\n{tag}\r\nCode: 395. DB::Exception: " in answer.text
    assert answer.text.endswith(f" {tag}\r\n__exception__\r\n")
    whole = post(server, "SELECT throwIf(number = 900000) FROM numbers(1000000)", wait_end_of_query=1)
    assert (whole.status_code, whole.headers["X-ClickHouse-Exception-Code"]) == (500, "395")


def running(server: Server) -> int:
    return int(server.sql("SELECT count() FROM system.processes WHERE query LIKE '%numbers(100000000000%'")) - 1


def test_a_query_ends_when_its_client_leaves(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        statement = b"SELECT count() FROM numbers(1000000000000) WHERE number % 3 = 1"
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(statement) + statement)
        until(lambda: running(server) == 1)
    until(lambda: running(server) == 0)


def test_a_client_that_leaves_in_the_middle_of_its_rows_inserts_nothing(server: Server, table: str) -> None:
    def taken_in() -> bool:
        return any((server.data_dir / "tmp").glob("rows-*"))

    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /?query=INSERT+INTO+{table}+FORMAT+CSV HTTP/1.1\r\nHost: localhost\r\n"
        client.sendall(head.encode() + b"Content-Length: 9999999\r\n\r\n" + b"1,x\n" * 800_000)
        until(taken_in)
    until(lambda: not taken_in())
    assert server.sql(f"SELECT count() FROM {table}") == "0"


REFUSED_BEHIND_THE_PARSER = [
    ("a constraint", "(a UInt64, CONSTRAINT small CHECK a < 2) ENGINE = MergeTree ORDER BY a", "", 469),
    ("an expression", "(a UInt64, b UInt8 MATERIALIZED throwIf(a = 2)) ENGINE = MergeTree ORDER BY a", "", 395),
    (
        "too many parts",
        "(a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS parts_to_throw_insert = 1, parts_to_delay_insert = 1",
        "SYSTEM STOP MERGES full",
        252,
    ),
    ("too many partitions", "(a UInt64) ENGINE = MergeTree PARTITION BY a ORDER BY a", "", 252),
]


@pytest.mark.parametrize(
    ("definition", "before", "code"),
    [case[1:] for case in REFUSED_BEHIND_THE_PARSER],
    ids=[case[0] for case in REFUSED_BEHIND_THE_PARSER],
)
def test_rows_that_are_refused_while_they_are_written_are_never_acknowledged(
    server: Server, definition: str, before: str, code: int
) -> None:
    server.sql(f"CREATE OR REPLACE TABLE full {definition}")
    if before:
        server.sql(before)
        server.sql("INSERT INTO full VALUES (0)")
    there = server.sql("SELECT count() FROM full")
    rows = "1\n2\n" + "".join(f"{n}\n" for n in range(3, 150))
    answer = post(server, rows, query="INSERT INTO full (a) FORMAT CSV")
    assert answer.headers.get("X-ClickHouse-Exception-Code") == str(code), answer.text
    assert "rows-" not in answer.text
    assert server.sql("SELECT count() FROM full") == there
    server.sql("DROP TABLE full")


def test_an_insert_has_settings_of_its_own(server: Server, table: str) -> None:
    statement = f"INSERT INTO {table} (a, s) SETTINGS input_format_csv_trim_whitespaces = 0 FORMAT CSV\n1, x"
    assert post(server, statement).status_code == 200
    assert server.sql(f"SELECT a, s FROM {table}") == "1\t x"


def test_the_row_that_cannot_be_read_is_named_and_the_file_it_came_by_is_not(server: Server, table: str) -> None:
    answer = post(server, f"INSERT INTO {table} FORMAT CSV\n1,x\nno,y\n")
    assert answer.status_code == 400
    assert answer.text.startswith("Code: 27. DB::Exception: ")
    assert answer.text.count("DB::Exception") == 1
    assert "rows-" not in answer.text


def test_a_large_result_is_streamed_in_bounded_memory(server: Server) -> None:
    """Hundreds of megabytes pass through while the process grows by much less, as blocks or by way of a file."""

    def resident() -> int:
        assert server.process is not None
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096

    before = resident()
    for layout in ("Native", "ArrowStream"):
        most, read = 0, 0
        statement = f"SELECT number FROM numbers(30000000) FORMAT {layout}"
        with httpx.stream("POST", server.url, content=statement, headers={"Accept-Encoding": ""}, timeout=60) as answer:
            for piece in answer.iter_raw():
                if read // (32 << 20) != (read := read + len(piece)) // (32 << 20):
                    most = max(most, resident())
        assert read > 120_000_000
        assert most - before < 150 << 20


def test_a_password_is_asked_for(new_server: Callable[..., Server]) -> None:
    server = new_server("--password", "비밀 pass").start()
    basic = base64.b64encode("default:비밀 pass".encode()).decode()
    wrong = base64.b64encode(b"default:other").decode()
    cases: list[tuple[dict[str, str], dict[str, str], int]] = [
        ({}, {}, 403),
        ({}, {"user": "default", "password": "비밀 pass"}, 200),
        ({}, {"user": "admin", "password": "비밀 pass"}, 403),
        ({}, {"user": "default", "password": "x"}, 403),
        ({"Authorization": f"Basic {basic}"}, {}, 200),
        ({"Authorization": f"Basic {wrong}"}, {}, 403),
        ({"Authorization": "Basic ???"}, {}, 403),
    ]
    for headers, parameters, status in cases:
        answer = httpx.post(server.url, params=parameters, headers=headers, content="SELECT 1")
        assert answer.status_code == status, (headers, parameters)
        if status == 403:
            assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
    raw = httpx.Headers([(b"X-ClickHouse-User", b"default"), (b"X-ClickHouse-Key", "비밀 pass".encode())])
    assert httpx.post(server.url, headers=raw, content="SELECT 1").status_code == 200
    assert httpx.get(server.url + "/ping").text == "Ok.\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8080"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example:8123"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8123"}, 200),
    ],
)
def test_a_page_of_another_site_is_refused(server: Server, headers: dict[str, str], status: int) -> None:
    assert httpx.post(server.url, content="SELECT 1", headers=headers).status_code == status
