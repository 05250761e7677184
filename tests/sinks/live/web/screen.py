"""The page in Chromium over a hub that the test feeds: what a reader of it sees, without Kafka and without waiting.

The server runs in a thread of its own, so that the test can drive the browser step by step. What the hub alone does not
know – ClickHouse's answers, who the reader is – is answered in the browser, in the shapes of `lib/contract.ts`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Route

from sinks.live.hub import Hub
from sinks.live.server import application, listen, serve
from sinks.live.stream import Broadcaster
from streams.events import (
    KST,
    Quote,
    Reason,
    Recommendation,
    Record,
    Status,
    Stock,
    Transition,
    identity,
    revision_id,
    trading_date,
    transition_id,
)

DEADLINE: Final = 20.0  # s, for whatever a test waits for
NINE: Final = datetime(2026, 3, 4, 9, 0, tzinfo=KST).astimezone(UTC)
NAMES: Final = {
    "005930": "삼성전자",
    "000660": "SK하이닉스",
    "035420": "NAVER",
    "035720": "카카오",
    "0004V0": "엔비알모션",
    "010140": "삼성중공업",
}
HIGH: Final = "신고가 돌파"
DIP: Final = "눌림목"


class Server:
    """The real hub and server in a thread; can be stopped and started again on its port, with another epoch."""

    def __init__(self) -> None:
        self.at = NINE
        self.port = 0
        self._epochs = 0
        self._records: list[Record] = []
        self.hub: Hub
        self._broadcaster: Broadcaster
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None]
        self._thread: threading.Thread | None = None

    def start(self, *meanwhile: Record) -> None:
        """Start it, with everything that it was fed before, and what has come to the topics meanwhile."""
        self._records += meanwhile
        listening = threading.Event()
        self._epochs += 1
        self.hub = Hub(epoch=f"e{self._epochs}")
        for record in self._records:
            self.hub.apply(record, self.at)

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._broadcaster = Broadcaster(self.hub, lambda: self.at)
            self._broadcaster.open()
            sock = listen("127.0.0.1", self.port)
            self.port = sock.getsockname()[1]

            async def both() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(serve(application(self._broadcaster), sock, self._broadcaster))
                    group.create_task(self._broadcaster.run())

            self._task = asyncio.ensure_future(both())
            listening.set()
            try:
                await asyncio.wait([self._task])
            finally:
                sock.close()

        self._thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        self._thread.start()
        assert listening.wait(DEADLINE)

    def stop(self) -> None:
        """End it, and every stream."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        self._thread = None

    def feed(self, *records: Record) -> None:
        """Apply records and tell them, in one delta."""
        self._records += records
        self._do(lambda: [self._broadcaster.publish(self.hub.apply(record, self.at)) for record in records])

    def feed_each(self, records: list[Record]) -> None:
        """Apply records and tell each in a delta of its own, all at once."""
        self._records += records

        def tell() -> None:
            for record in records:
                self._broadcaster.publish(self.hub.apply(record, self.at))
                self._broadcaster.flush()

        self._do(tell)

    def pass_time(self, seconds: float) -> None:
        """Move the market's clock."""
        self.at += timedelta(seconds=seconds)

    def cut(self) -> None:
        """Drop the connections of all streams."""
        self._do(self._broadcaster.abort)

    def hang(self, seconds: float) -> None:
        """Let the server answer nothing and send nothing for so long, its connections open: a line that is dead."""
        self._loop.call_soon_threadsafe(time.sleep, seconds)

    def _do(self, what: Callable[[], Any]) -> None:
        done = threading.Event()

        def run() -> None:
            try:
                what()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(DEADLINE)


