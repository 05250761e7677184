"""Killed, stopped and continued at random, workers and broker leave nothing that shows (`make chaos`: longer)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy import supervisor

from .chaos import Plan, chaos

PLAN = Plan(
    seed=20260302,
    events=4000,
    actions={"kill": 4, "freeze": 1, "join": 1, "leave": 1, "kill broker": 1},
    speed=1200,
    stocks=60,
    pause=0.5,
    workers=2,
)


@pytest.mark.kafka
@pytest.mark.usefixtures("durable")
async def test_chaos_does_not_show(broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None missing, none extra, none different: transitions, recommendations, dead letters and state."""
    monkeypatch.setattr(supervisor, "_BACKOFF", (0.2, 1.0))
    figures = await chaos(PLAN, broker, tmp_path, print)
    print(figures)
    assert figures["condition events"] >= PLAN.events
    assert figures["transitions"] > 1000
    assert figures["recommendations"] > 200
