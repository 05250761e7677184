"""Keeping what became of each hit: `day_returns`, filled by day from what `condition_returns` says of it.

The sink runs `keep` beside its writing. A day is filled again when anything that its figures rest on came since: its
transitions, quotes, minute and daily bars and gaps, and the next market day's daily bars, whose opens are `next_open`.
What came is told by `inserted_at`, so it does not matter who inserted it: a late bar, a restore, another sink. A fill
is one insert of one block and bears a mark of its own: whoever reads sees all of it or the one before, and two at once
do no harm. It takes one thread, and nine tenths of the time none.

What is kept outlives what it was made of: quotes that are deleted for their age take no figure with them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient

from streams.events import KST

from ..settings import ClickHouseSettings
from .connection import connect_async, first_line

log = structlog.get_logger(__name__)

EVERY: Final = 60.0
"""Seconds between two looks at the last days; figures of today are older than that by what a fill takes."""
_WHOLE_EVERY: Final = 3600.0  # s; then all days are looked at, for what came late for old ones
_RECENT: Final = timedelta(days=15)
_REST: Final = 9.0  # times as long as filling took
_AT_ONCE: Final = 6  # days, newest first: then today's are looked at again, however many there still are
# An insert bears the time at which it began and is seen when it is done: at most the writer's patience later.
_MARGIN: Final = timedelta(seconds=90)
_NEXT_DAY: Final = timedelta(days=14)  # as far as `condition_returns` looks for a next open
_FIRST_DAY: Final = date(1970, 1, 1)
_LAST_DAY: Final = date(2100, 1, 1)
_SECONDS: Final = 120  # of one question; a busy day takes some

CAME: Final = """
SELECT 'hits' AS what, date AS day, max(inserted_at) AS newest FROM transitions
WHERE date BETWEEN {first:Date} AND {last:Date} GROUP BY day
UNION ALL
SELECT 'quotes' AS what, date AS day, max(inserted_at) AS newest FROM quotes
WHERE date BETWEEN {first:Date} AND {last:Date} GROUP BY day
UNION ALL
SELECT interval AS what, date AS day, max(inserted_at) AS newest FROM bars
WHERE interval = '1m' AND date BETWEEN {first:Date} AND {last:Date}
    OR interval = '1d' AND date BETWEEN {first:Date} AND {last:Date} + 14
GROUP BY what, day
UNION ALL
SELECT 'gaps' AS what, arrayJoin(arrayMap(n -> toDate(from_at, 'Asia/Seoul') + n,
    range(toUInt32(least(15, greatest(1, dateDiff('day', from_at, to_at, 'Asia/Seoul') + 1)))))) AS day,
    max(inserted_at) AS newest
