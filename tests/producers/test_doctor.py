"""The doctor against the local market with each fault switched on: every cause is named, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.kiwoom import frames, verdicts
from producers.kiwoom.doctor import NUMBERS, Case, Cause, seen
from producers.kiwoom.examination import Examination, Examiner
from producers.kiwoom.line import OwnLine, own_line
from streams.events import Frame

from .local_market import BUSY, BUSY_SEQ, KEY, NAME, SECRET, SEQ, Market, at_once, market, now, on

# Real seconds: those of the rows are longer on a busy machine.
pytestmark = pytest.mark.timeout(900)

PATIENCE = 0.6


Do = str | tuple[str, dict[str, Any]] | float
"""What a patient does: sends a frame and waits for an answer, has a fault switched on, or waits."""

LIST = frames.ListRequest().text()


def realtime(seq: str, stex_tp: str = "K") -> str:
    return json.dumps({"trnm": "CNSRREQ", "seq": seq, "search_type": "1"} | ({"stex_tp": stex_tp} if stex_tp else {}))


def search(seq: str) -> str:
    return frames.SearchRequest(seq=seq).text()


async def suffer(line: OwnLine, token: str, market: Market, does: Sequence[Do]) -> None:
    """What the patient's own program did on its connection before the doctor came: LOGIN, then its script."""
    heard: list[Frame] = []

    async def listen(seconds: float, enough: Callable[[Frame], bool] = lambda _: False) -> None:
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0 and not line.ended:
            if (frame := await line.hear(left)) is not None:
                heard.append(frame)
                if enough(frame):
                    return

    def replied(frame: Frame) -> bool:
        return frame.direction == "in" and not frame.text.startswith(('{"trnm":"PING', '{"data":', '{"trnm":"REAL'))

    await line.send(frames.LoginRequest(token=token).text())
    await listen(5, replied)
    for do in does:
        match do:
            case str():
                await line.send(do)
                await listen(PATIENCE, replied)
            case (name, options):
                await market.fault(name, **options)
            case float():
                await listen(do)
    line.history = tuple(heard)


@dataclass
class Row:
    """One row of the table: what is wrong, what the patient did, and the only verdict that is right."""

    cause: Cause
    faults: tuple[tuple[str, dict[str, Any]], ...] = ()
    does: tuple[Do, ...] = ()
    also: tuple[Cause, ...] = ()
    case: dict[str, Any] = field(default_factory=dict)
    spacing: float = 0.02
    pause: float = 0.4
    echo: bool = True
    ping: dict[str, float] = field(default_factory=dict)
    condition: str | None = None
    sure: str | None = None
    second: bool = False


EIGHT = ("0", "1", "4", "5", "7", "12", "18", "33")

TABLE = {
    "1 no list": Row("no-list", does=(realtime(SEQ),), condition=NAME),
    "2 burst": Row("burst", (on("swallow-bursts"),), (LIST, realtime(SEQ)), condition=NAME, sure="proved"),
    "2 rate limit": Row("burst", (on("rate-limited"),), (LIST, realtime(SEQ)), condition=NAME),
    "3 reply not taken": Row(
        "reply-not-taken", does=(LIST, realtime(SEQ)), case={"complaints": {NAME: "unanswered"}}, condition=NAME
    ),
    "4 registered, refused": Row("registered-already", does=(LIST, realtime(SEQ), realtime(SEQ)), condition=NAME),
    "4 registered, silent": Row(
        "registered-already", (on("silent-repeat"),), (LIST, realtime(SEQ), realtime(SEQ)), condition=NAME
    ),
    "5 padded": Row("stale-seq", does=(LIST, realtime("5  "))),
    "5 renumbered": Row("stale-seq", does=(LIST, on("renumbered"), realtime(SEQ))),
    "5 another name": Row("stale-seq", (on("reassigned"),), case={"wanted": ((NAME, SEQ),)}, condition=NAME),
    "6 not echoed": Row("no-echo", does=(LIST, 2.0), echo=False, ping={"ping_interval": 0.1, "patience": 2.0}),
    "6 displaced": Row("displaced", does=(LIST, realtime(SEQ), on("displaced"), 0.5)),
    "7 closed": Row("closed-hours", (on("silent-cnsrreq"),), case={"hours": "before"}, sure="possible"),
    "8 one condition": Row("one-condition", (on("silent-cnsrreq", seqs=[SEQ]),), (LIST, realtime(SEQ)), condition=NAME),
    "8 one condition, nothing asked yet": Row("one-condition", (on("silent-cnsrreq", seqs=[SEQ]),), condition=NAME),
    "9 search while live": Row(
        "search-while-live", (on("no-search-while-live"),), (LIST, realtime(BUSY_SEQ), search(BUSY_SEQ)), condition=BUSY
    ),
    "10 no stex_tp": Row("no-stex-tp", (on("require-stex-tp"),), (LIST, realtime(SEQ, "")), condition=NAME),
    "10 no stex_tp, as configured": Row("no-stex-tp", (on("require-stex-tp"),), case={"stex_tp": ""}),
    "11 conditions withdrawn": Row("rights-withdrawn", (on("withdrawn"),)),
    "11 right withdrawn": Row("rights-withdrawn", (on("key-without-right"),), second=True, sure="proved"),
    "11 or 12 with one key": Row("module-down", (on("key-without-right"),), also=("rights-withdrawn",), sure="likely"),
    "12 module down": Row("module-down", (on("silent-cnsrreq"),), also=("rights-withdrawn",), sure="likely"),
    "12 module down, second key": Row("module-down", (on("silent-cnsrreq"),), second=True, sure="proved"),
    "the trace that started this": Row(
        "module-down",
        (on("silent-cnsrreq"),),
        (LIST, *(text for seq in EIGHT for text in (search(seq), realtime(seq, "")))),
        also=("rights-withdrawn",),
        sure="likely",
        pause=0.3,
    ),
    "healthy": Row("healthy"),
    "quiet": Row("quiet", ping={"activity": 0.0}),
    "healthy with every oddity": Row(
        "healthy", (on("early-system"), on("object-list"), on("mixed-frames"), on("padded-seq"), on("odd-codes"))
    ),
    "registration dropped": Row("registration-lost", (on("drop-registration"),)),
    "events stopped": Row("stream-dead", (on("zombie"),), case={"only": BUSY}),
    "late replies": Row("slow", (on("late-reply", seqs=[SEQ]),), (LIST, realtime(SEQ), 4.0), pause=2.0),
    "no list": Row("list-silent", (on("silent-cnsrlst"),)),
    "no LOGIN reply": Row("login-silent", (on("silent-login"),)),
    "no LOGIN heard": Row("login-silent", (on("half-open"),)),
    "bad token": Row("token-refused", (on("bad-token"),)),
    "wrong key": Row("token-refused", (on("wrong-app-key"),)),
    "unknown address": Row("token-refused", (on("unknown-ip"),)),
    "maintenance": Row("maintenance", (on("maintenance"),)),
    "too many tokens": Row("rate-limited", (on("too-many-tokens"),)),
    "no WebSocket": Row("unreachable", (on("refuse-connection"),)),
    "no such condition": Row("missing", case={"wanted": (("없는 조건", ""),)}),
    "refused otherwise": Row("request-refused", (on("refuse-cnsrreq"),)),
    "no settings": Row("settings", case={"problems": ("kiwoom.app_key is not set",)}),
    "before the open": Row("ready", (on("silent-cnsrreq"),), case={"up_to_list": True}),
}


