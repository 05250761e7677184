"""Poison: whatever a record holds and a rule does, the lane stays as it was, the record is kept, the rest goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from streams import app, recommend, rules, topics
from streams.events import (
    KST,
    ConditionEvent,
    DeadLetter,
    Recommend,
    SearchResult,
    SearchRow,
    Transition,
    condition_key,
    encode,
    identity,
)
from streams.lane import Lane, MembershipLane, StandingLane, Unreadable, relay
from streams.letters import bury
from streams.settings import ConditionRule, RecommendSettings, StreamSettings

START = datetime(2026, 3, 2, 9, tzinfo=KST)
LAST = datetime(9999, 12, 31, 9, tzinfo=KST)
LARGEST = int(topics.DEAD_LETTERS.settings["max.message.bytes"])


def hit(
    code: str = "005930", at: datetime = START, action: Any = "hit", session: str = "a", heard: datetime = START
) -> ConditionEvent:
    return ConditionEvent(
        id=identity(code, at, action),
        account="main",
        condition="x",
        seq="1",
        code=code,
        action=action,
        at=at,
        received_at=heard.astimezone(UTC),
        session=session,
        frame=1,
        entry=1,
    )


def entered(code: str = "005930", condition: str = "x", at: datetime = START, heard: datetime = START) -> Transition:
    return Transition(
        id=identity(code, condition, at),
        account="main",
        condition=condition,
        code=code,
        kind="entered",
        origin="realtime",
        date=at.astimezone(KST).date(),
        entry=1,
        at=at,
        since=at,
        event_id="e",
        session="a",
        received_at=heard.astimezone(UTC),
    )


KEY = condition_key("main", "x")
NESTED = b'{"type":"condition-event","x":' + b"[" * 100_000
EVENT_POISON: list[tuple[bytes | None, bytes | None, str]] = [
    (None, KEY, "empty"),
    (b"", KEY, "malformed"),
    (b"{not json", KEY, "malformed"),
    (b"\xff\xfe", KEY, "malformed"),
    (NESTED, KEY, "malformed"),
    (b'{"type":"unheard-of"}', KEY, "invalid"),
    (encode(entered()), KEY, "invalid"),
    (encode(hit()).replace(b'"hit"', b'"came"'), KEY, "invalid"),
    (encode(hit()).replace(b'"frame":1', b'"frame":"one"'), KEY, "invalid"),
    (encode(hit()).replace(b"+09:00", b"", 1), KEY, "invalid"),
    (encode(hit()), None, "key"),
    (encode(hit()), b"main/y", "key"),
    (encode(hit()), b"\xff", "key"),
    (encode(hit(session="s" * topics.MAX_RECORD)), KEY, "unfit"),
    (encode(hit(at=START + timedelta(days=1))), KEY, "invalid"),
    (encode(hit(at=LAST, heard=LAST)), KEY, "failed"),
]
STOCK_POISON: list[tuple[bytes | None, bytes | None, str]] = [
    (None, b"005930", "empty"),
    (b"[]", b"005930", "invalid"),
    (encode(hit()), b"005930", "invalid"),
    (encode(entered()), b"000660", "key"),
    (encode(entered(at=START + timedelta(days=1))), b"005930", "invalid"),
    (encode(entered(at=LAST, heard=LAST)), b"005930", "failed"),
]


def policy(rule: rules.Rule = rules.sum_of_weights) -> recommend.Policy:
    made = recommend.Policy.of([ConditionRule(name="x"), ConditionRule(name="y")], RecommendSettings())
    return recommend.Policy(made.conditions, "ours", rule, made.threshold, made.expiry)


def members() -> MembershipLane:
    return MembershipLane(0, [], 0)


def standings(rule: rules.Rule = rules.sum_of_weights) -> StandingLane:
    return StandingLane(0, [], 0, policy(rule))


def cause_of(lane: Lane, value: bytes | None, position: int, key: bytes | None) -> str:
    """The class of the reason for which a lane does not take a record."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is what this is about
        lane.take(value, position, key)
    return caught.value.cause if isinstance(caught.value, Unreadable) else "failed"


