"""Backup and restore of the product's tables, through SQL alone: from any ClickHouse, to any other.

A backup is a folder or a zip file of chunks, one day of one table each, in ClickHouse's Native format, compressed. Its
manifest says of each chunk the columns, rows and checksum, and of all the schema. It is written last, and the whole
gets its name after that: what bears the name is complete.

Rows are read with FINAL, so that each is in the backup once, and restoring inserts them under the same identity: what
is there already stays once, and a restore that was cut off is simply run again. What a day gains while it is being read
belongs to the next backup.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Final

import msgspec
import zstandard

from streams.events import ConfigError, HitstreamError

from ..settings import ClickHouseSettings
from .ask import Asker
from .dsn import parse_dsn
from .migrate import migrate, migrations
from .rows import COLUMNS

LAYOUT: Final = 1
"""Of the backup itself. One that is newer than this is not read."""

_MANIFEST: Final = "manifest.json"
_PIECE: Final = 1 << 20
# A restore is inserted whole or not at all, chunk by chunk, whatever the server has seen before.
_INSERT: Final[dict[str, str | int]] = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "deduplicate_insert": "disable",
    "distributed_foreground_insert": 1,
    "max_partitions_per_insert_block": 0,
}

Opener = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a file of a backup by its name."""

Report = Callable[[str, int, int], None]
"""Called with a table, its rows so far and all of its rows."""


class BackupFailed(HitstreamError):
    """A backup could not be made."""


class BackupDamaged(HitstreamError):
    """A backup is not what its manifest says, or has none; nothing of it was written to ClickHouse."""


