"""Subscriptions → condition events, snapshots, gaps and statuses.

Pure: it takes a session's actions with the moment at which they came and returns the records to publish, in order. It
outlives connections, so it is also where it is known until when each condition was *covered*: up to the last frame
that was received while it was live. When the next snapshot of a condition comes after it was not live, the time in
between is told as a `Gap`, before the snapshot.

It leaves the wire to `kiwoom.session` and Kafka to `publisher`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from streams.events import (
    KST,
    ConditionEvent,
    ConditionSnapshot,
    Gap,
    Record,
    Status,
    event_id,
    identity,
)

from .kiwoom.session import (
    Action,
    Changed,
    Entry,
    Pinged,
    SessionChanged,
    SessionState,
    Snapshot,
    State,
)

# Ordinals are kept for as long as Kiwoom could repeat a second; beyond this many they are pruned by age.
_ORDINALS: Final = 20_000
_ORDINAL_AGE: Final = timedelta(hours=1)


@dataclass(slots=True)
class _Subscription:
    state: State
    cause: str
    since: datetime
    proof_of_life: datetime | None = None
    # Nothing before this moment was missed. None until the first snapshot ever.
    covered: datetime | None = None
    lost_by: str = ""
    members: set[str] | None = None
    events: int = 0


class Conditions:
    """What is known of every condition of one producer, across its connections.

    Args:
        account: whose saved list the conditions are in.
        producer: short name of this app key, for the status components.
        names: the conditions.
        at: now, on the product's clock.
        covered: until when each condition was covered by an earlier process, where that is known.
    """

    def __init__(
        self,
        account: str,
        producer: str,
        names: Iterable[str],
        at: datetime,
        covered: Mapping[str, datetime] | None = None,
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
        self._subscriptions = {
            name: _Subscription(
                "disconnected",
                "starting",
                at,
                covered=(covered or {}).get(name),
                lost_by="the producer was not running",
            )
            for name in names
        }

    def connecting(self, connection: str, at: datetime) -> list[Record]:
        """A new connection begins: ordinals start over."""
        self._connection = connection
        self._connections += 1
        self._ordinals.clear()
        return self._session_changed("connecting", "", at)

    def apply(self, action: Action, at: datetime) -> list[Record]:
        """The records that an action of the present connection's session makes."""
        match action:
            case Entry():
                return [self._event(action)]
            case Snapshot():
                return self._snapshot(action)
            case Changed():
                return self._changed(action, at)
            case SessionChanged(state=state, cause=cause):
                return self._session_changed(state, cause, at)
            case Pinged():
                self._last_ping = at
                return []
            case _:
                return []

    def heard(self, at: datetime) -> None:
        """A frame was received and everything that it said was handed on: live conditions are covered until now."""
        self._frames += 1
        self._last_frame = at
        for subscription in self._subscriptions.values():
            if subscription.state == "live":
                subscription.covered = at

    def disconnected(self, cause: str, at: datetime, state: SessionState = "disconnected") -> list[Record]:
        """There is no connection, and why; `cause` may say when the next try is."""
        records = self._session_changed(state, cause, at)
        for name, subscription in self._subscriptions.items():
            if subscription.state not in ("disconnected", "displaced") or subscription.cause != cause:
                shown: State = "displaced" if state == "displaced" else "disconnected"
                records += self._changed(Changed(condition=name, state=shown, cause=cause), at)
        return records

    def statuses(self, at: datetime) -> list[Status]:
        """The state of the session and of every subscription."""
        return [self._session_status(at), *(self._status(name, at) for name in self._subscriptions)]

    @property
    def covered(self) -> dict[str, datetime]:
        """Until when each condition was covered."""
        return {name: s.covered for name, s in self._subscriptions.items() if s.covered is not None}

    @property
    def states(self) -> dict[str, tuple[State, str]]:
        """State and cause of each subscription."""
        return {name: (s.state, s.cause) for name, s in self._subscriptions.items()}

    @property
    def session(self) -> tuple[SessionState, str]:
        """State and cause of the session."""
        return self._session_state, self._session_cause

    # -- the records

    def _event(self, entry: Entry) -> ConditionEvent:
        at = happened_at(entry.time, entry.received_at)
        subscription = self._subscriptions[entry.condition]
        subscription.proof_of_life = entry.received_at
        subscription.events += 1
        if subscription.members is not None:
            (subscription.members.add if entry.action == "hit" else subscription.members.discard)(entry.code)
        ordinal = self._ordinal(entry.condition, entry.code, entry.action, at)
        return ConditionEvent(
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

    def _ordinal(self, condition: str, code: str, action: str, at: datetime) -> int:
        key = (condition, code, action, at)
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
        covered = subscription.covered
        if subscription.state != "live" and covered is not None and covered < snapshot.received_at:
            records.append(
                Gap(
                    id=identity("gap", self._account, snapshot.condition, self._connection, covered.isoformat()),
                    account=self._account,
                    condition=snapshot.condition,
                    from_=covered.astimezone(KST),
                    to=snapshot.received_at.astimezone(KST),
                    cause=subscription.lost_by,
                    at=snapshot.received_at.astimezone(KST),
                    received_at=snapshot.received_at,
                    session=self._connection,
                )
            )
        subscription.proof_of_life = snapshot.received_at
        subscription.members = set(snapshot.codes)
        subscription.covered = snapshot.received_at
        subscription.lost_by = "the condition was requested anew"
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

    # -- states

    def _changed(self, change: Changed, at: datetime) -> list[Record]:
        subscription = self._subscriptions[change.condition]
        if subscription.state == "live" and change.state != "live":
            subscription.lost_by = change.cause
            subscription.members = None
        if subscription.state != change.state:
            subscription.since = at
        subscription.state, subscription.cause = change.state, change.cause
        return [self._status(change.condition, at)]

    def _session_changed(self, state: SessionState, cause: str, at: datetime) -> list[Record]:
        if self._session_state != state:
            self._session_since = at
        self._session_state, self._session_cause = state, cause
        return [self._session_status(at)]

    def _session_status(self, at: datetime) -> Status:
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
            figures={"connections": self._connections, "frames": self._frames},
        )

    def _status(self, name: str, at: datetime) -> Status:
        subscription = self._subscriptions[name]
        return Status(
            component=f"subscription/{self._account}/{self._producer}/{name}",
            kind="subscription",
            state=subscription.state,
            cause=subscription.cause,
            since=subscription.since,
            at=at,
            account=self._account,
            condition=name,
            session=self._connection,
            proof_of_life=subscription.proof_of_life,
            last_frame=self._last_frame,
            last_ping=self._last_ping,
            members=None if subscription.members is None else len(subscription.members),
            figures={"events": subscription.events},
        )


def happened_at(time: str | None, received_at: datetime) -> datetime:
    """Kiwoom's HHMMSS with its date: the one that puts it nearest to when we received it.

    Without a time, the second in which it was received.
    """
    local = received_at.astimezone(KST)
    if time is None:
        return local.replace(microsecond=0)
    same_day = local.replace(hour=int(time[:2]), minute=int(time[2:4]), second=int(time[4:]), microsecond=0)
    days = (same_day + timedelta(days=offset) for offset in (0, -1, 1))
    return min(days, key=lambda day: abs(day - local))
