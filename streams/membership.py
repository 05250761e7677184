"""Membership: which stocks a condition holds, and what each record changes. This is the deduplication.

Pure: no clock, no Kafka, no Faust. `apply` takes what is remembered of one (account, condition) and one record, and
returns what to remember, what to publish and what was ignored, and why. `streams.lane` keeps the state of a partition
and `streams.app` feeds it; what a transition is worth is `streams.recommend`'s business.

The idea that makes it safe to be killed: every remembered value carries the *position* (offset) of the last record
that is in it. Values are written one by one, so a crash can leave some of them ahead of others; the records are then
read again, and each value leaves alone what it already holds. `Effect.members` is written before `Effect.day`, and
what is forgotten after it: a `Day` at a position proves that every member is there too.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

import msgspec

from .events import (
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    Due,
    Exchange,
    Gap,
    SearchReason,
    SearchResult,
    SearchRow,
    Transition,
    day_end,
    identity,
    trading_date,
    transition_id,
)

#: A snapshot leaves a stock alone that another session changed later than this before the request: Kiwoom's reply may
#: not know of that change yet.
SNAPSHOT_GRACE: Final = timedelta(seconds=2)

# What is remembered holds no cycle (`gc=False`): the collector would walk over a million values each time.

Origin = Literal["realtime", "snapshot", "day-end"]
Reason = Literal["repeat", "late", "exit-without-hit", "left-alone", "replayed"]
Place = tuple[datetime, int, int]


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is remembered of a stock in a condition on the trading `date`.

    `since` is when the current or last visit began. `changed_at`, `session` and `received_at` are those of the record
    that last made it enter or leave, and `place` is where this record stood in what its session heard: when it came,
    in which frame, as which entry. `doubted` are session and time of a snapshot that said otherwise and was left
    alone, until that session says more. `seen` holds a mark of every record's `id` that was about it today.
    """

    date: date
    inside: bool = False
    entry: int = 0
    exchange: Exchange = "KRX"
    since: datetime | None = None
    changed_at: datetime | None = None
    session: str = ""
    received_at: datetime | None = None
    place: Place | None = None
    doubted: tuple[str, datetime] | None = None
    seen: tuple[str, ...] = ()
    position: int = -1


