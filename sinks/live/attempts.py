"""Attempts at a token: how many wrong ones an address may make, in bounded memory.

Pure: the time is passed in. An address has `BURST` attempts, and gets one back every `SECONDS_EACH`. An address of
IPv6 counts by its /64, which is what one household has.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

BURST: Final = 5
SECONDS_EACH: Final = 12.0
ADDRESSES: Final = 10_000  # beyond it the one that tried longest ago is forgotten


class Attempts:
    """Wrong attempts by address. What is kept of one is when all its attempts will have been given back."""

    def __init__(self, addresses: int = ADDRESSES) -> None:
        self._limit = addresses
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        owed = self._free_at.get(_counted(address), now) - now
        return max(0.0, owed - (BURST - 1) * SECONDS_EACH)

    def failed(self, address: str, now: float) -> None:
        """Count a wrong attempt."""
        key = _counted(address)
        self._free_at[key] = max(self._free_at.get(key, now), now) + SECONDS_EACH
        self._free_at.move_to_end(key)
        if len(self._free_at) > self._limit:
            self._free_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._free_at)


def _counted(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
