"""Recommendations: what the transitions of a stock are worth, and when that is worth telling.

Pure: no clock, no Kafka, no Faust. `apply` takes what is remembered of one (account, code), one record of the log and
the policy, and returns what to remember and the revisions to publish. Which transitions there are is
`streams.membership`'s business, what a set of memberships scores is `streams.rules`'.

The one idea: time passes only through the log. A hold, an expiry or the end of the day is a *deadline*; it is applied
when its `Due` is read, or before the first record dated after it, whichever stands first, and always dated with
its own moment. So a replay years later, at any speed, makes the same revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

import msgspec

from .events import (
    KST,
    Due,
    Reason,
    Recommend,
    Recommendation,
    SearchReason,
    StockRecord,
    Transition,
    Withdraw,
    day_end,
    identity,
    revision_id,
    trading_date,
)
from .rules import Membership, Rule, judge, load
from .settings import ConditionRule, RecommendSettings

Cause = Literal["threshold", "command", "reason", "score", "expired", "withdrawn", "day-end"]
Ignored = Literal["repeat", "late", "exit-without-entry", "nothing-open", "replayed"]

#: Scores closer than this are the same: sums of weights carry rounding errors.
_EPSILON: Final = 1e-9


class Visit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stock's current or last visit to a condition.

    `entry` and `inside` are those of the last transition. `since` is when the visit began, `visits` how many there
    were today. A visit counts once it is `confirmed`; before that it waits for `hold_until`, and one that never will
    (it began outside the window) has neither. `left_at` is when the stock left.
    """

    entry: int
    inside: bool
    since: datetime
    visits: int = 1
    confirmed: bool = False
    hold_until: datetime | None = None
    left_at: datetime | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A search of a condition found the stock: since when, in how many searches."""

    since: datetime
    searches: tuple[str, ...]


class Manual(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person recommends the stock."""

    since: datetime
    by: str
    note: str = ""


