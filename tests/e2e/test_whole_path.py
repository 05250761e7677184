"""From a Kiwoom frame to a ClickHouse row and a browser: nothing missing, nothing twice, whoever is killed meanwhile.

One product, one long story, because starting it is the expensive part. Every comparison is with the market's own truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from browser import Page, open_page
from product import CONDITIONS, Live, Product, until
from truth import Crossing, changes, crossings, members, recommended, said

from deploy.up import LOCAL_CONDITIONS, LOCAL_THRESHOLD
from streams import events, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

WEIGHTS = {str(condition["name"]): float(str(condition["weight"])) for condition in LOCAL_CONDITIONS}
FAST = {
    "HITSTREAM_CLOCK__START": "2026-11-23T09:30:00+09:00",
    "HITSTREAM_CLOCK__SPEED": "60",
    "HITSTREAM_LOCAL__MARKET_SEED": "11",
}


async def market_reaches(product: Product, events_so_far: int) -> None:
    async def reached() -> bool:
        return int((await product.control("GET", "/local/state"))["events"]) >= events_so_far

    await until(reached, f"{events_so_far} hits and exits on the market", 240)


async def settled(product: Product) -> dict[str, Any]:
    """Pause the market and wait until every reader has everything; returns the market's truth."""
    await product.control("POST", "/local/pause")
    truth: dict[str, Any] = await product.control("GET", "/local/truth")
    history = crossings(truth, CONDITIONS)

    async def published() -> bool:
        return await live_conditions(product) == {name: len(members(history[name])) for name in CONDITIONS}

    await until(published, "the state of every condition on the live stream")
    before: list[int] = []

    async def quiet() -> bool:
        """Nothing moves any more, and ClickHouse has all that Kafka has."""
        nonlocal before
        missing, counts = 0, []
        for table, topic in TABLES.items():
            kafka = ids(await product.records(topic))
            rows = {str(row[0]) for row in product.rows(f"SELECT id FROM {table} FINAL")}
            missing += len(kafka - rows)
            counts += [len(kafka), len(rows)]
        same, before = counts == before, counts
        return same and not missing

    await until(quiet, "rest after the pause")
    return truth


TABLES = {
    "condition_events": topics.CONDITION_EVENTS,
    "transitions": topics.TRANSITIONS,
    "recommendations": topics.RECOMMENDATIONS,
}


async def live_conditions(product: Product) -> dict[str, int]:
    """Members by condition as the JSON API says."""
    import httpx

    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{product.dashboard}/api/conditions")
        found = answer.json()
    return {view["condition"]: view["members"] for view in found}


def ids(records: list[events.Record]) -> set[str]:
    """Identities of the hits and exits, transitions and revisions among records."""
    kinds = events.ConditionEvent | events.Transition | events.Recommendation
    return {record.id for record in records if isinstance(record, kinds)}


def latest(records: list[events.Record]) -> dict[str, events.Recommendation]:
    """The last revision of every recommendation."""
    found: dict[str, events.Recommendation] = {}
    for record in records:
        if isinstance(record, events.Recommendation):
            known = found.get(record.recommendation_id)
            if known is None or record.revision >= known.revision:
                found[record.recommendation_id] = record
    return found


@contextlib.asynccontextmanager
async def watching(product: Product) -> AsyncIterator[Live]:
    """A reader of the live stream for the whole story."""
    live = Live(product.dashboard)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(live.run())
        try:
            yield live
        finally:
            reading.cancel()


