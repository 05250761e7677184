"""Killed at random, writer, ClickHouse and broker leave nothing that shows (`make chaos`: longer)."""

from __future__ import annotations

from typing import Any

import pytest

from .chaos import Plan, chaos

PLAN = Plan(seed=20261123, records=20_000, writer=8, clickhouse=1, broker=1)


@pytest.mark.kafka
async def test_tables_are_equal_to_their_topics_whatever_is_killed(
    broker: Any, own_server: Any, kafka_engine: str
) -> None:
    """None missing, none twice, none different, by identity."""
    if kafka_engine != "apache":
        pytest.skip("noida-db promises no durability")
    figures = await chaos(PLAN, broker, own_server, print)
    print(figures)
    assert figures.writer_kills == PLAN.writer
    assert figures.kills_at_work >= 3
    assert (figures.clickhouse_kills, figures.broker_kills) == (PLAN.clickhouse, PLAN.broker)
    assert figures.rows > PLAN.records
