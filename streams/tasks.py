"""Tasks that belong together, none of which ends unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from .events import HitstreamError

Result = TypeVar("Result")


class TaskGroup(asyncio.TaskGroup):
    """asyncio's, in which a task can't be cancelled by what it awaits.

    asyncio takes a task that raises CancelledError for one that was told to end, and goes on without it and without a
    word. A library that lets one escape would leave a role running that does a part of its work no more.
    """

    def create_task(  # type: ignore[override]  # of generators, which could be tasks once, there are none
        self, coro: Coroutine[Any, Any, Result], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Result]:
        """Begin a task. If it ends as cancelled although nobody cancelled it, the group fails with a HitstreamError."""
        task = super().create_task(told(coro), name=name, context=context)
        task.add_done_callback(lambda _: coro.close())  # one that was cancelled before it began was never awaited
        return task


async def told(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work, and end as cancelled only if somebody has cancelled this task.

    Raises:
        HitstreamError: the work was cancelled by something that it waited for.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise HitstreamError(
            f"{task.get_name()} was cancelled by something it waited for: this should not happen, please report it "
            "with the log before it"
        ) from error
