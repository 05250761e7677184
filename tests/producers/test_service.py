"""The role as a whole: a scripted Kiwoom on one side, a real broker on the other."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import REGISTRY
from pydantic import SecretStr
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from producers import service
from producers.kiwoom.client import Backoff
from producers.kiwoom.errors import TokenRefused
from producers.kiwoom.lock import KeyInUse
from producers.kiwoom.session import State, Timing
from producers.kiwoom.token import short_name
from producers.publisher import Publisher
from producers.service import produce
from producers.settings import ConditionSource, KiwoomSettings, QuotesSettings
from streams import events, topics
from streams.events import ConditionEvent, ConditionSnapshot, ConfigError, Frame, Gap, HitstreamError, Record, Status

pytestmark = pytest.mark.kafka

QUICK = Timing(login_pause=0.0, send_spacing=0.0, clear_pause=0.01, goodbye_reply=0.2)
SOON = Backoff(first=0.02, most=0.1, closed=0.1)
PRODUCER = short_name("key")

SUBSCRIPTION = "hitstream_producer_subscription"
STATES = get_args(State)

R = TypeVar("R", bound=Record)


class Kiwoom:
    """A scripted Kiwoom: REST on one port, WebSocket on another, as strict about CNSRLST as the real one."""

    def __init__(self) -> None:
        self.conditions = [("4", "돌파"), ("7", "눌림목")]
        self.members: dict[str, list[str]] = {"4": ["A005930"], "7": []}
        self.received: list[dict[str, Any]] = []
        self.echoes = 0
        self.logins = 0
        self.good_tokens: set[str] = set()
        self.issued = 0
        self.refuse_key = False
        self.priced: set[str] = set()
        self.socket: ServerConnection | None = None
        self._registered: set[str] = set()
        self._ports = (0, 0)

    async def __aenter__(self) -> Self:
        self._rest = await asyncio.start_server(self._http, "127.0.0.1", self._ports[0])
        self._ws: Server = await serve(self._session, "127.0.0.1", self._ports[1], ping_interval=None)
        self._ports = tuple(s.sockets[0].getsockname()[1] for s in (self._rest, self._ws))  # type: ignore[assignment]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._rest.close()
        self._ws.close()
        await self._ws.wait_closed()

    def settings(self, account: str, folder: Path, **more: Any) -> KiwoomSettings:
        return KiwoomSettings(
            hours=more.pop("hours", "always"),
            state_dir=str(folder / "shared"),
            rest_url=f"http://127.0.0.1:{self._ports[0]}",
            websocket_url=f"ws://127.0.0.1:{self._ports[1]}/api/dostk/websocket",
            app_key=SecretStr("key"),
            secret_key=SecretStr("secret"),
            account=account,
            **more,
        )

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0])
                await reader.readexactly(length)
                body = json.dumps(self._answer(head.split()[1])).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(f"content-length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    def _answer(self, path: str) -> dict[str, Any]:
        if path == "/oauth2/token":
            if self.refuse_key:
                return {"return_code": 3, "return_msg": "인증에 실패했습니다[8001:App Key 검증에 실패했습니다]"}
            self.issued += 1
            self.good_tokens.add(f"T{self.issued}")
            return {
                "return_code": 0,
                "token": f"T{self.issued}",
                "expires_dt": "20991231000000",
                "token_type": "bearer",
            }
        return {"return_code": 0, "list": [{"code": "005930", "name": "삼성전자", "lastPrice": "00071500"}]}

    async def _session(self, ws: ServerConnection) -> None:
        self.socket, self._registered = ws, set()
        listed = False
        with suppress(ConnectionClosed):
            async for raw in ws:
                frame = json.loads(raw)
                self.received.append(frame)
                match frame:
                    case {"trnm": "LOGIN", "token": token}:
                        self.logins += 1
                        if token not in self.good_tokens:
                            text = "토큰 인증에 실패했습니다 [CODE=8005, MESSAGE=Token이 유효하지 않습니다]"
                            await self.push({"trnm": "LOGIN", "return_code": 805004, "return_msg": text})
                            await ws.close()
                        await self.push({"trnm": "LOGIN", "return_code": 0, "return_msg": ""})
                    case {"trnm": "PING"}:
                        self.echoes += 1
                    case {"trnm": "CNSRLST"}:
                        listed = True
                        await self.push({"trnm": "CNSRLST", "return_code": 0, "data": self.conditions})
                    case {"trnm": "CNSRREQ", "seq": seq} if listed:
                        self._registered.add(seq)
                        rows = [{"jmcode": code} for code in self.members[seq]]
                        await self.push({"trnm": "CNSRREQ", "seq": seq, "return_code": 0, "data": rows or None})
                    case {"trnm": "CNSRCLR", "seq": seq}:
                        self._registered.discard(seq)
                        await self.push({"trnm": "CNSRCLR", "seq": seq, "return_code": 0})
                    case {"trnm": "REG" | "REMOVE" as trnm, "data": [{"item": codes, "type": ["0B"]}]}:
                        self.priced = self.priced | set(codes) if trnm == "REG" else self.priced - set(codes)
                        await self.push({"trnm": trnm, "return_code": 0, "return_msg": ""})

    async def push(self, frame: dict[str, Any]) -> None:
        assert self.socket is not None
        await self.socket.send(json.dumps(frame, ensure_ascii=False))

    async def hit(self, code: str, seq: str = "4", action: str = "I") -> None:
        values = {"841": seq, "9001": code, "843": action, "20": "093000"}
        await self.push({"trnm": "REAL", "data": [{"values": values, "type": "02", "name": "조건검색", "item": code}]})

    def count(self, trnm: str) -> int:
        return sum(frame.get("trnm") == trnm for frame in self.received)


class Role:
    """A running producer and what it said of its readiness."""

    def __init__(self, task: asyncio.Task[None], words: list[str | None]) -> None:
        self.task = task
        self.words = words

    async def ready(self) -> None:
        await until(lambda: self.task.done() or (self.words and self.words[-1] is None))
        if self.task.done():
            await self.task

    async def stop(self) -> None:
        self.task.cancel()
        async with asyncio.timeout(60):
            await asyncio.wait([self.task])


async def until(condition: Callable[[], object], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def producing(
    kiwoom: Kiwoom,
    kafka: str,
    account: str,
    folder: Path,
    names: Iterable[str] = ("돌파", "눌림목"),
    on_frame: Callable[[Frame], None] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    timing: Timing = QUICK,
    quotes: QuotesSettings | None = None,
    **settings: Any,
) -> AsyncIterator[Role]:
    words: list[str | None] = ["not started"]
    task = asyncio.create_task(
        produce(
            kiwoom=kiwoom.settings(account, folder, **settings),
            conditions=[ConditionSource(name=name) for name in names],
            bootstrap_servers=kafka,
            now=now,
            ready=words.append,
            state_dir=folder,
            timing=timing,
            backoff=SOON,
            on_frame=on_frame,
            quotes=quotes,
        )
    )
    role = Role(task, words)
    try:
        yield role
    finally:
        await role.stop()


async def published(address: str, account: str, kind: type[R], enough: Callable[[list[R]], object]) -> list[R]:
    """The records of an account and kind, in the order of the log, once there are enough."""
    topic = topics.STATUS if kind is Status else topics.CONDITION_EVENTS
    decoder = msgspec.json.Decoder(Status if kind is Status else events.ConditionRecord)
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None)
    found: list[R] = []
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            while not enough(found):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        if account.encode() not in (record.key or b""):
                            continue  # the broker is shared, and others write what is no record at all
                        said: Any = decoder.decode(record.value)
                        if said.account == account and isinstance(said, kind):
                            found.append(said)
    finally:
        await consumer.stop()
    return found


async def told(address: str, account: str, count: int, condition: str = "돌파") -> list[Record]:
    """The first `count` records of a condition."""
    found = await published(
        address, account, Record, lambda r: sum(getattr(x, "condition", "") == condition for x in r) >= count
    )
    return [record for record in found if getattr(record, "condition", "") == condition]


@pytest.fixture
def account() -> str:
    return f"a{uuid.uuid4().hex[:10]}"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def test_snapshots_and_entries_reach_kafka_and_stopping_clears(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom:
        async with producing(kiwoom, kafka, account, tmp_path) as role:
            await role.ready()
            await kiwoom.hit("000660")
            await kiwoom.hit("005930", action="D")
            records = await told(kafka, account, 3)
        assert [type(r) for r in records] == [ConditionSnapshot, ConditionEvent, ConditionEvent]
        snapshot, hit, exit_ = records
        assert isinstance(snapshot, ConditionSnapshot)
        assert isinstance(hit, ConditionEvent)
        assert isinstance(exit_, ConditionEvent)
        assert snapshot.codes == ("005930",)
        assert [(e.code, e.action, e.at.strftime("%H%M%S")) for e in (hit, exit_)] == [
            ("000660", "hit", "093000"),
            ("005930", "exit", "093000"),
        ]
        assert {f["seq"] for f in kiwoom.received if f["trnm"] == "CNSRCLR"} == {"4", "7"}
    statuses = await published(kafka, account, Status, lambda r: sum(s.cause == "stopped" for s in r) >= 3)
    last = {s.component: (s.state, s.cause) for s in statuses}
    assert last == dict.fromkeys(
        (
            f"session/{account}/{PRODUCER}",
            f"subscription/{account}/{PRODUCER}/돌파",
            f"subscription/{account}/{PRODUCER}/눌림목",
        ),
        ("disconnected", "stopped"),
    )
    assert [s.state for s in statuses if s.condition == "돌파"][:3] == ["listing", "requested", "live"]


async def test_the_listed_stocks_are_published(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path):
        consumer = AIOKafkaConsumer(
            topics.STOCKS.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None
        )
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                while (listed := _listed(await consumer.getone())) != (b"005930", "삼성전자", 71500):
                    pass  # the broker is shared: others have published their own lists
        finally:
            await consumer.stop()
    assert listed == (b"005930", "삼성전자", 71500)


def _listed(record: Any) -> tuple[bytes, str, int | None]:
    """Key, name and previous close of a record on the topic of stocks."""
    stock = msgspec.json.decode(record.value, type=events.Stock)
    return record.key, stock.name, stock.previous_close


@pytest.mark.parametrize("how", ["close", "abrupt", "heartbeat"])
async def test_a_lost_connection_is_made_again_in_full_and_told_as_a_gap(
    kafka: str, account: str, tmp_path: Path, how: str
) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path) as role:
        await role.ready()
        await kiwoom.hit("000660")
        first = kiwoom.socket
        assert first is not None
        match how:
            case "close":
                await first.close(1000, "Bye")
            case "abrupt":
                first.transport.abort()
            case "heartbeat":
                await kiwoom.push({"trnm": "SYSTEM", "code": "R10002", "message": "Heartbeat"})
        await until(lambda: kiwoom.count("CNSRREQ") == 4)
        await kiwoom.hit("035720")
        records = await told(kafka, account, 5)
    kinds = [type(r).__name__ for r in records]
    assert kinds == ["ConditionSnapshot", "ConditionEvent", "Gap", "ConditionSnapshot", "ConditionEvent"]
    assert (kiwoom.count("LOGIN"), kiwoom.count("CNSRLST")) == (2, 2)
    gap = records[2]
    assert isinstance(gap, Gap)
    assert gap.from_ < gap.to


async def test_a_restarted_producer_tells_the_gap_since_the_last(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom:
        for _ in range(2):
            async with producing(kiwoom, kafka, account, tmp_path) as role:
                await role.ready()
        records = await told(kafka, account, 3)
    assert [type(r) for r in records] == [ConditionSnapshot, Gap, ConditionSnapshot]
    gap = records[1]
    assert isinstance(gap, Gap)
    assert gap.cause == "the producer was not running"
    assert kiwoom.issued == 1, "the token was not kept"


async def test_a_condition_that_is_removed_from_the_settings_says_so_once(
    kafka: str, account: str, tmp_path: Path
) -> None:
    async with Kiwoom() as kiwoom:
        for names in (("돌파", "눌림목"), ("돌파",), ("돌파",)):
            async with producing(kiwoom, kafka, account, tmp_path, names) as role:
                await role.ready()
    component = f"subscription/{account}/{PRODUCER}/눌림목"
    said = await published(
        kafka, account, Status, lambda all_: [s.state for s in all_ if s.kind == "session"].count("live") >= 3
    )
    states = [s.state for s in said if s.component == component]
    assert states.count("retired") == 1
    assert states[-1] == "retired"


async def test_the_metrics_say_in_which_state_each_condition_is_and_since_when(
    kafka: str, account: str, tmp_path: Path
) -> None:
    async with Kiwoom() as kiwoom:
        begun = datetime.now(UTC).timestamp()
        async with producing(kiwoom, kafka, account, tmp_path, ("돌파", "없음")) as role:
            await role.ready()
            for name, state in (("돌파", "live"), ("없음", "missing")):
                on = {s: REGISTRY.get_sample_value(SUBSCRIPTION, {"condition": name, "state": s}) for s in STATES}
                assert {s for s, value in on.items() if value} == {state}
                since = REGISTRY.get_sample_value(f"{SUBSCRIPTION}_since_timestamp_seconds", {"condition": name})
                assert since is not None
                assert begun <= since <= datetime.now(UTC).timestamp()
            changes = {"condition": "돌파", "state": "live"}
            assert REGISTRY.get_sample_value(f"{SUBSCRIPTION}_changes_total", changes)


async def test_a_displaced_producer_stays_and_does_not_come_back(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path) as role:
        await role.ready()
        await kiwoom.push({"trnm": "SYSTEM", "code": "R10001", "message": "동일한 App key로 접속이 되었습니다."})
        statuses = await published(
            kafka, account, Status, lambda r: any(s.state == "displaced" and s.kind == "session" for s in r)
        )
        await until(lambda: "displaced" in (role.words[-1] or ""))
        # The task that would reconnect has ended, and the role goes on without it.
        await until(lambda: "kiwoom" not in {task.get_name() for task in asyncio.all_tasks()})
        assert kiwoom.logins == 1
        assert not role.task.done()
    assert any(s.state == "displaced" and s.condition == "돌파" for s in statuses)


async def test_a_refused_token_is_replaced_at_once(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom:
        async with producing(kiwoom, kafka, account, tmp_path) as role:
            await role.ready()
        kiwoom.good_tokens.clear()
        async with producing(kiwoom, kafka, account, tmp_path) as role:
            await role.ready()
        assert kiwoom.issued == 2


async def test_a_wrong_app_key_ends_the_role_with_what_to_do(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom:
        kiwoom.refuse_key = True
        async with producing(kiwoom, kafka, account, tmp_path) as role:
            with pytest.raises(TokenRefused, match=r"check kiwoom\.app_key"):
                await role.task


async def test_a_kiwoom_that_is_not_there_is_waited_for(kafka: str, account: str, tmp_path: Path) -> None:
    kiwoom = Kiwoom()
    async with kiwoom:
        pass
    async with producing(kiwoom, kafka, account, tmp_path) as role:
        await until(lambda: "does not answer" in (role.words[-1] or ""))
        async with kiwoom:
            await role.ready()
            assert not role.task.done()
            await role.stop()


async def test_a_ping_is_echoed_while_kafka_is_away_and_nothing_is_lost(
    broker: Any, account: str, tmp_path: Path
) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, broker.address, account, tmp_path) as role:
        await role.ready()
        await asyncio.to_thread(broker.stop)
        for n in range(20):
            await kiwoom.hit(f"{n:06d}")
        await kiwoom.push({"trnm": "PING"})
        await until(lambda: kiwoom.echoes == 1)
        await asyncio.to_thread(broker.start)
        records = await told(broker.address, account, 21)
    hits = list(dict.fromkeys(r.code for r in records if isinstance(r, ConditionEvent)))
    assert hits == [f"{n:06d}" for n in range(20)]
    assert kiwoom.logins == 1


async def test_a_burst_is_told_whole_and_in_order_with_the_ping_inside_it(
    kafka: str, account: str, tmp_path: Path
) -> None:
    """Frames that come together are told one after another; others have their turn, and a PING its echo."""
    raw: list[Frame] = []
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path, ["돌파"], on_frame=raw.append) as role:
        await role.ready()
        for n in range(2000):
            await kiwoom.hit(f"{n:06d}")
            if n == 1000:
                await kiwoom.push({"trnm": "PING"})
        records = await told(kafka, account, 2001)
        assert kiwoom.echoes == 1
    assert [r.code for r in records if isinstance(r, ConditionEvent)] == [f"{n:06d}" for n in range(2000)]
    numbers = [frame.number for frame in raw if frame.direction == "in"]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_hit_has_a_price_slot_and_an_exit_gives_it_back(kafka: str, account: str, tmp_path: Path) -> None:
    """What a snapshot shows is registered anyway; here are those that come after it, alone in their frames."""
    quotes = QuotesSettings(keep=0)
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path, ["돌파"], quotes=quotes) as role:
        await role.ready()
        await until(lambda: kiwoom.priced == {"005930"})
        await kiwoom.hit("000660")
        await until(lambda: kiwoom.priced == {"005930", "000660"})
        await kiwoom.hit("000660", action="D")
        await until(lambda: kiwoom.priced == {"005930"})


async def test_a_long_absence_of_kafka_goes_to_the_disk_and_loses_nothing(
    broker: Any, account: str, tmp_path: Path
) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, broker.address, account, tmp_path) as role:
        await role.ready()
        await kiwoom.hit("000000")
        await told(broker.address, account, 2)
        assert not list(tmp_path.rglob("*.spool")), "the disk was used while Kafka was there"
        await asyncio.to_thread(broker.stop)
        for n in range(1, 300):
            await kiwoom.hit(f"{n:06d}")
        await until(lambda: list(tmp_path.rglob("*.spool")))
        await kiwoom.hit("000300")
        await kiwoom.push({"trnm": "PING"})
        await until(lambda: kiwoom.echoes == 1)
        assert role.words[-1] is None, "the session does not go on"
        await asyncio.to_thread(broker.start)
        records = await told(broker.address, account, 302)
        await until(lambda: not list(tmp_path.rglob("*.spool")))
    hits = list(dict.fromkeys(r.code for r in records if isinstance(r, ConditionEvent)))
    assert hits == [f"{n:06d}" for n in range(301)]
    assert not any(isinstance(r, Gap) for r in records)
    assert kiwoom.logins == 1


async def test_what_waits_when_the_producer_ends_is_sent_by_the_next_one(
    broker: Any, account: str, tmp_path: Path
) -> None:
    async with Kiwoom() as kiwoom:
        async with producing(kiwoom, broker.address, account, tmp_path, ["돌파"]) as role:
            await role.ready()
            await told(broker.address, account, 1)
            await asyncio.to_thread(broker.stop)
            await kiwoom.hit("000660")
            await until(lambda: list(tmp_path.rglob("*.spool")))
        async with producing(kiwoom, broker.address, account, tmp_path, ["돌파"]) as role:
            # Kafka is still away: this one goes on where the one before would have.
            await until(lambda: kiwoom.logins == 2, within=30)
            await asyncio.to_thread(broker.start)
            records = await told(broker.address, account, 4)
    kinds = list(dict.fromkeys(type(r).__name__ for r in records))
    assert kinds == ["ConditionSnapshot", "ConditionEvent", "Gap"]
    gap = next(r for r in records if isinstance(r, Gap))
    hit = next(r for r in records if isinstance(r, ConditionEvent))
    assert gap.from_ >= hit.received_at, "what waited on the disk was counted as missed"


async def test_a_second_producer_of_the_key_is_told_who_has_it(kafka: str, account: str, tmp_path: Path) -> None:
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path) as role:
        await role.ready()
        async with producing(kiwoom, kafka, account, tmp_path) as second:
            with pytest.raises(KeyInUse, match=rf"process {os.getpid()} \(hitstream produce, since .*stop that one"):
                await second.task
        assert kiwoom.logins == 1
        assert not role.task.done()


async def test_outside_the_hours_it_rests_and_logs_in_before_the_open(kafka: str, account: str, tmp_path: Path) -> None:
    clock = [datetime(2026, 11, 20, 6, 39, 58, tzinfo=UTC)]  # Friday, two seconds before the session rests
    async with (
        Kiwoom() as kiwoom,
        producing(kiwoom, kafka, account, tmp_path, ["돌파"], hours="market", now=lambda: clock[0]) as role,
    ):
        await role.ready()
        clock[0] = datetime(2026, 11, 20, 6, 40, 0, tzinfo=UTC)
        await until(lambda: kiwoom.count("CNSRCLR") == 1)
        statuses = await published(
            kafka, account, Status, lambda r: {s.kind for s in r if s.state == "resting"} == {"session", "subscription"}
        )
        resting = [s for s in statuses if s.state == "resting"]
        assert all(s.cause.startswith("after the close") for s in resting)
        await until(lambda: role.words[-1] is None)
        clock[0] = datetime(2026, 11, 22, 23, 40, 1, tzinfo=UTC)  # Monday 08:40:01
        await until(lambda: kiwoom.count("CNSRREQ") == 2)
        records = await told(kafka, account, 2)
    assert [type(r) for r in records] == [ConditionSnapshot, ConditionSnapshot], "the weekend was told as a gap"
    assert kiwoom.logins == 2


async def test_when_the_queue_is_full_the_loss_is_a_gap(
    broker: Any, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "Publisher", functools.partial(Publisher, room=40))
    few = producing(kiwoom := Kiwoom(), broker.address, account, tmp_path, ["돌파"], spool_bytes=2000, journal=False)
    async with kiwoom, few as role:
        await role.ready()
        await asyncio.to_thread(broker.stop)
        with suppress(ConnectionClosed):
            for n in range(60):
                await kiwoom.hit(f"{n:06d}")
        await until(lambda: "Kafka" in (role.words[-1] or ""))
        await asyncio.to_thread(broker.start)
        await role.ready()
        records = await told(broker.address, account, 1)
        while not any(isinstance(r, Gap) for r in records):
            records = await told(broker.address, account, len(records) + 1)
    hits = list(dict.fromkeys(r.code for r in records if isinstance(r, ConditionEvent)))
    assert hits == [f"{n:06d}" for n in range(len(hits))]
    last = [r for r in records if isinstance(r, ConditionEvent)][-1]
    gap = next(r for r in records if isinstance(r, Gap))
    assert gap.from_ <= last.received_at, "what was dropped is not in the gap"


async def test_every_raw_frame_is_handed_out_with_the_token_masked(kafka: str, account: str, tmp_path: Path) -> None:
    frames: list[Frame] = []
    async with Kiwoom() as kiwoom, producing(kiwoom, kafka, account, tmp_path, on_frame=frames.append) as role:
        await role.ready()
    assert [f.text for f in frames[:2]] == [
        '{"trnm":"LOGIN","token":"***"}',
        '{"trnm": "LOGIN", "return_code": 0, "return_msg": ""}',
    ]
    for direction in ("in", "out"):
        numbers = [f.number for f in frames if f.direction == direction]
        assert numbers == list(range(1, len(numbers) + 1))


SETTINGS = {"rest_url": "http://127.0.0.1:1", "websocket_url": "ws://127.0.0.1:1", "app_key": "k", "secret_key": "s"}


@pytest.mark.parametrize(
    ("settings", "names", "says"),
    [
        ({"rest_url": ""}, ["돌파"], "kiwoom.rest_url is not set"),
        ({"websocket_url": ""}, ["돌파"], "kiwoom.websocket_url is not set"),
        ({"app_key": ""}, ["돌파"], "kiwoom.app_key is not set"),
        ({"secret_key": ""}, ["돌파"], "kiwoom.secret_key is not set"),
        ({}, [], "no condition is configured"),
        ({}, [f"c{n}" for n in range(11)], "at most 10"),
        ({}, ["돌파", "돌파"], "돌파 more than once"),
    ],
)
async def test_wrong_settings_are_named(settings: dict[str, str], names: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        await produce(
            kiwoom=KiwoomSettings.model_validate(SETTINGS | {"state_dir": str(tmp_path)} | settings),
            conditions=[ConditionSource(name=name) for name in names],
            bootstrap_servers="127.0.0.1:1",
            now=lambda: datetime.now(UTC),
            ready=lambda _: None,
            state_dir=tmp_path,
        )


async def test_without_kafka_the_role_ends_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "check", functools.partialmethod(Publisher.check, within=0.3))
    with pytest.raises(HitstreamError, match=r"Kafka does not answer at 127\.0\.0\.1:\d+: start it"):
        await produce(
            kiwoom=KiwoomSettings.model_validate(SETTINGS | {"state_dir": str(tmp_path)}),
            conditions=[ConditionSource(name="돌파")],
            bootstrap_servers=f"127.0.0.1:{free_port()}",
            now=lambda: datetime.now(UTC),
            ready=lambda _: None,
            state_dir=tmp_path,
        )
