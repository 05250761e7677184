"""Which codes a connection has registered for prices (0B), and which REG or REMOVE comes next: no clock, no await.

The session drives it: it says what is wanted (`want`), asks for the next request when the line is free (`request`), and
hands on every answer (`reply`) and the passing of time (`tick`). Which codes are worth a slot is `producers.slots`'
business; that price requests never stand in the way of CNSRREQ, audits and echoes is the session's.

The one idea: **an answer to REG or REMOVE names nothing**, neither codes nor group. So there is one request on its way
at a time, every code is in one of three places, and whatever is not known to be otherwise counts against the limit:

    held       a REG of it was acknowledged, or a trade of it has come since
    doubtful   a request of it was not answered: it may be registered or not
    neither    not registered

What a refusal does, since the whole REG was refused and none of its codes says why:

| code             | then                                                                                         |
|------------------|----------------------------------------------------------------------------------------------|
| 105110           | too many requests: the same again, after a pause that doubles                                |
| 105115, 105118   | too many codes: half as many; where one alone is too many, that is the limit for a while     |
| 105111, unknown  | half as many, down to the one that is not taken; that one is left out for a while            |
| no answer        | the codes are doubtful, and asked for again, after a pause that doubles                      |

An acknowledgement proves nothing, a registration may be lost, and only a trade is a proof: codes that have been silent
for `renew` seconds of trading are registered again, all in one REG, which changes nothing where they still were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from . import frames

MAX_CODES: Final = 200
"""Codes per session and per group that Kiwoom takes (105115, 105118)."""

GROUP: Final = "1"
"""REG group of the prices; the market clock has another."""

_TOO_MANY: Final = 105110
_LIMITS: Final = frozenset({105115, 105118})

_LONGEST_PAUSE: Final = 60.0
_LIMIT_FOR: Final = 600.0  # Seconds for which a limit below ours is believed.
_LEFT_OUT: Final = 60.0  # Seconds for which a code that is not taken is left out at first; they double, to an hour.
_LONGEST_OUT: Final = 3600.0
_LATEST: Final = 30.0  # Seconds after which an answer that was given up comes no more.
_SETTLING: Final = 2.0  # Seconds after a REMOVE in which a trade of before it may still come.
_REMOVALS: Final = 3  # REMOVEs in vain, after which the codes count as gone: trades or a limit may say otherwise.

Suffix = Literal["", "_NX", "_AL"]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the registrations are: codes `held`, `wanted`, the `limit` in force, codes `refused` at the moment, and
    whether every code that is wanted and may be had is held (`complete`). `cause` is the last refusal or silence since
    the last success."""

    held: int
    wanted: int
    limit: int
    refused: int
    complete: bool
    cause: str = ""


@dataclass(slots=True)
class _Sent:
    trnm: Literal["REG", "REMOVE"]
    codes: tuple[str, ...]
    reply_by: float


