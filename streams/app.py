"""The stream worker: a thin Faust app around the lanes.

Three agents: `condition-events` → transitions, `transitions` → recommendations, and `commands` → transitions, which
only passes on. What is decided is `membership`'s and `recommend`'s business, where state is kept and who may write it
`changelog`'s, how Faust is kept from committing too much `transport`'s.

The one idea: **output → state → offset**. A batch of one partition is decided as a whole; its outputs are acknowledged
by Kafka before its state is written to the changelog, and the state before the offset may be committed. Killed at any
instant (`checkpoint` names them), a worker leaves a state that is no newer than its outputs and an offset that is no
newer than its state; whoever goes on from there decides the rest again and comes to the same records. Whatever can't
be sent ends the worker: its supervisor starts it again from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import faust
import structlog
from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.exceptions import ConsumerNotStarted

from . import metrics, outbox, topics
from .changelog import Replica, Writer
from .checkpoint import Checkpoint, pass_by
from .events import HitstreamError, encode
from .holding import Holding
from .lane import Decision, Lane, MembershipLane, Output, StandingLane, Unreadable, relay
from .letters import bury
from .recommend import Policy
from .settings import ConditionRule, RecommendSettings, StreamSettings
from .transport import Transport
from .watchdog import Progress, Watchdog, within

log = structlog.get_logger(__name__)

Now = Callable[[], datetime]
Ready = Callable[[str | None], None]

#: Seconds that Kafka gets to answer at the start.
CONNECT_TIMEOUT: Final = 12.0
#: Real seconds between two looks at the deadlines.
TICK: Final = 0.05
#: Real seconds between two signs of life of the event loop.
BEAT: Final = 0.2
#: Batches of a topic whose outputs may be on their way while the next one is decided.
IN_FLIGHT: Final = 4
#: Outputs after which a batch is sent though it is not decided to its end: the end of a condition's day is one record.
MAX_OUTPUTS: Final = 2000
#: Seconds without a heartbeat after which a worker is taken for dead and its partitions are given to others.
SESSION_TIMEOUT: Final = 6.0
#: Seconds that Kafka gets to acknowledge what is written.
SEND_TIMEOUT: Final = 30.0
#: Seconds that the app gets to leave in order.
STOP_TIMEOUT: Final = 4.0

#: Real seconds between two looks at the lag.
MEASURE: Final = 2.0
#: Where the state of each topic's partitions is kept.
CHANGELOGS: Final = {
    topics.CONDITION_EVENTS.name: topics.MEMBERS_STATE,
    topics.TRANSITIONS.name: topics.STANDINGS_STATE,
}


async def work(
    *,
    bootstrap_servers: str,
    conditions: Sequence[ConditionRule],
    recommend: RecommendSettings,
    stream: StreamSettings,
    now: Now,
    ready: Ready,
    checkpoint: Checkpoint = pass_by,
) -> None:
    """Work until cancelled.

    Args:
        bootstrap_servers: Kafka's address, `host:port[,host:port…]`.
        conditions: what each configured condition is worth.
        recommend: when a stock is recommended.
        stream: group and folder of the worker.
        now: the product's clock.
        ready: told None once partitions are assigned and their state is there, and why not before and in between.
        checkpoint: awaited between the steps of every batch.

    Raises:
        ConfigError: the scoring rule does not exist.
        HitstreamError: Kafka can't be reached, topics are missing, or the worker had to give up; it may be started
            again at once.
    """
    with within(stream.stalled_after):  # the rule is a user's code, and it is tried
        policy = Policy.of(conditions, recommend)
    ready("waiting for Kafka")
    partitions = await check(bootstrap_servers)
    with contextlib.ExitStack() as stack:
        folder = stream.state_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="hitstream-streams-"))
        await Worker(bootstrap_servers, partitions, policy, stream, folder, now, ready, checkpoint).run()


async def check(bootstrap_servers: str) -> dict[str, int]:
    """Make sure that Kafka answers and has every topic; returns how many partitions each has.

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
    for source, state in CHANGELOGS.items():
        there, here = partitions[state.name], partitions[source]
        if there != here:
            raise HitstreamError(
                f"{state.name} has {there} partitions and {source} {here}: they must be the same, run "
                f"`hitstream topics --partitions {max(there, here)}`"
            )
    return partitions


