"""Clients of other hands than ours, unmodified, take the local ClickHouse for a server: aiochclient, Node's, curl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import aiochclient
import aiohttp
import httpx
import pytest

from .conftest import Server, until

NODE = Path(__file__).parent / "node"


async def test_aiochclient(server: Server, table: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        aiochclient.ChClient(session, url=server.url, compress_response=True) as client,
    ):
        assert await client.is_alive()
        await client.execute(f"INSERT INTO {table} VALUES", (1, "조건"), (2, "it's"))
        assert await client.fetchval(f"SELECT count() FROM {table}") == 2
        row = await client.fetchrow(
            f"SELECT a, s, toDate('2026-11-23') AS d FROM {table} WHERE s = {{s}}", params={"s": "it's"}
        )
        assert row is not None
        assert (row["a"], row["s"], row["d"]) == (2, "it's", date(2026, 11, 23))
        streamed = [row[0] async for row in client.iterate("SELECT number FROM numbers(100000)")]
        assert streamed == list(range(100_000))
        assert await client.fetch(f"SELECT a FROM {table} WHERE 0") == []
        at = await client.fetchval("SELECT toDateTime64('2026-11-23 09:00:00.25', 2, 'UTC')")
        assert at == datetime(2026, 11, 23, 9, 0, 0, 250_000, tzinfo=UTC).replace(tzinfo=None)
        with pytest.raises(aiochclient.ChClientError, match=r"Code: 60\."):
            await client.fetch("SELECT * FROM nowhere")


@pytest.fixture(scope="session")
def node_packages() -> None:
    """The client's package, which `make test` has installed beforehand."""
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--silent", "--no-progress"], cwd=NODE, check=True, timeout=100)


@pytest.mark.usefixtures("node_packages")
def test_the_client_for_node(server: Server, table: str) -> None:
    done = subprocess.run(
        ["node", "client.mjs", server.url, table], cwd=NODE, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "ping": True,
        "insert": "20000",
        "rows": [{"a": 1, "s": "조건"}, {"a": 2, "s": "it's"}],
        "streamed": 20_002,
        "json": [{"n": 42}],
        "command": "string",
        "exec": '1,"x"\n',
        "unknown": {"code": "60", "type": "UNKNOWN_TABLE", "name": "Error"},
        "middle": {"code": "395", "type": "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", "name": "Error"},
        "session": 3,
        "aborted": True,
        "killed": "QUERY_WAS_CANCELLED",
    }


def curl(server: Server, *arguments: str, stdin: bytes = b"") -> str:
    """What curl prints; `@` in an argument is the server's address."""
    filled = [argument.replace("@/", f"{server.url}/") for argument in arguments]
    done = subprocess.run(["curl", "-gsS", *filled], input=stdin, capture_output=True, timeout=60, check=True)
    return done.stdout.decode().removesuffix("\n")


