"""Recommendations: when they open, change and close, case by case. `test_against_reference` has the random logs."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

import msgspec
import pytest

from streams import recommend
from streams.events import (
    KST,
    Due,
    Recommend,
    Recommendation,
    SearchReason,
    SearchResult,
    SearchRow,
    StockRecord,
    Transition,
    Withdraw,
    encode,
    transition_id,
)
from streams.lane import MembershipLane
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
    ConditionRule(name="most", weight=0.7),
    ConditionRule(name="tenth", weight=0.1),
    ConditionRule(name="fifth", weight=0.2),
    ConditionRule(name="against", weight=-0.6),
    ConditionRule(name="night", window=(time(22), time(2))),
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
    "weights that add up to the threshold but for rounding are enough": (
        {},
        [entered("most", "09:00:00"), entered("tenth", "09:01:00"), entered("fifth", "09:02:00")],
        ["open threshold 1 09:02:00"],
    ),
    "a person's word is not outvoted": (
        {},
        [entered("against", "09:00:00"), command("09:01:00"), withdraw("09:02:00"), exited("against", "09:03:00")],
        ["open command 0.4 09:01:00", "closed withdrawn 0.4 09:02:00"],
    ),
    "what speaks against a stock closes it": (
        {},
        [entered("plain", "09:00:00"), entered("against", "09:01:00"), exited("against", "09:02:00")],
        ["open threshold 1 09:00:00", "closed score 0.4 09:01:00", "open threshold 1 09:02:00"],
    ),
    "a search is a reason until the day ends": (
        {},
        [found("plain", "09:00:00"), found("plain", "15:37:00", "f2"), due("00:00:00", NEXT, "day-end")],
        ["open threshold 1 09:00:00", "closed day-end 1 00:00:00"],
    ),
    "a second word of a person renews it": (
        {},
        [command("09:00:00", expires="09:10:00"), command("09:05:00", "k2", expires="09:30:00"), due("09:10:00")],
        ["open command 1 09:00:00", "open reason 1 09:05:00"],
    ),
    "the window may span midnight": (
        {},
        [entered("night", "23:00:00"), entered("night", "02:00:00", day=NEXT)],
        ["open threshold 1 23:00:00", "closed day-end 1 00:00:00"],
    ),
    "a day's end also ends a day in which nothing counts": (
        {},
        [withdraw("09:00:00"), due("00:00:00", NEXT, "day-end"), entered("plain", "15:00:00")],
        [],
    ),
    "a record from far ahead ends one day, not thousands": (
        {},
        [entered("plain", "09:00:00"), entered("plain", "09:00:00", day=date(9999, 1, 1))],
        ["open threshold 1 09:00:00", "closed day-end 1 00:00:00", "open threshold 1 09:00:00"],
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
    (announced,) = [recommend.due(standing, deadline) for deadline in recommend.deadlines(standing)]
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
        return [(d.kind, d.at) for d in recommend.deadlines(standing)]

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


def test_a_scheduled_search_is_a_reason_from_its_result_on() -> None:
    """From the producer's `SearchResult` to the `Reason`: once per stock, whoever ran the search, until midnight."""
    ran = at("15:37:02")
    result = SearchResult(
        id="s", account="main", condition="held", seq="7", at=ran, received_at=ran.astimezone(UTC), session="a",
        rows=(SearchRow(code="005930", name="삼성전자", price=316500), SearchRow(code="005930", exchange="NXT")),
        scheduled_for=at("15:37:00"),
    )  # fmt: skip
    standby = msgspec.structs.replace(result, at=at("15:37:03"), session="b")  # the same run, by another producer
    members = MembershipLane(0, (), 0)
    log = [
        output.record for n, said in enumerate((result, standby)) for output in members.take(encode(said), n).outputs
    ]
    (reason,) = log
    assert (reason.name, reason.price, reason.exchange, reason.scheduled_for) == (
        "삼성전자", 316500, "KRX", at("15:37:00"),
    )  # fmt: skip
    (opened, closed), _ = run(policy(), reason, due("00:00:00", NEXT, "day-end"))
    assert (opened.cause_id, opened.at, closed.cause) == (reason.id, ran, "day-end")
    (because,) = opened.reasons
    assert (because.kind, because.condition, because.since, because.visits) == ("search", "held", ran, 1)
