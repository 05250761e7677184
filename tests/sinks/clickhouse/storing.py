"""Records in ClickHouse without Kafka: the rows that the sink makes of them, inserted as they are."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import ConsumerRecord
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.rows import COLUMNS, parts
from sinks.consumer import Received
from streams.events import Record

SETTINGS = {"async_insert": 0, "insert_deduplicate": 0, "max_partitions_per_insert_block": 0}


def store(client: Client, records: Sequence[Record]) -> None:
    """Insert the rows of records; none may be of a kind or with values that no table holds."""
    made, refused = parts(
        Received(record, ConsumerRecord("test", 0, offset, 0, 0, b"k", b"{}", None, 1, 2, ()))
        for offset, record in enumerate(records)
    )
    assert not refused, [reason for _, reason in refused]
    for part in made:
        client.insert(
            part.table, part.columns, column_names=COLUMNS[part.table], column_oriented=True, settings=SETTINGS
        )
