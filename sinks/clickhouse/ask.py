"""One statement over ClickHouse's HTTP interface, its result as the bytes that the server writes.

For commands that show, keep or carry on what a server says in whatever format (`hitstream sql`, `export`, `backup`);
who wants rows as Python values takes a client from `connection`. SQL alone: any ClickHouse will do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import httpx

from streams.events import HitstreamError

from .connection import CONNECT_SECONDS, ClickHouseUnavailable, first_line
from .dsn import Dsn

_UNKNOWN_DATABASE: Final = 81
_OWN_WORDS: Final = 395
_REFUSED_LOGIN: Final = frozenset({192, 193, 194, 516})
# An error in the middle of a result stands at its end, tagged, and is no longer than this (ClickHouse: 16 KiB).
_LONGEST_ERROR: Final = 20 << 10
_VERSION: Final = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)\s*\Z")


class StatementRefused(HitstreamError):
    """ClickHouse refuses a statement or gives it up; the sentence is its own. `code` is its number, 0 if unknown."""

    def __init__(self, sentence: str, code: int = 0) -> None:
        super().__init__(sentence)
        self.code = code


class Answer:
    """A result on its way.

    Attributes:
        format: the format it is in; empty where the statement has no result.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._tag = response.headers.get("X-ClickHouse-Exception-Tag", "")
        self.format: str = response.headers.get("X-ClickHouse-Format", "")

    def summary(self, figure: str) -> int:
        """A figure of X-ClickHouse-Summary (`result_rows`, `written_rows`): complete with wait_end_of_query only."""
        return int(json.loads(self._response.headers.get("X-ClickHouse-Summary", "{}")).get(figure, 0))

    def pieces(self) -> Iterator[bytes]:
        """The result, all of it or an error: raises `StatementRefused` where it ends with what went wrong."""
        held = b""
        mark = f"__exception__\r\n{self._tag}\r\n".encode() if self._tag else b""
        for piece in self._response.iter_bytes():
            held += piece
            if len(held) > 2 * _LONGEST_ERROR:
                yield held[:-_LONGEST_ERROR]
                held = held[-_LONGEST_ERROR:]
        if mark and (at := held.find(mark)) >= 0:
            _refuse(held[at + len(mark) :].decode(errors="replace").rpartition("\r\n__exception__")[0])
        if held:
            yield held

    def read(self) -> bytes:
        """The whole result."""
        return b"".join(self.pieces())


class Asker:
    """Asks one server, one statement at a time; to be closed. Made of its DSN."""

    def __init__(self, dsn: Dsn) -> None:
        self._dsn = dsn
        host = f"[{dsn.host}]" if ":" in dsn.host else dsn.host
        self._client = httpx.Client(
            base_url=f"{'https' if dsn.secure else 'http'}://{host}:{dsn.port}",
            verify=dsn.verify,
            headers=[
                (b"X-ClickHouse-User", dsn.user.encode()),
                (b"X-ClickHouse-Key", dsn.password.encode()),
                (b"User-Agent", b"hitstream"),
            ],
            # Whoever waits at a terminal ends it with Ctrl-C; the server learns of that by the connection.
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def ask(
        self,
        statement: str,
        *,
        output: str = "TabSeparated",
        parameters: Mapping[str, str] | None = None,
        settings: Mapping[str, str | int] | None = None,
        rows: Iterable[bytes] | None = None,
    ) -> Iterator[Answer]:
        """Ask a statement; its result comes in the format that it names, else in `output`.

        Args:
            parameters: values of `{name:Type}` in the statement, as text.
            settings: of this statement, or parameters of the HTTP interface.
            rows: the data of an insert, in pieces; its format is the statement's.

        Raises:
            StatementRefused: and what the server says.
            ClickHouseUnavailable: no answer, or no login.
        """
        query: dict[str, str | int] = {
            "database": self._dsn.database,
            "default_format": output,
            **(settings or {}),
            **{f"param_{name}": _escaped(value) for name, value in (parameters or {}).items()},
        }
        if rows is None:
            content: bytes | Iterable[bytes] = statement.encode()
        else:
            content, query["query"] = rows, statement
        try:
            with self._client.stream("POST", "/", params=query, content=content) as response:
                if response.status_code != httpx.codes.OK or "X-ClickHouse-Exception-Code" in response.headers:
                    self._explain(response)
                yield Answer(response)
        except httpx.ConnectError as error:
            raise ClickHouseUnavailable(
                f"ClickHouse at {self._dsn.address} can't be reached; check clickhouse.dsn and that the server runs."
            ) from error
        except httpx.TransportError as error:
            raise ClickHouseUnavailable(
                f"ClickHouse at {self._dsn.address} broke off its answer; look whether the server runs: "
                f"{first_line(error)}"
            ) from error

    def text(self, statement: str, parameters: Mapping[str, str] | None = None) -> str:
        """A small result as text, without the last line's end."""
        with self.ask(statement, parameters=parameters) as answer:
            return answer.read().decode().removesuffix("\n")

    def _explain(self, response: httpx.Response) -> NoReturn:
        text = response.read().decode(errors="replace")
        code = 0
        with suppress(ValueError):
            code = int(response.headers.get("X-ClickHouse-Exception-Code", "0"))
        if code in _REFUSED_LOGIN:
            raise ClickHouseUnavailable(
                f"ClickHouse at {self._dsn.address} refuses the login of {self._dsn.user}; check user and password."
            )
        if code == _UNKNOWN_DATABASE and self._dsn.database in text:
            raise ClickHouseUnavailable(
                f"There is no database {self._dsn.database} at {self._dsn.address}; run `hitstream migrate`."
            )
        if not code and "DB::Exception" not in text:
            raise ClickHouseUnavailable(
                f"What answers at {self._dsn.address} is no ClickHouse (HTTP {response.status_code}); check "
                "clickhouse.dsn."
            )
        _refuse(text)


def _refuse(text: str) -> NoReturn:
    """Raise what ClickHouse says, without its version and on one line."""
    match = re.search(r"Code: (\d+)\. DB::Exception: (.*)", text, re.DOTALL)
    code, words = (int(match[1]), match[2]) if match else (0, text)
    words = _VERSION.sub("", words.rpartition("\r\n")[0] or words)
    if code == _OWN_WORDS:  # `throwIf`: what it says, without how it came to that
        words = words.partition(": while executing 'FUNCTION ")[0]
    words = re.sub(r"\. Expected one of: .{200,}(?= \(\w+\)\Z)", ".", words, flags=re.DOTALL)  # all of the grammar
    raise StatementRefused(f"ClickHouse refuses (code {code}): {' '.join(words.split())}", code)


def _escaped(value: str) -> str:
    """A parameter's text as the interface wants it (the Escaped format)."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
