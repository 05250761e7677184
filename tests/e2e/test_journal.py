"""A bad day is recorded from Kafka, replayed from its file, and lived again by a producer: the same records thrice."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from product import CONDITIONS, records, until
from roles import KEY, Roles

from producers.journal import Journal
from streams import events, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

SPEED, AGAIN = 5.0, 20.0
"""Market seconds per real second of the day, and of the day when it is lived again."""

CUTS = ("close-abrupt", "heartbeat-lost")
BAD = ("garbage-frames", "close-abrupt", "null-real", "heartbeat-lost")


async def test_a_bad_day_is_recorded_replayed_and_lived_again(make_roles: Callable[..., Roles], tmp_path: Path) -> None:
    roles = make_roles(speed=SPEED, activity=8.0)
    await roles.start_market()
    roles.start("producer", "produce")
    roles.start("recorder", "journal", "--follow", "live.zst")
    await roles.all_live(KEY)
    for name in BAD:
        (session,) = (await roles.state())["sessions"]
        await roles.market_says(15)
        await roles.control("POST", "faults", json={"name": name})
        if name in CUTS:
            await next_session(roles, session["session"])
        await roles.all_live(KEY)
    await roles.market_says(15)
    await roles.control("POST", "pause")
    assert roles.end("producer", signal.SIGTERM) == 0
    roles.end("market", signal.SIGTERM)
    lived = await condition_records(roles)
    assert sum(isinstance(r, events.ConditionEvent) for r in lived) > 50
    assert sum(isinstance(r, events.Gap) for r in lived) == len(CUTS) * len(CONDITIONS)

    # Recorded, afterwards or while it happened: every frame of the topic, in order.
    await roles.run("journal", "day.zst")
    journal = Journal(tmp_path / "day.zst")
    frames = list(journal)
    assert len({frame.connection for frame in frames}) == len(CUTS) + 1
    assert frames == [r for r in await records(roles.kafka, topics.FRAMES) if isinstance(r, events.Frame)]
    assert (journal.torn, journal.unreadable, journal.header.speed) == (False, 0, SPEED)

    async def followed() -> bool:
        return len(list(Journal(tmp_path / "live.zst"))) == len(frames)

    await until(followed, "the end of the day in the file that follows")
    assert roles.end("recorder", signal.SIGINT) == 0
    assert list(Journal(tmp_path / "live.zst")) == frames

    # Replayed: to the records that the producer published, as JSON lines and into Kafka.
    printed = [msgspec.json.decode(line, type=Told) for line in (await roles.run("replay", "day.zst")).splitlines()]
    assert by_condition(printed) == by_condition(lived)
    await roles.run("replay", "day.zst", "--publish")
    assert by_condition(await condition_records(roles)) == {
        name: 2 * all_ for name, all_ in by_condition(lived).items()
    }

    # Lived again: another producer, another account, the same WebSocket, with the recorded cuts in it.
    begin = frames[0].at.astimezone(events.KST)
    await roles.start_market("--journal", "day.zst", "--speed", f"{AGAIN:g}")
    assert f"HITSTREAM_CLOCK__START={begin.isoformat()} HITSTREAM_CLOCK__SPEED={AGAIN:g}" in roles.said("market")
    del roles.environ["HITSTREAM_CLOCK__ANCHOR"]
    clock = {"HITSTREAM_CLOCK__START": begin.isoformat(), "HITSTREAM_CLOCK__SPEED": f"{AGAIN:g}"}
    roles.start("again", "produce", environ=clock | {"HITSTREAM_KIWOOM__ACCOUNT": "again"})

    async def played() -> bool:
        sessions = (await roles.state())["sessions"]
        return [(s["session"], s["left"]) for s in sessions] == [(f"{len(CUTS) + 1}", 0)]

    await until(played, "the end of the tape", 120)
    assert roles.end("again", signal.SIGTERM) == 0
    relived = await condition_records(roles, "again")
    assert heard(relived) == heard(lived)


Told = events.ConditionEvent | events.ConditionSnapshot | events.Gap


def by_condition(told: Iterable[Told]) -> dict[str, list[str]]:
    """Each condition's records as they are, in their order.

    Without what no frame tells: the words for how a connection was cut, and when a confirmation was due.
    """
    found: dict[str, list[str]] = {name: [] for name in CONDITIONS}
    for record in told:
        if not _confirms(record):
            plain = msgspec.structs.replace(record, cause="") if isinstance(record, events.Gap) else record
            found[record.condition].append(events.encode(plain).decode())
    return found


def _confirms(record: Told) -> bool:
    return isinstance(record, events.ConditionEvent) and not record.entry


def heard(told: Iterable[Told]) -> dict[str, list[tuple[Any, ...]]]:
    """What each condition said, whoever heard it and when."""
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in CONDITIONS}
    for record in told:
        match record:
            case events.ConditionEvent() if not _confirms(record):
                found[record.condition].append((record.code, record.action, record.at, record.ordinal))
            case events.ConditionSnapshot():
                found[record.condition].append(("snapshot", record.codes))
            case events.Gap():
                found[record.condition].append(("gap",))
    return found


async def condition_records(roles: Roles, account: str = "main") -> list[Told]:
    """What an account's producer has published of its conditions."""
    found = await records(roles.kafka, topics.CONDITION_EVENTS)
    return [r for r in found if isinstance(r, Told) and r.account == account]


async def next_session(roles: Roles, before: str) -> None:
    """Wait until the session that was cut is followed by another."""

    async def there() -> bool:
        return any(s["session"] != before for s in (await roles.state())["sessions"])

    await until(there, "a new session")