class Registrations:
    """The price registrations of one connection.

    Args:
        limit: most codes, at most `MAX_CODES`.
        suffix: what makes a code the item of an exchange (`005930_NX`).
        spacing: least seconds between two price requests: changes are gathered in one REG meanwhile.
        reply_deadline: seconds for an answer.
        slow_down: the first pause after a request in vain.
        renew: seconds without a trade after which a code is registered again.
    """

    def __init__(
        self,
        *,
        limit: int = MAX_CODES,
        suffix: Suffix = "",
        spacing: float = 1.0,
        reply_deadline: float = 5.0,
        slow_down: float = 2.0,
        renew: float = 120.0,
    ) -> None:
        self._most = min(limit, MAX_CODES)
        self._limit = self._most
        self._limit_until = 0.0
        self._suffix = suffix
        self._spacing = spacing
        self._reply_deadline = reply_deadline
        self._slow_down = slow_down
        self._renew = renew
        self._wanted: tuple[str, ...] = ()
        self._held: dict[str, float] = {}  # code → when it was last proved
        self._doubtful: dict[str, None] = {}
        self._left_out: dict[str, float] = {}  # code → when it is tried again
        self._refused_before: dict[str, int] = {}  # code → how often it alone was refused
        self._batch = MAX_CODES
        self._sent: _Sent | None = None
        self._acknowledged: tuple[str, ...] = ()
        self._late: list[float] = []  # when requests were given up whose answer may still come
        self._failures = 0
        self._removals = 0
        self._next_at = 0.0
        self._settled_at = 0.0
        self._renew_at: float | None = None
        self._cause = ""
        self._work = False

    # -- what is wanted

    def want(self, codes: Sequence[str]) -> None:
        """The codes that are to be registered, the most important first; what is beyond the limit is left out."""
        self._wanted = tuple(dict.fromkeys(codes))
        self._look()

    def traded(self, code: str, t: float) -> bool:
        """A trade of a code has come: it is registered, whatever we believed. Whether that is news."""
        if code in self._held:
            self._held[code] = t
            return False
        if self._sent is not None and code in self._sent.codes:
            return False  # Its answer tells more.
        if code in self._doubtful:
            # A request that was not answered has been heard.
            self._hold(code, t)
        elif t >= self._settled_at:
            self._left_out.pop(code, None)
            self._doubtful[code] = None
        else:
            return False
        self._look()
        return True

    # -- the line

    def request(self, t: float, *, trading: bool = True) -> frames.Request | None:
        """The request that is due at `t`, which counts as sent; None if there is none."""
        if self._sent is not None or t < self._next_at:
            return None
        self._forget(t)
        codes: list[str]
        if (planned := self._plan()) is not None:
            trnm, codes = planned
        elif codes := self._stale(t, trading=trading):
            trnm = "REG"
        else:
            self._look()
            return None
        self._sent = _Sent(trnm, tuple(codes), t + self._reply_deadline)
        self._next_at = t + self._spacing
        items = [frames.Items(item=[code + self._suffix for code in codes], type=[frames.TRADE])]
        if trnm == "REG":
            return frames.RegisterRequest(grp_no=GROUP, data=items)
        return frames.RemoveRequest(grp_no=GROUP, data=items)

    def reply(self, reply: frames.RegisterReply, t: float) -> bool:
        """An answer came; whether it may be to one of our requests."""
        sent = self._sent
        if sent is None or sent.trnm != reply.trnm:
            return self._belated(reply, t)
        self._sent = None
        if reply.code == 0:
            self._done(sent, t)
        else:
            self._cause = f"{reply.trnm} {reply.code} {reply.message}".strip()
            self._refused(sent, reply.code, t)
        self._look()
        return True

    def tick(self, t: float) -> bool:
        """Time has passed; whether a request was given up because nobody answered."""
        if (sent := self._sent) is None or t < sent.reply_by:
            return False
        self._sent = None
        self._cause = f"{sent.trnm} was not answered within {self._reply_deadline:g} s"
        self._late.append(t)
        self._doubt(sent.codes)
        self._pause(t)
        if sent.trnm == "REMOVE":
            self._removed_in_vain(sent)
        self._look()
        return True

    @property
    def waiting(self) -> bool:
        """Whether a request is on its way: until it is answered or given up, no other REG or REMOVE may be."""
        return self._sent is not None

    @property
    def reply_by(self) -> float | None:
        """When `tick` gives up what is on its way."""
        return self._sent.reply_by if self._sent else None

    @property
    def ready_at(self) -> float | None:
        """From when on `request` is worth asking; None while nothing is to be asked for."""
        if self._sent is not None:
            return None
        if self._work:
            return self._next_at
        waits = [*self._left_out.values(), *((self._limit_until,) if self._limit < self._most else ())]
        if self._renew_at is not None:
            waits.append(self._renew_at)
        return max(self._next_at, min(waits)) if waits else None

    @property
    def limit(self) -> int:
        """The most codes, as far as is known."""
        return self._limit

    @property
    def standing(self) -> Standing:
        """Where the registrations are."""
        held = self._held
        return Standing(
            held=sum(code in held for code in self._wanted),
            wanted=len(self._wanted),
            limit=self._limit,
            refused=sum(code in self._left_out for code in self._wanted),
            complete=all(code in held for code in self._target()),
            cause=self._cause,
        )

    # -- plans

    def _target(self) -> list[str]:
        """What is to be registered now."""
        return [code for code in self._wanted if code not in self._left_out][: self._limit]

    def _plan(self) -> tuple[Literal["REG", "REMOVE"], list[str]] | None:
        """The next request. What there is room for comes first; else room is made first."""
        target = self._target()
        wanted = set(target)
        missing = [code for code in target if code not in self._held]
        surplus = [code for code in (*self._held, *self._doubtful) if code not in wanted]
        room = self._limit - len(self._held) - len(self._doubtful)
        new = sum(code not in self._doubtful for code in missing)
        if missing and (new <= room or not surplus):
            takes = []
            for code in missing:
                if code not in self._doubtful:
                    if room <= 0:
                        continue
                    room -= 1
                takes.append(code)
            if takes:
                return "REG", takes[: self._batch]
        return ("REMOVE", surplus) if surplus else None

    def _stale(self, t: float, *, trading: bool) -> list[str]:
        """The codes that have been silent for so long that they are registered again."""
        if self._renew_at is None or t < self._renew_at:
            return []
        self._renew_at = t + self._renew
        if not trading:
            # Nothing could be heard: the silence counts from now on.
            self._held = dict.fromkeys(self._held, t)
        return [code for code in self._held if t - self._held[code] >= self._renew][: self._batch]

    def _look(self) -> None:
        self._work = self._plan() is not None

    def _forget(self, t: float) -> None:
        """Let what was believed for a while be tried again."""
        self._late = [at for at in self._late if t - at < _LATEST]
        if self._limit < self._most and t >= self._limit_until:
            self._limit = self._most
        if any(t >= at for at in self._left_out.values()):
            self._left_out = {code: at for code, at in self._left_out.items() if t < at}

    # -- answers

    def _done(self, sent: _Sent, t: float) -> None:
        self._failures, self._cause = 0, ""
        for code in sent.codes:
            if sent.trnm == "REG":
                self._hold(code, t)
            else:
                self._held.pop(code, None)
                self._doubtful.pop(code, None)
        if sent.trnm == "REMOVE":
            self._removals = 0
            self._settled_at = t + _SETTLING
            return
        self._acknowledged = sent.codes
        self._batch = min(MAX_CODES, self._batch * 2)

    def _hold(self, code: str, t: float) -> None:
        self._doubtful.pop(code, None)
        self._held[code] = t
        if self._renew_at is None:
            self._renew_at = t + self._renew

    def _refused(self, sent: _Sent, code: int | None, t: float) -> None:
        if sent.trnm == "REMOVE":
            self._doubt(sent.codes)
            self._pause(t)
            if code != _TOO_MANY:
                self._removed_in_vain(sent)
        elif code == _TOO_MANY:
            self._pause(t)
        elif len(sent.codes) > 1:
            self._batch = len(sent.codes) // 2
            if code in _LIMITS:
                # What was registered already would not have been one too many: at least one of them is not.
                self._doubt([code for code in sent.codes if code in self._held])
        else:
            (alone,) = sent.codes
            if alone in self._held and code not in _LIMITS:
                self._held[alone] = t  # It was registered once and only asked for again.
                return
            self._held.pop(alone, None)
            self._doubtful.pop(alone, None)
            if code in _LIMITS:
                self._limit = len(self._held) + len(self._doubtful)
                self._limit_until = t + _LIMIT_FOR
            else:
                times = self._refused_before.get(alone, 0)
                self._refused_before[alone] = times + 1
                self._left_out[alone] = t + min(_LONGEST_OUT, _LEFT_OUT * 2.0 ** min(times, 16))
                if self._failures:
                    self._pause(t)  # It may be not the codes.
                self._failures = max(self._failures, 1)

    def _belated(self, reply: frames.RegisterReply, t: float) -> bool:
        """An answer that nothing waits for.

        Where a request was given up before, its answer may have been taken for that of the next one; then this one is
        the next one's. A refusal takes back what was believed to be acknowledged.
        """
        if not self._late or t - self._late[0] >= _LATEST:
            return False
        del self._late[0]
        if reply.trnm == "REG" and reply.code != 0:
            self._cause = f"{reply.trnm} {reply.code} {reply.message}".strip()
            self._doubt(self._acknowledged)
            self._pause(t)
            self._look()
        return True

    def _removed_in_vain(self, sent: _Sent) -> None:
        self._removals += 1
        if self._removals >= _REMOVALS:
            self._removals = 0
            for code in sent.codes:
                self._doubtful.pop(code, None)

    def _doubt(self, codes: Iterable[str]) -> None:
        for code in codes:
            self._held.pop(code, None)
            self._doubtful[code] = None

    def _pause(self, t: float) -> None:
        self._failures += 1
        self._next_at = t + min(_LONGEST_PAUSE, self._slow_down * 2.0 ** min(self._failures - 1, 16))
