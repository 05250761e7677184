"""A trading week without a clock: market, wire, session, conditions and membership in one discrete-event loop.

Every part is the product's own pure core – `exchange` and `protocol` on the market's side, `session`, `conditions` and
`membership` on ours. What is written here is what their shells do: sockets (with a latency each way, in order), timers,
tokens, and reconnecting. Time is a number, so a week passes as fast as it can be computed.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

from deploy.local.kiwoom.conditions import CONDITIONS
from deploy.local.kiwoom.exchange import Exchange
from deploy.local.kiwoom.faults import NONE, Faults
from deploy.local.kiwoom.market import Crossing
from deploy.local.kiwoom.protocol import Close, LoggedIn, Output, Rules
from deploy.local.kiwoom.protocol import Send as Say
from deploy.local.kiwoom.protocol import Session as Served
from deploy.local.kiwoom.rest import Limits, Rest, Tokens
from producers.calendar import Calendar
from producers.conditions import Conditions
from producers.kiwoom.client import Backoff
from producers.kiwoom.session import Action, Changed, Moment, Over, Send, Session, Timing, Traced, Wanted
from streams import membership
from streams.events import (
    KST,
    ConditionEvent,
    ConditionSnapshot,
    Frame,
    Gap,
    Record,
    Transition,
    day_end,
    event_id,
)

NAMES = {condition.seq: condition.name for condition in CONDITIONS}
KEYS = {"grant_type": "client_credentials", "appkey": "key", "secretkey": "secret"}
LATENCY = (0.001, 0.020)
"""Least and most seconds that a frame is under way."""

STEP = 0.2
"""Least seconds between two steps of the market."""

MOST = 16 << 20
"""Bytes of a frame beyond which the WebSocket client closes."""


def own_seq(seq: str) -> str:
    """A condition's seq, whatever the fault `renumbered` makes of it."""
    return str(int(seq) % 100)


class Loop:
    """What happens when, in the order of time; `t` is seconds since `start`."""

    def __init__(self, start: datetime, seed: int) -> None:
        self.start = start
        self.t = 0.0
        self.random = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def at(self) -> datetime:
        return self.start + timedelta(seconds=self.t)

    def moment(self) -> Moment:
        return Moment(self.t, self.at)

    def second(self, at: datetime) -> float:
        return (at - self.start).total_seconds()

    def call_at(self, t: float, call: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (max(t, self.t), self._count, call))

    def call_in(self, seconds: float, call: Callable[[], None]) -> None:
        self.call_at(self.t + seconds, call)

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.t, _, call = heappop(self._heap)
            call()
        self.t = until


