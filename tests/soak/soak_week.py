"""A trading week with a fault every virtual minute, and its figures. Run by `make soak`."""

from __future__ import annotations

import os
import tracemalloc
from datetime import date

import psutil

from .days import Report, run

SEED = int(os.environ.get("HITSTREAM_TEST_SEED", "1"))
DAYS = int(os.environ.get("HITSTREAM_TEST_DAYS", "5"))

HELD = 2_000
"""Objects: what may be left of the last connection. One day's members alone are more."""
OURS = 300_000
"""Bytes: what may be left of the last connection. The events of one day, were they kept, are megabytes."""
GROWTH = 100_000
"""Bytes by which the greatest of the later days may exceed that of the earlier ones: last connections differ in length.
An object kept of each event would be half a megabyte a day."""


def test_a_week() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    tracemalloc.start(1)
    try:
        report = run(first=date(2026, 3, 9), days=DAYS, seed=SEED, say=print, measure_memory=True)
    finally:
        tracemalloc.stop()
    print(*report.lines(), sep="\n")
    print("how connections ended:", *(f"{count} × {cause}" for cause, count in report.ended.most_common()), sep="\n  ")
    print(f"resident memory: {before / 1e6:.0f} MB before, {process.memory_info().rss / 1e6:.0f} MB after")
    assert report.wrong == []
    assert report.count["traceless"] <= report.count["truth"] / 1_000
    assert max(report.times.silence + report.times.unanswered) <= 45
    assert max(report.times.dropped, default=0) <= 300 + 15
    assert max(report.times.live) <= 10
    assert_flat(report)


def assert_flat(report: Report) -> None:
    """What is ours is forgotten with the day: neither much nor more with time."""
    half = len(report.ours) // 2
    assert max(report.held) < HELD, report.held
    assert max(report.ours) < OURS, report.ours
    assert max(report.ours[half:]) < max(report.ours[:half]) + GROWTH, report.ours
