"""Recommendations: when they open, change and close, and a naive model that must agree."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import recommend
from streams.events import (
    KST,
    Due,
    Recommend,
    Recommendation,
    SearchReason,
    StockRecord,
    Transition,
    Withdraw,
    transition_id,
)
from streams.settings import ConditionRule, RecommendSettings

DAY = date(2026, 3, 2)
MIDNIGHT = datetime(2026, 3, 3, tzinfo=KST)


def at(clock: str, day: date = DAY) -> datetime:
    return datetime.fromisoformat(f"{day.isoformat()}T{clock}+09:00")


def transition(
    kind: Any,
    condition: str,
    clock: str | datetime,
    entry: int = 1,
    *,
    since: str | datetime | None = None,
    day: date = DAY,
    origin: Any = "realtime",
) -> Transition:
    moment = at(clock, day) if isinstance(clock, str) else clock
    began = moment if since is None else at(since, day) if isinstance(since, str) else since
    return Transition(
        id=transition_id("main", condition, "005930", day, entry, kind),
        account="main",
        condition=condition,
        code="005930",
        kind=kind,
        origin=origin,
        date=day,
        entry=entry,
        at=moment,
        since=began,
        event_id="e",
        session="a",
        received_at=moment.astimezone(UTC),
    )


def entered(condition: str, clock: str, entry: int = 1, day: date = DAY) -> Transition:
    return transition("entered", condition, clock, entry, day=day)


def exited(condition: str, clock: str, entry: int = 1, *, origin: str = "realtime") -> Transition:
    return transition("exited", condition, clock, entry, origin=origin)


def found(condition: str, clock: str, id_: str = "f1") -> SearchReason:
    return SearchReason(
        id=id_,
        account="main",
        condition=condition,
        code="005930",
        date=DAY,
        at=at(clock),
        received_at=at(clock),
        search_id=id_,
    )


def command(clock: str, id_: str = "k1", expires: str | None = None, note: str = "") -> Recommend:
    expires_at = at(expires) if expires else None
    return Recommend(id=id_, code="005930", by="kim", note=note, at=at(clock), expires_at=expires_at)


def withdraw(clock: str, id_: str = "w1") -> Withdraw:
    return Withdraw(id=id_, code="005930", by="kim", at=at(clock))


def due(clock: str, day: date = DAY, kind: Any = "hold") -> Due:
    return Due(id=f"due-{day}-{clock}", kind=kind, at=at(clock, day), account="main", code="005930")


NEXT = date(2026, 3, 3)

CONDITIONS = (
    ConditionRule(name="plain"),
    ConditionRule(name="half", weight=0.5),
    ConditionRule(name="held", hold=10),
    ConditionRule(name="cool", cooldown=30, hold=10),
    ConditionRule(name="morning", window=(time(9, 0), time(10, 0))),
    ConditionRule(name="named", algorithm_id="A-7"),
)


def policy(**settings: Any) -> recommend.Policy:
    return recommend.Policy.of(CONDITIONS, RecommendSettings(**settings))


def run(policy_: recommend.Policy, *records: StockRecord) -> tuple[list[Recommendation], list[str]]:
    standing: recommend.Standing | None = None
    told: list[Recommendation] = []
    ignored: list[str] = []
    for position, record in enumerate(records):
        outcome = recommend.apply(standing, record, position, policy_)
        standing = outcome.standing
        told += outcome.revisions
        if outcome.ignored:
            ignored.append(outcome.ignored)
    return told, ignored


def short(revisions: list[Recommendation]) -> list[str]:
    """`state cause score time`, one a revision."""
    return [f"{r.state} {r.cause} {r.score:g} {r.at.astimezone(KST):%H:%M:%S}" for r in revisions]


CASES: dict[str, tuple[dict[str, Any], list[StockRecord], list[str]]] = {
    "opens at the threshold, closes below it": (
        {},
        [entered("plain", "09:00:00"), exited("plain", "09:05:00")],
        ["open threshold 1 09:00:00", "closed score 0 09:05:00"],
    ),
    "weights add up": (
        {},
        [entered("half", "09:00:00"), found("half", "09:01:00"), exited("half", "09:02:00")],
        ["open threshold 1 09:01:00", "closed score 0.5 09:02:00"],
    ),
    "a reason that comes or goes is a revision": (
        {},
        [entered("plain", "09:00:00"), entered("half", "09:01:00"), exited("half", "09:02:00")],
        ["open threshold 1 09:00:00", "open reason 1.5 09:01:00", "open reason 1 09:02:00"],
    ),
    "a condition that is not configured is no reason": ({}, [entered("other", "09:00:00")], []),
    "hold: its Due confirms": ({}, [entered("held", "09:00:00"), due("09:00:10")], ["open threshold 1 09:00:10"]),
    "hold: the first record after it confirms, dated with the deadline": (
        {},
        [entered("held", "09:00:00"), exited("held", "09:00:11"), due("09:00:10")],
        ["open threshold 1 09:00:10", "closed score 0 09:00:11"],
    ),
    "hold: an exit at the deadline comes first": ({}, [entered("held", "09:00:00"), exited("held", "09:00:10")], []),
    "hold: an exit before it, then its Due": (
        {},
        [entered("held", "09:00:00"), exited("held", "09:00:09"), due("09:00:10")],
        [],
    ),
    "cooldown: a re-entry within it restores the reason, without a new hold": (
        {},
        [
            entered("cool", "09:00:00"),
            due("09:00:10"),
            exited("cool", "09:01:00"),
            entered("cool", "09:01:30", 2),
        ],
        ["open threshold 1 09:00:10", "closed score 0 09:01:00", "open threshold 1 09:01:30"],
    ),
    "cooldown: a re-entry after it is a new visit with a new hold": (
        {},
        [
            entered("cool", "09:00:00"),
            due("09:00:10"),
            exited("cool", "09:01:00"),
            entered("cool", "09:01:31", 2),
            due("09:01:41"),
        ],
        ["open threshold 1 09:00:10", "closed score 0 09:01:00", "open threshold 1 09:01:41"],
    ),
    "cooldown: a visit that never counted is not restored": (
        {},
        [entered("cool", "09:00:00"), exited("cool", "09:00:05"), entered("cool", "09:00:06", 2), due("09:00:10")],
        [],
    ),
    "window: a visit that begins before it never counts": ({}, [entered("morning", "08:59:59"), due("09:30:00")], []),
    "window: a visit that begins at its end never counts": ({}, [entered("morning", "10:00:00")], []),
    "window: a visit that begins in it counts beyond it": (
        {},
        [entered("morning", "09:59:59"), entered("half", "11:00:00")],
        ["open threshold 1 09:59:59", "open reason 1.5 11:00:00"],
    ),
    "expiry: its Due closes": (
        {"expiry": 60},
        [entered("plain", "09:00:00"), due("09:01:00")],
        ["open threshold 1 09:00:00", "closed expired 1 09:01:00"],
    ),
    "expiry: the first record after it closes first": (
        {"expiry": 60},
        [entered("plain", "09:00:00"), entered("half", "09:02:00"), due("09:01:00")],
        ["open threshold 1 09:00:00", "closed expired 1 09:01:00"],
    ),
    "expired: it reopens once the score was below": (
        {"expiry": 60},
        [
            entered("plain", "09:00:00"),
            due("09:01:00"),
            entered("half", "09:02:00"),
            exited("plain", "09:03:00"),
            entered("plain", "09:04:00", 2),
        ],
        ["open threshold 1 09:00:00", "closed expired 1 09:01:00", "open threshold 1.5 09:04:00"],
    ),
    "expired: it reopens when a person asks": (
        {"expiry": 60},
        [entered("plain", "09:00:00"), due("09:01:00"), command("09:02:00")],
        ["open threshold 1 09:00:00", "closed expired 1 09:01:00", "open command 2 09:02:00"],
    ),
    "a person recommends and withdraws": (
        {},
        [command("09:00:00"), withdraw("09:05:00")],
        ["open command 1 09:00:00", "closed withdrawn 1 09:05:00"],
    ),
    "withdrawn: it stays closed while the score is up": (
        {},
        [entered("plain", "09:00:00"), withdraw("09:05:00"), entered("half", "09:06:00")],
        ["open threshold 1 09:00:00", "closed withdrawn 1 09:05:00"],
    ),
    "a command joins what is open": (
        {},
        [entered("plain", "09:00:00"), command("09:01:00"), exited("plain", "09:02:00")],
        ["open threshold 1 09:00:00", "open reason 2 09:01:00", "open reason 1 09:02:00"],
    ),
    "a command's expiry rules": (
        {"expiry": 3600},
        [command("09:00:00", expires="09:10:00"), due("09:10:00")],
        ["open command 1 09:00:00", "closed expired 1 09:10:00"],
    ),
    "withdrawing what is not open does nothing": ({}, [withdraw("09:00:00")], []),
    "the day's end closes with the reasons that stood": (
        {},
        [entered("plain", "09:00:00"), due("00:00:00", NEXT, "day-end")],
        ["open threshold 1 09:00:00", "closed day-end 1 00:00:00"],
    ),
    "the exits of a day's end close by day-end": (
        {},
        [
            entered("plain", "09:00:00"),
            entered("half", "09:00:01"),
            transition("exited", "half", MIDNIGHT, origin="day-end"),
            transition("exited", "plain", MIDNIGHT, origin="day-end"),
        ],
        ["open threshold 1 09:00:00", "open reason 1.5 09:00:01", "closed day-end 1.5 00:00:00"],
    ),
    "the first record of a new day ends the day before": (
        {},
        [entered("plain", "09:00:00"), entered("plain", "09:00:00", day=NEXT)],
        ["open threshold 1 09:00:00", "closed day-end 1 00:00:00", "open threshold 1 09:00:00"],
    ),
    "a record of a day that is over is late": (
        {},
        [due("09:00:00"), entered("plain", "09:00:00", day=NEXT), exited("plain", "15:00:00"), command("15:00:00")],
        ["open threshold 1 09:00:00"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """Each row: the settings, the log, the revisions it leads to."""
    settings, records, expected = CASES[name]
    revisions, _ = run(policy(**settings), *records)
    assert short(revisions) == expected


def test_restored_visit_keeps_its_since() -> None:
    """A re-entry within the cooldown is the same visit; one after it counts as a second."""
    revisions, _ = run(
        policy(),
        entered("cool", "09:00:00"),
        due("09:00:10"),
        exited("cool", "09:01:00"),
        entered("cool", "09:01:30", 2),
        exited("cool", "09:02:00", 2),
        entered("cool", "09:10:00", 3),
        due("09:10:10"),
    )
    opened = [r.reasons[0] for r in revisions if r.state == "open"]
    assert [(r.since, r.visits) for r in opened] == [
        (at("09:00:00"), 1),
        (at("09:00:00"), 1),
        (at("09:10:00"), 2),
    ]


def test_recommendation_says_why() -> None:
    """A revision names the rule, the threshold, each reason's part, and the record that caused it."""
    hit = entered("named", "09:00:00")
    (first, second, third), _ = run(
        policy(expiry=600), hit, found("half", "09:01:00"), command("09:02:00", note="실적 발표")
    )
    assert (first.rule, first.threshold, first.cause_id, first.revision) == ("sum", 1.0, hit.id, 1)
    assert first.expires_at == at("09:10:00")
    assert [(r.kind, r.condition, r.algorithm_id, r.score) for r in second.reasons] == [
        ("condition", "named", "A-7", 1.0),
        ("search", "half", "half", 0.5),
    ]
    manual = third.reasons[-1]
    assert (manual.kind, manual.score, manual.by, manual.note, manual.since) == (
        "manual",
        1.0,
        "kim",
        "실적 발표",
        at("09:02:00"),
    )
    assert first.recommendation_id == second.recommendation_id == third.recommendation_id
    assert [r.id for r in (first, second, third)] == [f"{first.recommendation_id}-{n}" for n in (1, 2, 3)]