class Kiwoom:
    """The market's half: one exchange, its sessions, and what goes wrong."""

    def __init__(self, loop: Loop, *, seed: int, activity: float, rules: Rules | None = None) -> None:
        self.loop = loop
        self.exchange = Exchange(seed=seed, hours="market", activity=activity, now=loop.at, start=loop.at)
        self.faults: Faults = NONE
        self.happened: list[tuple[float, Crossing]] = []
        self.silences: list[Silence] = []
        self.wires: list[Wire] = []
        self._tokens = Tokens("key", "secret")
        self._rest = Rest(self.exchange, self._tokens, Limits())
        self._rules = rules or Rules()
        self._stepped = 0.0
        self._market()

    def switch(self, name: str, on: bool, seqs: Iterable[str] = ()) -> None:
        if name == "zombie" and on != self.faults.on(name):
            if on:
                self.silences.append(Silence(self.loop.t))
            else:
                self.end_silences(lambda silence: not silence.seq)
        self.faults = self._rest.faults = self.faults.switched(name, on, seqs)
        for wire in self.wires:
            wire.served.faults = self.faults
            wire.keep_time()

    def befall(self, name: str, seqs: Iterable[str] = ()) -> None:
        if name == "token-expired":
            self._tokens.expire()
        for wire in list(self.wires):
            before = wire.registered
            wire.told(wire.served.befall(name, seqs))
            if name == "forget-registration":
                self.silences += [Silence(self.loop.t, seq, wire) for seq in sorted(before - wire.registered)]

    def asked(self, wire: Wire, before: set[str], text: str) -> None:
        """A request has been answered, or not: begin and end the silences that follow from it."""
        now = wire.registered
        self.end_silences(lambda silence: silence.wire is wire and silence.seq in now)
        request = json.loads(text)
        if request["trnm"] == "CNSRREQ" and request["search_type"] == "1":
            seq = own_seq(request["seq"])
            if self.faults.on("drop-registration", seq) and seq not in before | now:
                self.silences.append(Silence(self.loop.t, seq, wire))

    def end_silences(self, which: Callable[[Silence], bool]) -> None:
        for silence in self.silences:
            if silence.end == math.inf and which(silence):
                silence.end = self.loop.t

    def token(self) -> tuple[str | None, str]:
        """A token, or None and why there is none."""
        if self.faults.on("hang-rest"):
            return None, "no answer in time"
        reply = self._rest.answer(
            "/oauth2/token", {}, json.dumps(KEYS).encode(), real=self.loop.t, latest=self.loop.at
        ).body
        if isinstance(reply, str):
            return None, "not JSON"
        return reply.get("token"), reply["return_msg"]

    def open(self, client: Producer) -> Wire:
        served = Served(
            str(len(self.wires)),
            now=self.loop.t,
            exchange=self.exchange,
            app_key_of=lambda token: self._tokens.app_key_of(token, self.loop.at),
            rules=self._rules,
            faults=self.faults,
        )
        wire = Wire(self, served, client)
        self.wires.append(wire)
        wire.keep_time()
        return wire

    def step(self) -> None:
        """Let everything happen that is due, and tell it."""
        while not self.exchange.caught_up(self.loop.at):
            crossings = [event for event in self.exchange.advance(self.loop.at) if isinstance(event, Crossing)]
            self.happened += [(self.loop.t, crossing) for crossing in crossings]
            # A frame that is said twice says "in, out, in, out" where it holds two changes of a stock: nobody could
            # tell. Where frames are doubled, each holds one.
            parts = [[one] for one in crossings] if self.faults.on("duplicate-real") else [crossings]
            for wire in list(self.wires):
                for part in parts:
                    if part:
                        wire.told(wire.served.publish(part))

    def _market(self) -> None:
        self.step()
        soonest = self.loop.second(self.exchange.next_event(self.loop.at))
        self.loop.call_at(max(soonest, self.loop.t + STEP), self._market)