class Story:
    """Makes records as the product would: what enters, leaves, is recommended and costs, at the server's time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._entries: dict[tuple[str, str], int] = {}
        self._since: dict[tuple[str, str], datetime] = {}

    def opening(self, conditions: tuple[str, ...] = (HIGH, DIP)) -> list[Record]:
        """Names, live subscriptions, and the components of a product that is well."""
        at = self._server.at
        records: list[Record] = [
            Stock(code=code, name=name, market="KOSPI", previous_close=10_000, received_at=at)
            for code, name in NAMES.items()
        ]
        records += [self.subscription(condition) for condition in conditions]
        records += [
            Status(
                component=component,
                kind=kind,
                state=state,
                since=at,
                at=at,
                account="main",
                proof_of_life=at,
                last_frame=at,
                last_ping=at,
                figures=figures,
            )
            for component, kind, state, figures in (
                ("session/main/p1", "session", "live", {"connections": 1.0, "frames": 100.0}),
                ("worker/w1", "worker", "working", {"lag": 0.0}),
                ("sink/clickhouse/s1", "sink", "working", {"lag": 12.0}),
            )
        ]
        return records

    def subscription(self, condition: str, state: str = "live", cause: str = "") -> Status:
        at = self._server.at
        return Status(component=f"subscription/main/p1/{condition}", kind="subscription", state=state, cause=cause,
                      since=at, at=at, account="main", condition=condition, session="s", proof_of_life=at)  # fmt: skip

    def enter(self, code: str, condition: str = HIGH, **over: Any) -> Transition:
        """A stock enters a condition, for the first time or again."""
        visit = (condition, code)
        self._entries[visit] = self._entries.get(visit, 0) + 1
        self._since[visit] = self._server.at
        return self._transition(code, condition, "entered", **over)

    def leave(self, code: str, condition: str = HIGH, **over: Any) -> Transition:
        return self._transition(code, condition, "exited", **over)

    def _transition(self, code: str, condition: str, kind: Any, **over: Any) -> Transition:
        at, visit = self._server.at, (condition, code)
        day, since = trading_date(at), self._since.get(visit, at)
        values: dict[str, Any] = {
            "id": transition_id("main", condition, code, day, self._entries[visit], kind), "account": "main",
            "condition": condition, "code": code, "kind": kind, "origin": "realtime", "date": day,
            "entry": self._entries[visit], "at": at.astimezone(KST).replace(microsecond=0), "since": since,
            "dwell": None if kind == "entered" else (at - since).total_seconds(),
            "event_id": identity(at, *visit, kind), "session": "s", "received_at": at,
        }  # fmt: skip
        return Transition(**(values | over))

    def recommend(self, code: str, score: float = 2.0, revision: int = 1, **over: Any) -> Recommendation:
        """A revision of the recommendation of a stock."""
        at = self._server.at
        opening = over.pop("opening", identity("recommendation", code))
        values: dict[str, Any] = {
            "id": revision_id(opening, revision), "recommendation_id": opening, "revision": revision,
            "account": "main", "code": code, "date": trading_date(at), "state": "open", "cause": "threshold",
            "cause_id": "c", "rule": "sum", "score": score, "threshold": 1.5,
            "reasons": (Reason(kind="condition", condition=HIGH, algorithm_id=HIGH, since=at, visits=1, score=score),),
            "opened_at": at, "at": at, "received_at": at,
        }  # fmt: skip
        return Recommendation(**(values | over))

    def quote(self, code: str, price: int, **over: Any) -> Quote:
        at = self._server.at
        values: dict[str, Any] = {
            "code": code, "at": at, "received_at": at, "price": price, "high": price, "low": price, "volume": 10,
            "trades": 1, "change_rate": round((price / 10_000 - 1) * 100, 2), "day_volume": 1_000,
        }  # fmt: skip
        return Quote(**(values | over))


class Answers:
    """What the API says beyond the hub, as the test wants it; what it was commanded is kept."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.may_write = True
        self.commanded: list[dict[str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        self.history_away = False

    def __call__(self, route: Route) -> None:
        """Answer a request, or pass it on to the server."""
        path = urlsplit(route.request.url).path.split("/api/", 1)[1]
        found = self._find(path, route)
        if found is None:
            route.fallback()
        else:
            status, body = found
            route.fulfill(status=status, json=body)

    def _find(self, path: str, route: Route) -> tuple[int, Any] | None:
        at = self._server.at
        parts = path.split("/")
        if path == "session":
            return 200, {"who": "trader", "may_write": self.may_write, "csrf": "proof", "may_log_out": False,
                         "accounts": ["main"], "has_history": True}  # fmt: skip
        if parts[0] == "commands":
            if self.refusal:
                return self.refusal[0], {"error": self.refusal[1]}
            body = json.loads(route.request.post_data or "{}")
            self.commanded.append({"kind": parts[1], "proof": route.request.headers.get("x-hitstream-csrf"), **body})
            return 202, {"id": f"command-{len(self.commanded)}", "at": at.isoformat()}
        if path == "stocks":
            return 200, [{"code": code, "name": name, "market": "KOSPI", "previous_close": 10_000}
                         for code, name in NAMES.items()]  # fmt: skip
        if parts[0] == "stocks" and parts[2:] == ["bars"]:
            opened = NINE
            candles = [{"at": (opened + timedelta(minutes=n)).isoformat(), "open": 10_000 + n, "high": 10_020 + n,
                        "low": 9_990 + n, "close": 10_010 + n, "volume": 100} for n in range(30)]  # fmt: skip
            return 200, {"code": parts[1], "interval": "1m", "date": "2026-03-04", "source": "quotes", "bars": candles}
        if self.history_away and (parts[2:] == ["history"] or path == "performance"):
            return 503, {"error": "ClickHouse does not answer: check that it runs."}
        if parts[0] == "stocks" and parts[2:] == ["history"]:
            return 200, [{"date": "2026-03-03", "account": "main", "condition": HIGH, "visits": 3,
                          "first_at": NINE.isoformat(), "last_at": NINE.isoformat(), "dwell": 200.0}]  # fmt: skip
        if parts[0] == "stocks" and len(parts) == 2:
            return 200, self._stock(parts[1])
        if path == "performance":
            return 200, [_performance(horizon, gaps=2) for horizon in
                         ("1m", "5m", "30m", "close", "next_open", "best", "worst")]  # fmt: skip
        if parts[0] == "conditions" and len(parts) == 3:
            return 200, self._condition(unquote(parts[2]))
        return None

    def _stock(self, code: str) -> dict[str, Any]:
        lines = reversed([line.transition for line in self._server.hub.transitions(limit=1_000, code=code) or ()])
        visits: dict[tuple[str, int], dict[str, Any]] = {}
        for line in lines:
            visit = visits.setdefault(
                (line.condition, line.entry),
                {"account": "main", "condition": line.condition, "entry": line.entry, "since": line.since.isoformat(),
                 "until": None, "dwell": None, "origin": line.origin, "initial": line.initial, "gap_from": None,
                 "gap_to": None},
            )  # fmt: skip
            if line.kind == "exited":
                visit |= {"until": line.at.isoformat(), "dwell": line.dwell}
        return {
            "stock": {"code": code, "name": NAMES.get(code, ""), "market": "KOSPI", "previous_close": 10_000},
            "price": None, "visits": list(visits.values()), "recommendations": [],
        }  # fmt: skip

    def _condition(self, condition: str) -> dict[str, Any]:
        inside: dict[str, dict[str, Any]] = {}
        for line in reversed(self._server.hub.transitions(limit=1_000, condition=condition) or ()):
            code = line.transition.code
            if line.transition.kind == "entered":
                inside[code] = {"code": code, "name": line.name, "since": line.transition.at.isoformat(),
                                "entry": line.transition.entry, "price": None}  # fmt: skip
            else:
                inside.pop(code, None)
        return {"condition": {}, "members": list(inside.values()), "minutes_from": NINE.isoformat(),
                "hits": [1, 0, 4, 2], "gaps": []}  # fmt: skip


def _performance(horizon: str, **over: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "account": "main", "condition": HIGH, "horizon": horizon, "hits": 110, "priced": 100, "mean": 0.4,
        "median": 0.3, "q1": -0.2, "q3": 0.9, "positive": 0.6, "low": 0.1, "high": 0.7, "sample_mean": 0.05,
        "sample_cases": 4000, "difference": 0.35, "difference_low": 0.05, "difference_high": 0.65, "gaps": 0,
    }  # fmt: skip
    return values | over


class Screen:
    """One open page, and everything that went wrong on it."""

    def __init__(self, page: Page, server: Server, answers: Answers) -> None:
        self.page = page
        self.server = server
        self.answers = answers
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def open(self, place: str = "#/") -> None:
        """Open the page somewhere and wait until it is live."""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/{place}")
        self.live()

    def live(self) -> None:
        """Wait until the page says that it is connected."""
        self.page.wait_for_selector('[data-testid="connection"][data-state="live"]')

    def rows(self, name: str, attribute: str) -> list[str]:
        """An attribute of every element with this `data-testid`, in order."""
        found: list[str] = self.page.eval_on_selector_all(
            f'[data-testid="{name}"]', f"all => all.map(one => one.getAttribute('{attribute}'))"
        )
        return found

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fail with what was waited for."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come true within {DEADLINE:.0f} s")
            self.page.wait_for_timeout(25)


@contextmanager
def serving() -> Iterator[Server]:
    """A running server; ended whatever happens."""
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def choices(**preferences: str) -> str:
    """A script that makes a reader's choices before the page loads, once: later ones are the reader's own."""
    wanted = json.dumps({f"hitstream.{name}": value for name, value in preferences.items()})
    return (
        "if (!sessionStorage.getItem('chosen')) { sessionStorage.setItem('chosen', '1');"
        f"for (const [name, value] of Object.entries({wanted})) localStorage.setItem(name, value); }}"
    )


def screen_of(context: BrowserContext, server: Server) -> Screen:
    """A page in this context that nothing has been opened in yet."""
    context.set_default_timeout(DEADLINE * 1000)
    page = context.new_page()
    answers = Answers(server)
    page.route("**/api/**", answers)
    return Screen(page, server, answers)


@contextmanager
def new_screen(browser: Browser, server: Server, *, narrow: bool = False, **preferences: str) -> Iterator[Screen]:
    """A page in a context of its own, of a reader with these preferences."""
    size = {"width": 390, "height": 844} if narrow else {"width": 1440, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=preferences.get("theme", "light"), accept_downloads=True)  # type: ignore[arg-type]
    context.add_init_script(choices(**preferences))
    try:
        yield screen_of(context, server)
    finally:
        context.close()
