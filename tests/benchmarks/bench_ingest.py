"""WebSocket frame → record acknowledged by Kafka, one producer, against its limits and against a plain client.

Every contestant (`ingest`) is a process of its own that reads the same frames from the same server (`feed`) as fast as
it can, and is done when Kafka has acknowledged everything with `acks=all` and idempotence. Two limits, both with
nothing of ours in between: `recv` and one `send` of the frame; and, because Hitstream says two things of a frame –
what it means, and the frame itself for the journal – `recv` and two `send`s of records of that length. Two peers:
kiwoom-client with a dict and `json.dumps`, once as one writes it first (each hit awaited until Kafka has it), once with
all futures gathered at the end.

After each run Kafka is asked whether everything is there. Figures: frames a second, CPU time of the contestant's
process for 1,000 frames, and the share of one core that this was.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

sys.path.insert(0, str(Path(__file__).parent))

from harness import HERE, PEERS, Contestant, Figures, process, race

from streams import topics

COUNT = 20_000
SLOW = 2_000  # frames for whoever waits for each acknowledgement
RATE = 10_000
RATIOS = ["frames/s", "CPU ms / 1,000 frames"]


@contextlib.asynccontextmanager
async def feed() -> AsyncIterator[int]:
    """A feed as a process of its own; its port."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "feed.py"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield int(await child.stdout.readline())
    finally:
        child.stdin.close()
        await child.wait()


async def kept(kafka: str, topic: topics.Topic) -> int:
    """How many records a topic has been given."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic.name, n) for n in range(topic.partitions)])
        return sum(ends.values())
    finally:
        await consumer.stop()


def contestants(kafka: str, shape: str, count: int, rate: float = 0) -> list[Contestant]:
    """The contestants for one shape of frames; `mixed` frames are mostly prices, which a peer passes over."""
    hits = {"hits": 1.0, "mixed": 0.1, "burst": 10.0}[shape]

    def run(name: str, frames: int, python: Path | str, least: float):
        async def once() -> Figures:
            async with feed() as port:
                before = await kept(kafka, topics.CONDITION_EVENTS)
                figures = await process(
                    "ingest.py", name, str(port), kafka, shape, str(frames), str(rate), python=python
                )
                there = await kept(kafka, topics.CONDITION_EVENTS) - before
                assert there >= frames * least, f"{name}: {there} records of {frames} frames are there"
            return figures

        return once

    own, theirs = sys.executable, PEERS
    return [
        Contestant("recv + send of the frame", "limit", run("limit-frame", count, own, 1)),
        Contestant("recv + 2 sends of our bytes", "", run("limit-same", count, own, 1)),
        Contestant("hitstream", "ours", run("hitstream", count, own, hits)),
        Contestant("hitstream, no journal", "", run("hitstream-no-journal", count, own, hits)),
        Contestant("kiwoom-client, futures gathered", "peer", run("peer", count, theirs, hits)),
        Contestant("kiwoom-client, each awaited", "peer", run("peer-awaits", min(count, SLOW), theirs, hits)),
    ]


@pytest.mark.parametrize("shape", ["hits", "mixed"])
async def bench_ingest(fresh_kafka: str, shape: str) -> None:
    """As fast as each can."""
    runners = contestants(fresh_kafka, shape, COUNT)
    said = {"hits": "one hit or exit in each", "mixed": "one in ten a hit or exit, the others a trade"}
    await race(
        f"frame-to-kafka-{shape}",
        f"Frames → acknowledged by Kafka, {said[shape]}, as fast as each can",
        runners if shape == "hits" else [each for each in runners if "awaited" not in each.name],
        ratios=RATIOS,
    )


async def bench_ingest_paced(fresh_kafka: str) -> None:
    """10,000 frames a second for three seconds: what of one core that takes, and that nothing is left behind."""
    limit, _, ours, *_ = contestants(fresh_kafka, "hits", 3 * RATE, RATE)
    await race(
        "frame-to-kafka-paced",
        f"Frames → acknowledged by Kafka, {RATE:,} frames/s for 3 s",
        [limit, ours],
        ratios=["CPU ms / 1,000 frames"],
        warm_up=False,
    )
