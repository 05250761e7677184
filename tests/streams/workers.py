"""Stream workers as they are run: `hitstream stream` as a child of the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from aiokafka.admin import AIOKafkaAdminClient

from deploy.supervisor import Child
from streams.settings import ConditionRule, RecommendSettings

GROUP = "hitstream-streams"


class Clock:
    """The product's clock of a test: from `start` on, `speed` times as fast."""

    def __init__(self, start: datetime, speed: float) -> None:
        self.anchor, self.start, self.speed = datetime.now(UTC), start, speed

    def now(self) -> datetime:
        return self.start + (datetime.now(UTC) - self.anchor) * self.speed


class Role:
    """One supervised `hitstream stream`.

    Args:
        folder: takes its log.
        settings: further environment variables.
    """

    def __init__(
        self,
        name: str,
        kafka: str,
        folder: Path,
        clock: Clock,
        conditions: Sequence[ConditionRule],
        recommend: RecommendSettings,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.said: list[str] = []
        self.log = folder / f"{name}.log"
        environment = {
            "HITSTREAM_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "HITSTREAM_CLOCK__START": clock.start.isoformat(),
            "HITSTREAM_CLOCK__ANCHOR": clock.anchor.isoformat(),
            "HITSTREAM_CLOCK__SPEED": str(clock.speed),
            "HITSTREAM_CONDITIONS": json.dumps([c.model_dump(mode="json") for c in conditions]),
            **{f"HITSTREAM_RECOMMEND__{key.upper()}": str(value) for key, value in recommend.model_dump().items()},
        }
        command = [sys.executable, "-m", "deploy.cli", "stream"]
        self.child = Child(name, command, {**os.environ, **environment, **(settings or {})}, self.log, self.said.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Supervised, from its first readiness on; stopped in order at the end."""
        async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
            group.create_task(self.child.run())
            try:
                async with asyncio.timeout(60):
                    await self.child.wait_ready(client)
                yield
            finally:
                await self.child.stop(10)

    async def readiness(self) -> str | None:
        """What it answers to `/readyz`: None if it is ready, else why not."""
        async with httpx.AsyncClient() as client:
            return await self.child.readiness(client)


@asynccontextmanager
async def administering(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
