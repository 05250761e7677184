"""Small worlds in which it is known what follows a hit, to see whether the intervals of the analytics hold it.

A hit's return after five minutes is what is planted for its condition, plus an effect of its stock, one of its day
that all hits of the condition share, the market's on that day, and noise: hits of one stock or one day are alike, which
is what makes intervals that take each hit for a case of its own too narrow. Sampled stocks have the market and noise
alone, so that the planted figure is what the difference is expected to be, too.

`write_markets` does the same with the local market (`deploy.local.kiwoom.rehearsal`), whose prices are traded ones.

Each world has an account and dates of its own: one question to the views is about all of them.
"""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import NamedTuple

from clickhouse_connect.driver.client import Client

from deploy.local.kiwoom.plants import Plant
from deploy.local.kiwoom.rehearsal import rehearse
from sinks.clickhouse.rows import COLUMNS

PLANTED = {"1": -0.5, "3": 0.0, "5": 1.0}
"""Percent after five minutes, by condition."""

PRICE = 1_000_000
SAMPLED = 4
SLOTS = [550 + 10 * number for number in range(30)]
"""Minutes of the day at which hits occur: what belongs to one is over before the next."""

_CHUNK = 50_000
_MINUTE = 60_000_000
"""Microseconds: a bar is known when its minute is over."""
_FIRST = date(1990, 1, 1)


class Size(NamedTuple):
    """Of a world: stocks, days, and hits of each condition; deviations in percent."""

    stocks: int = 25
    days: int = 14
    hits: int = 150
    stock: float = 0.5
    day: float = 0.5
    market: float = 0.5
    noise: float = 1.0


def dates(seed: int, days: int) -> list[date]:
    """The days of a world: those of another one are weeks away."""
    first = _FIRST + timedelta(days=140 * seed)
    return [first + timedelta(days=number) for number in range(days)]


def write(client: Client, seeds: range, size: Size) -> tuple[date, date]:
    """Make worlds and store their hits and bars; returns the first and the last date of all of them."""
    hits: list[tuple[object, ...]] = []
    bars: list[tuple[object, ...]] = []
    for seed in seeds:
        _make(seed, size, hits, bars)
        if len(bars) > _CHUNK or seed == seeds[-1]:
            _store(client, hits, bars)
    return dates(seeds[0], size.days)[0], dates(seeds[-1], size.days)[-1]


def write_markets(client: Client, seeds: range) -> tuple[date, date]:
    """Store days of the local market, an hour of trading each, with `PLANTED`; returns the first and the last date.

    Stocks that are hit have a quote for each trade: what is planted counts from the first trade after the hit.
    """
    plants = [Plant(name, percent / 100, 300.0) for name, percent in PLANTED.items()]
    hits: list[tuple[object, ...]] = []
    bars: list[tuple[object, ...]] = []
    quotes: list[tuple[object, ...]] = []
    day = _FIRST
    for seed in seeds:
        for rehearsed in rehearse(
            seed, _FIRST + timedelta(days=28 * seed), 8, plants, stocks=24, opened=9 * 3600, closes=10 * 3600, gap=30.0
        ):
            day = rehearsed.date
            for number, hit in enumerate(rehearsed.hits):
                at = _micros(day, 0) + hit.at * 1_000_000
                hits.append(_hit(day, f"market {seed}", hit.condition, hit.code, number, at))
                for traded, price in rehearsed.trades[hit.code]:
                    if hit.at <= traded <= hit.at + 420:
                        known = _micros(day, 0) + round(traded * 1e6)
                        quotes.append((day, hit.code, "KRX", known, "", known, price, price, price, 1, 1, "", 0, 0))
            for code, minutes in rehearsed.minutes.items():
                for m in minutes:
                    at = _micros(day, m.minute)
                    sample = code in rehearsed.untouched
                    heard = at + _MINUTE
                    bars.append(
                        (day, code, "1m", at, m.open, m.high, m.low, m.close, m.volume, sample, heard, "", 0, 0)
                    )
        if len(bars) > _CHUNK or seed == seeds[-1]:
            _store(client, hits, bars, quotes)
    return _FIRST + timedelta(days=28 * seeds[0]), day


def _store(
    client: Client,
    hits: list[tuple[object, ...]],
    bars: list[tuple[object, ...]],
    quotes: list[tuple[object, ...]] | None = None,
) -> None:
    """Insert the rows and empty the lists."""
    for table, columns, rows in (
        ("transitions", [name for name in COLUMNS["transitions"] if name not in _LEFT_OUT], hits),
        ("bars", [name for name in COLUMNS["bars"] if name != "value"], bars),
        ("quotes", [name for name in COLUMNS["quotes"] if name not in _LEFT_OUT], [] if quotes is None else quotes),
    ):
        if not rows:
            continue
        client.insert(
            table, rows, column_names=columns, settings={"async_insert": 0, "max_partitions_per_insert_block": 0}
        )
        rows.clear()


_LEFT_OUT = {"dwell", "gap_from", "gap_to", "change_rate", "day_volume"}


def _make(seed: int, size: Size, hits: list[tuple[object, ...]], bars: list[tuple[object, ...]]) -> None:
    rng = random.Random(f"world {seed}")
    days = dates(seed, size.days)
    market = [rng.gauss(0, size.market) for _ in days]
    used = set()
    for number, (condition, planted) in enumerate(PLANTED.items()):
        stock_effects = [rng.gauss(0, size.stock) for _ in range(size.stocks)]
        day_effects = [rng.gauss(0, size.day) for _ in days]
        for count in range(size.hits):
            stock, day = rng.randrange(size.stocks), rng.randrange(size.days)
            slot = rng.choice(SLOTS)
            code = f"{number}h{stock:04}"
            while (code, day, slot) in used:
                slot = rng.choice(SLOTS)
            used.add((code, day, slot))
            change = planted + stock_effects[stock] + day_effects[day] + market[day] + rng.gauss(0, size.noise)
            at = _micros(days[day], slot) - 20_000_000
            hits.append(_hit(days[day], f"world {seed}", condition, code, count, at))
            _bars(bars, days[day], code, slot, change, sample=False)
    for day, moved in zip(days, market, strict=True):
        for stock in range(SAMPLED):
            for slot in SLOTS:
                _bars(bars, day, f"s{stock:05}", slot, moved + rng.gauss(0, size.noise), sample=True)


def _hit(day: date, account: str, condition: str, code: str, number: int, at: int) -> tuple[object, ...]:
    identity = f"{account}/{condition}/{day}/{number}"
    place = (day, account, condition, code, number + 1, "entered", identity, "KRX", "realtime")
    return (*place, at, at, False, "", "", at, "", 0, 0)


def _bars(bars: list[tuple[object, ...]], day: date, code: str, slot: int, percent: float, *, sample: bool) -> None:
    """Five minutes: bought at the first minute's open, known at the fifth one's end."""
    last = round(PRICE * (1 + percent / 100))
    for minute, price in ((slot, PRICE), (slot + 4, last)):
        at = _micros(day, minute)
        bars.append((day, code, "1m", at, price, price, price, price, 1, sample, at + _MINUTE, "", 0, 0))


def _micros(day: date, minute: int) -> int:
    return ((day - date(1970, 1, 1)).days * 1440 + minute - 540) * _MINUTE
