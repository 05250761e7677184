"""`hitstream sql`, `export`, `backup` and `restore`: what a person asks of the configured ClickHouse.

The commands' own part only: arguments, and what is printed. A statement's way to the server is
`sinks.clickhouse.ask`'s, what a backup holds is `sinks.clickhouse.backup`'s.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from streams.events import ConfigError, HitstreamError

from . import logs
from .files import unread
from .settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from sinks.clickhouse.ask import Asker

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]
Parameters = Annotated[
    list[str] | None,
    Parameter(name="--param", negative=(), help="NAME=VALUE for {NAME:Type} in the query; may be given again."),
]

_TABLE: Final = "JSONCompactStringsEachRowWithNamesAndTypes"
_MOST_ROWS: Final = 1000
_FORMATS: Final = {
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".csv": "CSVWithNames",
    ".tsv": "TabSeparatedWithNames",
    ".jsonl": "JSONEachRow",
    ".ndjson": "JSONEachRow",
}
_NUMERIC: Final = re.compile(r"(?:Nullable\(|LowCardinality\()*(?:U?Int|Float|Decimal|BFloat)")
_PROMPT, _MORE, _PIECE = "hitstream> ", "       … ", 1 << 20


def sql(
    query: str = "",
    /,
    *,
    output: Annotated[str, Parameter(name="--format")] = "",
    file: Annotated[Path | None, Parameter(name="--file", allow_leading_hyphen=True)] = None,
    param: Parameters = None,
    rows: int = _MOST_ROWS,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Ask the configured ClickHouse.

    Without a query on a terminal it goes on asking, with history; else the query is read from standard input. An
    INSERT on the command line takes its rows from there.

    Parameters
    ----------
    query
        The statement.
    output
        Any of ClickHouse's formats, instead of a table (or, where the output is no terminal, TabSeparatedWithNames).
    file
        Read statements from this file, each ended by a semicolon at the end of a line; - is standard input.
    rows
        Most rows that a table shows.
    """
    if as_json and output:
        raise ConfigError("--json and --format do not go together: --json is --format JSON.")
    if query and file is not None:
        raise ConfigError("Give a query or --file, not both.")
    given = _given(param)
    shown = "JSON" if as_json else output or (_TABLE if sys.stdout.isatty() else "TabSeparatedWithNames")
    with _asker(config) as asker:
        if not query and file is None and sys.stdin.isatty():
            if as_json:
                raise ConfigError("--json needs a query.")
            _converse(asker, output or _TABLE, given, rows)
            return 0
        data = None
        if query:
            statements: Iterable[str] = [query]
            if re.match(r"\s*INSERT\b", query, re.IGNORECASE) and not sys.stdin.isatty():
                data = iter(lambda: sys.stdin.buffer.read(_PIECE), b"")
        else:
            from sinks.clickhouse.migrate import statements as split

            statements = split(_read(file))
            if not statements:
                raise ConfigError("There is no statement to ask; give one, or --file FILE.")
            if as_json and len(statements) > 1:
                raise ConfigError("--json is one object: ask one statement at a time.")
        try:
            for statement in statements:
                _ask(asker, statement, shown, given, rows, data)
        except HitstreamError as error:
            if "Multi-statements are not allowed" not in str(error):
                raise
            raise ConfigError(
                "This is more than one statement: give one, or all of them in a file (--file FILE; - is standard "
                "input), each ended by a semicolon at the end of a line."
            ) from error
    return 0


