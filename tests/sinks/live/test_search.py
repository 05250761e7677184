"""Finding a stock by what is typed, by the same rules as the page; and cursors, which name a place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.live import cursor
from sinks.live.answers import StockView
from sinks.live.cursor import Place
from sinks.live.search import find

STOCKS = [
    StockView(code=code, name=name, market="KOSPI")
    for code, name in {
        "005930": "삼성전자", "005935": "삼성전자우", "006400": "삼성SDI", "035720": "카카오",
        "373220": "LG에너지솔루션",
        "0004V0": "엔비알모션", "000660": "SK하이닉스", "028260": "삼성물산", "009150": "삼성전기", "383220": "F&F",
        "000720": "현대건설", "900110": "이스트아시아홀딩스", "001040": "CJ", "011150": "CJ씨푸드",
        "192820": "닭 코스맥스",
    }.items()
]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("삼성전자", ["삼성전자", "삼성전자우"]),
        ("ㅅㅅㅈㅈ", ["삼성전자", "삼성전자우"]),
        ("ㅅㅅㅈ", ["삼성전자", "삼성전기", "삼성전자우"]),
        ("삼성저", ["삼성전자", "삼성전기", "삼성전자우"]),
        ("삼ㅅㅈㅈ", ["삼성전자", "삼성전자우"]),
        ("저자", []),
        ("전자", ["삼성전자", "삼성전자우"]),
        ("005930", ["삼성전자"]),
        ("00593", ["삼성전자", "삼성전자우"]),
        ("5930", []),
        ("0004v", ["엔비알모션"]),
        ("sdi", ["삼성SDI"]),
        ("sk ㅎㅇ", ["SK하이닉스"]),
        ("lg에너지 솔루션", ["LG에너지솔루션"]),
        ("닭코", ["닭 코스맥스"]),
        ("cj", ["CJ", "CJ씨푸드"]),
        ("F&F", ["F&F"]),
        (".*", []),
        ("[", []),
        ("ㅎㄷㄱㅅ", ["현대건설"]),
        ("ㅎㄷㄳ", ["현대건설"]),
        ("   ", []),
        ("", []),
    ],
)
def test_a_stock_is_found_by_what_is_typed(typed: str, expected: list[str]) -> None:
    assert [stock.name for stock in find(typed, STOCKS, 20)] == expected


@given(st.text(max_size=300), st.integers(1, 5))
def test_whatever_is_typed_it_answers_with_no_more_than_wanted(typed: str, limit: int) -> None:
    assert len(find(typed, STOCKS, limit)) <= limit


@given(st.sampled_from(STOCKS), st.data())
def test_every_beginning_of_a_name_finds_it(stock: StockView, data: st.DataObject) -> None:
    typed = stock.name[: data.draw(st.integers(1, len(stock.name)))]
    assert stock in find(typed, STOCKS, len(STOCKS))


# --- cursors ----------------------------------------------------------------------------------------------------------


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(0, 2**32 - 1),
    st.text(max_size=20),
)
def test_a_cursor_says_a_place_to_the_microsecond(at: datetime, step: int, identity: str) -> None:
    place = Place(at, step, identity)
    word = place.cursor()
    assert cursor.parse(word) == place
    assert word.isascii()
    assert not set(word) & set("+/=&?#% ")


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda b: b.hex()))
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert cursor.parse(text) is None or cursor.parse(text).cursor()  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "x", "WzEsMiwzXQ", "é", "WzEsMl0", "WzFlOTk5LDIsIngiXQ", "WzEsLTEsIngiXQ"])
def test_broken_cursors(text: str) -> None:
    assert cursor.parse(text) is None
