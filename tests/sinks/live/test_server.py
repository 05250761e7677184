"""The server over real HTTP: the stream, the API, the page, and who may ask."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from day import NINE, a_bit_of_everything, transition
from prometheus_client import REGISTRY

from sinks.live import page, server
from sinks.live.hub import Hub
from sinks.live.server import application, listen, run, serve
from sinks.live.stream import MAX_TICK, MIN_TICK, Broadcaster, ClientLimits, next_tick
from sinks.settings import LiveSettings
from streams.events import ConfigError, HitstreamError, Record

DEADLINE = 60.0  # s, for whatever a test waits for


class Clock:
    """Market time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = NINE

    def now(self) -> datetime:
        return self.at


class Live:
    """An application, running or not, over a hub that the test feeds."""

    def __init__(self, hub: Hub, broadcaster: Broadcaster, clock: Clock, client: httpx.AsyncClient) -> None:
        self.hub = hub
        self.broadcaster = broadcaster
        self.clock = clock
        self.client = client
        self.task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self.client.base_url.port or 0

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=named)

    def feed(self, *records: Record) -> None:
        for record in records:
            self.broadcaster.publish(self.hub.apply(record, self.clock.at))


@asynccontextmanager
async def running(*, limits: ClientLimits | None = None, is_open: bool = True) -> AsyncIterator[Live]:
    clock = Clock()
    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, clock.now, limits)
    if is_open:
        broadcaster.open()
    sock = listen("127.0.0.1", 0)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(application(broadcaster), sock, broadcaster))
            group.create_task(broadcaster.run())

    task = asyncio.create_task(both())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=DEADLINE) as client:
            live = Live(hub, broadcaster, clock, client)
            live.task = task
            yield live
    finally:
        task.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([task])
        sock.close()
        if not task.cancelled():
            await task  # failed


@asynccontextmanager
async def answering(*, dist: Path = Path("/nowhere"), limits: ClientLimits | None = None) -> AsyncIterator[Live]:
    """The application alone, asked without a network."""
    clock = Clock()
    hub = Hub(epoch="e")
    broadcaster = Broadcaster(hub, clock.now, limits)
    broadcaster.open()
    transport = httpx.ASGITransport(application(broadcaster, dist=dist))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Live(hub, broadcaster, clock, client)


class Events:
    """The events of one open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.aiter_bytes()
        self._buffer = bytearray()

    async def any(self) -> dict[str, str]:
        async with asyncio.timeout(DEADLINE):
            looked = 0
            while (end := self._buffer.find(b"\n\n", looked)) < 0:
                looked = max(0, len(self._buffer) - 1)
                self._buffer += await anext(self._chunks)
        block = self._buffer[:end].decode()
        del self._buffer[: end + 2]
        return dict(line.split(": ", 1) for line in block.split("\n"))

    async def next(self, name: str) -> tuple[str, Any]:
        """The next event of this name: its id and its data. Another name than a heartbeat's in between is wrong."""
        while True:
            event = await self.any()
            if event.get("event") == name:
                return event.get("id", ""), json.loads(event["data"])
            assert event.get("event", "heartbeat") == "heartbeat", event

    async def end(self) -> None:
        """Wait for the end of the answer; httpx raises if it is not the end of an answer."""
        async with asyncio.timeout(DEADLINE):
            async for _ in self._chunks:
                pass


@asynccontextmanager
async def stream(live: Live, **headers: str) -> AsyncIterator[Events]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with live.client.stream("GET", "/api/live", headers=named) as r:
        yield Events(r)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not true():
            await asyncio.sleep(0.01)


# --- the stream -------------------------------------------------------------------------------------------------------


