"""Membership: the table of cases and the bullets beneath it. `test_against_reference` has the random logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from streams import membership
from streams.events import (
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    Due,
    Gap,
    SearchReason,
    SearchResult,
    SearchRow,
    Transition,
    event_id,
    transition_id,
)

DAY = date(2026, 3, 2)


def at(clock: str, day: date = DAY) -> datetime:
    return datetime.fromisoformat(f"{day.isoformat()}T{clock}+09:00")


def heard(moment: datetime) -> datetime:
    return (moment + timedelta(milliseconds=40)).astimezone(UTC)


def event(
    action: Any,
    clock: str,
    *,
    code: str = "005930",
    session: str = "a",
    ordinal: int = 0,
    day: date = DAY,
    frame: int = 1,
) -> Any:
    moment = at(clock, day)
    return ConditionEvent(
        id=event_id("main", "신고가 돌파", code, action, moment, ordinal),
        account="main",
        condition="신고가 돌파",
        seq="7",
        code=code,
        action=action,
        at=moment,
        ordinal=ordinal,
        received_at=heard(moment),
        session=session,
        frame=frame,
        entry=1,
    )


def snapshot(
    codes: Sequence[str], clock: str, *, session: str = "a", day: date = DAY, id_: str = ""
) -> ConditionSnapshot:
    moment = at(clock, day)
    return ConditionSnapshot(
        id=id_ or f"snapshot-{session}-{moment.isoformat()}",
        account="main",
        condition="신고가 돌파",
        seq="7",
        codes=tuple(codes),
        at=moment,
        received_at=heard(moment),
        session=session,
        frame=9,
    )


def gap(start: str, end: str) -> Gap:
    return Gap(
        id=f"gap-{start}-{end}",
        account="main",
        condition="신고가 돌파",
        from_=at(start),
        to=at(end),
        cause="connection lost",
        at=at(end),
        received_at=heard(at(end)),
        session="a",
    )


def search(codes: Sequence[str], clock: str, day: date = DAY) -> SearchResult:
    moment = at(clock, day)
    return SearchResult(
        id=f"search-{moment.isoformat()}",
        account="main",
        condition="신고가 돌파",
        seq="7",
        rows=tuple(SearchRow(code=code, name="종목", price=1000, change_rate=1.5) for code in codes),
        at=moment,
        received_at=heard(moment),
        session="a",
    )


def day_end(day: date = DAY) -> Due:
    return membership.day_end_due("main", "신고가 돌파", day)


def run(*records: ConditionRecord) -> tuple[list[Any], list[str]]:
    state = membership.State("main", "신고가 돌파")
    outputs: list[Any] = []
    ignored: list[str] = []
    for position, record in enumerate(records):
        effect = membership.apply(state, record, position)
        state.advance(effect)
        outputs += effect.outputs
        ignored += [i.reason for i in effect.ignored]
    return outputs, ignored


def told(outputs: list[Any]) -> list[str]:
    return [f"{t.kind} {t.code} {t.entry} {t.origin}" for t in outputs]


HIT = event("hit", "09:00:00")

CASES: dict[str, tuple[list[ConditionRecord], list[str], list[str]]] = {
    "hit enters": ([HIT], ["entered 005930 1 realtime"], []),
    "hit of a member repeats": ([HIT, event("hit", "09:00:05")], ["entered 005930 1 realtime"], ["repeat"]),
    "exit of a member exits": (
        [HIT, event("exit", "09:00:05")],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        [],
    ),
    "exit without hit is counted": ([event("exit", "09:00:05")], [], ["exit-without-hit"]),
    "the same record again repeats": ([HIT, HIT], ["entered 005930 1 realtime"], ["repeat"]),
    "the same record again repeats after the exit": (
        [HIT, event("exit", "09:00:05"), HIT],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        ["repeat"],
    ),
    "an exit without hit, said again after a hit, repeats": (
        [event("exit", "09:00:00"), HIT, event("exit", "09:00:00")],
        ["entered 005930 1 realtime"],
        ["exit-without-hit", "repeat"],
    ),
    "entries count": (
        [HIT, event("exit", "09:00:05"), event("hit", "09:00:07")],
        ["entered 005930 1 realtime", "exited 005930 1 realtime", "entered 005930 2 realtime"],
        [],
    ),
    "two hits and exits in one second are told apart by ordinal": (
        [HIT, event("exit", "09:00:00"), event("hit", "09:00:00", ordinal=1), event("exit", "09:00:00", ordinal=1)],
        [
            "entered 005930 1 realtime",
            "exited 005930 1 realtime",
            "entered 005930 2 realtime",
            "exited 005930 2 realtime",
        ],
        [],
    ),
    "another session's older record is late": (
        [HIT, event("exit", "09:00:05"), event("hit", "09:00:04", session="b")],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        ["late"],
    ),
    "another session's record of the same second is not late": (
        [HIT, event("exit", "09:00:00", session="b")],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        [],
    ),
    "within a session the order of frames decides, never the time": (
        [HIT, event("exit", "08:59:59")],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        [],
    ),
    "what a session says after its own change is no repeat, although one that took the hit from its snapshot said it": (
        [
            snapshot(["005930"], "08:59:59", session="b"),
            event("exit", "09:00:00", session="b"),
            event("hit", "09:00:00", frame=1),
            event("exit", "09:00:00", frame=2),
        ],
        [
            "entered 005930 1 snapshot",
            "exited 005930 1 realtime",
            "entered 005930 2 realtime",
            "exited 005930 2 realtime",
        ],
        [],
    ),
    "what a session said before its own change repeats": (
        [
            event("hit", "09:00:00", frame=1),
            event("exit", "09:00:00", frame=2),
            event("hit", "09:00:00", frame=3, ordinal=1),
            event("hit", "09:00:00", frame=1),
            event("exit", "09:00:00", frame=2),
            event("hit", "09:00:00", frame=3, ordinal=1),
        ],
        ["entered 005930 1 realtime", "exited 005930 1 realtime", "entered 005930 2 realtime"],
        ["repeat", "repeat", "repeat"],
    ),
    "what a session said before its own snapshot repeats": (
        [HIT, snapshot([], "09:00:30"), HIT, snapshot([], "09:00:30")],
        ["entered 005930 1 realtime", "exited 005930 1 snapshot"],
        ["repeat", "repeat"],
    ),
    "a snapshot enters and exits": (
        [HIT, snapshot(["000660"], "09:00:30")],
        ["entered 005930 1 realtime", "entered 000660 1 snapshot", "exited 005930 1 snapshot"],
        [],
    ),
    "a snapshot leaves members alone": ([HIT, snapshot(["005930"], "09:00:30")], ["entered 005930 1 realtime"], []),
    "a snapshot said again repeats": (
        [snapshot(["000660"], "09:00:30"), HIT, snapshot(["000660"], "09:00:30")],
        ["entered 000660 1 snapshot", "entered 005930 1 realtime"],
        ["repeat"],
    ),
    "a snapshot leaves alone what another session changed later than 2 s before it": (
        [event("hit", "09:00:29", session="b"), snapshot([], "09:00:30")],
        ["entered 005930 1 realtime"],
        ["left-alone"],
    ),
    "a session whose snapshot was left alone and that hears a hit has seen the exit before it": (
        [
            event("hit", "09:00:29", session="b"),
            snapshot([], "09:00:30"),
            event("hit", "09:00:31"),
            event("exit", "09:00:30", session="b"),
            event("hit", "09:00:31", session="b"),
            event("exit", "09:00:32", session="b"),
        ],
        [
            "entered 005930 1 realtime",
            "exited 005930 1 snapshot",
            "entered 005930 2 realtime",
            "exited 005930 2 realtime",
        ],
        ["left-alone", "late", "repeat"],
    ),
    "a session whose snapshot was left alone and that hears an exit has seen the hit before it": (
        [
            event("hit", "09:00:20", session="b"),
            event("exit", "09:00:29", session="b"),
            snapshot(["005930"], "09:00:30"),
            event("exit", "09:00:31"),
            event("hit", "09:00:30", session="b"),
            event("exit", "09:00:31", session="b"),
        ],
        [
            "entered 005930 1 realtime",
            "exited 005930 1 realtime",
            "entered 005930 2 snapshot",
            "exited 005930 2 realtime",
        ],
        ["left-alone", "late", "repeat"],
    ),
    "in the second of a snapshot that was left alone a hit may be of before it": (
        [
            event("hit", "09:00:29", session="b"),
            snapshot([], "09:00:30.500"),
            event("hit", "09:00:30"),
            event("exit", "09:00:30", session="b"),
        ],
        ["entered 005930 1 realtime", "exited 005930 1 realtime"],
        ["left-alone", "repeat"],
    ),
    "a snapshot that was left alone was behind where its session hears the change that it did not know": (
        [
            event("hit", "09:00:29", session="b"),
            snapshot([], "09:00:30"),
            event("hit", "09:00:29"),
            event("hit", "09:00:31"),
        ],
        ["entered 005930 1 realtime"],
        ["left-alone", "repeat", "repeat"],
    ),
    "a snapshot that was left alone is forgotten with the next change": (
        [
            event("hit", "09:00:29", session="b"),
            snapshot([], "09:00:30"),
            event("exit", "09:00:30", session="b"),
            event("hit", "09:00:31", session="b"),
            event("hit", "09:00:31"),
            event("hit", "09:00:32"),
        ],
        [
            "entered 005930 1 realtime",
            "exited 005930 1 realtime",
            "entered 005930 2 realtime",
        ],
        ["left-alone", "repeat", "repeat"],
    ),
    "a snapshot corrects what another session changed 2 s before it": (
        [event("hit", "09:00:28", session="b"), snapshot([], "09:00:30")],
        ["entered 005930 1 realtime", "exited 005930 1 snapshot"],
        [],
    ),
    "a snapshot corrects what its own session just changed": (
        [event("hit", "09:00:30"), snapshot([], "09:00:30")],
        ["entered 005930 1 realtime", "exited 005930 1 snapshot"],
        [],
    ),
    "day-end exits and entries start at 0": (
        [HIT, day_end(), event("hit", "09:00:00", day=date(2026, 3, 3))],
        ["entered 005930 1 realtime", "exited 005930 1 day-end", "entered 005930 1 realtime"],
        [],
    ),
    "the first record of a new day does a day-end that was missed": (
        [HIT, event("hit", "09:00:00", code="000660", day=date(2026, 3, 3)), day_end()],
        ["entered 005930 1 realtime", "exited 005930 1 day-end", "entered 000660 1 realtime"],
        ["repeat"],
    ),
    "a record of a day that is over is late": (
        [HIT, day_end(), event("exit", "15:00:00")],
        ["entered 005930 1 realtime", "exited 005930 1 day-end"],
        ["late"],
    ),
    "a search never touches membership": (
        [HIT, search(["000660"], "09:10:00"), event("exit", "09:11:00", code="000660")],
        ["entered 005930 1 realtime"],
        ["exit-without-hit"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """Each row of the table says what is told and what is ignored."""
    records, expected, reasons = CASES[name]
    outputs, ignored = run(*records)
    transitions = [o for o in outputs if isinstance(o, Transition)]
    assert told(transitions) == expected
    assert ignored == reasons


def test_transition_says_where_it_comes_from() -> None:
    """A transition carries its identity, its cause and how long the visit lasted."""
    leave = event("exit", "09:01:30")
    (entered, exited), _ = run(HIT, leave)
    assert entered.id == transition_id("main", "신고가 돌파", "005930", DAY, 1, "entered")
    assert (entered.event_id, entered.since, entered.dwell, entered.date) == (HIT.id, HIT.at, None, DAY)
    assert exited.id == transition_id("main", "신고가 돌파", "005930", DAY, 1, "exited")
    assert (exited.event_id, exited.since, exited.at, exited.dwell) == (leave.id, HIT.at, leave.at, 90.0)
    assert (exited.received_at, exited.session) == (leave.received_at, "a")


def test_first_snapshot_of_a_day_is_state() -> None:
    """What the day's first snapshot shows is initial; what a later one reveals happened in the gap."""
    (first, revealed), _ = run(
        snapshot(["005930"], "08:59:00"), gap("09:10:00", "09:12:00"), snapshot(["005930", "000660"], "09:12:01")
    )
    assert (first.initial, first.gap_from, first.gap_to) == (True, None, None)
    assert (revealed.initial, revealed.gap_from, revealed.gap_to) == (False, at("09:10:00"), at("09:12:00"))
    assert revealed.since == revealed.at == at("09:12:01")


