"""The embedded ClickHouse: one engine per process, one handle per request, no HTTP.

chDB keeps one engine per process and data folder. Any number of handles to it run at the same time, each with its own
settings, current database and temporary tables, and a new one costs a fifth of a millisecond: so a request gets its
own, and nothing that it sets can reach another. A handle runs one thing at a time. Everything here blocks;
`Engine.call` is the one door from the event loop, and it never leaves a thread behind: a call that is given up is
killed in the engine and then awaited.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import threading
import time
import types
import urllib.parse
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import structlog

from streams.events import HitstreamError

from .statement import BLOCKWISE, Statement

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PIECE: Final = 1 << 20

# How much the engine may hold. The caches are upper bounds, made for servers with a terabyte: here they are small.
_OPTIONS: Final = {
    "mark_cache_size": 64 << 20,
    "primary_index_cache_size": 64 << 20,
    "index_mark_cache_size": 16 << 20,
    "query_condition_cache_size": 16 << 20,
    "parquet_metadata_cache_size": 16 << 20,
    "compiled_expression_cache_size": 32 << 20,
}
_MEMORY_SHARE: Final = 0.5

# What the embedded engine sets otherwise than a server does.
_AS_A_SERVER: Final = {"implicit_select": 0, "allow_introspection_functions": 0, "storage_file_read_method": "pread"}

_CODE: Final = re.compile(r"Code: (\d+)\. DB::Exception: (.*)", re.DOTALL)
_VERSION: Final = re.compile(r" \(version [^()]*(?:\([^()]*\))?\)\s*\Z")
# What the engine adds of the file that the rows of an insert come by, which is ours and not the client's matter.
_OF_THE_FILE: Final = re.compile(
    r"\(in file/uri [^)]*\): (?=While executing)|(?:: While executing File)?: data for INSERT was parsed from file"
)
_NESTED: Final = re.compile(r"Code: \d+\. DB::Exception: (.*) \(version [\d.]+\)\.? \(\w+\)\Z", re.DOTALL)


class Refusal(Exception):
    """The engine, or the HTTP interface in its place, refuses a statement.

    Attributes:
        code: ClickHouse's number for it (60: UNKNOWN_TABLE).
        text: the sentence after `DB::Exception:`, with the name of the code in brackets, without the version.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def of(cls, error: RuntimeError) -> Refusal:
        """What an error of chDB says."""
        if match := _CODE.search(str(error)):
            words = _OF_THE_FILE.sub("", _VERSION.sub("", match[2]).strip())
            return cls(int(match[1]), _NESTED.sub(r"\1", words))
        return cls(1001, f"{error} (STD_EXCEPTION)")


