"""`hitstream status`: what every component last said of itself, and how long ago.

Read from the `status` topic and from nothing else, so it works wherever Kafka can be reached. Words are chosen with
care: a *quiet* subscription is live and has nothing to say; a *silent* component has stopped saying how it is, which
is how a dead one looks from here; a *stuck* one says that it works, and gets nothing done of what waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import msgspec
from cyclopts import Parameter

from streams import topics
from streams.events import HitstreamError, Status

from . import logs
from .clock import clock_of
from .settings import LogSettings, bootstrap_of

Config = Annotated[Path | None, Parameter(name="--config", help="Settings file (default: ./hitstream.toml).")]

SILENT_AFTER: Final = 20.0
"""Real seconds without a word after which a component counts as silent; each says how it is every five."""

STUCK_AFTER: Final = 20.0
"""Real seconds without progress after which a worker or sink that says `working` is stuck, if anything waits for it."""

QUIET_AFTER: Final = 60.0
"""Seconds of the market's clock without a hit or exit after which a live subscription is called quiet."""

FORGOTTEN_AFTER: Final = timedelta(days=1)

_FINE: Final = {
    "session": {"live", "resting"},
    "subscription": {"live", "resting"},
    "worker": {"working"},
    "sink": {"working", "live"},
    "diagnosis": {"healthy", "quiet", "ready", "scheduled", "running", "done", "standby", "partial"},
}


class Line(NamedTuple):
    """One component, judged.

    `age`: real seconds since it spoke. `stalled`: real seconds without progress, when it spoke; 0 unless it is stuck.
    """

    status: Status
    word: str
    age: float
    fine: bool
    stalled: float = 0.0


def judge(statuses: Iterable[Status], now: datetime, speed: float = 1.0) -> list[Line]:
    """What each component is, at a moment.

    Args:
        now: of the product's clock; `speed` its seconds per real second.

    A standby's trouble is nobody's trouble: where one of several producers of a condition is live, the condition is;
    where one of several processes of a role works, the role does. One that is stuck is everybody's: it keeps the
    partitions that it has, and nobody else takes what waits in them.
    """
    lines: list[Line] = []
    for status in statuses:
        if status.state == "retired":
            continue
        age = max(0.0, (now - status.at).total_seconds() / speed)
        if now - status.at > FORGOTTEN_AFTER and age > SILENT_AFTER:
            continue
        word = status.state
        fine, stalled = status.state in _FINE.get(status.kind, set()), 0.0
        if status.kind == "diagnosis":
            pass  # It says how it is only when it runs.
        elif age > SILENT_AFTER and status.cause != "stopped":
            word, fine = "silent", False
        elif (
            status.kind == "subscription" and status.state == "live" and status.figures.get("quiet", 0.0) > QUIET_AFTER
        ):
            word = "quiet"
        elif (stalled := _stalled(status, speed)) > STUCK_AFTER:
            word, fine = "stuck", False
        lines.append(Line(status, word, age, fine, stalled if word == "stuck" else 0.0))
    covered = {_what(line.status) for line in lines if line.fine}
    return [line._replace(fine=line.fine or (line.word != "stuck" and _what(line.status) in covered)) for line in lines]


def _stalled(status: Status, speed: float) -> float:
    """Real seconds for which a role that says `working` has got nothing done of what waits for it.

    Counted to the moment at which it said so: how long ago that is, is another matter (`age`).
    """
    waits = status.kind in ("worker", "sink") and status.state == "working" and status.figures.get("lag", 0.0) > 0
    if not waits or status.proof_of_life is None:
        return 0.0
    return (status.at - status.proof_of_life).total_seconds() / speed


def _what(status: Status) -> tuple[str, str, str]:
    """What several producers of a condition, or several processes of a role, have in common."""
    match status.kind:
        case "session" | "subscription":
            return (status.kind, status.account, status.condition)
        case "worker" | "sink":
            return (status.kind, status.component.rpartition("/")[0], "")
        case _:
            return (status.kind, status.component, "")


