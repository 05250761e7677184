"""A lane: one partition of a topic, what is remembered of it, and what its records lead to.

A lane decodes a record, lets `membership` or `recommend` decide, keeps the state in memory, and notes which values
have changed since they were last written and which deadlines are to be announced. It does no I/O: `streams.app` sends
what a lane decided, writes its state to the changelog and commits, in this order.

The one idea: a lane is a fold over one partition of one log. It is made from the values that were written of it, and a
record that a value already holds leaves that value alone, so a lane may be stopped and made again anywhere.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterable, Iterator
from datetime import date, datetime, timedelta
from types import EllipsisType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from . import commands, membership, recommend, topics
from .events import (
    Command,
    ConditionRecord,
    HitstreamError,
    LetterCause,
    Record,
    StockRecord,
    Transition,
    condition_key,
    day_end,
    encode,
)

#: Table keys: JSON arrays that begin with the partition, so that a value says itself to which lane it belongs.
TableKey = tuple[int, str, str] | tuple[int, str, str, str]

#: A record's Kafka key; `...` where it is not looked at.
Key = bytes | EllipsisType | None

#: How far a record may be dated ahead of its receipt. One from a later day would end the day, and all that comes after
#: it would be late: a single wrong date must not silence a condition.
AHEAD: Final = timedelta(hours=6)

_key_encoder: Final = msgspec.json.Encoder()
_key_decoder: Final = msgspec.json.Decoder(list[Any])
_condition_record: Final = msgspec.json.Decoder(ConditionRecord)
_stock_record: Final = msgspec.json.Decoder(StockRecord)
_command: Final = msgspec.json.Decoder(Command)
_member: Final = msgspec.json.Decoder(membership.Member)
_day: Final = msgspec.json.Decoder(membership.Day)
_standing: Final = msgspec.json.Decoder(recommend.Standing)


class Unreadable(HitstreamError):
    """A record's bytes are not a record of its topic. `cause` is the class of the reason, as in `DeadLetter`."""

    def __init__(self, reason: str, cause: LetterCause = "invalid") -> None:
        super().__init__(reason)
        self.cause = cause


class Output(msgspec.Struct, frozen=True):
    """One record to publish, its bytes, and when what it is about became known to us (None: nothing to measure)."""

    topic: str
    key: bytes
    record: Record
    value: bytes
    heard_at: datetime | None = None


class Decision(msgspec.Struct, frozen=True):
    """What one record leads to: what to publish, and why (parts of) it changed nothing."""

    outputs: list[Output]
    ignored: list[str]


#: What is remembered under one table key. Frozen: it may be kept and written later (`holding`).
Value = membership.Member | membership.Day | recommend.Standing


class Lane(Protocol):
    """What the shell needs of a lane."""

    def take(self, value: bytes | None, position: int, key: Key = ...) -> Decision:
        """Decide one record and advance. Whatever it raises, nothing has changed.

        Args:
            value: its bytes.
            position: its offset.
            key: its Kafka key, which must be that of its content: with another one it may stand beside records that it
                belongs behind. `...` is not looked at.

        Raises:
            Unreadable: the bytes are no record of the topic, or the key is another one.
            Exception: whatever else a rule raises.
        """

    def writes(self) -> list[tuple[bytes, Value | None]]:
        """The values changed since the last call, in the order in which they must be written; None: forgotten."""

    def overdue(self, now: datetime) -> Iterator[Output]:
        """The deadlines that have passed and were not announced yet. What is not taken of them comes next time."""


_T = TypeVar("_T", bound=Record)


def checked(key: Key, expected: bytes) -> None:
    """Make sure that a record has the key of its content.

    Raises:
        Unreadable: it has another one.
    """
    if key is not ... and key != expected:
        raise Unreadable(f"its key is {key!r:.100} and should be {expected!r:.100}", "key")


def fitting(topic: topics.Topic, key: bytes, record: Record, heard_at: datetime | None = None) -> Output:
    """A record as it is to be published.

    Raises:
        Unreadable: it can't be written, or is larger than what a broker takes.
    """
    try:
        value = encode(record)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise Unreadable(f"what it leads to can't be written: {error}", "unfit") from error
    if (size := len(value) + len(key)) > topics.MAX_RECORD:
        raise Unreadable(f"what it leads to has {size} bytes, more than a broker takes", "unfit")
    return Output(topic.name, key, record, value, heard_at)


