"""What must come out, computed from the market's own account of the day and nothing of the product's.

Naive on purpose: lists and sets, one pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streams import events


class Crossing(NamedTuple):
    """One hit or exit as the market tells it; `at` is ISO with offset, whole seconds."""

    condition: str
    code: str
    action: str
    at: str


class Change(NamedTuple):
    """One expected transition."""

    condition: str
    code: str
    kind: str
    entry: int


def crossings(truth: Mapping[str, Any], conditions: Iterable[str]) -> dict[str, list[Crossing]]:
    """The market's hits and exits by condition, in order."""
    found: dict[str, list[Crossing]] = {condition: [] for condition in conditions}
    for event in truth["events"]:
        if event["condition"] in found:
            found[event["condition"]].append(Crossing(event["condition"], event["code"], event["action"], event["at"]))
    return found


def said(record: events.ConditionEvent) -> Crossing:
    """A published hit or exit in the market's words."""
    return Crossing(
        record.condition,
        record.code,
        record.action,
        record.at.astimezone(events.KST).isoformat(timespec="seconds"),
    )


def members(history: Sequence[Crossing]) -> set[str]:
    """Who is in a condition after these hits and exits, from an empty one."""
    held: set[str] = set()
    for crossing in history:
        (held.add if crossing.action == "hit" else held.discard)(crossing.code)
    return held


def changes(first: Iterable[str], after: Sequence[Crossing], condition: str) -> list[Change]:
    """The transitions of a condition whose first snapshot held `first` and which then said `after`."""
    entries: dict[str, int] = defaultdict(int)
    found = []
    for code in sorted(first):
        entries[code] += 1
        found.append(Change(condition, code, "entered", 1))
    for crossing in after:
        if crossing.action == "hit":
            entries[crossing.code] += 1
        kind = "entered" if crossing.action == "hit" else "exited"
        found.append(Change(condition, crossing.code, kind, entries[crossing.code]))
    return found


def recommended(held: Mapping[str, set[str]], weights: Mapping[str, float], threshold: float) -> dict[str, float]:
    """Stocks whose conditions weigh enough together, and how much."""
    scores: dict[str, float] = defaultdict(float)
    for condition, codes in held.items():
        for code in codes:
            scores[code] += weights[condition]
    return {code: score for code, score in scores.items() if score >= threshold}
