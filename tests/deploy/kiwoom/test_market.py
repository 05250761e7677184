"""One day's market: deterministic, within KRX's rules, and as lively as a real one."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from deploy.local.kiwoom.catalog import by_code, listings, price_limits, tick_size
from deploy.local.kiwoom.market import Crossing, Day, MinuteBar, Trade, past_days

from .worlds import NINE, day


@pytest.fixture(scope="module")
def tape() -> tuple[Day, list[Trade], list[Crossing]]:
    """Forty minutes of market in one go."""
    market = day()
    events = market.advance(market.closes)
    trades = [event for event in events if isinstance(event, Trade)]
    return market, trades, [event for event in events if isinstance(event, Crossing)]


def test_any_size_of_step_gives_the_same_day(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    market = day()
    events: list[Trade | Crossing] = []
    at, steps = NINE, (0.3, 17.0, 0.001, 400.0, 61.7)
    for number in range(10_000):
        at += steps[number % len(steps)]
        events += market.advance(at, limit=7) if number % 3 else market.advance(at)
        if at > market.closes:
            break
    events += market.advance(market.closes)
    assert [event for event in events if isinstance(event, Trade)] == tape[1]
    assert market.truth == tape[2]


@pytest.mark.parametrize("other", [{"seed": 2}, {"date": dt.date(2026, 3, 10)}, {"activity": 2.0}])
def test_another_seed_date_or_activity_gives_another_day(
    tape: tuple[Day, list[Trade], list[Crossing]], other: dict[str, object]
) -> None:
    assert day(**other).advance(NINE + 60)[:50] != tape[1][:50]  # type: ignore[arg-type]


def test_every_price_is_a_permitted_quote_within_the_day_s_limits(
    tape: tuple[Day, list[Trade], list[Crossing]],
) -> None:
    for trade in tape[1]:
        stock = by_code()[trade.code]
        lower, upper = price_limits(stock.close, etn=stock.etn)
        assert lower <= trade.price <= upper
        assert trade.price % tick_size(trade.price, etn=stock.etn) == 0


def test_trades_are_in_order_and_carry_the_day_s_figures(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    _, trades, _ = tape
    assert [trade.at for trade in trades] == sorted(trade.at for trade in trades)
    by_stock: dict[str, list[Trade]] = {}
    for trade in trades:
        by_stock.setdefault(trade.code, []).append(trade)
    for own in by_stock.values():
        prices = [trade.price for trade in own]
        last = own[-1]
        assert (last.open, last.high, last.low) == (prices[0], max(prices), min(prices))
        assert last.volume == sum(abs(trade.size) for trade in own)
        assert last.value == sum(abs(trade.size) * trade.price for trade in own)
        assert last.bought == sum(trade.size for trade in own if trade.size > 0)


def test_a_crossing_follows_the_trade_that_caused_it_and_tells_its_second_and_price() -> None:
    market = day()
    trade: Trade | None = None
    for event in market.advance(NINE + 900):
        if isinstance(event, Trade):
            trade = event
        else:
            assert trade is not None
            assert (event.code, event.at, event.price) == (trade.code, int(trade.at), trade.price)


def test_identities_are_unique_and_actions_alternate(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    market, _, crossings = tape
    assert [crossing.index for crossing in crossings] == list(range(len(crossings)))
    assert max(Counter((c.seq, c.code, c.action, c.at) for c in crossings).values()) == 1
    members: set[tuple[str, str]] = set()
    for crossing in crossings:
        place = (crossing.seq, crossing.code)
        assert (place in members) == (crossing.action == "exit")
        members ^= {place}
    assert members == {(seq, code) for seq, codes in market.members.items() for code in codes}


def test_a_normal_day_has_thousands_of_hits_and_exits(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    market = day(closes=NINE + 6.5 * 3600)
    market.advance(market.closes)
    assert 3_000 <= len(market.truth) <= 10_000
    assert {crossing.seq for crossing in market.truth} == {"0", "1", "4", "5", "7", "12", "18", "33"}


def test_activity_scales_the_market(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    busy = day(activity=4.0)
    busy.advance(busy.closes)
    assert len(busy.truth) > 2 * len(tape[2])


def test_no_activity_is_a_silent_market() -> None:
    market = day(activity=0.0)
    assert market.advance(market.closes) == []
    assert market.next_arrival() == float("inf")
    assert not any(market.members.values())


def test_minute_bars_are_what_was_traded(tape: tuple[Day, list[Trade], list[Crossing]]) -> None:
    market, trades, _ = tape
    code = Counter(trade.code for trade in trades).most_common(1)[0][0]
    expected = []
    for minute in sorted({int(trade.at // 60) for trade in trades if trade.code == code}):
        own = [trade for trade in trades if trade.code == code and int(trade.at // 60) == minute]
        prices = [trade.price for trade in own]
        volume, value = sum(abs(t.size) for t in own), sum(abs(t.size) * t.price for t in own)
        expected.append(MinuteBar(minute, prices[0], max(prices), min(prices), prices[-1], volume, value))
    assert market.minutes(code) == expected


def test_the_invented_past_ends_at_the_listing_s_close_on_ticks() -> None:
    dates = [dt.date(2026, 3, number) for number in (2, 3, 4, 5, 6)]
    for stock in listings():
        bars = past_days(7, stock, dates)
        assert [bar.date for bar in bars] == dates
        assert bars[-1].close == stock.close
        for bar in bars:
            assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            for price in bar[1:5]:
                assert price % tick_size(price, etn=stock.etn) == 0
