"""The diagnosis: what is wrong between us and Kiwoom, from the evidence on the wire and from nothing else.

Pure: no socket, no clock, no await. `diagnose` is a generator. It yields what is to be done next – a `Step` – is sent
what came of it, and returns one `Verdict`; beside the steps it yields `Finding`s, which are only to be shown.
`examination` carries the steps out, over a connection of its own or over the running producer's; `verdicts` has the
words.

The one idea: a silence has a dozen causes that look alike, so **each experiment changes one thing** – the order, the
pace, the registration, the exchange, the condition, the kind of search, the connection – and the one after which
Kiwoom answers names the cause. What was tried and still not answered is ruled out, and stands in the verdict.

The causes carry the numbers of the list of causes in `docs/doctor.md`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec

from streams.events import Frame

from . import frames
from .errors import STALE_TOKEN, embedded_code

Stage = Literal["settings", "token", "connect", "login", "list", "request", "response", "events", "experiment"]

Cause = Literal[
    "healthy", "quiet", "ready",
    "settings", "token-refused", "maintenance", "rate-limited", "unreachable", "login-refused", "login-silent",
    "list-silent", "list-refused", "missing", "request-refused", "slow", "connection-lost", "connection-deaf",
    "registration-lost", "stream-dead",
    "no-list", "burst", "reply-not-taken", "registered-already", "stale-seq", "no-echo", "displaced", "closed-hours",
    "one-condition", "search-while-live", "no-stex-tp", "rights-withdrawn", "module-down", "realtime-down",
    "search-down", "reply-unreadable",
]  # fmt: skip

NUMBERS: Final[dict[Cause, int]] = {
    "no-list": 1, "burst": 2, "reply-not-taken": 3, "registered-already": 4, "stale-seq": 5, "no-echo": 6,
    "displaced": 6, "closed-hours": 7, "one-condition": 8, "search-while-live": 9, "no-stex-tp": 10,
    "rights-withdrawn": 11, "module-down": 12, "realtime-down": 12, "search-down": 12,
}  # fmt: skip
"""Where each cause of an unanswered request stands in the list of causes."""

GOOD: Final = frozenset({"healthy", "quiet", "ready"})
"""The verdicts that say that nothing is wrong."""

Sure = Literal["proved", "likely", "possible"]
Surer = Literal["", "fresh", "second-key", "in-hours"]
Fact = str | int | float

BURST: Final = 0.3
"""Seconds between two requests below which Kiwoom is known to swallow one."""

PROMPT: Final = 0.35
"""Seconds within which a reply normally comes; Kiwoom's take 0.05."""

RECENT: Final = 60.0
"""Seconds back to which a hit or exit shows that the stream lives now."""

AFTER_LOGIN: Final = 1.0
"""Seconds after the LOGIN reply within which a request counts as part of a burst."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong (`cause`), how sure that is, with which condition, and what else it could be (`also`).

    `number` is the cause's place in the list of causes, 0 if it is not there. `facts` fill the words of `verdicts`;
    `ruled_out` are the causes that experiments have excluded. `surer` names what would decide where this is not sure.
    """

    cause: Cause
    sure: Sure
    condition: str = ""
    number: int = 0
    also: tuple[Cause, ...] = ()
    ruled_out: tuple[Cause, ...] = ()
    surer: Surer = ""
    facts: dict[str, Fact] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found, to be shown as it comes. `ok` None: neither good nor bad."""

    stage: Stage
    ok: bool | None
    words: str
    facts: dict[str, Fact] = {}


# --- what is to be done -----------------------------------------------------------------------------------------------


class Token(msgspec.Struct, frozen=True):
    """Get the access token: of the second app key if `second`, and not the one we have if `renew`."""

    second: bool = False
    renew: bool = False


class Connect(msgspec.Struct, frozen=True):
    """Open a fresh connection, ending ours if there is one, and wait until it is open.

    Where the session is the running producer's, the producer does it, and logs in on it. `second`: with the second app
    key, beside whatever there is.
    """

    second: bool = False


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Send LOGIN and listen for its reply."""

    within: float


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Send a frame and listen until `answered` says that its reply has come, at most `within` seconds."""

    text: str
    within: float

    def answered(self, frame: frames.Received) -> bool:
        """Whether a frame is the reply."""
        return frames.answers(frames.request(self.text), frame)


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Only listen, for so many seconds; `until_event` ends it at the first hit or exit."""

    seconds: float
    until_event: bool = False


Step = Token | Connect | Login | Ask | Listen | Finding


class Seen(msgspec.Struct, frozen=True):
    """A frame that went by, at `t` in real seconds of the session's own time."""

    t: float
    direction: Literal["in", "out"]
    text: str

    @property
    def received(self) -> frames.Received | None:
        """It as something that we received; None if it was sent."""
        return frames.decode(self.text) if self.direction == "in" else None

    @property
    def asked(self) -> frames.Asked:
        """It as something that was sent; empty if it was received."""
        return frames.request(self.text) if self.direction == "out" else frames.Asked()


def seen(frame: Frame, speed: float = 1.0) -> Seen:
    """A frame as evidence; `speed` is that of the clock that stamped it."""
    return Seen(frame.at.timestamp() / speed, frame.direction, frame.text)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a step: the frames that went by, how long it took, and what failed.

    `error` is empty on success, else one of the causes; `message` and `code` are Kiwoom's own. `ended` says that the
    connection is gone. `refused` says that the step was not done, because the session is not ours.
    """

    frames: tuple[Seen, ...] = ()
    seconds: float = 0.0
    error: Cause | Literal[""] = ""
    message: str = ""
    code: str = ""
    ended: str = ""
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is known before the first step.

    Attributes:
        wanted: the configured conditions, as (name, seq or empty).
        only: the one condition asked about, by name; empty: all.
        stex_tp: the exchange that is configured.
        problems: what is wrong with the settings, in words.
        history: the frames of a session that is already there; empty: there is none yet.
        connected: whether that session can be asked; False: there is only its history.
        session: what its program says of a session that cannot be asked.
        borrowed: the session is the running producer's.
        fresh: whether the producer may be asked to end its session for a fresh connection: `free`, as no condition is
            live on it; `asked`, because somebody wants to know more than he minds a gap; else it is not asked.
        complaints: condition → the state in which its program holds it, where that is not live.
        hours: where the trading day is.
        up_to_list: stop after the list.
        second_key: a second app key of another login is at hand.
        members: condition → who the program knows to be in it.
        patience: real seconds to wait for a reply.
        observe: real seconds to wait for events.
        pause: real seconds that calm a session down.
    """

    wanted: tuple[tuple[str, str], ...] = ()
    only: str = ""
    stex_tp: str = "K"
    problems: tuple[str, ...] = ()
    history: tuple[Seen, ...] = ()
    connected: bool = True
    session: str = ""
    borrowed: bool = False
    fresh: Literal["", "asked", "free"] = ""
    complaints: dict[str, str] = field(default_factory=dict)
    hours: Literal["open", "before", "closed"] = "open"
    up_to_list: bool = False
    second_key: bool = False
    patience: float = 5.0
    observe: float = 20.0
    pause: float = 1.5