class Day(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the members of a condition share: the trading `date` and what of it was seen.

    `listed` says that the day's first snapshot was seen, `seen` holds a mark of every snapshot, search and gap of
    today. `Gap`s are kept until a snapshot closed them; `proof` is when the condition last said something.
    """

    date: date
    listed: bool = False
    seen: tuple[str, ...] = ()
    gap_from: datetime | None = None
    gap_to: datetime | None = None
    proof: datetime | None = None
    position: int = -1


@dataclass(slots=True)
class State:
    """All that is remembered of one (account, condition)."""

    account: str
    condition: str
    day: Day | None = None
    members: dict[str, Member] = field(default_factory=dict)

    def advance(self, effect: Effect) -> None:
        """Take over what a record changed."""
        if effect.day is not None:
            self.day = effect.day
        for code, member in effect.members.items():
            if member is None:
                self.members.pop(code, None)
            else:
                self.members[code] = member

    def deadline(self) -> datetime | None:
        """The day-end that somebody has to announce, None while no stock is a member."""
        if self.day is None or not any(m.inside and m.date == self.day.date for m in self.members.values()):
            return None
        return day_end(self.day.date)


class Ignored(msgspec.Struct, frozen=True):
    """A record, or its part about one stock, that changed nothing, and why."""

    reason: Reason
    code: str = ""


@dataclass(slots=True)
class Effect:
    """What one record changes: values to remember (a member None is forgotten), what to publish, what was ignored."""

    day: Day | None = None
    members: dict[str, Member | None] = field(default_factory=dict)
    outputs: list[Transition | SearchReason] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def day_end_due(account: str, condition: str, day: date) -> Due:
    """The deadline that ends a trading date of a condition."""
    return Due(
        id=identity("due", "day-end", account, condition, day.isoformat()),
        kind="day-end",
        at=day_end(day),
        account=account,
        condition=condition,
    )


def apply(state: State, record: ConditionRecord, position: int) -> Effect:
    """Decide what `record`, which stands at `position` of the log, changes in `state`.

    The same state and record always give the same effect. `state` is not changed: `State.advance` does that.
    """
    effect = Effect()
    day = state.day
    if day is not None and day.position >= position:
        effect.ignored.append(Ignored("replayed"))
        return effect
    date_ = _date_of(record)
    if day is None:
        day = Day(date=date_)
    elif date_ < day.date or (isinstance(record, Due) and date_ == day.date):
        effect.ignored.append(Ignored("repeat" if isinstance(record, Due) else "late"))
        return effect
    if date_ > day.date:
        _close(state, day, record, position, effect)
        day = Day(date=date_)
    if isinstance(record, ConditionEvent):
        day = _event(state, day, record, position, effect)
    elif not isinstance(record, Due):
        mark = _mark(record.id)
        if mark in day.seen:
            effect.ignored.append(Ignored("repeat"))
        else:
            match record:
                case ConditionSnapshot():
                    day = _snapshot(state, day, record, position, effect)
                case SearchResult():
                    _search(day, record, effect)
                case Gap():
                    day = _gap(day, record)
            day = msgspec.structs.replace(day, seen=(*day.seen, mark))
    if effect.members or day != state.day:
        effect.day = msgspec.structs.replace(day, position=position)
    return effect


def _date_of(record: ConditionRecord) -> date:
    """The trading date that a record belongs to. A day-end belongs to the day it begins."""
    if isinstance(record, Due):
        return trading_date(record.at - timedelta(microseconds=1)) + timedelta(days=1)
    return trading_date(record.at)


def _close(state: State, day: Day, record: ConditionRecord, position: int, effect: Effect) -> None:
    """End the trading day: whoever is a member leaves, and every member is forgotten."""
    at = day_end(day.date)
    if isinstance(record, Due):
        at = min(at, record.at)
    due = day_end_due(state.account, state.condition, day.date)
    for code, member in sorted(state.members.items()):
        if member.position >= position or member.date > day.date:
            continue  # it is in the new day already: written before a crash, now read again
        effect.members[code] = None
        if member.inside and member.date == day.date:
            effect.outputs.append(
                _transition(state, code, member, "exited", "day-end", at, due.id, member.session, at.astimezone(UTC))
            )


def _event(state: State, day: Day, event: ConditionEvent, position: int, effect: Effect) -> Day:
    """One hit or exit. Within a session the order of the log decides, so `at` is compared between sessions only."""
    code = event.code
    member = _today(state, code, day)
    mark = _mark(event.id)
    day = _heard(day, event.received_at)
    if member.position >= position:
        effect.ignored.append(Ignored("replayed", code))
        return day
    doubt = member.doubted[1] if member.doubted is not None and member.doubted[0] == event.session else None
    if doubt is not None:
        member = msgspec.structs.replace(member, doubted=None)
    if member.date > day.date or (mark in member.seen and not _follows(member, event)):
        effect.ignored.append(Ignored("repeat", code))
        if doubt is not None and member.date == day.date:
            effect.members[code] = msgspec.structs.replace(member, position=position)
        return day
    kind: Literal["entered", "exited"] = "entered" if event.action == "hit" else "exited"
    changes: list[tuple[Literal["entered", "exited"], Origin]] = []
    if _is_late(member, event):
        effect.ignored.append(Ignored("late", code))
    elif member.inside != (event.action == "hit"):
        changes = [(kind, "realtime")]
    elif doubt is not None and event.at > doubt:
        # Its snapshot was right, and what that knew of comes from another session yet, too late to count. In the
        # snapshot's own second nobody can tell: there it may still come in time.
        changes = [("exited" if member.inside else "entered", "snapshot"), (kind, "realtime")]
    else:
        member = _affirmed(member, event)
        effect.ignored.append(Ignored("repeat" if member.inside else "exit-without-hit", code))
    for change, origin in changes:
        visit, member = _change(member, change, event, event.exchange)
        effect.outputs.append(
            _transition(state, code, visit, change, origin, event.at, event.id, event.session, event.received_at)
        )
    seen = member.seen if mark in member.seen else (*member.seen, mark)
    effect.members[code] = msgspec.structs.replace(member, seen=seen, position=position)
    return day


def _snapshot(state: State, day: Day, snapshot: ConditionSnapshot, position: int, effect: Effect) -> Day:
    """All members at one moment: whoever is missing left, whoever is new came, while nobody was listening."""
    gap_from, gap_to = (day.gap_from or day.proof, day.gap_to or snapshot.at) if day.listed else (None, None)
    listed = set(snapshot.codes)
    for code in (*dict.fromkeys(snapshot.codes), *_missing(state, day, listed)):
        member = _today(state, code, day)
        if member.position >= position or member.date > day.date:
            effect.ignored.append(Ignored("replayed", code))
        elif member.inside == (code in listed):
            pass
        elif _is_newer(member, snapshot):
            effect.ignored.append(Ignored("left-alone", code))
            effect.members[code] = msgspec.structs.replace(
                member, doubted=(snapshot.session, snapshot.at), position=position
            )
        else:
            kind: Literal["entered", "exited"] = "exited" if member.inside else "entered"
            visit, changed = _change(member, kind, snapshot, member.exchange)
            transition = _transition(
                state, code, visit, kind, "snapshot", snapshot.at, snapshot.id, snapshot.session, snapshot.received_at
            )
            initial = kind == "entered" and not day.listed
            effect.outputs.append(
                msgspec.structs.replace(transition, initial=initial, gap_from=gap_from, gap_to=gap_to)
            )
            effect.members[code] = msgspec.structs.replace(changed, position=position)
    day = msgspec.structs.replace(day, listed=True, gap_from=None, gap_to=None)
    return _heard(day, snapshot.received_at)


def _missing(state: State, day: Day, listed: set[str]) -> list[str]:
    return sorted(c for c, m in state.members.items() if m.inside and m.date >= day.date and c not in listed)


def _is_late(member: Member, event: ConditionEvent) -> bool:
    # Kiwoom's times have whole seconds: what happened in the second of a snapshot may have happened after it.
    return (
        member.changed_at is not None
        and member.session != event.session
        and event.at < member.changed_at.replace(microsecond=0)
    )


def _follows(member: Member, event: ConditionEvent) -> bool:
    """Whether the session that made the last change says next that this is over.

    Another session may have said the same before: one that joined in that second and took what came first in it from
    its snapshot. The order within a session decides, so what follows is no repeat of what was heard before the change.
    """
    return (
        member.place is not None
        and member.session == event.session
        and _place(event) > member.place
        and member.inside == (event.action == "exit")
    )


def _place(record: ConditionEvent | ConditionSnapshot) -> Place:
    """Where a record stands in what its session heard; a snapshot stands where its request was sent."""
    if isinstance(record, ConditionSnapshot):
        return record.at, 0, 0
    return record.received_at, record.frame, record.entry


def _affirmed(member: Member, event: ConditionEvent) -> Member:
    """A later word for what is known already: what another session, which is behind, says of before it is late."""
    if member.changed_at is None or event.at <= member.changed_at:
        return member
    return msgspec.structs.replace(member, changed_at=event.at, session=event.session, place=_place(event))


def _is_newer(member: Member, snapshot: ConditionSnapshot) -> bool:
    return (
        member.changed_at is not None
        and member.session != snapshot.session
        and member.changed_at > snapshot.at - SNAPSHOT_GRACE
    )


def _gap(day: Day, gap: Gap) -> Day:
    """Remember when nobody was listening; two gaps that no snapshot parts are one."""
    return msgspec.structs.replace(
        day,
        gap_from=min(gap.from_, day.gap_from) if day.gap_from else gap.from_,
        gap_to=max(gap.to, day.gap_to) if day.gap_to else gap.to,
    )


def _search(day: Day, result: SearchResult, effect: Effect) -> None:
    """One reason per stock found, by its first row; membership stays as it is."""
    for row in _first_rows(result):
        effect.outputs.append(
            SearchReason(
                id=identity("search-reason", result.id, row.code),
                account=result.account,
                condition=result.condition,
                code=row.code,
                exchange=row.exchange,
                name=row.name,
                date=day.date,
                at=result.at,
                received_at=result.received_at,
                price=row.price,
                change_rate=row.change_rate,
                search_id=result.id,
                scheduled_for=result.scheduled_for,
            )
        )


def _first_rows(result: SearchResult) -> Iterable[SearchRow]:
    rows: dict[str, SearchRow] = {}
    for row in result.rows:
        rows.setdefault(row.code, row)
    return rows.values()


def _today(state: State, code: str, day: Day) -> Member:
    """The stock's membership today; one that a crash left from an earlier day is forgotten."""
    member = state.members.get(code)
    return Member(date=day.date) if member is None or member.date < day.date else member


def _heard(day: Day, at: datetime) -> Day:
    return day if day.proof is not None and day.proof >= at else msgspec.structs.replace(day, proof=at)


def _change(
    member: Member,
    kind: Literal["entered", "exited"],
    record: ConditionEvent | ConditionSnapshot,
    exchange: Exchange,
) -> tuple[Member, Member]:
    """The visit that the transition is about, and what is remembered after it."""
    if kind == "entered":
        member = msgspec.structs.replace(
            member, inside=True, entry=member.entry + 1, exchange=exchange, since=record.at
        )
    after = msgspec.structs.replace(
        member,
        inside=kind == "entered",
        changed_at=record.at,
        session=record.session,
        received_at=record.received_at,
        place=_place(record),
        doubted=None,
    )
    return member, after


def _transition(
    state: State,
    code: str,
    member: Member,
    kind: Literal["entered", "exited"],
    origin: Origin,
    at: datetime,
    event_id: str,
    session: str,
    received_at: datetime,
) -> Transition:
    """The transition of a member that has just entered or is about to leave."""
    since = member.since or at
    return Transition(
        id=transition_id(state.account, state.condition, code, member.date, member.entry, kind),
        account=state.account,
        condition=state.condition,
        code=code,
        exchange=member.exchange,
        kind=kind,
        origin=origin,
        date=member.date,
        entry=member.entry,
        at=at,
        since=since,
        dwell=max(0.0, (at - since).total_seconds()) if kind == "exited" else None,
        event_id=event_id,
        session=session,
        received_at=received_at,
    )


def _mark(id_: str) -> str:
    """64 bits of an id in 11 characters: enough to tell a day's ids of one stock apart, small enough to keep them."""
    return base64.b64encode(hashlib.blake2b(id_.encode(), digest_size=8).digest()).decode()[:11]
