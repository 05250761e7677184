"""`hitstream dead-letters`: what could not be read or applied, one letter of it, and sending it back.

The command's own part only: arguments, questions, what is printed. What a letter has become and how it is sent back is
`dead_letters`' business.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from cyclopts import App, Parameter

from streams.events import KST, ConfigError, DeadLetter, HitstreamError, Redrive
from streams.letters import COMPONENT as STREAM

from . import logs
from .clock import Clock, clock_of
from .dead_letters import Entry, Post, Sent, Verdict, chosen, find, is_of_the_past, judge, post
from .settings import LogSettings, Settings, bootstrap_of

dead_letters = App(name="dead-letters", help="What could not be read or applied: list, show, send back.")

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]
Topic = Annotated[str, Parameter(name="--topic", help="Only of this source topic, e.g. condition-events.")]
Component = Annotated[str, Parameter(name="--component", help="Only of this component: stream, clickhouse-sink.")]
Reason = Annotated[str, Parameter(name="--reason", help="Only of this class of reason, or with this in its words.")]
Since = Annotated[datetime | None, Parameter(name="--since", help="Only since this moment (KST unless it says).")]
Flag = Parameter(negative=())

SHOWN_ID: Final = 12
SHOWN_BYTES: Final = 4096
_CLICKHOUSE: Final = "clickhouse-sink"


@dead_letters.default
def listing(
    *,
    topic: Topic = "",
    component: Component = "",
    reason: Reason = "",
    since: Since = None,
    limit: Annotated[int, Parameter(name="--limit", help="Newest lines of the table.")] = 50,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """List the dead letters that are kept (30 days), and what became of each.

    The words: `waiting`; `unfinished`, somebody began to send it back; `redriven`, it is back; `failed-again`, it is
    back and has become another dead letter.
    """
    if limit < 1:
        raise ConfigError("--limit must be at least 1.")
    entries = chosen(
        asyncio.run(_read(_settings(config))), topic=topic, component=component, reason=reason, since=_aware(since)
    )
    if as_json:
        _say(json.dumps({"letters": [_plain(entry) for entry in entries]}, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not entries:
        _say(
            "There is no dead letter."
            if not (topic or component or reason or since)
            else "No dead letter is like that."
        )
        return 0
    table = Table("id", "at", "component", "place", "class", "reason", "state")
    for entry in entries[-limit:]:
        letter = entry.letter
        table.add_row(
            letter.id[:SHOWN_ID],
            _time(letter.at),
            letter.component,
            Text(_place(letter)),
            letter.cause,
            Text(letter.reason, overflow="ellipsis", no_wrap=True),
            Text(entry.state, style="yellow" if entry.open else "dim"),
        )
    Console().print(table)
    waiting = sum(entry.open for entry in entries)
    _say(f"{len(entries)} dead letter(s), {waiting} waiting" + (f"; the newest {limit} shown" * (len(entries) > limit)))
    return 0


@dead_letters.command
def show(id_: Annotated[str, Parameter(name="id")], /, *, as_json: Json = False, config: Config = None) -> int:
    """Show one dead letter: its place, why it failed, its untouched bytes, and what reading them comes to now.

    Parameters
    ----------
    id_
        Its id, or the beginning of it.
    """

    async def fetch() -> tuple[Entry, bytes | None]:
        async with post(bootstrap_of(_settings(config))) as connection:
            entry = find(await connection.read(), id_)
            return entry, await connection.value(entry.letter)

    entry, value = asyncio.run(fetch())
    letter, verdict = entry.letter, judge(entry.letter.topic, value)
    if as_json:
        now = {"readable": verdict.record is not None, "reason": verdict.reason, "key": _text(verdict.key)}
        _say(json.dumps(_plain(entry) | {"value": _base64(value), "now": now}, ensure_ascii=False))
        return 0
    size = "no value" if value is None else f"{len(value)} bytes"
    lines = {
        "id": letter.id,
        "place": _place(letter),
        "at": f"{_time(letter.at)} KST",
        "component": letter.component,
        "reason": f"{letter.cause}: {letter.reason}" if letter.cause else letter.reason,
        "key": _text(letter.key),
        "state": entry.state,
        **{f"sent back ({n})": _redrive(redrive) for n, redrive in enumerate(entry.redrives, 1)},
        **({"again as": ", ".join(entry.again)} if entry.again else {}),
        **({"is of": letter.redriven} if letter.redriven else {}),
        "now": _now(letter, verdict),
        "value": f"{size}, only at its place" if letter.omitted else size,
    }
    for name, text in lines.items():
        _say(f"{name:<14}{text}")
    if value is not None:
        _say("\n" + _dump(value))
    return 0


@dead_letters.command
def redrive(
    *ids: str,
    every: Annotated[bool, Parameter(name="--all", negative=(), help="All that wait and can be read now.")] = False,
    topic: Topic = "",
    component: Component = "",
    reason: Reason = "",
    since: Since = None,
    again: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Parameter(name="--dry-run", negative=())] = False,
    yes: Annotated[bool, Flag] = False,
    as_json: Json = False,
    config: Config = None,
) -> int:
    """Send dead letters back to where they failed: the streams' to their topic, ClickHouse's to ClickHouse.

    Ends with 1 if one that was chosen could not be sent back.

    Parameters
    ----------
    ids
        Their ids, or the beginnings of them; or choose with --all, or with one of the filters.
    again
        Also what was sent back before.
    dry_run
        Say what would happen, and change nothing.
    yes
        Do not ask.
    """
    filtered = bool(topic or component or reason or since)
    if bool(ids) == (every or filtered):
        raise ConfigError("Say which: either ids, or --all, or --topic, --component, --reason, --since.")
    settings = _settings(config)
    clock = clock_of(settings)

    async def run() -> int:
        async with post(bootstrap_of(settings)) as connection:
            entries = await connection.read()
            if ids:
                picked = list({entry.letter.id: entry for entry in (find(entries, i) for i in ids)}.values())
                for entry in picked:
                    if not entry.open and not again:
                        raise ConfigError(
                            f"{entry.letter.id[:SHOWN_ID]} was sent back already; --again sends it once more."
                        )
                opened = [await _open(connection, entry) for entry in picked]
            else:
                like = chosen(entries, topic=topic, component=component, reason=reason, since=_aware(since))
                opened = [await _open(connection, entry) for entry in like if entry.open or again]
                left = [one for one in opened if one.verdict.record is None]
                opened = [one for one in opened if one.verdict.record is not None]
                if left and not as_json:
                    _say(f"{len(left)} still can't be read and stay; name one by its id to send it all the same.")
            if dry_run:
                return _plan(opened, clock, as_json)
            picked = [one.entry for one in opened]
            if picked and not ids and not yes:
                _ask(len(picked))
            if any(e.letter.component == _CLICKHOUSE for e in picked) and not settings.clickhouse.dsn:
                raise ConfigError(
                    "clickhouse.dsn is not set, and ClickHouse has refused some of them; put it into hitstream.toml or "
                    "HITSTREAM_CLICKHOUSE__DSN, or choose others with --component stream."
                )
            now = clock.now()
            sent = await connection.redrive([e for e in picked if e.letter.component == STREAM], now)
            stored, taken = await _store(settings, [one for one in opened if one.entry.letter.component != STREAM])
            if taken:
                await connection.mark(taken, now)
            return _told([*sent, *stored], as_json)

    return asyncio.run(run())


class _Opened(NamedTuple):
    """A letter with the bytes that it is of, and what reading them comes to now."""

    entry: Entry
    value: bytes | None
    verdict: Verdict


async def _open(connection: Post, entry: Entry) -> _Opened:
    value = await connection.value(entry.letter)
    return _Opened(entry, value, judge(entry.letter.topic, value))


async def _store(settings: Settings, opened: Sequence[_Opened]) -> tuple[list[Sent], list[DeadLetter]]:
    """Hand to ClickHouse what it had refused; the outcomes, and the letters that it took."""
    from aiokafka import ConsumerRecord

    from sinks.clickhouse.writer import insert_again
    from sinks.consumer import Received

    outcomes: list[Sent] = []
    received: list[tuple[DeadLetter, Received]] = []
    for entry, value, verdict in opened:
        letter = entry.letter
        if letter.component != _CLICKHOUSE:
            why = f"nobody takes back what {letter.component} left"
            outcomes.append(Sent(letter.id, "failed", letter.topic, reason=why))
        elif verdict.record is None:
            why = f"it still can't be read: {verdict.reason}"
            outcomes.append(Sent(letter.id, "failed", letter.topic, reason=why))
        else:
            place = (letter.topic, letter.partition, letter.offset)
            source = ConsumerRecord(*place, 0, 0, letter.key, value, None, 0, 0, ())
            received.append((letter, Received(verdict.record, source)))
    if not received:
        return outcomes, []
    try:
        refused = await insert_again(settings.clickhouse, [one for _, one in received])
    except HitstreamError as error:  # what went back to a topic is told all the same
        return outcomes + [Sent(letter.id, "failed", letter.topic, reason=str(error)) for letter, _ in received], []
    reasons = {(r.source.topic, r.source.partition, r.source.offset): r.reason for r in refused}
    taken = []
    for letter, _ in received:
        reason = reasons.get((letter.topic, letter.partition, letter.offset))
        if reason is None:
            taken.append(letter)
            outcomes.append(Sent(letter.id, "sent", "ClickHouse"))
        else:
            outcomes.append(Sent(letter.id, "failed", letter.topic, reason=f"ClickHouse refuses it again: {reason}"))
    return outcomes, taken


def _plan(opened: Sequence[_Opened], clock: Clock, as_json: bool) -> int:
    """Say what would be sent back, and what would come of it as far as that can be known."""
    plans = []
    for entry, value, verdict in opened:
        letter = entry.letter
        target = letter.topic if letter.component == STREAM else "ClickHouse"
        plans.append({"id": letter.id, "to": target, "remark": _remark(letter, value, verdict, clock.now())})
    if as_json:
        _say(json.dumps({"would_send": plans}, ensure_ascii=False))
        return 0
    for plan in plans:
        _say(f"{plan['id'][:SHOWN_ID]}  → {plan['to']}" + (f": {plan['remark']}" if plan["remark"] else ""))
    _say(f"{len(plans)} would be sent back; nothing was changed.")
    return 0


def _remark(letter: DeadLetter, value: bytes | None, verdict: Verdict, now: datetime) -> str:
    if value is None:
        return "there is nothing to send"
    if verdict.record is None:
        return f"still can't be read, and will fail again: {verdict.reason}"
    if letter.component != STREAM:
        return ""
    if is_of_the_past(verdict.record, now):
        return "its trading date is over: the streams will call it late, and it will change nothing"
    key = f", under its right key {_text(verdict.key)}" if letter.key != verdict.key else ""
    return f"behind what was said since{key}"


def _ask(count: int) -> None:
    """Let a person confirm a choice that names no letter."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{count} dead letter(s) would be sent back; say --yes where nobody can be asked.")
    if input(f"Send {count} dead letter(s) back? [y/N] ").strip().casefold() not in ("y", "yes"):
        raise HitstreamError("nothing was sent back.")


