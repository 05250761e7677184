"""A replay does what was done, also where no frame says so: a timer that only set another one, a goodbye."""

from __future__ import annotations

import json
from datetime import datetime, time, timedelta
from heapq import heappop, heappush
from typing import Any, Literal

import pytest

from producers.calendar import Calendar
from producers.conditions import Conditions
from producers.journal import Header
from producers.kiwoom.session import Action, Moment, Send, Session, Traced, Wanted
from producers.replay import Replay
from streams.events import KST, ConditionSnapshot, Frame, Gap, Record, Status

NAME, CONNECTION = "돌파", "p-1-a"
BEGIN = datetime(2026, 3, 9, 8, 49, 30, tzinfo=KST)
SECONDS = 700
"""Until after the first audit: the market opens after 630 s."""


class Live:
    """A session whose condition goes deaf, with a market that answers its requests and a shell that may be late.

    The list of conditions comes so slowly that it is asked for again half a second after an audit is due.
    """

    def __init__(self, late: float) -> None:
        calendar = Calendar()
        self.frames: list[Frame] = []
        self.records: list[Record] = []
        self._late = late
        self._t = 0.0
        self._coming: list[tuple[float, str]] = []
        self._conditions = Conditions("main", "p", [NAME], BEGIN, spans=calendar.spans)
        self._told(self._conditions.connecting(CONNECTION, BEGIN))
        self._session = Session([Wanted(NAME)], token="secret", trading=calendar.trading)
        for beat in range(5, SECONDS, 10):
            self._say(beat, trnm="PING")
        self._do(self._session.opened(self._now))
        while self._t < SECONDS:
            due = (self._session.deadline or SECONDS) + self._late
            if self._coming and self._coming[0][0] <= due:
                self._t, text = heappop(self._coming)
                self._do(self._session.received(text, self._now))
                self._conditions.heard(self._now.at)
            else:
                self._t = due
                self._do(self._session.tick(self._now))
        self._do(self._session.closed("the end", self._now))

    @property
    def _now(self) -> Moment:
        return Moment(self._t, BEGIN + timedelta(seconds=self._t))

    def _say(self, t: float, **frame: Any) -> None:
        heappush(self._coming, (t, json.dumps(frame)))

    def _do(self, actions: list[Action]) -> None:
        at = self._now.at
        for action in actions:
            if isinstance(action, Send):
                self._answer(json.loads(action.text))
            elif isinstance(action, Traced):
                self.frames.append(
                    Frame(
                        connection=CONNECTION,
                        number=action.number,
                        direction=action.direction,
                        at=action.at,
                        text=action.text,
                    )
                )
            self._told(self._conditions.apply(action, at))
        self._told(self._conditions.due(at))
        self._conditions.told()

    def _told(self, records: list[Record]) -> None:
        self.records += [record for record in records if not isinstance(record, Status)]

    def _answer(self, request: dict[str, Any]) -> None:
        match request:
            case {"trnm": "CNSRLST"}:
                self._say(self._t + 0.6, trnm="CNSRLST", return_code=0, data=[["4", NAME]])
            case {"trnm": "CNSRREQ", "search_type": "0"}:
                found = {"cont_yn": "N", "next_key": "", "data": [{"9001": "A005930"}]}
                self._say(self._t + 0.1, trnm="CNSRREQ", seq="4", return_code=0, **found)
            case {"trnm": "CNSRREQ"}:
                self._say(self._t + 0.1, trnm="CNSRREQ", seq="4", return_code=0, data=None)
            case {"trnm": "LOGIN" | "CNSRCLR" as trnm}:
                self._say(self._t + 0.1, trnm=trnm, return_code=0)


@pytest.mark.parametrize("late", [0.0, 0.05])
def test_what_was_due_before_a_request_is_not_done_with_it(late: float) -> None:
    """An audit that the closed market puts off by a minute counts that minute from when it was due."""
    live = Live(late)
    asked = [frame.at for frame in live.frames if frame.direction == "out" and '"search_type":"0"' in frame.text]
    assert len(asked) == 2
    assert (asked[0] - BEGIN).total_seconds() == pytest.approx(662.3 + 12 * late, abs=0.5)
    assert [type(record) for record in live.records] == [ConditionSnapshot, Gap, ConditionSnapshot]

    replay = Replay(Header(conditions=(Wanted(NAME),)))
    replayed = [record for frame in live.frames for record in replay.feed(frame)] + replay.finish()
    assert replayed == live.records
    assert (replay.figures.lost, replay.figures.skipped, replay.figures.unlike) == (0, 0, 0)


def day(begins: datetime, goodbye: datetime | None = None) -> list[Frame]:
    """A connection of half a minute, which ends by a goodbye or is cut."""
    said: list[tuple[float, Literal["in", "out"], dict[str, Any]]] = [
        (0.0, "out", {"trnm": "LOGIN", "token": "***"}),
        (0.1, "in", {"trnm": "LOGIN", "return_code": 0}),
        (1.6, "out", {"trnm": "CNSRLST"}),
        (1.7, "in", {"trnm": "CNSRLST", "return_code": 0, "data": [["4", NAME]]}),
        (1.95, "out", {"trnm": "CNSRREQ", "seq": "4", "search_type": "1", "stex_tp": "K"}),
        (2.0, "in", {"trnm": "CNSRREQ", "seq": "4", "return_code": 0, "data": None}),
    ]
    if goodbye is not None:
        ends = (goodbye - begins).total_seconds()
        said += [
            (ends, "out", {"trnm": "CNSRCLR", "seq": "4"}),
            (ends + 0.1, "in", {"trnm": "CNSRCLR", "seq": "4", "return_code": 0}),
        ]
    return [
        Frame(
            connection=f"p-{begins:%Y%m%dT%H%M%S}-a",
            number=sum(other == direction for _, other, _ in said[: n + 1]),
            direction=direction,
            at=begins + timedelta(seconds=t),
            text=json.dumps(content, separators=(",", ":")),
        )
        for n, (t, direction, content) in enumerate(said)
    ]


@pytest.mark.parametrize(("goodbye", "gaps"), [(time(15, 39, 50), 1), (time(15, 40, 0, 200_000), 0)])
def test_a_goodbye_after_the_hours_leaves_nothing_unheard(goodbye: time, gaps: int) -> None:
    """Who leaves earlier may have missed what came in the rest of the hours."""
    evening = datetime(2026, 3, 9, 15, 39, 30, tzinfo=KST)
    replay = Replay(Header(conditions=(Wanted(NAME),)))
    frames = day(evening, datetime.combine(evening, goodbye, KST)) + day(evening + timedelta(hours=17.2))
    records = [record for frame in frames for record in replay.feed(frame)] + replay.finish()
    assert sum(isinstance(record, ConditionSnapshot) for record in records) == 2
    assert sum(isinstance(record, Gap) for record in records) == gaps
    assert replay.figures.unlike == 0