# Every way that ClickHouse's documentation of the HTTP interface shows (interfaces/http), and what comes of it.
WAYS: list[tuple[str, list[str], bytes, str]] = [
    ("a look whether it is there", ["@/"], b"", "Ok."),
    ("ping", ["@/ping"], b"", "Ok."),
    ("replicas", ["@/replicas_status"], b"", "Ok."),
    ("the query in the address", ["@/?query=SELECT%201"], b"", "1"),
    ("the query as the body", ["@/?", "--data-binary", "@-"], b"SELECT 1", "1"),
    ("half of it in each", ["@/?query=SELECT", "-d", " 1"], b"", "1"),
    ("in the address by POST", ["-X", "POST", "-F", "query=SELECT 1", "@/"], b"", "1"),
    ("in the address, urlencoded by curl", ["-G", "@/", "--data-urlencode", "query=SELECT 'a&b'"], b"", "a&b"),
    ("chunked", ["-H", "Transfer-Encoding: chunked", "@/", "--data-binary", "@-"], b"SELECT 1", "1"),
    ("a format by default", ["@/?default_format=JSONEachRow", "-d", "SELECT 1 AS a"], b"", '{"a":1}'),
    ("a format by header", ["-H", "X-ClickHouse-Format: CSV", "@/", "-d", "SELECT 'a'"], b"", '"a"'),
    ("a format in the query", ["@/", "-d", "SELECT 1 AS a FORMAT Vertical"], b"", "Row 1:\n──────\na: 1"),
    ("the database by address", ["@/?database=system", "-d", "SELECT currentDatabase()"], b"", "system"),
    (
        "the database by header",
        ["-H", "X-ClickHouse-Database: system", "@/", "-d", "SELECT currentDatabase()"],
        b"",
        "system",
    ),
    ("a setting", ["@/?max_block_size=7", "-d", "SELECT getSetting('max_block_size')"], b"", "7"),
    ("a parameter", ["@/?param_n=2&param_s=x%20y", "-d", "SELECT {n:UInt8}, {s:String}"], b"", "2\tx y"),
    ("a parameter with a tab in it", ["@/?param_s=a%5Ctb", "-d", "SELECT {s:String}"], b"", "a\\tb"),
    ("a parameter of a form", ["-F", "param_n=3", "@/?query=SELECT%20%7Bn:UInt8%7D"], b"", "3"),
    (
        "an array and an identifier",
        ["@/?param_a=[1,2]&param_c=number", "-d", "SELECT {a:Array(UInt8)}, {c:Identifier} FROM numbers(1)"],
        b"",
        "[1,2]\t0",
    ),
    ("user and password in the address", ["@/?user=default&password=", "-d", "SELECT 1"], b"", "1"),
    ("user by basic authorization", ["-u", "default:", "@/", "-d", "SELECT currentUser()"], b"", "default"),
    (
        "user by headers",
        ["-H", "X-ClickHouse-User: default", "-H", "X-ClickHouse-Key;", "@/", "-d", "SELECT 1"],
        b"",
        "1",
    ),
    (
        "waiting for the end",
        [
            "@/?max_result_bytes=4000000&buffer_size=3000000&wait_end_of_query=1",
            "-d",
            "SELECT toUInt8(number) FROM system.numbers LIMIT 3 FORMAT TSV",
        ],
        b"",
        "0\n1\n2",
    ),
    ("compressed for curl", ["--compressed", "@/?enable_http_compression=1", "-d", "SELECT 42"], b"", "42"),
    (
        "brotli for curl",
        ["--compressed", "-H", "Accept-Encoding: br", "@/?enable_http_compression=1", "-d", "SELECT 42"],
        b"",
        "42",
    ),
    ("progress", ["@/?send_progress_in_http_headers=1&wait_end_of_query=1", "-d", "SELECT 1"], b"", "1"),
    (
        "external data",
        [
            "-F",
            "passwd=@-;filename=passwd.tsv",
            "@/?query=SELECT+sum(a)+FROM+passwd&passwd_format=CSV&passwd_structure=a+UInt8,b+String",
        ],
        b"1,x\n2,y\n",
        "3",
    ),
    (
        "external data by types",
        ["-F", "t=@-;filename=t", "@/?query=SELECT+max(_1)+FROM+t&t_types=UInt8"],
        b"1\n5\n",
        "5",
    ),
]


@pytest.mark.parametrize(("arguments", "stdin", "answer"), [case[1:] for case in WAYS], ids=[case[0] for case in WAYS])
def test_curl_in_every_way_that_is_documented(server: Server, arguments: list[str], stdin: bytes, answer: str) -> None:
    assert curl(server, *arguments, stdin=stdin) == answer


