"""What can be made to go wrong, by name: one fault per cause that a client must tell apart.

A value object. `POST /local/faults` changes the set in force; `protocol` and `rest` ask it at the places where the
real server is known to misbehave. A standing fault holds until it is switched off; a momentary one happens once, to
every session that is logged in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from streams.events import HitstreamError

STANDING: Final[Mapping[str, str]] = {
    "silent-cnsrreq": "CNSRREQ gets no reply: one condition is broken, or the condition module is down",
    "drop-registration": "CNSRREQ is answered, but the condition is silently not registered",
    "silent-repeat": "a CNSRREQ for a registered seq gets silence instead of 900003",
    "silent-cnsrlst": "CNSRLST gets no reply",
    "silent-login": "LOGIN gets no reply",
    "refuse-login": "LOGIN is refused with 805004, as with a bad token",
    "require-stex-tp": "CNSRREQ without stex_tp gets no reply",
    "no-search-while-live": "a one-shot CNSRREQ gets no reply while a realtime one is registered in the session",
    "swallow-bursts": "a request less than 0.3 s after the one before it gets no reply",
    "late-reply": "CNSRREQ is answered 5 s late; REAL entries come meanwhile",
    "before-ack-real": "the CNSRREQ reply waits until a REAL entry of the condition was sent",
    "zombie": "PINGs go on, REAL entries do not",
    "no-ping": "no PINGs are sent",
    "early-system": "a SYSTEM notice and a PING come before the LOGIN reply",
    "mixed-frames": "one REAL frame holds 02 and 0B entries in the order of the tape",
    "renumbered": "every condition has another seq than before (the user edited the list)",
    "withdrawn": "the account's list of conditions lacks the seqs named, or is empty",
    "bad-token": "every token is refused with 8005, on REST and at LOGIN",
    "maintenance": "REST answers an HTML page",
    "too-many": "REST answers 429 with 1700",
}
"""Standing faults and what each does. Those about conditions take `seqs`; without, they hold for all."""

MOMENTARY: Final[Mapping[str, str]] = {
    "close": "the connection is closed with 1000 Bye",
    "close-abrupt": "the connection is cut without a close frame (1006)",
    "system-notice": "a SYSTEM market notice that asks for nothing",
    "garbage-frame": "a frame that is no JSON",
    "null-real": "a REAL frame with data null",
    "displaced": "SYSTEM R10001 and close, as if the app key logged in elsewhere",
    "heartbeat-lost": "SYSTEM R10002 and close, as if no PING had been echoed",
}
"""Faults that happen once, to every session that is logged in."""


class UnknownFault(HitstreamError):
    """No fault of that name."""


class Faults:
    """The standing faults in force. Immutable: `switched` returns another one."""

    __slots__ = ("_standing",)

    def __init__(self, standing: Mapping[str, frozenset[str]] | None = None) -> None:
        self._standing = dict(standing or {})

    def on(self, name: str, seq: str | None = None) -> bool:
        """Whether a fault is in force – for this condition, if one is given."""
        seqs = self._standing.get(name)
        return seqs is not None and (not seqs or seq is None or seq in seqs)

    def switched(self, name: str, on: bool, seqs: Iterable[str] = ()) -> Faults:
        """These faults with one switched on (for some conditions, or for all) or off.

        Raises:
            UnknownFault: there is no standing fault of that name.
        """
        if name not in STANDING:
            raise UnknownFault(f"There is no standing fault {name!r}; there are {', '.join(STANDING)}.")
        standing = {known: affected for known, affected in self._standing.items() if known != name}
        if on:
            standing[name] = frozenset(seqs)
        return Faults(standing)

    def listed(self) -> dict[str, list[str]]:
        """Faults in force by name, each with the seqs it is limited to."""
        return {name: sorted(seqs) for name, seqs in self._standing.items()}


NONE: Final = Faults()
