"""`hitstream local kafka`: the same broker to a client whichever engine it is, and nothing of it left behind."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.local import kafka
from deploy.local.kafka import apache, noida
from deploy.local.kafka.locks import exclusive
from deploy.local.kafka.process import child, last_lines
from deploy.local.kafka.ready import until_ready
from streams import topics
from streams.events import HitstreamError

pytestmark = pytest.mark.kafka

NAME = topics.TRANSITIONS.name
PARTITIONS = [TopicPartition(NAME, n) for n in range(topics.TRANSITIONS.partitions)]


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def write(address: str, count: int, **options: object) -> list[bytes]:
    values = [b"%d" % n for n in range(count)]
    async with AIOKafkaProducer(bootstrap_servers=address, **options) as producer:
        for n, value in enumerate(values):
            await producer.send(NAME, value, key=value, partition=n % len(PARTITIONS))
    return values


async def read(address: str, count: int, **options: object) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", **options)
    async with consumer, asyncio.timeout(60):
        consumer.assign(PARTITIONS)
        return [(await consumer.getone()).value for _ in range(count)]


# --- what clients rely on ---------------------------------------------------------------------------------------------


async def test_an_idempotent_producer_writes_each_record_once(broker) -> None:  # type: ignore[no-untyped-def]
    values = await write(broker.address, 200, enable_idempotence=True)
    assert sorted(await read(broker.address, 200)) == sorted(values)


async def test_what_was_told_survives_a_stop_in_order(broker) -> None:  # type: ignore[no-untyped-def]
    values = await write(broker.address, 40)
    where = TopicPartition(NAME, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
    async with consumer:
        consumer.assign([where])
        await consumer.commit({where: 7})
    broker.stop()
    broker.start()
    assert sorted(await read(broker.address, 40)) == sorted(values)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False)
    async with consumer, asyncio.timeout(30):
        while await consumer.committed(where) != 7:  # the coordinator may still be reading what was committed
            await asyncio.sleep(0.1)


async def test_what_apache_kafka_acknowledged_survives_a_kill(broker) -> None:  # type: ignore[no-untyped-def]
    if broker.engine != "apache":
        pytest.skip("noida-db promises no such thing")
    values = await write(broker.address, 40, acks="all")
    broker.kill()
    broker.start()
    assert sorted(await read(broker.address, 40)) == sorted(values)


async def test_partitions_are_shared_and_taken_over_from_who_leaves_or_dies(kafka: str) -> None:
    def member() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            NAME, bootstrap_servers=kafka, group_id="shared", session_timeout_ms=6000, heartbeat_interval_ms=200
        )

    def settled(*members: AIOKafkaConsumer) -> bool:
        owned = [partition for one in members for partition in one.assignment()]
        return sorted(owned) == PARTITIONS and all(one.assignment() for one in members)

    async with member() as first, member() as second:
        async with member() as third:
            await until(lambda: settled(first, second, third))
        await until(lambda: settled(first, second))
        doomed = _member_to_be_killed(kafka, "shared")
        try:
            await until(lambda: 0 < len(first.assignment()) + len(second.assignment()) < len(PARTITIONS))
        finally:
            doomed.kill()
            doomed.wait()
        await until(lambda: settled(first, second))


def _member_to_be_killed(address: str, group: str) -> "subprocess.Popen[bytes]":
    """A member in a process of its own."""
    program = (
        "import asyncio, sys\nfrom aiokafka import AIOKafkaConsumer\n"
        "async def main():\n"
        "    async with AIOKafkaConsumer(sys.argv[1], bootstrap_servers=sys.argv[2], group_id=sys.argv[3],\n"
        "                                session_timeout_ms=6000, heartbeat_interval_ms=200):\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, NAME, address, group], stderr=subprocess.DEVNULL)


# --- how it is started and stopped ------------------------------------------------------------------------------------


def _family(pid: int) -> list[psutil.Process]:
    serving = psutil.Process(pid)
    return [serving, *serving.children(recursive=True)]


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


async def test_a_stop_leaves_no_process(broker) -> None:  # type: ignore[no-untyped-def]
    family = _family(broker.process.pid)
    assert len(family) >= 2
    broker.stop()
    await until(lambda: not _alive(family))


async def test_a_kill_of_the_program_leaves_no_process(broker) -> None:  # type: ignore[no-untyped-def]
    family = _family(broker.process.pid)
    broker.process.kill()
    await until(lambda: not _alive(family))
    broker.kill()
    broker.start()  # and nothing of it is in the way of the next


@contextlib.asynccontextmanager
async def serving(data_dir: Path, engine: kafka.Engine, port: int = 0) -> AsyncIterator[list[str]]:
    """`serve` in this process, ready; gives the lines it reports."""
    lines: list[str] = []
    ready = asyncio.Event()
    task = asyncio.ensure_future(
        kafka.serve(
            host="127.0.0.1",
            port=port,
            data_dir=data_dir,
            engine=engine,
            report=lines.append,
            ready=lambda reason: ready.set() if reason is None else None,
        )
    )
    waiting = asyncio.ensure_future(ready.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield lines
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


async def test_a_taken_port_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            kafka.PortTaken, match=f"cannot listen on 127.0.0.1:{port}: another program already listens"
        ):
            async with serving(tmp_path, "noida", port):
                pass


async def test_a_folder_that_another_broker_uses_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_PATIENCE", 0.1)
    async with serving(tmp_path, "noida"):
        with pytest.raises(kafka.DataFolderTaken, match="Another local Kafka is running on"):
            async with serving(tmp_path, "noida"):
                pass


async def test_a_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HitstreamError, match="cannot use"):
        async with serving(tmp_path / "file" / "kafka", "noida"):
            pass


async def test_a_broker_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    def kill(reason: str | None) -> None:
        if reason is None:
            broker = next(p for p in psutil.Process().children() if str(tmp_path) in " ".join(p.cmdline()))
            broker.kill()

    with pytest.raises(HitstreamError, match="noida-db was ended by SIGKILL by itself"):
        await kafka.serve(
            host="127.0.0.1", port=0, data_dir=tmp_path, engine="noida", report=lambda line: None, ready=kill
        )


JAVA_LOG = """\
2026-11-26 09:15:35,270 WARN org.apache.kafka.controller.QuorumController - [QuorumController id=1] Activation.
2026-11-26 09:15:48,975 ERROR org.apache.kafka.metadata.MetaPropertiesEnsemble - Error while reading /x/meta.properties
java.lang.RuntimeException: Unknown meta.properties version number 9
\tat org.apache.kafka.metadata.MetaPropertiesVersion.fromNumber(MetaPropertiesVersion.java:53) ~[kafka.jar:?]
\tat java.base/java.util.Iterator.forEachRemaining(Iterator.java:133) ~[?:?]
\tat kafka.server.KafkaRaftServer$.<init>(KafkaRaftServer.scala:57) [kafka_2.13-4.4.0.jar:?]
Caused by: java.net.BindException: Address already in use
\tat java.base/sun.nio.ch.Net.bind0(Native Method)
\t... 6 more
"""


def test_of_a_log_the_causes_are_told_and_no_frames(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_text(JAVA_LOG)
    assert last_lines(log) == (
        "Error while reading /x/meta.properties | RuntimeException: Unknown meta.properties version number 9"
        " | BindException: Address already in use"
    )
    log.write_text("one\n\n  two\n")
    assert last_lines(log) == "one | two"
    assert last_lines(log, since=4) == "two"
    assert last_lines(log, since=4000) == "one | two"  # another file by now
    log.write_text("")
    assert (last_lines(log), last_lines(tmp_path / "none")) == ("empty log", "no log")


async def test_a_damaged_folder_of_apache_kafka_is_told_by_its_cause(tmp_path: Path, available_engine: str) -> None:
    if available_engine != "apache":
        pytest.skip("Apache Kafka cannot be had here")
    logs = tmp_path / "apache" / "logs"
    logs.mkdir(parents=True)
    (logs.parent / "kafka.log").write_text("2026-11-25 09:15:48,975 ERROR kafka.Kafka$ - of yesterday\n")
    (logs / "meta.properties").write_text("cluster.id=x\nnode.id=1\nversion=9\n")
    with pytest.raises(HitstreamError, match=r"Unknown meta\.properties version number 9") as told:
        async with serving(tmp_path, "apache"):
            pass
    assert "KafkaRaftServer" not in str(told.value)
    assert "of yesterday" not in str(told.value)


# --- which engine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Maven and cached jars; gives the folder of its programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("JAVA_HOME", "KAFKA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return programs


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


JAVA = "echo 'openjdk version \"{}\" 2025-01-01' >&2"


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({}, "there is no java"),
        ({"java": JAVA.format("11.0.2")}, "is Java 11.0.2"),
        ({"java": JAVA.format("1.8.0_292")}, "is Java 1.8.0_292"),
        ({"java": "echo no runtime present; exit 1"}, "does not run: no runtime present"),
        ({"java": JAVA.format("17.0.1")}, "no mvn to download them"),
        (
            {"java": JAVA.format("21"), "mvn": 'echo "[ERROR] Could not transfer artifact"; exit 1'},
            "could not be downloaded: Could not transfer artifact",
        ),
    ],
)
async def test_without_apache_kafka_auto_takes_noida_and_says_why(
    bare: Path, tmp_path: Path, programs: dict[str, str], words: str
) -> None:
    for name, script in programs.items():
        program(bare, name, script)
    async with serving(tmp_path / "data", "auto") as lines:
        pass
    assert any(line.startswith("using noida-db instead of Apache Kafka:") and words in line for line in lines)
    with pytest.raises(apache.Unavailable, match=words):
        async with serving(tmp_path / "data", "apache"):
            pass


async def test_a_kafka_home_without_kafka_is_told(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "java", JAVA.format("17"))
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert "there is no Apache Kafka in" in (await apache.available() or "")
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-3.5.1.jar").touch()
    assert "KAFKA_HOME is Apache Kafka 3.5.1; 3.9 or newer is needed" in (await apache.available() or "")
    (tmp_path / "libs" / "kafka_2.13-3.9.0.jar").touch()
    (tmp_path / "libs" / "kafka_2.13-3.5.1.jar").unlink()
    assert await apache.available() is None


async def test_auto_stays_with_the_engine_whose_records_the_folder_holds(tmp_path: Path) -> None:
    async with serving(tmp_path, "noida"):
        pass
    assert (tmp_path / "noida" / noida.STATE).exists()
    async with serving(tmp_path, "auto") as lines:
        pass
    assert lines[0].startswith("using noida-db, because this data folder holds its records")


def test_a_cluster_id_never_reads_as_an_option() -> None:
    names = {apache.new_cluster_id() for _ in range(2000)}
    assert len(names) == 2000
    assert all(len(name) == 22 and not name.startswith("-") for name in names)


@pytest.mark.parametrize("cluster", ["", "another"])
async def test_who_answers_at_the_port_of_a_starting_broker_may_be_somebody_else(
    kafka: str, cluster: str, tmp_path: Path
) -> None:
    host, _, port = kafka.partition(":")
    async with child(["sleep", "1000"], log=tmp_path / "log", grace=5) as starting:
        assert await until_ready(starting, host, int(port), 60 if not cluster else 0.3, cluster) is (not cluster)


# --- a child on a leash -----------------------------------------------------------------------------------------------


async def test_a_child_that_does_not_listen_is_ended_with_all_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "trap '' TERM; sleep 1000 & echo up; wait; wait"
    async with child(["/bin/sh", "-c", script], log=log, grace=0.1) as stubborn:
        await until(lambda: b"up" in log.read_bytes())
        family = _family(stubborn.pid)
        assert len(family) >= 2
    await until(lambda: not _alive(family))
    assert await stubborn.wait() == -signal.SIGKILL


async def test_a_lock_lasts_as_long_as_the_child_that_inherited_it(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    async with child(["sleep", "1000"], log=tmp_path / "log", grace=5, keep_open=(lock,)):
        os.close(lock)
        with (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    async with exclusive(tmp_path / "lock", patience=30):
        pass