def _told(sent: Sequence[Sent], as_json: bool) -> int:
    failed = sum(one.outcome == "failed" for one in sent)
    if as_json:
        _say(msgspec.json.encode({"redriven": sent, "failed": failed}).decode())
        return 1 if failed else 0
    words = {"sent": "sent back to", "arrived": "had arrived in", "left": "left:", "failed": "not sent back:"}
    for one in sent:
        place = one.topic if one.offset is None else f"{one.topic}/{one.partition} at {one.offset}"
        _say(f"{one.letter_id[:SHOWN_ID]}  {words[one.outcome]} {one.reason or place}")
    _say(f"{len(sent) - failed} of {len(sent)} sent back." if sent else "There is nothing to send back.")
    return 1 if failed else 0


# --- words ------------------------------------------------------------------------------------------------------------


def _plain(entry: Entry) -> dict[str, Any]:
    letter: dict[str, Any] = msgspec.to_builtins(entry.letter)
    return letter | {
        "key_text": _text(entry.letter.key),
        "state": entry.state,
        "redrives": msgspec.to_builtins(entry.redrives),
        "again": list(entry.again),
    }


def _now(letter: DeadLetter, verdict: Verdict) -> str:
    if verdict.record is None:
        return f"still can't be read: {verdict.reason}"
    said = f"can be read: {type(verdict.record).__name__} under the key {_text(verdict.key)}"
    if letter.cause in ("failed", "unfit"):
        said += "; whether it can be applied shows when it is sent back"
    return said


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}/{letter.partition} at {letter.offset}"


