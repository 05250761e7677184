"""The stream worker: a thin Faust app around the lanes.

Three agents: `condition-events` → transitions, `transitions` → recommendations, and `commands` → transitions, which
only passes on. Two tables recover what the lanes remember. What is decided is `membership`'s and `recommend`'s
business, how Faust is kept from committing too much is `transport`'s.

The one idea: **output → state → offset**. A batch of one partition is decided as a whole; its outputs are acknowledged
by Kafka before its state is written to the changelog (to the partition of the source, whatever the key), and the
state before the offset may be committed. Killed at any instant, a worker finds a state that is no newer than its
outputs and an offset that is no newer than its state, decides the rest again and comes to the same records.
Whatever can't be sent ends the worker: its supervisor starts it again from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import faust
import structlog
from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted

from . import metrics, topics
from .events import HitstreamError, encode
from .lane import Decision, Lane, MembershipLane, Output, StandingLane, Unreadable, relay
from .letters import bury
from .recommend import Policy
from .settings import ConditionRule, RecommendSettings, StreamSettings
from .transport import Transport

log = structlog.get_logger(__name__)

Now = Callable[[], datetime]
Ready = Callable[[str | None], None]

#: Seconds that Kafka gets to answer at the start.
CONNECT_TIMEOUT: Final = 12.0
#: Real seconds between two looks at the deadlines.
TICK: Final = 0.05
#: Seconds that the app gets to leave in order.
STOP_TIMEOUT: Final = 4.0
#: Real seconds between two looks at the lag.
MEASURE: Final = 2.0


def run_worker(
    *,
    bootstrap_servers: str,
    conditions: Sequence[ConditionRule],
    recommend: RecommendSettings,
    stream: StreamSettings,
    now: Now,
    ready: Ready,
    web_port: int = 0,
) -> None:
    """Run a worker until SIGTERM or SIGINT; arguments and errors as of `work`. It serves no web page."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work(
                bootstrap_servers=bootstrap_servers,
                conditions=conditions,
                recommend=recommend,
                stream=stream,
                now=now,
                ready=ready,
            )

    asyncio.run(main())


async def work(
    *,
    bootstrap_servers: str,
    conditions: Sequence[ConditionRule],
    recommend: RecommendSettings,
    stream: StreamSettings,
    now: Now,
    ready: Ready,
) -> None:
    """Work until cancelled.

    Args:
        bootstrap_servers: Kafka's address, `host:port[,host:port…]`.
        conditions: what each configured condition is worth.
        recommend: when a stock is recommended.
        stream: group and folder of the worker.
        now: the product's clock.
        ready: told None once tables are recovered and partitions assigned, and why not before and in between.

    Raises:
        ConfigError: the scoring rule does not exist.
        HitstreamError: Kafka can't be reached, topics are missing, or the worker had to give up; it may be started
            again at once.
    """
    policy = Policy.of(conditions, recommend)
    ready("waiting for Kafka")
    await check(bootstrap_servers)
    with contextlib.ExitStack() as stack:
        folder = stream.state_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="hitstream-streams-"))
        await Worker(bootstrap_servers, policy, stream.app_id, folder, now, ready).run()


