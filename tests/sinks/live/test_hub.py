"""The hub: state that only goes forward, counts that no repeat can move, and browsers that end where the hub is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from day import NINE
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.live.cursor import Place
from sinks.live.hub import FORGOTTEN, RETIRED, Hub, Limits, change_key, gather
from sinks.live.stream import parse_event_id
from sinks.live.views import (
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
from streams.events import (
    Gap,
    Quote,
    Reason,
    Recommendation,
    Record,
    SearchReason,
    Status,
    Stock,
    Transition,
    revision_id,
    trading_date,
    transition_id,
)

DAY = date(2026, 3, 4)


def transition(
    step: int = 2, *, code: str = "005930", condition: str = "a", at: datetime = NINE, **other: Any
) -> Transition:
    """The transition that makes a stock's visits reach `step` (2: first entered, 3: first exited, 4 …)."""
    entry, kind, day = step // 2, ("entered", "exited")[step % 2], other.pop("date", trading_date(at))
    values = {"account": "main", "origin": "realtime", "since": at, "event_id": "e", "session": "s", "received_at": at}
    return Transition(
        id=transition_id("main", condition, code, day, entry, kind),
        condition=condition, code=code, kind=kind, date=day, entry=entry, at=at, **(values | other),
    )  # type: ignore[arg-type]  # fmt: skip


def recommendation(
    revision: int = 1, *, opening: str = "r1", code: str = "005930", at: datetime = NINE, **other: Any
) -> Recommendation:
    values = {"state": "open", "cause": "threshold", "score": 1.0, "reasons": (), "date": trading_date(at)}
    return Recommendation(
        id=revision_id(opening, revision), recommendation_id=opening, revision=revision, account="main", code=code,
        cause_id="c", rule="sum", threshold=1.0, opened_at=at, at=at, received_at=at, **(values | other),
    )  # type: ignore[arg-type]  # fmt: skip


def status(component: str = "session/main/p", *, at: datetime = NINE, state: str = "live", **other: Any) -> Status:
    values: dict[str, Any] = {"kind": component.partition("/")[0], "account": "main"}
    return Status(component=component, state=state, since=at, at=at, **(values | other))


def subscription(producer: str, *, at: datetime = NINE, state: str = "live", condition: str = "a") -> Status:
    return status(f"subscription/main/{producer}/{condition}", at=at, state=state, condition=condition)


def gap(name: str = "g", *, at: datetime = NINE, condition: str = "a") -> Gap:
    return Gap(
        id=name, account="main", condition=condition, from_=at - timedelta(seconds=30), to=at, cause="no PING for 35 s",
        at=at, received_at=at, session="s",
    )  # fmt: skip


def quote(price: int = 70_000, *, code: str = "005930", at: datetime = NINE, **other: Any) -> Quote:
    values = {"high": price, "low": price, "volume": 10, "trades": 1, "change_rate": 1.0, "day_volume": 100}
    return Quote(code=code, at=at.replace(microsecond=0), received_at=at, price=price, **(values | other))  # type: ignore[arg-type]


def stock(code: str = "005930", name: str = "삼성전자", *, at: datetime = NINE, close: int | None = 70_000) -> Stock:
    return Stock(code=code, name=name, market="KOSPI", previous_close=close, received_at=at)


def hub(**limits: int) -> Hub:
    return Hub(epoch="e", limits=Limits(**limits))


def condition(of: Hub, name: str = "a") -> ConditionView:
    return next(view for view in of.conditions() if view.condition == name)


# --- transitions and counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "members", "entered", "exited"),
    [
        pytest.param([2], 1, 1, 0, id="entered"),
        pytest.param([2, 3], 0, 1, 1, id="entered and exited"),
        pytest.param([2, 3, 4], 1, 2, 1, id="a second visit"),
        pytest.param([2, 2, 3, 2, 3], 0, 1, 1, id="the worker said it again after a restart"),
        pytest.param([2, 3, 4, 2, 3, 4], 1, 2, 1, id="read again from the beginning"),
        pytest.param([3], 0, 1, 1, id="only the exit is kept"),
        pytest.param([5], 0, 2, 2, id="earlier visits are no longer kept"),
        pytest.param([0, 1], 0, 0, 0, id="no visit at all"),
    ],
)
def test_counts_follow_from_visits(steps: list[int], members: int, entered: int, exited: int) -> None:
    it = hub()
    it.apply(subscription("p"), NINE)
    for step in steps:
        it.apply(transition(step), NINE)
    view = condition(it)
    assert (view.members, view.entered, view.exited) == (members, entered, exited)


