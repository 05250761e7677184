"""Which stocks have a price slot: the few of them for which Kiwoom is asked to tell every trade.

Pure: no clock, no Kiwoom, no Kafka. It is told who enters and leaves which condition and what is recommended, and
`choose` says which codes have a slot now, the most important first. Moments (`t`) are seconds that only grow.

    recommended > fresh hit > member > left

*Fresh* is a member whose hit was said in the last `FRESH` seconds; what a snapshot shows is state, and no fresh hit. A
stock that has *left* wants no slot any more, but keeps the one that it has for `keep` seconds while nobody else wants
it: what came of a hit is seen after the exit, too, and one that comes back finds its slot.

The one idea is what keeps slots from flapping: **a slot changes hands only upwards**. Only a stock of strictly higher
priority takes another's, never one of the same, and never a slot that was given less than `HOLD` seconds ago – except
that a recommended stock has one at once. Of those of the lowest priority the one that has had its slot longest goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

FRESH: Final = 300.0
"""Seconds after its hit for which a member counts as a fresh hit."""

HOLD: Final = 60.0
"""Seconds for which a slot that was given can be taken by a recommended stock only."""

FORGET: Final = 120.0
"""Seconds after which the members of a condition that is not live count as gone."""

_Order = Callable[[str], tuple[int, float, str]]


class Priority(IntEnum):
    """What a stock's claim to a slot is worth."""

    LEFT = 0
    MEMBER = 1
    FRESH = 2
    RECOMMENDED = 3


@dataclass(slots=True)
class _Slot:
    since: float
    left_at: float | None = None


class Slots:
    """The slots of one session.

    Args:
        limit: how many there are.
        keep: seconds for which a stock that has left keeps its slot while nobody else wants it.
    """

    def __init__(self, limit: int, *, keep: float = 1800.0) -> None:
        self.limit = limit
        self._keep = keep
        self._members: dict[str, dict[str, float]] = {}  # condition → code → when it entered
        self._hits: dict[str, float] = {}  # code → its last hit
        self._lost: dict[str, float] = {}  # condition that is not live → since when
        self._recommended: frozenset[str] = frozenset()
        self._serves: frozenset[str] = frozenset()
        self._serves_recommended = False
        self._slots: dict[str, _Slot] = {}
        self.wanted = 0
        self.evicted = 0

    # -- what happens

    def entered(self, condition: str, code: str, t: float) -> None:
        """A hit."""
        self._members.setdefault(condition, {})[code] = t
        self._hits[code] = t

    def exited(self, condition: str, code: str) -> None:
        """An exit."""
        self._members.get(condition, {}).pop(code, None)

    def snapshot(self, condition: str, codes: Iterable[str], t: float) -> None:
        """All members of a condition, which is live."""
        before = self._members.get(condition, {})
        self._members[condition] = {code: before.get(code, t) for code in codes}
        self._lost.pop(condition, None)

    def lost(self, condition: str, t: float) -> None:
        """A condition is not live: its members stay for a while, as a reconnection takes a moment."""
        self._lost.setdefault(condition, t)

    def recommend(self, codes: Collection[str]) -> None:
        """The stocks that are recommended now."""
        self._recommended = frozenset(codes)

    def serve(self, conditions: Collection[str], *, recommended: bool) -> None:
        """For which conditions, and whether for what is recommended, slots are held here; another session has the rest.

        What is another's from now on is given up at once, whatever it is kept for otherwise.
        """
        conditions = frozenset(conditions)
        less = bool(self._serves - conditions) or (self._serves_recommended and not recommended)
        self._serves, self._serves_recommended = conditions, recommended
        if less:
            claims = self._claims()
            self._slots = {code: slot for code, slot in self._slots.items() if code in claims}

    # -- what comes of it

    def choose(self, t: float) -> tuple[str, ...]:
        """Give and take slots as of `t`; the codes that have one, the most important first."""
        for condition in [name for name, since in self._lost.items() if t - since >= FORGET]:
            self._members.pop(condition, None)
        self._hits = {code: at for code, at in self._hits.items() if t - at < FRESH}
        claims = self._claims()
        self.wanted = len(claims)
        self._release(claims, t)
        order = self._order(claims)
        waiting = sorted((code for code in claims if code not in self._slots), key=order)
        held = sorted(self._slots, key=lambda code: (claims.get(code, Priority.LEFT), self._slots[code].since, code))
        while len(self._slots) > self.limit:
            # There are fewer slots than before. Nobody is spared.
            self._evict(held.pop(0))
        for code in waiting:
            if len(self._slots) >= self.limit:
                victim = self._victim(held, claims, claims[code], t)
                if victim is None:
                    break  # Whoever comes after has no higher claim.
                held.remove(victim)
                self._evict(victim)
            self._slots[code] = _Slot(t)
        return tuple(sorted(self._slots, key=order))

    @property
    def conditions(self) -> Collection[str]:
        """The conditions whose members are known."""
        return self._members.keys()

    @property
    def held(self) -> Collection[str]:
        """The codes that have a slot."""
        return self._slots.keys()

    # -- parts

    def _claims(self) -> dict[str, Priority]:
        """Who wants a slot, and what for."""
        claims: dict[str, Priority] = {}
        for condition in self._serves:
            for code in self._members.get(condition, ()):
                claims[code] = Priority.FRESH if code in self._hits else Priority.MEMBER
        if self._serves_recommended:
            claims |= dict.fromkeys(self._recommended, Priority.RECOMMENDED)
        return claims

    def _order(self, claims: dict[str, Priority]) -> _Order:
        def key(code: str) -> tuple[int, float, str]:
            # Of fresh hits the newest is worth most.
            return (-claims.get(code, Priority.LEFT), -self._hits.get(code, 0.0), code)

        return key

    def _release(self, claims: dict[str, Priority], t: float) -> None:
        """Note who has left, and end what was kept long enough."""
        for code, slot in list(self._slots.items()):
            if code in claims:
                slot.left_at = None
            elif slot.left_at is None:
                slot.left_at = t
            if slot.left_at is not None and t - slot.left_at >= self._keep:
                del self._slots[code]

    def _victim(self, held: list[str], claims: dict[str, Priority], claim: Priority, t: float) -> str | None:
        """Whose slot a stock of this claim may take; `held` is in the order in which slots are given up."""
        lower = [code for code in held if claims.get(code, Priority.LEFT) < claim]
        free = (code for code in lower if t - self._slots[code].since >= HOLD)
        if claim is not Priority.RECOMMENDED:
            return next(free, None)
        return next(free, next(iter(lower), None))

    def _evict(self, code: str) -> None:
        del self._slots[code]
        self.evicted += 1
