"""The scoring rules, by name: what the memberships of a stock are worth together.

A rule is a pure function from memberships to parts, one part for each membership; the score is their sum. Its
keyword-only parameters are its options, set by `[recommend.options]`. It is registered under the entry point group
`hitstream.rules`, so that a user adds one without touching the project (docs/rules.md).

Whether the score is a recommendation is decided in `streams.recommend`; what a person enters by hand never passes a
rule: it is enough by itself, and counts as the threshold.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import entry_points
from typing import Any, Final, Literal, Protocol

import msgspec

from .events import ConfigError, HitstreamError

GROUP: Final = "hitstream.rules"


class RuleFailed(HitstreamError):
    """A scoring rule raised, or what it returned are not the parts of a score. The sentence names the rule."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """One reason to judge: a confirmed membership of a condition, or that a search of it found the stock today.

    `since` is when the visit (or the first search) began, `visits` how many there were today (1 for a search), `weight`
    the condition's.
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


def confluence(memberships: Sequence[Membership], /, *, bonus: float = 0.5, within: float = 600.0) -> Sequence[float]:
    """`confluence`: weights add up, and different conditions that come close together count more (중복 포착).

    A condition that is not among the stock's earlier ones adds `bonus` to its weight if it came at most `within`
    seconds after the last of them (0: whenever). A search of a condition is no other condition, and one that speaks
    against the stock (weight 0 or less) neither gets nor gives a bonus.
    """
    if not (0 <= bonus < math.inf and within >= 0):
        raise ValueError("bonus and within must not be negative")
    parts: list[float] = []
    earlier: dict[str, datetime] = {}
    for membership in memberships:
        part = membership.weight
        if membership.weight > 0:
            last = max(earlier.values(), default=None)
            close = last is not None and (within == 0 or (membership.since - last).total_seconds() <= within)
            if membership.condition not in earlier and close:
                part += bonus
            earlier.setdefault(membership.condition, membership.since)
        parts.append(part)
    return parts


def reentry(memberships: Sequence[Membership], /, *, bonus: float = 0.5, most: int = 3) -> Sequence[float]:
    """`reentry`: a stock that comes back into a condition counts more (재진입, 재돌파).

    A membership's part is its weight times 1 + `bonus` for each visit after the first, of which the first `most`
    visits count: what goes in and out all day is noise, not strength.
    """
    if not (0 <= bonus < math.inf and most >= 1):
        raise ValueError("bonus must not be negative, and most must be 1 or more")
    return [m.weight * (1 + bonus * (min(m.visits, most) - 1)) if m.weight > 0 else m.weight for m in memberships]


BUILT_IN: Final[dict[str, Callable[..., Sequence[float]]]] = {
    "sum": sum_of_weights,
    "confluence": confluence,
    "reentry": reentry,
}


def load(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """The rule registered under `name`, with its options set.

    Raises:
        ConfigError: there is no such rule, it can't be loaded, it has no such option, or it fails on a stock without
            memberships – which happens to every stock, so it is tried at once.
    """
    rule = _named(name)
    bound = functools.partial(rule, **_options(name, rule, options or {}))
    try:
        judge(name, bound, ())
    except RuleFailed as error:
        raise ConfigError(f"recommend.rule: {error}") from error
    return bound


def judge(name: str, rule: Rule, memberships: Sequence[Membership]) -> list[float]:
    """The parts that the rule called `name` gives, one finite number for each membership.

    Raises:
        RuleFailed: the rule raised or returned anything else.
    """
    try:
        parts = [float(part) for part in rule(memberships)]
    except Exception as error:
        raise RuleFailed(f"the scoring rule {name!r} failed: {type(error).__name__}: {error}") from error
    if len(parts) != len(memberships):
        raise RuleFailed(
            f"the scoring rule {name!r} returned {len(parts)} parts for {len(memberships)} memberships; "
            "it must return one for each"
        )
    if not math.isfinite(sum(parts)):
        raise RuleFailed(f"the scoring rule {name!r} returned {parts}, whose sum is no finite number")
    return parts


def _named(name: str) -> Callable[..., Sequence[float]]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    registered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in registered:
        known = ", ".join(sorted({*BUILT_IN, *registered}))
        raise ConfigError(f"recommend.rule: there is no scoring rule {name!r}; known: {known}")
    try:
        rule = registered[name].load()
    except Exception as error:  # whatever a foreign module does while it is imported
        raise ConfigError(f"recommend.rule: {name!r} ({registered[name].value}) can't be loaded: {error}") from error
    if not callable(rule):
        raise ConfigError(f"recommend.rule: {name!r} ({registered[name].value}) is not a function")
    return rule  # type: ignore[no-any-return]


def _options(name: str, rule: Callable[..., Sequence[float]], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the rule's keyword-only parameters want them; a parameter without a default must be given."""
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(rule).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    hints = typing.get_type_hints(rule)
    for option in given:
        if option not in parameters:
            near = difflib.get_close_matches(option, parameters, n=1, cutoff=0.5)
            known = f"did you mean {near[0]}?" if near else f"it has {', '.join(parameters) or 'none'}."
            raise ConfigError(f"recommend.options: the rule {name!r} has no option {option!r}; {known}")
    for parameter in parameters.values():
        if parameter.default is inspect.Parameter.empty and parameter.name not in given:
            raise ConfigError(f"recommend.options: the rule {name!r} needs the option {parameter.name!r}")
    try:
        return {option: msgspec.convert(value, hints.get(option, Any)) for option, value in given.items()}
    except msgspec.ValidationError as error:
        raise ConfigError(f"recommend.options: the rule {name!r} can't take {dict(given)}: {error}") from error
