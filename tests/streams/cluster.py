"""Two brokers of Apache Kafka: the test's own, and a second one that leads and copies what a test gives it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka.admin import NewTopic

from streams import topics

from ..conftest import Broker
from .fleet import eventually
from .workers import administering

# The second broker's process: it leaves when told to, and when its standard input ends, which is when pytest is gone.
_SERVE = """
import asyncio, signal, sys
from pathlib import Path
from deploy.local.kafka import apache
from deploy.local.kafka.process import child

async def main():
    me, loop, folder = asyncio.current_task(), asyncio.get_running_loop(), Path(sys.argv[1])
    loop.add_signal_handler(signal.SIGTERM, me.cancel)
    loop.add_reader(0, me.cancel)
    kafka = await apache.prepare(print)
    if not (folder / "logs" / "meta.properties").exists():
        command = kafka.command("kafka.tools.StorageTool", "format", "-t", sys.argv[2], "-c", "server.properties")
        async with child(command, log=folder / "format.log", grace=1, cwd=folder) as tool:
            assert await tool.wait() == 0, (folder / "format.log").read_text()
    command = kafka.command("kafka.Kafka", "server.properties")
    async with child(command, log=folder / "console.log", grace=10, cwd=folder) as broker:
        print("READY", flush=True)
        await broker.wait()

try:
    asyncio.run(main())
except asyncio.CancelledError:
    pass
"""


class Second(Broker):
    """A broker beside the first one, which stays its controller."""

    def __init__(self, first: Broker, folder: Path) -> None:
        super().__init__(folder, "apache")
        self._first = first

    def start(self) -> None:
        """Start it on what it kept, with the controller where the first one has it now."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        apache = self._first.data_dir / "apache"
        settings = (apache / "server.properties").read_text()
        for name, value in {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": f"PLAINTEXT://{self.address}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
        }.items():
            settings = re.sub(rf"^{re.escape(name)}=.*$", f"{name}={value}", settings, flags=re.MULTILINE)
        (self.data_dir / "server.properties").write_text(settings)
        (self.data_dir / "log4j2.properties").write_text((apache / "log4j2.properties").read_text())
        identity = re.search(r"^cluster.id=(.*)$", (apache / "logs" / "meta.properties").read_text(), re.MULTILINE)
        assert identity
        output = self.data_dir / "serve.log"
        with output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self.data_dir), identity[1]],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while b"READY" not in output.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the second broker did not start: {output.read_text()}")
            time.sleep(0.02)


async def place(kafka: str, topic: topics.Topic, replicas: Sequence[Sequence[int]], **settings: str) -> None:
    """Make a topic anew on these brokers: for each partition its replicas, the leader first.

    `settings` are further topic settings, with `_` for `.`.
    """
    extra = {name.replace("_", "."): value for name, value in settings.items()}
    async with administering(kafka) as admin:

        async def both_are_there() -> bool:
            return len((await admin.describe_cluster())["brokers"]) == 2

        async def gone() -> bool:
            return topic.name not in await admin.list_topics()

        async def lead() -> bool:
            described: list[Any] = await admin.describe_topics([topic.name])
            partitions = [partition for topic in described for partition in topic["partitions"]]
            return all(p["leader"] >= 0 and len(p["isr"]) == len(p["replicas"]) for p in partitions)

        await eventually(both_are_there)
        await admin.delete_topics([topic.name])
        await eventually(gone)
        await admin.create_topics(
            [NewTopic(topic.name, -1, -1, {n: list(each) for n, each in enumerate(replicas)}, topic.config | extra)]
        )
        await eventually(lead)