def decode(decoder: msgspec.json.Decoder[_T], value: bytes | None) -> _T:
    """A record from a topic's bytes; its times are possible.

    Raises:
        Unreadable: with the reason.
    """
    if value is None:
        raise Unreadable("empty record", "empty")
    try:
        record = decoder.decode(value)
    except msgspec.ValidationError as error:
        raise Unreadable(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error), "malformed") from error
    at, received_at = getattr(record, "at", None), getattr(record, "received_at", None)
    if at is not None and received_at is not None and at - received_at > AHEAD:
        raise Unreadable(f"dated {at.isoformat()}, though received {received_at.isoformat()}")
    return record


def relay(value: bytes | None, now: datetime | None = None) -> Output:
    """A person's command, accepted: the same record, on the log that decides. `now` as in `commands.refusal`.

    Raises:
        Unreadable: the bytes are no command, or none that can be accepted or passed on.
    """
    command = decode(_command, value)
    if reason := commands.refusal(command, now):
        raise Unreadable(f"refused: {reason}")
    return fitting(topics.TRANSITIONS, command.code.encode(), command)


def _keys(items: Iterable[tuple[bytes, bytes]], partition: int) -> Iterator[tuple[list[str], bytes]]:
    """The values of a partition, by what follows it in their table keys."""
    for raw, value in items:
        key = _key_decoder.decode(raw)
        if key[0] == partition:
            yield key[1:], value


_Noted = TypeVar("_Noted", bound=Hashable)


class _Agenda(Generic[_Noted]):
    """What is to be announced: each once, when its moment has passed."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, _Noted]] = []
        self._noted: set[_Noted] = set()
        self._number = itertools.count()

    def __contains__(self, what: _Noted) -> bool:
        return what in self._noted

    def note(self, at: datetime, what: _Noted) -> None:
        if what not in self._noted:
            self._noted.add(what)
            heapq.heappush(self._heap, (at, next(self._number), what))

    def pop(self, now: datetime) -> Iterator[_Noted]:
        """What has passed by now."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
        if not self._heap:
            self._noted.clear()

    def forget(self, what: _Noted) -> None:
        """It is not due at the moment: it may be noted again."""
        self._noted.discard(what)


class MembershipLane:
    """One partition of `condition-events`: the memberships of its conditions.

    Args:
        partition: its number.
        items: keys and values of the recovered table; those of other partitions are skipped.
        end: the offset that the log's next record will get. Values from beyond it stem from a log that is no more;
            they are kept, but no record is taken for one that they hold.
    """

    def __init__(self, partition: int, items: Iterable[tuple[bytes, bytes]], end: int) -> None:
        self.partition = partition
        self._states: dict[tuple[str, str], membership.State] = {}
        self._changed: dict[tuple[str, str], set[str]] = {}
        self._last = -1
        self._agenda = _Agenda[tuple[str, str, date]]()
        for key, value in _keys(items, partition):
            state = self._state(key[0], key[1])
            if len(key) == 2:
                state.day = _day.decode(value)
            else:
                state.members[key[2]] = _member.decode(value)
        if any(position >= end for position in self._positions()):
            self._forget_positions()
        for state in self._states.values():
            self._note(state)

    def take(self, value: bytes | None, position: int, key: Key = ...) -> Decision:
        record = decode(_condition_record, value)
        checked(key, condition_key(record.account, record.condition))
        if position <= self._last:
            self._forget_positions()
        self._last = position
        owner = record.account, record.condition
        state = self._states.get(owner) or membership.State(*owner)
        effect = membership.apply(state, record, position)
        # What can fail stands before what remembers: a record that fails leaves the lane as it was.
        outputs = []
        for output in effect.outputs:
            fresh = isinstance(output, Transition) and output.origin == "realtime"
            heard_at = output.received_at if fresh else None
            outputs.append(fitting(topics.TRANSITIONS, output.code.encode(), output, heard_at))
        if effect.day is not None:
            day_end(effect.day.date)
            self._states[owner] = state
            state.advance(effect)
            self._changed.setdefault(owner, set()).update(effect.members)
            self._note(state)
        return Decision(outputs, [ignored.reason for ignored in effect.ignored])

    def writes(self) -> list[tuple[bytes, Value | None]]:
        kept: list[tuple[bytes, Value | None]] = []
        days: list[tuple[bytes, Value | None]] = []
        gone: list[tuple[bytes, Value | None]] = []
        for (account, condition), codes in self._changed.items():
            state = self._states[account, condition]
            for code in sorted(codes):
                member = state.members.get(code)
                key = _key_encoder.encode((self.partition, account, condition, code))
                if member is None:
                    gone.append((key, None))
                else:
                    kept.append((key, member))
            days.append((_key_encoder.encode((self.partition, account, condition)), state.day))
        self._changed.clear()
        return [*kept, *days, *gone]

    def overdue(self, now: datetime) -> Iterator[Output]:
        for noted in self._agenda.pop(now):
            account, condition, day = noted
            state = self._states[account, condition]
            if state.day is not None and state.day.date == day and state.deadline() is not None:
                due = membership.day_end_due(account, condition, day)
                yield fitting(topics.CONDITION_EVENTS, condition_key(account, condition), due)
            else:
                self._agenda.forget(noted)

    def _state(self, account: str, condition: str) -> membership.State:
        state = self._states.get((account, condition))
        if state is None:
            state = self._states[account, condition] = membership.State(account, condition)
        return state

    def _note(self, state: membership.State) -> None:
        if state.day is None:
            return
        noted = state.account, state.condition, state.day.date
        if noted not in self._agenda and (deadline := state.deadline()) is not None:
            self._agenda.note(deadline, noted)

    def _positions(self) -> Iterator[int]:
        for state in self._states.values():
            if state.day is not None:
                yield state.day.position
            yield from (member.position for member in state.members.values())

    def _forget_positions(self) -> None:
        """The log was cut or made anew: from here on only ids tell what was seen."""
        for state in self._states.values():
            if state.day is not None:
                state.day = msgspec.structs.replace(state.day, position=-1)
            for code, member in state.members.items():
                state.members[code] = msgspec.structs.replace(member, position=-1)


