"""Small charts as SVG text: hits per minute, and a price since its reference. Pure; colours are the page's classes.

Everything that is drawn is said in words too, in the chart's title, for who can't see it and for who reads on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 640, 96
LINE_WIDTH, LINE_HEIGHT = 132, 30
_BASE: Final = 14  # Room for the hours below the bars.


def activity(
    hits: Sequence[tuple[int, int]], gaps: Sequence[tuple[int, int]], *, first: int, last: int, title: str
) -> str:
    """Hits per minute as bars, with the gaps behind them.

    Args:
        hits: (minute since midnight, hits).
        gaps: (first minute, last minute) of the times in which hits may have been missed.
        first, last: the minutes at the two ends.
    """
    span = max(1, last - first)
    most = max((count for _, count in hits), default=0)
    floor = HEIGHT - _BASE

    def x(minute: float) -> float:
        return (min(max(minute, first), last) - first) / span * WIDTH

    def block(name: str, minute: float, width: float, height: float) -> str:
        place = f'x="{x(minute):.1f}" y="{floor - height:.1f}"'
        return f'<rect class="{name}" {place} width="{width:.1f}" height="{height:.1f}"/>'

    parts = [block("gap", start, max(1.0, x(end) - x(start)), floor) for start, end in gaps]
    step = 60 if span <= 600 else 180
    for minute in range(-(-first // step) * step, last + 1, step):
        parts.append(f'<line class="tick" x1="{x(minute):.1f}" y1="0" x2="{x(minute):.1f}" y2="{floor}"/>')
        anchor = "start" if minute == first else "end" if minute == last else "middle"
        parts.append(
            f'<text x="{x(minute):.1f}" y="{HEIGHT - 3}" text-anchor="{anchor}">{minute // 60 % 24:02d}:00</text>'
        )
    width = max(0.8, WIDTH / span * 0.9)
    for minute, count in hits:
        parts.append(block("hit", minute, width, count / most * (floor - 10)))
    parts.append(f'<line class="axis" x1="0" y1="{floor}" x2="{WIDTH}" y2="{floor}"/>')
    if most:
        parts.append(f'<text class="most" x="2" y="9">{most}</text>')
    return _picture("activity", WIDTH, HEIGHT, title, parts)


def line(points: Sequence[tuple[int, int]], *, title: str) -> str:
    """A price since its reference, the first point, which is the level line."""
    reference = points[0][1]
    first, last = points[0][0], points[-1][0]
    low, high = min(price for _, price in points), max(price for _, price in points)
    span, reach = max(1, last - first), max(1, high - low)

    def place(minute: int, price: int) -> tuple[float, float]:
        return (minute - first) / span * (LINE_WIDTH - 4) + 2, (high - price) / reach * (LINE_HEIGHT - 6) + 3

    path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
    _, level = place(first, reference)
    end_x, end_y = place(*points[-1])
    way = "up" if points[-1][1] > reference else "down" if points[-1][1] < reference else "flat"
    return _picture(
        f"line {way}",
        LINE_WIDTH,
        LINE_HEIGHT,
        title,
        [
            f'<line class="level" x1="0" y1="{level:.1f}" x2="{LINE_WIDTH}" y2="{level:.1f}"/>',
            f'<polyline points="{path}"/>',
            f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="2"/>',
        ],
    )


def _picture(name: str, width: int, height: int, title: str, parts: Sequence[str]) -> str:
    words = escape(title)
    return (
        f'<svg class="{name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{words}"><title>{words}</title>{"".join(parts)}</svg>'
    )


_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float]) -> str:
    """The same for plain text: one block for each value."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return _BLOCKS[3] * len(values)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in values)
