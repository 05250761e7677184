"""Lanes: what they write, in which order, and that they can be stopped and made again anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import membership, recommend, topics
from streams.events import (
    KST,
    ConditionEvent,
    ConditionRecord,
    ConditionSnapshot,
    Recommend,
    StockRecord,
    Transition,
    Withdraw,
    encode,
    event_id,
    identity,
)
from streams.lane import Lane, MembershipLane, Output, StandingLane, Unreadable, Value, relay
from streams.settings import ConditionRule, RecommendSettings

START = datetime(2026, 3, 2, 9, tzinfo=KST)
CODES = ("000660", "005930", "0004V0")
POLICY = recommend.Policy.of(
    (ConditionRule(name="x", hold=5), ConditionRule(name="y", weight=0.5, cooldown=10)),
    RecommendSettings(expiry=60),
)


def hit(code: str, moment: datetime, action: Any = "hit", condition: str = "x", session: str = "a") -> ConditionEvent:
    return ConditionEvent(
        id=event_id("main", condition, code, action, moment, 0),
        account="main",
        condition=condition,
        seq="1",
        code=code,
        action=action,
        at=moment,
        received_at=moment.astimezone(UTC),
        session=session,
        frame=1,
        entry=0,
    )


def snapshot(codes: Sequence[str], moment: datetime, condition: str = "x", session: str = "a") -> ConditionSnapshot:
    return ConditionSnapshot(
        id=identity(condition, moment, session, codes),
        account="main",
        condition=condition,
        seq="1",
        codes=tuple(codes),
        at=moment,
        received_at=moment.astimezone(UTC),
        session=session,
        frame=1,
    )


@st.composite
def condition_logs(draw: st.DrawFn) -> list[ConditionRecord]:
    """Two conditions of one partition, two sessions, snapshots, midnights, repeats."""
    records: list[ConditionRecord] = []
    moment = START
    for _ in range(draw(st.integers(1, 40))):
        moment += timedelta(seconds=draw(st.sampled_from((0, 1, 1, 3, 50_000))))
        condition, session = draw(st.sampled_from("xy")), draw(st.sampled_from("ab"))
        kind = draw(st.sampled_from(("hit", "exit", "hit", "exit", "snapshot", "again", "due")))
        if kind == "snapshot":
            codes = draw(st.lists(st.sampled_from(CODES), unique=True))
            records.append(snapshot(codes, moment, condition, session))
        elif kind == "again" and records:
            records.append(draw(st.sampled_from(records)))
        elif kind == "due":
            records.append(membership.day_end_due("main", condition, moment.date() - timedelta(days=1)))
        else:
            action = "exit" if kind == "exit" else "hit"
            records.append(hit(draw(st.sampled_from(CODES)), moment, action, condition, session))
    return records


class Changelog:
    """The topic behind a table: what was acknowledged before the crash is what a new worker finds."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def append(self, writes: Sequence[tuple[bytes, Value | None]]) -> None:
        for key, value in writes:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = msgspec.json.encode(value)

    def lane(self, end: int, kind: str) -> Lane:
        items = list(self.values.items())
        return MembershipLane(0, items, end) if kind == "members" else StandingLane(0, items, end, POLICY)


def straight(log: Sequence[Any], kind: str) -> list[Output]:
    lane = Changelog().lane(0, kind)
    return [output for n, record in enumerate(log) for output in lane.take(encode(record), n).outputs]


def crashing(log: Sequence[Any], kind: str, chance: random.Random) -> list[Output]:
    """Work through the log in batches; die after any part of the outputs, the state or the commit, and go on."""
    changelog, committed, outputs, deaths = Changelog(), 0, [], 0
    while committed < len(log):
        lane, position = changelog.lane(len(log), kind), committed
        while position < len(log):
            end = min(len(log), position + chance.randint(1, 8))
            decided = [o for n in range(position, end) for o in lane.take(encode(log[n]), n).outputs]
            writes = lane.writes()
            fate = chance.choice(("live", "live", "outputs", "state", "commit")) if deaths < 12 else "live"
            if fate == "outputs":
                outputs += decided[: chance.randint(0, len(decided))]
                break
            outputs += decided
            if fate == "state":
                changelog.append(writes[: chance.randint(0, len(writes))])
                break
            changelog.append(writes)
            position = end
            if fate == "commit":
                break
            if chance.random() < 0.7:
                committed = position
        deaths += 1
        if position >= len(log):
            committed = position
    return outputs


