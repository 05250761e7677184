"""What the report says in words and figures, whatever the page is made of. Pure.

`lacks` is the heart of it: everything that a reader would otherwise believe to be there, in plain sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from statistics import median
from typing import Final

from streams.events import KST

from .day import HORIZONS, ConditionDay, Day, Gap, Performance, Recommended, minute_of
from .words import WORDS, Language

NONE: Final = "–"
_MOST_GAPS: Final = 30
_HORIZON_WORDS: Final = {"best": "highest", "worst": "lowest"}  # the others are called as the column says
_MOST_NAMES: Final = 8
_MOMENT: Final = 10.0  # s; conditions that were not live for less are told together
_OPENS, _CLOSES = 9 * 60, 15 * 60 + 30

Say = Callable[..., str]


def say(language: Language) -> Say:
    """The words of a language, filled in."""
    words = WORDS[language]
    return lambda key, /, **values: words[key].format(**values)


def percent(value: float | None, digits: int = 2) -> str:
    """A return: `+1.23`, `−0.40`; a dash where it is not known."""
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def share(value: float | None) -> str:
    """A share of 0..1 as a percentage."""
    return NONE if value is None else f"{value * 100:.0f}%"


def won(value: int | None) -> str:
    """A price."""
    return NONE if value is None else f"{value:,}"


def counted(value: float | None, count: int) -> str:
    """A mean, never without the number of its cases."""
    return f"{percent(value)} ({count:,})" if count else NONE


def interval(low: float | None, high: float | None) -> str:
    """An interval, a dash where there is none."""
    return NONE if low is None or high is None else f"[{percent(low)}, {percent(high)}]"


def compared(each: Performance) -> str:
    """A difference to the sample, with its interval."""
    if each.difference is None:
        return NONE
    return f"{percent(each.difference)} {interval(each.difference_low, each.difference_high)}".removesuffix(f" {NONE}")


def clock(at: datetime | None) -> str:
    """A time of day in KST."""
    return NONE if at is None else f"{at.astimezone(KST):%H:%M:%S}"


def duration(seconds: float | None, tell: Say) -> str:
    """A stay: seconds, or minutes from two minutes on."""
    if seconds is None:
        return NONE
    return tell("seconds", n=f"{seconds:.0f}") if seconds < 120 else tell("minutes", n=f"{seconds / 60:.0f}")


def ends(day: Day) -> tuple[int, int]:
    """The first and last minute of the charts: the session, and whatever was hit outside it."""
    minutes = [minute for each in day.conditions for minute, _ in each.activity]
    return min([_OPENS, *minutes]) // 60 * 60, max([_CLOSES, *minutes])


def gaps_of(day: Day, each: ConditionDay) -> list[tuple[int, int]]:
    """A condition's gaps on the day, in minutes since midnight."""
    found = []
    for gap in day.gaps:
        if (gap.account, gap.condition) == (each.account, each.condition):
            start = minute_of(gap.start) if gap.start.date() == day.date else 0
            end = minute_of(gap.end) + 1 if gap.end.date() == day.date else 24 * 60
            found.append((start, end))
    return found


