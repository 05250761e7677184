"""The report as one HTML page that needs nothing else: charts are SVG in it, light or dark as the reader's machine is,
and it prints. Pure; every word of a name is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from . import svg, telling
from .day import ConditionDay, Day, Recommended
from .telling import Say
from .words import Language

# Rises are red and falls blue, as in Korea; the signs say the same without colour.
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #16181d; --soft: #5b6270; --line: #d9dce3; --page: #fff; --card: #f6f7f9;
  --up: #c4232b; --down: #1f5fbf; --hit: #4a63c8; --gap: #e9c46a80; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaef; --soft: #a3abba; --line: #343a46; --page: #14161b;
  --card: #1c1f26; --up: #ff7b7f; --down: #7fb0ff; --hit: #8ea2ff; --gap: #e9c46a50; --warn: #f0c060; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #fff;
  --up: #b00; --down: #004a9f; --hit: #334; --gap: #ddd; --warn: #000; }
  article, tr { break-inside: avoid; } body { font-size: 9.5px; } .wide { overflow: visible; }
  main { max-width: none; padding: 0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 14px/1.5 "Pretendard", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 1.6em; margin: 0; } h2 { font-size: 1.2em; margin: 28px 0 8px; } h3 { font-size: 1em; margin: 0 0 2px; }
p { margin: 4px 0; } .soft { color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
.lacks { margin: 0; padding: 10px 14px 10px 30px; background: var(--card); border-left: 4px solid var(--warn); }
article { margin: 12px 0 18px; padding: 12px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 8px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child, td.words, th.words { text-align: left; }
td.words { white-space: normal; min-width: 9em; } td:first-child b { font-weight: 600; }
.up { color: var(--up); } .down { color: var(--down); }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
svg text { font-size: 9px; fill: var(--soft); }
svg .hit { fill: var(--hit); } svg .gap { fill: var(--gap); } svg .axis { stroke: var(--soft); }
svg .tick, svg .level { stroke: var(--line); }
svg.activity { width: 100%; margin: 6px 0; } svg.line { width: 132px; }
svg.line polyline { fill: none; stroke: var(--soft); stroke-width: 1.5; } svg.line circle { fill: var(--soft); }
svg.line.up polyline { stroke: var(--up); } svg.line.up circle { fill: var(--up); }
svg.line.down polyline { stroke: var(--down); } svg.line.down circle { fill: var(--down); }
"""


def render(day: Day, language: Language) -> str:
    """The page."""
    tell = telling.say(language)
    title = tell("title", date=day.date)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(tell("asked", at=f"{day.asked_at:%Y-%m-%d %H:%M:%S}"))}</p>',
    ]
    if day.trading is False:
        body.append(f"<p>{escape(tell('closed'))}</p>")
    if day.empty:
        body.append(f"<p>{escape(tell('empty'))}</p>")
    else:
        body += _day(day, tell)
    # No script, nothing from elsewhere: the page may be mailed, and opened from a disk.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _day(day: Day, tell: Say) -> Iterable[str]:
    if day.going_on:
        yield f'<p class="warn">{escape(tell("going_on"))}</p>'
    yield f"<h2>{escape(tell('lacks'))}</h2>"
    if sentences := telling.lacks(day, tell):
        yield '<ul class="lacks">' + "".join(f"<li>{escape(each)}</li>" for each in sentences) + "</ul>"
    else:
        yield f"<p>{escape(tell('nothing_lacks'))}</p>"
    yield f"<h2>{escape(tell('conditions'))}</h2>"
    yield f'<p class="soft">{escape(telling.costs(day, tell))} {escape(tell("how"))}</p>'
    for each in day.conditions:
        yield _condition(day, each, tell)
    yield f"<h2>{escape(tell('recommendations'))}</h2>"
    yield f"<p>{escape(telling.summary(day, tell))}</p>"
    for heading, shown in telling.ranking(day, tell):
        yield f"<h3>{escape(heading)}</h3>"
        yield _recommended(shown, tell)
    if any(each.others for each in day.best + day.worst):
        yield f'<p class="soft">{escape(tell("each_once"))}</p>'
    if any(each.gaps for each in day.best + day.worst):
        yield f'<p class="soft">{escape(tell("gaps_mean"))}</p>'


def _condition(day: Day, each: ConditionDay, tell: Say) -> str:
    first, last = telling.ends(day)
    chart = svg.activity(
        each.activity,
        telling.gaps_of(day, each),
        first=first,
        last=last,
        title=telling.described(day, each, tell),
    )
    rows = []
    for span, row in zip(telling.horizons(each), telling.performance(each, tell), strict=True):
        # A difference whose interval holds zero has no colour: it says nothing yet.
        difference = _figure(row[-1]) if telling.decided(span) else f"<td>{escape(row[-1])}</td>"
        rows.append([f"<td>{escape(row[0])}</td>", *(_figure(cell) for cell in row[1:-1]), difference])
    returns = _table([f"<th>{escape(head)}</th>" for head in telling.heads(day, tell)], rows) if rows else ""
    facts = escape(" · ".join(telling.facts(each, tell)))
    return f'<article><h3>{escape(telling.named(day, each))}</h3><p class="soft">{facts}</p>{chart}{returns}</article>'


def _recommended(shown: Sequence[Recommended], tell: Say) -> str:
    closed = all(each.is_close for each in shown)
    heads = [
        f"<th>{escape(tell('stock'))}</th>",
        f"<th>{escape(tell('opened'))}</th>",
        f'<th class="words">{escape(tell("reasons"))}</th>',
        *(
            f"<th>{escape(tell(name))}</th>"
            for name in ("reference", "closing" if closed else "now", "gained", "high", "low", "chart")
        ),
    ]
    return _table(heads, [_row(each, tell) for each in shown])


def _row(each: Recommended, tell: Say) -> list[str]:
    warning = f' <span class="warn" title="{escape(tell("gaps_mark"))}">⚠</span>' if each.gaps else ""
    name = escape(each.name or each.code)
    others = f' <span class="soft">({escape(tell("more", n=each.others))})</span>' if each.others else ""
    line = ""
    if len(each.line) > 1:
        (start, reference), (end, price) = each.line[0], each.line[-1]
        words = tell(
            "line", name=each.name or each.code, reference=f"{reference:,}", price=f"{price:,}", minutes=end - start
        )
        line = svg.line(each.line, title=words)
    return [
        f'<td><b>{name}</b> <span class="soft">{escape(each.code)}</span>{others}</td>',
        f"<td>{telling.clock(each.opened_at)}{warning}</td>",
        f'<td class="words">{escape(telling.reasons(each, tell))}</td>',
        f"<td>{telling.won(each.reference)}</td>",
        f"<td>{telling.won(each.price)}</td>",
        _figure(telling.percent(each.gained)),
        _figure(telling.percent(each.best), each.minutes_to_best, tell),
        _figure(telling.percent(each.worst), each.minutes_to_worst, tell),
        f"<td>{line}</td>",
    ]


def _figure(text: str, minutes: float | None = None, tell: Say | None = None) -> str:
    way = "up" if text.startswith("+") else "down" if text.startswith("−") else ""
    hint = f' title="{escape(tell("after", minutes=f"{minutes:.0f}"))}"' if tell and minutes is not None else ""
    return f'<td class="{way}"{hint}>{escape(text)}</td>' if way else f"<td{hint}>{escape(text)}</td>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'
