"""The scoring rules by name."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from streams import rules
from streams.events import ConfigError

SINCE = datetime(2026, 3, 2, tzinfo=UTC)


def membership(weight: float) -> rules.Membership:
    return rules.Membership(kind="condition", condition="c", since=SINCE, visits=1, weight=weight)


def register(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    def entry_points(*, group: str) -> Any:
        return (EntryPoint(name, value, group),) if group == rules.GROUP else ()

    monkeypatch.setattr(rules, "entry_points", entry_points)


def test_sum_adds_weights() -> None:
    """`sum` gives each membership its weight."""
    assert list(rules.load("sum")((membership(1.0), membership(0.5)))) == [1.0, 0.5]


def test_registered_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of another distribution is found by its entry point."""
    register(monkeypatch, "mine", "streams.rules:sum_of_weights")
    assert rules.load("mine") is rules.sum_of_weights


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("nowhere.at_all:rule", "can't be loaded"),
        ("streams.rules:nothing", "can't be loaded"),
        ("streams.rules:GROUP", "is not a function"),
    ],
)
def test_broken_rule_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, value: str, sentence: str) -> None:
    """A rule that can't be used is said so by the setting's name."""
    register(monkeypatch, "mine", value)
    with pytest.raises(ConfigError, match=rf"recommend\.rule: 'mine' .*{sentence}"):
        rules.load("mine")


def test_unknown_rule_names_the_known() -> None:
    """An unknown rule is a wrong setting; the sentence names what there is."""
    with pytest.raises(ConfigError, match=r"recommend\.rule: there is no scoring rule 'best'; known: .*sum"):
        rules.load("best")