async def test_a_stream_is_a_snapshot_and_then_deltas() -> None:
    async with running() as live:
        live.feed(*a_bit_of_everything())
        async with stream(live) as events:
            headers = events.response.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-cache, no-transform"
            assert headers["x-accel-buffering"] == "no"
            assert await events.any() == {"retry": "1000"}
            event_id, told = await events.next("snapshot")
            assert event_id == f"e-{told['number']}"
            assert [view["name"] for view in told["recommendations"]] == ["삼성전자"]
            assert [line["transition"]["code"] for line in told["feed"]] == ["005930", "0004V0", "0004V0"]
            # What was pending when the stream opened is in the snapshot, and is not told once more.
            live.feed(transition("000660", at=NINE + timedelta(seconds=3)))
            event_id, delta = await events.next("delta")
            lines = [change["transition"]["code"] for change in delta["changes"] if change["change"] == "feed"]
            assert (event_id, lines) == (f"e-{live.hub.number}", ["000660"])


async def test_a_returning_browser_gets_what_it_missed() -> None:
    async with running() as live:
        live.feed(transition("005930"))
        async with stream(live) as events:
            seen, _ = await events.next("snapshot")
        live.feed(transition("000660"))
        async with stream(live, Last_Event_ID=seen) as events:
            event_id, delta = await events.next("delta")
            told = [change["transition"]["code"] for change in delta["changes"] if change["change"] == "feed"]
            assert told == ["000660"]
            assert event_id == f"e-{live.hub.number}"
        async with stream(live, Last_Event_ID=event_id) as events:
            assert await events.next("delta") == (event_id, {"now": delta["now"], "changes": []})


@pytest.mark.parametrize("unknown", ["other-1", "e-999999", "nonsense"])
async def test_a_browser_of_an_unknown_epoch_or_number_gets_a_snapshot(unknown: str) -> None:
    async with running() as live:
        live.feed(transition("005930"))
        async with stream(live, Last_Event_ID=unknown) as events:
            _, told = await events.next("snapshot")
            assert len(told["feed"]) == 1


async def test_every_second_a_heartbeat_says_the_time_without_an_id() -> None:
    async with running() as live, stream(live) as events:
        await events.next("snapshot")
        live.clock.at += timedelta(minutes=5)
        event_id, beat = await events.next("heartbeat")
        assert (event_id, beat) == ("", {"now": "2026-03-04T00:05:00Z"})


async def test_a_new_day_is_told_to_all_with_a_snapshot() -> None:
    async with running() as live, stream(live) as events:
        await events.next("snapshot")
        live.feed(transition("005930"))
        await events.next("delta")
        live.clock.at += timedelta(days=1)
        _, told = await events.next("snapshot")
        assert (told["feed"], told["now"]) == ([], "2026-03-05T00:00:00Z")


async def test_until_the_day_is_rebuilt_there_are_only_heartbeats() -> None:
    async with running(is_open=False) as live, stream(live) as events:
        live.feed(transition("005930"))
        await events.any()
        await events.next("heartbeat")
        answer = await live.get("/api/conditions")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        live.broadcaster.open()
        _, told = await events.next("snapshot")
        assert len(told["feed"]) == 1
        live.broadcaster.close()
        live.hub.clear("f")
        live.broadcaster.open()
        event_id, told = await events.next("snapshot")
        assert event_id.startswith("f-")
        assert told["feed"] == []


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"hitstream_live_{name}") or 0.0


