"""The scoring rules, by name: what the memberships of a stock are worth together.

A rule is a pure function from memberships to parts, one part for each membership; the score is their sum. It is
registered under the entry point group `hitstream.rules`, so that a user adds one without touching the project:

    [project.entry-points."hitstream.rules"]
    strongest = "my_package:strongest"

    def strongest(memberships: Sequence[Membership]) -> Sequence[float]:
        best = max((m.weight for m in memberships), default=0.0)
        ...

Whether the score is a recommendation is decided in `streams.recommend`; what a person enters by hand never passes a
rule: it counts as the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import entry_points
from typing import Final, Literal, Protocol

import msgspec

from .events import ConfigError

GROUP: Final = "hitstream.rules"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """One reason to judge: a confirmed membership of a condition, or that a search of it found the stock today.

    `since` is when the visit (or the first search) began, `visits` how many there were today, `weight` the
    condition's.
    """

    kind: Literal["condition", "search"]
    condition: str
    since: datetime
    visits: int
    weight: float


class Rule(Protocol):
    """A scoring rule. It gets the memberships of one stock, oldest first, and returns one part for each.

    It must depend on nothing else – no clock, no state: a replay has to come to the same result.
    """

    def __call__(self, memberships: Sequence[Membership], /) -> Sequence[float]: ...


def sum_of_weights(memberships: Sequence[Membership], /) -> Sequence[float]:
    """`sum`: each membership and each search reason adds its condition's weight."""
    return [membership.weight for membership in memberships]


BUILT_IN: Final[dict[str, Rule]] = {"sum": sum_of_weights}


def load(name: str) -> Rule:
    """The rule registered under `name`.

    Raises:
        ConfigError: there is no such rule, or it can't be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    registered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in registered:
        known = ", ".join(sorted({*BUILT_IN, *registered}))
        raise ConfigError(f"recommend.rule: there is no scoring rule {name!r}; known: {known}")
    try:
        rule = registered[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"recommend.rule: {name!r} ({registered[name].value}) can't be loaded: {error}") from error
    if not callable(rule):
        raise ConfigError(f"recommend.rule: {name!r} ({registered[name].value}) is not a function")
    return rule  # type: ignore[no-any-return]
