"""One trading day as the report tells it. Values only; `reading` asks ClickHouse for them.

Two spans are told: the day itself, and a longer one that ends with it – a single day gives no interval.
"""

from __future__ import annotations

import datetime as dt
from datetime import datetime
from typing import Final

import msgspec

from streams.events import KST

HORIZONS: Final = ("1m", "5m", "30m", "close", "next_open", "best", "worst")
SHOWN: Final = 10
"""Recommendations on each end of the ranking."""


def minute_of(at: datetime) -> int:
    """The minute since midnight KST, by which charts place a moment."""
    local = at.astimezone(KST)
    return local.hour * 60 + local.minute


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """How the hits of a condition fared up to one horizon: percent; None where it can't be known."""

    horizon: str
    hits: int
    priced: int
    mean: float | None = None
    median: float | None = None
    positive: float | None = None
    low: float | None = None
    high: float | None = None
    sample_mean: float | None = None
    sample_cases: int = 0
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    across_gap: int = 0
    days: int = 0


class ConditionDay(msgspec.Struct, frozen=True, kw_only=True):
    """One condition's day.

    `members_most` is how many stocks it held at once at most, `dwell` the median of the seconds that a visit lasted;
    `activity` is (minute since midnight KST, hits), quiet minutes left out. `today`, `span` and
    `past_close` are by horizon, the last one hits of the day that are left out because the horizon crosses the close.
    """

    account: str
    condition: str
    hits: int = 0
    stocks: int = 0
    reentries: int = 0
    standing: int = 0
    revealed: int = 0
    members_most: int = 0
    visits: int = 0
    dwell: float | None = None
    under_a_minute: float | None = None
    activity: tuple[tuple[int, int], ...] = ()
    today: dict[str, Performance] = {}
    span: dict[str, Performance] = {}
    without_price: int = 0
    past_close: dict[str, int] = {}
    without_bars: int = 0
    inferred_exits: int = 0
    not_live_seconds: float = 0.0
    troubles: tuple[str, ...] = ()


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which hits and exits of a condition may have been missed."""

    account: str
    condition: str
    start: datetime
    end: datetime
    cause: str


class Recommended(msgspec.Struct, frozen=True, kw_only=True):
    """How a recommendation fared: prices in won, returns in percent since its reference, None where there is no price.

    `line` is (minute since midnight KST, won) from the reference on; `gaps` counts the gaps of its conditions since it
    opened, `others` the day's other recommendations of the stock that its end of the ranking does not show.
    """

    account: str
    code: str
    name: str = ""
    conditions: tuple[str, ...] = ()
    score: float = 0.0
    opened_at: datetime
    state: str = ""
    cause: str = ""
    closed_at: datetime | None = None
    reference: int | None = None
    reference_at: datetime | None = None
    price: int | None = None
    is_close: bool = False
    gained: float | None = None
    best: float | None = None
    best_price: int | None = None
    minutes_to_best: float | None = None
    worst: float | None = None
    worst_price: int | None = None
    minutes_to_worst: float | None = None
    complete: bool = False
    gaps: int = 0
    others: int = 0
    line: tuple[tuple[int, int], ...] = ()


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the report tells of a day.

    `going_on`: it was not over at `asked_at`. `trading`: the calendar's word, None where it was not asked.
    `recommended` counts all of the day's, `gains` are the returns of those with a price, the best first; `best` and
    `worst` are the ends of the ranking, the most extreme first, `unpriced` those without a price. `bars` is what the
    producers last said of the day's bars. `heard_until` is how far the day's returns go, in the market's time; None if
    they were worked out for this report.
    """

    date: dt.date
    asked_at: datetime
    going_on: bool = False
    trading: bool | None = None
    cost: float = 0.0
    span_from: dt.date
    conditions: tuple[ConditionDay, ...] = ()
    gaps: tuple[Gap, ...] = ()
    sample_stocks: int = 0
    recommended: int = 0
    gains: tuple[float, ...] = ()
    best: tuple[Recommended, ...] = ()
    worst: tuple[Recommended, ...] = ()
    unpriced: tuple[Recommended, ...] = ()
    bars: tuple[str, ...] = ()
    heard_until: datetime | None = None

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whose conditions these are."""
        return tuple(sorted({each.account for each in self.conditions}))

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return not (self.conditions or self.gaps or self.recommended)
