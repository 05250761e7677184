"""What is remembered across processes is there whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from producers import files


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "kept.json"
    assert files.replace(place, {"돌파": 1}, "…")
    assert files.replace(place, {"돌파": 2}, "…")
    assert files.read(place, dict[str, int], {}) == {"돌파": 2}
    assert sorted(file.name for file in place.parent.iterdir()) == ["kept.before", "kept.json"]


def test_a_first_start_is_no_damage(tmp_path: Path) -> None:
    with capture_logs() as said:
        assert files.read(tmp_path / "kept.json", dict[str, int], {}) == {}
    assert said == []


DAMAGED = [b"", b"\0\0\0", b'{"a":1', b"[1]", b'{"a":"1"}', b'{"\xff":1}']


@pytest.mark.parametrize("content", DAMAGED)
def test_of_a_damaged_file_what_it_said_before_is_taken_and_that_is_told(tmp_path: Path, content: bytes) -> None:
    """Or else a restart would take itself for the first start, and tell no gap."""
    place = tmp_path / "kept.json"
    for number in (1, 2):
        assert files.replace(place, {"돌파": number}, "…")
    place.write_bytes(content)
    with capture_logs() as said:
        assert files.read(place, dict[str, int], {}) == {"돌파": 1}
    assert [one["event"] for one in said] == ["kept.json is damaged: going on with what it said before"]
    assert files.replace(place, {"돌파": 3}, "…")
    assert files.read(place, dict[str, int], {}) == {"돌파": 3}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_with_nothing_before_it_is_none_and_that_is_told(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "kept.json"
    place.write_bytes(content)
    with capture_logs() as said:
        assert files.read(place, dict[str, int], {"nothing": 0}) == {"nothing": 0}
    assert [one["event"] for one in said] == ["kept.json is damaged: what it remembered is forgotten"]


def test_where_there_are_no_links_the_file_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    place = tmp_path / "kept.json"
    for number in (1, 2):
        assert files.replace(place, {"돌파": number}, "…")
    assert files.read(place, dict[str, int], {}) == {"돌파": 2}


def test_a_file_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    assert not files.replace(tmp_path / "taken" / "kept.json", {}, "…")
