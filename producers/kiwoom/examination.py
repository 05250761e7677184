"""The shell of the diagnosis: it does what `doctor` says, over a connection of our own or over a borrowed session.

It decides nothing. Every step has a deadline, every frame is kept (masked) for the trace and for the bundle. A session
that is not ours is not logged in beside, and ended only by its owner, who may lend us a fresh one (`Examiner.fresh`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from streams.events import Frame, HitstreamError

from . import doctor, frames
from .doctor import Ask, Case, Cause, Connect, Finding, Listen, Login, Outcome, Seen, Step, Token, Verdict, seen
from .errors import KiwoomError, Maintenance, NotLent, RateLimited, TokenRefused, Unreachable, masked
from .line import Line, own_line
from .token import Tokens

_MOST_FRAMES: Final = 50_000
_QUEUED: Final = 10.0
_LAST_WORDS: Final = 2.0  # Seconds in which a session that has gone is told to be gone.
_Said = TypeVar("_Said", Finding, Verdict)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, and how many seconds after the beginning it was made."""

    after: float
    finding: Finding


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """A finished diagnosis with all of its evidence, secrets masked."""

    at: datetime
    seconds: float
    borrowed: bool
    findings: tuple[Shown, ...]
    verdict: Verdict
    frames: tuple[Frame, ...]


