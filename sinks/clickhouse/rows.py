"""Records as rows: which tables a record goes to, and what stands in which column.

Pure. The tables themselves are in `migrations/`, where each column says what it means; the names here are theirs, and a
test compares the two. Rows are made of many records at once and by column, as ClickHouse takes them: a row by itself
never exists, which costs a fifth of one tuple per record. Times become whole microseconds since 1970 and dates days, so
that nothing on the way to ClickHouse can round them or take them for another time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
from aiokafka import ConsumerRecord

from streams.events import (
    Bar,
    ConditionEvent,
    ConditionSnapshot,
    Gap,
    Quote,
    Recommend,
    Recommendation,
    Record,
    SearchReason,
    SearchResult,
    SearchRow,
    Status,
    Stock,
    Transition,
    Withdraw,
)

from ..consumer import Received

Column = list[Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_MICROS: Final = 86_400_000_000
_KST_MICROS: Final = 9 * 3_600_000_000
_FIRST_YEAR: Final = 1970  # what ClickHouse's Date and DateTime64 both hold
_LAST_YEAR: Final = 2105
_FIRST_DAY: Final = date(_FIRST_YEAR, 1, 1)
_LAST_DAY: Final = date(_LAST_YEAR, 12, 31)
_FIRST_MICROS: Final = -_KST_MICROS
_LAST_MICROS: Final = (_LAST_DAY - _FIRST_DAY).days * _DAY_MICROS + _DAY_MICROS - _KST_MICROS


class Unstorable(ValueError):
    """A record says something that its table can't hold; the text says what."""


class Part(msgspec.Struct, gc=False):
    """Rows of one table: `columns` in the order of `COLUMNS[table]`, and of each row the Kafka record that it is of."""

    table: str
    columns: list[Column]
    sources: list[ConsumerRecord]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, which: slice) -> Part:
        return Part(self.table, [column[which] for column in self.columns], self.sources[which])

    def extend(self, other: Part) -> None:
        """Add the rows of another part of the same table."""
        for column, more in zip(self.columns, other.columns, strict=True):
            column.extend(more)
        self.sources.extend(other.sources)


def parts(received: Iterable[Received]) -> tuple[list[Part], list[tuple[ConsumerRecord, str]]]:
    """The rows of records, a part for each table; and the records that no table can hold, with the reason.

    A record that ClickHouse does not keep (`Due`) has none; a search has several.
    """
    kinds: dict[type[Record], list[Received]] = {}
    for one in received:
        kinds.setdefault(type(one.record), []).append(one)
    made: dict[str, Part] = {}
    refused: list[tuple[ConsumerRecord, str]] = []
    for kind, group in kinds.items():
        if tables := _TABLES.get(kind):
            try:
                whole = [_part(table, group) for table in tables]
            except Unstorable:
                group = _storable(tables, group, refused)  # noqa: PLW2901
                whole = [_part(table, group) for table in tables]
            for part in whole:
                gather(made, part)
    return list(made.values()), refused


def gather(made: dict[str, Part], part: Part) -> None:
    """Add rows to those that there are of their table: two kinds of record may have one, and so do parts of a batch."""
    if (before := made.get(part.table)) is not None:
        before.extend(part)
    elif len(part):
        made[part.table] = part


def _storable(
    tables: Sequence[_Table], group: Sequence[Received], refused: list[tuple[ConsumerRecord, str]]
) -> list[Received]:
    """Those of the records that can be stored. The slow way, for the day on which one can't."""
    good = []
    for one in group:
        try:
            for table in tables:
                _part(table, [one])
        except Unstorable as error:
            refused.append((one.source, str(error)))
        else:
            good.append(one)
    return good


def _part(table: _Table, group: Sequence[Received]) -> Part:
    records: Sequence[Any] = [one.record for one in group]
    sources = [one.source for one in group]
    if table.items is not None:
        found = [list(table.items(record)) for record in records]
        sources = [source for source, items in zip(sources, found, strict=True) for _ in items]
        records = list(chain.from_iterable(found))
    fields = _Fields(records)
    columns = [fill(fields) for fill in table.columns.values()]
    # For audit, never part of an identity: where the record stood.
    columns += [[getattr(source, name) for source in sources] for name in ("topic", "partition", "offset")]
    return Part(table.name, columns, sources)


