"""What people enter by hand: what is written, that it is once, and what is said where Kafka does not take it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from day import NINE, a_bit_of_everything

from sinks.live import commands as module
from sinks.live.access import Access, Token
from sinks.live.answers import RecommendCommand, WithdrawCommand
from sinks.live.commands import Commands, Refused, command
from sinks.live.guard import CSRF_HEADER, OPEN_CSRF
from sinks.live.hub import Hub
from sinks.live.server import application
from sinks.live.stream import Broadcaster
from streams import topics
from streams.commands import refusal
from streams.events import Command, Recommend, Withdraw

SAID = {"code": "005930", "note": "왜냐하면", "request": "form-0001"}
decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


def asking(commands: Commands | None, access: Access | None = None, user: str = "kim") -> httpx.AsyncClient:
    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, lambda: NINE)
    for record in a_bit_of_everything():
        hub.apply(record, NINE)
    broadcaster.open()
    app = application(broadcaster, commands=commands, access=access, user=user, now=lambda: NINE)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://localhost",
        headers={CSRF_HEADER.decode(): OPEN_CSRF},
    )


# --- pure -------------------------------------------------------------------------------------------------------------


def test_a_command_is_what_the_streams_accept() -> None:
    later = NINE + timedelta(hours=1)
    asked = RecommendCommand(code="005930", note="n", expires_at=later, request="form-0001")
    record = command(asked, "kim", NINE)
    assert isinstance(record, Recommend)
    assert (record.code, record.account, record.by, record.note) == ("005930", "main", "kim", "n")
    assert (record.at, record.expires_at) == (NINE, later)
    assert refusal(record, NINE) == ""
    withdrawn = command(WithdrawCommand(code="005930", request="form-0001"), "kim", NINE)
    assert isinstance(withdrawn, Withdraw)
    assert refusal(withdrawn, NINE) == ""
    assert withdrawn.id != record.id


@pytest.mark.parametrize(
    ("other", "by", "is_same"),
    [
        ({}, "kim", True),
        ({"note": "another"}, "kim", True),
        ({"request": "form-0002"}, "kim", False),
        ({"code": "000660"}, "kim", False),
        ({"account": "other"}, "kim", False),
        ({}, "lee", False),
    ],
)
def test_the_same_request_of_the_same_person_is_the_same_command(other: dict[str, Any], by: str, is_same: bool) -> None:
    first = command(RecommendCommand(**SAID), "kim", NINE)  # type: ignore[arg-type]
    again = command(RecommendCommand(**(SAID | other)), by, NINE + timedelta(seconds=5))
    assert (first.id == again.id) is is_same


@pytest.mark.parametrize("ago", [0, 1, 3600])
def test_what_has_expired_already_is_refused(ago: int) -> None:
    asked = RecommendCommand(code="005930", expires_at=NINE - timedelta(seconds=ago), request="form-0001")
    with pytest.raises(Refused, match="expires_at"):
        command(asked, "kim", NINE)


@pytest.mark.parametrize(
    "expires",
    [
        NINE + timedelta(days=367),
        datetime(9999, 12, 31, 23, 59, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-23))),
    ],
)
def test_what_would_expire_when_nobody_means_it_is_refused(expires: datetime) -> None:
    """ClickHouse could not hold it, and it would be in dead-letters after it was accepted."""
    asked = RecommendCommand(code="005930", expires_at=expires, request="form-0001")
    with pytest.raises(Refused, match="later than in a year"):
        command(asked, "kim", NINE)


# --- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.mark.kafka
async def test_a_command_is_on_the_topic_when_it_is_accepted(kafka: str) -> None:
    def now() -> datetime:
        return datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)

    sender = Commands(kafka, now)
    reader = AIOKafkaConsumer(topics.COMMANDS.name, bootstrap_servers=kafka, auto_offset_reset="latest")
    await reader.start()
    await reader.seek_to_end()
    try:
        async with asking(sender) as client:
            answers = [await client.post("/api/commands/recommend", json=SAID) for _ in range(2)]
            answers.append(await client.post("/api/commands/withdraw", json=SAID | {"request": "form-0002"}))
        assert [answer.status_code for answer in answers] == [202] * 3
        messages = [await asyncio.wait_for(reader.getone(), 30) for _ in range(3)]
        records = [decoder.decode(message.value) for message in messages]
        assert [record.id for record in records] == [answer.json()["id"] for answer in answers]
        assert records[0] == records[1], "the same request twice is the same command twice"
        assert [type(record) for record in records] == [Recommend, Recommend, Withdraw]
        assert {message.key for message in messages} == {b"005930"}
        assert {(record.by, record.at) for record in records} == {("kim", now())}
    finally:
        await reader.stop()
        await sender.close()


async def test_who_gave_a_command_is_whose_token_it_came_with() -> None:
    class Noting(Commands):
        by = ""

        async def send(self, asked: Any, by: str) -> Any:
            Noting.by = by
            raise Refused("noted")

    access = Access([Token(label="lee", secret="a token of lee", may_write=True)])
    async with asking(Noting("", lambda: NINE), access) as client:
        bearer = {"Authorization": "Bearer a token of lee"}
        answer = await client.post("/api/commands/recommend", json=SAID | {"by": "kim"}, headers=bearer)
        assert answer.status_code == 400, "nobody says themselves who they are"
        answer = await client.post("/api/commands/recommend", json=SAID, headers=bearer)
        assert (answer.status_code, answer.json(), Noting.by) == (409, {"error": "noted"}, "lee")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, 400),
        ({"code": "005930"}, 400),
        (SAID | {"code": "5930"}, 400),
        (SAID | {"code": "005930; DROP"}, 400),
        (SAID | {"note": "x" * 501}, 400),
        (SAID | {"note": "x" * 20_000}, 413),
        (SAID | {"expire_at": "2026-03-04T09:00:00+09:00"}, 400),
        (SAID | {"expires_at": "2026-03-04T09:00:00"}, 400),
        (SAID | {"expires_at": "2026-03-04T08:00:00+09:00"}, 409),
        (SAID | {"expires_at": "9999-12-31T23:59:59-23:59"}, 409),
        (SAID | {"account": "a/b"}, 400),
        (SAID | {"request": "short"}, 400),
        (SAID | {"code": "999999"}, 404),
        ([SAID], 400),
    ],
)
async def test_what_makes_no_sense_is_refused_before_kafka_is_asked(body: Any, expected: int) -> None:
    async with asking(Commands("127.0.0.1:1", lambda: NINE)) as client:
        answer = await client.post("/api/commands/recommend", json=body)
        assert (answer.status_code, list(answer.json())) == (expected, ["error"])


@pytest.mark.parametrize("body", [b"[" * 1_000, b"{", b'{"code": "\xff\xfe"}', b"", b"null"])
async def test_what_is_no_json_is_refused_and_no_fault_of_ours(body: bytes) -> None:
    async with asking(Commands("127.0.0.1:1", lambda: NINE)) as client:
        answer = await client.post(
            "/api/commands/recommend", content=body, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            b'{"code": ',
            "The body is no JSON (Input data was truncated): send one object, as GET /openapi.json describes",
        ),
        (b"x" * 20_000, "The body is longer than 16,384 bytes: leave out what GET /openapi.json does not ask for."),
    ],
)
async def test_of_a_body_that_is_refused_the_next_step_is_said(body: bytes, sentence: str) -> None:
    async with asking(Commands("127.0.0.1:1", lambda: NINE)) as client:
        answer = await client.post(
            "/api/commands/recommend", content=body, headers={"content-type": "application/json"}
        )
        assert answer.json()["error"].startswith(sentence)


async def test_a_kafka_that_is_away_is_said_and_the_next_command_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.5)
    async with asking(Commands("127.0.0.1:1", lambda: NINE)) as client:
        for _ in range(2):
            answer = await client.post("/api/commands/recommend", json=SAID)
            assert answer.status_code == 503
            assert "same request" in answer.json()["error"]


async def test_a_dashboard_without_kafka_takes_no_commands() -> None:
    async with asking(None) as client:
        assert (await client.post("/api/commands/withdraw", json=SAID)).status_code == 503
