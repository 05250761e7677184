"""The calendar: on which days and at which hours the market trades and a session is wanted.

Pure: no clock. `Calendar` is a value; what the market's own clock says (`0s` frames) makes a new one (`heard`), and
overrules whatever was believed of that day. Times are KST.

The days come from the `holidays` package (financial market XKRX), the first session of a year opens at ten, and the
setting `kiwoom.days` overrules both: nobody publishes in advance that the market opens late because of an exam.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Final, Literal

import msgspec

from streams.events import KST, ConfigError

from .settings import KiwoomSettings

_FRIDAY: Final = 4
_LATE: Final = time(10, 0)
_MAINTENANCE: Final = (time(8, 0), time(8, 20))
# Without the market's word that it has closed, an open market is believed for so long after its hour.
_OVERTIME: Final = timedelta(hours=2)
# So long is it believed that the market has yet to open: its opening may have been missed.
_STILL_CLOSED: Final = timedelta(minutes=30)
_SEARCHED_DAYS: Final = 366

# FID 215 of the market clock.
_Phase = Literal["before", "open", "over"]
_PHASES: Final[tuple[tuple[str, _Phase], ...]] = (("0", "before"), ("23", "open"), ("489", "over"))


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """A trading day: from `login` to `logout` a session is wanted, from `open` to `close` the market trades."""

    login: time = time(8, 40)
    open: time = time(9, 0)
    close: time = time(15, 30)
    logout: time = time(15, 40)

    def late(self, opens: time, closes: time) -> Hours:
        """The same day with other trading hours; login and logout keep their distance where the day is longer."""
        logout = _shift(self.logout, closes, self.close) if closes > self.close else self.logout
        login = _shift(self.login, opens, self.open) if opens < self.open else self.login
        return Hours(login=login, open=opens, close=closes, logout=logout)


class Rest(msgspec.Struct, frozen=True):
    """No session is wanted: why, and until when."""

    cause: str
    until: datetime


class Heard(msgspec.Struct, frozen=True):
    """What the market's clock last said, and when."""

    at: datetime
    phase: _Phase

    @property
    def day(self) -> date:
        """The day of which it was said."""
        return self.at.astimezone(KST).date()


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """When the market trades.

    `always` is for a market that never closes: no rest, and every gap counts. `days` overrules single days: None is
    closed.
    """

    hours: Hours = Hours()
    days: Mapping[date, Hours | None] = {}
    always: bool = False
    market: Heard | None = None

    def day(self, day: date) -> Hours | None:
        """The hours of a day; None if it is no trading day."""
        if day in self.days:
            return self.days[day]
        if _closed_because(day):
            return None
        return self.hours.late(_LATE, self.hours.close) if _is_first_of_year(day) else self.hours

    def trades_on(self, day: date) -> bool:
        """Whether a day is a trading day."""
        return self.always or self.day(day) is not None

    def trading(self, at: datetime) -> bool:
        """Whether the market trades, as far as is known. The market's own word overrules the calendar."""
        if self.always:
            return True
        local = at.astimezone(KST)
        hours = self.day(local.date())
        if self.market is not None and self.market.day == local.date():
            last = _moment(local.date(), (hours or self.hours).logout) + _OVERTIME
            if self.market.phase != "before" or local - self.market.at < _STILL_CLOSED:
                return self.market.phase == "open" and local < last
        return hours is not None and hours.open <= local.time() < hours.close

    def phase(self, at: datetime) -> Literal["open", "before", "closed"]:
        """Whether the market trades, is yet to open today, or is closed."""
        if self.trading(at):
            return "open"
        local = at.astimezone(KST)
        hours = self.day(local.date())
        return "before" if hours is not None and local.time() < hours.open else "closed"

    def rest(self, at: datetime) -> Rest | None:
        """Why no session is wanted at a moment, and until when; None if one is."""
        if self.always:
            return None
        local = at.astimezone(KST)
        today = local.date()
        hours = self.day(today)
        if hours is not None and local.time() < hours.login:
            return Rest("before the market opens", _moment(today, hours.login))
        if hours is not None and (local.time() < hours.logout or self.trading(at)):
            return None
        because = _closed_because(today) if today not in self.days else "closed by kiwoom.days"
        return Rest(because if hours is None and because else "after the close", self._next_login(today))

    def urgent(self, at: datetime, *, maintenance: bool = False) -> bool:
        """Whether every second without a session may cost something – by the clock, even where there is no rest.

        Args:
            maintenance: Kiwoom says that it is closed, which is believed unless the market trades.
        """
        clock = msgspec.structs.replace(self, always=False)
        return clock.trading(at) or (clock.rest(at) is None and not maintenance and not in_maintenance(at))

    def spans(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """The parts of a time in which something could be missed: within the hours of a session, day by day.

        The minutes between the first login of a day and the open are left out where nothing was heard yet that day.
        """
        if self.always:
            return [(start, end)] if start < end else []
        parts = []
        first, last = start.astimezone(KST).date(), end.astimezone(KST).date()
        for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
            told = self.market is not None and self.market.day == day and self.market.phase == "open"
            hours = self.day(day) or (self.hours if told else None)
            if hours is None:
                continue
            login, logout = _moment(day, hours.login), _moment(day, hours.logout)
            if told:
                logout += _OVERTIME
            begin, stop = max(start, login), min(end, logout)
            if begin < stop and not (begin == login and stop <= _moment(day, hours.open)):
                parts.append((begin, stop))
        return parts

    def heard(self, state: str, at: datetime) -> Calendar:
        """The calendar after the market's clock said `state` (FID 215). A word that is not known changes nothing."""
        for states, phase in _PHASES:
            if state and state in states:
                return msgspec.structs.replace(self, market=Heard(at, phase))
        return self

    def _next_login(self, day: date) -> datetime:
        for coming in (day + timedelta(days=n) for n in range(1, _SEARCHED_DAYS)):
            if (hours := self.day(coming)) is not None:
                return _moment(coming, hours.login)
        return _moment(day + timedelta(days=1), self.hours.login)


ALWAYS: Final = Calendar(always=True)


def in_maintenance(at: datetime) -> bool:
    """Whether Kiwoom is known to be closed for maintenance in the morning (08:00 to 08:20)."""
    return _MAINTENANCE[0] <= at.astimezone(KST).time() < _MAINTENANCE[1]


def days_of(lines: Iterable[str], hours: Hours) -> dict[date, Hours | None]:
    """The days of the setting `kiwoom.days`: `2026-06-03 closed`, `2026-11-19 10:00-16:30`.

    Raises:
        ConfigError: a line is neither.
    """
    found: dict[date, Hours | None] = {}
    for line in lines:
        day, _, what = line.strip().partition(" ")
        opens, _, closes = what.strip().partition("-")
        try:
            found[date.fromisoformat(day)] = (
                None
                if what.strip() == "closed"
                else hours.late(time.fromisoformat(opens.strip()), time.fromisoformat(closes.strip()))
            )
        except ValueError:
            raise ConfigError(
                f"kiwoom.days has {line!r}: write a day and what is special, '2026-06-03 closed' or"
                " '2026-11-19 10:00-16:30'"
            ) from None
    return found


def calendar_of(kiwoom: KiwoomSettings) -> Calendar:
    """The calendar that the settings ask for.

    Raises:
        ConfigError: `kiwoom.days` has a line that says nothing.
    """
    hours = Hours(
        login=time.fromisoformat(kiwoom.login_at),
        open=time.fromisoformat(kiwoom.open_at),
        close=time.fromisoformat(kiwoom.close_at),
        logout=time.fromisoformat(kiwoom.logout_at),
    )
    return Calendar(hours=hours, days=days_of(kiwoom.days, hours), always=kiwoom.hours == "always")


@cache
def _closed_because(day: date) -> str:
    """Why the market is closed on a day; empty if it is not."""
    if day.weekday() > _FRIDAY:
        return "weekend"
    name = _holidays(day.year).get(day)
    return f"market holiday: {name}" if name else ""


@cache
def _holidays(year: int) -> dict[date, str]:
    return dict(_exchange()(years=year))


@cache
def _exchange() -> Callable[..., Mapping[date, str]]:
    """Makes the holidays of the Korea Exchange, by year.

    `holidays` reads two hundred countries before it tells of one exchange: a fifth of what a producer needs to start.
    """
    try:
        with _unread("holidays.countries", "holidays.financial"):
            return import_module("holidays.financial.korea_exchange").XKRX  # type: ignore[no-any-return]
    except (ImportError, AttributeError):  # the library is laid out in another way
        return partial(import_module("holidays").financial_holidays, "XKRX")


@contextmanager
def _unread(*packages: str) -> Iterator[None]:
    """Have packages stand for the place of their modules, without what they import themselves."""
    absent = [name for name in packages if name not in sys.modules]
    try:
        for name in absent:
            if spec := find_spec(name):
                sys.modules[name] = module_from_spec(spec)
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


@cache
def _is_first_of_year(day: date) -> bool:
    earlier = (date(day.year, 1, 1) + timedelta(days=n) for n in range((day - date(day.year, 1, 1)).days))
    return day.month == 1 and all(_closed_because(before) for before in earlier)


def _moment(day: date, at: time) -> datetime:
    return datetime.combine(day, at, KST)


def _shift(at: time, to: time, by: time) -> time:
    """`at`, moved as far as `to` is from `by`; within the day."""
    day = date(2000, 1, 1)
    moved = datetime.combine(day, at) + (datetime.combine(day, to) - datetime.combine(day, by))
    return moved.time() if moved.date() == day else (time.max if moved.date() > day else time.min)