def test_openings_have_ids_of_their_own() -> None:
    """Every opening of a stock and day is another recommendation; a replay makes the same ones."""
    log = [
        entered("plain", "09:00:00"),
        exited("plain", "09:01:00"),
        entered("plain", "09:02:00", 2),
        entered("plain", "09:00:00", day=NEXT),
    ]
    revisions, _ = run(policy(), *log)
    assert len({r.recommendation_id for r in revisions if r.cause == "threshold"}) == 3
    assert revisions == run(policy(), *log)[0]


def test_a_deadline_is_the_same_whoever_applies_it() -> None:
    """Applied by its own Due or before a later record, a hold leads to the same revision."""
    standing = recommend.apply(None, entered("held", "09:00:00"), 0, policy()).standing
    assert standing is not None
    (announced,) = recommend.dues(standing)
    by_due, _ = run(policy(), entered("held", "09:00:00"), announced)
    by_record, _ = run(policy(), entered("held", "09:00:00"), entered("other", "09:00:11"))
    assert by_due == by_record
    assert by_due[0].cause_id == announced.id


def test_what_is_announced() -> None:
    """Holds and expiries always, the end of the day while a recommendation is open."""

    def after(*records: StockRecord) -> list[tuple[str, datetime]]:
        standing: recommend.Standing | None = None
        for position, record in enumerate(records):
            standing = recommend.apply(standing, record, position, policy(expiry=60)).standing
        assert standing is not None
        return [(d.kind, d.at) for d in recommend.dues(standing)]

    assert after(entered("held", "09:00:00")) == [("hold", at("09:00:10"))]
    assert after(entered("held", "09:00:00"), due("09:00:10")) == [("expiry", at("09:01:10")), ("day-end", MIDNIGHT)]
    assert after(entered("half", "09:00:00")) == []