def test_a_transition_is_a_line_and_a_count() -> None:
    it = hub()
    it.apply(stock(), NINE)
    moved = transition(at=NINE + timedelta(seconds=3))
    line, counted = it.apply(moved, NINE)
    assert line == FeedItem(name="삼성전자", transition=moved)
    assert counted == ConditionView(
        account="main", condition="a", members=1, entered=1, exited=0, last_at=moved.at, status=None
    )


def test_a_repeat_changes_nothing() -> None:
    it = hub()
    records: list[Record] = [
        stock(),
        transition(),
        transition(3),
        recommendation(),
        recommendation(2),
        status(),
        subscription("p"),
    ]
    for record in records:
        it.apply(record, NINE)
    before = it.snapshot(NINE)
    assert [it.apply(record, NINE) for record in records] == [()] * len(records)
    assert it.snapshot(NINE) == before


@pytest.mark.parametrize(
    ("limit", "records", "left_out"),
    [
        ({"conditions": 1}, [transition(condition="a"), transition(condition="b")], "transition of another condition"),
        ({"transitions": 1}, [transition(), transition(code="000660")], "line of the feed"),
        ({"conditions": 1}, [subscription("p"), subscription("p", condition="b")], "condition"),
        ({"components": 1}, [status("session/main/p"), status("session/main/q")], "component"),
        ({"stocks": 1}, [stock(), stock("000660")], "stock"),
        (
            {"closed": 1},
            [recommendation(opening=n, state="closed") for n in ("r1", "r2")],
            "closed recommendation",
        ),
    ],
)
def test_what_there_is_no_room_for_is_counted(limit: dict[str, int], records: list[Record], left_out: str) -> None:
    """The hub is bounded in everything, and drops nothing without a figure."""
    it = hub(**limit)
    it.apply(records[0], NINE)
    assert not it.left_out
    it.apply(records[1], NINE)
    assert it.left_out == {left_out: 1}


@pytest.mark.parametrize("day", [DAY - timedelta(days=1), DAY + timedelta(days=1), date(2099, 1, 1)])
def test_records_of_another_day_are_not_shown(day: date) -> None:
    it = hub()
    assert it.apply(transition(date=day), NINE) == ()
    assert it.apply(recommendation(date=day), NINE) == ()
    assert it.snapshot(NINE).feed == ()


def test_records_that_are_not_shown_change_nothing() -> None:
    reason = SearchReason(
        id="x", account="main", condition="a", code="005930", date=DAY, at=NINE, received_at=NINE, search_id="s"
    )
    assert hub().apply(reason, NINE) == ()


def test_the_feed_is_in_order_whatever_the_partitions_order() -> None:
    moves = [transition(code=f"{n:06d}", at=NINE + timedelta(seconds=n)) for n in range(6)]
    it = hub()
    for move in (*moves[3:], *moves[:3]):
        it.apply(move, NINE)
    assert [line.transition for line in it.snapshot(NINE).feed] == moves


def test_the_feed_can_be_paged_backwards() -> None:
    it = hub()
    moves = [transition(code=f"{n:06d}", condition="ab"[n % 2], at=NINE + timedelta(seconds=n)) for n in range(10)]
    for move in moves:
        it.apply(move, NINE)
    seen: list[Transition] = []
    before = None
    while page := it.transitions(limit=3, before=before):
        seen += [line.transition for line in page]
        before = Place(seen[-1].received_at, 2, seen[-1].id)
    assert seen == moves[::-1]
    assert it.holds_all_lines
    for wanted, expected in (
        ({"condition": "b"}, moves[1::2]),
        ({"code": "000004"}, [moves[4]]),
        ({"account": "other"}, []),
        ({"kind": "exited"}, []),
    ):
        assert [line.transition for line in it.transitions(limit=100, **wanted)] == expected[::-1]  # type: ignore[arg-type]


# --- recommendations --------------------------------------------------------------------------------------------------


def test_a_lower_revision_never_replaces_a_higher_one() -> None:
    it = hub()
    it.apply(recommendation(2, score=2.0), NINE)
    assert it.apply(recommendation(1), NINE) == ()
    assert [view.recommendation.revision for view in it.recommendations()] == [2]