Diagnosis = Generator[Step, Outcome, Verdict]
_T = TypeVar("_T")
_Part = Generator[Step, Outcome, _T]


def diagnose(case: Case) -> Diagnosis:
    """Find what is wrong: yields steps and findings, is sent outcomes, returns the verdict."""
    doctor = _Doctor(case)
    try:
        return (yield from doctor.examine())
    except _Stop as stop:
        return doctor.signed(stop.verdict)


class _Stop(Exception):
    """The verdict is clear."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.cause)
        self.verdict = verdict


class _GivenUp(Exception):
    """The producer has ended the connection under us, as nothing was answered on it."""

    def __init__(self, suspect: Exchange, facts: dict[str, Fact]) -> None:
        super().__init__()
        self.suspect = suspect
        self.facts = facts


# --- reading a log ----------------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """A CNSRREQ and what came back.

    `gap` is the time to the request before it, `after_login` to the LOGIN reply; `listed` says whether a CNSRLST reply
    had come on this connection, `registered` whether its seq was already registered, `live` how many were.
    """

    asked: frames.Asked
    text: str
    t: float
    gap: float
    after_login: float
    listed: bool
    registered: bool
    live: int
    reply: frames.ConditionReply | None = None
    replied: float = 0.0

    @property
    def refused(self) -> int:
        """The code of the refusal; 0 if it was not refused."""
        return (self.reply.code or 0) if self.reply is not None else 0

    @property
    def hasty(self) -> bool:
        """Whether it was sent in a burst."""
        return self.gap < BURST or self.after_login < AFTER_LOGIN


def exchanges(log: Iterable[Seen]) -> list[Exchange]:
    """Every CNSRREQ of a connection, each with its reply: by seq and kind, never by position."""
    found: list[Exchange] = []
    registered: set[str] = set()
    listed = False
    last_out = login = -1e9
    for item in log:
        if item.direction == "out":
            asked = item.asked
            if asked.trnm == "CNSRREQ":
                found.append(
                    Exchange(
                        asked=asked,
                        text=item.text,
                        t=item.t,
                        gap=item.t - last_out,
                        after_login=item.t - login,
                        listed=listed,
                        registered=asked.seq.strip() in registered,
                        live=len(registered),
                    )
                )
            elif asked.trnm == "CNSRCLR":
                registered.discard(asked.seq.strip())
            if asked.trnm not in ("PING", ""):
                last_out = item.t
            continue
        match item.received:
            case frames.LoginReply(code=0):
                login = item.t
            case frames.ListReply(code=0):
                listed = True
            case frames.ConditionReply() as reply:
                waiting = [e for e in found if e.reply is None and frames.answers(e.asked, reply)]
                if waiting:
                    # Of two that were just sent, the older; one that has waited for long has been given up.
                    its = next((e for e in waiting if item.t - e.t < PROMPT), waiting[-1])
                    its.reply, its.replied = reply, item.t
                    if reply.code == 0 and its.asked.search_type == "1":
                        registered.add(its.asked.seq.strip())
    return found


def events(log: Iterable[Seen]) -> dict[str, int]:
    """Hits and exits in a log, by seq."""
    counts: dict[str, int] = {}
    for item in log:
        match item.received:
            case frames.Real(entries=entries):
                for entry in entries:
                    if isinstance(entry, frames.ConditionEntry):
                        counts[entry.seq] = counts.get(entry.seq, 0) + 1
    return counts


def _realtime(seq: str, stex_tp: str) -> str:
    fields: dict[str, str] = {"trnm": "CNSRREQ", "seq": seq, "search_type": "1"}
    return msgspec.json.encode(fields | ({"stex_tp": stex_tp} if stex_tp else {})).decode()


def _search(seq: str) -> str:
    return frames.SearchRequest(seq=seq).text()


def _clear(seq: str) -> str:
    return frames.ClearRequest(seq=seq).text()


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


# --- the procedure ----------------------------------------------------------------------------------------------------


class _Doctor:
    """One examination: the log of the present connection, and what has been ruled out."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.log: list[Seen] = list(case.history)
        self.ended = ""
        # Whether the session is the producer's own, with all that is live on it. One that it lends us is not.
        self.borrowed = case.borrowed
        self.conditions: dict[str, str] = {}  # seq → name, from the last list
        self.ruled_out: list[Cause] = []
        self.members: dict[str, set[str]] = {}
        self.waited = 0.0  # Seconds that the steps have taken together.

    def signed(self, verdict: Verdict) -> Verdict:
        """The verdict with its number and with what was ruled out."""
        left = tuple(cause for cause in dict.fromkeys(self.ruled_out) if cause not in (verdict.cause, *verdict.also))
        return msgspec.structs.replace(verdict, number=NUMBERS.get(verdict.cause, 0), ruled_out=left)

    def examine(self) -> Diagnosis:
        yield from self._settings()
        try:
            return (yield from self._stages())
        except _GivenUp as end:
            # Nothing is live any more, so a fresh connection costs nothing.
            yield Finding(stage="experiment", ok=None, words="given-up", facts=end.facts)
            yield from self._on_fresh(end.suspect)
            raise AssertionError("the experiments end with a verdict") from None

    def _stages(self) -> Diagnosis:
        if self.case.history or self.case.borrowed:
            yield from self._read_history()
        elif self.case.connected:
            yield from self._begin()
        if not self.case.connected and self.borrowed == self.case.borrowed:
            yield from self._without_session()
        elif self.borrowed and self._sent("LOGIN") and _last(self.log, frames.ListReply) is None:
            yield from self._beginning()
        yield from self._list()
        if self.case.up_to_list:
            return self.signed(
                Verdict(cause="ready", sure="proved", facts={"conditions": len(self.conditions)}),
            )
        targets = self._targets()
        yield from self._requests(targets)
        return self.signed((yield from self._events(targets)))

    # -- the stages

    def _settings(self) -> _Part[None]:
        problems = self.case.problems
        facts: dict[str, Fact] = {"problems": "; ".join(problems), "conditions": len(self.case.wanted)}
        yield Finding(stage="settings", ok=not problems, words="settings-bad" if problems else "settings", facts=facts)
        if problems:
            raise _Stop(Verdict(cause="settings", sure="proved", facts=facts))

    def _begin(self) -> _Part[None]:
        """Token, connection, LOGIN: each a stage that can be the culprit."""
        outcome = yield Token()
        facts = self._facts(outcome)
        yield Finding(stage="token", ok=not outcome.error, words="token-bad" if outcome.error else "token", facts=facts)
        if outcome.error:
            raise _Stop(Verdict(cause=outcome.error, sure="proved", facts=facts))
        yield from self._log_in()

    def _without_session(self) -> _Part[None]:
        """There is nothing that could be asked. What do the last frames say, and is another session to be had?"""
        facts: dict[str, Fact] = {"message": self.case.session}
        yield Finding(stage="connect", ok=False, words="no-session" if self.borrowed else "record", facts=facts)
        if not self.borrowed:
            raise _Stop(Verdict(cause="connection-lost", sure="likely", facts=facts))
        outcome = yield Token()
        if not outcome.refused:
            told = self._facts(outcome)
            bad = bool(outcome.error)
            yield Finding(stage="token", ok=not bad, words="token-bad" if bad else "token", facts=told)
            if outcome.error:
                raise _Stop(Verdict(cause=outcome.error, sure="proved", facts=told))
        # The producer tries again and again: what it asks at this moment gets the time that any request is given.
        for waits in (self._waits_for_login, self._waits_for_list):
            if waits() and not self.ended:
                yield from self._do(Listen(seconds=self.case.patience))
        self._unanswered_beginning(facts)
        if not (yield from self._reconnect(facts)):
            raise _Stop(Verdict(cause="connection-lost", sure="likely", facts=facts))

    def _beginning(self) -> _Part[None]:
        """The producer has just logged in, and its CNSRLST may be unanswered yet: it gets the time that any request is
        given. One of ours beside it would be a race of two timers, the producer's to give the session up and ours."""
        yield from self._do(Listen(seconds=self.case.patience))
        self._unanswered_beginning({"message": self.case.session})

    def _unanswered_beginning(self, facts: dict[str, Fact]) -> None:
        """Stop where the log ends with a LOGIN that was refused, or a LOGIN or CNSRLST that was never answered."""
        login = _last(self.log, frames.LoginReply)
        if login is not None and login.code:
            raise _Stop(Verdict(cause="token-refused", sure="proved", facts=facts | _words_of(login)))
        if self._waits_for_login():
            raise _Stop(Verdict(cause="login-silent", sure="likely", facts=facts))
        if self._waits_for_list():
            raise _Stop(Verdict(cause="list-silent", sure="likely", facts=facts))

    def _waits_for_login(self) -> bool:
        return self._sent("LOGIN") and _last(self.log, frames.LoginReply) is None

    def _waits_for_list(self) -> bool:
        return self._sent("CNSRLST") and _last(self.log, frames.ListReply) is None

    def _sent(self, trnm: str) -> bool:
        return any(item.asked.trnm == trnm for item in self.log)

    def _log_in(self, *, shown: bool = True, renewed: bool = False, second: bool = False) -> _Part[bool]:
        """A fresh connection with LOGIN on it; False where the session is the producer's and it lends us none."""
        outcome = yield Connect(second=second)
        facts = self._facts(outcome)
        if outcome.refused:
            yield Finding(stage="experiment", ok=None, words="not-lent", facts=facts)
            return False
        if shown or outcome.error:
            yield Finding(
                stage="connect", ok=not outcome.error, words="connect-bad" if outcome.error else "connect", facts=facts
            )
        if outcome.error:
            raise _Stop(Verdict(cause="unreachable", sure="proved", facts=facts))
        self.log.clear()
        self.ended = ""
        self.borrowed = False
        outcome = yield from self._do(Login(within=2 * self.case.patience))
        facts = self._facts(outcome)
        reply = next((s.received for s in outcome.frames if isinstance(s.received, frames.LoginReply)), None)
        if isinstance(reply, frames.LoginReply) and reply.code == 0:
            if shown:
                yield Finding(stage="login", ok=True, words="login", facts=facts)
            yield from self._do(Listen(seconds=self.case.pause))
            return True
        if isinstance(reply, frames.LoginReply):
            facts |= _words_of(reply)
        words = "login-silent" if reply is None else "login-bad"
        yield Finding(stage="login", ok=False, words=words, facts=facts)
        if reply is None:
            self._watch_system()
            raise _Stop(Verdict(cause="login-silent", sure="proved", facts=facts))
        stale = str(facts["code"]) in STALE_TOKEN
        if stale and not renewed and not (yield Token(second=second, renew=True)).error:
            return (yield from self._log_in(shown=shown, renewed=True, second=second))
        raise _Stop(Verdict(cause="token-refused" if stale else "login-refused", sure="proved", facts=facts))

    def _list(self) -> _Part[None]:
        outcome = yield from self._do(Ask(text=frames.ListRequest().text(), within=self.case.patience))
        reply = _last(outcome.frames, frames.ListReply)
        facts = self._facts(outcome)
        if reply is None:
            yield Finding(stage="list", ok=False, words="list-silent", facts=facts)
            self._watch_system()
            raise _Stop(Verdict(cause="list-silent", sure="proved", facts=facts))
        facts |= {"count": len(reply.conditions), "message": reply.message, "code": reply.code or 0}
        if reply.code != 0:
            yield Finding(stage="list", ok=False, words="list-bad", facts=facts)
            raise _Stop(Verdict(cause="list-refused", sure="proved", facts=facts))
        self.conditions = dict(reply.conditions)
        facts["names"] = ", ".join(self.conditions.values())
        yield Finding(stage="list", ok=bool(self.conditions), words="list", facts=facts)
        if not self.conditions:
            raise _Stop(Verdict(cause="rights-withdrawn", sure="likely", facts=facts))
        for name, seq in self._asked_for():
            yield from self._resolve(name, seq, facts)

    def _resolve(self, name: str, seq: str, facts: dict[str, Fact]) -> _Part[None]:
        found = [number for number, title in self.conditions.items() if _same(title) == _same(name)]
        about: dict[str, Fact] = {**facts, "condition": name, "seq": seq, "found": ", ".join(found)}
        if not found:
            yield Finding(stage="list", ok=False, words="missing", facts=about)
            raise _Stop(Verdict(cause="missing", sure="proved", condition=name, facts=about))
        if seq and seq not in found:
            about["other"] = self.conditions.get(seq, "–")
            yield Finding(stage="list", ok=False, words="stale-seq", facts=about)
            raise _Stop(Verdict(cause="stale-seq", sure="proved", condition=name, facts=about))

    def _requests(self, targets: Sequence[str]) -> _Part[None]:
        """Ask for each condition. On a borrowed session nothing that is live is asked for again: a search is enough."""
        silent: list[Exchange] = []
        answered = 0
        for seq in targets:
            if len(silent) >= 2 and not answered:
                break  # Everything is silent: the experiments say more than further requests.
            text = _search(seq) if self.borrowed else _realtime(seq, self.case.stex_tp)
            exchange = yield from self._ask(text)
            if exchange.reply is None:
                silent.append(exchange)
                continue
            if exchange.refused:
                yield from self._refused(exchange)
            answered += 1
        if silent:
            yield from self._experiments(silent[0], answered=bool(answered))

    def _events(self, targets: Sequence[str]) -> Diagnosis:
        case = self.case
        asked = list(targets)
        before = events(item for item in self.log if item.t > self.log[-1].t - RECENT)
        if not any(before.get(seq) for seq in asked) and case.hours == "open":
            yield from self._do(Listen(seconds=case.observe, until_event=True))
        counts = events(item for item in self.log if item.t > self.log[-1].t - max(RECENT, case.observe))
        pings = sum(isinstance(item.received, frames.Ping) for item in self.log)
        heard = sum(counts.get(seq, 0) for seq in asked)
        name = case.only or (self.conditions[asked[0]] if len(asked) == 1 else "")
        facts: dict[str, Fact] = {
            "events": heard,
            "pings": pings,
            "seconds": round(case.observe, 1),
            "conditions": len(asked),
            "quiet": ", ".join(self.conditions[seq] for seq in asked if not counts.get(seq)),
            "condition": name,
        }
        if heard:
            yield Finding(stage="events", ok=True, words="events", facts=facts)
            return Verdict(cause="healthy", sure="proved", condition=name, facts=facts)
        yield Finding(stage="events", ok=None, words="no-events", facts=facts)
        yield from self._prove_quiet(asked, facts)
        sure: Sure = "proved" if case.hours == "open" else "likely"
        return Verdict(cause="quiet", sure=sure, condition=name, facts=facts)

    def _prove_quiet(self, targets: Sequence[str], facts: dict[str, Fact]) -> _Part[None]:
        """Tell quiet from deaf: the list still answers, what we registered still stands, and nobody moved unseen."""
        outcome = yield from self._do(Ask(text=frames.ListRequest().text(), within=self.case.patience))
        if _last(outcome.frames, frames.ListReply) is None:
            yield Finding(stage="experiment", ok=False, words="probe-silent", facts=facts)
            raise _Stop(Verdict(cause="connection-deaf", sure="proved", facts=facts))
        for seq in targets:
            about: dict[str, Fact] = {**facts, "condition": self.conditions[seq]}
            exchange = yield from self._ask(_realtime(seq, self.case.stex_tp), shown=False)
            if exchange.reply is not None and exchange.refused == 0 and not events(self.log).get(seq):
                yield Finding(stage="experiment", ok=False, words="not-registered", facts=about)
                raise _Stop(
                    Verdict(cause="registration-lost", sure="proved", condition=self.conditions[seq], facts=about)
                )
            word = "still-registered" if exchange.refused == _REGISTERED else "registration-unknown"
            yield Finding(stage="experiment", ok=True if exchange.refused else None, words=word, facts=about)
            if exchange.reply is None:
                break  # A server that leaves a repeat unanswered does so for each; that proves nothing.
        yield from self._compare(targets[0], facts)

    def _compare(self, seq: str, facts: dict[str, Fact]) -> _Part[None]:
        """Whether stocks came and went without an entry on the stream."""
        if self.borrowed or seq not in self.members:
            return
        first = yield from self._ask(_search(seq), shown=False)
        if first.reply is None or first.refused:
            return
        yield from self._do(Listen(seconds=self.case.pause))
        second = yield from self._ask(_search(seq), shown=False)
        if second.reply is None or second.refused or events(self.log).get(seq):
            return
        # What both searches say, and the stream did not: the one may have changed in this very second.
        now = {m.code for m in first.reply.members} & {m.code for m in second.reply.members}
        gone = self.members[seq] - {m.code for m in first.reply.members} - {m.code for m in second.reply.members}
        unseen = (now - self.members[seq]) | gone
        complete = first.reply.complete and second.reply.complete
        about: dict[str, Fact] = {**facts, "condition": self.conditions[seq], "count": len(unseen)}
        if unseen and complete:
            yield Finding(stage="experiment", ok=False, words="moved-unseen", facts=about)
            raise _Stop(Verdict(cause="stream-dead", sure="proved", condition=self.conditions[seq], facts=about))
        yield Finding(stage="experiment", ok=True, words="nobody-moved", facts=about)

    # -- a session that was there before us

    def _read_history(self) -> _Part[None]:
        """What the frames that have gone by say by themselves; then the experiments on what was not answered."""
        self._watch_system()
        known = exchanges(self.log)
        logged_in = any(isinstance(s.received, frames.LoginReply) and s.received.code == 0 for s in self.log)
        silent = [e for e in known if e.reply is None]
        listed = any(isinstance(s.received, frames.ListReply) for s in self.log)
        facts: dict[str, Fact] = {
            "frames": len(self.log),
            "requests": len(known),
            "silent": len(silent),
            "pings": sum(isinstance(s.received, frames.Ping) for s in self.log),
        }
        yield Finding(stage="login", ok=logged_in or None, words="history", facts=facts)
        for reply in (s.received for s in self.log):
            if isinstance(reply, frames.LoginReply) and reply.code:
                raise _Stop(Verdict(cause="token-refused", sure="proved", facts=facts | _words_of(reply)))
            if isinstance(reply, frames.ListReply) and reply.code == 0:
                self.conditions = dict(reply.conditions)
        yield from self._hold_against(known)
        last = self._last_of_each(known)
        for exchange in last.values():
            if exchange.refused:
                yield from self._refused(exchange)
        open_ones = [e for e in last.values() if e.reply is None]
        if self.borrowed and open_ones and not (old := self._waited_for(open_ones)):
            # Just sent: give it the time that any request is given.
            if not self.case.connected:
                return
            yield from self._do(Listen(seconds=self.case.patience))
            last = self._last_of_each(exchanges(self.log))
            open_ones = [e for e in last.values() if e.reply is None]
        elif self.borrowed and open_ones:
            open_ones = old
        if not open_ones:
            return
        suspect = open_ones[0]
        if not self.case.connected:
            if not self.case.borrowed:
                yield from self._from_history_alone(suspect, listed=listed)
            yield from self._without_session()
            yield from self._again_on_fresh(suspect)
            yield from self._one_by_one(suspect, answered=False)
        if not suspect.listed:
            yield from self._without_list(suspect)
        elif not self.conditions:
            return
        yield from self._experiments(suspect, answered=any(e.reply is not None for e in last.values()))

    def _last_of_each(self, known: Sequence[Exchange]) -> dict[tuple[str, str], Exchange]:
        """The last request of each condition and kind; of a producer's, who goes on by himself, only what he still
        complains of."""
        last = {(e.asked.seq, e.asked.search_type): e for e in known}
        if not self.borrowed:
            return last
        return {key: e for key, e in last.items() if key[1] == "1" and self._name(e) in self.case.complaints}

    def _waited_for(self, silent: Sequence[Exchange]) -> list[Exchange]:
        """Those whose answer has been waited for long enough, by this request or by one like it before."""
        end = self.log[-1].t
        known = [e for e in exchanges(self.log) if e.reply is None and end - e.t >= 0.9 * self.case.patience]
        asked = {(e.asked.seq, e.asked.search_type) for e in known}
        return [e for e in silent if (e.asked.seq, e.asked.search_type) in asked]

    def _hold_against(self, known: Sequence[Exchange]) -> _Part[None]:
        """What the program believes against what the wire says: a reply that came and was not taken."""
        for name, belief in self.case.complaints.items():
            if belief != "unanswered":
                continue
            numbers = {seq for seq, title in self.conditions.items() if _same(title) == _same(name)}
            mine = [e for e in known if e.asked.seq.strip() in numbers]
            reply = mine[-1].reply if mine else None
            if reply is not None and mine[-1].refused == 0:
                took = round(mine[-1].replied - mine[-1].t, 3)
                facts: dict[str, Fact] = {"condition": name, "belief": belief, "took": took, "seq": mine[-1].asked.seq}
                if not reply.complete:
                    yield Finding(stage="response", ok=False, words="reply-unreadable", facts=facts)
                    raise _Stop(Verdict(cause="reply-unreadable", sure="proved", condition=name, facts=facts))
                yield Finding(stage="response", ok=False, words="reply-in-log", facts=facts)
                raise _Stop(Verdict(cause="reply-not-taken", sure="proved", condition=name, facts=facts))

    def _from_history_alone(self, suspect: Exchange, *, listed: bool) -> _Part[None]:
        """No experiment is possible: the likeliest cause that the frames show."""
        facts = self._about(suspect)
        cause: Cause = "module-down"
        sure: Sure = "possible"
        if not listed or not suspect.listed:
            cause, sure = "no-list", "likely"
        elif suspect.registered and suspect.asked.search_type == "1":
            cause, sure = "registered-already", "likely"
        elif suspect.hasty:
            cause, sure = "burst", "likely"
        elif suspect.asked.seq not in self.conditions:
            cause, sure = "stale-seq", "likely"
        elif any(e.reply is not None for e in exchanges(self.log) if e.asked.seq != suspect.asked.seq):
            cause, sure = "one-condition", "likely"
        yield Finding(stage="response", ok=False, words="silent", facts=facts)
        also: tuple[Cause, ...] = ("rights-withdrawn",) if cause == "module-down" else ()
        raise _Stop(Verdict(cause=cause, sure=sure, condition=self._name(suspect), also=also, facts=facts))

    def _without_list(self, suspect: Exchange) -> _Part[None]:
        """Cause 1: ask for the list, then ask again."""
        yield Finding(stage="list", ok=False, words="never-listed", facts=self._about(suspect))
        yield from self._list()
        again = yield from self._again(suspect, "after-list")
        if again is not None:
            raise _Stop(self._named("no-list", suspect, again))
        self.ruled_out.append("no-list")

    # -- the experiments

    def _experiments(self, suspect: Exchange, *, answered: bool) -> _Part[None]:
        """A request was not answered: change one thing at a time until it is."""
        self._watch_system()
        name = self._name(suspect)
        facts = self._about(suspect)
        yield Finding(stage="response", ok=False, words="silent", facts=facts)
        seq = suspect.asked.seq
        if self.conditions and seq not in self.conditions:
            facts["padded"] = seq.strip() if seq.strip() in self.conditions else ""
            raise _Stop(Verdict(cause="stale-seq", sure="proved", condition=name, facts=facts))
        self.ruled_out += ["no-list", "reply-not-taken", "stale-seq", "no-echo", "displaced"]

        # 1. Once more, calmly: pace, or a reply that was only slow.
        outcome = yield from self._do(Listen(seconds=self.case.pause))
        if (late := _first_reply(outcome.frames, suspect.asked)) is not None and late.code == 0:
            raise _Stop(Verdict(cause="slow", sure="proved", condition=name, facts=facts))
        again = yield from self._again(suspect, "calmly")
        if again is not None:
            raise _Stop(self._named("burst", suspect, again, sure="proved" if suspect.hasty else "likely"))
        self.ruled_out.append("burst")
        if self.borrowed and self.case.fresh == "free":
            yield from self._on_fresh(suspect)
        yield from self._one_by_one(suspect, answered=answered)

    def _on_fresh(self, suspect: Exchange) -> _Part[None]:
        """Go on with the experiments over a fresh connection, where anything may be tried: nothing is live on it."""
        if not (yield from self._reconnect(self._about(suspect))):
            if self.ended:
                raise _Stop(self._nothing_answers(self._about(suspect)))
            return
        yield from self._again_on_fresh(suspect)
        yield from self._one_by_one(suspect, answered=False)

    def _again_on_fresh(self, suspect: Exchange) -> _Part[None]:
        again = yield from self._again(suspect, "fresh-connection")
        if again is not None:
            raise _Stop(self._named("connection-deaf", suspect, again))
        self.ruled_out.append("connection-deaf")

    def _one_by_one(self, suspect: Exchange, *, answered: bool) -> _Part[None]:
        """The experiments that change the request."""
        name, facts, seq = self._name(suspect), self._about(suspect), suspect.asked.seq
        # 2. Without the registration that may be there.
        realtime = suspect.asked.search_type != "0"
        if realtime:
            yield from self._do(Ask(text=_clear(seq), within=min(1.0, self.case.patience)))
            yield from self._do(Listen(seconds=min(0.5, self.case.pause)))
            again = yield from self._again(suspect, "after-clear")
            if again is not None:
                raise _Stop(self._named("registered-already", suspect, again))
            self.ruled_out.append("registered-already")
            # 3. With the exchange named.
            if not suspect.asked.stex_tp:
                exchange = yield from self._ask(_realtime(seq, "K"), words="with-stex-tp")
                if exchange.reply is not None and not exchange.refused:
                    raise _Stop(self._named("no-stex-tp", suspect, exchange))
            self.ruled_out.append("no-stex-tp")

        # 4. The other kind of search, and other conditions.
        other_kind = _search(seq) if realtime else _realtime(seq, self.case.stex_tp or "K")
        other = yield from self._ask(other_kind, words="other-kind")
        kind_answers = other.reply is not None and other.refused in (0, _REGISTERED)
        others = [s for s in self.conditions if s != seq][:3]
        if not realtime and kind_answers:
            yield from self._search_only(suspect, others)
        if not answered:
            texts = [_realtime(number, self.case.stex_tp or "K") for number in others]
            answered = (yield from self._first_answered(texts, "other-condition")) is not None
        if answered:
            yield Finding(stage="experiment", ok=True, words="others-answer", facts=facts)
            raise _Stop(Verdict(cause="one-condition", sure="proved", condition=name, facts=facts))
        self.ruled_out += ["one-condition", "search-while-live"]
        if kind_answers:
            self.ruled_out += ["module-down", "rights-withdrawn"]
        yield from self._fresh(suspect, [seq, *others], kind_answers=kind_answers)

    def _search_only(self, suspect: Exchange, others: Sequence[str]) -> _Part[None]:
        """A one-shot search is silent while a realtime request is answered: is every search, and on a quiet session?"""
        name, facts = self._name(suspect), self._about(suspect)
        searches = [_search(number) for number in others]
        if (yield from self._first_answered(searches, "other-condition")) is not None:
            raise _Stop(Verdict(cause="one-condition", sure="proved", condition=name, facts=facts))
        self.ruled_out.append("one-condition")
        if suspect.live > 0 or self.borrowed:
            if self.borrowed and not self.case.fresh:
                yield Finding(stage="experiment", ok=None, words="not-ours", facts=facts)
            if (self.borrowed and not self.case.fresh) or not (yield from self._reconnect(facts)):
                also: tuple[Cause, ...] = ("search-down",)
                raise _Stop(
                    Verdict(
                        cause="search-while-live", sure="likely", condition=name, also=also, surer="fresh", facts=facts
                    )
                )
            exchange = yield from self._ask(_search(suspect.asked.seq), words="quiet-session")
            if exchange.reply is not None and not exchange.refused:
                raise _Stop(self._named("search-while-live", suspect, exchange))
            self.ruled_out.append("search-while-live")
        raise _Stop(Verdict(cause="search-down", sure="likely", condition="", facts=facts))

    def _fresh(self, suspect: Exchange, numbers: Sequence[str], *, kind_answers: bool) -> _Part[None]:
        """Nothing is answered on this connection: is it on another, and if not, is the market open at all?

        `kind_answers`: the other kind of search is answered, which shows that the condition module and our right to use
        it are there.
        """
        facts = self._about(suspect) | {"conditions": len(self.conditions)}
        borrowed = self.borrowed
        if borrowed and not self.case.fresh:
            yield Finding(stage="experiment", ok=None, words="not-ours", facts=facts)
        elif "connection-deaf" not in self.ruled_out:
            borrowed = not (yield from self._reconnect(facts))
        if not borrowed:
            exchange = yield from self._first_answered(
                self._unasked(suspect, numbers, kind_answers), "fresh-connection"
            )
            if exchange is not None:
                raise _Stop(self._named("connection-deaf", suspect, exchange))
            self.ruled_out.append("connection-deaf")
        if self.case.hours != "open":
            yield Finding(stage="experiment", ok=None, words="not-open", facts=facts)
            if kind_answers:
                raise _Stop(Verdict(cause="closed-hours", sure="likely", surer="in-hours", facts=facts))
            also: tuple[Cause, ...] = ("module-down", "rights-withdrawn")
            raise _Stop(Verdict(cause="closed-hours", sure="possible", also=also, surer="in-hours", facts=facts))
        self.ruled_out.append("closed-hours")
        if kind_answers:
            raise _Stop(
                Verdict(
                    cause="realtime-down",
                    sure="possible" if borrowed else "likely",
                    also=("connection-deaf",) if borrowed else (),
                    surer="fresh" if borrowed else "",
                    facts=facts,
                )
            )
        if self.case.second_key:
            yield from self._second_key(suspect, numbers)
        raise _Stop(self._nothing_answers(facts, borrowed=borrowed))

    def _unasked(self, suspect: Exchange, numbers: Sequence[str], kind_answers: bool) -> list[str]:
        """The requests of both kinds that were not sent on this connection yet; of the silent kind, if one answers."""
        kinds = [lambda seq: _realtime(seq, self.case.stex_tp or "K"), _search]
        if kind_answers:
            kinds = kinds[1:] if suspect.asked.search_type == "0" else kinds[:1]
        asked = {(e.asked.seq, e.asked.search_type) for e in exchanges(self.log)}
        texts = [kind(number) for number in numbers for kind in kinds]
        return [text for text in texts if (one := frames.request(text)) and (one.seq, one.search_type) not in asked]

    def _second_key(self, suspect: Exchange, numbers: Sequence[str]) -> _Part[None]:
        """Causes 11 and 12 look alike with one key: ask with another, on a connection beside ours."""
        facts = self._about(suspect) | {"conditions": len(self.conditions)}
        outcome = yield Token(second=True)
        if outcome.error:
            yield Finding(stage="experiment", ok=None, words="second-key-refused", facts=self._facts(outcome))
            return
        yield from self._reconnect(facts, words="with-second-key", second=True)
        known = [*numbers, *(s for s in self.conditions if s not in numbers)][:3]
        exchange = yield from self._first_answered(self._unasked(suspect, known, False), "second-key")
        if exchange is not None:
            raise _Stop(self._named("rights-withdrawn", suspect, exchange))
        self.ruled_out.append("rights-withdrawn")
        raise _Stop(Verdict(cause="module-down", sure="proved", facts=facts))

    def _reconnect(self, facts: dict[str, Fact], words: str = "reconnecting", second: bool = False) -> _Part[bool]:
        """A fresh connection with the list read; False where the producer lends none."""
        lent = self.borrowed and not second
        yield Finding(stage="experiment", ok=None, words="lending" if lent else words, facts=facts)
        if not (yield from self._log_in(shown=False, second=second)):
            return False
        yield from self._list_again()
        return True

    def _list_again(self) -> _Part[None]:
        outcome = yield from self._do(Ask(text=frames.ListRequest().text(), within=self.case.patience))
        reply = _last(outcome.frames, frames.ListReply)
        if reply is None or reply.code != 0:
            raise _Stop(Verdict(cause="list-silent", sure="proved", facts=self._facts(outcome)))
        self.conditions = dict(reply.conditions) or self.conditions
        facts = self._facts(outcome) | {"count": len(reply.conditions)}
        yield Finding(stage="list", ok=True, words="list-again", facts=facts)

    # -- parts

    def _refused(self, exchange: Exchange) -> _Part[None]:
        """What Kiwoom's own words say."""
        reply = exchange.reply
        assert reply is not None
        name, facts = self._name(exchange), self._about(exchange)
        facts |= {"code": reply.code or 0, "message": reply.message}
        if reply.code == _REGISTERED and exchange.registered and self.borrowed:
            return
        yield Finding(stage="response", ok=False, words="refused", facts=facts)
        match reply.code:
            case 900003:
                raise _Stop(Verdict(cause="registered-already", sure="proved", condition=name, facts=facts))
            case 900004:
                facts["padded"] = exchange.asked.seq.strip() if exchange.asked.seq != exchange.asked.seq.strip() else ""
                raise _Stop(Verdict(cause="stale-seq", sure="proved", condition=name, facts=facts))
            case 105110:
                raise _Stop(Verdict(cause="burst", sure="proved", condition=name, facts=facts))
            case _:
                raise _Stop(Verdict(cause="request-refused", sure="proved", condition=name, facts=facts))

    def _again(self, suspect: Exchange, words: str) -> _Part[Exchange | None]:
        """The same request once more; the exchange if it was answered, a verdict if it was refused."""
        exchange = yield from self._ask(suspect.text, words=words)
        if exchange.reply is None:
            return None
        if exchange.refused:
            yield from self._refused(exchange)
        return exchange

    def _ask(self, text: str, *, words: str = "", shown: bool = True, within: float | None = None) -> _Part[Exchange]:
        before = self.waited
        yield from self._do(Ask(text=text, within=self.case.patience if within is None else within))
        exchange = self._latest(text)
        if shown:
            yield self._told(exchange, words, took=self.waited - before)
        return exchange

    def _first_answered(self, texts: Sequence[str], words: str) -> _Part[Exchange | None]:
        """Send requests one after the other without waiting for each to time out: the first that is answered.

        Paced all the same, and all have as long as the last one to be answered.
        """
        sent: dict[str, float] = {}
        found: Exchange | None = None
        for text in texts:
            sent[text] = self.waited
            within = self.case.patience if text == texts[-1] else min(PROMPT, self.case.patience)
            exchange = yield from self._ask(text, shown=False, within=within)
            if exchange.reply is not None:
                break
        for text, before in sent.items():
            exchange = self._latest(text)
            yield self._told(exchange, words, took=self.waited - before)
            if found is None and exchange.reply is not None and exchange.refused in (0, _REGISTERED):
                found = exchange
        return found

    def _latest(self, text: str) -> Exchange:
        exchange = next(e for e in reversed(exchanges(self.log)) if e.text == text)
        if exchange.reply is not None and exchange.reply.code == 0 and exchange.asked.search_type == "1":
            self.members[exchange.asked.seq.strip()] = {m.code for m in exchange.reply.members}
        return exchange

    def _told(self, exchange: Exchange, words: str, *, took: float) -> Finding:
        """What came of a request, as a finding: of an experiment, where `words` say what was tried."""
        reply = exchange.reply
        facts = self._about(exchange) | {"took": round(took, 3)}
        facts["pings"] = sum(isinstance(s.received, frames.Ping) for s in self.log if s.t >= exchange.t)
        if reply is not None:
            facts |= {"took": round(exchange.replied - exchange.t, 3), "count": len(reply.members)}
        good = reply is not None and not exchange.refused
        if words:
            # Also 900003 is an answer: the module is there, and knows the condition.
            good = reply is not None and exchange.refused in (0, _REGISTERED)
            facts["tried"] = words
            words = "experiment-answered" if reply else "experiment-silent"
            return Finding(stage="experiment", ok=good, words=words, facts=facts)
        if good:
            return Finding(stage="response", ok=True, words="answered", facts=facts)
        return Finding(stage="request", ok=None, words="asked", facts=facts)

    def _do(self, step: Login | Ask | Listen) -> _Part[Outcome]:
        outcome = yield step
        self.log += outcome.frames
        self.waited += outcome.seconds
        if outcome.ended:
            self.ended = outcome.ended
            self._watch_system()
            facts: dict[str, Fact] = {"message": outcome.ended, "conditions": len(self.conditions)}
            known = exchanges(self.log)
            silent = [e for e in known if e.reply is None and e.asked.search_type == "1"]
            if self.borrowed and self.conditions and len(silent) > 1:
                # The producer gave the connection up because of what was not answered on it: that is the evidence.
                if self.case.fresh:
                    raise _GivenUp(silent[-1], facts)
                yield Finding(stage="experiment", ok=None, words="given-up", facts=facts)
                if all(e.reply is None for e in known):
                    raise _Stop(self._nothing_answers(facts))
                name = self._name(silent[-1])
                raise _Stop(
                    Verdict(cause="one-condition", sure="likely", condition=name, facts=self._about(silent[-1]))
                )
            if self.case.borrowed:
                self._unanswered_beginning(facts)
            raise _Stop(Verdict(cause="connection-lost", sure="proved", facts=facts))
        return outcome

    def _nothing_answers(self, facts: dict[str, Fact], *, borrowed: bool = True) -> Verdict:
        """The verdict where nothing is answered; on a borrowed session the connection itself is not ruled out."""
        if self.case.hours != "open":
            also: tuple[Cause, ...] = ("module-down", "rights-withdrawn")
            return Verdict(cause="closed-hours", sure="possible", also=also, surer="in-hours", facts=facts)
        also = ("rights-withdrawn", "connection-deaf") if borrowed else ("rights-withdrawn",)
        return Verdict(
            cause="module-down",
            sure="possible" if borrowed else "likely",
            also=also,
            surer="fresh" if borrowed else "second-key",
            facts=facts,
        )

    def _watch_system(self) -> None:
        """Stop where Kiwoom has said itself why the session ended."""
        for item in self.log:
            match item.received:
                case frames.System(code="R10001", message=message):
                    raise _Stop(Verdict(cause="displaced", sure="proved", facts={"message": message}))
                case frames.System(code="R10002", message=message):
                    echoes = sum(s.asked.trnm == "PING" for s in self.log)
                    pings = sum(isinstance(s.received, frames.Ping) for s in self.log)
                    facts: dict[str, Fact] = {"message": message, "echoes": echoes, "pings": pings}
                    raise _Stop(Verdict(cause="no-echo", sure="proved", facts=facts))
                case frames.System(code="R10004", message=message):
                    raise _Stop(Verdict(cause="login-refused", sure="proved", facts={"message": message}))

    def _asked_for(self) -> list[tuple[str, str]]:
        wanted = list(self.case.wanted)
        if self.case.only:
            return [(name, seq) for name, seq in wanted if _same(name) == _same(self.case.only)] or [
                (self.case.only, "")
            ]
        return wanted

    def _targets(self) -> list[str]:
        """The seqs to ask for: of what is configured, or of all that the account has; at most ten."""
        names = {_same(name) for name, _ in self._asked_for()}
        found = [seq for seq, title in self.conditions.items() if _same(title) in names]
        return (found or list(self.conditions))[:10]

    def _name(self, exchange: Exchange) -> str:
        return self.conditions.get(exchange.asked.seq.strip(), "")

    def _named(self, cause: Cause, suspect: Exchange, exchange: Exchange, *, sure: Sure = "proved") -> Verdict:
        facts = self._about(suspect) | {"took": round(exchange.replied - exchange.t, 3)}
        return Verdict(cause=cause, sure=sure, condition=self._name(suspect), facts=facts)

    def _about(self, exchange: Exchange) -> dict[str, Fact]:
        return {
            "condition": self._name(exchange) or f"seq {exchange.asked.seq}",
            "seq": exchange.asked.seq,
            "search_type": exchange.asked.search_type,
            "stex_tp": exchange.asked.stex_tp or "–",
            "gap": round(min(exchange.gap, 9999.0), 2),
            "after_login": round(min(exchange.after_login, 9999.0), 2),
            "patience": self.case.patience,
        }

    def _facts(self, outcome: Outcome) -> dict[str, Fact]:
        return {
            "took": round(outcome.seconds, 3),
            "message": outcome.message,
            "code": outcome.code,
            "pings": sum(isinstance(item.received, frames.Ping) for item in outcome.frames),
        }


_REGISTERED: Final = 900003
_F = TypeVar("_F")


def _words_of(reply: frames.LoginReply) -> dict[str, Fact]:
    return {"message": reply.message, "code": embedded_code(reply.message) or str(reply.code)}


def _last(log: Sequence[Seen], kind: type[_F]) -> _F | None:
    return next((item.received for item in reversed(log) if isinstance(item.received, kind)), None)


def _first_reply(log: Sequence[Seen], asked: frames.Asked) -> frames.ConditionReply | None:
    for item in log:
        received = item.received
        if isinstance(received, frames.ConditionReply) and frames.answers(asked, received):
            return received
    return None
