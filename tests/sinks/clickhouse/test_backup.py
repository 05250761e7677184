"""Backup and restore: every row once, refused where it is damaged or newer, and as good the second time."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse import backup as module
from sinks.clickhouse.ask import Asker
from sinks.clickhouse.backup import BackupDamaged, BackupFailed, backup, restore, verify
from sinks.clickhouse.connection import connect
from sinks.clickhouse.migrate import MigrationFailed, migrate, migrations
from sinks.clickhouse.rows import COLUMNS
from sinks.settings import ClickHouseSettings
from streams.events import ConfigError

HITS, DAYS = 3000, 3
COUNTS = {"condition_events": HITS, "recommendations": 50, "stocks": 20, "quotes": 70, "bars": 30, "statuses": 1}


def quiet(table: str, done: int, total: int) -> None:
    """Nobody watches."""


def fill(client: Client) -> None:
    """Rows over three days, some of them said twice."""
    for _ in range(2):
        client.command(
            "INSERT INTO condition_events (date, account, condition, code, at, id, action, frame) "
            f"SELECT toDate('2026-11-23') + number % {DAYS}, 'main', '신고가 \\'돌파\\'', toString(number % 300), "
            "toDateTime64('2026-11-23 09:00:00', 6, 'Asia/Seoul') + number, toString(number), 'hit', number "
            f"FROM numbers({HITS})"
        )
    client.command(
        "INSERT INTO recommendations (date, code, recommendation_id, revision, id, reasons) SELECT '2026-11-23', "
        "toString(number), 'r', 1, toString(number), [('condition', 'c', '', now64(6), 1, 0.1 + number, '', '조건')] "
        "FROM numbers(50)"
    )
    client.command(
        "INSERT INTO stocks (code, name, previous_close) SELECT toString(number), '삼성', number FROM numbers(20)"
    )
    client.command(
        "INSERT INTO quotes (date, code, received_at, price, change_rate) SELECT '2026-11-23', toString(number % 7), "
        "toDateTime64('2026-11-23 00:00:00', 6, 'UTC') + number / 4, number, if(number % 3, number, NULL) "
        "FROM numbers(70)"
    )
    client.command(
        "INSERT INTO bars (date, code, interval, at, sample) SELECT '2026-11-23', '005930', '1m', "
        "toDateTime64('2026-11-23 09:00:00', 6, 'Asia/Seoul') + 60 * number, number % 2 FROM numbers(30)"
    )
    client.command(
        "INSERT INTO statuses (date, component, state, at, figures) SELECT '2026-11-23', 'worker/a', 'working', "
        "now64(6) + number, map('lag', number) FROM numbers(3)"
    )


def contents(client: Client) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    return {table: sorted(client.query(f"SELECT * FROM {table} FINAL").result_rows, key=repr) for table in COLUMNS}


@pytest.fixture(scope="module")
def original(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup, as a folder."""
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    fill(client)
    client.close()
    path = tmp_path_factory.mktemp("backup") / "original"
    backup(settings, path, quiet)
    return path


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    """The backup, to be spoilt."""
    return shutil.copytree(original, tmp_path / "made")


@pytest.mark.parametrize("name", ["monday", "monday.zip"])
def test_a_database_comes_back_as_it_was(
    settings: ClickHouseSettings, client: Client, server: Any, tmp_path: Path, name: str
) -> None:
    fill(client)
    told: list[tuple[str, int, int]] = []
    assert backup(settings, tmp_path / name, lambda *step: told.append(step)) == COUNTS
    assert ("condition_events", HITS, HITS) in told
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing half made is left"
    assert verify(tmp_path / name, quiet) == COUNTS
    other = server.settings()
    assert restore(other, tmp_path / name, quiet) == COUNTS
    there = connect(other)
    assert contents(there) == contents(client)
    there.close()


def test_a_chunk_is_a_day_of_a_table(made: Path) -> None:
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    days = {f"condition_events/2026-11-{23 + day}.native.zst" for day in range(DAYS)}
    dated = {f"{table}/2026-11-23.native.zst" for table in ("recommendations", "quotes", "bars", "statuses")}
    assert files == days | dated | {"stocks/all.native.zst", "manifest.json"}


def test_a_restore_again_or_after_one_that_was_cut_off_adds_what_is_missing(
    made: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = server.settings()

    class Cut(Exception):
        pass

    def cut(table: str, done: int, total: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        restore(other, made, cut)
    there = connect(other)
    assert 0 < there.command("SELECT count() FROM condition_events FINAL") < HITS
    for _ in range(2):
        restore(other, made, quiet)
        assert there.command("SELECT count() FROM condition_events FINAL") == HITS
    there.close()


def test_what_is_there_already_stays_and_newer_stocks_win(
    made: Path, settings: ClickHouseSettings, client: Client
) -> None:
    client.command("INSERT INTO stocks (code, name, received_at) VALUES ('1', 'renamed', now64(6))")
    client.command("INSERT INTO condition_events (date, id) VALUES ('2026-11-30', 'later')")
    restore(settings, made, quiet)
    assert client.command("SELECT name FROM stocks FINAL WHERE code = '1'") == "renamed"
    assert client.command("SELECT count() FROM condition_events FINAL") == HITS + 1


def spoil_bytes(path: Path) -> None:
    file = path / "stocks" / "all.native.zst"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change(path: Path, **values: object) -> None:
    file = path / "manifest.json"
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | values))


