"""What becomes of a record that the worker can't read or apply: its dead letter.

Pure. A poison record must neither stop its partition nor be lost, so nothing here may fail, whatever the record holds
or the error says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from .events import DeadLetter, dead_letter
from .lane import Unreadable

COMPONENT: Final = "stream"


def bury(record: Any, error: Exception, now: datetime) -> DeadLetter:
    """The dead letter of a Kafka record.

    Args:
        record: aiokafka's `ConsumerRecord`.
        error: why it could not be read or applied.
        now: the product's clock.
    """
    return dead_letter(
        component=COMPONENT,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        cause=error.cause if isinstance(error, Unreadable) else "failed",
        reason=_words(error),
        at=now.astimezone(UTC),
        headers=record.headers,
    )


def _words(error: Exception) -> str:
    """What an error says; a rule's own error class may fail even there."""
    try:
        said = str(error)
    except Exception:
        said = "its error can't be told"
    return said if isinstance(error, Unreadable) else f"{type(error).__name__}: {said}"
