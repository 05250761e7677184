"""Dead letters: what became of each, and that sending back happens once, whoever is killed and whoever else tries."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from deploy.cli import _main
from deploy.dead_letters import Entry, KafkaAway, NoSuchLetter, Post, chosen, find, fold, is_of_the_past, judge, post
from sinks.consumer import Refused
from streams import app, rules, topics
from streams.events import (
    KST,
    REDRIVE_HEADER,
    ConditionEvent,
    DeadLetter,
    Due,
    Record,
    Redrive,
    Stock,
    Transition,
    condition_key,
    dead_letter,
    encode,
    identity,
)
from streams.letters import COMPONENT as STREAM
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

START = datetime(2026, 3, 2, 9, tzinfo=KST)
EVENTS = topics.CONDITION_EVENTS


def hit(condition: str = "돌파", code: str = "005930", at: datetime = START) -> ConditionEvent:
    return ConditionEvent(
        id=identity(condition, code, at),
        account="main",
        condition=condition,
        seq="1",
        code=code,
        action="hit",
        at=at,
        received_at=at.astimezone(UTC),
        session="a",
        frame=1,
        entry=1,
    )


def letter(number: int = 0, value: bytes | None = b"{", **fields: Any) -> DeadLetter:
    made = dead_letter(
        component=STREAM,
        topic=EVENTS.name,
        partition=0,
        offset=number,
        timestamp=0,
        key=b"main/x",
        value=value,
        cause="malformed",
        reason="no JSON",
        at=START.astimezone(UTC),
    )
    return msgspec.structs.replace(made, **fields)


def said(of: DeadLetter, *, done: bool, run: str = "run", **fields: Any) -> Redrive:
    redrive = Redrive(
        id=identity("redrive", of.id, run),
        letter_id=of.id,
        topic=of.topic,
        offset=5 if done else None,
        done=done,
        at=START,
    )
    return msgspec.structs.replace(redrive, **fields)


# --- pure -------------------------------------------------------------------------------------------------------------

A, B = letter(1), letter(2)
AGAIN = letter(7, redriven=A.id)


@pytest.mark.parametrize(
    ("log", "states"),
    [
        ([A, B], ["waiting", "waiting"]),
        ([A, A], ["waiting"]),  # a worker that was killed says a letter twice, with one id
        ([A, said(A, done=False)], ["unfinished"]),
        ([A, said(A, done=False), said(A, done=True)], ["redriven"]),
        ([A, said(A, done=True), said(A, done=False)], ["redriven"]),
        ([A, said(A, done=False, run="one"), said(A, done=True, run="two")], ["redriven"]),
        ([A, said(A, done=True), AGAIN], ["failed-again", "waiting"]),
        ([A, said(A, done=True), AGAIN, said(AGAIN, done=True)], ["failed-again", "redriven"]),
        ([A, said(A, done=True), letter(7, redriven=A.id, component="clickhouse-sink")], ["redriven", "waiting"]),
        ([said(A, done=True)], []),  # the letter has outlived its 30 days before its mark did
    ],
)
def test_a_letter_is_what_was_last_known_of_it(log: list[DeadLetter | Redrive], states: list[str]) -> None:
    assert [entry.state for entry in fold(log)] == states


def test_a_letter_is_found_by_the_beginning_of_its_id() -> None:
    entries = fold([A, B])
    assert find(entries, A.id) is entries[0]
    assert find(entries, B.id[:8]) is entries[1]
    for wrong in ("", "unheard-of"):
        with pytest.raises(NoSuchLetter, match="There is no dead letter"):
            find(entries, wrong)
    alike = fold([msgspec.structs.replace(A, id="ab1"), msgspec.structs.replace(B, id="ab2")])
    with pytest.raises(NoSuchLetter, match="2 dead letters have an id that begins with ab"):
        find(alike, "ab")


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [1, 2, 3]),
        ({"topic": "condition-events"}, [1, 3]),
        ({"topic": topics.TRANSITIONS.name}, [2]),
        ({"component": "clickhouse-sink"}, [3]),
        ({"reason": "failed"}, [2]),
        ({"reason": "keyerror"}, [2]),
        ({"since": START + timedelta(seconds=1)}, [3]),
        ({"topic": "condition-events", "component": STREAM}, [1]),
    ],
)
def test_letters_are_chosen_by_topic_component_reason_and_time(filters: dict[str, Any], numbers: list[int]) -> None:
    entries = fold(
        [
            letter(1),
            letter(2, topic=topics.TRANSITIONS.name, cause="failed", reason="KeyError: 'x'"),
            letter(3, component="clickhouse-sink", at=START + timedelta(seconds=1)),
        ]
    )
    assert [entry.letter.offset for entry in chosen(entries, **filters)] == numbers


TRANSITION = Transition(
    id="t",
    account="main",
    condition="돌파",
    code="005930",
    kind="entered",
    origin="realtime",
    date=START.date(),
    entry=1,
    at=START,
    since=START,
    event_id="e",
    session="a",
    received_at=START,
)


@pytest.mark.parametrize(
    ("topic", "record", "key"),
    [
        (EVENTS, hit(), condition_key("main", "돌파")),
        (
            EVENTS,
            Due(id="d", kind="day-end", at=START, account="main", condition="돌파"),
            condition_key("main", "돌파"),
        ),
        (topics.TRANSITIONS, TRANSITION, b"005930"),
        (topics.TRANSITIONS, Due(id="d", kind="hold", at=START, account="main", condition="x", code="1"), b"1"),
    ],
)
def test_the_key_is_that_of_the_content(topic: topics.Topic, record: Record, key: bytes) -> None:
    verdict = judge(topic.name, encode(record))
    assert (verdict.record, verdict.key) == (record, key)


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (EVENTS.name, b"{", "truncated"),
        (EVENTS.name, None, "empty"),
        (EVENTS.name, encode(TRANSITION), "Invalid value 'transition'"),
        (EVENTS.name, encode(hit()).replace(b"+09:00", b"", 1), "timezone"),
        ("elsewhere", encode(hit()), "no topic of this program"),
    ],
)
def test_what_still_cannot_be_read_says_why(topic: str, value: bytes | None, reason: str) -> None:
    assert reason in judge(topic, value).reason


def test_a_record_of_an_earlier_day_is_known_to_come_too_late() -> None:
    assert is_of_the_past(hit(), START + timedelta(days=1))
    assert not is_of_the_past(hit(), START + timedelta(hours=14))
    assert not is_of_the_past(None, START)


# --- on Kafka ---------------------------------------------------------------------------------------------------------

_numbers = iter(range(10**6, 10**7))


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=4 * 1024 * 1024)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(kafka: str, *letters: DeadLetter) -> None:
    async with producing(kafka) as producer:
        for one in letters:
            await producer.send_and_wait(topics.DEAD_LETTERS.name, encode(one), one.topic.encode())


async def read(kafka: str, topic: topics.Topic) -> list[Any]:
    """Everything on a topic now, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest", fetch_max_wait_ms=20)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[Any] = []
        for tp in partitions:
            await consumer.seek_to_beginning(tp)
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


