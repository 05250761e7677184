"""A tiny market on paper: hits, quotes and bars with the times and prices that a test writes down.

Everything becomes the product's records, and rows as the sink makes them of records; a moment is `"09:15:20.3"` on the
tape's day, in KST.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client

from streams.events import (
    KST,
    Bar,
    Gap,
    Quote,
    Reason,
    Recommendation,
    Record,
    SearchReason,
    SearchResult,
    SearchRow,
    Status,
    Stock,
    Transition,
    event_id,
    identity,
    transition_id,
)

from .storing import store

MONDAY = date(2026, 3, 9)


class Tape:
    """Records of one or more days, to be stored with `write`; each method adds one and returns the tape."""

    def __init__(self, day: date = MONDAY) -> None:
        self.day = day
        self.records: list[Record] = []

    def on(self, day: date) -> Tape:
        self.day = day
        return self

    def moment(self, text: str) -> datetime:
        return datetime.combine(self.day, time.fromisoformat(text if text.count(":") > 1 else f"{text}:00"), KST)

    def hit(self, condition: str, code: str, at: str, *, received: str = "", **fields: Any) -> Tape:
        """Entered as it happened, unless `fields` say otherwise; received half a second later, or when told."""
        happened = self.moment(at)
        known = self.moment(received) if received else happened + timedelta(seconds=0.5)
        account, entry = fields.pop("account", "main"), fields.pop("entry", 1)
        kind = fields.pop("kind", "entered")
        self.records.append(
            Transition(
                id=transition_id(account, condition, code, self.day, entry, kind),
                account=account,
                condition=condition,
                code=code,
                kind=kind,
                date=self.day,
                entry=entry,
                at=happened,
                received_at=known.astimezone(UTC),
                event_id=event_id(account, condition, code, kind, happened, 0),
                session="s",
                **{"origin": "realtime", "since": happened} | fields,
            )
        )
        return self

    def exit(self, condition: str, code: str, at: str, dwell: float, **fields: Any) -> Tape:
        since = self.moment(at) - timedelta(seconds=dwell)
        return self.hit(condition, code, at, kind="exited", dwell=dwell, **{"since": since} | fields)

    def quote(self, code: str, received: str, price: int, **fields: Any) -> Tape:
        known = self.moment(received)
        chosen = {"high": price, "low": price, "volume": 1, "trades": 1, "session": "s"} | fields
        self.records.append(
            Quote(code=code, at=known.replace(microsecond=0), received_at=known.astimezone(UTC), price=price, **chosen)
        )
        return self

    def bar(self, code: str, at: str, prices: tuple[int, int, int, int], *, sample: bool = False) -> Tape:
        """A minute bar: open, high, low, close."""
        return self._bar(code, "1m", self.moment(at), prices, sample)

    def daily(self, code: str, prices: tuple[int, int, int, int], *, sample: bool = False) -> Tape:
        return self._bar(code, "1d", self.moment("00:00"), prices, sample)

    def _bar(self, code: str, interval: Any, at: datetime, prices: tuple[int, int, int, int], sample: bool) -> Tape:
        first, high, low, last = prices
        self.records.append(
            Bar(
                code=code,
                interval=interval,
                at=at,
                open=first,
                high=high,
                low=low,
                close=last,
                volume=1,
                received_at=self.moment("16:00").astimezone(UTC),
                sample=sample,
            )
        )
        return self

    def gap(self, condition: str, begins: str, ends: str, *, account: str = "main") -> Tape:
        first, last = self.moment(begins), self.moment(ends)
        self.records.append(
            Gap(
                id=identity(account, condition, first),
                account=account,
                condition=condition,
                from_=first,
                to=last,
                cause="the connection broke",
                at=last,
                received_at=last.astimezone(UTC),
                session="s",
            )
        )
        return self

    def status(self, condition: str, state: str, since: str, until: str, *, account: str = "main") -> Tape:
        self.records.append(
            Status(
                component=f"subscription/{account}/p/{condition}",
                kind="subscription",
                state=state,
                since=self.moment(since).astimezone(UTC),
                at=self.moment(until).astimezone(UTC),
                account=account,
                condition=condition,
            )
        )
        return self

    def stock(self, code: str, name: str) -> Tape:
        self.records.append(Stock(code=code, name=name, market="KOSPI", received_at=self.moment("08:00")))
        return self

    def recommendation(self, code: str, at: str, conditions: list[str], *, opened: str = "", **fields: Any) -> Tape:
        """One revision; the first one of the opening unless told. Received half a second after `at`."""
        happened = self.moment(at)
        began = self.moment(opened) if opened else happened
        account, revision = fields.pop("account", "main"), fields.pop("revision", 1)
        number = identity(account, code, began)
        reasons = tuple(
            Reason(kind="condition", condition=each, algorithm_id=each, since=began, score=1.0) for each in conditions
        )
        self.records.append(
            Recommendation(
                id=f"{number}-{revision}",
                recommendation_id=number,
                revision=revision,
                account=account,
                code=code,
                date=self.day,
                cause_id="c",
                rule="sum",
                threshold=1.0,
                reasons=reasons,
                opened_at=began,
                at=happened,
                received_at=(happened + timedelta(seconds=0.5)).astimezone(UTC),
                **{"state": "open", "cause": "threshold", "score": float(len(conditions))} | fields,
            )
        )
        return self

    def search(self, condition: str, code: str, at: str, price: int | None, **fields: Any) -> Tape:
        """A scheduled search that found one stock, and the reason that came of it."""
        happened = self.moment(at)
        number = identity(condition, code, happened)
        known = happened.astimezone(UTC)
        self.records += [
            SearchResult(
                id=number,
                account="main",
                condition=condition,
                seq="1",
                rows=(SearchRow(code=code, price=price, **fields),),
                at=happened,
                received_at=known,
                session="s",
                scheduled_for=happened,
            ),
            SearchReason(
                id=identity(number, code),
                account="main",
                condition=condition,
                code=code,
                date=self.day,
                at=happened,
                received_at=known,
                price=price,
                change_rate=fields.get("change_rate"),
                search_id=number,
                scheduled_for=happened,
            ),
        ]
        return self

    def write(self, client: Client, times: int = 1) -> None:
        """Store it; with `times` 2, everything twice, in inserts of their own, as a crash leaves it."""
        for _ in range(times):
            store(client, self.records)
