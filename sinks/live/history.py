"""What ClickHouse knows beyond today: past transitions, hits as Kiwoom said them, bars, and how conditions fared.

Only asks; the tables and views are `sinks.clickhouse`'s. A few questions at a time, each with a deadline of its own, so
that an analysis never stands in the way of the live stream. Whatever ClickHouse does, the answer is either rows or one
sentence (`HistoryAway`).
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from sinks.clickhouse import uncounted
from sinks.clickhouse.connection import ClickHouseUnavailable, connect_async, first_line
from sinks.clickhouse.returns import REACHED, moment
from sinks.settings import ClickHouseSettings
from streams.events import HitstreamError, Transition

from .answers import Candle, EventLine, HistoryLine, Performance
from .cursor import Place

AT_ONCE: Final = 4
PATIENCE: Final = 5.0  # s to wait for one's turn
QUERY_SECONDS: Final = 15.0
_EXECUTION: Final = 10  # s; ClickHouse itself gives up then
_log = structlog.get_logger(__name__)
_UNKNOWN_NAMES: Final = frozenset({46, 47, 60, 81})  # function, column, table, database

_TRANSITIONS: Final = """
SELECT id, account, condition, code, exchange, kind, origin, date, entry, at, since, dwell, initial, gap_from, gap_to,
       event_id, session, received_at
FROM transitions FINAL
WHERE date = {day:Date} AND ({account:String} = '' OR account = {account:String})
  AND ({condition:String} = '' OR condition = {condition:String}) AND ({code:String} = '' OR code = {code:String})
  AND ({kind:String} = '' OR kind = {kind:String})
  AND (received_at, 2 * entry + (kind = 'exited'), id) < ({at:DateTime64(6)}, {step:Int64}, {id:String})
ORDER BY received_at DESC, 2 * entry + (kind = 'exited') DESC, id DESC
LIMIT {limit:UInt32}
"""

_EVENTS: Final = """
SELECT e.id AS id, account, condition, code, s.name AS name, exchange, action, at, e.received_at AS received_at,
       session, frame, entry
FROM condition_events AS e FINAL
LEFT JOIN (SELECT code, name FROM stocks FINAL) AS s USING (code)
WHERE date = {day:Date} AND ({account:String} = '' OR account = {account:String})
  AND ({condition:String} = '' OR condition = {condition:String}) AND ({code:String} = '' OR code = {code:String})
  AND ({kind:String} = '' OR action = {kind:String})
  AND (e.received_at, entry, e.id) < ({at:DateTime64(6)}, {step:Int64}, {id:String})
ORDER BY received_at DESC, entry DESC, id DESC
LIMIT {limit:UInt32}
"""

_HISTORY: Final = """
SELECT date, account, condition, countIf(kind = 'entered') AS visits, min(at) AS first_at, max(at) AS last_at,
       sumIf(ifNull(dwell, 0), kind = 'exited') AS dwell
FROM transitions FINAL
WHERE code = {code:String} AND date BETWEEN {first:Date} AND {last:Date}
GROUP BY date, account, condition
ORDER BY date DESC, account, condition
LIMIT 5000
"""

_MINUTES: Final = """
SELECT at, open, high, low, close, volume FROM bars FINAL
WHERE interval = '1m' AND date = {day:Date} AND code = {code:String} ORDER BY at LIMIT 2000
"""

_DAYS: Final = """
SELECT at, open, high, low, close, volume FROM bars FINAL
WHERE interval = '1d' AND date BETWEEN {first:Date} AND {day:Date} AND code = {code:String} ORDER BY at LIMIT 2000
"""

_PERFORMANCE: Final = """
SELECT account, condition, horizon, hits, priced, mean, median, q1, q3, positive, low, high, sample_mean, sample_cases,
       difference, difference_low, difference_high, gaps
FROM {view}(from_date = {first:Date}, to_date = {last:Date}, cost = {cost:Float64})
ORDER BY account, condition, indexOf(['1m', '5m', '30m', 'close', 'next_open', 'best', 'worst'], horizon)
LIMIT 20000
"""

# When each day with hits was last filled in `day_returns`; `behind` if that was long before its last transition came.
_FILLED: Final = """
SELECT t.date AS date, ifNull(f.at, toDateTime64(0, 6, 'UTC')) AS filled_at,
       filled_at + INTERVAL 5 MINUTE < t.newest AS behind
