"""What Faust's consumer thread does otherwise than Faust has it."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from streams.transport import _Thread


def test_connections_are_closed_in_the_loop_that_reads_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions that come while the worker stops have it closed at once; another loop would corrupt uvloop."""
    loop = asyncio.new_event_loop()
    closed: list[Any] = []
    both = threading.Barrier(2)

    class Part:
        async def close(self) -> None:
            closed.append(asyncio.get_running_loop())
            if len(closed) == 2:
                asyncio.get_running_loop().call_soon(both.wait)

    monkeypatch.setattr(_Thread, "__init__", lambda self: None)
    thread = _Thread()
    thread.thread_loop = loop
    thread._consumer = SimpleNamespace(_client=Part(), _coordinator=Part(), _closed=False)
    reader = threading.Thread(target=loop.run_forever)
    reader.start()
    try:
        thread.close()
        both.wait(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        reader.join()
        loop.close()
    assert closed == [loop, loop]
    assert thread._consumer._closed
