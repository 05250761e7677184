"""What the producer does by the clock over its session: scheduled one-shot searches and scheduled diagnoses.

It owns when and over which session; what a search or a diagnosis is, `searches` and `kiwoom.doctor` know. Each plan has
a status of its own (kind `diagnosis`): what it last came to and when (`figures.last`), what was missed, when the next
run is (`figures.next`, both Unix seconds of the product's clock). It is remembered across restarts, and said `retired`
once when the plan is gone from the settings.

A run uses the live session, and has one opened where it rests: 15:37 is after the close. If the session is being made
anew, the run waits; a run that fails is tried again every minute until its day is over, and then reported as missed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from streams.events import KST, HitstreamError, Record, Status

from . import files, searches
from .control import Switchboard, Tap
from .kiwoom import verdicts
from .kiwoom.doctor import GOOD, Case
from .kiwoom.errors import Unreachable
from .kiwoom.examination import Examination, Examiner, borrowing
from .kiwoom.rest import Rest
from .kiwoom.token import Tokens
from .searches import Run
from .settings import ConditionSource, KiwoomSettings

_log = structlog.get_logger(__name__)

_LOOK_EVERY: Final = 0.5
_AGAIN: Final = 60.0
_SAY_EVERY: Final = 30.0
_SESSION_WITHIN: Final = 30.0
_DOCTOR: Final = "doctor"

Hours = Literal["open", "before", "closed"]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan last came to, since when, and its figures."""

    state: str
    cause: str = ""
    since: datetime
    figures: dict[str, float] = {}


class Done(msgspec.Struct, kw_only=True):
    """What is remembered across processes: when each run was last done, the last day that was watched, and what each
    plan last came to."""

    runs: dict[str, date] = {}
    watched: date | None = None
    said: dict[str, Said] = {}


