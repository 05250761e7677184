"""How every role lets go of a Kafka client, whatever state the broker is in.

aiokafka's own `stop` is made for a broker that answers. Where none does,

- a consumer's raises a CancelledError that nobody asked for: it cancels a fetch that waits before its next try, and
  awaits it. Whoever awaits `stop` ends without a word, as if told to;
- one that a deadline cuts short leaves its tasks behind. They go on fetching, and send heartbeats for a member that
  nobody reads for, once the broker is back.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

#: How long what was given up may take to notice, in seconds. It does not wait for a broker.
_NOTICE: Final = 2.0


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer, within: float = 3.0) -> bool:
    """End a client: in order if Kafka answers `within` so many seconds, and for good in any case.

    A consumer leaves its group; a producer sends what it still has, or fails it. No task and no connection of the
    client's is left. Raises nothing but the cancellation of whoever waits.

    Returns:
        Whether it was in order.
    """
    stopping = asyncio.create_task(client.stop())
    try:
        await asyncio.wait([stopping], timeout=within)
    finally:
        in_order = stopping.done() and (stopping.cancelled() or stopping.exception() is None)
        stopping.cancel()
        tasks = {stopping, *_give_up(client)}
        await asyncio.wait(tasks, timeout=_NOTICE)
        for task in tasks:
            overlook(task)
        _disconnect(client)  # what a task was about to open
    return in_order


def _give_up(client: AIOKafkaConsumer | AIOKafkaProducer) -> set[asyncio.Task[Any]]:
    """Cancel what a client still does; returns the tasks that have to notice."""
    _disconnect(client)
    if isinstance(client, AIOKafkaProducer):
        # Its sender awaits the requests that are on their way, which fail without their connections.
        tasks = {client.client._sync_task, client._sender.sender_task}
        _fail(client._message_accumulator)
    else:
        tasks = {client._client._sync_task}
        if (fetcher := client._fetcher) is not None:
            tasks |= {fetcher._fetch_task, *fetcher._pending_tasks}
        for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task"):
            tasks.add(getattr(client._coordinator, name, None))
    running = {task for task in tasks if task is not None and not task.done()}
    for task in running:
        task.cancel()
    return running


def _fail(accumulator: Any) -> None:
    """Fail what a producer has not sent: whoever waits for it hears of it, and nobody need."""
    batches = [*chain.from_iterable(accumulator._batches.values()), *accumulator._pending_batches]
    accumulator.fail_all(KafkaError("given up"))
    for batch in batches:
        overlook(batch.future)
        overlook(batch._drain_waiter)


def overlook(outcome: asyncio.Future[Any]) -> None:
    """Keep asyncio from telling of an error that nobody looks at: of a future that is done, or as its callback."""
    if outcome.done() and not outcome.cancelled():
        outcome.exception()


def _disconnect(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    connections = client.client if isinstance(client, AIOKafkaProducer) else client._client
    for connection in connections._conns.values():
        connection.close()
