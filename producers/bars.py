"""Bars after the close: what every stock that was hit did that day, and a fixed random sample of stocks.

A chart is one stock's minutes (ka10080) or day (ka10081). A day has charts of

- minutes: the stocks that were hit (or recommended by hand), and the sample, which conditions are compared with;
- days: the same, those that a one-shot search found, and those of the trading day before, whose next open this is.

Which stocks these are, Kafka knows (`hit_codes`); what a chart says, `kiwoom.charts`; what is wanted and how far it is,
`day_bars`. This module paces, remembers and tells. It asks one chart after the other, in the turns that `kiwoom.rest`
gives to all TR calls of the process, so a search that somebody asks for waits for one of them at most. A chart is done
once Kafka has acknowledged its bars. What is done stands in a file of the producer's folder and is not fetched again,
except where the day was not over yet. A crash repeats the last few, with the same identities.

**One of an account's producers does it.** Each says on `status` what its bars came to (`bars/ACCOUNT/PRODUCER`) and
looks there before it begins, after a wait that its name decides: if another one is at work or done, it leaves the day
to it, and takes over when that one falls silent. Should two begin all the same, every bar is there twice under one
identity.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from streams.events import KST, HitstreamError, Record, Status

from . import files, metrics
from .calendar import Calendar
from .day_bars import Day, Failure, Memory, Progress, Wanted, planned, words
from .hit_codes import Codes
from .kiwoom import charts
from .kiwoom.charts import Chart, ChartBroken, Pages
from .kiwoom.errors import CallRefused, Maintenance, RateLimited, Unreachable
from .settings import BarsSettings

_log = structlog.get_logger(__name__)

_Answer = TypeVar("_Answer")

PREFIX: Final = "bars"
_LOOK_EVERY: Final = 0.5
_SAY_RUNNING_EVERY: Final = 5.0
_SAY_EVERY: Final = 30.0
_AGAIN: Final = 300.0
_SILENT: Final = 60.0  # Real seconds without a word after which another producer is no longer at work.
_STAGGER: Final = 16  # Real seconds over which the producers of an account begin.
_BATCH: Final = 10  # Charts between two looks at Kafka.
_PAUSES: Final = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # Real seconds, while Kiwoom answers nobody.
_PATIENCE: Final = 12  # Pauses without a single answer between them, after which a run is given up for now.
_TRIES: Final = 3
_OWED: Final = 5  # Trading days that are caught up.
_KEPT: Final = 10
_SEARCHED_DAYS: Final = 30
_TELL_EVERY: Final = 0.2


class Run:
    """A day's bars that somebody asked for, or that are due: how far they are, and when they are done."""

    def __init__(self, day: date, *, again: bool, due: bool = False) -> None:
        self.day = day
        self.again = again
        self.due = due
        self.progress = Progress(date=day, state="waiting")
        self.over = asyncio.Event()


class Kafka(Protocol):
    """The way to Kafka: `Publisher`."""

    def offer(self, record: Record, *, passing: bool = False) -> None:
        """Take a record."""

    async def room(self, share: float = 0.5) -> None:
        """Wait until there is room."""

    async def flush(self) -> None:
        """Wait until all is acknowledged."""


class Stocks(Pages, Protocol):
    """Who asks Kiwoom: `Rest`."""

    async def companies(self) -> list[str]:
        """The codes of all companies' shares."""


class NotADay(HitstreamError):
    """There are no bars of this day to be had."""


