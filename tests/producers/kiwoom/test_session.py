"""One connection: the whole sequence, every refusal and silence, and each way in which clients went deaf before."""

# ruff: noqa: E501 – frames stand on one line, as they do on the wire
from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from producers.kiwoom.session import (
    Action,
    Changed,
    Entry,
    Ignored,
    Moment,
    Notice,
    Over,
    Send,
    Session,
    SessionChanged,
    Snapshot,
    Timing,
    Traced,
    Wanted,
)

START = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
LOGIN_OK = '{"trnm":"LOGIN","return_code":0,"return_msg":"","sor_yn":"Y"}'
LIST = '{"trnm":"CNSRLST","return_code":0,"return_msg":"","data":[["0","test1"],["1","순위"],["2","신용융자E군"],["3","CCI"]]}'
PING = '{"trnm":"PING"}'

T = TypeVar("T", bound=Action)


class Talk:
    """Drives a session with a clock of its own and keeps all that it did."""

    def __init__(self, *names: str, wanted: Iterable[Wanted] = (), **arguments: Any) -> None:
        self.t = 100.0
        self.session = Session([*(Wanted(name) for name in names), *wanted], token="SECRET", **arguments)
        self.actions: list[Action] = []
        self.last: list[Action] = []

    @property
    def now(self) -> Moment:
        return Moment(self.t, START + timedelta(seconds=self.t - 100.0))

    def did(self, actions: list[Action]) -> list[Action]:
        self.last = actions
        self.actions += actions
        return actions

    def open(self) -> None:
        self.did(self.session.opened(self.now))

    def hear(self, frame: str) -> list[Action]:
        return self.did(self.session.received(frame, self.now))

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, ticking at every deadline within."""
        until, seen = self.t + seconds, len(self.actions)
        while (deadline := self.session.deadline) is not None and deadline <= until:
            self.t = max(self.t, deadline)
            self.did(self.session.tick(self.now))
        self.t = until
        return self.actions[seen:]

    def wait_for(self, frame: str, within: float = 60.0) -> None:
        """Let time pass until this frame is sent."""
        seen = len(self.sent)
        until = self.t + within
        while frame not in self.sent[seen:]:
            deadline = self.session.deadline
            assert deadline is not None, f"{frame} was not sent: {self.sent}"
            assert deadline <= until, f"{frame} was not sent: {self.sent}"
            self.t = max(self.t, deadline)
            self.did(self.session.tick(self.now))

    def all(self, kind: type[T]) -> list[T]:
        return [action for action in self.actions if isinstance(action, kind)]

    @property
    def sent(self) -> list[str]:
        return [action.text for action in self.all(Send)]

    @property
    def over(self) -> Over:
        (over,) = self.all(Over)
        return over

    @property
    def ignored(self) -> list[str]:
        return [action.reason for action in self.all(Ignored)]

    def state(self, name: str) -> str:
        return next((a.state for a in reversed(self.all(Changed)) if a.condition == name), "disconnected")

    def cause(self, name: str) -> str:
        return next(a.cause for a in reversed(self.all(Changed)) if a.condition == name)

    def log_in(self) -> None:
        self.open()
        self.hear(LOGIN_OK)

    def listed(self, frame: str = LIST) -> None:
        self.log_in()
        self.wait_for('{"trnm":"CNSRLST"}')
        self.hear(frame)


def request(seq: str) -> str:
    return f'{{"trnm":"CNSRREQ","seq":"{seq}","search_type":"1","stex_tp":"K"}}'


def clear(seq: str) -> str:
    return f'{{"trnm":"CNSRCLR","seq":"{seq}"}}'


def reply(seq: str, *codes: str) -> str:
    rows = [{"jmcode": f"A{code}"} for code in codes] or None
    return json.dumps({"trnm": "CNSRREQ", "seq": seq, "return_code": 0, "data": rows})


def refusal(code: int, message: str, **more: Any) -> str:
    return json.dumps({"trnm": "CNSRREQ", "return_code": code, "return_msg": message} | more)


def real(*entries: tuple[str, str, str]) -> str:
    rows = [
        {"values": {"841": seq, "9001": code, "843": action, "20": "093000"}, "type": "02", "item": code}
        for seq, code, action in entries
    ]
    return json.dumps({"trnm": "REAL", "data": rows})


def conditions(*pairs: tuple[str, str]) -> str:
    return json.dumps({"trnm": "CNSRLST", "return_code": 0, "data": [list(pair) for pair in pairs]})


def told(talk: Talk) -> list[Any]:
    """What would be published, in order: snapshots as their codes, entries as (code, action)."""
    return [
        set(action.codes) if isinstance(action, Snapshot) else (action.code, action.action)
        for action in talk.actions
        if isinstance(action, Snapshot | Entry)
    ]


def live(*names: str, **arguments: Any) -> Talk:
    talk = Talk(*names, **arguments)
    talk.listed()
    seqs = {"test1": "0", "순위": "1", "신용융자E군": "2", "CCI": "3"}
    for name in names:
        talk.wait_for(request(seqs[name]))
        talk.hear(reply(seqs[name], "005930"))
    return talk


# --- the sequence


def test_the_whole_sequence_makes_a_condition_live() -> None:
    talk = live("순위")
    assert talk.sent == ['{"trnm":"LOGIN","token":"SECRET"}', '{"trnm":"CNSRLST"}', request("1")]
    assert [c.state for c in talk.all(Changed)] == ["listing", "requested", "live"]
    assert [c.state for c in talk.all(SessionChanged)] == ["login", "listing", "live"]
    (snapshot,) = talk.all(Snapshot)
    assert (snapshot.condition, snapshot.seq, snapshot.codes) == ("순위", "1", ("005930",))


def test_nothing_is_sent_until_some_time_after_the_login_reply() -> None:
    talk = Talk("순위")
    talk.log_in()
    talk.wait(1.49)
    assert len(talk.sent) == 1
    talk.wait(0.02)
    assert talk.sent[1:] == ['{"trnm":"CNSRLST"}']


def test_requests_are_spaced() -> None:
    talk = Talk("test1", "순위", "CCI")
    talk.listed()
    times = []
    for seq in "013":
        talk.wait_for(request(seq))
        times.append(talk.t)
        talk.hear(reply(seq))
    assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([0.35, 0.35])


def test_stex_tp_can_be_left_out() -> None:
    talk = Talk("순위", stex_tp="")
    talk.listed()
    talk.wait_for('{"trnm":"CNSRREQ","seq":"1","search_type":"1"}')


def test_the_login_reply_need_not_be_the_first_frame() -> None:
    talk = Talk("순위")
    talk.open()
    talk.hear('{"trnm":"SYSTEM","code":"N001","message":"장 시작 전"}')
    talk.hear(PING)
    talk.hear(LOGIN_OK)
    talk.wait_for('{"trnm":"CNSRLST"}')
    assert talk.all(Notice) == [Notice(code="N001", message="장 시작 전")]


def test_an_empty_snapshot_is_a_live_condition() -> None:
    talk = Talk("순위")
    talk.listed()
    talk.wait_for(request("1"))
    talk.hear('{"trnm":"CNSRREQ","seq":"1","return_code":0,"data":null}')
    assert (talk.state("순위"), told(talk)) == ("live", [set()])


def test_replies_find_their_condition_by_seq_and_not_by_order() -> None:
    talk = Talk("test1", "순위")
    talk.listed()
    talk.wait_for(request("0"))
    talk.wait_for(request("1"))
    talk.hear(reply("1 ", "000001"))
    talk.hear(reply("0", "000002"))
    assert [(s.condition, s.codes) for s in talk.all(Snapshot)] == [("순위", ("000001",)), ("test1", ("000002",))]


# --- PING and SYSTEM


@pytest.mark.parametrize("ping", [PING, '{ "trnm" : "PING", "extra":"x" }'])
def test_a_ping_is_echoed_verbatim_before_anything_else(ping: str) -> None:
    talk = live("순위")
    assert talk.hear(ping)[0] == Send(text=ping)


def test_a_ping_is_echoed_even_while_sends_are_paced() -> None:
    talk = Talk("순위")
    talk.open()
    assert talk.hear(PING)[0] == Send(text=PING)


def test_a_ping_answers_nothing() -> None:
    talk = Talk("순위")
    talk.listed()
    talk.wait_for(request("1"))
    talk.hear(PING)
    assert talk.state("순위") == "requested"
    talk.hear(reply("1"))
    assert talk.state("순위") == "live"


def test_a_system_frame_is_never_echoed() -> None:
    talk = live("순위")
    talk.hear('{"trnm":"SYSTEM","code":"N002","message":"공지"}')
    assert not [a for a in talk.last if isinstance(a, Send)]
    assert not talk.session.over


def test_another_login_displaces_us_for_good() -> None:
    talk = live("순위", "CCI")
    talk.hear(
        '{"trnm":"SYSTEM","code":"R10001","message":"동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"}'
    )
    assert talk.over.why == "displaced"
    assert talk.over.cause.startswith("R10001 동일한")
    assert (talk.state("순위"), talk.state("CCI")) == ("displaced", "displaced")
    assert talk.session.deadline is None


@pytest.mark.parametrize("code", ["R10002", "R10004"])
def test_other_disconnections_lead_to_a_new_connection(code: str) -> None:
    talk = live("순위")
    talk.hear(f'{{"trnm":"SYSTEM","code":"{code}","message":"…"}}')
    assert (talk.over.why, talk.state("순위")) == ("lost", "disconnected")


def test_silence_of_ping_ends_the_connection() -> None:
    talk = live("순위")
    talk.hear(PING)
    talk.wait(34.9)
    assert not talk.session.over
    talk.wait(0.2)
    assert (talk.over.why, talk.over.cause) == ("lost", "no PING for 35 s")


def test_a_quiet_condition_is_not_a_dead_connection() -> None:
    talk = live("순위")
    answered = len(talk.sent)
    for _ in range(60):
        for _ in range(10):
            talk.wait(1)
            for frame in talk.sent[answered:]:
                if frame == '{"trnm":"CNSRLST"}':
                    talk.hear(LIST)
                elif '"search_type":"0"' in frame:
                    talk.hear('{"trnm":"CNSRREQ","seq":"1","cont_yn":"N","return_code":0,"data":[{"9001":"A005930"}]}')
            answered = len(talk.sent)
        talk.hear(PING)
    assert (talk.state("순위"), talk.session.over) == ("live", False)
    assert (talk.sent.count(request("1")), talk.sent.count('{"trnm":"LOGIN","token":"SECRET"}')) == (1, 1)


# --- LOGIN and CNSRLST that go wrong


def test_an_unanswered_login_ends_the_connection() -> None:
    talk = Talk("순위")
    talk.open()
    talk.wait(10)
    assert talk.over.why == "lost"
    assert "LOGIN" in talk.over.cause


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (
            '{"trnm":"LOGIN","return_code":805004,"return_msg":"토큰 인증에 실패했습니다. 접속을 종료합니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]"}',
            "token",
        ),
        ('{"trnm":"LOGIN","return_code":3,"return_msg":"인증에 실패했습니다[8031:…]"}', "token"),
        ('{"trnm":"LOGIN","return_code":1,"return_msg":"안 됩니다"}', "refused"),
        ('{"trnm":"LOGIN"}', "refused"),
    ],
)
def test_a_refused_login_says_whether_a_new_token_is_worth_a_try(frame: str, why: str) -> None:
    talk = Talk("순위")
    talk.open()
    talk.hear(frame)
    assert talk.over.why == why
    assert talk.all(SessionChanged)[-1].state == "refused"


def test_an_unanswered_list_ends_the_connection() -> None:
    talk = Talk("순위")
    talk.log_in()
    talk.wait(7)
    assert talk.over.why == "lost"
    assert "CNSRLST" in talk.over.cause


def test_a_refused_list_is_asked_for_again_and_then_ends_the_connection() -> None:
    talk = Talk("순위")
    talk.log_in()
    for _ in range(3):
        talk.wait_for('{"trnm":"CNSRLST"}')
        talk.hear('{"trnm":"CNSRLST","return_code":105110,"return_msg":"초과"}')
    assert talk.over.why == "lost"


def test_a_half_readable_list_is_no_list() -> None:
    talk = Talk("CCI")
    talk.log_in()
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear('{"trnm":"CNSRLST","return_code":0,"data":[["0","test1"],["1"]]}')
    assert talk.state("CCI") == "listing"
    talk.wait_for('{"trnm":"CNSRLST"}')


# --- names and seqs


def test_a_condition_that_is_not_there_is_missing_and_the_others_live() -> None:
    talk = Talk("없음", "CCI")
    talk.listed()
    assert talk.state("없음") == "missing"
    assert talk.cause("없음") == "the account has no condition named 없음; it has: test1, 순위, 신용융자E군, CCI"
    talk.wait_for(request("3"))


def test_a_missing_condition_is_found_once_it_is_there() -> None:
    talk = Talk("없음")
    talk.listed()
    for _ in range(5):
        talk.wait(10)
        talk.hear(PING)
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear(conditions(("9", "없음")))
    talk.wait_for(request("9"))


def test_two_conditions_of_one_name_need_a_seq() -> None:
    twice = conditions(("1", "돌파"), ("2", "돌파"))
    talk = Talk("돌파")
    talk.listed(twice)
    assert talk.state("돌파") == "refused"
    assert "set seq" in talk.cause("돌파")
    talk = Talk(wanted=[Wanted("돌파", "2")])
    talk.listed(twice)
    talk.wait_for(request("2"))


def test_a_seq_that_now_means_another_condition_is_not_asked_for() -> None:
    talk = Talk(wanted=[Wanted("CCI", "1")])
    talk.listed()
    assert talk.state("CCI") == "missing"
    assert "seq 1 is now 순위" in talk.cause("CCI")


def test_a_name_typed_with_decomposed_hangul_is_the_same_name() -> None:
    talk = Talk("\u1109\u116e\u11ab\u110b\u1171")
    talk.listed()
    talk.wait_for(request("1"))


def test_swapped_numbers_are_cleared_before_they_are_asked_for_anew() -> None:
    talk = live("test1", "순위")
    talk.hear(conditions(("0", "순위"), ("1", "test1")))
    talk.wait(3)
    assert set(talk.sent[-4:-2]) == {clear("0"), clear("1")}
    assert set(talk.sent[-2:]) == {request("0"), request("1")}


# --- refusals


def test_an_already_registered_condition_is_cleared_and_asked_for_once() -> None:
    talk = Talk("CCI", "순위")
    talk.listed()
    talk.wait_for(request("3"))
    talk.wait_for(request("1"))
    talk.hear('{"trnm":"CNSRREQ","return_code":900003,"return_msg":"이미 등록된 조건검색 일련번호입니다.(seq=3)"}')
    talk.wait_for(clear("3"))
    cleared = talk.t
    talk.wait_for(request("3"))
    assert talk.t - cleared == pytest.approx(0.4)
    talk.hear(reply("3", "005930"))
    assert talk.state("CCI") == "live"


def test_a_condition_that_stays_registered_is_refused_and_asked_again_later() -> None:
    talk = Talk("CCI")
    talk.listed()
    for _ in range(2):
        talk.wait_for(request("3"))
        talk.hear(refusal(900003, "이미 등록된 조건검색 일련번호입니다.(seq=3)"))
    assert talk.state("CCI") == "refused"
    seen = len(talk.sent)
    talk.wait(20)
    talk.hear(PING)
    assert talk.sent[seen:] == [PING]
    for _ in range(3):
        talk.wait(14)
        talk.hear(PING)
    assert talk.sent[-2:].count(PING) < 2
    assert clear("3") in talk.sent[seen:]


def test_an_unknown_seq_is_looked_up_again_by_name() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(refusal(900004, "존재하지 않는 일련번호입니다.(seq=3)"))
    assert talk.state("CCI") == "listing"
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear(conditions(("8", "CCI")))
    talk.wait_for(request("8"))
    talk.hear(reply("8"))
    assert talk.state("CCI") == "live"


def test_too_many_requests_slow_us_down() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    before = talk.t
    talk.hear(refusal(105110, "해당 TRNM으로 허용된 요청 건수를 초과하였습니다 (TRNM=CNSRREQ)"))
    talk.wait_for(request("3"))
    assert talk.t - before >= 2
    talk.hear(reply("3"))
    assert talk.state("CCI") == "live"


def test_another_refusal_is_shown_with_its_text() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(refusal(900099, "권한이 없습니다", seq="3"))
    assert (talk.state("CCI"), talk.cause("CCI")) == ("refused", "900099 권한이 없습니다")


# --- silence


def test_an_unanswered_request_is_cleared_and_asked_again() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.wait_for(clear("3"))
    assert talk.state("CCI") == "unanswered"
    talk.wait_for(request("3"))
    talk.hear(reply("3", "005930"))
    assert talk.state("CCI") == "live"


def test_three_silent_tries_lead_to_the_list_and_then_to_a_new_connection() -> None:
    talk = Talk("CCI")
    talk.listed()
    began = talk.t
    for _ in range(3):
        talk.wait_for(request("3"))
        talk.wait(3)
        talk.hear(PING)
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear(LIST)
    assert (talk.over.why, talk.over.condition) == ("lost", "CCI")
    assert talk.t - began < 45


def test_a_condition_that_cost_a_connection_costs_the_others_no_second_one() -> None:
    talk = live("순위", patient=frozenset({"CCI"}), wanted=[Wanted("CCI")])
    for _ in range(3):
        talk.wait_for(request("3"), within=20)
        talk.wait(3)
        talk.hear(PING)
    talk.wait_for('{"trnm":"CNSRLST"}')
    talk.hear(LIST)
    assert not talk.session.over
    assert (talk.state("순위"), talk.state("CCI")) == ("live", "unanswered")
    for _ in range(5):
        talk.wait(10)
        talk.hear(PING)
    talk.wait_for(request("3"), within=20)


def test_a_late_reply_is_a_reply_if_the_clear_has_not_gone() -> None:
    talk = Talk("CCI", "순위", timing=Timing(send_spacing=1.0))
    talk.listed()
    talk.wait_for(request("3"))
    talk.wait_for(request("1"))
    talk.wait(4.0)  # CCI has just been given up; its CNSRCLR goes out in the same moment
    talk.hear(reply("3", "005930"))
    assert told(talk) == [{"005930"}]
    talk.wait_for(request("3"))
    talk.hear(reply("3", "005930"))
    assert talk.state("CCI") == "live"


def test_a_reply_nobody_asked_for_is_ignored() -> None:
    talk = live("순위")
    talk.hear(reply("1", "000660"))
    talk.hear(reply("3", "000660"))
    assert talk.ignored == ["unasked-reply", "unasked-reply"]
    assert told(talk) == [{"005930"}]


def test_an_incomplete_reply_is_no_snapshot() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear('{"trnm":"CNSRREQ","seq":"3","return_code":0,"cont_yn":"Y","next_key":"1","data":[{"jmcode":"A005930"}]}')
    assert (told(talk), talk.state("CCI")) == ([], "unanswered")
    talk.wait_for(request("3"))


# --- entries and snapshots


def test_entries_before_the_reply_follow_the_snapshot() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(real(("3", "000660", "I"), ("3", "005930", "D")))
    assert told(talk) == []
    talk.hear(reply("3", "005930"))
    assert told(talk) == [{"005930"}, ("000660", "hit"), ("005930", "exit")]


def test_a_snapshot_says_when_its_request_was_sent() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    sent_at = talk.now.at
    talk.wait(2)
    talk.hear(reply("3"))
    (snapshot,) = talk.all(Snapshot)
    assert (snapshot.requested_at, snapshot.received_at) == (sent_at, sent_at + timedelta(seconds=2))


@pytest.mark.parametrize("end", ["refused", "unanswered", "closed", "displaced", "clear"])
def test_held_entries_are_told_whatever_becomes_of_the_request(end: str) -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(real(("3", "000660", "I")))
    match end:
        case "refused":
            talk.hear(refusal(900099, "…", seq="3"))
        case "unanswered":
            talk.wait(5.1)
        case "closed":
            talk.did(talk.session.closed("1006", talk.now))
        case "displaced":
            talk.hear('{"trnm":"SYSTEM","code":"R10001","message":""}')
        case "clear":
            talk.did(talk.session.clear(talk.now))
    assert told(talk) == [("000660", "hit")]


def test_a_late_snapshot_knows_what_was_told_before_it() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(real(("3", "000660", "I"), ("3", "005930", "D")))
    talk.wait(5.0)
    talk.hear(reply("3", "005930", "035720"))
    assert told(talk) == [("000660", "hit"), ("005930", "exit"), {"000660", "035720"}]


def test_other_conditions_go_on_while_one_is_held() -> None:
    talk = Talk("CCI", "순위")
    talk.listed()
    talk.wait_for(request("3"))
    talk.wait_for(request("1"))
    talk.hear(reply("1"))
    talk.hear(real(("3", "000660", "I"), ("1", "000660", "I")))
    assert [(e.condition, e.entry) for e in talk.all(Entry)] == [("순위", 2)]


def test_entries_carry_where_they_stood() -> None:
    talk = live("CCI")
    talk.hear(real(("3", "000660", "I"), ("3", "000660", "D")))
    # LOGIN, CNSRLST and CNSRREQ were answered by frames 1 to 3.
    assert [(e.frame, e.entry, e.time) for e in talk.all(Entry)] == [(4, 1, "093000"), (4, 2, "093000")]


def test_the_seq_of_an_entry_is_honoured() -> None:
    talk = live("CCI")
    talk.hear(real(("1", "000660", "I"), ("77", "000660", "I"), ("3", "000660", "I")))
    assert talk.ignored == ["not-subscribed", "unknown-seq"]
    assert told(talk)[1:] == [("000660", "hit")]


def test_snapshot_rows_are_no_hits() -> None:
    assert not live("CCI").all(Entry)


@pytest.mark.parametrize("frame", ["garbage", "[]", '{"trnm":"X"}', "", '{"trnm":"REAL","data":null}', "\x00"])
def test_garbage_changes_nothing(frame: str) -> None:
    talk = live("CCI")
    before = talk.session.deadline
    actions = talk.hear(frame)
    assert all(isinstance(action, Ignored | Traced) for action in actions)
    assert talk.session.deadline == before


# --- the end


def test_leaving_clears_every_condition_paced_and_then_ends() -> None:
    talk = live("CCI", "순위")
    talk.wait(5)
    talk.did(talk.session.clear(talk.now))
    talk.wait(0.4)
    assert talk.sent[-2:] == [clear("3"), clear("1")]
    assert not talk.session.over
    for seq in "31":
        talk.hear(f'{{"trnm":"CNSRCLR","seq":"{seq}","return_code":0,"return_msg":"정상종료되었습니다."}}')
    assert talk.over.why == "stopped"


def test_leaving_does_not_wait_for_ever_for_the_answer() -> None:
    talk = live("CCI")
    talk.wait(5)
    talk.did(talk.session.clear(talk.now))
    talk.wait(1.1)
    assert talk.over.why == "stopped"


def test_what_comes_while_leaving_is_still_told() -> None:
    talk = live("CCI")
    talk.did(talk.session.clear(talk.now))
    talk.hear(real(("3", "000660", "I")))
    assert told(talk)[-1] == ("000660", "hit")
    assert talk.hear(PING)[0] == Send(text=PING)


def test_leaving_before_anything_was_asked_ends_at_once() -> None:
    talk = Talk("CCI")
    talk.open()
    talk.did(talk.session.clear(talk.now))
    assert talk.over.why == "stopped"


def test_a_session_that_is_over_says_nothing_more() -> None:
    talk = live("CCI")
    talk.did(talk.session.closed("1000 Bye", talk.now))
    assert (talk.over.why, talk.over.cause) == ("lost", "1000 Bye")
    assert not [a for a in talk.hear(PING) if isinstance(a, Send)]
    talk.hear(real(("3", "000660", "I")))
    assert talk.ignored[-1] == "session-over"
    assert talk.did(talk.session.tick(talk.now)) == talk.did(talk.session.closed("", talk.now)) == []


# --- the journal's hook


def test_every_frame_is_traced_with_its_number_and_the_token_masked() -> None:
    talk = live("CCI")
    traced = talk.all(Traced)
    assert [(t.direction, t.number) for t in traced] == [
        ("out", 1), ("in", 1), ("out", 2), ("in", 2), ("out", 3), ("in", 3),
    ]  # fmt: skip
    assert traced[0].text == '{"trnm":"LOGIN","token":"***"}'
    assert not any("SECRET" in t.text for t in traced)


def test_a_token_that_kiwoom_quotes_goes_no_further() -> None:
    talk = live("CCI")
    talk.hear('{"trnm":"SYSTEM","code":"N00001","message":"token=SECRET"}')
    talk.hear('{"trnm":"SYSTEM","code":"R10004","message":"token=SECRET"}')
    assert talk.over.cause == "R10004 token=***"
    refused = Talk("CCI")
    refused.open()
    refused.hear('{"trnm":"LOGIN","return_code":805004,"return_msg":"[CODE=8005, MESSAGE=Token SECRET]"}')
    assert refused.over.cause == "LOGIN was refused: [CODE=8005, MESSAGE=Token ***]"
    kept = [action for action in talk.actions + refused.actions if not isinstance(action, Send)]
    assert "SECRET" not in repr(kept)


def test_the_reply_to_somebody_elses_search_is_not_taken_for_a_snapshot() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.did(talk.session.ask(search := '{"trnm":"CNSRREQ","seq":"3","search_type":"0"}', talk.now))
    talk.wait_for(search)
    talk.hear('{"trnm":"CNSRREQ","seq":"3","return_code":0,"cont_yn":"N","next_key":"","data":[{"9001":"A005930"}]}')
    assert (told(talk), talk.state("CCI")) == ([], "requested")
    talk.hear('{"trnm":"CNSRREQ","seq":"3","return_code":0,"data":[{"jmcode":"A000660"}]}')
    assert talk.state("CCI") == "live"


def test_an_audit_goes_on_when_somebody_elses_search_is_answered_no_more() -> None:
    talk = live("CCI", timing=Timing(audit_after=20.0))
    talk.did(talk.session.ask(search := '{"trnm":"CNSRREQ","seq":"3","search_type":"0"}', talk.now))
    talk.wait_for(search)
    asked = talk.t
    talk.wait(29.0)
    assert talk.sent[-1] == search
    talk.wait_for('{"trnm":"CNSRREQ","seq":"3","search_type":"0","stex_tp":"K","cont_yn":"N","next_key":""}')
    assert talk.t == asked + 30.0


def test_a_registration_that_a_question_finds_lost_is_made_anew() -> None:
    talk = Talk("CCI")
    talk.listed()
    talk.wait_for(request("3"))
    talk.hear(reply("3", "005930"))
    talk.did(talk.session.ask(request("3"), talk.now))
    talk.wait_for(request("3"))
    talk.hear(refusal(900003, "이미 등록된 조건검색 일련번호입니다.(seq=3)"))
    assert talk.state("CCI") == "live"
    talk.did(talk.session.ask(request("3"), talk.now))
    talk.wait_for(request("3"))
    talk.hear(reply("3", "000660"))
    assert (talk.state("CCI"), talk.cause("CCI")) == ("requested", "its registration was lost")
    talk.wait_for(clear("3"))
    talk.wait_for(request("3"))
    talk.hear(reply("3", "000660"))
    assert talk.state("CCI") == "live"
