"""Cursors: a place in a list that is ordered newest first, as one opaque word.

A cursor is what the last line of a page was ordered by, so it stays good while lines are added, and at any hub. Pure.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECODER: Final = msgspec.json.Decoder(tuple[int, int, str])


class Place(msgspec.Struct, frozen=True):
    """What lines are ordered by: when they were received, the step of a visit within that, and their id."""

    at: datetime
    step: int
    id: str

    def cursor(self) -> str:
        """This place as a word."""
        microseconds = (self.at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(msgspec.json.encode((microseconds, self.step, self.id))).decode().rstrip("=")


def parse(cursor: str) -> Place | None:
    """The place of a cursor, None if it is none."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        microseconds, step, identity = _DECODER.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        at = _EPOCH + timedelta(microseconds=microseconds)
    except (ValueError, OverflowError, binascii.Error, msgspec.MsgspecError):
        return None
    if not (0 <= step < 2**32 and len(identity) <= 100 and 1970 <= at.year < 2262):
        return None
    return Place(at, step, identity)
