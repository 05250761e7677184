"""Conflation: fewer quotes than trades, and nothing lost of what they said – whatever the timing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.conditions import happened_at
from producers.conflation import Conflation
from producers.kiwoom.frames import TradeEntry
from streams.events import KST, Exchange, Quote

START = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)


def at(t: float) -> datetime:
    return START + timedelta(microseconds=round(t * 1e6))


def trade(price: int, size: int = 1, code: str = "005930", exchange: Exchange = "KRX", **more: Any) -> TradeEntry:
    return TradeEntry(code=code, exchange=exchange, price=price, size=size, **({"time": None} | more))


class Tape:
    """A conflation that is asked for what is due every so many seconds, a tenth as in the product."""

    def __init__(self, every: float = 0.1, **arguments: Any) -> None:
        self.all = Conflation(happened=happened_at, **arguments)
        self.quotes: list[Quote] = []
        self.every = every
        self.looks = 0

    def wait(self, t: float) -> None:
        while (self.looks + 1) * self.every <= t:
            self.looks += 1
            self.quotes += self.all.due(at(self.looks * self.every))

    def hear(self, t: float, *trades: TradeEntry, session: str = "s") -> None:
        self.wait(t)
        self.quotes += self.all.heard(trades, at(t), session)

    def end(self) -> list[Quote]:
        self.quotes += self.all.flush()
        return self.quotes


def told(quotes: Iterable[Quote]) -> list[tuple[int, int, int, int, int]]:
    return [(q.price, q.low, q.high, q.volume, q.trades) for q in quotes]


def test_the_first_trade_after_a_quiet_moment_is_told_at_once() -> None:
    tape = Tape()
    tape.hear(0.03, trade(100, 5))
    tape.hear(7.03, trade(101, -2))
    assert told(tape.quotes) == [(100, 100, 100, 5, 1), (101, 101, 101, 2, 1)]


def test_those_that_follow_are_gathered_with_their_extremes() -> None:
    tape = Tape()
    for t, price, size in ((0.0, 100, 1), (0.05, 90, 2), (0.1, 120, 3), (0.2, 105, 4)):
        tape.hear(t, trade(price, size))
    assert told(tape.quotes) == [(100, 100, 100, 1, 1)]
    tape.wait(0.31)
    assert told(tape.quotes)[1:] == [(105, 90, 120, 9, 3)]


def test_the_last_trade_of_a_second_is_always_told() -> None:
    tape = Tape()
    for hundredths in range(100):
        tape.hear(hundredths / 100, trade(1000 + hundredths))
    tape.hear(1.0, trade(5))
    assert [q.price for q in tape.quotes][:4] == [1000, 1025, 1049, 1099]
    assert Counter(math.floor(q.received_at.timestamp()) for q in tape.quotes)[int(START.timestamp())] == 4


def test_the_trades_of_one_frame_are_one_quote() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100), trade(99), trade(7, code="000660"), trade(101))
    assert told(tape.quotes) == [(101, 99, 101, 3, 3), (7, 7, 7, 1, 1)]


def test_each_exchange_has_its_own_quotes() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100), trade(110, exchange="NXT"))
    assert [(q.exchange, q.price) for q in tape.quotes] == [("KRX", 100), ("NXT", 110)]


def test_a_quote_says_when_and_by_whom_it_was_heard() -> None:
    tape = Tape()
    tape.hear(3.25, trade(100, time="093002", change_rate=-1.5, day_volume=777), session="main-1")
    (quote,) = tape.quotes
    assert quote == Quote(
        code="005930",
        at=datetime(2026, 11, 23, 9, 30, 2, tzinfo=KST),
        received_at=at(3.25),
        price=100,
        high=100,
        low=100,
        volume=1,
        trades=1,
        change_rate=-1.5,
        day_volume=777,
        session="main-1",
    )


def test_losing_the_slot_tells_what_waits() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100))
    tape.hear(0.1, trade(90), trade(5, code="000660"))
    assert told(tape.all.close("005930")) == [(90, 90, 90, 1, 1)]
    assert tape.all.close("005930") == []
    assert tape.end() == tape.quotes[:2]


def test_a_frame_that_comes_twice_counts_once() -> None:
    tape = Tape()
    frame = [trade(100, 5, day_volume=105), trade(101, 5, day_volume=110)]
    tape.hear(0.0, *frame)
    tape.hear(0.01, *frame)
    tape.hear(0.02, trade(102, 1, day_volume=111))
    assert sum(q.volume for q in tape.end()) == 11
    assert tape.all.repeats == 2


def test_a_volume_that_falls_is_told_all_the_same() -> None:
    """The exchange may take a trade back; a new day begins at nothing."""
    tape = Tape()
    tape.hear(0.0, trade(100, 5, day_volume=1000, time="152000"))
    tape.hear(1.0, trade(100, 5, day_volume=900, time="152001"))
    tape.hear(2.0, trade(100, 5, day_volume=1000, time="090000"))
    assert [q.day_volume for q in tape.end()] == [1000, 900, 1000]


def test_the_same_volume_on_another_connection_is_no_repeat() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100, 5, day_volume=1000), session="one")
    tape.hear(1.0, trade(100, 5, day_volume=1000), session="two")
    assert len(tape.end()) == 2


def test_what_was_traded_unheard_shows_in_the_day_s_volume() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100, 5, day_volume=1000))
    tape.hear(60.0, trade(100, 5, day_volume=1105))
    before, after = tape.end()
    assert (after.day_volume or 0) - (before.day_volume or 0) - after.volume == 100


def test_while_nobody_takes_quotes_one_waits_and_loses_no_extreme() -> None:
    tape = Tape()
    tape.hear(0.0, trade(100))
    tape.all.hold = True
    for second in range(1, 61):
        tape.hear(float(second), trade(100 + second * (-1) ** second), trade(100))
    assert len(tape.quotes) == 1
    assert tape.all.held_back == 59
    tape.all.hold = False
    tape.wait(61.1)
    assert told(tape.quotes)[1:] == [(100, 41, 160, 120, 120)]


@pytest.mark.parametrize("step", [0.0, -3600.0])
def test_two_quotes_are_never_one_however_the_clock_goes(step: float) -> None:
    tape = Tape(per_second=10)
    tape.hear(5000.0, trade(100))
    tape.quotes += tape.all.heard([trade(101)], at(5000.0 + step), "s")
    first, second = tape.end()
    assert first.received_at < second.received_at


def test_a_fast_clock_makes_no_more_quotes_per_real_second() -> None:
    """A second of the bound is a real one: 60 of the market's at this speed."""
    tape = Tape(speed=60.0)
    for second in range(60):
        tape.hear(float(second), trade(1000 + second))
    assert len(tape.end()) <= 8  # the minute may touch two real seconds


