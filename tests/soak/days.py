"""A number of trading days with a fault every virtual minute, and what is to be told of them.

`run` is what `test_soak` calls with half a day and `make soak` with a week. A fault is drawn from all that the local
market knows – and the producer itself is killed and started anew now and then – and it lasts for some of its minute.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from types import CodeType, FunctionType, ModuleType

from deploy.local.kiwoom.faults import MOMENTARY, STANDING
from producers.kiwoom.session import Action, Audited, Changed, Timing
from streams.events import KST, Frame, Record

from .virtual import NAMES, Kiwoom, Ledger, Loop, Producer, Times

LOGIN, FAULTS_FROM, LOGOUT = time(8, 50), time(8, 55), time(15, 40)
QUIET_END = timedelta(minutes=15)
"""Time without faults before the end of a day: for an audit, and for what it finds to be made good."""
DEAFENING = {"rate-limited", "refuse-cnsrreq", "silent-cnsrreq", "key-without-right"}
"""Under these nobody can be asked anything: what was dropped before is noticed after them."""
AUDITED = 330.0
"""Seconds in which every condition has been audited."""

UNTELLABLE = {
    # What a seq means changes between the list and a request: until the next list, the answers are those of another
    # condition. Neither a reply nor an entry says the condition's name.
    "reassigned",
}
ABOUT_CONDITIONS = {
    "withdrawn", "silent-cnsrreq", "silent-realtime", "silent-search", "refuse-cnsrreq", "already-registered",
    "drop-registration", "late-reply", "before-ack-real", "incomplete-reply", "no-return-code", "twin-names",
    "forget-registration",
}  # fmt: skip
ALONE = {"zombie"}
"""Drawn only where it is asked for: what another fault leaves behind may end the connection before its audits."""
ZOMBIE = (3.0, 250.0)
"""Least and most seconds of a `zombie`. It tells of itself only through an audit, so the connection is left to live
until each condition has had one: whatever ends it before takes the evidence along."""
KILLED = "killed"
RARE = {"large-frame", "oversized-frame"}
"""Costly to compute: one of them in ten is enough."""

OURS = [tracemalloc.Filter(True, f"*/{package}/*") for package in ("producers", "streams")]
"""Where the product's own lines are."""


@dataclass
class Report:
    """What a soak has come to."""

    days: int = 0
    wrong: list[str] = field(default_factory=list)
    log: list[tuple[datetime, str]] = field(default_factory=list)
    """Which fault was struck when."""
    faults: Counter[str] = field(default_factory=Counter)
    count: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    times: Times = field(default_factory=Times)
    connections: int = 0
    gap_seconds: float = 0.0
    ours: list[int] = field(default_factory=list)
    """Bytes that lines of `producers` and `streams` hold at the beginning of the next trading day."""
    theirs: list[int] = field(default_factory=list)
    """Bytes that the local market and everything else holds at that time."""
    held: list[int] = field(default_factory=list)
    """Objects that can be reached from the conditions and the memberships at that time."""

    def measure(self, *roots: object) -> None:
        """Count what is held: by who allocated it since `tracemalloc` was started, and by these objects."""
        gc.collect()
        traced = tracemalloc.take_snapshot()
        ours = sum(trace.size for trace in traced.filter_traces(OURS).traces)
        self.ours.append(ours)
        self.theirs.append(sum(trace.size for trace in traced.traces) - ours)
        self.held.append(_reachable(roots))

    def lines(self) -> list[str]:
        """The figures, for people."""
        told = [
            f"{self.days} trading day(s), {sum(self.faults.values())} faults of {len(self.faults)} kinds,"
            f" {self.connections} connections",
            f"events of the market {self.count['truth']}, of which in recorded gaps {self.count['truth in gaps']}"
            f" ({self.gap_seconds:.0f} s of gaps over {len(NAMES)} conditions); lost outside gaps:"
            f" {sum('lost' in line for line in self.wrong)}, and without a trace {self.count['traceless']}",
        ]
        for what, seconds in (
            ("PING silence noticed after", self.times.silence),
            ("unanswered request noticed after", self.times.unanswered),
            ("dropped registration noticed, after its first missed event,", self.times.dropped),
            ("all conditions live, after a connection without faults,", self.times.live),
        ):
            if seconds:
                told.append(f"{what} at most {max(seconds):.1f} s (median {sorted(seconds)[len(seconds) // 2]:.1f} s,"
                            f" {len(seconds)} times)")  # fmt: skip
        if self.ours:
            told.append(f"kB of ours after each day: {', '.join(f'{size / 1e3:,.0f}' for size in self.ours)}")
            told.append(f"objects of ours after each day: {', '.join(f'{held:,}' for held in self.held)}")
            told.append(f"kB of the rest after each day: {', '.join(f'{size / 1e3:,.0f}' for size in self.theirs)}")
        return told