class Errands:
    """The scheduled runs of one producer.

    Args:
        board: the running session.
        tokens: the producer's, to see whether Kiwoom gives one where there is no session.
        offer: publishes a record.
        trading: whether a day is a trading day.
        hours: where the trading day is at a moment.
        folder: where it is remembered what was done.
        again: real seconds until a failed run is tried again.
        patience, observe: real seconds that a reply may take, and that a diagnosis listens for events.
        session_within: real seconds to wait for a session.
    """

    def __init__(
        self,
        *,
        kiwoom: KiwoomSettings,
        conditions: Sequence[ConditionSource],
        producer: str,
        board: Switchboard,
        rest: Rest,
        tokens: Tokens | None = None,
        offer: Callable[[Record], None],
        now: Callable[[], datetime],
        trading: Callable[[date], bool],
        hours: Callable[[datetime], Hours],
        folder: Path,
        again: float = _AGAIN,
        patience: float = 5.0,
        observe: float = 20.0,
        session_within: float = _SESSION_WITHIN,
    ) -> None:
        self._kiwoom = kiwoom
        self._conditions = {c.name: c for c in conditions}
        self._producer = producer
        self._board = board
        self._rest = rest
        self._tokens = tokens
        self._offer = offer
        self._now = now
        self._trading = trading
        self._hours = hours
        self._again = again
        self._patience = patience
        self._observe = observe
        self._session_within = session_within
        self._file = folder / f"errands-{kiwoom.account}-{producer}.json"
        self._searches = searches.planned((c.name, c.search_at) for c in conditions)
        self._diagnoses = searches.planned([(_DOCTOR, kiwoom.doctor_at)])
        self._done = Done()
        self._said: dict[str, Said] = {}

    async def run(self) -> None:
        """Do whatever is due, until cancelled."""
        plans = (self._searches, self._diagnoses)
        self._done = files.read(self._file, Done, Done())
        planned = {name for plan in plans for name, _ in plan.times}
        never = Said(state="scheduled", since=self._now())
        self._said = {name: self._done.said.get(name, never) for name in sorted(planned)}
        for name in self._done.said.keys() - planned:
            self._offer(self._status(name, Said(state="retired", cause="no longer planned", since=self._now())))
        self._remember()
        if not planned:
            return
        try_after: dict[str, float] = {}
        said_at = -_SAY_EVERY
        loop = asyncio.get_running_loop()
        for plan in plans:
            for run in searches.missed(plan, self._now(), self._done.runs, self._done.watched, self._trading):
                self._say(
                    run.name, "missed", f"the run of {run.at:%m-%d %H:%M} was missed: the producer was not running"
                )
        while True:
            now = self._now()
            today = now.astimezone(KST).date()
            if self._done.watched is not None and self._done.watched < today:
                for plan in plans:
                    for run in searches.missed(plan, now, self._done.runs, self._done.watched, self._trading):
                        self._say(run.name, "missed", f"the run of {run.at:%m-%d %H:%M} was missed: it never succeeded")
            if self._done.watched != today:
                self._done.watched = today
                self._write()
            if loop.time() - said_at >= _SAY_EVERY:
                said_at = loop.time()
                self._say_all()
            for plan in plans:
                for run in searches.due(plan, now, self._done.runs, self._trading):
                    if loop.time() < try_after.get(run.key, 0.0):
                        continue
                    if await self._try(run):
                        self._done.runs[run.key] = today
                        self._write()
                    else:
                        try_after[run.key] = loop.time() + self._again
            await asyncio.sleep(_LOOK_EVERY)

    # -- one run

    async def _try(self, run: Run) -> bool:
        """Do one run; whether it is done."""
        late = (self._now() - run.at).total_seconds()
        caught_up = f" (caught up {late / 60:.0f} min late)" if late > 120 else ""
        self._say(run.name, "running", f"the run of {run.at:%H:%M}{caught_up}")
        try:
            if run.name == _DOCTOR:
                await self._diagnose(run, caught_up)
            else:
                await self._search(run, caught_up)
        except HitstreamError as error:
            self._say(
                run.name,
                "failed",
                f"the run of {run.at:%H:%M} failed: {error}; it is tried again",
                {"last": self._now().timestamp()},
            )
            _log.warning("a scheduled run failed", name=run.name, at=f"{run.at:%H:%M}", cause=str(error))
            return False
        return True

    async def _search(self, run: Run, caught_up: str) -> None:
        condition = self._conditions[run.name]
        async with self._session() as line:
            result = await searches.search(
                line,
                run.name,
                account=self._kiwoom.account,
                now=self._now,
                rest=self._rest,
                seq=condition.seq,
                stex_tp=self._kiwoom.stex_tp,
                scheduled_for=run.at,
                within=self._patience,
            )
        self._offer(result)
        how = "" if result.source == "search" else ", from the realtime snapshot"
        self._say(
            run.name,
            "done",
            f"{run.at:%m-%d %H:%M}: {len(result.rows)} stocks{how}{caught_up}",
            {"rows": len(result.rows), "last": self._now().timestamp()},
        )

    async def _diagnose(self, run: Run, caught_up: str) -> None:
        done = await self._examine()
        verdict = done.verdict
        language = verdicts.language_of(os.environ)
        words = f"{verdicts.wrong(verdict, language)} {verdicts.remedy(verdict, language)}".strip()
        figures = {"good": float(verdict.cause in GOOD), "last": self._now().timestamp()}
        self._say(_DOCTOR, verdict.cause, f"{run.at:%m-%d %H:%M}: {words}{caught_up}", figures)
        log = _log.info if verdict.cause in GOOD else _log.warning
        log("diagnosis", cause=verdict.cause, sure=verdict.sure, condition=verdict.condition)

    async def _examine(self) -> Examination:
        hours = self._hours(self._now())
        case = Case(
            wanted=tuple((c.name, c.seq) for c in self._conditions.values()),
            stex_tp=self._kiwoom.stex_tp,
            hours=hours,
            up_to_list=hours != "open",
            patience=self._patience,
            observe=self._observe,
        )
        secrets = [self._kiwoom.app_key.get_secret_value(), self._kiwoom.secret_key.get_secret_value()]
        with suppress(Unreachable):  # Then that is what the diagnosis has to say.
            await self._board.there(self._session_within)
        view = self._board.view
        with self._board.tap() as tap:
            borrowed = replace(
                borrowing(case, tap.history, view.states, view.speed),
                connected=view.asking,
                session=": ".join(part for part in view.session if part),
            )
            return await Examiner(
                borrowed,
                url="",
                tokens=self._tokens,
                line=tap,
                # By itself a diagnosis interrupts nothing: a fresh connection only where nothing is live anyway.
                fresh=lambda: self._board.fresh(anyway=False),
                secrets=secrets,
                speed=view.speed,
            ).run()

    # -- the session

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Tap]:
        """The live session, opened if it rests.

        Raises:
            Unreachable: there is none to be had for now.
        """
        await self._board.there(self._session_within)
        with self._board.tap() as tap:
            yield tap

    # -- what is said and remembered

    def _say(self, name: str, state: str, cause: str, figures: Mapping[str, float] | None = None) -> None:
        before = self._said.get(name)
        since = before.since if before is not None and before.state == state else self._now()
        if state == "running":
            # Its last result stands until there is another one: a restart must not find it running for ever.
            self._offer(self._status(name, Said(state=state, cause=cause, since=since)))
            return
        self._said[name] = Said(state=state, cause=cause, since=since, figures=dict(figures or {}))
        self._offer(self._status(name, self._said[name]))
        self._remember()

    def _say_all(self) -> None:
        for name, said in self._said.items():
            self._offer(self._status(name, said))

    def _status(self, name: str, said: Said) -> Status:
        now = self._now()
        doctor = name == _DOCTOR
        figures, cause = dict(said.figures), said.cause
        if said.state != "retired":
            coming = searches.next_run(self._diagnoses if doctor else self._searches, now, self._trading, (name,))
            following = f"next {coming.at:%m-%d %H:%M}" if coming else "no further run"
            cause = "; ".join(part for part in (cause, following) if part)
            if coming:
                figures["next"] = coming.at.timestamp()
        prefix = _DOCTOR if doctor else "search"
        tail = "" if doctor else f"/{name}"
        return Status(
            component=f"{prefix}/{self._kiwoom.account}/{self._producer}{tail}",
            kind="diagnosis",
            state=said.state,
            cause=cause,
            since=said.since,
            at=now,
            account=self._kiwoom.account,
            condition="" if doctor else name,
            figures=figures,
        )

    def _remember(self) -> None:
        self._done.said = dict(self._said)
        self._write()

    def _write(self) -> None:
        files.replace(self._file, self._done, "what was done could not be kept: a restart may search again")
