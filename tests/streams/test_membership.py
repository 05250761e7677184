"""Membership: the table of cases, the bullets beneath it, and a naive model that must agree with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import membership
from streams.events import (
    KST,
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


# --- the naive model --------------------------------------------------------------------------------------------------


def midnight(day: date) -> datetime:
    return at("00:00:00", day + timedelta(days=1))


@dataclass
class Naive:
    """DESIGN's table, word for word, over lists of everything that ever happened today."""

    today: date | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    history: list[tuple[str, str, datetime, str, int, datetime]] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    snapshots_today: int = 0
    affirmed: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def word(self, code: str) -> tuple[datetime, str] | None:
        """When and by which session it was last said that the stock is where it is."""
        last = self.last(code)
        return self.affirmed.get(code, (last[2], last[3])) if last is not None else None

    def affirm(self, e: ConditionEvent) -> None:
        word = self.word(e.code)
        if word is not None and e.at > word[0]:
            self.affirmed[e.code] = (e.at, e.session)

    def last(self, code: str) -> tuple[str, str, datetime, str, int, datetime] | None:
        mine = [h for h in self.history if h[0] == code]
        return mine[-1] if mine else None

    def inside(self, code: str) -> bool:
        last = self.last(code)
        return last is not None and last[1] == "entered"

    def tell(self, code: str, kind: str, moment: datetime, session: str, origin: str, initial: bool = False) -> None:
        entries = sum(1 for h in self.history if h[0] == code and h[1] == "entered")
        entry = entries + 1 if kind == "entered" else entries
        since = moment if kind == "entered" else self.last(code)[5]  # type: ignore[index]
        self.affirmed.pop(code, None)
        self.history.append((code, kind, moment, session, entry, since))
        self.told.append((code, kind, origin, self.today, entry, moment, since, initial))

    def end(self, moment: datetime) -> None:
        for code in sorted({h[0] for h in self.history}):
            if self.inside(code):
                self.tell(code, "exited", moment, "", "day-end")
        self.seen, self.whole, self.history, self.snapshots_today = [], [], [], 0
        self.affirmed = {}

    def read(self, record: ConditionRecord) -> None:
        if isinstance(record, Due):
            begun = record.at.astimezone(KST).date()  # midnight
            if self.today is None or begun > self.today:
                if self.today is not None:
                    self.end(midnight(self.today))
                self.today = begun
            else:
                self.reasons.append("repeat")
            return
        day = record.at.astimezone(KST).date()
        if self.today is not None and day < self.today:
            self.reasons.append("late")
            return
        if self.today is not None and day > self.today:
            self.end(midnight(self.today))
        self.today = day
        if isinstance(record, ConditionEvent):
            self.event(record)
        elif record.id in self.whole:
            self.reasons.append("repeat")
        else:
            self.whole.append(record.id)
            if isinstance(record, ConditionSnapshot):
                self.snapshot(record)

    def event(self, e: ConditionEvent) -> None:
        word = self.word(e.code)
        if (e.code, e.id) in self.seen:
            self.reasons.append("repeat")
            return
        self.seen.append((e.code, e.id))
        if word is not None and word[1] != e.session and e.at < word[0].replace(microsecond=0):
            self.reasons.append("late")
        elif e.action == "hit" and self.inside(e.code):
            self.affirm(e)
            self.reasons.append("repeat")
        elif e.action == "exit" and not self.inside(e.code):
            self.affirm(e)
            self.reasons.append("exit-without-hit")
        else:
            self.tell(e.code, "entered" if e.action == "hit" else "exited", e.at, e.session, "realtime")

    def snapshot(self, s: ConditionSnapshot) -> None:
        initial = self.snapshots_today == 0
        self.snapshots_today += 1
        missing = sorted(c for c in {h[0] for h in self.history} if self.inside(c) and c not in s.codes)
        for code in [*s.codes, *missing]:
            word = self.word(code)
            if self.inside(code) == (code in s.codes):
                continue
            if word is not None and word[1] != s.session and word[0] > s.at - timedelta(seconds=2):
                self.reasons.append("left-alone")
            elif code in s.codes:
                self.tell(code, "entered", s.at, s.session, "snapshot", initial)
            else:
                self.tell(code, "exited", s.at, s.session, "snapshot")


CODES = ("000660", "005930", "0004V0")


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> list[ConditionRecord]:
    """A log as two producers, restarts, retries and midnights make it."""
    records: list[ConditionRecord] = []
    moment = at("09:00:00")
    for n in range(draw(st.integers(1, max_size))):
        moment += timedelta(seconds=draw(st.sampled_from((0, 0, 1, 1, 2, 30, 40_000))))
        jittered = moment - timedelta(seconds=draw(st.sampled_from((0, 0, 0, 1, 3))))
        clock, day = jittered.strftime("%H:%M:%S"), jittered.date()
        session = draw(st.sampled_from("ab"))
        match draw(st.sampled_from(("event",) * 7 + ("snapshot", "again", "due", "gap", "search"))):
            case "snapshot":
                codes = draw(st.lists(st.sampled_from(CODES), unique=True))
                records.append(snapshot(codes, clock, session=session, day=day, id_=f"s{n}"))
            case "again" if records:
                records.append(draw(st.sampled_from(records)))
            case "due":
                records.append(day_end(day - timedelta(days=draw(st.integers(0, 1)))))
            case "gap":
                records.append(msgspec.structs.replace(gap("09:00:00", "09:00:01"), id=f"g{n}", at=jittered))
            case "search":
                records.append(msgspec.structs.replace(search(CODES[:1], clock, day=day), id=f"f{n}"))
            case _:
                action = draw(st.sampled_from(("hit", "exit")))
                records.append(
                    event(
                        action,
                        clock,
                        code=draw(st.sampled_from(CODES)),
                        session=session,
                        ordinal=draw(st.integers(0, 1)),
                        day=day,
                    )
                )
    return records


@settings(deadline=None)
@given(logs())
def test_agrees_with_the_naive_model(log: list[ConditionRecord]) -> None:
    """Any log leads to the transitions and the reasons that the table says."""
    naive = Naive()
    for record in log:
        naive.read(record)
    outputs, ignored = run(*log)
    transitions = [o for o in outputs if isinstance(o, Transition)]
    assert [(t.code, t.kind, t.origin, t.date, t.entry, t.at, t.since, t.initial) for t in transitions] == naive.told
    assert ignored == naive.reasons


@settings(deadline=None)
@given(logs(), st.data())
def test_reading_a_part_again_tells_nothing_new(log: list[ConditionRecord], data: st.DataObject) -> None:
    """However much of the log is delivered a second time, nothing is told that was not told before."""
    once, _ = run(*log)
    start = data.draw(st.integers(0, len(log) - 1))
    end = data.draw(st.integers(start, len(log)))
    again, _ = run(*log, *log[start:end])
    assert again == once


@settings(deadline=None)
@given(logs())
def test_transitions_of_a_stock_alternate(log: list[ConditionRecord]) -> None:
    """Of each stock and day: entered 1, exited 1, entered 2, … with ids of their own."""
    outputs, _ = run(*log)
    transitions = [o for o in outputs if isinstance(o, Transition)]
    assert len({t.id for t in transitions}) == len(transitions)
    for code in CODES:
        for day in {t.date for t in transitions}:
            mine = [(t.entry, t.kind) for t in transitions if (t.code, t.date) == (code, day)]
            assert mine == [(n // 2 + 1, ("entered", "exited")[n % 2]) for n in range(len(mine))]