def test_reasons_for_ignoring() -> None:
    """Whatever changes nothing says why."""
    _, ignored = run(
        policy(),
        entered("plain", "09:00:00"),
        entered("plain", "09:00:00"),
        exited("half", "09:00:00"),
        exited("half", "09:00:00"),
        found("half", "09:01:00"),
        found("half", "09:01:00"),
        command("09:02:00"),
        command("09:02:00"),
        withdraw("09:03:00"),
        withdraw("09:03:00"),
        withdraw("09:03:00", "w2"),
        due("09:03:00"),
        command("09:04:00", "k2", expires="09:03:00"),
    )
    assert ignored == [
        "repeat",
        "exit-without-entry",
        "repeat",
        "repeat",
        "repeat",
        "repeat",
        "nothing-open",
        "repeat",
        "late",
    ]


def test_values_are_plain_json() -> None:
    """What is remembered survives JSON unchanged."""
    standing: recommend.Standing | None = None
    log = [entered("held", "09:00:00"), entered("plain", "09:00:30"), found("half", "09:01:00"), command("09:02:00")]
    for position, record in enumerate(log):
        standing = recommend.apply(standing, record, position, policy(expiry=60)).standing
    assert msgspec.json.decode(msgspec.json.encode(standing), type=recommend.Standing) == standing


