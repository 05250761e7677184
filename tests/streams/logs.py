"""Random logs, as two producers, a clock, a person, retries and midnights write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from streams.events import (
    KST,
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    Due,
    Gap,
    Recommend,
    SearchReason,
    SearchResult,
    SearchRow,
    StockRecord,
    Transition,
    Withdraw,
    day_end,
    event_id,
    trading_date,
    transition_id,
)
from streams.settings import ConditionRule

NAMES: Final = ("신고가 돌파", "대왕개미단타")
CODES: Final = ("000660", "005930", "0004V0")
#: A day's morning, and the minutes before two midnights.
STARTS: Final = (datetime(2026, 3, 2, 9, tzinfo=KST), datetime(2026, 3, 2, 23, 59, 40, tzinfo=KST))
NIGHT: Final = 40_000
LATENCY: Final = timedelta(milliseconds=40)


# --- condition-events -------------------------------------------------------------------------------------------------


def event(
    account: str,
    name: str,
    code: str,
    action: Any,
    at: datetime,
    session: str,
    frame: int,
    *,
    heard: datetime | None = None,
    ordinal: int = 0,
    exchange: Any = "KRX",
) -> ConditionEvent:
    """What happened at `at`, as a session heard it at `heard` (at once, if None) in the frame of this number."""
    received_at = ((heard or at) + LATENCY).astimezone(UTC)
    at = at.replace(microsecond=0)
    return ConditionEvent(
        id=event_id(account, name, code, action, at, ordinal),
        account=account,
        condition=name,
        seq="7",
        code=code,
        exchange=exchange,
        action=action,
        at=at,
        ordinal=ordinal,
        received_at=received_at,
        session=session,
        frame=frame,
        entry=1,
    )


def snapshot(
    account: str, name: str, codes: tuple[str, ...], at: datetime, session: str, id_: str
) -> ConditionSnapshot:
    return ConditionSnapshot(
        id=id_, account=account, condition=name, seq="7", codes=codes, at=at,
        received_at=(at + LATENCY).astimezone(UTC), session=session, frame=2,
    )  # fmt: skip


def search(account: str, name: str, codes: tuple[str, ...], at: datetime, id_: str) -> SearchResult:
    rows = tuple(SearchRow(code=code, name=f"{code}주", price=1000 + n) for n, code in enumerate(codes))
    return SearchResult(
        id=id_, account=account, condition=name, seq="7", rows=rows, at=at,
        received_at=(at + LATENCY).astimezone(UTC), session="a", scheduled_for=at.replace(second=0),
    )  # fmt: skip


def condition_day_end(account: str, name: str, day: date) -> Due:
    """The clock's word that a condition's day is over. Its id does not matter to who reads it."""
    return Due(id=f"due-{name}-{day}", kind="day-end", at=day_end(day), account=account, condition=name)


@st.composite
def condition_logs(draw: st.DrawFn, max_size: int = 40) -> list[ConditionRecord]:
    """A partition of `condition-events`.

    Two producers tell the same hits and exits with the same ids, each a little late, each deaf now and then. Between
    them stand snapshots that are true or not, searches, gaps, day-ends in time, too late, twice or never, and parts
    of the log that are told again.
    """
    account = "main"
    records: list[ConditionRecord] = []
    now = draw(st.sampled_from(STARTS))
    inside: set[tuple[str, str]] = set()
    waiting: dict[str, list[ConditionRecord]] = {"a": [], "b": []}  # what a producer has yet to say
    for n in range(draw(st.integers(1, max_size))):
        now += timedelta(seconds=draw(st.sampled_from((0, 0, 0.3, 0.3, 1, 1, 1, 1, 2, 2, 5, 30, 300, NIGHT))))
        name, code, session = draw(st.sampled_from(NAMES)), draw(st.sampled_from(CODES)), draw(st.sampled_from("ab"))
        other = "b" if session == "a" else "a"
        match draw(
            st.sampled_from(
                ("moves",) * 8 + ("says",) * 5 + ("wild", "snapshot", "snapshot", "told again", "due", "gap", "search")
            )
        ):
            case "moves":
                action = "exit" if (name, code) in inside else "hit"
                inside ^= {(name, code)}
                exchange = draw(st.sampled_from(("KRX", "NXT")))
                for hearer in draw(st.sampled_from(("ab", "ab", "a", "b", ""))):
                    waiting[hearer].append(event(account, name, code, action, now, hearer, n, exchange=exchange))
                if draw(st.booleans()):
                    _say(records, waiting[session], 1)
            case "says":
                _say(records, waiting[session], draw(st.integers(1, 5)))
            case "wild":  # what no truth stands behind: an exit of nobody, a hit twice, a second in one second
                at = now - timedelta(seconds=draw(st.sampled_from((0, 1, 3, 90_000))))
                action = draw(st.sampled_from(("hit", "exit")))
                _say(records, waiting[session])  # a session says things in the order in which it heard them
                ordinal = draw(st.integers(0, 1))
                records.append(event(account, name, code, action, at, session, n, heard=now, ordinal=ordinal))
            case "snapshot":
                codes = tuple(code for code in CODES if (name, code) in inside)
                if draw(st.integers(0, 3)) == 0:
                    codes = tuple(draw(st.lists(st.sampled_from(CODES), max_size=3)))
                _say(records, waiting[session])
                now += 2 * LATENCY  # it is asked for after what was heard
                records.append(snapshot(account, name, codes, now, session, f"snapshot-{n}"))
            case "told again" if records:
                start = draw(st.integers(0, len(records) - 1))
                records += records[start : draw(st.integers(start, len(records)))][:9]
            case "due":
                ended = trading_date(now) - timedelta(days=draw(st.sampled_from((1, 1, 2, 0))))
                records.append(condition_day_end(account, name, ended))
            case "gap":
                _say(records, waiting[other])
                start, end = now - timedelta(seconds=9), now - timedelta(seconds=draw(st.integers(0, 3)))
                records.append(
                    Gap(
                        id=f"gap-{n}", account=account, condition=name, from_=start, to=end, cause="reconnect", at=now,
                        received_at=now.astimezone(UTC), session=session,
                    )
                )  # fmt: skip
            case "search":
                codes = tuple(draw(st.lists(st.sampled_from(CODES), max_size=3)))
                records.append(search(account, name, codes, now, f"search-{n}"))
    for words in waiting.values():
        _say(records, words)
    return records


def _say(records: list[ConditionRecord], words: list[ConditionRecord], most: int = 99) -> None:
    records += words[:most]
    del words[:most]


# --- transitions ------------------------------------------------------------------------------------------------------

CONDITIONS: Final = (
    ConditionRule(name="plain"),
    ConditionRule(name="tenth", weight=0.1, algorithm_id="A-7"),
    ConditionRule(name="fifth", weight=0.2),
    ConditionRule(name="held", hold=10),
    ConditionRule(name="cool", cooldown=30, hold=10, weight=0.7),
    ConditionRule(name="morning", window=(time(9, 0), time(10, 0)), cooldown=20),
    ConditionRule(name="night", window=(time(22, 0), time(2, 0)), hold=5),
    ConditionRule(name="against", weight=-0.6),
)


@st.composite
def stock_logs(draw: st.DrawFn, max_size: int = 40) -> list[StockRecord]:
    """A partition of `transitions`: two stocks, visited in turn by conditions, searched, judged by a person.

    The conditions are read by different workers, so their times interleave with some seconds of lateness. The clock
    announces what it passes where it would, late, twice or never; parts of the log are told again.
    """
    names = draw(st.lists(st.sampled_from([*(rule.name for rule in CONDITIONS), "unknown"]), min_size=1, max_size=3))
    codes = draw(st.sampled_from((CODES[:1], CODES[:1], CODES[:2])))
    starts = (datetime(2026, 3, 2, 8, 59, 50, tzinfo=KST), datetime(2026, 3, 2, 9, 59, 50, tzinfo=KST), STARTS[1])
    records: list[StockRecord] = []
    now = draw(st.sampled_from(starts))
    entries: dict[tuple[date, str, str], int] = {}
    inside: dict[tuple[str, str], Transition] = {}
    announced: list[datetime] = []  # moments at which some deadline may lie
    for n in range(draw(st.integers(1, max_size))):
        now += timedelta(seconds=draw(st.sampled_from((0, 1, 5, 5, 10, 10, 10, 10, 20, 20, 20, 30, 30, 30, 60, NIGHT))))
        at = now - timedelta(seconds=draw(st.sampled_from((0, 0, 0, 0, 2, 15))))
        day = trading_date(at)
        code, name = draw(st.sampled_from(codes)), draw(st.sampled_from(names))
        match draw(
            st.sampled_from(
                ("visit",) * 12
                + ("search", "recommend", "recommend", "withdraw", "due", "due", "due", "told again", "day-end")
            )
        ):
            case "visit":
                records += _visit(inside, entries, name, code, at, day)
                announced += [at + timedelta(seconds=wait) for wait in (5, 10, 20)]
            case "search":
                records.append(
                    SearchReason(
                        id=f"{code}-found-{n}", account="main", condition=name, code=code, date=day, at=at,
                        received_at=at.astimezone(UTC), search_id=f"search-{n}",
                    )
                )  # fmt: skip
                announced.append(at + timedelta(seconds=20))
            case "recommend":
                lasts = draw(st.sampled_from((None, None, 5, 60, -1)))
                until = at + timedelta(seconds=lasts) if lasts else None
                records.append(Recommend(id=f"yes-{n}", code=code, by="kim", note="실적", at=at, expires_at=until))
                announced += [at + timedelta(seconds=wait) for wait in (5, 20, 60)]
            case "withdraw":
                records.append(Withdraw(id=f"no-{n}", code=code, by="kim", at=at))
            case "due":
                passed = [moment for moment in announced if moment <= now]
                moment = draw(st.sampled_from([*passed[-4:], day_end(day - timedelta(days=1)), now]))
                records.append(Due(id=f"due-{n}", kind="hold", at=moment, account="main", code=code))
            case "told again" if records:
                start = draw(st.integers(0, len(records) - 1))
                records += records[start : draw(st.integers(start, len(records)))][:9]
            case "day-end":
                now = max(now, day_end(day))
                for condition, stock in sorted(inside):
                    if inside[condition, stock].date == day:
                        records.append(_exit(inside.pop((condition, stock)), day_end(day), "day-end"))
    return records


def _visit(
    inside: dict[tuple[str, str], Transition], entries: dict[tuple[date, str, str], int], name: str, code: str,
    at: datetime, day: date,
) -> list[StockRecord]:  # fmt: skip
    """The next transition of a stock in a condition; where a day has passed unsaid, its end first."""
    told: list[StockRecord] = []
    visit = inside.get((name, code))
    if visit is not None and visit.date < day:
        told.append(_exit(inside.pop((name, code)), day_end(visit.date), "day-end"))
        visit = None
    if visit is not None:
        return [*told, _exit(inside.pop((name, code)), max(at, visit.at), "realtime")]
    entry = entries[day, name, code] = entries.get((day, name, code), 0) + 1
    visit = Transition(
        id=transition_id("main", name, code, day, entry, "entered"), account="main", condition=name, code=code,
        kind="entered", origin="realtime", date=day, entry=entry, at=at, since=at, event_id=f"e{entry}", session="a",
        received_at=(at + LATENCY).astimezone(UTC),
    )  # fmt: skip
    inside[name, code] = visit
    return [*told, visit]


def _exit(visit: Transition, at: datetime, origin: Any) -> Transition:
    return msgspec.structs.replace(
        visit,
        id=transition_id(visit.account, visit.condition, visit.code, visit.date, visit.entry, "exited"),
        kind="exited",
        origin=origin,
        at=at,
        dwell=(at - visit.since).total_seconds(),
        received_at=(at + LATENCY).astimezone(UTC),
    )