async def read(bootstrap_servers: str, within: float = 15.0) -> list[Status]:
    """The last status of every component.

    Raises:
        HitstreamError: Kafka does not answer.
    """
    last: dict[str, Status] = {}
    try:
        async with asyncio.timeout(within):
            async for status in _all(bootstrap_servers):
                last[status.component] = status
    except TimeoutError:
        raise HitstreamError(
            f"Kafka does not answer at {bootstrap_servers}: start it, or correct kafka.bootstrap_servers."
        ) from None
    return [last[name] for name in sorted(last)]


async def _all(bootstrap_servers: str) -> Any:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    from streams import clients

    consumer = AIOKafkaConsumer(
        topics.STATUS.name, bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest"
    )
    decoder = msgspec.json.Decoder(Status)
    try:
        try:
            await consumer.start()
        except (KafkaError, OSError):
            raise TimeoutError from None
        parts = list(consumer.assignment())
        if not parts:
            raise HitstreamError("Kafka has no topic for statuses: run `hitstream topics` first.")
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(*parts, timeout_ms=200)).values():
                for record in records:
                    if record.value:
                        try:
                            yield decoder.decode(record.value)
                        except msgspec.MsgspecError:
                            continue
    finally:
        await clients.stop(consumer)


def status(
    *,
    watch: Annotated[bool, Parameter(name="--watch", negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")] = False,
    lang: Literal["ko", "en"] | None = None,
    config: Config = None,
) -> int:
    """Every component and subscription: its state, since when, why, and how old that knowledge is.

    Ends with 1 if something is not live.

    Parameters
    ----------
    watch
        Stay, and show it anew every two seconds, until Ctrl-C.
    lang
        Language of the words, instead of the locale's.
    """
    from producers.kiwoom.verdicts import language_of
    from streams.events import ConfigError

    from .up import beside

    # Kafka's client tells of every connection that it tries in vain; the answer is one sentence.
    logs.configure(LogSettings(), least="error")
    settings = beside(config, "kafka.bootstrap_servers")
    bootstrap = bootstrap_of(settings)
    if watch and as_json:
        raise ConfigError("--watch and --json do not go together.")
    clock = clock_of(settings)

    korean = (lang or language_of(os.environ)) == "ko"

    def look() -> list[Line]:
        return judge(asyncio.run(read(bootstrap)), clock.now(), clock.speed)

    def shown() -> Any:
        try:
            return _view(look(), clock.now(), korean=korean)
        except HitstreamError as error:
            return str(error)  # It may come back, and somebody is watching.

    if watch:
        import time

        from rich.live import Live

        with Live(refresh_per_second=4, screen=True) as live:
            while True:
                live.update(shown())
                time.sleep(2.0)
    lines = look()
    if as_json:
        rows = [
            msgspec.to_builtins(line.status)
            | {"word": line.word, "age": round(line.age, 1), "stalled": round(line.stalled, 1), "fine": line.fine}
            for line in lines
        ]
        fine = bool(rows) and all(line.fine for line in lines)
        print(json.dumps({"fine": fine, "components": rows}, ensure_ascii=False), flush=True)  # noqa: T201
    else:
        from rich.console import Console

        Console(highlight=False).print(_view(lines, clock.now(), korean=korean))
    return 0 if lines and all(line.fine for line in lines) else 1


_ORDER: Final = ("session", "subscription", "diagnosis", "worker", "sink")
_NARROW: Final = 100  # Columns of a terminal that has no room for more than state, since and cause.

_KINDS: Final = {"session": "세션", "subscription": "조건", "diagnosis": "진단", "worker": "스트림", "sink": "싱크"}
_STATES: Final = {
    "live": "수신 중",
    "quiet": "조용함",
    "silent": "소식 끊김",
    "stuck": "멈춰 있음",
    "disconnected": "연결 끊김",
    "connecting": "연결 중",
    "login": "로그인 중",
    "listing": "목록 확인 중",
    "requested": "요청함",
    "refused": "거부됨",
    "unanswered": "응답 없음",
    "missing": "목록에 없음",
    "displaced": "밀려남",
    "resting": "휴식",
    "running": "실행 중",
    "ready": "준비됨",
    "scheduled": "예약됨",
    "done": "완료",
    "standby": "대기",
    "partial": "장중까지",
    "incomplete": "일부 없음",
    "failed": "실패",
    "missed": "놓침",
    "starting": "시작 중",
    "working": "정상",
    "waiting": "기다리는 중",
    "stopped": "멈춤",
}
_HEADS: Final = {
    "": "", "state": "상태", "since": "부터", "alive": "생존 확인", "members": "현재", "lag": "지연", "cause": "까닭",
}  # fmt: skip


def _view(lines: list[Line], now: datetime, *, korean: bool) -> Any:
    """The components for a person: those of a kind together, and one line that says whether somebody is needed."""
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    if not lines:
        return Text("아직 소식이 없습니다: 수집기가 실행 중인지 확인하세요." if korean else
                    "No component has said anything: is a producer running?")  # fmt: skip
    wide = Console().width >= _NARROW
    heads = [head for head in _HEADS if wide or head not in ("alive", "members", "lag")]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in heads:
        right = head in ("members", "lag")
        table.add_column(
            _HEADS[head] if korean else head, justify="right" if right else "left", no_wrap=head != "cause"
        )
    for kind in _ORDER:
        for line in (line for line in lines if line.status.kind == kind):
            table.add_row(*_row(line, now, heads, korean=korean))
    bad = sum(not line.fine for line in lines)
    if korean:
        summary = f"✗ {bad}개 확인 필요" if bad else "✓ 모두 정상"
    else:
        summary = f"✗ {bad} in trouble" if bad else "✓ everything is fine"
    stamp = Text(f"   {_time(now, now)} KST", style="dim")
    return Group(table, "", Text(summary, style="bold red" if bad else "bold green") + stamp)


def _row(line: Line, now: datetime, heads: list[str], *, korean: bool) -> list[Any]:
    from rich.text import Text

    from producers.kiwoom import verdicts

    s, word = line.status, line.word
    kind = _KINDS[s.kind] if korean else s.kind
    said = _STATES.get(word, word) if korean else word
    if s.kind == "diagnosis" and word in verdicts.TITLES:
        said = verdicts.title(cast("Any", word), "ko" if korean else "en")
    name = s.condition or s.component.partition("/")[2]
    if s.kind == "diagnosis" and s.condition:
        name = f"{s.condition} ({'예약 조회' if korean else 'search'})"
    elif s.component.startswith("bars/"):
        name = f"{name} ({'봉' if korean else 'bars'})"
    style = ("dim green" if word == "quiet" else "green") if line.fine else "bold red"
    cause = s.cause
    if word == "silent":
        for_ = f"{line.age:.0f}초째 소식 없음" if korean else f"no word for {line.age:.0f} s"
        cause = "; ".join(part for part in (for_, f"{s.state}: {cause}" if cause else "") if part)
    elif word == "stuck":
        lag = s.figures["lag"]
        cause = (
            f"{line.stalled:.0f}초째 진행 없음, 지연 {lag:,.0f}건"
            if korean
            else f"no progress for {line.stalled:.0f} s, lag {lag:,.0f}"
        )
    elif s.kind == "session" and line.fine and not cause and "slots_registered" in s.figures:
        registered, limit = s.figures["slots_registered"], s.figures.get("slots_limit", 0.0)
        cause = (
            f"시세 {registered:.0f}/{limit:.0f}종목" if korean else f"prices of {registered:.0f} of {limit:.0f} stocks"
        )
    cells = {
        "": Text.assemble((f"{kind} ", "dim"), name),
        "state": Text(("✓ " if line.fine else "✗ ") + said, style=style),
        "since": _time(s.since, now),
        "alive": _time(s.proof_of_life, now),
        "members": "" if s.members is None else str(s.members),
        "lag": f"{s.figures['lag']:.0f}" if "lag" in s.figures else "",
        "cause": Text(cause, style="" if not line.fine else "dim"),
    }
    return [cells[head] for head in heads]


def _time(at: datetime | None, now: datetime) -> str:
    """A moment in KST, with its date where that is not today's."""
    from streams.events import KST

    if at is None:
        return ""
    local = at.astimezone(KST)
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone(KST).date() else f"{local:%m-%d %H:%M}"
