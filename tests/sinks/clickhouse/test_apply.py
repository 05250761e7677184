"""What the writer makes of ClickHouse's answers, without one: whose fault a refusal is, and what is done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, OperationalError

from sinks.clickhouse.rows import COLUMNS
from sinks.clickhouse.writer import Writer
from sinks.consumer import Batch, Received, Refused, Retryable
from streams.events import KST, Gap, SearchResult, SearchRow, Stock, encode

AT = datetime(2026, 11, 23, 9, tzinfo=KST)


class Context:
    def __init__(self, table: str, settings: dict[str, Any]) -> None:
        self.table = table
        self.settings = settings
        self.data: list[tuple[Any, ...]] = []


class Server:
    """Stands for the client: keeps what it is given, unless `refuse` raises for the table and its rows."""

    def __init__(self) -> None:
        self.stored: dict[str, list[dict[str, Any]]] = {}
        self.inserts: list[tuple[str, int]] = []
        self.settings: list[dict[str, Any]] = []
        self.server_settings = {"async_insert", "insert_deduplicate", "max_execution_time"}
        self.refuse: Callable[[str, list[dict[str, Any]]], None] = lambda table, rows: None

    async def create_insert_context(
        self, table: str, names: list[str], *, column_oriented: bool, settings: dict[str, Any]
    ) -> Context:
        assert column_oriented
        assert tuple(names) == COLUMNS[table]
        return Context(table, settings)

    async def data_insert(self, context: Context) -> None:
        rows = [dict(zip(COLUMNS[context.table], values, strict=True)) for values in zip(*context.data, strict=True)]
        self.inserts.append((context.table, len(rows)))
        self.settings.append(context.settings)
        self.refuse(context.table, rows)
        self.stored.setdefault(context.table, []).extend(rows)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def writer(server: Server) -> Writer:
    return Writer(server, "clickhouse://there:8123/market")  # type: ignore[arg-type]


def batch(*records: Stock | Gap | SearchResult) -> Batch:
    made = []
    for offset, record in enumerate(records):
        value = encode(record)
        source = ConsumerRecord("topic", 0, offset, 0, 0, b"k", value, None, 1, len(value), ())
        made.append(Received(record, source))
    return Batch({TopicPartition("topic", 0): made})


async def store(writer: Writer, hand: Batch) -> Sequence[Refused]:
    return await writer.apply(await writer.prepare(hand))


def stocks(count: int) -> list[Stock]:
    return [Stock(code=f"{n:06d}", name="n", market="m", received_at=AT) for n in range(count)]


def gap() -> Gap:
    return Gap(
        id="g", account="a", condition="c", from_=AT, to=AT, cause="x", at=AT, received_at=AT, session="s"
    )  # fmt: skip


def search(codes: list[str]) -> SearchResult:
    return SearchResult(
        id="s",
        account="a",
        condition="c",
        seq="1",
        rows=tuple(SearchRow(code=code) for code in codes),
        at=AT,
        received_at=AT,
        session="s",
    )


def refusing(error: Exception, *codes: str) -> Callable[[str, list[dict[str, Any]]], None]:
    def refuse(table: str, rows: list[dict[str, Any]]) -> None:
        if any(row.get("code") in codes for row in rows):
            raise error

    return refuse


async def test_a_batch_is_one_insert_per_table(server: Server, writer: Writer) -> None:
    assert await store(writer, batch(*stocks(5), gap(), search(["1", "2"]))) == []
    assert sorted(server.inserts) == [("gaps", 1), ("search_results", 2), ("searches", 1), ("stocks", 5)]


async def test_an_insert_says_how_it_is_meant_in_the_settings_that_the_server_knows(
    server: Server, writer: Writer
) -> None:
    await store(writer, batch(*stocks(1)))
    assert server.settings == [{"async_insert": 0, "insert_deduplicate": 0, "max_execution_time": 60}]


@pytest.mark.parametrize("wrong", [["000000"], ["000006"], ["000003", "000004"], [f"{n:06d}" for n in range(7)]])
@pytest.mark.parametrize("error", [DataError("too big"), DatabaseError("Code: 469. no", code=469)])
async def test_a_row_that_is_refused_is_found_and_the_others_are_stored(
    server: Server, writer: Writer, error: Exception, wrong: list[str]
) -> None:
    server.refuse = refusing(error, *wrong)
    refused = await store(writer, batch(*stocks(7)))
    assert [f"{one.source.offset:06d}" for one in refused] == wrong
    assert all(one.reason == f"stocks: {error}" for one in refused)
    assert {row["code"] for row in server.stored.get("stocks", [])} == {f"{n:06d}" for n in range(7)} - set(wrong)


async def test_a_record_of_many_rows_is_one_dead_letter(server: Server, writer: Writer) -> None:
    server.refuse = refusing(DataError("no"), "1", "3")
    refused = await store(writer, batch(search(["1", "2", "3"]), gap()))
    assert [one.source.offset for one in refused] == [0]
    assert [row["code"] for row in server.stored["search_results"]] == ["2"]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("Network Error"),
        TimeoutError(),
        ConnectionResetError("reset"),
        *(
            DatabaseError(f"Code: {code}.", code=code)
            # too many parts, read-only, no space, no table, no database, no column, no right, no login, timeout
            for code in (252, 242, 243, 60, 81, 16, 497, 516, 159, 999, 53)
        ),
        DatabaseError("no code at all"),
    ],
    ids=repr,
)
async def test_what_is_not_the_rows_fault_is_tried_again(server: Server, writer: Writer, error: Exception) -> None:
    server.refuse = refusing(error, "000001")
    with pytest.raises(Retryable, match="clickhouse://there:8123/market can't take rows now"):
        await store(writer, batch(*stocks(3)))
    assert len(server.inserts) == 1, "nothing is halved"


def crowded(limit: int) -> Callable[[str, list[dict[str, Any]]], None]:
    """A server that has memory for so many rows at once."""

    def refuse(table: str, rows: list[dict[str, Any]]) -> None:
        if len(rows) > limit:
            raise DatabaseError("Code: 241. DB::Exception: Memory limit exceeded", code=241)

    return refuse


async def test_what_is_too_much_for_the_server_s_memory_is_inserted_by_halves(server: Server, writer: Writer) -> None:
    """It would be too much again, however often it is tried; no row of it is condemned."""
    server.refuse = crowded(3)
    assert await store(writer, batch(*stocks(20))) == []
    assert sorted(row["code"] for row in server.stored["stocks"]) == [f"{n:06d}" for n in range(20)]


async def test_a_server_without_memory_for_a_single_row_is_waited_out(server: Server, writer: Writer) -> None:
    hand = await writer.prepare(batch(*stocks(4), gap()))
    server.refuse = crowded(0)
    with pytest.raises(Retryable, match="Memory limit exceeded"):
        await writer.apply(hand)
    server.refuse = lambda table, rows: None
    assert await writer.apply(hand) == []
    assert sorted(row["code"] for row in server.stored["stocks"]) == [f"{n:06d}" for n in range(4)]


async def test_tables_of_a_batch_are_stored_at_once_and_one_that_fails_keeps_no_other_back(
    server: Server, writer: Writer
) -> None:
    def refuse(table: str, rows: list[dict[str, Any]]) -> None:
        if table == "gaps":
            raise OperationalError("away")

    server.refuse = refuse
    hand = await writer.prepare(batch(gap(), *stocks(2)))
    with pytest.raises(Retryable):
        await writer.apply(hand)
    assert len(server.stored["stocks"]) == 2
    assert list(hand.parts) == ["gaps"]


async def test_a_second_try_leaves_out_the_tables_that_have_acknowledged(server: Server, writer: Writer) -> None:
    server.refuse = refusing(OperationalError("away"), "000001")
    hand = await writer.prepare(batch(gap(), *stocks(2)))
    for _ in range(3):
        with pytest.raises(Retryable):
            await writer.apply(hand)
    server.refuse = lambda table, rows: None
    assert await writer.apply(hand) == []
    assert server.inserts.count(("gaps", 1)) == 1
    assert [row["code"] for row in server.stored["stocks"]] == ["000000", "000001"]


async def test_another_batch_after_an_abandoned_one_is_stored_whole(server: Server, writer: Writer) -> None:
    server.refuse = refusing(OperationalError("away"), "000001")
    with pytest.raises(Retryable):
        await store(writer, batch(gap(), *stocks(2)))
    server.refuse = lambda table, rows: None
    assert await store(writer, batch(gap(), *stocks(2))) == []
    assert server.inserts.count(("gaps", 1)) == 2