class RestoreFailed(HitstreamError):
    """ClickHouse does not hold what was restored."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a backup: rows of one table."""

    file: str
    table: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. `schema` is the number of the newest migration that its database had."""

    layout: int
    schema: int
    schema_name: str
    made_at: datetime
    made_by: str
    database: str
    chunks: tuple[Chunk, ...]

    def rows(self) -> dict[str, int]:
        """Rows by table."""
        counts: dict[str, int] = {}
        for chunk in self.chunks:
            counts[chunk.table] = counts.get(chunk.table, 0) + chunk.rows
        return counts


def backup(settings: ClickHouseSettings, path: Path, report: Report) -> dict[str, int]:
    """Write all tables of the database to `path`, a folder or (`.zip`) a file; returns rows by table.

    Raises `ConfigError` where something of that name is there, `BackupFailed`, and what `migrate` and `ask` raise.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already; choose another name.")
    migrate(settings, check=True)  # a schema that we don't know may have tables that we would leave out
    dsn = parse_dsn(settings.dsn)
    partial = path.with_name(path.name + ".partial")
    try:
        with Asker(dsn) as asker:
            _remove(partial)
            schema, schema_name = _schema(asker)
            with _writing(partial, zipped=path.suffix == ".zip") as create:
                chunks = []
                for table in _tables(asker):
                    chunks += _table(asker, table, create, report)
                manifest = Manifest(
                    layout=LAYOUT,
                    schema=schema,
                    schema_name=schema_name,
                    made_at=datetime.now(UTC),
                    made_by=f"hitstream {version('hitstream')}",
                    database=dsn.database,
                    chunks=tuple(chunks),
                )
                with create(_MANIFEST) as file:
                    file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        partial.rename(path)
    except OSError as error:
        raise BackupFailed(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        _remove(partial)
    return manifest.rows()


def verify(path: Path, report: Report) -> dict[str, int]:
    """Compare every chunk of a backup with its checksum; returns rows by table. Raises `BackupDamaged`."""
    with _reading(path) as open_file:
        manifest = _manifest(path, open_file)
        _verify(path, manifest, open_file, report)
    return manifest.rows()


def restore(settings: ClickHouseSettings, path: Path, report: Report) -> dict[str, int]:
    """Bring the tables up to date and insert every row of a backup, once all of it is verified; returns rows by table.

    Raises `BackupDamaged`, `RestoreFailed`, and what `migrate` and `ask` raise.
    """
    with _reading(path) as open_file:
        manifest = _manifest(path, open_file)
        newest = max(migrations(), key=lambda migration: migration.number)
        if manifest.schema > newest.number:
            raise BackupDamaged(
                f"{path} has the tables of {manifest.schema_name}, and this Hitstream knows them only up to "
                f"{newest.name}: upgrade it."
            )
        _verify(path, manifest, open_file, lambda table, done, total: None)
        migrate(settings)
        with Asker(parse_dsn(settings.dsn)) as asker:
            listed = ", ".join(f"'{name}'" for name in _INSERT)
            known = asker.text(f"SELECT name FROM system.settings WHERE name IN ({listed})").split("\n")  # noqa: S608
            insert = {name: value for name, value in _INSERT.items() if name in known}
            totals, done = manifest.rows(), dict.fromkeys(manifest.rows(), 0)
            for chunk in manifest.chunks:
                _insert(asker, chunk, open_file, insert)
                done[chunk.table] += chunk.rows
                report(chunk.table, done[chunk.table], totals[chunk.table])
            for table, rows in totals.items():
                found = int(asker.text(f"SELECT count() FROM {table} FINAL"))  # noqa: S608
                if found < rows:
                    raise RestoreFailed(
                        f"{table} has {found} rows after {rows} were restored; look whether somebody deletes from it."
                    )
    return totals


def _schema(asker: Asker) -> tuple[int, str]:
    if asker.text("EXISTS TABLE schema_migrations") != "1":
        raise BackupFailed("The database has no tables of Hitstream; there is nothing to back up.")
    number, _, name = asker.text(
        "SELECT number, name FROM schema_migrations FINAL ORDER BY number DESC LIMIT 1"
    ).partition("\t")
    return int(number or 0), name


def _tables(asker: Asker) -> list[str]:
    """The product's tables that this database has, but for those that the sink works out of them (`rows.DERIVED`)."""
    there = set(asker.text("SELECT name FROM system.tables WHERE database = currentDatabase()").split("\n"))
    return [table for table in COLUMNS if table in there]


def _table(asker: Asker, table: str, create: Opener, report: Report) -> list[Chunk]:
    """Write the chunks of a table: a day each, or all of one that has no days."""
    columns = tuple(
        asker.text(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
            "AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') ORDER BY position",
            {"table": table},
        ).split("\n")
    )
    day = "toString(date)" if "date" in columns else "'all'"
    counted = asker.text(f"SELECT {day} AS day, count() FROM {table} FINAL GROUP BY day ORDER BY day")  # noqa: S608
    days = [(line.split("\t")[0], int(line.split("\t")[1])) for line in counted.splitlines()]
    total, done = sum(rows for _, rows in days), 0
    chunks = []
    if total:
        report(table, 0, total)
    for name, expected in days:
        chunk = _chunk(asker, table, columns, name, create)
        if chunk.rows < expected:
            raise BackupFailed(f"{table} of {name} gave {chunk.rows} rows of {expected}; nothing was kept.")
        chunks.append(chunk)
        done += chunk.rows
        report(table, done, max(total, done))
    return chunks


def _chunk(asker: Asker, table: str, columns: tuple[str, ...], day: str, create: Opener) -> Chunk:
    where = "" if day == "all" else " WHERE date = {day:Date}"
    statement = f"SELECT {_names(columns)} FROM {table} FINAL{where}"  # noqa: S608 – names of ours, quoted
    digest, packer, size = hashlib.sha256(), zstandard.ZstdCompressor(level=3).compressobj(), 0
    name = f"{table}/{day}.native.zst"
    parameters = {} if day == "all" else {"day": day}
    # The answer is complete, or an error, before its first byte: the count in its head is that of all rows.
    with (
        asker.ask(statement, output="Native", parameters=parameters, settings={"wait_end_of_query": 1}) as answer,
        create(name) as file,
    ):

        def write(packed: bytes) -> int:
            digest.update(packed)
            return file.write(packed)

        for piece in answer.pieces():
            size += write(packer.compress(piece))
        size += write(packer.flush())
        rows = answer.summary("result_rows")
    return Chunk(file=name, table=table, columns=columns, rows=rows, bytes=size, sha256=digest.hexdigest())


def _insert(asker: Asker, chunk: Chunk, open_file: Opener, settings: dict[str, str | int]) -> None:
    def rows() -> Iterator[bytes]:
        with open_file(chunk.file) as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
            yield from iter(lambda: reader.read(_PIECE), b"")

    statement = f"INSERT INTO {chunk.table} ({_names(chunk.columns)}) FORMAT Native"
    with asker.ask(statement, settings={**settings, "wait_end_of_query": 1}, rows=rows()) as answer:
        answer.read()
        if (written := answer.summary("written_rows")) < chunk.rows:
            raise RestoreFailed(f"ClickHouse took {written} rows of the {chunk.rows} in {chunk.file}; run it again.")


def _manifest(path: Path, open_file: Opener) -> Manifest:
    try:
        with open_file(_MANIFEST) as file:
            text = file.read()
    except KeyError:
        raise BackupDamaged(f"{path} has no {_MANIFEST}: it is no backup of Hitstream, or not all of one.") from None
    try:
        layout = msgspec.json.decode(text)["layout"]
        if layout > LAYOUT:
            raise BackupDamaged(f"{path} was made by a newer Hitstream; upgrade this one to read it.")
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BackupDamaged(f"The {_MANIFEST} of {path} can't be read: {error}") from error
    if unknown := {chunk.table for chunk in manifest.chunks} - set(COLUMNS):
        raise BackupDamaged(f"{path} holds tables that are none of Hitstream's: {', '.join(sorted(unknown))}.")
    return manifest


def _verify(path: Path, manifest: Manifest, open_file: Opener, report: Report) -> None:
    totals, done = manifest.rows(), dict.fromkeys(manifest.rows(), 0)
    for chunk in manifest.chunks:
        digest = hashlib.sha256()
        try:
            with open_file(chunk.file) as file:
                for piece in iter(lambda: file.read(_PIECE), b""):
                    digest.update(piece)
        except (KeyError, zipfile.BadZipFile) as error:
            raise BackupDamaged(f"{chunk.file} is missing from {path} or can't be read: {error}") from error
        if digest.hexdigest() != chunk.sha256:
            raise BackupDamaged(f"{chunk.file} of {path} is not what was written: its checksum differs.")
        done[chunk.table] += chunk.rows
        report(chunk.table, done[chunk.table], totals[chunk.table])


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`" for name in columns)


@contextmanager
def _writing(path: Path, *, zipped: bool) -> Iterator[Opener]:
    """A new folder or zip file; gives what opens a file in it."""
    if zipped:
        with path.open("wb") as whole:
            with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:  # the chunks are compressed already
                yield lambda name: archive.open(name, "w", force_zip64=True)
            whole.flush()
            os.fsync(whole.fileno())
        return
    path.mkdir(parents=True)

    @contextmanager
    def synced(name: str) -> Iterator[IO[bytes]]:
        file = path / name
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())

    yield synced


@contextmanager
def _reading(path: Path) -> Iterator[Opener]:
    """A backup; gives what opens a file in it, or raises KeyError."""
    if path.is_dir():

        def opened(name: str) -> IO[bytes]:
            file = (path / name).resolve()
            if path.resolve() not in file.parents:
                raise KeyError(name)
            try:
                return file.open("rb")
            except OSError as error:
                raise KeyError(f"{name}: {error.strerror}") from error

        yield opened
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise ConfigError(f"There is no backup {path}.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise BackupDamaged(f"{path} can't be read as a backup: {error}") from error
    with archive:
        yield archive.open


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(NotADirectoryError):  # what should be its folder is a file
            path.unlink(missing_ok=True)
