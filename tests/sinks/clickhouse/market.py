"""Days of the local market as the product would have stored them: hits, quotes of some stocks, bars of all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta

from deploy.local.kiwoom.rehearsal import Rehearsed

from .tape import MONDAY, Tape

DELAY = 0.25
"""Seconds from a hit to its receipt; a quote is received when it was traded."""


def quoted(code: str) -> bool:
    """Every second stock has a price slot, and a quote for each of its trades."""
    return int(code, 36) % 2 == 0


def clock(seconds: float) -> str:
    """A time of the tape, as it is stored: in microseconds."""
    return (datetime.combine(MONDAY, time()) + timedelta(microseconds=round(seconds * 1e6))).time().isoformat()


def tapes(days: Sequence[Rehearsed]) -> list[Tape]:
    """Each day's records; stocks that no condition ever holds are the sample."""
    return [_tape(day) for day in days]


def _tape(day: Rehearsed) -> Tape:
    tape = Tape(day.date)
    entries: dict[tuple[str, str], int] = {}
    for hit in day.hits:
        place = (hit.condition, hit.code)
        entry = entries[place] = entries.get(place, 0) + 1
        tape.hit(*place, clock(hit.at), received=clock(hit.at + DELAY), entry=entry)
        if hit.exit_at is not None:
            tape.exit(*place, clock(hit.exit_at), hit.exit_at - hit.at, entry=entry)
    for code, trades in day.trades.items():
        if quoted(code):
            for at, price in trades:
                tape.quote(code, clock(at), price)
        sample = code in day.untouched
        for bar in day.minutes[code]:
            tape.bar(code, clock(bar.minute * 60), (bar.open, bar.high, bar.low, bar.close), sample=sample)
        whole = day.daily[code]
        tape.daily(code, (whole.open, whole.high, whole.low, whole.close), sample=sample)
    return tape
