"""Dead letters: reading them, and sending back what they hold.

`fold` and what stands above it are pure; below is Kafka. The command around it is `dead_letter_commands`.

A letter goes back to where it failed. What the streams could not take is *appended to its topic again*, untouched,
under the key of its content – so in the partition of everything else that is said of that condition or stock, but at
the end of the log: whatever was said since stands before it, and the rules for late and repeated records apply. What
ClickHouse refused is *handed to ClickHouse again* and not to the topic: everybody else has taken it, and on a compacted
topic an old record at the end would be the one that is kept.

The one idea: **say it, do it, say it is done.** `dead-letters` has one partition, so what stands there has one order.
Before a record is sent back a `Redrive` is appended, after it has arrived another one. Of two runs at the same time the
one whose first word stands first goes on. A run that was killed leaves a first word without a second; the next one
looks behind the place that it names for a record with the letter's header, and sends only what is not there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, Final, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from streams import clients, topics
from streams.events import (
    REDRIVE_HEADER,
    DeadLetter,
    HitstreamError,
    Record,
    Redrive,
    condition_key,
    encode,
    identity,
    trading_date,
)
from streams.lane import Unreadable, decode

_SECONDS: Final = 15.0  # for Kafka to answer, each time
_decoder: Final = msgspec.json.Decoder(DeadLetter | Redrive)
_records: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    topic.name: msgspec.json.Decoder(reduce(or_, topic.records)) for topic in topics.ALL if topic.records
}

State = Literal["waiting", "unfinished", "redriven", "failed-again"]


class Entry(msgspec.Struct, frozen=True):
    """A dead letter and what became of it.

    `waiting`: nobody sent it back. `unfinished`: somebody began to; whether it has arrived is to be looked up.
    `redriven`: it is back. `failed-again`: it is back and has become the dead letters `again`.
    """

    letter: DeadLetter
    state: State = "waiting"
    redrives: tuple[Redrive, ...] = ()
    again: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it is still to be dealt with."""
        return self.state in ("waiting", "unfinished")


class Verdict(msgspec.Struct, frozen=True):
    """What reading the bytes of a letter comes to now: a record and the key of its content, or why not."""

    record: Record | None = None
    key: bytes | None = None
    reason: str = ""


class NoSuchLetter(HitstreamError):
    """No dead letter has this id, or several begin with it."""


class KafkaAway(HitstreamError):
    """Kafka does not answer."""


def fold(log: Iterable[DeadLetter | Redrive]) -> list[Entry]:
    """Every dead letter once, in the order in which they were written, and what became of each."""
    letters: dict[str, DeadLetter] = {}
    redrives: dict[str, dict[str, Redrive]] = {}
    again: dict[str, list[str]] = {}
    for record in log:
        if isinstance(record, Redrive):
            held = redrives.setdefault(record.letter_id, {})
            if record.done or record.id not in held:
                held[record.id] = record
        elif record.id not in letters:
            letters[record.id] = record
            if record.redriven:
                again.setdefault(record.redriven, []).append(record.id)
    entries = []
    for letter in letters.values():
        said = tuple(redrives.get(letter.id, {}).values())
        # The same component's: another one may fail on what this one takes.
        back = tuple(i for i in again.get(letter.id, ()) if letters[i].component == letter.component)
        state: State = "waiting"
        if back:
            state = "failed-again"
        elif any(redrive.done for redrive in said):
            state = "redriven"
        elif said:
            state = "unfinished"
        entries.append(Entry(letter, state, said, back))
    return entries


def find(entries: Sequence[Entry], id_: str) -> Entry:
    """The letter whose id is, or alone begins with, `id_`.

    Raises:
        NoSuchLetter: there is none, or several.
    """
    found = [entry for entry in entries if entry.letter.id.startswith(id_)] if id_ else []
    if len(found) > 1:
        raise NoSuchLetter(f"{len(found)} dead letters have an id that begins with {id_}: give more of it.")
    if not found:
        raise NoSuchLetter(f"There is no dead letter {id_}; `hitstream dead-letters` lists those that there are.")
    return found[0]


def chosen(
    entries: Iterable[Entry],
    *,
    topic: str = "",
    component: str = "",
    reason: str = "",
    since: datetime | None = None,
) -> list[Entry]:
    """The letters of a source topic (also without its prefix), a component, a class or text of reason, since a time."""
    name = topic if topic.startswith(topics.PREFIX) or not topic else topics.PREFIX + topic
    return [
        entry
        for entry in entries
        if (not name or entry.letter.topic == name)
        and (not component or entry.letter.component == component)
        and (not reason or reason == entry.letter.cause or reason.casefold() in entry.letter.reason.casefold())
        and (since is None or entry.letter.at >= since)
    ]


