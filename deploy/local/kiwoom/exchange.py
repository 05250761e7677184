"""The exchange: trading day after trading day of one simulated world, and what must be remembered to go on with it.

Pure: market time comes in as an argument. A day is re-simulated from its beginning after a restart – it is a function
of what `Ledger` holds – so no hit is said twice at another time and the day's truth stays whole. The day's last prices
become the next day's previous closes. Reading and writing the ledger's file is `server`'s business.

`hours="always"`: the trading day is the KST calendar date, open at any hour. The very first day (and the first after a
longer rest) opens a while before the moment of the start, so that conditions hold stocks from the first second.
`hours="market"`: trades from 09:00 to 15:30 KST, Monday to Friday; on a weekend the Friday stands.
"""

from __future__ import annotations

import datetime as dt
from datetime import datetime, time, timedelta
from math import ceil, inf
from typing import Final, Literal, NamedTuple

import msgspec

from streams.events import KST

from .catalog import listings
from .market import Crossing, DailyBar, Day, MinuteBar, Trade, past_days, period_high
from .plants import Plant

Hours = Literal["always", "market"]

OPENS: Final = 9 * 3600.0
CLOSES: Final = 15.5 * 3600.0
MIDNIGHT: Final = 86_399.999
PREROLL: Final = 1_200.0
"""Seconds of market before the start of a first `always` day."""

PAST: Final = 40
"""Invented trading days before the first simulated one."""

KEPT: Final = 30
"""Simulated days whose daily bars are kept."""


class Bell(NamedTuple):
    """A market-clock notice (0s, FID 215) at a second since midnight KST."""

    at: int
    code: str


BELLS: Final = (
    Bell(30_600, "0"),  # pre-open notice
    Bell(32_400, "3"),  # open
    Bell(55_200, "2"),  # close notice
    Bell(55_800, "4"),  # close
    Bell(56_400, "8"),  # regular end
    Bell(64_800, "9"),  # all end
)

Happening = Trade | Crossing | Bell


class PastDay(msgspec.Struct, frozen=True):
    """The daily bars of one simulated day, by code: open, high, low, close, volume, value."""

    date: dt.date
    bars: dict[str, tuple[int, int, int, int, int, int]]


class Ledger(msgspec.Struct, frozen=True):
    """All that an exchange needs to become itself again: small, and written only when a day or a pause begins or ends.

    `opened` and the pauses are in seconds since midnight KST, market time; a pause is (when, how many whole seconds).
    `paused_at` is set while the market stands still.
    """

    version: int
    seed: int
    hours: Hours
    activity: float
    first: dt.date
    date: dt.date
    opened: float
    days: tuple[PastDay, ...] = ()
    pauses: tuple[tuple[float, int], ...] = ()
    paused_at: float | None = None
    plants: tuple[Plant, ...] = ()
    neutral: bool = False


VERSION: Final = 1


