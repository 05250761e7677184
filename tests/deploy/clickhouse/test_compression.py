"""Bodies come out as they went in, whatever the pieces they come in."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from pathlib import Path

import brotli
import httpx
import lz4.block
import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.clickhouse.compression import BadBody, BadChecksum, Blocks, Codec, ToBlocks, decoder, encoder

from .conftest import Server

COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
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


@given(st.sampled_from(["gzip", "deflate", "zstd", "lz4", "xz", "br"]), st.binary(), st.integers(1, 50))
def test_what_is_written_can_be_read(encoding: str, content: bytes, size: int) -> None:
    name, codec = encoder(f"snappy, {encoding};q=0.5")
    assert name == encoding
    assert through(decoder(name), through(codec, content, size), 7) == content


@pytest.mark.parametrize("accepted", ["", "snappy", "identity", "gzip;q=0"])
def test_nothing_is_compressed_that_the_client_cannot_read(accepted: str) -> None:
    name, codec = encoder(accepted)
    assert (name, codec.feed(b"x")) == ("", b"x")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4", "xz", "bz2", "br"])
@pytest.mark.parametrize("body", [b"not compressed at all", None])
def test_a_broken_or_cut_body_is_an_error(encoding: str, body: bytes | None) -> None:
    with pytest.raises(BadBody):
        through(decoder(encoding), body or (COMPRESS | {"br": brotli.compress})[encoding](b"x" * 1000)[:-1], 1000)


def test_an_unknown_encoding_is_an_error() -> None:
    with pytest.raises(BadBody, match="snappy"):
        decoder("snappy")


@pytest.mark.parametrize("method", ["LZ4", "LZ4HC", "ZSTD", "NONE", "zstd"])
@given(content=st.binary(), size=st.integers(1, 50))
def test_clickhouse_blocks_are_read_as_they_were_written(method: str, content: bytes, size: int) -> None:
    assert through(Blocks(), through(ToBlocks(method), content, size), size) == content


def test_a_large_body_is_many_blocks() -> None:
    content = bytes(range(256)) * 20_000
    body = through(ToBlocks(), content, 300_000)
    assert through(Blocks(), body, 77_777) == content


def test_blocks_that_the_engine_wrote_are_read(server: Server) -> None:
    """Independent of our own writer: the checksum, its order and what it covers are those of the engine's files."""
    server.sql("CREATE OR REPLACE TABLE written (s FixedString(10)) ENGINE = TinyLog")
    server.sql("INSERT INTO written SELECT 'abcdefghij' FROM numbers(1000)")
    [folder] = server.sql("SELECT data_paths[1] FROM system.tables WHERE name = 'written'").split("\n")
    assert through(Blocks(), (Path(folder) / "s.bin").read_bytes(), 100) == b"abcdefghij" * 1000
    server.sql("DROP TABLE written")


@pytest.mark.parametrize("method", ["", "LZ4", "ZSTD", "NONE"])
@pytest.mark.parametrize("whole", [0, 1])
def test_a_result_comes_in_blocks_where_compress_asks_for_them(server: Server, method: str, whole: int) -> None:
    parameters = {"compress": 1, "wait_end_of_query": whole} | (
        {"network_compression_method": method} if method else {}
    )
    answer = httpx.post(server.url, params=parameters, content="SELECT number FROM numbers(300000)")
    assert through(Blocks(), answer.content, 1 << 20) == b"".join(b"%d\n" % n for n in range(300_000))


def test_what_went_wrong_comes_in_blocks_as_well(server: Server) -> None:
    answer = httpx.post(server.url, params={"compress": 1}, content="SELECT * FROM nowhere")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "60"
    assert through(Blocks(), answer.content, 1 << 20).startswith(b"Code: 60. DB::Exception: ")
    middle = httpx.post(
        server.url, params={"compress": 1}, content="SELECT throwIf(number = 900000) FROM numbers(1000000)"
    )
    assert middle.headers["X-ClickHouse-Exception-Tag"].encode() in through(Blocks(), middle.content, 1 << 20)[-100:]
    unknown = httpx.post(server.url, params={"compress": 1, "network_compression_method": "X"}, content="SELECT 1")
    assert (unknown.status_code, unknown.headers["X-ClickHouse-Exception-Code"]) == (500, "89")


def block(method: int, payload: bytes, size: int) -> bytes:
    """A block whose checksum nobody has made."""
    return bytes(16) + struct.pack("<BII", method, len(payload) + 9, size) + payload


@given(st.lists(st.tuples(st.sampled_from([0x82, 0x90, 0x02]), st.binary(min_size=1))), st.integers(1, 50))
def test_clickhouse_blocks_are_read_in_pieces_of_any_size(blocks: list[tuple[int, bytes]], size: int) -> None:
    pack = {0x82: lambda b: lz4.block.compress(b, store_size=False), 0x90: zstd.compress, 0x02: bytes}
    body = b"".join(block(method, pack[method](content), len(content)) for method, content in blocks)
    assert through(Blocks(check=False), body, size) == b"".join(content for _, content in blocks)


@pytest.mark.parametrize("body", [b"x" * 40, block(0x77, b"x", 1), block(0x02, b"xyz", 3)[:-1]])
def test_what_is_no_clickhouse_block_is_an_error(body: bytes) -> None:
    with pytest.raises(BadBody):
        through(Blocks(check=False), body, 1000)


@pytest.mark.parametrize("at", [0, 15, 16, 20, 30])
def test_a_block_that_is_not_as_it_was_sent_is_an_error(at: int) -> None:
    body = bytearray(through(ToBlocks("NONE"), b"x" * 100, 100))
    body[at] ^= 1
    with pytest.raises(BadChecksum if at not in (20,) else BadBody):
        through(Blocks(), bytes(body), 1000)
