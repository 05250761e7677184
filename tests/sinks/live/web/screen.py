"""The page in Chromium over a hub that the test feeds: what a reader of it sees, without Kafka and without waiting.

The server is the product's own, in a thread so that the test can drive the browser step by step; only ClickHouse
(`Past`) and Kafka (`Told`) are stood in for.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page

from sinks.live.access import Access
from sinks.live.answers import Accepted, Candle, HistoryLine, Performance, RecommendCommand, WithdrawCommand
from sinks.live.commands import Commands, command
from sinks.live.cursor import Place
from sinks.live.history import Filter, History, HistoryAway
from sinks.live.hub import Hub
from sinks.live.server import application, listen, serve
from sinks.live.stream import Broadcaster
from streams.events import (
    KST,
    Command,
    HitstreamError,
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

DEADLINE: Final = 60.0  # s, for whatever a test waits for
NINE: Final = datetime(2026, 3, 4, 9, 0, tzinfo=KST).astimezone(UTC)
NAMES: Final = {
    "005930": "삼성전자",
    "000660": "SK하이닉스",
    "035420": "NAVER",
    "035720": "카카오",
    "0004V0": "엔비알모션",
    "010140": "삼성중공업",
}
SETTLED: Final = """async () => {
    let before = "";
    for (let same = 0; same < 4; ) {  // frames in a row in which nothing came: neither a view's code nor an answer
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)));
        const now = String(document.querySelectorAll("main *").length);
        same = now === before ? same + 1 : 0;
        before = now;
    }
}"""
HIGH: Final = "신고가 돌파"
DIP: Final = "눌림목"


class Server:
    """The real hub and server in a thread; can be stopped and started again on its port, with another epoch.

    `access` is taken at the next start; there are no tokens at first.
    """

    def __init__(self) -> None:
        self.at = NINE
        self.port = 0
        self.access = Access()
        self.past = Past()
        self.told = Told(lambda: self.at)
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
                    app = application(
                        self._broadcaster,
                        access=self.access,
                        history=self.past,
                        commands=self.told,
                        user="trader",
                        now=lambda: self.at,
                    )
                    group.create_task(serve(app, sock, self._broadcaster))
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

    def feed_each(self, records: Sequence[Record]) -> None:
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


class Past(History):
    """ClickHouse as the test wants it: one earlier day of a stock, and how one condition fared."""

    def __init__(self) -> None:
        super().__init__(None)
        self.is_away = False

    @property
    def is_there(self) -> bool:
        return True

    async def visits(self, code: str, first: date, last: date) -> tuple[HistoryLine, ...]:
        self._answer()
        return (HistoryLine(date=last - timedelta(days=1), account="main", condition=HIGH, visits=3, first_at=NINE,
                            last_at=NINE, dwell=200.0),)  # fmt: skip

    async def performance(self, first: date, last: date, cost: float) -> tuple[Performance, ...]:
        self._answer()
        return tuple(
            Performance(account="main", condition=HIGH, horizon=horizon, hits=110, without_price=3,
                        priced={"30m": 95, "next_open": 0}.get(horizon, 107), past_close=12 if horizon == "30m" else 0,
                        mean=0.4, median=0.3, q1=-0.2, q3=0.9, positive=0.6, low=0.1, high=0.7, sample_mean=0.05,
                        sample_cases=4000,
                        difference=0.35, difference_low=0.05, difference_high=0.65, gaps=2,
                        as_of=NINE)
            for horizon in ("1m", "5m", "30m", "close", "next_open", "best", "worst")
        )  # fmt: skip

    async def bars(self, code: str, interval: Any, day: date) -> tuple[Candle, ...]:
        self._answer()
        return (Candle(at=NINE, open=10_000, high=10_020, low=9_990, close=10_010, volume=100),)

    async def transitions(self, wanted: Filter, before: Place | None, limit: int) -> list[Transition]:
        self._answer()
        return []

    def _answer(self) -> None:
        if self.is_away:
            raise HistoryAway("ClickHouse does not answer: check that it runs.")


class Told(Commands):
    """Kafka as the test wants it: it keeps the commands that it was given, or refuses them."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__("", now)
        self.records: list[Command] = []
        self.refusal: HitstreamError | None = None

    async def send(self, asked: RecommendCommand | WithdrawCommand, by: str) -> Accepted:
        record = command(asked, by, self._now())
        if self.refusal:
            raise self.refusal
        self.records.append(record)
        return Accepted(id=record.id, at=record.at)


class Screen:
    """One open page, and everything that went wrong on it."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def open(self, place: str = "#/") -> None:
        """Open the page somewhere and wait until it is live."""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/{place}")
        self.live()

    def go(self, place: str) -> None:
        """Go to another place of the open page, as a link does, and wait until everything that is there has come."""
        self.page.evaluate("place => { location.hash = place }", place)
        self.page.evaluate(SETTLED)

    def log_in(self, token: str, place: str = "#/") -> None:
        """Open the page somewhere, be asked for a token, and give it."""
        self.page.goto(f"http://127.0.0.1:{self.server.port}/{place}")
        self.page.fill('input[name="token"]', token)
        self.page.click("button")
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
    return Screen(context.new_page(), server)


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
