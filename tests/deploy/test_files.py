"""Why a file can't be read, in words that need no manual."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.files import unread


def why(path: Path) -> str:
    with pytest.raises((OSError, UnicodeDecodeError)) as caught:
        path.read_text("utf-8")
    return unread(caught.value)


def test_why_a_file_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"\xff\xfe\xff")
    assert why(tmp_path / "none") == "there is no such file"
    assert why(tmp_path) == "it is a folder"
    assert why(odd / "x") == "its path leads through a file"
    assert why(odd) == "it is no text in UTF-8"
    assert why(tmp_path / ("x" * 300)) == "File name too long"
    assert unread(PermissionError(13, "Permission denied")) == "this user may not read it"
