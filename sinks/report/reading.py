"""A day's report read from ClickHouse, through the analytics views and by SQL alone: any server will do.

What became of hits is told out of `day_returns`, which is several times faster, where nothing came since it was filled;
while the day goes on, where that is less than `_BEHIND` old. Else it is worked out.

How a figure is computed, docs/analytics.md says; nothing is computed here but which recommendations are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from streams.events import KST, HitstreamError

from ..clickhouse import uncounted
from ..clickhouse.connection import first_line
from ..clickhouse.returns import CAME, REACHED, kept, moment
from .day import HORIZONS, SHOWN, ConditionDay, Day, Gap, Performance, Recommended, minute_of

_BEHIND: Final = timedelta(minutes=5)
_NOT_THERE: Final = frozenset({36, 46, 47, 60, 81})  # a parameter, view, column, table or database


class NotMigrated(HitstreamError):
    """The database lacks a table or view that the report reads."""


def latest(client: Client, until: date) -> date:
    """The last day of which something is known, `until` if there is none."""
    rows = _rows(client, "SELECT max(date) AS day FROM transitions WHERE date <= {until:Date}", {"until": until})
    found = rows[0]["day"] if rows else None
    return found if isinstance(found, date) and found > date(1970, 1, 1) else until


def read(
    client: Client,
    day: date,
    *,
    asked_at: datetime,
    closes: datetime,
    span: int = 20,
    cost: float = 0.0,
    trading: bool | None = None,
) -> Day:
    """Read a day.

    Args:
        day: the trading date.
        asked_at: the product's time, and `closes` when the day is over.
        span: trading days of the longer span, about.
        cost: what a purchase and its sale cost together, in percent.
        trading: whether the calendar says that it is a trading day.

    Raises:
        NotMigrated: the database is not that of this version.
        HitstreamError: ClickHouse refuses a question; its sentence.
    """
    span_from = day - timedelta(days=span * 7 // 5)
    at = {"from_date": day, "to_date": day, "cost": cost}
    best, worst, unpriced, gains, count = _ranked(_rows(client, _RECOMMENDATIONS, at))
    lines = _lines(_rows(client, _LINES, at | {"codes": sorted({each.code for each in best + worst})}))
    came = [tuple(row.values()) for row in _rows(client, CAME, {"first": span_from, "last": day})]
    behind = _BEHIND if asked_at < closes else timedelta(0)
    kept_at, span_kept_at = kept(came, day, day, behind), kept(came, span_from, day, behind)
    quality = _rows(client, _of("data_quality", _QUALITY, kept_at), at)
    left_out = _rows(client, uncounted.STORED if kept_at else uncounted.LIVE, {"first": day, "last": day})
    return Day(
        date=day,
        asked_at=asked_at,
        going_on=asked_at < closes,
        trading=trading,
        cost=cost,
        span_from=span_from,
        conditions=_conditions(
            quality,
            uncounted.by_horizon(left_out),
            visits=_rows(client, _VISITS, at),
            most=_rows(client, _MOST, at),
            dwell=_rows(client, _DWELL, at),
            activity=_rows(client, _ACTIVITY, at),
            today=_rows(client, _of("condition_performance", _PERFORMANCE, kept_at), at),
            span=_rows(client, _of("condition_performance", _PERFORMANCE, span_kept_at), at | {"from_date": span_from}),
        ),
        gaps=tuple(
            Gap(
                account=row["account"],
                condition=row["condition"],
                start=_moment(row["start"]),
                end=_moment(row["end"]),
                cause=row["cause"],
            )
            for row in _rows(client, _GAPS, at)
        ),
        sample_stocks=max((int(row["sample_stocks"]) for row in quality), default=0),
        recommended=count,
        gains=gains,
        best=tuple(_drawn(each, lines) for each in best),
        worst=tuple(_drawn(each, lines) for each in worst),
        unpriced=unpriced,
        bars=tuple(
            f"{row['state']}: {row['cause']}" if row["cause"] else row["state"] for row in _rows(client, _BARS, at)
        ),
        heard_until=_reached(client, day, kept_at) if kept_at else None,
    )


_QUALITY: Final = """
SELECT * FROM {view}(from_date = {from_date:Date}, to_date = {to_date:Date}) ORDER BY account, condition"""
_PERFORMANCE: Final = """
SELECT * FROM {view}(from_date = {from_date:Date}, to_date = {to_date:Date}, cost = {cost:Float64})"""
_DWELL: Final = "SELECT * FROM condition_dwell(from_date = {from_date:Date}, to_date = {to_date:Date})"
_ACTIVITY: Final = """
SELECT account, condition, toUnixTimestamp(minute) AS minute, hits
FROM condition_activity(from_date = {from_date:Date}, to_date = {to_date:Date})
WHERE hits > 0 ORDER BY account, condition, minute"""
_VISITS: Final = """
SELECT account, condition, uniqExact(code) AS stocks, countIf(entry > 1) AS reentries
FROM transitions FINAL
WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
    AND kind = 'entered' AND origin = 'realtime' AND NOT transitions.initial