class Examiner:
    """Carries out one diagnosis.

    Args:
        case: what is known.
        url: Kiwoom's WebSocket address.
        tokens: gives out the token; None where none may be asked for.
        line: a session that is already there; None: log in.
        fresh: has the owner of a borrowed session lend us a fresh connection, on which it has logged in.
        second: gives out the token of a second app key.
        second_line: the session of a producer that runs with the second app key, where there is one.
        secrets: masked in whatever is shown or kept.
        spacing: least real seconds between two frames of a connection of our own.
        speed: of the clock that stamped a borrowed session's frames.
        on_finding, on_frame, on_step: are told as it goes.
    """

    def __init__(
        self,
        case: Case,
        *,
        url: str,
        tokens: Tokens | None,
        line: Line | None = None,
        fresh: Callable[[], AbstractAsyncContextManager[Line]] | None = None,
        second: Tokens | None = None,
        second_line: Callable[[], AbstractAsyncContextManager[Line]] | None = None,
        secrets: Collection[str] = (),
        spacing: float = 0.35,
        speed: float = 1.0,
        on_finding: Callable[[Shown], None] = lambda _: None,
        on_frame: Callable[[Frame], None] = lambda _: None,
        on_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self._case = case
        self._url = url
        self._tokens = tokens
        self._second = second
        self._second_line = second_line
        self._line = line
        self._fresh = fresh
        self._secrets = {secret for secret in secrets if secret}
        self._spacing = spacing
        self._speed = speed
        self._on_finding = on_finding
        self._on_frame = on_frame
        self._on_step = on_step
        self._token = ""
        self._frames: list[Frame] = list(line.history if line is not None else ())
        self._findings: list[Shown] = []
        self._begun = 0.0

    async def run(self) -> Examination:
        """Examine, and say what is wrong."""
        self._begun = asyncio.get_running_loop().time()
        at = datetime.now(UTC)
        diagnosis = doctor.diagnose(self._case)
        async with AsyncExitStack() as own:
            step = next(diagnosis)
            while True:
                try:
                    step = diagnosis.send(await self._do(step, own))
                except StopIteration as end:
                    verdict: Verdict = end.value
                    break
        return Examination(
            at=at,
            seconds=round(self._since(), 3),
            borrowed=self._case.borrowed,
            findings=tuple(self._findings),
            verdict=self._masked(verdict),
            frames=tuple(self._frames),
        )

    # -- the steps

    async def _do(self, step: Step, own: AsyncExitStack) -> Outcome:
        before = self._since()
        self._on_step(step)
        match step:
            case Finding():
                shown = Shown(after=round(before, 3), finding=self._masked(step))
                self._findings.append(shown)
                self._on_finding(shown)
                return Outcome()
            case Token(second=second, renew=renew):
                outcome = await self._get_token(second=second, renew=renew)
            case Connect(second=second):
                outcome = await self._connect(own, second=second)
            case Login() if self._line is not None and self._line.borrowed:
                outcome = Outcome(frames=tuple(self._kept(frame) for frame in self._line.history))
            case Login(within=within):
                text = frames.LoginRequest(token=self._token).text()
                outcome = await self._exchange(text, lambda f: isinstance(f, frames.LoginReply), within)
            case Ask(text=text, within=within):
                outcome = await self._exchange(text, step.answered, within)
            case Listen(seconds=seconds, until_event=until_event):
                outcome = await self._exchange("", _is_event if until_event else lambda _: False, seconds)
        return msgspec.structs.replace(outcome, seconds=self._since() - before)

    async def _get_token(self, *, second: bool, renew: bool) -> Outcome:
        if second and self._second_line is not None:
            return Outcome()
        tokens = self._second if second else self._tokens
        if tokens is None:
            return Outcome(refused=True, error="settings", message="there is no app key to ask with")
        if renew:
            tokens.discard(self._token)
        try:
            self._token = await tokens.get()
        except KiwoomError as error:
            causes: dict[type[KiwoomError], Cause] = {
                TokenRefused: "token-refused",
                Maintenance: "maintenance",
                RateLimited: "rate-limited",
            }
            return Outcome(error=causes.get(type(error), "unreachable"), message=str(error), code=error.code)
        self._secrets.add(self._token)
        return Outcome()

    async def _connect(self, own: AsyncExitStack, *, second: bool) -> Outcome:
        """A connection of our own – or one that the producer lends us, where the session is the producer's."""
        await own.aclose()
        try:
            if second and self._second_line is not None:
                self._line = await own.enter_async_context(self._second_line())
            elif self._case.borrowed and not second:
                if self._fresh is None:
                    return Outcome(refused=True, message="the session is the running producer's")
                self._line = await own.enter_async_context(self._fresh())
            else:
                connecting = own_line(self._url, secrets=self._secrets, spacing=self._spacing)
                self._line = await own.enter_async_context(connecting)
        except NotLent as error:
            return Outcome(refused=True, message=str(error))
        except Unreachable as error:
            return Outcome(error="unreachable", message=str(error))
        return Outcome()

    async def _exchange(self, text: str, enough: Callable[[frames.Received], bool], within: float) -> Outcome:
        """Send `text` unless it is empty, then listen until `enough` or the time is over."""
        line = self._line
        if line is None:
            return Outcome(ended="there is no connection")
        loop = asyncio.get_running_loop()
        heard: list[Seen] = []
        if text:
            while (frame := await line.hear(0)) is not None:
                heard.append(self._kept(frame))
            try:
                await line.send(text)
            except HitstreamError as error:
                # There is no session, and the words it ended with may still be on their way to us.
                until = loop.time() + (_LAST_WORDS if isinstance(error, Unreachable) else 0.0)
                while (left := until - loop.time()) > 0 and (frame := await line.hear(left)) is not None:
                    heard.append(self._kept(frame))
                return Outcome(frames=tuple(heard), ended=str(error))
        # On a borrowed session the request may first wait its turn.
        until = loop.time() + within + (_QUEUED if text and line.borrowed else 0.0)
        while (left := until - loop.time()) > 0:
            frame = await line.hear(left)
            if frame is None:
                if line.ended:
                    break
                continue
            item = self._kept(frame)
            heard.append(item)
            if text and item.direction == "out" and item.text == text:
                until = loop.time() + within
            if item.received is not None and enough(item.received):
                return Outcome(frames=tuple(heard))
        return Outcome(frames=tuple(heard), ended=line.ended)

    # -- parts

    def _kept(self, frame: Frame) -> Seen:
        if len(self._frames) < _MOST_FRAMES:
            self._frames.append(frame)
        self._on_frame(frame)
        return seen(frame, self._speed if self._line is not None and self._line.borrowed else 1.0)

    def _since(self) -> float:
        return asyncio.get_running_loop().time() - self._begun

    def _masked(self, said: _Said) -> _Said:
        """A finding or verdict without secrets, whatever an error message may have quoted."""
        facts = {key: self._mask(value) if isinstance(value, str) else value for key, value in said.facts.items()}
        return msgspec.structs.replace(said, facts=facts)

    def _mask(self, text: str) -> str:
        return masked(text, *self._secrets)


def borrowing(case: Case, history: Iterable[Frame], states: Mapping[str, tuple[str, str]], speed: float) -> Case:
    """The case of a session that is the running producer's.

    Args:
        history: its frames so far.
        states: condition → (state, cause), as the producer has them.
        speed: of the clock that stamped the frames.
    """
    return replace(
        case,
        borrowed=True,
        history=tuple(seen(frame, speed) for frame in history),
        complaints={name: state for name, (state, _) in states.items() if state not in ("live", "resting")},
        fresh=case.fresh if any(state == "live" for state, _ in states.values()) else "free",
    )


def _is_event(frame: frames.Received) -> bool:
    return isinstance(frame, frames.Real) and any(isinstance(e, frames.ConditionEntry) for e in frame.entries)
