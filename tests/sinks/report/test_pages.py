"""The pages of a report: as they were approved (`approved/`), safe for any name, and plain about what is missing.

`HITSTREAM_TEST_APPROVE=1` writes the approved pages anew; look at what has changed before you commit it.
"""

from __future__ import annotations

import os
import re
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.report import html, markdown, svg, telling
from sinks.report.day import ConditionDay, Day, Gap, Performance, Recommended
from sinks.report.telling import lacks, say
from sinks.report.words import WORDS
from streams.events import KST

APPROVED = Path(__file__).parent / "approved"
MONDAY = date(2026, 3, 9)
SPEC = "<script>alert(1)</script>"


def at(clock: str, day: date = MONDAY) -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}+09:00").astimezone(KST)


def performance(horizon: str, mean: float | None, priced: int, **more: Any) -> Performance:
    return Performance(horizon=horizon, hits=31, priced=priced, mean=mean, **more)


def day(**changes: Any) -> Day:
    span = {
        "median": 0.3, "positive": 0.55, "low": 0.1, "high": 0.71, "sample_mean": 0.02, "sample_cases": 61_400,
        "difference": 0.39, "difference_low": 0.08, "difference_high": 0.7, "days": 14,
    }  # fmt: skip
    whole = Day(
        date=MONDAY,
        asked_at=at("18:00:00"),
        trading=True,
        cost=0.23,
        span_from=MONDAY - timedelta(days=28),
        conditions=(
            ConditionDay(
                account="main", condition="대왕개미단타", hits=31, stocks=24, reentries=7, standing=3, revealed=2,
                members_most=9, visits=34, dwell=75.0, under_a_minute=0.41, inferred_exits=1,
                activity=((540, 4), (541, 9), (570, 2), (929, 1)),
                today={"5m": performance("5m", 0.41, 29, across_gap=2), "close": performance("close", None, 0),
                       "next_open": performance("next_open", None, 0)},
                span={"5m": performance("5m", 0.41, 352, **span), "close": performance("close", -0.2, 331, days=1),
                      "best": performance("best", 1.9, 331, **span)},
                without_price=2, past_close={"5m": 2, "30m": 12, "best": 1}, without_bars=1,
                not_live_seconds=90.0, troubles=("unanswered",),
            ),
            ConditionDay(account="main", condition="상한가 접근"),
        ),
        gaps=(
            Gap(account="main", condition="대왕개미단타", start=at("10:02:10"), end=at("10:09:40"), cause="R10001"),
        ),
        sample_stocks=198,
        recommended=3,
        gains=(1.25, -0.8),
        best=(
            Recommended(
                account="main", code="005930", name="삼성전자", conditions=("대왕개미단타", "manual"), score=2.0,
                opened_at=at("09:01:07"), state="closed", reference=71_300, reference_at=at("09:01:30"), price=72_191,
                is_close=True, gained=1.25, best=2.1, best_price=72_800, minutes_to_best=42.0, worst=-0.3,
                worst_price=71_100, minutes_to_worst=3.0, complete=True, gaps=1,
                line=((541, 71_300), (544, 71_100), (583, 72_800), (929, 72_191)),
            ),
            Recommended(
                account="main", code="0004V0", name="", conditions=("상한가 접근",), opened_at=at("13:30:00"),
                reference=1_000, reference_at=at("13:30:05"), price=992, is_close=True, gained=-0.8, best=0.0,
                worst=-1.0, complete=True, line=((810, 1_000), (811, 990), (929, 992)),
            ),
        ),
        unpriced=(Recommended(account="main", code="000270", name="기아", opened_at=at("15:29:59")),),
        bars=("incomplete: 2026-03-09: 610 of 612 charts, 2 failed",),
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changes)


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize("form", ["md", "html"])
def test_the_page_is_the_approved_one(form: str, language: Literal["ko", "en"]) -> None:
    page = (markdown if form == "md" else html).render(day(), language)
    file = APPROVED / f"day.{language}.{form}"
    if os.environ.get("HITSTREAM_TEST_APPROVE"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(page, encoding="utf-8")
    assert page == file.read_text(encoding="utf-8")


def test_both_languages_have_the_same_words_with_the_same_gaps_in_them() -> None:
    assert WORDS["ko"].keys() == WORDS["en"].keys()
    for key, korean in WORDS["ko"].items():
        assert set(re.findall(r"{(\w+)}", korean)) == set(re.findall(r"{(\w+)}", WORDS["en"][key])), key


# --- any name


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def named(name: str) -> Day:
    whole = day()
    condition, other = whole.conditions
    first, second = whole.best
    return msgspec.structs.replace(
        whole,
        conditions=(msgspec.structs.replace(condition, condition=name, troubles=(name,)), other),
        gaps=tuple(msgspec.structs.replace(each, condition=name, cause=name) for each in whole.gaps),
        best=(msgspec.structs.replace(first, name=name, conditions=(name,)), second),
        unpriced=tuple(msgspec.structs.replace(each, name=name) for each in whole.unpriced),
        bars=(f"failed: {name}",),
    )


@given(st.text(max_size=40) | st.sampled_from([SPEC, '"><img src=x onerror=alert(1)>', "a'b&c", "{date}", "{0}", "%s"]))
def test_no_name_becomes_markup(name: str) -> None:
    plain = Tags(html.render(named("x"), "ko"))
    page = html.render(named(name), "ko")
    other = Tags(page)
    assert other.tags == plain.tags
    assert other.handlers == plain.handlers == []
    assert "http" not in html._STYLE


@pytest.mark.parametrize("name", ["a|b", "*bold*", "[x](http://y)", SPEC, "line\nbreak", "`code`", "# head", "\\"])
def test_no_name_breaks_a_markdown_table_or_becomes_a_link(name: str) -> None:
    page = markdown.render(named(name), "en")
    assert SPEC not in page
    assert "](http" not in page.replace("\\]", "")
    tables = [line for line in page.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in tables]
    assert set(widths) == {9, 10}


def test_the_page_needs_nothing_from_elsewhere_and_has_a_policy_that_says_so() -> None:
    page = html.render(day(), "en")
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=|url\(|@import|<script", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


# --- what is missing


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "Hits without minute bars: 1 (대왕개미단타)"),
        ({}, "Hits without a reference price: 2 of 31"),
        ({}, "Beyond the close (15:30, on NXT 20:00) and so not counted: 5 min 2, 30 min 12, best of the day 1 (대왕"),
        ({}, "revealed by a later snapshot: entries 2, exits 1"),
        ({}, "Returns that lie across a gap: 2"),
        ({}, "gap 10:02:10–10:09:40 (7.5 min) – R10001"),
        ({}, "not live for 1.5 min (unanswered)"),
        ({}, "Recommendations without a reference price: 1 – 기아"),
        ({}, "Fetching of bars: incomplete: 2026-03-09: 610 of 612 charts, 2 failed"),
        ({}, "too few days or stocks for an interval"),
        ({"sample_stocks": 0}, "no bars of the random sample"),
        ({}, "The next open is known once the bars of that day are there"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, Any], said: str) -> None:
    assert any(said in sentence for sentence in lacks(day(**change), say("en")))