def test_names_are_joined_when_they_arrive() -> None:
    it = hub()
    it.apply(transition(), NINE)
    it.apply(recommendation(), NINE)
    changes = it.apply(stock(), NINE)
    assert {type(change) for change in changes} == {RecommendationView, FeedItem}
    assert {change.name for change in changes if isinstance(change, RecommendationView | FeedItem)} == {"삼성전자"}
    assert it.apply(stock(at=NINE + timedelta(hours=1)), NINE) == ()
    (again,) = it.apply(stock(at=NINE + timedelta(hours=2), close=71_000), NINE)
    assert isinstance(again, RecommendationView)
    assert again.previous_close == 71_000


def test_closed_recommendations_are_bounded_and_do_not_come_back() -> None:
    it = hub(closed=2)
    at = [NINE + timedelta(minutes=n) for n in range(4)]
    closed = [recommendation(2, opening=f"r{n}", at=at[n], state="closed", cause="score") for n in range(4)]
    it.apply(recommendation(1, opening="open", code="000660"), NINE)
    for one in closed:
        it.apply(one, NINE)
    kept = ["open", "r2", "r3"]
    assert [view.recommendation.recommendation_id for view in it.recommendations()] == kept
    assert it.apply(closed[0], NINE) == ()
    assert it.apply(recommendation(1, opening="r1", at=at[1]), NINE) == ()
    assert [view.recommendation.recommendation_id for view in it.recommendations()] == kept


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (["live"], "live"),
        (["disconnected", "live"], "live"),
        (["live", "disconnected"], "live"),
        (["refused", "requested"], "requested"),
        (["displaced", "resting"], "resting"),
        (["something new", "missing"], "missing"),
    ],
)
def test_a_condition_shows_the_subscription_that_is_best_off(states: list[str], shown: str) -> None:
    it = hub()
    for number, state in enumerate(states):
        it.apply(subscription(f"p{number}", state=state), NINE)
    best = condition(it).status
    assert best is not None
    assert best.state == shown
    assert [s.component for s in it.subscriptions()] == sorted(f"subscription/main/p{n}/a" for n in range(len(states)))


def test_a_producer_that_went_silent_is_not_believed_while_another_reports() -> None:
    it = hub()
    it.apply(subscription("gone", state="live"), NINE)
    for seconds, shown in ((30, "live"), (31, "listing")):
        it.apply(subscription("here", state="listing", at=NINE + timedelta(seconds=seconds)), NINE)
        best = condition(it).status
        assert best is not None
        assert best.state == shown


def test_an_older_status_does_not_replace_a_later_one() -> None:
    it = hub()
    late, early = status(at=NINE), status(at=NINE - timedelta(seconds=1), state="listing")
    it.apply(late, NINE)
    assert it.apply(early, NINE) == ()
    assert it.components() == (ComponentView(status=late),)


def test_of_two_statuses_of_one_moment_the_later_written_is_true() -> None:
    it = hub()
    it.apply(status(state="requested"), NINE)
    assert it.apply(status(state="live"), NINE) == (ComponentView(status=status(state="live")),)


def test_a_status_of_a_clock_since_reset_is_replaced() -> None:
    it = hub()
    it.apply(status(at=NINE + timedelta(hours=6)), NINE)
    again = status(at=NINE + timedelta(seconds=1))
    assert it.apply(again, NINE) == (ComponentView(status=again),)


def test_a_standby_that_is_worse_off_changes_nothing_for_a_browser() -> None:
    it = hub()
    it.apply(subscription("p1"), NINE)
    assert it.apply(subscription("p2", state="requested"), NINE) == ()


def test_what_is_no_longer_configured_leaves_and_nothing_older_brings_it_back() -> None:
    it = hub()
    for record in (subscription("p"), status("search/main/p/a", kind="diagnosis"), transition()):
        it.apply(record, NINE)
    later = NINE + timedelta(minutes=1)
    (told,) = it.apply(subscription("p", at=later, state=RETIRED), later)
    assert isinstance(told, ConditionView)
    assert told.status is not None
    assert told.status.state == RETIRED, "a page that is open must hear of it"
    it.apply(status("search/main/p/a", kind="diagnosis", at=later, state=RETIRED), later)
    it.apply(subscription("p"), later)
    fresh = it.snapshot(later)
    assert (fresh.conditions, fresh.components, it.subscriptions()) == ((), (), ())
    it.apply(subscription("p", at=later + timedelta(minutes=1)), later)
    assert condition(it).status is not None, "it was configured again"