def by_id(outputs: Sequence[Output]) -> dict[str, Any]:
    """Outputs by id; one id must never be two records."""
    records: dict[str, Any] = {}
    for output in outputs:
        record: Any = output.record
        assert records.setdefault(record.id, record) == record
    return records


@settings(deadline=None)
@given(condition_logs(), st.randoms(use_true_random=False))
def test_members_survive_any_crash(log: list[ConditionRecord], chance: random.Random) -> None:
    """Killed between or within any writes, the lane comes to the same transitions with the same ids."""
    assert by_id(crashing(log, "members", chance)) == by_id(straight(log, "members"))


@settings(deadline=None)
@given(condition_logs(), st.randoms(use_true_random=False))
def test_standings_survive_any_crash(events: list[ConditionRecord], chance: random.Random) -> None:
    """Killed between or within any writes, the lane comes to the same revisions with the same ids."""
    log: list[StockRecord] = []
    for n, output in enumerate(straight(events, "members")):
        transition: Any = output.record
        log.append(transition)
        if chance.random() < 0.1:
            log.append(Recommend(id=f"r{n}", code=transition.code, by="kim", at=transition.at))
        if chance.random() < 0.1:
            log.append(Withdraw(id=f"w{n}", code=transition.code, by="kim", at=transition.at))
    assert by_id(crashing(log, "standings", chance)) == by_id(straight(log, "standings"))


def test_day_is_written_after_members_and_before_what_is_forgotten() -> None:
    """A day at a position proves that every member is at it."""
    lane = MembershipLane(3, [], 0)
    lane.take(encode(hit("005930", START)), 0)
    lane.writes()
    lane.take(encode(hit("000660", START + timedelta(days=1))), 1)
    keys = [(msgspec.json.decode(key), value is None) for key, value in lane.writes()]
    assert keys == [
        ([3, "main", "x", "000660"], False),
        ([3, "main", "x"], False),
        ([3, "main", "x", "005930"], True),
    ]
    assert lane.writes() == []


def test_values_of_other_partitions_are_skipped() -> None:
    """A lane takes the values of its own partition from the table."""
    lane = MembershipLane(3, [], 0)
    lane.take(encode(hit("005930", START)), 0)
    items = [(key, msgspec.json.encode(value)) for key, value in lane.writes() if value is not None]
    leave = encode(hit("005930", START + timedelta(seconds=9), "exit"))
    assert len(MembershipLane(3, items, 1).take(leave, 1).outputs) == 1
    assert MembershipLane(2, items, 1).take(leave, 1).ignored == ["exit-without-hit"]


@pytest.mark.parametrize("end", [0, 5])
def test_a_log_made_anew_loses_nothing(end: int) -> None:
    """Values from beyond the end of the log stem from one that is no more: no new record is taken for an old one."""
    old = MembershipLane(0, [], 0)
    old.take(encode(hit("005930", START)), 7)
    items = [(key, msgspec.json.encode(value)) for key, value in old.writes() if value is not None]
    lane = MembershipLane(0, items, end)
    assert len(lane.take(encode(hit("000660", START)), 0).outputs) == 1
    assert lane.take(encode(hit("005930", START)), 1).ignored == ["repeat"]


def test_a_log_that_goes_back_loses_nothing() -> None:
    """When offsets fall while the lane works, ids alone tell what was seen."""
    lane = MembershipLane(0, [], 0)
    lane.take(encode(hit("005930", START)), 7)
    assert len(lane.take(encode(hit("000660", START)), 7).outputs) == 1
    assert lane.take(encode(hit("005930", START)), 8).ignored == ["repeat"]
    standings = StandingLane(0, [], 0, POLICY)
    standings.take(encode(Recommend(id="r1", code="005930", by="kim", at=START)), 7)
    assert len(standings.take(encode(Withdraw(id="w1", code="005930", by="kim", at=START)), 3).outputs) == 1


