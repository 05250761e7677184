"""Whose turn it is: of several sessions of one account, which one publishes the prices of which condition.

Pure: no clock, no Kafka. Producers of one account with different app keys are standbys of each other and keep the same
conditions open; prices are published once. They do not talk to each other: each reads what all say of themselves on the
`status` topic, and all come to the same result.

    The prices of a condition come from the session with the lowest name in which it is live,
    and those of what is recommended from the session with the lowest name.

A session counts while its status says that it is live and able to tell prices (`figures["quotes"]`, 1 or 0), and was
heard in the last `SILENCE` seconds. So a standby takes over at once from one that says goodbye, and after `SILENCE`
from one that is silent; a condition that only one of them can keep open has its prices from that one. Where they can't
hear each other – Kafka is away, or one has just started – both publish: twice for a moment is harmless, not at all
would not be.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from streams.events import Status

SILENCE: Final = 12.0
"""Real seconds without a word after which a session counts as gone; each says how it is every five."""

GRACE: Final = 5.0
"""Seconds for which a condition that is not live in its session still has its prices from there: it may only be
requested anew."""

ABLE: Final = "quotes"
"""The figure of a session's status that says whether it tells prices."""


@dataclass(slots=True)
class _Session:
    able: bool = False
    heard_at: float = 0.0
    live: dict[str, float] = field(default_factory=dict)  # condition → until when, infinite while it is live

    def keeps(self, t: float) -> set[str]:
        """The conditions that are live in it."""
        return {condition for condition, until in self.live.items() if t < until}


class Turns:
    """What one session knows of the others of its account.

    Args:
        account, producer: this session: `session/<account>/<producer>`.
    """

    def __init__(self, account: str, producer: str) -> None:
        self._account = account
        self._producer = producer
        self._others: dict[str, _Session] = {}

    def heard(self, status: Status, t: float, *, age: float = 0.0) -> bool:
        """A component has said how it is, `age` seconds before `t`; whether that may change anything."""
        if status.account != self._account or status.kind not in ("session", "subscription"):
            return False
        _, _, rest = status.component.partition("/")
        _, _, rest = rest.partition("/")
        name = rest.partition("/")[0]
        if not name or name >= self._producer:
            return False  # Whoever comes after us waits for us.
        other = self._others.setdefault(name, _Session())
        before = (other.able, dict(other.live), t - other.heard_at < SILENCE)
        if status.kind == "session":
            other.able = status.state == "live" and status.figures.get(ABLE) == 1.0
            other.heard_at = t - age
        elif status.state == "live":
            other.live[status.condition] = math.inf
        elif other.live.get(status.condition) == math.inf:
            other.live[status.condition] = t - age + GRACE
        return before != (other.able, other.live, t - other.heard_at < SILENCE)

    def serves(self, conditions: Collection[str], t: float) -> tuple[frozenset[str], bool]:
        """Of these conditions those whose prices are ours to publish at `t`, and whether those of what is recommended
        are."""
        before_us = [other for other in self._others.values() if other.able and t - other.heard_at < SILENCE]
        theirs = {condition for other in before_us for condition in other.keeps(t)}
        return frozenset(conditions) - theirs, not before_us