async def test_every_reader_has_the_markets_truth_whoever_is_killed(make_product: Callable[..., Product]) -> None:
    """At least 500 hits and exits; the producer, the worker and both sinks are stopped or killed on the way."""
    product = make_product(environ=FAST)
    product.start()
    await product.wait_running()
    async with watching(product) as live:
        start = int((await product.control("GET", "/local/state"))["events"])
        await market_reaches(product, start + 100)
        await product.kill("stream")
        await market_reaches(product, start + 200)
        await product.kill("clickhouse-sink")
        await product.kill("live")
        await market_reaches(product, start + 350)
        await product.control("POST", "/local/pause")  # what moves while nobody listens is another test's matter
        await producer_is_quiet(product)
        await product.kill("produce", signal.SIGTERM)
        await all_live(product)
        await product.kill("produce", signal.SIGKILL)
        await all_live(product)
        await product.control("POST", "/local/resume")
        await market_reaches(product, start + 700)
        truth = await settled(product)

        history = crossings(truth, CONDITIONS)
        records = await product.records(topics.CONDITION_EVENTS)
        assert [record for record in records if isinstance(record, events.Due)] == []
        first = first_snapshots(records)
        assert sorted(first) == sorted(CONDITIONS)
        after = {}
        for condition in CONDITIONS:
            # Entry 0 only confirms what was said in the second of joining.
            heard = [r for r in records if isinstance(r, events.ConditionEvent) and r.entry]
            told = [said(r) for r in heard if r.condition == condition]
            assert [crossing for crossing, count in Counter(told).items() if count > 1] == []
            before, after[condition] = split(history[condition], told)
            assert told == after[condition], "the condition's hits and exits, in the market's order, none missing"
            assert set(first[condition].codes) == members(before), "the first snapshot is what the market held"
        assert sum(map(len, after.values())) >= 500

        transitions = [r for r in await product.records(topics.TRANSITIONS) if isinstance(r, events.Transition)]
        expected = [change for name in CONDITIONS for change in changes(first[name].codes, after[name], name)]
        found = {r.id: (r.condition, r.code, r.kind, r.entry) for r in transitions}
        assert sorted(found.values()) == sorted(map(tuple, expected))
        assert {r.initial for r in transitions if r.origin == "snapshot"} == {True}

        published = await product.records(topics.RECOMMENDATIONS)
        held = {name: members(history[name]) for name in CONDITIONS}
        standing = {r.code: r for r in latest(published).values() if r.state == "open"}
        wanted = recommended(held, WEIGHTS, LOCAL_THRESHOLD)
        assert {code: r.score for code, r in standing.items()} == wanted
        assert wanted, "the market has brought no recommendation at all"
        for recommendation in latest(published).values():
            explained(recommendation)
        for code, recommendation in standing.items():
            assert {reason.condition for reason in recommendation.reasons} == {n for n in held if code in held[n]}

        rows = product.rows("SELECT id FROM condition_events FINAL")
        event_ids = {r.id for r in records if isinstance(r, events.ConditionEvent)}
        assert (len(rows), {row[0] for row in rows}) == (len(event_ids), event_ids)
        rows = product.rows("SELECT id, condition, code, kind, entry FROM transitions FINAL")
        assert sorted((row[0], tuple(row[1:])) for row in rows) == sorted(found.items())
        rows = product.rows("SELECT id, state, score, length(reasons) FROM recommendations FINAL")
        revisions = {r.id: r for r in published if isinstance(r, events.Recommendation)}
        assert sorted(rows) == sorted((r.id, r.state, r.score, len(r.reasons)) for r in revisions.values())
        check_rec_stocks(product, list(revisions.values()))

        assert live.said_twice == []
        assert live.connections >= 2, "the hub was killed once"
        lines = {k: (v["condition"], v["code"], v["kind"], v["entry"]) for k, v in live.transitions.items()}
        assert lines.items() <= found.items()
        assert live.since is not None
        assert {r.id for r in transitions if r.received_at > live.since} <= lines.keys()
        seen = {r["code"]: r["score"] for r in live.recommendations.values() if r["state"] == "open"}
        assert seen == wanted
        assert {n: view["members"] for n, view in live.conditions.items()} == {n: len(held[n]) for n in held}
        assert {view["status"]["state"] for view in live.conditions.values()} == {"live"}

        async with open_page(product.dashboard) as page:
            await page_shows(page, standing, held)
            await feed_is_that_of_clickhouse(page, product)
            await page.tab.keyboard.press("Escape")
            await product.kill("live")
            await page.tab.wait_for_selector('[data-testid="connection"]:not([data-state="live"])')
            await page.tab.wait_for_selector('[data-testid="connection"][data-state="live"]')
            page.errors = [error for error in page.errors if "ERR_" not in error]  # the browser's own, of its attempts
            await page_shows(page, standing, held)
            await feed_is_that_of_clickhouse(page, product)
            await stock_is_that_of_clickhouse(page, product, next(iter(standing)))
            assert page.errors == []


async def test_a_producer_killed_in_a_moving_market_closes_the_gap(make_product: Callable[..., Product]) -> None:
    """What entered and left while nobody listened is inferred from the new snapshot, and the gap is on record."""
    product = make_product(environ=FAST)
    product.start()
    await product.wait_running()
    await market_reaches(product, int((await product.control("GET", "/local/state"))["events"]) + 50)
    await product.kill("produce")
    await all_live(product)
    truth = await settled(product)
    history = crossings(truth, CONDITIONS)
    records = await product.records(topics.CONDITION_EVENTS)
    transitions = [r for r in await product.records(topics.TRANSITIONS) if isinstance(r, events.Transition)]
    for condition in CONDITIONS:
        open_visits = Counter({r.code: 0 for r in transitions if r.condition == condition})
        for transition in {r.id: r for r in transitions if r.condition == condition}.values():
            open_visits[transition.code] += 1 if transition.kind == "entered" else -1
        assert set(open_visits.values()) <= {0, 1}
        left = {code for code, open_ in open_visits.items() if open_}
        story = [r for r in [*records, *transitions] if getattr(r, "condition", "") == condition]
        assert left == members(history[condition]), "\n".join(map(str, story))
    gaps = [r for r in records if isinstance(r, events.Gap)]
    assert {gap.condition for gap in gaps} == set(CONDITIONS)
    assert all(gap.from_ < gap.to for gap in gaps)
    inferred = [r for r in transitions if r.origin == "snapshot" and not r.initial]
    assert inferred, "at sixty times the market's speed something must have moved meanwhile"
    assert all(r.gap_from and r.gap_to and r.gap_from < r.gap_to for r in inferred if r.kind == "entered")


