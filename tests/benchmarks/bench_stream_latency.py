"""The stream worker at 200 events a second: how long from a hit's receipt to its transition and its recommendation.

One setting is varied at a time, from its default. Receipt is the moment at which the event is handed to a producer
(acks=all, no linger); told is when a consumer beside the worker has the record in hand. The raw loop is the same two
hops with nothing of ours in between. `HITSTREAM_TEST_SECONDS` is how long each setting is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

sys.path.insert(0, str(Path(__file__).parent))

from bench_streams import STATE, Course, condition_events, ours
from harness import HERE, Result, keep

from streams import topics
from streams.events import condition_key, encode

SECONDS = float(os.environ.get("HITSTREAM_TEST_SECONDS", "10"))
RATE = 200
#: Setting → values; the default is measured once for all of them.
CURVES = {
    "state_interval": ("0.005", "0.05", "1"),
    "commit_interval": ("0.1", "5"),
    "fetch_wait": ("0.05", "1.5"),
    "batch_records": ("50", "500"),
}


class Latencies(Course):
    """Events at a steady rate, and when what they lead to is heard."""

    async def measure(
        self, command: Sequence[str], prefix: str, state: Sequence[str], settings: Mapping[str, str]
    ) -> dict[str, float]:
        """Milliseconds: p50 and p99 to the transition, and to the recommendation."""
        prefix = f"{prefix}-" if prefix else topics.PREFIX
        names = [f"{prefix}{name}" for name in ("transitions", "recommendations")]
        await self._make([topics.CONDITION_EVENTS.name, *names, *(name.format(prefix=prefix) for name in state)])
        group = f"latency-{time.time()}"
        words = [word.format(kafka=self.kafka, group=group, prefix=prefix, folder="") for word in command]
        environ = (
            os.environ | ours(self.kafka, group) | {f"HITSTREAM_STREAM__{k.upper()}": v for k, v in settings.items()}
        )
        with tempfile.TemporaryFile() as said:
            child = await asyncio.create_subprocess_exec(
                *words, cwd=HERE / "peers", env=environ, stdout=said, stderr=said
            )
            try:
                return await self._listen(names)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    async def _listen(self, names: Sequence[str]) -> dict[str, float]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, enable_idempotence=True)
        await consumer.start()
        await producer.start()
        try:
            consumer.assign([TopicPartition(name, n) for name in names for n in range(self.partitions)])
            await consumer.seek_to_beginning()
            sent: dict[str, float] = {}
            heard: dict[str, list[tuple[float, float]]] = {"transition": [], "recommendation": []}

            async def speak() -> None:
                for n, event in enumerate(self.events):
                    await asyncio.sleep(max(0.0, started + n / RATE - time.monotonic()))
                    sent.setdefault(event.id, time.monotonic())
                    await producer.send(
                        topics.CONDITION_EVENTS.name, encode(event), key=condition_key("main", event.condition)
                    )

            # The first event waits for the worker: what follows is told in time.
            started = time.monotonic()
            first = self.events[0]
            key = condition_key("main", first.condition)
            await producer.send(topics.CONDITION_EVENTS.name, encode(first), key=key)
            async with asyncio.timeout(90):
                while not (await consumer.getmany(timeout_ms=100)):
                    pass
            started = time.monotonic() + 2
            speaking = asyncio.create_task(speak())
            events: dict[str, str] = {}
            end = started + len(self.events) / RATE + 1
            while (now := time.monotonic()) < end:
                fetched = await consumer.getmany(timeout_ms=20)
                now = time.monotonic()
                for record in (record for records in fetched.values() for record in records):
                    told = msgspec.json.decode(record.value)
                    if told["type"] == "transition":
                        events[told["id"]] = event = told["event_id"]
                    else:
                        event = events.get(told["cause_id"], "")
                    if event in sent:
                        heard[told["type"]].append((sent[event], now - sent[event]))
            await speaking
        finally:
            await producer.stop()
            await consumer.stop()
        figures: dict[str, float] = {}
        for what, latencies in heard.items():
            steady = [1000 * latency for at, latency in latencies if at > started + 2]
            hundredths = statistics.quantiles(steady, n=100)
            figures |= {f"{what} p50 ms": hundredths[49], f"{what} p99 ms": hundredths[98]}
        return figures


async def bench_stream_latency(fresh_kafka: str) -> None:
    """Curves over the settings that could matter."""
    course = Latencies(fresh_kafka, condition_events(int((SECONDS + 2) * RATE)))
    worker = [sys.executable, "-m", "deploy.cli", "stream"]
    raw = [sys.executable, "raw_loop.py", "{kafka}", "{group}", "{prefix}", "1"]
    values: dict[str, dict[str, list[float]]] = {}

    def note(name: str, figures: Mapping[str, float]) -> None:
        for figure, value in figures.items():
            values.setdefault(name, {}).setdefault(figure, []).append(value)

    note("raw loop", await course.measure(raw, "raw", ["{prefix}members", "{prefix}standings"], {}))
    note("defaults", await course.measure(worker, "", STATE, {}))
    for setting, choices in CURVES.items():
        for choice in choices:
            settings: dict[str, Any] = {setting: choice}
            note(f"stream.{setting} = {choice}", await course.measure(worker, "", STATE, settings))
    note("defaults, again", await course.measure(worker, "", STATE, {}))
    kinds: Any = dict.fromkeys(values, "")
    keep(Result("stream-latency", f"{RATE} events a second: receipt → transition → recommendation", kinds, values))
