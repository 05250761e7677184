"""One connection to Kiwoom as a state machine: no socket, no clock, no await.

In: what happened and when (`opened`, `received`, `tick`, `clear`, `closed`). Out: a list of actions, in the order in
which they are to be done, and `deadline`, the moment at which `tick` is due. `client` owns socket and timers;
`producers.conditions` turns the actions into records.

    LOGIN → pause → CNSRLST → names become seqs → CNSRREQ for each condition → REAL

The one idea: **every subscription is always somewhere**. Its `State` is what people see; its `_Step` is what the
machine is waiting for; each step has a deadline and a next step, so that none can wait for ever. Nothing survives a
connection: the next one gets a new machine and runs the whole sequence again.

A request that is not answered may have been heard (Kiwoom then answers the next with 900003), so the second try is
always CNSRCLR, pause, CNSRREQ. Entries that arrive between a request and its reply are held until the reply, so that
the snapshot stands before them; a request that fails lets them go.

A live condition that says nothing is *quiet*, which is normal. Each is **audited** every `Timing.audit_after`, quiet
or not: a one-shot search is compared with its members (`audit`). Agreement is a proof of life; a difference that a
second look still finds proves that the registration is dead or has missed something, and it is made anew. So does an
entry that contradicts the one before. A search that stays unanswered proves nothing about the condition; it only has
the list asked for, whose silence ends the connection. Where searches are not answered at all, a quiet condition is
requested anew instead, and its fresh snapshot is what is compared.

Prices (0B) come second: `price` says of which codes, `registrations` what has to be asked for, and a request of theirs
is sent only while no condition is being requested and nothing else is about to be.
"""

from __future__ import annotations

import math
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import msgspec

from streams.events import Exchange

from . import audit, frames
from .audit import Audit, Difference
from .errors import STALE_TOKEN, embedded_code, masked
from .registrations import MAX_CODES, Registrations, Standing, Suffix

State = Literal[
    "disconnected", "listing", "requested", "live", "refused", "unanswered", "missing", "displaced", "resting"
]
Outcome = Literal["agrees", "dead", "missed", "refuted", "unsettled", "silent", "refused"]
SessionState = Literal["disconnected", "connecting", "login", "listing", "live", "displaced", "refused", "resting"]

MAX_CONDITIONS: Final = 10  # Kiwoom's policy per login; what it does with the 11th is unknown.

_REGISTERED: Final = 900003
_UNKNOWN_SEQ: Final = 900004
_TOO_MANY: Final = 105110

_BARREN: Final = 2  # Searches in a row that came to nothing, after which one a minute is enough.
_SETTLING: Final = 2.0  # Seconds after a snapshot in which an entry may still be of before it.
_MOST_PAGES: Final = 100  # of one search.
_CLOCK_GROUP: Final = "90"  # REG group of the market clock; prices have another.
_SUFFIXES: Final[dict[str, Suffix]] = {"N": "_NX", "A": "_AL"}  # of a code, by the exchange that is asked.
_LATEST: Final = 30.0  # Seconds after which a reply that was not waited for comes no more.


class Moment(msgspec.Struct, frozen=True):
    """When something happened: `t` in the shell's monotonic seconds, `at` on the product's one clock (UTC)."""

    t: float
    at: datetime


class Wanted(msgspec.Struct, frozen=True):
    """A condition to keep open: its name, and its seq where two have that name."""

    name: str
    seq: str = ""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Every wait of a session, in real seconds.

    `audit_after` is the time between two audits of a live condition in trading hours, `audit_again` that between two
    looks of one audit, `list_again` how often the list of conditions is looked at for changes. `price_spacing` is the
    least time between two requests for prices, `price_renew` after how long without a trade a code is asked for again.
    """

    login_pause: float = 1.5
    send_spacing: float = 0.35
    clear_pause: float = 0.4
    login_deadline: float = 10.0
    list_deadline: float = 5.0
    reply_deadline: float = 5.0
    ping_silence: float = 35.0
    slow_down: float = 2.0
    ask_again: float = 60.0
    audit_after: float = 300.0
    audit_again: float = 3.0
    search_deadline: float = 5.0
    list_again: float = 300.0
    goodbye: float = 5.0
    goodbye_reply: float = 1.0
    tries: int = 3
    price_spacing: float = 1.0
    price_renew: float = 120.0


# --- what comes out ---------------------------------------------------------------------------------------------------


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the machine wants done."""


class Send(Action, frozen=True, kw_only=True):
    """Send this frame, now."""

    text: str


class Traced(Action, frozen=True, kw_only=True):
    """One raw frame, numbered from 1 per direction, secrets masked: for whoever keeps a journal."""

    number: int
    direction: Literal["in", "out"]
    at: datetime
    text: str


class Entry(Action, frozen=True, kw_only=True):
    """A hit or exit. `frame` and `entry` are where it stood, `received_at` when its frame came."""

    condition: str
    seq: str
    code: str
    exchange: Exchange
    action: Literal["hit", "exit"]
    time: str | None
    received_at: datetime
    frame: int
    entry: int


class Snapshot(Action, frozen=True, kw_only=True):
    """All members of a condition, as of its request at `requested_at`.

    `ended_at` is set where the reply came so late that our CNSRCLR has gone before it: the moment after which nothing
    more may have been heard.
    """

    condition: str
    seq: str
    codes: tuple[str, ...]
    requested_at: datetime
    received_at: datetime
    frame: int
    ended_at: datetime | None = None


class Changed(Action, frozen=True, kw_only=True):
    """A subscription is in another state, or in the same for another cause."""

    condition: str
    state: State
    cause: str


class SessionChanged(Action, frozen=True, kw_only=True):
    """The session as a whole is in another state."""

    state: SessionState
    cause: str


class Audited(Action, frozen=True, kw_only=True):
    """What an audit of a condition came to.

    `agrees`: members and search are the same, as of `asked_at`. `dead`: the registration is gone, `missed`: it speaks,
    but something was not heard; either is made anew. `refuted`: it was not gone after all, search and registration
    differ for good in these stocks. `unsettled`: every look found another difference. `silent`: the search was not
    answered, `refused`: it was refused; both prove nothing.
    """

    condition: str
    outcome: Outcome
    cause: str = ""
    asked_at: datetime


class Doubted(Action, frozen=True, kw_only=True):
    """Something may have been missed: until `Audited` tells more, nothing that the condition says is a proof."""

    condition: str


class Listed(Action, frozen=True, kw_only=True):
    """The account's saved conditions as (seq, name), when they were first heard or have changed."""

    conditions: tuple[tuple[str, str], ...]