def run(
    *,
    first: date,
    days: int = 1,
    until: time = LOGOUT,
    seed: int = 1,
    activity: float = 1.0,
    faults: bool = True,
    timing: Timing | None = None,
    only: set[str] | None = None,
    on_record: Callable[[Record], None] = lambda _: None,
    on_frame: Callable[[Frame], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    measure_memory: bool = False,
) -> Report:
    """Live through some trading days. Memory can be measured only while `tracemalloc` traces."""
    loop = Loop(datetime.combine(first, LOGIN, KST), seed)
    kiwoom = Kiwoom(loop, seed=seed, activity=activity)
    ledger = Ledger(loop)
    report = Report()

    def record(record: Record) -> None:
        ledger.record(record)
        on_record(record)

    def new(covered: dict[str, datetime] | None = None) -> Producer:
        producer = Producer(loop, kiwoom, on_record=record, on_frame=on_frame, covered=covered, timing=timing)
        producer.times, producer.ended = report.times, report.ended
        producer.watch = dropped.watch
        return producer

    dropped = _Dropped(loop, kiwoom, report.times)
    driver = _Driver(loop, kiwoom, dropped, report, only)
    driver.producer = producer = new()
    today = first
    while report.days < days:
        if today.weekday() < 5:
            begin, end = (datetime.combine(today, moment, KST) for moment in (LOGIN, until))
            loop.run(loop.second(begin))
            driver.producer.start()
            if faults:
                driver.plan(loop.second(datetime.combine(today, FAULTS_FROM, KST)), loop.second(end - QUIET_END), new)
            loop.run(loop.second(end))
            report.wrong += [
                f"{today}: {line}" for line in ledger.check(kiwoom.exchange, kiwoom.happened, kiwoom.silences)
            ]
            report.gap_seconds += ledger.gap_seconds()
            driver.producer.leave()
            report.days += 1
            loop.run(loop.second(datetime.combine(today + timedelta(days=1), time(0, 0, 1), KST)))
            kiwoom.happened.clear()
            kiwoom.silences.clear()
            ledger.end_day(today)
            if measure_memory:
                # After a weekend the market is where it is after a night: in a new day.
                loop.run(loop.second(datetime.combine(_next_trading_day(today), time(0, 0, 1), KST)))
                report.log.clear()
                report.measure(driver.producer.conditions, driver.producer.session, ledger.states)
            say(f"{today}: {len(report.wrong)} wrong, {ledger.count['truth']} events")
        today += timedelta(days=1)
    report.count = ledger.count
    report.connections += driver.producer.connections
    del producer
    return report


def _reachable(roots: tuple[object, ...]) -> int:
    """How many objects these are and hold, but for code and what all code shares."""
    shared = (type, ModuleType, FunctionType, CodeType)
    seen: set[int] = set()
    waiting: list[object] = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, shared):
            seen.add(id(one))
            waiting += gc.get_referents(one)
    return len(seen)


