"""The hub: what the dashboard knows of the trading day, and what changed last.

Pure: no socket, clock or await. `reader` feeds it the records of the topics, `stream` and `server` tell browsers what
it says. It forgets the day before when the trading date of `now` changes, and is bounded in everything it keeps.

The one idea: **state by key that only goes forward.** A record is applied if it is later than what is held under its
key – a higher revision of a recommendation, a later step of a stock's visits to a condition, a later status – and is
otherwise a repeat that changes nothing. So a log read twice, from any place, ends in the same state; and because the
entries of a visit are numbered from 1 each day, the counts of a condition follow from the latest step of each stock
alone and can't be counted twice.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, timedelta
from typing import Final

import msgspec

from streams.events import KST, Gap, Quote, Recommendation, Record, Status, Stock, Transition, day_end, trading_date

from .answers import Candle, ConditionDetail, Member, StockView, Story, Visit
from .cursor import Place, place_of, step_of
from .prices import Prices
from .views import (
    Change,
    ComponentView,
    ConditionView,
    FeedItem,
    GapView,
    PriceView,
    RecommendationView,
    Snapshot,
    TrackView,
)

SUBSCRIPTION_STATES: Final = (
    "live",
    "resting",
    "requested",
    "listing",
    "displaced",
    "unanswered",
    "refused",
    "missing",
    "disconnected",
)
"""States of a subscription, the best off first."""

SILENCE: Final = timedelta(seconds=30)
"""Real time after which a producer that is silent while another reports is believed no more. They report every 5 s."""


RETIRED: Final = "retired"
"""The state of what is no longer configured. It is kept, so that nothing older brings it back, and shown nowhere."""

FORGOTTEN: Final = timedelta(days=7)
"""Age at which a component's last word is forgotten: an app key that was replaced does not stay in view for ever."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much the hub keeps. Beyond it the oldest is dropped."""

    changes: int = 4_096  # keys that changed last, for browsers that come back
    feed: int = 200  # lines of the feed in a snapshot
    transitions: int = 10_000  # lines of the feed that the API can page through
    closed: int = 1_000  # recommendations closed today
    components: int = 1_000
    conditions: int = 1_000
    stocks: int = 50_000
    gaps: int = 500
    prices: int = 2_000  # stocks that had a price today
    tracks: int = 4  # of each stock: the latest openings whose course is followed


