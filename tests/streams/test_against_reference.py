"""The product against the naive model, over random logs: the same outputs, the same state at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import membership, recommend
from streams.events import ConditionRecord, Due, Recommendation, SearchReason, StockRecord, Transition, encode
from streams.lane import Lane, MembershipLane, Output, StandingLane
from streams.recommend import Standing
from streams.settings import RecommendSettings

from . import reference
from .logs import CONDITIONS, condition_logs, stock_logs


def fold_conditions(
    log: list[ConditionRecord],
) -> tuple[list[Transition | SearchReason], dict[tuple[str, str], membership.State]]:
    states: dict[tuple[str, str], membership.State] = {}
    outputs: list[Transition | SearchReason] = []
    for position, record in enumerate(log):
        key = record.account, record.condition
        state = states.setdefault(key, membership.State(*key))
        effect = membership.apply(state, record, position)
        state.advance(effect)
        outputs += effect.outputs
    return outputs, states


def standings(
    log: list[StockRecord], policy: recommend.Policy
) -> tuple[list[Recommendation], dict[tuple[str, str], Standing]]:
    remembered: dict[tuple[str, str], Standing] = {}
    revisions: list[Recommendation] = []
    for position, record in enumerate(log):
        key = record.account, record.code
        outcome = recommend.apply(remembered.get(key), record, position, policy)
        if outcome.standing is not None:
            remembered[key] = outcome.standing
        revisions += outcome.revisions
    return revisions, remembered


def fold_stocks(log: list[StockRecord], policy: recommend.Policy) -> list[Recommendation]:
    return standings(log, policy)[0]


@settings(deadline=None)
@given(condition_logs())
def test_transitions_are_those_of_the_naive_model(log: list[ConditionRecord]) -> None:
    """Who enters and leaves which condition, when, how known, since when, within which gap: field by field."""
    outputs, states = fold_conditions(log)
    assert outputs == reference.transitions(log)
    inside = {key: {code for code, member in state.members.items() if member.inside} for key, state in states.items()}
    assert inside == reference.members(log)


def policy(**options: Any) -> recommend.Policy:
    return recommend.Policy.of(CONDITIONS, RecommendSettings(**options))


@settings(deadline=None)
@given(stock_logs(), st.sampled_from((0.0, 20.0)), st.sampled_from((1.0, 0.3, 0.5)))
def test_recommendations_are_those_of_the_naive_model(log: list[StockRecord], expiry: float, threshold: float) -> None:
    """What opens, changes and closes, when, why, with which reasons and ids: field by field."""
    policy_ = policy(expiry=expiry, threshold=threshold)
    assert fold_stocks(log, policy_) == reference.recommendations(log, policy_)


@settings(deadline=None)
@given(condition_logs(), st.data())
def test_a_part_of_the_log_read_again_tells_nothing_new(log: list[ConditionRecord], data: st.DataObject) -> None:
    """Whatever part Kafka delivers a second time, as new records: nothing is told that was not told before."""
    start = data.draw(st.integers(0, max(0, len(log) - 1)))
    end = data.draw(st.integers(start, len(log)))
    assert fold_conditions([*log, *log[start:end]])[0] == fold_conditions(log)[0]


@settings(deadline=None)
@given(stock_logs(), st.data())
def test_a_part_of_a_stocks_log_read_again_tells_nothing_new(log: list[StockRecord], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, max(0, len(log) - 1)))
    end = data.draw(st.integers(start, len(log)))
    again = [record for record in log[start:end] if not isinstance(record, Due)]
    assert fold_stocks([*log, *again], policy(expiry=20)) == fold_stocks(log, policy(expiry=20))


@settings(deadline=None)
@given(condition_logs())
def test_transitions_of_a_stock_alternate(log: list[ConditionRecord]) -> None:
    """Of each (condition, stock) and day: entered 1, exited 1, entered 2, … with ids of their own."""
    told = [output for output in fold_conditions(log)[0] if isinstance(output, Transition)]
    assert len({transition.id for transition in told}) == len(told)
    visits: dict[Any, list[Any]] = {}
    for transition in told:
        key = transition.condition, transition.code, transition.date
        visits.setdefault(key, []).append((transition.entry, transition.kind))
    for mine in visits.values():
        assert mine == [(n // 2 + 1, ("entered", "exited")[n % 2]) for n in range(len(mine))]


@settings(deadline=None)
@given(stock_logs(), st.data())
def test_where_a_deadline_is_announced_does_not_matter(log: list[StockRecord], data: st.DataObject) -> None:
    """Announced late or not at all, a deadline that a later record passes anyway leads to the same."""
    quiet = [record for record in log if not isinstance(record, Due)]
    policy_ = policy(expiry=20)
    known: dict[str, Standing | None] = {}
    noisy: list[StockRecord] = []
    for position, record in enumerate(quiet):
        standing = known.get(record.code)
        outcome = recommend.apply(standing, record, position, policy_)
        if standing is not None and outcome.ignored not in {"late", "repeat"}:  # those pass nothing
            passed = [deadline for deadline in recommend.deadlines(standing) if deadline.at < record.at]
            noisy += [recommend.due(standing, deadline) for deadline in passed if data.draw(st.booleans())]
        noisy.append(record)
        known[record.code] = outcome.standing
    assert fold_stocks(noisy, policy_) == fold_stocks(quiet, policy_)


# --- killed at any instant --------------------------------------------------------------------------------------------


class Killed(NamedTuple):
    """What a worker left behind: the log, all it ever said in the order of saying, and its table."""

    log: list[Any]
    said: list[Output]
    table: dict[bytes, bytes]


def survive(data: st.DataObject, make: Callable[[Any, int], Lane], records: Sequence[Any]) -> Killed:
    """A worker reads `records` while they arrive, announces deadlines, and is killed again and again.

    It is killed before its outputs are sent; when those of some stocks are sent, of others not yet; when some values
    of the state are written, in the order of the lane; before the commit.
    """
    coming, log, said = list(records), [], []
    table: dict[bytes, bytes] = {}
    committed = read = 0
    lane = make(table.items(), 0)
    step = data.draw(st.sampled_from((1, 3, 8)))
    while coming or read < len(log):
        log += coming[:step]
        del coming[:step]
        if data.draw(st.booleans()):
            now = max(record.at for record in log)
            log += [output.record for output in lane.overdue(now)]
        batch = log[read : read + data.draw(st.integers(1, 12))]
        outputs = [o for n, record in enumerate(batch) for o in lane.take(encode(record), read + n).outputs]
        fate = data.draw(st.sampled_from(("finished",) * 4 + ("sending", "writing", "written")))
        if fate == "sending":
            keys = data.draw(st.sets(st.sampled_from(sorted({o.key for o in outputs})))) if outputs else set()
            said += [o for o in outputs if o.key in keys]
        else:
            said += outputs
            writes = lane.writes()
            if fate == "writing":
                writes = writes[: data.draw(st.integers(0, len(writes)))]
            for key, value in writes:
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = msgspec.json.encode(value)
        read += len(batch)
        if fate == "finished":
            committed = read if data.draw(st.booleans()) else committed  # commits are made now and then
        else:
            read = committed
            lane = make(table.items(), len(log))
    return Killed(log, said, table)


def facts(said: Iterable[Output]) -> list[Any]:
    """What was said, each fact once; the same fact must be said in the same words."""
    by_id: dict[str, Any] = {}
    for output in said:
        assert by_id.setdefault(output.record.id, output.record) == output.record
    return list(by_id.values())


def per_key(records: Iterable[Any]) -> dict[tuple[str, str], list[Any]]:
    """Records by (condition, code), in their order."""
    found: dict[tuple[str, str], list[Any]] = {}
    for record in records:
        found.setdefault((getattr(record, "condition", ""), record.code), []).append(record)
    return found


@settings(deadline=None)
@given(condition_logs(), st.data())
def test_a_membership_worker_killed_at_any_instant_has_said_the_same(
    records: list[ConditionRecord], data: st.DataObject
) -> None:
    """None missing, none extra, none different, in the same order per (condition, code); the same state."""
    after = survive(data, lambda items, end: MembershipLane(0, items, end), records)
    assert per_key(facts(after.said)) == per_key(reference.transitions(after.log))
    states: dict[tuple[str, str], membership.State] = {}
    for raw, value in after.table.items():
        _, account, condition, *code = json.loads(raw)
        state = states.setdefault((account, condition), membership.State(account, condition))
        if code:
            state.members[code[0]] = msgspec.json.decode(value, type=membership.Member)
        else:
            state.day = msgspec.json.decode(value, type=membership.Day)
    assert _plain(states) == _plain(fold_conditions(after.log)[1])


def _plain(states: dict[tuple[str, str], membership.State]) -> Any:
    """What is remembered, positions aside: of members, those of the day that it is."""
    return {
        key: (
            msgspec.structs.replace(state.day, position=0),
            {
                code: msgspec.structs.replace(member, position=0)
                for code, member in state.members.items()
                if member.date == state.day.date
            },
        )
        for key, state in states.items()
        if state.day is not None
    }


@settings(deadline=None)
@given(stock_logs(), st.data(), st.sampled_from((0.0, 20.0)))
def test_a_recommending_worker_killed_at_any_instant_has_said_the_same(
    records: list[StockRecord], data: st.DataObject, expiry: float
) -> None:
    policy_ = policy(expiry=expiry)
    after = survive(data, lambda items, end: StandingLane(0, items, end, policy_), records)
    assert per_key(facts(after.said)) == per_key(reference.recommendations(after.log, policy_))
    remembered = {
        tuple(json.loads(key)[1:]): msgspec.structs.replace(msgspec.json.decode(value, type=Standing), position=0)
        for key, value in after.table.items()
    }
    assert remembered == {
        key: msgspec.structs.replace(standing, position=0) for key, standing in standings(after.log, policy_)[1].items()
    }
