"""Cold start of each role, and what it takes at rest: from `exec` to ready with the broker there, then its memory.

Each role is started `STARTS` times against a running Kafka (and the sink's ClickHouse), one after another; it is ready
when its `/readyz` says so, which of the producer means that eight conditions are live, of the worker that it holds its
partitions, of the live sink that the (empty) day has been read. "CPU s" is what the start itself cost: on a machine
that does nothing else the wall time is this and the waits for Kafka. Memory is proportional set size after `REST`
seconds at rest.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_ingest import feed
from harness import ROUNDS, Result, keep
from roles import roles

STARTS = ROUNDS
REST = 10.0


async def bench_cold_start(fresh_kafka: str, tmp_path: Path) -> None:
    """Start each role again and again; the last one of each is left alone for a while."""
    values: dict[str, dict[str, list[float]]] = {}
    async with feed() as port:
        with roles(tmp_path / "roles", fresh_kafka, port) as running:
            await running.start("local clickhouse", "--port", str(running.clickhouse_port)).ready()
            for name in ("produce", "stream", "sink clickhouse", "sink live"):
                found = values[name] = {"ready after s": [], "CPU s": [], "MiB at rest": []}
                for number in range(STARTS + 1):
                    role = running.start(name)
                    ready, cpu = await role.ready(), role.cpu()
                    if number:  # the first one may compile what it imports
                        found["ready after s"].append(ready)
                        found["CPU s"].append(cpu)
                    if number == STARTS:
                        await asyncio.sleep(REST)
                        found["MiB at rest"].append(role.memory())
                    running.running.pop(name).stop()
    keep(
        Result(
            "cold-start",
            f"Cold start of each role, {STARTS} times, and memory after {REST:.0f} s at rest",
            dict.fromkeys(values, ""),
            values,
        )
    )