CHUNK = {"file": "x", "table": "stocks", "columns": ["code"], "rows": 1, "bytes": 1, "sha256": ""}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (spoil_bytes, r"stocks/all\.native\.zst.* checksum differs"),
    "a file": (lambda path: (path / "stocks" / "all.native.zst").unlink(), r"stocks/all\.native\.zst is missing"),
    "cut": (lambda path: (path / "stocks" / "all.native.zst").write_bytes(b""), "checksum differs"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), r"no manifest\.json"),
    "no JSON": (lambda path: (path / "manifest.json").write_text("{"), "can't be read"),
    "another JSON": (lambda path: (path / "manifest.json").write_text("{}"), "can't be read"),
    "newer layout": (lambda path: change(path, layout=2), "newer Hitstream"),
    "newer schema": (lambda path: change(path, schema=4711, schema_name="4711_later"), "4711_later.*upgrade"),
    "outside": (
        lambda path: change(
            path, chunks=[CHUNK | {"file": "../../etc/passwd"}]
        ),
        "missing",
    ),
    "another's table": (
        lambda path: change(
            path, chunks=[CHUNK | {"table": "system.users"}]
        ),
        r"none of Hitstream's: system\.users",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_backup_that_is_damaged_or_newer_is_refused_before_anything_is_written(
    made: Path, server: Any, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(made)
    other = server.settings()
    with pytest.raises(BackupDamaged, match=words):
        restore(other, made, quiet)
    with Asker(module.parse_dsn(server.settings(dsn=f"clickhouse://127.0.0.1:{server.port}/default").dsn)) as asker:
        assert asker.text(f"EXISTS DATABASE {other.dsn.rpartition('/')[2]}") == "0"


def test_a_zip_file_that_was_cut_off_is_refused(made: Path, server: Any, tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for file in made.rglob("*"):
            archive.write(file, file.relative_to(made))
    assert verify(whole, quiet) == COUNTS
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(BackupDamaged, match=r"cut\.zip"):
        restore(server.settings(), tmp_path / "cut.zip", quiet)
    with pytest.raises(ConfigError, match="no backup"):
        restore(server.settings(), tmp_path / "none.zip", quiet)


def test_a_backup_of_an_older_schema_is_restored(made: Path, server: Any) -> None:
    """Columns that are newer than the backup take their defaults."""
    manifest = msgspec.json.decode((made / "manifest.json").read_bytes())
    assert manifest["schema"] == migrations()[-1].number
    change(made, schema=1, schema_name=migrations()[0].name)
    other = server.settings()
    migrate(other)
    there = connect(other)
    there.command("ALTER TABLE stocks ADD COLUMN later UInt8 DEFAULT 7")
    restore(other, made, quiet)
    assert there.query("SELECT count(), min(later) FROM stocks FINAL").first_row == (20, 7)
    there.close()


def test_what_cannot_be_backed_up_is_said(settings: ClickHouseSettings, tmp_path: Path) -> None:
    connect(settings).close()
    with pytest.raises(BackupFailed, match="no tables of Hitstream"):
        backup(settings, tmp_path / "a", quiet)
    migrate(settings)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        backup(settings, tmp_path / "there", quiet)
    (tmp_path / "file").touch()
    with pytest.raises(BackupFailed, match="can't be written"):
        backup(settings, tmp_path / "file" / "under", quiet)
    client = connect(settings)
    client.command("INSERT INTO schema_migrations (number, name) VALUES (4711, '4711_from_the_future')")
    client.close()
    with pytest.raises(MigrationFailed, match="upgrade"):
        backup(settings, tmp_path / "b", quiet)


def test_a_backup_that_fails_leaves_nothing(
    settings: ClickHouseSettings, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    for name in ("a", "a.zip"):
        with pytest.raises(BackupFailed, match="No space left on device"):
            backup(settings, tmp_path / name, quiet)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_backup_left_does_not_stop_the_next(
    settings: ClickHouseSettings, client: Client, tmp_path: Path
) -> None:
    fill(client)
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "stocks").mkdir()
    assert backup(settings, tmp_path / "a", quiet) == COUNTS
    shutil.rmtree(tmp_path / "a")


def test_days_of_the_same_rows_are_in_the_manifest(made: Path) -> None:
    manifest = msgspec.json.decode((made / "manifest.json").read_bytes(), type=module.Manifest)
    assert manifest.rows() == COUNTS
    assert {chunk.rows for chunk in manifest.chunks if chunk.table == "condition_events"} == {HITS // DAYS}
    assert manifest.made_at.date() >= date(2026, 1, 1)