# --- the lane stays as it was -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "key", "cause"), EVENT_POISON)
def test_a_condition_record_that_fails_changes_nothing(value: bytes | None, key: bytes | None, cause: str) -> None:
    lane, untouched = members(), members()
    for each in (lane, untouched):
        each.take(encode(hit("000660")), 0, KEY)
        each.writes()
    assert cause_of(lane, value, 1, key) == cause
    assert lane.writes() == []
    after = START + timedelta(seconds=9)
    for number, record in enumerate((hit("000660", after, "exit"), hit("005930", after)), 2):
        assert lane.take(encode(record), number, KEY) == untouched.take(encode(record), number, KEY)
    assert lane.writes() == untouched.writes()
    tomorrow = START + timedelta(days=1)
    assert list(lane.overdue(tomorrow)) == list(untouched.overdue(tomorrow))


@pytest.mark.parametrize(("value", "key", "cause"), STOCK_POISON)
def test_a_stock_record_that_fails_changes_nothing(value: bytes | None, key: bytes | None, cause: str) -> None:
    lane, untouched = standings(), standings()
    assert cause_of(lane, value, 0, key) == cause
    assert (lane.writes(), lane.open) == ([], 0)
    assert lane.take(encode(entered()), 1, b"005930") == untouched.take(encode(entered()), 1, b"005930")
    assert (lane.writes(), lane.open) == (untouched.writes(), 1)


def raising(memberships: Sequence[rules.Membership], /) -> Sequence[float]:
    raise KeyError("not thought of")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (raising, "not thought of"),
        (lambda memberships: [float("nan")] * len(memberships), "no score|no finite"),
        (lambda memberships: [float("inf")] * len(memberships), "no score|no finite"),
        (lambda memberships: [1.0, 1.0], "longer|2 parts"),
        (lambda memberships: [], "shorter|0 parts"),
        (lambda memberships: ["much"] * len(memberships), "could not convert"),
        (lambda memberships: None, "NoneType"),
    ],
)
def test_a_rule_that_fails_changes_nothing_and_its_record_counts_once_it_is_mended(rule: Any, says: str) -> None:
    """What such a rule gives can't be written as a score, or would be one that nobody can compare."""
    lane = standings(rule)
    with pytest.raises(Exception, match=says):
        lane.take(encode(entered()), 0, b"005930")
    assert (lane.writes(), lane.open) == ([], 0)
    lane._policy = policy()
    (output,) = lane.take(encode(entered()), 1, b"005930").outputs
    revision: Any = output.record
    assert (revision.state, revision.revision) == ("open", 1)


def test_what_a_rule_gives_is_written_as_numbers() -> None:
    """A part that is a number of another kind is one on the topic and in the state, which a restart must read."""
    lane = standings(lambda memberships: [True for _ in memberships])
    (output,) = lane.take(encode(entered()), 0, b"005930").outputs
    assert json.loads(encode(output.record))["score"] == 1.0
    items = [(key, msgspec.json.encode(value)) for key, value in lane.writes() if value is not None]
    assert StandingLane(0, items, 1, policy()).open == 1


@given(st.lists(st.one_of(st.sampled_from(EVENT_POISON), st.integers(0, 9)), max_size=30))
def test_a_log_with_poison_in_it_comes_to_what_it_comes_to_without(log: list[Any]) -> None:
    """Wherever poison stands, and however much of it, all other records have the effect that they would have."""
    poisoned, clean = members(), members()
    for position, item in enumerate(log):
        if isinstance(item, int):
            record = encode(hit(f"{item % 3:06d}", START + timedelta(seconds=position), "exit" if item % 2 else "hit"))
            assert poisoned.take(record, position, KEY) == clean.take(record, position, KEY)
        else:
            value, key, cause = item
            assert cause_of(poisoned, value, position, key) == cause
    assert poisoned.writes() == clean.writes()


