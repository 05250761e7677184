"""The report as Markdown: tables, and charts of characters. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from . import telling
from .day import Day, Recommended
from .svg import spark
from .telling import Say
from .words import Language

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>|#~])")


def render(day: Day, language: Language) -> str:
    """The page."""
    tell = telling.say(language)
    lines = [
        f"# {escaped(tell('title', date=day.date))}",
        "",
        tell("asked", at=f"{day.asked_at:%Y-%m-%d %H:%M:%S}"),
        "",
    ]
    if day.trading is False:
        lines += [tell("closed"), ""]
    if day.empty:
        return "\n".join([*lines, tell("empty"), ""])
    if day.going_on:
        lines += [f"**{tell('going_on')}**", ""]
    lines += [f"## {tell('lacks')}", ""]
    lines += [f"- {escaped(sentence)}" for sentence in telling.lacks(day, tell)] or [tell("nothing_lacks")]
    lines += ["", f"## {tell('conditions')}", ""]
    lines += [telling.costs(day, tell) + " " + tell("how"), ""]
    first, last = telling.ends(day)
    for each in day.conditions:
        lines += [f"### {escaped(telling.named(day, each))}", ""]
        lines += [escaped(" · ".join(telling.facts(each, tell))), ""]
        if each.activity:
            halves = spark(telling.by_half_hours(each, first, last))
            lines += [f"`{first // 60:02d}:{first % 60:02d} {halves} {last // 60:02d}:{last % 60:02d}`", ""]
        if rows := telling.performance(each, tell):
            lines += [*_table(telling.heads(day, tell), rows), ""]
    lines += [f"## {tell('recommendations')}", "", telling.summary(day, tell), ""]
    for heading, shown in telling.ranking(day, tell):
        lines += [f"### {heading}", "", *_recommended(shown, tell), ""]
    if any(each.others for each in day.best + day.worst):
        lines += [tell("each_once"), ""]
    if any(each.gaps for each in day.best + day.worst):
        lines += [tell("gaps_mean"), ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown takes for nothing but text."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _recommended(shown: Sequence[Recommended], tell: Say) -> list[str]:
    closed = all(each.is_close for each in shown)
    heads = [
        tell("stock"), tell("opened"), tell("reasons"), tell("reference"), tell("closing" if closed else "now"),
        tell("gained"), tell("high"), tell("low"), tell("chart"),
    ]  # fmt: skip
    rows = [
        [
            f"{each.name} {each.code}".strip() + (f" ({tell('more', n=each.others)})" if each.others else ""),
            f"{telling.clock(each.opened_at)}{' ⚠' if each.gaps else ''}",
            telling.reasons(each, tell),
            telling.won(each.reference),
            telling.won(each.price),
            telling.percent(each.gained),
            telling.percent(each.best),
            telling.percent(each.worst),
            spark(_thinned([price for _, price in each.line])) if len(each.line) > 1 else "",
        ]
        for each in shown
    ]
    return _table(heads, rows)


def _thinned(values: Sequence[int], most: int = 16) -> list[int]:
    if len(values) <= most:
        return list(values)
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escaped(cell) for cell in cells) + " |"

    return [row(heads), "|---" + "|---:" * (len(heads) - 1) + "|", *(row(cells) for cells in rows)]
