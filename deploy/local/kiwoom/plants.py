"""Planted effects: what the local market is told to do to a price after a condition's hits, so that the truth is known.

Pure. A `Plant` says which condition, how much and within what time; `drawn` invents the visits of conditions that do
not look at prices; an `Effect` is what one hit does to its stock. `market` puts them into the day.

Whoever measures such a market takes a reference some seconds after the hit and a last known price some seconds before
the horizon. So the drift has a shape: none in the first quarter of the horizon, and none before the first trade after
the hit, which is the reference; then even; complete after six tenths. Later it stays. A figure that is taken
from minute bars sees all of it, too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from streams.events import ConfigError

from .conditions import CONDITIONS, Condition

BEGINS: Final = 0.25
ENDS: Final = 0.6
"""The part of the horizon in which the price moves."""

EVERY: Final = 3_600.0
"""Seconds of a day in which a stock has one drawn visit."""

MOST: Final = 9
"""Conditions that may be planted beside the account's own."""

_STAY: Final = 120.0
_SHORTEST_STAY: Final = 5.0
_RESERVED: Final = 300.0
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_WORDS: Final = re.compile(r"(?P<name>.+)=(?P<percent>[+-]?\d+(\.\d+)?) ?%/(?P<many>\d+(\.\d+)?)(?P<unit>[smh])")


class Plant(NamedTuple):
    """`condition`'s hits precede a change of price by `effect` (0.01 is one percent) within `horizon` seconds."""

    condition: str
    effect: float
    horizon: float

    def __str__(self) -> str:
        return f"{self.condition}={self.effect * 100:+g}%/{self.horizon:g}s"


def plant(words: str) -> Plant:
    """A plant from `NAME=+1.0%/5m`.

    Raises:
        ConfigError: it does not say that.
    """
    found = _WORDS.fullmatch(words.strip())
    if found is None:
        raise ConfigError(f"{words!r} plants nothing: write NAME=+1.0%/5m, with s, m or h for the time.")
    effect, horizon = float(found["percent"]) / 100, float(found["many"]) * _UNITS[found["unit"]]
    if abs(effect) > 0.2 or not 20 <= horizon <= 6 * 3600:
        raise ConfigError(f"{words!r} is out of reach: at most 20 % up or down, within 20 seconds to 6 hours.")
    return Plant(found["name"].strip(), effect, horizon)


def plants(words: Sequence[str]) -> tuple[Plant, ...]:
    """All plants, each condition named once.

    Raises:
        ConfigError: one says nothing, a condition is named twice, or there are too many new ones.
    """
    found = tuple(plant(each) for each in words)
    names = [each.condition for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(twice)} is planted twice; name each condition once.")
    if len(set(names) - {condition.name for condition in CONDITIONS}) > MOST:
        raise ConfigError(f"At most {MOST} conditions can be planted beside the account's own.")
    return found


def account(planted: Sequence[Plant]) -> tuple[Condition, ...]:
    """The account's list: its own conditions, and those that exist only because something is planted after them."""
    own = {condition.name for condition in CONDITIONS}
    new = [each.condition for each in planted if each.condition not in own]
    return CONDITIONS + tuple(
        Condition(str(41 + number), name, lambda _: False, lambda _: False) for number, name in enumerate(new)
    )


class Visit(NamedTuple):
    """A hit or exit that no price has caused; `at` in seconds of the tape."""

    at: float
    number: int
    seq: str
    action: Literal["hit", "exit"]


def touched(seed: int, code: str) -> bool:
    """Whether drawn conditions ever hold this stock: half of all, the same on every day of a world.

    The others are what to compare with: nothing is ever planted there.
    """
    return random.Random(f"{seed}/touched/{code}").random() < 0.5


def drawn(
    rng: random.Random, number: int, seqs: Sequence[str], *, opened: float, closes: float, every: float, horizon: float
) -> list[Visit]:
    """A stock's visits to conditions that hold stocks at random: one in each stretch of `every` seconds.

    Each is at an even moment and of an even condition, whatever the price does; between two lies at least the longest
    `horizon`, so that within it a stock has no effect but its own hit's. The stretches are shifted by chance; at the
    day's edges they may be cut off.
    """
    reserved = max(horizon, _RESERVED)
    every = max(every, 2 * reserved)
    visits: list[Visit] = []
    start = opened - rng.random() * max(0.0, every - reserved) if every < closes - opened else opened
    while start < closes:
        at = start + rng.random() * (min(every, max(closes - start, 2 * reserved)) - reserved)
        seq = rng.choice(seqs)
        stay = min(_SHORTEST_STAY + rng.expovariate(1 / _STAY), reserved - 1)
        if opened <= at < closes:
            visits.append(Visit(at, number, seq, "hit"))
            visits.append(Visit(min(at + stay, closes - 0.001), number, seq, "exit"))
        start += every
    return visits


class Effect:
    """What one hit does to the price of its stock: a factor that goes from 1 to `1 + effect`."""

    __slots__ = ("_begins", "_ends", "effect", "reference")

    def __init__(self, each: Plant, hit: float) -> None:
        self.effect = each.effect
        self.reference: float | None = None
        """When the first trade after the hit was; None before."""
        self._begins = hit + BEGINS * each.horizon
        self._ends = hit + ENDS * each.horizon

    def factor(self, at: float) -> float:
        """The factor at a moment of the tape."""
        if self.reference is None or at <= self.reference:
            return 1.0
        begins = max(self._begins, self.reference)
        if at >= self._ends or begins >= self._ends:
            return 1 + self.effect
        return 1 + self.effect * max(0.0, (at - begins) / (self._ends - begins))

    def done(self, at: float) -> bool:
        """Whether nothing is to come after a moment."""
        return self.reference is not None and at >= self._ends and at > self.reference
