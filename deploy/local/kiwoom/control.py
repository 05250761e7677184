"""What `/local/…` tells and takes, for tests and for the curious: nothing a real Kiwoom has.

| | |
|---|---|
| `GET truth` | every hit and exit of the day with price, and the members now; `?from=INDEX&condition=NAME&limit=N` |
| | a hit after which something is planted has `planted` (percent) and `reference_at`, the first trade after it |
| `GET state` | market time, whether it is open, and each session with its conditions, codes and counters |
| `POST pause`, `POST resume` | stop the market from moving (market time goes on), and let it move again |
| `GET faults`, `POST faults` | what can go wrong; `{"name": …, "on": true, "seqs": […]}`, or `{"clear": true}` |

Pure functions from what is there to a reply; `server` owns what they read and does what they ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from deploy.clock import Clock
from streams.events import KST

from .exchange import Exchange, moment
from .faults import MOMENTARY, NONE, STANDING, Faults, UnknownFault
from .market import Crossing, Day
from .protocol import Session
from .recorded import RecordedSession
from .rest import Reply


def truth(day: Day, query: str) -> Reply:
    """The day's hits and exits, numbered by `index`, and who is a member since when, by condition.

    Args:
        query: `from` (the first index wanted), `condition` (name or seq), `limit`.
    """
    names = _names(day)
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    wanted = asked.get("condition")
    try:
        first, limit = int(asked.get("from", "0")), int(asked.get("limit", str(len(day.truth))))
    except ValueError:
        return Reply({"error": "from and limit are whole numbers."}, 400)
    chosen = [
        _told(day, names, crossing)
        for crossing in day.truth[max(0, first) :]
        if wanted is None or wanted in (crossing.seq, names[crossing.seq])
    ]
    members = {
        names[seq]: {code: moment(day.date, since).isoformat() for code, since in codes.items()}
        for seq, codes in day.members.items()
        if wanted is None or wanted in (seq, names[seq])
    }
    return Reply(
        {"date": str(day.date), "total": len(day.truth), "events": chosen[: max(0, limit)], "members": members}
    )


def state(exchange: Exchange, clock: Clock, in_force: Faults, sessions: Iterable[Session | RecordedSession]) -> Reply:
    """Where market and sessions stand."""
    now = clock.now()
    day = exchange.day
    names = _names(day)
    return Reply(
        {
            "market_time": now.astimezone(KST).isoformat(),
            "speed": clock.speed,
            "date": str(day.date),
            "opened": moment(day.date, day.opened).isoformat(),
            "open": exchange.is_open(now),
            "paused": exchange.paused,
            "events": len(day.truth),
            "members": {name: len(day.members[seq]) for seq, name in names.items()},
            "conditions": [[seq, name] for seq, name in names.items()],
            "plants": [str(each) for each in exchange.ledger.plants],
            "neutral": exchange.ledger.neutral,
            "faults": in_force.listed(),
            "sessions": [session.state() for session in sessions],
        }
    )


def faults(in_force: Faults) -> Reply:
    """What can go wrong, and what does."""
    return Reply({"standing": dict(STANDING), "momentary": dict(MOMENTARY), "in_force": in_force.listed()})


class _FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    on: bool = True
    seqs: tuple[str, ...] = ()
    clear: bool = False


def fault_wanted(body: bytes) -> tuple[str, tuple[str, ...]] | Callable[[Faults], Faults]:
    """What a `POST faults` asks for: a momentary fault by name and seqs, or a change of those in force.

    Raises:
        UnknownFault: it asks for nothing that there is.
    """
    try:
        wanted = msgspec.json.decode(body, type=_FaultRequest)
    except msgspec.MsgspecError as error:
        raise UnknownFault(f"Ask with name, on and seqs, or with clear: {error}.") from error
    if wanted.clear:
        return lambda _: NONE
    if wanted.name in MOMENTARY:
        return wanted.name, wanted.seqs
    NONE.switched(wanted.name, wanted.on, wanted.seqs)  # refuses a name that is unknown
    return lambda in_force: in_force.switched(wanted.name, wanted.on, wanted.seqs)


def _told(day: Day, names: dict[str, str], crossing: Crossing) -> dict[str, Any]:
    at = moment(day.date, crossing.at)
    told = {
        "index": crossing.index,
        "condition": names[crossing.seq],
        "seq": crossing.seq,
        "code": crossing.code,
        "action": crossing.action,
        "at": at.isoformat(),
        "time": f"{at:%H%M%S}",
        "price": crossing.price,
    }
    if (effect := day.effect(crossing)) is not None:
        reference = effect.reference
        told["planted"] = effect.effect * 100
        told["reference_at"] = None if reference is None else moment(day.date, reference + day.offset).isoformat()
    return told


def _names(day: Day) -> dict[str, str]:
    return {condition.seq: condition.name for condition in day.conditions}
