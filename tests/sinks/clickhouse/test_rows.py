"""Every kind of record, as the rows that it becomes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from sinks.clickhouse.rows import COLUMNS, parts
from sinks.clickhouse.writer import TOPICS
from sinks.consumer import Received
from streams.events import (
    KST,
    Bar,
    ConditionEvent,
    ConditionSnapshot,
    Due,
    Gap,
    Quote,
    Reason,
    Recommend,
    Recommendation,
    Record,
    SearchReason,
    SearchResult,
    SearchRow,
    Status,
    Stock,
    Transition,
    Withdraw,
)

DAY = date(2026, 11, 23)
DAY_NUMBER = (DAY - date(1970, 1, 1)).days
AT = datetime(2026, 11, 23, 9, 0, 1, tzinfo=KST)
SINCE = datetime(2026, 11, 23, 8, 59, 59, 250_000, tzinfo=KST)
RECEIVED = datetime(2026, 11, 23, 0, 0, 1, 123_456, tzinfo=UTC)

AT_US = 1_795_392_001_000_000
SINCE_US = AT_US - 1_750_000
RECEIVED_US = AT_US + 123_456

EVENT = ConditionEvent(
    id="e" * 32,
    account="main",
    condition="신고가 돌파",
    seq="7",
    code="0004V0",
    exchange="NXT",
    action="exit",
    at=AT,
    ordinal=2,
    received_at=RECEIVED,
    session="s1",
    frame=12,
    entry=1,
)
SNAPSHOT = ConditionSnapshot(
    id="snap",
    account="main",
    condition="신고가 돌파",
    seq="7",
    codes=("005930", "0004V0"),
    at=SINCE,
    received_at=RECEIVED,
    session="s1",
    frame=3,
)
SEARCH = SearchResult(
    id="search",
    account="main",
    condition="대왕개미단타",
    seq="5",
    rows=(
        SearchRow(
            code="005930",
            name="삼성전자",
            price=71_000,
            change=-500,
            change_rate=-0.7,
            open=71_400,
            high=71_500,
            low=70_900,
            volume=123,
        ),
        SearchRow(code="0004V0", exchange="AL"),
    ),
    at=AT,
    received_at=RECEIVED,
    session="s1",
    scheduled_for=SINCE,
)
GAP = Gap(
    id="gap",
    account="main",
    condition="신고가 돌파",
    from_=SINCE,
    to=AT,
    cause="R10001",
    at=AT,
    received_at=RECEIVED,
    session="s2",
)
TRANSITION = Transition(
    id="t",
    account="main",
    condition="신고가 돌파",
    code="005930",
    kind="exited",
    origin="snapshot",
    date=DAY,
    entry=2,
    at=AT,
    since=SINCE,
    dwell=1.75,
    initial=True,
    gap_from=SINCE,
    gap_to=AT,
    event_id="snap",
    session="s1",
    received_at=RECEIVED,
)
SEARCH_REASON = SearchReason(
    id="sr",
    account="main",
    condition="대왕개미단타",
    code="005930",
    name="삼성전자",
    date=DAY,
    at=AT,
    received_at=RECEIVED,
    price=71_000,
    change_rate=-0.7,
    search_id="search",
    scheduled_for=SINCE,
)
RECOMMEND = Recommend(id="c1", code="005930", by="kim", note="memo", at=AT, expires_at=RECEIVED)
WITHDRAW = Withdraw(id="c2", code="005930", by="lee", at=AT)
RECOMMENDATION = Recommendation(
    id="r-2",
    recommendation_id="r",
    revision=2,
    account="main",
    code="005930",
    date=DAY,
    state="open",
    cause="reason",
    cause_id="t",
    rule="sum",
    score=1.5,
    threshold=1.0,
    reasons=(
        Reason(kind="condition", condition="신고가 돌파", algorithm_id="A1", since=SINCE, visits=2, score=1.0),
        Reason(kind="manual", since=AT, score=0.5, by="kim", note="memo"),
    ),
    opened_at=SINCE,
    at=AT,
    expires_at=RECEIVED,
    received_at=RECEIVED,
)
STOCK = Stock(code="005930", name="삼성전자", market="KOSPI", previous_close=71_500, received_at=RECEIVED)
QUOTE = Quote(
    code="005930",
    exchange="AL",
    at=AT,
    received_at=RECEIVED,
    price=71_000,
    high=71_200,
    low=70_900,
    volume=1_234,
    trades=7,
    change_rate=-0.7,
    day_volume=9_876_543_210,
    session="s1",
)
BAR = Bar(
    code="005930",
    interval="1m",
    at=AT,
    open=71_000,
    high=71_200,
    low=70_900,
    close=71_100,
    volume=1_234,
    value=87_654_321,
    received_at=RECEIVED,
    sample=True,
)
STATUS = Status(
    component="subscription/main/key1/신고가 돌파",
    kind="subscription",
    state="unanswered",
    cause="No reply to CNSRREQ for 30 s.",
    since=SINCE,
    at=AT,
    account="main",
    condition="신고가 돌파",
    session="s1",
    proof_of_life=SINCE,
    last_frame=AT,
    members=12,
    figures={"hits": 3.0, "exits": 1.5},
)
DUE = Due(id="d", kind="day-end", at=AT, account="main", condition="신고가 돌파")

EXPECTED: list[tuple[Record, list[tuple[str, dict[str, Any]]]]] = [
    (
        EVENT,
        [
            (
                "condition_events",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "신고가 돌파",
                    "code": "0004V0",
                    "at": AT_US,
                    "id": "e" * 32,
                    "action": "exit",
                    "exchange": "NXT",
                    "seq": "7",
                    "ordinal": 2,
                    "received_at": RECEIVED_US,
                    "session": "s1",
                    "frame": 12,
                    "entry": 1,
                },
            )
        ],
    ),
    (
        SNAPSHOT,
        [
            (
                "condition_snapshots",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "신고가 돌파",
                    "at": SINCE_US,
                    "id": "snap",
                    "seq": "7",
                    "codes": ["005930", "0004V0"],
                    "members": 2,
                    "received_at": RECEIVED_US,
                    "session": "s1",
                    "frame": 3,
                },
            )
        ],
    ),
    (
        SEARCH,
        [
            (
                "searches",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "대왕개미단타",
                    "at": AT_US,
                    "id": "search",
                    "seq": "5",
                    "stocks": 2,
                    "scheduled_for": SINCE_US,
                    "source": "search",
                    "received_at": RECEIVED_US,
                    "session": "s1",
                },
            ),
            (
                "search_results",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "대왕개미단타",
                    "search_id": "search",
                    "code": "005930",
                    "exchange": "KRX",
                    "at": AT_US,
                    "name": "삼성전자",
                    "price": 71_000,
                    "change": -500,
                    "change_rate": -0.7,
                    "open": 71_400,
                    "high": 71_500,
                    "low": 70_900,
                    "volume": 123,
                    "received_at": RECEIVED_US,
                },
            ),
            (
                "search_results",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "대왕개미단타",
                    "search_id": "search",
                    "code": "0004V0",
                    "exchange": "AL",
                    "at": AT_US,
                    "name": "",
                    "price": None,
                    "change": None,
                    "change_rate": None,
                    "open": None,
                    "high": None,
                    "low": None,
                    "volume": None,
                    "received_at": RECEIVED_US,
                },
            ),
        ],
    ),
    (
        GAP,
        [
            (
                "gaps",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "신고가 돌파",
                    "from_at": SINCE_US,
                    "to_at": AT_US,
                    "id": "gap",
                    "cause": "R10001",
                    "at": AT_US,
                    "received_at": RECEIVED_US,
                    "session": "s2",
                },
            )
        ],
    ),
    (
        TRANSITION,
        [
            (
                "transitions",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "신고가 돌파",
                    "code": "005930",
                    "entry": 2,
                    "kind": "exited",
                    "id": "t",
                    "exchange": "KRX",
                    "origin": "snapshot",
                    "at": AT_US,
                    "since": SINCE_US,
                    "dwell": 1.75,
                    "initial": True,
                    "gap_from": SINCE_US,
                    "gap_to": AT_US,
                    "event_id": "snap",
                    "session": "s1",
                    "received_at": RECEIVED_US,
                },
            )
        ],
    ),
    (
        SEARCH_REASON,
        [
            (
                "search_reasons",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "condition": "대왕개미단타",
                    "code": "005930",
                    "id": "sr",
                    "exchange": "KRX",
                    "name": "삼성전자",
                    "at": AT_US,
                    "received_at": RECEIVED_US,
                    "price": 71_000,
                    "change_rate": -0.7,
                    "search_id": "search",
                    "scheduled_for": SINCE_US,
                },
            )
        ],
    ),
    (
        RECOMMEND,
        [
            (
                "commands",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "code": "005930",
                    "id": "c1",
                    "action": "recommend",
                    "by": "kim",
                    "note": "memo",
                    "at": AT_US,
                    "expires_at": RECEIVED_US,
                },
            )
        ],
    ),
    (
        WITHDRAW,
        [
            (
                "commands",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "code": "005930",
                    "id": "c2",
                    "action": "withdraw",
                    "by": "lee",
                    "note": "",
                    "at": AT_US,
                    "expires_at": None,
                },
            )
        ],
    ),
    (
        RECOMMENDATION,
        [
            (
                "recommendations",
                {
                    "date": DAY_NUMBER,
                    "account": "main",
                    "code": "005930",
                    "recommendation_id": "r",
                    "revision": 2,
                    "id": "r-2",
                    "state": "open",
                    "cause": "reason",
                    "cause_id": "t",
                    "rule": "sum",
                    "score": 1.5,
                    "threshold": 1.0,
                    "reasons": [
                        ("condition", "신고가 돌파", "A1", SINCE_US, 2, 1.0, "", ""),
                        ("manual", "", "", AT_US, 1, 0.5, "kim", "memo"),
                    ],
                    "opened_at": SINCE_US,
                    "at": AT_US,
                    "expires_at": RECEIVED_US,
                    "received_at": RECEIVED_US,
                },
            )
        ],
    ),
    (
        STOCK,
        [
            (
                "stocks",
                {
                    "code": "005930",
                    "name": "삼성전자",
                    "market": "KOSPI",
                    "previous_close": 71_500,
                    "received_at": RECEIVED_US,
                },
            )
        ],
    ),
    (
        QUOTE,
        [
            (
                "quotes",
                {
                    "date": DAY_NUMBER,
                    "code": "005930",
                    "exchange": "AL",
                    "received_at": RECEIVED_US,
                    "session": "s1",
                    "at": AT_US,
                    "price": 71_000,
                    "high": 71_200,
                    "low": 70_900,
                    "volume": 1_234,
                    "trades": 7,
                    "change_rate": -0.7,
                    "day_volume": 9_876_543_210,
                },
            )
        ],
    ),
    (
        BAR,
        [
            (
                "bars",
                {
                    "date": DAY_NUMBER,
                    "code": "005930",
                    "interval": "1m",
                    "at": AT_US,
                    "open": 71_000,
                    "high": 71_200,
                    "low": 70_900,
                    "close": 71_100,
                    "volume": 1_234,
                    "value": 87_654_321,
                    "sample": True,
                    "received_at": RECEIVED_US,
                },
            )
        ],
    ),
    (
        STATUS,
        [
            (
                "statuses",
                {
                    "date": DAY_NUMBER,
                    "component": "subscription/main/key1/신고가 돌파",
                    "at": AT_US,
                    "kind": "subscription",
                    "state": "unanswered",
                    "cause": "No reply to CNSRREQ for 30 s.",
                    "since": SINCE_US,
                    "account": "main",
                    "condition": "신고가 돌파",
                    "session": "s1",
                    "proof_of_life": SINCE_US,
                    "last_frame": AT_US,
                    "last_ping": None,
                    "members": 12,
                    "figures": {"hits": 3.0, "exits": 1.5},
                },
            )
        ],
    ),
    (DUE, []),
]


def source(offset: int = 4711) -> ConsumerRecord:
    return ConsumerRecord("some-topic", 3, offset, 0, 0, b"k", b"{}", None, 1, 2, ())


def rows(*records: Record) -> list[tuple[str, dict[str, Any]]]:
    """The rows of records, in the order of the tables; raises what a record is refused with."""
    made, refused = parts([Received(record, source()) for record in records])
    for _, reason in refused:
        raise ValueError(reason)
    return [
        (part.table, dict(zip(COLUMNS[part.table], values, strict=True)))
        for part in made
        for values in zip(*part.columns, strict=True)
    ]


def row(record: Record) -> dict[str, Any]:
    ((_, found),) = rows(record)
    return found


@pytest.mark.parametrize(("record", "expected"), EXPECTED, ids=[type(record).__name__ for record, _ in EXPECTED])
def test_a_record_becomes_these_rows(record: Record, expected: list[tuple[str, dict[str, Any]]]) -> None:
    audit = {"_topic": "some-topic", "_partition": 3, "_offset": 4711}
    assert rows(record) == [(table, values | audit) for table, values in expected]


def test_every_record_of_the_topics_has_a_case() -> None:
    kinds = {kind for topic in TOPICS for kind in topic.records}
    assert kinds == {type(record) for record, _ in EXPECTED}


def test_many_records_of_all_kinds_become_the_rows_of_each() -> None:
    """Made by column and all at once they are what they are one by one, and each knows its record."""
    received = [Received(record, source(n)) for n, (record, _) in enumerate(EXPECTED * 3)]
    made, refused = parts(received)
    assert refused == []
    one_by_one: dict[str, list[tuple[Any, ...]]] = {}
    for one in received:
        for part in parts([one])[0]:
            one_by_one.setdefault(part.table, []).extend(zip(*part.columns, strict=True))
    found = {part.table: list(zip(*part.columns, strict=True)) for part in made}
    assert {table: sorted(values, key=repr) for table, values in found.items()} == {
        table: sorted(values, key=repr) for table, values in one_by_one.items()
    }
    for part in made:
        assert len(part) == len(part.sources)
        assert part.columns[COLUMNS[part.table].index("_offset")] == [one.offset for one in part.sources]


def test_a_slice_of_a_part_has_the_same_rows_of_it() -> None:
    (part,), _ = parts([Received(msgspec.structs.replace(EVENT, ordinal=n), source(n)) for n in range(10)])
    half = part[3:7]
    assert [one.offset for one in half.sources] == [3, 4, 5, 6]
    assert list(zip(*half.columns, strict=True)) == list(zip(*part.columns, strict=True))[3:7]


def test_a_search_that_found_nothing_is_a_row_all_the_same() -> None:
    assert [(table, found["stocks"]) for table, found in rows(msgspec.structs.replace(SEARCH, rows=()))] == [
        ("searches", 0)
    ]


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 11, 22, 15, 0, tzinfo=UTC), date(2026, 11, 23)),
        (datetime(2026, 11, 22, 14, 59, 59, tzinfo=UTC), date(2026, 11, 22)),
        (datetime(2026, 11, 23, 23, 59, 59, tzinfo=KST), date(2026, 11, 23)),
        (datetime(1970, 1, 1, 0, 0, tzinfo=KST), date(1970, 1, 1)),
        (datetime(2105, 12, 31, 23, 59, 59, tzinfo=KST), date(2105, 12, 31)),
    ],
)
def test_the_trading_date_is_the_date_in_korea(at: datetime, day: date) -> None:
    assert row(msgspec.structs.replace(EVENT, at=at))["date"] == (day - date(1970, 1, 1)).days


ZONES = (UTC, KST, timezone(timedelta(hours=-5, minutes=-30)), ZoneInfo("America/New_York"), ZoneInfo("Asia/Seoul"))


@given(
    st.lists(
        st.datetimes(datetime(1970, 1, 2), datetime(2105, 12, 30), timezones=st.sampled_from(ZONES)),  # noqa: DTZ001
        max_size=20,
    )
)
def test_no_microsecond_is_lost_whatever_the_zone(moments: list[datetime]) -> None:
    """Also where records of several zones stand together, one with summer time among them."""
    received = [Received(msgspec.structs.replace(EVENT, received_at=at), source()) for at in moments]
    made, refused = parts(received)
    assert refused == []
    micros = [n for part in made for n in part.columns[COLUMNS[part.table].index("received_at")]]
    assert [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for n in micros] == [
        at.astimezone(UTC) for at in moments
    ]


WRONG = {
    "far": msgspec.structs.replace(EVENT, at=datetime(2500, 1, 1, tzinfo=KST)),
    "early": msgspec.structs.replace(EVENT, at=datetime(1969, 1, 1, tzinfo=KST)),
    "naive": msgspec.structs.replace(EVENT, at=datetime(2026, 1, 1)),  # noqa: DTZ001
    "received": msgspec.structs.replace(EVENT, received_at=datetime(9999, 12, 31, tzinfo=UTC)),
    "date": msgspec.structs.replace(TRANSITION, date=date(1, 1, 1)),
    "optional": msgspec.structs.replace(TRANSITION, gap_to=datetime(2026, 1, 1)),  # noqa: DTZ001
    "within": msgspec.structs.replace(
        RECOMMENDATION,
        reasons=(msgspec.structs.replace(RECOMMENDATION.reasons[0], since=datetime(2300, 1, 1, tzinfo=KST)),),
    ),
}


@pytest.mark.parametrize("record", WRONG.values(), ids=WRONG)
def test_what_no_table_can_hold_is_refused_with_a_reason(record: Record) -> None:
    with pytest.raises(ValueError, match=r"outside|no time zone"):
        rows(record)


@pytest.mark.parametrize("record", WRONG.values(), ids=WRONG)
def test_one_that_no_table_can_hold_keeps_none_of_its_neighbours_out(record: Record) -> None:
    good: Record = next(case for case, _ in EXPECTED if type(case) is type(record))
    made, refused = parts([Received(one, source(n)) for n, one in enumerate((good, record, good))])
    assert [one.offset for one, _ in refused] == [1]
    assert [[one.offset for one in part.sources] for part in made] == [[0, 2]]
