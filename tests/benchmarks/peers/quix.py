"""The peer that is made for it: Quix Streams, at least once, state in RocksDB with a changelog.

python quix.py KAFKA GROUP PREFIX FOLDER
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from job import Event, Transition, deduplicate, recommend
from quixstreams import Application, State
from quixstreams.models.serializers import Serializer

kafka, group, prefix, folder = sys.argv[1:]
encode = msgspec.json.Encoder().encode
read_event, read_move = msgspec.json.Decoder(Event).decode, msgspec.json.Decoder(Transition).decode


class Struct(Serializer):
    """A record as JSON."""

    def __call__(self, value: Any, ctx: Any) -> bytes:
        return encode(value)


app = Application(
    broker_address=kafka,
    consumer_group=group,
    auto_offset_reset="earliest",
    state_dir=folder,
    loglevel="WARNING",
    producer_extra_config={"acks": "all", "enable.idempotence": True},
    topic_create_timeout=60,
    commit_interval=1.0,  # as ours; until then its changelog is not written
)
events = app.topic("hitstream.condition-events", value_deserializer="bytes")
transitions = app.topic(f"{prefix}transitions", value_deserializer="bytes", value_serializer=Struct())
recommendations = app.topic(f"{prefix}recommendations", value_serializer=Struct())


def entered(value: bytes, state: State) -> Transition | None:
    event = read_event(value)
    member, transition = deduplicate(state.get(event.code), event)
    state.set(event.code, member)
    return transition


def recommended(value: bytes, state: State) -> Any:
    standing, revision = recommend(state.get("standing"), read_move(value))
    state.set("standing", standing)
    return revision


for source, function, topic in ((events, entered, transitions), (transitions, recommended, recommendations)):
    derived = app.dataframe(source).apply(function, stateful=True).filter(lambda record: record is not None)
    derived.to_topic(topic, key=lambda record: record.code.encode())
app.run()
