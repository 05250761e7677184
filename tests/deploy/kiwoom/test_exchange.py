"""Day after day: what a restart, a pause and a new date do to the market."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import msgspec
import pytest

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import Bell, Ledger
from deploy.local.kiwoom.market import Crossing
from streams.events import KST

from .worlds import settle, world

MONDAY = datetime(2026, 3, 9, 10, 0, tzinfo=KST)


def at(hour: int, minute: int = 0, second: float = 0.0, *, day: int = 9) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=KST) + timedelta(seconds=second)


def rewritten(ledger: Ledger) -> Ledger:
    return msgspec.json.decode(msgspec.json.encode(ledger), type=Ledger)


def test_the_first_day_opens_before_the_start_so_that_conditions_hold_stocks_at_once() -> None:
    exchange = world(MONDAY)
    settle(exchange, MONDAY)
    assert exchange.day.opened == 10 * 3600 - 1_200
    assert sum(bool(members) for members in exchange.day.members.values()) >= 5
    assert exchange.day.members["7"].keys() & exchange.day.members["5"].keys()


def test_the_start_decides_the_day_and_not_how_long_the_machine_took() -> None:
    one, other = world(at(10, 0, 0.2), start=MONDAY), world(at(10, 3, 44), start=MONDAY)
    for exchange in (one, other):
        settle(exchange, at(10, 4))
    assert one.day.truth == other.day.truth


def test_a_restart_goes_on_with_its_day() -> None:
    exchange = world(MONDAY)
    settle(exchange, MONDAY)
    before = settle(exchange, at(10, 4, 30.7))
    ledger = rewritten(exchange.ledger)
    settle(exchange, at(10, 10))

    again = world(at(10, 4, 45), ledger=ledger)
    assert again.resumed
    settle(again, at(10, 4, 45), limit=311)
    assert [event for event in before if isinstance(event, Crossing)][-1] in again.day.truth
    settle(again, at(10, 10))
    assert again.day.truth == exchange.day.truth
    assert again.day.members == exchange.day.members


@pytest.mark.parametrize("change", [{"seed": 8}, {"activity": 0.5}, {"hours": "market"}])
def test_another_world_does_not_go_on_with_the_day(change: dict[str, object]) -> None:
    exchange = world(MONDAY)
    assert not world(at(10, 5), ledger=exchange.ledger, **change).resumed


def test_a_clock_set_back_before_the_day_begins_anew() -> None:
    exchange = world(MONDAY)
    assert not world(at(8), ledger=exchange.ledger).resumed


def test_a_pause_stops_the_market_and_shifts_the_rest_of_its_day() -> None:
    undisturbed, paused = world(MONDAY), world(MONDAY)
    for exchange in (undisturbed, paused):
        settle(exchange, at(10, 1))
    paused.pause(at(10, 1))
    so_far = len(paused.day.truth)
    assert settle(paused, at(10, 6)) == []
    assert not paused.is_open(at(10, 6))
    paused.resume(at(10, 6))
    settle(paused, at(10, 16))
    settle(undisturbed, at(10, 11))
    assert len(paused.day.truth) > so_far
    assert [(c.seq, c.code, c.action, c.at - 300 * (c.index >= so_far), c.price) for c in paused.day.truth] == [
        (c.seq, c.code, c.action, c.at, c.price) for c in undisturbed.day.truth
    ]


def test_a_restart_remembers_pauses() -> None:
    exchange = world(MONDAY)
    settle(exchange, at(10, 1))
    exchange.pause(at(10, 1))
    settle(exchange, at(10, 2))
    still = world(at(10, 3), ledger=rewritten(exchange.ledger))
    settle(still, at(10, 3))
    assert still.paused
    assert still.day.truth == exchange.day.truth

    exchange.resume(at(10, 3, 0.4))
    settle(exchange, at(10, 5))
    exchange.pause(at(10, 5))
    exchange.resume(at(10, 7))
    settle(exchange, at(10, 12))
    again = world(at(10, 12), ledger=rewritten(exchange.ledger))
    settle(again, at(10, 12), limit=100)
    assert again.day.truth == exchange.day.truth


def test_a_new_date_begins_a_new_day_at_the_last_prices() -> None:
    exchange = world(at(23, 55), activity=0.5)
    settle(exchange, at(23, 55))
    settle(exchange, at(0, 5, day=10))
    yesterday, today = exchange.yesterday, exchange.day
    assert yesterday is not None
    assert (yesterday.date, today.date, today.opened) == (date(2026, 3, 9), date(2026, 3, 10), 0.0)
    for stock in listings():
        before, now = yesterday.standing(stock.code), today.standing(stock.code)
        assert before is not None
        assert now is not None
        assert now.previous_close == before.price
    assert [crossing.index for crossing in today.truth] == list(range(len(today.truth)))

    again = world(at(0, 5, day=10), activity=0.5, ledger=rewritten(exchange.ledger))
    settle(again, at(0, 5, day=10))
    assert again.day.truth == today.truth
    assert [bar.date for bar in again.daily("005930")][-3:] == [date(2026, 3, 6), date(2026, 3, 9), date(2026, 3, 10)]


def test_market_hours_trade_from_nine_to_half_past_three_on_weekdays() -> None:
    exchange = world(at(8, 20), hours="market", activity=0.2)
    assert settle(exchange, at(8, 59, 59)) == [Bell(30_600, "0")]
    assert not any(exchange.day.members.values())
    happened = settle(exchange, at(18, 30))
    trades = [event for event in happened if not isinstance(event, Bell)]
    assert 32_400 <= min(event.at for event in trades) <= max(event.at for event in trades) <= 55_800
    assert [event.code for event in happened if isinstance(event, Bell)] == ["3", "2", "4", "8", "9"]
    opening = happened.index(Bell(32_400, "3"))
    closing = happened.index(Bell(55_800, "4"))
    assert all(event.at >= 32_400 for event in happened[opening:])
    assert closing > max(number for number, event in enumerate(happened) if not isinstance(event, Bell))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [(at(8, 59), False), (at(9), True), (at(15, 29), True), (at(15, 30), False), (at(12, day=14), False)],
)
def test_when_the_market_is_open(moment: datetime, is_open: bool) -> None:
    assert world(moment, hours="market", activity=0.0).is_open(moment) is is_open
    assert world(moment, hours="always", activity=0.0).is_open(moment)


def test_on_a_weekend_friday_stands() -> None:
    saturday = at(12, day=14)
    exchange = world(saturday, hours="market", activity=0.1)
    settle(exchange, saturday)
    assert exchange.day.date == date(2026, 3, 13)
    assert exchange.next_event(saturday) == at(0, day=15)
    settle(exchange, at(9, 0, 30, day=16))
    assert exchange.day.date == date(2026, 3, 16)


def test_nothing_is_expected_of_a_silent_market_before_midnight() -> None:
    exchange = world(MONDAY, activity=0.0)
    settle(exchange, MONDAY)
    assert exchange.next_event(MONDAY) == at(0, day=10)
