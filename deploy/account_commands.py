"""`hitstream conditions`, `search` and `doctor`: what a person asks the account.

The commands' own part only: arguments and what is printed. All of them ask over the running producer's session, and log
in themselves only if no producer runs and the app key's lock is free – a second login would end the first's session.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from streams.events import KST, ConfigError, Frame, HitstreamError, SearchResult

from . import logs
from .clock import clock_of
from .files import unread
from .settings import LogSettings, Settings

if TYPE_CHECKING:
    from .doctor_view import View

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]

_HTTP_TIMEOUT = 10.0
_WIDE = 110  # Columns of a terminal that has room for every price of a stock.


def conditions(*, as_json: Json = False, config: Config = None) -> int:
    """The account's saved conditions, and which of them are configured."""
    settings = _settings(config)

    async def ask() -> tuple[tuple[str, str], ...]:
        from producers import searches

        async with _Access(settings, "hitstream conditions") as access:
            return await searches.conditions(await access.line())

    listed = asyncio.run(ask())
    wanted = {c.name.strip(): c.seq for c in settings.conditions}
    missing = [name for name in wanted if name not in {title for _, title in listed}]
    rows = [
        {"seq": seq, "name": name, "configured": name in wanted and wanted[name] in ("", seq)} for seq, name in listed
    ]
    if as_json:
        _say(json.dumps({"conditions": rows, "missing": missing}, ensure_ascii=False))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("seq", "condition", "configured")
        for row in rows:
            table.add_row(str(row["seq"]), str(row["name"]), "✓" if row["configured"] else "")
        Console().print(table)
        for name in missing:
            _say(f"Configured, but the account has no condition of this name: {name}")
    return 1 if missing else 0


def search(name: str, /, *, as_json: Json = False, config: Config = None) -> int:
    """Search one condition once, with prices.

    Parameters
    ----------
    name
        The condition's name in the HTS.
    """
    settings = _settings(config)
    seq = next((c.seq for c in settings.conditions if c.name == name), "")

    async def ask() -> SearchResult:
        from producers import searches
        from producers.kiwoom.rest import Rest

        async with _Access(settings, "hitstream search") as access:
            line = await access.line()
            rest = Rest(access.http, access.tokens, rest_url=settings.kiwoom.rest_url)
            return await searches.search(
                line,
                name,
                account=settings.kiwoom.account,
                now=access.clock.now,
                rest=rest,
                seq=seq,
                stex_tp=settings.kiwoom.stex_tp,
            )

    result = asyncio.run(ask())
    if as_json:
        _say(msgspec.json.encode(result).decode())
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    # What a narrow terminal has no room for is left out rather than cut off.
    names = ["price", "change", "rate %", "open", "high", "low", "volume"]
    shown = [n for n in names if console.width >= _WIDE or n in ("price", "rate %", "volume")]
    table = Table("code", title=f"{name}  {result.at.astimezone(KST):%Y-%m-%d %H:%M:%S} KST")
    table.add_column("name", no_wrap=True)
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.rows:
        numbers = dict(
            zip(names, (row.price, row.change, row.change_rate, row.open, row.high, row.low, row.volume), strict=True)
        )
        rate = row.change_rate or 0.0
        style = "red" if rate > 0 else "blue" if rate < 0 else ""  # as in Korea
        table.add_row(row.code, Text(row.name), *(Text(_number(numbers[n]), style=style) for n in shown))
    console.print(table)
    if result.source == "snapshot":
        _say(
            "The one-shot search was not answered: these are the members of the realtime snapshot, with prices of now."
        )
    _say(f"{len(result.rows)} stocks")
    return 0