class Bars:
    """The bars of one producer.

    Args:
        settings: when, and how large the sample is.
        account, producer: whose bars, and who fetches them.
        rest: asks Kiwoom.
        kafka: takes the bars and statuses.
        codes: what was hit on which day, from a day on.
        statuses: what the account's producers last said of their bars; None: there are no others.
        now: the product's clock; `speed` its seconds per real second.
        calendar: the calendar in force.
        folder: where it is remembered what was done.
        again: real seconds until a run that was given up is tried again.
        pauses: real seconds to wait while Kiwoom answers nobody; the last one repeats.
        stagger: real seconds to wait before a day is begun; None: what the producer's name makes of it.
    """

    def __init__(
        self,
        settings: BarsSettings,
        *,
        account: str,
        producer: str,
        rest: Stocks,
        kafka: Kafka,
        codes: Callable[[date], Awaitable[Mapping[date, Codes]]],
        statuses: Callable[[], Awaitable[list[Status]]] | None = None,
        now: Callable[[], datetime],
        calendar: Callable[[], Calendar],
        folder: Path,
        speed: float = 1.0,
        again: float = _AGAIN,
        pauses: tuple[float, ...] = _PAUSES,
        stagger: float | None = None,
    ) -> None:
        self._settings = settings
        self._at = time.fromisoformat(settings.at)
        self._account = account
        self._component = f"{PREFIX}/{account}/{producer}"
        self._producer = producer
        self._rest = rest
        self._kafka = kafka
        self._codes = codes
        self._statuses = statuses
        self._now = now
        self._calendar = calendar
        self._speed = speed
        self._again = again
        self._pauses = pauses
        self._stagger = float(sum(producer.encode()) % _STAGGER) if stagger is None else stagger
        self._file = folder / f"bars-{account}-{producer}.json"
        self._memory = files.read(self._file, Memory, Memory())
        self._asked: list[Run] = []
        self._at_work: Run | None = None
        self._wake = asyncio.Event()
        self._said = Progress(date=self._today, state="scheduled")
        self._said_at = 0.0
        self._since = now()

    # -- asked for

    def ask(self, day: date | None = None, *, again: bool = False) -> Run:
        """Have a day's bars fetched as soon as nothing else is; None is the last day that has any.

        Args:
            again: also those that are there already.

        Raises:
            NotADay: the day is no trading day, or yet to come.
        """
        day = day or self._latest()
        if day > self._today:
            raise NotADay(f"{day} is yet to come: there are no bars of it")
        if not self._calendar().trades_on(day):
            raise NotADay(f"{day} is no trading day: there are no bars of it")
        at_work = [run for run in (self._at_work, *self._asked) if run is not None]
        if (run := next((run for run in at_work if run.day == day and (run.again or not again)), None)) is None:
            run = Run(day, again=again)
            self._asked.append(run)
            self._wake.set()
        return run

    # -- the task

    async def run(self) -> None:
        """Do whatever is asked for or due, until cancelled."""
        loop = asyncio.get_running_loop()
        if not self._settings.enabled and self._memory.since is not None:
            self._memory.since = None
            self._write()
            self._say(Progress(date=self._today, state="retired", cause="no longer wanted"))
        elif self._settings.enabled:
            self._memory.since = self._memory.since or self._today
            self._write()
            self._say(self._remembered())
        look_after = 0.0
        while True:
            while self._asked:
                await self._serve(self._asked.pop(0))
            if self._settings.enabled and loop.time() >= look_after and (day := self._due()) is not None:
                look_after = loop.time() + (0.0 if await self._settled(day) else self._again)
            if self._settings.enabled and loop.time() - self._said_at >= _SAY_EVERY:
                self._say(self._said)
            self._wake.clear()
            if not self._asked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY):
                        await self._wake.wait()

    async def once(self, day: date | None = None, *, again: bool = False, tell: Callable[[Progress], None]) -> Progress:
        """One day's bars, here and now, for a process that does nothing else.

        Raises:
            NotADay: the day is no trading day, or yet to come.
        """
        run = self.ask(day, again=again)
        self._asked.remove(run)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._serve(run), name="bars")
            while not run.over.is_set():
                tell(run.progress)
                await asyncio.wait((serving,), timeout=_TELL_EVERY)
        return run.progress

    async def _serve(self, run: Run) -> None:
        self._at_work = run
        said = self._said
        try:
            await _Fetching(self, run).fetch()
        except NotADay as error:
            run.progress = msgspec.structs.replace(run.progress, state="failed", cause=str(error))
            self._say(said)  # nothing is wrong with the bars
        except HitstreamError as error:
            run.progress = msgspec.structs.replace(run.progress, state="failed", cause=str(error))
            self._say(run.progress)
            _log.warning("bars were not fetched", day=str(run.day), cause=str(error))
        except Exception as error:
            # Bars are no reason to end the session that hears hits: a fault in here stays in here, and is said.
            run.progress = msgspec.structs.replace(run.progress, state="failed", cause=f"a fault of ours: {error!r}")
            self._say(run.progress)
            _log.exception("bars were not fetched", day=str(run.day))
        finally:
            self._at_work = None
            run.over.set()

    async def _settled(self, day: date) -> bool:
        """Do a day that is due, or leave it to another producer; whether there is nothing to be tried again."""
        await asyncio.sleep(self._stagger)
        state, name = await self._other(day)
        if state == "running":
            self._say(Progress(date=day, state="standby", cause=f"{name} is fetching the bars of {day}"))
            return False
        if state == "done":
            self._memory.days[day] = Day(state="done", cause=f"fetched by {name}")
            self._write()
            self._say(Progress(date=day, state="standby", cause=f"{name} has fetched the bars of {day}"))
            return True
        run = Run(day, again=False, due=True)
        await self._serve(run)
        return run.progress.state == "done"

    async def _other(self, day: date) -> tuple[str, str]:
        """Whether another producer is at the day's bars (`running`) or has them (`done`), and its name."""
        if self._statuses is None:
            return "", ""
        try:
            said = await self._statuses()
        except HitstreamError as error:
            _log.warning("what other producers say of their bars is not known", cause=str(error))
            return "", ""
        for status in said:
            if status.component == self._component or status.figures.get("day") != _number(day):
                continue
            silent = (self._now() - status.at).total_seconds() / self._speed > _SILENT
            if status.state == "done" or (status.state == "running" and not silent):
                return status.state, status.component.rpartition("/")[2]
        return "", ""

    # -- the days

    @property
    def _today(self) -> date:
        return self._now().astimezone(KST).date()

    def _before(self, day: date) -> date | None:
        """The trading day before a day."""
        days = (day - timedelta(days=n) for n in range(1, _SEARCHED_DAYS))
        return next((each for each in days if self._calendar().trades_on(each)), None)

    def _over(self, day: date) -> bool:
        """Whether a day has all the bars that it will ever have."""
        if day != self._today:
            return day < self._today
        calendar = self._calendar()
        hours = calendar.day(day)
        if calendar.always or calendar.trading(self._now()):
            return False
        return hours is None or self._now() >= datetime.combine(day, hours.close, KST)

    def _latest(self) -> date:
        """The last day that may have bars: today from the open on, else the trading day before."""
        calendar, today = self._calendar(), self._today
        if calendar.always or (calendar.trades_on(today) and calendar.phase(self._now()) != "before"):
            return today
        return self._before(today) or today

    def _due(self) -> date | None:
        """The first of the last days whose time has come and whose bars are not there.

        A market that never closes is over at midnight; one that closes late today, when it has.
        """
        days: list[date] = []
        day = self._today
        for _ in range(_SEARCHED_DAYS):
            if self._memory.since is None or day < self._memory.since or len(days) == _OWED:
                break
            if self._calendar().trades_on(day):
                days.append(day)
            day -= timedelta(days=1)
        for day in reversed(days):
            known = self._memory.days.get(day)
            come = self._calendar().always or self._now() >= datetime.combine(day, self._at, KST)
            if come and self._over(day) and (known is None or known.state != "done"):
                return day
        return None

    def _next(self) -> datetime | None:
        """When bars are next fetched by the clock."""
        if not self._settings.enabled:
            return None
        for day in (self._today + timedelta(days=n) for n in range(_SEARCHED_DAYS)):
            if self._calendar().always:
                return datetime.combine(day + timedelta(days=1), time(), KST)
            moment = datetime.combine(day, self._at, KST)
            if self._calendar().trades_on(day) and moment > self._now():
                return moment
        return None

    # -- what is said and remembered

    def _remembered(self) -> Progress:
        """What the last day came to, after a restart."""
        done = [day for day, known in self._memory.days.items() if known.state == "done"]
        if not done:
            return Progress(date=self._today, state="scheduled")
        known = self._memory.days[max(done)]
        wanted = [Wanted(*key.split("/", 1)) for key in known.fetched.keys() | known.failed.keys()]
        return Progress.of(
            max(done), "done", known.cause, wanted, known.fetched, known.failed, sample=len(known.sample)
        )

    def _say(self, progress: Progress) -> None:
        """Publish how far the bars are: a status, and the figures for Prometheus."""
        if progress.state != self._said.state:
            self._since = self._now()
        self._said = progress
        self._said_at = asyncio.get_running_loop().time()
        figures = {
            "expected": progress.expected, "fetched": progress.fetched, "empty": progress.empty,
            "failed": progress.failed, "missing": progress.missing,
        }  # fmt: skip
        for state, value in figures.items():
            metrics.CHARTS.labels(state).set(value)
        told = {name: float(value) for name, value in figures.items()} | {"bars": float(progress.bars)}
        if progress.state not in ("scheduled", "standby", "retired"):
            told["day"] = _number(progress.date)
        told["good"] = float(progress.state not in ("failed", "incomplete"))
        cause = progress.cause
        if progress.expected:
            cause = f"{progress.date}: {words(progress)}" + (f"; {cause}" if cause else "")
        if progress.state != "retired" and (coming := self._next()) is not None:
            told["next"] = coming.timestamp()
            cause = "; ".join(part for part in (cause, f"next {coming:%m-%d %H:%M}") if part)
        self._kafka.offer(
            Status(
                component=self._component,
                kind="diagnosis",
                state=progress.state,
                cause=cause,
                since=self._since,
                at=self._now(),
                account=self._account,
                figures=told,
            )
        )

    def _write(self) -> None:
        for day in sorted(self._memory.days)[:-_KEPT]:
            del self._memory.days[day]
        files.replace(self._file, self._memory, "what was fetched could not be kept: a restart may fetch it again")


