"""The saved conditions: which stocks each one holds, as a function of their trades and of nothing else.

Pure. `Standing` keeps the running figures of one stock's day; a `Condition` looks at them after each trade and says
whether the stock enters, stays or leaves. Who asks, when the answer is sent and what moves the prices is not known
here.

Every condition has two rules: one to enter and a laxer one to stay, so that a price that trembles around a limit does
not fill the wire. A condition changes its mind about a stock at most once a second, because Kiwoom's times have whole
seconds and two equal ones could not be told apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

WINDOW: Final = 180.0
"""Seconds of the moving window behind `Standing.reference` and `Standing.recent_volume`."""

PERIOD: Final = 20
"""Days before today whose highest price is `Standing.period_high`."""


class Standing:
    """Where one stock stands in its day: the figures that conditions look at.

    Prices in won, times in seconds of the tape, volumes in shares. `reference` is the price that was in force
    `WINDOW` seconds ago (the open, where the day is younger), `recent_volume` what was traded since then.
    `low_since_high` is the lowest price since the day's high was last reached. Before the first trade `opened_at` is
    None, and every price is the previous close.
    """

    __slots__ = (
        "_window",
        "at",
        "bought",
        "high",
        "high_at",
        "low",
        "low_since_high",
        "lower_limit",
        "open",
        "opened_at",
        "period_high",
        "previous_close",
        "price",
        "recent_volume",
        "reference",
        "size",
        "upper_limit",
        "value",
        "volume",
    )

    def __init__(self, *, previous_close: int, period_high: int, limits: tuple[int, int]) -> None:
        self.previous_close = previous_close
        self.period_high = period_high
        self.lower_limit, self.upper_limit = limits
        self.at = 0.0
        self.opened_at: float | None = None
        self.price = self.open = self.high = self.low = self.low_since_high = self.reference = previous_close
        self.high_at = 0.0
        self.size = self.volume = self.value = self.bought = self.recent_volume = 0
        self._window: deque[tuple[float, int, int]] = deque()

    def apply(self, at: float, price: int, size: int) -> None:
        """Take in one trade; `size` is positive for a buyer's and negative for a seller's trade."""
        shares = size if size > 0 else -size
        if self.opened_at is None:
            self.opened_at = at
            self.open = self.high = self.low = self.low_since_high = self.reference = price
            self.high_at = at
        elif price >= self.high:
            self.high = self.low_since_high = price
            self.high_at = at
        else:
            self.low = min(self.low, price)
            self.low_since_high = min(self.low_since_high, price)
        self.at = at
        self.price = price
        self.size = size
        self.volume += shares
        self.value += shares * price
        if size > 0:
            self.bought += shares
        window = self._window
        window.append((at, price, shares))
        self.recent_volume += shares
        edge = at - WINDOW
        while window[0][0] <= edge:
            _, self.reference, gone = window.popleft()
            self.recent_volume -= gone

    @property
    def rate(self) -> float:
        """Change against the previous close in percent."""
        return (self.price / self.previous_close - 1) * 100

    @property
    def usual_volume(self) -> float:
        """What an average window of this day so far has traded."""
        age = self.at - (self.opened_at or 0.0)
        return self.volume * WINDOW / age if age > WINDOW else float(self.volume)

    @property
    def average_price(self) -> float:
        """The day's volume-weighted average price."""
        return self.value / self.volume if self.volume else float(self.previous_close)


class Condition(NamedTuple):
    """A saved condition: its number and name in the account's list, and its two rules."""

    seq: str
    name: str
    enters: Callable[[Standing], bool]
    stays: Callable[[Standing], bool]


def _band_enters(s: Standing) -> bool:
    return s.previous_close * 1.05 <= s.price < s.previous_close * 1.15


def _band_stays(s: Standing) -> bool:
    return s.previous_close * 1.045 <= s.price < s.previous_close * 1.16


def _volume_enters(s: Standing) -> bool:
    return s.price > s.reference and s.at - (s.opened_at or 0.0) >= 600 and s.recent_volume >= 4 * s.usual_volume


def _volume_stays(s: Standing) -> bool:
    return s.recent_volume >= 2 * s.usual_volume


def _pullback_enters(s: Standing) -> bool:
    return (
        s.high >= s.previous_close * 1.04
        and s.low_since_high <= s.high * 0.98
        and s.low_since_high * 1.008 <= s.price < s.high
    )


def _pullback_stays(s: Standing) -> bool:
    return s.low_since_high * 1.003 <= s.price < s.high


def _momentum_enters(s: Standing) -> bool:
    return s.price >= s.reference * 1.012 and s.recent_volume >= 1.5 * s.usual_volume


def _momentum_stays(s: Standing) -> bool:
    return s.price >= s.reference * 1.002


def _new_high_enters(s: Standing) -> bool:
    return s.price > s.period_high and s.at - s.high_at <= 600


def _new_high_stays(s: Standing) -> bool:
    return s.price > s.period_high * 0.99 and s.price >= s.high * 0.985


def _gap_enters(s: Standing) -> bool:
    return s.open >= s.previous_close * 1.015 and s.price >= s.open


def _gap_stays(s: Standing) -> bool:
    return s.price >= s.open * 0.993


def _average_enters(s: Standing) -> bool:
    return s.at - (s.opened_at or 0.0) >= 300 and s.price >= s.average_price * 1.008


def _average_stays(s: Standing) -> bool:
    return s.price >= s.average_price * 1.001


def _limit_enters(s: Standing) -> bool:
    return s.price >= s.upper_limit * 0.95


def _limit_stays(s: Standing) -> bool:
    return s.price >= s.upper_limit * 0.93


CONDITIONS: Final[tuple[Condition, ...]] = (
    Condition("0", "등락률 5~15%", _band_enters, _band_stays),
    Condition("1", "거래량 급증", _volume_enters, _volume_stays),
    Condition("4", "눌림목 반등", _pullback_enters, _pullback_stays),
    Condition("5", "대왕개미단타", _momentum_enters, _momentum_stays),
    Condition("7", "신고가 돌파", _new_high_enters, _new_high_stays),
    Condition("12", "갭상승 유지", _gap_enters, _gap_stays),
    Condition("18", "평균가 돌파", _average_enters, _average_stays),
    Condition("33", "상한가 접근", _limit_enters, _limit_stays),
)
"""The account's list: eight conditions, with gaps in their numbers as real accounts have."""
