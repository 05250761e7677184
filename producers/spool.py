"""The disk spool: what Kafka does not take, kept in order until it does – also through a SIGKILL.

An append-only log in segments. Each record is a frame: the length of its body, the body's CRC-32, the body. What the
end of a crash has torn is recognised by that and cut off. `peek` reads from the head, `advance` forgets what Kafka has
acknowledged; a segment that has been read is deleted, and the place of the head is kept in a small file beside.

How durable: `append` hands the bytes to the operating system at once, so they survive this process however it ends.
`sync` brings them to the disk; the owner calls it every second, so a machine that loses power loses at most that much.
Nothing here waits for the network and nothing is thrown away: a full spool refuses (`SpoolFull`).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from streams.events import HitstreamError

_log = structlog.get_logger(__name__)

_HEAD: Final = struct.Struct(">II")
_SEGMENT: Final = 16 * 1024 * 1024
_READ: Final = 256 * 1024


class SpoolFull(HitstreamError):
    """There is no room on the spool, or on its disk."""


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """A record on its way to Kafka: where it goes, and its bytes as they were first made."""

    topic: str
    key: bytes
    value: bytes
    received_at: float


class _Place(msgspec.Struct, frozen=True):
    """Where the head of the log is."""

    segment: int
    offset: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Spooled).decode


class Spool:
    """One producer's spool. Not for two processes at once: who holds the app key's lock owns it.

    Args:
        folder: where it is kept; made when the first record comes.
        limit: most bytes that may wait.
    """

    def __init__(self, folder: Path, *, limit: int, segment: int = _SEGMENT) -> None:
        self._folder = folder
        self._limit = limit
        self._segment = segment
        self._ends: dict[int, int] = {}
        self._head = _Place(1, 0)
        self._waiting = 0
        self._tail: BinaryIO | None = None
        # Records that were read from behind the head, each with the place after it; `_next` is where reading goes on.
        self._window: deque[tuple[Spooled, _Place]] = deque()
        self._unsynced = False
        self.torn = 0
        self._open()
        self._next = self._head

    def __len__(self) -> int:
        return self._waiting

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(self._ends.values()) - (self._head.offset if self._head.segment in self._ends else 0)

    @property
    def crowded(self) -> bool:
        """Whether it is half full: time to leave out what can be done without."""
        # Asked for every frame, and nearly always nothing waits: then there are no segments to add up.
        return self._waiting > 0 and self.size * 2 >= self._limit

    def append(self, record: Spooled) -> None:
        """Add a record at the tail.

        Raises:
            SpoolFull: the limit is reached, or the disk takes no more.
        """
        body = _encode(record)
        frame = _HEAD.pack(len(body), zlib.crc32(body)) + body
        if self.size + len(frame) > self._limit:
            raise SpoolFull(
                f"the spool {self._folder} is full ({self._limit:,} bytes): get Kafka back, or raise its size"
            )
        try:
            number, tail = self._tail_for(len(frame))
            try:
                tail.write(frame)
                tail.flush()
            except OSError:
                # Half a frame would hide everything behind it.
                with suppress(OSError):
                    tail.truncate(self._ends[number])
                self._close()
                raise
        except OSError as error:
            raise SpoolFull(
                f"the spool {self._folder} takes nothing ({error.strerror}): make room on its disk"
            ) from None
        self._ends[number] += len(frame)
        self._waiting += 1
        self._unsynced = True

    def peek(self, records: int, size: int) -> list[Spooled]:
        """The records at the head, at most so many and of so many bytes together (but one in any case)."""
        found: list[Spooled] = []
        taken = 0
        while len(found) < records:
            if len(found) == len(self._window) and not self._read_one():
                break
            record, _ = self._window[len(found)]
            taken += len(record.key) + len(record.value)
            if found and taken > size:
                break
            found.append(record)
        return found

    def advance(self, count: int) -> None:
        """Forget so many records at the head: Kafka has them."""
        for _ in range(count):
            if not self._window and not self._read_one():
                raise IndexError("more records are forgotten than wait")
            _, self._head = self._window.popleft()
            self._waiting -= 1
        if not self._waiting:
            self._clear()
            return
        for number in [n for n in self._ends if n < self._head.segment]:
            self._path(number).unlink(missing_ok=True)
            del self._ends[number]
        self._keep_place()

    def sync(self) -> None:
        """Bring what was appended to the disk."""
        if (descriptor := self.unsynced()) is not None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def unsynced(self) -> int | None:
        """A descriptor of the file to be brought to the disk, for the caller to fsync and close; None if there is none.

        Taking it counts as done: what is appended from now on is unsynced again.
        """
        if not self._unsynced or self._tail is None:
            return None
        self._unsynced = False
        return os.dup(self._tail.fileno())

    def close(self) -> None:
        """Let go of the files; what waits stays on the disk."""
        with suppress(OSError):
            self.sync()
        self._close()

    # -- files

    def _open(self) -> None:
        """Find what an earlier process left."""
        with suppress(OSError, msgspec.MsgspecError):
            self._head = msgspec.json.decode(self._place.read_bytes(), type=_Place)
        numbers = sorted(int(path.stem) for path in self._folder.glob("*.spool") if path.stem.isdigit())
        for number in numbers:
            path = self._path(number)
            if number < self._head.segment:
                path.unlink(missing_ok=True)
                continue
            content = path.read_bytes()
            end, count = _measure(content, self._head.offset if number == self._head.segment else 0)
            if end < len(content):
                self.torn += 1
                _log.warning("the end of a spool segment was torn and is cut off", file=path.name, at=end)
                os.truncate(path, end)
            self._ends[number] = end
            self._waiting += count
        if self._ends and self._head.segment not in self._ends:
            self._head = _Place(min(self._ends), 0)
        if not self._waiting and self._ends:
            self._clear()

    def _tail_for(self, size: int) -> tuple[int, BinaryIO]:
        number = max(self._ends, default=self._head.segment)
        if self._ends.get(number, 0) and self._ends[number] + size > self._segment:
            if self._tail is not None:
                self.sync()
            self._close()
            number += 1
        if self._tail is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._tail = self._path(number).open("ab", buffering=0)
            self._ends.setdefault(number, 0)
        return number, self._tail

    def _read_one(self) -> bool:
        """Read the record behind the window into it; False if there is none."""
        place = self._next
        while place.offset >= self._ends.get(place.segment, 0):
            following = [number for number in self._ends if number > place.segment]
            if not following:
                return False
            place = _Place(min(following), 0)
        with self._path(place.segment).open("rb") as file:
            file.seek(place.offset)
            # A batch is read at once: the window holds what `peek` and `advance` need next.
            content = file.read(min(self._ends[place.segment] - place.offset, _READ))
            content += file.read(max(0, _HEAD.size + _HEAD.unpack_from(content)[0] - len(content)))
        offset = 0
        while (body := _body(content, offset)) is not None:
            offset += _HEAD.size + len(body)
            self._next = _Place(place.segment, place.offset + offset)
            self._window.append((_decode(body), self._next))
        return offset > 0 or self._skip_damage(place)

    def _skip_damage(self, place: _Place) -> bool:
        """The disk has lost what it had: leave the rest of that segment out, and count anew what is still there."""
        self.torn += 1
        _log.error("a spool segment is damaged; the rest of it is lost", segment=place.segment, at=place.offset)
        if self._tail is not None and place.segment == max(self._ends):
            self._close()
        os.truncate(self._path(place.segment), place.offset)
        self._ends[place.segment] = place.offset
        later = [number for number in self._ends if number > place.segment]
        self._waiting = len(self._window) + sum(_measure(self._path(n).read_bytes(), 0)[1] for n in later)
        return self._read_one()

    def _clear(self) -> None:
        """Everything has been sent: start over with a new segment, so that no old place can point into new bytes."""
        self._close()
        following = max(self._ends, default=self._head.segment) + 1
        self._head = self._next = _Place(following, 0)
        self._window.clear()
        self._keep_place()
        for number in self._ends:
            self._path(number).unlink(missing_ok=True)
        self._ends.clear()

    def _keep_place(self) -> None:
        temporary = self._place.with_suffix(".tmp")
        # A disk that is full does not take it: then a crash sends some records again, with the same identities.
        with suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(self._head))
            temporary.replace(self._place)

    def _close(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    @property
    def _place(self) -> Path:
        return self._folder / "head.json"

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010d}.spool"


def _body(content: bytes, offset: int) -> bytes | None:
    """The body of the frame at `offset`; None if there is no whole and right one."""
    if offset + _HEAD.size > len(content):
        return None
    length, checksum = _HEAD.unpack_from(content, offset)
    body = content[offset + _HEAD.size : offset + _HEAD.size + length]
    # A file that lost its bytes may be zeros, which would be an empty frame with the right checksum.
    return body if 0 < length == len(body) and zlib.crc32(body) == checksum else None


def _measure(content: bytes, start: int) -> tuple[int, int]:
    """Where the last whole frame of a segment ends, and how many there are from `start` on."""
    end, count = start, 0
    while (body := _body(content, end)) is not None:
        end += _HEAD.size + len(body)
        count += 1
    return end, count
