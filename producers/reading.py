"""What two readers of Kafka's topics have in common: where a reading begins, and what of a record can be read.

`recommended` follows topics, `hit_codes` reads them once. Neither has a group, so nothing is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition


async def seek(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since: datetime | None
) -> dict[TopicPartition, int]:
    """Go to the first records that Kafka has stamped from a moment on, or to the first of all; where each ends now."""
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    starts: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    if since is not None:
        stamp = int(since.timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, stamp))
        starts |= {place: at.offset if at else ends[place] for place, at in found.items()}
    for place, offset in starts.items():
        consumer.seek(place, offset)
    return ends


def decoded(decoder: msgspec.json.Decoder[Any], value: bytes) -> Any:
    """A record; None for what is none: whose dead letter it is, others decide."""
    try:
        return decoder.decode(value)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
