"""Small files in which a producer remembers something across processes, each replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

_log = structlog.get_logger(__name__)

_Kept = TypeVar("_Kept")


def read(path: Path, kind: type[_Kept], otherwise: _Kept) -> _Kept:
    """What an earlier process left: of a file that is damaged, what it was before; `otherwise` if there was none.

    Whoever asks must not take a damaged file for a first start without a word: it is logged.
    """
    try:
        return _decoded(path, kind)
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors, and so is text that is no UTF-8
        cause = str(error)
    try:
        before = _decoded(_before(path), kind)
    except (OSError, ValueError):
        _log.warning(f"{path.name} is damaged: what it remembered is forgotten", cause=cause)
        return otherwise
    _log.warning(f"{path.name} is damaged: going on with what it said before", cause=cause)
    return before


def _decoded(path: Path, kind: type[_Kept]) -> _Kept:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _before(path: Path) -> Path:
    """Where what a file said before it was last replaced is kept."""
    return path.with_suffix(".before")


def replace(path: Path, kept: object, otherwise: str) -> bool:
    """Replace a file; whether it could be done. `otherwise` is the sentence that is logged if not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(msgspec.json.encode(kept))
        with contextlib.suppress(OSError):  # there was none, or the file system has no links
            _before(path).unlink(missing_ok=True)
            _before(path).hardlink_to(path)
        temporary.replace(path)
    except OSError as error:
        _log.warning(otherwise, cause=str(error))
        return False
    return True
