"""A hub with 1,000 browsers at 200 changes a second: until the last browser has a change, CPU, and memory for each.

Every contestant (`hubs`) is a server in a process of its own; its clients are another process on the same machine. The
limit is one encode and N socket writes at the product's ticks. The peer is Litestar's channels plugin as it comes; it
can't keep up with as many, so it gets fewer clients (`PEERS_CLIENTS`), and what is compared is clients per core. The
product also runs with 50 clients that read nothing, and with browsers that take gzip.

`bench_hub_from_kafka` begins at Kafka instead of at the hub: from the moment in which Kafka appended the record. The
limit is a bare consumer in front of the same socket writes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from harness import Contestant, Figures, process, race

from streams import topics

CLIENTS = int(os.environ.get("HITSTREAM_TEST_CLIENTS", "1000"))
PEERS_CLIENTS = 100
SECONDS = float(os.environ.get("HITSTREAM_TEST_SECONDS", "10"))


def hub(kind: str, *further: str, clients: int = CLIENTS) -> Callable[[], Awaitable[Figures]]:
    """One run of a server."""
    return lambda: process("hubs.py", kind, "--clients", str(clients), "--seconds", str(SECONDS), *further)


async def bench_hub() -> None:
    await race(
        "hub",
        f"{CLIENTS:,} browsers, 200 changes/s: until the last browser has a change",
        [
            Contestant("one encode, N writes", "limit", hub("limit")),
            Contestant("hitstream", "ours", hub("ours")),
            Contestant("hitstream, 50 of them stalled", "", hub("ours", "--stalled", "50")),
            Contestant("hitstream, all take gzip", "", hub("ours", "--gzip", "1")),
            Contestant(f"Litestar channels, {PEERS_CLIENTS} browsers", "peer", hub("channels", clients=PEERS_CLIENTS)),
        ],
        ratios=["p99 ms", "clients / core"],
        note="Clients and server share the machine; with gzip the times are not looked for.",
    )


async def stamped_by_kafka(kafka: str) -> None:
    """Let Kafka stamp what it appends, as it appends it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, topic.name, {"message.timestamp.type": "LogAppendTime"})
                for topic in (topics.TRANSITIONS, topics.QUOTES)
            ]
        )
    finally:
        await admin.close()


async def bench_hub_from_kafka(fresh_kafka: str) -> None:
    await stamped_by_kafka(fresh_kafka)
    through = ("--kafka", fresh_kafka)
    await race(
        "hub_from_kafka",
        f"{CLIENTS:,} browsers, 200 changes/s: from the record in Kafka until the last browser has it",
        [
            Contestant("a consumer, one encode, N writes", "limit", hub("limit", *through)),
            Contestant("hitstream", "ours", hub("ours", *through)),
            Contestant("hitstream, 50 of them stalled", "", hub("ours", "--stalled", "50", *through)),
        ],
        ratios=["p99 ms", "clients / core"],
        note="Kafka, what writes to it, clients and server share the machine. Kafka stamps whole milliseconds.",
    )
