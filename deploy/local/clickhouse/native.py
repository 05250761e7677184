"""FORMAT Native as a client of a newer protocol reads it: info before each block, a serialization for each column.

The engine in this process writes Native for protocol 0. A client that says `client_protocol_version` (clickhouse-go,
and so Grafana's plugin, over HTTP) expects more: the info before each block, and behind the type of each column a byte
that says whether it is serialized in a special way. That byte stands where a column's values begin, so a block must be
walked over to find those places. Pure; the layouts are ClickHouse's (NativeWriter, ISerialization).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

# DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION. Older ones, which clickhouse-connect tries (54405), are answered as by a
# server that knows none: their client notices.
REVISION: Final = 54454

# is_overflows = 0, bucket_num = -1, and the end, each behind its number.
_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"

_WIDTHS: Final = (
    {"Bool": 1, "Nothing": 1, "UUID": 16, "IPv4": 4, "IPv6": 16, "Date": 2, "Date32": 4, "DateTime": 4, "Time": 4}
    | {"DateTime64": 8, "Time64": 8, "Decimal32": 4, "Decimal64": 8, "Decimal128": 16, "Decimal256": 32}
    | {"Enum8": 1, "Enum16": 2, "Float32": 4, "Float64": 8, "BFloat16": 2}
    | {f"{sign}Int{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256)}
)
_ALIASES: Final = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
_KEYS: Final = (1, 2, 4, 8)  # bytes of a LowCardinality's indexes, by the number in its header
_DICTIONARY: Final = 1 << 9  # the header's flag: the block brings keys of its own


class Unknown(Exception):
    """A column of a type that can't be walked over; the text names it."""


class _Short(Exception):
    """The bytes end within the block."""


def blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks of a result in Native, whatever pieces they come in, in the newer layout.

    Raises `Unknown`.
    """
    held = b""
    for piece in pieces:
        held = held + piece if held else piece
        while held:
            try:
                block, end = _block(held)
            except _Short:
                break
            held = held[end:]
            yield block
    if held:
        raise ValueError("a result in Native ends within a block")


def _block(data: bytes) -> tuple[bytes, int]:
    """The block at the beginning of `data` in the newer layout, and where it ended."""
    walk = _Walk(data)
    columns, rows = walk.number(), walk.number()
    parts, begin = [_INFO], 0
    for _ in range(columns):
        walk.skip(walk.number())
        kind = walk.take(walk.number()).decode(errors="replace")
        parts += (data[begin : walk.at], b"\x00")
        begin = walk.at
        if rows:
            walk.prefix(kind)
            walk.column(kind, rows)
    parts.append(data[begin : walk.at])
    return b"".join(parts), walk.at


class _Walk:
    """A place in the bytes of a block."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise _Short

    def take(self, size: int) -> bytes:
        self.skip(size)
        return self._data[self.at - size : self.at]

    def number(self) -> int:
        """A number of seven bits a byte."""
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def fixed(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def strings(self, rows: int) -> None:
        """So many strings, each behind its length: the one loop over values, kept narrow."""
        data, at = self._data, self.at
        try:
            for _ in range(rows):
                size = data[at]
                at += 1
                if size >= 0x80:
                    self.at = at - 1
                    size = self.number()
                    at = self.at
                at += size
        except IndexError:
            raise _Short from None
        self.at = at
        self.skip(0)

    def prefix(self, kind: str) -> None:
        """What stands once before a column's values: of each LowCardinality in it, its version."""
        name, inner = _taken_apart(kind)
        if name == "LowCardinality":
            self.skip(8)
        elif name not in _WIDTHS:
            for part in inner:
                self.prefix(part)

    def column(self, kind: str, rows: int) -> None:
        """The values of a column."""
        name, inner = _taken_apart(kind)
        if width := _WIDTHS.get(name):
            self.skip(width * rows)
        elif name == "String":
            self.strings(rows)
        elif name == "FixedString":
            self.skip(int(kind[12:-1]) * rows)
        elif name == "Nullable":
            self.skip(rows)
            self.column(inner[0], rows)
        elif name in ("Tuple", "Nested", "SimpleAggregateFunction"):
            for part in inner:
                self.column(part, rows)
        elif name in ("Array", "Map"):
            self.skip(8 * (rows - 1))
            values = self.fixed()
            for part in inner if values else ():
                self.column(part, values)
        elif name == "LowCardinality":
            self._low_cardinality(inner[0], rows)
        else:
            raise Unknown(f"FORMAT Native of the type {kind} is not served to a client of this protocol")

    def _low_cardinality(self, kind: str, rows: int) -> None:
        header = self.fixed()
        if header & _DICTIONARY:
            # Of a Nullable the keys are the bare values; NULL is one of their numbers.
            bare = kind[len("Nullable(") : -1] if kind.startswith("Nullable(") else kind
            self.column(bare, self.fixed())
        self.skip(_KEYS[header & 0xFF] * self.fixed())


def _taken_apart(kind: str) -> tuple[str, list[str]]:
    """A type's name, and the types that its values are made of."""
    kind = _ALIASES.get(kind, kind)
    name, _, rest = kind.partition("(")
    if name.startswith("Interval"):
        return "Int64", []
    if name == "Decimal":
        precision = int(rest.partition(",")[0])
        return next(f"Decimal{bits}" for bits, most in _PRECISIONS if precision <= most), []
    if not rest or name in _WIDTHS:
        return name, []
    arguments = _arguments(rest[:-1])
    if name in ("Tuple", "Nested"):
        return name, [_unnamed(argument) for argument in arguments]
    if name == "SimpleAggregateFunction":
        return name, arguments[1:2]
    return name, arguments


_PRECISIONS: Final = ((32, 9), (64, 18), (128, 38), (256, 76))
_NAMED: Final = re.compile(r"\s*(?:`(?:[^`\\]|\\.)*`|\w+)\s+(?=\w)")


def _unnamed(argument: str) -> str:
    """The type in `name Type`, or what is a type alone."""
    match = _NAMED.match(argument)
    return argument[match.end() :].strip() if match else argument.strip()


def _arguments(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes."""
    found, depth, begin = [], 0, 0
    for token in re.finditer(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]", text):
        if token.group() == "(":
            depth += 1
        elif token.group() == ")":
            depth -= 1
        elif token.group() == "," and not depth:
            found.append(text[begin : token.start()].strip())
            begin = token.end()
    return [*found, text[begin:].strip()]
