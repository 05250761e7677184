"""The contract: records read back as written, old readers and new writers agree, identities are stable."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import jsonschema
import msgspec
import pytest

from deploy import asyncapi
from streams import events, topics

AT = datetime(2026, 11, 23, 9, 0, 3, tzinfo=events.KST)
NOW = datetime(2026, 11, 23, 0, 0, 3, 123456, tzinfo=UTC)
DAY = date(2026, 11, 23)

SAMPLES: list[events.Record] = [
    events.ConditionEvent(
        id="1", account="main", condition="신고가 돌파", seq="7", code="0004V0", exchange="NXT", action="hit",
        at=AT, ordinal=1, received_at=NOW, session="s", frame=12, entry=0,
    ),
    events.ConditionSnapshot(
        id="2", account="main", condition="신고가 돌파", seq="7", codes=("005930",), at=AT, received_at=NOW,
        session="s", frame=9,
    ),
    events.SearchResult(
        id="3", account="main", condition="대왕개미단타", seq="5", at=AT, received_at=NOW, session="s",
        rows=(events.SearchRow(code="005930", name="삼성전자", price=316500, change_rate=-5.24),), scheduled_for=AT,
    ),
    events.Gap(
        id="4", account="main", condition="신고가 돌파", from_=AT, to=AT + timedelta(seconds=9), cause="reconnect",
        at=AT, received_at=NOW, session="s",
    ),
    events.Due(id="5", kind="day-end", at=AT, account="main", condition="신고가 돌파"),
    events.Transition(
        id="6", account="main", condition="신고가 돌파", code="005930", kind="exited", origin="snapshot", date=DAY,
        entry=2, at=AT, since=AT, dwell=12.0, gap_from=AT, gap_to=AT, event_id="2", session="s", received_at=NOW,
    ),
    events.SearchReason(
        id="7", account="main", condition="대왕개미단타", code="005930", date=DAY, at=AT, received_at=NOW,
        search_id="3",
    ),
    events.Recommend(id="8", code="005930", by="me", note="n", at=AT, expires_at=AT),
    events.Withdraw(id="9", code="005930", by="me", at=AT),
    events.Recommendation(
        id="r-1", recommendation_id="r", revision=1, account="main", code="005930", date=DAY, state="open",
        cause="threshold", cause_id="6", rule="sum", score=2.0, threshold=2.0,
        reasons=(events.Reason(kind="condition", condition="신고가 돌파", since=AT, visits=2, score=1.0),),
        opened_at=AT, at=AT, received_at=NOW,
    ),
    events.Stock(code="005930", name="삼성전자", market="KOSPI", previous_close=334000, received_at=NOW),
    events.Quote(code="005930", at=AT, received_at=NOW, price=1, high=1, low=1, volume=1, trades=1),
    events.Bar(code="005930", interval="1m", at=AT, open=1, high=1, low=1, close=1, volume=1, received_at=NOW),
    events.Status(component="session/main/x", kind="session", state="live", since=NOW, at=NOW, figures={"a": 1.0}),
    events.Frame(connection="c", number=1, direction="in", at=NOW, text='{"trnm":"PING"}'),
    events.DeadLetter(
        id="10", topic="t", partition=0, offset=1, value=b"\xff\x00", reason="r", component="c", at=NOW,
    ),
    events.Redrive(id="11", letter_id="10", topic="t", partition=0, after=7, offset=9, done=True, at=NOW),
]  # fmt: skip
UNION = {type(sample): type(sample) for sample in SAMPLES}
by_name = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)


def test_every_record_on_a_topic_has_a_sample() -> None:
    assert {record for topic in topics.ALL for record in topic.records} == set(UNION)


@by_name
def test_a_record_reads_back_as_it_was_written(sample: events.Record) -> None:
    assert msgspec.json.decode(events.encode(sample), type=type(sample)) == sample


@by_name
def test_a_reader_ignores_fields_it_does_not_know(sample: events.Record) -> None:
    wire = json.loads(events.encode(sample)) | {"from_the_future": [1, {"x": None}]}
    assert msgspec.json.decode(json.dumps(wire).encode(), type=type(sample)) == sample


@by_name
def test_a_record_fits_its_published_schema(sample: events.Record) -> None:
    """Readers in other languages rely on docs/asyncapi.yaml: what we write must be what it says."""
    schemas = json.loads(
        json.dumps(asyncapi.document()["components"]["schemas"]).replace("/components/schemas", "/$defs")
    )
    schema = {"$ref": f"#/$defs/{type(sample).__name__}", "$defs": schemas}
    jsonschema.Draft202012Validator(schema).validate(json.loads(events.encode(sample)))


@by_name
def test_times_on_the_wire_carry_their_offset(sample: events.Record) -> None:
    naive = json.loads(events.encode(sample))
    times = [value for key, value in naive.items() if key in {"at", "received_at", "since", "from", "to"}]
    assert all(value[-6] in "+-" or value.endswith("Z") for value in times)


@pytest.mark.parametrize(
    ("union", "wire"),
    [
        (events.ConditionRecord, b'{"type":"transition"}'),
        (events.ConditionRecord, b'{"type":"unheard-of"}'),
        (events.ConditionRecord, b'{"id":"1"}'),
        (events.StockRecord, b'{"type":"gap"}'),
        (events.StockRecord, b"\xff\xfe"),
        (events.StockRecord, b""),
    ],
)
def test_what_is_not_a_record_of_the_topic_is_refused(union: type, wire: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(wire, type=union)


def test_an_event_has_one_identity_however_its_time_is_written() -> None:
    """The same second in UTC or KST, with or without microseconds, is the same hit."""
    one = events.event_id("main", "신고가 돌파", "005930", "hit", AT, 0)
    assert one == events.event_id("main", "신고가 돌파", "005930", "hit", AT.astimezone(UTC).replace(microsecond=9), 0)
    others = {
        events.event_id("second", "신고가 돌파", "005930", "hit", AT, 0),
        events.event_id("main", "신고가", "005930", "hit", AT, 0),
        events.event_id("main", "신고가 돌파", "005930", "exit", AT, 0),
        events.event_id("main", "신고가 돌파", "005930", "hit", AT + timedelta(days=1), 0),
        events.event_id("main", "신고가 돌파", "005930", "hit", AT, 1),
        one,
    }
    assert len(others) == 6


def test_identity_keeps_its_parts_apart() -> None:
    assert events.identity("a", "bc") != events.identity("ab", "c")


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 11, 23, 14, 59, 59, tzinfo=UTC), date(2026, 11, 23)),
        (datetime(2026, 11, 23, 15, 0, 0, tzinfo=UTC), date(2026, 11, 24)),
    ],
)
def test_the_trading_date_is_the_date_in_korea(at: datetime, day: date) -> None:
    assert events.trading_date(at) == day
    assert events.trading_date(events.day_end(day)) == day + timedelta(days=1)


def test_changelogs_are_partitioned_as_what_they_are_the_state_of() -> None:
    assert topics.MEMBERS_STATE.partitions == topics.CONDITION_EVENTS.partitions
    assert topics.STANDINGS_STATE.partitions == topics.TRANSITIONS.partitions


def test_every_topic_is_named_once_and_kept_as_designed() -> None:
    assert len({topic.name for topic in topics.ALL}) == len(topics.ALL)
    day = 86_400_000
    kept = {topic.name.removeprefix(topics.PREFIX): topic.retention_ms for topic in topics.ALL if topic.records}
    assert kept == {
        "condition-events": 7 * day, "transitions": 30 * day, "recommendations": None, "stocks": None,
        "quotes": day, "bars": 30 * day, "commands": 30 * day, "status": None, "frames": 7 * day,
        "dead-letters": 30 * day,
    }  # fmt: skip
    assert topics.RECOMMENDATIONS.config["min.compaction.lag.ms"] == str(30 * day)