def test_gap_without_record_reaches_back_to_the_last_proof() -> None:
    """Where no gap was recorded, the condition's last word bounds it; a snapshot closes what was recorded."""
    outputs, _ = run(
        snapshot([], "08:59:00"),
        gap("09:10:00", "09:12:00"),
        gap("09:13:00", "09:14:00"),
        snapshot(["000660"], "09:14:01"),
        snapshot(["000660", "005930"], "09:20:00", session="b"),
    )
    assert [(t.gap_from, t.gap_to) for t in outputs] == [
        (at("09:10:00"), at("09:14:00")),
        (heard(at("09:14:01")), at("09:20:00")),
    ]


def test_a_repeat_proves_that_its_session_listened() -> None:
    """What is said again is no news, and yet somebody heard it then: nothing can have been missed before."""
    repeat = msgspec.structs.replace(HIT, received_at=heard(at("09:05:00")), frame=9)
    outputs, _ = run(snapshot([], "08:59:00"), HIT, repeat, snapshot(["005930", "000660"], "09:20:00"))
    assert told(outputs) == ["entered 005930 1 realtime", "entered 000660 1 snapshot"]
    assert outputs[1].gap_from == heard(at("09:05:00"))


def test_day_end_is_dated_with_its_deadline() -> None:
    """Whoever causes it, the day ends at midnight KST, and says the same."""
    by_due = run(HIT, day_end())[0][1]
    by_record = run(HIT, event("hit", "09:00:00", code="000660", day=date(2026, 3, 5)))[0][1]
    assert by_due == by_record
    assert (by_due.at, by_due.date, by_due.dwell) == (at("00:00:00", date(2026, 3, 3)), DAY, 15 * 3600.0)