def test_day_end_is_announced_once_to_the_condition() -> None:
    """When the clock passes midnight, the day-end of a condition with members is announced, once."""
    lane = MembershipLane(0, [], 0)
    lane.take(encode(hit("005930", START)), 0)
    midnight = datetime(2026, 3, 3, tzinfo=KST)
    assert list(lane.overdue(midnight - timedelta(seconds=1))) == []
    (output,) = lane.overdue(midnight)
    assert (output.topic, output.key) == (topics.CONDITION_EVENTS.name, b"main/x")
    assert output.record == membership.day_end_due("main", "x", date(2026, 3, 2))
    assert list(lane.overdue(midnight)) == []


def test_a_deadline_that_is_set_again_after_its_moment_is_announced() -> None:
    """At midnight nobody was in the condition; then a hit of before midnight comes. Another deadline is still ahead."""
    lane = MembershipLane(0, [], 0)
    log = [
        hit("000660", START),
        hit("000660", START + timedelta(seconds=1), "exit"),
        hit("005930", START + timedelta(days=1), condition="y"),
    ]
    for n, record in enumerate(log):
        lane.take(encode(record), n)
    midnight = datetime(2026, 3, 3, tzinfo=KST)
    assert list(lane.overdue(midnight)) == []
    lane.take(encode(hit("005930", START + timedelta(seconds=2))), 3)
    (output,) = lane.overdue(midnight)
    assert output.record == membership.day_end_due("main", "x", date(2026, 3, 2))
    assert list(lane.overdue(midnight)) == []


def test_a_deadline_that_is_no_more_is_not_announced() -> None:
    """A hold that an exit ended is silent; one that stands is announced once, also by a lane made anew."""
    lane = StandingLane(0, [], 0, POLICY)
    members = MembershipLane(0, [], 0)
    log = [
        hit("005930", START),
        hit("000660", START),
        hit("005930", START + timedelta(seconds=2), "exit"),
    ]
    for n, record in enumerate(log):
        for output in members.take(encode(record), n).outputs:
            lane.take(encode(output.record), n)
    items = [(key, msgspec.json.encode(value)) for key, value in lane.writes() if value is not None]
    for each in (lane, StandingLane(0, items, 3, POLICY)):
        assert list(each.overdue(START + timedelta(seconds=4))) == []
        (output,) = each.overdue(START + timedelta(seconds=5))
        due: Any = output.record
        assert (output.topic, output.key, due.kind) == (topics.TRANSITIONS.name, b"000660", "hold")
        assert list(each.overdue(START + timedelta(seconds=500))) == []
    decision = lane.take(encode(due), 3)
    revision: Any = decision.outputs[0].record
    assert (revision.cause, revision.at, revision.cause_id) == ("threshold", START + timedelta(seconds=5), due.id)
    (expiry,) = lane.overdue(START + timedelta(seconds=65))
    assert getattr(expiry.record, "recommendation_id", "") == revision.recommendation_id


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty record"),
        (b"", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"type":"transition"}', "Invalid value 'transition'"),
        (encode(hit("005930", START)).replace(b"+09:00", b"", 1), "with a timezone component"),
    ],
)
def test_unreadable(value: bytes | None, reason: str) -> None:
    """Bytes that are no record of the topic are refused with the reason, and change nothing."""
    lane = MembershipLane(0, [], 0)
    with pytest.raises(Unreadable, match=reason):
        lane.take(value, 0)
    assert lane.writes() == []


def test_commands_are_relayed_as_they_are() -> None:
    """An accepted command is the same record, keyed by its stock."""
    command = Withdraw(id="w1", code="005930", by="kim", at=START)
    assert relay(encode(command), START) == Output(topics.TRANSITIONS.name, b"005930", command, encode(command))
    with pytest.raises(Unreadable):
        relay(encode(hit("005930", START)), START)


def test_transition_of_a_realtime_hit_is_measured() -> None:
    """Latency is measured from the receipt of a realtime record; what a snapshot reveals is older than that."""
    lane = MembershipLane(0, [], 0)
    first = lane.take(encode(snapshot(["000660"], START)), 0).outputs
    second = lane.take(encode(hit("005930", START)), 1).outputs
    assert [o.heard_at for o in (*first, *second)] == [None, START]
    assert all(isinstance(o.record, Transition) for o in (*first, *second))
