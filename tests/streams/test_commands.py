"""What a person enters by hand: what is accepted, and what is refused with which sentence."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams import topics
from streams.commands import LEEWAY, refusal
from streams.events import KST, Command, Recommend, Withdraw, encode
from streams.lane import Unreadable, relay

AT = datetime(2026, 3, 2, 9, tzinfo=KST)
RECOMMEND = Recommend(id="kim-1", code="005930", by="kim", note="실적 발표", at=AT, expires_at=AT + timedelta(hours=1))
WITHDRAW = Withdraw(id="kim-2", code="0004V0", by="kim", at=AT)


@pytest.mark.parametrize("command", [RECOMMEND, WITHDRAW, msgspec.structs.replace(RECOMMEND, expires_at=None)])
def test_an_accepted_command_goes_unchanged_where_it_decides(command: Command) -> None:
    output = relay(encode(command), AT.astimezone(UTC))
    assert (output.topic, output.key, output.record) == (topics.TRANSITIONS.name, command.code.encode(), command)


@pytest.mark.parametrize(
    ("command", "changed", "sentence"),
    [
        (RECOMMEND, {"id": ""}, "needs an id"),
        (WITHDRAW, {"by": "  "}, "needs the name of who gives it"),
        (RECOMMEND, {"code": "5930"}, "'5930' is no stock code"),
        (WITHDRAW, {"code": "A005930"}, "'A005930' is no stock code"),
        (WITHDRAW, {"code": "005930\n"}, "is no stock code"),
        (RECOMMEND, {"account": ""}, "'' is no account"),
        (RECOMMEND, {"account": "main/신고가"}, "'main/신고가' is no account"),
        (RECOMMEND, {"expires_at": AT}, "expires .* before it begins"),
        (RECOMMEND, {"expires_at": AT - timedelta(hours=1)}, "expires .* before it begins"),
        (RECOMMEND, {"at": AT + LEEWAY + timedelta(seconds=1)}, "in the future"),
        (WITHDRAW, {"at": AT + timedelta(days=365)}, "in the future"),
    ],
)
def test_a_command_that_would_do_harm_is_refused(command: Command, changed: dict[str, Any], sentence: str) -> None:
    """It becomes a dead letter with this sentence; the log that decides never sees it."""
    with pytest.raises(Unreadable, match=f"^refused: .*{sentence}"):
        relay(encode(msgspec.structs.replace(command, **changed)), AT.astimezone(UTC))


def test_a_clock_that_is_a_little_ahead_is_no_reason_to_refuse() -> None:
    assert refusal(msgspec.structs.replace(WITHDRAW, at=AT + LEEWAY), AT) == ""


def test_without_a_clock_the_time_is_not_judged() -> None:
    assert refusal(msgspec.structs.replace(WITHDRAW, at=AT + timedelta(days=9))) == ""


def test_the_examples_on_the_page_are_accepted() -> None:
    """docs/rules.md shows one of each."""
    page = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    outputs = [relay(line.encode(), AT.replace(year=2027)) for line in block.splitlines()]
    assert [type(output.record) for output in outputs] == [Recommend, Withdraw]
