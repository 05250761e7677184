"""A small day, for whoever needs one of everything that the hub can hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from streams.events import (
    Gap,
    Quote,
    Reason,
    Recommendation,
    Record,
    Status,
    Stock,
    Transition,
    trading_date,
    transition_id,
)

NINE = datetime(2026, 3, 4, 0, 0, tzinfo=UTC)  # 09:00 KST


def transition(code: str, *, at: datetime = NINE, session: str = "s", **other: Any) -> Transition:
    values: dict[str, Any] = {"kind": "entered", "entry": 1, "condition": "신고가 돌파", "origin": "realtime"} | other
    identity = transition_id("main", values["condition"], code, trading_date(at), values["entry"], values["kind"])
    return Transition(
        id=identity, account="main", code=code, date=trading_date(at), at=at, since=at, event_id="e", session=session,
        received_at=at, **values,
    )  # fmt: skip


def a_bit_of_everything() -> list[Record]:
    why = Reason(kind="condition", condition="신고가 돌파", algorithm_id="a", since=NINE, score=1.5)
    recommendation = Recommendation(
        id="r-1", recommendation_id="r", revision=1, account="main", code="005930", date=date(2026, 3, 4), state="open",
        cause="threshold", cause_id="c", rule="sum", score=1.5, threshold=1.0, reasons=(why,), opened_at=NINE, at=NINE,
        received_at=NINE,
    )  # fmt: skip
    session = Status(component="session/main/p", kind="session", state="live", since=NINE, at=NINE, figures={"a": 1.5})
    subscription = Status(
        component="subscription/main/p/신고가 돌파", kind="subscription", state="live", since=NINE, at=NINE,
        account="main", condition="신고가 돌파", members=1,
    )  # fmt: skip
    quote = Quote(
        code="005930", at=NINE, received_at=NINE, price=70_000, high=70_100, low=69_900, volume=5, trades=1,
        change_rate=0.5, day_volume=100,
    )  # fmt: skip
    return [
        Stock(code="005930", name="삼성전자", market="KOSPI", previous_close=70_000, received_at=NINE),
        transition("005930"),
        transition("0004V0", at=NINE + timedelta(seconds=1)),
        transition("0004V0", at=NINE + timedelta(seconds=2), kind="exited", dwell=1.0),
        recommendation,
        session,
        subscription,
        Gap(
            id="g", account="main", condition="신고가 돌파", from_=NINE, to=NINE, cause="c", at=NINE, received_at=NINE,
            session="s",
        ),
        quote,
    ]  # fmt: skip
