"""The market opens: 5,000 hits within one second, after quiet. When does the dashboard have all, when ClickHouse?

The running product – every role a process of its own, Kafka and the local ClickHouse beside it – is quiet; then 5,000
frames with one hit each are written within a second. Told are the seconds from the first frame until the last line is
at a client of the live stream, until ClickHouse has every transition, and the most memory that each role had. That
nothing is dropped is asserted: every hit is a line of the feed and a row.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_ingest import feed
from feed import CONDITIONS, STOCKS
from harness import Contestant, Figures, race
from roles import Stream, go, roles

HITS = 5_000
QUIET = 5.0
WITHIN = 60.0
_ROWS = "SELECT uniqExact(id) FROM transitions WHERE account = '{account}' AND kind = 'entered'"


async def until(done: object, what: str) -> float:
    """Wait until something is true, looking often; when it was (CLOCK_MONOTONIC)."""
    deadline = time.monotonic() + WITHIN
    while not await asyncio.to_thread(done):  # type: ignore[arg-type]
        assert time.monotonic() < deadline, f"{what} did not come within {WITHIN:.0f} s"
        await asyncio.sleep(0.02)
    return time.monotonic()


async def opening(folder: Path, kafka: str, account: str) -> Figures:
    """One opening; every round is another account's, to which every hit is news."""
    rows = _ROWS.format(account=account)
    async with feed() as port:
        with roles(folder, kafka, port, {"HITSTREAM_KIWOOM__ACCOUNT": account}) as running:
            await running.start_all(clickhouse=True)
            stream = Stream(running.live_port)
            reading = asyncio.create_task(stream.run())
            await asyncio.sleep(QUIET)
            answer = await go(port, count=HITS, rate=HITS)
            on_screen = until(lambda: len(stream.transitions) >= HITS, "the dashboard's last line")
            stored = until(lambda: running.rows(rows) >= HITS, "ClickHouse's last row")
            shown, kept = await asyncio.gather(on_screen, stored)
            last = max(stream.transitions.values())
            assert len(stream.transitions) == running.rows(rows) == HITS
            reading.cancel()
            peaks = {f"{name} peak MiB": role.peak() for name, role in running.running.items() if "local" not in name}
            return {
                "frames written s": answer["written"] - answer["began"],
                "dashboard s": min(last, shown) - answer["began"],
                "ClickHouse s": kept - answer["began"],
                **peaks,
            }


async def bench_open(fresh_kafka: str, tmp_path: Path) -> None:
    """Several openings, each after a new start."""
    assert STOCKS * len(CONDITIONS) >= HITS
    rounds = itertools.count()

    async def once() -> Figures:
        number = next(rounds)
        return await opening(tmp_path / f"round-{number}", fresh_kafka, f"round{number}")

    await race(
        "market-open",
        f"Market open: {HITS:,} hits within a second, after quiet",
        [Contestant("hitstream", "ours", once)],
        rounds=3,
        warm_up=False,
    )
