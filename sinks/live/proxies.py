"""Behind a proxy: who really asks, and over which scheme and name.

Pure. Headers that a proxy adds (`X-Forwarded-For`, `-Proto`, `-Host`) are believed only if the connection comes from an
address that `live.trusted_proxies` names; anybody can send such headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

import msgspec

from streams.events import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from and what it asked for."""

    address: str
    is_https: bool
    host: str


def networks(named: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks (`10.0.0.0/8`) as settings name them.

    Raises:
        ConfigError: one of them is neither.
    """
    try:
        return tuple(ipaddress.ip_network(name, strict=False) for name in named)
    except ValueError as error:
        raise ConfigError(f"live.trusted_proxies: {error}; name addresses or networks such as 10.0.0.0/8.") from None


def origin(peer: str, scheme: str, headers: Mapping[bytes, bytes], trusted: Sequence[Network]) -> Origin:
    """Where a request comes from.

    `X-Forwarded-For` is read from its end, where the nearest proxy wrote: the first address that is no proxy of ours
    is who asks. What stands before that is that client's own claim.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if not _is_trusted(peer, trusted):
        return Origin(address=peer, is_https=scheme == "https", host=host)
    address = peer
    for hop in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
        if not (name := hop.strip()):
            break
        address = name
        if not _is_trusted(name, trusted):
            break
    said = headers.get(b"x-forwarded-proto", scheme.encode()).decode("latin-1").strip().lower()
    return Origin(
        address=address,
        is_https=said == "https",
        host=headers.get(b"x-forwarded-host", host.encode("latin-1")).decode("latin-1").strip(),
    )


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in trusted)
