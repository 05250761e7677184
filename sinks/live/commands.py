"""What people enter by hand, written to the `commands` topic.

The streams judge a command and apply it; what comes of it comes back through the topics like anything else. Here it is
only given an identity and put where it cannot be lost: acknowledged by all replicas, and once, however often the client
library has to send it. A command that is sent again with the same `request` is the same command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import clients, topics
from streams.events import Command, HitstreamError, Recommend, Withdraw, encode, identity

from .answers import Accepted, RecommendCommand, WithdrawCommand

START_SECONDS: Final = 10.0
SEND_SECONDS: Final = 10.0
LONGEST: Final = timedelta(days=366)  # what a table can hold is more, what anybody means is not
_log = structlog.get_logger(__name__)


class NotTaken(HitstreamError):
    """Kafka did not acknowledge a command in time. It may be there all the same: sending it again is harmless."""


class Refused(HitstreamError):
    """The command makes no sense; nothing was sent."""


def command(asked: RecommendCommand | WithdrawCommand, by: str, now: datetime) -> Command:
    """The record of what was asked for.

    Raises:
        Refused: it would expire before it begins, or later than in a year.
    """
    kind = "recommend" if isinstance(asked, RecommendCommand) else "withdraw"
    name = identity("command", kind, by, asked.account, asked.code, asked.request)
    if isinstance(asked, WithdrawCommand):
        return Withdraw(id=name, account=asked.account, code=asked.code, by=by, note=asked.note, at=now)
    if asked.expires_at is not None and asked.expires_at <= now:
        raise Refused("It would have expired already: give an expires_at that is still to come.")
    if asked.expires_at is not None and asked.expires_at > now + LONGEST:
        raise Refused("It would expire later than in a year: give an earlier expires_at, or none.")
    expires = asked.expires_at.astimezone(UTC) if asked.expires_at else None
    return Recommend(
        id=name, account=asked.account, code=asked.code, by=by, note=asked.note, at=now, expires_at=expires
    )


class Commands:
    """Sends commands. It connects when the first one comes, and is closed by whoever made it."""

    def __init__(self, bootstrap_servers: str, now: Callable[[], datetime]) -> None:
        self._servers = bootstrap_servers
        self._now = now
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, asked: RecommendCommand | WithdrawCommand, by: str) -> Accepted:
        """Send a command and wait until Kafka has it.

        Raises:
            Refused: it makes no sense.
            NotTaken: Kafka did not acknowledge it in time.
        """
        record = command(asked, by, self._now())
        try:
            async with asyncio.timeout(START_SECONDS):
                producer = await self._connected()
            async with asyncio.timeout(SEND_SECONDS):
                await producer.send_and_wait(topics.COMMANDS.name, encode(record), key=record.code.encode())
        except (KafkaError, OSError, TimeoutError) as error:
            _log.warning("live.command_not_taken", why=str(error) or type(error).__name__)
            raise NotTaken(
                "Kafka did not take the command: see whether it shows, and send it again with the same request if not."
            ) from error
        _log.info("live.command", kind=type(record).__name__.lower(), code=record.code, by=by, id=record.id)
        return Accepted(id=record.id, at=record.at)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers,
                    client_id="hitstream-live-commands",
                    enable_idempotence=True,
                    acks="all",
                    request_timeout_ms=5_000,
                )
                try:
                    await producer.start()
                except BaseException:
                    await clients.stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Let go of Kafka."""
        if self._producer is not None:
            await clients.stop(self._producer)
