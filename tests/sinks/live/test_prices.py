"""The course of a recommendation, folded from one quote at a time: against the whole list of quotes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from day import NINE
from hypothesis import given
from hypothesis import strategies as st

from sinks.live.prices import LINE_POINTS, Prices
from streams.events import KST, Quote


def quote(second: int, price: int, spread: int = 0, code: str = "005930") -> Quote:
    at = NINE + timedelta(seconds=second)
    return Quote(
        code=code, at=at, received_at=at, price=price, high=price + spread, low=price - spread, volume=5, trades=1
    )


MOVES = st.lists(st.tuples(st.integers(1, 900), st.integers(100, 200), st.integers(0, 20)), min_size=1, max_size=60)


@given(MOVES, st.integers(0, 5_000))
def test_the_course_is_what_the_whole_list_of_quotes_says(moves: list[tuple[int, int, int]], opened: int) -> None:
    it, second, quotes = Prices(codes=10, openings=2), 0, []
    it.follow("005930", "r", NINE + timedelta(seconds=opened))
    for wait, price, spread in moves:
        second += wait
        quotes.append((second, quote(second, price, spread)))
        it.take(quotes[-1][1])
    since = [(at, q) for at, q in quotes if at >= opened]
    track = it.track("005930", "r")
    if not since:
        assert track is None
        return
    assert track is not None
    first = since[0][1].price
    assert track.reference.price == first
    assert track.high.price == max([first, *(q.high for _, q in since[1:])])
    assert track.low.price == min([first, *(q.low for _, q in since[1:])])
    start = opened // 60 * 60
    step = 60
    while (since[-1][0] - start) // step > LINE_POINTS:
        step *= 2
    assert (track.line_from, track.line_step) == (NINE + timedelta(seconds=start), step)
    expected = []
    for n in range((since[-1][0] - start) // step):
        known = [q.price for at, q in since if at < start + (n + 1) * step]
        expected.append(known[-1] if known else first)
    assert list(track.line) == expected
    assert len(track.line) <= LINE_POINTS


@given(MOVES)
def test_minutes_are_what_the_whole_list_of_quotes_says(moves: list[tuple[int, int, int]]) -> None:
    it, second, by_minute = Prices(codes=10, openings=2), 0, {}
    for wait, price, spread in moves:
        second += wait
        it.take(quote(second, price, spread))
        by_minute.setdefault(second // 60, []).append((price, price + spread, price - spread))
    candles = it.candles("005930")
    assert [c.at for c in candles] == [(NINE + timedelta(minutes=m)).astimezone(KST) for m in by_minute]
    assert [c.close for c in candles] == [quotes[-1][0] for quotes in by_minute.values()]
    assert sum(c.volume for c in candles) == 5 * len(moves)
    # What the day's first quote says of the time before it is of no minute that is shown.
    first, *later = by_minute.values()
    highs = [max([first[0][0], *(h for _, h, _ in first[1:])]), *(max(h for _, h, _ in quotes) for quotes in later)]
    assert [c.high for c in candles] == highs
    assert all(c.low <= c.open <= c.high for c in candles)


def test_a_stock_without_room_is_refused_and_the_others_go_on() -> None:
    it = Prices(codes=1, openings=2)
    assert it.take(quote(0, 100)) == []
    with pytest.raises(OverflowError, match="000660"):
        it.take(quote(0, 100, code="000660"))
    assert it.follow("000660", "r", NINE) is None
    assert it.track("000660", "r") is None
    assert it.candles("000660") == ()
    assert it.take(quote(1, 101)) == []
