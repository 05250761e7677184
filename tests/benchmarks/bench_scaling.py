"""What an event costs as the work grows: conditions, members, visits of a stock, partitions; and what a member takes.

The rules and the state of one worker are measured in a process of its own for each size, by CPU time, without Kafka:
what is around them costs the same for every event. Partitions are measured with the whole worker and Kafka.
Conditions beyond ten of a login are those of other accounts, ten each.

`HITSTREAM_TEST_MEMBERS` is the largest number of members (a million).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from harness import Result, keep, process, tell

MEMBERS = int(os.environ.get("HITSTREAM_TEST_MEMBERS", "1000000"))
EVENTS = 4000


def lanes(conditions: int, members: int, visits: int) -> None:
    """In a process of its own: state with so many members, then events; prints the figures.

    Args:
        visits: how often each stock of the measured events has been in its condition before.
    """
    import msgspec
    from bench_streams import START

    from streams.events import ConditionEvent, ConditionSnapshot, condition_key, encode, event_id
    from streams.lane import MembershipLane, StandingLane
    from streams.recommend import Policy
    from streams.settings import ConditionRule, RecommendSettings

    names = [(f"account{n // 10}", f"condition {n}") for n in range(conditions)]
    policy = Policy.of([ConditionRule(name=name) for _, name in names], RecommendSettings())
    member_lane, stock_lane = MembershipLane(0, [], 0), StandingLane(0, [], 0, policy)
    kept: dict[bytes, bytes | None] = {}  # what the replica has of it
    common: dict[str, Any] = {"seq": "1", "session": "a", "frame": 1}
    position = 0

    def pass_on(value: bytes, key: bytes) -> None:
        nonlocal position
        position += 1
        outputs = member_lane.take(value, position, key).outputs
        for output in outputs:
            position += 1
            stock_lane.take(output.value, position, output.key)

    def write() -> None:
        for lane in (member_lane, stock_lane):
            for key, value in lane.writes():
                kept[key] = None if value is None else msgspec.json.encode(value)

    before = psutil.Process().memory_info().rss
    stocks = -(-members // conditions)
    for n, (account, name) in enumerate(names):
        # Every condition has other stocks where they are few, as conditions have in a market.
        codes = tuple(f"{(n * 37 + s) % 900_000:06}" for s in range(stocks))
        snapshot = ConditionSnapshot(
            id=f"s{n}", account=account, condition=name, codes=codes, at=START, received_at=START, **common
        )
        pass_on(encode(snapshot), condition_key(account, name))
        write()
    grown = psutil.Process().memory_info().rss - before

    def events() -> Iterator[tuple[bytes, bytes]]:
        """Hits and exits of stocks that are new, `visits` times each; the last round is measured."""
        for visit in range(visits + 1):
            for n in range(EVENTS // 2):
                account, name = names[n * 7919 % conditions]
                code = f"9{n:05}"
                for action in ("hit", "exit"):
                    at = START + timedelta(seconds=60 + 2 * visit + (action == "exit"))
                    event = ConditionEvent(
                        id=event_id(account, name, code, action, at, 0),
                        account=account,
                        condition=name,
                        code=code,
                        action=action,  # type: ignore[arg-type]
                        at=at,
                        received_at=at,
                        entry=1,
                        **common,
                    )
                    yield encode(event), condition_key(account, name)

    told = list(events())
    for value, key in told[:-EVENTS]:
        pass_on(value, key)
    write()
    best = float("inf")
    for part in range(4):  # the best of four parts: what else the machine does is no cost of ours
        some = told[len(told) - EVENTS + part * EVENTS // 4 :][: EVENTS // 4]
        started = time.process_time()
        for n, (value, key) in enumerate(some):
            pass_on(value, key)
            if n % 500 == 499:
                write()
        best = min(best, (time.process_time() - started) / len(some))
    midnight = START.replace(hour=0) + timedelta(days=1)
    started = longest = time.process_time()
    ended, slowest = 0, 0.0
    for output in member_lane.overdue(midnight):
        longest = time.process_time()
        ended += len(member_lane.take(output.value, position := position + 1, output.key).outputs)
        slowest = max(slowest, time.process_time() - longest)
    tell(
        **{
            "CPU µs / event": 1e6 * best,
            "KiB / member": grown / 1024 / members,
            "day-end, members / CPU s": ended / max(1e-9, time.process_time() - started),
            "longest step of it, ms": 1000 * slowest,
        }
    )


async def bench_growth() -> None:
    """Conditions, members and visits, each alone."""
    sizes = [("", 100, 10_000, 0)]
    sizes += [(f"{n:,} conditions", n, 100_000, 0) for n in (10, 100, 1000, 10_000)]
    sizes += [
        (f"{n:,} members", min(400, n // 10), n, 0) for n in (100, 1000, 10_000, 100_000, 1_000_000) if n <= MEMBERS
    ]
    sizes += [(f"{n} visits before", 100, 10_000, n) for n in (0, 10, 100)]
    values: dict[str, dict[str, list[float]]] = {}
    for name, *size in sizes:
        figures = await process("bench_scaling.py", *map(str, size), within=1800)
        if name:
            values[name] = {figure: [value] for figure, value in figures.items()}
    kinds: Any = dict.fromkeys(values, "")
    keep(Result("scaling-state", "What an event and a member cost as the work grows (rules and state)", kinds, values))


async def bench_partitions(fresh_kafka: str) -> None:
    """The whole worker over 1 to 64 partitions."""
    from bench_streams import STATE, Course, condition_events

    values: dict[str, dict[str, list[float]]] = {}
    for partitions in (1, 4, 16, 64):
        course = Course(fresh_kafka, condition_events(20_000), partitions)
        await course.fill()
        for _ in range(2):
            figures = await course.run([sys.executable, "-m", "deploy.cli", "stream"], "", STATE)
            for figure, value in figures.items():
                values.setdefault(f"{partitions} partitions", {}).setdefault(figure, []).append(value)
    kinds: Any = dict.fromkeys(values, "")
    keep(Result("scaling-partitions", "One worker, 20,000 events, over partitions", kinds, values))


if __name__ == "__main__":
    lanes(*map(int, sys.argv[1:]))
