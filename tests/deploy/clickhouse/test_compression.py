"""Bodies come out as they went in, whatever the pieces they come in."""

from __future__ import annotations

import gzip
import struct
import zlib

import lz4.block
import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.clickhouse.compression import BadBody, Blocks, Codec, decoder, encoder

COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "": bytes,
}


def through(codec: Codec, body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(map(codec.feed, pieces)) + codec.finish()


@given(st.sampled_from(sorted(COMPRESS)), st.lists(st.binary(), min_size=1), st.integers(1, 50))
def test_frames_one_after_another_are_read_in_pieces_of_any_size(
    encoding: str, contents: list[bytes], size: int
) -> None:
    body = b"".join(COMPRESS[encoding](content) for content in contents)
    assert through(decoder(encoding), body, size) == b"".join(contents)


@given(st.sampled_from(["gzip", "deflate", "zstd", "lz4"]), st.binary(), st.integers(1, 50))
def test_what_is_written_can_be_read(encoding: str, content: bytes, size: int) -> None:
    name, codec = encoder(f"br, {encoding};q=0.5")
    assert name == encoding
    assert through(decoder(name), through(codec, content, size), 7) == content


@pytest.mark.parametrize("accepted", ["", "br", "identity", "gzip;q=0"])
def test_nothing_is_compressed_that_the_client_cannot_read(accepted: str) -> None:
    name, codec = encoder(accepted)
    assert (name, codec.feed(b"x")) == ("", b"x")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
@pytest.mark.parametrize("body", [b"not compressed at all", None])
def test_a_broken_or_cut_body_is_an_error(encoding: str, body: bytes | None) -> None:
    with pytest.raises(BadBody):
        through(decoder(encoding), body or COMPRESS[encoding](b"x" * 1000)[:-1], 1000)


def test_an_unknown_encoding_is_an_error() -> None:
    with pytest.raises(BadBody, match="br"):
        decoder("br")


def block(method: int, payload: bytes, size: int) -> bytes:
    return bytes(16) + struct.pack("<BII", method, len(payload) + 9, size) + payload


@given(st.lists(st.tuples(st.sampled_from([0x82, 0x90, 0x02]), st.binary(min_size=1))), st.integers(1, 50))
def test_clickhouse_blocks_are_read_in_pieces_of_any_size(blocks: list[tuple[int, bytes]], size: int) -> None:
    pack = {0x82: lambda b: lz4.block.compress(b, store_size=False), 0x90: zstd.compress, 0x02: bytes}
    body = b"".join(block(method, pack[method](content), len(content)) for method, content in blocks)
    assert through(Blocks(), body, size) == b"".join(content for _, content in blocks)


@pytest.mark.parametrize("body", [b"x" * 40, block(0x77, b"x", 1), block(0x02, b"xyz", 3)[:-1]])
def test_what_is_no_clickhouse_block_is_an_error(body: bytes) -> None:
    with pytest.raises(BadBody):
        through(Blocks(), body, 1000)