@dataclass
class Tally:
    """What a statement has read, written and given back so far; `elapsed` in seconds."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started


def quoted(value: str) -> str:
    """A value as a ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """A name as a ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Handle:
    """A connection to the engine: its own settings, current database and temporary tables. Not for two at a time.

    `lasting` handles serve a session: what one request asks for itself is undone before the next.
    """

    def __init__(self, connection: Any, scratch: Path, *, lasting: bool = False) -> None:
        self._connection = connection
        self._scratch = scratch
        self.lasting = lasting
        self._applied: dict[str, str] = {}
        self._before: dict[str, str | None] = {}
        self._database = self._current = "default"

    def close(self) -> None:
        self._connection.close()

    def prepare(self, settings: Mapping[str, str], database: str) -> None:
        """Put settings and current database in force for the next statement.

        Raises:
            Refusal: there is no such setting, value or database.
        """
        database = database or self._database
        if database != self._current:
            self._run(f"USE {identifier(database)}")
            self._current = database
        changes = {name: quoted(value) for name, value in settings.items() if self._applied.get(name) != value}
        if self.lasting:
            self._remember([name for name in changes if name not in self._before])
            for name in self._applied.keys() - settings.keys():
                before = self._before[name]
                changes[name] = "DEFAULT" if before is None else quoted(before)
        if changes:
            self._run("SET " + ", ".join(f"{identifier(name)} = {value}" for name, value in changes.items()))
        self._applied = dict(settings)

    def _remember(self, names: list[str]) -> None:
        """Note what a session has set before a request overrides it; None where it is the default."""
        if not names:
            return
        listed = ", ".join(map(quoted, names))
        rows = self._run(f"SELECT name, changed, value FROM system.settings WHERE name IN ({listed})")  # noqa: S608
        found = dict.fromkeys(names, None) | {
            name: _unescaped(value) if changed == "1" else None
            for name, changed, value in (line.split("\t") for line in rows.splitlines())
        }
        self._before.update(found)

    def watch(self, progressed: Callable[[dict[str, int]], None] | None) -> None:
        """Call this with figures while the next statement runs, on the thread that runs it; None ends that."""
        self._connection.set_progress_callback(progressed)

    def settled(self, statement: Statement) -> None:
        """After a SET or USE of the session itself: that is what later requests go back to."""
        if statement.kind == "set":
            self._before.clear()
            self._applied.clear()
        elif statement.kind == "use":
            self._database = self._current = self._run("SELECT currentDatabase() FORMAT TSVRaw").rstrip("\n")

    def changes(self, statement: Statement) -> bool:
        """Whether a statement does more than read or set something for itself."""
        verdict = self._connection._conn.classify_query(statement.text.decode(errors="replace"))
        return statement.kind not in ("set", "use") and verdict["query_class"].name != "READ_ONLY"

    def _run(self, sql: str) -> str:
        try:
            return str(self._connection.query(sql, "TabSeparated").bytes().decode())
        except RuntimeError as error:
            raise Refusal.of(error) from error

    def read(
        self, statement: Statement, output: str, parameters: Mapping[str, str], tally: Tally
    ) -> Generator[bytes, None, None]:
        """Run a statement and give its result piece by piece, in the format it names or else `output`.

        Memory is bounded for every SELECT: blocks as they come where the format allows it, else through a file.

        Raises:
            Refusal: at any piece.
        """
        output = statement.format or output
        try:
            if statement.kind == "select" and not statement.totals and output in BLOCKWISE:
                yield from self._blocks(statement, output, parameters, tally)
            elif statement.output_at is not None and output != "Null":
                yield from self._file(statement, output, parameters, tally)
            else:
                yield from self._whole(statement.text, output, parameters, tally)
        except RuntimeError as error:
            raise Refusal.of(error) from error

    def _blocks(
        self, statement: Statement, output: str, parameters: Mapping[str, str], tally: Tally
    ) -> Iterator[bytes]:
        stream = self._connection.send_query(statement.text, output, params=dict(parameters))
        try:
            while (block := stream.fetch()) is not None:
                tally.read_rows = max(tally.read_rows, block.storage_rows_read())
                tally.read_bytes = max(tally.read_bytes, block.storage_bytes_read())
                tally.result_rows += block.rows_read()
                tally.result_bytes += block.size()
                yield block.bytes()
        finally:
            with suppress(RuntimeError):
                stream.close()

    def _file(self, statement: Statement, output: str, parameters: Mapping[str, str], tally: Tally) -> Iterator[bytes]:
        at = statement.output_at
        # The engine puts a file of its own in the place of one that is there: open it when it is written.
        path = self._scratch / f"result-{uuid.uuid4()}"
        try:
            clause = f"\nINTO OUTFILE {quoted(str(path))} COMPRESSION 'none' FORMAT {output}\n".encode()
            tail = _after_name(statement.text[at:]) if statement.format else b""
            result = self._connection.query(statement.text[:at] + clause + tail, output, params=dict(parameters))
            self._count(result, tally)
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    tally.result_bytes += len(piece)
                    yield piece
        finally:
            path.unlink(missing_ok=True)

    def _whole(self, text: bytes, output: str, parameters: Mapping[str, str], tally: Tally) -> Iterator[bytes]:
        result = self._connection.query(text, output, params=dict(parameters))
        self._count(result, tally)
        if result.size():
            tally.result_bytes = result.size()
            yield result.bytes()

    @staticmethod
    def _count(result: Any, tally: Tally) -> None:
        tally.result_rows = result.rows_read()
        tally.read_rows = result.storage_rows_read()
        tally.read_bytes = result.storage_bytes_read()
        tally.written_rows = result.rows_written()
        tally.written_bytes = result.bytes_written()

    def insert(self, statement: Statement, rows: Path, parameters: Mapping[str, str], tally: Tally) -> None:
        """Insert the rows in a file, which are in the statement's format. When this returns, they are in the table.

        By way of a file because the engine's streaming insert says nothing of what fails behind the parsing of the
        rows – a constraint, too many parts, a full disk –, and would acknowledge rows that are nowhere.

        Raises:
            Refusal: no such table, column or format; or the rows are refused.
        """
        at = len(statement.text) if statement.settings_at is None else statement.settings_at
        clause = f" FROM INFILE {quoted(str(rows))} COMPRESSION 'none' ".encode()
        layout = f" FORMAT {statement.format}".encode()
        text = statement.text[:at] + clause + statement.text[at:] + layout
        try:
            result = self._connection.query(text, "Null", params=dict(parameters))
        except RuntimeError as error:
            raise Refusal.of(error) from error
        self._count(result, tally)

    def table(self, name: str, structure: str, layout: str, rows: bytes) -> None:
        """Make a temporary table of data that came with the request."""
        self.make_table(name, structure)
        path = self._scratch / f"rows-{uuid.uuid4()}"
        try:
            path.write_bytes(rows)
            self.insert(Statement("insert", f"INSERT INTO {identifier(name)}".encode(), layout), path, {}, Tally())
        finally:
            path.unlink(missing_ok=True)

    def make_table(self, name: str, structure: str) -> None:
        """Make an empty temporary table in memory; it ends with the handle."""
        self._run(f"CREATE TEMPORARY TABLE {identifier(name)} ({structure}) ENGINE = Memory")

    def drop_table(self, name: str) -> None:
        self._run(f"DROP TEMPORARY TABLE IF EXISTS {identifier(name)}")


def _after_name(clause: bytes) -> bytes:
    """What follows `FORMAT name`."""
    match = re.match(rb"\w+\s+\w+", clause)
    return clause[match.end() :] if match else b""


def _unescaped(value: str) -> str:
    return value.replace("\\t", "\t").replace("\\n", "\n").replace("\\'", "'").replace("\\\\", "\\")


class Engine:
    """The engine over one data folder. Made by `open`, ended by `close`; both block.

    Attributes:
        version: ClickHouse's version.
        scratch: a folder for files that live as long as a request.
        timezone: the server's time zone.
        name: what the server calls itself.
        compresses: the engine's default of enable_http_compression.
    """

    def __init__(self, path: Path, chdb: types.ModuleType, lock: int, threads: int) -> None:
        self._lock = lock
        self._connect: Callable[[], Any] = lambda: chdb.connect(_address(path))
        self.scratch = path / "tmp"
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="clickhouse")
        self._control = self.handle()
        self._controlling = threading.Lock()
        about = self._control._run(
            "SELECT version(), timezone(), hostName(), getSetting('enable_http_compression') FORMAT TSVRaw"
        )
        self.version, self.timezone, self.name, compresses = about.rstrip("\n").split("\t")
        self.compresses = compresses in ("1", "true")

    @classmethod
    def open(cls, data_dir: Path, *, threads: int = 32) -> Engine:
        """Open (or make) the data folder and start the engine.

        Raises:
            HitstreamError: chdb is not installed, the folder is in use or cannot be written, the engine does not start.
        """
        path = data_dir.resolve()
        lock = _locked(path)
        try:
            chdb = _chdb()
            return cls(path, chdb, lock, threads)
        except (RuntimeError, Refusal) as error:
            os.close(lock)
            if "lock file" in str(error) or "initializing EmbeddedServer" in str(error):
                raise HitstreamError(
                    f"ClickHouse could not open {path}: another program has that folder open, or its files are damaged;"
                    " stop that program or choose another folder."
                ) from error
            raise HitstreamError(f"ClickHouse could not start on {path}: {error}") from error
        except HitstreamError:
            os.close(lock)
            raise

    def close(self) -> None:
        """Wait for what runs, then stop the engine: every part is on disk afterwards."""
        self._pool.shutdown(wait=True)
        self._control.close()
        os.close(self._lock)

    def handle(self, *, lasting: bool = False) -> Handle:
        try:
            return Handle(self._connect(), self.scratch, lasting=lasting)
        except RuntimeError as error:
            raise Refusal.of(error) from error

    def kill(self, mark: str) -> None:
        """End the running statements whose log_comment is `mark`."""
        with self._controlling, suppress(Refusal):
            self._control._run(f"KILL QUERY WHERE Settings['log_comment'] = {quoted(mark)} ASYNC")

    async def call(self, mark: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that blocks on a thread. If the caller is cancelled, kill what is marked `mark` (if any), wait
        for the thread to come back, and only then be cancelled: nobody else can meet the handle in use."""
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                if mark:
                    # A thread of its own: the pool may be full of what has to be killed.
                    await _through(asyncio.to_thread(self.kill, mark))
                await _through(asyncio.wait([running], timeout=1.0))
            if not running.cancelled():
                running.exception()
            raise