async def test_rows_outlive_the_brokers_data_and_new_ones_come(make_product: Callable[..., Product]) -> None:
    """The broker's data is deleted between two runs: no row that ClickHouse had is lost, none that comes is blocked."""
    product = make_product(environ=FAST)
    product.start()
    await product.wait_running()
    await market_reaches(product, int((await product.control("GET", "/local/state"))["events"]) + 60)
    await settled(product)
    before = {table: {row[0] for row in product.rows(f"SELECT id FROM {table} FINAL")} for table in TABLES}
    assert all(before.values())
    assert product.stop() == 0
    shutil.rmtree(product.folder / "data" / "kafka")

    product.start()
    await product.wait_running()
    await product.control("POST", "/local/resume")
    await market_reaches(product, int((await product.control("GET", "/local/state"))["events"]) + 60)
    await settled(product)
    for table in TABLES:
        rows = product.rows(f"SELECT id FROM {table} FINAL")
        now = {row[0] for row in rows}
        assert len(rows) == len(now), "nothing twice"
        assert before[table] <= now, "nothing lost"
        assert now - before[table], "new rows came"


async def test_poison_on_every_topic_stops_nothing(make_product: Callable[..., Product]) -> None:
    """Records that nobody can read, also the largest that a broker takes, end in dead-letters; the rest goes on."""
    product = make_product(environ=FAST)
    product.start()
    await product.wait_running()
    poison = [b"", b"{}", b"\xff\x00", b'"' + b"A" * 900_000 + b'"']
    producer = AIOKafkaProducer(bootstrap_servers=product.kafka, max_request_size=2_000_000)
    await producer.start()
    for topic in TABLES.values():
        for value in poison:
            await producer.send_and_wait(topic.name, value, key=b"005930")
    await producer.stop()
    await market_reaches(product, int((await product.control("GET", "/local/state"))["events"]) + 60)
    truth = await settled(product)
    history = crossings(truth, CONDITIONS)
    assert await live_conditions(product) == {name: len(members(history[name])) for name in CONDITIONS}
    letters = [r for r in await product.records(topics.DEAD_LETTERS) if isinstance(r, events.DeadLetter)]
    for topic in TABLES.values():
        assert {letter.value or b"" for letter in letters if letter.topic == topic.name} == set(poison)
    assert "ended with" not in product.said(), product.said()


async def test_up_says_what_is_in_the_way_and_leaves_nothing_behind(make_product: Callable[..., Product]) -> None:
    product = make_product()
    product.start()
    await product.wait_running()
    second = make_product()
    second.environ = product.environ
    second.start()
    assert second.process is not None
    assert second.process.wait(30) == 1
    assert "already running" in second.said()
    assert "Traceback" not in second.said()

    tree = product.tree()
    assert len(tree) > 7
    assert product.stop(seconds=10) == 0, "Ctrl-C stops everything within ten seconds"
    assert [process for process in tree if lives(process)] == [], "and leaves no process behind"
    assert "killed" not in product.said(), product.said()
    assert "Traceback" not in product.said()

    product.start()  # and what it kept lets it start again
    await product.wait_running()


# --- what the stories share -------------------------------------------------------------------------------------------


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent to hear of it does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def all_live(product: Product) -> None:
    """Wait until the producer that runs now has every condition live."""

    async def live() -> bool:
        latest_of: dict[str, events.Status] = {}
        for record in await product.records(topics.STATUS):
            if isinstance(record, events.Status) and record.kind == "subscription":
                latest_of[record.component] = record
        sessions = (await product.control("GET", "/local/state"))["sessions"]
        return (
            len(sessions) == 1
            and {s.state for s in latest_of.values()} == {"live"}
            and len(latest_of) == len(CONDITIONS)
            and product.pid("produce") is not None
            and registered(sessions[0]) == len(CONDITIONS)
        )

    await until(live, "every condition live again")


def registered(session: dict[str, Any]) -> int:
    """Conditions that the market has registered for a session."""
    return len(session["conditions"])


