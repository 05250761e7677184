"""Days and exchanges for tests that need no server."""

from __future__ import annotations

import datetime as dt
from typing import Any

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import Exchange, Happening
from deploy.local.kiwoom.market import Day

NINE = 9 * 3600.0


def day(
    seed: int = 1, *, closes: float = NINE + 2_400, activity: float = 1.0, date: dt.date = dt.date(2026, 3, 9)
) -> Day:
    previous = [(stock, stock.close, round(stock.close * 1.02)) for stock in listings()]
    return Day(seed=seed, date=date, opened=NINE, closes=closes, previous=previous, activity=activity)


def settle(exchange: Exchange, now: dt.datetime, limit: int = 2_000) -> list[Happening]:
    """Everything that happens up to `now`."""
    happened: list[Happening] = []
    while not exchange.caught_up(now):
        happened += exchange.advance(now, limit)
    return happened


def world(now: dt.datetime, **options: Any) -> Exchange:
    return Exchange(**({"seed": 7, "hours": "always", "activity": 1.0, "ledger": None} | options), now=now)