def export(
    what: str,
    file: Path,
    /,
    *,
    param: Parameters = None,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Write a table or the result of a query into a file.

    Parameters
    ----------
    what
        A table of the database (each row once), or a query.
    file
        Its name says the format: .parquet, .arrow, .csv, .tsv or .jsonl. A file that is there is not overwritten.
    """
    output = _FORMATS.get(file.suffix.lower())
    if output is None:
        raise ConfigError(f"{file} says no format by its name; end it with {', '.join(_FORMATS)}.")
    if file.exists():
        raise ConfigError(f"{file} is there already; choose another name.")
    given = _given(param)
    partial = file.with_name(file.name + ".partial")
    with _asker(config) as asker:
        statement = _selection(asker, what) if re.fullmatch(r"\w+", what) else what
        try:
            with (
                partial.open("wb") as to,
                _progress("exporting", bytes_too=True) as progress,
                asker.ask(statement, output=output, parameters=given, settings={"wait_end_of_query": 1}) as answer,
            ):
                task = progress.add_task(file.name, total=None)
                for piece in answer.pieces():
                    to.write(piece)
                    progress.update(task, advance=len(piece))
                count, size = answer.summary("result_rows"), to.tell()
            partial.rename(file)
        except OSError as error:
            raise HitstreamError(f"{file} can't be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)
    if as_json:
        _say(json.dumps({"file": str(file), "format": output, "rows": count, "bytes": size}))
    else:
        _say(f"{count:,} rows, {size:,} bytes in {file}")
    return 0


def backup(path: Path, /, *, as_json: Json = False, config: Config = None) -> int:
    """Copy every table of the database into a folder or zip file, with checksums and counts.

    Parameters
    ----------
    path
        A folder, or a file that ends with .zip; it must not be there yet.
    """
    from sinks.clickhouse import backup as backups

    settings = _settings(config)
    with _progress("rows") as progress:
        made = backups.backup(settings.clickhouse, path, _reporting(progress))
    return _report("backed up", made, path, as_json)


def restore(path: Path, /, *, check: bool = False, as_json: Json = False, config: Config = None) -> int:
    """Bring a backup's rows back; rows that are there already stay once. Run it again if it was cut off.

    Parameters
    ----------
    path
        What `hitstream backup` wrote.
    check
        Only verify the backup; nothing is written.
    """
    from sinks.clickhouse import backup as backups

    settings = _settings(config, needs_clickhouse=not check)
    with _progress("rows") as progress:
        if check:
            found = backups.verify(path, _reporting(progress))
        else:
            found = backups.restore(settings.clickhouse, path, _reporting(progress))
    return _report("verified" if check else "restored", found, path, as_json)


def _report(word: str, counts: Mapping[str, int], path: Path, as_json: bool) -> int:
    if as_json:
        _say(json.dumps({"path": str(path), "tables": counts, "rows": sum(counts.values())}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("table")
    table.add_column("rows", justify="right")
    for name, rows in counts.items():
        table.add_row(name, f"{rows:,}")
    Console().print(table)
    _say(f"{sum(counts.values()):,} rows {word}: {path}")
    return 0


def _ask(
    asker: Asker,
    statement: str,
    output: str,
    parameters: Mapping[str, str],
    most: int,
    data: Iterable[bytes] | None = None,
    session: str = "",
) -> None:
    """Ask one statement and print what comes; Ctrl-C ends it at the server too."""
    mark = str(uuid.uuid4())
    settings: dict[str, str | int] = {"query_id": mark}
    if session:
        settings |= {"session_id": session, "session_timeout": 3600}
    if output == "JSON":  # one object, or an error and nothing else
        settings["wait_end_of_query"] = 1
    try:
        with asker.ask(statement, output=output, parameters=parameters, settings=settings, rows=data) as answer:
            if answer.format == _TABLE and output == _TABLE:
                _table(answer.pieces(), most)
            else:
                empty = True
                for piece in answer.pieces():
                    empty = False
                    sys.stdout.buffer.write(piece)
                if empty and output == "JSON":
                    sys.stdout.buffer.write(b'{"meta": [], "data": [], "rows": 0}\n')
                sys.stdout.flush()
    except KeyboardInterrupt:
        with suppress(HitstreamError):
            asker.text(f"KILL QUERY WHERE query_id = '{mark}' ASYNC")
        raise
    except BrokenPipeError:
        # Who reads us has enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table(pieces: Iterator[bytes], most: int) -> None:
    """Print rows as a table: at most so many, and then that there are more."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = _lines(pieces)
    names, kinds = next(lines, None), next(lines, None)
    if names is None or kinds is None:
        return
    table = Table()
    for name, kind in zip(names, kinds, strict=True):
        table.add_column(Text(str(name)), justify="right" if _NUMERIC.match(str(kind)) else "left", overflow="fold")
    count, more = 0, False
    for row in lines:
        if count == most:
            more = True
            break
        table.add_row(*(Text("NULL", style="dim") if value == "ᴺᵁᴸᴸ" else Text(str(value)) for value in row))
        count += 1
    Console().print(table)
    _say(f"the first {count:,} rows; --rows shows more" if more else f"{count:,} row{'s' * (count != 1)}")


def _lines(pieces: Iterator[bytes]) -> Iterator[list[Any]]:
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from (json.loads(line) for line in whole if line)
    if held:
        yield json.loads(held)


def _converse(asker: Asker, output: str, parameters: Mapping[str, str], most: int) -> None:
    """Statement after statement from a terminal, each ended by a semicolon, until Ctrl-D or `exit`.

    They share a session: a SET or a temporary table holds for those that follow.
    """
    session = f"hitstream-sql-{uuid.uuid4()}"
    with _history(asker):
        _say("Statements end with a semicolon; Tab completes names; exit or Ctrl-D leaves.")
        while True:
            try:
                statement = _statement()
            except KeyboardInterrupt:
                _say("")
                continue
            if statement is None:
                _say("")
                return
            if statement.strip().lower() in {"exit", "quit", r"\q"}:
                return
            try:
                _ask(asker, statement, output, parameters, most, session=session)
            except KeyboardInterrupt:
                _say("cancelled")
            except HitstreamError as error:
                _say(str(error))


def _statement() -> str | None:
    """The next statement; None at the end of the input."""
    lines: list[str] = []
    while True:
        try:
            line = input(_MORE if lines else _PROMPT)
        except EOFError:
            return None
        lines.append(line)
        text = "\n".join(lines).strip()
        if not text:
            lines.clear()
        elif text.lower() in {"exit", "quit", r"\q"}:
            return text
        elif text.endswith(";"):
            return text.rstrip(";").rstrip()


@contextmanager
def _history(asker: Asker) -> Iterator[None]:
    """Lines of earlier days, completion of names; both where this Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hitstream"
    file = folder / "sql_history"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)  # statements may hold what nobody else should read
        readline.read_history_file(file)
    readline.set_history_length(5_000)
    try:
        names = asker.text(
            "SELECT DISTINCT arrayJoin([table, name]) FROM system.columns WHERE database = currentDatabase() "
            "UNION DISTINCT SELECT arrayJoin(['SELECT', 'FROM', 'WHERE', 'GROUP BY', 'ORDER BY', 'LIMIT', 'FINAL'])"
        ).splitlines()
    except HitstreamError:
        names = []

    def complete(text: str, state: int) -> str | None:
        found = [name for name in names if name.lower().startswith(text.lower())]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?.")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(file)


def _selection(asker: Asker, table: str) -> str:
    """The query that reads a table: of one that collapses copies, each row once."""
    engine = asker.text(
        "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = {name:String}", {"name": table}
    )
    if not engine:
        raise ConfigError(f"There is no table {table} in the database, and it is no query.")
    return f"SELECT * FROM `{table}`{' FINAL' if 'Replacing' in engine else ''}"  # noqa: S608 – a bare word


def _read(file: Path | None) -> str:
    if file is None or str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} can't be read: {unread(error)}.") from None


def _given(param: list[str] | None) -> dict[str, str]:
    given = {}
    for text in param or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param takes NAME=VALUE, and {text!r} is none.")
        given[name] = value
    return given


@contextmanager
def _progress(unit: str, *, bytes_too: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if bytes_too else MofNCompleteColumn(),
        TextColumn("" if bytes_too else unit),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _reporting(progress: Progress) -> Callable[[str, int, int], None]:
    """What a backup calls with a table, its rows so far and all of its rows."""
    tasks: dict[str, Any] = {}

    def report(table: str, done: int, total: int) -> None:
        if table not in tasks:
            tasks[table] = progress.add_task(table, total=total)
        progress.update(tasks[table], completed=done, total=total)

    return report


def _settings(config: Path | None, *, needs_clickhouse: bool = True) -> Settings:
    from .up import beside

    settings = beside(config, "clickhouse.dsn") if needs_clickhouse else beside(config)
    logs.configure(settings.log, least="error")
    return settings


@contextmanager
def _asker(config: Path | None) -> Iterator[Asker]:
    from sinks.clickhouse.ask import Asker
    from sinks.clickhouse.dsn import parse_dsn

    with Asker(parse_dsn(_settings(config).clickhouse.dsn)) as asker:
        yield asker


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