async def producer_is_quiet(product: Product) -> None:
    """Wait until everything the market has said is on the topic: nothing new for two looks."""
    before = -1

    async def same() -> bool:
        nonlocal before
        count = len(await product.records(topics.CONDITION_EVENTS))
        unchanged, before = count == before, count
        return unchanged

    await until(same, "a quiet producer")


def first_snapshots(records: list[events.Record]) -> dict[str, events.ConditionSnapshot]:
    """The first snapshot of every condition."""
    found: dict[str, events.ConditionSnapshot] = {}
    for record in records:
        if isinstance(record, events.ConditionSnapshot):
            found.setdefault(record.condition, record)
    return found


def split(history: list[Crossing], told: list[Crossing]) -> tuple[list[Crossing], list[Crossing]]:
    """The market's history before and since the subscription: what was told is a tail of it."""
    cut = len(history) - len(told)
    return history[:cut], history[cut:]


def explained(recommendation: events.Recommendation) -> None:
    """A revision's score is the sum of its reasons, and says on which side of the threshold it is."""
    assert sum(reason.score for reason in recommendation.reasons) == recommendation.score
    if recommendation.state == "open":
        assert recommendation.reasons
        assert recommendation.score >= recommendation.threshold


def check_rec_stocks(product: Product, revisions: list[events.Recommendation]) -> None:
    """One row per date, algorithm and stock, with names; prices stay NULL until there are any."""
    rows = product.rows(
        "SELECT stock_name, stock_code, recommendation_date, algorithm_id, closing_price, change_rate FROM rec_stocks"
    )
    keys = [(str(row[2]), str(row[3]), row[1]) for row in rows]
    assert len(keys) == len(set(keys))
    assert set(keys) == {(r.date.isoformat(), reason.algorithm_id, r.code) for r in revisions for reason in r.reasons}
    assert all(row[0] for row in rows)
    assert {(row[4], row[5]) for row in rows} == {(None, None)}


async def page_shows(page: Page, standing: dict[str, events.Recommendation], held: dict[str, set[str]]) -> None:
    """The page in Chromium says what Kafka says."""

    async def same() -> bool:
        rows = await page.rows("recommendation-row")
        cards = await page.rows("condition-card")
        return {row["data-code"]: float(row["data-score"]) for row in rows if row.get("data-state") != "closed"} == {
            code: r.score for code, r in standing.items()
        } and {card["data-condition"]: int(card["data-members"]) for card in cards} == {n: len(held[n]) for n in held}

    try:
        await until(same, "the page", 20)
    except AssertionError:
        shown = {name: await page.rows(name) for name in ("recommendation-row", "condition-card")}
        raise AssertionError(json.dumps(shown, ensure_ascii=False, indent=1)) from None
    assert {row["data-state"] for row in await page.rows("connection")} == {"live"}
    assert {card["data-state"] for card in await page.rows("condition-card")} <= {"live", "quiet"}
    await page.tab.click('[data-testid="health-button"]')
    assert {row["data-state"] for row in await page.rows("session")} == {"live"}
    assert {row["data-condition"] for row in await page.rows("subscription")} == held.keys()
    assert {row["data-word"] for row in await page.rows("subscription")} <= {"live", "quiet"}
    assert page.errors == []


async def feed_is_that_of_clickhouse(page: Page, product: Product) -> None:
    """Line by line, in this order: what the page shows of the newest hits and exits is what ClickHouse has of them."""
    stored = product.rows(
        "SELECT id, kind, code, condition FROM transitions FINAL WHERE date = (SELECT max(date) FROM transitions)"
        " ORDER BY received_at DESC, 2 * entry + (kind = 'exited') DESC, id DESC LIMIT 200"
    )

    async def same() -> bool:
        rows = await page.rows("feed-row")
        return [
            (row["data-transition-id"], row["data-kind"], row["data-code"], row["data-condition"]) for row in rows
        ] == stored

    await until(same, "the feed of the page", 20)


async def stock_is_that_of_clickhouse(page: Page, product: Product, code: str) -> None:
    """A stock's visits of today, as the page lists them, are those of ClickHouse."""
    stored = product.rows(
        "SELECT condition, toString(entry), if(max(kind = 'exited'), 'false', 'true') FROM transitions FINAL"
        f" WHERE code = '{code}' AND date = (SELECT max(date) FROM transitions) GROUP BY condition, entry"
    )
    await page.tab.evaluate("code => { location.hash = `#/stock/${code}` }", code)

    async def same() -> bool:
        visits = await page.rows("visit")
        return sorted((v["data-condition"], v["data-entry"], v["data-open"]) for v in visits) == sorted(stored)

    await until(same, "the visits of the page", 20)
