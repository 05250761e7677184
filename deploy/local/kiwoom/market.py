"""One trading day of the simulated market: who trades when, at which price, and what the conditions make of it.

Pure and deterministic: a `Day` is a function of the seed, the date and the closes before it, advanced along its own
tape of seconds since midnight KST. It knows no clock and no client; whoever holds it says how far to go, in steps of
any size, and gets the same trades and crossings in the same order. What happens between two days is `exchange`'s
business.

Each stock draws from a random stream of its own, so the order in which stocks are looked at changes nothing. Trades
arrive one by one (the next arrival of every stock waits in a heap), never in a sweep over all stocks. A stock's price
follows a slow walk around the previous close, the index, and *surges*: minutes of rising price and many trades, then
a partial retreat. Surges are what conditions find.
"""

from __future__ import annotations

import datetime as dt
import random
from array import array
from heapq import heapify, heappop, heapreplace
from math import inf, sqrt
from typing import Final, Literal, NamedTuple

import msgspec

from .catalog import Listing, price_limits, tick_size
from .conditions import CONDITIONS, PERIOD, Standing

TRADES_PER_SECOND: Final = 3.5
"""Trades of a calm market, over all stocks, at activity 1."""

SURGES_PER_HOUR: Final = 0.28
"""Surges of one stock of average liquidity, per hour at activity 1."""

TURNOVER: Final = 0.004
"""Part of a stock's shares that an ordinary day trades."""

_INDEX_STEP: Final = 60.0


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade with the day's figures after it: prices in won, `at` in seconds since midnight KST, market time.

    `size` is positive where the buyer, negative where the seller took the initiative; `bought` is the day's volume of
    the former. `value` is in won.
    """

    at: float
    code: str
    price: int
    size: int
    open: int
    high: int
    low: int
    volume: int
    value: int
    bought: int


class Crossing(msgspec.Struct, frozen=True, gc=False):
    """A stock entered (`hit`) or left (`exit`) a condition: the truth that clients are told.

    `index` counts the day's crossings from 0. `at` is the whole second since midnight KST, market time.
    """

    index: int
    seq: str
    code: str
    action: Literal["hit", "exit"]
    at: int
    price: int


class DailyBar(NamedTuple):
    """One day of one stock; value in won."""

    date: dt.date
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int


class MinuteBar(NamedTuple):
    """One minute of one stock; `minute` counts from midnight KST, value in won."""

    minute: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int


Event = Trade | Crossing

_BAR: Final = len(MinuteBar._fields)


class _Phase(NamedTuple):
    """A stretch of a stock's day with one rate of trades (per second) and one drift (relative price per second)."""

    until: float
    rate: float
    drift: float
    eagerness: float


class _Stock:
    """A listing with the moving parts of its day; `unit` is the size of an ordinary trade in shares."""

    __slots__ = ("bars", "drifted_to", "impulse", "listing", "phase", "phases", "rng", "standing", "unit", "walk")

    def __init__(
        self, listing: Listing, standing: Standing, rng: random.Random, phases: list[_Phase], unit: float
    ) -> None:
        self.listing = listing
        self.standing = standing
        self.rng = rng
        self.phases = phases
        self.phase = 0
        self.walk = rng.gauss(0.0, 0.008) + (rng.uniform(0.01, 0.04) if rng.random() < 0.06 else 0.0)  # the gap
        self.impulse = 0.0
        self.drifted_to = 0.0
        self.unit = unit
        self.bars = array("q")  # the fields of one MinuteBar after the other: a day has hundreds of thousands