async def copies(kafka: str, of: DeadLetter) -> list[Any]:
    """What was sent back of a letter."""
    return [r for r in await read(kafka, EVENTS) if (REDRIVE_HEADER, of.id.encode()) in r.headers]


async def entry(connection: Post, of: DeadLetter) -> Entry:
    return find(await connection.read(), of.id)


def fresh(condition: str = "돌파", **fields: Any) -> DeadLetter:
    """A letter that no other test has, of a hit that can be read."""
    fields = {"value": encode(hit(condition)), "key": condition_key("main", condition)} | fields
    return letter(next(_numbers), **fields)


async def test_a_letter_goes_back_once_to_the_partition_of_its_key(kafka: str) -> None:
    """Its bytes untouched, under its key, where another record of that key stands; then it is told to be back."""
    one = fresh()
    await write(kafka, one)
    async with producing(kafka) as producer:
        beside = await producer.send_and_wait(EVENTS.name, encode(hit()), condition_key("main", "돌파"))
    async with post(kafka) as connection:
        waiting = await entry(connection, one)
        (sent,) = await connection.redrive([waiting], START)
        back = await entry(connection, one)
    (copy,) = await copies(kafka, one)
    assert (copy.value, copy.key, copy.partition) == (one.value, one.key, beside.partition)
    assert (sent.outcome, sent.partition, sent.offset) == ("sent", copy.partition, copy.offset)
    assert (waiting.state, back.state) == ("waiting", "redriven")
    (redrive,) = back.redrives
    assert (redrive.done, redrive.partition, redrive.offset) == (True, copy.partition, copy.offset)


async def test_letters_of_one_condition_go_back_in_their_order(kafka: str) -> None:
    """The order in which they stood, not that in which they were written or named."""
    letters = [fresh("차례") for _ in range(5)]
    await write(kafka, *reversed(letters))
    async with post(kafka) as connection:
        entries = [find(await connection.read(), one.id) for one in reversed(letters)]
        await connection.redrive(entries, START)
    placed = [(await copies(kafka, one))[0].offset for one in letters]
    assert placed == sorted(placed)