def judge(topic: str, value: bytes | None) -> Verdict:
    """Read the bytes of a letter as the program reads them now."""
    if topic not in _records:
        return Verdict(reason=f"{topic} is no topic of this program")
    try:
        record: Record = decode(_records[topic], value)
    except Unreadable as error:
        return Verdict(reason=str(error)[:300])
    return Verdict(record, _key(topic, record))


def _key(topic: str, record: Any) -> bytes:
    """The key that a record must have on a topic, as `streams.topics` says it."""
    if topic == topics.CONDITION_EVENTS.name:
        return condition_key(record.account, record.condition)
    for name in ("code", "component", "connection"):
        if hasattr(record, name):
            return str(getattr(record, name)).encode()
    return b""


def is_of_the_past(record: Record | None, now: datetime) -> bool:
    """Whether the streams will call a record late whatever it says: its trading date is over."""
    at = getattr(record, "at", None)
    return isinstance(at, datetime) and trading_date(at) < trading_date(now)


# --- Kafka ------------------------------------------------------------------------------------------------------------


class Sent(msgspec.Struct, frozen=True):
    """What came of one letter: `sent`, `arrived` (an earlier run had sent it), `left` (to another run) or `failed`."""

    letter_id: str
    outcome: Literal["sent", "arrived", "left", "failed"]
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    reason: str = ""


class _Parcel(NamedTuple):
    """A letter on its way: the first word about it, and what is sent."""

    entry: Entry
    key: bytes | None
    value: bytes
    redrive: Redrive


