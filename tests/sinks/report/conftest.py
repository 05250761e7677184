"""A ClickHouse for the report's tests, as the sink's have it."""

from __future__ import annotations

from tests.sinks.clickhouse.conftest import server, settings

__all__ = ["server", "settings"]