FROM gaps WHERE date BETWEEN {first:Date} AND {last:Date} GROUP BY day
UNION ALL
SELECT 'filled' AS what, date AS day, max(filled_at) AS newest FROM day_returns
WHERE date BETWEEN {first:Date} AND {last:Date} AND account = '' AND condition = '' GROUP BY day
"""
"""The rows that `stale` and `kept` judge by, for the dates from `first` to `last`."""

REACHED: Final = """
SELECT if(max(known) > toDateTime64(0, 6), max(known), {filled:DateTime64(6, 'UTC')}) AS reached FROM
(
    SELECT max(received_at) AS known FROM transitions
    WHERE date = {day:Date} AND inserted_at <= {filled:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT max(received_at) AS known FROM quotes
    WHERE date = {day:Date} AND inserted_at <= {filled:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT max(received_at) AS known FROM bars
    WHERE date = {day:Date} AND inserted_at <= {filled:DateTime64(6, 'UTC')}
)
"""
"""How far a fill goes, in the market's time: the last that was heard of `day` when it was `filled` (`moment`).

When it was filled is the server's time, which a simulated market, or one that is played again, knows nothing of. It is
told only of a day of which nothing was heard, as one that has nothing but gaps.
"""

# The row of no condition last, in the same block as the others.
_FILL: Final = """
INSERT INTO day_returns (date, account, condition, codes, entries, references, reference_ats, completes, returns,
    sample_returns, sample_cases, across_gap, compared, sample_totals, across, stocks, stock_figures, counts,
    sums, cells, cells_nn, cells_nt, cells_tt, filled_at)
WITH
    hits AS
    (
        SELECT account, condition, code, entry, any(reference) AS reference, any(reference_at) AS reference_at,
            any(ifNull(complete, 0)) AS complete,
            arraySort(each -> each.1, groupArray((number, return, sample_return, sample_cases, across_gap))) AS figures,
            arrayConcat(
                arrayMap(each -> each.2 IS NOT NULL, figures),
                arrayMap(each -> (each.2 - each.3) IS NOT NULL, figures)) AS counts,
            arrayConcat(
                arrayMap(each -> ifNull(each.2, 0), figures),
                arrayMap(each -> ifNull(each.2 - each.3, 0), figures)) AS sums
        FROM
        (
            SELECT *, indexOf(['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'], horizon) AS number
            FROM condition_returns(from_date = '{day}', to_date = '{day}', cost = 0)
        )
        GROUP BY account, condition, code, entry
    ),
    by_stock AS
    (
        SELECT account, condition, code,
            arraySort(hit -> hit.1, groupArray((entry, reference, reference_at, complete, figures))) AS hits,
            sumForEach(hits.counts) AS counts, sumForEach(hits.sums) AS sums
        FROM hits
        GROUP BY account, condition, code
    ),
    by_condition AS
    (
        SELECT account, condition,
            arraySort(stock -> stock.1, groupArray((code, hits, by_stock.counts, by_stock.sums))) AS stocks,
            sumForEach(by_stock.counts) AS counts, sumForEach(by_stock.sums) AS sums,
            sumForEach(arrayMap(n -> n > 0, by_stock.counts)) AS cells,
            sumForEach(arrayMap(n -> n * n, by_stock.counts)) AS cells_nn,
            sumForEach(arrayMap((n, t) -> n * t, by_stock.counts, by_stock.sums)) AS cells_nt,
            sumForEach(arrayMap(t -> t * t, by_stock.sums)) AS cells_tt
        FROM by_stock
        GROUP BY account, condition
    )
SELECT toDate('{day}'), account, condition,
    arrayMap(hit -> hit.1, hits),
    arrayMap(hit -> hit.2.1, hits),
    arrayMap(hit -> hit.2.2, hits),
    arrayMap(hit -> hit.2.3, hits),
    arrayMap(hit -> hit.2.4, hits),
    arrayMap(h -> arrayMap(hit -> hit.2.5[h].2, hits), range(1, 8)),
    arrayMap(h -> arrayMap(hit -> hit.2.5[h].3, hits), range(1, 8)),
    arrayMap(h -> arrayMap(hit -> hit.2.5[h].4, hits), range(1, 8)),
    arrayMap(h -> arrayMap(hit -> hit.2.5[h].5, hits), range(1, 8)),
    arrayMap(h -> arraySum(hit -> if(hit.2.5[h].2 IS NULL, 0, hit.2.5[h].4), hits), range(1, 8)),
    arrayMap(h -> arraySum(hit -> if(hit.2.5[h].2 IS NULL, 0, ifNull(hit.2.5[h].3, 0)), hits), range(1, 8)),
    arrayMap(h -> arrayCount(hit -> hit.2.5[h].5 AND hit.2.5[h].2 IS NOT NULL, hits), range(1, 8)),
    arrayMap(stock -> stock.1, stocks),
    arrayMap(stock -> arrayConcat(arrayMap(n -> toFloat64(n), stock.3), stock.4), stocks),
    counts, sums, cells, cells_nn, cells_nt, cells_tt, toDateTime64('{at}', 6, 'UTC')
FROM
(
    SELECT *, arrayFlatten(arrayMap(stock -> arrayMap(hit -> (stock.1, hit), stock.2), stocks)) AS hits
    FROM by_condition
)
UNION ALL
SELECT toDate('{day}'), '', '', [], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [], [],
    toDateTime64('{at}', 6, 'UTC')
"""
_INSERT: Final[dict[str, Any]] = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "distributed_foreground_insert": 1,
    "max_threads": 1,
    "max_insert_threads": 1,
    # One block, and so one part: seen whole or not at all.
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 0,
    "max_execution_time": _SECONDS,
}


def stale(came: Iterable[tuple[str, date, datetime]], behind: timedelta) -> list[date]:
    """The days whose figures may no longer be what `condition_returns` says, newest first.

    Args:
        came: of each kind (`hits`, `quotes`, `1m`, `1d`, `gaps`, `filled`) and day when the last of it came. Days
            without hits need none.
        behind: how long after the day's fill the last may have come; less than nothing if before it.
    """
    newest: dict[str, dict[date, datetime]] = {}
    for what, day, at in came:
        newest.setdefault(what, {})[day] = at
    daily = sorted(newest.get("1d", ()))
    filled = newest.get("filled", {})
    found = []
    for day in newest.get("hits", ()):
        known = [newest[what][day] for what in ("hits", "quotes", "1m", "1d", "gaps") if day in newest.get(what, {})]
        following = next((each for each in daily if each > day), None)
        if following is not None and following - day <= _NEXT_DAY:
            known.append(newest["1d"][following])
        if day not in filled or max(known) > filled[day] + behind:
            found.append(day)
    return sorted(found, reverse=True)


def kept(
    came: Sequence[tuple[str, date, datetime]], first: date, last: date, behind: timedelta = timedelta(0)
) -> datetime | None:
    """When the last of these days was filled, if all of them may be told out of `day_returns`; else None.

    Args:
        came: as for `stale`.
        behind: how much later than the fill of its day the last may have come.
    """
    if any(first <= day <= last for day in stale(came, behind)):
        return None
    filled = {day: at for what, day, at in came if what == "filled" and first <= day <= last}
    return filled[max(filled)] if filled else None


def moment(at: datetime) -> str:
    """A time as a parameter: the driver's own way of writing it leaves out what is below a second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


async def look(client: AsyncClient, first: date = _FIRST_DAY) -> list[date]:
    """The stale days from `first` on, newest first."""
    answer = await client.query(
        CAME,
        parameters={"first": first, "last": _LAST_DAY},
        settings={"max_execution_time": _SECONDS, "max_threads": 1},
        tz_mode="aware",
    )
    return stale(((what, day, at) for what, day, at in answer.result_rows if day >= first), -_MARGIN)


async def fill(client: AsyncClient, day: date) -> None:
    """Fill a day with what `condition_returns` says of it now."""
    # The server's own time, before anything is read: what comes meanwhile makes the day stale again.
    at = await client.command("SELECT toString(now64(6, 'UTC'))")
    await client.command(_FILL.replace("{day}", day.isoformat()).replace("{at}", str(at)), settings=_INSERT)


async def keep(
    settings: ClickHouseSettings, now: Callable[[], datetime], failing: Callable[[str | None], None] = lambda why: None
) -> None:
    """Fill what is stale, again and again, until cancelled. Whatever ClickHouse does, it is tried again.

    Args:
        failing: is told why it can't, once it could not two times running, and None when it can.
    """
    client: AsyncClient | None = None
    failures = 0
    wait, whole_at = EVERY, float("-inf")
    try:
        while True:
            await asyncio.sleep(wait)
            began = time.monotonic()
            try:
                if client is None:
                    client = await connect_async(settings)
                whole = began - whole_at >= _WHOLE_EVERY
                days = await look(client, _FIRST_DAY if whole else now().astimezone(KST).date() - _RECENT)
                for number, day in enumerate(days[:_AT_ONCE]):
                    if number:
                        await asyncio.sleep(_REST * (time.monotonic() - began))
                        began = time.monotonic()
                    await fill(client, day)
                if whole and len(days) <= _AT_ONCE:
                    whole_at = began
                failures = 0
                failing(None)
            except Exception as error:  # the edge of a task that nobody waits for: the sink must go on writing
                log.warning("what became of hits could not be kept; it is tried again", why=first_line(error))
                failures += 1
                if failures > 1:
                    failing(first_line(error))
            wait = max(EVERY, _REST * (time.monotonic() - began))
    finally:
        if client is not None:
            await client.close()
