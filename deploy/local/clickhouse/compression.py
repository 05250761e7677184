"""Bodies as HTTP carries them: compressed as a whole (Content-Encoding), or in ClickHouse's own blocks.

One streaming codec per body, fed piece by piece. ClickHouse's own blocks (`decompress=1`, `compress=1`: what its
native client, Go and Java libraries use) are a checksum, a header of method and two sizes, and an LZ4, ZSTD or plain
payload. Their checksum is CityHash, which is neither in Python nor offered by the engine: blocks are read without
checking it (TCP has its own), and not written – a client that asks for `compress=1` is told so.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd


class BadBody(Exception):
    """A body is not what its Content-Encoding says."""


class Codec(Protocol):
    """Bytes in, bytes out; `finish` once at the end."""

    def feed(self, piece: bytes, /) -> bytes: ...
    def finish(self) -> bytes: ...


class Plain:
    """No compression."""

    def feed(self, piece: bytes) -> bytes:
        return piece

    def finish(self) -> bytes:
        return b""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Frames:
    """Reads one or more compressed frames standing one after another."""

    def __init__(self, new: Callable[[], _Decoder]) -> None:
        self._new = new
        self._frame = new()
        self._begun = False

    def feed(self, piece: bytes) -> bytes:
        parts = []
        rest: bytes = piece
        while rest:
            if self._frame.eof:
                self._frame = self._new()
            self._begun = True
            try:
                parts.append(self._frame.decompress(rest))
            except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
                raise BadBody(f"The body is not compressed as its Content-Encoding says: {error}") from error
            rest = (self._frame.unused_data or b"") if self._frame.eof else b""
        return b"".join(parts)

    def finish(self) -> bytes:
        if self._begun and not self._frame.eof:
            raise BadBody("The compressed body ends in the middle.")
        return b""


class Blocks:
    """Reads ClickHouse's own compressed blocks."""

    _HEADER: Final = struct.Struct("<16xBII")
    _LIMIT: Final = 1 << 30

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> bytes:
        self._held += piece
        parts = []
        while len(self._held) >= self._HEADER.size:
            method, packed, size = self._HEADER.unpack_from(self._held)
            if packed < 9 or packed > self._LIMIT or size > self._LIMIT:
                raise BadBody("The body is not in ClickHouse's compressed blocks, which decompress=1 says it is.")
            if len(self._held) < 16 + packed:
                break
            payload = bytes(memoryview(self._held)[self._HEADER.size : 16 + packed])
            del self._held[: 16 + packed]
            parts.append(_unpack(method, payload, size))
        return b"".join(parts)

    def finish(self) -> bytes:
        if self._held:
            raise BadBody("The compressed body ends in the middle.")
        return b""


def _unpack(method: int, payload: bytes, size: int) -> bytes:
    try:
        match method:
            case 0x82:
                return bytes(lz4.block.decompress(payload, uncompressed_size=size))
            case 0x90:
                return zstd.decompress(payload)
            case 0x02:
                return payload
    except (lz4.block.LZ4BlockError, zstd.ZstdError) as error:
        raise BadBody(f"A compressed block cannot be read: {error}") from error
    raise BadBody(f"A block is compressed with method 0x{method:02x}; LZ4, ZSTD and none are known.")


class _Deflate:
    """A zlib-like compressor as a codec."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.compressobj(3, wbits=wbits)

    def feed(self, piece: bytes) -> bytes:
        return self._stream.compress(piece)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdCompressor(level=1)

    def feed(self, piece: bytes) -> bytes:
        return self._stream.compress(piece)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Lz4:
    def __init__(self) -> None:
        self._stream = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def feed(self, piece: bytes) -> bytes:
        head = b"" if self._begun else bytes(self._stream.begin())
        self._begun = True
        return head + bytes(self._stream.compress(piece))

    def finish(self) -> bytes:
        return self.feed(b"") + bytes(self._stream.flush())


_DECODERS: Final[dict[str, Callable[[], Codec]]] = {
    "": Plain,
    "identity": Plain,
    "gzip": lambda: Frames(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32)),
    "deflate": lambda: Frames(lambda: zlib.decompressobj(zlib.MAX_WBITS | 32)),
    "zstd": lambda: Frames(zstd.ZstdDecompressor),
    "lz4": lambda: Frames(lz4.frame.LZ4FrameDecompressor),
}

_ENCODERS: Final[dict[str, Callable[[], Codec]]] = {
    "lz4": _Lz4,
    "zstd": _Zstd,
    "gzip": lambda: _Deflate(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Deflate(zlib.MAX_WBITS),
}


def decoder(encoding: str) -> Codec:
    """The codec that reads a body with this Content-Encoding.

    Raises:
        BadBody: the encoding is not known here.
    """
    try:
        return _DECODERS[encoding.strip().lower()]()
    except KeyError:
        known = ", ".join(name for name in _ENCODERS)
        raise BadBody(f"Unknown compression method: {encoding}; known are {known}.") from None


def encoder(accepted: str) -> tuple[str, Codec]:
    """The first encoding of an Accept-Encoding header that can be written, and its codec; plain if there is none."""
    for item in accepted.lower().split(","):
        name, _, quality = item.partition(";")
        if name.strip() in _ENCODERS and quality.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip(), _ENCODERS[name.strip()]()
    return "", Plain()
