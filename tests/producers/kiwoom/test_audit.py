"""Quiet or dead: a condition that says nothing is compared with a search, and only a difference that stays kills it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from producers.kiwoom.session import (
    Action,
    Audited,
    Changed,
    Doubted,
    Entry,
    Ignored,
    Listed,
    MarketClock,
    Moment,
    Over,
    Send,
    Session,
    Snapshot,
    Timing,
    Wanted,
)

START = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
PING = '{"trnm":"PING"}'


class Server:
    """A Kiwoom that answers at once, with a truth, registrations that can be dropped, and searches that can fail."""

    def __init__(self, *names: str, **arguments: Any) -> None:
        self.t = 0.0
        self.names = {str(n): name for n, name in enumerate(names)}
        self.truth: dict[str, set[str]] = {seq: {"005930"} for seq in self.names}
        self.registered: set[str] = set()
        self.searches = 0
        self.connected = True
        self.search: Callable[[str], dict[str, Any] | None] = self.found
        self.sent: list[str] = []
        self.actions: list[tuple[float, Action]] = []
        self.session = Session([Wanted(name) for name in names], token="T", **arguments)
        self.did(self.session.opened(self.now))

    @property
    def now(self) -> Moment:
        return Moment(self.t, START + timedelta(seconds=self.t))

    def found(self, seq: str) -> dict[str, Any] | None:
        return {"cont_yn": "N", "next_key": "", "data": [{"9001": f"A{code}"} for code in sorted(self.truth[seq])]}

    def did(self, actions: list[Action]) -> None:
        self.actions += [(self.t, action) for action in actions]
        for action in actions:
            if isinstance(action, Send):
                self.sent.append(action.text)
                self.answer(json.loads(action.text))

    def answer(self, frame: dict[str, Any]) -> None:
        match frame:
            case {"trnm": "LOGIN"}:
                self.say({"trnm": "LOGIN", "return_code": 0})
            case {"trnm": "CNSRLST"} if self.connected:
                self.say({"trnm": "CNSRLST", "return_code": 0, "data": [list(i) for i in self.names.items()]})
            case {"trnm": "CNSRREQ", "search_type": "0", "seq": seq}:
                self.searches += 1
                if (reply := self.search(seq)) is not None:
                    self.say({"trnm": "CNSRREQ", "seq": seq, "return_code": 0} | reply)
            case {"trnm": "CNSRREQ", "seq": seq}:
                self.registered.add(seq)
                rows = [{"jmcode": f"A{code}"} for code in self.truth[seq]] or None
                self.say({"trnm": "CNSRREQ", "seq": seq, "return_code": 0, "data": rows})
            case {"trnm": "CNSRCLR", "seq": seq}:
                self.registered.discard(seq)
                self.say({"trnm": "CNSRCLR", "seq": seq, "return_code": 0})

    def say(self, frame: dict[str, Any]) -> None:
        self.did(self.session.received(json.dumps(frame), self.now))

    def change(self, code: str, *, enters: bool = True, seq: str = "0", told: bool = True) -> None:
        """The truth changes, and who is registered hears of it, unless it is not told."""
        (self.truth[seq].add if enters else self.truth[seq].discard)(code)
        if seq in self.registered and told:
            time = (self.now.at + timedelta(hours=9)).strftime("%H%M%S")
            values = {"841": seq, "9001": code, "843": "I" if enters else "D", "20": time}
            self.say({"trnm": "REAL", "data": [{"values": values, "type": "02", "item": code}]})

    def wait(self, seconds: float) -> None:
        until = self.t + seconds
        ping = self.t - self.t % 10 + 10
        while not self.session.over:
            deadline = self.session.deadline
            due = min(ping, deadline if deadline is not None else ping)
            if due > until:
                break
            self.t = max(self.t, due)
            if self.t >= ping:
                ping += 10
                self.did(self.session.received(PING, self.now))
            else:
                self.did(self.session.tick(self.now))
        self.t = until

    def all(self, kind: type[Any]) -> list[Any]:
        return [action for _, action in self.actions if isinstance(action, kind)]

    def outcomes(self) -> list[str]:
        return [audit.outcome for audit in self.all(Audited)]

    def count(self, trnm: str, kind: str = "") -> int:
        frames = [json.loads(text) for text in self.sent]
        return sum(f["trnm"] == trnm and (not kind or f.get("search_type") == kind) for f in frames)


def live(*names: str, **arguments: Any) -> Server:
    server = Server(*(names or ("돌파",)), **arguments)
    server.wait(10)
    assert {c.condition for c in server.all(Changed) if c.state == "live"} == set(server.names.values())
    return server


def test_a_quiet_condition_is_audited_and_lives() -> None:
    server = live()
    server.wait(600)
    assert server.outcomes() == ["agrees", "agrees"]
    assert (server.count("CNSRREQ", "1"), server.count("CNSRCLR"), server.session.over) == (1, 0, False)


def test_one_that_speaks_is_audited_too_and_left_alone() -> None:
    server = live()
    for n in range(60):
        server.wait(20)
        server.change("000660", enters=n % 2 == 0)
    assert server.outcomes() == ["agrees"] * 4
    assert server.count("CNSRCLR") == 0


def test_a_registration_that_was_dropped_is_noticed_in_time_and_made_anew() -> None:
    server = live()
    server.registered.clear()
    dropped = server.t
    server.change("000660")
    server.wait(320)
    (at, dead), (_, snapshot) = [
        (t, a) for t, a in server.actions if isinstance(a, Snapshot) or (isinstance(a, Audited) and a.outcome == "dead")
    ][1:]
    assert at - dropped <= Timing().audit_after + 15
    assert dead.cause.startswith("dead: nothing said for 30")
    assert "1 other (+000660)" in dead.cause
    assert set(snapshot.codes) == {"005930", "000660"}
    assert server.count("CNSRCLR") == 1
    assert not server.session.over, "one dead registration cost the connection"
    server.change("035720")
    assert server.all(Entry)[-1].code == "035720"


def test_ten_conditions_that_all_lose_their_registration_are_noticed_in_time() -> None:
    server = live(*(f"조건{n}" for n in range(10)))
    server.registered.clear()
    dropped = server.t
    for seq in server.names:
        server.change("000660", seq=seq)
    server.wait(330)
    dead = [t for t, a in server.actions if isinstance(a, Audited) and a.outcome == "dead"]
    assert len(dead) == 10
    assert max(dead) - dropped <= Timing().audit_after + 15


def test_a_difference_that_passes_is_no_death() -> None:
    """The search knew of a hit before its REAL entry came."""
    server = live()
    late = [{"cont_yn": "N", "data": [{"9001": "A005930"}, {"9001": "A000660"}]}]
    server.search = lambda seq: late.pop() if late else server.found(seq)
    server.wait(310)
    assert (server.outcomes(), server.searches) == (["agrees"], 2)


def test_a_condition_that_speaks_but_misses_something_is_made_anew() -> None:
    server = live()
    server.change("000660", told=False)
    for n in range(32):
        server.wait(10)
        server.change("035720", enters=n % 2 == 0)
    assert server.outcomes() == ["missed"]
    assert server.all(Doubted) == [Doubted(condition="돌파")]
    assert server.all(Changed)[-2].cause.startswith("missed: it speaks, but a search shows 1 other (+000660)")
    assert "000660" in server.all(Snapshot)[-1].codes


def test_a_stock_that_is_spoken_of_between_two_looks_proves_nothing() -> None:
    """What the search knew first has only been told late."""
    server = live()
    server.change("000660", told=False)
    server.wait(292)
    assert (server.searches, server.outcomes()) == (1, [])
    server.change("000660")
    server.wait(100)
    assert server.outcomes() == ["agrees"]


def test_a_request_that_was_never_answered_does_not_keep_the_audit_away() -> None:
    """A second one was. The answer to the first may still come for a while, so the first search waits for that long."""
    server = Server("돌파")
    answer = server.answer
    server.answer = lambda f: None if f["trnm"] == "CNSRREQ" else answer(f)  # type: ignore[method-assign]
    server.wait(5)
    server.answer = answer  # type: ignore[method-assign]
    server.wait(5)
    assert server.count("CNSRREQ", "1") == 2
    server.wait(300)
    assert server.outcomes() == ["agrees"]


def test_a_market_that_has_closed_is_looked_at_once_more() -> None:
    closes = START + timedelta(seconds=200)
    server = live(trading=lambda at: at < closes)
    server.change("000660", told=False)
    server.wait(2000)
    assert server.outcomes() == ["dead"]
    assert "000660" in server.all(Snapshot)[-1].codes


def test_differences_that_keep_changing_prove_nothing() -> None:
    server = live()
    codes = iter(range(100))
    server.search = lambda _: {"cont_yn": "N", "data": [{"9001": "A005930"}, {"9001": f"{next(codes):06d}"}]}
    server.wait(320)
    assert (server.outcomes(), server.count("CNSRCLR")) == (["unsettled"], 0)


def test_a_search_that_stays_silent_kills_nothing() -> None:
    server = live()
    server.search = lambda _: None
    server.wait(299)
    assert server.outcomes() == ["silent"]
    assert (server.count("CNSRCLR"), server.session.over) == (0, False)
    assert server.count("CNSRLST") > 2, "the connection was not probed"
    server.change("000660")
    assert server.all(Entry)[-1].code == "000660"


def test_where_searches_stay_silent_a_quiet_condition_is_compared_with_a_new_request() -> None:
    server = live()
    server.search = lambda _: None
    server.wait(650)
    assert server.outcomes() == ["silent", "silent", "agrees", "silent", "agrees"]
    assert server.count("CNSRCLR") == 2
    assert [c.state for c in server.all(Changed)][-1] == "live"


def test_so_is_one_in_which_nobody_is() -> None:
    """Its snapshot looks like the answer to a search: `"data": null`."""
    server = live()
    server.search = lambda _: None
    server.change("005930", enters=False)
    server.wait(350)
    assert server.outcomes() == ["silent", "silent", "agrees"]
    assert (server.count("CNSRCLR"), server.all(Snapshot)[-1].codes) == (1, ())


def test_where_searches_stay_silent_one_that_speaks_is_never_requested_anew() -> None:
    server = live()
    server.search = lambda _: None
    for n in range(60):
        server.wait(20)
        server.change("000660", enters=n % 2 == 0)
    assert (server.count("CNSRCLR"), set(server.outcomes())) == (0, {"silent"})
    assert server.searches <= 1200 / 60


def test_searches_are_used_again_once_they_are_answered() -> None:
    server = live()
    server.search = lambda _: None
    server.wait(320)
    server.search = server.found
    server.wait(1000)
    assert server.outcomes() == ["silent", "silent", "agrees", "agrees", "agrees", "agrees"]
    assert server.count("CNSRCLR") == 1


@pytest.mark.parametrize(
    "search", [None, {"return_code": 900099, "return_msg": "안 됩니다"}, {"cont_yn": "Y", "data": []}]
)
def test_dropped_registrations_are_noticed_in_time_although_searches_come_to_nothing(search: Any) -> None:
    server = live(*(f"조건{n}" for n in range(10)))
    server.search = lambda _: search
    server.registered.clear()
    dropped = server.t
    for seq in server.names:
        server.change("000660", seq=seq)
    server.wait(330)
    dead = [t for t, a in server.actions if isinstance(a, Audited) and a.outcome == "dead"]
    assert len(dead) == 10
    assert max(dead) - dropped <= Timing().audit_after + 15
    assert all("000660" in snapshot.codes for snapshot in server.all(Snapshot)[-10:])


def test_a_new_request_that_is_refused_is_the_last_that_is_made_for_an_audit() -> None:
    """Kiwoom may want a pause between two requests for one condition: then we do not cost ourselves what lives."""
    server = live()
    server.search = lambda _: None
    answer = server.answer
    refusal = {"trnm": "CNSRREQ", "seq": "0", "return_code": 900099, "return_msg": "안 됩니다"}
    server.answer = lambda f: server.say(refusal) if f.get("search_type") == "1" else answer(f)  # type: ignore[method-assign]
    server.wait(320)
    assert [c.state for c in server.all(Changed)][-1] == "refused"
    server.answer = answer  # type: ignore[method-assign]
    server.wait(2000)
    assert [c.state for c in server.all(Changed)][-1] == "live"
    assert server.count("CNSRCLR") == 1


# --- contradictions


def test_a_hit_of_one_that_is_in_proves_that_something_was_missed() -> None:
    server = live()
    server.wait(5)
    server.change("005930", enters=False, told=False)
    server.wait(5)
    server.change("005930")
    (missed,) = server.all(Audited)
    assert (missed.outcome, missed.cause) == (
        "missed",
        "missed: another hit of 005930, which had not left; it is requested anew",
    )
    server.wait(5)
    assert (server.count("CNSRCLR"), len(server.all(Snapshot))) == (1, 2)
    kinds = [type(a) for _, a in server.actions if isinstance(a, Audited | Entry | Snapshot)]
    assert kinds == [Snapshot, Audited, Entry, Snapshot], "the entry must not count as a proof of life"


def test_an_exit_of_one_that_is_not_in_proves_it_too() -> None:
    server = live()
    server.wait(5)
    server.change("000660", told=False)
    server.change("000660", enters=False)
    assert server.all(Audited)[0].cause.startswith("missed: an exit of 000660, which was not in;")


def test_what_one_that_speaks_has_missed_has_the_others_looked_at_at_once() -> None:
    server = live("돌파", "눌림목", "급등")
    server.wait(5)
    before = server.t
    server.change("000660", seq="1", told=False)
    server.change("005930", enters=False, told=False)
    server.change("005930")
    assert server.all(Doubted) == [Doubted(condition="눌림목"), Doubted(condition="급등")]
    server.wait(10)
    found = {a.condition: (a.outcome, t - before < 15) for t, a in server.actions if isinstance(a, Audited)}
    assert found == {"돌파": ("missed", True), "눌림목": ("dead", True), "급등": ("agrees", True)}


def test_one_that_has_died_leaves_the_others_alone() -> None:
    server = live("돌파", "눌림목")
    server.registered.discard("0")
    server.change("000660")
    server.wait(310)
    assert sorted(server.outcomes()) == ["agrees", "dead"]
    assert server.all(Doubted) == [Doubted(condition="돌파")]


def test_what_is_said_twice_contradicts_nothing() -> None:
    server = live()
    server.wait(5)
    for enters in (True, True, False, False, True):
        server.change("000660", enters=enters)
    assert server.outcomes() == []


def test_what_the_snapshot_knew_already_contradicts_nothing() -> None:
    server = Server("돌파")
    while not server.all(Snapshot):
        server.wait(0.5)
    server.change("005930")
    assert server.outcomes() == []


def test_of_two_exchanges_each_may_say_its_own() -> None:
    server = live(stex_tp="A")
    server.wait(5)
    server.change("005930")
    assert server.outcomes() == []


def test_contradictions_with_nothing_behind_them_are_a_habit() -> None:
    server = live()
    for _ in range(10):
        server.wait(20)
        server.change("005930")
    assert server.outcomes() == ["missed"] * 3
    assert server.count("CNSRCLR") == 3


def test_contradictions_with_something_behind_them_go_on_counting() -> None:
    server = live()
    for n in range(10):
        server.wait(20)
        server.change(f"{n:06d}", told=False)
        server.change("005930")
    assert server.outcomes() == ["missed"] * 10


def test_a_search_and_a_list_that_both_stay_silent_end_the_connection() -> None:
    server = live()
    server.search = lambda _: None
    server.connected = False
    server.wait(330)
    (over,) = server.all(Over)
    assert (over.why, "CNSRLST" in over.cause) == ("lost", True)


def test_a_refused_search_proves_nothing() -> None:
    server = live()
    server.search = lambda _: {"return_code": 900003, "return_msg": "이미 등록된 조건검색 일련번호입니다.(seq=0)"}
    server.wait(292)
    assert server.outcomes() == ["refused"]
    assert [c.state for c in server.all(Changed)][-1] == "live"


def test_every_page_of_a_search_counts() -> None:
    server = live()
    server.truth["0"] = {"005930"}
    pages = {"": {"cont_yn": "Y", "next_key": "7", "data": []}, "7": {"cont_yn": "N", "data": [{"9001": "A005930"}]}}
    server.search = lambda _: pages[json.loads(server.sent[-1])["next_key"]]
    server.wait(310)
    assert (server.outcomes(), server.searches) == (["agrees"], 2)


def test_a_verdict_that_the_fresh_snapshot_refutes_is_not_given_again() -> None:
    """The search shows a stock that the registration never does: that is no death, however long it stays."""
    server = live()
    server.search = lambda _: {"cont_yn": "N", "data": [{"9001": "A005930"}, {"9001": "A999999"}]}
    server.wait(1500)
    assert server.outcomes()[:2] == ["dead", "refuted"]
    assert set(server.outcomes()[2:]) == {"agrees"}
    assert server.count("CNSRCLR") == 1


def test_nothing_is_audited_while_the_market_does_not_trade() -> None:
    opens = START + timedelta(seconds=1000)
    server = live(trading=lambda at: at >= opens)
    server.wait(980)
    assert server.searches == 0
    server.wait(90)
    assert server.outcomes() == ["agrees"]


def test_a_late_answer_to_a_search_is_no_snapshot() -> None:
    server = live()
    server.search = lambda _: None
    server.wait(310)
    before = len(server.all(Snapshot))
    server.say({"trnm": "CNSRREQ", "seq": "0", "return_code": 0, "cont_yn": "N", "data": [{"9001": "A000660"}]})
    server.say({"trnm": "CNSRREQ", "seq": "0", "return_code": 0, "data": None})
    assert len(server.all(Snapshot)) == before


def test_an_empty_search_is_compared_too() -> None:
    server = live()
    server.registered.clear()
    server.change("005930", enters=False)
    server.search = lambda _: {"data": None}
    server.wait(320)
    assert "dead" in server.outcomes()
    assert server.all(Snapshot)[-1].codes == ()


# --- the account's list, and the market's clock


def test_a_condition_that_vanishes_is_missing_only_when_a_second_list_lacks_it() -> None:
    server = live("돌파", "눌림목")
    kept = server.names.pop("1")
    server.wait(305)
    assert [c.state for c in server.all(Changed) if c.condition == kept][-1] == "missing"
    assert [c.state for c in server.all(Changed) if c.condition == "돌파"][-1] == "live"
    server.names["1"] = kept
    server.wait(70)
    assert [c.state for c in server.all(Changed) if c.condition == kept][-1] == "live"
    assert [len(listed.conditions) for listed in server.all(Listed)] == [2, 1, 2]


def test_one_incomplete_list_costs_nothing() -> None:
    server = live("돌파", "눌림목")
    names, server.names = server.names, {}
    asked = server.count("CNSRLST")
    server.wait(292)
    assert server.count("CNSRLST") == asked + 1
    server.names = names
    server.wait(60)
    assert server.count("CNSRCLR") == 0
    assert [c.state for c in server.all(Changed)].count("missing") == 0


def test_a_condition_that_is_renumbered_is_followed() -> None:
    server = live("돌파", "눌림목")
    server.names = {"0": "눌림목", "1": "돌파"}
    server.wait(310)
    assert [(s.condition, s.seq) for s in server.all(Snapshot)][2:] == [("돌파", "1"), ("눌림목", "0")] or [
        (s.condition, s.seq) for s in server.all(Snapshot)
    ][2:] == [("눌림목", "0"), ("돌파", "1")]


def test_a_condition_that_vanishes_from_a_number_that_another_has_now_is_given_up_at_once() -> None:
    """What is registered under the number is the other one's: whoever kept it would be deaf, and never audited."""
    server = live("돌파", "눌림목")
    server.names = {"0": "눌림목", "2": "급등"}
    server.answer({"trnm": "CNSRLST"})
    assert [c.state for c in server.all(Changed) if c.condition == "돌파"][-1] == "missing"
    server.names = {"0": "돌파", "1": "눌림목"}
    server.wait(400)
    assert [c.state for c in server.all(Changed) if c.condition == "돌파"][-1] == "live"
    assert server.registered == {"0", "1"}
    assert {audited.condition for audited in server.all(Audited)[-2:]} == {"돌파", "눌림목"}