async def examine(row: Row, folder: Path) -> tuple[Examination, Market]:
    ping = {"ping_interval": 0.2, "patience": 1000.0, "activity": 1.0} | row.ping
    async with market(**ping) as local, contextlib.AsyncExitStack() as stack:
        for name, options in row.faults:
            await local.fault(name, **options)
        tokens, line = local.tokens(folder), None
        if row.does:
            token = await tokens.get()
            line = await stack.enter_async_context(
                own_line(local.url, secrets=[token], now=now, spacing=row.spacing, echo=row.echo)
            )
            await suffer(line, token, local, row.does)
        options_: dict[str, Any] = {"wanted": ((NAME, ""), (BUSY, "")), "pause": row.pause} | row.case
        case = Case(
            history=tuple(seen(frame) for frame in line.history) if line else (),
            patience=PATIENCE,
            observe=1.5,
            second_key=row.second,
            **options_,
        )
        examiner = Examiner(
            case,
            url=local.url,
            tokens=tokens,
            line=line,
            second=local.tokens(folder, f"{KEY}-2") if row.second else None,
            secrets=[KEY, SECRET],
            spacing=max(row.spacing, 0.02),
        )
        async with asyncio.timeout(60):
            return await examiner.run(), local


@pytest.fixture(scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], None]]:
    with at_once(request, tmp_path_factory, judge) as waiting:
        yield waiting


@pytest.mark.parametrize("name", TABLE)
def test_the_right_cause_is_named(name: str, outcome: Callable[[str], None]) -> None:
    outcome(name)


async def judge(name: str, tmp_path: Path) -> None:
    row = TABLE[name]
    done, _ = await examine(row, tmp_path)
    verdict = done.verdict
    shown = [(s.finding.stage, verdicts.said(s.finding, "en")) for s in done.findings]
    assert verdict.cause == row.cause, (verdict, shown)
    assert set(row.also) <= set(verdict.also), (verdict, shown)
    if row.condition is not None:
        assert verdict.condition == row.condition, (verdict, shown)
    if row.sure is not None:
        assert verdict.sure == row.sure, (verdict, shown)
    assert verdict.number == NUMBERS.get(row.cause, 0)
    for language in ("en", "ko"):
        words = [verdicts.wrong(verdict, language), verdicts.remedy(verdict, language)]  # type: ignore[arg-type]
        words += [verdicts.said(s.finding, language) for s in done.findings]  # type: ignore[arg-type]
        assert all(words)
        assert not [text for text in words if "–" in text and "{" in text]
    evidence = msgspec.json.encode(done).decode()
    token = next((json.loads(file.read_text())["token"] for file in tmp_path.glob("token-*.json")), SECRET)
    for secret in (f'"{KEY}', SECRET, token):
        assert secret not in evidence
