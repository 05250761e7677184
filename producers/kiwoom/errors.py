"""What can go wrong between us and Kiwoom, as one tree.

    HitstreamError
    └── KiwoomError
        ├── TokenRefused        the app key, its secret or this machine's address is not accepted
        ├── Unreachable         no connection, or no answer in time
        ├── Maintenance         a web page where JSON belongs: the service is closed for a while
        ├── RateLimited         more calls than the account may make
        ├── CallRefused         a TR call was answered with an error of its own
        └── NotLent             the running producer keeps its session: it is not ended for a diagnosis

One class, one cause, one sentence that says what to do. `code` is Kiwoom's own number where there is one.
"""

from __future__ import annotations

import re
from typing import Final

from streams.events import HitstreamError

# Worth one try with a new token: the token is not valid, belongs to another environment, or was withdrawn.
STALE_TOKEN: Final = frozenset({"8005", "8031", "8103", "805004"})

MASK: Final = "***"

_EMBEDDED: Final = re.compile(r"(?:\[|CODE=)\s*(\d{3,6})\b")

_REMEDIES: Final = {
    "8001": "check kiwoom.app_key against the Open API portal",
    "8002": "check kiwoom.secret_key against the Open API portal",
    "8010": "the token was issued to another IP address: remove the cached token and start again from this machine",
    "8020": "set kiwoom.app_key and kiwoom.secret_key",
    "8030": "the key belongs to the other environment: use a real key with api.kiwoom.com, a paper key with mockapi",
    "8031": "the key belongs to the other environment: use a real key with api.kiwoom.com, a paper key with mockapi",
    "8103": "the token or this device is not accepted: register this machine's IP address on the Open API portal",
    "8050": "register this machine's IP address on the Open API portal",
}


class KiwoomError(HitstreamError):
    """Root of what can go wrong between us and Kiwoom."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class TokenRefused(KiwoomError):
    """Kiwoom does not accept the key, its secret, the address or the token."""


class Unreachable(KiwoomError):
    """No connection to Kiwoom, or no answer in time."""


class Maintenance(KiwoomError):
    """Kiwoom answered with a web page where JSON belongs."""


class RateLimited(KiwoomError):
    """More calls than Kiwoom allows."""


class CallRefused(KiwoomError):
    """A TR call was answered with an error."""


class NotLent(KiwoomError):
    """The running producer does not end its session for a diagnosis."""


def masked(text: str, *secrets: str) -> str:
    """What Kiwoom says, without secrets: a refusal may quote what it refuses, and its words go into logs and states."""
    for secret in secrets:
        if secret and secret in text:
            text = text.replace(secret, MASK)
    return text


def embedded_code(message: str) -> str:
    """The code inside a `return_msg` (`…[8005:Token…]`, `…[CODE=8005, …]`), or an empty string."""
    found = _EMBEDDED.search(message)
    return found[1] if found else ""


def remedy(code: str) -> str:
    """What to do about a code of a refused token."""
    return _REMEDIES.get(code, "check kiwoom.app_key, kiwoom.secret_key and the registered IP address on the portal")
