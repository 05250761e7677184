"""A dashboard without a market: the real hub and server, fed with invented records.

    python -m sinks.live.demo --port 8090 [--rate 4] [--quotes 20] [--seed 1] [--history 60]

For work on the page and for pictures of it. The same seed invents the same day. Nothing here is used by the product.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from streams.events import (
    KST,
    Gap,
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

from .hub import Hub, new_epoch
from .server import application, listen, serve
from .stream import Broadcaster

CONDITIONS = ("신고가 돌파", "대왕개미단타", "거래량 급증", "5일선 돌파", "눌림목", "외인 순매수", "장대양봉", "갭상승")
STOCKS = {
    "005930": "삼성전자", "000660": "SK하이닉스", "035420": "NAVER", "035720": "카카오", "005380": "현대차",
    "373220": "LG에너지솔루션", "207940": "삼성바이오로직스", "068270": "셀트리온", "247540": "에코프로비엠",
    "086520": "에코프로", "196170": "알테오젠", "042700": "한미반도체", "012450": "한화에어로스페이스",
    "329180": "HD현대중공업", "0004V0": "엔비알모션", "028300": "HLB", "041510": "에스엠", "352820": "하이브",
    "259960": "크래프톤", "034020": "두산에너빌리티", "010140": "삼성중공업", "112040": "위메이드",
}  # fmt: skip
THRESHOLD = 2.0


class Market:
    """Invents records: stocks that enter and leave conditions, and what would be recommended for it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.inside: dict[tuple[str, str], datetime] = {}
        self.entries: dict[tuple[str, str], int] = {}
        self.open: dict[str, Recommendation] = {}
        self.closes: dict[str, int] = {}
        self.prices: dict[str, float] = {}
        self.volumes: dict[str, int] = {}

    def opening(self, at: datetime) -> Iterator[Record]:
        """What stands in the topics when the day begins."""
        for code, name in STOCKS.items():
            market = "KOSPI" if code < "04" else "KOSDAQ"
            close = self.closes[code] = self.random.randrange(50, 9000) * 100
            self.prices[code] = close * (1 + self.random.uniform(-0.02, 0.06))
            yield Stock(code=code, name=name, market=market, previous_close=close, received_at=at)
        yield from self.statuses(at, at)
        for condition in CONDITIONS[:2]:
            since, until = at - timedelta(minutes=21), at - timedelta(minutes=20, seconds=37)
            yield Gap(id=identity("gap", condition), account="main", condition=condition, from_=since, to=until,
                      cause="no PING for 35 s", at=until, received_at=until, session="demo")  # fmt: skip

    def statuses(self, since: datetime, at: datetime) -> Iterator[Record]:
        """What every component says at `at`."""
        parts: dict[str, tuple[Any, str, dict[str, float]]] = {
            "session/main/demo": ("session", "live", {"connections": 2, "frames": 41_880, "waiting": 0, "spooled": 0}),
            "worker/demo": ("worker", "running", {"lag": 3}),
            "sink/clickhouse/demo": ("sink", "running", {"lag": 120, "records": 18_204}),
        }
        for component, (kind, state, figures) in parts.items():
            yield Status(component=component, kind=kind, state=state, since=since, at=at, account="main",
                         proof_of_life=at, last_frame=at, last_ping=at - timedelta(seconds=4),
                         figures=figures)  # fmt: skip
        last, following = (at - timedelta(hours=1)).timestamp(), (at + timedelta(hours=4)).timestamp()
        yield Status(component="doctor/main/demo", kind="diagnosis", state="quiet", since=since, at=at, account="main",
                     cause="이상 없음. 지켜보는 동안 눌림목에 편입·이탈이 없었을 뿐입니다.",
                     figures={"good": 1.0, "last": last, "next": following})  # fmt: skip
        for name, state, figures in (
            ("신고가 돌파", "done", {"rows": 14.0, "last": last, "next": following}),
            ("눌림목", "failed", {"last": last, "next": following}),
        ):
            silent = f"{name} was not answered within 5 s, for types 0 and 1: `hitstream doctor` says why"
            cause = "" if state == "done" else f"the run of 14:22 failed: {silent}; it is tried again"
            yield Status(component=f"search/main/demo/{name}", kind="diagnosis", state=state, cause=cause, since=since,
                         at=at, account="main", condition=name, figures=figures)  # fmt: skip
        for number, condition in enumerate(CONDITIONS):
            state, cause = ("refused", "900001: 조건검색 결과가 없습니다") if number == 7 else ("live", "")
            yield Status(component=f"subscription/main/demo/{condition}", kind="subscription", state=state, cause=cause,
                         since=since, at=at, account="main", condition=condition, session="demo",
                         proof_of_life=at if number != 7 else None)  # fmt: skip

    def quote(self, at: datetime) -> Iterator[Record]:
        """One stock that is inside a condition, or recommended, is traded at `at`."""
        watched = sorted({code for _, code in self.inside} | set(self.open))
        if not watched:
            return
        code = self.random.choice(watched)
        before = self.prices[code]
        after = self.prices[code] = before * (1 + self.random.gauss(0.00005, 0.0012))
        low, high = sorted((before, after))
        volume = self.random.randrange(1, 4_000)
        self.volumes[code] = self.volumes.get(code, 0) + volume
        yield Quote(
            code=code, at=at.astimezone(KST).replace(microsecond=0), received_at=at, price=_tick(after),
            high=_tick(high), low=_tick(low), volume=volume, trades=self.random.randrange(1, 30),
            change_rate=round((after / self.closes[code] - 1) * 100, 2), day_volume=self.volumes[code], session="demo",
        )  # fmt: skip

    def step(self, at: datetime) -> Iterator[Record]:
        """One stock enters or leaves one condition at `at`."""
        code = self.random.choice(list(STOCKS))
        condition = self.random.choice(CONDITIONS[:7])
        visit = (condition, code)
        since = self.inside.pop(visit, None)
        if since is None:
            self.entries[visit] = self.entries.get(visit, 0) + 1
            self.inside[visit] = at
        kind: Literal["entered", "exited"] = "exited" if since else "entered"
        entry, day = self.entries[visit], trading_date(at)
        moved = Transition(
            id=transition_id("main", condition, code, day, entry, kind), account="main", condition=condition,
            code=code, kind=kind, origin="realtime", date=day, entry=entry,
            at=at.astimezone(KST).replace(microsecond=0), since=since or at,
            dwell=(at - since).total_seconds() if since else None,
            event_id=identity(at, visit), session="demo", received_at=at,
        )  # fmt: skip
        yield moved
        yield from self._recommend(code, at, moved.id)

    def _recommend(self, code: str, at: datetime, cause_id: str) -> Iterator[Record]:
        reasons = tuple(
            Reason(kind="condition", condition=c, algorithm_id=c, since=since, visits=self.entries[c, code], score=1.0)
            for (c, of), since in sorted(self.inside.items())
            if of == code
        )
        score, held = float(len(reasons)), self.open.get(code)
        if held is None and score < THRESHOLD:
            return
        opening = held.recommendation_id if held else identity("recommendation", code, at)
        revision = held.revision + 1 if held else 1
        new = Recommendation(
            id=revision_id(opening, revision), recommendation_id=opening, revision=revision, account="main", code=code,
            date=trading_date(at), state="open" if score >= THRESHOLD else "closed",
            cause="threshold" if held is None else "reason" if score >= THRESHOLD else "score", cause_id=cause_id,
            rule="sum", score=score, threshold=THRESHOLD, reasons=reasons, opened_at=held.opened_at if held else at,
            at=at, received_at=at,
        )  # fmt: skip
        self.open[code] = new
        if new.state == "closed":
            del self.open[code]
        yield new


