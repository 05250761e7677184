"""What an HTTP request asks of ClickHouse: where a statement ends and its data begin, and in which format.

Pure: bytes in, values out. It is no SQL parser: it walks over tokens, so that a keyword in a string, a comment, a name
or in parentheses is never taken for a clause, and leaves every judgement on the statement itself to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

Kind = Literal["select", "insert", "set", "use", "other", "nothing"]

# The engine emits these block by block: blocks put one after another are one result. Any other format has a frame of
# its own around the whole (a header, a footer, an index) and is written by the engine to a file first.
BLOCKWISE: Final = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})

_TOKEN: Final = re.compile(
    rb"""
      (?P<blank>   \s+ | --[^\n]* | \#[\ !][^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted>  '(?:[^'\\]|\\.|'')*(?:'|\Z) | "(?:[^"\\]|\\.|"")*(?:"|\Z) | `(?:[^`\\]|\\.|``)*(?:`|\Z) )
    | (?P<heredoc> \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z) )
    | (?P<word>    [A-Za-z_]\w* )
    | (?P<number>  \d\w* )
    | (?P<sign>    . )
    """,
    re.VERBOSE | re.DOTALL,
)

_SELECTS: Final = frozenset({b"SELECT", b"WITH", b"FROM"})
_READS: Final = _SELECTS | {b"SHOW", b"DESCRIBE", b"DESC", b"EXPLAIN", b"EXISTS", b"CHECK"}
_QUERIES: Final = frozenset({b"SELECT", b"WITH", b"WATCH", b"EXPLAIN"})


_INPUT: Final = re.compile(rb"input\s*\(\s*'((?:[^'\\]|\\.)*)'\s*\)", re.IGNORECASE | re.DOTALL)

# After these, FORMAT is the name of a column.
_BEFORE_A_NAME: Final = frozenset(b", . = < > + - / % SELECT BY AND OR NOT WHERE HAVING AS DISTINCT ON IN LIKE".split())


@dataclass(frozen=True)
class Token:
    kind: str
    text: bytes
    start: int
    end: int

    @property
    def word(self) -> bytes:
        """The keyword this token would be, in upper case; empty for anything but a bare word."""
        return self.text.upper() if self.kind == "word" else b""


@dataclass(frozen=True)
class Statement:
    """One statement as it came over HTTP.

    Attributes:
        kind: what it is, as far as the transport must know; `nothing` is empty or begins with no word (the engine
            takes that in silence). An `insert` with rows of its own has `rows_at`.
        text: the statement itself; of an insert with rows, up to where its format is named.
        format: the format it names (of the result, or of an insert's rows), or None.
        rows_at: where in the given bytes the rows of an insert begin; None where it brings none.
        settings_at: where in `text` an insert's SETTINGS clause begins.
        input: the structure and place (from, to) in `text` of the table function input('…') that reads those rows.
        output_at: where in `text` an INTO OUTFILE clause can stand; None for anything but a select.
        several: more than one statement was given, which HTTP does not take.
        file_clause: INTO OUTFILE or FROM INFILE is asked for, which is the client's business, not the server's.
        totals: the result has parts beside its rows (WITH TOTALS), which the engine does not give block by block.
    """

    kind: Kind
    text: bytes
    format: str | None = None
    rows_at: int | None = None
    settings_at: int | None = None
    input: tuple[str, int, int] | None = None
    output_at: int | None = None
    several: bool = False
    file_clause: bool = False
    totals: bool = False


def parse(query: bytes) -> Statement:
    """Tell what a query is. Of an insert with rows, only the head is needed, and what follows may be binary."""
    tokens = _tokens(query)
    first = next(tokens, None)
    while first is not None and first.text == b"(":
        first = next(tokens, None)
    if first is None or first.kind != "word":
        return Statement("nothing", b"")
    if first.word == b"INSERT":
        return _insert(query)
    return _statement(query, first.word)


def by_client_id(statement: Statement, expression: bytes) -> Statement:
    """A KILL statement that means the client's query ids: `query_id` in it becomes this expression. Others stay."""
    tokens = list(_tokens(statement.text))
    if not tokens or tokens[0].word != b"KILL":
        return statement
    text, end = b"", 0
    for token in tokens:
        if token.text in (b"query_id", b"`query_id`", b'"query_id"'):
            text += statement.text[end : token.start] + expression
            end = token.end
    return replace(statement, text=text + statement.text[end:])


def _tokens(query: bytes, start: int = 0) -> Iterator[Token]:
    for match in _TOKEN.finditer(query, start):
        kind = match.lastgroup if match.lastgroup != "tag" else "heredoc"
        if kind and kind != "blank":
            yield Token(kind, match.group(), match.start(), match.end())


def _top_level(query: bytes) -> list[Token]:
    """The tokens outside of all brackets; of a bracket the closing one, which ends what stands before the next."""
    depth, tokens = 0, []
    for token in _tokens(query):
        if token.text in (b"(", b"[", b"{"):
            depth += 1
        elif token.text in (b")", b"]", b"}"):
            depth -= 1
            if depth == 0:
                tokens.append(token)
        elif depth == 0:
            tokens.append(token)
    return tokens


def _insert(query: bytes) -> Statement:
    """Split an insert into its statement and where its rows begin."""
    depth, named, infile, selects = 0, False, False, False
    function: tuple[str, int, int] | None = None
    settings_at: int | None = None
    tokens = _tokens(query)
    next(tokens)
    for token in tokens:
        if token.word == b"INPUT" and selects and (match := _INPUT.match(query, token.start)):
            function = (match[1].decode(errors="replace").replace("\\'", "'"), match.start(), match.end())
        if token.text in (b"(", b"[", b"{"):
            depth += 1
            named = named or token.text != b"{"
        elif token.text in (b")", b"]", b"}"):
            depth -= 1
        elif depth:
            continue
        elif not named:
            # The first name after INSERT INTO [TABLE] [FUNCTION] is the target's, whatever it is called.
            named = token.kind == "quoted" or token.word not in (b"INTO", b"TABLE", b"FUNCTION", b"")
        elif token.text == b"." and not selects:
            named = False
        elif token.word == b"VALUES" and not selects:
            return Statement(
                "insert",
                query[: token.start].rstrip(),
                "Values",
                token.end,
                settings_at=settings_at,
                file_clause=infile,
            )
        elif token.word == b"FORMAT":
            name = next(tokens, None)
            if name is None or name.kind != "word":
                break
            if selects and function is None:
                continue
            return Statement(
                "insert",
                query[: token.start].rstrip(),
                name.text.decode(),
                _after_format(query, name.end),
                settings_at=settings_at,
                input=function,
                file_clause=infile,
            )
        elif token.word == b"INFILE":
            infile = True
        elif token.word == b"SETTINGS" and settings_at is None:
            settings_at = token.start
        elif token.word in _QUERIES:
            selects = True
    return Statement("insert", query, file_clause=infile)


def _after_format(query: bytes, end: int) -> int:
    """Where rows begin after `FORMAT name`: behind an optional semicolon, blanks and one line end, no further."""
    match = re.compile(rb"[ \t\f]*;?[ \t\f]*\r?\n?").match(query, end)
    return match.end() if match else end


def _statement(query: bytes, first: bytes) -> Statement:
    top = _top_level(query)
    ends = [t for t in top if t.text == b";"]
    end = ends[0].start if ends else len(query)
    several = bool(ends) and any(t.start > ends[0].start and t.text != b";" for t in _tokens(query))
    words = [t for t in top if t.end <= end]

    kind: Kind = "other"
    if first in _SELECTS:
        kind = "select"
    elif first == b"SET":
        kind = "set"
    elif first == b"USE":
        kind = "use"
    elif first not in _READS:
        return Statement(kind, query, several=several)

    name, output_at = None, end
    for before, token, after, beyond in zip(words, words[1:], words[2:], [*words[3:], None], strict=False):
        if (
            token.word == b"FORMAT"
            and before.text.upper() not in _BEFORE_A_NAME
            and after.kind == "word"
            and after.word not in (b"ASC", b"DESC")
            and (beyond is None or beyond.word == b"SETTINGS")
        ):
            name, output_at = after.text.decode(), token.start
    outfile = any(a.word == b"INTO" and b.word == b"OUTFILE" for a, b in pairwise(words))
    return Statement(
        kind,
        query[:end],
        name,
        output_at=output_at if kind == "select" else None,
        several=several,
        file_clause=outfile,
        totals=any(t.word in (b"TOTALS", b"EXTREMES") for t in _tokens(query[:end])),
    )
