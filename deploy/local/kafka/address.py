"""Addresses of this machine: free ports, taken ports, and what clients are told."""

from __future__ import annotations

import socket
from contextlib import closing

from deploy.ports import PortTaken

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound to by default


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on at the moment."""
    with closing(_socket(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def refuse_taken(host: str, port: int) -> None:
    """Raise PortTaken if host and port cannot be listened on."""
    with closing(_socket(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is not in the way
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortTaken(
                f"The local Kafka cannot listen on {host}:{port}: {_reason(host, port, error)}; stop that program or "
                "choose another port with --port."
            ) from error


def advertised(host: str) -> str:
    """The address that clients are told when the server listens on `host`."""
    return _WILDCARDS.get(host, host)


def listener(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _reason(host: str, port: int, error: OSError) -> str:
    try:
        socket.create_connection((advertised(host), port), timeout=1).close()
    except OSError:
        return error.strerror or str(error)
    return "another program already listens there"


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
