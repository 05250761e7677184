"""The engine as one first writes it: Faust with typed records, tables, and an awaited send for each output.

python naive_faust.py KAFKA GROUP PREFIX FOLDER SOURCE worker -l warn
"""

from __future__ import annotations

import sys
from typing import Any

import faust
import msgspec
from job import Event, Transition, deduplicate, recommend

kafka, group, prefix, folder, source = sys.argv[1:6]
del sys.argv[1:6]
PARTITIONS = 4


class ConditionEvent(faust.Record, serializer="json"):
    """What is used of a condition event."""

    id: str
    account: str
    condition: str
    code: str
    exchange: str
    action: str
    at: str
    received_at: str
    session: str


class Move(faust.Record, serializer="json"):
    """A transition, as it is used."""

    id: str
    account: str
    condition: str
    code: str
    kind: str
    date: str
    entry: int
    at: str
    since: str
    received_at: str


app = faust.App(
    group,
    broker=f"kafka://{kafka}",
    store="memory://",
    datadir=folder,
    web_enabled=False,
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    producer_acks=-1,
    consumer_auto_offset_reset="earliest",
)
events = app.topic(source, key_type=bytes, value_type=ConditionEvent, partitions=PARTITIONS)
transitions = app.topic(f"{prefix}transitions", key_type=bytes, value_type=Move, partitions=PARTITIONS)
recommendations = app.topic(f"{prefix}recommendations", value_serializer="raw", partitions=PARTITIONS)
members = app.Table("members", partitions=PARTITIONS)
standings = app.Table("standings", partitions=PARTITIONS)


def plain(record: Any) -> Any:
    return msgspec.to_builtins(record)


@app.agent(events)
async def enter(stream: Any) -> None:
    async for event in stream:
        key = f"{event.account}/{event.condition}/{event.code}"
        told = Event(**{name: getattr(event, name) for name in Event.__struct_fields__})
        members[key], transition = deduplicate(members.get(key), told)
        if transition is not None:
            await transitions.send(key=event.code.encode(), value=plain(transition))


@app.agent(transitions)
async def judge(stream: Any) -> None:
    async for move in stream:
        known = {name: getattr(move, name) for name in Move._options.fields}
        told = Transition(exchange="", origin="", dwell=None, event_id="", session="", **known)
        standings[move.code], revision = recommend(standings.get(move.code), told)
        if revision is not None:
            await recommendations.send(key=move.code.encode(), value=msgspec.json.encode(revision))


app.main()
