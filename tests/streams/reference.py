"""The naive model: what the streams should have said, told from the design alone.

Written from the tables of docs/architecture.md and the contract, not from the product: nothing of `membership`,
`recommend` or `lane` is imported, and nothing is clever. It keeps whole days in lists and counts again from their
beginning after every record, so it is slow, and simple enough to be checked by reading. Where it and the product
differ, one of them is wrong.

    transitions(log)               what `condition-events` leads to, each fact once, in the order of the log
    members(log)                   who is in which condition at the end
    recommendations(log, policy)   what `transitions` leads to, each revision once, in the order of the log
    accepted(log)                  the commands that go on `transitions`, each once

A log is any order-keeping mixture of partitions: conditions and stocks do not know of each other. It may say a record
more than once, as Kafka and a restarted worker do; a fact said again is no news.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from streams.events import (
    KST,
    Command,
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    Due,
    Gap,
    Reason,
    Recommend,
    Recommendation,
    SearchReason,
    SearchResult,
    StockRecord,
    Transition,
    Withdraw,
    day_end,
    identity,
    revision_id,
    trading_date,
    transition_id,
)
from streams.rules import Membership


class Policy(Protocol):
    """What the settings say; `streams.recommend.Policy` is one."""

    conditions: Mapping[str, Any]
    rule_name: str
    rule: Any
    threshold: float
    expiry: float


def transitions(log: Iterable[ConditionRecord]) -> list[Transition | SearchReason]:
    """Every transition and search reason that `log` leads to, once each."""
    conditions: dict[tuple[str, str], Condition] = {}
    outputs: list[Transition | SearchReason] = []
    for record in log:
        condition = conditions.setdefault(
            (record.account, record.condition), Condition(record.account, record.condition)
        )
        outputs += condition.read(record)
    return outputs


def members(log: Iterable[ConditionRecord]) -> dict[tuple[str, str], set[str]]:
    """Who is in which (account, condition) after `log`."""
    conditions: dict[tuple[str, str], Condition] = {}
    for record in log:
        key = record.account, record.condition
        conditions.setdefault(key, Condition(*key)).read(record)
    return {key: condition.inside() for key, condition in conditions.items()}


def recommendations(log: Iterable[StockRecord], policy: Policy) -> list[Recommendation]:
    """Every revision that `log` leads to, once each."""
    stocks: dict[tuple[str, str], Stock] = {}
    revisions: list[Recommendation] = []
    for record in log:
        key = record.account, record.code
        revisions += stocks.setdefault(key, Stock(*key, policy)).read(record)
    return revisions


def accepted(log: Iterable[Command]) -> list[Command]:
    """The commands of `commands`, each once."""
    seen: set[str] = set()
    return [record for record in log if not (record.id in seen or seen.add(record.id))]  # type: ignore[func-returns-value]


# --- membership -------------------------------------------------------------------------------------------------------


@dataclass
class Word:
    """What was last said of a stock today: by which session, when it happened, and where in what it heard."""

    session: str
    at: datetime
    place: tuple[datetime, int, int]


@dataclass
class Condition:
    """A condition's trading day, as a list of all that happened in it."""

    account: str
    name: str
    day: date | None = None
    seen: set[str] = field(default_factory=set)
    told: list[Transition] = field(default_factory=list)
    words: dict[str, Word] = field(default_factory=dict)
    doubts: dict[str, ConditionSnapshot] = field(default_factory=dict)  # by stock, the one that was not believed
    snapshots: list[ConditionSnapshot] = field(default_factory=list)
    open_gaps: list[Gap] = field(default_factory=list)
    heard: list[datetime] = field(default_factory=list)

    def read(self, record: ConditionRecord) -> list[Transition | SearchReason]:
        outputs: list[Transition | SearchReason] = []
        if isinstance(record, Due):
            ended = trading_date(record.at - timedelta(seconds=1))
            if self.day is None or ended >= self.day:
                outputs += self.end_day()
                self.begin(ended + timedelta(days=1))
            return outputs
        today = trading_date(record.at)
        if self.day is not None and today < self.day:
            return []
        if self.day is not None and today > self.day:
            outputs += self.end_day()
        if today != self.day:
            self.begin(today)
        doubted = False
        if isinstance(record, ConditionEvent) and record.code in self.doubts:
            doubt = self.doubts[record.code]
            if doubt.session == record.session:
                # In the snapshot's own second nobody can tell which was first.
                doubted = record.at > doubt.at
                del self.doubts[record.code]
        if isinstance(record, ConditionEvent):
            self.heard.append(record.received_at)  # who says it again was listening then, though it is no news
        if record.id in self.seen and not self.undoes(record):
            return outputs
        self.seen.add(record.id)
        if isinstance(record, ConditionEvent):
            outputs += self.event(record, doubted)
        elif isinstance(record, ConditionSnapshot):
            outputs += self.snapshot(record)
        elif isinstance(record, SearchResult):
            outputs += self.search(record)
        else:
            self.open_gaps.append(record)
        return outputs

    def begin(self, day: date) -> None:
        self.day = day
        self.seen, self.told, self.words, self.snapshots, self.open_gaps, self.heard = set(), [], {}, [], [], []
        self.doubts = {}

    def of(self, code: str) -> list[Transition]:
        return [transition for transition in self.told if transition.code == code]

    def inside(self) -> set[str]:
        last = {transition.code: transition.kind for transition in self.told}
        return {code for code, kind in last.items() if kind == "entered"}

    def undoes(self, record: ConditionRecord) -> bool:
        """Whether the session of the last word goes on with the contrary: its own order counts more than the id."""
        if not isinstance(record, ConditionEvent) or record.code not in self.words:
            return False
        word = self.words[record.code]
        return (
            record.session == word.session
            and place(record) > word.place
            and (record.code in self.inside()) == (record.action == "exit")
        )

    def event(self, event: ConditionEvent, doubted: bool) -> list[Transition | SearchReason]:
        word = self.words.get(event.code)
        # Times of hits have whole seconds: one in the second of a snapshot is not proved to be before it.
        if word is not None and event.session != word.session and event.at < word.at.replace(microsecond=0):
            return []
        inside = event.code in self.inside()
        if event.action == "hit" and not inside:
            return [self.enter(event.code, event, "realtime", exchange=event.exchange)]
        if event.action == "exit" and inside:
            return [self.leave(event.code, event, "realtime")]
        # Its snapshot said the contrary of what we believe, so it has seen a change that we have not.
        if doubted and inside:
            return [
                self.leave(event.code, event, "snapshot"),
                self.enter(event.code, event, "realtime", exchange=event.exchange),
            ]
        if doubted:
            return [
                self.enter(event.code, event, "snapshot", exchange=event.exchange),
                self.leave(event.code, event, "realtime"),
            ]
        # It changes nothing, but it is the last word: another session that is behind is not believed any more.
        if word is not None and event.at > word.at:
            self.words[event.code] = Word(event.session, event.at, place(event))
        return []

    def snapshot(self, snapshot: ConditionSnapshot) -> list[Transition | SearchReason]:
        outputs: list[Transition | SearchReason] = []
        inside = self.inside()
        first = not self.snapshots
        gap: dict[str, Any] = {}
        if not first:
            gap["gap_from"] = min(gap.from_ for gap in self.open_gaps) if self.open_gaps else max(self.heard)
            gap["gap_to"] = max(gap.to for gap in self.open_gaps) if self.open_gaps else snapshot.at
        for code in [*dict.fromkeys(snapshot.codes), *sorted(inside - set(snapshot.codes))]:
            word = self.words.get(code)
            if (code in snapshot.codes) == (code in inside):
                continue
            if word is not None and word.session != snapshot.session and word.at > snapshot.at - timedelta(seconds=2):
                self.doubts[code] = snapshot
                continue
            if code in snapshot.codes:
                exchanges = [transition.exchange for transition in self.of(code)] or ["KRX"]
                outputs.append(self.enter(code, snapshot, "snapshot", initial=first, exchange=exchanges[-1], **gap))
            else:
                outputs.append(self.leave(code, snapshot, "snapshot", **gap))
        self.snapshots.append(snapshot)
        self.open_gaps = []
        self.heard.append(snapshot.received_at)
        return outputs

    def search(self, result: SearchResult) -> list[Transition | SearchReason]:
        outputs: list[Transition | SearchReason] = []
        for row in result.rows:
            if row.code not in {reason.code for reason in outputs}:
                outputs.append(
                    SearchReason(
                        id=identity("search-reason", result.id, row.code),
                        account=self.account,
                        condition=self.name,
                        code=row.code,
                        exchange=row.exchange,
                        name=row.name,
                        date=trading_date(result.at),
                        at=result.at,
                        received_at=result.received_at,
                        price=row.price,
                        change_rate=row.change_rate,
                        search_id=result.id,
                        scheduled_for=result.scheduled_for,
                    )
                )
        return outputs

    def end_day(self) -> list[Transition | SearchReason]:
        if self.day is None:
            return []
        end = day_end(self.day)
        due = Due(
            id=identity("due", "day-end", self.account, self.name, self.day.isoformat()),
            kind="day-end",
            at=end,
            account=self.account,
            condition=self.name,
        )
        return [self.leave(code, due, "day-end") for code in sorted(self.inside())]

    def enter(self, code: str, cause: ConditionEvent | ConditionSnapshot, origin: Any, **more: Any) -> Transition:
        entry = 1 + sum(transition.kind == "entered" for transition in self.of(code))
        return self.tell(code, cause, kind="entered", origin=origin, entry=entry, since=cause.at, **more)

    def leave(self, code: str, cause: ConditionEvent | ConditionSnapshot | Due, origin: Any, **more: Any) -> Transition:
        visit = self.of(code)[-1]
        dwell = max(0.0, (cause.at - visit.at).total_seconds())
        more |= {"entry": visit.entry, "since": visit.at, "dwell": dwell, "exchange": visit.exchange}
        return self.tell(code, cause, kind="exited", origin=origin, **more)

    def tell(self, code: str, cause: ConditionEvent | ConditionSnapshot | Due, **more: Any) -> Transition:
        assert self.day is not None
        deadline = isinstance(cause, Due)
        transition = Transition(
            id=transition_id(self.account, self.name, code, self.day, more["entry"], more["kind"]),
            account=self.account,
            condition=self.name,
            code=code,
            date=self.day,
            at=cause.at,
            event_id=cause.id,
            session=self.words[code].session if deadline else cause.session,
            received_at=cause.at.astimezone(UTC) if deadline else cause.received_at,
            **more,
        )
        self.told.append(transition)
        self.doubts.pop(code, None)
        if not isinstance(cause, Due):
            self.words[code] = Word(transition.session, cause.at, place(cause))
        return transition


