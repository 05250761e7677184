"""As much of the Kafka protocol as the front and the readiness probe need: values from bytes, no I/O.

Field layouts are those of Apache Kafka's message definitions (`clients/src/main/resources/common/message`). Versions
from which a message is *flexible* write lengths as unsigned varints plus one, and end structures with tagged fields.
Anything that cannot be read raises `Unreadable`; the caller passes such a frame on as it is.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

PRODUCE: Final = 0
FETCH: Final = 1
METADATA: Final = 3
OFFSET_COMMIT: Final = 8
FIND_COORDINATOR: Final = 10
JOIN_GROUP: Final = 11
HEARTBEAT: Final = 12
LEAVE_GROUP: Final = 13
SYNC_GROUP: Final = 14
API_VERSIONS: Final = 18
END_TXN: Final = 26
DESCRIBE_CLUSTER: Final = 60

FETCH_MAX: Final = 12
"""Newest Fetch version that names topics; from 13 on they are ids, which the front would have to learn."""

MAX_FRAME: Final = 104_857_600
"""Largest frame, as Kafka's `socket.request.max.bytes`."""

_FLEXIBLE_FROM: Final = {
    PRODUCE: 9,
    FETCH: 12,
    METADATA: 9,
    OFFSET_COMMIT: 8,
    FIND_COORDINATOR: 3,
    JOIN_GROUP: 6,
    HEARTBEAT: 4,
    LEAVE_GROUP: 4,
    SYNC_GROUP: 4,
    API_VERSIONS: 3,
    DESCRIBE_CLUSTER: 0,
}

GROUP_CALLS: Final = {JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP, OFFSET_COMMIT}
"""Requests by which a member of a group shows that it is alive, or leaves."""

_ILLEGAL_GENERATION: Final = 22
_REBALANCE_IN_PROGRESS: Final = 27


class Unreadable(Exception):
    """The bytes are not the message they should be."""


class Header(msgspec.Struct, frozen=True):
    """Head of a request; `body` is where what follows begins."""

    key: int
    version: int
    correlation: int
    body: int

    @property
    def flexible(self) -> bool:
        return self.version >= _FLEXIBLE_FROM.get(self.key, 1 << 15)


class Fetch(msgspec.Struct, frozen=True):
    """What a Fetch request waits for: at least `min_bytes` from `partitions`, at most `max_wait` seconds."""

    max_wait: float
    min_bytes: int
    partitions: tuple[tuple[str, int], ...]


class Produce(msgspec.Struct, frozen=True):
    """Where a Produce request writes; with `acks` 0 nothing answers it. `acks_at` is where that stands."""

    acks: int
    acks_at: int
    partitions: tuple[tuple[str, int], ...]


class GroupCall(msgspec.Struct, frozen=True):
    """A request of a group's member. `session` and `rebalance` (seconds) come with a request to join only."""

    key: int
    group: str
    member: str = ""
    leaving: tuple[str, ...] = ()
    session: float = 0.0
    rebalance: float = 0.0
    generation: int = -1


class _Cursor:
    """Reads fields one after another."""

    def __init__(self, frame: bytes, at: int, flexible: bool) -> None:
        self.frame = frame
        self.at = at
        self.flexible = flexible

    def skip(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.frame):
            raise Unreadable
        self.at += size

    def _unpack(self, layout: struct.Struct) -> int:
        start = self.at
        self.skip(layout.size)
        value: int = layout.unpack_from(self.frame, start)[0]
        return value

    def int16(self) -> int:
        return self._unpack(_INT16)

    def int32(self) -> int:
        return self._unpack(_INT32)

    def varint(self) -> int:
        value = shift = 0
        while True:
            self.skip(1)
            byte = self.frame[self.at - 1]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise Unreadable

    def length(self) -> int:
        """Length of an array or of bytes; null counts as empty."""
        return max(0, self.varint() - 1 if self.flexible else self.int32())

    def string(self) -> str:
        size = max(0, self.varint() - 1 if self.flexible else self.int16())
        start = self.at
        self.skip(size)
        try:
            return self.frame[start : self.at].decode()
        except UnicodeDecodeError as error:
            raise Unreadable from error

    def tags(self) -> None:
        if self.flexible:
            for _ in range(self.varint()):
                self.varint()
                self.skip(self.varint())


_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_HEADER: Final = struct.Struct(">hhi")


def header(frame: bytes) -> Header:
    """Head of a request frame (without its length)."""
    if len(frame) < _HEADER.size + 2:
        raise Unreadable
    key, version, correlation = _HEADER.unpack_from(frame)
    cursor = _Cursor(frame, _HEADER.size, flexible=False)
    cursor.skip(max(0, cursor.int16()))  # client id: never compact
    # ApiVersions' request head is flexible from 3 on like the others; only its response head is not.
    cursor.flexible = version >= _FLEXIBLE_FROM.get(key, 1 << 15)
    cursor.tags()
    return Header(key, version, correlation, cursor.at)