@pytest.mark.parametrize(("killed", "second"), [("before it is sent", "sent"), ("after it was sent", "arrived")])
async def test_a_run_that_was_killed_is_finished_by_the_next_one(
    kafka: str, monkeypatch: pytest.MonkeyPatch, killed: str, second: str
) -> None:
    """Whether the record has arrived is looked up, so it is there once in the end."""
    one = fresh()
    await write(kafka, one)
    send: Any = Post._send

    async def dies(*arguments: Any) -> tuple[int, int]:
        if killed.startswith("after"):
            await send(*arguments)
        raise KafkaError(killed)

    with monkeypatch.context() as patch:
        patch.setattr(Post, "_send", dies)
        with pytest.raises(KafkaAway):
            async with post(kafka) as connection:
                await connection.redrive([await entry(connection, one)], START)
    async with post(kafka) as connection:
        unfinished = await entry(connection, one)
        assert unfinished.state == "unfinished"
        (sent,) = await connection.redrive([unfinished], START)
        assert (await entry(connection, one)).state == "redriven"
    assert sent.outcome == second
    (copy,) = await copies(kafka, one)
    assert (sent.partition, sent.offset) == (copy.partition, copy.offset)


async def test_of_two_runs_at_once_one_sends(kafka: str) -> None:
    """Both have read the letter as waiting; the one whose word stands first goes on."""
    one = fresh()
    await write(kafka, one)
    async with post(kafka) as mine, post(kafka) as yours:
        both = await entry(mine, one), await entry(yours, one)
        runs = await asyncio.gather(mine.redrive([both[0]], START), yours.redrive([both[1]], START))
    assert sorted(sent.outcome for run in runs for sent in run) == ["left", "sent"]
    assert len(await copies(kafka, one)) == 1


async def test_a_wrong_key_is_mended_on_the_way(kafka: str) -> None:
    """A record that can be read goes under the key of its content; one that can't goes where it stood."""
    wrong, unread = fresh(key=b"nobody"), letter(next(_numbers), key=None, value=b"\xff", partition=3)
    await write(kafka, wrong, unread)
    async with post(kafka) as connection:
        await connection.redrive([await entry(connection, wrong), await entry(connection, unread)], START)
    (mended,) = await copies(kafka, wrong)
    assert mended.key == condition_key("main", "돌파")
    (same,) = await copies(kafka, unread)
    assert (same.key, same.value, same.partition) == (None, b"\xff", 3)


async def test_bytes_that_had_no_room_are_taken_from_their_place(kafka: str) -> None:
    """The letter says how many there were; where its place holds something else, nothing is sent."""
    value = encode(hit("자리"))
    async with producing(kafka) as producer:
        place = await producer.send_and_wait(EVENTS.name, value, condition_key("main", "자리"))
    there = letter(place.offset, value=None, partition=place.partition, omitted=len(value), id=identity("o", place))
    gone = msgspec.structs.replace(there, id=identity("gone", place), omitted=5)
    empty = letter(next(_numbers), value=None)
    await write(kafka, there, gone, empty)
    async with post(kafka) as connection:
        entries = [await entry(connection, one) for one in (there, gone, empty)]
        sent = {one.letter_id: one for one in await connection.redrive(entries, START)}
        assert [(await entry(connection, one)).state for one in (there, gone, empty)] == [
            "redriven",
            "waiting",
            "waiting",
        ]
    assert (await copies(kafka, there))[0].value == value
    assert (sent[gone.id].outcome, sent[gone.id].reason) == ("failed", "its bytes are no longer at their place")
    assert (sent[empty.id].outcome, sent[empty.id].reason) == ("failed", "it is empty: nothing to send")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, whose log is the tests'."""
    monkeypatch.setattr("deploy.logs.configure", lambda *_, **__: None)