def test_early_day_end() -> None:
    """A day-end that the market's clock says before midnight ends the day then."""
    early = msgspec.structs.replace(day_end(), at=at("20:00:00"))
    outputs, ignored = run(HIT, early, event("exit", "20:00:01"))
    assert told(outputs) == ["entered 005930 1 realtime", "exited 005930 1 day-end"]
    assert outputs[1].at == at("20:00:00")
    assert ignored == ["late"]


def test_search_gives_one_reason_per_stock() -> None:
    """A search is told per stock, once."""
    found = search(["005930", "0004V0"], "09:30:00")
    outputs, ignored = run(found, found)
    assert [(r.code, r.search_id, r.date, r.price) for r in outputs] == [
        ("005930", found.id, DAY, 1000),
        ("0004V0", found.id, DAY, 1000),
    ]
    assert all(isinstance(r, SearchReason) for r in outputs)
    assert len({r.id for r in outputs}) == 2
    assert ignored == ["repeat"]


def test_deadline_only_while_somebody_is_inside() -> None:
    """A day-end is announced only where it would be seen."""
    state = membership.State("main", "신고가 돌파")
    assert state.deadline() is None
    state.advance(membership.apply(state, HIT, 0))
    assert state.deadline() == at("00:00:00", date(2026, 3, 3))
    state.advance(membership.apply(state, event("exit", "09:00:05"), 1))
    assert state.deadline() is None


def test_values_are_plain_json() -> None:
    """What is remembered survives JSON unchanged."""
    state = membership.State("main", "신고가 돌파")
    for position, record in enumerate((snapshot(["005930"], "08:59:00"), HIT, gap("09:10:00", "09:12:00"))):
        state.advance(membership.apply(state, record, position))
    member, day = state.members["005930"], state.day
    assert msgspec.json.decode(msgspec.json.encode(member), type=membership.Member) == member
    assert msgspec.json.decode(msgspec.json.encode(day), type=membership.Day) == day
