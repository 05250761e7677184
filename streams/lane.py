"""A lane: one partition of a topic, what is remembered of it, and what its records lead to.

A lane decodes a record, lets `membership` or `recommend` decide, keeps the state in memory, and notes which values
have changed since they were last written and which deadlines are to be announced. It does no I/O: `streams.app` sends
what a lane decided, writes its state to the changelog and commits, in this order.

The one idea: a lane is a fold over one partition of one log. It is made from the values that were written of it, and a
record that a value already holds leaves that value alone, so a lane may be stopped and made again anywhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from types import EllipsisType
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from . import commands, membership, recommend, topics
from .events import (
    Command,
    ConditionRecord,
    Due,
    HitstreamError,
    LetterCause,
    Record,
    StockRecord,
    condition_key,
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


class Output(NamedTuple):
    """One record to publish, and when what it is about became known to us (None: nothing to measure)."""

    topic: str
    key: bytes
    record: Record
    heard_at: datetime | None = None


class Decision(NamedTuple):
    """What one record leads to: what to publish, and why (parts of) it changed nothing."""

    outputs: list[Output]
    ignored: list[str]


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

    def writes(self) -> list[tuple[bytes, bytes | None]]:
        """The values changed since the last call, in the order in which they must be written; None: forgotten."""

    def overdue(self, now: datetime) -> list[Output]:
        """The deadlines that have passed and were not announced yet."""


_T = TypeVar("_T", bound=Record)


def checked(key: Key, expected: bytes) -> None:
    """Make sure that a record has the key of its content.

    Raises:
        Unreadable: it has another one.
    """
    if key is not ... and key != expected:
        raise Unreadable(f"its key is {key!r:.100} and should be {expected!r:.100}", "key")


def fitting(outputs: list[Output]) -> list[Output]:
    """The outputs, once it is sure that they can be written.

    Raises:
        Unreadable: one can't be, or is larger than what a broker takes.
    """
    for output in outputs:
        try:
            size = len(encode(output.record)) + len(output.key)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise Unreadable(f"what it leads to can't be written: {error}", "unfit") from error
        if size > topics.MAX_RECORD:
            raise Unreadable(f"what it leads to has {size} bytes, more than a broker takes", "unfit")
    return outputs


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
    (output,) = fitting([Output(topics.TRANSITIONS.name, command.code.encode(), command)])
    return output


def _keys(items: Iterable[tuple[bytes, bytes]], partition: int) -> Iterator[tuple[list[str], bytes]]:
    """The values of a partition, by what follows it in their table keys."""
    for raw, value in items:
        key = _key_decoder.decode(raw)
        if key[0] == partition:
            yield key[1:], value


class _Agenda:
    """Deadlines to be announced: each once, when its moment has passed."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str, tuple[str, str]]] = []
        self._noted: dict[str, datetime] = {}

    def note(self, due: Due, owner: tuple[str, str]) -> None:
        if due.id not in self._noted:
            self._noted[due.id] = due.at
            heapq.heappush(self._heap, (due.at, due.id, owner))

    def pop(self, now: datetime) -> Iterator[tuple[str, tuple[str, str]]]:
        """Ids and owners of the deadlines that have passed by now."""
        while self._heap and self._heap[0][0] <= now:
            _, id_, owner = heapq.heappop(self._heap)
            yield id_, owner
        if not self._heap:
            self._noted.clear()

    def forget(self, id_: str) -> None:
        """Nothing is due under this id at the moment: it may be noted again."""
        self._noted.pop(id_, None)


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
        self._agenda = _Agenda()
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
        outputs = []
        for output in effect.outputs:
            fresh = getattr(output, "origin", "") == "realtime"
            outputs.append(
                Output(topics.TRANSITIONS.name, output.code.encode(), output, output.received_at if fresh else None)
            )
        # What can fail stands before what remembers: a record that fails leaves the lane as it was.
        fitting(outputs)
        if effect.day is not None:
            membership.day_end_due(*owner, effect.day.date)
            self._states[owner] = state
            state.advance(effect)
            self._changed.setdefault(owner, set()).update(effect.members)
            self._note(state)
        return Decision(outputs, [ignored.reason for ignored in effect.ignored])

    def writes(self) -> list[tuple[bytes, bytes | None]]:
        kept: list[tuple[bytes, bytes | None]] = []
        days: list[tuple[bytes, bytes | None]] = []
        gone: list[tuple[bytes, bytes | None]] = []
        for (account, condition), codes in self._changed.items():
            state = self._states[account, condition]
            for code in sorted(codes):
                member = state.members.get(code)
                key = _key_encoder.encode((self.partition, account, condition, code))
                if member is None:
                    gone.append((key, None))
                else:
                    kept.append((key, msgspec.json.encode(member)))
            days.append((_key_encoder.encode((self.partition, account, condition)), msgspec.json.encode(state.day)))
        self._changed.clear()
        return [*kept, *days, *gone]

    def overdue(self, now: datetime) -> list[Output]:
        outputs: list[Output] = []
        for id_, (account, condition) in self._agenda.pop(now):
            state = self._states[account, condition]
            if state.day is not None and state.deadline() is not None:
                due = membership.day_end_due(account, condition, state.day.date)
                if due.id == id_:
                    outputs.append(Output(topics.CONDITION_EVENTS.name, condition_key(account, condition), due))
                    continue
            self._agenda.forget(id_)
        return outputs

    def _state(self, account: str, condition: str) -> membership.State:
        state = self._states.get((account, condition))
        if state is None:
            state = self._states[account, condition] = membership.State(account, condition)
        return state

    def _note(self, state: membership.State) -> None:
        if state.day is not None and state.deadline() is not None:
            self._agenda.note(
                membership.day_end_due(state.account, state.condition, state.day.date),
                (state.account, state.condition),
            )

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
        self._agenda = _Agenda()
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
        outputs = fitting(
            [
                Output(topics.RECOMMENDATIONS.name, revision.code.encode(), revision, _heard_at(record))
                for revision in outcome.revisions
            ]
        )
        # What can fail stands before what remembers: a record that fails leaves the lane as it was.
        if outcome.standing is not None and outcome.standing is not before:
            due = recommend.dues(outcome.standing)
            self.open += (outcome.standing.opening is not None) - (before is not None and before.opening is not None)
            self._standings[owner] = outcome.standing
            self._changed.add(owner)
            for deadline in due:
                self._agenda.note(deadline, owner)
        return Decision(outputs, [outcome.ignored] if outcome.ignored else [])

    def writes(self) -> list[tuple[bytes, bytes | None]]:
        values: list[tuple[bytes, bytes | None]] = [
            (_key_encoder.encode((self.partition, *owner)), msgspec.json.encode(self._standings[owner]))
            for owner in sorted(self._changed)
        ]
        self._changed.clear()
        return values

    def overdue(self, now: datetime) -> list[Output]:
        outputs: list[Output] = []
        for id_, owner in self._agenda.pop(now):
            due = next((due for due in recommend.dues(self._standings[owner]) if due.id == id_), None)
            if due is None:
                self._agenda.forget(id_)
            else:
                outputs.append(Output(topics.TRANSITIONS.name, due.code.encode(), due))
        return outputs

    def _note(self, standing: recommend.Standing) -> None:
        for due in recommend.dues(standing):
            self._agenda.note(due, (standing.account, standing.code))

    def _forget_positions(self) -> None:
        for owner, standing in self._standings.items():
            self._standings[owner] = msgspec.structs.replace(standing, position=-1)


def _heard_at(record: StockRecord) -> datetime | None:
    fresh = getattr(record, "origin", "") == "realtime" and getattr(record, "kind", "") == "entered"
    return getattr(record, "received_at", None) if fresh else None


def encoded(outputs: Iterable[Output]) -> Iterator[tuple[str, bytes, bytes]]:
    """Topic, key and value of each output."""
    return ((output.topic, output.key, encode(output.record)) for output in outputs)
