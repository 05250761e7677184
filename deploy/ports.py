"""Ports of this machine that are needed and may be taken."""

from __future__ import annotations

from streams.events import HitstreamError


class PortTaken(HitstreamError):
    """Something else listens where we have to; the sentence says what needs the port and how to choose another."""