class StandingLane:
    """One partition of `transitions`: the standings of its stocks. Arguments as in `MembershipLane`."""

    def __init__(
        self, partition: int, items: Iterable[tuple[bytes, bytes]], end: int, policy: recommend.Policy
    ) -> None:
        self.partition = partition
        self._policy = policy
        self._standings = {(key[0], key[1]): _standing.decode(value) for key, value in _keys(items, partition)}
        self._changed: set[tuple[str, str]] = set()
        #: Recommendations that are open.
        self.open = sum(standing.opening is not None for standing in self._standings.values())
        self._last = -1
        self._agenda = _Agenda[tuple[tuple[str, str], recommend.Deadline]]()
        if any(standing.position >= end for standing in self._standings.values()):
            self._forget_positions()
        for standing in self._standings.values():
            self._note(standing)

    def take(self, value: bytes | None, position: int, key: Key = ...) -> Decision:
        record = decode(_stock_record, value)
        checked(key, record.code.encode())
        if position <= self._last:
            self._forget_positions()
        self._last = position
        owner = record.account, record.code
        before = self._standings.get(owner)
        outcome = recommend.apply(before, record, position, self._policy)
        # What can fail stands before what remembers: a record that fails leaves the lane as it was.
        outputs = [
            fitting(topics.RECOMMENDATIONS, revision.code.encode(), revision, _heard_at(record))
            for revision in outcome.revisions
        ]
        if outcome.standing is not None and outcome.standing is not before:
            deadlines = [d for d in recommend.deadlines(outcome.standing) if (owner, d) not in self._agenda]
            for deadline in deadlines:
                recommend.due(outcome.standing, deadline)
            self.open += (outcome.standing.opening is not None) - (before is not None and before.opening is not None)
            self._standings[owner] = outcome.standing
            self._changed.add(owner)
            for deadline in deadlines:
                self._agenda.note(deadline.at, (owner, deadline))
        return Decision(outputs, [outcome.ignored] if outcome.ignored else [])

    def writes(self) -> list[tuple[bytes, Value | None]]:
        values: list[tuple[bytes, Value | None]] = [
            (_key_encoder.encode((self.partition, *owner)), self._standings[owner]) for owner in sorted(self._changed)
        ]
        self._changed.clear()
        return values

    def overdue(self, now: datetime) -> Iterator[Output]:
        for noted in self._agenda.pop(now):
            owner, deadline = noted
            standing = self._standings[owner]
            if deadline in recommend.deadlines(standing):
                due = recommend.due(standing, deadline)
                yield fitting(topics.TRANSITIONS, due.code.encode(), due)
            else:
                self._agenda.forget(noted)

    def _note(self, standing: recommend.Standing) -> None:
        for deadline in recommend.deadlines(standing):
            self._agenda.note(deadline.at, ((standing.account, standing.code), deadline))

    def _forget_positions(self) -> None:
        for owner, standing in self._standings.items():
            self._standings[owner] = msgspec.structs.replace(standing, position=-1)


def _heard_at(record: StockRecord) -> datetime | None:
    if isinstance(record, Transition) and record.origin == "realtime" and record.kind == "entered":
        return record.received_at
    return None
