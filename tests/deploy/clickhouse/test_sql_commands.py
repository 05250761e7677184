"""`hitstream sql`, `export`, `backup` and `restore`, as they are called."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest

from deploy import cli

from .conftest import Server

ROOT = Path(__file__).parents[3]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Run:
    """Runs a command in an empty folder, against the local server's database `default` unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.logs, "configure", lambda *_, **__: None)  # logging is the whole test run's

    def run(*arguments: str, stdin: str = "", database: str = "default") -> Done:
        monkeypatch.setenv("HITSTREAM_CLICKHOUSE__DSN", f"clickhouse://127.0.0.1:{server.port}/{database}")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli._main(list(arguments))
        sys.stdout.flush()
        out, err = capsysbinary.readouterr()
        return Done(code, out.decode(), err.decode())

    return run


def test_a_result_that_is_no_terminal_s_has_names_and_tabs(run: Run) -> None:
    assert run("sql", "SELECT 1 AS a, 'x' AS b") == (0, "a\tb\n1\tx\n", "")


def test_a_result_in_any_format(run: Run) -> None:
    assert run("sql", "--format", "JSONEachRow", "SELECT 1 AS a").out == '{"a":1}\n'
    assert run("sql", "SELECT 1 AS a FORMAT CSV").out == "1\n", "the statement's own comes first"
    assert json.loads(run("sql", "--json", "SELECT 1 AS a").out)["data"] == [{"a": 1}]
    assert json.loads(run("sql", "--json", "CREATE TABLE IF NOT EXISTS nothing (a UInt8) ENGINE = Memory").out) == {
        "meta": [],
        "data": [],
        "rows": 0,
    }


def test_parameters_are_the_server_s_to_bind(run: Run) -> None:
    asked = ["--param", "s=it's\ta = \\b", "--param", "d=2026-11-23", "--param", "a=['x','y']"]
    statement = "SELECT {s:String} AS s, {d:Date} + 1, {a:Array(String)}[2] FORMAT TSVRaw"
    assert run("sql", statement, *asked).out == "it's\ta = \\b\t2026-11-24\ty\n"


