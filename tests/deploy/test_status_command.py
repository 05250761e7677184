"""The words of `hitstream status`: quiet is not dead, working is not stuck, and a standby's trouble is nobody's."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from rich.console import Console

from deploy.status_command import _view, judge
from streams.events import Status

NOW = datetime(2026, 3, 9, 1, 0, tzinfo=UTC)
Kind = Literal["session", "subscription", "worker", "sink", "diagnosis"]


def said(state: str, *, kind: Kind = "subscription", age: float = 1.0, producer: str = "p", **more: Any) -> Status:
    tail = "/돌파" if kind == "subscription" else ""
    return Status(
        component=f"{kind}/main/{producer}{tail}",
        kind=kind,
        state=state,
        since=NOW,
        at=NOW - timedelta(seconds=age),
        account="main",
        condition="돌파" if kind == "subscription" else "",
        **more,
    )


def working(
    *,
    proof: float | None,
    lag: float,
    kind: Kind = "sink",
    age: float = 1.0,
    state: str = "working",
    producer: str = "p",
) -> Status:
    """A role with `lag` records before it, which has shown `proof` seconds before it spoke that it gets on."""
    alive = None if proof is None else NOW - timedelta(seconds=age + proof)
    return said(state, kind=kind, age=age, producer=producer, proof_of_life=alive, figures={"lag": lag})


@pytest.mark.parametrize(
    ("status", "word", "fine"),
    [
        (said("live"), "live", True),
        (said("live", figures={"quiet": 59.0}), "live", True),
        (said("live", figures={"quiet": 600.0}), "quiet", True),
        (said("live", age=21.0), "silent", False),
        (said("live", age=21.0, figures={"quiet": 600.0}), "silent", False),
        (said("resting"), "resting", True),
        (said("unanswered"), "unanswered", False),
        (said("displaced", kind="session"), "displaced", False),
        (said("disconnected", cause="stopped", age=60.0), "disconnected", False),
        (said("healthy", kind="diagnosis", age=3600.0), "healthy", True),
        (said("module-down", kind="diagnosis", age=3600.0), "module-down", False),
        (said("missed", kind="diagnosis"), "missed", False),
        (working(proof=21.0, lag=3.0), "stuck", False),
        (working(proof=21.0, lag=3.0, kind="worker"), "stuck", False),
        (working(proof=19.0, lag=3.0), "working", True),
        (working(proof=600.0, lag=0.0), "working", True),
        (working(proof=None, lag=3.0), "working", True),
        (working(proof=600.0, lag=3.0, state="waiting"), "waiting", False),
        (working(proof=600.0, lag=3.0, age=21.0), "silent", False),
    ],
)
def test_a_component_is_called_what_it_is(status: Status, word: str, fine: bool) -> None:
    (line,) = judge([status], NOW)
    assert (line.word, line.fine) == (word, fine)


def test_where_one_of_two_producers_is_live_the_condition_is() -> None:
    lines = judge([said("live"), said("disconnected", producer="q", cause="stopped")], NOW)
    assert [line.fine for line in lines] == [True, True]
    assert [line.word for line in lines] == ["live", "disconnected"]


def test_what_said_nothing_for_days_is_forgotten() -> None:
    assert judge([said("live", age=90_000.0)], NOW) == []


def test_what_is_no_longer_configured_is_not_listed() -> None:
    assert judge([said("retired"), said("retired", kind="diagnosis")], NOW) == []


def test_age_is_in_real_seconds() -> None:
    (line,) = judge([said("live", age=600.0)], NOW, speed=60.0)
    assert (line.age, line.word) == (10.0, "live")


def test_progress_is_judged_in_real_seconds() -> None:
    (line,) = judge([working(proof=600.0, lag=3.0)], NOW, speed=60.0)
    assert (line.word, line.stalled) == ("working", 0.0)
    (line,) = judge([working(proof=1_500.0, lag=3.0)], NOW, speed=60.0)
    assert (line.word, line.stalled) == ("stuck", 25.0)


def test_a_stuck_process_is_not_made_fine_by_one_that_works() -> None:
    """It holds partitions that the other one does not get; one that has failed leaves them to it."""
    other = working(proof=0.0, lag=0.0, producer="q")
    assert [line.fine for line in judge([working(proof=60.0, lag=3.0), other], NOW)] == [False, True]
    assert [line.fine for line in judge([working(proof=60.0, lag=3.0, state="failed"), other], NOW)] == [True, True]


@pytest.mark.parametrize(
    ("korean", "words"),
    [
        (False, ("✗ stuck", "no progress for 60 s, lag 1,200", "✗ 1 in trouble")),
        (True, ("✗ 멈춰 있음", "60초째 진행 없음, 지연 1,200건", "✗ 1개 확인 필요")),
    ],
)
def test_a_stuck_role_is_told_with_how_long_and_how_much_waits(korean: bool, words: tuple[str, ...]) -> None:
    file = io.StringIO()
    lines = judge([working(proof=60.0, lag=1_200.0)], NOW)
    Console(file=file, width=200).print(_view(lines, NOW, korean=korean))
    for word in words:
        assert word in file.getvalue()


@pytest.mark.parametrize(("korean", "words"), [(False, "prices of 48 of 150 stocks"), (True, "시세 48/150종목")])
def test_a_session_tells_how_many_stocks_have_prices(korean: bool, words: str) -> None:
    file = io.StringIO()
    session = msgspec.structs.replace(
        said("live", kind="session"), cause="", figures={"slots_registered": 48.0, "slots_limit": 150.0}
    )
    Console(file=file, width=200).print(_view(judge([session], NOW), NOW, korean=korean))
    assert words in file.getvalue()


def test_a_kafka_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """Kafka's client says on its own what it tries in vain: a person is told once."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "status"],
        cwd=tmp_path,
        env={**os.environ, "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    assert "Kafka does not answer at 127.0.0.1:9" in sentence