def test_a_condition_that_another_producer_keeps_open_is_not_retired() -> None:
    it = hub()
    it.apply(subscription("p2"), NINE)
    it.apply(subscription("p1", state=RETIRED), NINE)
    view = condition(it)
    assert view.status is not None
    assert view.status.state == "live"


def test_the_last_word_of_a_component_is_forgotten_after_a_week() -> None:
    it = hub()
    for record in (status(), subscription("p")):
        it.apply(record, NINE)
    it.roll(NINE + FORGOTTEN)
    assert len(it.snapshot(NINE + FORGOTTEN).components) == 1
    end = NINE + FORGOTTEN + timedelta(days=1)
    told = it.snapshot(end)
    assert (told.components, told.conditions) == ((), ())
    assert it.apply(status(), end) == (), "a compacted topic keeps it for ever"


def test_gaps_of_today_are_shown_once_each() -> None:
    it = hub()
    first = gap(at=NINE)
    assert it.apply(first, NINE) == (GapView(gap=first),)
    assert it.apply(first, NINE) == ()
    assert it.apply(gap("old", at=NINE - timedelta(days=1)), NINE) == ()
    it.apply(gap("earlier", at=NINE - timedelta(minutes=5)), NINE)
    assert [view.gap.id for view in it.gaps()] == ["earlier", "g"]
    it.roll(NINE + timedelta(days=1))
    assert it.gaps() == ()


# --- days -------------------------------------------------------------------------------------------------------------


def test_a_new_day_starts_with_nothing_but_components() -> None:
    it = hub()
    for record in (stock(), transition(), recommendation(), status(), subscription("p")):
        it.apply(record, NINE)
    generation, seen = it.generation, (it.epoch, it.number)
    tomorrow = NINE + timedelta(days=1)
    assert it.roll(NINE + timedelta(hours=14)) is False
    assert it.roll(tomorrow) is True
    assert it.generation > generation
    assert it.since(*seen) is None, "a browser that slept over midnight must get a snapshot"
    fresh = it.snapshot(tomorrow)
    assert (fresh.recommendations, fresh.feed) == ((), ())
    assert [(view.members, view.entered, view.status is not None) for view in fresh.conditions] == [(0, 0, True)]
    assert len(fresh.components) == 1
    it.apply(transition(at=tomorrow), tomorrow)
    assert it.snapshot(tomorrow).feed[0].name == "삼성전자"


def test_a_record_of_tomorrow_is_believed_just_before_midnight() -> None:
    midnight = datetime(2026, 3, 5, 0, 0, tzinfo=UTC) - timedelta(hours=9)
    it = hub()
    it.apply(transition(), midnight - timedelta(seconds=1))
    assert it.apply(transition(at=midnight), midnight - timedelta(seconds=1)) != ()
    assert it.day == date(2026, 3, 5)
    assert it.roll(midnight - timedelta(seconds=1)) is False, "the day does not go back"


# --- prices -----------------------------------------------------------------------------------------------------------


def test_a_price_is_told_and_joined_to_what_was_recommended() -> None:
    it = hub()
    it.apply(recommendation(at=NINE), NINE)
    later = NINE + timedelta(seconds=1)
    price, track = it.apply(quote(70_000, at=later, high=99_999, low=1), NINE)
    assert isinstance(price, PriceView)
    assert (price.code, price.price, price.change_rate, price.day_volume) == ("005930", 70_000, 1.0, 100)
    assert isinstance(track, TrackView)
    first = track.track
    assert (first.reference.price, first.high.price, first.low.price) == (70_000, 70_000, 70_000), (
        "what the first quote says of the time before it may be older than the opening"
    )
    (only,) = it.apply(quote(70_500, at=later + timedelta(seconds=1), high=70_000), NINE)
    assert isinstance(only, PriceView), "no extreme, no new step: the track is as it was"
    _, track = it.apply(quote(70_200, at=later + timedelta(seconds=2), high=71_000, low=69_000), NINE)
    assert isinstance(track, TrackView)
    assert (track.track.high.price, track.track.low.price) == (71_000, 69_000)
    (view,) = it.recommendations()
    assert view.track == track.track
    assert it.snapshot(NINE).prices[0].price == 70_200


def test_prices_that_came_before_the_recommendation_was_read_are_joined_to_it() -> None:
    it = hub()
    for n, price in enumerate((60_000, 70_000, 72_000)):
        it.apply(quote(price, at=NINE + timedelta(seconds=n - 1), high=price), NINE)
    (view,) = it.apply(recommendation(at=NINE), NINE)
    assert isinstance(view, RecommendationView)
    assert view.track is not None
    assert (view.track.reference.price, view.track.high.price, view.track.low.price) == (70_000, 72_000, 70_000)