def doctor(
    name: str = "",
    /,
    *,
    as_json: Json = False,
    trace: Annotated[bool, Parameter(name="--trace", negative=())] = False,
    bundle: Path | None = None,
    lang: Literal["ko", "en"] | None = None,
    observe: float = 20.0,
    fresh: Annotated[bool, Parameter(name="--fresh", negative=())] = False,
    second_key_file: Path | None = None,
    config: Config = None,
) -> int:
    """Say what is wrong with the condition search, how sure that is, and what to do.

    Runs over the running producer's session, and logs in itself only if none runs. What is live there is not
    interrupted, unless --fresh allows it; where nothing is live, a fresh connection is taken without asking.

    Parameters
    ----------
    name
        The one condition to examine; without it, those that are configured.
    trace
        Print every frame with its time and direction, secrets masked.
    bundle
        Write the masked evidence for the broker's support into this zip file.
    lang
        Language of the words, instead of the locale's.
    observe
        Seconds to listen for events.
    fresh
        Let the running producer end its session in good order for some seconds and open a fresh one, if only that can
        tell what is wrong. What happens meanwhile is told as a gap.
    second_key_file
        File with a second app key and its secret key, one a line: tells a withdrawn right from a server that is down.
    """
    from rich.console import Console

    from producers.kiwoom import verdicts
    from producers.kiwoom.doctor import GOOD

    from .doctor_view import View

    settings = _settings(config, complete=False)
    language = lang or verdicts.language_of(os.environ)
    if not 0 < observe <= 3600:
        raise ConfigError("--observe must be above 0 and at most 3600.")
    second = _second_key(second_key_file)

    def show_frame(frame: Frame) -> None:
        arrow = "←" if frame.direction == "in" else "→"
        print(f"{frame.at.astimezone(KST):%H:%M:%S.%f} {arrow} {frame.text}", file=sys.stderr, flush=True)  # noqa: T201

    view = None if as_json else View(Console(highlight=False), language, waiting=not trace)
    try:
        done, stranded = asyncio.run(
            _diagnose(
                settings,
                name,
                observe=observe,
                fresh=fresh,
                second=second,
                view=view,
                on_frame=show_frame if trace else (lambda _: None),
            )
        )
    finally:
        if view is not None:
            view.close()
    verdict = done.verdict
    if bundle is not None:
        _write_bundle(bundle, done, settings)
    if as_json:
        words = {
            "title": verdicts.title(verdict.cause, language),
            "wrong": verdicts.wrong(verdict, language),
            "remedy": verdicts.remedy(verdict, language),
            "decides": verdicts.surer(verdict, language),
        }
        told: dict[str, Any] = msgspec.to_builtins(verdict)
        told |= {**words, "good": verdict.cause in GOOD, "seconds": done.seconds, "borrowed": done.borrowed}
        told["stranded"] = stranded
        told["findings"] = [
            {
                "after": s.after,
                "stage": s.finding.stage,
                "ok": s.finding.ok,
                "words": verdicts.said(s.finding, language),
            }
            for s in done.findings
        ]
        if trace:
            told["frames"] = msgspec.to_builtins(done.frames)
        _say(json.dumps(told, ensure_ascii=False, default=str))
    if view is not None:
        view.concludes(done, bundle, stranded=stranded or 0)
    return 0 if verdict.cause in GOOD else 1


async def _diagnose(settings: Settings, name: str, **how: Any) -> tuple[Any, int | None]:
    """The examination, and how many of the running producer's records Kafka does not take then; None: none runs."""
    from producers.control import NotRunning, look

    done = await _examine(settings, name, **how)
    if not done.borrowed:
        return done, None
    try:
        return done, (await look(_folder(settings), _key(settings))).stranded
    except NotRunning:
        return done, None


