"""A journal, lived again: its frames through the same session code, with the same times, to the same records.

Pure: `Replay.feed` takes a frame and returns the records that it makes. The session is driven by what the journal
says happened: a received frame is received again, at its time; before a frame that was sent, the session's timers are
let run until it sends that frame itself. So requests, snapshots, entries and gaps have their first times and
identities. What the session sent for somebody else (a search, a diagnosis) it is asked to send again; its goodbye
after the hours is known by what it withdraws.

Not in a journal, and therefore not replayed: statuses, how a connection was cut (a gap's `cause` may have other words),
and the gap before the first connection, which an earlier process would have to remember.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from streams.events import Frame, Record, Status

from .conditions import Conditions
from .journal import CUT, Header
from .kiwoom import frames
from .kiwoom.errors import MASK
from .kiwoom.session import Action, MarketClock, Moment, Over, Send, Session
from .publisher import Publisher

_EARLY: Final = 0.005
"""Real seconds by which a timer may seem to be early: the journal's times and the session's come from two clocks."""

_LATE: Final = 0.01
"""Real seconds by which a timer may have been late: within them, a received frame is taken to have come first."""

_LATEST: Final = 1.0
"""Real seconds by which a timer may have been late that made the session send, as the journal's time shows."""


class Figures(msgspec.Struct):
    """What a replay has come to.

    `lost` frames are missing numbers, `skipped` ones came before a LOGIN was seen. `unlike` are requests that only the
    journal or only the replay has. That a goodbye has begun within the hours is in no frame: what would have been asked
    for meanwhile is among them.
    """

    connections: int = 0
    frames: int = 0
    records: int = 0
    lost: int = 0
    skipped: int = 0
    cut: int = 0
    unlike: int = 0


class Replay:
    """The replay of a journal, whose connections of several producers may be mixed.

    Args:
        header: how the session was set up.
        late: real seconds by which its timers may have been late.
    """

    def __init__(self, header: Header, *, late: float = _LATE) -> None:
        self.figures = Figures()
        self._header = header
        self._late = late
        self._producers: dict[str, _Producer] = {}

    def feed(self, frame: Frame) -> list[Record]:
        """The records that this frame makes, in their order."""
        name = frame.connection.rsplit("-", 2)[0]
        producer = self._producers.get(name)
        if producer is None:
            producer = _Producer(name, self._header, frame.at, self.figures, self._late)
            self._producers[name] = producer
        return self._told(producer.feed(frame))

    def finish(self) -> list[Record]:
        """The records that the end of the journal makes."""
        return self._told(record for producer in self._producers.values() for record in producer.finish())

    def _told(self, records: Iterable[Record]) -> list[Record]:
        told = [record for record in records if not isinstance(record, Status)]
        self.figures.records += len(told)
        return told


