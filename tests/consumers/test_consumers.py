"""The programs of docs/consumers.md, as printed: repeats, unknown records and a kill leave each fact done once."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from streams import topics
from streams.events import KST, Due, Reason, Recommendation, Transition, encode, identity, revision_id, transition_id

from ..conftest import Broker

pytestmark = pytest.mark.kafka

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs" / "consumers.md").read_text(encoding="utf-8")
DAY = date(2026, 3, 2)
NINE = datetime(2026, 3, 2, 9, tzinfo=KST)
CODES = ("005930", "000660", "0004V0")


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory, kafka_engine: str) -> Iterator[str]:
    """A broker that no other test writes to: the programs read whole topics."""
    broker = Broker(tmp_path_factory.mktemp("consumers") / "kafka", kafka_engine)
    try:
        broker.start()
        yield broker.address
    finally:
        broker.wipe()


def printed(name: str, language: str) -> str:
    """The program of this name on the page."""
    (text,) = re.findall(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def recommendation(n: int, revision: int) -> Recommendation:
    at = NINE + timedelta(minutes=n, seconds=revision)
    opening = identity("recommendation", n)
    return Recommendation(
        id=revision_id(opening, revision), recommendation_id=opening, revision=revision, account="main",
        code=CODES[n % 3], date=DAY, state="closed" if revision == 3 else "open", cause="threshold", cause_id="c",
        rule="sum", score=1.0, threshold=1.0,
        reasons=(
            Reason(kind="condition", condition="신고가 돌파", since=at, score=1.0),
            Reason(kind="manual", by="kim", since=at, score=1.0),
        ),
        opened_at=at, at=at, received_at=at.astimezone(UTC),
    )  # fmt: skip


def visits(code: str, entries: Sequence[int]) -> list[Transition]:
    """Entered and exited, in turn."""
    return [
        Transition(
            id=transition_id("main", "신고가 돌파", code, DAY, entry, kind), account="main", condition="신고가 돌파",
            code=code, kind=kind, origin="realtime", date=DAY, entry=entry, at=NINE + timedelta(minutes=entry),
            since=NINE + timedelta(minutes=entry), event_id="e", session="a", received_at=NINE.astimezone(UTC),
        )
        for entry in entries
        for kind in ("entered", "exited")
    ]  # fmt: skip


async def produce(bootstrap_servers: str, topic: str, records: Sequence[Any], *more: dict[str, Any]) -> None:
    """Records under their stock codes; `more` as a later version of Hitstream would write them."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        for record in records:
            await producer.send(topic, encode(record), key=record.code.encode())
        for value in more:
            await producer.send(topic, json.dumps(value).encode(), key=value["code"].encode())
        await producer.flush()


async def until(condition: Callable[[], bool], process: asyncio.subprocess.Process, seconds: float = 60) -> None:
    """Wait for what the program does; it must not end meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():
            assert process.returncode is None, "the program ended by itself"
            await asyncio.sleep(0.1)


async def run_killed_and_again(
    command: Sequence[str | Path],
    produced: Sequence[Callable[[], Any]],
    effect: Callable[[], list[Any]],
    expected: Sequence[list[Any]],
) -> None:
    """Produce, let the program work, kill it; produce more, start it again: each time its effect is the expected."""
    for produce_it, told in zip(produced, expected, strict=True):
        await produce_it()
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            await until(lambda told=told: len(effect()) >= len(told), process)  # type: ignore[misc]
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        assert effect() == told


def python_program(folder: Path, kafka: str) -> Any:
    (folder / "orders.py").write_text(printed("orders.py", "python"), encoding="utf-8")
    file = folder / "orders.db"

    def orders() -> list[Any]:
        if not file.exists():
            return []
        with closing(sqlite3.connect(file)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchall():
                return []
            return sorted(database.execute("SELECT id, code, at, why FROM orders").fetchall())

    def noted(*numbers: int) -> list[Any]:
        opened = [recommendation(n, 1) for n in numbers]
        return sorted((r.id, r.code, r.at.isoformat(), "신고가 돌파, kim") for r in opened)

    first = [recommendation(n, revision) for n in range(5) for revision in (1, 2, 3)]
    second = [recommendation(n, revision) for n in range(5, 7) for revision in (1, 2)]
    grown = msgspec.to_builtins(recommendation(7, 1)) | {"venue": {"new": True}}
    stranger = {"type": "recommendation-note", "id": "?", "code": CODES[0]}
    topic = topics.RECOMMENDATIONS.name
    return run_killed_and_again(
        [sys.executable, folder / "orders.py", kafka, file],
        [
            lambda: produce(kafka, topic, [*first, *first]),
            lambda: produce(kafka, topic, [*first[3:], *second], stranger, grown),
        ],
        orders,
        [noted(*range(5)), noted(*range(8))],
    )


def node_program(folder: Path, kafka: str) -> Any:
    (folder / "members.mjs").write_text(printed("members.mjs", "js"), encoding="utf-8")
    assert (HERE / "node_modules" / "kafkajs").exists(), "`make test` installs what the example needs"
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    file = folder / "members.jsonl"
    node = shutil.which("node")
    assert node is not None, "the example needs Node.js, as the dashboard does"

    def lines() -> list[Any]:
        told = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
        seen = [json.loads(line) for line in told if line.endswith("}")]
        return sorted(((t["code"], t["entry"], t["kind"]) for t in seen), key=lambda told: told[0])

    def told(records: Sequence[Transition]) -> list[Any]:
        return sorted(((t.code, t.entry, t.kind) for t in records), key=lambda told: told[0])

    first = [t for code in CODES for t in visits(code, (1, 2))]
    second = [t for code in CODES[:2] for t in visits(code, (3,))]
    deadline = Due(id="d", kind="day-end", at=NINE, account="main", code=CODES[0])
    topic = topics.TRANSITIONS.name
    return run_killed_and_again(
        [node, folder / "members.mjs", kafka, file],
        [
            lambda: produce(kafka, topic, [*first, deadline, *first]),
            lambda: produce(kafka, topic, [*first[2:], *second, deadline]),
        ],
        lines,
        [told(first), told([*first, *second])],
    )


async def test_the_programs_on_the_page_do_each_fact_once(own_kafka: str, tmp_path: Path) -> None:
    """In Python and in JavaScript, at once: killed after half of the records, started again, nothing twice."""
    async with asyncio.TaskGroup() as running:
        for name, program in {"python": python_program, "node": node_program}.items():
            folder = tmp_path / name
            folder.mkdir()
            running.create_task(program(folder, own_kafka), name=name)