@pytest.fixture
def command(
    kafka: str, quiet: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`hitstream dead-letters …`: its exit code and what it prints, as JSON where that was asked for."""
    monkeypatch.setenv("HITSTREAM_KAFKA__BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, Any]:
        code = _main(["dead-letters", *arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and code != 2 else out + err

    return run


def test_the_command_lists_shows_and_sends_back(kafka: str, command: Callable[..., Any]) -> None:
    """From the list to the mark: what is shown is untouched, a dry run changes nothing, a second run is refused."""
    one, poison = (
        fresh(cause="failed", reason=f"KeyError {_numbers}"),
        letter(next(_numbers), value=b"\xff\x00", cause="malformed"),
    )
    asyncio.run(write(kafka, one, poison))

    def state(of: DeadLetter) -> str:
        return next(e["state"] for e in command("--json")[1]["letters"] if e["id"] == of.id)

    code, listed = command("--topic", "condition-events", "--limit", "1000")
    assert (code, one.id[:12] in listed, poison.id[:12] in listed) == (0, True, True)
    code, shown = command("show", poison.id[:14])
    assert (code, "ff 00" in shown, "still can't be read" in shown) == (0, True, True)
    code, shown = command("show", one.id, "--json")
    assert base64.b64decode(shown["value"]) == one.value
    assert shown["now"] == {"readable": True, "reason": "", "key": "main/돌파"}

    code, planned = command("redrive", one.id, poison.id, "--dry-run", "--json")
    remarks = {plan["id"]: plan["remark"] for plan in planned["would_send"]}
    assert "its trading date is over" in remarks[one.id]
    assert "still can't be read" in remarks[poison.id]
    assert (state(one), state(poison)) == ("waiting", "waiting")

    code, refused = command("redrive", "--reason", one.reason)
    assert (code, "say --yes" in refused) == (2, True)  # nobody can be asked here
    code, told = command("redrive", "--reason", one.reason, "--yes", "--json")
    assert (code, [(s["letter_id"], s["outcome"]) for s in told["redriven"]]) == (0, [(one.id, "sent")])
    assert (state(one), state(poison)) == ("redriven", "waiting")
    code, refused = command("redrive", one.id)
    assert (code, "--again sends it once more" in refused) == (2, True)
    assert command("redrive", "--reason", one.reason, "--yes", "--json")[1]["redriven"] == []
    assert command("redrive", one.id, "--again")[0] == 0
    assert len(asyncio.run(copies(kafka, one))) == 2


@pytest.mark.parametrize(("answer", "code", "state"), [("", 1, "waiting"), ("no", 1, "waiting"), ("y", 0, "redriven")])
def test_on_a_terminal_a_choice_that_names_no_letter_is_confirmed(
    kafka: str, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, answer: str, code: int, state: str
) -> None:
    one = fresh(reason=f"asked {next(_numbers)}")
    asyncio.run(write(kafka, one))
    asked: list[str] = []

    def answered(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", answered)
    assert command("redrive", "--reason", one.reason)[0] == code
    assert asked == ["Send 1 dead letter(s) back? [y/N] "]
    assert command("show", one.id, "--json")[1]["state"] == state


def test_what_clickhouse_refused_is_handed_to_clickhouse_and_not_to_the_topic(
    kafka: str, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes is told to be back; what it refuses again stays, with its reason, and the command has failed."""
    refused, taken = (
        fresh(component="clickhouse-sink", cause="refused", topic=topics.STOCKS.name, value=encode(stock), key=b"1")
        for stock in (Stock(code="1", name="one", market="m", received_at=START),) * 2
    )
    asyncio.run(write(kafka, refused, taken))
    handed: list[Any] = []

    async def insert_again(settings: Any, records: Any) -> Any:
        handed.extend(records)
        return [Refused(r.source, "stocks: too long") for r in records if r.source.offset == refused.offset]

    both = ("redrive", refused.id, taken.id)
    code, words = command(*both)
    assert (code, "clickhouse.dsn is not set" in words) == (2, True)
    monkeypatch.setenv("HITSTREAM_CLICKHOUSE__DSN", "clickhouse://127.0.0.1:9/hitstream")
    code, told = command(*both, "--json")
    assert (code, {one["outcome"] for one in told["redriven"]}) == (1, {"failed"})  # nobody is there
    monkeypatch.setattr("sinks.clickhouse.writer.insert_again", insert_again)
    code, told = command(*both, "--json")
    outcomes = {one["letter_id"]: (one["outcome"], one["reason"]) for one in told["redriven"]}
    assert code == 1
    assert outcomes[taken.id] == ("sent", "")
    assert outcomes[refused.id] == ("failed", "ClickHouse refuses it again: stocks: too long")
    assert [(r.source.topic, r.source.offset) for r in handed] == [(one.topic, one.offset) for one in (refused, taken)]
    states = {e["id"]: e["state"] for e in command("--json", "--component", "clickhouse-sink")[1]["letters"]}
    assert (states[refused.id], states[taken.id]) == ("waiting", "redriven")
    assert command("redrive", taken.id)[0] == 2
    assert not [r for r in asyncio.run(read(kafka, topics.STOCKS)) if r.headers]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["redrive"], 2, "Say which"),
        (["redrive", "abc", "--all"], 2, "Say which"),
        (["show", "unheard-of"], 1, "There is no dead letter unheard-of"),
        (["redrive", "unheard-of"], 1, "There is no dead letter unheard-of"),
        (["--limit", "0"], 2, "--limit must be at least 1"),
        (["--component", "unheard-of"], 0, "No dead letter is like that."),
    ],
)
def test_wrong_calls_are_one_sentence(command: Callable[..., Any], arguments: list[str], code: int, words: str) -> None:
    said_code, said_words = command(*arguments)
    assert (said_code, words in said_words) == (code, True)


