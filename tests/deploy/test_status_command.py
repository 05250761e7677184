"""The words of `hitstream status`: quiet is not dead, and a standby's trouble is nobody's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from deploy.status_command import judge
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
