"""One-shot searches: asked for by a person, or scheduled for every trading day.

`search` asks a session – ours or a borrowed one – and makes one `SearchResult`: all pages or none. Where Kiwoom leaves
one-shot searches unanswered while realtime requests are answered, it takes who is in the condition from the realtime
side, without disturbing what is live there, adds prices over REST, and says so (`source="snapshot"`).

The schedule is pure: `due` says which runs a moment owes, given what was done. A run belongs to its day: one that was
missed, because the machine slept or the process was down, is caught up on the same day or reported as missed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Final, Literal, NamedTuple

from streams.events import KST, HitstreamError, SearchResult, SearchRow, identity

from .kiwoom import frames
from .kiwoom.line import Line, ask
from .kiwoom.rest import Rest

_MOST_PAGES: Final = 100
_REGISTERED: Final = 900003
_SEARCHED_DAYS: Final = 366


class SearchFailed(HitstreamError):
    """The search was not answered, or refused."""


class NoSuchCondition(HitstreamError):
    """The account has no condition of that name."""


class Found(NamedTuple):
    """What a search found, before it is a record."""

    seq: str
    rows: tuple[SearchRow, ...]
    source: Literal["search", "snapshot"]


async def conditions(line: Line, *, within: float = 5.0) -> tuple[tuple[str, str], ...]:
    """The account's saved conditions as (seq, name).

    Raises:
        SearchFailed: the list was not answered or refused.
        Unreachable: the connection has ended.
    """
    reply = await ask(line, frames.ListRequest().text(), within)
    if not isinstance(reply, frames.ListReply):
        raise SearchFailed(f"CNSRLST was not answered within {within:g} s: `hitstream doctor` says why")
    if reply.code != 0:
        raise SearchFailed(f"CNSRLST was refused ({reply.code} {reply.message})")
    return reply.conditions


async def search(
    line: Line,
    name: str,
    *,
    account: str,
    now: Callable[[], datetime],
    rest: Rest | None,
    seq: str = "",
    stex_tp: Literal["K", "N", "A", ""] = "K",
    scheduled_for: datetime | None = None,
    within: float = 5.0,
) -> SearchResult:
    """Search once.

    Args:
        line: the session to ask.
        name: the condition; `seq` only where two have one name.
        now: the product's clock.
        rest: for the prices where the search itself gives none; None: rows then have codes only.
        scheduled_for: the planned time of a scheduled run; it makes the identity.
        within: real seconds to wait for each answer.

    Raises:
        NoSuchCondition, SearchFailed: said in a sentence.
        Unreachable: the connection has ended.
    """
    at = now()
    number = resolved(name, seq, await conditions(line, within=within))
    found = await _one_shot(line, number, stex_tp or "K", within)
    if found is None:
        found = await _from_realtime(line, name, number, stex_tp, rest, within)
    stamp = scheduled_for or at
    return SearchResult(
        id=identity("search", account, name, stamp.astimezone(KST).isoformat(), *(() if scheduled_for else ("asked",))),
        account=account,
        condition=name,
        seq=number,
        rows=found.rows,
        at=at.astimezone(KST),
        received_at=now(),
        session=line.name,
        scheduled_for=scheduled_for.astimezone(KST) if scheduled_for else None,
        source=found.source,
    )


def resolved(name: str, seq: str, listed: Sequence[tuple[str, str]]) -> str:
    """The seq of a condition in a list.

    Raises:
        NoSuchCondition: it is not there, or there twice and `seq` does not say which.
    """
    numbers = [number for number, title in listed if _same(title) == _same(name)]
    if seq and seq in numbers:
        return seq
    if not numbers:
        names = ", ".join(title for _, title in listed) or "none"
        raise NoSuchCondition(f"the account has no condition named {name}; it has: {names}")
    if len(numbers) > 1 or seq:
        raise NoSuchCondition(f"{name} has the numbers {', '.join(numbers)}: set seq to say which one is meant")
    return numbers[0]


async def _one_shot(line: Line, seq: str, stex_tp: Literal["K", "N", "A"], within: float) -> Found | None:
    """All pages of a search; None if it is not answered. One that breaks off is asked for once more from its start."""
    for _ in range(2):
        rows: dict[str, SearchRow] = {}
        request = frames.SearchRequest(seq=seq, stex_tp=stex_tp)
        for _ in range(_MOST_PAGES):
            reply = await ask(line, request.text(), within)
            if not isinstance(reply, frames.ConditionReply):
                break
            if reply.code != 0:
                raise SearchFailed(f"the search was refused ({reply.code} {reply.message})")
            rows |= {row.code: row for row in reply.rows}
            if reply.complete:
                return Found(seq, tuple(rows.values()), "search")
            if not reply.next_key or reply.next_key == request.next_key:
                break
            request = frames.SearchRequest(seq=seq, stex_tp=stex_tp, cont_yn="Y", next_key=reply.next_key)
    return None


async def _from_realtime(
    line: Line, name: str, seq: str, stex_tp: Literal["K", "N", "A", ""], rest: Rest | None, within: float
) -> Found:
    """Who is in the condition, from the realtime side.

    A condition that is registered refuses the request (900003): then the session's owner knows its members. One that
    is not gives a fresh snapshot, and is cleared again.
    """
    reply = await ask(line, frames.RealtimeRequest(seq=seq, search_type="1", stex_tp=stex_tp).text(), within)
    if not isinstance(reply, frames.ConditionReply):
        raise SearchFailed(
            f"{name} was not answered within {within:g} s, for types 0 and 1: `hitstream doctor` says why"
        )
    known = next((members for title, members in line.members.items() if _same(title) == _same(name)), None)
    if reply.code == 0 and reply.complete:
        codes = tuple(dict.fromkeys(member.code for member in reply.members))
        if known is None:
            await ask(line, frames.ClearRequest(seq=seq).text(), within)
    elif reply.code == _REGISTERED and known is not None:
        codes = tuple(known)
    else:
        raise SearchFailed(f"{name} was refused ({reply.code} {reply.message})")
    priced = await rest.prices(codes) if rest is not None and codes else {}
    return Found(seq, tuple(priced.get(code, SearchRow(code=code)) for code in codes), "snapshot")


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


# --- the schedule -----------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One planned run of something, by the market's clock (KST)."""

    name: str
    at: datetime

    @property
    def key(self) -> str:
        """How it is remembered."""
        return f"{self.name}@{self.at:%H:%M}"


