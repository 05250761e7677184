"""What the hub knows of prices: each stock's last one and its minutes today, and how recommendations have done since.

Pure, like `hub`, which owns it and tells browsers what changed here. Prices are no input of recommendations; they are
joined to them here, by code and time.

The one idea: **quotes of a code come in the order in which they were heard**, so a quote not later than the last one
is a repeat, and everything else – minutes, extremes, lines – is folded from one quote at a time and never needs the
ones before. A recommendation may be read a moment after the quotes that follow its opening; for that the latest quotes
of each code are kept, and taken in again.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from streams.events import KST, Quote

from .answers import Candle
from .views import PricePoint, PriceView, Track

MINUTE: Final = 60  # s
LINE_POINTS: Final = 60
RECENT: Final = 64  # quotes: at four a second more than 15 s
_FIELDS: Final = 6  # minute, open, high, low, close, volume


class Follow:
    """How a stock has done since one opening."""

    __slots__ = ("_bucket", "_close", "_from", "_line", "_opening", "_step", "high", "low", "reference")

    def __init__(self, opening: datetime) -> None:
        self._opening = opening
        self._from = _minute(opening) * MINUTE
        self._step = MINUTE
        self._line = array("q")  # closes of the steps before `_bucket`
        self._bucket = 0
        self._close = 0
        self.reference: PricePoint | None = None
        self.high: PricePoint | None = None
        self.low: PricePoint | None = None

    def take(self, quote: Quote) -> bool:
        """Take a quote in; whether the track is another one now."""
        if quote.received_at < self._opening:
            return False
        bucket = max(0, int(quote.at.timestamp()) - self._from) // self._step
        if self.reference is None or self.high is None or self.low is None:
            # Its high and low may be older than the opening: only its last price is known to be after it.
            self.reference = self.high = self.low = PricePoint(price=quote.price, at=quote.at)
            self._close = quote.price
            self._advance(bucket)
            return True
        is_new = False
        if quote.high > self.high.price:
            self.high, is_new = PricePoint(price=quote.high, at=quote.at), True
        if quote.low < self.low.price:
            self.low, is_new = PricePoint(price=quote.low, at=quote.at), True
        if bucket > self._bucket:
            self._advance(bucket)
            is_new = True
        self._close = quote.price
        return is_new

    def _advance(self, bucket: int) -> None:
        """Begin the step `bucket`; those between were without a trade and repeat the close before."""
        while bucket > LINE_POINTS:
            self._line = self._line[1::2]  # steps twice as long: of each two the later close stays
            self._step *= 2
            self._bucket //= 2
            bucket //= 2
        self._line.extend([self._close] * (bucket - self._bucket))
        self._bucket = bucket

    def track(self) -> Track | None:
        """What a browser is told of it; None while no price since the opening is known."""
        if self.reference is None or self.high is None or self.low is None:
            return None
        return Track(
            reference=self.reference,
            high=self.high,
            low=self.low,
            line_from=datetime.fromtimestamp(self._from, UTC),
            line_step=self._step,
            line=tuple(self._line),
        )


class _Stock:
    """One code: its last price, its latest quotes, its minutes, and the openings that are followed."""

    __slots__ = ("follows", "last", "minutes", "recent")

    def __init__(self) -> None:
        self.last: Quote | None = None
        self.recent: deque[Quote] = deque(maxlen=RECENT)
        self.minutes = array("q")
        self.follows: OrderedDict[str, Follow] = OrderedDict()

    def take(self, quote: Quote) -> list[str]:
        self.last = quote
        self.recent.append(quote)
        self._count_minute(quote)
        return [opening for opening, follow in self.follows.items() if follow.take(quote)]

    def _count_minute(self, quote: Quote) -> None:
        minutes, minute = self.minutes, _minute(quote.at)
        if not minutes or minute > minutes[-_FIELDS]:
            minutes.extend((minute, quote.price, quote.price, quote.price, quote.price, 0))
            if len(minutes) == _FIELDS:  # what came before its first price is of another time
                minutes[-1] = quote.volume
                return
        # What a quote says of the time since the one before may be of the minute before; that is as near as quotes are.
        minutes[-4] = max(minutes[-4], quote.high)
        minutes[-3] = min(minutes[-3], quote.low)
        minutes[-2] = quote.price
        minutes[-1] += quote.volume


class Prices:
    """Today's prices of at most `codes` stocks, each with the tracks of its latest `openings` recommendations."""

    def __init__(self, *, codes: int, openings: int) -> None:
        self._limit = codes
        self._openings = openings
        self._stocks: dict[str, _Stock] = {}

    def clear(self) -> None:
        """Forget everything: a new day."""
        self._stocks.clear()

    def _stock(self, code: str) -> _Stock | None:
        stock = self._stocks.get(code)
        if stock is None and len(self._stocks) < self._limit:
            stock = self._stocks[code] = _Stock()
        return stock

    def take(self, quote: Quote) -> list[str] | None:
        """Take a quote in: the openings whose track is another one now; None if it is a repeat.

        Raises:
            OverflowError: there is no room for another code.
        """
        stock = self._stock(quote.code)
        if stock is None:
            raise OverflowError(quote.code)
        if stock.last is not None and quote.received_at <= stock.last.received_at:
            return None
        return stock.take(quote)

    def follow(self, code: str, opening: str, since: datetime) -> str | None:
        """Follow a stock since an opening; the one that is followed no more for it, if any."""
        stock = self._stock(code)
        if stock is None or opening in stock.follows:
            return None
        follow = stock.follows[opening] = Follow(since)
        for quote in stock.recent:
            follow.take(quote)
        if len(stock.follows) <= self._openings:
            return None
        oldest, _ = stock.follows.popitem(last=False)
        return oldest

    def forget(self, code: str, opening: str) -> None:
        """Follow an opening no more."""
        if stock := self._stocks.get(code):
            stock.follows.pop(opening, None)

    def track(self, code: str, opening: str) -> Track | None:
        """How a stock has done since an opening, None if that is not known."""
        stock = self._stocks.get(code)
        follow = stock.follows.get(opening) if stock else None
        return follow.track() if follow else None

    def price(self, code: str) -> PriceView | None:
        """A stock's price now, None if none of today is known."""
        stock = self._stocks.get(code)
        return _said(stock.last) if stock and stock.last else None

    def all(self) -> Iterator[PriceView]:
        """The last price of each stock that has one, by code."""
        for code in sorted(self._stocks):
            if price := self.price(code):
                yield price

    def candles(self, code: str) -> tuple[Candle, ...]:
        """A stock's minutes of today, as far as its price was heard; oldest first."""
        stock = self._stocks.get(code)
        minutes = stock.minutes if stock else array("q")
        return tuple(
            Candle(
                at=datetime.fromtimestamp(minutes[i] * MINUTE, KST),
                open=minutes[i + 1],
                high=minutes[i + 2],
                low=minutes[i + 3],
                close=minutes[i + 4],
                volume=minutes[i + 5],
            )
            for i in range(0, len(minutes), _FIELDS)
        )


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // MINUTE


def _said(quote: Quote) -> PriceView:
    return PriceView(
        code=quote.code,
        price=quote.price,
        at=quote.at,
        change_rate=quote.change_rate,
        day_volume=quote.day_volume,
    )
