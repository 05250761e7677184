"""Prices of one producer, without Kafka and Kiwoom: slots, turns and conflation together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from producers.kiwoom.frames import TradeEntry
from producers.kiwoom.registrations import Standing
from producers.kiwoom.session import Changed, Entry, Moment, Priced, SessionChanged, Snapshot, Trades
from producers.quotes import HEARD_WITHIN, MUTE_AFTER, PROVED_AFTER, Quotes
from producers.recommended import Recommended
from producers.settings import QuotesSettings
from producers.slots import FORGET
from producers.turns import SILENCE
from streams.events import Quote, Recommendation, Status

START = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
A, B, C = "00000A", "00000B", "00000C"


class Desk:
    """Quotes with a clock of their own, and a connection that registers whatever it is told to."""

    def __init__(self, *, registers: bool = True, **settings: Any) -> None:
        self.t = 100.0
        self.quotes: list[Quote] = []
        self.asked: list[Sequence[str]] = []
        self.behind = False
        self.told = 0
        self.registers = registers
        self.limit = 200
        self.all = Quotes(
            QuotesSettings(**settings),
            account="main",
            producer="b",
            t=self.t,
            offer=self.quotes.append,
            behind=lambda: self.behind,
            price=self.price,
        )

    @property
    def now(self) -> Moment:
        return Moment(self.t, START + timedelta(seconds=self.t - 100))

    def price(self, codes: Sequence[str]) -> None:
        self.asked.append(codes)
        self.standing(len(codes), len(codes) if self.registers else 0)

    def standing(self, wanted: int, held: int, cause: str = "") -> None:
        standing = Standing(held=held, wanted=wanted, limit=self.limit, refused=0, complete=held == wanted, cause=cause)
        self.all.apply(Priced(standing=standing), self.now)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.t += 0.1
            self.told += self.all.look(self.t, self.now.at)

    def live(self, *codes: str, condition: str = "x") -> None:
        self.all.connecting("b-1")
        self.all.apply(SessionChanged(state="live", cause=""), self.now)
        self.all.apply(Changed(condition=condition, state="live", cause=""), self.now)
        self.members(*codes, condition=condition)
        self.wait(HEARD_WITHIN + 1)

    def members(self, *codes: str, condition: str = "x") -> None:
        at = self.now.at
        self.all.apply(
            Snapshot(condition=condition, seq="1", codes=codes, requested_at=at, received_at=at, frame=1), self.now
        )

    def hit(self, code: str, action: Any = "hit") -> None:
        entry = Entry(
            condition="x",
            seq="1",
            code=code,
            exchange="KRX",
            action=action,
            time=None,
            received_at=self.now.at,
            frame=1,
            entry=1,
        )
        self.all.apply(entry, self.now)

    def trade(self, *codes: str, price: int = 100) -> None:
        trades = tuple(TradeEntry(code=code, exchange="KRX", time=None, price=price, size=1) for code in codes)
        self.all.apply(Trades(trades=trades, received_at=self.now.at), self.now)

    def other(self, name: str = "a", *, able: bool = True, condition: str = "x", age: float = 0.0) -> None:
        for kind, figures in (("session", {"quotes": float(able)}), ("subscription", {})):
            status = Status(
                component=f"{kind}/main/{name}" + (f"/{condition}" if kind == "subscription" else ""),
                kind=kind,  # type: ignore[arg-type]
                state="live",
                since=START,
                at=START,
                account="main",
                condition=condition if kind == "subscription" else "",
                figures=figures,
            )
            self.all.status(status, self.t, age)


def revision(code: str, number: int = 1, state: Any = "open", day: date = date(2026, 11, 23), **more: Any) -> Any:
    fields: dict[str, Any] = {
        "id": f"{code}-{number}", "recommendation_id": code, "revision": number, "account": "main", "code": code,
        "date": day, "state": state, "cause": "threshold", "cause_id": "", "rule": "sum", "score": 1.0,
        "threshold": 1.0, "reasons": (), "opened_at": START, "at": START, "received_at": START,
    }  # fmt: skip
    return Recommendation(**(fields | more))


def test_members_and_hits_are_registered_and_their_trades_told() -> None:
    desk = Desk()
    desk.live(A)
    desk.hit(B)
    desk.wait(1)
    assert desk.asked[-1] == (B, A)
    desk.trade(A, B, C)
    assert [(q.code, q.session) for q in desk.quotes] == [(A, "b-1"), (B, "b-1")]


def test_a_burst_of_hits_is_one_change() -> None:
    desk = Desk()
    desk.live(A)
    asked = len(desk.asked)
    for number in range(50):
        desk.hit(f"{number:06d}")
    desk.wait(0.9)
    assert len(desk.asked) == asked + 1


def test_what_is_recommended_is_registered_first_and_until_its_day_ends() -> None:
    desk = Desk(slots=2, keep=0)
    desk.live(A, B)
    desk.all.recommendation(revision(C))
    desk.wait(1.5)
    assert desk.asked[-1][0] == C
    desk.t += 86_400
    desk.wait(1.5)
    assert C not in desk.all.codes


def test_losing_a_slot_tells_what_waits() -> None:
    desk = Desk(slots=1)
    desk.live(A)
    desk.trade(A, price=100)
    desk.trade(A, price=90)
    desk.all.recommendation(revision(B))
    desk.t += 0.2
    desk.all._chosen_at = 0.0
    desk.all.look(desk.t, desk.now.at)
    assert [(q.code, q.price) for q in desk.quotes] == [(A, 100), (A, 90)]


def test_while_kafka_is_behind_quotes_are_gathered_and_none_of_it_is_lost() -> None:
    desk = Desk()
    desk.live(A)
    desk.behind = True
    desk.wait(0.1)
    for price in (100, 500, 1, 99):
        desk.trade(A, price=price)
        desk.wait(1.0)
    assert desk.quotes == []
    desk.behind = False
    desk.wait(0.1)
    assert [(q.price, q.low, q.high, q.trades) for q in desk.quotes] == [(99, 1, 500, 4)]


def test_stopping_tells_what_waits() -> None:
    desk = Desk()
    desk.live(A)
    desk.trade(A, price=100)
    desk.trade(A, price=90)
    desk.all.stopped()
    assert [q.price for q in desk.quotes] == [100, 90]


def test_a_lost_connection_tells_what_waits_and_keeps_the_slots() -> None:
    desk = Desk()
    desk.live(A)
    desk.trade(A, price=100)
    desk.trade(A, price=90)
    desk.all.disconnected()
    assert [q.price for q in desk.quotes] == [100, 90]
    desk.all.apply(Changed(condition="x", state="disconnected", cause=""), desk.now)
    desk.wait(FORGET - 10)
    assert desk.all.codes == (A,)
    assert not desk.all.able


def test_the_limit_that_kiwoom_has_is_ours() -> None:
    desk = Desk(slots=3)
    desk.live(A, B, C)
    desk.limit = 1
    desk.standing(3, 1, cause="REG 105115 …")
    desk.wait(1.5)
    assert len(desk.all.codes) == 1
    assert desk.all.figures()["slots_limit"] == 1


# --- several sessions


def test_nothing_is_registered_before_it_is_known_who_is_there() -> None:
    desk = Desk()
    desk.other()
    desk.live(A)
    assert all(codes == () for codes in desk.asked)


def test_a_standby_takes_over_from_a_silent_one_and_gives_way_when_it_is_back() -> None:
    desk = Desk()
    desk.other()
    desk.live(A)
    desk.wait(SILENCE)
    assert desk.all.codes == (A,)
    desk.trade(A)
    desk.other()
    desk.wait(1.0)
    assert desk.all.codes == ()
    desk.trade(A)
    assert len(desk.quotes) == 1


def test_a_condition_that_is_only_requested_anew_elsewhere_is_not_taken_over() -> None:
    desk = Desk()
    desk.other()
    desk.live(A)
    status = Status(
        component="subscription/main/a/x", kind="subscription", state="requested", since=START, at=START,
        account="main", condition="x",
    )  # fmt: skip
    for _ in range(4):
        desk.all.status(status, desk.t, 0.0)
        desk.wait(1.0)
        assert desk.all.codes == ()
    desk.wait(2.0)
    assert desk.all.codes == (A,), "it is not, in the end"


def test_a_session_is_able_once_prices_are_registered() -> None:
    desk = Desk(registers=False)
    desk.live(A)
    assert not desk.all.able
    told = desk.told
    desk.standing(1, 1)
    desk.wait(0.1)
    assert desk.all.able
    assert desk.told == told + 1, "the others are not told at once"


def test_a_standby_is_able_after_a_while() -> None:
    desk = Desk()
    desk.other()
    desk.live(A)
    assert not desk.all.able
    for _ in range(round(PROVED_AFTER)):
        desk.other()
        desk.wait(1.0)
    assert desk.all.able


def test_a_session_whose_registrations_are_all_refused_is_not_able() -> None:
    desk = Desk()
    desk.live(A)
    assert desk.all.able
    desk.standing(1, 0, cause="REG 105111 …")
    assert not desk.all.able
    desk.wait(PROVED_AFTER + 1)
    assert not desk.all.able


def test_a_session_in_which_kiwoom_takes_no_code_at_all_is_not_able() -> None:
    desk = Desk(registers=False)
    desk.limit = 0
    desk.live(A)
    desk.wait(PROVED_AFTER + 1)
    assert desk.all.codes == ()
    assert not desk.all.able


def test_a_session_that_hears_no_trade_of_many_stocks_is_not_able() -> None:
    desk = Desk()
    codes = [f"{number:06d}" for number in range(20)]
    desk.live(*codes)
    desk.wait(MUTE_AFTER - 10)
    desk.trade(codes[0])
    desk.wait(MUTE_AFTER - 5)
    assert desk.all.able
    desk.wait(10)
    assert not desk.all.able
    desk.trade(codes[0])
    desk.wait(2)
    assert desk.all.able


# --- what is recommended


def test_the_highest_revision_counts_in_whatever_order() -> None:
    recommended = Recommended("main")
    today = date(2026, 11, 23)
    assert recommended.apply(revision(A, 2))
    assert recommended.apply(revision(A, 3, "closed"))
    assert not recommended.apply(revision(A, 2))
    assert recommended.codes(today) == frozenset()
    assert recommended.apply(revision(B))
    assert recommended.codes(today) == {B}


def test_other_accounts_and_days_do_not_count() -> None:
    recommended = Recommended("main")
    assert not recommended.apply(revision(A, account="other"))
    recommended.apply(revision(B, day=date(2026, 11, 20)))
    recommended.apply(revision(C))
    assert recommended.codes(date(2026, 11, 23)) == {C}
    assert recommended.codes(date(2026, 11, 20)) == frozenset()