class _Counts:
    """Today's visits to one condition: per code the latest step, and what follows from all of them.

    A step is `2 * entry` when the stock entered for the `entry`-th time and one more when it left again (`step_of`); 1
    is a stock that was never there. A stock's steps are in order in the log, so the latest says how often it entered
    and left.
    """

    __slots__ = ("entered", "exited", "hits", "last_at", "since", "steps")

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.since: dict[str, datetime] = {}  # of those that are inside
        self.hits: Counter[int] = Counter()  # seen happening, by minute since 1970
        self.entered = 0
        self.exited = 0
        self.last_at: datetime | None = None

    def advance(self, transition: Transition) -> bool:
        """Take a transition in; False if it, or a later one of this stock, is in already."""
        held = self.steps.get(transition.code, 1)
        step = step_of(transition)
        if step <= held:
            return False
        self.steps[transition.code] = step
        self.entered += step // 2 - held // 2
        self.exited += (step - 1) // 2 - (held - 1) // 2
        if transition.kind == "entered":
            self.since[transition.code] = transition.since
            if transition.origin == "realtime":
                self.hits[int(transition.at.timestamp()) // 60] += 1
        else:
            self.since.pop(transition.code, None)
        if self.last_at is None or transition.at > self.last_at:
            self.last_at = transition.at
        return True


_NOTHING: Final = _Counts()  # of a condition without a visit today


class Hub:
    """The state of the trading day, and its recent changes with numbers: the last one of each key.

    Args:
        epoch: names this hub's numbering, without `-` and `~`; another hub (a restart) must have another.
        speed: market seconds per real second.
        limits: how much is kept.

    `left_out` counts what there was no room for, until somebody takes note of it and clears it.
    `generation` counts how often the state was started anew: a browser that was told of an earlier generation needs a
    new snapshot, deltas can't bring it there.
    """

    def __init__(self, *, epoch: str, speed: float = 1.0, limits: Limits | None = None) -> None:
        self.epoch = epoch
        self.speed = speed
        self.limits = limits or Limits()
        self.number = 0
        self.generation = 0
        self.left_out: Counter[str] = Counter()
        self.day: date | None = None
        # Clocks of two machines may differ: a record of tomorrow is believed this long before our own midnight.
        self._skew = timedelta(seconds=5) * max(speed, 1.0)
        self._silence = SILENCE * max(speed, 1.0)
        self.shows_prices = True
        self._prices = Prices(codes=self.limits.prices, openings=self.limits.tracks)
        self._recent: OrderedDict[tuple[str, ...], tuple[int, Change]] = OrderedDict()  # by number
        self._floor = 0  # all changes after this number are in `_recent`
        self._stocks: dict[str, Stock] = {}
        self._components: OrderedDict[str, Status] = OrderedDict()
        self._subscriptions: OrderedDict[tuple[str, str], dict[str, Status]] = OrderedDict()
        self._start_day(None)

    def _start_day(self, day: date | None) -> None:
        self.day = day
        self._counts: OrderedDict[tuple[str, str], _Counts] = OrderedDict()
        self._feed: list[tuple[datetime, int, str, Transition]] = []  # a place and its line, oldest first
        self._recommendations: OrderedDict[str, Recommendation] = OrderedDict()  # the last one changed last
        self._of_code: dict[str, set[str]] = {}
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._gaps: dict[str, Gap] = {}
        self._forget_old_statuses()
        self._forgotten: dict[tuple[str, str], datetime] = {}  # per stock: nothing older than this comes back
        self._prices.clear()
        self._renew()

    def _renew(self) -> None:
        """What was told before is no ground for deltas any more: everybody needs a snapshot."""
        self._recent.clear()
        self.number += 1  # no event of before is the current one
        self._floor = self.number
        self.generation += 1

    # --- in --------------------------------------------------------------------------------------------------------

    def roll(self, now: datetime) -> bool:
        """Begin a new day if the trading date of `now` is later than the one held; True if it was."""
        return self._advance_to(trading_date(now))

    def _advance_to(self, day: date) -> bool:
        if self.day is not None and day <= self.day:
            return False
        self._start_day(day)
        return True

    def apply(self, record: Record, now: datetime) -> tuple[Change, ...]:
        """Apply one record read at `now`; what changed for a browser, in order. A repeat changes nothing."""
        self.roll(now)
        if isinstance(record, Transition):
            changes = self._transition(record, now)
        elif isinstance(record, Recommendation):
            changes = self._recommendation(record, now)
        elif isinstance(record, Status):
            changes = self._status(record, now)
        elif isinstance(record, Stock):
            changes = self._stock(record)
        elif isinstance(record, Gap):
            changes = self._gap(record, now)
        elif isinstance(record, Quote):
            changes = self._quote(record, now)
        else:
            return ()
        for change in changes:
            self._remember(change)
        return tuple(changes)

    def _remember(self, change: Change) -> None:
        self.number += 1
        key = change_key(change)
        self._recent[key] = (self.number, change)
        self._recent.move_to_end(key)
        if len(self._recent) > self.limits.changes:
            _, (self._floor, _) = self._recent.popitem(last=False)

    def show_prices(self, shown: bool) -> None:
        """Whether prices are told. While those of the day are still being read they are not: they are of long ago."""
        if shown != self.shows_prices:
            self.shows_prices = shown
            self._renew()

    def clear(self, epoch: str) -> None:
        """Forget everything and begin a new epoch: the topics have been replaced by others."""
        self.epoch = epoch
        self._stocks.clear()
        self._components.clear()
        self._subscriptions.clear()
        self.shows_prices = True
        self._start_day(None)

    def _is_today(self, day: date, now: datetime) -> bool:
        if self.day is not None and day > self.day and day <= trading_date(now + self._skew):
            self._advance_to(day)
        return day == self.day

    def _transition(self, transition: Transition, now: datetime) -> list[Change]:
        if not self._is_today(transition.date, now):
            return []
        key = (transition.account, transition.condition)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= self.limits.conditions:
                self.left_out["transition of another condition"] += 1
                return []
            counts = self._counts[key] = _Counts()
        if not counts.advance(transition):
            return []
        insort(self._feed, (*place_of(transition), transition))
        if len(self._feed) > self.limits.transitions:
            del self._feed[0]
            self.left_out["line of the feed"] += 1
        return [self._line(transition), self._condition(key)]

    def _recommendation(self, new: Recommendation, now: datetime) -> list[Change]:
        if not self._is_today(new.date, now):
            return []
        held = self._recommendations.get(new.recommendation_id)
        if held is not None and new.revision <= held.revision:
            return []
        floor = self._forgotten.get((new.account, new.code))
        if held is None and floor is not None and new.at <= floor:
            return []
        self._recommendations[new.recommendation_id] = new
        self._recommendations.move_to_end(new.recommendation_id)
        self._of_code.setdefault(new.code, set()).add(new.recommendation_id)
        self._closed.pop(new.recommendation_id, None)
        changes: list[Change] = []
        if held is None:
            # Only somebody who knew of it could act on it: that is when it was said, not when it happened.
            opening = max(new.opened_at, new.received_at) if new.revision == 1 else new.opened_at
            dropped = self._prices.follow(new.code, new.recommendation_id, opening)
            if dropped is not None and self.shows_prices and dropped in self._recommendations:
                changes.append(self._view(self._recommendations[dropped]))
        if new.state == "closed":
            self._closed[new.recommendation_id] = None
            if len(self._closed) > self.limits.closed:
                self._forget(next(iter(self._closed)))
        return [*changes, self._view(new)]

    def _forget(self, recommendation_id: str) -> None:
        self.left_out["closed recommendation"] += 1
        del self._closed[recommendation_id]
        old = self._recommendations.pop(recommendation_id)
        self._of_code[old.code].discard(recommendation_id)
        self._prices.forget(old.code, recommendation_id)
        stock = (old.account, old.code)
        self._forgotten[stock] = max(old.at, self._forgotten.get(stock, old.at))

    def _quote(self, quote: Quote, now: datetime) -> list[Change]:
        if not self._is_today(trading_date(quote.at), now):
            return []
        try:
            moved = self._prices.take(quote)
        except OverflowError:
            self.left_out["price of another stock"] += 1
            return []
        if moved is None or not self.shows_prices:
            return []
        price = self._prices.price(quote.code)
        tracks = [(opening, self._prices.track(quote.code, opening)) for opening in moved]
        return [
            *([price] if price else []),
            *(TrackView(recommendation_id=opening, track=track) for opening, track in tracks if track),
        ]

    def _gap(self, gap: Gap, now: datetime) -> list[Change]:
        if not self._is_today(trading_date(gap.to), now) or gap.id in self._gaps:
            return []
        self._gaps[gap.id] = gap
        if len(self._gaps) > self.limits.gaps:
            del self._gaps[next(iter(self._gaps))]
        return [GapView(gap=gap)]

    def _is_forgotten(self, status: Status) -> bool:
        return self.day is not None and status.at < day_end(self.day) - timedelta(days=1) - FORGOTTEN

    def _forget_old_statuses(self) -> None:
        for name in [name for name, status in self._components.items() if self._is_forgotten(status)]:
            del self._components[name]
        for key, held in list(self._subscriptions.items()):
            left = {name: status for name, status in held.items() if not self._is_forgotten(status)}
            if left:
                self._subscriptions[key] = left
            else:
                del self._subscriptions[key]

    def _status(self, status: Status, now: datetime) -> list[Change]:
        if self._is_forgotten(status):
            return []
        if status.kind == "subscription":
            key = (status.account, status.condition)
            held = self._subscriptions.setdefault(key, {})
            if not _supersedes(status, held.get(status.component), now):
                return []
            before = self._condition(key)
            held[status.component] = status
            _drop_oldest(held, self.limits.components, lambda name: held[name].at)
            self._subscriptions.move_to_end(key)
            if len(self._subscriptions) > self.limits.conditions:
                self._subscriptions.popitem(last=False)
                self.left_out["condition"] += 1
            after = self._condition(key)
            return [after] if after != before or len(held) == 1 else []
        if not _supersedes(status, self._components.get(status.component), now):
            return []
        self._components[status.component] = status
        self._components.move_to_end(status.component)
        if len(self._components) > self.limits.components:
            self._components.popitem(last=False)
            self.left_out["component"] += 1
        return [ComponentView(status=status)]

    def _stock(self, stock: Stock) -> list[Change]:
        held = self._stocks.get(stock.code)
        if held is None and len(self._stocks) >= self.limits.stocks:
            self.left_out["stock"] += 1
            return []
        if held is not None and (stock.received_at < held.received_at or stock == held):
            return []
        self._stocks[stock.code] = stock
        if held is not None and _said_of(held) == _said_of(stock):
            return []
        named: list[Change] = [self._view(self._recommendations[i]) for i in sorted(self._of_code.get(stock.code, ()))]
        if stock.name != (held.name if held else ""):
            named += [self._line(t) for *_, t in self._newest() if t.code == stock.code]
        return named

    # --- out -------------------------------------------------------------------------------------------------------

    def snapshot(self, now: datetime) -> Snapshot:
        """The whole state as a browser needs it first."""
        self.roll(now)
        return Snapshot(
            epoch=self.epoch,
            number=self.number,
            now=now,
            speed=self.speed,
            recommendations=self.recommendations(),
            feed=tuple(self._line(transition) for *_, transition in self._newest()),
            conditions=self.conditions(),
            components=self.components(),
            gaps=self.gaps(),
            prices=tuple(self._prices.all()) if self.shows_prices else (),
        )

    def since(self, epoch: str, seen: int) -> tuple[Change, ...] | None:
        """What changed since the event of this epoch and number; None if only a snapshot can say it.

        Of several changes under one key only the last is told.
        """
        if epoch != self.epoch or not self._floor <= seen <= self.number:
            return None
        missed: list[Change] = []
        for number, change in reversed(self._recent.values()):
            if number <= seen:
                break
            missed.append(change)
        return tuple(reversed(missed))

    def recommendations(self) -> tuple[RecommendationView, ...]:
        """Today's recommendations, open and closed, each in its latest revision; the last changed last."""
        return tuple(map(self._view, self._recommendations.values()))

    def conditions(self) -> tuple[ConditionView, ...]:
        """Every condition that reported or had a transition today, by account and name."""
        every = (self._condition(key) for key in sorted(self._counts.keys() | self._subscriptions.keys()))
        return tuple(view for view in every if view.status is None or view.status.state != RETIRED)

    def components(self) -> tuple[ComponentView, ...]:
        """Every session, worker, sink and diagnosis, by name."""
        every = (self._components[name] for name in sorted(self._components))
        return tuple(ComponentView(status=status) for status in every if status.state != RETIRED)

    def gaps(self) -> tuple[GapView, ...]:
        """Today's gaps, in the order of their ends."""
        return tuple(GapView(gap=gap) for gap in sorted(self._gaps.values(), key=lambda gap: (gap.to, gap.id)))

    def subscriptions(self) -> tuple[Status, ...]:
        """The subscriptions of all producers, by name."""
        every = (status for held in self._subscriptions.values() for status in held.values())
        return tuple(sorted((s for s in every if s.state != RETIRED), key=lambda status: status.component))

    def transitions(
        self,
        *,
        limit: int,
        before: Place | None = None,
        account: str | None = None,
        condition: str | None = None,
        code: str | None = None,
        kind: str | None = None,
    ) -> tuple[FeedItem, ...]:
        """Lines of today's feed, newest first, as far as they are held.

        Args:
            limit: at most so many.
            before: only lines that stand before this place.
            account, condition, code, kind: only those with this value.
        """
        end = len(self._feed) if before is None else bisect_left(self._feed, before)
        lines: list[FeedItem] = []
        for i in range(end - 1, -1, -1):
            if len(lines) == limit:
                break
            t = self._feed[i][-1]
            if (
                account in (None, t.account)
                and condition in (None, t.condition)
                and code in (None, t.code)
                and kind in (None, t.kind)
            ):
                lines.append(self._line(t))
        return tuple(lines)

    @property
    def holds_all_lines(self) -> bool:
        """Whether no line of today has been dropped for want of room."""
        return len(self._feed) < self.limits.transitions

    def name(self, code: str) -> str:
        """A stock's name, empty if it is not known."""
        stock = self._stocks.get(code)
        return stock.name if stock else ""

    def knows(self, code: str) -> bool:
        """Whether a stock is listed – or may be, where no list has been heard yet."""
        return not self._stocks or code in self._stocks

    def accounts(self) -> tuple[str, ...]:
        """Accounts whose conditions are known, by name."""
        return tuple(sorted({account for account, _ in (*self._counts, *self._subscriptions)}))

    def condition(self, account: str, condition: str) -> ConditionDetail | None:
        """One condition with its members and its hits by minute, None if it is not known."""
        key = (account, condition)
        view = self._condition(key)
        if key not in self._counts and view.status is None:
            return None
        counts = self._counts.get(key, _NOTHING)
        members = [
            Member(
                code=code,
                name=self.name(code),
                since=since,
                entry=counts.steps[code] // 2,
                price=self._price(code),
            )
            for code, since in counts.since.items()
        ]
        hits = counts.hits
        first, last = min(hits, default=0), max(hits, default=-1)
        return ConditionDetail(
            condition=view,
            members=tuple(sorted(members, key=lambda member: (member.since, member.code), reverse=True)),
            minutes_from=datetime.fromtimestamp(first * 60, KST) if hits else None,
            hits=tuple(hits[minute] for minute in range(first, last + 1)),
            gaps=tuple(view for view in self.gaps() if (view.gap.account, view.gap.condition) == key),
        )

    def stocks(self) -> Iterable[StockView]:
        """Every listed stock, in the order in which they became known."""
        return (_listed(stock) for stock in self._stocks.values())

    def story(self, code: str) -> Story | None:
        """What happened to a stock today, as far as it is held; None if there is no such stock."""
        stock = self._stocks.get(code)
        steps = [transition for *_, transition in self._feed if transition.code == code]
        openings = self._of_code.get(code, ())
        if stock is None and not steps and not openings and self._price(code) is None:
            return None
        recommendations = sorted(
            map(self._recommendations.__getitem__, openings), key=lambda r: (r.opened_at, r.account)
        )
        return Story(
            stock=_listed(stock) if stock else StockView(code=code, name="", market=""),
            price=self._price(code),
            visits=_visits(steps),
            recommendations=tuple(map(self._view, recommendations)),
        )

    def candles(self, code: str) -> tuple[Candle, ...]:
        """A stock's minutes of today, as far as its price was heard; oldest first."""
        return self._prices.candles(code) if self.shows_prices else ()

    def has_bars(self) -> bool:
        """Whether Kiwoom's own minutes of today have been fetched, all or some."""
        today = self.day and float(self.day.strftime("%Y%m%d"))
        return any(
            status.component.startswith("bars/") and status.figures.get("day") == today and status.figures.get("bars")
            for status in self._components.values()
        )

    # --- joins -----------------------------------------------------------------------------------------------------

    def _newest(self) -> list[tuple[datetime, int, str, Transition]]:
        return self._feed[-self.limits.feed :]

    def _line(self, transition: Transition) -> FeedItem:
        return FeedItem(name=self.name(transition.code), transition=transition)

    def _price(self, code: str) -> PriceView | None:
        return self._prices.price(code) if self.shows_prices else None

    def _view(self, recommendation: Recommendation) -> RecommendationView:
        stock = self._stocks.get(recommendation.code)
        return RecommendationView(
            name=stock.name if stock else "",
            market=stock.market if stock else "",
            previous_close=stock.previous_close if stock else None,
            recommendation=recommendation,
            track=self._prices.track(recommendation.code, recommendation.recommendation_id)
            if self.shows_prices
            else None,
        )

    def _condition(self, key: tuple[str, str]) -> ConditionView:
        counts = self._counts.get(key, _NOTHING)
        return ConditionView(
            account=key[0],
            condition=key[1],
            members=counts.entered - counts.exited,
            entered=counts.entered,
            exited=counts.exited,
            last_at=counts.last_at,
            status=_best_off(self._subscriptions.get(key, {}).values(), self._silence),
        )


def new_epoch() -> str:
    """A name for the numbering of one hub, unlike any other's."""
    return secrets.token_hex(6)


def change_key(change: Change) -> tuple[str, ...]:
    """The key under which a browser holds what a change replaces."""
    if isinstance(change, RecommendationView):
        return ("recommendation", change.recommendation.recommendation_id)
    if isinstance(change, PriceView):
        return ("price", change.code)
    if isinstance(change, TrackView):
        return ("track", change.recommendation_id)
    if isinstance(change, FeedItem):
        return ("feed", change.transition.id)
    if isinstance(change, ConditionView):
        return ("condition", change.account, change.condition)
    if isinstance(change, GapView):
        return ("gap", change.gap.id)
    return ("component", change.status.component)


def gather(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The last change of each key, in the order in which these last ones came."""
    last: dict[tuple[str, ...], Change] = {}
    for change in changes:
        key = change_key(change)
        last.pop(key, None)
        last[key] = change
    return tuple(last.values())


def _listed(stock: Stock) -> StockView:
    return StockView(code=stock.code, name=stock.name, market=stock.market, previous_close=stock.previous_close)


def _visits(steps: Iterable[Transition]) -> tuple[Visit, ...]:
    """The stays of one stock that these transitions tell of, by their beginning."""
    visits: dict[tuple[str, str, int], Visit] = {}
    for step in steps:
        key = (step.account, step.condition, step.entry)
        held = visits.get(key)
        entered = step if step.kind == "entered" else None
        visits[key] = Visit(
            account=step.account,
            condition=step.condition,
            entry=step.entry,
            since=step.since,
            until=held.until if entered and held else None if entered else step.at,
            dwell=held.dwell if entered and held else step.dwell,
            origin=held.origin if held and not entered else step.origin,
            initial=held.initial if held and not entered else step.initial,
            gap_from=held.gap_from if held and not entered else step.gap_from,
            gap_to=held.gap_to if held and not entered else step.gap_to,
        )
    return tuple(sorted(visits.values(), key=lambda visit: (visit.since, visit.condition, visit.entry)))


def _said_of(stock: Stock) -> tuple[str, str, int | None]:
    return (stock.name, stock.market, stock.previous_close)


def _supersedes(new: Status, held: Status | None, now: datetime) -> bool:
    """Whether a status replaces the one held: not an older one, unless the held one was written by a clock since reset.

    Of two of one moment the one that was written last is true.
    """
    return held is None or (new.at >= held.at and new != held) or (held.at > now and new.at < held.at)


def _best_off(statuses: Collection[Status], silence: timedelta) -> Status | None:
    """The status of the subscription that is best off, of those whose producers still report."""
    newest = max((status.at for status in statuses), default=None)

    def rank(status: Status) -> tuple[bool, int, float, str]:
        states = SUBSCRIPTION_STATES
        is_silent = newest is not None and newest - status.at > silence
        place = states.index(status.state) if status.state in states else len(states)
        return (is_silent, place, -status.at.timestamp(), status.component)

    return min(statuses, key=rank, default=None)


def _drop_oldest(held: dict[str, Status], limit: int, age: Callable[[str], datetime]) -> None:
    if len(held) > limit:
        del held[min(held, key=age)]
