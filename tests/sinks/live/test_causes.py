"""The page's Korean of causes (`words-causes.ts`) is held to the sentences that the sources make, in both directions.

A sentence is compared as its shape: what differs is `{}`, and what only joins it to another, at its ends, is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from holidays import financial_holidays

ROOT: Final = Path(__file__).parents[3]
TABLE: Final = ROOT / "sinks" / "live" / "web" / "src" / "lib" / "words-causes.ts"
ROW: Final = re.compile(r'^  \[("(?:[^"\\]|\\.)*"), "(?:[^"\\]|\\.)*"\],$', re.MULTILINE)
JOINT: Final = r"(?:\{\}|; |: | – |, | \(\{\}\)|\s)+"

SPEAKING: Final = (
    "producers/bars.py",
    "producers/calendar.py",
    "producers/conditions.py",
    "producers/day_bars.py",
    "producers/errands.py",
    "producers/kiwoom/audit.py",
    "producers/kiwoom/client.py",
    "producers/kiwoom/errors.py",
    "producers/kiwoom/rest.py",
    "producers/kiwoom/session.py",
    "producers/kiwoom/token.py",
    "sinks/clickhouse/writer.py",
    "sinks/consumer.py",
    "sinks/live/api.py",
    "sinks/live/commands.py",
    "sinks/live/history.py",
    "sinks/live/reader.py",
    "streams/app.py",
)
"""Modules whose sentences are causes, or reasons of a refusal, unless they are named below."""

OTHERWISE: Final = {
    "producers/bars.py": {
        "is yet to come: there are no bars of it",
        "is no trading day: there are no bars of it",
        "is no trading day, and nothing was hit on it: there are no bars of it",
    },
    "producers/kiwoom/rest.py": {"Bearer"},
    "producers/kiwoom/token.py": {"Kiwoom allows no more calls for now (HTTP 429)"},  # as the row with what Kiwoom says
    "sinks/live/api.py": {
        "`next` of a page, to get the one after it.",
        "Log in first.",
        # Of bodies that the page never sends.
        "The body is longer than {} bytes: leave out what GET /openapi.json does not ask for.",
        "The body is no JSON ({}): send one object, as GET /openapi.json describes it.",
        "The question is wrong.",
        "Too many wrong tokens.",
    },
    # What stands within one of the sentences.
    "sinks/consumer.py": {
        "answered no fetch",
        "did not admit a member to the group",
        "for too long; asking again.",
        "its offset lies beyond the end",
        "the record at its offset is another one",
    },
    "sinks/live/reader.py": {
        "has no time zone",
        "a partition ends before the place that was read last",
        "/{} was deleted and made anew",
    },
    "streams/app.py": {"within {} s"},
}
"""Sentences of these modules that are no causes: of logs, of the command line."""

UNSAID: Final = {
    *("info", "warning", "error", "debug", "exception"),
    *("Counter", "Gauge", "Histogram", "QueryParameter", "PathParameter", "ResponseSpec"),
    *("ConfigError", "Worker", "_said", "read", "replace"),
}
"""What takes words that are no cause."""


def shape(sentence: str) -> str:
    """A sentence without what differs, and without what joins it to others."""
    sentence = re.sub(r"(\{\})+", "{}", sentence)
    return re.sub(rf"^{JOINT}|{JOINT}$", "", sentence)


def rows() -> list[str]:
    """The English of the table, each hole as `{}`."""
    found: list[str] = [json.loads(english) for english in ROW.findall(TABLE.read_text(encoding="utf-8"))]
    return [re.sub(r"\{[a-z]+\*?\}", "{}", english) for english in found]


def sentences(file: Path) -> Iterator[tuple[str, bool]]:
    """Every text in a source as its shape, and whether it may be said as a cause: no docstring, nothing for a log."""

    def look(node: ast.AST, said: bool) -> Iterator[tuple[str, bool]]:
        children: list[ast.AST]
        if isinstance(node, ast.JoinedStr):
            parts = [str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values]
            yield "".join(parts), said
            children = [each.value for each in node.values if isinstance(each, ast.FormattedValue)]
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value, said
            return
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        else:
            children = [*ast.iter_child_nodes(node)]
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            said = said and name not in UNSAID
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            children = [each for each in children if each is not node.annotation]
        for child in children:
            yield from look(child, said)

    for text, said in look(ast.parse(file.read_text(encoding="utf-8")), True):
        yield shape(text), said


def is_sentence(text: str) -> bool:
    """Whether a text has words for people: at least two, and no SQL."""
    return len(re.findall(r"[a-z']{2,}", text)) >= 2 and " " in text and "SELECT" not in text and "\n" not in text


@pytest.fixture(scope="module")
def made() -> set[str]:
    """The shape of every text that the product's packages make."""
    files = [file for package in ("producers", "streams", "sinks", "deploy") for file in (ROOT / package).rglob("*.py")]
    return {text for file in files if "node_modules" not in file.parts for text, _ in sentences(file)}


HOLIDAYS: Final = {
    name.strip()
    for names in financial_holidays("XKRX", years=range(2024, 2040)).values()
    for name in names.split(";")
}  # fmt: skip


def told_of(text: str) -> Iterator[str]:
    """A sentence that says two things by turns, as the two that it can be; others as they are."""
    if text.startswith("Kafka at {} {} for too long"):
        for what in ("answered no fetch", "did not admit a member to the group {}"):
            yield shape(text.replace("{} {}", f"{{}} {what}", 1))
    elif text.startswith("Kafka has not acknowledged what was written to {} {}:"):
        for what in ("within {} s", "{}"):
            yield shape(text.replace("{} {}", f"{{}} {what}", 1))
    elif text == "audit at":
        for outcome in ("{}", "agrees", "silent", "refused", "refuted", "unsettled", "dead", "missed"):
            yield shape(f"audit at {{}}: {outcome}")
    else:
        yield text


def test_the_table_is_read_as_a_whole() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert len(rows()) == len(re.findall(r"^  \[", text, re.MULTILINE)) > 100


def test_every_row_is_a_sentence_that_the_product_makes(made: set[str]) -> None:
    known = {each for text in made for each in told_of(text)}
    unknown = [row for row in rows() if shape(row) not in known and not is_of_a_holiday(row)]
    assert unknown == []


def is_of_a_holiday(row: str) -> bool:
    pattern = re.escape(row).replace(r"\{\}", ".*")
    return any(re.fullmatch(pattern, name) for name in HOLIDAYS)


def test_every_holiday_has_its_row() -> None:
    patterns = [re.escape(row).replace(r"\{\}", "(.+)") for row in rows()]
    known = {re.sub(r"^(Alternative holiday for|The day preceding|The second day of) ", "", name) for name in HOLIDAYS}
    assert {name for name in known if name not in rows()} == set()
    assert all(any(re.fullmatch(pattern, name) for pattern in patterns) for name in HOLIDAYS)


@pytest.mark.parametrize("module", SPEAKING)
def test_every_cause_has_its_row(module: str) -> None:
    """A sentence that is changed or new is found here: change its row in `words-causes.ts`, or name it in OTHERWISE."""
    known = {shape(row) for row in rows()}
    found = {text for text, said in sentences(ROOT / module) if said and is_sentence(text)}
    lacking = {text for text in found if not any(each in known for each in told_of(text))}
    assert lacking - OTHERWISE.get(module, set()) == set()
