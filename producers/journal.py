"""The journal: every raw frame as received and sent, kept in a file that can be read as far as it was written.

The running producer puts its frames on the `frames` topic (`kiwoom.journal`), masked and numbered per connection and
direction, so that a missing number is a lost frame. `record` copies them from there into a file: JSON lines, the first
of which says how the session was set up, compressed with zstd and flushed block by block – what a crash tears off is
the last second, never the file. What a file is good for is `replay`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec
import structlog
import zstandard
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams import clients, topics
from streams.events import ConfigError, Frame, HitstreamError, encode

from .calendar import Calendar, calendar_of
from .kiwoom.session import Timing, Wanted
from .settings import ConditionSource, KiwoomSettings

_log = structlog.get_logger(__name__)

LONGEST: Final = 120_000
"""Characters of a frame that the journal keeps: with every one of them escaped, still less than Kafka's 1 MiB."""

CUT: Final = "…[cut]"
_FLUSH_EVERY: Final = 1.0
_POLL_MS: Final = 300
_CHUNK: Final = 1 << 16
_VERSION: Final = 1


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="journal"):
    """The first line of a file: what a replay has to know beside the frames.

    `speed` is that of the market clock, in market seconds per real second: the frames have market times, and the
    session's waits are real.
    """

    version: int = _VERSION
    account: str = "main"
    conditions: tuple[Wanted, ...] = ()
    stex_tp: Literal["K", "N", "A", ""] = "K"
    timing: Timing = Timing()
    market_clock: bool = False
    calendar: Calendar = Calendar()
    speed: float = 1.0


class JournalError(HitstreamError):
    """A journal that cannot be read or written; the sentence names the file."""


def header(
    kiwoom: KiwoomSettings, conditions: Sequence[ConditionSource], speed: float, timing: Timing | None = None
) -> Header:
    """The header that belongs to the settings in force; `timing` is that of the settings unless given."""
    return Header(
        account=kiwoom.account,
        conditions=tuple(Wanted(c.name, c.seq) for c in conditions),
        stex_tp=kiwoom.stex_tp,
        timing=timing
        or Timing(login_pause=kiwoom.login_pause, send_spacing=kiwoom.send_spacing, audit_after=kiwoom.audit_after),
        calendar=calendar_of(kiwoom),
        speed=speed,
    )


def clipped(frame: Frame) -> Frame:
    """A frame short enough for Kafka. Only garbage is longer, and of garbage the beginning is enough."""
    if len(frame.text) <= LONGEST:
        return frame
    return msgspec.structs.replace(frame, text=frame.text[:LONGEST] + CUT)


# --- files ------------------------------------------------------------------------------------------------------------


class Writer:
    """A journal file that is being written; use it as a context.

    Raises:
        ConfigError: the file exists already, or its folder does not.
    """

    def __init__(self, path: Path, first: Header) -> None:
        try:
            # Frames are masked, but they are an account's conversation with its broker.
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except FileExistsError:
            raise ConfigError(f"{path} exists already: name another file, a journal is never written over") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
        self._path = path
        self._zstd = zstandard.ZstdCompressor(level=3).stream_writer(self._file, closefd=False)
        self._flushed = time.monotonic()
        self._zstd.write(msgspec.json.encode(first) + b"\n")
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, frame: Frame) -> None:
        """Append a frame; it is in the file after the next `flush`.

        Raises:
            JournalError: the disk takes no more.
        """
        try:
            self._zstd.write(encode(frame) + b"\n")
        except OSError as error:
            raise JournalError(f"{self._path} cannot be written on: {error.strerror}") from None
        if time.monotonic() - self._flushed >= _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Let a reader see everything that was written so far."""
        self._flushed = time.monotonic()
        try:
            self._zstd.flush(zstandard.FLUSH_BLOCK)
            self._file.flush()
        except OSError as error:
            raise JournalError(f"{self._path} cannot be written on: {error.strerror}") from None

    def discard(self) -> None:
        """Take the file away: nothing that is worth keeping has come."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the file."""
        with contextlib.closing(self._file), contextlib.suppress(OSError):
            self._zstd.flush(zstandard.FLUSH_FRAME)