GROUP BY account, condition"""
_MOST: Final = """
SELECT account, condition, max(held) AS most
FROM
(
    SELECT account, condition, sum(if(kind = 'entered', 1, -1)) OVER (
        PARTITION BY date, account, condition ORDER BY transitions.received_at, kind DESC, code
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS held
    FROM transitions FINAL
    WHERE date BETWEEN {from_date:Date} AND {to_date:Date}
)
GROUP BY account, condition"""
_GAPS: Final = """
SELECT account, condition, toUnixTimestamp64Micro(from_at) AS start, toUnixTimestamp64Micro(to_at) AS end, cause
FROM gaps FINAL
WHERE date BETWEEN {from_date:Date} - 14 AND {to_date:Date}
    AND toDate(from_at, 'Asia/Seoul') <= {to_date:Date} AND toDate(to_at, 'Asia/Seoul') >= {from_date:Date}
ORDER BY start, account, condition"""
_RECOMMENDATIONS: Final = """
SELECT account, code, name, conditions, score, toUnixTimestamp64Micro(opened_at) AS opened_at, state, cause,
    toUnixTimestamp64Micro(closed_at) AS closed_at, reference, toUnixTimestamp64Micro(reference_at) AS reference_at,
    price, is_close, return AS gained, best, best_price, minutes_to_best, worst, worst_price, minutes_to_worst,
    complete, gaps
FROM recommendation_performance(from_date = {from_date:Date}, to_date = {to_date:Date}, cost = {cost:Float64})"""
_LINES: Final = """
SELECT code, toUnixTimestamp(toStartOfMinute(if(source = 'close', at - INTERVAL 1 MINUTE, at))) AS minute,
    argMax(price, at) AS price
FROM stock_prices(from_date = {from_date:Date}, to_date = {to_date:Date})
WHERE code IN {codes:Array(String)} AND source != 'open'
GROUP BY code, minute ORDER BY code, minute"""
_BARS: Final = """
SELECT argMax(state, statuses.at) AS state, argMax(cause, statuses.at) AS cause
FROM statuses FINAL
WHERE startsWith(component, 'bars/') AND figures['day'] = toFloat64(toYYYYMMDD({to_date:Date}))
GROUP BY component ORDER BY component"""


def _reached(client: Client, day: date, filled_at: datetime) -> datetime:
    [row] = _rows(client, REACHED, {"day": day, "filled": moment(filled_at)})
    reached: datetime = row["reached"]
    return reached.astimezone(KST)


def _of(view: str, statement: str, kept_at: datetime | None) -> str:
    return statement.replace("{view}", f"{view}_stored" if kept_at else view)


def _rows(client: Client, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = {name: value for name, value in parameters.items() if f"{{{name}:" in statement}
    try:
        return list(client.query(statement, parameters=given, tz_mode="aware").named_results())
    except Error as error:
        if error.code in _NOT_THERE:
            raise NotMigrated(
                "ClickHouse lacks what the report reads; run `hitstream migrate` with this version "
                f"({first_line(error, 120)})."
            ) from error
        raise HitstreamError(f"ClickHouse refuses: {first_line(error)}") from error
    except (ClickHouseError, OSError) as error:
        raise HitstreamError(f"ClickHouse gave no answer: {first_line(error)}") from error


def _conditions(
    quality: Sequence[Mapping[str, Any]],
    left_out: Mapping[tuple[str, str, str], uncounted.Uncounted],
    **parts: Sequence[Mapping[str, Any]],
) -> tuple[ConditionDay, ...]:
    by: dict[str, dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
    for name, rows in parts.items():
        for row in rows:
            by.setdefault(name, {}).setdefault((row["account"], row["condition"]), []).append(row)

    def of(name: str, key: tuple[str, str]) -> list[Mapping[str, Any]]:
        return by.get(name, {}).get(key, [])

    found = []
    for row in quality:
        key = (row["account"], row["condition"])
        visits, most, dwell = (next(iter(of(name, key)), {}) for name in ("visits", "most", "dwell"))
        found.append(
            ConditionDay(
                account=key[0],
                condition=key[1],
                hits=int(row["hits"]),
                stocks=int(visits.get("stocks", 0)),
                reentries=int(visits.get("reentries", 0)),
                standing=int(row["standing"]),
                revealed=int(row["revealed"]),
                members_most=max(0, int(most.get("most", 0))),
                visits=int(dwell.get("visits", 0)),
                dwell=dwell.get("median"),
                under_a_minute=dwell.get("under_a_minute"),
                activity=tuple((_minute(each["minute"]), int(each["hits"])) for each in of("activity", key)),
                today={each["horizon"]: _performance(each) for each in of("today", key)},
                span={each["horizon"]: _performance(each) for each in of("span", key)},
                without_price=int(row["without_price"]),
                past_close={
                    horizon: left_out[*key, horizon].past_close
                    for horizon in HORIZONS
                    if (*key, horizon) in left_out and left_out[*key, horizon].past_close
                },
                without_bars=int(row["without_bars"]),
                inferred_exits=int(row["inferred_exits"]),
                not_live_seconds=float(row["not_live_seconds"]),
                troubles=tuple(row["troubles"] or ()),
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.hits, each.account, each.condition)))


def _performance(row: Mapping[str, Any]) -> Performance:
    return Performance(
        horizon=row["horizon"],
        hits=int(row["hits"]),
        priced=int(row["priced"]),
        sample_cases=int(row["sample_cases"] or 0),
        across_gap=int(row.get("across_gap") or 0),
        days=int(row.get("days") or 0),
        **{
            name: row[name]
            for name in (
                "mean", "median", "positive", "low", "high", "sample_mean", "difference", "difference_low",
                "difference_high",
            )
        },
    )  # fmt: skip


def _ranked(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[list[Recommended], list[Recommended], tuple[Recommended, ...], tuple[float, ...], int]:
    """The best and the worst, those without a price, all gains, and how many there are.

    Where not all are shown each end has a stock once, with its best or its worst, the most extreme first.
    """
    found = [_recommended(row) for row in rows]
    priced = sorted((each for each in found if each.gained is not None), key=lambda each: -(each.gained or 0.0))
    if len(priced) <= SHOWN:
        best, worst = priced, []
    else:
        best = _each_once(priced)
        worst = _each_once([each for each in reversed(priced) if each not in best])
        of = Counter(map(_stock, priced))
        best, worst = (
            [msgspec.structs.replace(each, others=of[_stock(each)] - 1) for each in shown] for shown in (best, worst)
        )
    unpriced = tuple(each for each in found if each.gained is None)
    return best, worst, unpriced, tuple(each.gained or 0.0 for each in priced), len(found)


def _each_once(ranked: Sequence[Recommended]) -> list[Recommended]:
    """The first of each stock, at most as many as are shown."""
    firsts: dict[tuple[str, str], Recommended] = {}
    for each in ranked:
        firsts.setdefault(_stock(each), each)
    return list(firsts.values())[:SHOWN]


def _stock(each: Recommended) -> tuple[str, str]:
    return each.account, each.code


def _recommended(row: Mapping[str, Any]) -> Recommended:
    plain = (
        "account", "code", "score", "state", "cause", "reference", "price", "gained", "best", "best_price",
        "minutes_to_best", "worst", "worst_price", "minutes_to_worst",
    )  # fmt: skip
    return Recommended(
        name=row["name"] or "",
        conditions=tuple(row["conditions"] or ()),
        opened_at=_moment(row["opened_at"]),
        closed_at=None if row["closed_at"] is None else _moment(row["closed_at"]),
        reference_at=None if row["reference_at"] is None else _moment(row["reference_at"]),
        is_close=bool(row["is_close"]),
        complete=bool(row["complete"]),
        gaps=int(row["gaps"]),
        **{name: row[name] for name in plain},
    )


def _lines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    lines: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        lines.setdefault(row["code"], []).append((_minute(row["minute"]), int(row["price"])))
    return lines


def _drawn(each: Recommended, lines: Mapping[str, Sequence[tuple[int, int]]]) -> Recommended:
    """A recommendation with its line, from its reference on."""
    if each.reference is None or each.reference_at is None:
        return each
    start = minute_of(each.reference_at)
    later = [(minute, price) for minute, price in lines.get(each.code, ()) if minute > start]
    return msgspec.structs.replace(each, line=((start, each.reference), *later))


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(int(micros) / 1e6, KST)


def _minute(seconds: int) -> int:
    return minute_of(datetime.fromtimestamp(int(seconds), KST))
