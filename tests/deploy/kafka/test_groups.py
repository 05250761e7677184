"""Who is silent for too long, as a table of what was heard and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.kafka import wire
from deploy.local.kafka.groups import Groups

SESSION, REBALANCE = 10.0, 60.0


def call(key: int, member: str = "a", leaving: tuple[str, ...] = ()) -> wire.GroupCall:
    return wire.GroupCall(key, "g", member, leaving, SESSION, REBALANCE)


def pass_(groups: Groups, made: wire.GroupCall, at: float, admitted: str = "") -> None:
    with groups.asking(made, at):
        pass
    groups.answered(made, at)
    if admitted:
        groups.joined(made, admitted, 1, at)


@pytest.fixture
def groups() -> Groups:
    """A group whose only member joined at 0."""
    groups = Groups()
    pass_(groups, call(wire.JOIN_GROUP), 0, admitted="a")
    return groups


@pytest.mark.parametrize(("now", "silent"), [(10.0, False), (10.1, True)])
def test_a_member_is_silent_when_its_session_is_over(groups: Groups, now: float, silent: bool) -> None:
    assert groups.overdue(now) == ([("g", "a")] if silent else [])


@pytest.mark.parametrize("key", sorted(wire.GROUP_CALLS - {wire.LEAVE_GROUP}))
def test_whatever_a_member_says_shows_that_it_is_alive(groups: Groups, key: int) -> None:
    pass_(groups, call(key), 9)
    assert groups.overdue(18) == []
    assert groups.overdue(20) == [("g", "a")]


def test_who_has_left_is_not_waited_for(groups: Groups) -> None:
    pass_(groups, call(wire.LEAVE_GROUP, "", ("a",)), 5)
    assert groups.overdue(100) == []


def test_who_waits_for_an_answer_is_not_silent(groups: Groups) -> None:
    with groups.asking(call(wire.SYNC_GROUP), 1):
        assert groups.overdue(100) == []


def test_who_gives_up_waiting_is_silent_from_when_it_was_last_heard(groups: Groups) -> None:
    with groups.asking(call(wire.JOIN_GROUP), 5):
        assert groups.overdue(50) == []
    assert groups.overdue(15) == []
    assert groups.overdue(15.1) == [("g", "a")]


def test_a_member_that_does_not_join_again_is_waited_for_no_longer_than_it_said(groups: Groups) -> None:
    with groups.asking(call(wire.JOIN_GROUP, "b"), 20):
        for second in range(20, 80, 5):
            pass_(groups, call(wire.HEARTBEAT), second)
        assert groups.overdue(80) == []
        pass_(groups, call(wire.HEARTBEAT), 80)
        assert groups.overdue(80.1) == [("g", "a")]


def test_a_first_join_is_known_by_the_name_the_broker_gave(groups: Groups) -> None:
    pass_(groups, call(wire.JOIN_GROUP, ""), 5, admitted="b")
    pass_(groups, call(wire.HEARTBEAT, "a"), 12)
    assert groups.overdue(16) == [("g", "b")]


def test_a_generation_is_outdated_once_another_was_joined(groups: Groups) -> None:
    def heartbeat(generation: int) -> wire.GroupCall:
        return wire.GroupCall(wire.HEARTBEAT, "g", "a", generation=generation)

    assert not groups.outdated(heartbeat(1))
    groups.joined(call(wire.JOIN_GROUP, "b"), "b", 2, 1)
    assert groups.outdated(heartbeat(1))
    assert not groups.outdated(heartbeat(2))
    assert not groups.outdated(wire.GroupCall(wire.HEARTBEAT, "another", "a", generation=7))
    for member in ("a", "b"):
        groups.left("g", member)
    assert not groups.outdated(heartbeat(1))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9)), max_size=30))
def test_silence_is_exactly_more_than_a_session_since_the_last_word(said: list[tuple[str, float]]) -> None:
    groups, heard, now = Groups(), {}, 0.0
    for member, later in said:
        now += later
        key = wire.HEARTBEAT if member in heard else wire.JOIN_GROUP
        pass_(groups, call(key, member), now, admitted=member if key == wire.JOIN_GROUP else "")
        heard[member] = now
        expected = {("g", name) for name, at in heard.items() if now - at > SESSION}
        assert set(groups.overdue(now)) == expected
