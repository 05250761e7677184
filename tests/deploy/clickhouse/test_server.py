"""Starting, stopping, crashing: what is in the way is said, and what was acknowledged is there."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deploy.local.clickhouse import serve
from deploy.local.clickhouse.server import _listen
from streams.events import ConfigError, HitstreamError

from .conftest import Server, until

TABLE = "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_keeps_everything(new_server: Callable[..., Server], number: signal.Signals) -> None:
    server = new_server().start()
    server.sql("CREATE DATABASE hits")
    server.sql("CREATE TABLE hits.t (a UInt64) ENGINE = ReplacingMergeTree ORDER BY a")
    server.sql("CREATE VIEW hits.above AS SELECT a FROM hits.t FINAL WHERE a > {least:UInt64}")
    server.sql("INSERT INTO hits.t SELECT number % 50 FROM numbers(100)")
    server.sql(TABLE)
    server.sql("INSERT INTO t VALUES (1, 'x')")
    assert server.end(number) == 0
    server.start()
    assert server.sql("SELECT count() FROM hits.above(least = 39)") == "10"
    assert server.sql("SELECT * FROM t") == "1\tx"


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_kill_loses_nothing_that_was_acknowledged(new_server: Callable[..., Server], rows: int) -> None:
    """Three writers, killed twice in the middle: each insert that was acknowledged is there, and no half of one."""
    server = new_server()
    acknowledged: set[int] = set()
    tried = 0

    def write(writer: int) -> None:
        nonlocal tried
        with httpx.Client(timeout=60) as client:
            while True:
                insert = tried = tried + 1
                body = f"{insert},x\n" * rows
                parameters = {"query": "INSERT INTO t FORMAT CSV", "async_insert": writer % 2}
                try:
                    answer = client.post(server.url, params=parameters, content=body)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.add(insert)

    for _ in range(2):
        server.start()
        server.sql(TABLE.replace("TABLE t", "TABLE IF NOT EXISTS t"))
        before = len(acknowledged)
        writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for writer in writers:
            writer.start()
        until(lambda: len(acknowledged) >= before + 20)  # noqa: B023
        server.end(signal.SIGKILL)
        for writer in writers:
            writer.join()

    server.start()
    lines = server.sql("SELECT a, count() FROM t GROUP BY a").splitlines()
    found = {int(a): int(count) for a, count in (line.split("\t") for line in lines)}
    assert acknowledged <= found.keys()
    assert set(found.values()) == {rows}
    assert server.sql("CHECK TABLE t SETTINGS check_query_single_value_result = 1") == "1"


def test_a_stop_finishes_an_insert_and_gives_up_a_read(new_server: Callable[..., Server]) -> None:
    server = new_server().start()
    server.sql(TABLE)
    answers: dict[str, httpx.Response] = {}

    def ask(name: str, statement: str) -> None:
        answers[name] = httpx.post(server.url, content=statement, timeout=60)

    insert = "INSERT INTO t SELECT number, sleepEachRow(0.5) FROM numbers(3) SETTINGS max_block_size = 1"
    endless = "SELECT count() FROM numbers(1000000000000) WHERE number % 3 = 1"
    threads = [threading.Thread(target=ask, args=item) for item in (("insert", insert), ("read", endless))]
    for thread in threads:
        thread.start()
    until(lambda: int(server.sql("SELECT count() FROM system.processes")) == 3)
    assert server.end() == 0
    for thread in threads:
        thread.join()
    assert answers["insert"].status_code == 200
    assert "DB::Exception" in answers["read"].text
    server.start()
    assert server.sql("SELECT count() FROM t") == "3"


def test_a_client_that_stalls_does_not_hold_up_a_stop(new_server: Callable[..., Server]) -> None:
    server = new_server().start()
    server.sql(TABLE)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = b"POST /?query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
        client.sendall(head + b"1,x\n" * 800_000)
        until(lambda: any((server.data_dir / "tmp").glob("rows-*")))
        assert server.end() == 0
    server.start()
    assert server.sql("SELECT count() FROM t") == "0"


def test_a_folder_in_use_is_refused(new_server: Callable[..., Server]) -> None:
    first = new_server().start()
    assert first.process is not None
    second = new_server().launch()
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"in use by another local ClickHouse (process {first.process.pid})" in said
    assert "Traceback" not in said
    assert first.sql("SELECT 1") == "1"


def test_a_folder_that_another_engine_has_open_is_refused(new_server: Callable[..., Server], tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "status").open("w") as status:
        fcntl.flock(status, fcntl.LOCK_EX)
        process = new_server().launch()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "another program has that folder open" in said
    assert "Traceback" not in said


def test_a_taken_port_is_refused(new_server: Callable[..., Server]) -> None:
    server = new_server()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        process = server.launch()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use" in said
    assert "Traceback" not in said


def test_a_folder_that_cannot_be_made_is_refused(new_server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = new_server(data_dir=tmp_path / "file" / "data").launch()
    assert "cannot be used for ClickHouse's data" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


async def test_everybody_may_not_come_in_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password"):
        await serve(host="0.0.0.0", port=0, data_dir=tmp_path, ready=lambda _: None)


async def test_the_port_is_looked_at_before_the_engine_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(HitstreamError, match="cannot listen"):
            await serve(host="127.0.0.1", port=taken.getsockname()[1], data_dir=tmp_path, ready=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio turns Nagle's algorithm off for connections of a socket that was made as TCP, and for no others."""
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


async def test_serve_is_ready_answers_and_ends_when_cancelled(tmp_path: Path) -> None:
    """In this very process: the one engine of the test run's process; twice, the second time on another folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for folder in ("first 폴더", "second"):
        said: list[str | None] = []
        answers = asyncio.Event()

        def ready(why_not: str | None, said: list[str | None] = said, answers: asyncio.Event = answers) -> None:
            said.append(why_not)
            if why_not is None:
                answers.set()

        serving = asyncio.ensure_future(serve(host="127.0.0.1", port=port, data_dir=tmp_path / folder, ready=ready))
        async with asyncio.timeout(60):
            await asyncio.wait(
                [serving, waiting := asyncio.ensure_future(answers.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            assert waiting.done()
            async with httpx.AsyncClient() as client:
                assert (await client.post(f"http://127.0.0.1:{port}", content="SELECT 1")).text == "1\n"
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        assert said == ["starting", None, "stopping"]
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
