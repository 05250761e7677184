"""A recommendation by hand: from the dashboard's API through the streams to the live stream and to ClickHouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from product import Product, until

from streams import events, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


async def test_a_recommendation_by_hand_comes_back_as_one_and_is_withdrawn(
    make_product: Callable[..., Product],
) -> None:
    product = make_product(environ={"HITSTREAM_LIVE__USER": "kim", "HITSTREAM_LOCAL__MARKET_ACTIVITY": "0"})
    product.start()
    await product.wait_running()
    async with httpx.AsyncClient(base_url=product.dashboard, timeout=30) as client:

        async def answer(path: str) -> Any:
            answered = await client.get(path)
            assert answered.status_code == 200, answered.text
            return answered.json()

        async def listed() -> bool:
            return bool(await answer("/api/stocks?q=0"))

        await until(listed, "the list of stocks")
        stock = (await answer("/api/stocks?q=0"))[0]
        session = await answer("/api/session")
        assert (session["who"], session["may_write"], session["has_history"]) == ("kim", True, True)

        async def send(command: str, **body: Any) -> str:
            sent = await client.post(
                f"/api/commands/{command}",
                json={"code": stock["code"]} | body,
                headers={"X-Hitstream-CSRF": session["csrf"]},
            )
            assert sent.status_code == 202, sent.text
            return str(sent.json()["id"])

        async def latest() -> dict[str, Any]:
            views = await answer(f"/api/recommendations?code={stock['code']}")
            return dict(views[-1]["recommendation"]) if views else {}

        given = await send("recommend", note="수급", request="by-hand-1")
        assert given == await send("recommend", note="수급", request="by-hand-1")

        async def is_open() -> bool:
            return (await latest()).get("state") == "open"

        await until(is_open, "the recommendation")
        told = await latest()
        (reason,) = [reason for reason in told["reasons"] if reason["kind"] == "manual"]
        assert (told["cause_id"], reason["by"], reason["note"]) == (given, "kim", "수급")

        withdrawn = await send("withdraw", request="by-hand-2")

        async def is_closed() -> bool:
            return (await latest()).get("state") == "closed"

        await until(is_closed, "the withdrawal")
        told = await latest()
        assert (told["cause"], told["cause_id"]) == ("withdrawn", withdrawn)

        async def stored() -> bool:
            return len(product.rows("SELECT id FROM commands FINAL")) == 2

        await until(stored, "the commands in ClickHouse")
        rows = product.rows("SELECT action, code, `by`, note, id FROM commands FINAL ORDER BY at")
        assert rows == [
            ("recommend", stock["code"], "kim", "수급", given),
            ("withdraw", stock["code"], "kim", "", withdrawn),
        ]
    revisions = [r for r in await product.records(topics.RECOMMENDATIONS) if isinstance(r, events.Recommendation)]
    assert {r.recommendation_id for r in revisions if r.code == stock["code"]} == {told["recommendation_id"]}