async def check(bootstrap_servers: str) -> None:
    """Make sure that Kafka answers and has every topic.

    Raises:
        HitstreamError: it does not answer within `CONNECT_TIMEOUT`, or topics are missing or partitioned differently.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000)
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while True:
                    with contextlib.suppress(KafkaError, OSError):
                        await client.bootstrap()
                        break
                    await asyncio.sleep(0.5)
                cluster = await client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            raise HitstreamError(
                f"Kafka at {bootstrap_servers} can't be reached; start it or correct kafka.bootstrap_servers"
            ) from error
        partitions = {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics()}
    finally:
        await client.close()
    missing = [topic.name for topic in topics.ALL if topic.name not in partitions]
    if missing:
        raise HitstreamError(f"Kafka at {bootstrap_servers} has no topic {', '.join(missing)}: run `hitstream topics`")
    for source, state in (
        (topics.CONDITION_EVENTS, topics.MEMBERS_STATE),
        (topics.TRANSITIONS, topics.STANDINGS_STATE),
    ):
        if partitions[source.name] != partitions[state.name]:
            raise HitstreamError(
                f"{state.name} has {partitions[state.name]} partitions and {source.name} {partitions[source.name]}: "
                "they must be the same, run `hitstream topics --check`"
            )


class Worker:
    """One worker: the Faust app, its lanes, and the task that announces deadlines."""

    def __init__(
        self, bootstrap_servers: str, policy: Policy, app_id: str, folder: str, now: Now, ready: Ready
    ) -> None:
        self._now = now
        self._ready = ready
        self._policy = policy
        self._lanes: dict[Any, Lane] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Held while a batch is on its way: partitions are given up between batches, never within one.
        self._turn = {
            topic.name: asyncio.Lock() for topic in (topics.CONDITION_EVENTS, topics.TRANSITIONS, topics.COMMANDS)
        }
        self._app = _make_app(bootstrap_servers, app_id, folder)
        self._app.on_partitions_revoked.connect(self._on_revoked)
        self._tables = {
            source.name: self._make_table(source, state)
            for source, state in (
                (topics.CONDITION_EVENTS, topics.MEMBERS_STATE),
                (topics.TRANSITIONS, topics.STANDINGS_STATE),
            )
        }
        self._make_agent(topics.CONDITION_EVENTS, self._derive)
        self._make_agent(topics.TRANSITIONS, self._derive)
        self._make_agent(topics.COMMANDS, self._relay)

    async def run(self) -> None:
        """Start, work until cancelled or until something fails, stop."""
        self._ready("recovering tables")
        try:
            async with asyncio.TaskGroup() as group:
                starting = group.create_task(self._app.start())
                announcing = group.create_task(self._announce())
                measuring = group.create_task(self._measure())
                stopped = group.create_task(self._app.wait_until_stopped())
                await asyncio.wait({self._failure, announcing, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in (starting, announcing, measuring, stopped):
                    task.cancel()
        finally:
            self._ready("stopping")
            # Not wait_for: a Faust that waits for its own agents does not hear that it is cancelled.
            await asyncio.wait({asyncio.ensure_future(self._app.stop())}, timeout=STOP_TIMEOUT)
        if self._failure.done():
            self._failure.result()
        reason = self._app.crash_reason
        raise HitstreamError(f"the stream worker gave up: {reason or 'Faust stopped by itself'}") from reason

    # --- partitions come and go -------------------------------------------------------------------------------------

    def _make_table(self, source: topics.Topic, state: topics.Topic) -> Any:
        changelog = self._app.topic(
            state.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            partitions=state.partitions,
            acks=False,
            allow_empty=True,
        )

        async def recovered() -> None:
            await self._open_lanes(source)

        return self._app.Table(
            state.name,
            key_type=bytes,
            value_type=bytes,
            partitions=state.partitions,
            changelog_topic=changelog,
            on_recover=recovered,
        )

    async def _open_lanes(self, source: topics.Topic) -> None:
        """Make the lanes of the partitions that we own from the recovered table."""
        consumer = self._app.consumer
        owned = [tp for tp in consumer.assignment() if tp.topic == source.name]
        ends = await consumer.highwaters(*owned) if owned else {}
        items = list(self._tables[source.name].data.items())
        async with self._turn[source.name]:
            for tp in owned:
                end = ends.get(tp) or 0
                self._lanes[tp] = (
                    MembershipLane(tp.partition, items, end)
                    if source is topics.CONDITION_EVENTS
                    else StandingLane(tp.partition, items, end, self._policy)
                )
        metrics.LANES.labels(source.name).set(len(owned))
        metrics.RECOVERIES.labels(source.name).inc()
        log.info("partitions recovered", topic=source.name, partitions=sorted(tp.partition for tp in owned))
        if {tp for tp in consumer.assignment() if tp.topic in self._tables} <= self._lanes.keys():
            self._ready(None)

    async def _on_revoked(self, _app: Any, revoked: Iterable[Any], **_: Any) -> None:
        """Finish the batches on their way and forget the lanes; what remains ours is recovered again."""
        self._ready("partitions are being assigned")
        for turn in self._turn.values():
            async with turn:
                pass
        self._lanes.clear()
        metrics.REBALANCES.inc()
        for topic in self._tables:
            metrics.LANES.labels(topic).set(0)

    # --- records ----------------------------------------------------------------------------------------------------

    def _make_agent(self, source: topics.Topic, process: Callable[[Any, Sequence[Any]], Awaitable[None]]) -> None:
        topic = self._app.topic(
            source.name, key_serializer="raw", value_serializer="raw", partitions=source.partitions, allow_empty=True
        )
        turn = self._turn[source.name]

        async def agent(stream: Any) -> None:
            consumer = self._app.consumer
            async for event in stream.events():
                tp = event.message.tp
                async with turn:
                    try:
                        batch = await consumer.next_of(event.message)
                        if not batch:
                            continue
                        started = time.monotonic()
                        await process(tp, batch)
                    except Exception as error:
                        self._fail(error)
                        # Faust would acknowledge the batch and go on behind it.
                        await asyncio.Event().wait()
                    consumer.finish(tp, batch)
                    metrics.done(tp.topic, batch, time.monotonic() - started)

        self._app.agent(topic, name=source.name)(agent)

    async def _derive(self, tp: Any, batch: Sequence[Any]) -> None:
        """Decide a batch of one partition; send its outputs, then its state."""
        lane = self._lanes[tp]
        outputs: list[Output] = []
        for record in batch:
            decision = self._decide(lane, record)
            outputs += decision.outputs
            for reason in decision.ignored:
                metrics.IGNORED.labels(tp.topic, reason).inc()
        await self._publish(outputs)
        writes = lane.writes()
        table = self._tables[tp.topic]
        await self._send((table.changelog_topic_name, key, value, tp.partition) for key, value in writes)
        for key, value in writes:
            if value is None:
                table.data.pop(key, None)
            else:
                table.data[key] = value

    def _decide(self, lane: Lane, record: Any) -> Decision:
        try:
            return lane.take(record.value, record.offset, record.key)
        except Exception as error:
            return Decision([self._bury(record, error)], [])

    def _bury(self, record: Any, error: Exception) -> Output:
        """Keep a record that can't be read or applied. A lane that fails has not changed, and the others go on."""
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        letter = bury(record, error, self._now())
        if isinstance(error, Unreadable):
            log.warning("dead letter", reason=letter.reason, **place)
        else:
            log.exception("dead letter: the record can't be applied", **place)
        return Output(topics.DEAD_LETTERS.name, record.topic.encode(), letter)

    async def _relay(self, tp: Any, batch: Sequence[Any]) -> None:
        """Accept commands: from here on they are part of the log that decides."""
        outputs: list[Output] = []
        for record in batch:
            try:
                outputs.append(relay(record.value, self._now()))
            except Exception as error:
                outputs.append(self._bury(record, error))
        await self._publish(outputs)

    # --- deadlines --------------------------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """Append every deadline that the clock has passed to the log that it belongs to."""
        while not self._failure.done():
            await asyncio.sleep(TICK)
            now = self._now()
            for tp, lane in list(self._lanes.items()):
                if outputs := lane.overdue(now):
                    try:
                        await self._publish(outputs, partition=tp.partition)
                    except KafkaError as error:
                        self._fail(error)

    async def _measure(self) -> None:
        """Look at how far the logs are ahead of us, also while nothing is done."""
        while True:
            await asyncio.sleep(MEASURE)
            metrics.OPEN.set(sum(lane.open for lane in self._lanes.values() if isinstance(lane, StandingLane)))
            if (consumer := self._app.consumer) is not None:
                # What is assigned changes in Faust's own thread, and aiokafka asserts that it has not.
                with contextlib.suppress(AssertionError, ConsumerNotStarted):
                    metrics.behind({tp: consumer.highwater(tp) for tp in consumer.expected}, consumer.expected)

    # --- Kafka ------------------------------------------------------------------------------------------------------

    async def _publish(self, outputs: Sequence[Output], partition: int | None = None) -> None:
        await self._send((output.topic, output.key, encode(output.record), partition) for output in outputs)
        metrics.published(outputs, self._now())

    async def _send(self, records: Iterable[tuple[str, bytes, bytes | None, int | None]]) -> None:
        """Send in this order and return when Kafka has acknowledged all."""
        producer = self._app.producer
        pending = [
            await producer.send(topic, key, value, partition, None, None) for topic, key, value, partition in records
        ]
        if pending:
            await asyncio.gather(*pending)

    def _fail(self, error: BaseException) -> None:
        log.error("the worker gives up", error=repr(error))
        if not self._failure.done():
            failure = HitstreamError(f"the stream worker gave up: {error!r}")
            failure.__cause__ = error
            self._failure.set_exception(failure)


def _make_app(bootstrap_servers: str, app_id: str, folder: str) -> Any:
    """A Faust app that declares no topic, serves no web page and keeps nothing on disk."""
    app = faust.App(
        app_id,
        broker=[f"kafka://{address.strip()}" for address in bootstrap_servers.split(",")],
        datadir=folder,
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        web_in_thread=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=30.0,
        broker_commit_interval=1.0,
        broker_max_poll_records=2000,
        broker_max_poll_interval=120.0,
        stream_wait_empty=True,
        stream_buffer_maxsize=256,
        producer_acks=-1,
        producer_linger=0,
        producer_max_batch_size=128 * 1024,
        producer_max_request_size=int(topics.DEAD_LETTERS.settings["max.message.bytes"]),
        producer_request_timeout=30.0,
        consumer_auto_offset_reset="earliest",
    )
    app.transport = Transport(app.conf.broker_consumer, app, loop=app.loop)
    app.producer_transport = Transport(app.conf.broker_producer, app, loop=app.loop)
    return app
