"""Apache Kafka itself, as one small KRaft process: where its jars come from, and how it is run.

The jars come from `KAFKA_HOME/libs`, or from Maven Central through the `pom.xml` beside this file into the user's
cache folder, once. An archive of loaded classes (Java's class data sharing), made once beside them, halves the start.
All state is under the data folder; nothing in it names a port or a path, so both may change between runs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.resources
import os
import re
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from streams.events import HitstreamError

from .address import advertised, free_port, listener
from .locks import Held, exclusive
from .process import Child, child, last_lines
from .ready import until_ready

_POM: Final = importlib.resources.files(__package__) / "pom.xml"
_JAVA: Final = 17
_OLDEST: Final = (3, 9)
_DOWNLOAD_SECONDS: Final = 900.0
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0
_MEMORY: Final = ("-Xms48m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")

Report = Callable[[str], None]


class Unavailable(HitstreamError):
    """Apache Kafka cannot be run on this machine as it is; the sentence says what is missing."""


class Java(msgspec.Struct, frozen=True):
    """A Java runtime that is new enough. `version` is what it calls itself."""

    path: str
    version: str


class Kafka(msgspec.Struct, frozen=True):
    """Everything that is needed to run a broker."""

    java: Java
    version: str
    jars: tuple[Path, ...]
    classes: Path | None

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        archive = (f"-XX:SharedArchiveFile={self.classes}",) if self.classes and not options else ()
        return [
            self.java.path,
            *_MEMORY,
            *archive,
            *options,
            "-Xshare:auto",
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            "-Djava.awt.headless=true",
            "-Dlog4j2.configurationFile=log4j2.properties",
            "-cp",
            os.pathsep.join(map(str, self.jars)),
            *arguments,
        ]


def wanted_version() -> str:
    """The version of Apache Kafka that the pom names."""
    found = re.search(r"<kafka\.version>(.+?)</", _POM.read_text())
    assert found
    return found[1]


def cache_folder() -> Path:
    """Where the jars are kept: the user's cache, shared by all data folders."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hitstream"


# --- what is there ----------------------------------------------------------------------------------------------------


async def find_java() -> Java:
    """The Java to use, from JAVA_HOME or the path. Raises Unavailable."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin" if home else None)
    if path is None:
        raise Unavailable(
            f"Apache Kafka needs Java {_JAVA} or newer, and there is no java in $JAVA_HOME or on the path."
        )
    process = await asyncio.create_subprocess_exec(
        path,
        "-version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(20):
            printed = (await process.communicate())[0].decode(errors="replace")
    except TimeoutError:
        printed = "no answer within 20 s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = re.search(r'version "((\d+)[^"]*)"', printed)
    if process.returncode or found is None:
        raise Unavailable(f"Apache Kafka needs Java {_JAVA} or newer, and {path} does not run: {printed.strip()[:200]}")
    if int(found[2]) < _JAVA:
        raise Unavailable(f"Apache Kafka needs Java {_JAVA} or newer; {path} is Java {found[1]}.")
    return Java(path, printed.strip())


def jars_in(folder: Path) -> tuple[str, tuple[Path, ...]] | None:
    """Version and jars of the Apache Kafka in a folder, None if there is none."""
    jars = tuple(sorted(folder.glob("*.jar"))) if folder.is_dir() else ()
    for jar in jars:
        if found := re.fullmatch(r"kafka_2\.1\d-(\d+(?:\.\d+)+.*)\.jar", jar.name):
            return found[1], jars
    return None


def local_jars() -> tuple[str, tuple[Path, ...]] | None:
    """Version and jars that need no download. Raises Unavailable for a KAFKA_HOME that cannot be used."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        return jars_in(cache_folder() / f"kafka-{wanted_version()}")
    found = jars_in(Path(home) / "libs")
    if found is None:
        raise Unavailable(f"KAFKA_HOME is {home}, but there is no Apache Kafka in {Path(home) / 'libs'}.")
    numbers = tuple(int(n) for n in re.findall(r"\d+", found[0])[:2])
    if numbers < _OLDEST:
        raise Unavailable(f"KAFKA_HOME is Apache Kafka {found[0]}; 3.9 or newer is needed.")
    return found


async def available() -> str | None:
    """None if Apache Kafka can be run here, perhaps after a download; else what is missing, in one sentence."""
    try:
        await find_java()
        if local_jars() is None and shutil.which("mvn") is None:
            return "Apache Kafka's jars are not here, and there is no mvn to download them (or set KAFKA_HOME)."
    except Unavailable as missing:
        return str(missing)
    return None


# --- getting it -------------------------------------------------------------------------------------------------------