# --- the naive model --------------------------------------------------------------------------------------------------


LONG_AGO = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Naive:
    """One stock's day, judged anew from the list of all that happened whenever something happens."""

    expiry: float
    threshold: float = 1.0
    today: date | None = None
    facts: list[Any] = field(default_factory=list)  # (moment, record) in the order of the log
    ids: list[str] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    opened_at: datetime | None = None
    expires_at: datetime | None = None
    last: tuple[Any, ...] = ()
    closed_while_up: bool = False
    manual: Recommend | None = None
    now: tuple[datetime, str] = (LONG_AGO, "")  # the last hold that passed, and whose
    passed: dict[int, tuple[datetime, str]] = field(default_factory=dict)  # fact → `now` when it was read

    def visits(self) -> dict[str, tuple[datetime, int, datetime]]:
        """Of each condition where the stock is inside: since, visits, and when it began or begins to count."""
        inside: dict[str, tuple[datetime, int, datetime]] = {}
        for rule in CONDITIONS:
            since, count, counts, left, is_in = NEVER, 0, NEVER, None, False
            for fact in self.facts:
                if not isinstance(fact, Transition) or fact.condition != rule.name:
                    continue
                if fact.kind == "exited":
                    is_in, left = (
                        False,
                        (fact.at if counts == since or (counts, rule.name) <= self.passed[id(fact)] else None),
                    )
                    continue
                is_in = True
                if left is not None and rule.cooldown and fact.at <= left + timedelta(seconds=rule.cooldown):
                    counts = since
                else:
                    since, count = fact.since, count + 1
                    counts = since + timedelta(seconds=rule.hold)
                    moment = since.astimezone(KST).time()
                    if rule.window and not rule.window[0] <= moment < rule.window[1]:
                        counts = NEVER
                left = None
            if is_in:
                inside[rule.name] = (since, count, counts)
        return inside

    def score(self) -> tuple[float, list[tuple[Any, ...]]]:
        reasons: list[tuple[Any, ...]] = []
        for name, (since, count, counts) in self.visits().items():
            if (counts, name) <= self.now or counts == since:
                reasons.append((since, "condition", name, count))
        for rule in CONDITIONS:
            hits = [f for f in self.facts if isinstance(f, SearchReason) and f.condition == rule.name]
            if hits:
                reasons.append((hits[0].at, "search", rule.name, 1))
        reasons.sort()
        total = sum(next(r.weight for r in CONDITIONS if r.name == name) for _, _, name, _ in reasons)
        if self.manual:
            reasons.append((self.manual.at, "manual", self.manual.by, self.manual.note))
            total += self.threshold
        return total, reasons

    def tell(self, state: str, cause: str, moment: datetime, view: tuple[Any, ...]) -> None:
        self.told.append((state, cause, moment, *view))

    def judge(self, moment: datetime, opened: str = "threshold", fell: str = "score", until: Any = None) -> None:
        total, reasons = self.score()
        up = total >= self.threshold
        self.closed_while_up = self.closed_while_up and up
        if self.opened_at is None and up and not self.closed_while_up:
            self.opened_at = moment
            self.expires_at = until or (moment + timedelta(seconds=self.expiry) if self.expiry else None)
            self.last = (total, reasons, self.expires_at)
            self.tell("open", opened, moment, self.last)
        elif self.opened_at is not None and not up:
            self.tell("closed", fell, moment, (total, reasons, self.expires_at))
            self.opened_at = self.expires_at = None
        elif self.opened_at is not None:
            self.expires_at = until or self.expires_at
            if (total, reasons, self.expires_at) != self.last:
                self.last = (total, reasons, self.expires_at)
                self.tell("open", "reason", moment, self.last)

    def shut(self, cause: str, moment: datetime) -> None:
        self.tell("closed", cause, moment, self.last)
        self.opened_at = self.expires_at = self.manual = None
        self.closed_while_up = self.score()[0] >= self.threshold

    def end_day(self, moment: datetime, following: date) -> None:
        if self.opened_at is not None:
            self.tell("closed", "day-end", moment, self.last)
        self.facts, self.ids, self.passed = [], [], {}
        self.opened_at = self.expires_at = self.manual = None
        self.closed_while_up = False
        self.today, self.now = following, (LONG_AGO, "")

    def let_pass(self, limit: datetime, including: bool) -> bool:
        any_passed = False
        while True:
            assert self.today is not None
            waiting: list[tuple[datetime, str, str]] = []
            for name, (since, _, counts) in self.visits().items():
                if self.now < (counts, name) and counts not in (since, NEVER):
                    waiting.append((counts, "hold", name))
            if self.expires_at:
                waiting.append((self.expires_at, "expiry", ""))
            if [f for f in self.facts if not isinstance(f, Withdraw | Recommend)] or self.opened_at or self.manual:
                midnight = datetime(self.today.year, self.today.month, self.today.day, tzinfo=KST) + timedelta(days=1)
                waiting.append((midnight, "day-end", ""))
            waiting = [w for w in waiting if w[0] < limit or (including and w[0] == limit)]
            if not waiting:
                return any_passed
            any_passed = True
            moment, what, name = min(waiting)
            if what == "day-end":
                self.end_day(moment, self.today + timedelta(days=1))
            elif what == "expiry":
                self.shut("expired", moment)
            else:
                self.now = (moment, name)
                self.judge(moment)

    def read(self, record: StockRecord) -> None:
        if isinstance(record, Due):
            if self.today is not None:
                self.let_pass(record.at, True)
            return
        day = record.date if isinstance(record, Transition | SearchReason) else record.at.astimezone(KST).date()
        self.today = self.today or day
        if day < self.today or (day == self.today and record.id in self.ids):
            return
        self.let_pass(record.at, False)
        if day > self.today:
            midnight = datetime(self.today.year, self.today.month, self.today.day, tzinfo=KST) + timedelta(days=1)
            self.end_day(midnight, day)
        self.ids.append(record.id)
        self.facts.append(record)
        self.passed[id(record)] = self.now
        if isinstance(record, Recommend):
            self.manual, self.closed_while_up = record, False
            self.judge(record.at, "command", until=record.expires_at)
        elif isinstance(record, Withdraw):
            if self.opened_at is not None:
                self.shut("withdrawn", record.at)
        else:
            self.judge(record.at)


