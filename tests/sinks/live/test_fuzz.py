"""The API asked at random, as its OpenAPI document describes it: never a 5xx of its own, and every answer as described.

The examples are few in the suite; `HITSTREAM_TEST_API_EXAMPLES=500` asks longer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as described

from sinks.live.access import Access, Token
from sinks.live.answers import Accepted, RecommendCommand, WithdrawCommand
from sinks.live.commands import Commands, command
from sinks.live.hub import Hub
from sinks.live.server import application
from sinks.live.stream import Broadcaster
from streams.events import Quote, trading_date

from .feed import NINE, a_bit_of_everything

EXAMPLES = int(os.environ.get("HITSTREAM_TEST_API_EXAMPLES", "12"))
SECRET = "a token of the owner"


class Accepting(Commands):
    """Judges commands like the real one, and sends them nowhere."""

    async def send(self, asked: RecommendCommand | WithdrawCommand, by: str) -> Accepted:
        record = command(asked, by, NINE)
        return Accepted(id=record.id, at=record.at)


def app() -> Any:
    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, lambda: NINE + timedelta(minutes=1))
    for record in a_bit_of_everything():
        hub.apply(record, NINE)
    hub.apply(
        Quote(code="005930", at=NINE, received_at=NINE, price=70_000, high=70_100, low=69_900, volume=1, trades=1), NINE
    )
    broadcaster.open()
    assert hub.day == trading_date(NINE)
    return application(
        broadcaster,
        access=Access([Token(label="owner", secret=SECRET, may_write=True)]),
        commands=Accepting("", lambda: NINE),
        now=lambda: NINE,
    )


schema = schemathesis.openapi.from_asgi("/openapi.json", app(), headers={"Authorization": f"Bearer {SECRET}"})