async def _through(awaitable: Any) -> None:
    """Await something even while being cancelled again."""
    waiting = asyncio.ensure_future(awaitable)
    while not waiting.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(waiting)


def _locked(path: Path) -> int:
    """Take the folder for this process; returns the descriptor that holds it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "tmp").mkdir(exist_ok=True)
        for stale in (path / "tmp").iterdir():
            if stale.name.startswith(("result-", "rows-")):
                stale.unlink(missing_ok=True)
        descriptor = os.open(path / "hitstream.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HitstreamError(f"The folder {path} cannot be used for ClickHouse's data: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise HitstreamError(
            f"The folder {path} is in use by another local ClickHouse (process {owner or 'unknown'}); stop it or choose"
            " another folder."
        ) from error
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _chdb() -> types.ModuleType:
    """Load the engine, without what its loading does to this thread's signals (it blocks SIGCHLD and SIGPIPE)."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        import chdb
    except ImportError as error:
        raise HitstreamError(
            "The embedded ClickHouse needs the package chdb: install hitstream[embedded], or set clickhouse.dsn to a"
            " server of your own."
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return chdb  # type: ignore[no-any-return]


def _address(path: Path) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    options = {**_OPTIONS, **_AS_A_SERVER, "max_server_memory_usage": int(memory * _MEMORY_SHARE)}
    return f"{path}?{urllib.parse.urlencode(options)}"
