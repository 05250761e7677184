"""A task that is cancelled by what it awaits is a failure that is told."""

from __future__ import annotations

import asyncio

import pytest

from streams.events import HitstreamError
from streams.tasks import TaskGroup


async def on_a_cancelled_one() -> None:
    """Wait for a task that another cancels: what a library does that awaits what it has cancelled."""
    other = asyncio.create_task(asyncio.sleep(60))
    other.cancel()
    await other


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_asyncio_s_own_group_goes_on_without_a_word() -> None:
    """Or else ours would not be needed any more."""
    async with asyncio.TaskGroup() as tasks:
        lost = tasks.create_task(on_a_cancelled_one())
    assert lost.cancelled()


async def test_one_that_nobody_cancelled_fails_the_group() -> None:
    async def group() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(for_ever(), name="the other")
            tasks.create_task(on_a_cancelled_one(), name="statuses")

    with pytest.raises(ExceptionGroup) as raised:
        await group()
    assert raised.group_contains(HitstreamError, match="^statuses was cancelled by something it waited for")


async def test_one_that_is_told_to_end_ends() -> None:
    async with asyncio.timeout(30), TaskGroup() as tasks:
        told = tasks.create_task(for_ever())
        await asyncio.sleep(0)
        told.cancel()
    assert told.cancelled()


async def test_one_that_has_not_begun_can_be_told_to_end() -> None:
    async with asyncio.timeout(30), TaskGroup() as tasks:
        told = tasks.create_task(for_ever())
        told.cancel()
    assert told.cancelled()


async def test_a_group_that_is_left_by_an_error_ends_its_tasks() -> None:
    async def group() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(for_ever())
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(ExceptionGroup) as raised:
        await group()
    assert raised.value.subgroup(HitstreamError) is None


async def test_a_deadline_inside_a_task_stays_a_timeout() -> None:
    async def late() -> None:
        async with asyncio.timeout(0):
            await for_ever()

    async def group() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(late())

    with pytest.raises(ExceptionGroup) as raised:
        await group()
    assert raised.group_contains(TimeoutError)


async def test_a_result_is_given() -> None:
    async def seven() -> int:
        return 7

    async with TaskGroup() as tasks:
        result = tasks.create_task(seven())
    assert result.result() == 7
