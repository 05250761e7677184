"""Price slots: who gets one, who loses one, and that none changes hands without a reason."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from producers.slots import FORGET, FRESH, HOLD, Priority, Slots

A, B, C, D, E = "00000A", "00000B", "00000C", "00000D", "00000E"


def slots(limit: int, **members: Any) -> Slots:
    """Slots of a session that serves all, with a condition `x` of these members since long ago."""
    made = Slots(limit, **{k: v for k, v in members.items() if k == "keep"})
    made.serve(["x", "y"], recommended=True)
    made.snapshot("x", members.get("x", ()), -1000.0)
    return made


def test_members_have_slots_while_there_are_some() -> None:
    some = slots(2, x=[A, B, C])
    assert some.choose(0.0) == (A, B)
    assert some.wanted == 3


def test_a_fresh_hit_comes_before_members_and_the_newest_first() -> None:
    some = slots(3, x=[A])
    some.entered("x", B, 1.0)
    some.entered("x", C, 2.0)
    assert some.choose(3.0) == (C, B, A)


def test_what_a_snapshot_shows_is_no_fresh_hit() -> None:
    some = slots(1, x=[A])
    some.choose(0.0)
    some.snapshot("x", [A, B], HOLD)
    assert some.choose(HOLD) == (A,)


def test_a_fresh_hit_takes_the_slot_of_a_member_that_has_had_it_for_a_while() -> None:
    some = slots(2, x=[A])
    some.choose(0.0)
    some.snapshot("x", [A, B], 10.0)
    some.choose(10.0)
    some.entered("x", C, 20.0)
    assert some.choose(HOLD - 1) == (A, B)
    assert some.choose(HOLD) == (C, B), "A has had its slot longest"
    assert some.evicted == 1


def test_equals_never_swap() -> None:
    some = slots(1)
    some.entered("x", A, 0.0)
    some.choose(0.0)
    for second in range(1, int(FRESH)):
        some.entered("x", B, float(second))
        some.exited("x", B)
        some.entered("x", C, float(second))
        assert some.choose(float(second)) == (A,)


def test_a_fresh_hit_becomes_a_member() -> None:
    some = slots(1)
    some.entered("x", A, 0.0)
    some.choose(0.0)
    some.entered("x", B, 10.0)
    assert some.choose(FRESH - 0.1) == (A,)
    assert some.choose(FRESH) == (B,)


def test_a_recommended_stock_has_a_slot_at_once() -> None:
    some = slots(1)
    some.entered("x", A, 0.0)
    some.choose(0.0)
    some.recommend({B})
    assert some.choose(0.1) == (B,)


def test_of_more_recommended_stocks_than_slots_the_first_stay() -> None:
    some = slots(2)
    some.recommend({A})
    some.choose(0.0)
    some.recommend({A, B, C})
    assert some.choose(1.0) == (A, B)
    assert some.choose(1000.0) == (A, B)


def test_a_recommended_stock_spares_those_that_have_just_come_if_it_can() -> None:
    some = slots(2, x=[A])
    some.choose(0.0)
    some.snapshot("x", [A, B], HOLD)
    some.choose(HOLD)
    some.recommend({C})
    assert some.choose(HOLD) == (C, B)


def test_a_stock_that_has_left_keeps_its_slot_until_somebody_wants_it() -> None:
    some = slots(2, x=[A, B])
    some.choose(0.0)
    some.exited("x", A)
    assert some.choose(HOLD) == (B, A)
    some.snapshot("x", [B, C], HOLD + 1)
    assert some.choose(HOLD + 1) == (B, C)


def test_a_stock_that_has_left_is_let_go_in_the_end() -> None:
    some = slots(2, x=[A], keep=600.0)
    some.choose(0.0)
    some.exited("x", A)
    some.choose(10.0)
    assert some.choose(609.9) == (A,)
    assert some.choose(610.0) == ()
    assert some.evicted == 0


def test_a_stock_that_comes_back_has_left_never() -> None:
    some = slots(1, x=[A], keep=600.0)
    some.choose(0.0)
    some.exited("x", A)
    some.choose(10.0)
    some.entered("x", A, 500.0)
    some.choose(500.0)
    assert some.choose(2000.0) == (A,)


def test_a_stock_of_two_conditions_stays_for_the_other() -> None:
    some = slots(1, x=[A], keep=0.0)
    some.snapshot("y", [A], 0.0)
    some.exited("x", A)
    assert some.choose(1.0) == (A,)
    some.exited("y", A)
    assert some.choose(2.0) == ()


def test_a_reconnection_changes_no_slot() -> None:
    some = slots(2, x=[A, B], keep=0.0)
    some.choose(0.0)
    some.lost("x", 10.0)
    some.lost("x", 20.0)
    assert some.choose(10.0 + FORGET - 1) == (A, B)
    some.snapshot("x", [A, B], 30.0)
    assert some.choose(10_000.0) == (A, B)


def test_the_members_of_a_condition_that_is_gone_are_forgotten() -> None:
    some = slots(2, x=[A, B], keep=0.0)
    some.choose(0.0)
    some.lost("x", 10.0)
    assert some.choose(10.0 + FORGET) == ()


def test_what_another_session_serves_has_no_slot_here_from_now_on() -> None:
    some = slots(4, x=[A])
    some.snapshot("y", [B], 0.0)
    some.recommend({C})
    some.choose(0.0)
    some.exited("x", A)  # kept, as nobody wants its slot
    some.serve(["y"], recommended=False)
    assert some.choose(1.0) == (B,)
    some.serve(["x", "y"], recommended=True)
    assert set(some.choose(2.0)) == {B, C}


def test_fewer_slots_than_before_are_kept_by_the_most_important() -> None:
    some = slots(3, x=[A, B])
    some.recommend({C})
    some.choose(0.0)
    some.limit = 1
    assert some.choose(1.0) == (C,)


# --- whatever comes


CODES = [f"{number:06d}" for number in range(14)]
CONDITIONS = ("x", "y", "z")
waits = st.sampled_from([0.0, 1.0, 20.0, HOLD, FRESH])


class Day(RuleBasedStateMachine):
    """Slots beside a model that knows only who is where, and checks each choice against the rules."""

    @initialize(limit=st.integers(0, 6), keep=st.sampled_from([0.0, 30.0, 1800.0]))
    def begin(self, limit: int, keep: float) -> None:
        self.t = 0.0
        self.limit, self.keep = limit, keep
        self.slots = Slots(limit, keep=keep)
        self.members: dict[str, set[str]] = {name: set() for name in CONDITIONS}
        self.hits: dict[str, float] = {}
        self.recommended: set[str] = set()
        self.serves: set[str] = set(CONDITIONS)
        self.serves_recommended = True
        self.given: dict[str, float] = {}
        self.dropped = True
        self.slots.serve(CONDITIONS, recommended=True)

    def claim(self, code: str) -> Priority | None:
        if self.serves_recommended and code in self.recommended:
            return Priority.RECOMMENDED
        if any(code in self.members[name] for name in self.serves):
            fresh = code in self.hits and self.t - self.hits[code] < FRESH
            return Priority.FRESH if fresh else Priority.MEMBER
        return None

    @rule(condition=st.sampled_from(CONDITIONS), codes=st.sets(st.sampled_from(CODES), max_size=5), after=waits)
    def hit(self, condition: str, codes: set[str], after: float) -> None:
        for code in codes:
            self.members[condition].add(code)
            self.hits[code] = self.t
            self.slots.entered(condition, code, self.t)
        self.choose(after)

    @rule(condition=st.sampled_from(CONDITIONS), code=st.sampled_from(CODES))
    def exit(self, condition: str, code: str) -> None:
        self.members[condition].discard(code)
        self.slots.exited(condition, code)

    @rule(condition=st.sampled_from(CONDITIONS), codes=st.sets(st.sampled_from(CODES)), reconnected=st.booleans())
    def snapshot(self, condition: str, codes: set[str], reconnected: bool) -> None:
        if reconnected:
            self.slots.lost(condition, self.t)
        self.members[condition] = set(codes)
        self.slots.snapshot(condition, codes, self.t)

    @rule(codes=st.sets(st.sampled_from(CODES), max_size=4), after=waits)
    def recommend(self, codes: set[str], after: float) -> None:
        self.recommended = codes
        self.slots.recommend(codes)
        self.choose(after)

    @rule(conditions=st.sets(st.sampled_from(CONDITIONS)), recommended=st.booleans(), really=st.integers(0, 4))
    def take_turns(self, conditions: set[str], recommended: bool, really: int) -> None:
        if really:
            return
        self.serves, self.serves_recommended, self.dropped = conditions, recommended, True
        self.slots.serve(conditions, recommended=recommended)

    @rule(seconds=waits)
    def choose(self, seconds: float) -> None:
        self.t += seconds
        before = dict(self.given)
        chosen = self.slots.choose(self.t)
        assert len(chosen) == len(set(chosen)) <= self.limit, "more than there are"
        claims = {code: claim for code in CODES if (claim := self.claim(code)) is not None}
        assert self.slots.wanted == len(claims)

        worth = [claims.get(code, Priority.LEFT) for code in chosen]
        assert worth == sorted(worth, reverse=True), "the most important is not first"
        recommended = [code for code, claim in claims.items() if claim is Priority.RECOMMENDED]
        if len(recommended) <= self.limit:
            assert set(recommended) <= set(chosen), "a recommended stock has no slot"
        waiting = set(claims) - set(chosen)
        if waiting:
            assert len(chosen) == self.limit, "a slot is empty while somebody waits"

        came, went = set(chosen) - set(before), set(before) - set(chosen)
        for code in went & set(claims) if not self.dropped else ():
            assert any(claims[new] > claims[code] for new in came), "taken by none that is worth more"
            young = self.t - before[code] < HOLD
            assert not young or any(claims[new] is Priority.RECOMMENDED for new in came), "taken too soon"
        assert came <= set(claims), "who wants no slot has been given one"
        self.given = {code: before.get(code, self.t) for code in chosen}
        self.dropped = False

    def teardown(self) -> None:
        if not hasattr(self, "slots"):
            return
        self.choose(HOLD)
        self.choose(0.0)
        claims = {code: claim for code in CODES if (claim := self.claim(code)) is not None}
        chosen = self.slots.held
        held = [claims.get(code, Priority.LEFT) for code in chosen]
        waiting = [claim for code, claim in claims.items() if code not in chosen]
        assert not waiting or self.limit == 0 or max(waiting) <= min(held), "one that is worth more still waits"


Day.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDay = Day.TestCase
