"""A report of simulated days equals what the market itself knows of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient

from deploy.local.kiwoom.exchange import moment
from deploy.local.kiwoom.market import Day
from deploy.report_command import report as command
from sinks.clickhouse.connection import connect, connect_async
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.returns import fill
from sinks.report import html, markdown
from sinks.report import reading as report
from sinks.report.day import Day as Told
from sinks.report.telling import lacks, say
from sinks.settings import ClickHouseSettings
from streams.events import KST, ConfigError, Record
from tests.sinks.clickhouse.conftest import Server
from tests.sinks.clickhouse.storing import store
from tests.sinks.clickhouse.tape import Tape

from .days import bars, bars_said, gap, recommendations, simulated, stocks, transitions

FRIDAY, MONDAY, TUESDAY = date(2026, 3, 6), date(2026, 3, 9), date(2026, 3, 10)
EVENING = datetime(2026, 3, 9, 18, 0, tzinfo=KST)
GAPPED = "대왕개미단타"


@pytest.fixture(scope="module")
def days() -> list[Day]:
    return simulated(FRIDAY, 3)


@pytest.fixture(scope="module")
def filled(server: Server, days: list[Day]) -> ClickHouseSettings:
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    records: list[Record] = [*stocks()]
    for day in days[:2]:  # of Tuesday nothing but hits: it goes on
        records += [*transitions(day), *recommendations(day), *bars(day)]
    records += [*transitions(days[2]), *recommendations(days[2])]
    records += [gap(days[1], GAPPED, "09:20:00", "09:32:30"), bars_said(days[1], "done", "2026-03-09: all")]
    store(client, records)
    store(client, [*transitions(days[1])[:500], *recommendations(days[1])])  # copies change nothing
    client.close()
    return settings


def read(settings: ClickHouseSettings, day: date, asked_at: datetime = EVENING) -> Told:
    client = connect(settings)
    try:
        return report.read(client, day, asked_at=asked_at, closes=datetime.combine(day, time(15, 30), KST))
    finally:
        client.close()


@pytest.fixture(scope="module")
def monday(filled: ClickHouseSettings) -> Told:
    return read(filled, MONDAY)


def test_each_condition_is_told_as_it_was(monday: Told, days: list[Day]) -> None:
    day = days[1]
    names = {condition.name: condition.seq for condition in day.conditions}
    assert {each.condition for each in monday.conditions} == {
        name for name, seq in names.items() if any(crossing.seq == seq for crossing in day.truth)
    }
    for each in monday.conditions:
        own = [crossing for crossing in day.truth if crossing.seq == names[each.condition]]
        hits = [crossing for crossing in own if crossing.action == "hit"]
        held, most = 0, 0
        for crossing in own:
            held += 1 if crossing.action == "hit" else -1
            most = max(most, held)
        assert (each.hits, each.stocks) == (len(hits), len({crossing.code for crossing in hits}))
        assert each.reentries == len(hits) - each.stocks
        assert abs(each.members_most - most) <= 2  # what happened in one second has no order
        assert dict(each.activity) == Counter(crossing.at // 60 for crossing in hits)
        since: dict[str, int] = {}
        stays = []
        for crossing in own:
            if crossing.action == "hit":
                since[crossing.code] = crossing.at
            else:
                stays.append(crossing.at - since.pop(crossing.code))
        stays += [86_400 - at for at in since.values()]
        assert each.dwell == median(stays)
        assert each.visits == len(stays)


def test_performance_is_told_for_the_day_and_for_a_span_that_ends_with_it(monday: Told, days: list[Day]) -> None:
    for each in monday.conditions:
        today, span = each.today["5m"], each.span["5m"]
        assert today.hits == each.hits
        assert today.low is None  # one day gives no interval
        earlier = sum(
            crossing.action == "hit"
            for crossing in days[0].truth
            if {c.seq: c.name for c in days[0].conditions}[crossing.seq] == each.condition
        )
        assert span.hits == today.hits + earlier
        if span.days == 2 and span.priced > 20:
            assert span.low is not None
            assert span.high is not None
            assert span.low <= (span.mean or 0.0) <= span.high
    assert monday.span_from == MONDAY - timedelta(days=28)
    assert monday.sample_stocks > 30


def test_recommendations_are_ranked_by_what_they_became(monday: Told, days: list[Day]) -> None:
    day = days[1]
    opened = {each.code: each.received_at for each in recommendations(day) if each.revision == 1}
    expected = {}
    for code, at in opened.items():
        following = next((bar for bar in day.minutes(code) if moment(day.date, bar.minute * 60) > at), None)
        if following is not None:
            expected[code] = (day.bar(code).close / following.open - 1) * 100
    assert monday.recommended == len(opened)
    assert sorted(monday.gains, reverse=True) == pytest.approx(sorted(expected.values(), reverse=True))
    ranked = [*monday.best, *monday.worst]
    assert len({each.code for each in ranked}) == len(ranked) == 20
    up, down = [[each.gained or 0.0 for each in end] for end in (monday.best, monday.worst)]
    assert up == sorted(up, reverse=True)
    assert down == sorted(down), "the worst first"
    assert max(down) <= min(up)
    for each in ranked:
        assert each.gained == pytest.approx(expected[each.code])
        assert each.is_close
        assert each.line[0][1] == each.reference
        assert each.line[-1][1] == day.minutes(each.code)[-1].close
        assert (each.worst or 0.0) <= (each.gained or 0.0) <= (each.best or 0.0)


def test_each_end_of_the_ranking_has_a_stock_once() -> None:
    returns = {"000001": [9.0, 8.0, *(-float(n) for n in range(9))], "000002": [5.0], "000003": [0.5, -0.5]}
    rows = [
        dict.fromkeys(("reference_at", "closed_at", "reference", "price", "best", "best_price", "minutes_to_best"))
        | dict.fromkeys(("worst", "worst_price", "minutes_to_worst"))
        | {"account": "main", "code": code, "name": "", "conditions": [], "score": 1.0, "opened_at": number * 10**6}
        | {"state": "open", "cause": "", "is_close": False, "complete": True, "gaps": 0, "gained": gained}
        for code, all_of_it in returns.items()
        for number, gained in enumerate(all_of_it)
    ]
    best, worst, _, gains, count = report._ranked(rows)
    assert [(each.code, each.gained, each.others) for each in best] == [
        ("000001", 9.0, 10), ("000002", 5.0, 0), ("000003", 0.5, 1),
    ]  # fmt: skip
    assert [(each.code, each.gained, each.others) for each in worst] == [("000001", -8.0, 10), ("000003", -0.5, 1)]
    assert (count, len(gains)) == (14, 14)
    few = [row for row in rows if row["code"] != "000001"]
    best, worst, *_ = report._ranked(few)
    assert [each.gained for each in best] == [5.0, 0.5, -0.5], "all of them"
    assert worst == []


def test_gaps_and_what_they_lie_across_are_told(monday: Told) -> None:
    (only,) = monday.gaps
    assert (only.condition, f"{only.start:%H:%M:%S}", f"{only.end:%H:%M:%S}") == (GAPPED, "09:20:00", "09:32:30")
    gapped = next(each for each in monday.conditions if each.condition == GAPPED)
    assert gapped.today["5m"].across_gap > 0
    sentences = lacks(monday, say("en"))
    assert f"{GAPPED}: gap 09:20:00–09:32:30 (12.5 min) – connection lost" in sentences
    assert any("lie across a gap" in sentence for sentence in sentences)
    assert any(each.gaps for each in [*monday.best, *monday.worst] if GAPPED in each.conditions)


async def test_hits_beyond_the_close_are_told_by_horizon(server: Server) -> None:
    """In the evening of a market that never closes every hit is one, whatever it is bought at."""
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    tape = Tape(MONDAY).hit("A", "005930", "19:10:20").quote("005930", "19:10:21", 100).quote("005930", "19:20:21", 101)
    tape.hit("B", "005930", "15:10:20").quote("005930", "15:10:21", 100).write(client)
    client.close()
    at = datetime(2026, 3, 9, 20, 0, tzinfo=KST)
    expected = {"A": {"1m": 1, "5m": 1, "30m": 1, "close": 1, "best": 1, "worst": 1}, "B": {"30m": 1}}
    told = await asyncio.to_thread(read, settings, MONDAY, at)
    assert {each.condition: each.past_close for each in told.conditions} == expected
    said = "Beyond the close (15:30, on NXT 20:00) and so not counted: 1 min 1, 5 min 1, 30 min 2, close 1,"
    assert any(sentence.startswith(said) for sentence in lacks(told, say("en")))
    filler = await connect_async(settings)
    await fill(filler, MONDAY)
    await filler.close()
    told = await asyncio.to_thread(read, settings, MONDAY, at)
    assert told.heard_until is not None
    assert {each.condition: each.past_close for each in told.conditions} == expected


def test_a_day_that_goes_on_says_so_and_what_it_lacks(filled: ClickHouseSettings) -> None:
    at = datetime(2026, 3, 10, 10, 0, tzinfo=KST)
    tuesday = read(filled, TUESDAY, at)
    assert tuesday.going_on
    sentences = lacks(tuesday, say("en"))
    assert sentences[0].startswith("There are no bars of this day yet")
    assert any("Hits without a reference price" in sentence for sentence in sentences)
    assert any("nothing to compare with" in sentence for sentence in sentences)
    assert any("Recommendations without a reference price" in sentence for sentence in sentences)
    for page in (markdown.render(tuesday, "en"), html.render(tuesday, "en")):
        assert "The day goes on" in page


@pytest.fixture
async def kept(filled: ClickHouseSettings) -> AsyncIterator[AsyncClient]:
    """The sink has kept what became of the hits of these days."""
    client = await connect_async(filled)
    for day in (FRIDAY, MONDAY, TUESDAY):
        await fill(client, day)
    yield client
    await client.command("TRUNCATE TABLE day_returns")
    await client.close()


async def test_what_is_kept_is_told_alike_and_as_of_when_until_something_comes(
    filled: ClickHouseSettings, kept: AsyncClient, monday: Told
) -> None:
    told = await asyncio.to_thread(read, filled, MONDAY)
    assert monday.heard_until is None
    assert told.heard_until is not None
    assert plain(told) == pytest.approx(plain(monday))
    # The market's time, not the one of the server that filled it, which is of another year.
    assert told.heard_until == datetime(2026, 3, 10, 0, 0, 0, 400_000, tzinfo=KST), "the exits at the day's end"
    assert "They were worked out of what was heard until 2026-03-10 00:00:00 KST." in markdown.render(told, "en")
    await kept.command(
        "INSERT INTO bars SELECT * REPLACE(now64(3) AS inserted_at) FROM bars WHERE date = '2026-03-09' LIMIT 1"
    )
    assert (await asyncio.to_thread(read, filled, MONDAY)).heard_until is None
    while_it_goes_on = datetime(2026, 3, 9, 10, 0, tzinfo=KST)
    assert (await asyncio.to_thread(read, filled, MONDAY, while_it_goes_on)).heard_until == told.heard_until


async def test_of_a_day_of_which_nothing_was_heard_it_is_told_when_it_was_filled(
    filled: ClickHouseSettings, kept: AsyncClient
) -> None:
    quiet = date(2026, 2, 2)
    before = datetime.now(KST)
    await fill(kept, quiet)
    told = await asyncio.to_thread(read, filled, quiet)
    assert told.heard_until is not None
    assert abs(told.heard_until - before) < timedelta(minutes=5), "and not the year 1970"


def plain(day: Told) -> dict[str, Any]:
    """Each figure and word of a day, by its place."""
    found: dict[str, Any] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                walk(f"{place}.{name}", each)
        elif isinstance(value, list | tuple):
            for number, each in enumerate(value):
                walk(f"{place}.{number}", each)
        else:
            found[place] = value

    walk("", msgspec.to_builtins(msgspec.structs.replace(day, heard_until=None)))
    return found


def test_the_latest_day_is_the_last_one_that_is_known(filled: ClickHouseSettings) -> None:
    client = connect(filled)
    assert report.latest(client, date(2026, 3, 9)) == MONDAY
    assert report.latest(client, date(2026, 12, 1)) == TUESDAY
    assert report.latest(client, date(2020, 1, 1)) == date(2020, 1, 1)
    client.close()


def test_a_database_without_the_views_is_one_sentence(settings: ClickHouseSettings) -> None:
    client = connect(settings)
    with pytest.raises(report.NotMigrated, match="run `hitstream migrate`"):
        report.read(client, MONDAY, asked_at=EVENING, closes=EVENING)
    client.close()


def test_the_command_writes_the_page_that_the_file_s_name_asks_for(
    filled: ClickHouseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HITSTREAM_CLICKHOUSE__DSN", filled.dsn)
    assert command("2026-03-09", output=tmp_path / "day.html", lang="ko", days=5) == 0
    page = (tmp_path / "day.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "2026-03-09 조건검색 리포트" in page
    assert page.count("<svg") > 20
    assert list(tmp_path.iterdir()) == [tmp_path / "day.html"]
    capsys.readouterr()
    assert command("2025-01-01", as_json=True) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert (told["date"], told["trading"], told["conditions"]) == ("2025-01-01", False, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"day": "9.3.2026"}, "write it as 2026-03-09"),
        ({"output": Path("day.pdf")}, "end it with .md or .html"),
        ({"days": 0}, "--days must be"),
        ({"cost": -1.0}, "--cost must be 0 to 100"),
        ({"cost": float("nan")}, "--cost must be 0 to 100"),
        ({"as_json": True, "form": "html"}, "do not go together"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_asked(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        command(arguments.pop("day", ""), **arguments)
