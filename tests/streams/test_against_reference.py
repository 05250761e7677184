"""The product against the naive model, over random logs: the same outputs, the same state at the end."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams import membership, recommend
from streams.events import ConditionRecord, Recommendation, SearchReason, StockRecord, Transition
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


def fold_stocks(log: list[StockRecord], policy: recommend.Policy) -> list[Recommendation]:
    standings: dict[tuple[str, str], recommend.Standing | None] = {}
    revisions: list[Recommendation] = []
    for position, record in enumerate(log):
        key = record.account, record.code
        outcome = recommend.apply(standings.get(key), record, position, policy)
        standings[key] = outcome.standing
        revisions += outcome.revisions
    return revisions


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
@given(stock_logs(), st.sampled_from((0.0, 20.0)), st.sampled_from((1.0, 0.5, 1.2)))
def test_recommendations_are_those_of_the_naive_model(log: list[StockRecord], expiry: float, threshold: float) -> None:
    """What opens, changes and closes, when, why, with which reasons and ids: field by field."""
    policy_ = policy(expiry=expiry, threshold=threshold)
    assert fold_stocks(log, policy_) == reference.recommendations(log, policy_)
