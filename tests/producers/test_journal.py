"""The journal file: what is written is read, as far as it was written; what is too long is cut."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from producers.journal import CUT, LONGEST, Header, Journal, JournalError, Writer, clipped, header
from producers.kiwoom.session import Timing, Wanted
from producers.settings import ConditionSource, KiwoomSettings
from streams.events import ConfigError, Frame, encode

NOON = datetime(2026, 3, 9, 3, 0, tzinfo=UTC)
FIRST = Header(conditions=(Wanted("돌파"),))


def frame(number: int, text: str = '{"trnm":"PING"}', connection: str = "p-1-a") -> Frame:
    return Frame(connection=connection, number=number, direction="in", at=NOON + timedelta(seconds=number), text=text)


def written(path: Path, frames: list[Frame]) -> Path:
    with Writer(path, FIRST) as writer:
        for one in frames:
            writer.write(one)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    frames = [frame(n, f'{{"trnm":"REAL","data":"조건 {n}\\n"}}') for n in range(1, 3000)]
    journal = Journal(written(tmp_path / "day.zst", frames))
    assert journal.header == FIRST
    assert list(journal) == frames
    assert list(journal) == frames
    assert (journal.torn, journal.unreadable) == (False, 0)


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = written(tmp_path / "day.zst", [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    path = written(tmp_path / "day.zst", [frame(1)])
    with pytest.raises(ConfigError, match="exists already"):
        Writer(path, FIRST)
    with pytest.raises(ConfigError, match="cannot be written"):
        Writer(tmp_path / "nowhere" / "day.zst", FIRST)


def test_what_was_flushed_can_be_read_while_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "day.zst"
    with Writer(path, FIRST) as writer:
        writer.write(frame(1))
        writer.flush()
        writer.write(frame(2))
        journal = Journal(path)
        assert list(journal) == [frame(1)]
        assert journal.torn


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.999])
def test_a_torn_file_is_read_up_to_the_tear(tmp_path: Path, kept: float) -> None:
    frames = [frame(n, os.urandom(20).hex()) for n in range(1, 20_000)]
    path = written(tmp_path / "day.zst", frames)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    journal = Journal(path)
    found = list(journal)
    assert found == frames[: len(found)]
    assert journal.torn
    assert len(found) > len(frames) * (kept - 0.25)


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path) -> None:
    frames = [frame(n, os.urandom(20).hex()) for n in range(1, 20_000)]
    path = written(tmp_path / "day.zst", frames)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
    path.write_bytes(content)
    journal = Journal(path)
    found = [one for one in journal if one.text == frames[one.number - 1].text]
    assert journal.torn
    assert found == frames[: len(found)]
    assert found


def test_frames_that_are_in_the_log_twice_are_read_once(tmp_path: Path) -> None:
    batch = [frame(1), frame(2), frame(1, connection="p-2-b")]
    journal = Journal(written(tmp_path / "day.zst", [*batch, *batch, frame(3)]))
    assert list(journal) == [*batch, frame(3)]


def test_lines_that_are_no_frames_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "day.zst"
    lines = [b'{"type":"journal"}', b"not json", b'{"type":"gap"}', b"\xff", encode(frame(1)), b""]
    path.write_bytes(zstandard.compress(b"\n".join(lines)))
    journal = Journal(path)
    assert list(journal) == [frame(1)]
    assert journal.unreadable == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no journal"),
        (b"plain text", "is no journal"),
        (zstandard.compress(b'{"type":"frame"}\n'), "is no journal"),
        (zstandard.compress(b'{"type":"journal","version":99}\n'), "newer version"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "day.zst"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=said):
        Journal(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"day\.zst cannot be read"):
        Journal(tmp_path / "day.zst")


def test_only_what_kafka_would_not_take_is_cut() -> None:
    longest = frame(1, "\x00" * LONGEST)
    assert clipped(longest) is longest
    assert len(encode(longest)) < 1 << 20
    assert clipped(frame(1, "\x00" * LONGEST + "x")).text == "\x00" * LONGEST + CUT


def test_the_header_is_that_of_the_settings() -> None:
    kiwoom = KiwoomSettings(account="other", stex_tp="A", login_pause=0.5, send_spacing=0.1)
    found = header(kiwoom, [ConditionSource(name="돌파", seq="4")], 60.0)
    assert found == Header(
        account="other",
        conditions=(Wanted("돌파", "4"),),
        stex_tp="A",
        timing=Timing(login_pause=0.5, send_spacing=0.1),
        speed=60.0,
    )
