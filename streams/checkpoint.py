"""Where a worker can be stopped: the points between the steps of a batch, by name.

A worker may be killed anywhere. What that leaves behind differs only by which of its writes Kafka has, and these points
stand between the writes: stopped at each of them in turn, a worker has been stopped everywhere that matters. The
tests do that; `docs/architecture.md` says what follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

Point = Literal[
    "decided",  # a batch was decided, nothing of it was sent
    "output-sent",  # outputs for one partition, as many as one batch takes, were handed to the producer
    "outputs-acknowledged",  # Kafka has all of them
    "value-sent",  # values of the state, as many as one batch takes, were handed to the producer
    "values-acknowledged",  # Kafka has all values, in a transaction that is still open
    "state-written",  # the transaction is committed
    "offset-committed",
]
#: Told at which point of which topic the worker is: the one whose records it works on, for values their changelog. It
#: may wait there, and whatever it raises ends the worker.
Checkpoint = Callable[[Point, str], Awaitable[None]]


async def pass_by(_point: Point, _topic: str) -> None:
    """Nobody waits at any point."""
