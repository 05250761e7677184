"""Whole days of a neutral market with planted effects, at once and without a server.

For whoever tests what is computed from hits and prices: the same market as the one behind the wire (`market.Day`),
with few stocks, and what is true of it. Everything is a function of the seed.

What holds of every day here:

- prices are driftless: without a plant the expected return over any time is 0;
- a hit's time and condition do not depend on prices, and within `every` seconds a stock has one hit. With the default
  (one hit a day), the expected return from the reference – the first trade after the hit – to any later moment is the
  planted effect once its horizon is over (and to be exact: after six tenths of it), until the next day's open;
- stocks that are not `touched` have no hit, and nothing is planted in them: they are what to compare with.

What is left between a planted and a measured figure are the ticks: prices are whole ticks, half a tick of noise on
both sides of a return. `tests/deploy/kiwoom/test_rehearsal.py` measures it.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from .catalog import listings
from .exchange import CLOSES, OPENS
from .market import NEUTRAL_GAP, DailyBar, Day, MinuteBar, Trade
from .plants import Plant, touched

STOCKS: Final = 30
GAP: Final = 20.0
"""Mean seconds between two trades of a stock."""


class Hit(NamedTuple):
    """A hit of a day, and its truth. Times in seconds since midnight KST, the hit's own a whole one.

    `effect` is the planted relative change (0.01 is one percent), 0 where nothing is planted; `reference_at` and
    `reference` are the first trade after the hit, None where the day has none.
    """

    condition: str
    code: str
    at: int
    exit_at: int | None
    effect: float
    reference_at: float | None
    reference: int | None


class Rehearsed(NamedTuple):
    """One day: its hits in order, and each stock's trades (seconds since midnight, price), minute bars and day.

    `untouched` are the codes that no condition ever holds.
    """

    date: dt.date
    hits: tuple[Hit, ...]
    trades: dict[str, list[tuple[float, int]]]
    minutes: dict[str, list[MinuteBar]]
    daily: dict[str, DailyBar]
    untouched: frozenset[str]


def rehearse(
    seed: int,
    first: dt.date,
    days: int,
    plants: Sequence[Plant],
    *,
    stocks: int = STOCKS,
    opened: float = OPENS,
    closes: float = CLOSES,
    gap: float = GAP,
    every: float | None = None,
) -> Iterator[Rehearsed]:
    """Trading days of one world, one after the other: each opens around the close before.

    Args:
        seed: of the world; it also chooses the stocks.
        first: the first day (its weekend days are skipped).
        days: how many.
        plants: what follows which condition's hits; only conditions named here have hits (give an effect of 0 for one
            that precedes nothing).
        stocks: how many there are.
        opened, closes: seconds since midnight KST.
        gap: mean seconds between two trades of a stock.
        every: seconds within which a touched stock has one hit; None: the whole day.
    """
    chosen = random.Random(f"{seed}/stocks").sample([stock for stock in listings() if not stock.etn], stocks)
    closing = {stock.code: stock.close for stock in chosen}
    date = first
    for _ in range(days):
        while date.weekday() >= 5:
            date += dt.timedelta(days=1)
        day = Day(
            seed=seed,
            date=date,
            opened=opened,
            closes=closes,
            previous=[(stock, closing[stock.code], closing[stock.code]) for stock in chosen],
            activity=NEUTRAL_GAP / gap,
            plants=plants,
            neutral=True,
            only_planted=True,
            every=closes - opened if every is None else every,
        )
        yield _told(day, plants, frozenset(stock.code for stock in chosen if not touched(seed, stock.code)))
        closing = {stock.code: day.bar(stock.code).close for stock in chosen}
        date += dt.timedelta(days=1)


def _told(day: Day, plants: Sequence[Plant], untouched: frozenset[str]) -> Rehearsed:
    names = {condition.seq: condition.name for condition in day.conditions}
    trades: dict[str, list[tuple[float, int]]] = {}
    for event in day.advance(day.closes, limit=10**9):
        if isinstance(event, Trade):
            trades.setdefault(event.code, []).append((event.at, event.price))
    effects = {each.condition: each.effect for each in plants}
    hits: list[Hit] = []
    inside: dict[tuple[str, str], int] = {}
    for crossing in day.truth:
        place = (crossing.seq, crossing.code)
        if crossing.action == "exit":
            number = inside.pop(place)
            hits[number] = hits[number]._replace(exit_at=crossing.at)
            continue
        inside[place] = len(hits)
        effect = day.effect(crossing)
        reference_at = effect.reference if effect else None
        reference = next((price for at, price in trades[crossing.code] if at == reference_at), None)
        name = names[crossing.seq]
        hits.append(Hit(name, crossing.code, crossing.at, None, effects[name], reference_at, reference))
    codes = list(trades)
    return Rehearsed(
        date=day.date,
        hits=tuple(hits),
        trades=trades,
        minutes={code: day.minutes(code) for code in codes},
        daily={code: day.bar(code) for code in codes},
        untouched=untouched,
    )