class Wire:
    """One connection: a served session, a client, and frames under way between them."""

    def __init__(self, kiwoom: Kiwoom, served: Served, client: Producer) -> None:
        self.kiwoom = kiwoom
        self.served = served
        self.client: Producer | None = client
        self._loop = kiwoom.loop
        self._up = self._down = 0.0
        self._timer = 0.0

    def send(self, text: str) -> None:
        self._up = max(self._up, self._loop.t + self._loop.random.uniform(*LATENCY))
        self._loop.call_at(self._up, lambda: self._arrived(text))

    def close(self) -> None:
        """The client hangs up; what it sent before still arrives."""
        self.client = None
        self._loop.call_at(max(self._up, self._loop.t + LATENCY[1]), self._gone)

    def told(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, LoggedIn):
                for other in self.kiwoom.wires:
                    if other is not self and other.served.app_key == output.app_key:
                        other.told(other.served.displace())
                continue
            self._down = max(self._down, self._loop.t + self._loop.random.uniform(*LATENCY))
            self._loop.call_at(self._down, lambda output=output: self._delivered(output))  # type: ignore[misc]
        self.keep_time()

    def keep_time(self) -> None:
        due = max(self.served.due, self._loop.t)
        self._timer = due
        self._loop.call_at(due, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        if due == self._timer and not self.served.closed:
            self.told(self.served.tick(self._loop.t))

    @property
    def registered(self) -> set[str]:
        """The conditions that are registered, by their own seqs."""
        return {own_seq(seq) for seq in self.served.state()["conditions"]}

    def _arrived(self, text: str) -> None:
        self.kiwoom.step()
        before = self.registered
        self.told(self.served.receive(text, self._loop.t))
        self.kiwoom.asked(self, before, text)

    def _delivered(self, output: Output) -> None:
        if isinstance(output, Close):
            self._gone()
            if self.client is not None:
                self.client.closed("the connection broke" if output.code is None else "closed by Kiwoom (1000 Bye)")
        elif self.client is not None and not isinstance(output, LoggedIn):
            text = output.text if isinstance(output, Say) else output.content
            if len(text) > MOST:
                self.client.closed("frame too big")
            else:
                self.client.received(text)

    def _gone(self) -> None:
        self.served.closed = True
        self.kiwoom.end_silences(lambda silence: silence.wire is self)
        if self in self.kiwoom.wires:
            self.kiwoom.wires.remove(self)


@dataclass
class Silence:
    """A time in which the market said nothing of a condition – of any, without `seq` – that our side had to call live.

    Only what a fault does without a word: a `zombie`, a registration that was forgotten, or dropped while it was
    answered. What else is not told is ours to account for.
    """

    begin: float
    seq: str = ""
    wire: Wire | None = None
    end: float = math.inf

    def covers(self, t: float, seq: str) -> bool:
        return self.begin <= t <= self.end and self.seq in ("", seq)


@dataclass
class Times:
    """How long things took, in seconds."""

    silence: list[float] = field(default_factory=list)
    """From the last PING to the end of a connection that is silent."""

    unanswered: list[float] = field(default_factory=list)
    """From a request to its being called unanswered."""

    dropped: list[float] = field(default_factory=list)
    """From the first event missed after a registration was silently dropped to its being noticed."""

    live: list[float] = field(default_factory=list)
    """From a connection to all conditions being live, where nothing went wrong meanwhile."""


class Producer:
    """Our half: a session whenever there can be one, what it says made into records, and these into transitions."""

    def __init__(
        self,
        loop: Loop,
        kiwoom: Kiwoom,
        *,
        on_record: Callable[[Record], None],
        on_frame: Callable[[Frame], None] = lambda _: None,
        timing: Timing | None = None,
        covered: dict[str, datetime] | None = None,
        name: str = "p",
    ) -> None:
        self.loop = loop
        self.kiwoom = kiwoom
        self.wanted = [Wanted(name) for name in NAMES.values()]
        self.timing = timing or Timing()
        self.calendar = Calendar()
        self.conditions = Conditions("main", name, NAMES.values(), loop.at, covered, self.calendar.spans)
        self.session: Session | None = None
        self.times = Times()
        self.ended: Counter[str] = Counter()
        self.watch: Callable[[Action], None] = lambda _: None
        self.opened = 0.0
        self.connections = 0
        self._name = name
        self._on_record = on_record
        self._on_frame = on_frame
        self._backoff = Backoff(first=1.0, most=5.0)
        self._connection = ""
        self._wire: Wire | None = None
        self._token: str | None = None
        self._failures = 0
        self._patient: frozenset[str] = frozenset()
        self._timer = 0.0
        self._requested: dict[str, float] = {}
        self._pinged = 0.0
        self._stopped = False
        self._undisturbed = True

    def start(self) -> None:
        self._stopped = False
        self._connect()

    def leave(self) -> None:
        """Clear the conditions and stop, as for the night."""
        self._stopped = True
        if self.session is not None and not self.session.over:
            self._do(self.session.clear(self.loop.moment(), "resting", "after the close"))

    def kill(self) -> dict[str, datetime]:
        """Stop on the spot, as a killed process does; what its file remembers of what was covered."""
        self._stopped = True
        self.session = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        return self.conditions.covered

    def disturbed(self) -> None:
        """Something goes wrong: how long this connection takes to be live says nothing."""
        self._undisturbed = False

    # --- what the wire tells

    def received(self, raw: str | bytes) -> None:
        if self.session is not None and not self.session.over:
            self._do(self.session.received(raw, self.loop.moment()), frame=True)

    def closed(self, cause: str) -> None:
        if self.session is not None and not self.session.over:
            self._do(self.session.closed(cause, self.loop.moment()))

    # --- what the client does

    def _connect(self) -> None:
        if self._stopped:
            return None
        if self._token is None:
            self._token, cause = self.kiwoom.token()
            if self._token is None:
                return self._failed(cause)
        at = self.loop.at
        self._connection = f"{self._name}-{at:%Y%m%dT%H%M%S}-{self.loop.random.randrange(16**4):04x}"
        self._told(self.conditions.connecting(self._connection, at))
        for fault, seconds in (("refuse-connection", 0.02), ("hang-connection", 10.0)):
            if self.kiwoom.faults.on(fault):
                return self.loop.call_in(seconds, lambda: self._failed("Kiwoom does not answer"))
        self.connections += 1
        self.session = Session(
            self.wanted,
            token=self._token,
            timing=self.timing,
            patient=self._patient,
            trading=self.calendar.trading,
        )
        self._wire = self.kiwoom.open(self)
        self.opened = self._pinged = self.loop.t
        self._undisturbed = not self.kiwoom.faults.listed()
        self._requested.clear()
        return self._do(self.session.opened(self.loop.moment()))

    def _do(self, actions: list[Action], *, frame: bool = False) -> None:
        at = self.loop.at
        over: Over | None = None
        for action in actions:
            self.watch(action)
            match action:
                case Send(text=text):
                    if self._wire is not None:
                        self._wire.send(text)
                    self._note_sent(text)
                case Traced():
                    self._on_frame(
                        Frame(
                            connection=self._connection,
                            number=action.number,
                            direction=action.direction,
                            at=action.at,
                            text=action.text,
                        )
                    )
                    if action.direction == "in" and action.text == '{"trnm":"PING"}':
                        self._pinged = self.loop.t
                case Changed():
                    self._note_state(action)
                case Over():
                    over = action
                case _:
                    pass
            self._told(self.conditions.apply(action, at))
        if frame:
            self.conditions.heard(at)
        self._told(self.conditions.due(at))
        self.conditions.told()
        if over is not None:
            self._ended(over)
        else:
            self._keep_time()

    def _keep_time(self) -> None:
        if self.session is None or (due := self.session.deadline) is None:
            return
        self._timer = due
        session = self.session
        self.loop.call_at(due, lambda: self._tick(session, due))

    def _tick(self, session: Session, due: float) -> None:
        if session is self.session and not session.over and due == self._timer:
            self._do(session.tick(self.loop.moment()))

    def _ended(self, over: Over) -> None:
        assert self.session is not None
        self.ended[over.cause if over.why == "lost" else over.why] += 1
        if over.cause.startswith("no PING"):
            self.times.silence.append(self.loop.t - self._pinged)
        if "was not answered within" in over.cause and (asked := self._requested.get(over.cause.split()[0])):
            self.times.unanswered.append(self.loop.t - asked)
        proved, self.session = self.session.proved, None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if over.condition:
            self._patient |= {over.condition}
        if over.why == "token":
            self._token = None
        if proved:
            self._failures = 0
        if over.why == "displaced":
            # A real producer stops; somebody finds the other program, ends it, and starts ours again.
            self._told(self.conditions.disconnected(over.cause, self.loop.at, "displaced"))
            return self.loop.call_in(30.0, self._connect)
        if over.why == "stopped":
            return self._told(self.conditions.disconnected(over.cause, self.loop.at, "resting"))
        return self._failed(over.cause)

    def _failed(self, cause: str) -> None:
        if self._stopped:
            return
        self._told(self.conditions.disconnected(cause, self.loop.at))
        self._failures += 1
        most = min(self._backoff.most, self._backoff.first * 2.0 ** min(self._failures - 1, 16))
        self.loop.call_in(most * self.loop.random.uniform(0.5, 1.0), self._connect)

    def _told(self, records: Iterable[Record]) -> None:
        for record in records:
            self._on_record(record)

    # --- figures

    def _note_sent(self, text: str) -> None:
        request = json.loads(text)
        key = request["trnm"]
        if key == "CNSRREQ":
            key += " " + request["search_type"] + request["seq"]
        self._requested.setdefault(key, self.loop.t)
        if request["trnm"] != "CNSRREQ":
            self._requested[key] = self.loop.t

    def _note_state(self, change: Changed) -> None:
        seq = next(seq for seq, name in NAMES.items() if name == change.condition)
        match change.state:
            case "unanswered":
                asked = self._requested.pop(f"CNSRREQ 1{seq}", None)
                if asked is not None:
                    self.times.unanswered.append(self.loop.t - asked)
            case "live" | "refused":
                self._requested.pop(f"CNSRREQ 1{seq}", None)
            case _:
                pass
        if change.state == "live" and self._undisturbed and self.session is not None:
            waiting = {state for name, (state, _) in self.conditions.states.items() if name != change.condition}
            if waiting == {"live"}:
                self.times.live.append(self.loop.t - self.opened)
                self._undisturbed = False


class Ledger:
    """What was published, what became of it, and how it compares with what really happened."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._position = 0
        self.states = {name: membership.State("main", name) for name in NAMES.values()}
        self.events: dict[str, ConditionEvent] = {}
        self.snapshots: dict[str, list[ConditionSnapshot]] = defaultdict(list)
        self.gaps: dict[str, list[Gap]] = defaultdict(list)
        self.transitions: dict[str, Transition] = {}
        self.count: Counter[str] = Counter()

    def record(self, record: Record) -> None:
        match record:
            case ConditionEvent():
                self.count["events"] += 1
                self.events.setdefault(record.id, record)
            case ConditionSnapshot():
                self.count["snapshots"] += 1
                self.snapshots[record.condition].append(record)
            case Gap():
                self.count["gaps"] += 1
                self.gaps[record.condition].append(record)
            case _:
                return
        self._apply(self.states[record.condition], record)

    def _apply(self, state: membership.State, record: Any) -> None:
        effect = membership.apply(state, record, self._position)
        self._position += 1
        state.advance(effect)
        for output in effect.outputs:
            if isinstance(output, Transition):
                self.count[f"transitions from {output.origin}"] += 1
                self.transitions[output.event_id if output.origin == "realtime" else output.id] = output

    def check(self, exchange: Exchange, happened: list[tuple[float, Crossing]], silences: list[Silence]) -> list[str]:
        """What is wrong with a day. Exactly:

        1. Every event of the market was published under the identity that it must have, or lies in a recorded gap of
           its condition – which may begin a frame's way before the last thing that was heard. Or it left no trace: it
           happened within a `Silence`, and in what of that is in no gap it was undone.
        2. Nothing was published that did not happen.
        3. Every event outside gaps is a transition, or told nothing new because a snapshot around it told it already.
        4. Who is a member in the end is who is a member on the market.
        """
        wrong: list[str] = []
        day = exchange.day.date
        tuples: Counter[tuple[str, str, str, int]] = Counter()
        known: set[tuple[str, str, str, datetime]] = set()
        for t, crossing in happened:
            name = NAMES[crossing.seq]
            at = datetime(day.year, day.month, day.day, tzinfo=KST) + timedelta(seconds=crossing.at)
            key = (crossing.seq, crossing.code, crossing.action, crossing.at)
            identity = event_id("main", name, crossing.code, crossing.action, at, tuples[key])
            tuples[key] += 1
            known.add((name, crossing.code, crossing.action, at))
            moment = self._loop.start + timedelta(seconds=t)
            in_gap = self._in_gap(name, moment)
            what = f"{name} {crossing.action} {crossing.code} at {at:%m-%d %H:%M:%S}"
            self.count["truth"] += 1
            self.count["truth in gaps"] += in_gap
            if identity not in self.events:
                if not in_gap and self._traceless(crossing, t, happened, silences):
                    self.count["traceless"] += 1
                elif not in_gap:
                    wrong.append(f"lost outside every gap: {what}")
            elif identity not in self.transitions and not in_gap and not self._near_snapshot(name, moment):
                wrong.append(f"no transition: {what}")
        for event in self.events.values():
            if (event.condition, event.code, event.action, event.at) not in known:
                wrong.append(f"never happened: {event.condition} {event.action} {event.code} at {event.at}")
        for seq, name in NAMES.items():
            ours = {code for code, member in self.states[name].members.items() if member.inside and member.date == day}
            theirs = set(exchange.day.members[seq])
            if ours != theirs:
                wrong.append(f"members of {name} differ: too many {ours - theirs}, missing {theirs - ours}")
        return wrong

    def gap_seconds(self) -> float:
        return sum((gap.to - gap.from_).total_seconds() for gaps in self.gaps.values() for gap in gaps)

    def end_day(self, day: date) -> None:
        """Midnight: memberships end, and what was only kept for `check` is forgotten."""
        for name, state in self.states.items():
            self._apply(state, membership.day_end_due("main", name, day))
        assert self._loop.at >= day_end(day) or True
        self.events.clear()
        self.snapshots.clear()
        self.gaps.clear()
        self.transitions.clear()

    def _traceless(
        self, crossing: Crossing, t: float, happened: list[tuple[float, Crossing]], silences: list[Silence]
    ) -> bool:
        """Whether a stock came and went, or went and came back, in what of one silence is in no gap."""
        name, stock = NAMES[crossing.seq], (crossing.seq, crossing.code)
        for silence in silences:
            if silence.covers(t, crossing.seq):
                times = [at for at, c in happened if (c.seq, c.code) == stock and silence.covers(at, c.seq)]
                untold = [at for at in times if not self._in_gap(name, self._loop.start + timedelta(seconds=at))]
                return len(untold) % 2 == 0
        return False

    def _in_gap(self, name: str, moment: datetime) -> bool:
        latency = timedelta(seconds=LATENCY[1])
        return any(gap.from_ - latency <= moment <= gap.to for gap in self.gaps[name])

    def _near_snapshot(self, name: str, moment: datetime) -> bool:
        margin = timedelta(seconds=membership.SNAPSHOT_GRACE.total_seconds() + 6.0)
        return any(s.at - margin <= moment <= s.received_at + margin for s in self.snapshots[name])
