"""The page under a busy market and over a whole day: long tasks, drawings, and what it holds in memory.

Measured inside Chromium: long tasks by its own `longtask` entries, which are of the wall's time; and from its trace the
time that the page's main thread really ran in a task, which a machine that does other things as well leaves alone.
Memory is `JSHeapUsedSize` after a forced collection, in millions of bytes. The limit is a page that receives the same
stream and draws nothing. `HITSTREAM_TEST_PAGE_SECONDS` is how long each view is watched, `HITSTREAM_TEST_PAGE_DAY` how
many hits and exits a day has.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "sinks" / "live" / "web"))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from browser import ARGUMENTS, installed
from screen import Screen, Server, Story, new_screen, serving

from streams.events import KST, Transition

SECONDS = float(os.environ.get("HITSTREAM_TEST_PAGE_SECONDS", "60"))
PER_MINUTE = 5_000
QUOTES_PER_SECOND = 300
STOCKS = 400
CONDITIONS = 10
SETTLED_ROWS = 40
DAY = int(os.environ.get("HITSTREAM_TEST_PAGE_DAY", "40000"))  # hits and exits of an accelerated day

WATCH = """() => {
    window.long = []; window.frames = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.long.push(entry.duration)))
        .observe({ type: "longtask", buffered: false });
    const count = () => { window.frames++; requestAnimationFrame(count); };
    requestAnimationFrame(count);
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed(), args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class Market:
    """A busy market: stocks that enter and leave, are recommended and have prices."""

    def __init__(self, server: Server, revised: int = 4, revisions: int = 6) -> None:
        self.server, self.story = server, Story(server)
        self.revised, self.last = revised, revisions
        self.codes = [f"{n:06}" for n in range(1, STOCKS + 1)]
        self.inside: set[tuple[str, str]] = set()
        self.revisions: dict[str, int] = {}
        self.number = 0
        server.feed(*self.story.opening(tuple(f"조건 {n}" for n in range(CONDITIONS))))

    def moves(self, count: int) -> list[Any]:
        """So many hits and exits, and a revision of a recommendation for every `revised` one, the last closes it."""
        records: list[Any] = []
        for _ in range(count):
            self.number += 1
            n = self.number * 7_919
            visit = (self.codes[n % STOCKS], f"조건 {n // STOCKS % CONDITIONS}")
            if visit in self.inside:
                self.inside.discard(visit)
                records.append(self.story.leave(*visit))
            else:
                self.inside.add(visit)
                records.append(self.story.enter(*visit))
            if self.number % self.revised == 0:
                records.append(self.revision(visit[0], 2.0 + n % 5))
        return records

    def revision(self, code: str, score: float) -> Any:
        """The next revision of a stock's recommendation."""
        number = self.revisions[code] = self.revisions.get(code, 0) + 1
        state = "closed" if number % self.last == 0 else "open"
        opening = f"{code}-{(number - 1) // self.last}"
        return self.story.recommend(code, score, number, state=state, opening=opening)

    def settled(self, count: int) -> list[Any]:
        """What closes every recommendation, and then opens those of the first so many stocks."""
        closing = [
            self.revision(code, 2.0)
            for code, number in list(self.revisions.items())
            for _ in range(-number % self.last)
        ]
        return closing + [self.revision(code, 2.0) for code in self.codes[:count]]

    def quotes(self, count: int) -> list[Any]:
        return [
            self.story.quote(self.codes[(self.number + n) % 150], 10_000 + (self.number * 13 + n * 7) % 400)
            for n in range(count)
        ]

    def run(self, seconds: float) -> int:
        """Feed it for so long at the rate of a busy market; how many hits and exits that were."""
        began, told = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(elapsed * PER_MINUTE / 60) - told
            if due > 0:
                self.server.at = self.server.at.__class__.fromtimestamp(
                    self.server.at.timestamp() + due * 60 / PER_MINUTE, self.server.at.tzinfo
                )
                self.server.feed(*self.moves(due), *self.quotes(due * QUOTES_PER_SECOND * 60 // PER_MINUTE))
                told += due
            time.sleep(0.02)
        return told


def seen(page: Page) -> dict[str, float]:
    """What the browser holds, after everything that can be collected is."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return {
        "heap": metrics["JSHeapUsedSize"] / 1e6,
        "nodes": metrics["Nodes"],
        "listeners": metrics["JSEventListeners"],
    }


def watched(browser: Browser, screen: Screen, market: Market) -> dict[str, float]:
    """What the page does while the market runs; times in ms."""
    screen.page.evaluate(WATCH)
    browser.start_tracing(page=screen.page, categories=["toplevel", "__metadata"])
    began, told = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        told += market.run(2.0)
        screen.page.wait_for_timeout(1)
    took = time.monotonic() - began
    long, frames = screen.page.evaluate("[window.long, window.frames]")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    mains = {
        (one["pid"], one["tid"])
        for one in events
        if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }
    own = [
        one["tdur"] / 1000
        for one in events
        if one["name"].endswith("RunTask") and "tdur" in one and (one["pid"], one["tid"]) in mains
    ]
    assert own, "the trace has no task of the page's main thread: nothing was measured"
    return {
        "told": told, "frames": frames / took, "long": len(long), "longest": max(long, default=0.0),
        "median": statistics.median(long) if long else 0.0, "own": sum(each > 50 for each in own),
        "own longest": max(own, default=0.0), "busy": sum(own) / took / 10,
    }  # fmt: skip


def bench_page_in_a_busy_market(chromium: Browser) -> None:
    """5,000 hits and exits a minute and 300 quotes a second: no task over 50 ms but the machine's."""
    print(f"\n{PER_MINUTE:,} hits and exits a minute, {QUOTES_PER_SECOND} quotes a second, {SECONDS:.0f} s each")
    print(f"load before {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, Chromium {chromium.version}")
    print(
        "view          told  frames/s  longtasks (longest, median ms)  over 50 ms of own time (longest ms)  thread busy"
    )
    views = (("nothing", None), ("now", "#/"), ("conditions", "#/conditions"), ("stock", "#/stock/000001"))
    for name, place in views:
        with serving() as server, new_screen(chromium, server) as screen:
            market = Market(server)
            server.feed(*market.moves(2_000), *market.quotes(150))
            if place is None:
                screen.page.goto(f"http://127.0.0.1:{server.port}/openapi.json")
                screen.page.evaluate("""() => {
                    const source = new EventSource('/api/live');
                    for (const each of ['snapshot', 'delta'])
                        source.addEventListener(each, (event) => JSON.parse(event.data));
                }""")
            else:
                screen.open(place)
            screen.page.wait_for_timeout(3_000)  # what the opening itself costs is another figure
            found = watched(chromium, screen, market)
            print(
                "{name:11} {told:6,.0f}  {frames:8.1f}  {long:9.0f} ({longest:.0f}, {median:.0f})"
                "  {own:22.0f} ({own longest:.1f})  {busy:16.1f} %".format(name=name, **found),
                flush=True,
            )


def look_around(screen: Screen) -> None:
    """Go through every view, as somebody does in the course of a day, and come back."""
    for place in ("#/conditions", "#/conditions/main/조건 1", "#/stock/000001", "#/health", "#/feed", "#/stock/000002"):
        screen.go(place)
    screen.go("#/")


def bench_page_over_a_day(chromium: Browser) -> None:
    """09:00 to 15:30 at once: what the browser holds stays what it held after a quarter of the day.

    Whenever it is looked at the same recommendations are open and as many lines are on the screen, and the page's own
    limits (its feed, the closed recommendations) have been reached.
    """
    print(f"\n09:00 to 15:30 with {DAY:,} hits and exits; after collection, with as many rows on the screen")
    print("time     heap MB  nodes, of them in the document  listeners  recommendations  lines")
    steps = 16
    held: dict[int, dict[str, float]] = {}
    with serving() as server, new_screen(chromium, server) as screen:
        market = Market(server, revised=2, revisions=4)
        screen.open()
        for step in range(1, steps + 1):
            for _ in range(DAY // steps // 250):
                moves = market.moves(249)
                for n in range(0, len(moves), 50):
                    server.feed(*moves[n : n + 50], *market.quotes(50))
                server.pass_time(6.5 * 3600 / steps / (DAY // steps // 250))
                server.feed(*(last := market.moves(1)))
                moved = next(one for one in reversed(last) if isinstance(one, Transition))
                # No `wait_for_selector`: it would hold the row that it found for as long as the page lives.
                screen.page.locator(f'[data-transition-id="{moved.id}"]').first.wait_for(state="attached")
            look_around(screen)
            if step % (steps // 4):
                continue
            server.feed(*market.settled(SETTLED_ROWS))
            screen.until("the same rows", lambda: len(screen.rows("recommendation-row", "data-code")) == SETTLED_ROWS)
            screen.page.wait_for_timeout(3_000)  # what has left slides, and is read out
            now = held[step] = seen(screen.page)
            inside = screen.page.evaluate(
                "(() => { const all = document.createTreeWalker(document, NodeFilter.SHOW_ALL); let count = 1;"
                " while (all.nextNode()) count++; return count; })()"
            )
            lines = len(screen.rows("feed-row", "data-transition-id"))
            print(
                f"{server.at.astimezone(KST):%H:%M}  {now['heap']:8.1f}  {now['nodes']:6.0f} {inside:24.0f}"
                f"  {now['listeners']:9.0f}  {SETTLED_ROWS:15}  {lines:5}",
                flush=True,
            )
        assert screen.errors == []
    first, last = held[steps // 4], held[steps]
    print(f"the day's end to its first quarter: heap × {last['heap'] / first['heap']:.2f}, nodes × "
          f"{last['nodes'] / first['nodes']:.2f}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    assert last["heap"] < 1.1 * first["heap"]
    assert last["nodes"] < 1.05 * first["nodes"]
    assert last["listeners"] == first["listeners"]
