"""Trades → quotes: at most so many a second per stock, and nothing that a trade said is lost.

Pure: no clock, no Kafka. Every trade is in exactly one quote: its price between `low` and `high`, its size in `volume`,
itself in `trades`. What is left out are the prices between.

Of each second at most `per_second` quotes are made of a stock. The first trade after a quiet moment is told at once,
those that follow are gathered for a part of the second, and the last quote of a second holds its last trade, so that
the price at the end of every second is exact. A second is one of `received_at`; with a clock that runs fast, a real
one: the bound is there for whoever reads.

What waits is due at a known moment (`due`). While nobody takes quotes (`hold`), one waits for each stock and goes on
gathering, for as long as that lasts: what is told after it is less often, but has the extremes and the volume of it.

A gap: `volume` sums the sizes of the trades that were heard, `day_volume` is what the exchange says of the whole day.
Where one quote's `day_volume` is more than that of the one before plus its own `volume`, the rest was traded while
nobody listened: no slot, no connection, or another session's turn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from streams.events import Exchange, Quote

from .kiwoom.frames import TradeEntry

_REMEMBERED: Final = 64  # trades per stock, to recognise those of a frame that comes twice.
_NEXT: Final = timedelta(microseconds=1)

_Key = tuple[str, Exchange]
Happened = Callable[[str | None, datetime], datetime]


@dataclass(slots=True)
class _Gathering:
    """What is known of one stock: the trades that no quote has told, and how much of the present second is used up."""

    last: TradeEntry | None = None
    received_at: datetime | None = None
    session: str = ""
    high: int = 0
    low: int = 0
    volume: int = 0
    trades: int = 0
    # The second of the last trade, how many quotes it has, when the last was told, and when what waits is due.
    second: int = -1
    told: int = 0
    told_at: float = -math.inf
    due: float = math.inf
    said_at: datetime | None = None
    known: deque[tuple[int, str | None]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def gather(self, trade: TradeEntry, received_at: datetime, session: str) -> None:
        """Add a trade to what waits."""
        if self.trades:
            self.high, self.low = max(self.high, trade.price), min(self.low, trade.price)
        else:
            self.high = self.low = trade.price
        self.volume += abs(trade.size or 0)
        self.trades += 1
        self.last, self.received_at, self.session = trade, received_at, session

    def repeats(self, trade: TradeEntry, session: str) -> bool:
        """Whether a trade has been heard before on this connection: the day's volume grows with every trade."""
        if trade.day_volume is None:
            return False
        mark = trade.day_volume, trade.time
        if session != self.session:
            self.known.clear()
        elif self.known and trade.day_volume <= self.known[-1][0] and mark in self.known:
            return True
        self.known.append(mark)
        return False


class Conflation:
    """The quotes that a session's trades make.

    Args:
        per_second: most quotes of a stock in one second.
        speed: seconds of `received_at` per real second.
        happened: Kiwoom's HHMMSS and when it was received → when it happened.
    """

    def __init__(self, *, per_second: int = 4, speed: float = 1.0, happened: Happened) -> None:
        self._per_second = per_second
        self._apart = 1.0 / per_second
        self._speed = speed
        self._happened = happened
        self._stocks: dict[_Key, _Gathering] = {}
        self._waiting: set[_Key] = set()
        self.hold = False
        self.held_back = 0
        self.repeats = 0

    def heard(self, trades: Iterable[TradeEntry], received_at: datetime, session: str) -> list[Quote]:
        """Take the trades of one frame in, in their order; the quotes that are to be told now, at most two a stock."""
        t = received_at.timestamp() / self._speed
        second = math.floor(t)
        quotes: list[Quote] = []
        touched: dict[_Key, _Gathering] = {}
        for trade in trades:
            key = trade.code, trade.exchange
            stock = self._stocks.get(key)
            if stock is None:
                stock = self._stocks[key] = _Gathering()
            if stock.repeats(trade, session):
                self.repeats += 1
                continue
            if second != stock.second:
                if stock.trades and self.hold:
                    self.held_back += 1
                elif stock.trades:
                    # The last word on the second before: nobody has asked yet for what was due.
                    quotes += self._make(key, stock)
                stock.second, stock.told = second, 0
            if not stock.trades:
                self._waiting.add(key)
            stock.gather(trade, received_at, session)
            touched[key] = stock
        for key, stock in touched.items():
            spare = stock.told < self._per_second - 1
            if spare and t - stock.told_at >= self._apart and not self.hold:
                quotes += self._tell(key, stock, t)
            else:
                stock.due = min(second + 1.0, stock.told_at + self._apart) if spare else second + 1.0
        return quotes

    def due(self, at: datetime) -> list[Quote]:
        """The quotes that have waited long enough at a moment of the clock of `received_at`."""
        if not self._waiting or self.hold:
            return []
        t = at.timestamp() / self._speed
        ready = [key for key in self._waiting if self._stocks[key].due <= t]
        return [quote for key in sorted(ready) for quote in self._tell(key, self._stocks[key], t)]

    def close(self, code: str) -> list[Quote]:
        """A stock has lost its slot: the quotes that wait, whatever they wait for."""
        keys = [key for key in self._stocks if key[0] == code]
        for key in keys:
            self._stocks[key].known.clear()
        return [quote for key in keys for quote in self._make(key, self._stocks[key])]

    def flush(self) -> list[Quote]:
        """Everything that waits: the end."""
        return [quote for key in sorted(self._waiting) for quote in self._make(key, self._stocks[key])]

    # -- parts

    def _tell(self, key: _Key, stock: _Gathering, t: float) -> list[Quote]:
        stock.told += 1
        stock.told_at = t
        return self._make(key, stock)

    def _make(self, key: _Key, stock: _Gathering) -> list[Quote]:
        last, received_at = stock.last, stock.received_at
        if last is None or received_at is None:
            return []
        if stock.said_at is not None and received_at <= stock.said_at:
            # A coarse clock, or one that was set back: two quotes are never one.
            received_at = stock.said_at + _NEXT
        quote = Quote(
            code=last.code,
            exchange=last.exchange,
            at=self._happened(last.time, received_at),
            received_at=received_at,
            price=last.price,
            high=stock.high,
            low=stock.low,
            volume=stock.volume,
            trades=stock.trades,
            change_rate=last.change_rate,
            day_volume=last.day_volume,
            session=stock.session,
        )
        stock.last, stock.received_at, stock.said_at = None, None, received_at
        stock.volume = stock.trades = 0
        stock.due = math.inf
        self._waiting.discard(key)
        return [quote]
