"""Whether a broker takes requests yet, asked as a client would."""

from __future__ import annotations

import asyncio

from . import wire
from .process import Child


async def until_ready(broker: Child, host: str, port: int, seconds: float, cluster: str = "") -> bool:
    """Wait until the broker names itself in an answer. False if it ends first or `seconds` are over.

    Whoever answers at a port may be somebody else, who took it while the broker was starting: with `cluster`, the id of
    its cluster, only the broker that has it counts.
    """
    ended = asyncio.ensure_future(broker.wait())
    try:
        async with asyncio.timeout(seconds):
            while not ended.done():
                if await answers(host, port, cluster):
                    return True
                await asyncio.wait([ended], timeout=0.05)
    except TimeoutError:
        pass
    finally:
        ended.cancel()
    return False


async def answers(host: str, port: int, cluster: str = "") -> bool:
    """Whether a Kafka broker at this address – of this cluster, if one is given – names at least one broker."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                request = wire.brokers_request(1)
                writer.write(len(request).to_bytes(4) + request)
                size = int.from_bytes(await reader.readexactly(4))
                count, theirs = wire.brokers(await reader.readexactly(size))
                return count > 0 and cluster in ("", theirs)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, wire.Unreadable):
        return False
