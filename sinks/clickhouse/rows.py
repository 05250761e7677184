"""Records as rows: which tables a record goes to, and with which values.

Pure. The tables themselves are in `migrations/`, where each column says what it means; the names here are theirs, and a
test compares the two. Times become whole microseconds since 1970, so that nothing on the way to
ClickHouse can round them or take them for another time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from streams.events import (
    Bar,
    ConditionEvent,
    ConditionSnapshot,
    Due,
    Gap,
    Quote,
    Recommend,
    Recommendation,
    Record,
    SearchReason,
    SearchResult,
    Status,
    Stock,
    Transition,
    Withdraw,
    trading_date,
)

Values = tuple[Any, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_YEAR: Final = 1970  # what ClickHouse's Date and DateTime both hold
_LAST_YEAR: Final = 2105


class Unstorable(ValueError):
    """A record says something that its table can't hold; the text says what."""


class Place(msgspec.Struct, frozen=True):
    """Where a record stood: for audit, never part of its identity."""

    topic: str
    partition: int
    offset: int


class Row(msgspec.Struct, frozen=True):
    """One row of `table`; `values` are in the order of `COLUMNS[table]`."""

    table: str
    values: Values


def rows(record: Record, place: Place) -> list[Row]:
    """The rows of a record: none for one that ClickHouse does not keep (`Due`), several for a search.

    Raises `Unstorable`.
    """
    audit = (place.topic, place.partition, place.offset)
    make = _MAKERS.get(type(record))
    return [Row(table, (*values, *audit)) for table, values in make(record)] if make else []


def _condition_event(e: ConditionEvent) -> Iterator[tuple[str, Values]]:
    yield (
        "condition_events",
        (
            _day(e.at),
            e.account,
            e.condition,
            e.code,
            _micros(e.at),
            e.id,
            e.action,
            e.exchange,
            e.seq,
            e.ordinal,
            _micros(e.received_at),
            e.session,
            e.frame,
            e.entry,
        ),
    )


def _snapshot(s: ConditionSnapshot) -> Iterator[tuple[str, Values]]:
    yield (
        "condition_snapshots",
        (
            _day(s.at),
            s.account,
            s.condition,
            _micros(s.at),
            s.id,
            s.seq,
            list(s.codes),
            len(s.codes),
            _micros(s.received_at),
            s.session,
            s.frame,
        ),
    )


def _search(s: SearchResult) -> Iterator[tuple[str, Values]]:
    day, at, received_at = _day(s.at), _micros(s.at), _micros(s.received_at)
    yield (
        "searches",
        (
            day,
            s.account,
            s.condition,
            at,
            s.id,
            s.seq,
            len(s.rows),
            _maybe(s.scheduled_for),
            s.source,
            received_at,
            s.session,
        ),
    )
    for r in s.rows:
        yield (
            "search_results",
            (
                day,
                s.account,
                s.condition,
                s.id,
                r.code,
                r.exchange,
                at,
                r.name,
                r.price,
                r.change,
                r.change_rate,
                r.open,
                r.high,
                r.low,
                r.volume,
                received_at,
            ),
        )


def _gap(g: Gap) -> Iterator[tuple[str, Values]]:
    yield (
        "gaps",
        (
            _day(g.from_),
            g.account,
            g.condition,
            _micros(g.from_),
            _micros(g.to),
            g.id,
            g.cause,
            _micros(g.at),
            _micros(g.received_at),
            g.session,
        ),
    )


def _transition(t: Transition) -> Iterator[tuple[str, Values]]:
    yield (
        "transitions",
        (
            _held(t.date),
            t.account,
            t.condition,
            t.code,
            t.entry,
            t.kind,
            t.id,
            t.exchange,
            t.origin,
            _micros(t.at),
            _micros(t.since),
            t.dwell,
            t.initial,
            _maybe(t.gap_from),
            _maybe(t.gap_to),
            t.event_id,
            t.session,
            _micros(t.received_at),
        ),
    )


def _search_reason(r: SearchReason) -> Iterator[tuple[str, Values]]:
    yield (
        "search_reasons",
        (
            _held(r.date),
            r.account,
            r.condition,
            r.code,
            r.id,
            r.exchange,
            r.name,
            _micros(r.at),
            _micros(r.received_at),
            r.price,
            r.change_rate,
            r.search_id,
            _maybe(r.scheduled_for),
        ),
    )


def _command(c: Recommend | Withdraw) -> Iterator[tuple[str, Values]]:
    action, expires_at = ("recommend", c.expires_at) if isinstance(c, Recommend) else ("withdraw", None)
    yield (
        "commands",
        (_day(c.at), c.account, c.code, c.id, action, c.by, c.note, _micros(c.at), _maybe(expires_at)),
    )


