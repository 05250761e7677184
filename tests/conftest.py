"""The broker that tests share.

`kafka`        bootstrap address of the session's broker, every topic of `streams.topics` created; names and groups of
               your own keep you out of the way of others.
`fresh_kafka`  bootstrap address of a broker of this test's own: empty, every topic created.
`broker`       the same as a handle, for tests that stop, kill, restart or wipe it.

All three start what they need and stop it at the end, whatever that end is. `HITSTREAM_TEST_KAFKA=apache|noida`
chooses the engine; without it, it is Apache Kafka where Java and its jars can be had, else noida-db. The header says
which one and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, cast

import hypothesis
import psutil
import pytest
import structlog
from aiokafka import client

from deploy.local.kafka import apache
from deploy.topics import ensure
from streams.events import HitstreamError

_FIXTURES = {"kafka", "fresh_kafka", "broker", "kafka_engine"}
_ENGINE = pytest.StashKey[Literal["apache", "noida"]]()

# The broker's process: it leaves when told to, and when its standard input ends, which is when pytest is gone.
_SERVE = """
import asyncio, signal, sys
from pathlib import Path
from deploy.local.kafka import serve
from streams.events import HitstreamError

async def main():
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, me.cancel)
    loop.add_reader(0, me.cancel)
    await serve(host="127.0.0.1", port=int(sys.argv[1]), data_dir=Path(sys.argv[2]), engine=sys.argv[3],
                report=print, ready=lambda reason: print("READY" if reason is None else reason, flush=True))

try:
    asyncio.run(main())
except HitstreamError as error:
    sys.exit(str(error))
except asyncio.CancelledError:
    pass
