"""The API asked at random, as its OpenAPI document describes it: never a 5xx, and every answer as described.

ClickHouse and Kafka are played here, so that every question has an answer; that they are asked rightly is for
`test_history` and `test_commands`. In the suite the examples are few; HITSTREAM_TEST_API_EXAMPLES=500 asks longer.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from typing import Any

import schemathesis
from day import NINE, a_bit_of_everything
from hypothesis import HealthCheck, Phase, settings

from sinks.live.access import Access, Token
from sinks.live.answers import Accepted, RecommendCommand, WithdrawCommand
from sinks.live.commands import Commands, command
from sinks.live.history import History
from sinks.live.hub import Hub
from sinks.live.server import application
from sinks.live.stream import Broadcaster
from sinks.settings import ClickHouseSettings
from streams.events import Transition

EXAMPLES = int(os.environ.get("HITSTREAM_TEST_API_EXAMPLES", "8"))
SECRET = "a token of the owner"


class Accepting(Commands):
    """Judges commands like the real one, and sends them nowhere."""

    async def send(self, asked: RecommendCommand | WithdrawCommand, by: str) -> Accepted:
        record = command(asked, by, NINE)
        return Accepted(id=record.id, at=record.at)


class Answering(History):
    """Has one row for every question."""

    async def _ask(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        lines = [record for record in a_bit_of_everything() if isinstance(record, Transition)]
        who = {"account": "main", "condition": "신고가 돌파"}
        if "AS reached" in query:
            return [{"reached": NINE}]
        if "FROM bars" in query:
            return [{"at": NINE, "open": 1, "high": 2, "low": 1, "close": 2, "volume": 3}]
        if "AS past_close" in query:
            return [who | {"without_price": 1, "past_close": [0, 0, 0, 0]}]
        if "FROM day_returns" in query:
            return [{"date": date(2026, 3, 4), "filled_at": NINE, "behind": False}]
        if "condition_performance" in query:
            numbers = dict.fromkeys(
                ("mean", "median", "q1", "q3", "positive", "low", "high", "sample_mean", "difference",
                 "difference_low", "difference_high")
            )  # fmt: skip
            return [who | numbers | {"horizon": "5m", "hits": 1, "priced": 0, "sample_cases": 0, "gaps": 0}]
        if "FROM condition_events" in query:
            place = {"session": "s", "frame": 1, "entry": 1, "exchange": "KRX", "name": ""}
            return [who | place | {"id": "e", "code": "005930", "action": "hit", "at": NINE, "received_at": NINE}]
        if "GROUP BY date" in query:
            times = {"first_at": NINE, "last_at": NINE, "dwell": 1.5, "visits": 1}
            return [who | times | {"date": date(2026, 3, 4)}]
        return [{name: getattr(line, name) for name in line.__struct_fields__} for line in lines]


def application_of_a_day() -> Any:
    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, lambda: NINE + timedelta(minutes=1))
    for record in a_bit_of_everything():
        hub.apply(record, NINE)
    broadcaster.open()
    return application(
        broadcaster,
        access=Access([Token(label="owner", secret=SECRET, may_write=True)]),
        history=Answering(ClickHouseSettings(dsn="clickhouse://nowhere")),
        commands=Accepting("", lambda: NINE),
        now=lambda: NINE,
    )


BEARER = {"Authorization": f"Bearer {SECRET}"}
document = schemathesis.openapi.from_asgi("/openapi.json", application_of_a_day(), headers=BEARER)


@document.hook
def map_query(_: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """No document can say that a period ends after it begins: what is to be taken does."""
    if query and all(isinstance(query.get(name), str) for name in ("from", "to")):
        query["from"], query["to"] = sorted((query["from"], query["to"]))
    return query


@document.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_is_answered_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=BEARER)


def test_the_whole_api_is_described() -> None:
    assert sorted(document.raw_schema["paths"]) == [
        "/api/commands/recommend",
        "/api/commands/withdraw",
        "/api/conditions",
        "/api/conditions/{account}/{condition}",
        "/api/events",
        "/api/gaps",
        "/api/performance",
        "/api/recommendations",
        "/api/session",
        "/api/status",
        "/api/stocks",
        "/api/stocks/{code}",
        "/api/stocks/{code}/bars",
        "/api/stocks/{code}/history",
        "/api/transitions",
    ]