class Worker:
    """One worker: the Faust app, what it holds, and the tasks that write state and announce deadlines."""

    def __init__(
        self,
        bootstrap_servers: str,
        partitions: Mapping[str, int],
        policy: Policy,
        stream: StreamSettings,
        folder: str,
        now: Now,
        ready: Ready,
        checkpoint: Checkpoint,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._app_id = stream.app_id
        self._now = now
        self._tell_ready = ready
        self._reason: str | None = "starting"
        self._want: str | None = None
        self._beats = 0
        self._unacknowledged: dict[object, tuple[set[str], float]] = {}
        self._policy = policy
        self._state_interval = stream.state_interval
        self._checkpoint = checkpoint
        self._partitions = partitions
        self._replica = Replica(
            bootstrap_servers,
            [TopicPartition(log.name, n) for log in CHANGELOGS.values() for n in range(partitions[log.name])],
        )
        self._holdings: dict[Any, Holding] = {}
        self._generation = -1
        self._unsettled = asyncio.Event()
        # Batches on their way, by topic: the last one, which waits for those before it, and how many more there may be.
        self._flights: dict[str, asyncio.Task[bool]] = {}
        self._slots = {name: asyncio.Semaphore(IN_FLIGHT) for name in CHANGELOGS}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Held while a batch is decided: partitions are given up between batches, never within one.
        self._turn = {
            topic.name: asyncio.Lock() for topic in (topics.CONDITION_EVENTS, topics.TRANSITIONS, topics.COMMANDS)
        }
        self._app = _make_app(bootstrap_servers, stream, folder, checkpoint)
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(bootstrap_servers, stream.stalled_after, self._progress, self._wants, self._loops)
        self._app.on_partitions_revoked.connect(self._on_revoked)
        self._app.on_rebalance_complete.connect(self._on_assigned)
        self._make_agent(topics.CONDITION_EVENTS, self._derive)
        self._make_agent(topics.TRANSITIONS, self._derive)
        self._make_agent(topics.COMMANDS, self._relay)

    async def run(self) -> None:
        """Start, work until cancelled or until something fails, stop."""
        self._ready("reading the state")
        with self._watchdog:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(work)
                        for work in (
                            self._replica.follow(),
                            self._settle_gathered(),
                            self._announce(),
                            self._measure(),
                            self._beat(),
                            self._app.start(),
                        )
                    ]
                    stopped = group.create_task(self._app.wait_until_stopped())
                    await asyncio.wait({self._failure, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    for task in (*tasks, stopped):
                        task.cancel()
            finally:
                self._ready("stopping")
                # Not wait_for: a Faust that waits for its own agents does not hear that it is cancelled.
                await asyncio.wait({asyncio.ensure_future(self._leave())}, timeout=STOP_TIMEOUT)
        if self._failure.done():
            self._failure.result()
        reason = self._app.crash_reason
        raise HitstreamError(f"the stream worker gave up: {reason or 'Faust stopped by itself'}") from reason

    async def _leave(self) -> None:
        """Write what is decided, so that nobody decides it again, and stop."""
        if not self._failure.done():
            try:
                await self._land()
                await self._settle()
            except Exception as error:
                self._fail(error)
        await self._app.stop()
        await asyncio.gather(*(holding.give_up() for holding in self._holdings.values()))

    # --- what is seen from outside ----------------------------------------------------------------------------------

    def _ready(self, reason: str | None) -> None:
        self._reason = reason
        self._tell_ready(self._want or reason)

    def _wants(self, want: str | None) -> None:
        """Called by the watchdog, in its thread."""

        def take() -> None:
            self._want = want
            if want is not None:
                log.warning(want)
            self._ready(self._reason)

        self._loop.call_soon_threadsafe(take)

    @property
    def _consumer(self) -> Any:
        """Faust's consumer, None while there is none. `App.consumer` would make one, also in the watchdog's thread: it
        would belong to the wrong event loop, and take the place of the one that Faust is just making."""
        return self._app._consumer

    def _progress(self) -> Progress:
        """Called by the watchdog, in its thread: it only reads."""
        consumer = self._consumer
        oldest: dict[str, float] = {}
        for names, since in list(self._unacknowledged.values()):
            oldest.update((name, min(since, oldest.get(name, since))) for name in names)
        return Progress(
            beats=self._beats,
            settled=self._reason is None,
            positions={
                (tp.topic, tp.partition): consumer.done.get(tp, expected)
                for tp, expected in list(consumer.expected.items())
            }
            if consumer
            else {},
            unacknowledged=oldest,
        )

    def _loops(self) -> list[asyncio.AbstractEventLoop]:
        """The event loops of the worker and of Faust's consumer."""
        thread = getattr(self._consumer, "_thread", None)
        return [self._loop, *([thread.thread_loop] if thread else [])]

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(BEAT)

    # --- partitions come and go -------------------------------------------------------------------------------------

    async def _on_revoked(self, _app: Any, revoked: Iterable[Any], **_: Any) -> None:
        """Finish the batches on their way, write their state and commit: whoever comes next has nothing to repeat."""
        self._ready("partitions are being assigned")
        metrics.REBALANCES.inc()
        for turn in self._turn.values():
            async with turn:
                pass
        try:
            await self._land()
            await self._settle()
            await self._app.consumer.commit()
        except Exception as error:
            self._fail(error)

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        """Take over the partitions that are ours now, before any of their records comes.

        What stays ours goes on as it is. It does only if nobody else can have held it in between: when no generation of
        the group passed without us.
        """
        consumer, generation = self._app.consumer, self._app.consumer_generation_id
        owned = {tp for tp in consumer.assignment() if tp.topic in CHANGELOGS}
        staying = owned if generation == self._generation + 1 else set()
        self._generation = generation
        try:
            for tp in self._holdings.keys() - staying:
                await self._holdings.pop(tp).give_up()
            kept = sorted(self._holdings)
            async with asyncio.TaskGroup() as group:
                for tp in owned - self._holdings.keys():
                    group.create_task(self._take_over(tp))
        except Exception as error:
            self._fail(error)
            return
        consumer.kept = {tp: self._holdings[tp].ahead for tp in kept if self._holdings[tp].ahead is not None}
        for tp in kept:
            if (settled := self._holdings[tp].settled) is not None:
                consumer.finish(tp, settled)
        for name in CHANGELOGS:
            metrics.LANES.labels(name).set(sum(tp.topic == name for tp in owned))
        log.info("partitions taken over", kept=[_place(tp) for tp in kept], all=[_place(tp) for tp in sorted(owned)])
        if generation == self._app.consumer_generation_id:
            self._ready(None)

    async def _take_over(self, tp: Any) -> None:
        """Shut out whoever held the partition before, then make its lane from all that was written of it."""
        changelog = TopicPartition(CHANGELOGS[tp.topic].name, tp.partition)
        writer = Writer(self._bootstrap_servers, self._app_id, changelog, self._checkpoint)
        try:
            await writer.open()
            items = (await self._replica.hold(changelog)).items()
            # Only now: until it was shut out, an earlier holder could remember records that came after any look before.
            end = (await self._app.consumer.highwaters(tp)).get(tp) or 0
        except BaseException:
            await writer.close()
            raise

        def make() -> Lane:
            if tp.topic == topics.CONDITION_EVENTS.name:
                return MembershipLane(tp.partition, items, end)
            return StandingLane(tp.partition, items, end, self._policy)

        # A million memberships take seconds, in which the event loop must turn. Nobody else touches the values.
        lane = await asyncio.to_thread(make)
        metrics.RECOVERIES.labels(tp.topic).inc()
        self._holdings[tp] = Holding(lane, writer, self._replica, changelog)

    # --- records ----------------------------------------------------------------------------------------------------

    def _make_agent(self, source: topics.Topic, process: Callable[[Any, Sequence[Any]], Awaitable[None]]) -> None:
        topic = self._app.topic(
            source.name,
            key_serializer="raw",
            value_serializer="raw",
            partitions=self._partitions[source.name],
            allow_empty=True,
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
                        await process(tp, batch)
                    except Exception as error:
                        self._fail(error)
                        # Faust would acknowledge the batch and go on behind it.
                        await asyncio.Event().wait()

        self._app.agent(topic, name=source.name)(agent)

    async def _derive(self, tp: Any, batch: Sequence[Any]) -> None:
        """Decide a batch of one partition and send its outputs, in parts where they are many."""
        while batch:
            await self._slots[tp.topic].acquire()
            batch = await self._derive_some(tp, batch)

    async def _derive_some(self, tp: Any, batch: Sequence[Any]) -> Sequence[Any]:
        """Decide records of a batch until there are enough outputs, and send them; returns the records that are left.

        The next ones are decided while the outputs are on their way.
        """
        started, holding = time.monotonic(), self._holdings[tp]
        outputs: list[Output] = []
        ignored = Counter[str]()
        count = 0
        for count, record in enumerate(batch, 1):  # noqa: B007 – it is used behind the loop
            decision = self._decide(holding.lane, record)
            outputs += decision.outputs
            ignored.update(decision.ignored)
            if len(outputs) >= MAX_OUTPUTS:
                break
        for reason, times in ignored.items():
            metrics.IGNORED.labels(tp.topic, reason).inc(times)
        writes, end = holding.lane.writes(), batch[count - 1].offset + 1
        self._app.consumer.pass_over(tp, end)
        await self._checkpoint("decided", tp.topic)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._writing({output.topic for output in outputs}))
            sent = await self._send(tp.topic, outputs)
            on_its_way = stack.pop_all()

        async def arrive(before: asyncio.Task[bool] | None) -> bool:
            """Let the state follow, once Kafka has the outputs: of this batch, and of all before it."""
            try:
                with on_its_way:
                    await sent.acknowledged()
                if before is not None and not await before:
                    return False
                await self._checkpoint("outputs-acknowledged", tp.topic)
                holding.add(writes, end)
                self._unsettled.set()
                metrics.published(outputs, self._now())
                metrics.done(tp.topic, count, time.monotonic() - started)
            except Exception as error:
                self._fail(error)
                return False
            finally:
                self._slots[tp.topic].release()
            return True

        self._flights[tp.topic] = asyncio.create_task(arrive(self._flights.get(tp.topic)))
        return batch[count:]

    async def _land(self) -> None:
        """Wait until no batch is on its way."""
        if self._flights:
            await asyncio.wait(self._flights.values())

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
        return Output(topics.DEAD_LETTERS.name, record.topic.encode(), letter, encode(letter))

    async def _relay(self, tp: Any, batch: Sequence[Any]) -> None:
        """Accept commands: from here on they are part of the log that decides."""
        started = time.monotonic()
        outputs: list[Output] = []
        for record in batch:
            try:
                outputs.append(relay(record.value, self._now()))
            except Exception as error:
                outputs.append(self._bury(record, error))
        await self._publish(tp.topic, outputs)
        self._app.consumer.pass_over(tp, batch[-1].offset + 1)
        self._app.consumer.finish(tp, batch[-1].offset + 1)
        metrics.done(tp.topic, len(batch), time.monotonic() - started)

    # --- state ------------------------------------------------------------------------------------------------------

    async def _settle_gathered(self) -> None:
        """Write state as it comes, a little later: what gathers meanwhile is written together."""
        while not self._failure.done():
            await self._unsettled.wait()
            await asyncio.sleep(self._state_interval)
            self._unsettled.clear()
            try:
                # Who leaves waits for it (`_leave`) instead of leaving half a transaction behind.
                await asyncio.shield(self._settle())
            except Exception as error:
                self._fail(error)

    async def _settle(self) -> None:
        """Write the state of everything whose outputs Kafka has; its offsets may be committed then."""

        async def settle(tp: Any, holding: Holding) -> None:
            with self._writing({CHANGELOGS[tp.topic].name}):
                settled = await holding.settle()
            if settled is not None and self._holdings.get(tp) is holding:
                self._app.consumer.finish(tp, settled)

        async with asyncio.TaskGroup() as group:
            for tp, holding in self._holdings.items():
                if holding.ahead != holding.settled:
                    group.create_task(settle(tp, holding))

    # --- deadlines --------------------------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """Append every deadline that the clock has passed to the log that it belongs to."""
        while not self._failure.done():
            await asyncio.sleep(TICK)
            now = self._now()
            for tp, holding in list(self._holdings.items()):
                while outputs := list(itertools.islice(holding.lane.overdue(now), MAX_OUTPUTS)):
                    try:
                        await self._publish(tp.topic, outputs, tp.partition)
                    except (KafkaError, HitstreamError) as error:
                        self._fail(error)
                        return

    async def _measure(self) -> None:
        """Look at how far the logs are ahead of us, also while nothing is done."""
        while True:
            await asyncio.sleep(MEASURE)
            metrics.OPEN.set(sum(h.lane.open for h in self._holdings.values() if isinstance(h.lane, StandingLane)))
            if (consumer := self._consumer) is not None:
                # What is assigned changes in Faust's own thread, and aiokafka asserts that it has not.
                with contextlib.suppress(AssertionError, ConsumerNotStarted):
                    metrics.behind({tp: consumer.highwater(tp) for tp in consumer.expected}, consumer.expected)

    # --- Kafka ------------------------------------------------------------------------------------------------------

    async def _publish(self, source: str, outputs: Sequence[Output], partition: int | None = None) -> None:
        """Publish what a topic led to, in this order; all of it is acknowledged then."""
        with self._writing({output.topic for output in outputs}):
            sent = await self._send(source, outputs, partition)
            await sent.acknowledged()
        metrics.published(outputs, self._now())

    async def _send(self, source: str, outputs: Sequence[Output], partition: int | None = None) -> outbox.Sent:
        return await outbox.send(
            self._app.producer.kafka, outputs, partition, lambda: self._checkpoint("output-sent", source)
        )

    @contextlib.contextmanager
    def _writing(self, names: set[str]) -> Iterator[None]:
        """Let the watchdog see that topics are written to, until Kafka has acknowledged it."""
        write = object()
        self._unacknowledged[write] = (names, time.monotonic())
        try:
            yield
        except (KafkaError, TimeoutError) as error:
            late = isinstance(error, KafkaTimeoutError | TimeoutError)
            what = f"within {SEND_TIMEOUT:.0f} s" if late else f"({error!r})"
            raise HitstreamError(
                f"Kafka has not acknowledged what was written to {', '.join(sorted(names))} {what}: look in the "
                "broker's log for a full disk or missing replicas, and at the network"
            ) from error
        finally:
            del self._unacknowledged[write]

    def _fail(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not self._failure.done():  # what fails after it follows from it
            words = str(error) if isinstance(error, HitstreamError) else repr(error)
            failure = HitstreamError(f"the stream worker gave up: {words}")
            failure.__cause__ = error
            self._failure.set_exception(failure)  # first: standard error may be a full disk
            log.error("the worker gives up", error=words)


def _place(tp: Any) -> str:
    return f"{tp.topic.removeprefix(topics.PREFIX)}[{tp.partition}]"


def _make_app(bootstrap_servers: str, stream: StreamSettings, folder: str, checkpoint: Checkpoint) -> Any:
    """A Faust app that declares no topic, serves no web page and keeps nothing on disk."""
    app = faust.App(
        stream.app_id,
        broker=[f"kafka://{address.strip()}" for address in bootstrap_servers.split(",")],
        datadir=folder,
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        web_in_thread=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        # There are no tables to stand by: this chooses Faust's assignor, which keeps partitions where they are.
        table_standby_replicas=1,
        broker_session_timeout=SESSION_TIMEOUT,
        broker_heartbeat_interval=0.5,
        consumer_group_instance_id=stream.instance or None,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=30.0,
        broker_commit_interval=stream.commit_interval,
        broker_max_poll_records=2000,
        broker_max_poll_interval=120.0,
        stream_wait_empty=True,
        stream_buffer_maxsize=256,
        producer_acks=-1,
        producer_linger=0,
        producer_max_batch_size=outbox.BATCH_BYTES,
        producer_max_request_size=int(topics.DEAD_LETTERS.settings["max.message.bytes"]),
        producer_request_timeout=SEND_TIMEOUT,
        consumer_auto_offset_reset="earliest",
    )
    app.transport = Transport(app.conf.broker_consumer, app, loop=app.loop)
    app.transport.checkpoint = checkpoint
    app.transport.batch_records, app.transport.fetch_wait = stream.batch_records, stream.fetch_wait
    app.producer_transport = Transport(app.conf.broker_producer, app, loop=app.loop)
    return app
