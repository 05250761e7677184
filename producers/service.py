"""The producer role: one account's conditions, from Kiwoom to Kafka, until cancelled.

It puts the parts together and owns their tasks: `kiwoom.client` hears, `conditions` makes records, `publisher` sends
them. What it adds is what needs all three: statuses every few seconds, the file that remembers until when each
condition was covered, readiness, and the order in which things end.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import httpx
import msgspec
import structlog
from prometheus_client import Counter

from streams.events import ConfigError, Frame, Gap, HitstreamError, Record, trading_date
from streams.tasks import TaskGroup

from . import files, hit_codes, metrics
from .bars import PREFIX, Bars
from .calendar import Calendar, calendar_of
from .conditions import Conditions, verify
from .control import Switchboard, View, serving
from .errands import Errands
from .journal import clipped
from .kiwoom.client import Backoff, Client
from .kiwoom.errors import KiwoomError
from .kiwoom.frames import CONDITION, MARKET_CLOCK, TRADE
from .kiwoom.lock import login_lock, state_folder
from .kiwoom.registrations import MAX_CODES
from .kiwoom.rest import Rest
from .kiwoom.session import (
    Action,
    Audited,
    Changed,
    Entry,
    Ignored,
    Listed,
    MarketClock,
    Moment,
    Notice,
    Pinged,
    Priced,
    SessionChanged,
    SessionState,
    Snapshot,
    State,
    Timing,
    Traced,
    Trades,
    Wanted,
)
from .kiwoom.token import Tokens, short_name
from .publisher import KafkaAway, Publisher, QueueFull
from .quotes import Quotes
from .recommended import Follower
from .settings import BarsSettings, ConditionSource, KiwoomSettings, QuotesSettings
from .spool import Spool

_log = structlog.get_logger(__name__)

_STATUS_EVERY: Final = 5.0
_SAVE_EVERY: Final = 2.0
_FLUSH_WITHIN: Final = 3.0
_HTTP_TIMEOUT: Final = 10.0
_STOCKS_AGAIN: Final = 60.0
_CONFIRM_EVERY: Final = 0.5
_PRICE_EVERY: Final = 0.1
_OF_PRICES: Final = frozenset({Trades, Priced, Snapshot, Changed, SessionChanged})
# What a frame of nothing but prices has and has not, as Kiwoom writes it.
_TRADE: Final = f'"{TRADE}"'
_OTHERS: Final = (f'"{CONDITION}"', f'"{MARKET_CLOCK}"')
_SESSION_STATES: Final[tuple[SessionState, ...]] = (
    "disconnected", "connecting", "login", "listing", "live", "displaced", "refused", "resting",
)  # fmt: skip
_WRONG: Final[frozenset[State]] = frozenset({"missing", "refused", "unanswered", "displaced"})
_STATES: Final[tuple[State, ...]] = (
    "disconnected", "listing", "requested", "live", "refused", "unanswered", "missing", "displaced", "resting",
)  # fmt: skip


async def produce(
    *,
    kiwoom: KiwoomSettings,
    conditions: Sequence[ConditionSource],
    bootstrap_servers: str,
    now: Callable[[], datetime],
    ready: Callable[[str | None], None],
    state_dir: Path,
    timing: Timing | None = None,
    backoff: Backoff | None = None,
    on_frame: Callable[[Frame], None] | None = None,
    speed: float = 1.0,
    bars: BarsSettings | None = None,
    quotes: QuotesSettings | None = None,
) -> None:
    """Keep the conditions open and publish what they say, until cancelled.

    Cancelling it clears the conditions, sends what is waiting, and says in a last status that it stopped. That takes
    at most some 10 s.

    Args:
        now: market time, UTC.
        ready: is told None when conditions are live, else why not.
        state_dir: folder for what has to survive a restart of this producer. What all processes of the app key share
            is in the folder of `kiwoom.state_dir`.
        timing, backoff: waits other than those of the settings.
        on_frame: is given every raw frame, secrets masked.
        speed: seconds of `now` per real second.
        bars: when bars are fetched, and whether; None: they can't be asked for either.
        quotes: which prices are told; None for none.

    Raises:
        ConfigError: a setting is missing or wrong.
        HitstreamError: Kafka is not there or has no topics, Kiwoom refuses the app key, or another process is logged
            in with it.
    """
    _verify(kiwoom, conditions)
    calendar = calendar_of(kiwoom)
    producer = short_name(kiwoom.app_key.get_secret_value())
    shared = state_folder(kiwoom.state_dir, kiwoom.websocket_url)
    with login_lock(shared, producer, "hitstream produce"):
        await _produce(
            kiwoom,
            conditions,
            bootstrap_servers,
            now,
            ready,
            state_dir,
            timing,
            backoff,
            on_frame,
            calendar,
            shared,
            speed,
            bars,
            quotes if quotes is not None and quotes.enabled else None,
        )


async def _produce(
    kiwoom: KiwoomSettings,
    conditions: Sequence[ConditionSource],
    bootstrap_servers: str,
    now: Callable[[], datetime],
    ready: Callable[[str | None], None],
    state_dir: Path,
    timing: Timing | None,
    backoff: Backoff | None,
    on_frame: Callable[[Frame], None] | None,
    calendar: Calendar,
    shared: Path,
    speed: float,
    bars: BarsSettings | None,
    quotes: QuotesSettings | None,
) -> None:
    producer = short_name(kiwoom.app_key.get_secret_value())
    spool = Spool(state_dir / f"spool-{kiwoom.account}-{producer}", limit=kiwoom.spool_bytes)
    publisher = Publisher(bootstrap_servers, spool=spool)
    ready(f"waiting for Kafka at {bootstrap_servers}")
    try:
        await publisher.check()
    except KafkaAway as error:
        # An earlier process was ended while Kafka was away: it would have gone on, and so does this one.
        if not publisher.spooled:
            raise
        _log.warning("going on without Kafka: records wait on the disk", cause=str(error), waiting=publisher.spooled)
    timing = timing or Timing(
        login_pause=kiwoom.login_pause, send_spacing=kiwoom.send_spacing, audit_after=kiwoom.audit_after
    )
    covered = _Covered(state_dir / f"covered-{kiwoom.account}-{producer}.json")
    kept = _Kept(state_dir / f"conditions-{kiwoom.account}-{producer}.json")
    known = Conditions(
        kiwoom.account,
        producer,
        [c.name for c in conditions],
        now(),
        covered.read(),
        lambda start, end: service.calendar.spans(start, end),  # noqa: PLW0108 – the calendar changes
    )
    board = Switchboard(
        ask=lambda text: client.ask(text),  # noqa: PLW0108 – the client comes later
        need=lambda seconds: client.need(now() + timedelta(seconds=seconds * speed)),
        view=lambda: View(
            pid=os.getpid(),
            account=kiwoom.account,
            producer=producer,
            session=known.session,
            asking=client.asking,
            states=dict(known.states),
            members=known.members,
            statuses=tuple(known.statuses(now())),
            speed=speed,
            spooled=publisher.spooled,
            unacknowledged=publisher.unacknowledged,
        ),
    )
    prices = None
    if quotes is not None:
        prices = Quotes(
            quotes,
            account=kiwoom.account,
            producer=producer,
            t=asyncio.get_running_loop().time(),
            speed=speed,
            offer=lambda quote: publisher.offer(quote, passing=True),
            behind=lambda: publisher.behind,
            price=lambda codes: client.price(codes),  # noqa: PLW0108 – the client comes later
            trading=lambda at: service.calendar.trading(at),  # noqa: PLW0108 – the calendar changes
        )
        known.figures = prices.figures
    service = _Service(known, publisher, now, ready, calendar, board.lost, prices)
    for status in known.retired(kept.read(), now()):
        publisher.offer(status)
    kept.write(tuple(c.name for c in conditions))
    metrics.PING_AGE.set_function(service.ping_age)
    try:
        async with httpx.AsyncClient(timeout=_HTTP_TIMEOUT) as http, TaskGroup() as publishing:
            sending = publishing.create_task(publisher.run(), name="publisher")
            tokens = Tokens(
                http,
                rest_url=kiwoom.rest_url,
                app_key=kiwoom.app_key,
                secret_key=kiwoom.secret_key,
                now=now,
                folder=shared,
            )
            client = Client(
                url=kiwoom.websocket_url,
                producer=producer,
                tokens=tokens,
                wanted=[Wanted(c.name, c.seq) for c in conditions],
                stex_tp=kiwoom.stex_tp,
                timing=timing,
                backoff=backoff or Backoff(),
                now=now,
                handler=service,
                calendar=lambda: service.calendar,
                prices=MAX_CODES if quotes is None else quotes.slots,
                on_frame=_each(
                    _journal(publisher.offer, prices=quotes is None or quotes.journal) if kiwoom.journal else None,
                    board.on_frame,
                    on_frame,
                ),
            )
            board.loan = client
            rest = Rest(http, tokens, rest_url=kiwoom.rest_url)
            errands = Errands(
                kiwoom=kiwoom,
                conditions=conditions,
                producer=producer,
                board=board,
                rest=rest,
                tokens=tokens,
                offer=publisher.offer,
                now=now,
                trading=lambda day: service.calendar.trades_on(day),  # noqa: PLW0108 – the calendar changes
                hours=lambda at: service.calendar.phase(at),  # noqa: PLW0108 – the calendar changes
                folder=state_dir,
            )
            if bars is not None:
                board.bars = Bars(
                    bars,
                    account=kiwoom.account,
                    producer=producer,
                    rest=rest,
                    kafka=publisher,
                    codes=lambda since: hit_codes.codes(bootstrap_servers, kiwoom.account, since, now),
                    statuses=lambda: hit_codes.statuses(bootstrap_servers, f"{PREFIX}/{kiwoom.account}/"),
                    now=now,
                    calendar=lambda: service.calendar,
                    folder=state_dir,
                    speed=speed,
                )
            try:
                async with serving(board, shared, producer), TaskGroup() as listening:
                    listening.create_task(errands.run(), name="errands")
                    listening.create_task(client.run(), name="kiwoom")
                    listening.create_task(service.report(), name="status")
                    listening.create_task(service.confirm(), name="confirmations")
                    listening.create_task(service.remember(covered), name="covered")
                    listening.create_task(service.fetch_stocks(rest), name="stocks")
                    if board.bars is not None:
                        listening.create_task(board.bars.run(), name="bars")
                    if prices is not None:
                        listening.create_task(service.price(prices, bootstrap_servers, speed), name="prices")
            finally:
                service.stopped()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_WITHIN):
                        await publisher.flush()
                covered.write(service.covered())
                sending.cancel()
    except BaseExceptionGroup as group:
        # One class, one cause, one sentence: the group is only how tasks end together.
        if (cause := _first(group)) is not None:
            raise cause from None
        raise


def _each(*readers: Callable[[Frame], None] | None) -> Callable[[Frame], None]:
    """Who is given every raw frame: the journal's topic, and whoever else asked.

    The client calls it after the echo of a PING is on its way; encoding a frame is all that it costs there.
    """

    def give(frame: Frame) -> None:
        for reader in readers:
            if reader is not None:
                reader(frame)

    return give


def _journal(offer: Callable[[Record], None], *, prices: bool) -> Callable[[Frame], None]:
    """The journal's topic; without `prices`, frames of nothing but those are left out, and counted."""
    if prices:
        return lambda frame: offer(clipped(frame))
    connection, left_out = "", 0

    def give(frame: Frame) -> None:
        nonlocal connection, left_out
        if frame.connection != connection:
            connection, left_out = frame.connection, 0
        if frame.direction == "in":
            if _TRADE in frame.text and not any(other in frame.text for other in _OTHERS):
                left_out += 1
                return
            if left_out:
                frame = msgspec.structs.replace(frame, left_out=left_out)
        offer(clipped(frame))

    return give


