"""The limit: aiokafka, msgspec and a dict, with nothing in between; both stages in one loop, uvloop.

Whatever was fetched is decided and sent with `send`, all of it awaited (acks=all, idempotent), then committed: at
least once. With a changelog, the new value of each key goes there too, after the outputs: nothing fences it, and
nothing reads it.

    python raw_loop.py KAFKA GROUP PREFIX CHANGELOG(0|1)
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from job import Event, Transition, deduplicate, recommend


async def main(kafka: str, group: str, prefix: str, changelog: bool) -> None:
    transitions, recommendations = f"{prefix}transitions", f"{prefix}recommendations"
    consumer = AIOKafkaConsumer(
        "hitstream.condition-events",
        transitions,
        bootstrap_servers=kafka,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=2000,
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, max_batch_size=128 * 1024)
    await producer.start()
    await consumer.start()
    encode = msgspec.json.Encoder().encode
    event, move = msgspec.json.Decoder(Event).decode, msgspec.json.Decoder(Transition).decode
    members: dict[Any, Any] = {}
    standings: dict[Any, Any] = {}
    while True:
        fetched = await consumer.getmany(timeout_ms=100)
        pending, values = [], []
        for tp, records in fetched.items():
            for record in records:
                if tp.topic == transitions:
                    key: Any = record.key
                    state, output = recommend(standings.get(key), move(record.value))
                    standings[key] = state
                    topic, log = recommendations, f"{prefix}standings"
                else:
                    told = event(record.value)
                    key = f"{told.account}/{told.condition}/{told.code}".encode()
                    state, output = deduplicate(members.get(key), told)
                    members[key] = state
                    topic, log = transitions, f"{prefix}members"
                if output is not None:
                    pending.append(await producer.send(topic, encode(output), output.code.encode()))
                if changelog:
                    values.append((log, key, encode(state), tp.partition))
        await asyncio.gather(*pending)
        await asyncio.gather(*[await producer.send(log, value, key, n) for log, key, value, n in values])
        if fetched:
            await consumer.commit()


uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "1"))
