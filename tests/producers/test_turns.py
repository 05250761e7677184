"""Several sessions of one account: each condition's prices come from one of them, whoever is there."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from producers.turns import SILENCE, Turns
from streams.events import Status

AT = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)


def status(component: str, state: str = "live", account: str = "main", **more: Any) -> Status:
    kind: Any = component.partition("/")[0]
    condition = component.split("/", 3)[3] if kind == "subscription" else ""
    return Status(
        component=component, kind=kind, state=state, since=AT, at=AT, account=account, condition=condition, **more
    )


def session(name: str, able: float = 1.0, state: str = "live") -> Status:
    return status(f"session/main/{name}", state, figures={"quotes": able})


def subscription(name: str, condition: str, state: str = "live") -> Status:
    return status(f"subscription/main/{name}/{condition}", state)


def turns(name: str, *heard: Status, t: float = 0.0) -> Turns:
    made = Turns("main", name)
    for said in heard:
        made.heard(said, t)
    return made


def test_alone_everything_is_ours() -> None:
    assert turns("a").serves(["x", "y"], 0.0) == ({"x", "y"}, True)


def test_the_lowest_name_serves_and_the_others_stand_by() -> None:
    said = [*(session(n) for n in "abc"), *(subscription(n, c) for n in "abc" for c in ("x", "y/z"))]
    for name, ours in (("a", {"x", "y/z"}), ("b", set()), ("c", set())):
        assert turns(name, *said).serves(["x", "y/z"], 1.0) == (ours, name == "a")


def test_a_condition_that_only_one_keeps_open_has_its_prices_from_that_one() -> None:
    standby = turns("b", session("a"), subscription("a", "x"), subscription("a", "y", "refused"))
    assert standby.serves(["x", "y", "z"], 1.0) == ({"y", "z"}, False)


@pytest.mark.parametrize(
    "last",
    [session("a", state="disconnected"), session("a", able=0.0), status("session/main/a"), session("a", state="login")],
)
def test_one_that_says_it_cannot_is_replaced_at_once(last: Status) -> None:
    standby = turns("b", session("a"), subscription("a", "x"))
    assert standby.serves(["x"], 1.0) == (frozenset(), False)
    assert standby.heard(last, 2.0)
    assert standby.serves(["x"], 2.0) == ({"x"}, True)


def test_one_that_is_silent_is_replaced_after_a_while_and_has_its_turn_when_it_is_back() -> None:
    standby = turns("b", session("a"), subscription("a", "x"))
    assert standby.serves(["x"], SILENCE - 0.1) == (frozenset(), False)
    assert standby.serves(["x"], SILENCE) == ({"x"}, True)
    assert standby.heard(session("a"), SILENCE + 5)
    assert standby.serves(["x"], SILENCE + 5) == (frozenset(), False)


def test_what_was_said_long_ago_counts_as_long_ago() -> None:
    standby = Turns("main", "b")
    for said in (session("a"), subscription("a", "x")):
        standby.heard(said, 100.0, age=SILENCE)
    assert standby.serves(["x"], 100.0) == ({"x"}, True)


@pytest.mark.parametrize(
    "other",
    [
        status("session/other/a", account="other", figures={"quotes": 1.0}),
        session("c"),
        session("b"),
        status("worker/a"),
        status("session"),
    ],
)
def test_nobody_else_counts(other: Status) -> None:
    assert not turns("b").heard(other, 0.0)
    assert turns("b", other, subscription("c", "x")).serves(["x"], 0.0) == ({"x"}, True)


def test_whoever_is_there_each_condition_is_served_by_exactly_one() -> None:
    """All ways in which three sessions can be there or not, and keep two conditions open or not."""
    names, conditions = "abc", ("x", "y")
    for able in itertools.product((True, False), repeat=3):
        for live in itertools.product((True, False), repeat=6):
            open_ = {
                name: {c for c, on in zip(conditions, live[2 * n : 2 * n + 2], strict=True) if on}
                for n, name in enumerate(names)
            }
            said = [session(name, float(able[n])) for n, name in enumerate(names)]
            said += [subscription(n, c, "live" if c in open_[n] else "refused") for n in names for c in conditions]
            served = [
                (condition, name)
                for n, name in enumerate(names)
                if able[n]
                for condition in turns(name, *said).serves(open_[name], 0.0)[0]
            ]
            expected = {c for n, name in enumerate(names) if able[n] for c in open_[name]}
            assert sorted(c for c, _ in served) == sorted(expected)
            leaders = [n for n, name in enumerate(names) if able[n] and turns(name, *said).serves([], 0.0)[1]]
            assert len(leaders) == any(able)