def test_a_search_of_thousands_of_stocks_is_as_many_reasons() -> None:
    """What one large record leads to is many small ones."""
    rows = tuple(SearchRow(code=f"{n:06d}", name="삼성전자우선주", price=n) for n in range(3_000))
    record = SearchResult(
        id="s", account="main", condition="x", seq="1", rows=rows, at=START, received_at=START, session="a"
    )
    outputs = members().take(encode(record), 0, KEY).outputs
    assert len({output.key for output in outputs}) == 3_000
    assert max(len(encode(output.record)) for output in outputs) < 1_000


@pytest.mark.parametrize(
    "value", [None, b"{", NESTED.replace(b"condition-event", b"withdraw"), encode(hit()), b'{"type":"withdraw"}']
)
def test_a_command_that_cannot_be_read_is_refused(value: bytes | None) -> None:
    with pytest.raises(Unreadable):
        relay(value, START)


def test_a_command_that_is_dated_far_ahead_is_refused() -> None:
    """It would end the stock's day, and all that is said of the stock until then would be late."""
    early = Recommend(id="r", code="005930", by="kim", at=START + timedelta(seconds=30))
    assert relay(encode(early), START).record == early
    with pytest.raises(Unreadable, match="dated 2026-03-03"):
        relay(encode(msgspec.structs.replace(early, at=START + timedelta(days=1))), START)


def test_a_command_that_would_not_fit_is_refused() -> None:
    """Accepted, it has a few bytes more: all fields that it left out."""
    long = Recommend(id="r", code="005930", by="kim", note="n" * topics.MAX_RECORD, at=START)
    with pytest.raises(Unreadable, match="more than a broker takes"):
        relay(encode(long), START)


# --- the record is kept -----------------------------------------------------------------------------------------------


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def record(value: bytes | None = b"{", key: bytes | None = KEY, headers: Any = ()) -> Any:
    return SimpleNamespace(
        topic=topics.CONDITION_EVENTS.name,
        partition=2,
        offset=7,
        timestamp=0,
        key=key,
        value=value,
        headers=headers,
    )


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        (Unreadable("no record", "malformed"), "malformed", "no record"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (Speechless(), "failed", "Speechless: its error can't be told"),
    ],
)
def test_a_letter_says_where_and_why(error: Exception, cause: str, reason: str) -> None:
    letter = bury(record(b"\xff"), error, START)
    assert (letter.topic, letter.partition, letter.offset) == (topics.CONDITION_EVENTS.name, 2, 7)
    assert (letter.key, letter.value, letter.cause, letter.reason) == (KEY, b"\xff", cause, reason)


@pytest.mark.parametrize(
    ("value", "key", "omitted"),
    [
        (b"\xff" * 2_000_000, KEY, 0),
        (b"\xff" * 2_800_000, KEY, 0),
        (b"\xff" * 5_000_000, KEY, 5_000_000),
        (b"v", b"\xff" * 5_000_000, 1),
        (b"\xff" * 2_000_000, b"\xff" * 2_000_000, 2_000_000),
    ],
)
@pytest.mark.parametrize("said", ["\x00" * 1_000_000, "가" * 1_000_000])
def test_a_letter_always_fits(value: bytes, key: bytes, omitted: int, said: str) -> None:
    """However much the record holds and the reason quotes of it: one that does not fit would stop the partition."""
    letter = bury(record(value, key), Unreadable(said), START)
    assert len(encode(letter)) < LARGEST - 1_000
    assert letter.omitted == omitted
    assert letter.value == (None if omitted else value)


def test_a_letter_of_a_record_that_was_sent_back_says_of_which() -> None:
    headers = (("other", b"x"), ("hitstream-dead-letter", b"abc"))
    assert bury(record(headers=headers), KeyError("x"), START).redriven == "abc"
    assert bury(record(), KeyError("x"), START).redriven == ""


# --- the rest goes on -------------------------------------------------------------------------------------------------


def fails_on_two(memberships: Sequence[rules.Membership], /) -> Sequence[float]:
    if len(memberships) > 1:
        raise Speechless
    return [1.0 for _ in memberships]