def _next_trading_day(day: date) -> date:
    return day + timedelta(days=3 if day.weekday() == 4 else 1)


class _Driver:
    """One fault a minute."""

    def __init__(self, loop: Loop, kiwoom: Kiwoom, dropped: _Dropped, report: Report, only: set[str] | None) -> None:
        self.producer: Producer
        self._loop = loop
        self._kiwoom = kiwoom
        self._dropped = dropped
        self._report = report
        self._calm_until = 0.0
        self._names = sorted(only or (STANDING.keys() | MOMENTARY.keys()) - UNTELLABLE - ALONE | {KILLED})

    def plan(self, begin: float, end: float, new: Callable[[dict[str, datetime]], Producer]) -> None:
        minute = begin
        while minute + 60 <= end:
            self._loop.call_at(minute + self._loop.random.uniform(0, 4), lambda: self._strike(new))
            minute += 60

    def _strike(self, new: Callable[[dict[str, datetime]], Producer]) -> None:
        if self._loop.t < self._calm_until:
            return
        random = self._loop.random
        name = random.choice(self._names)
        while name in RARE and random.random() < 0.9:
            name = random.choice(self._names)
        self._report.faults[name] += 1
        self._report.log.append((self._loop.at, name))
        self.producer.disturbed()
        seqs = random.sample(sorted(NAMES), random.randint(1, 3)) if name in ABOUT_CONDITIONS else []
        if name == KILLED:
            self._report.connections += self.producer.connections
            covered = self.producer.kill()
            self._loop.call_in(random.uniform(1, 20), lambda: self._restart(new, covered))
        elif name in MOMENTARY:
            self._dropped.struck(name, seqs)
            self._kiwoom.befall(name, seqs)
        else:
            self._dropped.struck(name, seqs)
            self._kiwoom.switch(name, True, seqs)
            lasts = random.uniform(*ZOMBIE) if name == "zombie" else random.uniform(3, 50)
            self._loop.call_in(lasts, lambda: self._kiwoom.switch(name, False))
            if name == "zombie":
                self._calm_until = self._loop.t + lasts + AUDITED
            if name in ("swallow-bursts", "drop-registration", "already-registered", "silent-repeat", "late-reply"):
                # These only matter while something is requested.
                self._kiwoom.befall("close-abrupt")

    def _restart(self, new: Callable[[dict[str, datetime]], Producer], covered: dict[str, datetime]) -> None:
        self.producer = new(covered)
        self.producer.start()


class _Dropped:
    """How long a registration that was silently dropped goes unnoticed.

    From the first event missed that still shows: a stock that came and went leaves nothing to be noticed.
    """

    def __init__(self, loop: Loop, kiwoom: Kiwoom, times: Times) -> None:
        self._loop = loop
        self._kiwoom = kiwoom
        self._times = times
        self._since: dict[str, float] = {}

    def struck(self, name: str, seqs: list[str]) -> None:
        if name in DEAFENING:
            self._since.clear()
        elif name == "forget-registration":
            for seq in seqs:
                if any(seq in wire.served.state()["conditions"] for wire in self._kiwoom.wires):
                    self._since.setdefault(NAMES[seq], self._loop.t)

    def watch(self, action: Action) -> None:
        match action:
            case Changed(condition=condition, state=state) if state != "live":
                self._noticed(condition, audited=state == "requested")
            case Audited(condition=condition, outcome="dead" | "missed"):
                self._noticed(condition, audited=True)
            case _:
                pass

    def _noticed(self, condition: str, *, audited: bool) -> None:
        since = self._since.pop(condition, None)
        if since is None or not audited:
            return
        shows: set[str] = set()
        for t, crossing in self._kiwoom.happened:
            if NAMES[crossing.seq] == condition and t >= since:
                since = since if shows else t
                shows ^= {crossing.code}
        if shows:
            self._times.dropped.append(self._loop.t - since)