@st.composite
def logs(draw: st.DrawFn) -> list[StockRecord]:
    """A stock's log in order of time: visits, searches, commands, some deadlines, and repeats."""
    records: list[StockRecord] = []
    moment = at(draw(st.sampled_from(("08:59:50", "09:59:50", "23:59:30"))))
    entries: dict[tuple[date, str], int] = {}
    inside: dict[str, datetime] = {}
    for n in range(draw(st.integers(1, 30))):
        moment += timedelta(seconds=draw(st.sampled_from((0, 1, 5, 10, 30, 60))))
        day = moment.date()
        if records and day != getattr(records[-1], "date", day):
            inside.clear()
        name = draw(st.sampled_from(("plain", "half", "held", "cool", "morning")))
        match draw(st.sampled_from(("visit",) * 8 + ("search", "recommend", "withdraw", "due", "due", "again"))):
            case "visit":
                if name in inside and inside[name].date() == day:
                    entry = entries[day, name]
                    records.append(transition("exited", name, moment, entry, since=inside.pop(name), day=day))
                else:
                    entry = entries[day, name] = entries.get((day, name), 0) + 1
                    inside[name] = moment
                    records.append(transition("entered", name, moment, entry, day=day))
            case "search":
                reason = found(name, "09:00:00", f"f{n}")
                records.append(msgspec.structs.replace(reason, at=moment, date=day))
            case "recommend":
                lasting = draw(st.sampled_from((None, 5, 60)))
                expires_at = moment + timedelta(seconds=lasting) if lasting else None
                records.append(Recommend(id=f"k{n}", code="005930", by="kim", at=moment, expires_at=expires_at))
            case "withdraw":
                records.append(Withdraw(id=f"w{n}", code="005930", by="kim", at=moment))
            case "again" if records:
                records.append(draw(st.sampled_from(records)))
            case _:
                records.append(Due(id=f"d{n}", kind="hold", at=moment, account="main", code="005930"))
    return records


