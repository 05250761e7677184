"""Frame → browser: from the moment in which a frame is written to the socket until its recommendation is at a client.

The running product – producer, worker and live sink as processes of their own, every guarantee on – hears 200 hits a
second, each of which opens a recommendation, and one client reads the live stream. That is three Kafka hops:
condition-events, transitions, recommendations; the line of the feed, which takes two, is told beside it. The limit
(`hops`) is the same with raw aiokafka and nothing decided. Figures in ms.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).parent))

import hops
from bench_ingest import feed
from feed import STOCKS, code
from harness import HERE, Contestant, Figures, race
from roles import Stream, go, roles

from deploy.local.kafka.address import free_port
from streams import topics

RATE = 200
SECONDS = 6
COUNT = RATE * SECONDS
WARM = 200  # frames before those that count: connections, caches, the first batch of every partition
SETTLE = 2.0
# Settings to be tried, from the environment: HITSTREAM_TEST_TUNING="HITSTREAM_STREAM__X=1 …".
TUNING = dict(pair.split("=", 1) for pair in os.environ.get("HITSTREAM_TEST_TUNING", "").split())
RATIOS = ["p50", "p99"]


def figures(name: str, sent: dict[str, float], came: dict[str, float]) -> dict[str, float]:
    """Percentiles of what lies between, in ms. Everything must have come."""
    missing = [key for key in sent if key not in came]
    assert not missing, f"{name}: {len(missing)} of {len(sent)} never came"
    took = sorted(1000 * (came[key] - at) for key, at in sent.items())
    return {"p50": statistics.median(took), "p99": took[int(0.99 * len(took))], "max": took[-1]}


async def told(port: int, frames: int, stream: Stream) -> dict[str, float]:
    """Let the frames go, wait until the client has them; when each stock's hit was written."""
    await asyncio.sleep(SETTLE)
    await go(port, count=WARM, rate=RATE)
    answer = await go(port, **{"count": frames - WARM, "rate": RATE, "from": WARM})
    for _ in range(1200):
        if len(stream.recommendations) >= frames:
            break
        await asyncio.sleep(0.05)
    return {code(WARM + n): at for n, at in enumerate(answer["moments"])}


async def product(folder: Path, kafka: str, account: str) -> Figures:
    """The product, once."""
    async with feed() as port:
        with roles(folder, kafka, port, {"HITSTREAM_KIWOOM__ACCOUNT": account} | TUNING) as running:
            await running.start_all(clickhouse=False)
            stream = Stream(running.live_port)
            reading = asyncio.create_task(stream.run())
            before = {name: role.cpu() for name, role in running.running.items()}
            sent = await told(port, COUNT, stream)
            used = {
                f"{name} CPU ms/hit": 1000 * (role.cpu() - before[name]) / COUNT
                for name, role in running.running.items()
            }
            reading.cancel()
            feed_lines = {stock: at for (_, stock), at in stream.transitions.items()}
            lines = figures("the feed", sent, feed_lines)
            return figures("recommendations", sent, stream.recommendations) | {
                "feed line p50": lines["p50"],
                "feed line p99": lines["p99"],
                **used,
            }


async def make_topics(kafka: str) -> None:
    """Topics for the limit, with as many partitions as the product's."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, topics.TRANSITIONS.partitions, 1) for name in hops.TOPICS])
    finally:
        await admin.close()


async def limit(kafka: str) -> Figures:
    """Three hops and a write, once."""
    sse = free_port("127.0.0.1")
    async with feed() as port:
        parts = []
        try:
            for part, number in (("out", sse), ("relay", 0), ("in", port)):
                process = subprocess.Popen(  # noqa: ASYNC220 – a moment, before anything is measured
                    [sys.executable, str(HERE / "hops.py"), part, kafka, str(number)],
                    stdout=subprocess.PIPE,
                    env=os.environ,
                )
                parts.append(process)
                assert process.stdout is not None
                await asyncio.to_thread(process.stdout.readline)
            stream = Stream(sse)
            reading = asyncio.create_task(stream.run())
            sent = await told(port, COUNT, stream)
            reading.cancel()
            return figures("the limit", sent, stream.recommendations)
        finally:
            for process in parts:
                process.terminate()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()


async def bench_latency(fresh_kafka: str, tmp_path: Path) -> None:
    """Product and limit in turn; each round of the product is of another account, to which every hit is news."""
    assert COUNT <= STOCKS
    rounds = itertools.count()
    await make_topics(fresh_kafka)

    async def ours() -> Figures:
        number = next(rounds)
        return await product(tmp_path / f"round-{number}", fresh_kafka, f"round{number}")

    await race(
        "frame-to-browser",
        f"Frame → browser at {RATE} hits/s: recommendation at the client, ms",
        [
            Contestant("three raw hops, one write", "limit", lambda: limit(fresh_kafka)),
            Contestant("hitstream", "ours", ours),
        ],
        ratios=RATIOS,
        warm_up=False,
    )
