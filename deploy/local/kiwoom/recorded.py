"""A recorded day, served: the market's side of a session that says what a journal holds, when it held it.

Sans-I/O, as `protocol`, and with the same methods, so that the server drives either. Each connection of a client lives
the next connection of the journal again: what the market sent is sent again at the journal's pace times `speed`, in the
journal's order; a reply waits for its request, and what came after a request waits with it. So a client that asks
later than the one that was recorded misses nothing, and a request that was met with silence is met with silence.

What the client of the journal never asked is answered by what the journal holds of it elsewhere, else not at all.
Beyond the last connection there is nothing more to say: the market answers, and sends PINGs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import msgspec

from streams.events import Frame

from .exchange import Happening
from .faults import NONE, Faults
from .protocol import PING, Close, LoggedIn, Output, Send

PATIENCE: Final = 30.0
"""Real seconds that the journal waits for a request that the client does not send."""

PING_EVERY: Final = 10.0
"""Real seconds between two PINGs once the journal has nothing more to say."""

_LOGGED_IN: Final = '{"trnm":"LOGIN","return_code":0,"return_msg":"","sor_yn":"Y"}'

_Key = tuple[str, str, str]
"""What tells a request or a reply from others: TRNM, seq, search_type."""


class _Wire(msgspec.Struct):
    trnm: Any = None
    seq: Any = None
    search_type: Any = None
    cont_yn: Any = None
    return_msg: Any = None


@dataclass(slots=True)
class Script:
    """One connection of a journal: its frames, and when the next one began; None if there was none."""

    frames: list[Frame] = field(default_factory=list)
    until: datetime | None = None


class Tape:
    """A journal as the market plays it: connection after connection, and the replies it holds."""

    def __init__(self, frames: Iterable[Frame], speed: float = 1.0) -> None:
        self.speed = speed
        self.replies: dict[_Key, str] = {}
        scripts: dict[str, Script] = {}
        for frame in frames:
            scripts.setdefault(frame.connection, Script()).frames.append(frame)
        # A connection without its beginning cannot be lived again.
        self._scripts = deque(s for s in scripts.values() if (s.frames[0].direction, s.frames[0].number) == ("out", 1))
        for script, following in pairwise(self._scripts):
            script.until = following.frames[0].at
        self.connections = len(self._scripts)
        for script in self._scripts:
            asked: dict[_Key, _Key] = {}
            for frame in script.frames:
                key = _key(frame.text)
                if key is None or key[0] not in _ASKED:
                    continue
                if frame.direction == "out":
                    asked[key[0], key[1], ""] = key
                elif _succeeded(frame.text):
                    self.replies[asked.get((key[0], key[1], ""), key)] = frame.text

    @property
    def begins(self) -> datetime | None:
        """Market time of the first frame; None if there is none."""
        return self._scripts[0].frames[0].at if self._scripts else None

    def next(self) -> Script:
        """What the next connection lives again; beyond the last, an empty script."""
        return self._scripts.popleft() if self._scripts else Script()


class RecordedSession:
    """One connection to a market that plays a tape.

    Args:
        name: for `state()`.
        now: when it was opened, in real seconds of any monotonic clock.
        tape: what is played; one of its scripts is taken.
        app_key: what every token is taken to belong to.
    """

    def __init__(self, name: str, *, now: float, tape: Tape, app_key: str) -> None:
        self.name = name
        self.app_key: str | None = None
        self.closed = False
        self.faults: Faults = NONE
        self._key = app_key
        self._tape = tape
        self._script = tape.next()
        self._frames = deque(self._script.frames)
        # The journal's moment `_at` is the real moment `_now`.
        self._now = now
        self._at: datetime | None = self._frames[0].at if self._frames else None
        self._waiting_since = now
        self._asked: Counter[_Key] = Counter()
        self._never: set[_Key] = set()
        self._expected = Counter(_key(frame.text) for frame in self._frames if frame.direction == "out")
        self._answered: set[_Key] = set()
        self._ping_at = now + PING_EVERY
        self._counts: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()

    def receive(self, text: str, now: float) -> list[Output]:
        """Take in one frame from the client."""
        if self.closed:
            return []
        self._counts["frames_in"] += 1
        key = _key(text)
        if key is None:
            self._ignored["no JSON object with a trnm"] += 1
            return []
        if key[0] == "PING":
            self._counts["echoes"] += 1
            return []
        outputs: list[Output] = []
        if key[0] == "LOGIN" and self.app_key is None:
            self.app_key = self._key
            outputs.append(LoggedIn(self._key))
        # A look (the list once more, a search) is never made at the recorded moment: whoever asks is answered.
        look = not _opens(key) or (key[0] == "CNSRLST" and key in self._answered)
        self._asked[key] += 1
        outputs += self._play(now)
        if self._asked[key] and (look or not self._expected[key]):
            self._asked[key] -= 1
            outputs += self._elsewhere(key)
        return outputs

    def publish(self, happened: Iterable[Happening]) -> list[Output]:
        """Nothing happens here that is not in the journal."""
        return []

    def tick(self, now: float) -> list[Output]:
        """Send what is due."""
        if self.closed:
            return []
        outputs = self._play(now)
        if not self._frames and self._script.until is None and now >= self._ping_at:
            self._ping_at = now + PING_EVERY
            self._counts["pings"] += 1
            outputs.append(Send(msgspec.json.encode(PING).decode()))
        return outputs

    @property
    def due(self) -> float:
        """When `tick` is to be called next."""
        if not self._frames:
            return self._ping_at if self._script.until is None else self._when(self._script.until)
        frame = self._frames[0]
        if frame.direction == "out":
            return self._waiting_since + PATIENCE
        return self._when(frame.at)

    def displace(self) -> list[Output]:
        """The app key has logged in elsewhere: as in the journal, the older connection ends."""
        return self.leave()

    def befall(self, fault: str, seqs: Iterable[str] = ()) -> list[Output]:
        """A recorded day has faults of its own."""
        return []

    def leave(self) -> list[Output]:
        """The server goes down in an orderly way."""
        if self.closed:
            return []
        self.closed = True
        return [Close()]

    def state(self) -> dict[str, Any]:
        """What the session has come to, for `/local/state`."""
        return {
            "session": self.name,
            "app_key": self.app_key,
            "conditions": sorted(seq for trnm, seq, kind in self._answered if (trnm, kind) == ("CNSRREQ", "1")),
            "left": len(self._frames),
            "journal_time": self._at.isoformat() if self._at is not None else None,
            "pings": self._counts["pings"],
            "echoes": self._counts["echoes"],
            "frames_in": self._counts["frames_in"],
            "frames_out": self._counts["frames_out"],
            "ignored": dict(self._ignored),
        }

    # --- the tape

    def _play(self, now: float) -> list[Output]:
        """What the journal has up to now, as far as its requests were made."""
        outputs: list[Output] = []
        while self._frames and not self.closed:
            frame = self._frames[0]
            if frame.direction == "in":
                when = self._when(frame.at)
                if when > now:
                    break
                self._frames.popleft()
                self._at, self._now = frame.at, when
                self._waiting_since = now
                self._ping_at = now + PING_EVERY
                self._counts["frames_out"] += 1
                outputs.append(Send(frame.text))
            elif not self._has_asked(frame, now):
                break
        # How the connection ended is not in the journal: it is left in silence until the next one began.
        until = self._script.until
        if not self._frames and not self.closed and until is not None and now >= self._when(until):
            self.closed = True
            outputs.append(Close(None, ""))
        return outputs

    def _has_asked(self, frame: Frame, now: float) -> bool:
        """Whether a request of the journal was made, or is waited for no longer; then it is passed over."""
        key = _key(frame.text)
        if key is not None and key[0] != "PING":
            if self._asked[key]:
                self._asked[key] -= 1
                self._answered.add(key)
                # Whoever asks later than was recorded is answered later: the rest of the tape moves with it.
                self._now, self._at = now, frame.at
            elif _opens(key) and key not in self._answered | self._never:
                if now < self._waiting_since + PATIENCE:
                    return False
                self._never.add(key)
                self._ignored[f"{' '.join(key).strip()} of the journal was never asked"] += 1
        self._frames.popleft()
        self._expected[key] -= 1
        self._waiting_since = now
        return True

    def _elsewhere(self, key: _Key) -> list[Output]:
        if key[0] == "LOGIN":
            self._counts["frames_out"] += 1
            return [Send(_LOGGED_IN)]
        if key[2] == "0":
            # Who was found at another moment would be a lie now; silence is none.
            self._ignored["a search that the journal lacks"] += 1
            return []
        found = self._tape.replies.get(key) or self._tape.replies.get((key[0], key[1], ""))
        if found is None:
            self._ignored[f"{' '.join(key).strip()} is not in the journal"] += 1
            return []
        self._counts["frames_out"] += 1
        self._answered.add(key)
        return [Send(found)]

    def _when(self, at: datetime) -> float:
        assert self._at is not None
        return self._now + max(0.0, (at - self._at).total_seconds()) / self._tape.speed


_ASKED: Final = frozenset({"LOGIN", "CNSRLST", "CNSRREQ", "CNSRCLR", "REG", "REMOVE"})


def _opens(key: _Key) -> bool:
    """Whether what follows depends on this request, so that it is waited for the first time."""
    return key[0] in ("LOGIN", "CNSRLST") or (key[0] == "CNSRREQ" and key[2] == "1")


def _key(text: str) -> _Key | None:
    try:
        wire = msgspec.json.decode(text, type=_Wire)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(wire.trnm, str):
        return None
    seq = wire.seq.strip() if isinstance(wire.seq, str) else ""
    kind = wire.search_type if isinstance(wire.search_type, str) else ""
    return wire.trnm, seq, kind


def _succeeded(text: str) -> bool:
    try:
        return bool(msgspec.json.decode(text).get("return_code", 0) == 0)
    except (msgspec.MsgspecError, ValueError, RecursionError, AttributeError):
        return False