INSERTS: list[tuple[str, list[str], bytes]] = [
    ("values in the body behind the query", ["@/?query=INSERT%20INTO%20{t}%20VALUES", "-d", "(1,'a'),(2,'b')"], b""),
    ("all in the body", ["@/", "--data-binary", "@-"], b"INSERT INTO {t} VALUES (1,'a'),(2,'b')"),
    (
        "query and data apart",
        ["@/?query=INSERT%20INTO%20{t}%20FORMAT%20TabSeparated", "--data-binary", "@-"],
        b"1\ta\n2\tb\n",
    ),
    ("a piped file", ["-T", "-", "@/?query=INSERT%20INTO%20{t}%20FORMAT%20CSV"], b"1,a\n2,b\n"),
    (
        "JSON",
        ["@/?query=INSERT%20INTO%20{t}%20FORMAT%20JSONEachRow", "--data-binary", "@-"],
        b'{"a":1,"s":"a"}\n{"a":2,"s":"b"}\n',
    ),
    ("a select", ["@/", "-d", "INSERT INTO {t} SELECT number + 1, ['a','b'][number + 1] FROM numbers(2)"], b""),
    (
        "by asynchronous insert",
        ["@/?async_insert=1&wait_for_async_insert=1&query=INSERT%20INTO%20{t}%20FORMAT%20CSV", "--data-binary", "@-"],
        b"1,a\n2,b\n",
    ),
]


@pytest.mark.parametrize(("arguments", "stdin"), [case[1:] for case in INSERTS], ids=[case[0] for case in INSERTS])
def test_curl_inserts_in_every_way_that_is_documented(
    server: Server, table: str, arguments: list[str], stdin: bytes
) -> None:
    filled = [argument.replace("{t}", f"`{table}`") for argument in arguments]
    assert curl(server, *filled, stdin=stdin.replace(b"{t}", f"`{table}`".encode())) == ""
    assert server.sql(f"SELECT a, s FROM `{table}` ORDER BY a") == "1\ta\n2\tb"


def test_progress_is_told_in_headers(server: Server) -> None:
    parameters = {"send_progress_in_http_headers": 1, "http_headers_progress_interval_ms": 1}
    answer = httpx.post(
        server.url, params=parameters, content="SELECT count() FROM numbers(300000000) WHERE number % 3 = 1"
    )
    told = [json.loads(value) for name, value in answer.headers.multi_items() if name == "x-clickhouse-progress"]
    assert 1 <= len(told) <= 32
    assert all(one["total_rows_to_read"] == "300000000" for one in told)
    read = [int(one["read_rows"]) for one in told]
    assert read == sorted(read)
    again = httpx.post(server.url, content="SELECT 1")
    assert "x-clickhouse-progress" not in again.headers


@pytest.fixture
def running(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The query id of a query that runs until it is ended."""
    name = f"running {request.node.name}"
    query = "SELECT count() FROM numbers(100000000000) WHERE number % 3 = 1"
    arguments = ["curl", "-sS", "-G", f"{server.url}/", "--data-urlencode", f"query_id={name}"]
    marked = f"SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE '%{name}%'"
    with subprocess.Popen([*arguments, "--data-urlencode", f"query={query}"], stdout=subprocess.PIPE) as process:
        try:
            until(lambda: server.sql(marked) == "1")
            yield name
            assert b"QUERY_WAS_CANCELLED" in process.communicate(timeout=30)[0]
        finally:
            process.kill()


def test_a_query_is_killed_by_the_id_that_its_client_gave(server: Server, running: str) -> None:
    same = httpx.post(server.url, params={"query_id": running}, content="SELECT 1")
    assert same.headers["X-ClickHouse-Exception-Code"] == "216", "no other may have its id meanwhile"
    killed = server.sql(f"KILL QUERY WHERE query_id = '{running}' SYNC")
    assert killed.startswith("finished\t")
    assert server.sql("KILL QUERY WHERE query_id = 'nobody' SYNC") == ""
    assert httpx.post(server.url, params={"query_id": running}, content="SELECT 1").text == "1\n"