async def prepare(report: Report) -> Kafka:
    """Everything that is needed to run a broker, downloaded if it must be. Raises Unavailable."""
    java = await find_java()
    found = local_jars()
    cache = cache_folder()
    try:
        if found is None:
            async with exclusive(
                cache / "download.lock",
                patience=_DOWNLOAD_SECONDS,
                waiting=lambda: report("another process is downloading Apache Kafka; waiting for it"),
            ):
                found = local_jars() or await _download(cache, report)
        version, jars = found
        identity = hashlib.sha256(java.version.encode())
        for jar in jars:
            stat = jar.stat()
            identity.update(f"{jar}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        classes = cache / f"kafka-{version}-{identity.hexdigest()[:16]}.jsa"
        kafka = Kafka(java, version, jars, classes)
        if not classes.exists():
            async with exclusive(
                cache / "classes.lock",
                patience=120,
                waiting=lambda: report("another process prepares Apache Kafka's faster start; waiting for it"),
            ):
                if not classes.exists() and not await _archive_classes(kafka, classes, report):
                    return msgspec.structs.replace(kafka, classes=None)
    except Held as held:
        raise Unavailable(f"Another process has been preparing Apache Kafka for too long; it holds {held}.") from None
    except OSError as error:
        raise Unavailable(f"Apache Kafka cannot be prepared in {cache}: {error}.") from error
    return kafka


async def _download(cache: Path, report: Report) -> tuple[str, tuple[Path, ...]]:
    version = wanted_version()
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("Apache Kafka's jars are not here, and there is no mvn to download them (or set KAFKA_HOME).")
    report(f"downloading Apache Kafka {version} from Maven Central (about 40 MB, once)")
    started = asyncio.get_running_loop().time()
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(_POM.read_text())
        command = [maven, "-q", "-B", "-f", "pom.xml", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
        log = folder / "mvn.log"
        try:
            async with asyncio.timeout(_DOWNLOAD_SECONDS), child(command, log=log, grace=1, cwd=folder) as maven_child:
                code = await maven_child.wait()
        except TimeoutError:
            raise Unavailable(
                f"Downloading Apache Kafka took more than {_DOWNLOAD_SECONDS / 60:.0f} minutes."
            ) from None
        if code or jars_in(folder / "jars") is None:
            raise Unavailable(f"Apache Kafka {version} could not be downloaded: {_maven_error(log)}")
        final = cache / f"kafka-{version}"
        shutil.rmtree(final, ignore_errors=True)  # whatever is there is not complete
        (folder / "jars").rename(final)
    report(f"downloaded in {asyncio.get_running_loop().time() - started:.0f} s, kept in {final}")
    found = jars_in(final)
    assert found is not None
    return found


def _maven_error(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("[ERROR]")]
    return lines[0].removeprefix("[ERROR]").strip()[:400] if lines else last_lines(log)


async def _archive_classes(kafka: Kafka, classes: Path, report: Report) -> bool:
    """Run a broker once on a scratch folder so that Java archives what it loads. False if that came to nothing."""
    report("preparing Apache Kafka's faster start (some seconds, once)")
    with tempfile.TemporaryDirectory(dir=classes.parent, prefix="classes-") as name:
        folder = Path(name)
        archive = folder / "classes.jsa"
        plain = msgspec.structs.replace(kafka, classes=None)
        try:
            async with run(
                plain, "127.0.0.1", free_port("127.0.0.1"), folder, options=(f"-XX:ArchiveClassesAtExit={archive}",)
            ) as (broker, _):
                await broker.stop(60)
        except HitstreamError as failed:
            report(f"that did not work ({failed}); the start stays slower")
            return False
        if not archive.exists():
            return False
        archive.rename(classes)
    return True


# --- running it -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def run(
    kafka: Kafka,
    host: str,
    port: int,
    folder: Path,
    *,
    keep_open: tuple[int, ...] = (),
    options: tuple[str, ...] = (),
) -> AsyncIterator[tuple[Child, Path]]:
    """A broker that takes requests at host and port until the block is left; with it, the file of its own log.

    Args:
        folder: where its state is, absolute; made and formatted if it is new.
        keep_open: descriptors to inherit (a lock's).
        options: further options of Java; they leave the class archive unused.
    """
    _configure(folder, host, port)
    if not (folder / "logs" / "meta.properties").exists():
        await _format(kafka, folder)
    console, log = folder / "console.log", folder / "kafka.log"
    before = _size(log)
    command = kafka.command("kafka.Kafka", "server.properties", options=options)
    async with child(command, log=console, grace=_STOP_SECONDS, cwd=folder, keep_open=keep_open) as broker:
        if not await until_ready(broker, advertised(host), port, _START_SECONDS, _cluster_id(folder)):
            words = last_lines(console) if _size(console) else last_lines(log, since=before)
            raise HitstreamError(f"Apache Kafka did not start; its log in {folder} says: {words}")
        yield broker, log


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _configure(folder: Path, host: str, port: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(_LOG4J)
    (folder / "server.properties").write_text(_properties(host, port, free_port("127.0.0.1"), "logs"))


async def _format(kafka: Kafka, folder: Path) -> None:
    """Format the data folder once. It appears complete or not at all."""
    scratch = folder / "formatting"
    shutil.rmtree(scratch, ignore_errors=True)
    settings = folder / "format.properties"
    settings.write_text(_properties("127.0.0.1", 1, 2, scratch.name))
    log = folder / "format.log"
    command = kafka.command("kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", settings.name)
    async with child(command, log=log, grace=1, cwd=folder) as tool:
        code = await tool.wait()
    if code:
        raise HitstreamError(f"Apache Kafka could not format {folder}: {last_lines(log)}")
    settings.unlink()
    shutil.rmtree(folder / "logs", ignore_errors=True)  # without meta.properties: nothing that was ever written to
    scratch.rename(folder / "logs")


def _cluster_id(folder: Path) -> str:
    """The id with which the folder was formatted; a broker tells it to its clients."""
    found = re.search(r"^cluster\.id=(.+)$", (folder / "logs" / "meta.properties").read_text(), re.MULTILINE)
    return found[1].strip() if found else ""


def new_cluster_id() -> str:
    """A random cluster id as Kafka writes it: never with a dash at its beginning, which would read as an option."""
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return name


def ended(code: int) -> str:
    """How a broker ended, in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _properties(host: str, port: int, controller: int, logs: str) -> str:
    """One small node that is broker and controller. Paths are relative: they are read from the working folder."""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{listener(host)}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{listener(advertised(host))}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
# Small: few threads, 8 MB instead of 128 MB for compaction, no record of idleness twice a second.
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
metadata.max.idle.interval.ms=0
"""


_LOG4J: Final = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = kafka.log
appender.file.filePattern = kafka.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c - %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""
