"""The list of stocks, and KRX's tick sizes and price limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.kiwoom.catalog import by_code, listings, price_limits, tick_size


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (1, 1), (1_999, 1), (2_000, 5), (4_995, 5), (5_000, 10), (19_990, 10), (20_000, 50), (49_950, 50),
        (50_000, 100), (199_900, 100), (200_000, 500), (499_500, 500), (500_000, 1_000), (987_000, 1_000),
    ],
)  # fmt: skip
def test_tick_sizes_are_krx_s_of_2023(price: int, tick: int) -> None:
    assert tick_size(price) == tick


@pytest.mark.parametrize(("price", "tick"), [(1_999, 1), (2_000, 5), (300_000, 5)])
def test_an_exchange_traded_note_has_finer_ticks(price: int, tick: int) -> None:
    assert tick_size(price, etn=True) == tick


@pytest.mark.parametrize(
    ("close", "limits"),
    [
        (71_300, (50_000, 92_600)),  # ± 21,390, cut to 21,300
        (9_990, (7_000, 12_980)),
        (1_999, (1_400, 2_595)),  # the upper limit stands on the tick of its own band
        (49_950, (35_000, 64_900)),
    ],
)
def test_price_limits_are_thirty_percent_in_whole_ticks(close: int, limits: tuple[int, int]) -> None:
    assert price_limits(close) == limits


@given(st.integers(100, 2_000_000))
def test_price_limits_are_permitted_quotes_within_thirty_percent(price: int) -> None:
    close = price - price % tick_size(price)
    lower, upper = price_limits(close)
    assert close * 0.7 <= lower <= close <= upper <= close * 1.3
    assert lower % tick_size(lower) == upper % tick_size(upper) == 0


def test_the_list_is_large_mixed_and_unambiguous() -> None:
    stocks = listings()
    codes = [stock.code for stock in stocks]
    assert len(stocks) >= 300
    assert len(set(codes)) == len(codes)
    assert len({stock.name for stock in stocks}) == len(stocks)
    assert all(re.fullmatch(r"[0-9A-Z]{6}", code) for code in codes)
    assert "0004V0" in codes
    assert sum(not code.isdigit() for code in codes) >= 20
    assert {stock.market for stock in stocks} == {"KOSPI", "KOSDAQ"}
    assert all(stock.close % tick_size(stock.close, etn=stock.etn) == 0 for stock in stocks)


def test_codes_are_prefixed_by_kind() -> None:
    assert by_code()["005930"].prefixed == "A005930"
    assert by_code()["760020"].prefixed == "Q760020"
