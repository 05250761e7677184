"""A recorded day, served as a market: whoever subscribes to it hears what was heard."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Any

import pytest

from deploy.local.kiwoom.protocol import Close, Output, Send
from deploy.local.kiwoom.recorded import PATIENCE, PING_EVERY, RecordedSession, Tape
from streams.events import KST, ConditionEvent, ConditionSnapshot, Frame, Record, event_id

from .days import LOGIN, run
from .virtual import Kiwoom, Loop, Producer, Wire

MONDAY = date(2026, 3, 9)
GOODBYE = datetime.combine(MONDAY, time(9, 39, 55), KST)
BEGIN = datetime.combine(MONDAY, LOGIN, KST)


class Recorded(Kiwoom):
    """A market that plays a tape."""

    def __init__(self, loop: Loop, tape: Tape) -> None:
        super().__init__(loop, seed=1, activity=0.0)
        self._tape = tape

    def open(self, client: Producer) -> Wire:
        served: Any = RecordedSession("1", now=self.loop.t, tape=self._tape, app_key="key")
        wire = Wire(self, served, client)
        self.wires.append(wire)
        wire.keep_time()
        return wire


def hits(records: Iterable[Record]) -> list[str]:
    """Identities of what was heard, without what is said once more to confirm it, up to the goodbye."""
    records = [r for r in records if not isinstance(r, ConditionEvent) or r.at < GOODBYE]
    return list(dict.fromkeys(_identity(record) for record in records if isinstance(record, ConditionEvent)))


def _identity(event: ConditionEvent) -> str:
    return event_id(event.account, event.condition, event.code, event.action, event.at, event.ordinal)


def recorded(*faults: str, until: time = time(9, 40)) -> tuple[list[Frame], list[Record]]:
    frames: list[Frame] = []
    records: list[Record] = []
    report = run(
        first=MONDAY,
        until=until,
        seed=4,
        faults=bool(faults),
        only=set(faults),
        on_frame=frames.append,
        on_record=records.append,
    )
    assert report.wrong == []
    return frames, records


def played(tape: Tape, seconds: float) -> list[Record]:
    loop = Loop(BEGIN, 9)
    records: list[Record] = []
    Producer(loop, Recorded(loop, tape), on_record=records.append).start()
    loop.run(seconds)
    return records


def test_a_quiet_recording_gives_the_same_hits_and_snapshots() -> None:
    frames, before = recorded()
    after = played(Tape(frames), 3_600)
    assert len(hits(before)) > 200
    assert hits(after) == hits(before)
    assert codes(after)[:8] == codes(before)


def codes(records: Iterable[Record]) -> list[tuple[str, tuple[str, ...]]]:
    return [(r.condition, r.codes) for r in records if isinstance(r, ConditionSnapshot)]


def test_a_bad_day_is_lived_again() -> None:
    frames, before = recorded(
        "garbage-frames", "null-real", "system-notice", "mixed-frames", "odd-entries", "duplicate-real"
    )
    after = played(Tape(frames), 4_000)
    assert hits(after) == hits(before)


def test_at_a_higher_pace_nothing_is_missed() -> None:
    frames, before = recorded()
    after = played(Tape(frames, speed=30.0), 600)
    assert hits(after) == hits(before)


# --- frame by frame


def frame(number: int, direction: Any, at: float, connection: str = "p-1-a", **content: Any) -> Frame:
    return Frame(
        connection=connection,
        number=number,
        direction=direction,
        at=datetime.fromtimestamp(at, KST),
        text=json.dumps(content),
    )


LOGGED_IN = {"trnm": "LOGIN", "return_code": 0}
LISTED = {"trnm": "CNSRLST", "return_code": 0, "data": [["4", "돌파"]]}
REPLY = {"trnm": "CNSRREQ", "seq": "4", "return_code": 0, "data": None}
REAL = {"trnm": "REAL", "data": None}
ASK = {"trnm": "CNSRREQ", "seq": "4", "search_type": "1", "stex_tp": "K"}
DAY = [
    frame(1, "out", 0, trnm="LOGIN", token="***"),
    frame(1, "in", 0.1, **LOGGED_IN),
    frame(2, "out", 2, trnm="CNSRLST"),
    frame(2, "in", 2.5, **LISTED),
    frame(3, "out", 3, **ASK),
    frame(3, "in", 4, **REPLY),
    frame(4, "out", 10, trnm="PING"),
    frame(4, "in", 10, trnm="PING"),
    frame(5, "in", 20, **REAL),
]


class Talk:
    def __init__(self, frames: list[Frame], speed: float = 1.0) -> None:
        self.tape = Tape(frames, speed)
        self.now = 100.0
        self.session = RecordedSession("1", now=self.now, tape=self.tape, app_key="key")

    def say(self, **content: Any) -> list[Any]:
        return self.read(self.session.receive(json.dumps(content), self.now))

    def until(self, now: float) -> list[tuple[float, Any]]:
        told = []
        while not self.session.closed and self.session.due <= now:
            self.now = max(self.now, self.session.due)
            told += [(round(self.now, 3), output) for output in self.read(self.session.tick(self.now))]
        self.now = now
        return told

    @staticmethod
    def read(outputs: list[Output]) -> list[Any]:
        return [json.loads(output.text) if isinstance(output, Send) else output for output in outputs]


def test_a_reply_comes_after_its_request_as_late_as_it_did() -> None:
    talk = Talk(DAY)
    assert talk.until(105) == []
    assert talk.say(trnm="LOGIN", token="any")[0].app_key == "key"
    assert talk.until(110) == [(105.1, LOGGED_IN)]
    assert talk.say(trnm="CNSRLST") == []
    assert talk.until(111) == [(110.5, LISTED)]
    assert talk.say(**ASK) == []
    assert talk.until(130) == [(112.0, REPLY), (118.0, {"trnm": "PING"}), (128.0, REAL)]


def test_the_pace_can_be_changed() -> None:
    talk = Talk(DAY, speed=10.0)
    for request in ({"trnm": "LOGIN", "token": "any"}, {"trnm": "CNSRLST"}, ASK):
        talk.say(**request)
    assert [round(at - 100, 2) for at, _ in talk.until(104)] == [0.01, 0.06, 0.16, 0.76, 1.76]


def test_a_request_that_is_never_made_is_not_waited_for_for_ever() -> None:
    talk = Talk(DAY)
    talk.say(trnm="LOGIN", token="any")
    told = talk.until(100 + 3 * PATIENCE)
    assert [content["trnm"] for _, content in told][:5] == ["LOGIN", "CNSRLST", "CNSRREQ", "PING", "REAL"]
    assert talk.session.state()["ignored"] == {
        "CNSRLST of the journal was never asked": 1,
        "CNSRREQ 4 1 of the journal was never asked": 1,
    }


def test_silence_is_silence_and_what_the_journal_holds_elsewhere_answers_the_rest() -> None:
    silent = [frame for frame in DAY if frame.text != json.dumps(REPLY)]
    again = [frame(n.number, n.direction, n.at.timestamp() + 60, "p-2-b", **json.loads(n.text)) for n in DAY]
    talk = Talk([*silent, *again])
    for request in ({"trnm": "LOGIN", "token": "any"}, {"trnm": "CNSRLST"}):
        talk.say(**request)
    assert talk.say(**ASK) == []
    talk.until(103)
    assert talk.say(**ASK) == [REPLY]
    assert talk.say(**{**ASK, "seq": "9"}) == []


def test_a_connection_ends_when_the_next_one_began() -> None:
    again = [frame(1, "out", 60, "p-2-b", trnm="LOGIN", token="***")]
    talk = Talk([*DAY, *again])
    for request in ({"trnm": "LOGIN", "token": "any"}, {"trnm": "CNSRLST"}, ASK):
        talk.say(**request)
    assert talk.until(200)[-1][1] == Close(None, "")
    assert talk.session.closed


def test_after_the_last_frame_there_are_only_pings() -> None:
    talk = Talk(DAY[:2])
    talk.say(trnm="LOGIN", token="any")
    assert [content["trnm"] for _, content in talk.until(100 + 3.5 * PING_EVERY)][1:] == ["PING"] * 3
    assert not talk.session.closed


@pytest.mark.parametrize("frames", [[], DAY[3:]])
def test_a_journal_without_a_beginning_has_nothing_to_play(frames: list[Frame]) -> None:
    assert Tape(frames).begins is None
