"""The one order of a list that is told newest first, and cursors: a place in it as one opaque word.

The hub's memory and ClickHouse order their lines alike, so a list goes on from one into the other. A cursor is what the
last line of a page was ordered by: it stays good while lines are added, and at any hub. Pure.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from streams.events import Transition

from .answers import EventLine

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECODER: Final = msgspec.json.Decoder(tuple[int, int, str])


class Place(NamedTuple):
    """What lines are ordered by: when they were received, the step of a visit within that, and their id."""

    at: datetime
    step: int
    id: str

    def cursor(self) -> str:
        """This place as a word."""
        microseconds = (self.at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(msgspec.json.encode((microseconds, self.step, self.id))).decode().rstrip("=")


def step_of(transition: Transition) -> int:
    """Where a transition stands among a stock's visits to a condition: `2 * entry`, and one more when it left again."""
    return 2 * transition.entry + (transition.kind == "exited")


def place_of(line: Transition | EventLine) -> Place:
    """What a line is ordered by."""
    step = step_of(line) if isinstance(line, Transition) else line.entry
    return Place(line.received_at, step, line.id)


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
