"""Charts as Kiwoom writes them → bars: signs, padding, pages, rows that say nothing; and who is in the sample."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.faults import NONE
from deploy.local.kiwoom.rest import Limits, Rest, Tokens
from producers.kiwoom.charts import ChartBroken, daily, daily_bar, is_company, minute_bar, minutes, sample
from streams.events import KST, Bar
from tests.deploy.kiwoom.worlds import settle, world

DAY = date(2026, 3, 9)
NOW = datetime(2026, 3, 9, 15, 45, tzinfo=KST)
MINUTE = {
    "cur_prc": "-78800", "trde_qty": "7913", "cntr_tm": "20260309132000", "open_pric": "-78850", "high_pric": "-78900",
    "low_pric": "-78800", "pred_pre": "-600", "pred_pre_sig": "5",
}  # fmt: skip
DAILY = {
    "cur_prc": "70100", "trde_qty": "9263135", "trde_prica": "648525", "dt": "20260309", "open_pric": "69800",
    "high_pric": "70500", "low_pric": "69600", "pred_pre": "+600", "pred_pre_sig": "2", "trde_tern_rt": "+0.16",
}  # fmt: skip


class Told:
    """Pages as they are handed in, and how many were asked for."""

    def __init__(self, *pages: Any) -> None:
        self.waiting = pages
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.given = 0

    async def pages(self, api_id: str, path: str, body: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
        assert path == "/api/dostk/chart"
        self.asked.append((api_id, body))
        name = {"ka10080": "stk_min_pole_chart_qry", "ka10081": "stk_dt_pole_chart_qry"}[api_id]
        for page in self.waiting:
            self.given += 1
            yield {name: page}


def test_a_minute_row_is_a_bar_whose_signs_are_directions() -> None:
    assert minute_bar(MINUTE, "005930", sample=True, received_at=NOW) == Bar(
        code="005930", interval="1m", at=datetime(2026, 3, 9, 13, 20, tzinfo=KST), open=78850, high=78900, low=78800,
        close=78800, volume=7913, value=None, received_at=NOW, sample=True,
    )  # fmt: skip


def test_a_daily_row_is_a_bar_with_its_value_in_won() -> None:
    assert daily_bar(DAILY, "0004V0", sample=False, received_at=NOW) == Bar(
        code="0004V0", interval="1d", at=datetime(2026, 3, 9, tzinfo=KST), open=69800, high=70500, low=69600,
        close=70100, volume=9263135, value=648_525_000_000, received_at=NOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"cur_prc": "-00078800", "open_pric": "+00078850"},
        {"cur_prc": " 78800", "high_pric": "78900 "},
        {"trde_qty": "0000007913"},
        {"cntr_tm": " 20260309132000 "},
    ],
)
def test_padding_and_blanks_change_nothing(change: dict[str, str]) -> None:
    assert minute_bar(MINUTE | change, "005930", sample=True, received_at=NOW) == minute_bar(
        MINUTE, "005930", sample=True, received_at=NOW
    )


@pytest.mark.parametrize(
    "change",
    [
        {"cur_prc": ""}, {"open_pric": None}, {"high_pric": "x"}, {"low_pric": "0"}, {"trde_qty": "?"},
        {"high_pric": "100"}, {"low_pric": "-79000"}, {"cntr_tm": "20261309132000"},
    ],
)  # fmt: skip
def test_a_row_that_says_no_bar_is_none(change: dict[str, Any]) -> None:
    assert minute_bar(MINUTE | change, "005930", sample=True, received_at=NOW) is None


async def test_paging_ends_at_the_first_row_of_an_earlier_day() -> None:
    later, mine, earlier = (MINUTE | {"cntr_tm": f"2026031{day}090000"} for day in (1, 0, 0))
    mine = MINUTE | {"cntr_tm": "20260309100000"}
    earlier = MINUTE | {"cntr_tm": "20260306153000"}
    told = Told([later], [later, mine], [MINUTE, earlier], [earlier])
    chart = await minutes(told, "005930", DAY, sample=False, received_at=NOW)
    assert told.given == 3
    assert [bar.at.hour for bar in chart.bars] == [10, 13]
    assert told.asked == [
        ("ka10080", {"stk_cd": "005930", "tic_scope": "1", "upd_stkpc_tp": "0", "base_dt": "20260309"})
    ]


async def test_a_stock_that_was_not_traded_has_no_bar_and_nothing_is_unreadable() -> None:
    for page in ([], None, [DAILY | {"trde_qty": "0", "open_pric": "0"}], [DAILY | {"dt": "20260306"}]):
        assert await daily(Told(page), "005930", DAY, sample=False, received_at=NOW) == ((), 0)


async def test_rows_that_cannot_be_read_are_counted_and_moments_are_told_once() -> None:
    other = MINUTE | {"cntr_tm": "20260309132100"}
    told = Told(
        [other, MINUTE, {"cntr_tm": "x"}, None], [MINUTE, MINUTE | {"cntr_tm": "20260309130000", "cur_prc": ""}]
    )
    chart = await minutes(told, "005930", DAY, sample=False, received_at=NOW)
    assert [bar.at.minute for bar in chart.bars] == [20, 21]
    assert chart.unreadable == 3


async def test_a_chart_without_end_is_given_up() -> None:
    with pytest.raises(ChartBroken):
        await minutes(Told(*[[MINUTE]] * 100), "005930", DAY, sample=False, received_at=NOW)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(list(MINUTE.values())),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from([*MINUTE, "dt", "trde_prica"]) | st.text(max_size=5), children, max_size=8)
    ),
    max_leaves=20,
)


@given(st.lists(st.lists(JSON, max_size=4) | JSON, max_size=3))
async def test_whatever_a_page_holds_it_is_bars_or_counted(pages: list[Any]) -> None:
    for fetch in (minutes, daily):
        chart = await fetch(Told(*pages), "005930", DAY, sample=False, received_at=NOW)
        assert all(bar.low <= bar.open <= bar.high and bar.at.date() == DAY for bar in chart.bars)


@pytest.mark.parametrize("fault", ["", "padded-charts", "broken-charts"])
async def test_the_local_market_s_charts_are_its_bars(fault: str) -> None:
    exchange = world(NOW)
    settle(exchange, NOW)
    rest = Rest(exchange, Tokens("key", "secret"), Limits(page=7, burst=10_000))
    if fault:
        rest.faults = NONE.switched(fault, True, ())
    tokens = msgspec.json.encode({"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"})
    token = rest.answer("/oauth2/token", {}, tokens, real=0.0, latest=NOW).body["token"]  # type: ignore[index]

    class Wire:
        async def pages(self, api_id: str, path: str, body: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
            headers = {"authorization": f"Bearer {token}", "api-id": api_id}
            while True:
                reply = rest.answer(path, headers, msgspec.json.encode(body), real=0.0, latest=NOW)
                assert isinstance(reply.body, dict)
                yield reply.body
                following = dict(reply.headers)
                if following["cont-yn"] != "Y":
                    return
                headers |= {"cont-yn": "Y", "next-key": following["next-key"]}

    code = max(listings(), key=lambda stock: len(exchange.day.minutes(stock.code))).code
    chart = await minutes(Wire(), code, DAY, sample=False, received_at=NOW)
    assert [(b.at.hour * 60 + b.at.minute, b.open, b.high, b.low, b.close, b.volume) for b in chart.bars] == [
        bar[:6] for bar in exchange.day.minutes(code)
    ]
    assert len(chart.bars) > 14  # several pages
    (bar,) = (await daily(Wire(), code, DAY, sample=False, received_at=NOW)).bars
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == exchange.day.bar(code)[1:6]
    assert (chart.unreadable > 0) == (fault == "broken-charts")


@given(st.sets(st.from_regex(r"[0-9]{5}[0-9A-Z]", fullmatch=True), max_size=60), st.integers(0, 40))
def test_a_sample_is_a_function_of_the_list_and_hardly_changes_with_it(codes: set[str], size: int) -> None:
    chosen = sample(codes, size)
    assert len(chosen) == min(size, len(codes))
    assert set(chosen) <= codes
    assert chosen == sample(sorted(codes, reverse=True), size)
    for one in sorted(codes)[:3]:
        without = sample(codes - {one}, size)
        assert len(set(chosen) - set(without)) <= 1


@pytest.mark.parametrize(
    ("name", "market", "expected"),
    [
        ("삼성전자", "거래소", True),
        ("NAVER", "거래소", True),
        ("한빛소프트우", "코스닥", True),
        ("KODEX 200", "거래소", False),
        ("TIGER 미국S&P500", "거래소", False),
        ("누리 K방산 TOP5 ETN", "거래소", False),
        ("어떤 이름", "ETF", False),
        ("SOL홀딩스", "거래소", True),
    ],
)
def test_funds_and_notes_are_no_companies(name: str, market: str, expected: bool) -> None:
    assert is_company(name, market) is expected


def test_the_local_market_s_notes_are_no_companies() -> None:
    assert {stock.code for stock in listings() if not is_company(stock.name)} == {
        stock.code for stock in listings() if stock.etn
    }
