"""Ten real minutes without Kafka, and the figures of it. Run by `make soak`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from roles import Roles
from without_kafka import told

SECONDS = float(os.environ.get("HITSTREAM_TEST_AWAY", "600"))


async def test_ten_real_minutes(make_roles: Callable[..., Roles], broker: Any) -> None:
    figures = await told(make_roles(speed=1.0, activity=10.0), broker, seconds=SECONDS, say=print)
    print(
        f"{figures.away:.0f} s without Kafka, the producer killed half-way: {figures.heard:,} hits and exits heard,"
        f" {len(figures.lost)} lost, {figures.missed} in the recorded gap of the restart,"
        f" {figures.repeats} exact repeats; at most {figures.most_spooled / 1e6:.1f} MB on the disk,"
        f" sent within {figures.drained:.1f} s of its return"
    )
    assert figures.away >= SECONDS
    assert figures.lost == []
