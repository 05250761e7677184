"""The HTTP API: what is asked of the hub, of ClickHouse and of Kafka, and how each answer is described.

Today is answered from the hub's memory, at once and up to date; other days, hits as Kiwoom said them, and how
conditions fared come from ClickHouse (503 with a sentence where it is not configured or away). Until the day has been
rebuilt from the topics everything about today is a 503 as well. The OpenAPI document is made of these functions and the
structs they return; every answer that is not 2xx is a `Problem`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import structlog
from litestar import MediaType, Request, Response, get, post
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ServiceUnavailableException,
    ValidationException,
)
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter

from streams.events import Gap, trading_date

from . import cursor, search
from .answers import (
    Accepted,
    Bars,
    ConditionDetail,
    EventsPage,
    HistoryLine,
    Performance,
    Problem,
    RecommendCommand,
    SessionView,
    StatusView,
    StockView,
    Story,
    TransitionsPage,
    WithdrawCommand,
)
from .commands import Commands, NotTaken, Refused
from .guard import GRANT, Grant, only, with_head
from .history import Filter, History, HistoryAway
from .hub import Hub
from .parameters import called
from .stream import Broadcaster
from .views import ConditionView, FeedItem, RecommendationView

LONGEST: Final = 200  # characters of a word that is asked for
BODY_BYTES: Final = 16_384
_FIRST_DAY: Final = date(1970, 1, 2)  # of which the analytics views can be asked
_log = structlog.get_logger(__name__)

OfAccount = Annotated[str | None, QueryParameter(name="account", max_length=LONGEST, description="Only this account.")]
OfCondition = Annotated[
    str | None, QueryParameter(name="condition", max_length=LONGEST, description="Only those of this condition.")
]
OfCode = Annotated[str | None, QueryParameter(name="code", max_length=LONGEST, description="Only those of this stock.")]
OfDay = Annotated[date | None, QueryParameter(name="date", description="Trading date; today if it is left out.")]
Cursor = Annotated[
    str | None,
    QueryParameter(name="cursor", max_length=LONGEST, description="`next` of a page, to get the one after it."),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="At most so many.")]
Code = Annotated[str, PathParameter(pattern="^[0-9A-Z]{6}$", description="A stock's six characters.")]


def _said(said: Mapping[int, str]) -> dict[int, ResponseSpec]:
    """Answers that are not 2xx, as the document describes them."""
    every = {400: "The question is wrong.", 401: "Log in first.", 429: "Too many wrong tokens.", **said}
    return {
        status: ResponseSpec(Problem, description=sentence, generate_examples=False)
        for status, sentence in every.items()
    }


_TODAY: Final = _said({503: "The day is being read from Kafka."})
_FOUND: Final = _said({404: "There is no such thing.", 503: "The day is being read from Kafka."})
_PAST: Final = _said(
    {
        404: "There is no place of this cursor.",
        503: "ClickHouse is not configured, or does not answer; or the day is being read from Kafka.",
    }
)
_WRITE: Final = _said(
    {
        403: "This login may read only, or the request does not come from the dashboard's page.",
        404: "There is no such stock or account.",
        409: "It would have expired already, or expires later than in a year.",
        413: "The body is too long.",
        503: "Kafka did not take the command.",
    }
)


def handlers(
    broadcaster: Broadcaster, history: History, commands: Commands | None, now: Callable[[], datetime]
) -> list[Any]:
    """The API's functions over one broadcaster and its hub, a ClickHouse to ask and a Kafka to tell."""

    def hub() -> Hub:
        if not broadcaster.is_open:
            raise ServiceUnavailableException(
                "The day is being read from Kafka: try again in a moment.", headers={"retry-after": "1"}
            )
        broadcaster.roll()
        return broadcaster.hub

    def place(word: str | None) -> cursor.Place | None:
        found = cursor.parse(word) if word else None
        if word and found is None:
            raise NotFoundException("There is no place of this cursor: give `next` of a page, or none for the newest.")
        return found

    @get("/api/session", responses=_said({}), sync_to_thread=False)
    def session(request: Request[Any, Any, Any]) -> SessionView:
        """Who asks, and what they may. Its `csrf` goes into the header `X-Hitstream-CSRF` of every POST."""
        grant = _grant(request)
        return SessionView(
            who=grant.label,
            may_write=grant.may_write,
            csrf=grant.csrf,
            may_log_out=grant.may_log_out,
            accounts=broadcaster.hub.accounts(),
            has_history=history.is_there,
        )

    # --- today -------------------------------------------------------------------------------------------------------

    @get("/api/recommendations", responses=_TODAY, sync_to_thread=False)
    def recommendations(
        wanted: Annotated[
            Literal["open", "closed"] | None, QueryParameter(name="state", description="Only those in this state.")
        ] = None,
        account: OfAccount = None,
        code: OfCode = None,
    ) -> tuple[RecommendationView, ...]:
        """Today's recommendations, each in its latest revision; the one that changed last is last."""
        return tuple(
            view
            for view in hub().recommendations()
            if wanted in (None, view.recommendation.state)
            and account in (None, "", view.recommendation.account)
            and code in (None, "", view.recommendation.code)
        )

    @get("/api/conditions", responses=_TODAY, sync_to_thread=False)
    def conditions() -> tuple[ConditionView, ...]:
        """Every condition, its counts today and the state of its subscription."""
        return hub().conditions()

    @get("/api/conditions/{account:str}/{condition:path}", responses=_FOUND, sync_to_thread=False)
    def condition_detail(
        account: Annotated[str, PathParameter()],
        condition: Annotated[str, PathParameter()],
    ) -> ConditionDetail:
        """One condition: who is inside, and how many hits each minute of today had."""
        found = hub().condition(account, condition.removeprefix("/"))
        if found is None:
            raise NotFoundException("No condition of this name has reported today.")
        return found

    @get("/api/gaps", responses=_TODAY, sync_to_thread=False)
    def gaps() -> tuple[Gap, ...]:
        """Today's gaps: from when until when a condition was not heard, and why."""
        return tuple(view.gap for view in hub().gaps())

    @get("/api/status", responses=_TODAY, sync_to_thread=False)
    def status() -> StatusView:
        """What every component and every producer's subscription is doing."""
        known = hub()
        return StatusView(
            now=broadcaster.roll(),
            components=tuple(view.status for view in known.components()),
            subscriptions=known.subscriptions(),
        )

    @get("/api/stocks", responses=_TODAY, sync_to_thread=False)
    def stocks(
        q: Annotated[str, QueryParameter(min_length=1, max_length=LONGEST, description="Name, 초성 or code.")],
        limit: Annotated[int, QueryParameter(ge=1, le=100, description="At most so many.")] = 20,
    ) -> tuple[StockView, ...]:
        """Listed stocks by what somebody types: part of the name, its initial consonants, or the code."""
        return search.find(q, hub().stocks(), limit)

    @get("/api/stocks/{code:str}", responses=_FOUND, sync_to_thread=False)
    def story(code: Code) -> Story:
        """What happened to a stock today: its visits, its recommendations, its price."""
        found = hub().story(code)
        if found is None:
            raise NotFoundException("There is no stock of this code, and nothing was heard of it today.")
        return found

    # --- today, and before -------------------------------------------------------------------------------------------

    @get("/api/transitions", responses=_PAST)
    async def transitions(
        day: OfDay = None,
        limit: Limit = 100,
        at: Cursor = None,
        account: OfAccount = None,
        condition: OfCondition = None,
        code: OfCode = None,
        kind: Annotated[Literal["entered", "exited"] | None, QueryParameter(description="Only this kind.")] = None,
    ) -> TransitionsPage:
        """Who entered and left which condition on one day, newest first."""
        known, before = hub(), place(at)
        lines: list[FeedItem] = []
        if day in (None, known.day):
            lines += known.transitions(
                limit=limit,
                before=before,
                account=account or None,
                condition=condition or None,
                code=code or None,
                kind=kind,
            )
            is_all = known.holds_all_lines or not history.is_there
            before = cursor.place_of(lines[-1].transition) if lines else before
        else:
            is_all = False
        asked = day or known.day or trading_date(now())
        if len(lines) < limit and not is_all:
            wanted = Filter(asked, account=account, condition=condition, code=code, kind=kind)
            rows = await history.transitions(wanted, before, limit - len(lines))
            lines += [FeedItem(name=known.name(row.code), transition=row) for row in rows]
        following = cursor.place_of(lines[-1].transition).cursor() if len(lines) == limit else None
        return TransitionsPage(items=tuple(lines), next=following)

    @get("/api/events", responses=_PAST)
    async def events(
        day: OfDay = None,
        limit: Limit = 100,
        at: Cursor = None,
        account: OfAccount = None,
        condition: OfCondition = None,
        code: OfCode = None,
        action: Annotated[Literal["hit", "exit"] | None, QueryParameter(description="Only these.")] = None,
    ) -> EventsPage:
        """Hits and exits of one day as Kiwoom said them, repeats and all, newest first. Needs ClickHouse."""
        wanted = Filter(day or trading_date(now()), account=account, condition=condition, code=code, kind=action)
        lines = await history.events(wanted, place(at), limit)
        return EventsPage(items=tuple(lines), next=cursor.place_of(lines[-1]).cursor() if len(lines) == limit else None)

    @get("/api/stocks/{code:str}/bars", responses=_PAST)
    async def bars(
        code: Code,
        interval: Annotated[Literal["1m", "1d"], QueryParameter(description="Minutes of a day, or days.")] = "1m",
        day: OfDay = None,
    ) -> Bars:
        """Minute bars of a day, or the daily bars of the year until then. Only today's minutes need no ClickHouse.

        Today's are made of the prices that were heard, until Kiwoom's own have been fetched.
        """
        known = hub()
        asked = day or known.day or trading_date(now())
        if interval == "1m" and asked == known.day:
            heard = known.candles(code)
            with contextlib.suppress(HistoryAway):  # today's prices are here, whatever became of ClickHouse
                if history.is_there and known.has_bars() and (own := await history.bars(code, interval, asked)):
                    later = tuple(bar for bar in heard if bar.at > own[-1].at)
                    return Bars(code=code, interval=interval, date=asked, source="bars", bars=own + later)
            return Bars(code=code, interval=interval, date=asked, source="quotes", bars=heard)
        found = await history.bars(code, interval, asked)
        return Bars(code=code, interval=interval, date=asked, source="bars", bars=found)

    @get("/api/stocks/{code:str}/history", responses=_PAST)
    async def stock_history(
        code: Code,
        days: Annotated[int, QueryParameter(ge=1, le=1_000, description="Calendar days, today included.")] = 30,
    ) -> tuple[HistoryLine, ...]:
        """A stock's visits by day and condition, newest first. Needs ClickHouse."""
        today = trading_date(now())
        return await history.visits(code, date.fromordinal(max(1, today.toordinal() - days + 1)), today)

    @get("/api/performance", responses=_PAST)
    async def performance(
        first: Annotated[date, QueryParameter(name="from", description="First trading date.")],
        last: Annotated[date, QueryParameter(name="to", description="Last trading date.")],
        cost: Annotated[
            float, QueryParameter(ge=0, le=100, description="What a purchase and its sale cost, in percent.")
        ] = 0.0,
    ) -> tuple[Performance, ...]:
        """How the hits of every condition fared, by horizon, with sample sizes and intervals. Needs ClickHouse."""
        if first > last:
            raise ClientException(f"from: {first} is after to, {last}: give the earlier day first.")
        return await history.performance(max(first, _FIRST_DAY), max(last, _FIRST_DAY), cost)

    # --- commands ----------------------------------------------------------------------------------------------------

    @post("/api/commands/recommend", status_code=202, responses=_WRITE)
    async def recommend(data: JSONBody[RecommendCommand], request: Request[Any, Any, Any]) -> Accepted:
        """Recommend a stock by hand. What comes of it comes through the stream."""
        return await send(data, request)

    @post("/api/commands/withdraw", status_code=202, responses=_WRITE)
    async def withdraw(data: JSONBody[WithdrawCommand], request: Request[Any, Any, Any]) -> Accepted:
        """Withdraw a stock's recommendation. What comes of it comes through the stream."""
        return await send(data, request)

    async def send(data: RecommendCommand | WithdrawCommand, request: Request[Any, Any, Any]) -> Accepted:
        known = hub()
        if not known.knows(data.code):
            raise NotFoundException(f"There is no listed stock {data.code}.")
        accounts = known.accounts()
        if accounts and data.account not in accounts:
            raise NotFoundException(f"There is no account {data.account}: GET /api/session lists those there are.")
        if commands is None:
            raise NotTaken("This dashboard has no Kafka to give commands to.")
        return await commands.send(data, _grant(request).label)

    return [
        session, recommendations, conditions, condition_detail, gaps, status, stocks, story, transitions, events, bars,
        stock_history, performance, recommend, withdraw,
    ]  # fmt: skip