class _Producer:
    """One app key's connections, one after the other."""

    def __init__(self, name: str, header: Header, begun: datetime, figures: Figures, late: float) -> None:
        self._header = header
        self._begun = begun
        self._figures = figures
        self._late = late
        self._calendar = header.calendar
        self._conditions = Conditions(
            header.account,
            name,
            [c.name for c in header.conditions],
            begun,
            spans=self._spans,
        )
        self._session: Session | None = None
        self._connection = ""
        self._numbers: dict[str, int] = {}
        self._left_out = 0
        self._sent: deque[str] = deque()
        self._patient: frozenset[str] = frozenset()
        self._last = Moment(0.0, begun)

    def feed(self, frame: Frame) -> list[Record]:
        records: list[Record] = []
        if frame.connection != self._connection:
            records += self._connect(frame)
        lost = missing = frame.number - self._numbers.get(frame.direction, 0) - 1
        if frame.direction == "in":
            lost -= max(0, frame.left_out - self._left_out)
            self._left_out = max(frame.left_out, self._left_out)
        self._numbers[frame.direction] = frame.number
        self._figures.frames += 1
        self._figures.cut += frame.text.endswith(CUT)
        if self._session is None:
            self._figures.skipped += 1
            return records
        self._figures.lost += lost
        now = self._last = Moment(max(self._seconds(frame.at), self._last.t), frame.at)
        if frame.direction == "out":
            return records + self._sending(self._session, frame, now)
        self._session.passed_over(max(0, missing))
        return records + self._receiving(self._session, frame, now)

    def finish(self) -> list[Record]:
        if self._session is None:
            return []
        session, self._session = self._session, None
        return self._do(session.closed("the connection ended", self._last), self._last.at)

    # -- a connection

    def _connect(self, frame: Frame) -> list[Record]:
        records = self.finish()
        self._connection = frame.connection
        self._numbers.clear()
        self._left_out = 0
        self._sent.clear()
        # Without its beginning, nobody knows what was registered: such a connection is left out.
        if (frame.direction, frame.number) == ("out", 1):
            self._figures.connections += 1
            self._session = Session(
                self._header.conditions,
                token=MASK,
                stex_tp=self._header.stex_tp,
                timing=self._header.timing,
                patient=self._patient,
                trading=self._trading,
                market_clock=self._header.market_clock,
            )
            records += self._conditions.connecting(frame.connection, frame.at)
        return records

    def _sending(self, session: Session, frame: Frame, now: Moment) -> list[Record]:
        if frame.number == 1:
            records = self._do(session.opened(now), now.at)
            self._sent.clear()
            return records
        if isinstance(frames.decode(frame.text), frames.Ping):
            return []  # The echo comes with its PING.
        records = self._run(session, now, until=now.t + _EARLY, text=frame.text)
        if not self._has_sent(frame.text):
            records += self._do(self._decided(session, frame.text, now), now.at)
            records += self._run(session, now, until=now.t + 1.0, text=frame.text)
            if not self._has_sent(frame.text):
                self._figures.unlike += 1
        return records

    def _decided(self, session: Session, text: str, now: Moment) -> list[Action]:
        """Have a request sent that is none of the session's own: after the hours a goodbye, else somebody else's."""
        request = frames.request(text)
        if request.trnm == "CNSRCLR" and session.registered(request.seq) and (rest := self._calendar.rest(now.at)):
            return session.clear(now, "resting", rest.cause)
        return session.ask(text, now)

    def _receiving(self, session: Session, frame: Frame, now: Moment) -> list[Record]:
        records = self._run(session, now, until=now.t - self._late)
        # A replacement character stands for bytes that were no UTF-8, and a frame with such bytes is not read.
        raw = frame.text.encode().replace("\ufffd".encode(), b"\xff")
        records += self._do(session.received(raw, now), now.at)
        self._conditions.heard(now.at)
        return records

    def _run(self, session: Session, now: Moment, *, until: float, text: str | None = None) -> list[Record]:
        """Let the session's timers run up to a moment, or until it has sent a text."""
        records: list[Record] = []
        while not (text is not None and text in self._sent):
            due = session.deadline
            if due is None or due > until:
                break
            moment = Moment(due, self._begun + timedelta(seconds=due * self._header.speed))
            if text is not None and due > now.t - _LATEST and self._sends(session, moment):
                # What made the session send was as late as the journal has it. Anything else was in time: to do it
                # with the frame would put off what it is followed by, up to a request at another moment.
                moment = Moment(max(due, now.t), now.at)
            records += self._do(session.tick(moment), moment.at)
        return records

    def _sends(self, session: Session, now: Moment) -> bool:
        """Whether a tick at this moment would make the session send. A copy is asked, which shares our calendar."""
        return any(isinstance(action, Send) for action in copy.deepcopy(session, {id(self): self}).tick(now))

    def _has_sent(self, text: str) -> bool:
        """Whether the session has sent this text; what it sent before and the journal lacks is forgotten."""
        if text not in self._sent:
            return False
        while self._sent.popleft() != text:
            self._figures.unlike += 1
        return True

    def _do(self, actions: Iterable[Action], at: datetime) -> list[Record]:
        records: list[Record] = []
        for action in actions:
            match action:
                case Send(text=text):
                    if not isinstance(frames.decode(text), frames.Ping):
                        self._sent.append(text)
                case Over(condition=condition) if condition:
                    self._patient |= {condition}
                case MarketClock(state=state, at=said_at):
                    self._calendar = self._calendar.heard(state, said_at)
                case _:
                    pass
            records += self._conditions.apply(action, at)
        records += self._conditions.due(at)
        self._conditions.told()
        return records

    # The market's own clock changes the calendar while the session runs.

    def _spans(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        return self._calendar.spans(start, end)

    def _trading(self, at: datetime) -> bool:
        return self._calendar.trading(at)

    def _seconds(self, at: datetime) -> float:
        return (at - self._begun).total_seconds() / self._header.speed


async def paced(journal: Iterable[Frame], speed: float | None) -> AsyncIterator[Frame]:
    """The frames of a journal at `speed` times its pace (market seconds per second); None is as fast as it goes."""
    loop = asyncio.get_running_loop()
    first: tuple[float, datetime] | None = None
    for frame in journal:
        first = first or (loop.time(), frame.at)
        if speed is not None:
            due = first[0] + (frame.at - first[1]).total_seconds() / speed
            await asyncio.sleep(max(0.0, due - loop.time()))
        yield frame


async def publish(records: AsyncIterator[Record], bootstrap_servers: str) -> int:
    """Publish records to the broker; returns how many.

    Raises:
        HitstreamError: Kafka does not answer or has no topics.
    """
    publisher = Publisher(bootstrap_servers)
    await publisher.check()
    count = 0
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(publisher.run(), name="publisher")
        try:
            async for record in records:
                await publisher.room()
                publisher.offer(record)
                count += 1
            await publisher.flush()
        finally:
            sending.cancel()
    return count


async def replayed(journal: Iterable[Frame], replay: Replay, speed: float | None = None) -> AsyncIterator[Record]:
    """The records of a journal, at `speed` times its pace."""
    async for frame in paced(journal, speed):
        for record in replay.feed(frame):
            yield record
    for record in replay.finish():
        yield record