async def _examine(
    settings: Settings,
    name: str,
    *,
    observe: float,
    fresh: bool,
    second: tuple[str, str] | None,
    view: View | None,
    on_frame: Any,
) -> Any:
    from producers.calendar import calendar_of
    from producers.control import NotRunning, attach
    from producers.kiwoom.doctor import Case
    from producers.kiwoom.examination import Examiner, borrowing

    kiwoom = settings.kiwoom
    clock = clock_of(settings)
    calendar = calendar_of(kiwoom)
    case = Case(
        wanted=tuple((c.name, c.seq) for c in settings.conditions),
        only=name,
        stex_tp=kiwoom.stex_tp,
        problems=tuple(_problems(settings)),
        hours=calendar.phase(clock.now()),
        fresh="asked" if fresh else "",
        observe=observe,
        pause=kiwoom.login_pause,
        second_key=second is not None,
    )
    shown: dict[str, Any] = {"on_frame": on_frame, "secrets": _secrets(settings, second)}
    if view is not None:
        shown |= {"on_finding": view.found, "on_step": view.step}
    if case.problems:
        return await Examiner(case, url="", tokens=None, **shown).run()
    folder, key = _folder(settings), _key(settings)
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(_Access(settings, "hitstream doctor"))
        shown |= {"url": kiwoom.websocket_url, "tokens": access.tokens, "spacing": kiwoom.send_spacing}
        if second is not None:
            shown |= await access.second(*second)
        if view is not None:
            view.asking()
        try:
            line = await stack.enter_async_context(attach(folder, key))
        except NotRunning:
            access.lock()
            if view is not None:
                view.begins(borrowed=False)
            return await Examiner(case, **shown).run()
        if view is not None:
            view.begins(borrowed=True)
        said = line.view
        state, cause = said.session
        case = replace(
            borrowing(case, line.history, said.states, said.speed),
            connected=said.asking,
            session=f"{state}: {cause}" if cause else state,
        )
        how: Literal["free", "anyway"] = "free" if case.fresh == "free" and not fresh else "anyway"
        return await Examiner(
            case, line=line, fresh=lambda: attach(folder, key, fresh=how), speed=said.speed, **shown
        ).run()


def _write_bundle(path: Path, done: Any, settings: Settings) -> None:
    """The evidence for the broker's support: what was asked and answered, frame by frame, without a secret."""
    from producers.kiwoom import verdicts

    values = settings.model_dump(mode="json")["kiwoom"]
    words = []
    for language in ("ko", "en"):
        words += [f"{verdicts.name(done.verdict.cause)} – {verdicts.sure(done.verdict.sure, language)}"]
        words += [verdicts.wrong(done.verdict, language), verdicts.remedy(done.verdict, language), ""]
        words += [f"{s.after:8.3f} s  {verdicts.said(s.finding, language)}" for s in done.findings]
        words += [""]
    about = {"product": "hitstream", "version": version("hitstream"), "python": sys.version, "kiwoom": values}
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("verdict.txt", "\n".join(words))
            file.writestr("examination.json", msgspec.json.format(msgspec.json.encode(done)))
            file.writestr("frames.jsonl", b"\n".join(msgspec.json.encode(frame) for frame in done.frames))
            file.writestr("about.json", json.dumps(about, ensure_ascii=False, indent=2))
    except OSError as error:
        raise HitstreamError(f"The bundle {path} cannot be written: {error.strerror}.") from None


# --- access to the account --------------------------------------------------------------------------------------------


