"""What one process says of itself on the `status` topic, so that `hitstream status` and the dashboard can show it.

The roles know nothing of it. They say when they are ready and why not (`ready`), and count what they do; the reporter
makes a `Status` of both, every few seconds and at each change, on the role's own event loop – a loop that hangs says
nothing, and whoever reads judges by `at`. The producer says more of itself, and by itself (`producers.service`).

| state | means |
|---|---|
| `starting` | not ready yet; the cause says what it waits for |
| `working` | ready |
| `waiting` | was ready, and is not because of the cause |
| `failed` | ended with an error, the cause; its supervisor starts it again |
| `stopped` | ended in order |

A component is `<role>/<instance>`, and an instance's name is used again after a restart, so that names do not
accumulate: the machine's, with a number where several processes of a role run on it. Of one that never comes back the
last word stays for a week, which is how long the topic keeps it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from streams import clients
from streams.events import HitstreamError, Status, encode
from streams.topics import STATUS

log = structlog.get_logger(__name__)

EVERY: Final = 5.0
"""Real seconds between two statuses of which nothing changed."""

_SEND_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 2.0
_LAST_SECONDS: Final = 1.5  # for the last word, which must not hold up a role that is to leave
_INSTANCES: Final = 1000

_UNSENT: Final = Counter("hitstream_status_unsent", "Statuses that Kafka did not take; the next one says it better.")


class Kind(NamedTuple):
    """What a role is called on the topic, and which of its figures go with it.

    `figures` are sums of what the role counts, by the names of its metrics; `progress` names the one that is the Unix
    time of its last sign of life.
    """

    role: str
    kind: Literal["worker", "sink"]
    figures: Mapping[str, str]
    progress: str = ""


WORKER: Final = Kind(
    "worker",
    "worker",
    {
        "lag": "hitstream_stream_lag_records",
        "partitions": "hitstream_stream_lanes",
        "records": "hitstream_stream_records_total",
        "transitions": "hitstream_stream_transitions_total",
        "open_recommendations": "hitstream_stream_open_recommendations",
        "dead_letters": "hitstream_stream_dead_letters_total",
    },
    "hitstream_stream_progress_timestamp_seconds",
)
CLICKHOUSE: Final = Kind(
    "sink/clickhouse",
    "sink",
    {
        "lag": "hitstream_sink_lag_records",
        "records": "hitstream_sink_records_total",
        "rows": "hitstream_clickhouse_rows_total",
        "retries": "hitstream_sink_retries_total",
        "dead_letters": "hitstream_sink_dead_letters_total",
    },
    "hitstream_sink_progress_timestamp_seconds",
)
LIVE: Final = Kind(
    "sink/live",
    "sink",
    {
        "lag": "hitstream_live_lag_records",
        "records": "hitstream_live_records_total",
        "browsers": "hitstream_live_clients",
        "bad_records": "hitstream_live_bad_records_total",
    },
)


class Reporter:
    """Says what one process of a role is doing.

    Args:
        kind: which role.
        instance: name of the process among those of its role.
        bootstrap_servers: Kafka.
        now: the product's clock; `speed` its seconds per real second.
        registry: where the role's figures are.
    """

    def __init__(
        self,
        kind: Kind,
        instance: str,
        *,
        bootstrap_servers: str,
        now: Callable[[], datetime],
        speed: float = 1.0,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.component = f"{kind.role}/{instance}"
        self._kind = kind
        self._servers = bootstrap_servers
        self._now = now
        self._speed = speed
        self._registry = registry
        self._state, self._cause, self._since = "starting", "", now()
        self._was_ready = False
        self._changed = asyncio.Event()

    def ready(self, reason: str | None) -> None:
        """Note that the role is ready (None), or why it is not."""
        if reason is None:
            self._was_ready = True
            self._become("working", "")
        else:
            self._become("waiting" if self._was_ready else "starting", reason)

    def _become(self, state: str, cause: str) -> None:
        if state != self._state:
            self._since = self._now()
        elif cause == self._cause:
            return
        self._state, self._cause = state, cause
        self._changed.set()

    def status(self) -> Status:
        """What is true now."""
        now = self._now()
        values = self._values()
        figures = {name: sum(values.get(metric, ())) for name, metric in self._kind.figures.items()}
        alive = now if self._state == "working" else None
        if self._kind.progress:
            seen = max(values.get(self._kind.progress, ()), default=0.0)
            alive = now - timedelta(seconds=max(0.0, time.time() - seen) * self._speed) if seen else None
        return Status(
            component=self.component,
            kind=self._kind.kind,
            state=self._state,
            cause=self._cause,
            since=self._since.astimezone(UTC),
            at=now.astimezone(UTC),
            proof_of_life=None if alive is None else alive.astimezone(UTC),
            figures=figures,
        )

    def _values(self) -> dict[str, list[float]]:
        """What the role counts, by the name of the metric, over all its labels."""
        values: dict[str, list[float]] = {}
        for family in self._registry.collect():
            for sample in family.samples:
                values.setdefault(sample.name, []).append(sample.value)
        return values

    async def beside(self, role: Coroutine[Any, Any, None]) -> None:
        """Run a role, and say meanwhile how it is, and at the end how it ended. Raises what the role raises."""
        telling = asyncio.create_task(self._tell(), name="status")
        try:
            await role
        except asyncio.CancelledError:
            self._become("stopped", "stopped")
            raise
        except HitstreamError as error:
            self._become("failed", str(error))
            raise
        except Exception as error:
            self._become("failed", f"{type(error).__name__}")
            raise
        else:
            self._become("stopped", "stopped")
        finally:
            # The task ends by itself once it has said the last word.
            _, late = await asyncio.wait({telling}, timeout=_LAST_SECONDS)
            for task in late:
                task.cancel()
                await asyncio.wait({task}, timeout=_LAST_SECONDS)

    async def _tell(self) -> None:
        while not self._is_over:
            self._changed.clear()  # else a change that nobody took would have us try again without a pause
            producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", request_timeout_ms=5_000)
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await producer.start()
                    there = (await producer.client.fetch_all_metadata()).topics()
                # Sending to a topic that is not there might create it, and wrongly.
                if STATUS.name in there:
                    await self._tell_through(producer)
            except (KafkaError, OSError, TimeoutError) as error:
                _UNSENT.inc()
                log.debug("kafka took no status", error=repr(error))
            finally:
                # A status that is lost is said again, or was the last one.
                await clients.stop(producer, within=_LAST_SECONDS)
            await self._pause(_AGAIN_SECONDS)

    async def _tell_through(self, producer: AIOKafkaProducer) -> None:
        while True:
            self._changed.clear()
            last = self._is_over
            async with asyncio.timeout(_SEND_SECONDS):
                await producer.send_and_wait(STATUS.name, encode(self.status()), self.component.encode())
            if last:
                return
            await self._pause(EVERY)

    async def _pause(self, seconds: float) -> None:
        """Until something has changed, at most so long."""
        if not self._is_over:
            waiting = asyncio.create_task(self._changed.wait())
            await asyncio.wait({waiting}, timeout=seconds)
            waiting.cancel()

    @property
    def _is_over(self) -> bool:
        return self._state in ("failed", "stopped")


# --- the name of a process --------------------------------------------------------------------------------------------


@contextmanager
def instance(role: str, configured: str = "", folder: Path | None = None) -> Iterator[str]:
    """The name of this process among those of its role, ours while it runs and anybody's after that.

    Args:
        configured: a name from the settings, used as it is: two processes of a role must not have the same.
        folder: where processes of this machine agree on numbers; by default the user's state folder.
    """
    host = re.sub(r"[^\w.-]+", "-", socket.gethostname()) or "host"
    with ExitStack() as held:
        yield configured or f"{host}{_number(held, role, folder or _state_folder())}"


def _number(held: ExitStack, role: str, folder: Path) -> str:
    """The suffix of the first name that no living process of this machine has: none for the first of them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            file = (folder / f"{role.replace('/', '-')}-{number}.lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                if number < _INSTANCES:
                    continue
                raise
            held.enter_context(file)
            return "" if number == 1 else f"-{number}"
    except OSError as error:
        log.warning("this process is named by its number: no lock can be held", folder=str(folder), error=str(error))
    return f"-{os.getpid()}"


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path.home() / ".local" / "state") / "hitstream" / "instances"