def test_statements_come_from_a_file_or_from_standard_input(run: Run, tmp_path: Path) -> None:
    several = "-- first\nCREATE OR REPLACE TABLE several (a UInt8) ENGINE = Memory;\nINSERT INTO several VALUES (7);\n"
    (tmp_path / "several.sql").write_text(several)
    assert run("sql", "--file", "several.sql") == (0, "", "")
    assert run("sql", stdin="SELECT a\nFROM several").out == "a\n7\n"
    assert run("sql", "--file", "-", stdin="SELECT 1 AS x;\nSELECT ';' AS y;").out == "x\n1\ny\n;\n"
    assert run("sql", "INSERT INTO several FORMAT CSV", stdin="8\n9\n").code == 0
    assert run("sql", "SELECT sum(a) AS a FROM several").out == "a\n24\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sql", "SELECT * FROM nowhere"], 1, "code 60"),
        (["sql", "SELEC"], 1, "Maybe you meant: SELECT"),
        (["sql", "SELECT throwIf(number = 900000) FROM numbers(1000000) FORMAT Null"], 1, "code 395"),
        (["sql", "SELECT throwIf(1, 'a is one of b, c')"], 1, "(code 395): a is one of b, c\n"),
        (["sql", "SELECT 1; SELECT 2"], 2, "in a file (--file FILE; - is standard input)"),
        (["sql", "SELECT 1", "--file", "x.sql"], 2, "not both"),
        (["sql", "--file", "x.sql"], 2, "x.sql can't be read"),
        (["sql"], 2, "no statement"),
        (["sql", "SELECT 1", "--param", "x"], 2, "NAME=VALUE"),
        (["sql", "SELECT 1", "--json", "--format", "CSV"], 2, "do not go together"),
        (["sql", "--format", "NoFormat", "SELECT 1"], 1, "NoFormat"),
        (["export", "nowhere", "x.parquet"], 2, "no table nowhere"),
        (["export", "SELECT * FROM nowhere", "x.parquet"], 1, "code 60"),
        (["export", "SELECT 1", "x.xls"], 2, ".parquet"),
        (["export", "SELECT 1", "none/x.csv"], 1, "can't be written"),
        (["restore", "none"], 2, "no backup none"),
        (["backup", "."], 2, "is there already"),
    ],
)
def test_wrong_use_is_one_sentence(run: Run, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_of_a_result_is_no_part_of_it(run: Run) -> None:
    done = run("sql", "--format", "TabSeparated", "SELECT throwIf(number = 900000) AS a FROM numbers(1000000)")
    assert done.code == 1
    assert set(done.out.split("\n")) == {"0", ""}, "what came before it, and nothing else"
    assert "non-zero" in done.err


def test_a_database_that_is_not_there_names_the_command_that_makes_it(run: Run) -> None:
    assert "run `hitstream migrate`" in run("sql", "SELECT 1", database="missing").err


def test_no_server_and_one_that_is_no_clickhouse_are_told_apart(
    server: Server, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setattr(server, "port", 1)
    assert "can't be reached" in run("sql", "SELECT 1").err
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:  # answers every POST with 501
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setattr(server, "port", other.server_address[1])
        monkeypatch.setattr(BaseHTTPRequestHandler, "log_message", lambda *_: None)
        try:
            assert "is no ClickHouse (HTTP 501)" in run("sql", "SELECT 1").err
        finally:
            other.shutdown()
            thread.join()


def test_a_table_or_a_query_is_exported(run: Run, tmp_path: Path) -> None:
    run("sql", "CREATE OR REPLACE TABLE twice (a UInt64, s String) ENGINE = ReplacingMergeTree ORDER BY a")
    for _ in range(2):
        run("sql", "INSERT INTO twice SELECT number, 'x' FROM numbers(1000)")
    assert run("export", "twice", "twice.parquet").out.startswith("1,000 rows, ")
    assert pyarrow.parquet.read_table(tmp_path / "twice.parquet").column("a").to_pylist() == list(range(1000))
    done = run("export", "SELECT a FROM twice FINAL WHERE a < {n:UInt8}", "few.csv", "--param", "n=2", "--json")
    assert json.loads(done.out) == {"file": "few.csv", "format": "CSVWithNames", "rows": 2, "bytes": 8}
    assert (tmp_path / "few.csv").read_text() == '"a"\n0\n1\n'
    assert run("export", "twice", "few.csv").code == 2, "nothing is overwritten"
    assert run("export", "SELECT throwIf(number = 900000) FROM numbers(1000000)", "broken.jsonl").code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"twice.parquet", "few.csv"}


def test_migrate_check_is_an_exit_code(run: Run) -> None:
    pending = run("migrate", "--check", database="unmade")
    assert (pending.code, pending.out.split("\n")[0]) == (1, "pending: 0001_records")
    assert run("sql", "SELECT 1", database="unmade").code == 1, "nothing was made"
    assert run("migrate", database="unmade").code == 0
    assert run("migrate", "--check", database="unmade") == (0, "The tables are up to date.\n", "")
    assert json.loads(run("migrate", "--check", "--json", database="unmade").out) == {"pending": []}
    run("sql", "INSERT INTO schema_migrations (number, name) VALUES (4711, '4711_later')", database="unmade")
    newer = run("migrate", "--check", database="unmade")
    assert (newer.code, "upgrade this one" in newer.err, newer.err.count("\n")) == (1, True, 1)


def test_backup_and_restore(run: Run) -> None:
    assert run("migrate", database="kept").code == 0
    run("sql", "INSERT INTO stocks (code, name) SELECT toString(number), 'x' FROM numbers(5)", database="kept")
    done = run("backup", "kept.zip", "--json", database="kept")
    expected = {"path": "kept.zip", "tables": {"stocks": 5}, "rows": 5}
    assert (done.code, json.loads(done.out)) == (0, expected)
    assert json.loads(run("restore", "kept.zip", "--check", "--json", database="brought_back").out) == expected
    assert run("sql", "SELECT 1", database="brought_back").code == 1, "--check writes nothing"
    assert "5 rows restored" in run("restore", "kept.zip", database="brought_back").out
    assert run("sql", "SELECT count() AS n FROM stocks", database="brought_back").out == "n\n5\n"


class Terminal:
    """`hitstream sql` on a terminal."""

    def __init__(self, server: Server, home: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        environ = {
            "HITSTREAM_CLICKHOUSE__DSN": f"clickhouse://127.0.0.1:{server.port}/default",
            "XDG_STATE_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "sql", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=home,
            env=environ,
            start_new_session=True,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str, seconds: float = 90) -> str:
        """What is printed up to a text."""
        printed, deadline = "", time.monotonic() + seconds
        while text not in printed:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, printed
            try:
                printed += os.read(self.master, 1 << 16).decode()
            except OSError:  # the other end has closed
                assert text in printed, printed
        return printed

    def end(self) -> int:
        self.process.kill()
        os.close(self.master)
        return self.process.wait()


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        opened.append(Terminal(server, tmp_path, *arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.end()


def test_a_terminal_gets_a_table_of_at_most_so_many_rows(terminal: Callable[..., Terminal]) -> None:
    shown = terminal("--rows", "2", "SELECT number AS n, if(number > 0, NULL, '조건') AS s FROM numbers(9)").until(
        "shows more"
    )
    assert "│ 0 │ 조건 │" in shown
    assert "│ 1 │ NULL │" in shown
    assert "│ 2 │" not in shown
    assert "the first 2 rows" in shown


def test_a_conversation_has_a_session_errors_cancelling_and_a_history(
    server: Server, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    talk = terminal()
    talk.until("hitstream> ")
    talk.type("SET max_threads = 3;\n")
    talk.until("hitstream> ")
    talk.type("SELECT getSetting('max_threads') * 14 AS n\n")
    talk.until("… ")
    talk.type(";\n")
    assert "│ 42 │" in talk.until("hitstream> ")
    talk.type("SELECT nothing;\n")
    assert "code 47" in talk.until("hitstream> ")
    talk.type("SELECT count() FROM numbers(100000000000) WHERE number % 5 = 1;\n")
    running = "SELECT count() FROM system.processes WHERE query LIKE '%numbers(100000000000) WHERE number % 5%'"
    deadline = time.monotonic() + 90
    while server.sql(running) != "2":  # itself and the other
        assert time.monotonic() < deadline
    talk.process.send_signal(signal.SIGINT)
    assert "cancelled" in talk.until("hitstream> ")
    while server.sql(running) != "1":
        assert time.monotonic() < deadline
    talk.type("exit\n")
    assert talk.process.wait(20) == 0
    history = tmp_path / "hitstream" / "sql_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "SET max_threads = 3;\n" in history.read_text()
    again = terminal()
    again.until("hitstream> ")
    again.type("\x10\x10")  # Ctrl-P: one line back, and one more
    assert "numbers(100000000000)" in again.until("% 5 = 1;")
