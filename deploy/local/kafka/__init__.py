"""A Kafka for a machine that has none: `hitstream local kafka`.

Two engines behind one address: Apache Kafka itself where Java and its jars can be had, noida-db otherwise. Each has
its own folder under the data folder, and the data folder is locked as long as a broker lives in it. Topics are none
of its business: `deploy.topics` makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from deploy.ports import PortTaken
from streams.events import HitstreamError

from . import apache, noida
from .address import advertised, free_port, listener, refuse_taken
from .apache import ended
from .front import Front
from .locks import Held, exclusive
from .process import Child, last_lines

__all__ = ["DataFolderTaken", "Engine", "PortTaken", "serve"]

_PATIENCE: Final = 5.0
"""Seconds for the broker of a predecessor that was killed to go, too."""

Engine = Literal["auto", "apache", "noida"]
Report = Callable[[str], None]
Ready = Callable[[str | None], None]


class DataFolderTaken(HitstreamError):
    """Another broker lives in the data folder."""


async def serve(
    *,
    host: str,
    port: int,
    data_dir: Path,
    engine: Engine = "auto",
    report: Report,
    ready: Ready,
) -> None:
    """Run a local Kafka until cancelled.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one, which `report` tells.
        data_dir: folder of everything it keeps.
        engine: `apache`, `noida`, or `auto`: the one that the folder's records belong to, else Apache Kafka if it
            can be had, else noida-db.
        report: takes lines for a person: which engine, why, what that means, how a download goes.
        ready: told None when the broker takes requests, before that why not.

    Raises:
        PortTaken: something else listens there.
        DataFolderTaken: another broker uses the folder.
        HitstreamError: the engine cannot be had, did not start, or ended by itself.
    """
    ready("starting")
    data_dir = _absolute(data_dir)
    try:
        async with exclusive(data_dir / "lock", patience=_PATIENCE) as lock:
            port = port or free_port(host)
            refuse_taken(host, port)
            kafka = await _choose(engine, data_dir, report)
            if isinstance(kafka, apache.Kafka):
                await _serve_apache(kafka, host, port, data_dir / "apache", lock, report, ready)
            else:
                await _serve_noida(host, port, data_dir / "noida", lock, report, ready)
    except Held:
        raise DataFolderTaken(
            f"Another local Kafka is running on {data_dir}; stop it, or choose another folder with local.data_dir."
        ) from None
    except OSError as error:
        raise HitstreamError(f"The local Kafka cannot use {data_dir}: {error}.") from error


async def _choose(engine: Engine, data_dir: Path, report: Report) -> apache.Kafka | None:
    """Apache Kafka, ready to run, or None for noida-db; says which and why."""
    if engine == "apache":
        return await apache.prepare(report)
    if engine == "noida":
        return None
    has_apache = (data_dir / "apache" / "logs" / "meta.properties").exists()
    if not has_apache and (data_dir / "noida" / noida.STATE).exists():
        report("using noida-db, because this data folder holds its records (--engine apache starts an empty one)")
        return None
    missing = await apache.available()
    if missing is None:
        try:
            return await apache.prepare(report)
        except apache.Unavailable as unavailable:
            missing = str(unavailable)
    report(f"using noida-db instead of Apache Kafka: {missing}")
    if has_apache:
        report("the records that Apache Kafka keeps in this data folder are not touched, and not seen either")
    return None


async def _serve_apache(
    kafka: apache.Kafka, host: str, port: int, folder: Path, lock: int, report: Report, ready: Ready
) -> None:
    async with apache.run(kafka, host, port, folder, keep_open=(lock,)) as (broker, log):
        report(
            f"Apache Kafka {kafka.version} on {listener(advertised(host))}:{port}; records are kept in "
            f"{folder}, also through a crash of the program"
        )
        ready(None)
        await _until_ended("Apache Kafka", broker, log)


async def _serve_noida(host: str, port: int, folder: Path, lock: int, report: Report, ready: Ready) -> None:
    async with noida.run(folder, keep_open=(lock,)) as (broker, inner, log):
        front = Front((noida.HOST, inner), (advertised(host), port))
        async with front.listening(host, port):
            report(
                f"noida-db on {listener(advertised(host))}:{port}; records are held in memory and kept in {folder} "
                "when it is stopped: a crash may lose the last second"
            )
            ready(None)
            await _until_ended("noida-db", broker, log)


async def _until_ended(name: str, broker: Child, log: Path) -> None:
    code = await broker.wait()
    raise HitstreamError(f"{name} {ended(code)} by itself; {log} says last: {last_lines(log)}")


def _absolute(folder: Path) -> Path:
    return folder.absolute()