@asynccontextmanager
async def working(kafka: str) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    task = asyncio.create_task(
        app.work(
            bootstrap_servers=kafka,
            conditions=[ConditionRule(name="x"), ConditionRule(name="y")],
            recommend=RecommendSettings(rule="fails-on-two"),
            stream=StreamSettings(),
            now=lambda: START,
            ready=lambda reason: ready.set() if reason is None else None,
        )
    )
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=90, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        yield task
    finally:
        task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(task, return_exceptions=True)


async def collected(kafka: str, topic: topics.Topic, enough: Callable[[list[Any]], bool]) -> list[Any]:
    """What stands on a topic, as soon as there is enough of it."""
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    found: list[Any] = []
    try:
        async with asyncio.timeout(90):
            while not enough(found):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
    finally:
        await consumer.stop()
    return found


@pytest.mark.kafka
async def test_no_poison_stops_a_partition(fresh_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it on all three topics, between good records: the good ones have their effect, the others are kept."""
    monkeypatch.setitem(rules.BUILT_IN, "fails-on-two", fails_on_two)
    sendable = [(v, k, c) for v, k, c in EVENT_POISON if len(v or b"") < topics.MAX_RECORD]
    large = hit(session="s" * (topics.MAX_RECORD - 300))  # fits where it stands, and not what it leads to
    sendable.append((encode(large), KEY, "unfit"))
    producer = AIOKafkaProducer(bootstrap_servers=fresh_kafka, max_request_size=2_000_000)
    await producer.start()
    try:
        async with working(fresh_kafka) as worker:
            await producer.send(topics.CONDITION_EVENTS.name, encode(hit("000001")), KEY, partition=0)
            for value, key, _ in sendable:
                await producer.send(topics.CONDITION_EVENTS.name, value, key, partition=0)
            await producer.send(topics.CONDITION_EVENTS.name, encode(hit("000002")), KEY, partition=0)
            for value, key, _ in STOCK_POISON:
                await producer.send(topics.TRANSITIONS.name, value, key, partition=0)
            for condition in "xy":
                await producer.send(
                    topics.TRANSITIONS.name, encode(entered("000003", condition)), b"000003", partition=0
                )
            for value in (None, NESTED.replace(b"condition-event", b"withdraw"), encode(hit())):
                await producer.send(topics.COMMANDS.name, value, b"k", partition=0)
            command = Recommend(id="r", code="000004", by="kim", at=START)
            await producer.send(topics.COMMANDS.name, encode(command), b"k", partition=0)
            await producer.flush()
            wanted = len(sendable) + len(STOCK_POISON) + 1 + 3
            letters = await collected(fresh_kafka, topics.DEAD_LETTERS, lambda found: len(found) >= wanted)
            told = await collected(fresh_kafka, topics.RECOMMENDATIONS, lambda found: len({r.key for r in found}) >= 4)
            assert not worker.done()
    finally:
        await producer.stop()

    assert {r.key for r in told} == {b"000001", b"000002", b"000003", b"000004"}
    read = [msgspec.json.decode(r.value, type=DeadLetter) for r in letters]
    assert len(read) == len({letter.id for letter in read}) == wanted
    for topic, poison in ((topics.CONDITION_EVENTS, sendable), (topics.TRANSITIONS, STOCK_POISON)):
        kept = sorted((i for i in read if i.topic == topic.name), key=lambda letter: letter.offset)
        assert [(i.value, i.key, i.cause) for i in kept[: len(poison)]] == poison
    (failed,) = [i for i in read if i.topic == topics.TRANSITIONS.name][len(STOCK_POISON) :]
    assert failed.cause == "failed"
    assert [i.cause for i in read if i.topic == topics.COMMANDS.name] == ["empty", "malformed", "invalid"]
    assert REGISTRY.get_sample_value("hitstream_stream_commits_total", {"outcome": "done"})
    counted = {"topic": topics.TRANSITIONS.name, "cause": "failed"}
    assert (REGISTRY.get_sample_value("hitstream_stream_dead_letters_total", counted) or 0) >= 2