def _grant(request: Request[Any, Any, Any]) -> Grant:
    grant: Grant = request.scope["state"][GRANT]
    return grant


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response[Problem]:
    return Response(
        Problem(error=sentence),
        status_code=status,
        media_type=MediaType.JSON,
        headers=dict(headers) if headers else None,
    )


def _of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    sentence, headers = error.detail, dict(error.headers or {})
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        names = called(request)
        told = [
            f"{names.get(part.get('key', ''), part.get('key', ''))}: {part.get('message', '')}"
            for part in error.extra
            if isinstance(part, dict)
        ]
        sentence = "; ".join(told)[:500] or sentence
    elif isinstance(error, MethodNotAllowedException):
        headers["allow"] = with_head(headers.get("allow", ""))
        sentence = only(headers["allow"])
    elif error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        sentence = f"The body is longer than {BODY_BYTES:,} bytes: leave out what GET /openapi.json does not ask for."
    elif isinstance(error.__cause__, SerializationException):
        sentence = f"The body is no JSON ({sentence}): send one object, as GET /openapi.json describes it."
    elif isinstance(error, NotFoundException) and sentence == HTTPStatus.NOT_FOUND.phrase:
        sentence = "There is nothing at this address: GET /openapi.json lists what there is."
    return _problem(error.status_code, sentence, headers)


def _of_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    _log.error("live.bug", path=request.scope["path"], exc_info=error)
    return _problem(500, "This is a fault of the dashboard; its log says more.")


PROBLEMS: Final[dict[int | type[Exception], Any]] = {
    HTTPException: _of_http,
    Refused: lambda _, error: _problem(409, str(error)),
    # Of a body that is no JSON at all: the reader's own errors, which Litestar does not take for the asker's.
    RecursionError: lambda *_: _problem(400, "The body is nested too deeply to be read."),
    UnicodeDecodeError: lambda *_: _problem(400, "The body is not UTF-8: send JSON in UTF-8."),
    HistoryAway: lambda _, error: _problem(503, str(error), {"retry-after": "5"}),
    NotTaken: lambda _, error: _problem(503, str(error), {"retry-after": "1"}),
    Exception: _of_bug,
}
