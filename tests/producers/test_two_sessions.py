"""Two app keys on one condition: whatever the two sessions say, and when, the effect is that of one.

A market with flapping within one second, two producers that hear it – the second joins somewhere in the middle – and
whose records reach the log up to three seconds late. The log goes through `streams.membership`, and what comes out is
compared with the truth, and with what the first session alone would have made.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from producers.conditions import Conditions
from producers.kiwoom.session import Changed, Entry, Snapshot
from streams import membership
from streams.events import KST, ConditionEvent, ConditionSnapshot, Record, Transition

START = datetime(2026, 11, 23, 1, 0, 0, tzinfo=UTC)
CODES = ("000001", "000002")
WIRE = 0.02  # seconds from Kiwoom to us, one way
END = 60.0


class Change(NamedTuple):
    """A stock enters or leaves at a moment: seconds after START."""

    t: float
    code: str
    enters: bool


class Life(NamedTuple):
    """A producer: when it asks for the condition, how late its records reach the log, and when it is killed."""

    name: str
    asks: float
    lag: float
    killed: float = END
    deaf: bool = False


def moment(t: float) -> datetime:
    return START + timedelta(seconds=t)


def timeline(flips: Iterable[tuple[float, int]]) -> list[Change]:
    """Changes from (moment, which stock): each flips whether the stock is in."""
    inside: dict[str, bool] = {}
    changes = []
    for t, number in sorted(flips):
        code = CODES[number]
        inside[code] = not inside.get(code, False)
        changes.append(Change(t, code, inside[code]))
    return changes


def members(changes: list[Change], until: float) -> set[str]:
    found: set[str] = set()
    for change in changes:
        if change.t <= until:
            (found.add if change.enters else found.discard)(change.code)
    return found


def said(life: Life, changes: list[Change]) -> list[tuple[float, Record]]:
    """What a producer publishes, each with the moment at which it stands in the log."""
    conditions = Conditions("main", life.name, ["돌파"], moment(life.asks))
    conditions.connecting(life.name, moment(life.asks))
    registered, replied = life.asks + WIRE, life.asks + 2 * WIRE
    log: list[tuple[float, Record]] = []

    def publish(t: float, records: Iterable[Record]) -> None:
        conditions.told()
        kept = (r for r in records if isinstance(r, ConditionEvent | ConditionSnapshot))
        log.extend((t + life.lag, record) for record in kept if t <= life.killed)

    snapshot = Snapshot(
        condition="돌파",
        seq="1",
        codes=tuple(sorted(members(changes, registered))),
        requested_at=moment(life.asks),
        received_at=moment(replied),
        frame=1,
    )
    publish(replied, conditions.apply(snapshot, moment(replied)))
    conditions.apply(Changed(condition="돌파", state="live", cause=""), moment(replied))
    for number, change in enumerate(changes if not life.deaf else []):
        if change.t > registered:
            heard = max(change.t + WIRE, replied)
            publish(heard, conditions.due(moment(heard)))
            entry = Entry(
                condition="돌파",
                seq="1",
                code=change.code,
                exchange="KRX",
                action="hit" if change.enters else "exit",
                time=moment(change.t).astimezone(KST).strftime("%H%M%S"),
                received_at=moment(heard),
                frame=number + 2,
                entry=1,
            )
            publish(heard, conditions.apply(entry, moment(heard)))
    publish(END - 10, conditions.due(moment(END - 10)))
    return log


def effect(*logs: list[tuple[float, Record]]) -> tuple[set[str], list[Transition]]:
    """Who is a member in the end, and every transition on the way."""
    state = membership.State("main", "돌파")
    transitions: list[Transition] = []
    merged = sorted((entry for log in logs for entry in log), key=lambda entry: entry[0])
    for position, (_, record) in enumerate(merged):
        assert isinstance(record, ConditionEvent | ConditionSnapshot)
        result = membership.apply(state, record, position)
        state.advance(result)
        transitions += (t for t in result.outputs if isinstance(t, Transition))
    return {code for code, member in state.members.items() if member.inside}, transitions


def visible(transitions: list[Transition]) -> list[tuple[str, str, int, datetime]]:
    return [(t.code, t.kind, t.entry, t.at) for t in transitions]


moments = st.integers(0, 400).map(lambda n: n / 100)
flips = st.lists(st.tuples(moments, st.integers(0, 1)), max_size=14, unique_by=lambda flip: flip[0])
lags = st.integers(0, 30).map(lambda n: n / 10)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@thorough
@given(flips=flips, joins=moments, behind=lags)
def test_a_standby_that_joins_at_any_moment_and_is_behind_changes_nothing(
    flips: list[tuple[float, int]], joins: float, behind: float
) -> None:
    changes = timeline(flips)
    first = said(Life("first", -10, 0.0), changes)
    second = said(Life("second", joins, behind), changes)
    alone, both = effect(first), effect(first, second)
    assert visible(both[1]) == visible(alone[1])
    assert both[0] == alone[0] == members(changes, END)


@thorough
@given(flips=flips, joins=moments, lag=lags, behind=lags)
@example(flips=[(1.0, 0), (1.5, 0)], joins=1.2, lag=0.5, behind=0.0)
def test_whoever_is_ahead_the_members_are_the_true_ones(
    flips: list[tuple[float, int]], joins: float, lag: float, behind: float
) -> None:
    changes = timeline(flips)
    inside, _ = effect(said(Life("first", -10, lag), changes), said(Life("second", joins, behind), changes))
    assert inside == members(changes, END)


@thorough
@given(flips=flips, lag=lags, behind=lags)
def test_two_sessions_that_heard_all_make_what_one_makes(
    flips: list[tuple[float, int]], lag: float, behind: float
) -> None:
    changes = timeline(flips)
    first, second = said(Life("first", -10, lag), changes), said(Life("second", -8, behind), changes)
    assert visible(effect(first, second)[1]) == visible(effect(first)[1])
    ids = [{r.id for _, r in log if isinstance(r, ConditionEvent)} for log in (first, second)]
    assert ids[0] == ids[1], "one hit has two identities"


@thorough
@given(flips=flips, joins=moments, lag=lags, behind=lags, killed=moments, which=st.booleans())
@example(flips=[(1.0, 0), (1.1, 0), (1.5, 0)], joins=1.2, lag=0.0, behind=0.0, killed=1.4, which=True)
@example(flips=[(2.0, 0), (2.01, 0)], joins=1.98, lag=0.1, behind=0.0, killed=2.03, which=False)
def test_killing_either_loses_nobody(
    flips: list[tuple[float, int]], joins: float, lag: float, behind: float, killed: float, which: bool
) -> None:
    changes = timeline(flips)
    killed = max(killed, joins + 2 * WIRE)
    first = Life("first", -10, lag, killed if which else END)
    second = Life("second", joins, behind, END if which else killed)
    inside, _ = effect(said(first, changes), said(second, changes))
    assert inside == members(changes, END)


@thorough
@given(flips=flips, joins=moments, behind=lags)
def test_a_stale_snapshot_beside_a_live_session_changes_nothing(
    flips: list[tuple[float, int]], joins: float, behind: float
) -> None:
    """The second session's snapshot comes late, and it never hears anything after it."""
    changes = timeline(flips)
    first = said(Life("first", -10, 0.0), changes)
    stale = said(Life("second", joins, behind, deaf=True), changes)
    assert visible(effect(first, stale)[1]) == visible(effect(first)[1])