def by_half_hours(each: ConditionDay, first: int, last: int) -> list[int]:
    """Hits per half hour, for charts of characters."""
    slots = [0] * ((last - first) // 30 + 1)
    for minute, hits in each.activity:
        slots[(minute - first) // 30] += hits
    return slots


def facts(each: ConditionDay, tell: Say) -> list[str]:
    """What a condition did, without its returns."""
    told = [tell("hits_of", hits=f"{each.hits:,}", stocks=f"{each.stocks:,}", reentries=f"{each.reentries:,}")]
    told.append(tell("most", n=f"{each.members_most:,}"))
    if each.standing:
        told.append(tell("standing", n=f"{each.standing:,}"))
    if each.visits:
        told.append(
            tell(
                "dwell",
                dwell=duration(each.dwell, tell),
                visits=f"{each.visits:,}",
                short=share(each.under_a_minute),
            )
        )
    return told


def described(day: Day, each: ConditionDay, tell: Say) -> str:
    """A condition's chart in words."""
    name = named(day, each)
    if not each.activity:
        return tell("activity_none", condition=name)
    minute, most = max(each.activity, key=lambda pair: pair[1])
    return tell("activity", condition=name, hits=each.hits, most=most, at=f"{minute // 60:02d}:{minute % 60:02d}")


def named(day: Day, each: ConditionDay | Gap) -> str:
    """The name of a condition, or of the one that a gap is of, with its account where there are several."""
    return f"{each.account}/{each.condition}" if len(day.accounts) > 1 else each.condition


def costs(day: Day, tell: Say) -> str:
    """Whether the returns are less costs, and how much; and as of when they are, if that is not now."""
    told = tell("costs", cost=f"{day.cost:g}") if day.cost else tell("no_costs")
    return f"{told} {tell('kept', at=f'{day.heard_until:%Y-%m-%d %H:%M:%S}')}" if day.heard_until else told


def heads(day: Day, tell: Say) -> list[str]:
    """The columns of a condition's returns."""
    return [
        tell("horizon"), tell("today"), tell("span", start=f"{day.span_from:%m-%d}"), tell("interval"), tell("median"),
        tell("positive"), tell("sample"), tell("difference"),
    ]  # fmt: skip


def horizons(each: ConditionDay) -> list[Performance]:
    """The longer span's figures, in order of the horizons."""
    return [each.span[horizon] for horizon in HORIZONS if horizon in each.span]


def decided(each: Performance) -> bool:
    """Whether the interval of the difference leaves zero out; where it does not, nothing was found."""
    low, high = each.difference_low, each.difference_high
    return low is not None and high is not None and (low > 0 or high < 0)


def performance(each: ConditionDay, tell: Say) -> list[list[str]]:
    """A condition's returns, one row per horizon that has any hit."""
    rows = []
    for span in horizons(each):
        today = each.today.get(span.horizon)
        rows.append(
            [
                _horizon(span.horizon, tell),
                counted(today.mean, today.priced) if today else NONE,
                counted(span.mean, span.priced),
                interval(span.low, span.high),
                percent(span.median),
                share(span.positive),
                counted(span.sample_mean, span.sample_cases),
                compared(span),
            ]
        )
    return rows


def ranking(day: Day, tell: Say) -> list[tuple[str, tuple[Recommended, ...]]]:
    """The recommendations that are shown, under their headings."""
    if not day.worst:
        return [(tell("all"), day.best)] if day.best else []
    return [(tell("best"), day.best), (tell("worst"), day.worst)]


def summary(day: Day, tell: Say) -> str:
    """The recommendations in one sentence."""
    if not day.recommended:
        return tell("no_recommendation")
    rose = sum(gain > 0 for gain in day.gains)
    return tell(
        "counted",
        n=day.recommended,
        priced=len(day.gains),
        median=percent(median(day.gains)) if day.gains else NONE,
        positive=rose,
    )


def reasons(each: Recommended, tell: Say) -> str:
    """Why a stock was recommended."""
    return ", ".join(tell("manual") if reason == "manual" else reason for reason in each.conditions)


def lacks(day: Day, tell: Say) -> list[str]:
    """What is missing, in sentences; empty if nothing is."""
    told: list[str] = []
    conditions = day.conditions
    hits = sum(each.hits for each in conditions)
    without_bars = [each for each in conditions if each.without_bars]
    lacking = sum(each.without_bars for each in without_bars)
    if hits and lacking == hits:
        told.append(tell("lack_bars_at_all", date=day.date))
    elif lacking:
        told.append(tell("lack_bars", n=f"{lacking:,}", conditions=_names(day, without_bars, tell)))
    told += [tell("lack_producer", words=words) for words in day.bars if not words.startswith("done")]
    opens = [each.today["next_open"].priced for each in conditions if "next_open" in each.today]
    if opens and not day.going_on and not any(opens):
        told.append(tell("lack_next_open"))
    unpriced = [each for each in conditions if each.without_price]
    if unpriced:
        count = sum(each.without_price for each in unpriced)
        names = _names(day, unpriced, tell)
        told.append(tell("lack_price", n=f"{count:,}", total=f"{hits:,}", conditions=names))
    crossing = [each for each in conditions if each.past_close]
    if crossing:
        counts = {of: sum(each.past_close.get(of, 0) for each in crossing) for of in HORIZONS}
        told.append(
            tell(
                "lack_past_close",
                counts=", ".join(f"{_horizon(of, tell)} {n:,}" for of, n in counts.items() if n),
                conditions=_names(day, crossing, tell),
            )
        )
    if hits and not day.sample_stocks:
        told.append(tell("lack_sample"))
    spans = [each for condition in conditions for each in condition.span.values() if each.horizon in HORIZONS]
    if any(each.priced and each.low is None for each in spans):
        told.append(tell("lack_interval"))
    unseen = [each for each in conditions if each.revealed or each.inferred_exits]
    if unseen:
        told.append(
            tell(
                "lack_revealed",
                n=sum(each.revealed for each in unseen),
                exits=sum(each.inferred_exits for each in unseen),
                conditions=_names(day, unseen, tell),
            )
        )
    across = {each.condition: _across(each) for each in conditions if _across(each)}
    if across:
        names = _names(day, [each for each in conditions if each.condition in across], tell)
        told.append(tell("lack_across", n=sum(across.values()), conditions=names))
    for gap in day.gaps[:_MOST_GAPS]:
        told.append(
            tell(
                "lack_gap",
                condition=named(day, gap),
                start=_moment(gap.start, day),
                end=_moment(gap.end, day),
                length=_length((gap.end - gap.start).total_seconds(), tell),
                cause=gap.cause,
            )
        )
    if len(day.gaps) > _MOST_GAPS:
        told.append(tell("more", n=len(day.gaps) - _MOST_GAPS))
    told += [
        tell(
            "lack_subscription",
            condition=named(day, each),
            length=_length(each.not_live_seconds, tell),
            troubles=", ".join(each.troubles),
        )
        for each in conditions
        if each.not_live_seconds >= _MOMENT
    ]
    moments = [each for each in conditions if 1 <= each.not_live_seconds < _MOMENT]
    if moments:
        told.append(
            tell(
                "lack_subscriptions",
                conditions=_names(day, moments, tell),
                length=_length(sum(each.not_live_seconds for each in moments), tell),
                troubles=", ".join(sorted({trouble for each in moments for trouble in each.troubles})),
            )
        )
    if day.unpriced:
        codes = [each.name or each.code for each in day.unpriced]
        told.append(tell("lack_rec", n=len(day.unpriced), codes=_few(codes, tell)))
    return told


def _length(seconds: float, tell: Say) -> str:
    """How long something was missing: seconds, or tenths of minutes from one minute on."""
    if round(seconds) < 60:
        return tell("seconds", n=f"{max(1.0, seconds):.0f}")
    return tell("minutes", n=f"{seconds / 60:,.1f}")


def _horizon(horizon: str, tell: Say) -> str:
    return tell(_HORIZON_WORDS.get(horizon, horizon))


def _across(each: ConditionDay) -> int:
    return max((of.across_gap for of in each.today.values() if of.horizon in HORIZONS), default=0)


def _names(day: Day, conditions: Iterable[ConditionDay], tell: Say) -> str:
    return _few([named(day, each) for each in conditions], tell)


def _few(names: Sequence[str], tell: Say) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} {tell('more', n=len(names) - _MOST_NAMES)}" if len(names) > _MOST_NAMES else shown


def _moment(at: datetime, day: Day) -> str:
    local = at.astimezone(KST)
    return f"{local:%H:%M:%S}" if local.date() == day.date else f"{local:%m-%d %H:%M:%S}"
