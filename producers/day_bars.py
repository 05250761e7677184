"""One day's bars as values: which charts are wanted, what is remembered of them, and how far they have come.

Pure. A chart is one stock's minutes (`1m`) or day (`1d`). `bars` fetches them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from .hit_codes import Codes

TOLD: Final = 20
"""Failures that are told one by one."""


class Wanted(NamedTuple):
    """A chart to fetch: the `1m` or `1d` of a code."""

    interval: str
    code: str

    @property
    def key(self) -> str:
        """How it is remembered."""
        return f"{self.interval}/{self.code}"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A chart that Kiwoom refused, how often, and its words."""

    tries: int
    cause: str


class Day(msgspec.Struct, kw_only=True):
    """What is remembered of a day. `fetched`: chart → its number of bars; 0 where Kiwoom knows none."""

    sample: tuple[str, ...] = ()
    fetched: dict[str, int] = {}
    failed: dict[str, Failure] = {}
    state: str = ""
    cause: str = ""


class Memory(msgspec.Struct, kw_only=True):
    """What is remembered across processes: since which day bars are wanted, and the last days."""

    since: dt.date | None = None
    days: dict[dt.date, Day] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a day's bars have come.

    Of the `expected` charts some are `fetched`, some `empty` (Kiwoom has no bar of that day: not traded), some `failed`
    (refused; `failures` tells the first of them), and the rest is `missing` (not asked yet). `state`: `waiting`,
    `running`, `done`, `incomplete` (some failed and are tried again), `partial` (the day goes on), `failed`; of a
    producer without a run `scheduled`, `standby` (another one does it), `retired`.
    """

    date: dt.date
    state: str
    cause: str = ""
    expected: int = 0
    fetched: int = 0
    empty: int = 0
    failed: int = 0
    missing: int = 0
    bars: int = 0
    hit: int = 0
    sample: int = 0
    failures: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        day: dt.date,
        state: str,
        cause: str,
        wanted: Sequence[Wanted],
        fetched: Mapping[str, int],
        failed: Mapping[str, Failure],
        *,
        hit: int = 0,
        sample: int = 0,
    ) -> Progress:
        """The progress that the charts of a day make."""
        known = [fetched[each.key] for each in wanted if each.key in fetched]
        lost = [each for each in wanted if each.key in failed and each.key not in fetched]
        return cls(
            date=day,
            state=state,
            cause=cause,
            expected=len(wanted),
            fetched=sum(count > 0 for count in known),
            empty=sum(count == 0 for count in known),
            failed=len(lost),
            missing=len(wanted) - len(known) - len(lost),
            bars=sum(known),
            hit=hit,
            sample=sample,
            failures=tuple((each.key, failed[each.key].cause) for each in lost[:TOLD]),
        )


def planned(
    day: dt.date, before: dt.date | None, codes: Mapping[dt.date, Codes], sample: Iterable[str], *, over: bool = True
) -> list[Wanted]:
    """The charts of a day, minutes first.

    Args:
        day: the trading day.
        before: the trading day before it.
        codes: what was hit and found on which day.
        sample: the fixed random sample.
        over: whether the day is; what goes on has no day's bar yet, since its close would be none.
    """
    today, earlier = codes.get(day, Codes()), codes.get(before, Codes()) if before else Codes()
    minutes = today.hit | set(sample)
    days = minutes | today.found | earlier.hit | earlier.found
    wanted = [Wanted("1m", code) for code in sorted(minutes)]
    return wanted + [Wanted("1d", code) for code in sorted(days)] if over else wanted


def words(progress: Progress) -> str:
    """How far it is, for people."""
    told = f"{progress.fetched} of {progress.expected} charts"
    told += f", {progress.empty} empty" if progress.empty else ""
    told += f", {progress.failed} failed" if progress.failed else ""
    return told + (f", {progress.missing} missing" if progress.missing else "")
