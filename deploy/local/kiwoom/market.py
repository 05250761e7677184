"""One trading day of the simulated market: who trades when, at which price, and what the conditions make of it.

Pure and deterministic: a `Day` is a function of the seed, the date and the closes before it, advanced along its own
tape of seconds since midnight KST. It knows no clock and no client; whoever holds it says how far to go, in steps of
any size, and gets the same trades and crossings in the same order. What happens between two days is `exchange`'s
business.

Each stock draws from a random stream of its own, so the order in which stocks are looked at changes nothing. Trades
arrive one by one (the next arrival of every stock waits in a heap), never in a sweep over all stocks. A stock's price
follows a slow walk around the previous close, the index, and *surges*: minutes of rising price and many trades, then
a partial retreat. Surges are what conditions find.

What is planted (`plants`) multiplies that price from a hit on. A *neutral* market has nothing else to find: no surges,
no way back to a mean, trades at the same rate in every stock, and conditions that hold stocks at random; prices are
then driftless, and what is planted is the whole truth.
"""

from __future__ import annotations

import datetime as dt
import random
from array import array
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from math import inf, prod, sqrt
from typing import Final, Literal, NamedTuple

import msgspec

from .catalog import Listing, price_limits, tick_size
from .conditions import PERIOD, Standing
from .plants import EVERY, Effect, Plant, Visit, account, drawn, touched

TRADES_PER_SECOND: Final = 3.5
"""Trades of a calm market, over all stocks, at activity 1."""

SURGES_PER_HOUR: Final = 0.28
"""Surges of one stock of average liquidity, per hour at activity 1."""

TURNOVER: Final = 0.004
"""Part of a stock's shares that an ordinary day trades."""

NEUTRAL_GAP: Final = 10.0
"""Mean seconds between two trades of a stock in a neutral market, at activity 1."""

_INDEX_STEP: Final = 60.0
_PULL: Final = 0.00002


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

    __slots__ = (
        "bars",
        "drifted_to",
        "effects",
        "impulse",
        "listing",
        "phase",
        "phases",
        "rng",
        "running",
        "settled",
        "standing",
        "unit",
        "walk",
    )

    def __init__(
        self,
        listing: Listing,
        standing: Standing,
        rng: random.Random,
        phases: list[_Phase],
        unit: float,
        *,
        neutral: bool,
    ) -> None:
        self.listing = listing
        self.standing = standing
        self.rng = rng
        self.phases = phases
        self.phase = 0
        self.walk = rng.gauss(0.0, 0.008)  # the gap
        if not neutral and rng.random() < 0.06:
            self.walk += rng.uniform(0.01, 0.04)
        self.impulse = 0.0
        self.drifted_to = 0.0
        self.unit = unit
        self.effects: list[Effect] = []  # all of the day
        self.running: list[Effect] = []  # those that still move the price
        self.settled = 1.0  # what the others have made of it
        self.bars = array("q")  # the fields of one MinuteBar after the other: a day has hundreds of thousands


