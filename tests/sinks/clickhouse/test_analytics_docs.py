"""Every example of docs/analytics.md is asked of a simulated week, and answers what stands there.

With `HITSTREAM_WRITE_DOCS=1` the answers are written anew instead of compared.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.plants import Plant
from deploy.local.kiwoom.rehearsal import rehearse
from sinks.clickhouse.connection import connect, connect_async
from sinks.clickhouse.migrate import migrate, migrations
from sinks.clickhouse.returns import fill, look
from sinks.settings import ClickHouseSettings

from .conftest import Server
from .market import clock, tapes
from .tape import Tape

PAGE = Path(__file__).parents[3] / "docs" / "analytics.md"
EXAMPLE = re.compile(r"```sql\n(?P<query>.*?)\n```\n\n(?:(?:\|[^\n]*\n)+\n)?", re.DOTALL)

PLANTS = [Plant("돌파", 0.01, 300.0), Plant("거래량 급증", 0.0, 300.0), Plant("급락", -0.005, 300.0)]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    """A week of the local market with the effects that the page tells of, and with what its tables need besides."""
    settings = server.settings()
    migrate(settings)
    client = connect(settings)
    days = list(rehearse(39, date(2026, 3, 9), 5, PLANTS, stocks=14, gap=120.0, every=3600.0))
    names = {listing.code: listing.name for listing in listings()}
    for day, tape in zip(days, tapes(days), strict=True):
        for code in day.trades:
            tape.stock(code, names[code])
        if day.date == date(2026, 3, 11):
            tape.gap("급락", "10:00:00", "10:20:00").status("급락", "unanswered", "10:00:05", "10:20:00")
        found = [hit for hit in day.hits if hit.condition == "돌파"]
        if day.date == date(2026, 3, 13):
            for hit in found[:4]:
                tape.recommendation(hit.code, clock(hit.at), [hit.condition])
        tape.write(client)
    after = Tape(days[-1].date + timedelta(days=3))
    after.hit("돌파", days[0].hits[0].code, "09:01:00").write(client)
    asyncio.run(keep_up(settings))
    yield client
    client.close()


async def keep_up(settings: ClickHouseSettings) -> None:
    """Fill what the sink keeps, as it does."""
    client = await connect_async(settings)
    for day in await look(client):
        await fill(client, day)
    await client.close()


def test_every_view_has_an_example() -> None:
    [analytics] = [migration for migration in migrations() if migration.number == 4]
    views = {re.match(r"CREATE OR REPLACE VIEW (\w+)", each)[1] for each in analytics.statements}  # type: ignore[index]
    queries = " ".join(match["query"] for match in EXAMPLE.finditer(PAGE.read_text("utf-8")))
    assert {view for view in views if view in queries} == views


def test_the_examples_answer_what_the_page_says(client: Client) -> None:
    text = PAGE.read_text("utf-8")

    def answered(match: re.Match[str]) -> str:
        told = client.raw_query(f"{match['query'].rstrip(';')} FORMAT Markdown").decode()
        return f"```sql\n{match['query']}\n```\n\n{told}\n"

    asked = EXAMPLE.sub(answered, text)
    if os.environ.get("HITSTREAM_WRITE_DOCS"):
        PAGE.write_text(asked, "utf-8")
    assert asked == text or os.environ.get("HITSTREAM_WRITE_DOCS")
