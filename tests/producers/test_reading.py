"""What of a topic can be read."""

from __future__ import annotations

import msgspec
import pytest

from producers.reading import decoded
from streams.events import ConditionRecord


@pytest.mark.parametrize(
    "value",
    [b"", b"{torn", b"[]", b'{"type":"nothing"}', b'{"type":"gap","account":"\xff"}', b'{"x":' + b"[" * 100_000],
)
def test_what_is_no_record_is_passed_over(value: bytes) -> None:
    """Anybody may write to a topic; what nobody can read ends no reading."""
    assert decoded(msgspec.json.Decoder(ConditionRecord), value) is None
