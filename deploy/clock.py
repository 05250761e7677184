"""The one clock that rules dates, holds and schedules in every role.

Market time runs from `start` at `speed` times real time, counted from the real moment `anchor`; without a `start` it
is the machine's own clock. Network time-outs never come from here: they stay real. Roles that must agree are given
the same three values.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings


class Clock:
    """Market time as a linear function of real time.

    Args:
        start: market time at `anchor`, timezone-aware; None means that market time is real time at `anchor`.
        speed: market seconds per real second, above 0.
        anchor: real moment (UTC) to which `start` belongs; None means now.
    """

    def __init__(self, start: datetime | None = None, speed: float = 1.0, anchor: datetime | None = None) -> None:
        self.speed = speed
        self.anchor = anchor or datetime.now(UTC)
        self.start = (start or self.anchor).astimezone(UTC)
        self._identity = speed == 1.0 and self.start == self.anchor

    def now(self) -> datetime:
        """Market time now, in UTC."""
        real = datetime.now(UTC)
        return real if self._identity else self.start + (real - self.anchor) * self.speed

    async def sleep_until(self, at: datetime) -> None:
        """Return when market time has reached `at`."""
        await asyncio.sleep(max(0.0, (at - self.now()).total_seconds() / self.speed))


def clock_of(settings: Settings) -> Clock:
    """The clock that the settings say."""
    return Clock(settings.clock.start, settings.clock.speed, settings.clock.anchor)
