"""A trading week with a fault every virtual minute, and its figures. Run by `make soak`."""

from __future__ import annotations

import os
from datetime import date

import psutil

from .days import run

SEED = int(os.environ.get("HITSTREAM_TEST_SEED", "1"))
DAYS = int(os.environ.get("HITSTREAM_TEST_DAYS", "5"))

HELD = 2_000
"""Objects: what may be left of the last connection. One day's members alone are more."""
GROWTH = 2_500
"""Blocks a day of the market's own history, of half a million in all."""


def test_a_week() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    report = run(first=date(2026, 3, 9), days=DAYS, seed=SEED, say=print, measure_memory=True)
    print(*report.lines(), sep="\n")
    print("how connections ended:", *(f"{count} × {cause}" for cause, count in report.ended.most_common()), sep="\n  ")
    print(f"resident memory: {before / 1e6:.0f} MB before, {process.memory_info().rss / 1e6:.0f} MB after")
    assert report.wrong == []
    assert max(report.times.silence + report.times.unanswered) <= 45
    assert max(report.times.dropped, default=0) <= 300 + 15
    assert max(report.times.live) <= 10
    # What is ours is forgotten with the day. The first day fills caches; from then on the process grows by what the
    # market keeps of its past days only.
    assert max(report.held) < HELD, report.held
    assert report.memory[-1] - report.memory[1] < GROWTH * (DAYS - 2), report.memory