# --- whatever the timing


class Said(NamedTuple):
    """One frame: seconds since the one before, and its trades."""

    after: float
    trades: list[tuple[str, int, int]]


trades = st.tuples(st.sampled_from(["005930", "000660"]), st.integers(1, 99), st.integers(-9, 9))
pauses = st.one_of(st.sampled_from([0.0, 1e-6, 0.25, 0.5, 1.0]), st.floats(0, 0.2), st.floats(0, 2))
frames = st.builds(Said, pauses, st.lists(trades, min_size=1, max_size=4))
some = st.sets(st.integers(0, 40), max_size=10)


def play(
    frames: list[Said], tape: Tape, closed: set[int], held: set[int]
) -> dict[str, list[tuple[datetime, int, int]]]:
    """What was heard of each code, each with when, its price and its size."""
    heard: dict[str, list[tuple[datetime, int, int]]] = defaultdict(list)
    t = 0.0
    for number, frame in enumerate(frames):
        t += frame.after
        tape.all.hold = number in held
        tape.hear(t, *(trade(price, size, code) for code, price, size in frame.trades))
        for code, price, size in frame.trades:
            heard[code].append((at(t), price, abs(size)))
        if number in closed:
            tape.quotes += tape.all.close("005930")
    tape.all.hold = False
    tape.wait(t + tape.every + 2)
    assert tape.all.flush() == [], "what waits is told in time"
    return heard


@settings(max_examples=200, deadline=None)
@given(
    frames=st.lists(frames, max_size=40),
    per_second=st.integers(1, 6),
    closed=some,
    held=some,
    every=st.sampled_from([0.1, 0.7, 3.0]),
)
def test_every_trade_is_in_one_quote(
    frames: list[Said], per_second: int, closed: set[int], held: set[int], every: float
) -> None:
    tape = Tape(every, per_second=per_second)
    for code, heard in play(frames, tape, closed, held).items():
        quotes = [q for q in tape.quotes if q.code == code]
        done = 0
        for quote in quotes:
            # The naive model: the next so many trades, and nothing but them.
            part = heard[done : done + quote.trades]
            done += quote.trades
            prices = [price for _, price, _ in part]
            assert (quote.high, quote.low, quote.price) == (max(prices), min(prices), prices[-1])
            assert quote.volume == sum(size for *_, size in part)
        assert done == len(heard)
        assert len({q.received_at for q in quotes}) == len(quotes), "two quotes have one identity"


@settings(max_examples=200, deadline=None)
@given(
    frames=st.lists(
        st.builds(Said, st.one_of(st.floats(0.001, 0.2), st.floats(0.001, 2)), st.lists(trades, min_size=1))
    ),
    per_second=st.integers(1, 6),
    every=st.sampled_from([0.1, 0.7, 3.0]),
)
def test_a_second_has_few_quotes_and_they_have_its_last_trade(
    frames: list[Said], per_second: int, every: float
) -> None:
    tape = Tape(every, per_second=per_second)
    for code, heard in play(frames, tape, set(), set()).items():
        quotes = [q for q in tape.quotes if q.code == code]
        seconds = Counter(math.floor(q.received_at.timestamp()) for q in quotes)
        assert max(seconds.values()) <= per_second
        last = {math.floor(when.timestamp()): price for when, price, _ in heard}
        assert {math.floor(q.received_at.timestamp()): q.price for q in quotes} == last