def test_the_command_needs_a_kafka(
    quiet: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HITSTREAM_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    assert _main(["dead-letters"]) == 2
    assert "kafka.bootstrap_servers is not set" in capsys.readouterr().err


# --- the whole way ----------------------------------------------------------------------------------------------------

CONDITIONS = [ConditionRule(name="돌파"), ConditionRule(name="급등")]


def broken(memberships: Sequence[rules.Membership], /) -> Sequence[float]:
    """A rule with a bug: it does not know one of the conditions."""
    return [{"급등": 1.0}[membership.condition] for membership in memberships]


@asynccontextmanager
async def working(kafka: str, now: Callable[[], datetime]) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(
        app.work(
            bootstrap_servers=kafka,
            conditions=CONDITIONS,
            recommend=RecommendSettings(rule="ours"),
            stream=StreamSettings(),
            now=now,
            ready=lambda reason: ready.set() if reason is None else None,
        )
    )
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=90, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert ready.is_set(), task
        yield
    finally:
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)


async def eventually(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(90):
        while not (result := await found()):
            await asyncio.sleep(0.1)
        return result


async def test_a_mended_rule_and_a_redrive_lead_to_the_recommendation_that_was_missing(
    fresh_kafka: str, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that fails on one stock stops no other; once it is mended its record is sent back, and is recommended.

    What still can't be read becomes a dead letter again, which says of which one it is.
    """
    monkeypatch.setenv("HITSTREAM_KAFKA__BOOTSTRAP_SERVERS", fresh_kafka)
    monkeypatch.setitem(rules.BUILT_IN, "ours", broken)
    clock = {"now": START + timedelta(seconds=5)}

    async def recommended() -> list[str]:
        return [json.loads(r.value)["code"] for r in await read(fresh_kafka, topics.RECOMMENDATIONS)]

    async def letters() -> list[Entry]:
        async with post(fresh_kafka) as connection:
            return await connection.read()

    async with producing(fresh_kafka) as producer:
        async with working(fresh_kafka, lambda: clock["now"]):
            for record in (hit("돌파", "005930"), hit("급등", "000660")):
                await producer.send_and_wait(EVENTS.name, encode(record), condition_key("main", record.condition))
            await producer.send_and_wait(EVENTS.name, b"{", condition_key("main", "급등"))

            async def failed() -> bool:
                return len(await letters()) == 2 and await recommended() == ["000660"]

            await eventually(failed)

        monkeypatch.setitem(rules.BUILT_IN, "ours", rules.BUILT_IN["sum"])
        async with working(fresh_kafka, lambda: clock["now"]):
            by_cause = {e.letter.cause: e for e in await letters()}
            assert set(by_cause) == {"failed", "malformed"}
            assert "KeyError: '돌파'" in by_cause["failed"].letter.reason
            assert await asyncio.to_thread(_main, ["dead-letters", "redrive", "--all", "--yes"]) == 0

            async def mended() -> bool:
                return sorted(await recommended()) == ["000660", "005930"]

            await eventually(mended)
            poison = by_cause["malformed"].letter
            assert await asyncio.to_thread(_main, ["dead-letters", "redrive", poison.id]) == 0

            async def again() -> bool:
                return [e.state for e in await letters()] in (
                    ["redriven", "failed-again", "waiting"],
                    ["failed-again", "redriven", "waiting"],
                )

            await eventually(again)
            new = (await letters())[-1].letter
            assert (new.redriven, new.value, new.cause) == (poison.id, b"{", "malformed")
            # Sent back once more, the record of the mended rule is a repeat: it changes nothing.
            assert (
                await asyncio.to_thread(_main, ["dead-letters", "redrive", by_cause["failed"].letter.id, "--again"])
                == 0
            )
            await asyncio.to_thread(_main, ["dead-letters"])
            assert sorted(await recommended()) == ["000660", "005930"]