def _tick(price: float) -> int:
    """The nearest price that KRX takes, roughly."""
    step = 10 if price < 20_000 else 50 if price < 50_000 else 100 if price < 200_000 else 500
    return max(step, round(price / step) * step)


async def run(port: int, rate: float, seed: int, history: int, quotes: float) -> None:
    """Serve an invented day until cancelled: `history` changes before now, then `rate` and `quotes` a second."""
    market, hub = Market(seed), Hub(epoch=new_epoch())
    broadcaster = Broadcaster(hub, lambda: datetime.now(UTC))
    began = datetime.now(UTC)
    past = (began - timedelta(seconds=20 * n) for n in range(history, 0, -1))
    for record in market.opening(began):
        hub.apply(record, began)
    for at in past:
        for record in market.step(at):
            hub.apply(record, began)
        for second in range(20):
            for record in market.quote(at + timedelta(seconds=second)):
                hub.apply(record, began)
    broadcaster.open()

    async def go_on(happens: Callable[[datetime], Iterator[Record]], a_second: float) -> None:
        while True:
            await asyncio.sleep(market.random.expovariate(a_second))
            at = datetime.now(UTC)
            for record in happens(at):
                broadcaster.publish(hub.apply(record, at), at.timestamp())

    async def report() -> None:
        while True:
            await asyncio.sleep(5)
            at = datetime.now(UTC)
            for record in market.statuses(began, at):
                broadcaster.publish(hub.apply(record, at))

    sock = listen("127.0.0.1", port)
    print(f"http://127.0.0.1:{sock.getsockname()[1]}/", flush=True)  # noqa: T201
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(application(broadcaster), sock, broadcaster))
        group.create_task(broadcaster.run())
        group.create_task(go_on(market.step, rate))
        group.create_task(go_on(market.quote, quotes))
        group.create_task(report())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, default=8090)
    arguments.add_argument("--rate", type=float, default=4.0, help="changes a second")
    arguments.add_argument("--quotes", type=float, default=20.0, help="prices a second")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--history", type=int, default=60, help="changes before the start")
    asked = arguments.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(asked.port, asked.rate, asked.seed, asked.history, asked.quotes))
