"""What a person enters by hand: whether it may be accepted.

Pure. `streams.lane` asks before a command goes on `transitions`, where it decides; from there on it is applied as it
stands. So this is the place to refuse what would do harm there: a refused command becomes a dead letter with the
reason, and changes nothing.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from .events import Command, Recommend

#: How far a person's clock may be ahead of ours.
LEEWAY: Final = timedelta(minutes=1)

_CODE: Final = re.compile(r"[0-9A-Z]{6}")


def refusal(command: Command, now: datetime | None = None) -> str:
    """Why a command can't be accepted, empty if it can.

    `now` is the product's clock, None where there is none to compare with. A command from the future would let the
    stock's day pass before its time, and every hit after it would be late. An account is not looked up: the workers
    serve whatever accounts the log has, and a recommendation in one that nobody reads is in nobody's way.
    """
    if not command.id:
        return "a command needs an id, so that it can be repeated without being done twice"
    if not command.by.strip():
        return "a command needs the name of who gives it (`by`)"
    if not _CODE.fullmatch(command.code):
        return f"{command.code!r} is no stock code: six digits or capital letters"
    if not command.account or "/" in command.account:
        return f"{command.account!r} is no account"
    if isinstance(command, Recommend) and command.expires_at is not None and command.expires_at <= command.at:
        return "it expires (`expires_at`) before it begins (`at`)"
    if now is not None and command.at > now + LEEWAY:
        return f"it is dated {command.at.isoformat()}, which is in the future"
    return ""