def test_a_whole_day_lacks_nothing() -> None:
    span = {"5m": performance("5m", 0.1, 300, low=-0.1, high=0.3)}
    whole = day(
        conditions=(ConditionDay(account="main", condition="x", hits=3, span=span),), gaps=(), unpriced=(), bars=()
    )
    assert lacks(whole, say("en")) == []
    assert "Nothing is missing." in markdown.render(whole, "en")


def test_a_day_without_any_bars_says_that_once_and_how_to_get_them() -> None:
    condition = msgspec.structs.replace(day().conditions[0], without_bars=31)
    sentences = lacks(day(conditions=(condition,)), say("en"))
    assert "`hitstream bars 2026-03-09`" in sentences[0]
    assert not any("Hits without minute bars" in sentence for sentence in sentences)


def test_many_gaps_are_cut_off_and_counted() -> None:
    gap = day().gaps[0]
    sentences = lacks(day(gaps=(gap,) * 45), say("en"))
    assert sum("gap 10:02:10" in sentence for sentence in sentences) == 30
    assert "and 15 more" in sentences


def test_moments_without_a_condition_are_told_together_and_in_seconds() -> None:
    one = day().conditions[0]
    seconds = {"a": 1.2, "b": 9.4, "c": 42.0, "d": 0.4, "e": 90.0}
    conditions = tuple(
        msgspec.structs.replace(one, condition=name, not_live_seconds=each, troubles=("requested",))
        for name, each in seconds.items()
    )
    gap = msgspec.structs.replace(day().gaps[0], end=at("10:02:13"))
    sentences = lacks(day(conditions=conditions, gaps=(gap,)), say("en"))
    assert [each for each in sentences if "not live" in each.lower()] == [
        "c: not live for 42 s (requested)",
        "e: not live for 1.5 min (requested)",
        "Not live for a few seconds each, 11 s in all: a, b (requested)",
    ]
    assert any("gap 10:02:10–10:02:13 (3 s)" in each for each in sentences)


