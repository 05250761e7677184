"""Which members of consumer groups have been silent for too long: what noida-db never asks itself.

Without it a group would wait for ever for a member that was killed, and nobody could take its place. Pure: the front
tells it what passes and when, and makes the silent ones leave. Membership itself stays with the broker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from . import wire


class Member(msgspec.Struct):
    """One member of a group. Times are seconds of one monotonic clock.

    `session` is how long it may be silent, `rebalance` how long the others wait for it to join again. `heard` and
    `joined` are when it last said something and last asked to join; `waiting` counts its requests that the broker
    holds, `joining` whether one of them is to join.
    """

    session: float
    rebalance: float
    heard: float
    joined: float
    waiting: int = 0
    joining: bool = False


class Groups:
    """The members of every group, as far as they have been heard of."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], Member] = {}
        self._generations: dict[str, int] = {}

    @contextlib.contextmanager
    def asking(self, call: wire.GroupCall, now: float) -> Iterator[None]:
        """While the broker has a member's request. A member that is waiting for an answer is not silent."""
        if call.key == wire.JOIN_GROUP and call.member:
            self._join(call, call.member, now)
        member = self._members.get((call.group, call.member))
        if member is None:
            yield
            return
        member.heard = now
        member.waiting += 1
        member.joining = call.key == wire.JOIN_GROUP
        try:
            yield
        finally:
            member.waiting -= 1
            member.joining = False

    def answered(self, call: wire.GroupCall, now: float) -> None:
        """The broker has answered a member's request."""
        if known := self._members.get((call.group, call.member)):
            known.heard = now
        for leaver in call.leaving:
            self.left(call.group, leaver)

    def joined(self, call: wire.GroupCall, member: str, generation: int, now: float) -> None:
        """The broker has admitted a member to a generation of its group."""
        if (call.group, member) not in self._members:
            self._join(call, member, now)
        self._members[call.group, member].heard = now
        self._generations[call.group] = generation

    def outdated(self, call: wire.GroupCall) -> bool:
        """Whether a member speaks of another generation than the one that was joined last."""
        return call.generation >= 0 and self._generations.get(call.group, call.generation) != call.generation

    def left(self, group: str, member: str) -> None:
        """A member is gone."""
        self._members.pop((group, member), None)
        if not any(of == group for of, _ in self._members):
            self._generations.pop(group, None)

    def overdue(self, now: float) -> list[tuple[str, str]]:
        """Group and name of each member that the others need not wait for any longer."""
        since: dict[str, float] = {}
        for (group, _), member in self._members.items():
            if member.joining:
                since[group] = min(since.get(group, now), member.joined)
        return [
            (group, name)
            for (group, name), member in self._members.items()
            if not member.waiting
            and (
                now - member.heard > member.session
                or (member.joined < since.get(group, now) and now - since.get(group, now) > member.rebalance)
            )
        ]

    def _join(self, call: wire.GroupCall, name: str, now: float) -> None:
        known = self._members.get((call.group, name))
        self._members[call.group, name] = Member(
            call.session, call.rebalance, now, now, known.waiting if known else 0, known.joining if known else False
        )