class _Fetching:
    """One run over a day's charts."""

    def __init__(self, bars: Bars, run: Run) -> None:
        self._bars = bars
        self._run = run
        self._over = bars._over(run.day)
        # A day that goes on has more bars later: nothing of it is remembered.
        self._kept = bars._memory.days.setdefault(run.day, Day()) if self._over else Day()
        if run.again:
            self._kept.fetched, self._kept.failed = {}, {}
        self._kept.failed = {key: each for key, each in self._kept.failed.items() if each.tries < _TRIES}
        self._wanted: list[Wanted] = []
        self._hit = 0
        self._unreadable = 0
        self._unsettled: dict[str, int] = {}
        self._said_at = asyncio.get_running_loop().time()

    async def fetch(self) -> None:
        """Fetch what is wanted and not there, and say what it came to."""
        bars, kept, day = self._bars, self._kept, self._run.day
        self._tell("running", "reading which stocks were hit", say=True)
        before = bars._before(day)
        codes = await bars._codes(before or day)
        self._hit = len(codes.get(day, Codes()).hit)
        # On a market that never closes any day may have been one: what was hit on it tells.
        calendar = bars._calendar()
        if not self._run.due and calendar.always and day != bars._today and not (self._hit or calendar.day(day)):
            raise NotADay(f"{day} is no trading day, and nothing was hit on it: there are no bars of it")
        if not kept.sample and bars._settings.sample:
            kept.sample = charts.sample(await self._patiently(bars._rest.companies), bars._settings.sample)
        self._wanted = planned(day, before, codes, kept.sample, over=self._over)
        self._tell("running", "", say=True)
        for each in self._wanted:
            if each.key not in kept.fetched:
                await self._one(each)
                self._tell("running", "")
        await self._settle()
        state, cause = self._outcome()
        kept.state, kept.cause = state, cause
        bars._write()
        self._tell(state, cause, say=True)
        progress = self._run.progress
        log = _log.info if state == "done" and not progress.failed else _log.warning
        log("bars", day=str(day), state=state, charts=words(progress), bars=progress.bars, cause=cause)

    async def _one(self, each: Wanted) -> None:
        kept = self._kept
        try:
            chart = await self._patiently(lambda: self._chart(each))
        except (CallRefused, ChartBroken) as error:
            before = kept.failed.get(each.key)
            kept.failed[each.key] = Failure(tries=before.tries + 1 if before else 1, cause=str(error))
            return
        kafka = self._bars._kafka
        await kafka.room(0.25)
        for bar in chart.bars:
            kafka.offer(bar)
        metrics.BARS.labels(each.interval).inc(len(chart.bars))
        kept.failed.pop(each.key, None)
        self._unreadable += chart.unreadable
        self._unsettled[each.key] = len(chart.bars)
        if len(self._unsettled) >= _BATCH:
            await self._settle()

    async def _chart(self, each: Wanted) -> Chart:
        fetch = charts.minutes if each.interval == "1m" else charts.daily
        sample = each.code in self._kept.sample
        return await fetch(self._bars._rest, each.code, self._run.day, sample=sample, received_at=self._bars._now())

    async def _settle(self) -> None:
        """What Kafka has acknowledged is done."""
        await self._bars._kafka.flush()
        self._kept.fetched |= self._unsettled
        self._unsettled = {}
        if self._over:
            self._bars._write()

    async def _patiently(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask, and ask again for as long as Kiwoom answers nobody.

        Raises:
            KiwoomError: it refuses, or has answered nobody for minutes.
        """
        for attempt in range(_PATIENCE):
            try:
                return await call()
            except (RateLimited, Unreachable, Maintenance) as error:
                pause = self._bars._pauses[min(attempt, len(self._bars._pauses) - 1)]
                self._tell("running", f"waiting {pause:g} s: {error}", say=attempt > 1)
                _log.info("bars wait", seconds=pause, cause=str(error))
                await asyncio.sleep(pause)
        return await call()

    def _outcome(self) -> tuple[str, str]:
        """What the run has come to: `done`, `incomplete` (some is tried again) or `partial` (the day goes on)."""
        failed, causes = self._kept.failed, []
        if failed:
            most, count = Counter(each.cause for each in failed.values()).most_common(1)[0]
            causes.append(f"refused: {most}" + (f" (and {len(failed) - count} others)" if count < len(failed) else ""))
        if self._unreadable:
            causes.append(f"{self._unreadable} rows could not be read")
        if not self._hit:
            causes.append("no hit of this day is on Kafka")
        if not self._over:
            return "partial", "; ".join([*causes, "the day goes on: all of it is fetched after the close"])
        again = any(each.tries < _TRIES for each in failed.values())
        return "incomplete" if again else "done", "; ".join(causes)

    def _tell(self, state: str, cause: str, *, say: bool = False) -> None:
        """Let whoever asked see how far it is, and everybody else every few seconds."""
        kept, loop = self._kept, asyncio.get_running_loop()
        self._run.progress = Progress.of(
            self._run.day,
            state,
            cause,
            self._wanted,
            kept.fetched | self._unsettled,
            kept.failed,
            hit=self._hit,
            sample=len(kept.sample),
        )
        if say or loop.time() - self._said_at >= _SAY_RUNNING_EVERY:
            self._said_at = loop.time()
            self._bars._say(self._run.progress)


def _number(day: date) -> float:
    """A day as a figure: 20260309."""
    return float(f"{day:%Y%m%d}")