def test_a_number_that_changes_hands_while_it_is_searched_is_asked_for_once_no_answer_can_come() -> None:
    server = live("돌파", "눌림목")
    server.search = lambda _: None
    while not server.searches:
        server.wait(1)
    (searched,) = {json.loads(text)["seq"] for text in server.sent if '"search_type":"0"' in text}
    asked, sent = server.t, len(server.sent)
    server.names = {"0": "눌림목", "1": "돌파"}
    server.answer({"trnm": "CNSRLST"})
    request = f'"seq":"{searched}","search_type":"1"'
    while not any(request in text for text in server.sent[sent:]):
        server.wait(0.5)
    assert server.t - asked >= Timing().search_deadline - 1


def test_the_market_clock_is_asked_for_after_the_conditions_and_heard() -> None:
    server = live("돌파", market_clock=True)
    assert [json.loads(text)["trnm"] for text in server.sent if text != PING][-1] == "REG"
    server.say({"trnm": "REAL", "data": [{"values": {"215": "3", "20": "090000"}, "type": "0s", "item": ""}]})
    assert [clock.state for clock in server.all(MarketClock)] == ["3"]


def test_a_refused_registration_is_counted_and_tried_again() -> None:
    server = live("돌파", market_clock=True)
    server.say({"trnm": "REG", "return_code": 105111, "return_msg": "실시간 항목 등록에 실패했습니다"})
    assert [ignored.reason for ignored in server.all(Ignored)] == ["register-refused"]
    server.wait(70)
    assert server.count("REG") == 2
    server.say({"trnm": "REG", "return_code": 0, "return_msg": ""})
    server.wait(200)
    assert server.count("REG") == 2


# --- a connection that has proved itself


def test_a_connection_has_proved_itself_once_all_is_answered_and_a_ping_came() -> None:
    server = Server("돌파")
    server.wait(5)
    assert not server.session.proved
    server.wait(10)
    assert server.session.proved


@pytest.mark.parametrize("silent", ["CNSRLST", "CNSRREQ"])
def test_one_that_left_something_unanswered_has_not(silent: str) -> None:
    server = Server("돌파")
    answer = server.answer
    server.answer = lambda frame: answer(frame) if frame["trnm"] != silent else None  # type: ignore[method-assign]
    server.wait(20)
    assert not server.session.proved
