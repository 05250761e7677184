"""`make chaos`: the long run. 100,000 events, 50 workers killed, the broker gone ten times; prints its figures.

`HITSTREAM_TEST_CHAOS` is the share of it to run (default 1), `HITSTREAM_TEST_SEED` another seed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deploy import supervisor

from .chaos import Plan, chaos

SHARE = float(os.environ.get("HITSTREAM_TEST_CHAOS", "1"))
PLAN = Plan(
    seed=int(os.environ.get("HITSTREAM_TEST_SEED", "4")),
    events=int(100_000 * SHARE),
    actions={
        action: round(times * SHARE)
        for action, times in {
            "kill": 55,
            "freeze": 10,
            "join": 12,
            "leave": 10,
            "stop broker": 5,
            "kill broker": 5,
        }.items()
    },
    speed=600,
    stocks=300,
    pause=3.0,
    workers=2,
)


async def chaos_of_a_hundred_thousand_events(broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF", (0.2, 1.0))
    print()
    figures = await chaos(PLAN, broker, tmp_path, lambda line: print(line, flush=True))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for what, figure in figures.items():
        print(f"{what:28} {figure}")