class Plan(NamedTuple):
    """What is to be run every trading day: (name, time of day in KST)."""

    times: tuple[tuple[str, time], ...]

    def on(self, day: date) -> list[Run]:
        """The runs of a day, in order."""
        runs = [Run(name, datetime.combine(day, at, KST)) for name, at in self.times]
        return sorted(runs, key=lambda run: (run.at, run.name))


def due(plan: Plan, now: datetime, done: Mapping[str, date], trading: Callable[[date], bool]) -> list[Run]:
    """The runs of today whose time has come and that were not done yet.

    Args:
        done: a run's key → the day on which it was last done.
        trading: whether a day is a trading day.
    """
    today = now.astimezone(KST).date()
    if not trading(today):
        return []
    return [run for run in plan.on(today) if run.at <= now and done.get(run.key) != today]


def missed(
    plan: Plan, now: datetime, done: Mapping[str, date], since: date | None, trading: Callable[[date], bool]
) -> list[Run]:
    """The runs that were never done, of the days from `since` until yesterday.

    Args:
        since: the last day on which the plan was watched; None: never before.
    """
    today = now.astimezone(KST).date()
    runs: list[Run] = []
    day = since
    while day is not None and day < today:
        if trading(day):
            runs += [run for run in plan.on(day) if (last := done.get(run.key)) is None or last < day]
        day += timedelta(days=1)
    return runs


def next_run(plan: Plan, after: datetime, trading: Callable[[date], bool], names: Collection[str] = ()) -> Run | None:
    """The first run after a moment, of these names or of all; None if there is nothing planned."""
    first = after.astimezone(KST).date()
    if not plan.times:
        return None
    for day in (first + timedelta(days=n) for n in range(_SEARCHED_DAYS)):
        if trading(day):
            for run in plan.on(day):
                if run.at > after and (not names or run.name in names):
                    return run
    return None


def planned(names_and_times: Iterable[tuple[str, Iterable[time]]]) -> Plan:
    """A plan from settings."""
    return Plan(tuple((name, at) for name, times in names_and_times for at in times))