"""


def pytest_configure() -> None:
    """Mend what would else fail in a test that has nothing to do with it: whichever one the collector runs in."""
    _time_no_example()
    _mark_no_places()
    _close_what_bootstrap_forgets()


def _time_no_example() -> None:
    """Keep hypothesis from failing an example that was slow: how fast something is, the benchmarks tell."""
    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")


def _mark_no_places() -> None:
    """Keep CPython from failing where a traceback is told in the middle of parsing (python/cpython#106905).

    A future whose error nobody looked at is told of when it is collected. When that is while hypothesis or pytest parse
    something, marking the place in the line parses as well, and the outer parse ends in a SystemError.
    """
    if sys.version_info < (3, 13):
        traceback._extract_caret_anchors_from_line_segment = lambda segment: None  # type: ignore[attr-defined]


def _close_what_bootstrap_forgets() -> None:
    """Keep aiokafka from leaving its first connection open where a start is cancelled while it asks for the cluster.

    Whoever stops the client afterwards can't reach that connection. It is told of when it is collected, which is in
    some later test. What is open for any other reason is still told of.
    """
    connect, bootstrap = client.create_conn, client.AIOKafkaClient.bootstrap
    opened: ContextVar[list[Any]] = ContextVar("opened")

    async def noting(*args: Any, **options: Any) -> Any:
        connection = await connect(*args, **options)
        opened.get([]).append(connection)
        return connection

    async def closing(self: client.AIOKafkaClient) -> None:
        token = opened.set([])
        try:
            await bootstrap(self)
        except BaseException:
            for connection in opened.get():
                connection.close()
            raise
        finally:
            opened.reset(token)

    client.create_conn, client.AIOKafkaClient.bootstrap = noting, closing


@pytest.fixture(autouse=True)
def logs_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs in this process sets up where it logs: not for the tests after it, whose loggers would
    write to an output that is closed."""
    configure = structlog.configure
    monkeypatch.setattr(
        structlog, "configure", lambda **settings: configure(**settings | {"cache_logger_on_first_use": False})
    )
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Locks and tokens of what the tests start are kept away from those of this machine's user."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home


def pytest_report_header() -> str:
    return f"kafka: {_choose()[1]}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Get Apache Kafka before the first test that needs it, so that no test waits for a download."""
    engine, _ = _choose()
    needed = any(_FIXTURES & set(getattr(item, "fixturenames", ())) for item in session.items)
    if engine == "apache" and needed and not session.config.option.collectonly:
        try:
            _apart(lambda: apache.prepare(lambda line: None))
        except HitstreamError as error:
            if os.environ.get("HITSTREAM_TEST_KAFKA"):
                raise pytest.UsageError(str(error)) from error
            engine = "noida"
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(f"kafka: noida-db, the embedded broker, because: {error}")
    session.config.stash[_ENGINE] = engine


def _choose() -> tuple[Literal["apache", "noida"], str]:
    """The engine of this run, and the words for it."""
    asked = os.environ.get("HITSTREAM_TEST_KAFKA")
    if asked not in (None, "", "apache", "noida"):
        raise pytest.UsageError(f"HITSTREAM_TEST_KAFKA is {asked!r}: apache or noida.")
    if asked:
        return cast(Literal["apache", "noida"], asked), f"{asked}, because HITSTREAM_TEST_KAFKA says so"
    missing = _apart(apache.available)
    if missing:
        return "noida", f"noida-db, the embedded broker, because: {missing}"
    return "apache", "Apache Kafka, because Java and its jars can be had here"


class Broker:
    """A broker of its own on a fixed port and data folder."""

    def __init__(self, data_dir: Path, engine: str) -> None:
        self.data_dir = data_dir
        self.engine = engine
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, every topic there; what it kept is there again."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        output = self.data_dir / "serve.log"
        with output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self.port), str(self.data_dir), self.engine],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while b"READY" not in output.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the broker did not start: {output.read_text()}")
            time.sleep(0.02)
        _apart(lambda: ensure(self.address))

    def stop(self) -> None:
        """Stop it in order: what it was told stays."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            else:
                self._forget()

    def kill(self) -> None:
        """Kill it at once, as a crash of the machine's processes would."""
        if self.process is not None:
            doomed = []
            with contextlib.suppress(psutil.NoSuchProcess):
                serving = psutil.Process(self.process.pid)
                doomed = [*serving.children(recursive=True), serving]
            for process in doomed:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            while any(map(_lives, doomed[:-1])):
                time.sleep(0.01)
            self.process.wait(20)
            self._forget()

    def wipe(self) -> None:
        """Stop it and forget everything; `start` makes it new."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _forget(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that nobody has asked after yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _apart(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a thread of its own, so that the test's event loop is left alone."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(make()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@pytest.fixture(scope="session")
def available_engine(request: pytest.FixtureRequest) -> str:
    """`apache` or `noida`: the engine of this run."""
    return request.config.stash[_ENGINE]


@pytest.fixture(scope="session")
def kafka_engine(available_engine: str) -> str:
    """The engine that a test's broker is; a folder of tests may run on several."""
    return available_engine


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_engine: str) -> Iterator[str]:
    """Bootstrap address of the session's broker, all topics created. Shared: use groups of your own."""
    with shared(tmp_path_factory, kafka_engine) as address:
        yield address


@contextlib.contextmanager
def shared(folders: pytest.TempPathFactory, engine: str) -> Iterator[str]:
    """The address of a broker for many tests."""
    broker = Broker(folders.mktemp("kafka") / "data", engine)
    try:
        broker.start()
        yield broker.address
    finally:
        broker.wipe()


@pytest.fixture
def broker(tmp_path: Path, kafka_engine: str) -> Iterator[Broker]:
    """A broker of this test's own, running, as a handle: `address`, `stop`, `start`, `kill`, `wipe`."""
    broker = Broker(tmp_path / "kafka", kafka_engine)
    try:
        broker.start()
        yield broker
    finally:
        broker.wipe()


@pytest.fixture
def fresh_kafka(broker: Broker) -> str:
    """Bootstrap address of an empty broker of this test's own, all topics created."""
    return broker.address
