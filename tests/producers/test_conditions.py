"""Conditions: identity, dates, gaps and states, from a session's actions to records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from producers.calendar import Calendar
from producers.conditions import Conditions, happened_at
from producers.kiwoom.session import Audited, Changed, Doubted, Entry, Ignored, Pinged, SessionChanged, Snapshot
from streams.events import KST, ConditionEvent, ConditionSnapshot, Gap, Status, event_id

T0 = datetime(2026, 11, 23, 0, 30, 0, 250_000, tzinfo=UTC)  # 09:30 in Seoul


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def entry(code: str = "005930", action: Any = "hit", time: str | None = "093000", **more: Any) -> Entry:
    fields = {"condition": "돌파", "seq": "7", "exchange": "KRX", "received_at": T0, "frame": 4, "entry": 1} | more
    return Entry(code=code, action=action, time=time, **fields)


def snapshot(*codes: str, at: datetime = T0, frame: int = 3) -> Snapshot:
    return Snapshot(
        condition="돌파",
        seq="7",
        codes=codes,
        requested_at=at - timedelta(seconds=1),
        received_at=at,
        frame=frame,
    )


def started(covered: dict[str, datetime] | None = None) -> Conditions:
    conditions = Conditions("main", "abcd1234", ["돌파"], T0, covered)
    conditions.connecting("c1", T0)
    return conditions


def to(state: Any, cause: str = "") -> Changed:
    return Changed(condition="돌파", state=state, cause=cause)


def went_live(covered: dict[str, datetime] | None = None) -> Conditions:
    conditions = started(covered)
    conditions.apply(snapshot("005930"), T0)
    conditions.apply(to("live"), T0)
    conditions.told()
    return conditions


# --- events


def test_an_entry_becomes_an_event_with_identity_and_provenance() -> None:
    (event,) = started().apply(entry(), T0)
    at = datetime(2026, 11, 23, 9, 30, tzinfo=KST)
    assert event == ConditionEvent(
        id=event_id("main", "돌파", "005930", "hit", at, 0),
        account="main",
        condition="돌파",
        seq="7",
        code="005930",
        action="hit",
        at=at,
        received_at=T0,
        session="c1",
        frame=4,
        entry=1,
    )


def events(conditions: Conditions, *entries: Entry) -> list[ConditionEvent]:
    records = [record for e in entries for record in conditions.apply(e, T0)]
    return [record for record in records if isinstance(record, ConditionEvent)]


def test_equal_entries_of_one_connection_are_told_apart_by_their_ordinal() -> None:
    said = events(started(), entry(), entry(action="exit"), entry(), entry(), entry("000660"))
    assert [(e.action, e.ordinal) for e in said] == [("hit", 0), ("exit", 0), ("hit", 1), ("hit", 2), ("hit", 0)]
    assert len({e.id for e in said}) == 5


def test_another_connection_gives_the_same_entry_the_same_id() -> None:
    conditions = started()
    (first,) = events(conditions, entry())
    conditions.connecting("c2", after(5))
    (second,) = events(conditions, entry())
    assert first.id == second.id
    assert (first.session, second.session) == ("c1", "c2")


def test_ordinals_of_a_busy_day_are_forgotten_by_age_and_not_within_their_second() -> None:
    conditions = started()
    for n in range(21_000):
        conditions.apply(entry(f"{n:06d}", time="080000"), T0)
    (again,) = events(conditions, entry("000001", time="080000"))
    assert again.ordinal == 1
    conditions.apply(entry(time="093000"), T0)
    assert len(conditions._ordinals) < 50_000


@pytest.mark.parametrize(
    ("received", "time", "expected"),
    [
        ("2026-11-23 09:30:00.2", "093000", "2026-11-23 09:30:00"),
        ("2026-11-24 00:00:01", "235959", "2026-11-23 23:59:59"),
        ("2026-11-23 23:59:59.9", "000000", "2026-11-24 00:00:00"),
        ("2026-11-23 09:30:00.7", None, "2026-11-23 09:30:00"),
        ("2027-01-01 00:00:00", "235930", "2026-12-31 23:59:30"),
    ],
)
def test_a_time_gets_the_date_that_puts_it_nearest(received: str, time: str | None, expected: str) -> None:
    local = datetime.fromisoformat(received).replace(tzinfo=KST)
    at = happened_at(time, local.astimezone(UTC))
    assert at == datetime.fromisoformat(expected).replace(tzinfo=KST)
    assert at.utcoffset() == timedelta(hours=9)


# --- snapshots and gaps


def test_a_snapshot_stands_at_its_request() -> None:
    (record,) = started().apply(snapshot("005930", "000660"), T0)
    assert isinstance(record, ConditionSnapshot)
    assert (record.codes, record.at, record.received_at) == (("005930", "000660"), after(-1), T0)


def test_the_first_snapshot_ever_tells_no_gap() -> None:
    assert [type(r) for r in started().apply(snapshot(), T0)] == [ConditionSnapshot]


def test_after_a_loss_the_next_snapshot_is_preceded_by_its_gap() -> None:
    conditions = went_live()
    conditions.apply(entry(received_at=after(10)), after(10))
    conditions.told()
    conditions.heard(after(20))
    conditions.apply(to("disconnected", "no PING for 35 s"), after(45))
    conditions.connecting("c2", after(46))
    gap, _ = conditions.apply(snapshot(at=after(50)), after(50))
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.cause, gap.session) == (after(10), after(50), "no PING for 35 s", "c2")


def test_a_gap_reaches_back_over_every_attempt_between() -> None:
    conditions = went_live()
    conditions.apply(to("disconnected", "closed by Kiwoom (1006)"), after(5))
    for n in range(3):
        conditions.connecting(f"c{n + 2}", after(6 + n))
        conditions.apply(to("listing"), after(6 + n))
        conditions.heard(after(7 + n))
        conditions.disconnected("Kiwoom does not answer", after(8 + n))
    gap, _ = conditions.apply(snapshot(at=after(20)), after(20))
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.cause) == (T0, after(20), "closed by Kiwoom (1006)")


def test_an_entry_before_the_snapshot_does_not_shorten_the_gap() -> None:
    """It shows that there is a registration, not that nothing came before: what was lost before the request is lost."""
    conditions = went_live()
    conditions.apply(to("disconnected", "closed by Kiwoom (1006)"), after(5))
    conditions.connecting("c2", after(6))
    conditions.apply(to("requested"), after(8))
    conditions.apply(entry(received_at=after(9)), after(9))
    conditions.told()
    gap, _ = conditions.apply(snapshot(at=after(13)), after(13))
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.cause) == (T0, after(13), "closed by Kiwoom (1006)")


def test_a_restart_tells_the_gap_since_the_process_before() -> None:
    gap, _ = started({"돌파": after(-300)}).apply(snapshot(), T0)
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.cause) == (after(-300), "the producer was not running")


def test_a_clock_that_was_set_back_makes_no_gap() -> None:
    assert [type(r) for r in started({"돌파": after(300)}).apply(snapshot(), T0)] == [ConditionSnapshot]


def test_a_frame_of_the_connection_is_no_proof_that_a_condition_lives() -> None:
    conditions = started()
    conditions.apply(snapshot(), after(2))
    conditions.apply(to("live"), after(2))
    assert conditions.covered == {}, "it counts before it was handed on"
    conditions.told()
    conditions.heard(after(3))
    assert conditions.covered == {"돌파": T0}


def audited(outcome: Any, asked_at: datetime) -> Audited:
    return Audited(condition="돌파", outcome=outcome, asked_at=asked_at)


def test_an_audit_that_agrees_is_a_proof_of_life() -> None:
    conditions = went_live()
    conditions.apply(audited("agrees", after(300)), after(301))
    conditions.told()
    conditions.apply(to("disconnected", "closed by Kiwoom"), after(320))
    gap, _ = conditions.apply(snapshot(at=after(330)), after(330))
    assert isinstance(gap, Gap)
    assert gap.from_ == after(300)


def test_an_audit_that_proves_death_takes_back_what_audits_proved() -> None:
    conditions = went_live()
    conditions.apply(audited("agrees", after(300)), after(301))
    conditions.told()
    conditions.apply(audited("dead", after(605)), after(606))
    conditions.apply(to("requested", "dead: …"), after(606))
    conditions.told()
    gap, _ = conditions.apply(snapshot(at=after(607)), after(607))
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.cause) == (T0, after(607), "dead: …")


def gap_after(conditions: Conditions, *codes: str) -> Gap:
    """The gap that a snapshot at 700 s closes."""
    conditions.apply(to("requested", "…"), after(690))
    conditions.told()
    gap, _ = conditions.apply(snapshot(*codes, at=after(700)), after(700))
    assert isinstance(gap, Gap)
    return gap


def test_an_audit_that_proves_something_missed_takes_back_what_entries_proved() -> None:
    """It speaks, so when it began to miss things nobody knows: some time after the last look that agreed."""
    conditions = went_live()
    conditions.apply(audited("agrees", after(300)), after(301))
    conditions.told()
    conditions.apply(entry(received_at=after(500)), after(500))
    conditions.told()
    conditions.apply(audited("missed", after(605)), after(606))
    assert gap_after(conditions).from_ == after(300)


def doubted() -> Conditions:
    conditions = went_live()
    conditions.apply(audited("agrees", after(300)), after(301))
    conditions.apply(entry(received_at=after(500)), after(500))
    conditions.told()
    conditions.apply(Doubted(condition="돌파"), after(601))
    conditions.apply(entry(received_at=after(603)), after(603))
    conditions.told()
    return conditions


def test_while_an_audit_doubts_what_is_said_proves_nothing() -> None:
    assert doubted().covered == {"돌파": after(300)}


@pytest.mark.parametrize(
    ("outcome", "begins"),
    [("agrees", 605), ("silent", 300), ("refused", 300), ("unsettled", 300), ("refuted", 300)],
)
def test_only_a_look_that_agrees_makes_up_for_a_doubt(outcome: Any, begins: float) -> None:
    conditions = doubted()
    conditions.apply(audited(outcome, after(605)), after(606))
    assert gap_after(conditions).from_ == after(begins)


@pytest.mark.parametrize(
    ("outcome", "begins"), [("agrees", 650), ("silent", 300), ("refused", 300), ("unsettled", 650)]
)
def test_a_search_that_comes_to_nothing_leaves_a_doubt_as_it_was(outcome: Any, begins: float) -> None:
    conditions = doubted()
    conditions.apply(audited(outcome, after(605)), after(606))
    conditions.apply(entry(received_at=after(650)), after(650))
    assert gap_after(conditions).from_ == after(begins)


def test_an_entry_after_an_audit_that_agreed_is_the_later_proof() -> None:
    conditions = went_live()
    conditions.apply(entry(received_at=after(610)), after(610))
    conditions.apply(audited("agrees", after(605)), after(610))
    assert gap_after(conditions).from_ == after(610)


def test_a_look_by_a_new_request_that_agrees_leaves_the_moment_of_the_request_as_gap() -> None:
    conditions = went_live()
    conditions.apply(to("requested", "audited by a new request: …"), after(600))
    conditions.told()
    conditions.apply(audited("agrees", after(601)), after(602))
    gap, _ = conditions.apply(snapshot("005930", at=after(602)), after(602))
    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to) == (after(601), after(602))


def test_what_found_no_room_proves_nothing() -> None:
    conditions = went_live()
    conditions.apply(entry(received_at=after(10)), after(10))  # and nobody took it
    conditions.disconnected("Kafka has taken nothing", after(10))
    conditions.connecting("c2", after(11))
    gap, _ = conditions.apply(snapshot(at=after(20)), after(20))
    assert isinstance(gap, Gap)
    assert gap.from_ == T0


def test_a_gap_is_told_day_by_day_and_without_the_night() -> None:
    conditions = Conditions("main", "abcd1234", ["돌파"], T0, {"돌파": T0}, Calendar().spans)
    conditions.connecting("c2", after(86_400))
    records = conditions.apply(snapshot(at=after(86_400)), after(86_400))
    gaps = [(r.from_.strftime("%d %H:%M"), r.to.strftime("%d %H:%M")) for r in records if isinstance(r, Gap)]
    assert gaps == [("23 09:30", "23 15:40"), ("24 08:40", "24 09:30")]
    assert len({r.id for r in records if isinstance(r, Gap)}) == 2


def test_an_orderly_rest_is_no_gap_in_the_morning() -> None:
    close = datetime(2026, 11, 23, 6, 40, tzinfo=UTC)
    conditions = Conditions("main", "abcd1234", ["돌파"], T0, None, Calendar().spans)
    conditions.connecting("c1", T0)
    conditions.apply(snapshot(), T0)
    conditions.apply(to("live"), T0)
    conditions.told()
    conditions.apply(to("resting", "after the close"), close)
    conditions.told()
    conditions.disconnected("after the close", close, "resting")
    assert conditions.states["돌파"] == ("resting", "after the close")
    login = datetime(2026, 11, 23, 23, 40, 3, tzinfo=UTC)
    conditions.connecting("c2", login)
    assert [type(r) for r in conditions.apply(snapshot(at=login), login)] == [ConditionSnapshot]


def test_what_was_said_in_the_second_of_joining_is_confirmed() -> None:
    conditions = went_live()
    (first,) = events(conditions, entry())
    assert conditions.due(after(3.9)) == []
    (again,) = conditions.due(after(4))
    assert isinstance(again, ConditionEvent)
    assert again.id != first.id
    assert (first.entry, again.entry) == (1, 0)
    assert (again.code, again.action, again.at) == (first.code, first.action, first.at)
    assert conditions.due(after(9)) == []


def test_what_was_said_later_needs_no_confirmation() -> None:
    conditions = went_live()
    events(
        conditions, entry(), entry(time="093005", action="exit", received_at=after(5)), entry("000660", time="093005")
    )
    assert conditions.due(after(60)) == []


# --- statuses


def test_a_change_of_state_is_a_status_with_its_cause() -> None:
    (status,) = started().apply(to("missing", "the account has no such condition"), after(3))
    assert isinstance(status, Status)
    assert (status.component, status.kind) == ("subscription/main/abcd1234/돌파", "subscription")
    assert (status.state, status.cause, status.since) == ("missing", "the account has no such condition", after(3))


def test_since_is_kept_while_only_the_cause_changes() -> None:
    conditions = started()
    conditions.apply(to("unanswered", "try 1"), after(1))
    (status,) = conditions.apply(to("unanswered", "try 2"), after(6))
    assert isinstance(status, Status)
    assert (status.since, status.cause) == (after(1), "try 2")


def test_statuses_show_members_and_proofs_of_life() -> None:
    conditions = went_live()
    conditions.apply(entry("000660", received_at=after(4)), after(4))
    conditions.apply(Pinged(), after(5))
    conditions.heard(after(5))
    session, subscription = conditions.statuses(after(6))
    assert (session.component, session.last_frame, session.last_ping) == ("session/main/abcd1234", after(5), after(5))
    assert (subscription.members, subscription.proof_of_life) == (2, after(4))


def test_without_a_connection_nothing_is_known_of_the_members() -> None:
    conditions = went_live()
    records = conditions.disconnected("Kiwoom does not answer; next try in 2 s", after(9))
    assert [(r.state, r.members) for r in records if isinstance(r, Status)] == [
        ("disconnected", None),
        ("disconnected", None),
    ]
    assert conditions.states == {"돌파": ("disconnected", "Kiwoom does not answer; next try in 2 s")}


def test_a_displaced_producer_says_so_of_everything() -> None:
    conditions = went_live()
    conditions.apply(to("displaced", "R10001"), after(1))
    conditions.apply(SessionChanged(state="displaced", cause="R10001"), after(1))
    conditions.disconnected("R10001 – stop the other program", after(1), "displaced")
    assert conditions.session[0] == "displaced"
    assert conditions.states["돌파"][0] == "displaced"


def test_what_is_ignored_makes_no_record() -> None:
    assert started().apply(Ignored(reason="unknown-seq"), T0) == []
