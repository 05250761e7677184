"""A trading week with a fault every virtual minute, and its figures. Run by `make soak`."""

from __future__ import annotations

import os
from datetime import date

import psutil

from .days import run

SEED = int(os.environ.get("HITSTREAM_TEST_SEED", "1"))


def test_a_week() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    report = run(first=date(2026, 3, 9), days=5, seed=SEED, say=print, measure_memory=True)
    print(*report.lines(), sep="\n")
    print("how connections ended:", *(f"{count} × {cause}" for cause, count in report.ended.most_common()), sep="\n  ")
    print(f"resident memory: {before / 1e6:.0f} MB before, {process.memory_info().rss / 1e6:.0f} MB after")
    assert report.wrong == []
    assert max(report.times.silence + report.times.unanswered) <= 45
    assert max(report.times.dropped, default=0) <= 300 + 15
    assert max(report.times.live) <= 10
    # The first day fills caches; from then on nothing grows.
    assert report.memory[-1] < report.memory[1] * 1.1
