"""How a diagnosis looks: the same words on a terminal and in a pipe, and only a terminal is told what is waited for."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from deploy.doctor_view import View
from producers.kiwoom.doctor import Ask, Finding, Listen, Verdict
from producers.kiwoom.examination import Examination, Shown

FINDING = Shown(
    after=5.0, finding=Finding(stage="list", ok=False, words="list-silent", facts={"took": 5.0, "pings": 1})
)
VERDICT = Verdict(
    cause="module-down", sure="possible", number=12, also=("rights-withdrawn",), ruled_out=("burst",), surer="fresh"
)


def printed(language: Any, *, terminal: bool, verdict: Verdict = VERDICT, stranded: int = 0) -> str:
    file = io.StringIO()
    view = View(Console(file=file, force_terminal=terminal, width=200, highlight=False), language)
    view.begins(borrowed=True)
    view.step(Ask(text='{"trnm":"CNSRREQ","seq":"4","search_type":"1"}', within=5.0))
    view.step(Listen(seconds=0.1))
    view.found(FINDING)
    done = Examination(
        at=datetime(2026, 3, 9, tzinfo=UTC), seconds=5.2, borrowed=True, findings=(FINDING,), verdict=verdict, frames=()
    )
    view.concludes(done, None, stranded=stranded)
    view.close()
    return Text.from_ansi(file.getvalue()).plain


@pytest.mark.parametrize("terminal", [True, False])
def test_the_verdict_is_said_with_how_sure_it_is_and_what_would_decide(terminal: bool) -> None:
    told = printed("en", terminal=terminal)
    assert "✗ Server's condition module is down – possible  [module-down (#12), in 5 s]" in told
    assert "To be sure: `hitstream doctor --fresh` decides" in told
    assert "It could also be: Right or conditions withdrawn (11)" in told
    assert "Ruled out: Requests too fast (2)" in told
    korean = printed("ko", terminal=terminal)
    assert "✗ 서버 조건검색 모듈 무응답 – 가능성" in korean
    assert "확정하려면: `hitstream doctor --fresh`로 확정할 수 있습니다." in korean


def test_only_a_terminal_is_told_what_is_waited_for() -> None:
    assert "CNSRREQ seq 4 type 1 응답 대기, 최대 5초" in printed("ko", terminal=True)
    assert "응답 대기" not in printed("ko", terminal=False)


def test_what_is_sure_and_good_needs_no_more_words() -> None:
    told = printed("en", terminal=False, verdict=Verdict(cause="healthy", sure="proved"))
    assert "✓ Kiwoom's side works – proved" in told
    assert "Kafka" not in told
    assert "To be sure" not in told
    assert "Ruled out" not in told


@pytest.mark.parametrize("terminal", [True, False])
def test_a_good_verdict_beside_a_dead_kafka_does_not_read_as_everything(terminal: bool) -> None:
    good = Verdict(cause="healthy", sure="proved")
    told = printed("en", terminal=terminal, verdict=good, stranded=1_234)
    assert "✓ Kiwoom's side works – proved" in told
    assert "✗ 1,234 records wait on the disk for Kafka, which takes none: `hitstream status` says more" in told
    korean = printed("ko", terminal=terminal, verdict=good, stranded=1_234)
    assert "✓ 키움 쪽은 정상 – 확인됨" in korean
    assert "✗ 기록 1,234건이 디스크에서 Kafka를 기다리고 있습니다" in korean
