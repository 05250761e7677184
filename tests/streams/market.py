"""A seeded market for long runs: what two producers tell of it, a person enters, and a broken program writes."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from streams import topics
from streams.events import (
    ConditionEvent,
    ConditionSnapshot,
    Gap,
    Recommend,
    Record,
    SearchResult,
    SearchRow,
    Withdraw,
    condition_key,
    encode,
    event_id,
)

POISON = (b"{not json", b'{"type":"unheard-of"}', None, b"\xff\xff")


class Written(NamedTuple):
    """One record for Kafka."""

    topic: str
    key: bytes
    value: bytes | None


class Market:
    """Stocks enter and leave conditions; each producer says so, a little late, at times not at all.

    Args:
        conditions: (account, condition) pairs.
        stocks: how many there are.
    """

    def __init__(self, seed: int, conditions: Sequence[tuple[str, str]], stocks: int) -> None:
        self._chance = random.Random(seed)
        self._conditions = conditions
        self._codes = [f"{n:06d}" for n in range(100, 100 + stocks)]
        self._members: dict[tuple[str, str], set[str]] = {condition: set() for condition in conditions}
        self._deaf: dict[tuple[str, tuple[str, str]], datetime] = {}
        self._waiting: list[tuple[int, int, Written]] = []
        self._said: dict[tuple[str, tuple[str, str]], int] = {}
        self._numbers = itertools.count()
        self._told: list[Written] = []
        self._n = 0

    def records(self, now: datetime) -> Iterator[Written]:
        """What is written next, at `now`: none, one or several records."""
        self._n += 1
        chance, n = self._chance, self._n
        condition = chance.choice(self._conditions)
        kind = chance.random()
        if kind < 0.02:
            yield from self._snapshot(condition, now)
        elif kind < 0.025:
            yield self._search(condition, now)
        elif kind < 0.035:
            self._fall_deaf(condition, now)
        elif kind < 0.06 and self._told:
            yield chance.choice(self._told)
        elif kind < 0.08:
            yield from self._command(now)
        elif kind < 0.081:
            yield Written(topics.CONDITION_EVENTS.name, condition_key(*condition), POISON[n % len(POISON)])
        else:
            self._move(condition, now)
        while self._waiting and self._waiting[0][0] <= n:
            yield self._tell(heapq.heappop(self._waiting)[2])

    def _tell(self, written: Written) -> Written:
        self._told.append(written)
        del self._told[:-2000]
        return written

    def _move(self, condition: tuple[str, str], now: datetime) -> None:
        code = self._chance.choice(self._codes)
        members = self._members[condition]
        action: Any = "exit" if code in members else "hit"
        members ^= {code}
        at = now.replace(microsecond=0)
        for session, delay in (("a", (0, 0, 0, 3)), ("b", (0, 1, 5, 40))):
            if (session, condition) in self._deaf or self._chance.random() < 0.02:
                continue
            event = ConditionEvent(
                id=event_id(*condition, code, action, at, 0),
                code=code,
                action=action,
                at=at,
                ordinal=0,
                entry=1,
                **self._common(condition, now, session),
            )
            self._later(self._chance.choice(delay), condition, session, event)

    def _snapshot(self, condition: tuple[str, str], now: datetime) -> Iterator[Written]:
        """All members as one producer is told them; after a silence it says first that there was one."""
        session = self._chance.choice("ab")
        since = self._deaf.pop((session, condition), None)
        common = self._common(condition, now, session)
        if since is not None:
            gap = Gap(
                id=f"gap-{self._n}", from_=since, to=now, cause="test", at=now, **_without(common, "seq", "frame")
            )
            yield self._tell(Written(topics.CONDITION_EVENTS.name, condition_key(*condition), encode(gap)))
        codes = tuple(sorted(self._members[condition]))
        snapshot = ConditionSnapshot(id=f"snapshot-{self._n}", codes=codes, at=now, **common)
        # At times the reply is slow, and others have told of later moves meanwhile.
        self._later(self._chance.choice((0, 0, 30)), condition, session, snapshot)

    def _search(self, condition: tuple[str, str], now: datetime) -> Written:
        rows = tuple(
            SearchRow(code=code, price=self._chance.randrange(1000, 90000), change_rate=1.5)
            for code in self._chance.sample(self._codes, self._chance.randrange(6))
        )
        common = _without(self._common(condition, now, "a"), "frame")
        found = SearchResult(id=f"search-{self._n}", rows=rows, at=now, scheduled_for=now, **common)
        return self._tell(Written(topics.CONDITION_EVENTS.name, condition_key(*condition), encode(found)))

    def _fall_deaf(self, condition: tuple[str, str], now: datetime) -> None:
        """A producer hears nothing of a condition until its next snapshot."""
        self._deaf.setdefault((self._chance.choice("ab"), condition), now)

    def _command(self, now: datetime) -> Iterator[Written]:
        code = self._chance.choice(self._codes)
        account = self._conditions[0][0]
        command: Record
        if self._chance.random() < 0.6:
            expires_at = now + timedelta(seconds=self._chance.choice((-1, 60, 900)))
            command = Recommend(
                id=f"recommend-{self._n}",
                account=account,
                code=code,
                by="kim",
                note="손으로",
                at=now,
                expires_at=self._chance.choice((None, expires_at)),
            )
        else:
            command = Withdraw(id=f"withdraw-{self._n}", account=account, code=code, by="kim", at=now)
        for _ in range(self._chance.choice((1, 1, 1, 2))):
            yield Written(topics.COMMANDS.name, code.encode(), encode(command))

    def _common(self, condition: tuple[str, str], now: datetime, session: str) -> dict[str, Any]:
        account, name = condition
        return {
            "account": account,
            "condition": name,
            "seq": "1",
            "received_at": now.astimezone(UTC),
            "session": session,
            "frame": self._n,
        }

    def _later(self, steps: int, condition: tuple[str, str], session: str, record: Record) -> None:
        """Tell a record some steps later; what a session says of a condition stays in order."""
        at = max(self._n + steps, self._said.get((session, condition), 0))
        self._said[session, condition] = at
        written = Written(topics.CONDITION_EVENTS.name, condition_key(*condition), encode(record))
        heapq.heappush(self._waiting, (at, next(self._numbers), written))


def _without(common: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in common.items() if name not in names}