def test_an_older_or_repeated_quote_changes_nothing() -> None:
    it = hub()
    assert it.apply(quote(70_000, at=NINE), NINE)
    assert it.apply(quote(70_000, at=NINE), NINE) == ()
    assert it.apply(quote(60_000, at=NINE - timedelta(seconds=1)), NINE) == ()
    assert it.apply(quote(60_000, at=NINE - timedelta(days=1)), NINE) == ()


def test_of_a_stock_the_latest_openings_are_followed() -> None:
    it = hub(tracks=2)
    for n in range(3):
        at = NINE + timedelta(seconds=n)
        it.apply(quote(70_000 + n, at=at), at)
        it.apply(recommendation(1, opening=f"r{n}", at=at), at)
        changes = it.apply(recommendation(2, opening=f"r{n}", at=at, state="closed"), at)
        assert len(changes) == 1
    tracks = {view.recommendation.recommendation_id: view.track is not None for view in it.recommendations()}
    assert tracks == {"r0": False, "r1": True, "r2": True}


def test_prices_are_hidden_while_those_of_the_day_are_being_read() -> None:
    it = hub()
    it.show_prices(False)
    it.apply(recommendation(at=NINE), NINE)
    seen = ("e", it.number)
    assert it.apply(quote(at=NINE), NINE) == ()
    told = it.snapshot(NINE)
    assert (told.prices, told.recommendations[0].track) == ((), None)
    assert it.story("005930").price is None  # type: ignore[union-attr]
    generation = it.generation
    it.show_prices(True)
    assert it.generation > generation
    assert it.since(*seen) is None, "deltas can't say what was hidden"
    told = it.snapshot(NINE)
    assert told.prices
    assert told.recommendations[0].track is not None


def test_the_last_changes_are_kept_by_key_so_that_prices_do_not_crowd_out_the_rest() -> None:
    it = hub(changes=4)
    it.roll(NINE)
    seen = ("e", it.number)
    it.apply(transition(), NINE)
    for n in range(100):
        it.apply(quote(70_000 + n, at=NINE + timedelta(milliseconds=n)), NINE)
    missed = it.since(*seen)
    assert missed is not None
    assert [change_key(change)[0] for change in missed] == ["feed", "condition", "price"]


# --- questions about today --------------------------------------------------------------------------------------------


def test_a_condition_tells_who_is_inside_and_its_hits_by_minute() -> None:
    it = hub()
    it.apply(stock(), NINE)
    it.apply(transition(2, at=NINE), NINE)
    it.apply(transition(3, at=NINE + timedelta(seconds=20)), NINE)
    it.apply(transition(4, at=NINE + timedelta(seconds=30)), NINE)
    it.apply(transition(2, code="000660", at=NINE + timedelta(minutes=2)), NINE)
    it.apply(transition(2, code="000270", at=NINE + timedelta(minutes=3), origin="snapshot"), NINE)
    it.apply(gap(condition="a"), NINE)
    it.apply(gap("other", condition="b"), NINE)
    it.apply(quote(), NINE)
    detail = it.condition("main", "a")
    assert detail is not None
    assert [(m.code, m.name, m.entry, m.price and m.price.price) for m in detail.members] == [
        ("000270", "", 1, None),
        ("000660", "", 1, None),
        ("005930", "삼성전자", 2, 70_000),
    ]
    assert (detail.minutes_from, detail.hits) == (NINE, (2, 0, 1)), "what a snapshot revealed was seen at no minute"
    assert [view.gap.id for view in detail.gaps] == ["g"]
    assert it.condition("main", "b") is None
    assert it.condition("other", "a") is None


def test_a_stocks_story_is_its_visits_and_recommendations() -> None:
    it = hub()
    assert it.story("005930") is None
    it.apply(stock(), NINE)
    it.apply(transition(2, at=NINE, initial=True), NINE)
    it.apply(transition(3, at=NINE + timedelta(minutes=1), dwell=60.0, since=NINE), NINE)
    it.apply(transition(4, at=NINE + timedelta(minutes=5)), NINE)
    it.apply(transition(2, code="000660"), NINE)
    it.apply(recommendation(), NINE)
    told = it.story("005930")
    assert told is not None
    assert told.stock.name == "삼성전자"
    first, second = told.visits
    assert (first.since, first.until, first.dwell, first.initial) == (NINE, NINE + timedelta(minutes=1), 60.0, True)
    assert (second.entry, second.since, second.until) == (2, NINE + timedelta(minutes=5), None)
    assert [view.recommendation.recommendation_id for view in told.recommendations] == ["r1"]
    assert it.story("999999") is None


