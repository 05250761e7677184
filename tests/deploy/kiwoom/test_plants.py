"""What is planted after a hit happens to the price, to the percent, and nothing else does."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import Exchange
from deploy.local.kiwoom.market import Crossing, Day, Trade
from deploy.local.kiwoom.plants import Effect, Plant, plants, touched
from streams.events import ConfigError

from .test_exchange import MONDAY, at, rewritten
from .worlds import NINE, settle, world

PLANTS = plants(["조건 5=+1.0%/5m", "조건 3=0%/5m", "조건 1=-0.5%/5m"])


def day(**options: object) -> Day:
    previous = [(stock, stock.close, stock.close) for stock in listings()[:60]]
    chosen = {"seed": 1, "date": dt.date(2026, 3, 9), "opened": NINE, "closes": NINE + 7_200, "activity": 1.0}
    return Day(**(chosen | {"previous": previous} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("조건 5=+1.0%/5m", Plant("조건 5", 0.01, 300.0)),
        (" 등락률 5~15%=-0.5 %/90s ", Plant("등락률 5~15%", -0.005, 90.0)),
        ("a=b=0%/1h", Plant("a=b", 0.0, 3600.0)),
    ],
)
def test_words_are_plants(words: str, expected: Plant) -> None:
    assert plants([words]) == (expected,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["조건 5"], "NAME=+1.0%/5m"),
        (["조건 5=1/5m"], "NAME=+1.0%/5m"),
        (["조건 5=+30%/5m"], "at most 20 %"),
        (["조건 5=+1%/5s"], "20 seconds"),
        (["a=1%/5m", "a=2%/5m"], "a is planted twice"),
        ([f"{n}=1%/5m" for n in range(10)], "At most 9"),
    ],
)
def test_other_words_are_refused_with_a_sentence(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plants(words)


def test_an_effect_begins_after_its_reference_and_is_complete_before_its_horizon() -> None:
    effect = Effect(Plant("x", 0.01, 300.0), hit=1_000.0)
    assert effect.factor(1_299.0) == 1.0  # no trade yet: nothing has a price to move from
    effect.reference = 1_020.0
    assert [round(effect.factor(1_000.0 + s), 6) for s in (20, 75, 127.5, 180, 300, 9_000)] == [
        1.0, 1.0, 1.005, 1.01, 1.01, 1.01,
    ]  # fmt: skip
    late = Effect(Plant("x", 0.01, 300.0), hit=1_000.0)
    late.reference = 1_500.0
    assert (late.factor(1_500.0), late.factor(1_500.1)) == (1.0, 1.01)


def test_prices_are_what_they_would_have_been_times_what_was_planted() -> None:
    """The same draws with and without an effect: the counterfactual path is known trade by trade, but for the ticks."""
    nothing = tuple(each._replace(effect=0.0) for each in PLANTS)
    planted, plain = day(plants=PLANTS, neutral=True), day(plants=nothing, neutral=True)
    one = [e for e in planted.advance(planted.closes) if isinstance(e, Trade)]
    other = [e for e in plain.advance(plain.closes) if isinstance(e, Trade)]
    assert [(t.at, t.code) for t in one] == [(t.at, t.code) for t in other]
    assert [(c.seq, c.code, c.action, c.at) for c in planted.truth] == [
        (c.seq, c.code, c.action, c.at) for c in plain.truth
    ]
    moved = 0
    for with_it, without in zip(one, other, strict=True):
        factor = planted.factor(with_it.code, with_it.at)
        moved += factor != 1.0
        assert with_it.price == pytest.approx(without.price * factor, rel=0.012)  # two ticks, where they are coarsest
        if factor == 1.0:
            assert with_it.price == without.price or planted._by_code[with_it.code].effects
    assert moved > 1_000


def test_a_neutral_market_is_silent_where_nothing_is_planted_and_half_of_its_stocks_are_never_hit() -> None:
    market = day(neutral=True, plants=PLANTS)
    market.advance(market.closes)
    hit = {crossing.code for crossing in market.truth}
    assert {crossing.seq for crossing in market.truth} >= {"41", "42", "43", "0", "33"}  # whatever prices do
    assert hit <= {stock.code for stock in listings()[:60] if touched(1, stock.code)}
    assert 10 < len(hit) < 50
    for seq, codes in market.members.items():
        assert not codes or seq in {condition.seq for condition in market.conditions}


def test_the_account_s_own_conditions_may_be_planted_and_still_look_at_prices() -> None:
    planted = plants(["거래량 급증=+1%/5m"])
    market, plain = day(plants=planted), day()
    one = market.advance(market.closes)
    other = plain.advance(plain.closes)
    first = next(n for n, event in enumerate(one) if isinstance(event, Crossing) and event.seq == "1")
    assert one[: first + 1] == other[: first + 1]
    hit = one[first]
    assert isinstance(hit, Crossing)
    effect = market.effect(hit)
    assert effect is not None
    assert effect.reference is not None
    assert effect.reference > hit.at
    assert market.factor(hit.code, effect.reference + 300) >= 1.01
    assert one != other


def test_steps_of_any_size_give_the_same_planted_day() -> None:
    market, other = day(plants=PLANTS, neutral=True), day(plants=PLANTS, neutral=True)
    events = market.advance(market.closes)
    stepped = []
    moment = NINE
    while moment < other.closes + 100:
        moment += 37.3
        stepped += other.advance(moment)
    assert [e for e in stepped if isinstance(e, Trade)] == [e for e in events if isinstance(e, Trade)]
    assert other.truth == market.truth


def test_a_market_with_other_plants_is_another_world_and_the_same_one_is_resumed() -> None:
    def planted(now: dt.datetime, **options: object) -> Exchange:
        return world(now, **({"plants": PLANTS, "neutral": True} | options))

    exchange = planted(MONDAY)
    settle(exchange, at(10, 20))
    assert set(exchange.day.members) >= {"41", "42", "43"}
    ledger = rewritten(exchange.ledger)
    again = planted(at(10, 20), ledger=ledger)
    settle(again, at(10, 20))
    assert again.resumed
    assert again.day.truth == exchange.day.truth
    assert not planted(at(10, 20), ledger=ledger, plants=()).resumed
    assert not planted(at(10, 20), ledger=ledger, neutral=False).resumed
