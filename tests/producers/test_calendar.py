"""Trading days and hours, what the market's own clock overrules, and which parts of a time can be a gap."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from types import ModuleType

import pytest

from producers import calendar
from producers.calendar import ALWAYS, Calendar, Hours, Rest, calendar_of, days_of, in_maintenance
from producers.settings import KiwoomSettings
from streams.events import KST, ConfigError

CALENDAR = Calendar()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=KST)


@pytest.mark.parametrize(
    ("when", "trading", "rests"),
    [
        ("2026-11-23 08:39:59", False, "before the market opens"),
        ("2026-11-23 08:40:00", False, None),
        ("2026-11-23 08:59:59", False, None),
        ("2026-11-23 09:00:00", True, None),
        ("2026-11-23 15:29:59", True, None),
        ("2026-11-23 15:30:00", False, None),
        ("2026-11-23 15:37:00", False, None),
        ("2026-11-23 15:40:00", False, "after the close"),
        ("2026-11-22 10:00:00", False, "weekend"),
        ("2026-06-03 10:00:00", False, "market holiday: Local Election Day"),
        ("2026-07-17 10:00:00", False, "market holiday: Constitution Day"),
        ("2026-12-31 10:00:00", False, "market holiday: End of Year Holiday"),
        # The first session of a year opens at ten.
        ("2026-01-02 09:30:00", False, None),
        ("2026-01-02 10:00:00", True, None),
        ("2026-01-05 09:30:00", True, None),
    ],
)
def test_hours(when: str, trading: bool, rests: str | None) -> None:
    rest = CALENDAR.rest(at(when))
    assert (CALENDAR.trading(at(when)), rest and rest.cause) == (trading, rests)


@pytest.mark.parametrize(
    ("when", "until"),
    [
        ("2026-11-23 03:00", "2026-11-23 08:40"),
        ("2026-11-23 15:40", "2026-11-24 08:40"),
        ("2026-11-20 18:00", "2026-11-23 08:40"),
        ("2026-12-30 18:00", "2027-01-04 08:40"),
        ("2026-09-23 18:00", "2026-09-28 08:40"),
    ],
)
def test_a_rest_says_when_it_goes_on(when: str, until: str) -> None:
    rest = CALENDAR.rest(at(when))
    assert rest is not None
    assert rest.until == at(until)


def test_days_of_the_settings_overrule_the_calendar() -> None:
    lines = ["2026-11-24 closed", "2026-11-19 10:00-16:30", "2026-11-21 09:00-15:30"]
    calendar = Calendar(days=days_of(lines, Hours()))
    assert calendar.rest(at("2026-11-24 10:00")) == Rest("closed by kiwoom.days", at("2026-11-25 08:40"))
    assert [calendar.trading(at(f"2026-11-19 {t}")) for t in ("09:30", "10:00", "16:29", "16:30")] == [
        False, True, True, False,
    ]  # fmt: skip
    assert calendar.rest(at("2026-11-19 16:39")) is None
    assert calendar.rest(at("2026-11-19 16:40")) is not None
    assert calendar.trading(at("2026-11-21 10:00"))


@pytest.mark.parametrize("line", ["", "2026-13-01 closed", "2026-11-24", "2026-11-24 10:00", "closed 2026-11-24"])
def test_a_day_that_says_nothing_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"kiwoom\.days has"):
        days_of([line], Hours())


def test_settings_make_a_calendar() -> None:
    settings = KiwoomSettings(login_at="07:50", open_at="08:00", close_at="20:00", logout_at="20:10")
    assert calendar_of(settings).rest(at("2026-11-23 19:00")) is None
    assert calendar_of(KiwoomSettings(hours="always")).rest(at("2026-11-22 03:00")) is None


def test_hours_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="must follow each other"):
        KiwoomSettings(login_at="09:10")


# --- the market's own clock


def test_an_open_that_the_calendar_did_not_know_to_be_late() -> None:
    day = CALENDAR.heard("0", at("2026-11-19 09:10"))
    assert not day.trading(at("2026-11-19 09:30"))
    day = day.heard("3", at("2026-11-19 10:00"))
    assert day.trading(at("2026-11-19 10:01"))
    assert day.trading(at("2026-11-19 16:00"))
    assert day.rest(at("2026-11-19 16:00")) is None, "it rested while the market traded"
    day = day.heard("4", at("2026-11-19 16:30"))
    assert not day.trading(at("2026-11-19 16:31"))
    assert day.rest(at("2026-11-19 16:31")) is not None


def test_an_open_that_was_missed_is_not_waited_for_all_day() -> None:
    day = CALENDAR.heard("0", at("2026-11-23 08:50"))
    assert not day.trading(at("2026-11-23 09:10"))
    assert day.trading(at("2026-11-23 09:20"))


def test_a_close_that_was_never_heard_is_not_waited_for_all_night() -> None:
    assert CALENDAR.heard("3", at("2026-11-23 09:00")).rest(at("2026-11-23 18:00")) is not None


def test_what_the_clock_said_yesterday_is_forgotten() -> None:
    assert CALENDAR.heard("9", at("2026-11-23 18:00")).trading(at("2026-11-24 09:30"))


def test_a_word_of_the_clock_that_is_not_known_changes_nothing() -> None:
    assert CALENDAR.heard("x", at("2026-11-23 10:00")) is CALENDAR


# --- what can be a gap


@pytest.mark.parametrize(
    ("start", "end", "parts"),
    [
        ("2026-11-23 10:00", "2026-11-23 10:05", [("2026-11-23 10:00", "2026-11-23 10:05")]),
        (
            "2026-11-23 15:00",
            "2026-11-24 09:10",
            [("2026-11-23 15:00", "2026-11-23 15:40"), ("2026-11-24 08:40", "2026-11-24 09:10")],
        ),
        ("2026-11-20 15:40", "2026-11-23 08:40:05", []),
        ("2026-11-23 16:00", "2026-11-23 20:00", []),
        ("2026-11-21 10:00", "2026-11-22 10:00", []),
        ("2026-11-23 08:45", "2026-11-23 08:46", [("2026-11-23 08:45", "2026-11-23 08:46")]),
        (
            "2026-11-19 15:00",
            "2026-11-23 09:10",
            [
                ("2026-11-19 15:00", "2026-11-19 15:40"),
                ("2026-11-20 08:40", "2026-11-20 15:40"),
                ("2026-11-23 08:40", "2026-11-23 09:10"),
            ],
        ),
    ],
)
def test_a_gap_has_no_nights(start: str, end: str, parts: list[tuple[str, str]]) -> None:
    assert CALENDAR.spans(at(start), at(end)) == [(at(a), at(b)) for a, b in parts]


def test_without_a_calendar_a_gap_is_all_of_it() -> None:
    start, end = at("2026-11-21 10:00"), at("2026-11-22 10:00")
    assert ALWAYS.spans(start, end) == [(start, end)]


# --- how urgent a new connection is


@pytest.mark.parametrize(
    ("when", "maintenance", "urgent"),
    [
        ("2026-11-23 10:00", False, True),
        ("2026-11-23 10:00", True, True),
        ("2026-11-23 08:45", False, True),
        ("2026-11-23 08:45", True, False),
        ("2026-11-23 08:10", False, False),
        ("2026-11-23 03:00", False, False),
        ("2026-11-22 10:00", False, False),
    ],
)
@pytest.mark.parametrize("calendar", [CALENDAR, ALWAYS])
def test_every_second_counts_only_while_something_may_happen(
    calendar: Calendar, when: str, maintenance: bool, urgent: bool
) -> None:
    assert calendar.urgent(at(when), maintenance=maintenance) == urgent


def test_the_morning_maintenance_is_known() -> None:
    assert [in_maintenance(at(f"2026-11-23 {t}")) for t in ("07:59", "08:00", "08:19", "08:20")] == [
        False, True, True, False,
    ]  # fmt: skip


def test_the_exchange_is_read_alone_and_tells_the_same() -> None:
    """In a process that has read none of it, and with the packages themselves usable afterwards."""
    program = """
import sys
from producers.calendar import _holidays
ours = {year: _holidays(year) for year in range(2015, 2035)}
assert len([name for name in sys.modules if name.startswith("holidays.countries.")]) == 1, "only South Korea"
from holidays import country_holidays, financial_holidays
assert country_holidays("JP", years=2026)
assert ours == {year: dict(financial_holidays("XKRX", years=year)) for year in ours}
assert len(ours[2026]) > 10
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_exchange_is_read_with_all_others_where_it_cannot_be_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = dict(calendar._exchange()(years=2026))
    real = calendar.import_module

    def moved(name: str) -> ModuleType:
        if name.endswith("korea_exchange"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(calendar, "import_module", moved)
    assert dict(calendar._exchange.__wrapped__()(years=2026)) == alone