# --- coming back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", ["", "e", "e-", "e-x", "e--1", "other-1", "e-99", "e-٣", "e-" + "9" * 400])
def test_an_unknown_event_id_needs_a_snapshot(unknown: str) -> None:
    it = hub()
    it.apply(transition(), NINE)
    seen = parse_event_id(unknown)
    assert seen is None or it.since(seen.epoch, seen.number) is None


def test_what_was_missed_is_told_once_per_key() -> None:
    it = hub()
    it.apply(transition(2), NINE)
    seen = ("e", it.number)
    assert it.since(*seen) == ()
    it.apply(transition(3), NINE)
    it.apply(transition(4), NINE)
    missed = it.since(*seen)
    assert missed is not None
    assert [change_key(change)[0] for change in missed] == ["feed", "feed", "condition"]
    assert missed[-1] == condition(it)


def test_what_is_no_longer_kept_needs_a_snapshot() -> None:
    it = hub(changes=2)
    it.apply(transition(2), NINE)
    seen = ("e", it.number)
    it.apply(transition(3), NINE)
    assert it.since(*seen) is not None
    it.apply(transition(4), NINE)
    assert it.since(*seen) is None


def test_a_replaced_log_begins_a_new_epoch() -> None:
    it = hub()
    for record in (stock(), transition(4), recommendation(3), status(), subscription("p")):
        it.apply(record, NINE)
    seen, generation = ("e", it.number), it.generation
    it.clear("f")
    assert it.since(*seen) is None
    assert it.generation > generation
    fresh = it.snapshot(NINE)
    assert (fresh.recommendations, fresh.feed, fresh.conditions, fresh.components) == ((), (), (), ())
    it.apply(transition(2), NINE)
    assert condition(it).entered == 1, "the new log counts from the beginning"


# --- against a naive model --------------------------------------------------------------------------------------------


class Browser:
    """What a page holds: the last change under each key, and epoch and number of the last event."""

    def __init__(self, of: Hub, now: datetime) -> None:
        self.start_over(of, now)

    def start_over(self, of: Hub, now: datetime) -> None:
        told = of.snapshot(now)
        self.held: dict[tuple[str, ...], Change] = {}
        self.take((*told.recommendations, *told.feed, *told.conditions, *told.components, *told.gaps, *told.prices))
        self.seen, self.generation = (told.epoch, told.number), of.generation

    def take(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change, ConditionView | ComponentView) and change.status and change.status.state == RETIRED:
                self.held.pop(change_key(change), None)
            elif isinstance(change, TrackView):
                key = ("recommendation", change.recommendation_id)
                if isinstance(held := self.held.get(key), RecommendationView):
                    self.held[key] = msgspec.structs.replace(held, track=change.track)
            else:
                self.held[change_key(change)] = change

    def come_back(self, of: Hub, now: datetime) -> None:
        missed = of.since(*self.seen)
        if missed is None:
            self.start_over(of, now)
        else:
            self.take(missed)
            self.seen = (of.epoch, of.number)

    def state(self, feed: int) -> dict[tuple[str, ...], Change]:
        lines = [change for change in self.held.values() if isinstance(change, FeedItem)]
        lines.sort(
            key=lambda line: (
                line.transition.received_at,
                2 * line.transition.entry + (line.transition.kind == "exited"),
                line.transition.id,
            )
        )
        rest = {key: change for key, change in self.held.items() if key[0] != "feed"}
        return rest | {change_key(line): line for line in lines[-feed:]}


def state(told: Snapshot) -> dict[tuple[str, ...], Change]:
    every = (*told.recommendations, *told.feed, *told.conditions, *told.components, *told.gaps, *told.prices)
    return {change_key(change): change for change in every}