def view(r: Recommendation) -> tuple[Any, ...]:
    reasons = [
        (x.since, x.kind, x.by, x.note) if x.kind == "manual" else (x.since, x.kind, x.condition, x.visits)
        for x in r.reasons
    ]
    return (r.state, r.cause, r.at, r.score, reasons, r.expires_at)


@settings(deadline=None)
@given(logs(), st.sampled_from((0.0, 20.0)))
def test_agrees_with_the_naive_model(log: list[StockRecord], expiry: float) -> None:
    """Any log leads to the revisions that judging everything anew leads to."""
    naive = Naive(expiry)
    for record in log:
        naive.read(record)
    revisions, _ = run(policy(expiry=expiry), *log)
    assert [view(r) for r in revisions] == naive.told


@settings(deadline=None)
@given(logs(), st.data())
def test_reading_a_part_again_tells_nothing_new(log: list[StockRecord], data: st.DataObject) -> None:
    """However much of the log is delivered a second time, nothing is told that was not told before."""
    once, _ = run(policy(expiry=20), *log)
    start = data.draw(st.integers(0, len(log) - 1))
    end = data.draw(st.integers(start, len(log)))
    again, _ = run(policy(expiry=20), *log, *log[start:end])
    assert again == once


@settings(deadline=None)
@given(logs(), st.randoms())
def test_where_a_deadline_is_announced_does_not_matter(log: list[StockRecord], chance: random.Random) -> None:
    """Announced late or not at all, a deadline that a later record passes anyway leads to the same."""
    quiet = [record for record in log if not isinstance(record, Due)]
    policy_ = policy(expiry=20)
    standing: recommend.Standing | None = None
    noisy: list[StockRecord] = []
    for position, record in enumerate(quiet):
        if standing is not None and not isinstance(record, Due):
            passed = [d for d in recommend.dues(standing) if d.at < record.at]
            noisy += [d for d in passed if chance.random() < 0.5]
        noisy.append(record)
        standing = recommend.apply(standing, record, position, policy_).standing
    assert run(policy_, *noisy)[0] == run(policy_, *quiet)[0]
