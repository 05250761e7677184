"""`hitstream bars`: a day's minute and daily bars, fetched by hand.

The running producer does it, so that its turns at Kiwoom and its memory of what is there are the only ones; where none
runs, this process does the same with the same memory, and holds the app key's lock meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from . import account_commands as account
from .account_commands import Config, Json
from .settings import Settings, bootstrap_of

if TYPE_CHECKING:
    from producers.day_bars import Progress


def bars(
    day: str = "",
    /,
    *,
    again: Annotated[bool, Parameter(name="--again", negative=())] = False,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Fetch the minute and daily bars of a day: of every stock that was hit, and of the fixed random sample.

    The running producer does it, as it does by itself after the close; it goes on if you leave with Ctrl-C. What is
    there already is not fetched again. Ends with 1 if something could not be had.

    Parameters
    ----------
    day
        The trading day (2026-03-09); without it, the last one.
    again
        Also what is there already.
    """
    settings = account._settings(config)
    bootstrap_of(settings)
    wanted = account.day_of(day)
    with _shown(as_json) as tell:
        progress = asyncio.run(_fetch(settings, wanted, again=again, tell=tell))
    if as_json:
        account._say(json.dumps(msgspec.to_builtins(progress), ensure_ascii=False))
    else:
        _conclude(progress)
    return 0 if progress.state in ("done", "partial") and not progress.failed else 1


async def _fetch(settings: Settings, day: date | None, *, again: bool, tell: Callable[[Progress], None]) -> Progress:
    from producers import control

    folder, key = account._folder(settings), account._key(settings)
    try:
        return await control.bars(folder, key, day, again=again, tell=tell)
    except control.NotRunning:
        return await _alone(settings, day, again=again, tell=tell)


async def _alone(settings: Settings, day: date | None, *, again: bool, tell: Callable[[Progress], None]) -> Progress:
    from producers import hit_codes
    from producers.bars import Bars
    from producers.calendar import calendar_of
    from producers.kiwoom.rest import Rest
    from producers.publisher import Publisher

    kiwoom, bootstrap = settings.kiwoom, settings.kafka.bootstrap_servers
    calendar = calendar_of(kiwoom)
    async with account._Access(settings, "hitstream bars") as access:
        access.lock()
        publisher = Publisher(bootstrap)
        await publisher.check()
        now = access.clock.now
        fetching = Bars(
            settings.bars,
            account=kiwoom.account,
            producer=account._key(settings),
            rest=Rest(access.http, access.tokens, rest_url=kiwoom.rest_url),
            kafka=publisher,
            codes=lambda since: hit_codes.codes(bootstrap, kiwoom.account, since, now),
            now=now,
            calendar=lambda: calendar,
            folder=settings.local.data_dir / "producer",
            speed=settings.clock.speed,
        )
        sending = asyncio.create_task(publisher.run(), name="publisher")
        try:
            progress = await fetching.once(day, again=again, tell=tell)
            async with asyncio.timeout(10.0):
                await publisher.flush()
            return progress
        finally:
            sending.cancel()
            await asyncio.wait((sending,))


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; nothing else where the answer is for a machine."""
    if as_json:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bars", total=None)

        def tell(progress: Any) -> None:
            done = progress.fetched + progress.empty + progress.failed
            bar.update(
                task,
                description=f"{progress.date} {progress.cause}".strip(),
                completed=done,
                total=progress.expected or None,
            )

        yield tell


def _conclude(progress: Progress) -> None:
    from producers.day_bars import words

    told = f"{progress.date}: {progress.bars:,} bars; {words(progress)}"
    account._say(f"{told} ({progress.hit} stocks hit, {progress.sample} in the sample)")
    if progress.cause:
        account._say(f"{progress.state}: {progress.cause}")
    for chart, cause in progress.failures:
        account._say(f"  {chart}: {cause}")