class Post:
    """A connection to Kafka for reading letters and sending back what they hold."""

    def __init__(self, bootstrap_servers: str, consumer: AIOKafkaConsumer, there: set[str]) -> None:
        self._servers = bootstrap_servers
        self._consumer = consumer
        self._topics = there
        self._end = 0  # of dead-letters, as far as it was read

    async def read(self) -> list[Entry]:
        """Every dead letter that is kept."""
        log: list[DeadLetter | Redrive] = []
        async for record in self._read(TopicPartition(topics.DEAD_LETTERS.name, 0), 0):
            self._end = record.offset + 1
            if (said := _letter(record)) is not None:
                log.append(said)
        return fold(log)

    async def value(self, letter: DeadLetter) -> bytes | None:
        """The untouched bytes of a letter, from their place where the letter had no room for them; None: none there."""
        if not letter.omitted:
            return letter.value
        tp = TopicPartition(letter.topic, letter.partition)
        async for record in self._read(tp, letter.offset, letter.offset + 1):
            if record.offset == letter.offset and len(record.value or b"") == letter.omitted:
                return bytes(record.value)
        return None

    async def redrive(self, entries: Sequence[Entry], now: datetime) -> list[Sent]:
        """Append what letters of the streams hold to their topics again, oldest place first.

        Raises:
            KafkaAway: it stopped answering. What was sent is known to the next run.
        """
        ordered = sorted(entries, key=lambda e: (e.letter.topic, e.letter.partition, e.letter.offset))
        sent: list[Sent] = []
        async with self._producing() as producer:
            parcels: list[_Parcel] = []
            for entry in ordered:
                value = await self.value(entry.letter)
                if value is None:
                    omitted = entry.letter.omitted
                    why = "its bytes are no longer at their place" if omitted else "it is empty: nothing to send"
                    sent.append(Sent(entry.letter.id, "failed", entry.letter.topic, reason=why))
                else:
                    parcels.append(await self._address(producer, entry, value, now))
            await self._say(producer, [parcel.redrive for parcel in parcels])
            ours = await self._ours(parcels)
            for parcel in parcels:
                redrive = parcel.redrive
                if redrive.letter_id not in ours:
                    sent.append(Sent(redrive.letter_id, "left", redrive.topic, reason="another run is sending it back"))
                    continue
                place = await self._arrived(parcel.entry)
                outcome: Literal["sent", "arrived"] = "arrived" if place else "sent"
                if place is None:
                    place = await self._send(producer, parcel)
                done = msgspec.structs.replace(redrive, partition=place[0], offset=place[1], done=True)
                await self._say(producer, [done])
                sent.append(Sent(redrive.letter_id, outcome, redrive.topic, *place))
        return sent

    async def mark(self, letters: Iterable[DeadLetter], now: datetime) -> None:
        """Say of letters that the store which had refused them has taken them."""
        async with self._producing() as producer:
            await self._say(
                producer,
                [
                    Redrive(
                        id=identity("redrive", letter.id, secrets.token_hex(8)),
                        letter_id=letter.id,
                        topic=letter.topic,
                        done=True,
                        at=now,
                    )
                    for letter in letters
                ],
            )

    async def _arrived(self, entry: Entry) -> tuple[int, int] | None:
        """Where an earlier run, which did not come to say so, has sent a letter."""
        for redrive in entry.redrives:
            if redrive.done:
                continue
            async for record in self._read(TopicPartition(redrive.topic, redrive.partition), redrive.after):
                if (REDRIVE_HEADER, entry.letter.id.encode()) in record.headers:
                    return redrive.partition, record.offset
        return None

    async def _ours(self, parcels: Iterable[_Parcel]) -> set[str]:
        """The letters of which our first word stands before that of any other run of this moment."""
        firsts: dict[str, str] = {}
        async for record in self._read(TopicPartition(topics.DEAD_LETTERS.name, 0), self._end):
            said = _letter(record)
            if isinstance(said, Redrive):
                firsts.setdefault(said.letter_id, said.id)
        return {p.redrive.letter_id for p in parcels if firsts.get(p.redrive.letter_id) == p.redrive.id}

    async def _address(self, producer: AIOKafkaProducer, entry: Entry, value: bytes, now: datetime) -> _Parcel:
        """Where a letter goes: to the partition of the key of its content; without one, to where it stood."""
        letter = entry.letter
        if letter.topic not in self._topics:
            raise HitstreamError(f"Kafka at {self._servers} has no topic {letter.topic}: run `hitstream topics`.")
        key, partition = judge(letter.topic, value).key, letter.partition
        if key is None:
            key = letter.key
        async with asyncio.timeout(_SECONDS):
            if key is not None:
                partitions = sorted(await producer.partitions_for(letter.topic))
                partition = DefaultPartitioner()(key, partitions, partitions)
            tp = TopicPartition(letter.topic, partition)
            after = (await self._consumer.end_offsets([tp]))[tp]
        return _Parcel(
            entry,
            key,
            value,
            Redrive(
                id=identity("redrive", letter.id, secrets.token_hex(8)),
                letter_id=letter.id,
                topic=letter.topic,
                partition=partition,
                after=after,
                done=False,
                at=now,
            ),
        )

    async def _read(self, tp: TopicPartition, start: int, end: int | None = None) -> AsyncIterator[ConsumerRecord]:
        """The records of a partition from an offset on, until its end of now (or `end`)."""
        consumer = self._consumer
        consumer.assign([tp])
        async with asyncio.timeout(_SECONDS):
            first = (await consumer.beginning_offsets([tp]))[tp]
            last = (await consumer.end_offsets([tp]))[tp]
        stop = last if end is None else min(end, last)
        consumer.seek(tp, max(first, start))
        position = max(first, start)
        while position < stop:
            async with asyncio.timeout(_SECONDS):
                batches = await consumer.getmany(tp, timeout_ms=500)
                position = await consumer.position(tp)
            for record in batches.get(tp, ()):
                if record.offset < stop:
                    yield record

    async def _send(self, producer: AIOKafkaProducer, parcel: _Parcel) -> tuple[int, int]:
        redrive = parcel.redrive
        async with asyncio.timeout(_SECONDS):
            placed = await producer.send_and_wait(
                redrive.topic,
                parcel.value,
                parcel.key,
                partition=redrive.partition,
                headers=[(REDRIVE_HEADER, redrive.letter_id.encode())],
            )
        return placed.partition, placed.offset

    async def _say(self, producer: AIOKafkaProducer, redrives: Sequence[Redrive]) -> None:
        """Append words to dead-letters, in order, and wait until Kafka has them."""
        async with asyncio.timeout(_SECONDS):
            waiting = [
                await producer.send(topics.DEAD_LETTERS.name, encode(redrive), redrive.topic.encode())
                for redrive in redrives
            ]
            await asyncio.gather(*waiting)

    @asynccontextmanager
    async def _producing(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=10_000,
            max_request_size=int(topics.DEAD_LETTERS.settings["max.message.bytes"]),
        )
        try:
            async with asyncio.timeout(_SECONDS):
                await producer.start()
            yield producer
        finally:
            await clients.stop(producer)


@asynccontextmanager
async def post(bootstrap_servers: str) -> AsyncIterator[Post]:
    """A connection to Kafka.

    Raises:
        KafkaAway: it does not answer, or stops answering.
        HitstreamError: it has no topic for dead letters.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        request_timeout_ms=10_000,
        fetch_max_wait_ms=50,  # what one partition has no more of must not keep the next one waiting
    )
    try:
        try:
            async with asyncio.timeout(_SECONDS):
                await consumer.start()
                there = set(await consumer.topics())
            if topics.DEAD_LETTERS.name not in there:
                raise HitstreamError(
                    f"Kafka at {bootstrap_servers} has no topic {topics.DEAD_LETTERS.name}: run `hitstream topics`."
                )
            yield Post(bootstrap_servers, consumer, there)
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(
                f"Kafka does not answer at {bootstrap_servers}: start it, or correct kafka.bootstrap_servers."
            ) from error
    finally:
        await clients.stop(consumer)


def _letter(record: ConsumerRecord) -> DeadLetter | Redrive | None:
    """What stands on dead-letters; None for what is neither, which only a stranger can have written."""
    try:
        said: DeadLetter | Redrive = _decoder.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return said