class Day:
    """A trading day's market, from `opened` to `closes` (seconds since midnight KST).

    Args:
        seed: of the simulated world.
        date: the trading date.
        opened, closes: first and last second in which trades happen.
        previous: each listing with its previous close and its highest price of the `PERIOD` days before.
        activity: multiplies trades and surges; 0 is a silent market.
        plants: what follows hits. A condition that the account does not have is added to it, and holds stocks at
            random.
        neutral: see above.
        only_planted: whether only the conditions in `plants` have hits.
        every: seconds of the day in which a stock has one drawn visit.
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
        plants: Sequence[Plant] = (),
        neutral: bool = False,
        only_planted: bool = False,
        every: float = EVERY,
    ) -> None:
        self.date = date
        self.opened = opened
        self.closes = closes
        self.offset = 0
        """Seconds that the market has stood still: market time is tape time plus this."""
        self.tape = opened
        self.truth: list[Crossing] = []
        self.conditions = account(plants)
        """The account's list."""
        self.members: dict[str, dict[str, int]] = {condition.seq: {} for condition in self.conditions}
        self._planted = {c.seq: each for each in plants for c in self.conditions if c.name == each.condition}
        self._effects: dict[int, Effect] = {}
        at_random = tuple(c.seq for c in self.conditions if neutral or int(c.seq) > 40)
        if only_planted:
            at_random = tuple(seq for seq in at_random if seq in self._planted)
        looking = [] if neutral else [condition for condition in self.conditions if condition.seq not in at_random]
        changed: list[dict[int, int]] = [{} for _ in looking]  # the second in which a stock last crossed
        self._rules = [
            (condition.seq, condition.enters, condition.stays, self.members[condition.seq], changes)
            for condition, changes in zip(looking, changed, strict=True)
        ]
        self._pull = 0.0 if neutral else _PULL
        world = random.Random(f"{seed}/{date}")
        self._index = [0.0]
        for _ in range(int((closes - opened) / _INDEX_STEP) + 2):
            self._index.append(self._index[-1] * (1.0 if neutral else 0.998) + world.gauss(0.0, 0.00045))
        total = sum(listing.liquidity for listing, _, _ in previous) or 1.0
        self._stocks: list[_Stock] = []
        for listing, close, period_high in previous:
            rng = random.Random(f"{seed}/{date}/{listing.code}")
            share = listing.liquidity / total
            rate = activity / NEUTRAL_GAP if neutral else TRADES_PER_SECOND * activity * share
            surges = 0.0 if neutral else SURGES_PER_HOUR * activity * min(3.0, (share * len(previous)) ** 0.5)
            phases = _phases(rng, opened, closes, rate, surges) if activity > 0 else []
            limits = price_limits(close, etn=listing.etn)
            standing = Standing(previous_close=close, period_high=period_high, limits=limits)
            trades = TRADES_PER_SECOND * share * 23_400 * 2
            unit = listing.shares * TURNOVER / trades
            self._stocks.append(_Stock(listing, standing, rng, phases, unit, neutral=neutral))
        self._by_code = {stock.listing.code: stock for stock in self._stocks}
        self._arrivals: list[tuple[float, int]] = []
        for number, stock in enumerate(self._stocks):
            stock.drifted_to = opened
            if stock.phases:
                first = opened + stock.rng.expovariate(min(0.3, stock.phases[0].rate * 12))  # everyone wants to open
                self._arrivals.append((first, number))
        heapify(self._arrivals)
        self._visits: list[Visit] = []  # the next one last
        if at_random and activity > 0:
            horizon = max((each.horizon for each in plants), default=0.0)
            for number, stock in enumerate(self._stocks):
                code = stock.listing.code
                if touched(seed, code):
                    rng = random.Random(f"{seed}/{date}/{code}/visits")
                    self._visits += drawn(
                        rng, number, at_random, opened=opened, closes=closes, every=every, horizon=horizon
                    )
            self._visits.sort(reverse=True)

    def next_arrival(self) -> float:
        """Market time (seconds since midnight) of the next trade or crossing; infinite when the day has no more."""
        at = min(self._arrivals[0][0] if self._arrivals else inf, self._visits[-1].at if self._visits else inf)
        return at + self.offset if at + self.offset < self.closes else inf

    def advance(self, until: float, limit: int = 1_000_000) -> list[Event]:
        """Let the market go on to market time `until`, or to the `limit`-th trade, and return what happened.

        Every crossing stands right after the trade that caused it, if one did.
        """
        events: list[Event] = []
        arrivals = self._arrivals
        visits = self._visits
        end = min(until, self.closes) - self.offset
        while arrivals and arrivals[0][0] <= end and limit > 0:
            limit -= 1
            at, number = arrivals[0]
            stock = self._stocks[number]
            if visits and visits[-1].at <= at:
                self._visit_until(at, events)
            events.append(self._trade(stock, at))
            self._review(number, stock, at, events)
            following = self._following(stock, at)
            if following < self.closes:
                heapreplace(arrivals, (following, number))
            else:
                heappop(arrivals)
            self.tape = at
        if not arrivals or arrivals[0][0] > end:
            self._visit_until(end, events)
            self.tape = max(self.tape, end)
        return events

    def effect(self, crossing: Crossing) -> Effect | None:
        """What was planted after a hit; None where nothing was."""
        return self._effects.get(crossing.index)

    def factor(self, code: str, at: float) -> float:
        """What all that was planted so far has made of a stock's price at a moment of the tape: 1 is nothing.

        The price without it would have been the price divided by this, but for the ticks.
        """
        stock = self._by_code[code]
        return prod(effect.factor(at) for effect in stock.effects)

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
        stock.walk += rng.gauss(0.0, 0.00011 * sqrt(elapsed)) - stock.walk * self._pull * elapsed if elapsed else 0.0
        position = (at - self.opened) / _INDEX_STEP
        step = int(position)
        left, right = self._index[step], self._index[step + 1]
        relative = stock.walk + stock.impulse + left + (right - left) * (position - step)
        base = standing.previous_close
        wanted = base * (1 + relative)
        if stock.effects:
            wanted *= self._moved(stock, at)
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

    def _moved(self, stock: _Stock, at: float) -> float:
        """The factor of all that was planted, for a trade now: the first one after a hit is its reference."""
        factor = stock.settled
        for effect in stock.running:
            if effect.reference is None:
                effect.reference = at
            factor *= effect.factor(at)
        if stock.running and any(effect.done(at) for effect in stock.running):
            stock.settled *= prod(1 + effect.effect for effect in stock.running if effect.done(at))
            stock.running = [effect for effect in stock.running if not effect.done(at)]
        return factor

    def _visit_until(self, at: float, events: list[Event]) -> None:
        """Let the conditions that look at no price have their hits and exits; a stock that has not traded has none."""
        while self._visits and self._visits[-1].at <= at:
            visit = self._visits.pop()
            stock = self._stocks[visit.number]
            if (visit.action == "exit") == (stock.listing.code in self.members[visit.seq]) and (
                stock.standing.opened_at is not None
            ):
                self._cross(visit.seq, stock, visit.action, visit.at, events)

    def _cross(self, seq: str, stock: _Stock, action: Literal["hit", "exit"], at: float, events: list[Event]) -> None:
        code = stock.listing.code
        now = int(at) + self.offset
        if action == "exit":
            del self.members[seq][code]
        else:
            self.members[seq][code] = now
        crossing = Crossing(len(self.truth), seq, code, action, now, stock.standing.price)
        if action == "hit" and seq in self._planted:
            effect = self._effects[crossing.index] = Effect(self._planted[seq], at)
            stock.effects.append(effect)
            stock.running.append(effect)
        self.truth.append(crossing)
        events.append(crossing)

    def _review(self, number: int, stock: _Stock, at: float, events: list[Event]) -> None:
        standing = stock.standing
        code = stock.listing.code
        second = int(at)
        for seq, enters, stays, members, changed in self._rules:
            member = code in members
            if (stays if member else enters)(standing) == member or changed.get(number) == second:
                continue
            changed[number] = second
            self._cross(seq, stock, "exit" if member else "hit", at, events)

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
    if not surges_per_hour:
        at = add(closes, 1.0, 0.0, 1.0)
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