class World:
    """Writes a log in the order in which a worker would, one record after the other."""

    def __init__(self) -> None:
        self.now = NINE
        self.steps: dict[tuple[date, str, str], int] = {}
        self.openings: dict[tuple[date, str], tuple[int, int]] = {}
        self.log: list[Record] = []

    def write(self, kind: int, a: int, b: int) -> Record:
        code, name, day = f"00000{a}", f"c{b}", trading_date(self.now)
        self.now += timedelta(seconds=a, microseconds=1)
        record: Record
        if kind == 0:
            step = self.steps[day, name, code] = self.steps.get((day, name, code), 1) + 1
            record = transition(step, code=code, condition=name, at=self.now, date=day)
        elif kind == 1:
            opening, revision = self.openings.get((day, code), (1, 0))
            closes = b == 0 and revision > 0
            record = recommendation(
                revision + 1, opening=f"{day}-{code}-{opening}", code=code, at=self.now, date=day,
                state="closed" if closes else "open", score=float(b),
                reasons=(Reason(kind="condition", condition=name, since=self.now, score=1.0),),
            )  # fmt: skip
            self.openings[day, code] = (opening + 1, 0) if closes else (opening, revision + 1)
        elif kind == 2:
            record = stock(code, f"name {b}", at=self.now, close=100 * b)
        elif kind == 3:
            states = ("live", "disconnected", RETIRED)
            record = subscription(f"p{a % 2}", at=self.now, state=states[b], condition=f"c{b}")
        elif kind == 4:
            record = status(f"session/main/p{a}", at=self.now, state=("live", "listing", RETIRED)[b])
        elif kind == 5:
            record = gap(f"{a}-{b}", at=self.now)
        else:
            record = quote(1_000 + 100 * b - 7 * a, code=code, at=self.now, high=1_000 + 110 * b, low=900 + 50 * b)
        self.log.append(record)
        return record


def naive(log: list[Record], now: datetime) -> dict[str, Any]:
    """Today's state, looked up in the whole log."""
    today = trading_date(now)
    moves = {t.id: t for t in log if isinstance(t, Transition) and t.date == today}.values()
    latest: dict[str, Recommendation] = {}
    for r in log:
        if isinstance(r, Recommendation) and r.date == today:
            held = latest.setdefault(r.recommendation_id, r)
            latest[r.recommendation_id] = max(held, r, key=lambda one: one.revision)
    opened = {
        r.recommendation_id: (r.code, r.at)
        for r in log
        if isinstance(r, Recommendation) and r.date == today and r.revision == 1
    }
    by_code: dict[str, list[str]] = {}
    for opening, (code, _) in opened.items():
        by_code.setdefault(code, []).append(opening)
    quotes = {q.received_at: q for q in log if isinstance(q, Quote) and trading_date(q.at) == today}
    tracks = {}
    for code, openings in by_code.items():
        for opening in openings[-Limits().tracks :]:
            since = [q for at, q in sorted(quotes.items()) if q.code == code and at >= opened[opening][1]]
            if since:
                price, later = since[0].price, since[1:]
                tracks[opening] = (
                    price,
                    max([price, *(q.high for q in later)]),
                    min([price, *(q.low for q in later)]),
                )
    names = {s.code: s.name for s in log if isinstance(s, Stock)}
    return {
        "counts": {
            name: (
                len({(t.code, t.entry) for t in moves if t.condition == name and t.kind == "entered"}),
                len({(t.code, t.entry) for t in moves if t.condition == name and t.kind == "exited"}),
            )
            for name in {t.condition for t in moves}
        },
        "recommendations": {i: (names.get(r.code, ""), r) for i, r in latest.items()},
        "feed": {t.id for t in moves},
        "tracks": tracks,
        "prices": {q.code: q.price for _, q in sorted(quotes.items())},
        "components": {
            name: s
            for name, s in {s.component: s for s in log if isinstance(s, Status) and s.kind == "session"}.items()
            if s.state != RETIRED and trading_date(s.at) >= today - FORGOTTEN
        },
    }


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 6), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("again"), st.integers(0, 50), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["join", "leave", "come back", "night"]), st.integers(0, 3), st.just(0), st.just(0)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=60), st.sampled_from([4, 16, 4_096]), st.sampled_from([3, 200]))
def test_every_browser_ends_where_the_hub_is(steps: list[tuple[str, int, int, int]], ring: int, feed: int) -> None:
    """Whenever it came, whatever it missed, and however often the log was told again."""
    world, it = World(), hub(changes=ring, feed=feed)
    here: dict[int, Browser] = {}
    away: dict[int, Browser] = {}

    def deliver(record: Record) -> None:
        changes = it.apply(record, world.now)
        for browser in here.values():
            if browser.generation != it.generation:
                browser.start_over(it, world.now)
            else:
                browser.take(changes)
                browser.seen = (it.epoch, it.number)

    for what, a, b, c in steps:
        if what == "write":
            deliver(world.write(a, b, c))
        elif what == "again" and world.log:
            # A worker that starts again says everything since its last acknowledged place once more, in order.
            for record in world.log[-a - 1 :]:
                deliver(record)
        elif what == "night":
            world.now += timedelta(hours=12)
        elif what == "join" and a not in here and a not in away:
            here[a] = Browser(it, world.now)
        elif what == "leave" and a in here:
            away[a] = here.pop(a)
        elif what == "come back" and a in away:
            here[a] = away.pop(a)
            here[a].come_back(it, world.now)
            here[a].generation = it.generation

    fresh = it.snapshot(world.now)
    for browser in (*here.values(), *away.values()):
        browser.come_back(it, world.now)
        assert browser.state(feed) == state(fresh)

    expected = naive(world.log, world.now)
    counts = {view.condition: (view.entered, view.exited) for view in fresh.conditions if view.entered}
    hidden = expected["counts"].keys() - counts.keys()
    assert counts == {name: seen for name, seen in expected["counts"].items() if name not in hidden}
    assert hidden <= {s.condition for s in world.log if isinstance(s, Status) and s.state == RETIRED}
    assert all(view.members == view.entered - view.exited for view in fresh.conditions)
    views = {view.recommendation.recommendation_id: (view.name, view.recommendation) for view in fresh.recommendations}
    assert views == expected["recommendations"]
    every = it.transitions(limit=10_000)
    assert {line.transition.id for line in every} == expected["feed"]
    assert {view.status.component: view.status for view in fresh.components} == expected["components"]
    told = {
        view.recommendation.recommendation_id: (view.track.reference.price, view.track.high.price, view.track.low.price)
        for view in fresh.recommendations
        if view.track
    }
    assert told == expected["tracks"]
    assert {price.code: price.price for price in fresh.prices} == expected["prices"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2)), max_size=40), st.randoms())
