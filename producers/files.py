"""Small files in which a producer remembers something across processes, each replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

_log = structlog.get_logger(__name__)

_Kept = TypeVar("_Kept")


def read(path: Path, kind: type[_Kept], otherwise: _Kept) -> _Kept:
    """What an earlier process left; `otherwise` if there was none or the file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors, and so is text that is no UTF-8
        return otherwise


def replace(path: Path, kept: object, otherwise: str) -> bool:
    """Replace a file; whether it could be done. `otherwise` is the sentence that is logged if not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(path)
    except OSError as error:
        _log.warning(otherwise, cause=str(error))
        return False
    return True