FROM
(
    SELECT date, max(inserted_at) AS newest FROM transitions
    WHERE date BETWEEN {first:Date} AND {last:Date} GROUP BY date
) AS t
LEFT JOIN
(
    SELECT date, max(filled_at) AS at FROM day_returns
    WHERE date BETWEEN {first:Date} AND {last:Date} AND account = '' AND condition = '' GROUP BY date
) AS f ON f.date = t.date
ORDER BY date
"""
_KEPT: Final = 64  # answers
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Filled = tuple[date, datetime, bool]


class HistoryAway(HitstreamError):
    """ClickHouse is not configured, does not answer, or lacks what was asked for."""


class NotMigrated(HistoryAway):
    """ClickHouse has not all tables and views yet."""


class Filter(dict[str, Any]):
    """Which lines are wanted, as parameters of a query; what is empty is not asked for."""

    def __init__(
        self, day: date, *, account: str | None, condition: str | None, code: str | None, kind: str | None
    ) -> None:
        super().__init__(day=day, account=account or "", condition=condition or "", code=code or "", kind=kind or "")


class History:
    """Asks ClickHouse. It connects when the first question comes; `settings` None means there is none to ask."""

    def __init__(self, settings: ClickHouseSettings | None) -> None:
        self._settings = settings
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._computing = asyncio.Lock()
        self._kept: OrderedDict[tuple[date, date, float], tuple[list[_Filled], tuple[Performance, ...]]] = OrderedDict()

    @property
    def is_there(self) -> bool:
        """Whether there is a ClickHouse to ask."""
        return self._settings is not None

    async def transitions(self, wanted: Filter, before: Place | None, limit: int) -> list[Transition]:
        """Transitions of one day, newest first. Raises HistoryAway."""
        rows = await self._page(_TRANSITIONS, wanted, before, limit)
        return [Transition(**row) for row in rows]

    async def events(self, wanted: Filter, before: Place | None, limit: int) -> list[EventLine]:
        """Hits and exits of one day as Kiwoom said them, newest first. Raises HistoryAway."""
        rows = await self._page(_EVENTS, wanted, before, limit)
        return [EventLine(**row) for row in rows]

    async def visits(self, code: str, first: date, last: date) -> tuple[HistoryLine, ...]:
        """A stock's visits by day and condition, newest first. Raises HistoryAway."""
        return tuple(
            HistoryLine(**row) for row in await self._ask(_HISTORY, {"code": code, "first": first, "last": last})
        )

    async def bars(self, code: str, interval: Literal["1m", "1d"], day: date) -> tuple[Candle, ...]:
        """Kiwoom's own minute bars of a day, or its daily bars of the year until then. Raises HistoryAway."""
        first = day - timedelta(days=366) if day.year > 1970 else day
        query = _MINUTES if interval == "1m" else _DAYS
        return tuple(Candle(**row) for row in await self._ask(query, {"code": code, "day": day, "first": first}))

    async def performance(self, first: date, last: date, cost: float) -> tuple[Performance, ...]:
        """How the hits of every condition fared: out of `hit_returns` if all of these days are there, else now.

        What comes out of it is kept, and told again until one of the days is filled anew. Raises HistoryAway.
        """
        asked = {"first": first, "last": last}
        try:
            filled = [(row["date"], row["filled_at"], bool(row["behind"])) for row in await self._ask(_FILLED, asked)]
        except NotMigrated:  # of an earlier version: the views may be there
            filled = [(first, _NEVER, True)]
        if any(behind for _, _, behind in filled):
            return await self._fared("condition_performance", uncounted.LIVE, asked, cost)
        async with self._computing:  # who asks the same meanwhile gets the same answer
            kept = self._kept.get((first, last, cost))
            if kept is None or kept[0] != filled:
                # A day that is over was filled when everything of it was known: the newest one says how far they go.
                as_of = await self._reached(*filled[-1][:2]) if filled else None
                rows = await self._fared("condition_performance_stored", uncounted.STORED, asked, cost, as_of)
                kept = self._kept[first, last, cost] = filled, rows
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return kept[1]

    async def _reached(self, day: date, filled_at: datetime) -> datetime:
        [row] = await self._ask(REACHED, {"day": day, "filled": moment(filled_at)})
        reached: datetime = row["reached"]
        return reached

    async def _fared(
        self, view: str, left_out: str, asked: dict[str, Any], cost: float, as_of: datetime | None = None
    ) -> tuple[Performance, ...]:
        rows = await self._ask(_PERFORMANCE.replace("{view}", view), asked | {"cost": cost})
        causes = uncounted.by_horizon(await self._ask(left_out, asked)) if rows else {}
        nothing = uncounted.Uncounted()
        return tuple(
            Performance(
                **row,
                **causes.get((row["account"], row["condition"], row["horizon"]), nothing)._asdict(),
                as_of=as_of,
            )
            for row in rows
        )

    async def close(self) -> None:
        """Let go of ClickHouse."""
        if self._client is not None:
            await self._client.close()

    # --- asking ------------------------------------------------------------------------------------------------------

    async def _page(self, query: str, wanted: Filter, before: Place | None, limit: int) -> list[dict[str, Any]]:
        # As text: the driver's own way of writing a time leaves out what is below a second.
        at = f"{before.at:%Y-%m-%d %H:%M:%S.%f}" if before else "2200-01-01 00:00:00.000000"
        place = {"at": at, "step": before.step if before else 0, "id": before.id if before else ""}
        return await self._ask(query, wanted | place | {"limit": limit})

    async def _ask(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        if self._settings is None:
            raise HistoryAway("This needs ClickHouse: set clickhouse.dsn (HITSTREAM_CLICKHOUSE__DSN) and restart.")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            raise HistoryAway("ClickHouse is busy with other questions: ask again in a moment.") from None
        try:
            async with asyncio.timeout(QUERY_SECONDS):
                client = await self._connected(self._settings)
                answer = await client.query(
                    query,
                    parameters=parameters,
                    settings={"max_execution_time": _EXECUTION, "readonly": 2},
                    tz_mode="aware",
                )
        except ClickHouseUnavailable as error:
            raise HistoryAway(str(error)) from error
        except (ClickHouseError, OSError, TimeoutError) as error:
            _log.warning("live.history_away", why=first_line(error))
            code = getattr(error, "code", None)
            if code in _UNKNOWN_NAMES:
                raise NotMigrated("ClickHouse has not all tables and views yet: run `hitstream migrate`.") from error
            raise HistoryAway("ClickHouse does not answer this in time: ask again, or for less.") from error
        finally:
            self._turns.release()
        return [dict(zip(answer.column_names, map(_finite, row), strict=True)) for row in answer.result_rows]

    async def _connected(self, settings: ClickHouseSettings) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await connect_async(settings)
            return self._client


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