def fetch(frame: bytes, head: Header) -> Fetch:
    """A Fetch request up to version 12."""
    if head.version > FETCH_MAX:
        raise Unreadable
    cursor = _Cursor(frame, head.body, head.flexible)
    cursor.skip(4)  # replica id
    max_wait, min_bytes = cursor.int32(), cursor.int32()
    cursor.skip((4 if head.version >= 3 else 0) + (1 if head.version >= 4 else 0))  # max bytes, isolation level
    cursor.skip(8 if head.version >= 7 else 0)  # session id and epoch
    per_partition = 8 + 4  # fetch offset, max bytes
    per_partition += 4 if head.version >= 9 else 0  # current leader epoch
    per_partition += 4 if head.version >= 12 else 0  # last fetched epoch
    per_partition += 8 if head.version >= 5 else 0  # log start offset
    partitions = []
    for _ in range(cursor.length()):
        topic = cursor.string()
        for _ in range(cursor.length()):
            partitions.append((topic, cursor.int32()))
            cursor.skip(per_partition)
            cursor.tags()
        cursor.tags()
    return Fetch(max_wait / 1000, min_bytes, tuple(partitions))


def acknowledged(frame: bytes, produce: Produce) -> bytes:
    """A Produce request as it was, but that the leader is to acknowledge it."""
    return frame[: produce.acks_at] + _INT16.pack(1) + frame[produce.acks_at + 2 :]


def answers_nothing(frame: bytes, version: int) -> bool:
    """Whether a Fetch response up to version 12 has neither records nor an error."""
    if version > FETCH_MAX:
        raise Unreadable
    cursor = _Cursor(frame, 4, version >= _FLEXIBLE_FROM[FETCH])
    cursor.tags()
    cursor.skip(4 if version >= 1 else 0)  # throttle time
    if version >= 7:
        if cursor.int16():
            return False
        cursor.skip(4)  # session id
    for _ in range(cursor.length()):
        cursor.string()
        for _ in range(cursor.length()):
            cursor.skip(4)  # partition
            if cursor.int16():
                return False
            cursor.skip(8)  # high watermark
            cursor.skip((8 if version >= 4 else 0) + (8 if version >= 5 else 0))  # last stable, log start offset
            if version >= 4:
                for _ in range(cursor.length()):  # aborted transactions
                    cursor.skip(16)
                    cursor.tags()
            cursor.skip(4 if version >= 11 else 0)  # preferred read replica
            if cursor.length():
                return False
            cursor.tags()
        cursor.tags()
    return True


def produce(frame: bytes, head: Header) -> Produce:
    """A Produce request up to version 12."""
    if head.version > 12:
        raise Unreadable
    cursor = _Cursor(frame, head.body, head.flexible)
    if head.version >= 3:
        cursor.string()  # transactional id
    acks_at = cursor.at
    acks = cursor.int16()
    cursor.skip(4)  # time-out
    partitions = []
    for _ in range(cursor.length()):
        topic = cursor.string()
        for _ in range(cursor.length()):
            partitions.append((topic, cursor.int32()))
            cursor.skip(cursor.length())
            cursor.tags()
        cursor.tags()
    return Produce(acks, acks_at, tuple(partitions))


def group_call(frame: bytes, head: Header) -> GroupCall:
    """A request of a group's member: one of `GROUP_CALLS`."""
    cursor = _Cursor(frame, head.body, head.flexible)
    group = cursor.string()
    if head.key == JOIN_GROUP:
        session = cursor.int32() / 1000
        rebalance = cursor.int32() / 1000 if head.version >= 1 else session
        return GroupCall(head.key, group, cursor.string(), (), session, rebalance)
    if head.key == LEAVE_GROUP and head.version >= 3:
        leaving = []
        for _ in range(cursor.length()):
            leaving.append(cursor.string())
            cursor.string()  # instance id
            if head.version >= 5:
                cursor.string()  # reason
            cursor.tags()
        return GroupCall(head.key, group, "", tuple(leaving))
    if head.key == LEAVE_GROUP:
        return GroupCall(head.key, group, "", (cursor.string(),))
    if head.key == OFFSET_COMMIT and head.version == 0:
        return GroupCall(head.key, group)
    generation = cursor.int32()
    return GroupCall(head.key, group, cursor.string(), generation=generation)


def joined(frame: bytes, version: int) -> tuple[str, int] | None:
    """The member that a JoinGroup response up to version 8 admits, and the generation; None if it admits nobody."""
    cursor = _Cursor(frame, 4, version >= _FLEXIBLE_FROM[JOIN_GROUP])
    cursor.tags()
    cursor.skip(4 if version >= 2 else 0)  # throttle time
    if cursor.int16():
        return None
    generation = cursor.int32()
    if version >= 7:
        cursor.string()  # protocol type
    cursor.string()  # protocol
    cursor.string()  # leader
    return cursor.string(), generation


