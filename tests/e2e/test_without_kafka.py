"""Ten minutes of market without Kafka, and a SIGKILL in the middle of them, lose nothing that was heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from roles import Roles
from without_kafka import told

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


async def test_ten_minutes_without_kafka_lose_nothing(make_roles: Callable[..., Roles], broker: Any) -> None:
    figures = await told(make_roles(speed=30.0, activity=2.0), broker, seconds=21.0)
    assert figures.away >= 600
    assert figures.heard > 300
    assert figures.lost == []