class Day:
    """A trading day's market, from `opened` to `closes` (seconds since midnight KST).

    Args:
        seed: of the simulated world.
        date: the trading date.
        opened, closes: first and last second in which trades happen.
        previous: each listing with its previous close and its highest price of the `PERIOD` days before.
        activity: multiplies trades and surges; 0 is a silent market.
    """

    def __init__(
        self,
        *,
        seed: int,
        date: dt.date,
        opened: float,
        closes: float,
        previous: list[tuple[Listing, int, int]],
        activity: float,
    ) -> None:
        self.date = date
        self.opened = opened
        self.closes = closes
        self.offset = 0
        """Seconds that the market has stood still: market time is tape time plus this."""
        self.tape = opened
        self.truth: list[Crossing] = []
        self.members: dict[str, dict[str, int]] = {condition.seq: {} for condition in CONDITIONS}
        changed: list[dict[int, int]] = [{} for _ in CONDITIONS]  # the second in which a stock last crossed
        self._rules = [
            (condition.seq, condition.enters, condition.stays, self.members[condition.seq], changes)
            for condition, changes in zip(CONDITIONS, changed, strict=True)
        ]
        world = random.Random(f"{seed}/{date}")
        self._index = [0.0]
        for _ in range(int((closes - opened) / _INDEX_STEP) + 2):
            self._index.append(self._index[-1] * 0.998 + world.gauss(0.0, 0.00045))
        total = sum(listing.liquidity for listing, _, _ in previous) or 1.0
        self._stocks: list[_Stock] = []
        for listing, close, period_high in previous:
            rng = random.Random(f"{seed}/{date}/{listing.code}")
            share = listing.liquidity / total
            rate = TRADES_PER_SECOND * activity * share
            surges = SURGES_PER_HOUR * activity * min(3.0, (share * len(previous)) ** 0.5)
            phases = _phases(rng, opened, closes, rate, surges) if activity > 0 else []
            limits = price_limits(close, etn=listing.etn)
            standing = Standing(previous_close=close, period_high=period_high, limits=limits)
            trades = TRADES_PER_SECOND * share * 23_400 * 2
            self._stocks.append(_Stock(listing, standing, rng, phases, listing.shares * TURNOVER / trades))
        self._by_code = {stock.listing.code: stock for stock in self._stocks}
        self._arrivals: list[tuple[float, int]] = []
        for number, stock in enumerate(self._stocks):
            stock.drifted_to = opened
            if stock.phases:
                first = opened + stock.rng.expovariate(min(0.3, stock.phases[0].rate * 12))  # everyone wants to open
                self._arrivals.append((first, number))
        heapify(self._arrivals)

    def next_arrival(self) -> float:
        """Market time (seconds since midnight) of the next trade; infinite when the day has no more."""
        if not self._arrivals:
            return inf
        at = self._arrivals[0][0] + self.offset
        return at if at < self.closes else inf

    def advance(self, until: float, limit: int = 1_000_000) -> list[Event]:
        """Let the market go on to market time `until`, or to the `limit`-th trade, and return what happened.

        Every crossing stands right after the trade that caused it.
        """
        events: list[Event] = []
        arrivals = self._arrivals
        end = min(until, self.closes) - self.offset
        while arrivals and arrivals[0][0] <= end and limit > 0:
            limit -= 1
            at, number = arrivals[0]
            stock = self._stocks[number]
            events.append(self._trade(stock, at))
            self._review(number, stock, at, events)
            following = self._following(stock, at)
            if following < self.closes:
                heapreplace(arrivals, (following, number))
            else:
                heappop(arrivals)
            self.tape = at
        if not arrivals or arrivals[0][0] > end:
            self.tape = max(self.tape, end)
        return events

    def standing(self, code: str) -> Standing | None:
        """Where a stock stands now; None for a code that is not listed."""
        stock = self._by_code.get(code)
        return stock.standing if stock else None

    def minutes(self, code: str) -> list[MinuteBar]:
        """The day's minute bars of a stock so far, oldest first; minutes without a trade are left out."""
        stock = self._by_code.get(code)
        bars = stock.bars if stock else ()
        return [MinuteBar(*bars[at : at + _BAR]) for at in range(0, len(bars), _BAR)]

    def bar(self, code: str) -> DailyBar:
        """Today's bar of a listed stock as it stands; volume 0 where it has not traded."""
        s = self._by_code[code].standing
        return DailyBar(self.date, s.open, s.high, s.low, s.price, s.volume, s.value)

    def _trade(self, stock: _Stock, at: float) -> Trade:
        rng = stock.rng
        standing = stock.standing
        listing = stock.listing
        self._drift(stock, at)
        elapsed = at - (standing.at if standing.opened_at is not None else at)
        stock.walk += rng.gauss(0.0, 0.00011 * sqrt(elapsed)) - stock.walk * 0.00002 * elapsed if elapsed else 0.0
        position = (at - self.opened) / _INDEX_STEP
        step = int(position)
        left, right = self._index[step], self._index[step + 1]
        relative = stock.walk + stock.impulse + left + (right - left) * (position - step)
        base = standing.previous_close
        wanted = base * (1 + relative)
        tick = tick_size(wanted, etn=listing.etn)
        buyer = rng.random() < (0.5 + 0.18 * (wanted > standing.price) - 0.18 * (wanted < standing.price))
        price = int((wanted + (tick if buyer else -tick) * 0.4) / tick + 0.5) * tick
        price -= price % tick_size(price, etn=listing.etn)
        price = max(standing.lower_limit, min(standing.upper_limit, price))
        eagerness = stock.phases[stock.phase].eagerness
        shares = 1 + int(stock.unit * eagerness * rng.expovariate(1.0))
        size = shares if buyer else -shares
        standing.apply(at, price, size)
        market_time = at + self.offset
        _extend(stock.bars, int(market_time // 60), price, shares)
        s = standing
        return Trade(market_time, listing.code, price, size, s.open, s.high, s.low, s.volume, s.value, s.bought)

    def _review(self, number: int, stock: _Stock, at: float, events: list[Event]) -> None:
        standing = stock.standing
        code = stock.listing.code
        second = int(at)
        for seq, enters, stays, members, changed in self._rules:
            member = code in members
            if (stays if member else enters)(standing) == member or changed.get(number) == second:
                continue
            changed[number] = second
            now = second + self.offset
            if member:
                del members[code]
            else:
                members[code] = now
            crossing = Crossing(len(self.truth), seq, code, "exit" if member else "hit", now, standing.price)
            self.truth.append(crossing)
            events.append(crossing)

    def _following(self, stock: _Stock, at: float) -> float:
        while True:
            phase = stock.phases[stock.phase]
            following = at + stock.rng.expovariate(phase.rate)
            if following < phase.until or stock.phase + 1 == len(stock.phases):
                return following
            at = phase.until  # arrivals forget: start anew where the rate changes
            self._drift(stock, at)

    def _drift(self, stock: _Stock, at: float) -> None:
        """Let the phases until `at` have their effect on the price."""
        while True:
            phase = stock.phases[stock.phase]
            until = min(at, phase.until)
            stock.impulse += phase.drift * (until - stock.drifted_to)
            stock.drifted_to = until
            if at < phase.until or stock.phase + 1 == len(stock.phases):
                return
            stock.phase += 1


def _phases(rng: random.Random, opened: float, closes: float, rate: float, surges_per_hour: float) -> list[_Phase]:
    """A stock's day as consecutive phases: calm, surge, retreat, calm …; livelier in the first half hour."""
    phases: list[_Phase] = []
    lively = opened + 1_800

    def add(until: float, factor: float, drift: float, eagerness: float) -> float:
        start = phases[-1].until if phases else opened
        if start < lively < until:
            phases.append(_Phase(lively, rate * factor * 1.6, drift, eagerness))
        phases.append(_Phase(until, rate * factor * (1.6 if until <= lively else 1.0), drift, eagerness))
        return until

    at = opened
    while at < closes:
        hurry = 3.0 if at < lively else 1.0
        at = add(at + rng.expovariate(surges_per_hour * hurry / 3600), 1.0, 0.0, 1.0)
        size = rng.lognormvariate(-3.35, 0.6) * (1 if rng.random() < 0.8 else -0.7)
        rise = rng.uniform(90, 700)
        at = add(at + rise, 11.0, size / rise, 3.5)
        fall = rise * rng.uniform(1.5, 5.0)
        at = add(at + fall, 4.0, -size * rng.uniform(0.35, 1.05) / fall, 1.3)
    return phases


def _extend(bars: array[int], minute: int, price: int, shares: int) -> None:
    if bars and bars[-_BAR] == minute:
        if price > bars[-5]:
            bars[-5] = price
        elif price < bars[-4]:
            bars[-4] = price
        bars[-3] = price
        bars[-2] += shares
        bars[-1] += shares * price
    else:
        bars.extend((minute, price, price, price, price, shares, shares * price))


def past_days(seed: int, listing: Listing, first: list[dt.date]) -> list[DailyBar]:
    """Invented daily bars of the dates in `first` (oldest first), ending at the listing's own close."""
    rng = random.Random(f"{seed}/past/{listing.code}")
    bars: list[DailyBar] = []
    close = listing.close
    for day in reversed(first):
        lower, upper = int(close * 0.8), int(close * 1.25)
        opening = max(lower, min(upper, close * (1 + rng.gauss(0.0, 0.014))))
        high = max(opening, close) * (1 + abs(rng.gauss(0.0, 0.009)))
        low = min(opening, close) * (1 - abs(rng.gauss(0.0, 0.009)))
        volume = max(1, int(listing.shares * TURNOVER * rng.lognormvariate(0.0, 0.6)))
        first_price, top, bottom = (_on_tick(price, listing) for price in (opening, high, low))
        top, bottom = max(top, close, first_price), min(bottom, close, first_price)
        bars.append(DailyBar(day, first_price, top, bottom, close, volume, volume * (top + bottom + close) // 3))
        close = _on_tick(opening * (1 + rng.gauss(0.0, 0.006)), listing)
    return bars[::-1]


def period_high(bars: list[DailyBar], close: int) -> int:
    """The highest price of the last `PERIOD` days; `close` where there is no day."""
    return max((bar.high for bar in bars[-PERIOD:]), default=close)


def _on_tick(price: float, listing: Listing) -> int:
    tick = tick_size(price, etn=listing.etn)
    return max(tick, int(price // tick * tick))