def test_the_order_of_partitions_does_not_matter(writes: list[tuple[int, int, int]], random: Any) -> None:
    """Codes are told apart by partition, quotes by topic: any interleaving of them ends in the same state."""
    world = World()
    for write in writes:
        world.write(*write)
    lanes: dict[object, list[Record]] = {}
    for record in world.log:
        of = getattr(record, "code", None) or getattr(record, "component", None)
        lanes.setdefault((of, isinstance(record, Quote)), []).append(record)
    straight, mixed = hub(), hub()
    for record in world.log:
        straight.apply(record, world.now)
    rest = [list(reversed(lane)) for lane in lanes.values()]
    while rest:
        lane = random.choice(rest)
        mixed.apply(lane.pop(), world.now)
        rest = [lane for lane in rest if lane]
    assert state(mixed.snapshot(world.now)) == state(straight.snapshot(world.now))
    assert mixed.snapshot(world.now).feed == straight.snapshot(world.now).feed


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5))))
def test_gathering_keeps_the_last_of_each_key(drawn: list[tuple[int, int]]) -> None:
    changes = [ComponentView(status=status(f"session/main/{name}", state=str(state))) for name, state in drawn]
    gathered = gather(changes)
    assert len({change_key(change) for change in gathered}) == len(gathered)
    assert {change_key(c): c for c in gathered} == {change_key(c): c for c in changes}


def test_everything_is_bounded() -> None:
    """However many keys there are, the hub stays small and goes on."""
    it = hub(changes=10, feed=5, transitions=20, closed=3, components=4, conditions=6, stocks=7, gaps=8, prices=9)
    for n in range(100):
        at = NINE + timedelta(seconds=n)
        code = f"{n:06d}"
        for record in (
            stock(code, at=at),
            transition(code=code, condition=f"c{n % 10}", at=at),
            recommendation(code=code, opening=code, at=at, state="closed"),
            status(f"session/main/{n}", at=at),
            subscription(f"p{n}", at=at, condition="c1"),
            subscription("p", at=at, condition=f"s{n}"),
            gap(code, at=at),
            quote(code=code, at=at),
        ):
            it.apply(record, at)
    told = it.snapshot(NINE)
    assert len(told.feed) == 5
    assert len(told.recommendations) == 3
    assert len(told.components) == 4
    assert len(told.gaps) == 8
    assert len(told.prices) == 9
    assert it.left_out["price of another stock"] == 91
    assert len(told.conditions) <= 12
    assert len(it.subscriptions()) <= 6 + 4
    lines = it.transitions(limit=1_000)
    assert len(lines) == 20
    assert not it.holds_all_lines
