"""The order of the benchmarks: the paths as a hit takes them, then what the product as a whole costs."""

from __future__ import annotations

import pytest

_ORDER = (
    "ingest", "streams", "clickhouse_writer", "hub", "latency", "stream_latency", "open", "cold_start", "stack",
    "takeover", "scaling", "queries",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {f"bench_{name}": number for number, name in enumerate(_ORDER)}
    items.sort(key=lambda item: known.get(item.path.stem, len(known)))
