"""Subscriptions → condition events, snapshots, gaps and statuses.

Pure: it takes a session's actions with the moment at which they came and returns the records to publish, in order. It
outlives connections, so it is also where each condition's **last proof of life** is known: its last entry or snapshot,
an audit that agreed, or the orderly end at the close. That the connection is there proves nothing about a condition –
its registration may be gone. When a snapshot comes after a condition was not live, the time since the last proof of
life is told as a `Gap`, before the snapshot; a night between is no gap.

A proof counts once the records of its input have been handed on (`told`): what found no room proves nothing.

Two producers give one hit one identity, because the ordinal of equal entries counts within their second. Only a
producer that joins within a second can't know what came before in it. Its ids are then too low by what it has missed,
and so may be taken for repeats; therefore what it last said of such a stock is *confirmed* some seconds later, under an
identity of its own and with `entry` 0, by which whoever counts hits can leave it out. Where the others have said the
same, that changes nothing.

It leaves the wire to `kiwoom.session` and Kafka to `publisher`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from streams.events import (
    KST,
    ConditionEvent,
    ConditionSnapshot,
    ConfigError,
    Gap,
    Record,
    Status,
    event_id,
    identity,
)

from .kiwoom.session import (
    MAX_CONDITIONS,
    Action,
    Audited,
    Changed,
    Doubted,
    Entry,
    Pinged,
    SessionChanged,
    SessionState,
    Snapshot,
    State,
)
from .settings import ConditionSource

# Ordinals are kept for as long as Kiwoom could repeat a second; beyond this many they are pruned by age.
_ORDINALS: Final = 20_000
_ORDINAL_AGE: Final = timedelta(hours=1)
# By how much Kiwoom's clock and ours may differ in saying in which second a registration was made.
_CLOCKS_DIFFER: Final = timedelta(seconds=1)
# A confirmation comes after whatever another producer, some seconds behind, may still say of that second.
_CONFIRM_AFTER: Final = timedelta(seconds=4)
# A live condition is called quiet in its status when it has said nothing for so long.
_QUIET: Final = timedelta(minutes=1)
_HALF_A_DAY: Final = timedelta(hours=12)

Spans = Callable[[datetime, datetime], list[tuple[datetime, datetime]]]


def verify(conditions: Sequence[ConditionSource]) -> None:
    """Refuse conditions that Kiwoom would not keep open, or that could not be told apart.

    Raises:
        ConfigError: which, and what to do.
    """
    if len(conditions) > MAX_CONDITIONS:
        raise ConfigError(
            f"{len(conditions)} conditions are configured, and Kiwoom keeps at most {MAX_CONDITIONS} open per app key:"
            " remove some of [[conditions]]"
        )
    names = [c.name for c in conditions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"[[conditions]] names {', '.join(twice)} more than once: events are told apart by name")


@dataclass(slots=True)
class _Subscription:
    state: State
    cause: str
    since: datetime
    # Last entry or snapshot, last snapshot or agreeing audit, and last proof of life of any kind; each as it is once it
    # is `told`, and before.
    spoke: datetime | None = None
    sound: datetime | None = None
    alive: datetime | None = None
    new_spoke: datetime | None = None
    new_sound: datetime | None = None
    new_alive: datetime | None = None
    doubted: bool = False
    lost_by: str = ""
    members: set[str] | None = None
    events: int = 0
    audits: int = 0
    audit: str = ""
    # The time in which the present registration was made: what happened then may have been seen in part only.
    joined: tuple[datetime, datetime] | None = None


class Conditions:
    """What is known of every condition of one producer, across its connections.

    Args:
        account: whose saved list the conditions are in.
        producer: short name of this app key, for the status components.
        names: the conditions.
        at: now, on the product's clock.
        covered: the last proof of life that an earlier process published, where that is known.
        spans: the parts of a time in which something can be missed (`Calendar.spans`).
    """

    def __init__(
        self,
        account: str,
        producer: str,
        names: Iterable[str],
        at: datetime,
        covered: Mapping[str, datetime] | None = None,
        spans: Spans | None = None,
    ) -> None:
        self._account = account
        self._producer = producer
        self._connection = ""
        self._session_state: SessionState = "disconnected"
        self._session_cause = "starting"
        self._session_since = at
        self._last_frame: datetime | None = None
        self._last_ping: datetime | None = None
        self._frames = 0
        self._connections = 0
        self._ordinals: dict[tuple[str, str, str, datetime], int] = {}
        self._prune_at = _ORDINALS
        self._spans: Spans = spans or (lambda start, end: [(start, end)])
        self._confirm: dict[tuple[str, str], tuple[ConditionEvent, datetime]] = {}
        self._last_said: tuple[str | None, datetime] | None = None
        self._last_at = at
        # Those of which something is new: proofs that do not count before they are `told`.
        self._untold: list[_Subscription] = []
        # What others of the producer have to say in the session's status.
        self.figures: Callable[[], dict[str, float]] = dict
        self._subscriptions = {
            name: _Subscription(
                "disconnected",
                "starting",
                at,
                alive=(covered or {}).get(name),
                lost_by="the producer was not running",
            )
            for name in names
        }

    def connecting(self, connection: str, at: datetime) -> list[Record]:
        """A new connection begins: ordinals start over."""
        self._connection = connection
        self._connections += 1
        self._ordinals.clear()
        self._confirm.clear()
        self._forget_untold()
        return self._session_changed("connecting", "", at)

    def apply(self, action: Action, at: datetime) -> list[Record]:
        """The records that an action of the present connection's session makes."""
        match action:
            case Entry():
                return [self.said(action)]
            case Snapshot():
                return self._snapshot(action)
            case Changed():
                return self._changed(action, at)
            case SessionChanged(state=state, cause=cause):
                return self._session_changed(state, cause, at)
            case Audited():
                return self._audited(action, at)
            case Doubted(condition=condition):
                self._subscriptions[condition].doubted = True
                self._take_back(self._subscriptions[condition])
                return []
            case Pinged():
                self._last_ping = at
                return []
            case _:
                return []

    def heard(self, at: datetime) -> None:
        """A frame was received."""
        self._frames += 1
        self._last_frame = at

    def told(self) -> None:
        """Everything that the last actions made has been handed on: the proofs of life in it count."""
        for subscription in self._untold:
            subscription.spoke = subscription.new_spoke or subscription.spoke
            subscription.sound = subscription.new_sound or subscription.sound
            subscription.alive = subscription.new_alive or subscription.alive
        self._forget_untold()

    def due(self, at: datetime) -> list[Record]:
        """The confirmations that have become due."""
        ready = [key for key, (_, when) in self._confirm.items() if when <= at]
        records: list[Record] = []
        for key in ready:
            event, _ = self._confirm.pop(key)
            if self._subscriptions[event.condition].state == "live":
                id_ = identity("confirmation", event.id, event.session, event.frame, event.entry)
                records.append(msgspec.structs.replace(event, id=id_, entry=0))
        return records

    def _forget_untold(self) -> None:
        for subscription in self._untold:
            subscription.new_spoke = subscription.new_sound = subscription.new_alive = None
        self._untold.clear()

    def disconnected(self, cause: str, at: datetime, state: SessionState = "disconnected") -> list[Record]:
        """There is no connection, and why; `cause` may say when the next try is."""
        self._forget_untold()
        records = self._session_changed(state, cause, at)
        shown: State = state if state in ("displaced", "resting") else "disconnected"
        for name, subscription in self._subscriptions.items():
            if subscription.state not in ("disconnected", "displaced", "resting") or subscription.cause != cause:
                records += self._changed(Changed(condition=name, state=shown, cause=cause), at)
        return records

    def statuses(self, at: datetime) -> list[Status]:
        """The state of the session and of every subscription."""
        return [self.session_status(at), *(self._status(name, at) for name in self._subscriptions)]

    def retired(self, names: Iterable[str], at: datetime) -> list[Status]:
        """The last word on conditions that were kept open once, and are in the settings no more."""
        return [
            Status(
                component=f"subscription/{self._account}/{self._producer}/{name}",
                kind="subscription",
                state="retired",
                cause="no longer configured",
                since=at,
                at=at,
                account=self._account,
                condition=name,
            )
            for name in names
            if name not in self._subscriptions
        ]

    @property
    def covered(self) -> dict[str, datetime]:
        """The last proof of life of each condition."""
        return {name: s.alive for name, s in self._subscriptions.items() if s.alive is not None}

    def quiet(self, at: datetime) -> dict[str, float]:
        """For how many seconds each live condition has said nothing."""
        return {
            name: max(0.0, (at - s.spoke).total_seconds())
            for name, s in self._subscriptions.items()
            if s.state == "live" and s.spoke is not None
        }

    @property
    def states(self) -> dict[str, tuple[State, str]]:
        """State and cause of each subscription."""
        return {name: (s.state, s.cause) for name, s in self._subscriptions.items()}

    @property
    def since(self) -> dict[str, datetime]:
        """Since when each subscription is in its state."""
        return {name: s.since for name, s in self._subscriptions.items()}

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Who is in each live condition."""
        return {name: tuple(sorted(s.members)) for name, s in self._subscriptions.items() if s.members is not None}

    @property
    def session(self) -> tuple[SessionState, str]:
        """State and cause of the session."""
        return self._session_state, self._session_cause

    # -- the records

    def said(self, entry: Entry) -> ConditionEvent:
        """The record of a hit or exit."""
        at = self._happened_at(entry)
        subscription = self._subscriptions[entry.condition]
        if subscription.state == "live":
            # Before the snapshot it only shows that there is a registration, not that nothing came before it.
            subscription.new_spoke = entry.received_at
            self._untold.append(subscription)
            if not subscription.doubted:
                subscription.new_alive = entry.received_at
        subscription.events += 1
        if subscription.members is not None:
            (subscription.members.add if entry.action == "hit" else subscription.members.discard)(entry.code)
        ordinal = self._ordinal((entry.condition, entry.code, entry.action, at))
        event = ConditionEvent(
            id=event_id(self._account, entry.condition, entry.code, entry.action, at, ordinal),
            account=self._account,
            condition=entry.condition,
            seq=entry.seq,
            code=entry.code,
            exchange=entry.exchange,
            action=entry.action,
            at=at,
            ordinal=ordinal,
            received_at=entry.received_at,
            session=self._connection,
            frame=entry.frame,
            entry=entry.entry,
        )
        if self._confirm:
            self._confirm.pop((entry.condition, entry.code), None)
        if subscription.joined is not None and subscription.joined[0] <= at <= subscription.joined[1]:
            self._confirm[entry.condition, entry.code] = event, entry.received_at + _CONFIRM_AFTER
        return event

    def _happened_at(self, entry: Entry) -> datetime:
        """`happened_at`, which entries of one time and moment have in common."""
        said = entry.time, entry.received_at
        if said != self._last_said:
            self._last_said, self._last_at = said, happened_at(*said)
        return self._last_at

    def _ordinal(self, key: tuple[str, str, str, datetime]) -> int:
        ordinal = self._ordinals.get(key, 0)
        self._ordinals[key] = ordinal + 1
        if len(self._ordinals) > self._prune_at:
            newest = max(said_at for *_, said_at in self._ordinals)
            kept = {key: count for key, count in self._ordinals.items() if newest - key[3] < _ORDINAL_AGE}
            self._ordinals = kept
            self._prune_at = max(_ORDINALS, 2 * len(kept))
        return ordinal

    def _snapshot(self, snapshot: Snapshot) -> list[Record]:
        subscription = self._subscriptions[snapshot.condition]
        records: list[Record] = []
        alive = subscription.new_alive or subscription.alive
        if subscription.state != "live" and alive is not None:
            for start, end in self._spans(alive, snapshot.received_at) if alive < snapshot.received_at else ():
                records.append(
                    Gap(
                        id=identity("gap", self._account, snapshot.condition, self._connection, start.isoformat()),
                        account=self._account,
                        condition=snapshot.condition,
                        from_=start.astimezone(KST),
                        to=end.astimezone(KST),
                        cause=subscription.lost_by,
                        at=end.astimezone(KST),
                        received_at=snapshot.received_at,
                        session=self._connection,
                    )
                )
        self._untold.append(subscription)
        subscription.new_spoke = subscription.new_alive = snapshot.ended_at or snapshot.received_at
        subscription.new_sound, subscription.doubted = subscription.new_alive, False
        subscription.members = set(snapshot.codes)
        subscription.lost_by = "the condition was requested anew"
        second = snapshot.requested_at.replace(microsecond=0)
        subscription.joined = second - _CLOCKS_DIFFER, snapshot.received_at + _CLOCKS_DIFFER
        records.append(
            ConditionSnapshot(
                id=identity("snapshot", self._account, snapshot.condition, self._connection, snapshot.frame),
                account=self._account,
                condition=snapshot.condition,
                seq=snapshot.seq,
                codes=snapshot.codes,
                at=snapshot.requested_at.astimezone(KST),
                received_at=snapshot.received_at,
                session=self._connection,
                frame=snapshot.frame,
            )
        )
        return records

    def _audited(self, audit: Audited, at: datetime) -> list[Record]:
        """An audit that agrees is a proof of life. One that proves that something was not heard takes back what counted
        as proof since the condition was last sound, and – of one that has said nothing since – what audits proved: they
        only saw that nothing had been missed *for good*. A search that came to nothing leaves a doubt as it was."""
        subscription = self._subscriptions[audit.condition]
        subscription.audits += 1
        when = f"{at.astimezone(KST):%H:%M:%S}"
        subscription.audit = f"audit at {when}: {audit.outcome}" + (f" ({audit.cause})" if audit.cause else "")
        subscription.doubted = subscription.doubted and audit.outcome in ("silent", "refused")
        if audit.outcome == "agrees":
            self._untold.append(subscription)
            subscription.new_sound = audit.asked_at
            subscription.new_alive = max(audit.asked_at, subscription.new_alive or audit.asked_at)
        elif audit.outcome in ("dead", "missed"):
            self._take_back(subscription)
            return []
        return [self._status(audit.condition, at)]

    def _take_back(self, subscription: _Subscription) -> None:
        """What was heard may not have been all that there was to hear."""
        subscription.new_alive = None
        proofs = [proof for proof in (subscription.spoke, subscription.sound) if proof is not None]
        subscription.alive = min(proofs, default=subscription.alive)

    # -- states

    def _changed(self, change: Changed, at: datetime) -> list[Record]:
        subscription = self._subscriptions[change.condition]
        if subscription.state == "live" and change.state != "live":
            subscription.lost_by = change.cause
            subscription.members = None
            if change.state == "resting":
                self._untold.append(subscription)
                subscription.new_alive = at
        if subscription.state != change.state:
            subscription.since = at
        subscription.state, subscription.cause = change.state, change.cause
        return [self._status(change.condition, at)]

    def _session_changed(self, state: SessionState, cause: str, at: datetime) -> list[Record]:
        if self._session_state != state:
            self._session_since = at
        self._session_state, self._session_cause = state, cause
        return [self.session_status(at)]

    def session_status(self, at: datetime) -> Status:
        """The state of the session."""
        return Status(
            component=f"session/{self._account}/{self._producer}",
            kind="session",
            state=self._session_state,
            cause=self._session_cause,
            since=self._session_since,
            at=at,
            account=self._account,
            session=self._connection,
            proof_of_life=self._last_frame,
            last_frame=self._last_frame,
            last_ping=self._last_ping,
            figures={"connections": self._connections, "frames": self._frames} | self.figures(),
        )

    def _status(self, name: str, at: datetime) -> Status:
        subscription = self._subscriptions[name]
        spoke = subscription.new_spoke or subscription.spoke
        figures: dict[str, float] = {"events": subscription.events, "audits": subscription.audits}
        cause = subscription.cause
        if subscription.state == "live" and spoke is not None:
            figures["quiet"] = max(0.0, round((at - spoke).total_seconds(), 1))
            if not cause and at - spoke >= _QUIET:
                told = f"; {subscription.audit}" if subscription.audit else ""
                cause = f"quiet since {spoke.astimezone(KST):%H:%M:%S}{told}"
        return Status(
            component=f"subscription/{self._account}/{self._producer}/{name}",
            kind="subscription",
            state=subscription.state,
            cause=cause,
            since=subscription.since,
            at=at,
            account=self._account,
            condition=name,
            session=self._connection,
            proof_of_life=subscription.new_alive or subscription.alive,
            last_frame=self._last_frame,
            last_ping=self._last_ping,
            members=None if subscription.members is None else len(subscription.members),
            figures=figures,
        )


def happened_at(time: str | None, received_at: datetime) -> datetime:
    """Kiwoom's HHMMSS with its date: the one that puts it nearest to when we received it.

    Without a time, the second in which it was received.
    """
    local = received_at.astimezone(KST)
    if time is None:
        return local.replace(microsecond=0)
    same_day = _on(local.date(), time)
    if abs(same_day - local) < _HALF_A_DAY:
        return same_day
    days = (same_day + timedelta(days=offset) for offset in (0, -1, 1))
    return min(days, key=lambda day: abs(day - local))


@lru_cache(maxsize=256)
def _on(day: date, time: str) -> datetime:
    return datetime(day.year, day.month, day.day, int(time[:2]), int(time[2:4]), int(time[4:]), tzinfo=KST)