class Journal:
    """A journal file that is being read: its `header`, then its frames by iterating, each numbered frame once.

    A file whose end is torn is read up to the tear; `torn` says so afterwards. Lines that are no frames are left out
    and counted in `unreadable`.

    Raises:
        JournalError: it is not there, or no journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn = False
        self.unreadable = 0
        self.header = self._read_header()

    def __iter__(self) -> Iterator[Frame]:
        self.torn, self.unreadable = False, 0
        newest: dict[tuple[str, str], int] = {}
        decoder = msgspec.json.Decoder(Frame)
        lines = self._lines()
        next(lines, None)
        for line in lines:
            try:
                frame = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.unreadable += 1
                continue
            # What was sent to Kafka twice is in the log twice.
            key = frame.connection, frame.direction
            if frame.number > newest.get(key, 0):
                newest[key] = frame.number
                yield frame

    def _read_header(self) -> Header:
        line = next(self._lines(), b"")
        try:
            found = msgspec.json.decode(line, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise JournalError(f"{self._path} is no journal: `hitstream journal FILE` writes one") from None
        if found.version > _VERSION:
            raise JournalError(f"{self._path} was written by a newer version of Hitstream: read it with that one")
        return found

    def _lines(self) -> Iterator[bytes]:
        """The whole lines of the file; what follows the last of them is torn."""
        rest = b""
        try:
            for chunk in self._chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except OSError as error:
            raise JournalError(f"{self._path} cannot be read: {error.strerror}") from None
        self.torn = self.torn or bool(rest)

    def _chunks(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().decompressobj()
            while not stream.eof and (compressed := file.read(_CHUNK)):
                try:
                    chunk = stream.decompress(compressed)
                except zstandard.ZstdError:
                    break
                yield chunk
            self.torn = not stream.eof


# --- from Kafka -------------------------------------------------------------------------------------------------------


async def record(
    *,
    path: Path,
    first: Header,
    bootstrap_servers: str,
    follow: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> int:
    """Copy frames from the `frames` topic into a new file.

    Args:
        first: the file's header.
        follow: go on with what is still to come, until cancelled; else stop at what was there at the beginning.
        since, until: only frames of that span of market time (`since` ≤ at < `until`); `until` ends a `follow`.
        report: is told the number of frames, now and then.

    Returns:
        the number of frames.

    Raises:
        ConfigError: the file exists already.
        JournalError: Kafka does not answer, or the disk is full. Where no frame had come, no file is left, so that the
            same name can be given again.
    """
    count = 0
    with Writer(path, first) as writer:
        try:
            async for frame in frames(bootstrap_servers, follow=follow, idle=writer.flush):
                if until is not None and frame.at >= until:
                    if follow:
                        break
                    continue
                if since is not None and frame.at < since:
                    continue
                writer.write(frame)
                count += 1
                if count % 1000 == 0:
                    report(count)
        except JournalError:
            if not count:
                writer.discard()
            raise
    return count


async def frames(
    bootstrap_servers: str, *, follow: bool = False, idle: Callable[[], None] = lambda: None
) -> AsyncIterator[Frame]:
    """The frames of the topic, oldest first; `idle` is called while there is nothing new.

    Raises:
        JournalError: Kafka does not answer, or has no such topic.
    """
    # A consumer without a group: nobody else's place in the log is touched.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    decoder = msgspec.json.Decoder(Frame)
    try:
        await consumer.start()
        if topics.FRAMES.name not in await consumer.topics():
            raise JournalError(f"Kafka has no topic {topics.FRAMES.name}: run `hitstream topics` first")
        places = [TopicPartition(topics.FRAMES.name, number) for number in range(topics.FRAMES.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while follow or any([await consumer.position(place) < ends[place] for place in places]):
            batch = await consumer.getmany(timeout_ms=_POLL_MS)
            for place, messages in batch.items():
                for message in messages:
                    if not follow and message.offset >= ends[place]:
                        break
                    try:
                        yield decoder.decode(message.value or b"")
                    except msgspec.MsgspecError as error:
                        _log.warning("not a frame", offset=message.offset, error=str(error))
            if not batch:
                idle()
            await asyncio.sleep(0)
    except (KafkaConnectionError, OSError):
        raise JournalError(
            f"Kafka does not answer at {bootstrap_servers}: start it, or correct kafka.bootstrap_servers"
        ) from None
    except KafkaError as error:
        raise JournalError(
            f"Kafka at {bootstrap_servers} does not hand out the frames ({type(error).__name__}): see its log, then try"
            " again"
        ) from None
    finally:
        await clients.stop(consumer)
