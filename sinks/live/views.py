"""What a browser is told: the shapes of the live stream and of the HTTP API.

The contract between the hub and the page (`web/src/lib/contract.ts` mirrors it). `/api/live` sends, as server-sent
events whose ids are `stream`'s:

- `event: snapshot`, data `Snapshot`: the whole state; sent first, and whenever a browser can't be brought up to date
  by deltas.
- `event: delta`, data `Delta`: what changed, in order. Each change replaces what the page holds under the same key.
- `event: heartbeat`, data `Heartbeat`, about once a second, without an id.

Prices are whole won, rates percent. What the API answers beside these is in `answers`.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from streams.events import Gap, Recommendation, Status, Transition


class PricePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A price in won, and when it was one."""

    price: int
    at: datetime


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """How a stock has done since it was recommended.

    `reference` is the first price known at or after the opening: what somebody who acted on it could have had. `high`
    and `low` are the extremes since then, the reference among them. `line` has the closes of up to 60 equal steps of
    `line_step` seconds; the first step begins at `line_from`, and a step without a trade repeats the one before. The
    step that runs is not in it: its price is that of `PriceView`.
    """

    reference: PricePoint
    high: PricePoint
    low: PricePoint
    line_from: datetime
    line_step: int
    line: tuple[int, ...]


class RecommendationView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="recommendation"):
    """The latest revision of a recommendation (key: `recommendation.recommendation_id`), with the stock's name.

    `track` is None while no price since its opening is known, and for one that was closed long ago.
    """

    name: str
    market: str
    previous_close: int | None = None
    recommendation: Recommendation
    track: Track | None = None


class TrackView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="track"):
    """The track of a recommendation (key: `recommendation_id`): a new extreme, or one more step of its line.

    It replaces the `track` of the `RecommendationView` with this id; for one that the page does not hold it is nothing.
    """

    recommendation_id: str
    track: Track


class PriceView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="price"):
    """A stock's price now (key: `code`). `at` is when it was traded, `change_rate` against the previous close."""

    code: str
    price: int
    at: datetime
    change_rate: float | None = None
    day_volume: int | None = None


class FeedItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="feed"):
    """One line of the feed (key: `transition.id`): a stock entered or left a condition."""

    name: str
    transition: Transition


class ConditionView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="condition"):
    """One condition (key: `account/condition`): its counts today and the state of its subscription.

    One whose status is `retired` is no longer configured: the page forgets it, and no snapshot has it. `status` is that
    of the producer whose subscription is best off, None where none has reported yet.
    """

    account: str
    condition: str
    members: int
    entered: int
    exited: int
    last_at: datetime | None = None
    status: Status | None = None


class ComponentView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="component"):
    """A session, worker, sink or diagnosis (key: `status.component`); one that is `retired` is forgotten."""

    status: Status


class GapView(msgspec.Struct, frozen=True, kw_only=True, tag_field="change", tag="gap"):
    """A time of today in which a condition was not heard (key: `gap.id`)."""

    gap: Gap


Change = RecommendationView | TrackView | PriceView | FeedItem | ConditionView | ComponentView | GapView


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state: today's recommendations (open, and closed today), the newest lines of the feed (oldest first),
    conditions, components, today's gaps (oldest first) and the last price of each stock that has one. `now` is the
    product's clock, which runs `speed` times as fast as the wall's."""

    epoch: str
    number: int
    now: datetime
    speed: float
    recommendations: tuple[RecommendationView, ...]
    feed: tuple[FeedItem, ...]
    conditions: tuple[ConditionView, ...]
    components: tuple[ComponentView, ...]
    gaps: tuple[GapView, ...] = ()
    prices: tuple[PriceView, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """Changes since the event before, oldest first."""

    now: datetime
    changes: tuple[Change, ...]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The server is alive and this was its clock."""

    now: datetime