def looking(frame: bytes, head: Header) -> bytes:
    """A Metadata request that makes no topic: with `allow_auto_topic_creation` (from version 4 on) switched off."""
    if head.version < 4:
        return frame
    # The flag stands before the trailing authorised-operations flags (two in 8 to 10, one from 11) and the tags.
    behind = 0 if head.version < 8 else 2 if head.version <= 10 else 1
    at = len(frame) - 1 - behind - head.flexible
    return frame[:at] + b"\0" + frame[at + 1 :]


def leave_request(correlation: int, group: str, member: str) -> bytes:
    """A LeaveGroup request for one member."""
    names = (text.encode() for text in (group, member))
    body = b"".join(_INT16.pack(len(name)) + name for name in names)
    return struct.pack(">hhih", LEAVE_GROUP, 1, correlation, -1) + body


def narrowed(frame: bytes, version: int) -> bytes:
    """An ApiVersions response that offers Fetch up to version 12."""
    cursor = _Cursor(frame, 4 + 2, version >= _FLEXIBLE_FROM[API_VERSIONS])  # correlation id, error
    for _ in range(cursor.length()):
        key = cursor.int16()
        cursor.skip(2)
        at = cursor.at
        newest = cursor.int16()
        cursor.tags()
        if key == FETCH and newest > FETCH_MAX:
            return frame[:at] + _INT16.pack(FETCH_MAX) + frame[at + 2 :]
    return frame


def rebalancing(frame: bytes, version: int) -> bytes:
    """An OffsetCommit response that says of an old generation that the group is being rebalanced.

    Kafka begins a new generation when all members have joined it; noida-db when the first one asks. A member that
    commits in between, as aiokafka does before it joins again, is then told that its generation is illegal, forgets
    who it is and joins as somebody new – while the group waits for the leader that it was. Told that the group is
    being rebalanced, it joins as itself.
    """
    told = bytearray(frame)
    cursor = _Cursor(frame, 4, version >= _FLEXIBLE_FROM[OFFSET_COMMIT])
    cursor.tags()
    cursor.skip(4 if version >= 3 else 0)  # throttle time
    for _ in range(cursor.length()):
        cursor.string()
        for _ in range(cursor.length()):
            cursor.skip(4)  # partition
            if cursor.int16() == _ILLEGAL_GENERATION:
                told[cursor.at - 2 : cursor.at] = _INT16.pack(_REBALANCE_IN_PROGRESS)
            cursor.tags()
        cursor.tags()
    return bytes(told)


def assigned(frame: bytes, version: int) -> bytes:
    """A SyncGroup response that says of no assignment at all that the group is being rebalanced.

    When rebalances overlap, noida-db answers a member that the leader's assignment does not know with no bytes and no
    error. That is not an assignment of no partitions; clients cannot read it. Told otherwise, the member joins again.
    """
    cursor = _Cursor(frame, 4, version >= _FLEXIBLE_FROM[SYNC_GROUP])
    cursor.tags()
    cursor.skip(4 if version >= 1 else 0)  # throttle time
    at = cursor.at
    error = cursor.int16()
    if version >= 5:
        cursor.string()  # protocol type
        cursor.string()  # protocol
    if error or cursor.length():
        return frame
    return frame[:at] + _INT16.pack(_REBALANCE_IN_PROGRESS) + frame[at + 2 :]


def outdated(frame: bytes, version: int) -> bytes:
    """A Heartbeat response without an error that says instead that the group is being rebalanced.

    When rebalances overlap, noida-db goes on taking heartbeats of a generation that is over, and its member goes on
    with partitions that others were given.
    """
    cursor = _Cursor(frame, 4, version >= _FLEXIBLE_FROM[HEARTBEAT])
    cursor.tags()
    cursor.skip(4 if version >= 1 else 0)  # throttle time
    at = cursor.at
    if cursor.int16():
        return frame
    return frame[:at] + _INT16.pack(_REBALANCE_IN_PROGRESS) + frame[at + 2 :]


def readdressed(frame: bytes, head: Header, inner: tuple[str, int], outer: tuple[str, int]) -> bytes:
    """A response with the broker's own address replaced by another.

    Wherever these messages carry an address, host and port stand side by side, so the two together are looked for
    instead of reading every version of each message.
    """

    def address(host: str, port: int) -> bytes:
        text = host.encode()
        size = bytes([len(text) + 1]) if head.flexible else _INT16.pack(len(text))  # hosts here are shorter than 127
        return size + text + _INT32.pack(port)

    return frame.replace(address(*inner), address(*outer))


def brokers_request(correlation: int) -> bytes:
    """A Metadata request that asks for the brokers and for no topic."""
    return struct.pack(">hhihi", METADATA, 2, correlation, -1, 0)


def brokers(frame: bytes) -> tuple[int, str]:
    """How many brokers the answer to `brokers_request` names, and the id of their cluster (empty if it has none)."""
    cursor = _Cursor(frame, 4, flexible=False)
    count = cursor.length()
    for _ in range(count):
        cursor.skip(4)  # node id
        cursor.string()  # host
        cursor.skip(4)  # port
        cursor.string()  # rack
    return count, cursor.string()