def test_other_recommendations_of_a_stock_are_counted_beside_it() -> None:
    first, second = day().best
    told = day(best=(msgspec.structs.replace(first, others=8), second))
    assert "| 삼성전자 005930 (and 8 more) |" in markdown.render(told, "en")
    assert '<span class="soft">(and 8 more)</span>' in html.render(told, "en")
    for page in (markdown.render(told, "ko"), html.render(told, "ko")):
        assert "(외 8건)" in page
        assert "종목마다 가장 좋거나 나빴던 추천 하나만" in page
    assert "stands there once" not in markdown.render(day(), "en")


def test_a_closed_and_an_empty_day_are_a_sentence_each() -> None:
    nothing = Day(date=MONDAY, asked_at=at("18:00:00"), span_from=MONDAY, trading=False)
    for page in (markdown.render(nothing, "en"), html.render(nothing, "en")):
        assert "It was no trading day." in page
        assert "Nothing is recorded of this day." in page
        assert "Conditions" not in page.replace("Condition searches", "")


def test_accounts_are_told_apart_where_there_are_several() -> None:
    one = day().conditions[0]
    both = day(conditions=(one, msgspec.structs.replace(one, account="paper")))
    page = markdown.render(both, "en")
    assert "### main/대왕개미단타" in page
    assert "### paper/대왕개미단타" in page


# --- figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (1.234, "+1.23"), (-0.4, "−0.40"), (0.0, "0.00"), (-0.001, "0.00"), (12345.6, "+12345.60")],
)
def test_a_return_has_its_sign_and_an_unknown_one_is_a_dash(value: float | None, text: str) -> None:
    assert telling.percent(value) == text


def test_a_difference_has_a_colour_only_where_its_interval_leaves_zero_out() -> None:
    span = {
        "5m": performance("5m", 0.1, 9, difference=0.2, difference_low=-0.1, difference_high=0.5, low=0.0, high=0.2)
    }
    condition = ConditionDay(account="main", condition="x", hits=9, span=span)
    assert "<td>+0.20 [−0.10, +0.50]</td>" in html.render(day(conditions=(condition,)), "en")
    assert '<td class="up">+0.39 [+0.08, +0.70]</td>' in html.render(day(), "en")


def test_a_mean_is_never_without_its_number() -> None:
    assert telling.counted(0.5, 12) == "+0.50 (12)"
    assert telling.counted(None, 0) == "–"


def test_a_difference_without_an_interval_stands_alone() -> None:
    assert telling.compared(performance("5m", 0.1, 2, difference=0.2)) == "+0.20"
    assert telling.compared(performance("5m", 0.1, 2)) == "–"


# --- charts


@given(
    st.lists(st.tuples(st.integers(540, 930), st.integers(1, 500)), max_size=30, unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.integers(0, 1440), st.integers(0, 1440)), max_size=4),
)
def test_bars_stay_within_their_chart(hits: list[tuple[int, int]], gaps: list[tuple[int, int]]) -> None:
    chart = svg.activity(hits, [(min(g), max(g)) for g in gaps], first=540, last=930, title="t")
    drawn = re.findall(r'class="hit" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', chart)
    assert len(drawn) == len(hits)
    for x, y, width, height in (map(float, each) for each in drawn):
        assert 0 <= x <= svg.WIDTH
        assert 0 <= y <= svg.HEIGHT
        assert height <= svg.HEIGHT
        assert width > 0
    if hits:
        tallest = max(range(len(hits)), key=lambda number: hits[number][1])
        assert float(drawn[tallest][3]) == max(float(each[3]) for each in drawn)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=50))
def test_a_line_stays_within_its_chart_and_says_which_way_it_went(prices: list[int]) -> None:
    chart = svg.line(list(enumerate(prices)), title="t")
    points = re.search(r'points="([^"]+)"', chart)
    assert points is not None
    for x, y in (map(float, point.split(",")) for point in points[1].split()):
        assert 0 <= x <= svg.LINE_WIDTH
        assert 0 <= y <= svg.LINE_HEIGHT
    way = "up" if prices[-1] > prices[0] else "down" if prices[-1] < prices[0] else "flat"
    assert f'class="line {way}"' in chart


@pytest.mark.parametrize(("values", "drawn"), [([], ""), ([5, 5], "▄▄"), ([0, 1, 2, 7], "▁▂▃█"), ([3, 1], "█▁")])
def test_a_chart_of_characters(values: list[int], drawn: str) -> None:
    assert svg.spark(values) == drawn