# --- columns of records -----------------------------------------------------------------------------------------------


class _Fields:
    """Fields of many records, by column. A moment that two columns are made of is converted once."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records
        self._moments: dict[str, list[int]] = {}

    def plain(self, name: str) -> list[Any]:
        return list(map(attrgetter(name), self.records))

    def moments(self, name: str) -> list[int]:
        found = self._moments.get(name)
        if found is None:
            found = self._moments[name] = _micros(self.plain(name))
        return found


Fill = Callable[[_Fields], Column]


def _plain(name: str) -> Fill:
    return lambda fields: fields.plain(name)


def _moment(name: str) -> Fill:
    return lambda fields: fields.moments(name)


def _moment_or_none(name: str) -> Fill:
    def fill(fields: _Fields) -> Column:
        column = fields.plain(name)
        told = [at for at in column if at is not None]
        if not told:
            return column
        micros = iter(_micros(told))
        return [None if at is None else next(micros) for at in column]

    return fill


def _trading_date(name: str) -> Fill:
    """The trading date of a moment: its date in Korea."""
    return lambda fields: [(micros + _KST_MICROS) // _DAY_MICROS for micros in fields.moments(name)]


def _date(name: str) -> Fill:
    def fill(fields: _Fields) -> Column:
        column: list[date] = fields.plain(name)
        for day in set(column):
            if not _FIRST_DAY <= day <= _LAST_DAY:
                raise Unstorable(f"the date {day.isoformat()} is outside {_FIRST_YEAR}–{_LAST_YEAR}")
        first = _FIRST_DAY.toordinal()
        return [day.toordinal() - first for day in column]

    return fill


def _constant(value: object) -> Fill:
    return lambda fields: [value] * len(fields.records)


def _each(make: Callable[[Any], object]) -> Fill:
    return lambda fields: list(map(make, fields.records))


def _micros(moments: list[datetime]) -> list[int]:
    """Moments as microseconds since 1970. Raises `Unstorable`."""
    zone = moments[0].tzinfo if moments else UTC
    # A moment less another one of the very same zone costs a tenth of what it costs across zones. Only one with a fixed
    # offset will do, as all have that come off the wire: in others clock times differ from times.
    epoch = _EPOCH.astimezone(zone) if isinstance(zone, timezone) else _EPOCH
    try:
        micros = [(at - epoch) // _MICROSECOND for at in moments]
    except TypeError:
        at = next(at for at in moments if at.tzinfo is None)
        raise Unstorable(f"the time {at.isoformat()} says no time zone") from None
    if micros and not _FIRST_MICROS <= min(micros) <= max(micros) < _LAST_MICROS:
        at = next(at for at, n in zip(moments, micros, strict=True) if not _FIRST_MICROS <= n < _LAST_MICROS)
        raise Unstorable(f"the time {at.isoformat()} is outside {_FIRST_YEAR}–{_LAST_YEAR}")
    return micros


# --- tables -----------------------------------------------------------------------------------------------------------


class _Table(msgspec.Struct, frozen=True):
    """How a table is filled: each column by its name, of records, or of the `items` that a record has."""

    name: str
    columns: dict[str, Fill]
    items: Callable[[Any], Iterator[Any]] | None = None


def _table(table: str, columns: str, /, **special: Fill) -> _Table:
    """A table whose columns are these, in this order: as told in `special`, else as is usual, else the field itself."""
    names = columns.split()
    assert special.keys() <= set(names), f"{table} has no columns {special.keys() - set(names)}"
    return _Table(table, {name: special[name] if name in special else _usual(name) for name in names})


def _usual(name: str) -> Fill:
    """Moments are moments under whatever table; the date is the trading date of `at`."""
    match name:
        case "date":
            return _trading_date("at")
        case "at" | "received_at" | "since":
            return _moment(name)
    return _plain(name)


class _Found(msgspec.Struct):
    """One stock of a search."""

    search: SearchResult
    row: SearchRow


def _command(action: str, expires_at: Fill) -> _Table:
    return _table(
        "commands",
        "date account code id action by note at expires_at",
        action=_constant(action),
        expires_at=expires_at,
    )


def _reasons(recommendation: Recommendation) -> list[tuple[object, ...]]:
    return [
        (r.kind, r.condition, r.algorithm_id, _micros([r.since])[0], r.visits, r.score, r.by, r.note)
        for r in recommendation.reasons
    ]


_SEARCH_RESULTS: Final = msgspec.structs.replace(
    _table(
        "search_results",
        "date account condition search_id code exchange at name price change change_rate open high low volume"
        " received_at",
        date=_trading_date("search.at"),
        account=_plain("search.account"),
        condition=_plain("search.condition"),
        search_id=_plain("search.id"),
        at=_moment("search.at"),
        received_at=_moment("search.received_at"),
        **{
            name: _plain(f"row.{name}")
            for name in ("code", "exchange", "name", "price", "change", "change_rate", "open", "high", "low", "volume")
        },
    ),
    items=lambda search: (_Found(search, row) for row in search.rows),
)

# A deadline (`Due`) changes nothing by itself; what it brings about has records of its own.
_TABLES: Final[dict[type[Record], tuple[_Table, ...]]] = {
    ConditionEvent: (
        _table(
            "condition_events",
            "date account condition code at id action exchange seq ordinal received_at session frame entry",
        ),
    ),
    ConditionSnapshot: (
        _table(
            "condition_snapshots",
            "date account condition at id seq codes members received_at session frame",
            codes=_each(lambda snapshot: list(snapshot.codes)),
            members=_each(lambda snapshot: len(snapshot.codes)),
        ),
    ),
    SearchResult: (
        _table(
            "searches",
            "date account condition at id seq stocks scheduled_for source received_at session",
            stocks=_each(lambda search: len(search.rows)),
            scheduled_for=_moment_or_none("scheduled_for"),
        ),
        _SEARCH_RESULTS,
    ),
    Gap: (
        _table(
            "gaps",
            "date account condition from_at to_at id cause at received_at session",
            date=_trading_date("from_"),
            from_at=_moment("from_"),
            to_at=_moment("to"),
        ),
    ),
    Transition: (
        _table(
            "transitions",
            "date account condition code entry kind id exchange origin at since dwell initial gap_from gap_to event_id"
            " session received_at",
            date=_date("date"),
            gap_from=_moment_or_none("gap_from"),
            gap_to=_moment_or_none("gap_to"),
        ),
    ),
    SearchReason: (
        _table(
            "search_reasons",
            "date account condition code id exchange name at received_at price change_rate search_id scheduled_for",
            date=_date("date"),
            scheduled_for=_moment_or_none("scheduled_for"),
        ),
    ),
    Recommend: (_command("recommend", _moment_or_none("expires_at")),),
    Withdraw: (_command("withdraw", _constant(None)),),
    Recommendation: (
        _table(
            "recommendations",
            "date account code recommendation_id revision id state cause cause_id rule score threshold reasons"
            " opened_at at expires_at received_at",
            date=_date("date"),
            reasons=_each(_reasons),
            opened_at=_moment("opened_at"),
            expires_at=_moment_or_none("expires_at"),
        ),
    ),
    Stock: (_table("stocks", "code name market previous_close received_at"),),
    Quote: (
        _table(
            "quotes",
            "date code exchange received_at session at price high low volume trades change_rate day_volume",
        ),
    ),
    Bar: (
        _table(
            "bars",
            "date code interval at open high low close volume value sample received_at",
        ),
    ),
    Status: (
        _table(
            "statuses",
            "date component at kind state cause since account condition session proof_of_life last_frame last_ping"
            " members figures",
            proof_of_life=_moment_or_none("proof_of_life"),
            last_frame=_moment_or_none("last_frame"),
            last_ping=_moment_or_none("last_ping"),
        ),
    ),
}

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    table.name: (*table.columns, "_topic", "_partition", "_offset") for tables in _TABLES.values() for table in tables
}
"""The columns of each table, in the order in which they are filled."""

DERIVED: Final = ("day_returns",)
"""Tables that no record goes to: worked out of the others, and again at any time, so that no backup holds them."""