class Opening(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The open recommendation, as the last revision told it."""

    recommendation_id: str
    revision: int
    opened_at: datetime
    expires_at: datetime | None
    score: float
    reasons: tuple[Reason, ...]


class Standing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that is remembered of one (account, code) on the trading `date`.

    `openings` counts the recommendations of the date. `barred` says that one expired or was withdrawn and the score
    has not been below the threshold since. `commands` are the ids of today's. `position` is where the last record
    stands that is in here.
    """

    account: str
    code: str
    date: date
    visits: dict[str, Visit] = {}
    found: dict[str, Found] = {}
    manual: Manual | None = None
    opening: Opening | None = None
    openings: int = 0
    barred: bool = False
    commands: tuple[str, ...] = ()
    position: int = -1


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say: what each condition is worth, the rule, the threshold, the expiry (seconds, 0 never).

    A condition that is not configured is worth nothing and is no reason.
    """

    conditions: Mapping[str, ConditionRule]
    rule_name: str
    rule: Rule
    threshold: float
    expiry: float

    @classmethod
    def of(cls, conditions: Iterable[ConditionRule], settings: RecommendSettings) -> Policy:
        """The policy of the settings; raises `ConfigError` where the rule or its options are wrong."""
        return cls(
            conditions={condition.name: condition for condition in conditions},
            rule_name=settings.rule,
            rule=load(settings.rule, settings.options),
            threshold=settings.threshold,
            expiry=settings.expiry,
        )


@dataclass(slots=True)
class Outcome:
    """What one record changes: the standing to remember, the revisions to publish, why it changed nothing."""

    standing: Standing | None
    revisions: list[Recommendation] = field(default_factory=list)
    ignored: Ignored | None = None


class Deadline(msgspec.Struct, frozen=True, order=True, gc=False):
    """A moment at which a standing changes by itself. They are applied in this order.

    `condition` is that of a hold, `recommendation_id` that which expires.
    """

    at: datetime
    kind: Literal["day-end", "expiry", "hold"]
    condition: str = ""
    recommendation_id: str = ""


def apply(standing: Standing | None, record: StockRecord, position: int, policy: Policy) -> Outcome:
    """Decide what `record`, which stands at `position` of the log, changes.

    A record that repeats what is known changes nothing. Any other one first lets every deadline pass that lies before
    it.
    """
    if standing is not None and standing.position >= position:
        return Outcome(standing, ignored="replayed")
    if standing is None:
        if isinstance(record, Due):
            return Outcome(None, ignored="repeat")
        standing = Standing(account=record.account, code=record.code, date=_date_of(record))
    turn = _Turn(standing, policy)
    if isinstance(record, Due):
        ignored: Ignored | None = None if turn.pass_until(record.at, including=True) else "repeat"
    else:
        ignored = _known(standing, record)
        if ignored is None:
            turn.pass_until(record.at, including=False)
            if _date_of(record) > turn.standing.date:
                turn.end_day(day_end(turn.standing.date), _date_of(record))
            ignored = turn.take(record)
    if not turn.revisions and turn.standing == standing:
        return Outcome(standing if standing.position >= 0 else None, ignored=ignored or "repeat")
    return Outcome(msgspec.structs.replace(turn.standing, position=position), turn.revisions, ignored)


def deadlines(standing: Standing) -> list[Deadline]:
    """What somebody has to announce when it passes, earliest first; `due` is how.

    The end of the day is among them only while a recommendation is open: nothing else is visible of it, and the
    first record of the next day lets it pass.
    """
    return [deadline for deadline in _deadlines(standing) if deadline.kind != "day-end" or standing.opening is not None]


def _deadlines(standing: Standing) -> list[Deadline]:
    pending = [
        Deadline(visit.hold_until, "hold", condition)
        for condition, visit in standing.visits.items()
        if visit.hold_until is not None and visit.inside and not visit.confirmed
    ]
    pending.append(Deadline(day_end(standing.date), "day-end"))
    opening = standing.opening
    if opening is not None and opening.expires_at is not None:
        pending.append(Deadline(opening.expires_at, "expiry", "", opening.recommendation_id))
    return sorted(pending) if len(pending) > 1 else pending


def due(standing: Standing, deadline: Deadline) -> Due:
    """The record that announces a deadline."""
    opened = deadline.recommendation_id
    at = deadline.at.astimezone(UTC)
    return Due(
        id=identity("due", deadline.kind, standing.account, standing.code, deadline.condition, opened, at.isoformat()),
        kind=deadline.kind,
        at=deadline.at,
        account=standing.account,
        condition=deadline.condition,
        code=standing.code,
        recommendation_id=opened,
    )


def _date_of(record: Transition | SearchReason | Recommend | Withdraw) -> date:
    return record.date if isinstance(record, Transition | SearchReason) else trading_date(record.at)


def _known(standing: Standing, record: Transition | SearchReason | Recommend | Withdraw) -> Ignored | None:
    """Whether the record is late or says what is known already. Judged before any deadline passes."""
    expired = isinstance(record, Recommend) and record.expires_at is not None and record.expires_at <= record.at
    if _date_of(record) < standing.date or expired:
        return "late"
    if _date_of(record) > standing.date:
        return None
    repeat = False
    match record:
        case Transition():
            visit = standing.visits.get(record.condition)
            if visit is not None:
                same = record.entry == visit.entry and (record.kind == "entered" or not visit.inside)
                repeat = same or record.entry < visit.entry
        case SearchReason():
            found = standing.found.get(record.condition)
            repeat = found is not None and record.search_id in found.searches
        case Recommend() | Withdraw():
            repeat = record.id in standing.commands
    return "repeat" if repeat else None


class _Turn:
    """The standing while one record is applied, and the revisions made so far."""

    def __init__(self, standing: Standing, policy: Policy) -> None:
        self.standing = standing
        self.policy = policy
        self.revisions: list[Recommendation] = []

    def pass_until(self, moment: datetime, *, including: bool) -> bool:
        """Apply every deadline before `moment` (and at it), each dated with its own moment. Whether there was one."""
        passed = False
        while True:
            deadline = _deadlines(self.standing)[0]
            if deadline.at > moment or (deadline.at == moment and not including):
                break
            passed = True
            cause_id = due(self.standing, deadline).id
            match deadline.kind:
                case "day-end":
                    self.end_day(deadline.at, trading_date(moment))
                case "expiry":
                    self._end("expired", cause_id, deadline.at, deadline.at.astimezone(UTC))
                case "hold":
                    visit = self.standing.visits[deadline.condition]
                    self._visit(deadline.condition, msgspec.structs.replace(visit, confirmed=True, hold_until=None))
                    self._review("reason", cause_id, deadline.at, deadline.at.astimezone(UTC))
        return passed

    def end_day(self, at: datetime, following: date) -> None:
        """The trading date is over: the recommendation closes and everything is forgotten."""
        if self.standing.opening is not None:
            cause_id = due(self.standing, Deadline(at, "day-end")).id
            self._close("day-end", cause_id, at, at.astimezone(UTC))
        self.standing = Standing(account=self.standing.account, code=self.standing.code, date=following)

    def take(self, record: Transition | SearchReason | Recommend | Withdraw) -> Ignored | None:
        """Apply a record that is neither late nor a repeat."""
        match record:
            case Transition(kind="entered"):
                self._entered(record)
            case Transition():
                return self._exited(record)
            case SearchReason():
                self._found(record)
            case Recommend():
                self._recommend(record)
            case Withdraw():
                return self._withdraw(record)
        return None

    def _entered(self, record: Transition) -> None:
        terms = self.policy.conditions.get(record.condition)
        last = self.standing.visits.get(record.condition)
        if (
            terms is not None
            and last is not None
            and last.confirmed
            and last.left_at is not None
            and (record.at - last.left_at).total_seconds() <= terms.cooldown
            and terms.cooldown > 0
        ):
            visit = msgspec.structs.replace(last, entry=record.entry, inside=True, left_at=None)
        else:
            allowed = terms is not None and _in_window(record.since, terms.window)
            hold = terms.hold if terms is not None else 0.0
            visit = Visit(
                entry=record.entry,
                inside=True,
                since=record.since,
                visits=last.visits + 1 if last is not None else 1,
                confirmed=allowed and hold == 0,
                hold_until=record.since + timedelta(seconds=hold) if allowed and hold > 0 else None,
            )
        self._visit(record.condition, visit)
        self._review("reason", record.id, record.at, record.received_at)

    def _exited(self, record: Transition) -> Ignored | None:
        last = self.standing.visits.get(record.condition)
        known = last is not None and last.entry == record.entry
        if last is None or not known:
            last = Visit(
                entry=record.entry, inside=True, since=record.since, visits=last.visits + 1 if last is not None else 1
            )
        self._visit(record.condition, msgspec.structs.replace(last, inside=False, hold_until=None, left_at=record.at))
        if record.origin == "day-end" and record.at >= day_end(self.standing.date):
            # The stock's day ends with the first of its conditions' days: the others say the same moment.
            self.end_day(record.at, self.standing.date + timedelta(days=1))
        else:
            cause: Cause = "day-end" if record.origin == "day-end" else "score"
            self._review("reason", record.id, record.at, record.received_at, fallen=cause)
        return None if known else "exit-without-entry"

    def _found(self, record: SearchReason) -> None:
        last = self.standing.found.get(record.condition)
        found = (
            Found(since=record.at, searches=(record.search_id,))
            if last is None
            else msgspec.structs.replace(last, searches=(*last.searches, record.search_id))
        )
        self.standing = msgspec.structs.replace(self.standing, found={**self.standing.found, record.condition: found})
        self._review("reason", record.id, record.at, record.received_at)

    def _recommend(self, record: Recommend) -> None:
        self.standing = msgspec.structs.replace(
            self.standing,
            manual=Manual(since=record.at, by=record.by, note=record.note),
            commands=(*self.standing.commands, record.id),
            barred=False,
        )
        self._review(
            "reason", record.id, record.at, record.at.astimezone(UTC), opened="command", expires_at=record.expires_at
        )

    def _withdraw(self, record: Withdraw) -> Ignored | None:
        self.standing = msgspec.structs.replace(self.standing, commands=(*self.standing.commands, record.id))
        if self.standing.opening is None:
            return "nothing-open"
        self._end("withdrawn", record.id, record.at, record.at.astimezone(UTC))
        return None

    def _visit(self, condition: str, visit: Visit) -> None:
        self.standing = msgspec.structs.replace(self.standing, visits={**self.standing.visits, condition: visit})

    def _end(self, cause: Cause, cause_id: str, at: datetime, received_at: datetime) -> None:
        """Close what is open, by its expiry or a person; what the score says alone has to fall before it reopens."""
        self._close(cause, cause_id, at, received_at)
        self.standing = msgspec.structs.replace(self.standing, manual=None)
        _, score = weigh(self.standing, self.policy)
        self.standing = msgspec.structs.replace(self.standing, barred=_reaches(score, self.policy.threshold))

    def _review(
        self,
        cause: Cause,
        cause_id: str,
        at: datetime,
        received_at: datetime,
        *,
        opened: Cause = "threshold",
        fallen: Cause = "score",
        expires_at: datetime | None = None,
    ) -> None:
        """Compare the score with what was last told, and tell what a reader would see changed."""
        standing, policy = self.standing, self.policy
        reasons, score = weigh(standing, policy)
        enough = standing.manual is not None or _reaches(score, policy.threshold)
        if not enough and standing.barred:
            standing = self.standing = msgspec.structs.replace(standing, barred=False)
        opening = standing.opening
        if opening is None:
            if not enough or standing.barred:
                return
            number = standing.openings + 1
            if expires_at is None and policy.expiry > 0:
                expires_at = at + timedelta(seconds=policy.expiry)
            opening = Opening(
                recommendation_id=identity(
                    "recommendation", standing.account, standing.code, standing.date.isoformat(), number
                ),
                revision=0,
                opened_at=at,
                expires_at=expires_at,
                score=score,
                reasons=reasons,
            )
            self.standing = msgspec.structs.replace(standing, openings=number)
            self._tell(opening, "open", opened, cause_id, at, received_at)
        elif not enough:
            opening = msgspec.structs.replace(opening, score=score, reasons=reasons)
            self._tell(opening, "closed", fallen, cause_id, at, received_at)
        else:
            changed = msgspec.structs.replace(
                opening, score=score, reasons=reasons, expires_at=expires_at or opening.expires_at
            )
            if changed != opening:
                self._tell(changed, "open", cause, cause_id, at, received_at)

    def _close(self, cause: Cause, cause_id: str, at: datetime, received_at: datetime) -> None:
        """Close what is open with the reasons that it had."""
        if self.standing.opening is not None:
            self._tell(self.standing.opening, "closed", cause, cause_id, at, received_at)

    def _tell(
        self,
        opening: Opening,
        state: Literal["open", "closed"],
        cause: Cause,
        cause_id: str,
        at: datetime,
        received_at: datetime,
    ) -> None:
        opening = msgspec.structs.replace(opening, revision=opening.revision + 1)
        self.revisions.append(
            Recommendation(
                id=revision_id(opening.recommendation_id, opening.revision),
                recommendation_id=opening.recommendation_id,
                revision=opening.revision,
                account=self.standing.account,
                code=self.standing.code,
                date=self.standing.date,
                state=state,
                cause=cause,
                cause_id=cause_id,
                rule=self.policy.rule_name,
                score=opening.score,
                threshold=self.policy.threshold,
                reasons=opening.reasons,
                opened_at=opening.opened_at,
                at=at,
                expires_at=opening.expires_at,
                received_at=received_at,
            )
        )
        self.standing = msgspec.structs.replace(self.standing, opening=opening if state == "open" else None)


def weigh(standing: Standing, policy: Policy) -> tuple[tuple[Reason, ...], float]:
    """The reasons that count now, oldest first, and their score."""
    memberships = sorted(_memberships(standing, policy), key=lambda m: (m.since, m.kind, m.condition))
    parts = judge(policy.rule_name, policy.rule, tuple(memberships))
    reasons = [
        Reason(
            kind=membership.kind,
            condition=membership.condition,
            algorithm_id=policy.conditions[membership.condition].algorithm_id or membership.condition,
            since=membership.since,
            visits=membership.visits,
            score=part,
        )
        for membership, part in zip(memberships, parts, strict=True)
    ]
    if standing.manual is not None:
        manual = standing.manual
        reasons.append(
            Reason(kind="manual", since=manual.since, score=policy.threshold, by=manual.by, note=manual.note)
        )
    return tuple(reasons), sum(reason.score for reason in reasons)


def _memberships(standing: Standing, policy: Policy) -> Iterable[Membership]:
    for condition, visit in standing.visits.items():
        if visit.inside and visit.confirmed and condition in policy.conditions:
            yield Membership(
                kind="condition",
                condition=condition,
                since=visit.since,
                visits=visit.visits,
                weight=policy.conditions[condition].weight,
            )
    for condition, found in standing.found.items():
        if condition in policy.conditions:
            yield Membership(
                kind="search",
                condition=condition,
                since=found.since,
                visits=1,
                weight=policy.conditions[condition].weight,
            )


def _reaches(score: float, threshold: float) -> bool:
    return score >= threshold - _EPSILON


def _in_window(since: datetime, window: tuple[time, time] | None) -> bool:
    """Whether a visit may begin then; the window's end is outside it, and it may span midnight."""
    if window is None:
        return True
    start, end = window
    moment = since.astimezone(KST).time()
    return start <= moment < end if start <= end else moment >= start or moment < end
