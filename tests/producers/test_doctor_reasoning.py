"""The reasoning alone: whatever comes back, it ends with one verdict that has words in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.kiwoom import verdicts
from producers.kiwoom.doctor import (
    GOOD,
    NUMBERS,
    Ask,
    Case,
    Cause,
    Finding,
    Listen,
    Login,
    Outcome,
    Seen,
    Surer,
    Token,
    Verdict,
    diagnose,
    exchanges,
)

LOGIN_OK = '{"trnm":"LOGIN","return_code":0}'
REFUSED = '{"trnm":"LOGIN","return_code":805004,"return_msg":"[CODE=8005, MESSAGE=x]"}'
LISTED = '{"trnm":"CNSRLST","return_code":0,"data":[["4","돌파"],["7","눌림목"]]}'
MOST_STEPS = 500


def reply(seq: str, code: int = 0, **more: Any) -> str:
    return json.dumps({"trnm": "CNSRREQ", "seq": seq, "return_code": code, "data": None} | more)


def request(seq: str, kind: str = "1") -> str:
    return json.dumps({"trnm": "CNSRREQ", "seq": seq, "search_type": kind, "stex_tp": "K"})


def log(*frames: tuple[float, str, str]) -> tuple[Seen, ...]:
    return tuple(Seen(t, "out" if way == ">" else "in", text) for t, way, text in frames)


REPLIES = [
    '{"trnm":"PING"}',
    LOGIN_OK,
    REFUSED,
    LISTED,
    '{"trnm":"CNSRLST","return_code":0,"data":[]}',
    '{"trnm":"CNSRLST","return_code":9,"return_msg":"x"}',
    reply("4"),
    reply("7"),
    reply("4", data=[{"jmcode": "A005930"}]),
    reply("4", data=[{"9001": "A005930", "10": "100"}], cont_yn="N"),
    reply("", 900003, return_msg="(seq=4)"),
    reply("", 900004, return_msg="(seq=7)"),
    reply("", 105110),
    reply("7", 900099),
    '{"trnm":"CNSRCLR","seq":"4","return_code":0}',
    '{"trnm":"SYSTEM","code":"R10001","message":"x"}',
    '{"trnm":"SYSTEM","code":"R10002","message":"x"}',
    '{"trnm":"SYSTEM","code":"N1","message":"x"}',
    '{"trnm":"REAL","data":[{"type":"02","values":{"841":"4","9001":"005930","843":"I","20":"090000"}}]}',
    '{"trnm":"REAL","data":null}',
    "{",
]
ERRORS: list[Any] = ["", "", "", "token-refused", "maintenance", "rate-limited", "unreachable"]
OUTCOMES = st.builds(
    lambda texts, error, ended: (texts, error, ended),
    st.lists(st.sampled_from(REPLIES), max_size=4),
    st.sampled_from(ERRORS),
    st.sampled_from([""] * 8 + ["closed by Kiwoom (1000 Bye)"]),
)
CASES = st.builds(
    Case,
    wanted=st.sampled_from([(), (("돌파", ""),), (("돌파", "9"), ("눌림목", ""))]),
    only=st.sampled_from(["", "", "돌파", "없음"]),
    stex_tp=st.sampled_from(["K", ""]),
    problems=st.sampled_from([(), (), (), ("x is not set",)]),
    history=st.lists(
        st.builds(
            Seen,
            st.floats(0, 100),
            st.sampled_from(["in", "in", "out"]),
            st.sampled_from([*REPLIES, request("4"), request("7", "0"), request("9 ")]),
        ),
        max_size=8,
    ).map(tuple),
    connected=st.booleans(),
    borrowed=st.booleans(),
    complaints=st.sampled_from([{}, {"돌파": "unanswered"}]),
    hours=st.sampled_from(["open", "before", "closed"]),
    up_to_list=st.booleans(),
    second_key=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(CASES, st.lists(OUTCOMES, min_size=1, max_size=40))
def test_whatever_comes_back_there_is_one_verdict_with_words(case: Case, answers: list[Any]) -> None:
    diagnosis, t = diagnose(case), 200.0
    step: Any = next(diagnosis)
    for number in range(MOST_STEPS):
        t += 1.0
        if isinstance(step, Finding):
            assert all(verdicts.said(step, language) for language in get_args(verdicts.Language))
            outcome = Outcome()
        else:
            texts, error, ended = answers[number % len(answers)]
            if isinstance(step, Token) and not error:
                outcome = Outcome(seconds=0.1)
            else:
                sent = [Seen(t, "out", step.text)] if isinstance(step, Ask) else []
                frames = (*sent, *(Seen(t + 0.1, "in", text) for text in texts))
                if isinstance(step, Ask | Login):
                    error = ""
                outcome = Outcome(frames=frames, seconds=0.1, error=error, ended=ended)
        try:
            step = diagnosis.send(outcome)
        except StopIteration as end:
            verdict: Verdict = end.value
            break
    else:
        pytest.fail("it does not end")
    for language in get_args(verdicts.Language):
        assert verdicts.wrong(verdict, language)
        assert verdicts.remedy(verdict, language)
    assert verdict.number == NUMBERS.get(verdict.cause, 0)
    assert verdict.cause not in verdict.ruled_out


def test_every_cause_has_advice_and_each_of_the_twelve_a_number() -> None:
    assert set(verdicts.ADVICE) == set(verdicts.TITLES) == set(get_args(Cause))
    assert set(verdicts.SURER) == set(get_args(Surer))
    assert set(NUMBERS.values()) == set(range(1, 13))
    assert not GOOD & set(NUMBERS)


def test_the_page_calls_a_verdict_what_the_command_calls_it() -> None:
    words = (Path(__file__).parents[2] / "sinks/live/web/src/lib/words.ts").read_text(encoding="utf-8")
    korean, english = re.findall(r"\n  verdict: \{\n(.*?)\n  \}", words, re.DOTALL)
    for block, language in ((korean, "ko"), (english, "en")):
        told = dict(re.findall(r'^ +"?([a-z-]+)"?: "(.*)",$', block, re.MULTILINE))
        assert told == {cause: verdicts.title(cause, language) for cause in verdicts.TITLES}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "cause"),
    [
        (log((0, ">", request("4"))), "no-list"),
        (log((0, "<", LISTED), (1, ">", request("4")), (1.1, "<", reply("4")), (2, ">", request("4"))),
         "registered-already"),
        (log((0, "<", LOGIN_OK), (0.1, "<", LISTED), (0.2, ">", request("4"))), "burst"),
        (log((0, "<", LISTED), (1, ">", request("9"))), "stale-seq"),
        (log((0, "<", LISTED), (1, ">", request("4")), (1.1, "<", reply("4")), (3, ">", request("7"))),
         "one-condition"),
        (log((0, "<", LISTED), (9, ">", request("4")), (19, ">", request("7"))), "module-down"),
        (log((0, "<", LISTED), (9, "<", '{"trnm":"SYSTEM","code":"R10001","message":"x"}')), "displaced"),
        (log((0, "<", LISTED), (9, ">", request("4")), (9.1, "<", reply("4"))), "connection-lost"),
    ],
)  # fmt: skip
def test_a_record_alone_is_judged_too(history: tuple[Seen, ...], cause: str) -> None:
    diagnosis = diagnose(Case(history=history, connected=False))
    step: Any = next(diagnosis)
    verdict: Verdict | None = None
    while verdict is None:
        assert isinstance(step, Finding), "no other step is possible without a connection"
        try:
            step = diagnosis.send(Outcome())
        except StopIteration as end:
            verdict = end.value
    assert verdict.cause == cause


ASKS_LOGIN = (0.0, ">", '{"trnm":"LOGIN","token":"***"}')
ASKS_LIST = (0.2, ">", '{"trnm":"CNSRLST"}')


@pytest.mark.parametrize(
    ("history", "heard", "cause", "sure"),
    [
        (log(ASKS_LOGIN), [log((0.1, "<", REFUSED))], "token-refused", "proved"),
        (log(ASKS_LOGIN), [()], "login-silent", "likely"),
        (log(ASKS_LOGIN), [log((0.1, "<", LOGIN_OK), ASKS_LIST), ()], "list-silent", "likely"),
        (log(ASKS_LOGIN, (0.1, "<", LOGIN_OK), ASKS_LIST), [()], "list-silent", "likely"),
        (log(ASKS_LOGIN), [log((0.1, "<", LOGIN_OK), ASKS_LIST, (0.3, "<", LISTED))], "connection-lost", "likely"),
    ],
)
@pytest.mark.parametrize("ended", ["", "closed by Kiwoom"])
def test_what_a_producer_without_a_session_asks_just_now_is_given_time(
    history: tuple[Seen, ...], heard: list[tuple[Seen, ...]], cause: str, sure: str, ended: str
) -> None:
    """Looked at between its LOGIN and the answer, a producer that is refused over and over seems not to be answered."""
    diagnosis = diagnose(Case(history=history, connected=False, borrowed=True, session="disconnected", patience=7.0))
    step: Any = next(diagnosis)
    listened: list[float] = []
    verdict: Verdict | None = None
    while verdict is None:
        outcome = Outcome(refused=not isinstance(step, Token | Finding))
        if isinstance(step, Listen):
            listened.append(step.seconds)
            last = len(listened) == len(heard)
            outcome = Outcome(frames=heard[len(listened) - 1], ended=ended if last else "")
        try:
            step = diagnosis.send(outcome)
        except StopIteration as end:
            verdict = end.value
    assert listened == [7.0] * len(heard)
    assert verdict.cause == cause
    assert verdict.sure == ("proved" if ended and cause == "connection-lost" else sure)


@pytest.mark.parametrize(
    "history",
    [log(ASKS_LOGIN), log(ASKS_LOGIN, (0.1, "<", LOGIN_OK)), log(ASKS_LOGIN, (0.1, "<", LOGIN_OK), ASKS_LIST)],
)
@pytest.mark.parametrize("ended", ["", "CNSRLST was not answered within 5 s"])
def test_a_producer_whose_list_is_asked_for_just_now_is_not_asked_for_another(
    history: tuple[Seen, ...], ended: str
) -> None:
    """Else it would depend on whose patience ends first whether the list is proved to be silent, or likely."""
    case = Case(history=history, borrowed=True, session="listing", patience=7.0)

    def after(heard: tuple[Seen, ...], ended: str) -> Verdict | Ask:
        diagnosis = diagnose(case)
        step: Any = next(diagnosis)
        try:
            while not isinstance(step, Listen):
                assert isinstance(step, Finding)
                step = diagnosis.send(Outcome())
            assert step.seconds == 7.0
            step = diagnosis.send(Outcome(frames=heard, ended=ended))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        assert isinstance(step, Ask)
        return step

    heard = log((0.1, "<", LOGIN_OK), ASKS_LIST)[len(history) - 1 :]
    verdict = after(heard, ended)
    assert isinstance(verdict, Verdict)
    assert (verdict.cause, verdict.sure) == ("list-silent", "likely")
    assert isinstance(after((*heard, *log((0.3, "<", LISTED))), ""), Ask)


def test_replies_are_matched_by_number_and_kind_and_never_by_position() -> None:
    found = exchanges(
        log(
            (0, "<", LISTED),
            (1, ">", request("4")),
            (1.1, ">", request("7")),
            (1.2, ">", request("4", "0")),
            (1.3, "<", reply("7")),
            (1.31, "<", reply("4", data=[{"9001": "A005930"}])),
        )
    )
    assert [(e.asked.seq, e.asked.search_type, e.reply is not None) for e in found] == [
        ("4", "1", False),
        ("7", "1", True),
        ("4", "0", True),
    ]
