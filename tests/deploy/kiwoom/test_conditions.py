"""The conditions' verdicts, worked out a second time, plainly, from the tape of trades."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from deploy.local.kiwoom.catalog import by_code, listings, price_limits
from deploy.local.kiwoom.conditions import CONDITIONS, Standing
from deploy.local.kiwoom.market import Trade

from .worlds import NINE, day

Verdict = Callable[[SimpleNamespace], bool]

# seq → (a stock outside enters, a member stays)
PLAIN: dict[str, tuple[Verdict, Verdict]] = {
    "0": (lambda s: 1.05 <= s.p / s.close < 1.15, lambda s: 1.045 <= s.p / s.close < 1.16),
    "1": (
        lambda s: s.p > s.before and s.age >= 600 and s.recent >= 4 * s.usual,
        lambda s: s.recent >= 2 * s.usual,
    ),
    "4": (
        lambda s: s.high / s.close >= 1.04 and s.dip / s.high <= 0.98 and s.p / s.dip >= 1.008 and s.p < s.high,
        lambda s: s.p / s.dip >= 1.003 and s.p < s.high,
    ),
    "5": (lambda s: s.p / s.before >= 1.012 and s.recent >= 1.5 * s.usual, lambda s: s.p / s.before >= 1.002),
    "7": (
        lambda s: s.p > s.period_high and s.since_high <= 600,
        lambda s: s.p / s.period_high > 0.99 and s.p / s.high >= 0.985,
    ),
    "12": (lambda s: s.open / s.close >= 1.015 and s.p >= s.open, lambda s: s.p / s.open >= 0.993),
    "18": (lambda s: s.age >= 300 and s.p / s.average >= 1.008, lambda s: s.p / s.average >= 1.001),
    "33": (lambda s: s.p / s.limit >= 0.95, lambda s: s.p / s.limit >= 0.93),
}


def plainly(trades: list[Trade]) -> SimpleNamespace:
    """The figures of a stock's day, from all its trades so far."""
    now, stock = trades[-1], by_code()[trades[-1].code]
    prices = [trade.price for trade in trades]
    high = max(prices)
    last_high = max(number for number, price in enumerate(prices) if price == high)
    recent = [trade for trade in trades if trade.at > now.at - 180]
    older = [trade for trade in trades if trade.at <= now.at - 180]
    volume = sum(abs(trade.size) for trade in trades)
    age = now.at - trades[0].at
    return SimpleNamespace(
        p=now.price,
        close=stock.close,
        open=prices[0],
        high=high,
        since_high=now.at - trades[last_high].at,
        dip=min(prices[last_high:]),
        before=older[-1].price if older else prices[0],
        recent=sum(abs(trade.size) for trade in recent),
        usual=volume * 180 / age if age > 180 else volume,
        average=sum(abs(trade.size) * trade.price for trade in trades) / volume,
        age=age,
        period_high=round(stock.close * 1.02),
        limit=price_limits(stock.close, etn=stock.etn)[1],
    )


@pytest.mark.parametrize("seed", [11, 12])
def test_hits_and_exits_follow_from_the_prices(seed: int) -> None:
    market = day(seed=seed, closes=NINE + 1_500)
    watched = {stock.code for stock in listings()[seed % 3 :: 3]}
    trades = [event for event in market.advance(market.closes) if isinstance(event, Trade) and event.code in watched]
    own: dict[str, list[Trade]] = {}
    members: dict[tuple[str, str], bool] = {}
    changed: dict[tuple[str, str], int] = {}
    expected = []
    for trade in trades:
        own.setdefault(trade.code, []).append(trade)
        figures = plainly(own[trade.code])
        for condition in CONDITIONS:
            place = (condition.seq, trade.code)
            enters, stays = PLAIN[condition.seq]
            member = members.get(place, False)
            if (stays if member else enters)(figures) != member and changed.get(place) != int(trade.at):
                members[place] = not member
                changed[place] = int(trade.at)
                expected.append((*place, "exit" if member else "hit", int(trade.at), trade.price))
    assert expected == [(c.seq, c.code, c.action, c.at, c.price) for c in market.truth if c.code in watched]
    assert {seq for seq, *_ in expected} >= {"0", "1", "5", "7", "12", "18"}


def test_the_list_has_gaps_and_the_two_well_known_conditions() -> None:
    names = {condition.seq: condition.name for condition in CONDITIONS}
    assert len(names) == len(set(names.values())) == 8
    assert (names["7"], names["5"]) == ("신고가 돌파", "대왕개미단타")
    assert [int(seq) for seq in names] != list(range(8))


def test_before_the_first_trade_every_price_is_the_previous_close() -> None:
    standing = Standing(previous_close=10_000, period_high=10_500, limits=(7_000, 13_000))
    assert (standing.price, standing.high, standing.rate, standing.volume) == (10_000, 10_000, 0.0, 0)
    assert standing.average_price == 10_000


def test_the_window_forgets_what_is_older_than_three_minutes() -> None:
    standing = Standing(previous_close=10_000, period_high=10_500, limits=(7_000, 13_000))
    for at, price, size in ((0.0, 10_000, 10), (60.0, 10_100, -20), (179.9, 10_200, 30), (240.0, 10_300, 40)):
        standing.apply(at, price, size)
    assert standing.reference == 10_100  # the trade at 60 was in force 180 seconds ago
    assert standing.recent_volume == 70
