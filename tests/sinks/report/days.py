"""Simulated days as records: what the market did, as conditions, streams and bars would have told it.

The truth is the market's own (`deploy.local.kiwoom.market`), so whatever a report says of it can be computed anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from deploy.local.kiwoom.catalog import listings
from deploy.local.kiwoom.exchange import moment
from deploy.local.kiwoom.market import Crossing, Day
from streams.events import (
    KST,
    Bar,
    Gap,
    Reason,
    Recommendation,
    Status,
    Stock,
    Transition,
    transition_id,
)

NINE = 9 * 3600.0
CLOSES = 10 * 3600.0
ACCOUNT = "main"
SAMPLE = frozenset(stock.code for stock in listings()[::7] if not stock.etn)


def simulated(first: date, count: int, *, seed: int = 3) -> list[Day]:
    """Days of the market, the first hour of each."""
    days: list[Day] = []
    closing = {stock.code: stock.close for stock in listings()}
    day = first
    while len(days) < count:
        if day.weekday() < 5:
            market = Day(
                seed=seed,
                date=day,
                opened=NINE,
                closes=CLOSES,
                previous=[(stock, closing[stock.code], round(closing[stock.code] * 1.02)) for stock in listings()],
                activity=1.0,
            )
            market.advance(market.closes)
            closing = {stock.code: market.bar(stock.code).close for stock in listings()}
            days.append(market)
        day += timedelta(days=1)
    return days


def told(day: Day, crossing: Crossing) -> datetime:
    return moment(day.date, crossing.at)


def transitions(day: Day) -> list[Transition]:
    """Each hit and exit, and the exits at the day's end."""
    names = {condition.seq: condition.name for condition in day.conditions}
    entries: dict[tuple[str, str], int] = {}
    since: dict[tuple[str, str], datetime] = {}
    found = []

    def add(seq: str, code: str, kind: Any, origin: Any, at: datetime) -> None:
        key = (seq, code)
        if kind == "entered":
            entries[key] = entries.get(key, 0) + 1
            since[key] = at
        found.append(
            Transition(
                id=transition_id(ACCOUNT, names[seq], code, day.date, entries[key], kind), account=ACCOUNT,
                condition=names[seq], code=code, kind=kind, origin=origin, date=day.date, entry=entries[key], at=at,
                since=since[key], dwell=None if kind == "entered" else (at - since[key]).total_seconds(), event_id="e",
                session="s", received_at=at + timedelta(seconds=0.4),
            )
        )  # fmt: skip

    for crossing in day.truth:
        kind = "entered" if crossing.action == "hit" else "exited"
        add(crossing.seq, crossing.code, kind, "realtime", told(day, crossing))
    for seq, codes in day.members.items():
        for code in codes:
            add(seq, code, "exited", "day-end", moment(day.date, 86_400))
    return found


def recommendations(day: Day) -> list[Recommendation]:
    """A stock is recommended from the first moment at which two conditions hold it until the day ends."""
    names = {condition.seq: condition.name for condition in day.conditions}
    held: dict[str, set[str]] = {}
    opened: set[str] = set()
    found = []
    for crossing in day.truth:
        inside = held.setdefault(crossing.code, set())
        (inside.add if crossing.action == "hit" else inside.discard)(crossing.seq)
        if len(inside) < 2 or crossing.code in opened:
            continue
        opened.add(crossing.code)
        at = told(day, crossing)
        reasons = tuple(Reason(kind="condition", condition=names[seq], since=at, score=1.0) for seq in sorted(inside))
        number = uuid.uuid5(uuid.NAMESPACE_OID, f"{day.date}/{crossing.code}").hex
        for revision, state, cause, moved in (
            (1, "open", "threshold", at),
            (2, "closed", "day-end", moment(day.date, 86_400)),
        ):
            found.append(
                Recommendation(
                    id=f"{number}-{revision}", recommendation_id=number, revision=revision, account=ACCOUNT,
                    code=crossing.code, date=day.date, state=state, cause=cause, cause_id="c", rule="sum",  # type: ignore[arg-type]
                    score=2.0, threshold=2.0, reasons=reasons, opened_at=at, at=moved,
                    received_at=moved + timedelta(seconds=0.4),
                )
            )  # fmt: skip
    return found


def bars(day: Day) -> Iterator[Bar]:
    """Minute and daily bars of the stocks that were hit, and of the sample."""
    received_at = moment(day.date, 15.75 * 3600)
    for code in sorted({crossing.code for crossing in day.truth} | SAMPLE):
        shared: dict[str, Any] = {"code": code, "received_at": received_at, "sample": code in SAMPLE}
        for bar in day.minutes(code):
            yield Bar(
                interval="1m", at=moment(day.date, bar.minute * 60), open=bar.open, high=bar.high, low=bar.low,
                close=bar.close, volume=bar.volume, **shared,
            )  # fmt: skip
        whole = day.bar(code)
        if whole.volume:
            yield Bar(
                interval="1d", at=moment(day.date, 0), open=whole.open, high=whole.high, low=whole.low,
                close=whole.close, volume=whole.volume, value=whole.value, **shared,
            )  # fmt: skip


def stocks() -> list[Stock]:
    at = datetime(2026, 3, 6, 8, 40, tzinfo=KST)
    return [
        Stock(code=each.code, name=each.name, market=each.market, previous_close=each.close, received_at=at)
        for each in listings()
    ]


def gap(day: Day, condition: str, start: str, end: str, cause: str = "connection lost") -> Gap:
    at = datetime.combine(day.date, time.fromisoformat(end), KST)
    begin = datetime.combine(day.date, time.fromisoformat(start), KST)
    return Gap(
        id=uuid.uuid4().hex, account=ACCOUNT, condition=condition, from_=begin, to=at, cause=cause, at=at,
        received_at=at, session="s",
    )  # fmt: skip


def bars_said(day: Day, state: str, cause: str) -> Status:
    at = moment(day.date, 16 * 3600)
    return Status(
        component=f"bars/{ACCOUNT}/p", kind="diagnosis", state=state, cause=cause, since=at, at=at, account=ACCOUNT,
        figures={"day": float(f"{day.date:%Y%m%d}")},
    )  # fmt: skip
