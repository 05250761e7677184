"""What the HTTP API answers and takes, beside the views of the live stream.

The OpenAPI document is generated from these structs, and `web/src/lib/contract.ts` mirrors them. Every answer that is
not 2xx is a `Problem`. Prices are whole won, returns percent, durations seconds.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

import msgspec

from streams.events import Moment, Status

from .views import ConditionView, FeedItem, GapView, PriceView, RecommendationView

Code = Annotated[str, msgspec.Meta(pattern="^[0-9A-Z]{6}$", description="A stock's six characters.")]
Note = Annotated[str, msgspec.Meta(max_length=500)]
RequestId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{8,64}$")]
Account = Annotated[str, msgspec.Meta(pattern="^[^/]{1,64}$")]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no better answer: one sentence that says what to do."""

    error: str


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what they may. `csrf` goes into the header `X-Hitstream-CSRF` of every POST.

    `who` is the token's label, empty where no token is asked for. `has_history`: ClickHouse is configured.
    """

    who: str
    may_write: bool
    csrf: str
    may_log_out: bool
    accounts: tuple[str, ...]
    has_history: bool


class TransitionsPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a day's transitions, newest first. `next` is the cursor for the part after it, None at the end.

    A cursor names a place, not a number: what is added meanwhile moves nothing.
    """

    items: tuple[FeedItem, ...]
    next: str | None = None


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """A hit or exit as Kiwoom said it, with its provenance."""

    id: str
    account: str
    condition: str
    code: str
    name: str
    exchange: str
    action: Literal["hit", "exit"]
    at: datetime
    received_at: datetime
    session: str
    frame: int
    entry: int


class EventsPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a day's hits and exits, newest first, as `TransitionsPage`."""

    items: tuple[EventLine, ...]
    next: str | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One stock inside a condition: since when, and the how manieth visit of today this is."""

    code: str
    name: str
    since: datetime
    entry: int
    price: PriceView | None = None


class ConditionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One condition: who is inside, and its hits in each minute since `minutes_from`, up to the last that had any."""

    condition: ConditionView
    members: tuple[Member, ...]
    minutes_from: datetime | None
    hits: tuple[int, ...]
    gaps: tuple[GapView, ...]


class StockView(msgspec.Struct, frozen=True, kw_only=True):
    """A listed stock."""

    code: str
    name: str
    market: str
    previous_close: int | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One stay of a stock in a condition; `until` and `dwell` are None while it stays."""

    account: str
    condition: str
    entry: int
    since: datetime
    until: datetime | None
    dwell: float | None
    origin: Literal["realtime", "snapshot", "day-end"]
    initial: bool
    gap_from: datetime | None
    gap_to: datetime | None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one stock today: its visits, oldest first, and its recommendations."""

    stock: StockView
    price: PriceView | None
    visits: tuple[Visit, ...]
    recommendations: tuple[RecommendationView, ...]


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """One minute or day of a stock. `at` is its start."""

    at: datetime
    open: int
    high: int
    low: int
    close: int
    volume: int


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Minute bars of one day, or daily bars of the year up to it; oldest first.

    `source` is `quotes` where they are made of the prices heard today – only while the stock had a price slot – and
    `bars` where they are Kiwoom's own, fetched after the close.
    """

    code: str
    interval: Literal["1m", "1d"]
    date: date
    source: Literal["quotes", "bars"]
    bars: tuple[Candle, ...]


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A stock's visits to one condition on one day; `dwell` in seconds, of the visits that ended."""

    date: date
    account: str
    condition: str
    visits: int
    first_at: datetime
    last_at: datetime
    dwell: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """How the hits of a condition fared over one horizon: see `condition_performance` in docs/analytics.md.

    Of `hits - priced` so many have no reference (`without_price`: they count at no horizon), and so many are left out
    because the horizon crosses the close (`past_close`); the others are not known, or not yet. `as_of` is how far the
    figures go: the last that was heard of the newest day with hits when they were worked out, in the market's time.
    None means that they were just now.
    """

    account: str
    condition: str
    horizon: Literal["1m", "5m", "30m", "close", "next_open", "best", "worst"]
    hits: int
    priced: int
    mean: float | None
    median: float | None
    q1: float | None
    q3: float | None
    positive: float | None
    low: float | None
    high: float | None
    sample_mean: float | None
    sample_cases: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    gaps: int
    without_price: int = 0
    past_close: int = 0
    as_of: datetime | None = None


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """What every component and every producer's subscription is doing."""

    now: datetime
    components: tuple[Status, ...]
    subscriptions: tuple[Status, ...]


class WithdrawCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Withdraw a stock's recommendation. `request` is made by the sender: the same one twice is one command."""

    code: Code
    account: Account = "main"
    note: Note = ""
    request: RequestId


class RecommendCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Recommend a stock, until `expires_at` if that is given."""

    code: Code
    account: Account = "main"
    note: Note = ""
    expires_at: Moment | None = None
    request: RequestId


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Kafka has the command. What comes of it is told by the stream: a recommendation with this `id` as `cause_id`."""

    id: str
    at: datetime
