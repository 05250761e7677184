"""How long tables keep their rows: what the settings say, against what the tables have.

`migrate` asks for the changes and makes them, under its lock. Rows are kept for ever unless somebody says a number of
days, counted from the trading date of the row; ClickHouse deletes what is older when it merges, which may take hours.
A TTL of another form than ours is its operator's own – moving old rows to a cheaper disk, say – and is left alone.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.client import Client

from ..settings import ClickHouseSettings

log = structlog.get_logger(__name__)

TABLES: Final = {
    "keep_events": ("condition_events", "condition_snapshots", "searches", "search_results"),
    "keep_decisions": ("transitions", "search_reasons", "commands", "recommendations", "gaps", "day_returns"),
    "keep_quotes": ("quotes",),
    "keep_bars": ("bars",),
    "keep_statuses": ("statuses",),
}
"""Which tables a setting is about. `stocks` is what is true now, and has no days."""

_CLAUSE: Final = re.compile(r".*?\sTTL\s+(?P<ttl>.+?)\s*(?:\sSETTINGS\s.*)?", re.DOTALL)
_OURS: Final = re.compile(r"date \+ toIntervalDay\((?P<days>\d+)\)")


class Change(msgspec.Struct, frozen=True):
    """A table that is to keep its rows so many days, 0 for ever."""

    table: str
    days: int

    @property
    def name(self) -> str:
        """In words, beside the names of migrations."""
        return f"{self.table} kept {f'{self.days} days' if self.days else 'for ever'}"

    @property
    def statement(self) -> str:
        """What makes the change."""
        if self.days:
            return f"ALTER TABLE {self.table} MODIFY TTL date + toIntervalDay({self.days})"
        return f"ALTER TABLE {self.table} REMOVE TTL"


def changes(client: Client, settings: ClickHouseSettings) -> list[Change]:
    """What is to be changed so that every table keeps what the settings say; of the tables that are there."""
    suffix = "_local" if settings.cluster else ""
    rows = client.query(
        "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    ).result_rows
    engines = {str(name): str(engine) for name, engine in rows}
    wanted = []
    for setting, tables in TABLES.items():
        days: int = getattr(settings, setting)
        for table in tables:
            if (engine := engines.get(table + suffix)) is None:
                continue
            has = kept(engine)
            if has is None:
                if days:
                    log.warning("a table has a TTL of its own, which is left alone", table=table, setting=setting)
            elif has != days:
                wanted.append(Change(table, days))
    return wanted


def kept(engine: str) -> int | None:
    """The days that a table keeps its rows by its engine's definition: 0 for ever, None by a rule that is not ours."""
    clause = _CLAUSE.fullmatch(engine)
    if clause is None:
        return 0
    ours = _OURS.fullmatch(clause["ttl"])
    return int(ours["days"]) if ours else None
