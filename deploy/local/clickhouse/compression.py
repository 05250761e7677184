"""Bodies as HTTP carries them: compressed as a whole (Content-Encoding), or in ClickHouse's own blocks.

One streaming codec per body, fed piece by piece. ClickHouse's own blocks (`decompress=1`, `compress=1`: what its Go and
Java libraries use) are a checksum, a header of method and two sizes, and an LZ4, ZSTD or plain payload. The checksum is
CityHash128 of the version that ClickHouse has kept (1.0.2), over everything behind it.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import brotli
import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
from clickhouse_cityhash.cityhash import CityHash128

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd


class BadBody(Exception):
    """A body is not compressed as it says. `code` is ClickHouse's number for it, and `name` that number's."""

    code, name = 89, "UNKNOWN_COMPRESSION_METHOD"


class BadChecksum(BadBody):
    """A block is not what was sent."""

    code, name = 40, "CHECKSUM_DOESNT_MATCH"


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


class Chain:
    """One codec after another."""

    def __init__(self, *codecs: Codec) -> None:
        self._codecs = codecs

    def feed(self, piece: bytes) -> bytes:
        for codec in self._codecs:
            piece = codec.feed(piece)
        return piece

    def finish(self) -> bytes:
        last = b""
        for codec in self._codecs:
            last = (codec.feed(last) if last else b"") + codec.finish()
        return last


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
            except (zlib.error, zstd.ZstdError, lzma.LZMAError, OSError, RuntimeError, EOFError) as error:
                raise BadBody(f"The body is not compressed as its Content-Encoding says: {error}") from error
            rest = (self._frame.unused_data or b"") if self._frame.eof else b""
        return b"".join(parts)

    def finish(self) -> bytes:
        if self._begun and not self._frame.eof:
            raise BadBody("The compressed body ends in the middle.")
        return b""


class _UnBrotli:
    """Reads a body in Brotli."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, piece: bytes) -> bytes:
        self._begun = self._begun or bool(piece)
        try:
            return bytes(self._stream.process(piece))
        except brotli.error as error:
            raise BadBody(f"The body is not compressed as its Content-Encoding says: {error}") from error

    def finish(self) -> bytes:
        if self._begun and not self._stream.is_finished():
            raise BadBody("The compressed body ends in the middle.")
        return b""


# Of a block: method, bytes from the method on, bytes of the content. The checksum stands before them.
_HEADER: Final = struct.Struct("<BII")
_CHECKSUM: Final = 16


class Blocks:
    """Reads ClickHouse's own compressed blocks; with `check` False without looking at their checksums."""

    _LIMIT: Final = 1 << 30

    def __init__(self, *, check: bool = True) -> None:
        self._held = bytearray()
        self._check = check

    def feed(self, piece: bytes) -> bytes:
        self._held += piece
        parts = []
        while len(self._held) >= _CHECKSUM + _HEADER.size:
            method, packed, size = _HEADER.unpack_from(self._held, _CHECKSUM)
            if packed < _HEADER.size or packed > self._LIMIT or size > self._LIMIT:
                raise BadBody("The body is not in ClickHouse's compressed blocks, which decompress=1 says it is.")
            if len(self._held) < _CHECKSUM + packed:
                break
            checksum, block = bytes(self._held[:_CHECKSUM]), bytes(self._held[_CHECKSUM : _CHECKSUM + packed])
            del self._held[: _CHECKSUM + packed]
            if self._check and _checksum(block) != checksum:
                raise BadChecksum("Checksum doesn't match: corrupted data.")
            parts.append(_unpack(method, block[_HEADER.size :], size))
        return b"".join(parts)

    def finish(self) -> bytes:
        if self._held:
            raise BadBody("The compressed body ends in the middle.")
        return b""


def _checksum(block: bytes) -> bytes:
    """Of a block's header and payload. ClickHouse writes its low half first, and the number has it above."""
    number: int = CityHash128(block)
    return struct.pack("<QQ", number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF)


class ToBlocks:
    """Writes ClickHouse's own compressed blocks; `method` is network_compression_method's word for it.

    Raises `BadBody` for a method that can't be written.
    """

    _LEAST: Final = 64 << 10
    _MOST: Final = 1 << 20  # ClickHouse's own

    def __init__(self, method: str = "LZ4") -> None:
        try:
            self._number, self._pack = _PACKERS[method.upper()]
        except KeyError:
            raise BadBody(f"Unknown compression method: {method}; known are {', '.join(_PACKERS)}.") from None
        self._held = bytearray()

    def feed(self, piece: bytes) -> bytes:
        self._held += piece
        return self._blocks() if len(self._held) >= self._LEAST else b""

    def finish(self) -> bytes:
        return self._blocks()

    def _blocks(self) -> bytes:
        content, self._held = bytes(self._held), bytearray()
        return b"".join(
            self._block(content[start : start + self._MOST]) for start in range(0, len(content), self._MOST)
        )

    def _block(self, content: bytes) -> bytes:
        payload = self._pack(content)
        block = _HEADER.pack(self._number, _HEADER.size + len(payload), len(content)) + payload
        return _checksum(block) + block


_PACKERS: Final[dict[str, tuple[int, Callable[[bytes], bytes]]]] = {
    "LZ4": (0x82, lambda content: bytes(lz4.block.compress(content, store_size=False))),
    "LZ4HC": (0x82, lambda content: bytes(lz4.block.compress(content, "high_compression", store_size=False))),
    "ZSTD": (0x90, lambda content: zstd.compress(content, level=1)),
    "NONE": (0x02, bytes),
}


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


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(quality=1)

    def feed(self, piece: bytes) -> bytes:
        return bytes(self._stream.process(piece))

    def finish(self) -> bytes:
        return bytes(self._stream.finish())


class _Xz:
    def __init__(self) -> None:
        self._stream = lzma.LZMACompressor(preset=0)

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
    "br": _UnBrotli,
    "xz": lambda: Frames(lzma.LZMADecompressor),
    "bz2": lambda: Frames(bz2.BZ2Decompressor),
}

_ENCODERS: Final[dict[str, Callable[[], Codec]]] = {
    "lz4": _Lz4,
    "zstd": _Zstd,
    "gzip": lambda: _Deflate(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Deflate(zlib.MAX_WBITS),
    "br": _Brotli,
    "xz": _Xz,
}


def decoder(encoding: str) -> Codec:
    """The codec that reads a body with this Content-Encoding.

    Raises:
        BadBody: the encoding is not known here.
    """
    try:
        return _DECODERS[encoding.strip().lower()]()
    except KeyError:
        known = ", ".join(name for name in _DECODERS if name)
        raise BadBody(f"Unknown compression method: {encoding}; known are {known}.") from None


def encoder(accepted: str) -> tuple[str, Codec]:
    """The first encoding of an Accept-Encoding header that can be written, and its codec; plain if there is none."""
    for item in accepted.lower().split(","):
        name, _, quality = item.partition(";")
        if name.strip() in _ENCODERS and quality.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip(), _ENCODERS[name.strip()]()
    return "", Plain()
