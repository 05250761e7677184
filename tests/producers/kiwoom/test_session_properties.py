"""What holds of a session whatever comes, in whatever order and however late.

A run feeds a session with any mixture of right and wrong frames, silences and delays. Every entry that is fed has a
code of its own, so that "exactly once" can be counted. In the end the other side behaves: then every condition becomes
live, or the connection ends – wherever the run has left it, it was not stuck.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from producers.conditions import Conditions
from producers.kiwoom.session import (
    Action,
    Audited,
    Entry,
    Ignored,
    Moment,
    Over,
    Send,
    Session,
    Snapshot,
    Timing,
    Wanted,
)
from streams.events import KST, ConditionEvent, event_id

START: Final = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
TIMING: Final = Timing(audit_after=8.0, list_again=20.0)
NAMES: Final = ("하나", "둘", "셋")
SEQS: Final = ("1", "2", "3", "4")
DROPPED: Final = {"not-subscribed", "unknown-seq", "session-over"}

seqs = st.sampled_from((*SEQS, "77"))


class Conversation(RuleBasedStateMachine):
    """A session and the other side, which may say anything."""

    def __init__(self) -> None:
        super().__init__()
        self.t = 1000.0
        self.session = Session(
            [Wanted(name) for name in NAMES], token="T", patient=frozenset({"둘"}), timing=TIMING, market_clock=True
        )
        self.actions: list[Action] = []
        self.fed: dict[str, str] = {}
        self.listed = False
        self.paced_at: list[float] = []
        self.asked_at: dict[tuple[str, str], float] = {}
        self.answered: dict[str, float] = {}
        self.unanswered: list[str] = []
        self.conditions = Conditions("main", "p", NAMES, START)
        self.conditions.connecting("c1", START)
        self.published: dict[str, set[str]] = {}

    @property
    def now(self) -> Moment:
        return Moment(self.t, START + timedelta(seconds=self.t))

    def did(self, actions: list[Action], echo: str | None = None) -> None:
        self.actions += actions
        for action in actions:
            for record in self.conditions.apply(action, self.now.at):
                if isinstance(record, ConditionEvent):
                    self.published.setdefault(record.code, set()).add(record.id)
        self.conditions.told()
        sends = [action.text for action in actions if isinstance(action, Send)]
        if echo is not None and sends and sends[0] == echo:
            sends.pop(0)
        for text in sends:
            if self.paced_at:
                assert self.t - self.paced_at[-1] >= TIMING.send_spacing - 1e-9, "sent in a burst"
            self.paced_at.append(self.t)
            self.unanswered.append(text)
            assert self.listed or "CNSRREQ" not in text, "CNSRREQ without CNSRLST on this connection"
            self.check_pair(text)

    def check_pair(self, text: str) -> None:
        """A search and a realtime request of one seq are never both on their way: an answer could be to either."""
        frame = json.loads(text)
        if frame["trnm"] == "CNSRREQ":
            other = self.asked_at.get((frame["seq"], "1" if frame["search_type"] == "0" else "0"))
            if frame["search_type"] == "1" and other is not None:
                assert self.t - other >= TIMING.search_deadline or self.answered.get(frame["seq"], 0) >= other
            self.asked_at[frame["seq"], frame["search_type"]] = self.t

    def hear(self, frame: str) -> None:
        self.did(self.session.received(frame, self.now))

    @initialize(so_far=st.sampled_from(["opened", "logged in", "listed", "listed", "requested", "requested"]))
    def open(self, so_far: str) -> None:
        self.did(self.session.opened(self.now))
        if so_far == "opened":
            return
        self.hear('{"trnm":"LOGIN","return_code":0}')
        if so_far == "logged in":
            return
        self.wait(1.6, True)
        self.list_reply(list(SEQS), None, 0)
        if so_far == "requested":
            self.wait(1.6, True)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.4, 1.6, 3.0, 6.0, 11.0]), pinged=st.sampled_from([True] * 9 + [False]))
    def wait(self, seconds: float, pinged: bool) -> None:
        if pinged:
            self.ping("")
        until, ticks = self.t + seconds, 0
        while (deadline := self.session.deadline) is not None and deadline <= until:
            self.t = max(self.t, deadline)
            self.did(self.session.tick(self.now))
            ticks += 1
            assert ticks < 200, "the deadline does not move"
        self.t = until

    @rule(seconds=st.sampled_from([0.2, 2.0, 6.0]))
    def oversleep(self, seconds: float) -> None:
        """The process was suspended: many deadlines passed at once."""
        self.t += seconds
        self.did(self.session.tick(self.now))

    @rule()
    def login_reply(self) -> None:
        self.hear('{"trnm":"LOGIN","return_code":0}')

    @rule(more=st.sampled_from(["", ',"n":1']))
    def ping(self, more: str) -> None:
        frame = f'{{"trnm":"PING"{more}}}'
        over = self.session.over
        actions = self.session.received(frame, self.now)
        self.did(actions, echo=frame)
        if not over:
            assert actions[0] == Send(text=frame), "the echo is not first"

    @rule(
        order=st.permutations(SEQS),
        missing=st.sampled_from([None, None, None, *NAMES]),
        code=st.sampled_from([0, 0, 0, 105110]),
    )
    def list_reply(self, order: list[str], missing: str | None, code: int) -> None:
        asked = any("CNSRLST" in a.text for a in self.actions if isinstance(a, Send))
        if not asked:
            return
        rows = [[seq, name] for seq, name in zip(order, NAMES, strict=False) if name != missing]
        self.listed = True
        self.hear(json.dumps({"trnm": "CNSRLST", "return_code": code, "data": rows}))

    @rule(seq=seqs, codes=st.lists(st.sampled_from(["A005930", "000660", "A0004V0"]), max_size=3), cont=st.booleans())
    def snapshot(self, seq: str, codes: list[str], cont: bool) -> None:
        more = {"cont_yn": "Y"} if cont and len(codes) == 3 else {}
        rows = [{"jmcode": code} for code in codes] or None
        self.hear(json.dumps({"trnm": "CNSRREQ", "seq": f"{seq} ", "return_code": 0, "data": rows} | more))

    @rule(
        seq=seqs,
        codes=st.lists(st.sampled_from(["A005930", "000660"]), max_size=2, unique=True),
        how=st.sampled_from(["whole", "whole", "null", "page", "last page", "refused"]),
    )
    def searched(self, seq: str, codes: list[str], how: str) -> None:
        """An answer to a one-shot search, asked for or not, of one page or of many."""
        self.answered[seq] = self.t
        reply: dict[str, object] = {"trnm": "CNSRREQ", "seq": seq, "return_code": 0, "cont_yn": "N", "next_key": ""}
        match how:
            case "null":
                reply |= {"data": None}
            case "refused":
                reply |= {"return_code": 900003, "return_msg": f"안 됩니다.(seq={seq})"}
            case _:
                more = {"cont_yn": "Y", "next_key": str(self.t)} if how == "page" else {}
                reply |= {"data": [{"9001": code, "10": "000001000"} for code in codes]} | more
        self.hear(json.dumps(reply, ensure_ascii=False))

    @rule()
    def answer_searches(self) -> None:
        """What a server in order would do: find who is in it."""
        asked = [a.text for a in self.actions if isinstance(a, Send)]
        for text in asked[-4:]:
            if '"search_type":"0"' in text:
                self.searched(json.loads(text)["seq"], ["A005930"], "whole")

    @rule(state=st.sampled_from("02349x"))
    def market_clock(self, state: str) -> None:
        values = {"215": state, "20": "090000", "214": "000000"}
        self.hear(json.dumps({"trnm": "REAL", "data": [{"values": values, "type": "0s", "item": ""}]}))

    @rule()
    def answer_all(self) -> None:
        """What a server in order would do: answer whatever was asked last."""
        asked = [a.text for a in self.actions if isinstance(a, Send)]
        for text in asked[-6:]:
            if '"CNSRREQ"' in text and '"search_type":"1"' in text:
                self.snapshot(json.loads(text)["seq"], ["A005930"], False)

    @rule(seq=seqs, code=st.sampled_from([900003, 900004, 105110, 900099]), spelled=st.booleans())
    def refusal(self, seq: str, code: int, spelled: bool) -> None:
        text = f"안 됩니다.(seq={seq})" if spelled else "안 됩니다"
        # A refusal answers a search too; one that names nobody, whichever is alone.
        self.answered |= dict.fromkeys([seq] if spelled else SEQS, self.t)
        self.hear(json.dumps({"trnm": "CNSRREQ", "return_code": code, "return_msg": text}, ensure_ascii=False))

    @rule(entries=st.lists(st.tuples(seqs, st.sampled_from("ID")), max_size=4))
    def real(self, entries: list[tuple[str, str]]) -> None:
        rows = []
        for seq, action in entries:
            code = f"{len(self.fed) + 100_000:06d}"
            self.fed[code] = action
            values = {"841": seq, "9001": code, "843": action, "20": "093000"}
            rows.append({"values": values, "type": "02", "item": code})
        self.hear(json.dumps({"trnm": "REAL", "data": rows}))

    @rule(frame=st.sampled_from(["", "{", "[]", '{"trnm":"REAL","data":null}', '{"trnm":"CNSRCLR","seq":"1"}']))
    def noise(self, frame: str) -> None:
        self.hear(frame)

    @rule(code=st.sampled_from(["N1"] * 19 + ["R10002"]))
    def system(self, code: str) -> None:
        self.hear(json.dumps({"trnm": "SYSTEM", "code": code, "message": "…"}))

    @rule(really=st.sampled_from([False] * 29 + [True]))
    def clear(self, really: bool) -> None:
        if really:
            self.did(self.session.clear(self.now))

    @rule(codes=st.lists(st.sampled_from(["005930", "000660", "0004V0"]), max_size=3, unique=True))
    def price(self, codes: list[str]) -> None:
        self.did(self.session.price(codes, self.now))

    @rule(trnm=st.sampled_from(["REG", "REMOVE"]), code=st.sampled_from([0, 0, 105110, 105111, 105115]))
    def registered(self, trnm: str, code: int) -> None:
        self.hear(json.dumps({"trnm": trnm, "return_code": code}))

    @rule(code=st.sampled_from(["005930", "000660", "999999"]))
    def trade(self, code: str) -> None:
        values = {"10": "1000", "15": "+1", "13": "1", "20": "093000"}
        self.hear(json.dumps({"trnm": "REAL", "data": [{"values": values, "type": "0B", "item": code}]}))

    @invariant()
    def something_is_waited_for(self) -> None:
        assert self.session.over or self.session.deadline is not None or not self.actions

    @invariant()
    def it_ends_once(self) -> None:
        assert sum(isinstance(a, Over) for a in self.actions) == int(self.session.over)

    @invariant()
    def a_quiet_condition_has_its_next_look(self) -> None:
        """Whatever is live is audited, is about to be, or waits for an answer that has a deadline."""
        if self.session.over or self.session._leaving_by is not None:
            return
        for subscription in self.session._subscriptions.values():
            if subscription.state == "live":
                queued = any(i.kind == "search" and i.seq == subscription.seq for i in self.session._queue)
                assert subscription.audit_at is not None or queued or subscription.seq in self.session._searches

    def behave(self, seconds: float) -> None:
        """From now on the other side answers whatever comes as it should, and sends its PINGs."""
        self.unanswered.clear()
        until, ping, steps = self.t + seconds, self.t, 0
        while not self.session.over and self.t < until:
            steps += 1
            assert steps < 2_000, "the deadline does not move"
            while self.unanswered:
                self.answer(json.loads(self.unanswered.pop(0)))
            self.t = min(ping, max(self.t, self.session.deadline or ping))
            if self.t >= ping:
                self.ping("")
                ping += 10
            else:
                self.did(self.session.tick(self.now))

    def answer(self, asked: dict[str, str]) -> None:
        match asked:
            case {"trnm": "LOGIN"}:
                self.hear('{"trnm":"LOGIN","return_code":0}')
            case {"trnm": "CNSRLST"}:
                self.list_reply(list(SEQS), None, 0)
            case {"trnm": "CNSRREQ", "seq": seq, "search_type": "1"}:
                self.snapshot(seq, ["A005930"], False)
            case {"trnm": "CNSRREQ", "seq": seq}:
                self.searched(seq, ["A005930"], "whole")
            case {"trnm": "CNSRCLR" | "REG" | "REMOVE" as trnm}:
                self.hear(json.dumps({"trnm": trnm, "seq": asked.get("seq", ""), "return_code": 0}))

    def teardown(self) -> None:
        before = len(self.actions)
        self.behave(200.0)
        if not self.session.over:
            states = {s.name: s.state for s in self.session._subscriptions.values()}
            assert set(states.values()) == {"live"}, f"stuck: {states}"
            audited = {a.condition for a in self.actions[before:] if isinstance(a, Audited)}
            assert audited == set(NAMES), f"never audited: {set(NAMES) - audited}"
        self.did(self.session.closed("1006", self.now))
        assert self.session.over
        entries = [action for action in self.actions if isinstance(action, Entry)]
        told = [entry.code for entry in entries]
        assert len(told) == len(set(told)), "an entry was told twice"
        dropped = sum(a.count for a in self.actions if isinstance(a, Ignored) and a.reason in DROPPED)
        # `session-over` also counts frames that are no REAL; those are fed without codes.
        others = sum(a.count for a in self.actions if isinstance(a, Ignored) and a.reason == "session-over")
        assert len(self.fed) - dropped <= len(told) <= len(self.fed) - dropped + others, "an entry is lost"
        self.check_identities(entries)
        self.check_snapshots()
        event(f"snapshots: {min(3, sum(isinstance(a, Snapshot) for a in self.actions))}")

    def check_identities(self, entries: list[Entry]) -> None:
        """What was told is published under one identity: that of the hit, whenever and after what it was told."""
        for entry in entries:
            assert entry.action == {"I": "hit", "D": "exit"}[self.fed[entry.code]]
            at = entry.received_at.astimezone(KST).replace(hour=9, minute=30, second=0, microsecond=0)
            assert self.published[entry.code] == {event_id("main", entry.condition, entry.code, entry.action, at, 0)}
        assert self.published.keys() == {entry.code for entry in entries}

    def check_snapshots(self) -> None:
        """A snapshot contradicts nothing that was told before it and happened after its request."""
        before: list[Entry] = []
        for action in self.actions:
            if isinstance(action, Entry):
                before.append(action)
            elif isinstance(action, Snapshot):
                for entry in before:
                    if entry.condition == action.condition and entry.received_at > action.requested_at:
                        assert (entry.code in action.codes) == (entry.action == "hit")
                    assert re.fullmatch("[0-9A-Z]{6}", entry.code)


Conversation.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestConversation = Conversation.TestCase