def _recommendation(r: Recommendation) -> Iterator[tuple[str, Values]]:
    yield (
        "recommendations",
        (
            _held(r.date),
            r.account,
            r.code,
            r.recommendation_id,
            r.revision,
            r.id,
            r.state,
            r.cause,
            r.cause_id,
            r.rule,
            r.score,
            r.threshold,
            [
                (x.kind, x.condition, x.algorithm_id, _micros(x.since), x.visits, x.score, x.by, x.note)
                for x in r.reasons
            ],
            _micros(r.opened_at),
            _micros(r.at),
            _maybe(r.expires_at),
            _micros(r.received_at),
        ),
    )


def _stock(s: Stock) -> Iterator[tuple[str, Values]]:
    yield ("stocks", (s.code, s.name, s.market, s.previous_close, _micros(s.received_at)))


def _quote(q: Quote) -> Iterator[tuple[str, Values]]:
    yield (
        "quotes",
        (
            _day(q.at),
            q.code,
            q.exchange,
            _micros(q.received_at),
            q.session,
            _micros(q.at),
            q.price,
            q.high,
            q.low,
            q.volume,
            q.trades,
            q.change_rate,
            q.day_volume,
        ),
    )


def _bar(b: Bar) -> Iterator[tuple[str, Values]]:
    yield (
        "bars",
        (
            _day(b.at),
            b.code,
            b.interval,
            _micros(b.at),
            b.open,
            b.high,
            b.low,
            b.close,
            b.volume,
            b.value,
            b.sample,
            _micros(b.received_at),
        ),
    )


def _status(s: Status) -> Iterator[tuple[str, Values]]:
    yield (
        "statuses",
        (
            _day(s.at),
            s.component,
            _micros(s.at),
            s.kind,
            s.state,
            s.cause,
            _micros(s.since),
            s.account,
            s.condition,
            s.session,
            _maybe(s.proof_of_life),
            _maybe(s.last_frame),
            _maybe(s.last_ping),
            s.members,
            s.figures,
        ),
    )


def _nothing(_: Record) -> Iterator[tuple[str, Values]]:
    yield from ()


_R = TypeVar("_R", bound=Record)
_MAKERS: Final[dict[type[Record], Callable[[Any], Iterator[tuple[str, Values]]]]] = {
    ConditionEvent: _condition_event,
    ConditionSnapshot: _snapshot,
    SearchResult: _search,
    Gap: _gap,
    Transition: _transition,
    SearchReason: _search_reason,
    Recommend: _command,
    Withdraw: _command,
    Recommendation: _recommendation,
    Stock: _stock,
    Quote: _quote,
    Bar: _bar,
    Status: _status,
    Due: _nothing,  # a deadline changes nothing by itself; what it brings about has records of its own
}

_AUDIT: Final = ("_topic", "_partition", "_offset")


def _columns(names: str) -> tuple[str, ...]:
    return (*names.split(), *_AUDIT)


COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "condition_events": _columns(
        "date account condition code at id action exchange seq ordinal received_at session frame entry"
    ),
    "condition_snapshots": _columns("date account condition at id seq codes members received_at session frame"),
    "searches": _columns("date account condition at id seq stocks scheduled_for source received_at session"),
    "search_results": _columns(
        "date account condition search_id code exchange at name price change change_rate open high low volume"
        " received_at"
    ),
    "gaps": _columns("date account condition from_at to_at id cause at received_at session"),
    "transitions": _columns(
        "date account condition code entry kind id exchange origin at since dwell initial gap_from gap_to event_id"
        " session received_at"
    ),
    "search_reasons": _columns(
        "date account condition code id exchange name at received_at price change_rate search_id scheduled_for"
    ),
    "commands": _columns("date account code id action by note at expires_at"),
    "recommendations": _columns(
        "date account code recommendation_id revision id state cause cause_id rule score threshold reasons opened_at"
        " at expires_at received_at"
    ),
    "stocks": _columns("code name market previous_close received_at"),
    "quotes": _columns("date code exchange received_at session at price high low volume trades change_rate day_volume"),
    "bars": _columns("date code interval at open high low close volume value sample received_at"),
    "statuses": _columns(
        "date component at kind state cause since account condition session proof_of_life last_frame last_ping members"
        " figures"
    ),
}


def _day(at: datetime) -> date:
    return trading_date(_told(at))


def _held(day: date) -> date:
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise Unstorable(f"the date {day.isoformat()} is outside {_FIRST_YEAR}–{_LAST_YEAR}")
    return day


def _told(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise Unstorable(f"the time {at.isoformat()} says no time zone")
    _held(at.date())
    return at


def _micros(at: datetime) -> int:
    return (_told(at) - _EPOCH) // _MICROSECOND


def _maybe(at: datetime | None) -> int | None:
    return None if at is None else _micros(at)