class MarketClock(Action, frozen=True, kw_only=True):
    """The market says where in its day it is: FID 215 (0 before the open, 3 open, 4 closed, 8, 9)."""

    state: str
    at: datetime


class Trades(Action, frozen=True, kw_only=True):
    """The trades of one frame, in its order."""

    trades: tuple[frames.TradeEntry, ...]
    received_at: datetime


class Priced(Action, frozen=True, kw_only=True):
    """Where the registrations for prices are now."""

    standing: Standing


class Pinged(Action, frozen=True, kw_only=True):
    """A PING came, and its echo has gone before."""


class Ignored(Action, frozen=True, kw_only=True):
    """Something came that changes nothing; `reason` is one of a fixed set of words, to be counted."""

    reason: str
    count: int = 1


class Notice(Action, frozen=True, kw_only=True):
    """A SYSTEM message that does not end the connection, to be shown to people."""

    code: str
    message: str


class Over(Action, frozen=True, kw_only=True):
    """The connection is finished: close it. `why` decides what follows.

    `lost`: reconnect. `token`: reconnect with a new token. `refused`: LOGIN was refused for another reason.
    `displaced`: another login took the app key; never reconnect by itself. `stopped`: we said goodbye.
    `condition` names the one whose silence cost the connection.
    """

    why: Literal["lost", "token", "refused", "displaced", "stopped"]
    cause: str
    condition: str = ""


# What only tells: these actions leave every wait of the machine as it was.
_TELLING: Final = frozenset({Traced, Entry, Trades, Ignored, MarketClock})

# --- the machine ------------------------------------------------------------------------------------------------------

# What a subscription is waiting for:
#   list      the next CNSRLST reply, and then to be requested
#   queued    its CNSRREQ to be sent
#   reply     the answer to its CNSRREQ
#   clearing  its CNSRCLR to be sent, after which its CNSRREQ is queued
#   probe     the next CNSRLST reply, which tells a deaf connection from a deaf condition
#   rest      nothing (live), or `again_at`
_Step = Literal["list", "queued", "reply", "clearing", "probe", "rest"]


@dataclass(slots=True)
class _Subscription:
    name: str
    wanted_seq: str
    seq: str = ""
    state: State = "disconnected"
    cause: str = ""
    step: _Step = "list"
    silent: int = 0
    refusals: int = 0
    requested: Moment | None = None
    reply_by: float | None = None
    again_at: float | None = None
    # CNSRREQs sent and not answered; while there is one, `since_request` remembers what was published since the last.
    # Once another has been answered, they are forgotten after a while: no search is sent before.
    outstanding: int = 0
    forget_at: float | None = None
    since_request: dict[str, str] = field(default_factory=dict)
    registered: bool = False
    cleared_at: datetime | None = None
    held: list[Entry] = field(default_factory=list)
    absent: bool = False
    # What is compared in an audit, when the condition last said something, when it was last known to have missed
    # nothing that lasts, and when the next look is due.
    audit: Audit = field(default_factory=Audit)
    spoke: Moment | None = None
    sound: Moment | None = None
    settled_at: float = 0.0
    audit_at: float | None = None
    # Requested anew because searches come to nothing: the snapshot is the look.
    comparing: bool = False


@dataclass(slots=True)
class _Outgoing:
    kind: Literal["list", "request", "clear", "aside", "search", "clock"]
    name: str = ""
    seq: str = ""
    not_before: float = 0.0
    text: str = ""


@dataclass(slots=True)
class _Search:
    """An audit's one-shot search that has been sent: what of the answer is there, and until when the rest must be."""

    subscription: _Subscription
    asked: Moment
    reply_by: float
    codes: set[str] = field(default_factory=set)
    pages: int = 0
    next_key: str = ""