def place(record: ConditionEvent | ConditionSnapshot) -> tuple[datetime, int, int]:
    """Where a record stands in what its session heard; a snapshot stands where its request was sent."""
    if isinstance(record, ConditionSnapshot):
        return record.at, 0, 0
    return record.received_at, record.frame, record.entry


# --- recommendations --------------------------------------------------------------------------------------------------


@dataclass
class Visit:
    """A stay in a condition. `hold_passed` once its hold is over, `left_at` when the stock is outside."""

    since: datetime
    hold_passed: bool
    left_at: datetime | None = None


@dataclass
class Stock:
    """A stock's trading day: the records that counted, in a list, and its recommendations of the day."""

    account: str
    code: str
    policy: Policy
    day: date | None = None
    seen: set[str] = field(default_factory=set)
    visits: dict[str, list[Visit]] = field(default_factory=lambda: defaultdict(list))
    searches: list[SearchReason] = field(default_factory=list)
    manual: Recommend | None = None
    told: list[Recommendation] = field(default_factory=list)
    barred: bool = False

    def read(self, record: StockRecord) -> list[Recommendation]:
        """One record of the log: first the deadlines that it passes, then what it says itself."""
        before = len(self.told)
        if isinstance(record, Due):
            if self.day is not None:
                self.pass_time(record.at, including=True)
            return self.told[before:]
        today = record.date if isinstance(record, Transition | SearchReason) else trading_date(record.at)
        expired = isinstance(record, Recommend) and record.expires_at is not None and record.expires_at <= record.at
        if record.id in self.seen or expired or (self.day is not None and today < self.day):
            return []
        if self.day is None:
            self.begin(today)
        self.pass_time(record.at, including=False)
        if today != self.day:
            self.end_day(today)
        self.seen.add(record.id)
        if isinstance(record, Transition):
            self.moved(record)
            if record.origin == "day-end":
                # Whichever of its conditions says so first: the stock's day is over.
                self.end_day(today + timedelta(days=1))
            else:
                self.review(record.id, record.at, record.received_at)
        elif isinstance(record, SearchReason):
            self.searches.append(record)
            self.review(record.id, record.at, record.received_at)
        elif isinstance(record, Recommend):
            self.manual = record
            self.barred = False
            self.review(record.id, record.at, record.at.astimezone(UTC), by_person=True)
        elif isinstance(record, Withdraw) and self.open() is not None:
            self.end("withdrawn", record.id, record.at)
        return self.told[before:]

    def begin(self, day: date) -> None:
        self.day = day
        self.seen, self.visits, self.searches = set(), defaultdict(list), []
        self.manual, self.barred = None, False

    # -- time

    def pass_time(self, until: datetime, *, including: bool) -> None:
        """Let every deadline before `until` (or at it) happen, the earliest first."""
        while True:
            passed = sorted(d for d in self.deadlines() if d[0] < until or (including and d[0] == until))
            if not passed:
                return
            at, kind, condition = passed[0]
            if kind == "day-end":
                self.end_day(trading_date(until))
            elif kind == "expiry":
                self.end("expired", self.due_id(at, kind, condition), at)
            else:
                self.visits[condition][-1].hold_passed = True
                self.review(self.due_id(at, kind, condition), at, at.astimezone(UTC))

    def due_id(self, at: datetime, kind: str, condition: str) -> str:
        current = self.open()
        opened = current.recommendation_id if current is not None and kind == "expiry" else ""
        return identity("due", kind, self.account, self.code, condition, opened, at.astimezone(UTC).isoformat())

    def deadlines(self) -> list[tuple[datetime, str, str]]:
        assert self.day is not None
        found = [(day_end(self.day), "day-end", "")]
        current = self.open()
        if current is not None and current.expires_at is not None:
            found.append((current.expires_at, "expiry", ""))
        for condition, visits in self.visits.items():
            visit = visits[-1]
            if visit.left_at is None and not visit.hold_passed and self.in_window(condition, visit):
                hold = timedelta(seconds=self.policy.conditions[condition].hold)
                found.append((visit.since + hold, "hold", condition))
        return found

    def end_day(self, following: date) -> None:
        assert self.day is not None
        at = day_end(self.day)
        if self.open() is not None:
            self.close("day-end", self.due_id(at, "day-end", ""), at, at.astimezone(UTC))
        self.begin(following)

    def end(self, cause: Any, cause_id: str, at: datetime) -> None:
        """An expiry or a withdrawal: also what a person said is over, and it stays so while the score is up."""
        self.close(cause, cause_id, at, at.astimezone(UTC))
        self.manual = None
        self.barred = self.enough()

    # -- what a record says

    def moved(self, record: Transition) -> None:
        if record.condition not in self.policy.conditions:
            return
        terms = self.policy.conditions[record.condition]
        visits = self.visits[record.condition]
        last = visits[-1] if visits else None
        if record.kind == "exited":
            if last is None or last.left_at is not None:
                last = Visit(since=record.since, hold_passed=False)  # a visit whose beginning was never told
                visits.append(last)
            last.left_at = record.at
        elif (
            last is not None
            and last.left_at is not None
            and last.hold_passed
            and self.in_window(record.condition, last)
            and terms.cooldown > 0
            and record.at - last.left_at <= timedelta(seconds=terms.cooldown)
        ):
            last.left_at = None
        else:
            visits.append(Visit(since=record.since, hold_passed=terms.hold == 0))

    def in_window(self, condition: str, visit: Visit) -> bool:
        """Whether a visit may count: it begins in the window, whose end is outside; one may span midnight."""
        window = self.policy.conditions[condition].window
        if window is None:
            return True
        start, end = window
        began = visit.since.astimezone(KST).time()
        return start <= began < end if start <= end else not (end <= began < start)

    # -- what it is worth

    def memberships(self) -> list[Membership]:
        found: list[Membership] = []
        for condition, visits in self.visits.items():
            visit = visits[-1]
            if visit.left_at is None and visit.hold_passed and self.in_window(condition, visit):
                found.append(self.membership("condition", condition, visit.since, len(visits)))
        for condition in {reason.condition for reason in self.searches}:
            if condition in self.policy.conditions:
                reasons = [reason for reason in self.searches if reason.condition == condition]
                found.append(self.membership("search", condition, reasons[0].at, 1))
        return sorted(found, key=lambda m: (m.since, m.kind, m.condition))

    def membership(self, kind: Any, condition: str, since: datetime, visits: int) -> Membership:
        weight = self.policy.conditions[condition].weight
        return Membership(kind=kind, condition=condition, since=since, visits=visits, weight=weight)

    def reasons(self) -> list[Reason]:
        memberships = self.memberships()
        reasons = [
            Reason(
                kind=membership.kind,
                condition=membership.condition,
                algorithm_id=self.policy.conditions[membership.condition].algorithm_id or membership.condition,
                since=membership.since,
                visits=membership.visits,
                score=part,
            )
            for membership, part in zip(memberships, self.policy.rule(memberships), strict=True)
        ]
        if self.manual is not None:
            reasons.append(
                Reason(
                    kind="manual",
                    since=self.manual.at,
                    score=self.policy.threshold,
                    by=self.manual.by,
                    note=self.manual.note,
                )
            )
        return reasons

    def open(self) -> Recommendation | None:
        """The last revision, if it left the recommendation open."""
        return self.told[-1] if self.told and self.told[-1].state == "open" else None

    def enough(self) -> bool:
        """A person's word is enough by itself, whatever the rule says of the rest."""
        return self.manual is not None or sum(r.score for r in self.reasons()) > self.policy.threshold - 1e-9

    def review(self, cause_id: str, at: datetime, received_at: datetime, *, by_person: bool = False) -> None:
        reasons = self.reasons()
        if not self.enough():
            self.barred = False
        current = self.open()
        asked = self.manual.expires_at if by_person and self.manual is not None else None
        if current is not None and not self.enough():
            self.tell(
                current.recommendation_id, current.revision + 1, "closed", "score", cause_id, at, received_at,
                reasons=reasons, opened_at=current.opened_at, expires_at=current.expires_at,
            )  # fmt: skip
        elif current is not None:
            expires_at = asked or current.expires_at
            if list(current.reasons) != reasons or current.expires_at != expires_at:
                self.tell(
                    current.recommendation_id, current.revision + 1, "open", "reason", cause_id, at, received_at,
                    reasons=reasons, opened_at=current.opened_at, expires_at=expires_at,
                )  # fmt: skip
        elif self.enough() and not self.barred:
            number = 1 + sum(told.revision == 1 and told.date == self.day for told in self.told)
            assert self.day is not None
            opening = identity("recommendation", self.account, self.code, self.day.isoformat(), number)
            expires_at = asked
            if expires_at is None and self.policy.expiry:
                expires_at = at + timedelta(seconds=self.policy.expiry)
            self.tell(
                opening, 1, "open", "command" if by_person else "threshold", cause_id, at, received_at,
                reasons=reasons, opened_at=at, expires_at=expires_at,
            )  # fmt: skip

    def close(self, cause: Any, cause_id: str, at: datetime, received_at: datetime) -> None:
        """Close what is open, with the reasons that stood."""
        current = self.open()
        assert current is not None
        self.tell(
            current.recommendation_id, current.revision + 1, "closed", cause, cause_id, at, received_at,
            reasons=list(current.reasons), opened_at=current.opened_at, expires_at=current.expires_at,
        )  # fmt: skip

    def tell(
        self, opening: str, number: int, state: Any, cause: Any, cause_id: str, at: datetime, received_at: datetime,
        *, reasons: list[Reason], opened_at: datetime, expires_at: datetime | None,
    ) -> None:  # fmt: skip
        assert self.day is not None
        self.told.append(
            Recommendation(
                id=revision_id(opening, number),
                recommendation_id=opening,
                revision=number,
                account=self.account,
                code=self.code,
                date=self.day,
                state=state,
                cause=cause,
                cause_id=cause_id,
                rule=self.policy.rule_name,
                score=sum(reason.score for reason in reasons),
                threshold=self.policy.threshold,
                reasons=tuple(reasons),
                opened_at=opened_at,
                at=at,
                expires_at=expires_at,
                received_at=received_at,
            )
        )
