"""What a child of the supervisor has from it: the pipe that ends with it, and the socket of its health answers.

The other end is `supervisor`'s. A module of its own, so that a role that starts need not import what starts it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Final

LIFELINE: Final = "_HITSTREAM_LIFELINE"
HEALTH: Final = "_HITSTREAM_HEALTH"


def watch_lifeline() -> None:
    """In a child: leave as on SIGTERM when the supervisor is gone. Without a supervisor it does nothing."""
    descriptor = os.environ.pop(LIFELINE, "")
    if not descriptor:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(int(descriptor), 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    os.set_inheritable(int(descriptor), False)
    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def handed_over() -> socket.socket | None:
    """In a child: the socket on which the supervisor expects health answers; None without a supervisor."""
    descriptor = os.environ.pop(HEALTH, "")
    if not descriptor:
        return None
    listening = socket.socket(fileno=int(descriptor))
    listening.set_inheritable(False)
    return listening
