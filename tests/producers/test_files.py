"""What is remembered across processes is there whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from producers import files


def test_what_is_kept_is_read_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "kept.json"
    assert files.replace(place, {"돌파": 1}, "…")
    assert files.replace(place, {"돌파": 2}, "…")
    assert files.read(place, dict[str, int], {}) == {"돌파": 2}
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b'{"a":1', b"[1]", b'{"a":"1"}', b'{"\xff":1}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "kept.json"
    place.write_bytes(content)
    assert files.read(place, dict[str, int], {"nothing": 0}) == {"nothing": 0}


def test_a_file_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    assert not files.replace(tmp_path / "taken" / "kept.json", {}, "…")
