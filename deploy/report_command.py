"""`hitstream report`: a trading day on one page, from any ClickHouse that holds it."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from streams.events import KST, ConfigError, HitstreamError

from . import logs
from .account_commands import Config, Json, day_of
from .settings import LogSettings

Format = Literal["md", "html"]


def report(
    day: str = "",
    /,
    *,
    output: Annotated[Path | None, Parameter(name="--output")] = None,
    form: Annotated[Format | None, Parameter(name="--format")] = None,
    lang: Literal["ko", "en"] | None = None,
    days: int = 20,
    cost: float = 0.0,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """The day on one page: conditions and how their hits fared, the best and worst recommendations, what is missing.

    Parameters
    ----------
    day
        The trading day (2026-03-09); without it, the last one that is known.
    output
        File to write, replaced if it is there; without it, the page goes to standard output.
    form
        md or html; without it, what the file's name says, else md.
    lang
        Language of the words, instead of the locale's.
    days
        Trading days of the longer span that performance is also told of, about: one day gives no interval.
    cost
        What a purchase and its sale cost together, in percent.
    """
    from producers.calendar import calendar_of
    from producers.kiwoom.verdicts import language_of
    from sinks.clickhouse.connection import connect
    from sinks.report import html, markdown
    from sinks.report.reading import latest, read

    from .clock import clock_of
    from .up import beside

    if not 1 <= days <= 400:
        raise ConfigError("--days must be 1 to 400.")
    if not 0 <= cost <= 100:
        raise ConfigError("--cost must be 0 to 100: what a purchase and its sale cost together, in percent.")
    if as_json and form is not None:
        raise ConfigError("--json and --format do not go together.")
    wanted = day_of(day)
    shape = form or _form(output)
    logs.configure(LogSettings(level="warning"))
    settings = beside(config, "clickhouse.dsn")
    calendar = calendar_of(settings.kiwoom)
    now = clock_of(settings).now().astimezone(KST)
    client = connect(settings.clickhouse, create=False)
    try:
        asked = wanted or latest(client, now.date())
        hours = calendar.day(asked)
        found = read(
            client,
            asked,
            asked_at=now,
            closes=datetime.combine(
                asked, datetime.max.time() if calendar.always else (hours or calendar.hours).close, KST
            ),
            span=days,
            cost=cost,
            trading=None if calendar.always else hours is not None,
        )
    finally:
        client.close()
    if as_json:
        page = msgspec.json.encode(found).decode() + "\n"
    else:
        page = (html if shape == "html" else markdown).render(found, lang or language_of(os.environ))
    if output is None:
        sys.stdout.write(page)
        sys.stdout.flush()
        return 0
    try:
        fresh = output.with_name(f"{output.name}.{os.getpid()}.tmp")
        fresh.write_text(page, encoding="utf-8")
        fresh.replace(output)
    except OSError as error:
        raise HitstreamError(f"The report {output} cannot be written: {error.strerror}.") from None
    print(f"{output}: the report of {asked}", file=sys.stderr)  # noqa: T201
    return 0


def _form(output: Path | None) -> Format:
    kind = "" if output is None else output.suffix.lower()
    if kind in ("", ".md", ".markdown", ".txt", ".json"):
        return "md"
    if kind in (".html", ".htm"):
        return "html"
    raise ConfigError(f"{output} says no format by its name; end it with .md or .html, or give --format.")
