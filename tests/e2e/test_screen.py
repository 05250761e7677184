"""What a trader reads off the page and does on it, against what ClickHouse has of it: prices, and a command by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from browser import Page, open_page
from product import Product, until

from streams import events, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

ENVIRON = {
    "HITSTREAM_CLOCK__START": "2026-11-23T09:30:00+09:00",
    "HITSTREAM_CLOCK__SPEED": "60",
    "HITSTREAM_LOCAL__MARKET_SEED": "11",
    "HITSTREAM_LIVE__USER": "kim",
}
LEAST = 5  # recommendations that the comparison is to be of


async def test_the_page_shows_and_sends_what_clickhouse_has(make_product: Callable[..., Product]) -> None:
    product = make_product(environ=ENVIRON)
    product.start()
    await product.wait_running()
    await until(lambda: has_prices(product), f"{LEAST} recommendations with a price that has moved", 120)
    await product.control("POST", "/local/pause")
    await all_stored(product)
    async with open_page(product.dashboard) as page:
        await prices_are_those_of_clickhouse(page, product)
        await a_command_comes_back(page, product)
        assert page.errors == []


async def has_prices(product: Product) -> bool:
    """Whether there are enough recommendations of which a price since then is known that is another one."""
    async with httpx.AsyncClient(base_url=product.dashboard, timeout=30) as client:
        views = (await client.get("/api/recommendations?state=open")).json()
    moved = [view for view in views if view["track"] and view["track"]["high"] != view["track"]["low"]]
    return len(moved) >= LEAST


async def all_stored(product: Product) -> None:
    """Wait until ClickHouse has every quote and revision that Kafka has, and no more come."""
    before = -1

    async def same() -> bool:
        nonlocal before
        quotes = [r for r in await product.records(topics.QUOTES) if isinstance(r, events.Quote)]
        identities = {(q.code, q.exchange, q.received_at, q.session) for q in quotes}
        revisions = {
            r.id for r in await product.records(topics.RECOMMENDATIONS) if isinstance(r, events.Recommendation)
        }
        [(stored,)] = product.rows("SELECT count() FROM quotes FINAL")
        [(known,)] = product.rows("SELECT count() FROM recommendations FINAL")
        unchanged, before = len(quotes) == before, len(quotes)
        return unchanged and (stored, known) == (len(identities), len(revisions))

    await until(same, "every quote in ClickHouse")


async def prices_are_those_of_clickhouse(page: Page, product: Product) -> None:
    """A row's price is the last quote of its stock, its reference the first one since the recommendation opened."""
    opened = """
        SELECT code, recommendation_id, argMax(state, revision) AS last_state, min(opened_at) AS since
        FROM recommendations FINAL GROUP BY code, recommendation_id HAVING last_state = 'open'"""
    stored = {
        (code, recommendation): (str(last), str(reference) if known else None)
        for code, recommendation, last, reference, known in product.rows(
            f"""SELECT r.code, r.recommendation_id, argMax(q.price, q.received_at),
                       argMinIf(q.price, q.received_at, q.received_at >= r.since), countIf(q.received_at >= r.since)
                FROM ({opened}) AS r INNER JOIN (SELECT * FROM quotes FINAL) AS q ON q.code = r.code
                GROUP BY r.code, r.recommendation_id"""
        )
    }
    shown: dict[tuple[str, str], tuple[str | None, str | None]] = {}

    async def same() -> bool:
        nonlocal shown
        rows = [row for row in await page.rows("recommendation-row") if row["data-state"] == "open"]
        shown = {
            (row["data-code"], row["data-recommendation-id"]): (row.get("data-price"), row.get("data-reference"))
            for row in rows
            if "data-price" in row
        }
        return shown == stored

    try:
        await until(same, "the prices of the page", 20)
    except AssertionError:
        wrong = {key: (shown.get(key), stored.get(key)) for key in shown.keys() ^ stored.keys() | shown.keys() & stored}
        raise AssertionError({key: pair for key, pair in wrong.items() if pair[0] != pair[1]}) from None
    assert len(shown) >= LEAST
    assert any(price != reference for price, reference in shown.values()), "no price has moved: this shows nothing"


async def a_command_comes_back(page: Page, product: Product) -> None:
    """Recommended and withdrawn with the page's own buttons; who and when is what ClickHouse has of it."""
    tab = page.tab
    standing = {row["data-code"] for row in await page.rows("recommendation-row")}
    async with httpx.AsyncClient(base_url=product.dashboard, timeout=30) as client:
        listed = (await client.get("/api/stocks?q=0&limit=100")).json()
    code = next(stock["code"] for stock in listed if stock["code"] not in standing)

    await tab.click('[data-testid="recommend-button"]')
    await tab.fill("#stock", code)
    await tab.wait_for_selector(f"#stock-{code}")
    await tab.keyboard.press("Enter")
    await tab.fill("#note", "수급 좋음")
    await tab.click('[data-testid="dialog-recommend"] [type="submit"]')
    await tab.fill("#search-now", code)
    row = f'[data-testid="recommendation-row"][data-code="{code}"]'
    await tab.wait_for_selector(row, timeout=30_000)
    await tab.click(f"{row} .chevron")
    details = await tab.inner_text("tr.details")

    async def stored(count: int) -> bool:
        return len(await given(product, code)) == count

    await until(lambda: stored(1), "the command in ClickHouse")
    [(action, by, note, at, _)] = await given(product, code)
    assert (action, by, note) == ("recommend", "kim", "수급 좋음")
    assert "kim" in details, details
    assert "수급 좋음" in details, details
    assert at in details, details

    await tab.click("tr.details button")
    await tab.click('[data-testid="dialog-withdraw"] [type="submit"]')
    await tab.wait_for_selector(
        f'[data-testid="sent-command"][data-kind="withdraw"][data-code="{code}"][data-state="done"]'
    )
    await until(lambda: stored(2), "the withdrawal in ClickHouse")
    withdrawn = (await given(product, code))[1]
    assert withdrawn[:2] == ("withdraw", "kim")

    async def closed() -> bool:
        last = product.rows(
            "SELECT argMax((state, cause, cause_id), revision) FROM recommendations FINAL"
            f" WHERE code = '{code}' GROUP BY recommendation_id"
        )
        return last == [(("closed", "withdrawn", withdrawn[4]),)]

    await until(closed, "the closed recommendation in ClickHouse")


async def given(product: Product, code: str) -> list[tuple[Any, ...]]:
    """What was commanded of a stock, as ClickHouse has it, oldest first."""
    return product.rows(
        "SELECT action, `by`, note, formatDateTime(at, '%H:%i:%S', 'Asia/Seoul'), id"
        f" FROM commands FINAL WHERE code = '{code}' ORDER BY at"
    )