def _verify(kiwoom: KiwoomSettings, conditions: Sequence[ConditionSource]) -> None:
    for name in ("rest_url", "websocket_url"):
        if not getattr(kiwoom, name):
            raise ConfigError(f"kiwoom.{name} is not set: say where Kiwoom is")
    for name in ("app_key", "secret_key"):
        if not getattr(kiwoom, name).get_secret_value():
            raise ConfigError(f"kiwoom.{name} is not set: take it from the Open API portal, or from a file")
    if not conditions:
        raise ConfigError("no condition is configured: add [[conditions]] with the name of a saved condition")
    verify(conditions)


def _first(group: BaseExceptionGroup[BaseException]) -> HitstreamError | None:
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, HitstreamError):
            return found
    return None


class _Service:
    """The client's handler: actions → records → publisher, figures and readiness."""

    def __init__(
        self,
        conditions: Conditions,
        publisher: Publisher,
        now: Callable[[], datetime],
        ready: Callable[[str | None], None],
        calendar: Calendar,
        lost: Callable[[str], None],
        prices: Quotes | None = None,
    ) -> None:
        self.calendar = calendar
        self._prices = prices
        self._lost = lost
        self._listed: dict[str, str] | None = None
        self._conditions = conditions
        self._publisher = publisher
        self._now = now
        self._ready = ready
        self._pinged: float | None = None
        self._logged_in = asyncio.Event()
        self._trouble = ""
        self._show()

    # -- Handler

    def connecting(self, connection: str) -> None:
        if self._prices is not None:
            self._prices.connecting(connection)
        self._offer_all(self._conditions.connecting(connection, self._now()))
        self._show()

    def handle(self, actions: Sequence[Action], now: Moment, *, frame: bool) -> None:
        changed = False
        for action in actions:
            if type(action) is Traced:
                continue
            if type(action) is Entry:
                self._publisher.offer(self._conditions.said(action))
                _events(action.condition, action.action).inc()
                if self._prices is not None:
                    self._prices.apply(action, now)
                continue
            if isinstance(action, MarketClock):
                self.calendar = self.calendar.heard(action.state, action.at)
            if self._prices is not None and type(action) in _OF_PRICES:
                self._prices.apply(action, now)
                if type(action) is Trades:
                    continue
            self._offer_all(self._conditions.apply(action, now.at))
            match action:
                case Ignored():
                    metrics.IGNORED.labels(action.reason).inc(action.count)
                case Pinged():
                    self._pinged = time.monotonic()
                case Changed():
                    changed = True
                    metrics.CHANGES.labels(action.condition, action.state).inc()
                    tell = _log.warning if action.state in _WRONG else _log.info
                    tell("condition", name=action.condition, state=action.state, cause=action.cause)
                case SessionChanged():
                    changed = True
                    if action.state == "live":
                        self._logged_in.set()
                case Audited():
                    metrics.AUDITS.labels(action.condition, action.outcome).inc()
                    say = _log.info if action.outcome == "agrees" else _log.warning
                    say("audit", name=action.condition, outcome=action.outcome, cause=action.cause)
                case Listed():
                    self._compare_list(action)
                case Priced(standing=standing) if standing.cause != self._trouble:
                    self._trouble = standing.cause
                    if standing.cause:
                        _log.warning("prices", cause=standing.cause, registered=standing.held, wanted=standing.wanted)
                case Notice():
                    _log.info("notice from kiwoom", code=action.code, message=action.message)
                case _:
                    pass
        self._conditions.told()
        if frame:
            metrics.FRAMES.inc()
            self._conditions.heard(now.at)
        if changed:
            self._show()

    def disconnected(self, cause: str, state: Literal["disconnected", "refused", "displaced", "resting"]) -> None:
        if self._prices is not None:
            self._prices.disconnected()
        with suppress(QueueFull):
            self._offer_all(self._conditions.disconnected(cause, self._now(), state))
        self._lost(cause)
        self._show()

    async def room(self) -> None:
        await self._publisher.room()

    async def pace(self) -> None:
        await self._publisher.pace()

    # -- tasks

    async def report(self) -> None:
        """Say how everything is, every few seconds."""
        while True:
            await asyncio.sleep(_STATUS_EVERY)
            now = self._now()
            quiet = self._conditions.quiet(now)
            for name in self._conditions.states:
                metrics.QUIET.labels(name).set(quiet.get(name, math.nan))
            waiting = {"waiting": float(len(self._publisher)), "spooled": float(self._publisher.spooled)}
            for status in self._conditions.statuses(now):
                figures = status.figures | waiting if status.kind == "session" else status.figures
                self._publisher.offer(msgspec.structs.replace(status, figures=figures), passing=True)

    async def confirm(self) -> None:
        """Publish what has to be said again, when it is time."""
        while True:
            await asyncio.sleep(_CONFIRM_EVERY)
            with suppress(QueueFull):
                self._offer_all(self._conditions.due(self._now()))

    async def price(self, prices: Quotes, bootstrap_servers: str, speed: float) -> None:
        """Give slots, tell what waits, and follow what is recommended and how the other sessions are."""
        loop = asyncio.get_running_loop()
        follower = Follower(
            bootstrap_servers=bootstrap_servers,
            now=self._now,
            speed=speed,
            recommendation=prices.recommendation,
            status=lambda status, age: prices.status(status, loop.time(), age),
        )
        async with TaskGroup() as following:
            following.create_task(follower.run(), name="recommended")
            while True:
                await asyncio.sleep(_PRICE_EVERY)
                prices.others_known = follower.caught_up
                if prices.look(loop.time(), self._now()):
                    # Whether another session is to tell prices is not to wait for the next round of statuses.
                    self._publisher.offer(self._conditions.session_status(self._now()), passing=True)

    async def remember(self, covered: _Covered) -> None:
        """Keep on disk until when each condition is covered."""
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            covered.write(self.covered())

    async def fetch_stocks(self, rest: Rest) -> None:
        """Publish the listed stocks, at the first login of each trading date."""
        fetched = None
        while True:
            await self._logged_in.wait()
            self._logged_in.clear()
            if (today := trading_date(self._now())) == fetched:
                continue
            try:
                count = 0
                async for stock in rest.stocks(self._now):
                    await self._publisher.room(0.25)
                    self._publisher.offer(stock)
                    count += 1
            except (KiwoomError, QueueFull) as error:
                _log.warning("the list of stocks was not fetched", cause=str(error))
                await asyncio.sleep(_STOCKS_AGAIN)
                self._logged_in.set()
            else:
                fetched = today
                _log.info("stocks", count=count)

    # -- the end

    def stopped(self) -> None:
        """The last quotes and statuses. A session that was displaced stays so: the next reader has to know that."""
        if self._prices is not None:
            self._prices.stopped()
        state, _ = self._conditions.session
        if state != "displaced":
            with suppress(QueueFull):
                self._offer_all(self._conditions.disconnected("stopped", self._now()))
        self._ready("stopped")

    def covered(self) -> dict[str, datetime]:
        """Until when each condition is covered by what Kafka has acknowledged."""
        oldest = self._publisher.oldest
        limit = None if oldest is None else datetime.fromtimestamp(oldest, UTC)
        return {name: at if limit is None else min(at, limit) for name, at in self._conditions.covered.items()}

    def ping_age(self) -> float:
        """Real seconds since the last PING."""
        return math.nan if self._pinged is None else time.monotonic() - self._pinged

    # -- parts

    def _offer_all(self, records: Iterable[Record]) -> None:
        for record in records:
            self._publisher.offer(record)
            if isinstance(record, Gap):
                metrics.GAPS.labels(record.condition).inc()
                _log.warning(
                    "gap",
                    name=record.condition,
                    start=record.from_.isoformat(timespec="seconds"),
                    end=record.to.isoformat(timespec="seconds"),
                    cause=record.cause,
                )

    def _compare_list(self, listed: Listed) -> None:
        """Say what has changed in the account's list of conditions."""
        names, before = dict(listed.conditions), self._listed
        self._listed = names
        if before is not None and before != names:
            appeared, vanished = set(names.values()) - set(before.values()), set(before.values()) - set(names.values())
            _log.warning(
                "the account's conditions have changed",
                appeared=sorted(appeared),
                vanished=sorted(vanished),
                renumbered=sorted(n for seq, n in names.items() if before.get(seq) != n and n not in appeared),
            )

    def _show(self) -> None:
        states = self._conditions.states
        for name, (state, _) in states.items():
            for known in _STATES:
                metrics.SUBSCRIPTION.labels(name, known).set(known == state)
            metrics.SUBSCRIPTION_SINCE.labels(name).set(self._conditions.since[name].timestamp())
        session, cause = self._conditions.session
        for known_state in _SESSION_STATES:
            metrics.SESSION.labels(known_state).set(known_state == session)
        if session == "resting" or all(state == "resting" for state, _ in states.values()):
            self._ready(None)
        elif session != "live":
            self._ready(f"session {session}: {cause}" if cause else f"session {session}")
        elif waiting := [
            name for name, (state, _) in states.items() if state in ("disconnected", "listing", "requested")
        ]:
            self._ready(f"waiting for {', '.join(waiting)}")
        elif not any(state == "live" for state, _ in states.values()):
            self._ready("; ".join(f"{name} is {state}: {cause}" for name, (state, cause) in states.items()))
        else:
            self._ready(None)


@lru_cache(maxsize=1024)
def _events(condition: str, action: str) -> Counter:
    """The counter of a condition's hits or exits: to find it costs more than to count."""
    return metrics.EVENTS.labels(condition, action)


class _Kept:
    """The file that remembers, across processes, which conditions were kept open: one that is gone is said so, once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[str, ...]:
        """The names that an earlier process left; none if there was none or the file is damaged."""
        return files.read(self._path, tuple[str, ...], ())

    def write(self, names: tuple[str, ...]) -> None:
        """Replace the file, whole or not at all."""
        files.replace(
            self._path,
            names,
            f"{self._path.name} could not be written: a condition that is removed may stay in view",
        )


class _Covered:
    """The file that remembers, across processes, until when each condition was covered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: dict[str, datetime] | None = None

    def read(self) -> dict[str, datetime]:
        """What an earlier process left; nothing if there was none."""
        return files.read(self._path, dict[str, datetime], {})

    def write(self, covered: dict[str, datetime]) -> None:
        """Replace the file, whole or not at all."""
        if not covered or covered == self._written:
            return
        otherwise = f"{self._path.name} could not be written: a restart may not tell its gap"
        if files.replace(self._path, covered, otherwise):
            self._written = dict(covered)