async def asleep(port: int) -> socket.socket:
    """A client that asks for the stream and then reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock


async def test_a_slow_client_is_cut_off_while_others_go_on() -> None:
    limits = ClientLimits(owed_bytes=1_000_000, stalled_seconds=60)
    async with running(limits=limits) as live, stream(live) as events:
        await events.next("snapshot")
        slow = await asleep(live.port)
        await until(lambda: counted("clients") == 2)
        before = counted("cut_off_total")
        n = 0
        async with asyncio.timeout(DEADLINE):
            while counted("cut_off_total") == before:
                n += 1
                live.feed(transition(f"{n:06d}", session="x" * 100_000))
                _, delta = await events.next("delta")
                codes = [change["transition"]["code"] for change in delta["changes"] if change["change"] == "feed"]
                assert codes == [f"{n:06d}"], "the client that reads gets each change"
        await until(lambda: counted("clients") == 1)
        live.feed(transition("999999"))
        await events.next("delta")
        slow.close()


async def test_a_client_that_makes_no_progress_is_cut_off() -> None:
    async with running(limits=ClientLimits(stalled_seconds=0.2, owed_bytes=10**9)) as live:
        live.feed(*(transition(f"{n:06d}", session="x" * 100_000) for n in range(200)))
        before = counted("cut_off_total")
        with await asleep(live.port):
            await until(lambda: counted("cut_off_total") == before + 1)
            await until(lambda: counted("clients") == 0)


async def test_there_is_a_bound_to_clients() -> None:
    async with running(limits=ClientLimits(clients=1)) as live:
        async with stream(live) as events:
            await events.next("snapshot")
            answer = await live.get("/api/live")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        await until(lambda: counted("clients") == 0)
        async with stream(live) as events:
            await events.next("snapshot")


async def test_it_stops_although_streams_are_open() -> None:
    async with running() as live:
        live.feed(*(transition(f"{n:06d}", session="x" * 100_000) for n in range(200)))
        with await asleep(live.port):
            async with stream(live) as events:
                await events.next("snapshot")
                await until(lambda: counted("clients") == 2)
                assert live.task is not None
                live.task.cancel()
                async with asyncio.timeout(DEADLINE):
                    await asyncio.wait([live.task])
                assert live.task.cancelled()
                await events.end()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", live.port), timeout=1).close()


@pytest.mark.parametrize(
    ("took", "expected"),
    [
        pytest.param(0.0001, MIN_TICK, id="never narrower"),
        pytest.param(0.004, 0.036, id="a tenth of the time is for telling"),
        pytest.param(10.0, MAX_TICK, id="however long it takes"),
    ],
)
def test_the_tick_widens_with_what_telling_takes(took: float, expected: float) -> None:
    assert next_tick(took) == pytest.approx(expected)


async def test_a_connection_that_asks_nothing_is_dropped_and_a_stream_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    async with running() as live, stream(live) as events:
        await events.next("snapshot")
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""
        writer.close()
        await events.next("heartbeat")


# --- the API ----------------------------------------------------------------------------------------------------------


def strict(schema: Any) -> Any:
    """A schema under which a field that is not described is wrong."""
    if isinstance(schema, dict):
        stricter = {key: strict(value) for key, value in schema.items()}
        if "properties" in stricter:
            stricter["additionalProperties"] = False
        return stricter
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("path", ["/api/recommendations", "/api/conditions", "/api/transitions", "/api/status"])
async def test_answers_are_as_openapi_says(path: str) -> None:
    async with answering() as live:
        live.feed(*a_bit_of_everything())
        described = (await live.get("/openapi.json")).json()
        assert described["openapi"].startswith("3.1")
        answer = await live.get(path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()
        schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        whole = strict(schema | {"components": described["components"]})
        jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(answer.json())
        wrong = json.loads(answer.text.replace('"at":', '"when":').replace('"members":', '"member":'))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, whole)


async def test_the_api_filters() -> None:
    async with answering() as live:
        live.feed(*a_bit_of_everything())

        async def codes(query: str) -> list[str]:
            return [
                line["transition"]["code"] for line in (await live.get(f"/api/transitions?{query}")).json()["items"]
            ]

        assert await codes("") == ["0004V0", "0004V0", "005930"]
        assert await codes("limit=1") == ["0004V0"]
        assert await codes("code=005930") == ["005930"]
        assert await codes("condition=none") == []
        assert await codes("kind=exited") == ["0004V0"]
        assert await codes("account=other") == []
        first = (await live.get("/api/transitions?limit=1")).json()
        # A line that is added meanwhile moves nothing.
        live.feed(transition("000660", at=NINE + timedelta(seconds=9)))
        second = (await live.get(f"/api/transitions?limit=5&cursor={first['next']}")).json()
        assert [line["transition"]["code"] for line in second["items"]] == ["0004V0", "005930"]
        assert second["next"] is None
        assert len((await live.get("/api/recommendations?state=open")).json()) == 1
        assert (await live.get("/api/recommendations?state=closed")).json() == []
        assert (await live.get("/api/recommendations?code=000660")).json() == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/transitions?limit=0", 400),
        ("/api/transitions?limit=1001", 400),
        ("/api/transitions?limit=x", 400),
        ("/api/transitions?cursor=unknown", 404),
        ("/api/transitions?date=yesterday", 400),
        ("/api/conditions/main/unknown", 404),
        ("/api/stocks/999999", 404),
        ("/api/stocks/lower1", 400),
        ("/api/stocks", 400),
        ("/api/stocks?q=", 400),
        ("/api/performance?from=2026-03-04", 400),
        ("/api/performance?from=2026-11-30&to=2026-11-01", 400),
        ("/api/events", 503),
        ("/api/performance?from=2026-03-03&to=2026-03-04", 503),
        ("/api/transitions?date=2026-03-03", 503),
        ("/api/stocks/005930/history", 503),
        ("/api/stocks/005930/bars?interval=1d", 503),
        ("/api/recommendations?state=half", 400),
        ("/api/nothing", 404),
        ("/nothing.js", 404),
    ],
)
async def test_a_wrong_question_is_told_so(path: str, expected: int) -> None:
    async with answering() as live:
        answer = await live.get(path)
        assert answer.status_code == expected
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/api/status", "GET, HEAD, OPTIONS"),
        ("DELETE", "/api/conditions/main/a/b", "GET, HEAD, OPTIONS"),
        ("POST", "/api/live", "GET, HEAD"),
        ("OPTIONS", "/api/live", "GET, HEAD"),
        ("GET", "/api/commands/recommend", "POST, OPTIONS"),
        ("PUT", "/api/commands/withdraw", "POST, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_told_which_there_are(method: str, path: str, allow: str) -> None:
    async with answering() as live:
        answer = await live.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert f"{allow} only" in answer.text


@pytest.mark.parametrize(
    "line", ["GET /api/stocks?q=ㄷㅈ HTTP/1.1", "nonsense", "GET /" + 40_000 * "x"], ids=["not encoded", "none", "long"]
)
async def test_what_is_no_http_is_told_as_every_refusal_is(line: str) -> None:
    async with running() as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(f"{line}\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
        assert "curl -G --data-urlencode" in json.loads(body)["error"]


async def test_head_is_answered_where_get_is_with_the_same_head_and_no_body() -> None:
    async with running() as live:
        for path in ("/api/status", "/api/recommendations?state=half", "/nothing.js", "/openapi.json"):
            asked, told = await live.client.head(path), await live.get(path)
            assert (asked.status_code, asked.content) == (told.status_code, b"")
            varying = {"date", "content-length"}  # a status names the moment
            assert {*asked.headers.items()} - {*told.headers.items()} <= {
                (name, asked.headers[name]) for name in varying
            }
        stream = await live.client.head("/api/live")
        assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (await live.client.head("/api/commands/recommend")).headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/transitions?date=x", "date: "),
        ("/api/transitions?limit=0&date=x", "limit: "),
        ("/api/performance?from=x&to=2026-03-04", "from: "),
        ("/api/performance?from=2026-03-04&to=x", "to: "),
        ("/api/recommendations?state=half", "state: "),
        ("/api/transitions?cursor=" + 201 * "x", "cursor: "),
        ("/api/performance?to=2026-03-04", "'from'"),
        ("/api/performance?from=2026-11-30&to=2026-11-01", "from: 2026-11-30 is after to, 2026-11-01"),
    ],
)
async def test_a_wrong_parameter_has_the_name_that_it_was_asked_by(path: str, named: str) -> None:
    async with answering() as live:
        assert named in (await live.get(path)).json()["error"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/api/recommendations?sttae=open", "There is no parameter 'sttae' here; did you mean state?"),
        ("/api/performance?form=2026-03-03&to=2026-03-04", "There is no parameter 'form' here; did you mean from?"),
        ("/api/stocks/005930/bars?code=000660", "There is no parameter 'code' here; it takes date, interval."),
        ("/api/gaps?x=1", "There is no parameter 'x' here; it takes none."),
    ],
)
async def test_a_parameter_that_nobody_knows_is_refused_with_the_nearest_one(path: str, sentence: str) -> None:
    async with answering() as live:
        answer = await live.get(path)
        assert (answer.status_code, answer.json()) == (400, {"error": sentence})


# --- the page ---------------------------------------------------------------------------------------------------------


async def test_the_page_is_served_with_type_and_caching(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html>안녕", encoding="utf-8")
    (dist / "assets" / "index-abc123.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    async with answering(dist=dist) as live:
        index = await live.get("/")
        assert (index.text, index.headers["cache-control"]) == ("<!doctype html>안녕", "no-cache")
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        script = await live.get("/assets/index-abc123.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        packed = await live.get("/assets/index-abc123.js", accept_encoding="identity")
        assert (packed.headers.get("content-encoding"), packed.headers["vary"]) == (None, "accept-encoding")
        for outside in ("/%2e%2e/secret.txt", "/assets/../../secret.txt", "//etc/passwd", "/assets", "/%00"):
            assert (await live.get(outside)).status_code == 404, outside


async def test_files_are_compressed_for_those_who_take_it(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    script = "export const 이름 = 1;\n" * 500
    (tmp_path / "assets" / "a.js").write_text(script, encoding="utf-8")
    (tmp_path / "assets" / "a.png").write_bytes(b"\0" * 10_000)
    async with answering(dist=tmp_path) as live:
        packed = await live.get("/assets/a.js", accept_encoding="gzip")
        assert (packed.headers["content-encoding"], packed.text) == ("gzip", script)
        assert int(packed.headers["content-length"]) < 500
        plain = await live.get("/assets/a.js", accept_encoding="identity")
        assert ("content-encoding" in plain.headers, plain.text) == (False, script)
        picture = await live.get("/assets/a.png", accept_encoding="gzip")
        assert "content-encoding" not in picture.headers


async def test_a_page_that_is_not_built_says_how(tmp_path: Path) -> None:
    async with answering(dist=tmp_path / "none") as live:
        answer = await live.get("/")
        assert answer.status_code == 200
        assert "make setup" in answer.text
        assert answer.headers["cache-control"] == "no-store"


def test_nothing_outside_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist-secret").write_text("x")
    assert page.find(tmp_path / "dist", "/../dist-secret") is None


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/conditions", "/api/live", "/nothing", "/openapi.json"])
async def test_every_answer_has_the_security_headers(path: str) -> None:
    async with answering(limits=ClientLimits(clients=0)) as live:
        headers = (await live.get(path)).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


# --- the role ---------------------------------------------------------------------------------------------------------


def role(port: int, kafka: str, *, host: str = "127.0.0.1") -> Any:
    return run(
        settings=LiveSettings(host=host, port=port),
        bootstrap_servers=kafka,
        now=lambda: datetime.now(UTC),
        speed=1.0,
        ready=lambda _: None,
    )


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HitstreamError, match=f"Port {port} on 127.0.0.1 is taken"):
            await role(port, "127.0.0.1:1")


async def test_an_address_for_others_needs_a_token() -> None:
    with pytest.raises(ConfigError, match=r"live\.token"):
        await role(0, "127.0.0.1:1", host="0.0.0.0")


async def test_an_unreachable_kafka_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(BaseExceptionGroup) as raised:
            await role(0, address)
    assert raised.group_contains(HitstreamError, match=f"Kafka can't be reached at {address}")
