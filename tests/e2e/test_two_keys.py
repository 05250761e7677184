"""Two app keys, one stream: whichever producer is killed, and when, the downstream is the market's truth, each once.

Two real processes of one account, real Kafka, a market that moves. The races inside a second are those of
`tests/producers/test_two_sessions.py`; here it is shown that nothing between a socket and a topic adds one.

The market's clock runs twice as fast as the processes'. What a producer says more than two seconds of that clock after
it happened may be late for good where another has joined meanwhile; a faster clock would make that of a short stall.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from product import CONDITIONS, records, until
from roles import KEY, Roles, expected_ids
from truth import changes, crossings

from streams import events, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

KEYS = {"first": KEY, "second": f"{KEY}-2"}
KILLS = 5


async def test_whichever_of_two_producers_is_killed_downstream_is_the_truth(make_roles: Callable[..., Roles]) -> None:
    roles = make_roles(speed=2.0, activity=20.0)
    await roles.start_market()
    await roles.control("POST", "pause")
    before = await roles.control("GET", "truth")
    roles.start("stream", "stream")
    for name in KEYS:
        start(roles, name)
    await roles.all_live(*KEYS.values())
    members = sum(map(len, before["members"].values()))
    assert len(await published(roles, members)) >= members, roles.said("stream")[-2000:]
    await roles.control("POST", "resume")

    rng = random.Random(20261123)
    killed = []
    for _ in range(KILLS):
        name = rng.choice(sorted(KEYS))
        await roles.market_says(rng.randint(15, 60))
        killed.append(name)
        roles.end(name)
        start(roles, name)
        await roles.all_live(*KEYS.values())
    await roles.control("POST", "pause")
    truth = await roles.control("GET", "truth")
    tail = crossings({"events": truth["events"][before["total"] :]}, CONDITIONS)
    expected = [change for name in CONDITIONS for change in changes(before["members"][name], tail[name], name)]
    transitions = await published(roles, len(expected))
    heard = await records(roles.kafka, topics.CONDITION_EVENTS)

    assert set(killed) == KEYS.keys()
    wanted, found = Counter(map(tuple, expected)), Counter((t.condition, t.code, t.kind, t.entry) for t in transitions)
    differing = (wanted - found) + (found - wanted)
    assert found == wanted, told(differing, truth["events"], [*heard, *transitions]) + roles.said("stream")[-2000:]
    assert [id_ for id_, count in Counter(t.id for t in transitions).items() if count > 1] == []

    sessions: dict[str, set[str]] = defaultdict(set)
    for event in (record for record in heard if isinstance(record, events.ConditionEvent)):
        if event.entry:  # entry 0 only confirms
            sessions[event.id].add(event.session)
    ids = expected_ids({"events": truth["events"][before["total"] :]})
    assert sessions.keys() == {id_ for of_condition in ids.values() for id_ in of_condition}
    both = sum(len({session.split("-")[0] for session in said}) == 2 for said in sessions.values())
    assert both > 10 * KILLS, "the two producers have hardly ever said the same"


def start(roles: Roles, name: str) -> None:
    """Start a producer with its own app key, beside the other on the same data folder."""
    roles.start(name, "produce", environ={"HITSTREAM_KIWOOM__APP_KEY": KEYS[name]})


async def published(roles: Roles, count: int) -> list[events.Transition]:
    """Wait until so many transitions are on their topic, and for whatever should not come after them; what is there."""
    found: list[events.Transition] = []

    async def enough() -> bool:
        nonlocal found
        before = len(found)
        found = [r for r in await records(roles.kafka, topics.TRANSITIONS) if isinstance(r, events.Transition)]
        return len(found) == before >= count

    with contextlib.suppress(AssertionError):  # whoever asked says what is missing
        await until(enough, f"{count} transitions", 60)
    return found


def told(changes: Iterable[tuple[str, str, str, int]], market: Iterable[Any], records: Iterable[Any]) -> str:
    """What the market and the topics say about stocks whose changes differ."""
    lines = []
    for condition, code in sorted({change[:2] for change in changes}):
        lines += [f"--- {condition} {code}", *(str(event) for event in market if event["code"] == code)]
        for record in records:
            if getattr(record, "condition", "") == condition and getattr(record, "code", code) == code:
                inside = f"inside: {code in record.codes} " if isinstance(record, events.ConditionSnapshot) else ""
                lines.append(f"{inside}{str(record)[:600]}")
    return "\n".join(lines)