class Session:
    """One connection, from LOGIN to its end.

    Args:
        wanted: at most `MAX_CONDITIONS` conditions, each name once.
        token: raw access token; masked in everything that is traced, and in what Kiwoom says.
        patient: conditions that have already cost a connection by their silence, and shall not cost another one while
            others are live.
        trading: whether the market trades at a moment; nothing is audited outside.
        market_clock: ask for the market clock (`0s`) once the conditions have been requested.
        prices: most codes that are registered for prices at any moment.
    """

    def __init__(
        self,
        wanted: Iterable[Wanted],
        *,
        token: str,
        stex_tp: Literal["K", "N", "A", ""] = "K",
        timing: Timing | None = None,
        patient: frozenset[str] = frozenset(),
        trading: Callable[[datetime], bool] = lambda _: True,
        market_clock: bool = False,
        prices: int = MAX_CODES,
    ) -> None:
        self._subscriptions = {w.name: _Subscription(w.name, w.seq) for w in wanted}
        self._token = token
        self._stex_tp = stex_tp
        self._timing = timing or Timing()
        self._patient = patient
        self._state: SessionState = "connecting"
        self._by_seq: dict[str, _Subscription] = {}
        self._known: dict[str, str] = {}
        self._queue: deque[_Outgoing] = deque()
        self._next_send = 0.0
        self._spacing = self._timing.send_spacing
        self._login_by: float | None = None
        self._list_by: float | None = None
        self._list_failures = 0
        self._ping_by: float | None = None
        self._list_again_at: float | None = None
        self._leaving_by: float | None = None
        self._unconfirmed: set[str] = set()
        # (seq, search_type, moment) of CNSRREQs that others asked for: their replies are not ours.
        self._asides: list[tuple[str, str, float]] = []
        self._trading = trading
        self._market_clock = market_clock
        self._clock_asked = False
        self._clock_by = 0.0
        # Of all codes that Kiwoom takes, the market clock may count as one.
        self._prices = Registrations(
            limit=min(prices, MAX_CODES - market_clock),
            suffix=_SUFFIXES.get(stex_tp, ""),
            spacing=max(self._timing.price_spacing, self._timing.send_spacing),
            reply_deadline=self._timing.reply_deadline,
            slow_down=self._timing.slow_down,
            renew=self._timing.price_renew,
        )
        self._pricing = False
        self._prices_after = 0.0
        self._trades: list[frames.TradeEntry] = []
        self._searches: dict[str, _Search] = {}
        # Searches that were given up, by seq: an answer may still come, and must not be taken for a snapshot.
        self._strays: dict[str, int] = {}
        # Until when such an answer may still come to a seq that is another condition's now: it is asked for after that.
        self._taken_until: dict[str, float] = {}
        # Searches in a row that came to nothing, and until when, if they are too many, none is sent; whether requests
        # that were made in their stead have been answered as they should.
        self._barren = 0
        self._barren_until = 0.0
        self._comparable = True
        self._answered = False
        self._leaving_as: tuple[State, str] = ("disconnected", "stopped")
        self.proved = False
        self._frames_in = 0
        self._frames_out = 0
        self._actions: list[Action] = []
        # The deadline as it was last worked out; None where something may have changed it since.
        self._due_at: float | None = None
        # Whether the last frame only told something: nothing is to be sent, and `deadline` is what it was.
        self.only_told = False
        self.over = False

    # -- inputs

    def opened(self, now: Moment) -> list[Action]:
        """The socket is open: LOGIN goes first."""
        self._ping_by = now.t + self._timing.ping_silence
        self._login_by = now.t + self._timing.login_deadline
        self._next_send = now.t + self._spacing
        self._enter("login", "")
        self._put(frames.LoginRequest(token=self._token).text(), now)
        return self._drain(now)

    def received(self, raw: bytes | str, now: Moment) -> list[Action]:
        """A frame came. Its actions begin with the echo if it was a PING."""
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        self._frames_in += 1
        frame = frames.decode(raw)
        if type(frame) is frames.Real and not self.over:
            # Most frames: entries of live conditions. Nothing was due before, and they make nothing due.
            self._trace("in", self._frames_in, text, now)
            self._handle(frame, now)
            self.only_told = self._still(now)
            return self._take() if self.only_told else self._drain(now)
        self.only_told = False
        if isinstance(frame, frames.Ping) and not self.over:
            self._put(text, now)
        self._trace("in", self._frames_in, text, now)
        if isinstance(frame, frames.Reply | frames.System) and self._token and self._token in frame.message:
            frame = msgspec.structs.replace(frame, message=masked(frame.message, self._token))
        if self.over:
            self._ignore_late(frame)
        else:
            self._handle(frame, now)
        return self._drain(now)

    def _still(self, now: Moment) -> bool:
        """Whether nothing is due, and the actions at hand have changed no wait."""
        if self._due_at is None or now.t >= self._due_at:
            return False
        return _TELLING.issuperset(map(type, self._actions))

    def passed_over(self, frames: int) -> None:
        """So many frames were received that are not at hand (a journal leaves prices out): the next has its number."""
        self._frames_in += frames

    def tick(self, now: Moment) -> list[Action]:
        """Time has passed; due when `deadline` says so, harmless at any other moment."""
        return self._drain(now)

    def clear(self, now: Moment, state: State = "disconnected", cause: str = "stopped") -> list[Action]:
        """We want to leave: CNSRCLR for everything that was requested, then `Over`.

        `state` and `cause` are what is said of the conditions from then on.
        """
        if self.over or self._leaving_by is not None:
            return self._drain(now)
        self._leaving_as = (state, cause)
        self._queue.clear()
        self._searches.clear()
        self._leaving_by = now.t + self._timing.goodbye
        self._list_again_at = None
        for subscription in self._subscriptions.values():
            self._release(subscription)
            subscription.step, subscription.reply_by, subscription.again_at = "rest", None, None
            subscription.audit_at = None
            if subscription.registered:
                self._queue.append(_Outgoing("clear", subscription.name, subscription.seq))
        return self._drain(now)

    def ask(self, text: str, now: Moment) -> list[Action]:
        """Send a request of somebody else's (a search, a diagnosis) among ours, as paced as ours.

        Whoever asks finds the answer in what is `Traced`; no reply to it is taken for one to ours. Nothing is sent
        before the list of conditions was asked for, nor once the session ends: `asking` says whether it would be.
        """
        if self.asking:
            self._queue.append(_Outgoing("aside", text=text))
        return self._drain(now)

    def price(self, codes: Sequence[str], now: Moment) -> list[Action]:
        """Have the trades of these codes told, the most important first, and of no others any more.

        Nothing is asked for before every condition has been requested, nor once the session ends.
        """
        self._pricing = True
        self._prices.want(codes)
        self._actions.append(Priced(standing=self._prices.standing))
        return self._drain(now)

    @property
    def asking(self) -> bool:
        """Whether somebody else's request would be sent."""
        return self._sending and self._leaving_by is None

    def registered(self, seq: str) -> bool:
        """Whether the condition of this number is one of ours, and registered."""
        return (subscription := self._by_seq.get(seq)) is not None and subscription.registered

    def closed(self, cause: str, now: Moment) -> list[Action]:
        """The connection is gone."""
        if self._leaving_by is not None:
            self._end("stopped", self._leaving_as[1])
        else:
            self._end("lost", cause)
        return self._take()

    @property
    def deadline(self) -> float | None:
        """The moment (`Moment.t`) at which `tick` is due; None if nothing is waited for."""
        if self.over:
            return None
        if self._due_at is None:
            self._due_at = self._first_wait()
        return None if self._due_at == math.inf else self._due_at

    def _first_wait(self) -> float:
        waits = [self._login_by, self._list_by, self._ping_by, self._list_again_at, self._leaving_by]
        if self._leaving_by is None:  # While leaving, `_due` gives up nothing of these.
            for subscription in self._subscriptions.values():
                waits += (subscription.reply_by, subscription.again_at, subscription.audit_at, subscription.forget_at)
            waits += (search.reply_by for search in self._searches.values())
            waits += (asked + _LATEST for _, _, asked in self._asides)
            waits.append(self._prices.reply_by)
        if self._sending and (sendable := [item.not_before for item in self._queue if not self._blocked(item)]):
            waits.append(max(self._next_send, min(sendable)))
        if self._pricing and (ready_at := self._prices.ready_at) is not None and (free := self._free_at()) is not None:
            waits.append(max(ready_at, free))
        return min((wait for wait in waits if wait is not None), default=math.inf)

    @property
    def live(self) -> bool:
        """Whether at least one condition is live on this connection."""
        return any(s.state == "live" for s in self._subscriptions.values())

    # -- frames

    def _handle(self, frame: frames.Received, now: Moment) -> None:
        match frame:
            case frames.Real():
                for number, entry in enumerate(frame.entries, start=1):
                    self._entry(entry, number, now)
                if self._trades:
                    self._actions.append(Trades(trades=tuple(self._trades), received_at=now.at))
                    self._trades.clear()
            case frames.Ping():
                self._ping_by = now.t + self._timing.ping_silence
                self._actions.append(Pinged())
                self.proved = self.proved or self._answered
            case frames.ConditionReply():
                self._condition_reply(frame, now)
            case frames.ListReply():
                self._list_reply(frame, now)
            case frames.LoginReply():
                self._login_reply(frame, now)
            case frames.System():
                self._system(frame)
            case frames.ClearReply():
                self._clear_reply(frame)
            case frames.RegisterReply():
                self._register_reply(frame, now)
            case frames.Unreadable(reason=reason):
                self._ignore(reason)

    def _ignore_late(self, frame: frames.Received) -> None:
        self._ignore("session-over", len(frame.entries) if isinstance(frame, frames.Real) else 1)

    def _login_reply(self, reply: frames.LoginReply, now: Moment) -> None:
        if self._state != "login":
            self._ignore("unasked-reply")
            return
        if reply.code != 0:
            stale = {str(reply.code), embedded_code(reply.message)} & STALE_TOKEN
            self._end("token" if stale else "refused", f"LOGIN was refused: {reply.message or reply.code}")
            return
        self._login_by = None
        self._next_send = max(self._next_send, now.t + self._timing.login_pause)
        self._enter("listing", "")
        for subscription in self._subscriptions.values():
            self._change(subscription, "listing", "")
        self._ask_list()

    def _system(self, notice: frames.System) -> None:
        said = f"{notice.code} {notice.message}".strip()
        match notice.code:
            case "R10001":
                self._end("displaced", said)
            case "R10002" | "R10004":
                self._end("lost", said)
            case _:
                self._actions.append(Notice(code=notice.code, message=notice.message))

    def _list_reply(self, reply: frames.ListReply, now: Moment) -> None:
        # Late, or nobody asked: a list is a list – unless we have not logged in, or are leaving.
        if not self._sending or self._leaving_by is not None:
            self._ignore("unasked-reply")
            return
        self._list_by = None
        if reply.code != 0 or not reply.complete:
            self._list_failures += 1
            cause = reply.message or "the list of conditions was unreadable"
            if self._list_failures >= self._timing.tries:
                self._end("lost", f"CNSRLST was refused {self._list_failures} times: {cause}")
            else:
                self._ask_list(now.t + self._timing.slow_down)
            return
        self._list_failures = 0
        known = {seq: _same(name) for seq, name in reply.conditions}
        first = self._state != "live"
        if first or known != self._known:
            self._actions.append(Listed(conditions=reply.conditions))
        self._known = known
        if first:
            self._enter("live", "")
        self._list_again_at = now.t + self._timing.list_again
        for subscription in self._subscriptions.values():
            self._resolve(subscription, reply.conditions, now)
            if self.over:
                return
        self._by_seq = {s.seq: s for s in self._subscriptions.values() if s.seq}
        if first and self._market_clock:
            self._queue.append(_Outgoing("clock", not_before=now.t + self._timing.slow_down))
        self._judge_answers()

    def _resolve(self, subscription: _Subscription, conditions: Sequence[tuple[str, str]], now: Moment) -> None:
        """Find a condition's seq in a list that just came, and go on from there."""
        name, wanted = _same(subscription.name), subscription.wanted_seq
        found = [seq for seq, title in conditions if _same(title) == name and wanted in ("", seq)]
        if len(found) != 1:
            self._unresolved(subscription, conditions, found, now)
            return
        (seq,) = found
        subscription.absent = False
        moved = subscription.seq not in ("", seq)
        if moved:
            # The user has edited the list in the HTS: the number now means another condition.
            self._withdraw(subscription)
        subscription.seq = seq
        if moved or subscription.step == "list":
            if moved:
                self._change(subscription, "listing", f"its number changed to {seq}")
            self._request(subscription)
        elif subscription.step == "probe":
            self._after_probe(subscription, now)

    def _unresolved(
        self, subscription: _Subscription, conditions: Sequence[tuple[str, str]], found: list[str], now: Moment
    ) -> None:
        if not (found or subscription.absent) and subscription.registered and subscription.seq not in self._known:
            # A list may be incomplete for once: what is registered is given up only when a second one lacks it too –
            # or at once when its number is another condition's.
            subscription.absent = True
            if subscription.step == "probe":
                self._request_anew(subscription)
            self._list_again_at = min(self._list_again_at or now.t, now.t + self._timing.slow_down)
            return
        subscription.absent = False
        self._withdraw(subscription)
        wanted = subscription.wanted_seq
        if found:
            numbers = ", ".join(found)
            self._change(
                subscription,
                "refused",
                f"the account has {len(found)} conditions named {subscription.name} (seq {numbers}):"
                " set seq to say which one is meant",
            )
        elif wanted and (title := self._known.get(wanted)):
            self._change(
                subscription,
                "missing",
                f"seq {wanted} is now {title}, not {subscription.name}: correct seq or leave it out",
            )
        else:
            names = ", ".join(title for _, title in conditions) or "none"
            self._change(
                subscription,
                "missing",
                f"the account has no condition {subscription.name} with seq {wanted}; it has: {names}"
                if wanted
                else f"the account has no condition named {subscription.name}; it has: {names}",
            )
        subscription.seq = ""
        subscription.step = "list"
        self._list_again_at = min(self._list_again_at or now.t, now.t + self._timing.ask_again)

    def _condition_reply(self, reply: frames.ConditionReply, now: Moment) -> None:
        if self._answers_search(reply, now) or self._answers_aside(reply, now):
            return
        subscription = self._addressee(reply)
        if reply.code == _TOO_MANY:
            self._spacing = min(max(self._spacing * 2, self._timing.send_spacing), self._timing.slow_down)
        if subscription is None or not subscription.outstanding or self._leaving_by is not None:
            self._ignore("unasked-reply")
            return
        subscription.outstanding -= 1
        if reply.discarded:
            self._ignore("bad-code", reply.discarded)
        if reply.code == 0 and reply.complete:
            self._snapshot(subscription, reply, now)
        elif reply.code in (0, None):
            self._ignore("unreadable-reply")
            if subscription.step == "reply":
                self._silence(subscription, "the reply to CNSRREQ was incomplete", now)
        elif subscription.step == "reply":
            self._refusal(subscription, reply, now)
        else:
            # A refusal of a try that has been given up; the next one is on its way.
            self._ignore("late-refusal")

    def _answers_aside(self, reply: frames.ConditionReply, now: Moment) -> bool:
        """Whether a reply is to somebody else's request; where it could be to either, ours comes first."""
        ours = (s := self._by_seq.get(reply.seq)) is not None and s.outstanding > 0
        for aside in self._asides:
            seq, search_type, _ = aside
            if seq == reply.seq and (reply.search_type == search_type or (not reply.search_type and not ours)):
                if search_type == "1" and ours:
                    return False
                self._asides.remove(aside)
                own = self._by_seq.get(seq)
                if search_type == "1" and reply.code == 0 and own is not None and own.state == "live":
                    # Accepted as new: our registration was gone, and nobody had said so.
                    self._change(own, "requested", "its registration was lost")
                    self._request_anew(own)
                return True
        return False

    def _addressee(self, reply: frames.ConditionReply) -> _Subscription | None:
        """Whom a reply is for: by its seq, never by position.

        Only a refusal without any seq may go to the one that waits, if it is alone.
        """
        if reply.seq:
            return self._by_seq.get(reply.seq)
        waiting = [s for s in self._subscriptions.values() if s.step == "reply"]
        return waiting[0] if reply.code and len(waiting) == 1 and not self._searches else None

    def _snapshot(self, subscription: _Subscription, reply: frames.ConditionReply, now: Moment) -> None:
        assert subscription.requested is not None
        codes = dict.fromkeys(member.code for member in reply.members)
        # What was published since the request stands in the log before this snapshot, so the snapshot has to know it.
        # (In the common case nothing was: entries since the request are still held, and follow.)
        for code, action in subscription.since_request.items():
            if action == "hit":
                codes[code] = None
            else:
                codes.pop(code, None)
        if subscription.comparing and subscription.step == "reply":
            self._compared(subscription, codes, now)
        self._actions.append(
            Snapshot(
                condition=subscription.name,
                seq=subscription.seq,
                codes=tuple(codes),
                requested_at=subscription.requested.at,
                received_at=now.at,
                frame=self._frames_in,
                ended_at=None if subscription.registered else subscription.cleared_at,
            )
        )
        if wrong := subscription.audit.snapshot(codes):
            cause = f"the search and the registration differ for good: {audit.told(wrong)}"
            self._audited(subscription, "refuted", cause, now)
        self._release(subscription)
        subscription.forget_at = now.t + _LATEST if subscription.outstanding else None
        if not subscription.outstanding:
            subscription.since_request.clear()
        if subscription.step in ("clearing", "queued") and not subscription.registered:
            return  # Late: our CNSRCLR has gone and ended what this reply began, and the next CNSRREQ is on its way.
        self._drop_queued(subscription)
        self._settle(subscription, "live", "")
        subscription.registered = True
        subscription.silent = subscription.refusals = 0
        subscription.spoke = subscription.sound = now
        subscription.settled_at = now.t + _SETTLING
        subscription.audit_at = now.t + self._timing.audit_after
        self._judge_answers()

    def _refusal(self, subscription: _Subscription, reply: frames.ConditionReply, now: Moment) -> None:
        self._release(subscription)
        self._uncompared(subscription)
        subscription.reply_by = None
        subscription.silent = 0
        subscription.refusals += 1
        said = f"{reply.code} {reply.message}".strip()
        once = subscription.refusals == 1
        if reply.code == _REGISTERED and once:
            self._change(subscription, "requested", said)
            self._request_anew(subscription)
        elif reply.code == _UNKNOWN_SEQ and once:
            self._change(subscription, "listing", said)
            subscription.registered = False
            subscription.step = "list"
            self._ask_list()
        elif reply.code == _TOO_MANY and subscription.refusals < self._timing.tries:
            self._change(subscription, "requested", said)
            subscription.registered = False
            self._request(subscription, now.t + self._timing.slow_down)
        else:
            if reply.code != _REGISTERED:
                subscription.registered = False
            self._settle(subscription, "refused", said, now.t + self._timing.ask_again)
            self._judge_answers()

    def _silence(self, subscription: _Subscription, cause: str, now: Moment) -> None:
        """A CNSRREQ was not answered in time – which does not say that it was not heard."""
        self._release(subscription)
        self._uncompared(subscription)
        subscription.reply_by = None
        subscription.silent += 1
        tries = self._timing.tries
        self._change(subscription, "unanswered", f"{cause} (try {min(subscription.silent, tries)} of {tries})")
        if subscription.silent < tries:
            self._request_anew(subscription)
        else:
            subscription.step = "probe"
            self._ask_list()

    def _after_probe(self, subscription: _Subscription, now: Moment) -> None:
        """CNSRLST was answered, the condition was not: a new connection – but not twice at the others' expense."""
        if subscription.name in self._patient and self.live:
            subscription.silent = self._timing.tries - 1
            cause = "CNSRREQ is not answered, though the list and other conditions are: is this condition too wide?"
            self._settle(subscription, "unanswered", cause, now.t + self._timing.ask_again)
            return
        self._end("lost", f"{subscription.name}: {self._timing.tries} CNSRREQs were not answered", subscription.name)

    def _clear_reply(self, reply: frames.ClearReply) -> None:
        self._unconfirmed.discard(reply.seq)
        if reply.code != 0:
            self._ignore("clear-refused")

    def _register_reply(self, reply: frames.RegisterReply, now: Moment) -> None:
        """An answer that names nothing: there is one REG or REMOVE on its way at a time, of prices or of the clock."""
        if not self._clock_waiting(now) and self._prices.reply(reply, now.t):
            if reply.code != 0:
                self._ignore("register-refused")
            self._actions.append(Priced(standing=self._prices.standing))
            return
        if reply.trnm != "REG" or not self._clock_asked:
            self._ignore("unasked-reply")
            return
        self._clock_asked = False
        if reply.code != 0:
            self._ignore("register-refused")
            if self._leaving_by is None:
                self._queue.append(_Outgoing("clock", not_before=now.t + self._timing.ask_again))

    # -- entries

    def _entry(self, entry: frames.Entry, number: int, now: Moment) -> None:
        match entry:
            case frames.ConditionEntry():
                seq = entry.seq
                subscription = self._by_seq.get(seq)
                if subscription is None:
                    self._ignore("not-subscribed" if seq in self._known else "unknown-seq")
                    return
                said = Entry(
                    condition=subscription.name,
                    seq=seq,
                    code=entry.code,
                    exchange=entry.exchange,
                    action=entry.action,
                    time=entry.time,
                    received_at=now.at,
                    frame=self._frames_in,
                    entry=number,
                )
                if subscription.step == "reply":
                    subscription.held.append(said)
                else:
                    self._say(subscription, said, now)
                if subscription.state == "live":
                    subscription.spoke = now
            case frames.TradeEntry(code=code) if self._pricing:
                if self._prices.traded(code, now.t):
                    self._due_at = None
                self._trades.append(entry)
            case frames.Discarded(reason=reason):
                self._ignore(reason)
            case frames.ClockEntry(state=state):
                self._actions.append(MarketClock(state=state, at=now.at))
            case _:
                self._ignore("other-type")

    def _say(self, subscription: _Subscription, entry: Entry, now: Moment | None = None) -> None:
        contradicts = subscription.audit.said(entry.code, entry.action, entry.time)
        if contradicts and now is not None and self._contradicted(subscription, now):
            cause = (
                f"missed: another hit of {entry.code}, which had not left"
                if entry.action == "hit"
                else f"missed: an exit of {entry.code}, which was not in"
            )
            subscription.audit.contradicted = True
            self._condemn(subscription, "missed", cause, now)
        self._actions.append(entry)
        if subscription.outstanding:
            subscription.since_request[entry.code] = entry.action

    def _release(self, subscription: _Subscription) -> None:
        held, subscription.held = subscription.held, []
        for entry in held:
            self._say(subscription, entry)

    # -- audits

    def _contradicted(self, subscription: _Subscription, now: Moment) -> bool:
        """Whether an entry that contradicts the one before proves that something between was not heard.

        Not right after a snapshot, which may know of it already, nor of two exchanges, of which each has its own.
        """
        settled = subscription.state == "live" and now.t >= subscription.settled_at
        return settled and self._stex_tp in ("K", "N") and self._trading(now.at)

    def _audit(self, subscription: _Subscription, now: Moment) -> None:
        """Take a look at a condition: by a search, or, where these come to nothing and it is quiet, by its snapshot."""
        subscription.audit_at = None
        if subscription.state != "live":
            return
        trading = self._trading(now.at)
        if not trading and (subscription.sound is None or not self._trading(subscription.sound.at)):
            # Nothing can have been missed; once the market has closed, one more look makes the day whole.
            subscription.audit_at = now.t + min(self._timing.ask_again, self._timing.audit_after)
        elif self._barren >= _BARREN and now.t < self._barren_until:
            quiet_at = (subscription.spoke or now).t + self._timing.audit_after
            if not trading:
                subscription.audit_at = self._barren_until
            elif now.t < quiet_at:
                subscription.audit_at = min(quiet_at, self._barren_until)
            elif not self._comparable:
                subscription.audit_at = now.t + self._timing.ask_again
            else:
                subscription.comparing = True
                self._change(subscription, "requested", "audited by a new request: searches come to nothing")
                self._request_anew(subscription)
        elif subscription.seq not in self._searches:
            self._barren_until = now.t + self._timing.ask_again  # One is enough to see whether searches are answered.
            self._queue.append(_Outgoing("search", seq=subscription.seq))

    def _answers_search(self, reply: frames.ConditionReply, now: Moment) -> bool:
        """Whether a reply is to an audit's search – also to one that was given up."""
        search = self._searches.get(reply.seq)
        if search is None and not reply.seq and reply.code and len(self._searches) == 1:
            waiting = any(s.step == "reply" for s in self._subscriptions.values())
            search = None if waiting else next(iter(self._searches.values()))
        if search is None:
            own = self._by_seq.get(reply.seq)
            ours = own is not None and own.outstanding > 0
            # What could be to either is to the request that waits: it says "nobody is in it", which both would.
            if self._strays.get(reply.seq) and (reply.search_type == "0" or not (reply.search_type or ours)):
                self._strays[reply.seq] -= 1
                self._ignore("late-search")
                return True
            return False
        if reply.search_type == "1":
            return False
        if reply.code == _TOO_MANY:
            self._spacing = min(max(self._spacing * 2, self._timing.send_spacing), self._timing.slow_down)
        if reply.code not in (0, None):
            self._fruitless(search, "refused", f"{reply.code} {reply.message}".strip(), now)
            return True
        search.codes |= {member.code for member in reply.members}
        search.pages += 1
        if reply.complete:
            self._looked(search, now)
        elif reply.next_key and reply.next_key != search.next_key and search.pages < _MOST_PAGES:
            search.next_key = reply.next_key
            search.reply_by = now.t + self._timing.search_deadline
            self._queue.append(_Outgoing("search", seq=search.subscription.seq))
        else:
            self._fruitless(search, "refused", "the search's answer was incomplete", now)
        return True

    def _looked(self, search: _Search, now: Moment) -> None:
        """Compare what a search has shown with the members."""
        subscription = search.subscription
        self._barren = 0
        self._drop_search(search)
        if subscription.state != "live":
            return  # It is requested anew for another reason, and its snapshot will tell.
        match subscription.audit.look(search.codes):
            case "agrees":
                subscription.sound = search.asked
                self._audited(subscription, "agrees", "", search.asked)
                subscription.audit_at = now.t + self._timing.audit_after
            case "again":
                self._actions.append(Doubted(condition=subscription.name))
                subscription.audit_at = now.t + self._timing.audit_again
            case "unsettled":
                cause = f"every look at it differed: {audit.told(subscription.audit.difference)}"
                self._audited(subscription, "unsettled", cause, search.asked)
                subscription.audit_at = now.t + self._timing.audit_after
            case "lasting":
                lasting = subscription.audit.suspected = subscription.audit.difference
                self._condemn(subscription, *self._charge(subscription, lasting, now), search.asked)

    def _charge(
        self, subscription: _Subscription, lasting: Difference, now: Moment
    ) -> tuple[Literal["dead", "missed"], str]:
        """What a difference that stays proves: of a condition that has said nothing since it was sound, its death."""
        spoke, sound = subscription.spoke or now, subscription.sound or now
        if spoke.t > sound.t:
            return "missed", f"missed: it speaks, but a search shows {audit.told(lasting)}"
        return "dead", f"dead: nothing said for {now.t - spoke.t:.0f} s while a search shows {audit.told(lasting)}"

    def _condemn(
        self, subscription: _Subscription, outcome: Literal["dead", "missed"], cause: str, asked: Moment
    ) -> None:
        cause += "; it is requested anew"
        self._audited(subscription, outcome, cause, asked)
        subscription.audit_at = None
        self._change(subscription, "requested", cause)
        self._request_anew(subscription)
        if outcome == "missed":
            # What one that speaks has missed, the others may have missed as well: they are looked at now.
            for other in self._subscriptions.values():
                if other.state == "live" and other.audit_at is not None:
                    self._actions.append(Doubted(condition=other.name))
                    other.audit_at = 0.0

    def _compared(self, subscription: _Subscription, codes: Collection[str], now: Moment) -> None:
        """The snapshot has come for which a quiet condition was requested anew, because searches come to nothing."""
        subscription.comparing = False
        cleared = subscription.cleared_at or now.at
        if lasting := subscription.audit.compare(codes):
            quiet = now.t - (subscription.spoke or now).t
            cause = f"dead: nothing said for {quiet:.0f} s while a new request shows {audit.told(lasting)}"
            self._actions.append(Audited(condition=subscription.name, outcome="dead", cause=cause, asked_at=cleared))
        else:
            self._actions.append(Audited(condition=subscription.name, outcome="agrees", asked_at=cleared))

    def _uncompared(self, subscription: _Subscription) -> None:
        """A request was not answered as it should: where it was made for an audit only, it is the last such."""
        self._comparable = self._comparable and not subscription.comparing
        subscription.comparing = False

    def _fruitless(self, search: _Search, outcome: Literal["silent", "refused"], cause: str, now: Moment) -> None:
        """A search has come to nothing: once more, or – if that is what searches do – in another way."""
        self._drop_search(search)
        self._barren += 1
        if search.subscription.state == "live":
            self._audited(search.subscription, outcome, cause, search.asked)
            search.subscription.audit.begin()
            search.subscription.audit_at = now.t + (self._timing.slow_down if outcome == "refused" else 0.0)

    def _audited(
        self,
        subscription: _Subscription,
        outcome: Outcome,
        cause: str,
        asked: Moment,
    ) -> None:
        self._actions.append(Audited(condition=subscription.name, outcome=outcome, cause=cause, asked_at=asked.at))

    def _drop_search(self, search: _Search) -> None:
        self._searches = {seq: other for seq, other in self._searches.items() if other is not search}
        self._queue = deque(i for i in self._queue if not (i.kind == "search" and i.seq == search.subscription.seq))

    def _give_up_search(self, search: _Search, now: Moment) -> None:
        """A search was not answered, which proves nothing about the condition – but what about the connection?"""
        seq = search.subscription.seq
        self._strays[seq] = self._strays.get(seq, 0) + 1
        cause = f"the search was not answered within {self._timing.search_deadline:g} s"
        self._fruitless(search, "silent", cause, now)
        self._ask_list()

    def _judge_answers(self) -> None:
        """Whether every condition has been answered on this connection, one way or the other."""
        self._answered = self._answered or all(
            s.state in ("live", "refused", "missing") for s in self._subscriptions.values()
        )

    # -- requests

    def _ask_list(self, not_before: float = 0.0) -> None:
        if self._list_by is None and not any(item.kind == "list" for item in self._queue):
            self._queue.append(_Outgoing("list", not_before=not_before))

    def _request(self, subscription: _Subscription, not_before: float = 0.0) -> None:
        subscription.step, subscription.again_at = "queued", None
        not_before = max(not_before, self._taken_until.get(subscription.seq, 0.0))
        self._queue.append(_Outgoing("request", subscription.name, subscription.seq, not_before))

    def _request_anew(self, subscription: _Subscription) -> None:
        subscription.step, subscription.again_at = "clearing", None
        self._queue.append(_Outgoing("clear", subscription.name, subscription.seq))

    def _withdraw(self, subscription: _Subscription) -> None:
        """Take back whatever was asked under the present seq.

        The CNSRCLR goes to the head of the queue: two conditions may have swapped their numbers, and then the clear of
        one must not end the new request of the other.
        """
        self._release(subscription)
        self._drop_queued(subscription)
        if subscription.registered:
            self._queue.appendleft(_Outgoing("clear", "", subscription.seq))
        subscription.reply_by = subscription.again_at = None
        subscription.registered, subscription.outstanding, subscription.forget_at = False, 0, None
        subscription.since_request.clear()
        subscription.audit_at, subscription.comparing = None, False
        if (search := self._searches.get(subscription.seq)) is not None:
            self._strays[subscription.seq] = self._strays.get(subscription.seq, 0) + 1
            self._taken_until[subscription.seq] = search.reply_by
            for item in self._queue:
                if item.kind == "request" and item.seq == subscription.seq:
                    item.not_before = max(item.not_before, search.reply_by)
            self._drop_search(search)

    def _drop_queued(self, subscription: _Subscription) -> None:
        self._queue = deque(item for item in self._queue if item.name != subscription.name)

    def _settle(self, subscription: _Subscription, state: State, cause: str, again_at: float | None = None) -> None:
        subscription.step, subscription.reply_by, subscription.again_at = "rest", None, again_at
        self._change(subscription, state, cause)

    @property
    def _sending(self) -> bool:
        return self._state in ("listing", "live") and not self.over

    def _blocked(self, item: _Outgoing) -> bool:
        """Whether an item has to wait for an answer, so that no answer of its seq could be to two requests."""
        match item.kind:
            case "search":
                subscription = self._by_seq.get(item.seq)
                return (
                    subscription is not None and (subscription.outstanding > 0 or subscription.step != "rest")
                ) or any(seq == item.seq for seq, _, _ in self._asides)
            case "request" | "clear":
                return item.seq in self._searches and self._leaving_by is None
            case "aside":
                return frames.request(item.text).seq in self._searches
            case "clock":
                return self._prices.waiting
            case _:
                return False

    def _pump(self, now: Moment) -> None:
        """Send what may be sent now. Paced: Kiwoom swallows what comes in a burst."""
        while self._sending and now.t >= self._next_send:
            ready = (item for item in self._queue if item.not_before <= now.t and not self._blocked(item))
            item = next(ready, None)
            if item is None:
                self._pump_prices(now)
                return
            self._queue.remove(item)
            if item.kind == "search" and not self._worth_looking(item.seq):
                continue
            self._next_send = now.t + self._spacing
            subscription = self._subscriptions.get(item.name)
            match item.kind:
                case "aside":
                    request = frames.request(item.text)
                    if request.trnm == "CNSRREQ":
                        self._asides.append((request.seq, request.search_type, now.t))
                    self._put(item.text, now)
                case "clock":
                    self._clock_asked = True
                    self._clock_by = now.t + self._timing.reply_deadline
                    items = frames.Items(item=[""], type=[frames.MARKET_CLOCK])
                    self._put(frames.RegisterRequest(grp_no=_CLOCK_GROUP, data=[items]).text(), now)
                case "search":
                    self._send_search(item.seq, now)
                case "list":
                    self._list_by = now.t + self._timing.list_deadline
                    self._put(frames.ListRequest().text(), now)
                case "clear":
                    if self._leaving_by is not None:
                        self._unconfirmed.add(item.seq)
                        if not self._queue:
                            self._leaving_by = min(self._leaving_by, now.t + self._timing.goodbye_reply)
                    elif subscription is not None:
                        self._request(subscription, now.t + self._timing.clear_pause)
                    if subscription is not None:
                        subscription.registered = False
                        subscription.cleared_at = now.at
                    self._put(frames.ClearRequest(seq=item.seq).text(), now)
                case "request":
                    assert subscription is not None
                    subscription.step = "reply"
                    subscription.requested = now
                    subscription.reply_by = now.t + self._patience(subscription)
                    subscription.registered = True
                    subscription.outstanding += 1
                    subscription.forget_at = None
                    subscription.since_request.clear()
                    if subscription.state not in ("refused", "unanswered"):
                        self._change(subscription, "requested", subscription.cause)
                    asked = frames.RealtimeRequest(seq=item.seq, search_type="1", stex_tp=self._stex_tp)
                    self._put(asked.text(), now)

    def _clock_waiting(self, now: Moment) -> bool:
        return self._clock_asked and now.t < self._clock_by

    def _free_at(self) -> float | None:
        """From when on a request for prices stands in nobody's way; None while that depends on something else.

        Conditions come first, and so does what is about to be sent: it would have to wait for the spacing.
        """
        if self._state != "live" or self.over or self._leaving_by is not None:
            return None
        if any(s.step in ("queued", "clearing", "reply") for s in self._subscriptions.values()):
            return None
        return max(self._next_send, self._prices_after, self._clock_by if self._clock_asked else 0.0)

    def _pump_prices(self, now: Moment) -> None:
        """Ask for prices, if the line is free and will be for as long as that keeps it."""
        if not self._pricing or (ready_at := self._prices.ready_at) is None or now.t < ready_at:
            return
        if (free := self._free_at()) is None or now.t < free:
            return
        soon = [i.not_before for i in self._queue if i.not_before < now.t + self._spacing and not self._blocked(i)]
        if soon:
            self._prices_after = max(soon)
            return
        limit = self._prices.limit
        request = self._prices.request(now.t, trading=self._trading(now.at))
        if self._prices.limit != limit:
            # A limit that was found has been believed for long enough.
            self._actions.append(Priced(standing=self._prices.standing))
        if request is not None:
            self._next_send = now.t + self._spacing
            self._put(request.text(), now)

    def _worth_looking(self, seq: str) -> bool:
        """Whether a search that was queued is still wanted: its condition lives, or some pages of it have come."""
        subscription = self._by_seq.get(seq)
        return subscription is not None and (seq in self._searches or subscription.state == "live")

    def _send_search(self, seq: str, now: Moment) -> None:
        subscription = self._by_seq[seq]
        search = self._searches.get(seq)
        if search is None:
            if not subscription.audit.looks:
                subscription.audit.begin()
            search = _Search(subscription, now, now.t + self._timing.search_deadline)
            self._searches[seq] = search
        more: Literal["Y", "N"] = "Y" if search.next_key else "N"
        request = frames.SearchRequest(seq=seq, stex_tp=self._stex_tp or "K", cont_yn=more, next_key=search.next_key)
        self._put(request.text(), now)

    def _patience(self, subscription: _Subscription) -> float:
        """How long a reply may take: longer at each try, so that a server that is only slow is not asked for ever."""
        return self._timing.reply_deadline * (1 + subscription.silent / 2)

    # -- time

    def _drain(self, now: Moment) -> list[Action]:
        """Do what has become due, then hand out everything that is to be done."""
        self._due_at = None
        if not self.over:
            self._due(now)
            self._pump(now)
            if self._leaving_by is not None and (
                _passed(self._leaving_by, now) or not (self._queue or self._unconfirmed)
            ):
                self._end("stopped", self._leaving_as[1])
        return self._take()

    def _due(self, now: Moment) -> None:
        if _passed(self._ping_by, now):
            self._end("lost", f"no PING for {self._timing.ping_silence:g} s")
        elif _passed(self._login_by, now):
            self._end("lost", f"LOGIN was not answered within {self._timing.login_deadline:g} s")
        elif _passed(self._list_by, now):
            self._end("lost", f"CNSRLST was not answered within {self._timing.list_deadline:g} s")
        if self.over or self._leaving_by is not None:
            return
        if self._pricing and self._prices.tick(now.t):
            self._ignore("register-unanswered")
            self._actions.append(Priced(standing=self._prices.standing))
        self._asides = [aside for aside in self._asides if now.t < aside[2] + _LATEST]
        if _passed(self._list_again_at, now):
            self._list_again_at = None
            self._ask_list()
        for search in [s for s in self._searches.values() if _passed(s.reply_by, now)]:
            self._give_up_search(search, now)
        # What was due first goes first: a tick that is late must do what those in time would have done.
        for subscription in sorted(self._subscriptions.values(), key=_first_due):
            if _passed(subscription.reply_by, now):
                cause = f"CNSRREQ was not answered within {self._patience(subscription):g} s"
                self._silence(subscription, cause, now)
            if _passed(subscription.forget_at, now):
                subscription.outstanding, subscription.forget_at = 0, None
                subscription.since_request.clear()
            if _passed(subscription.audit_at, now):
                self._audit(subscription, now)
            if _passed(subscription.again_at, now):
                if subscription.registered:
                    self._request_anew(subscription)
                else:
                    subscription.step, subscription.again_at = "list", None
                    self._ask_list()

    # -- out

    def _take(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _put(self, text: str, now: Moment) -> None:
        self._frames_out += 1
        self._actions.append(Send(text=text))
        self._trace("out", self._frames_out, text, now)

    def _trace(self, direction: Literal["in", "out"], number: int, text: str, now: Moment) -> None:
        self._actions.append(Traced(number=number, direction=direction, at=now.at, text=masked(text, self._token)))

    def _ignore(self, reason: str, count: int = 1) -> None:
        if count:
            self._actions.append(Ignored(reason=reason, count=count))

    def _enter(self, state: SessionState, cause: str) -> None:
        self._state = state
        self._actions.append(SessionChanged(state=state, cause=cause))

    def _change(self, subscription: _Subscription, state: State, cause: str) -> None:
        if (subscription.state, subscription.cause) != (state, cause):
            subscription.state, subscription.cause = state, cause
            self._actions.append(Changed(condition=subscription.name, state=state, cause=cause))

    def _end(
        self, why: Literal["lost", "token", "refused", "displaced", "stopped"], cause: str, condition: str = ""
    ) -> None:
        """The connection is finished. What was held is told first: it was received."""
        if self.over:
            return
        self.over = True
        self._queue.clear()
        self._searches.clear()
        state: State = "disconnected"
        session: SessionState
        match why:
            case "displaced":
                session = state = "displaced"
            case "stopped":
                state = self._leaving_as[0]
                session = "resting" if state == "resting" else "disconnected"
            case "token" | "refused":
                session = "refused"
            case _:
                session = "disconnected"
        for subscription in self._subscriptions.values():
            self._release(subscription)
            subscription.reply_by = subscription.again_at = subscription.audit_at = subscription.forget_at = None
            self._change(subscription, state, cause)
        self._enter(session, cause)
        self._actions.append(Over(why=why, cause=cause, condition=condition))


def _first_due(subscription: _Subscription) -> float:
    waits = (subscription.reply_by, subscription.again_at, subscription.audit_at, subscription.forget_at)
    return min((wait for wait in waits if wait is not None), default=math.inf)


def _passed(deadline: float | None, now: Moment) -> bool:
    return deadline is not None and now.t >= deadline


def _same(name: str) -> str:
    """A name as it is compared: a configuration typed on another system may compose Hangul differently."""
    return unicodedata.normalize("NFC", name.strip())
