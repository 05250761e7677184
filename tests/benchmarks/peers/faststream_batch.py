"""The peer that is asyncio's: FastStream with batches; its state is a dict, lost with the process (no changelog).

python faststream_batch.py KAFKA GROUP PREFIX
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from job import Event, Transition, deduplicate, recommend

kafka, group, prefix = sys.argv[1:]
broker = KafkaBroker(kafka, enable_idempotence=True, acks="all", logger=None)
encode = msgspec.json.Encoder().encode
read_event, read_move = msgspec.json.Decoder(Event).decode, msgspec.json.Decoder(Transition).decode
members: dict[Any, Any] = {}
standings: dict[Any, Any] = {}
options: dict[str, Any] = {
    "batch": True,
    "max_records": 2000,
    "group_id": group,
    "auto_offset_reset": "earliest",
    "ack_policy": AckPolicy.ACK,  # committed once the batch is done
    "decoder": lambda message: message.body,
}


async def send(outputs: list[Any], topic: str) -> None:
    confirmations = [
        await broker.publish(encode(output), topic, key=output.code.encode(), no_confirm=True) for output in outputs
    ]
    await asyncio.gather(*confirmations)


@broker.subscriber("hitstream.condition-events", **options)
async def enter(values: list[Any], message: KafkaMessage) -> None:
    outputs = []
    for value in values:
        event = read_event(value)
        key = (event.account, event.condition, event.code)
        members[key], transition = deduplicate(members.get(key), event)
        if transition is not None:
            outputs.append(transition)
    await send(outputs, f"{prefix}transitions")


@broker.subscriber(f"{prefix}transitions", **options)
async def judge(values: list[Any], message: KafkaMessage) -> None:
    outputs = []
    for value in values:
        move = read_move(value)
        standings[move.code], revision = recommend(standings.get(move.code), move)
        if revision is not None:
            outputs.append(revision)
    await send(outputs, f"{prefix}recommendations")


uvloop.run(FastStream(broker, logger=None).run())
