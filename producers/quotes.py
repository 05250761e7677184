"""Prices for what matters: which stocks of this session have them, and the `Quote` records that their trades make.

It puts the pure parts together – `slots` (who has one), `turns` (which session of the account tells them), `conflation`
(trades → quotes) – and is itself free of clock and I/O: moments are handed in, `offer` takes a quote, `price` says to
the connection which codes to register. The connection's part is `kiwoom.registrations`; what is recommended and how
the other sessions are comes from `recommended`.

While Kafka is behind, quotes are held: one waits for each stock and gathers on (`conflation`), so that they take
neither the queue nor the spool from hits and exits, and what is told afterwards has the extremes of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Final

from streams.events import Quote, Recommendation, Status, trading_date

from . import metrics
from .conditions import happened_at
from .conflation import Conflation
from .kiwoom.registrations import Standing
from .kiwoom.session import Action, Changed, Entry, Moment, Priced, SessionChanged, Snapshot, Trades
from .recommended import Recommended
from .settings import QuotesSettings
from .slots import Slots
from .turns import ABLE, Turns

CHOOSE_EVERY: Final = 1.0
"""Seconds after which slots are looked at, though nothing has happened."""

CHOOSE_AFTER: Final = 0.25
"""Least seconds between two looks: a burst of hits is one."""

HEARD_WITHIN: Final = 3.0
"""Seconds after the start until which nothing is told unless it is known how the other sessions are."""

MUTE_AFTER: Final = 120.0
"""Seconds of trading without any trade of at least `MUTE_CODES` codes, after which another session may take over."""

MUTE_CODES: Final = 10

PROVED_AFTER: Final = 10.0
"""Seconds after which a session from which nobody wants prices counts as able to tell them. One from which they are
wanted proves it by having them registered: until then, whoever told them meanwhile goes on."""


class Quotes:
    """The prices of one producer, across its connections.

    Args:
        account, producer: this session.
        t: now, in seconds that only grow; `speed`: seconds of the product's clock per real one.
        offer: takes a quote for Kafka, at once.
        behind: whether Kafka takes less than it is given.
        price: is told the codes to register, the most important first.
        trading: whether the market trades at a moment.
    """

    def __init__(
        self,
        settings: QuotesSettings,
        *,
        account: str,
        producer: str,
        t: float,
        speed: float = 1.0,
        offer: Callable[[Quote], None],
        behind: Callable[[], bool] = lambda: False,
        price: Callable[[Sequence[str]], None],
        trading: Callable[[datetime], bool] = lambda _: True,
    ) -> None:
        self._offer = offer
        self._behind = behind
        self._price = price
        self._trading = trading
        self._most = settings.slots
        self._slots = Slots(settings.slots, keep=settings.keep)
        self._turns = Turns(account, producer)
        self._conflation = Conflation(per_second=settings.per_second, speed=speed, happened=happened_at)
        self._recommended = Recommended(account)
        self._day: date | None = None
        self._codes: tuple[str, ...] | None = None
        self._chosen_at = float("-inf")
        self._dirty = True
        self._waits_until = t + HEARD_WITHIN
        self._connection = ""
        self._live_since: float | None = None
        self._standing: Standing | None = None
        self._proved = False
        self._traded_at = t
        self._mute = False
        self._told_able: bool | None = None
        self._counted = (0, 0)
        self.others_known = False

    # -- what happens

    def connecting(self, connection: str) -> None:
        """A new connection begins: nothing is registered on it."""
        self._end_connection()
        self._connection = connection

    def disconnected(self) -> None:
        """There is no connection."""
        self._end_connection()

    def apply(self, action: Action, now: Moment) -> None:
        """Take in what the session says; trades that make a quote are offered at once."""
        match action:
            case Trades():
                self._heard(action, now.t)
            case Entry(action="hit"):
                self._slots.entered(action.condition, action.code, now.t)
                self._dirty = True
            case Entry():
                self._slots.exited(action.condition, action.code)
                self._dirty = True
            case Snapshot():
                self._slots.snapshot(action.condition, action.codes, now.t)
                self._dirty = True
            case Changed() if action.state != "live":
                self._slots.lost(action.condition, now.t)
                self._dirty = True
            case SessionChanged():
                self._live_since = now.t if action.state == "live" else None
            case Priced():
                self._registered(action.standing)
            case _:
                pass

    def recommendation(self, revision: Recommendation) -> None:
        """A revision of a recommendation."""
        if self._recommended.apply(revision):
            self._day = None

    def status(self, status: Status, t: float, age: float) -> None:
        """How a component is, said `age` seconds before `t`."""
        if self._turns.heard(status, t, age=age):
            self._dirty = True

    # -- what comes of it

    def look(self, t: float, at: datetime) -> bool:
        """Do what is due at `t`, which is `at` on the product's clock. To be called ten times a second.

        Returns:
            whether the others should be told at once how this session is.
        """
        self._conflation.hold = self._behind()
        for quote in self._conflation.due(at):
            self._offer(quote)
        since = t - self._chosen_at
        if since >= CHOOSE_EVERY or (self._dirty and since >= CHOOSE_AFTER):
            self._choose(t, at)
        before, self._told_able = self._told_able, self.able
        return before != self._told_able

    def stopped(self) -> None:
        """The end: everything that waits is told."""
        for quote in self._conflation.flush():
            self._offer(quote)

    @property
    def able(self) -> bool:
        """Whether this session tells prices, or would if it were its turn: what the others go by."""
        return self._live_since is not None and self._proved and not self._mute and self._slots.limit > 0

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes that have a slot, the most important first."""
        return self._codes or ()

    def figures(self) -> dict[str, float]:
        """What the session's status says of prices.

        `quotes`: 1 if it can tell them. `slots`: codes that have one, `slots_registered`: those of them that Kiwoom has
        acknowledged, `slots_wanted`: codes that want one, `slots_limit`: how many there are, `slots_evicted`: how often
        one lost its slot to another, `slots_refused`: codes that Kiwoom does not take.
        """
        standing = self._standing
        return {
            ABLE: float(self.able),
            "slots": float(len(self.codes)),
            "slots_registered": float(standing.held if standing else 0),
            "slots_wanted": float(self._slots.wanted),
            "slots_limit": float(self._slots.limit),
            "slots_evicted": float(self._slots.evicted),
            "slots_refused": float(standing.refused if standing else 0),
        }

    # -- parts

    def _heard(self, heard: Trades, t: float) -> None:
        self._traded_at = t
        held = self._slots.held
        trades = [trade for trade in heard.trades if trade.code in held]
        metrics.TRADES.inc(len(trades))
        if left := len(heard.trades) - len(trades):
            # Of before its REMOVE, or from a registration that is about to be removed.
            metrics.IGNORED.labels("no-slot").inc(left)
        repeats = self._conflation.repeats
        for quote in self._conflation.heard(trades, heard.received_at, self._connection):
            self._offer(quote)
        if repeated := self._conflation.repeats - repeats:
            metrics.IGNORED.labels("repeated-trade").inc(repeated)

    def _registered(self, standing: Standing) -> None:
        self._standing = standing
        self._slots.limit = min(self._most, standing.limit)
        if standing.complete and standing.held:
            self._proved = True
        elif not standing.held and standing.cause:
            # Nothing is registered, and Kiwoom does not take or answer what would be.
            self._proved = False

    def _choose(self, t: float, at: datetime) -> None:
        self._chosen_at, self._dirty = t, False
        if (today := trading_date(at)) != self._day:
            self._day = today
            self._slots.recommend(self._recommended.codes(today))
        if self.others_known or t >= self._waits_until:
            # Also those that are not live for the moment: their members are kept for a while.
            ours, recommended = self._turns.serves(self._slots.conditions, t)
            self._slots.serve(ours, recommended=recommended)
        codes = self._slots.choose(t)
        for code in set(self.codes).difference(codes):
            for quote in self._conflation.close(code):
                self._offer(quote)
        if codes != self._codes:
            self._codes = codes
            self._price(codes)
        self._judge(t, at)
        self._measure()

    def _judge(self, t: float, at: datetime) -> None:
        """Whether a session that asks for nothing is proved by time, and one that hears nothing has gone mute."""
        standing = self._standing
        if standing is None or standing.held < MUTE_CODES or not self._trading(at):
            self._traded_at = t  # Silence says nothing.
        self._mute = t - self._traded_at >= MUTE_AFTER
        settled = self._live_since is not None and t - self._live_since >= PROVED_AFTER
        self._proved = self._proved or (settled and standing is not None and not standing.wanted)

    def _measure(self) -> None:
        figures = self.figures()
        for name in ("used", "registered", "wanted", "limit", "refused"):
            metrics.PRICE_SLOTS.labels(name).set(figures["slots" if name == "used" else f"slots_{name}"])
        metrics.PRICES_ABLE.set(figures[ABLE])
        evicted, held_back = self._slots.evicted, self._conflation.held_back
        metrics.EVICTED.inc(evicted - self._counted[0])
        metrics.HELD_BACK.inc(held_back - self._counted[1])
        self._counted = evicted, held_back

    def _end_connection(self) -> None:
        self._proved = self._mute = False
        self._live_since = self._standing = None
        self._slots.limit = self._most
        if not self._conflation.hold:
            for quote in self._conflation.flush():
                self._offer(quote)