class _Access:
    """The account, for one command: tokens, and one line – the running producer's session, or a login of our own."""

    def __init__(self, settings: Settings, who: str) -> None:
        self._settings = settings
        self._who = who
        self._stack = AsyncExitStack()
        self.clock = clock_of(settings)

    async def __aenter__(self) -> _Access:
        import httpx

        self.http = await self._stack.enter_async_context(httpx.AsyncClient(timeout=_HTTP_TIMEOUT))
        kiwoom = self._settings.kiwoom
        self.tokens = self.others(kiwoom.app_key.get_secret_value(), kiwoom.secret_key.get_secret_value())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def second(self, app_key: str, secret_key: str) -> dict[str, Any]:
        """How the doctor gets at a second app key: over the session of the producer that runs with it, else by a token.

        Raises:
            KeyInUse: something else is logged in with it.
        """
        from producers.control import NotRunning, attach, look
        from producers.kiwoom.lock import login_lock
        from producers.kiwoom.token import short_name

        folder, key = _folder(self._settings), short_name(app_key)
        try:
            await look(folder, key)
        except NotRunning:
            self._stack.enter_context(login_lock(folder, key, self._who))
            return {"second": self.others(app_key, secret_key)}
        return {"second_line": lambda: attach(folder, key)}

    def others(self, app_key: str, secret_key: str) -> Any:
        """The tokens of an app key."""
        from pydantic import SecretStr

        from producers.kiwoom.token import Tokens

        return Tokens(
            self.http,
            rest_url=self._settings.kiwoom.rest_url,
            app_key=SecretStr(app_key),
            secret_key=SecretStr(secret_key),
            now=self.clock.now,
            folder=_folder(self._settings),
        )

    async def line(self) -> Any:
        """The session to ask.

        Raises:
            HitstreamError: the running producer has none at the moment, or there is none to be had.
        """
        from producers.control import NotRunning, attach
        from producers.kiwoom.line import logged_in

        kiwoom = self._settings.kiwoom
        try:
            attached = await self._stack.enter_async_context(attach(_folder(self._settings), _key(self._settings)))
        except NotRunning:
            self.lock()
            return await self._stack.enter_async_context(
                logged_in(
                    kiwoom.websocket_url,
                    self.tokens,
                    secrets=_secrets(self._settings, None),
                    spacing=kiwoom.send_spacing,
                    pause=kiwoom.login_pause,
                )
            )
        if not attached.view.asking:
            state, cause = attached.view.session
            why = f" ({cause})" if cause else ""
            raise HitstreamError(f"the running producer's session is {state}{why}: `hitstream doctor` says more")
        return attached

    def lock(self) -> None:
        """Be the only one who logs in with the app key.

        Raises:
            KeyInUse: another process does.
        """
        from producers.kiwoom.lock import login_lock

        self._stack.enter_context(login_lock(_folder(self._settings), _key(self._settings), self._who))


def day_of(text: str) -> date | None:
    """The day that an argument names; None if it is empty.

    Raises:
        ConfigError: it is no day.
    """
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no day; write it as 2026-03-09.") from None


def _settings(config: Path | None, *, complete: bool = True) -> Settings:
    """What is in force, also beside a running `up`."""
    from .up import beside

    # What a role would log goes to stderr, and only where it matters: stdout is the command's answer.
    logs.configure(LogSettings(level="warning"))
    settings = beside(config, "kiwoom.rest_url")
    if complete and (problems := _problems(settings)):
        raise ConfigError(f"{problems[0]}; put it into hitstream.toml or the environment.")
    return settings


def _problems(settings: Settings) -> list[str]:
    kiwoom = settings.kiwoom
    values = {
        "kiwoom.rest_url": kiwoom.rest_url,
        "kiwoom.websocket_url": kiwoom.websocket_url,
        "kiwoom.app_key": kiwoom.app_key.get_secret_value(),
        "kiwoom.secret_key": kiwoom.secret_key.get_secret_value(),
    }
    return [f"{name} is not set" for name, value in values.items() if not value]


def _second_key(file: Path | None) -> tuple[str, str] | None:
    if file is None:
        return None
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--second-key-file {file} cannot be read: {unread(error)}.") from None
    if len(lines) != 2:
        raise ConfigError(f"--second-key-file {file} must hold an app key and its secret key, one a line.")
    return lines[0], lines[1]


def _secrets(settings: Settings, second: tuple[str, str] | None) -> Sequence[str]:
    kiwoom = settings.kiwoom
    return [kiwoom.app_key.get_secret_value(), kiwoom.secret_key.get_secret_value(), *(second or ())]


def _folder(settings: Settings) -> Path:
    from producers.kiwoom.lock import state_folder

    return state_folder(settings.kiwoom.state_dir, settings.kiwoom.websocket_url)


def _key(settings: Settings) -> str:
    from producers.kiwoom.token import short_name

    return short_name(settings.kiwoom.app_key.get_secret_value())


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.2f}" if isinstance(value, float) else f"{value:,}"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