class Exchange:
    """One simulated world, standing at some moment of some day.

    Args:
        seed, hours, activity, plants, neutral: what the world is a function of.
        now: market time.
        start: the moment the world's clock was started at: a first day opens by it and not by `now`, so that the
            same start gives the same day however long the machine took.
        ledger: of an earlier run; ignored (see `resumed`) where it belongs to another world or to a later time.
    """

    def __init__(
        self,
        *,
        seed: int,
        hours: Hours,
        activity: float,
        now: datetime,
        start: datetime | None = None,
        ledger: Ledger | None = None,
        plants: tuple[Plant, ...] = (),
        neutral: bool = False,
    ) -> None:
        self.hours = hours
        today = self.trading_date(now)
        second = self._second(now, today)
        begun = start if start is not None and start < now and self.trading_date(start) == today else now
        self.resumed = (
            ledger is not None
            and (ledger.version, ledger.seed, ledger.hours, ledger.activity) == (VERSION, seed, hours, activity)
            and (ledger.plants, ledger.neutral) == (plants, neutral)
            and (ledger.date, ledger.opened) <= (today, max(second, OPENS if hours == "market" else 0.0))
        )
        if ledger is None or not self.resumed:
            ledger = Ledger(
                VERSION,
                seed,
                hours,
                activity,
                first=today,
                date=today,
                opened=self._opening(self._second(begun, today)),
                plants=plants,
                neutral=neutral,
            )
        self.ledger = ledger
        self.yesterday: Day | None = None
        self._past = {stock.code: past_days(seed, stock, _weekdays_before(ledger.first, PAST)) for stock in listings()}
        self.day = self._new_day()
        self._pauses_done = 0
        self._live = False
        self._rung = self._second(now, self.day.date) if self.trading_date(now) == self.day.date else 0.0

    def trading_date(self, now: datetime) -> dt.date:
        """The trading date in force at a moment."""
        day = now.astimezone(KST).date()
        if self.hours == "market":
            day -= timedelta(days=max(0, day.weekday() - 4))
        return day

    def is_open(self, now: datetime) -> bool:
        """Whether the market trades at this moment."""
        local = now.astimezone(KST)
        if self.ledger.paused_at is not None:
            return False
        return self.hours == "always" or (local.weekday() < 5 and time(9) <= local.time() < time(15, 30))

    @property
    def paused(self) -> bool:
        """Whether somebody has stopped the market."""
        return self.ledger.paused_at is not None

    def advance(self, now: datetime, limit: int = 2_000) -> list[Happening]:
        """Go on towards `now`, by about `limit` trades at most; `caught_up` says whether that was enough."""
        today = self.trading_date(now)
        if today > self.day.date:
            happened = self._run(inf, limit)
            if not happened:  # what happened yesterday is told while it is still that day
                self._begin(today, now)
            return happened
        return self._run(self._second(now, self.day.date), limit) if today == self.day.date else []

    def caught_up(self, now: datetime) -> bool:
        """Whether nothing that is due at `now` is left to happen. True once means that the exchange is live."""
        today = self.trading_date(now)
        reached = today < self.day.date or (today == self.day.date and self._finished(self._second(now, self.day.date)))
        self._live = self._live or reached
        return reached

    def next_event(self, now: datetime) -> datetime:
        """When the next thing happens of itself, at the latest the beginning of the next calendar day."""
        midnight = _midnight(self.day.date)
        second = self._second(now, self.day.date)
        candidates: list[float] = [bell.at for bell in self._bells() if bell.at > self._rung]
        if not self.paused:
            candidates.append(self.day.next_arrival())
        soonest = min(candidates, default=inf)
        tomorrow = (second // 86_400 + 1) * 86_400
        return midnight + timedelta(seconds=min(soonest, tomorrow))

    def pause(self, now: datetime) -> None:
        """Stop the market; market time goes on. Call it caught up."""
        if not self.paused:
            at = min(self._second(now, self.day.date), self.day.closes)
            self.ledger = msgspec.structs.replace(self.ledger, paused_at=max(at, self.day.opened))

    def resume(self, now: datetime) -> None:
        """Let the market move again, from where it stood: the pause shifts the rest of its day by whole seconds."""
        at = self.ledger.paused_at
        if at is None:
            return
        seconds = max(0, ceil(self._second(now, self.day.date) - at))
        self.ledger = msgspec.structs.replace(self.ledger, paused_at=None, pauses=(*self.ledger.pauses, (at, seconds)))

    def daily(self, code: str) -> list[DailyBar]:
        """Daily bars of a stock, oldest first, today's last; days without a trade are left out."""
        bars = list(self._past.get(code, ()))
        bars += [DailyBar(day.date, *day.bars[code]) for day in self.ledger.days if code in day.bars]
        if self.day.standing(code) is not None:
            bars.append(self.day.bar(code))
        return [bar for bar in bars if bar.volume]

    def minutes(self, code: str) -> list[tuple[dt.date, MinuteBar]]:
        """Minute bars of a stock, oldest first: today's, and yesterday's where this process has seen it."""
        days = [day for day in (self.yesterday, self.day) if day is not None]
        return [(day.date, bar) for day in days for bar in day.minutes(code)]

    # --- within a day

    def _run(self, second: float, limit: int) -> list[Happening]:
        happened: list[Happening] = list(self._trade_until(second, limit))
        if self._traded_until(second):
            for bell in self._bells_due(second):
                place = next((n for n, event in enumerate(happened) if event.at >= bell.at), len(happened))
                happened.insert(place, bell)
                self._rung = bell.at
        return happened

    def _trade_until(self, second: float, limit: int) -> list[Trade | Crossing]:
        events: list[Trade | Crossing] = []
        for at, gap in self.ledger.pauses[self._pauses_done :]:
            if at > second:
                break
            events += self.day.advance(at, limit - len(events))
            if not self._reached(at):
                return events
            self.day.offset += gap
            self._pauses_done += 1
        return events + self.day.advance(min(second, self._stop), limit - len(events))

    def _finished(self, second: float) -> bool:
        return self._traded_until(second) and not self._bells_due(second)

    def _traded_until(self, second: float) -> bool:
        """Whether the day has traded as far as it can by `second`."""
        waiting = self.ledger.pauses[self._pauses_done :]
        return not (waiting and waiting[0][0] <= second) and self._reached(min(second, self._stop))

    def _reached(self, second: float) -> bool:
        return self.day.tape + self.day.offset >= min(second, self.day.closes) - 1e-6 or second <= self.day.opened

    @property
    def _stop(self) -> float:
        return inf if self.ledger.paused_at is None else self.ledger.paused_at

    def _bells_due(self, second: float) -> list[Bell]:
        return [bell for bell in self._bells() if self._rung < bell.at <= second]

    def _bells(self) -> tuple[Bell, ...]:
        return BELLS if self.hours == "market" else ()

    # --- from day to day

    def _begin(self, today: dt.date, now: datetime) -> None:
        bars = {stock.code: self.day.bar(stock.code)[1:] for stock in listings()}
        second = self._second(now, today)
        opened = OPENS if self.hours == "market" else 0.0 if self._live else self._opening(second)
        self.ledger = msgspec.structs.replace(
            self.ledger,
            date=today,
            opened=opened,
            days=(*self.ledger.days, PastDay(self.day.date, bars))[-KEPT:],
            pauses=(),
            paused_at=opened if self.paused else None,
        )
        self.yesterday = self.day
        self.day = self._new_day()
        self._pauses_done = 0
        self._rung = 0.0 if self._live else second

    def _new_day(self) -> Day:
        ledger = self.ledger
        previous = []
        for stock in listings():
            bars = self._past[stock.code] + [
                DailyBar(day.date, *day.bars[stock.code]) for day in ledger.days if stock.code in day.bars
            ]
            close = bars[-1].close
            previous.append((stock, close, period_high(bars, close)))
        return Day(
            seed=ledger.seed,
            date=ledger.date,
            opened=ledger.opened,
            closes=CLOSES if self.hours == "market" else MIDNIGHT,
            previous=previous,
            activity=ledger.activity,
            plants=ledger.plants,
            neutral=ledger.neutral,
        )

    def _opening(self, second: float) -> float:
        return OPENS if self.hours == "market" else max(0.0, second // 60 * 60 - PREROLL)

    @staticmethod
    def _second(now: datetime, day: dt.date) -> float:
        return (now - _midnight(day)).total_seconds()


def moment(day: dt.date, second: float) -> datetime:
    """A second since midnight KST of a date, as a time."""
    return _midnight(day) + timedelta(seconds=second)


def _midnight(day: dt.date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=KST)


def _weekdays_before(first: dt.date, count: int) -> list[dt.date]:
    days: list[dt.date] = []
    day = first
    while len(days) < count:
        day -= timedelta(days=1)
        if day.weekday() < 5:
            days.append(day)
    return days[::-1]