def _redrive(redrive: Redrive) -> str:
    if not redrive.done:
        return f"{_time(redrive.at)} KST: begun, not known to have arrived"
    where = "to ClickHouse" if redrive.offset is None else f"to {redrive.topic}/{redrive.partition} at {redrive.offset}"
    return f"{_time(redrive.at)} KST {where}"


def _dump(value: bytes) -> str:
    """The bytes as text where they are text, else as hex with what can be printed beside it."""
    head, more = value[:SHOWN_BYTES], len(value) - SHOWN_BYTES
    try:
        text = head.decode() if more <= 0 else head.decode(errors="ignore")
        if text.isprintable() or all(c.isprintable() or c in "\n\t\r" for c in text):
            return text + (f"\n… {more} more bytes (--json has all)" if more > 0 else "")
    except UnicodeDecodeError:
        pass
    rows = []
    for start in range(0, len(head), 16):
        row = head[start : start + 16]
        printed = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        rows.append(f"{start:08x}  {row.hex(' '):<47}  {printed}")
    return "\n".join(rows) + (f"\n… {more} more bytes (--json has all)" if more > 0 else "")


def _text(key: bytes | None) -> str:
    if key is None:
        return "(none)"
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
    return text if text.isprintable() else f"0x{key.hex()}"


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _time(at: datetime) -> str:
    return f"{at.astimezone(KST):%Y-%m-%d %H:%M:%S}"


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=KST) if moment is not None and moment.tzinfo is None else moment


async def _read(settings: Settings) -> list[Entry]:
    async with post(bootstrap_of(settings)) as connection:
        return await connection.read()


def _settings(config: Path | None) -> Settings:
    from .up import beside

    logs.configure(LogSettings(), least="error")
    return beside(config, "kafka.bootstrap_servers")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
