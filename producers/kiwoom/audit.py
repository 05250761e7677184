"""Does a condition still hear everything? Who is in it, compared with what a look from outside shows.

Pure and without time: one `Audit` per condition and connection. It is told of every entry, every snapshot and every
look, and says what a look means. `session` decides when to look, sends the search, and acts on what comes of it.

The one idea: a look and the members are never of one moment, and a condition may go on speaking meanwhile. So a
difference means nothing until a later look shows it again, of a stock about which nothing was said in between.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Literal

MOST_LOOKS: Final = 4
"""Of one audit; beyond it, what the search shows keeps changing and proves nothing."""

MOST_CONTRADICTIONS: Final = 3
"""So many contradictions in a row with nothing behind them are a habit of the server, and mean nothing any more."""

Difference = frozenset[tuple[str, bool]]
"""Stocks in which a look and the members differ: code, and whether the look has it."""

Look = Literal["agrees", "again", "lasting", "unsettled"]


@dataclass(slots=True)
class Audit:
    """Who is in a condition, as far as was heard, and what the looks at it have shown."""

    members: set[str] = field(default_factory=set)
    difference: Difference = frozenset()
    # Why the condition is requested anew, if a difference or a contradiction is why.
    suspected: Difference = frozenset()
    contradicted: bool = False
    refuted: Difference = frozenset()
    looks: int = 0
    _spoken_of: set[str] = field(default_factory=set)
    _last: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    _contradictions: int = 0

    def begin(self) -> None:
        """Another audit: its first look is about to be taken."""
        self.looks, self.difference = 0, frozenset()
        self._spoken_of.clear()

    def said(self, code: str, action: Literal["hit", "exit"], time: str | None) -> bool:
        """The condition said that a stock entered or left; whether that contradicts what it said before.

        A hit of a stock that is in, or the exit of one that is not: what came between was not heard. Not so where the
        same is only said twice.
        """
        contradicts = (action == "hit") == (code in self.members) and self._last.get(code) != (action, time)
        (self.members.add if action == "hit" else self.members.discard)(code)
        self._last[code] = action, time
        self._spoken_of.add(code)
        if self.refuted:
            self.refuted = Difference(one for one in self.refuted if one[0] != code)
        return contradicts and self._contradictions < MOST_CONTRADICTIONS

    def look(self, codes: Collection[str]) -> Look:
        """Compare what a look has shown. `lasting`: what differs is in `difference`, and has been seen twice."""
        found = Difference((c, has) for c, has in self._differs(codes) - self.refuted if c not in self._spoken_of)
        lasting = found & self.difference
        self.difference = lasting or found
        self.looks += 1
        if found and not lasting and self.looks < MOST_LOOKS:
            return "again"
        self.looks = 0
        return "lasting" if lasting else "unsettled" if found else "agrees"

    def compare(self, codes: Collection[str]) -> Difference:
        """In what a fresh snapshot differs from who is in it by what was heard."""
        return self._differs(codes) - self.refuted

    def snapshot(self, codes: Collection[str]) -> Difference:
        """Start over from a fresh snapshot; that of a suspicion which it refutes: search and registration differ."""
        if self.contradicted:
            self._contradictions = 0 if self._differs(codes) else self._contradictions + 1
        suspected, self.suspected, self.contradicted = self.suspected, frozenset(), False
        self.members = set(codes)
        self._last.clear()
        self.begin()
        wrong = Difference((code, has) for code, has in suspected if (code in self.members) != has)
        self.refuted |= wrong
        return wrong

    def _differs(self, codes: Collection[str]) -> Difference:
        seen = set(codes)
        return Difference(
            {(code, True) for code in seen - self.members} | {(code, False) for code in self.members - seen}
        )


def told(difference: Difference) -> str:
    """A difference in words: `2 others (+000660 −005930)`."""
    named = " ".join(f"{'+' if has else '−'}{code}" for code, has in sorted(difference)[:5])
    more = " …" if len(difference) > 5 else ""
    return f"{len(difference)} other{'s' if len(difference) > 1 else ''} ({named}{more})"
