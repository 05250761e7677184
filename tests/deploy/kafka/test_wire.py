"""The part of the Kafka protocol that the front reads, against an independent encoder and aiokafka's own."""

import struct

import pytest
from aiokafka.protocol.fetch import FetchRequest_v1, FetchRequest_v4
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.kafka import wire

# --- a naive encoder: Apache Kafka's message definitions, field by field ----------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


class Encoder:
    def __init__(self, flexible: bool) -> None:
        self.flexible = flexible

    def string(self, text: str | None) -> bytes:
        raw = b"" if text is None else text.encode()
        if self.flexible:
            return varint(0) if text is None else varint(len(raw) + 1) + raw
        return struct.pack(">h", -1 if text is None else len(raw)) + raw

    def size(self, count: int | None) -> bytes:
        if self.flexible:
            return varint(0 if count is None else count + 1)
        return struct.pack(">i", -1 if count is None else count)

    def tags(self, tagged: bytes = b"") -> bytes:
        if not self.flexible:
            return b""
        return varint(1) + varint(0) + varint(len(tagged)) + tagged if tagged else varint(0)


def request(key: int, version: int, flexible: bool, body: bytes, client: str | None = "me") -> bytes:
    head = struct.pack(">hhi", key, version, 7) + Encoder(False).string(client)
    return head + Encoder(flexible).tags() + body


def fetch_request(version: int, max_wait: int, min_bytes: int, topics: dict[str, list[int]]) -> bytes:
    e = Encoder(version >= 12)
    body = struct.pack(">iii", -1, max_wait, min_bytes)
    body += struct.pack(">i", 1 << 20) if version >= 3 else b""
    body += b"\1" if version >= 4 else b""
    body += struct.pack(">ii", 0, -1) if version >= 7 else b""
    body += e.size(len(topics))
    for topic, partitions in topics.items():
        body += e.string(topic) + e.size(len(partitions))
        for partition in partitions:
            body += struct.pack(">i", partition)
            body += struct.pack(">i", -1) if version >= 9 else b""
            body += struct.pack(">q", 5)
            body += struct.pack(">i", -1) if version >= 12 else b""
            body += struct.pack(">q", -1) if version >= 5 else b""
            body += struct.pack(">i", 1 << 20) + e.tags()
        body += e.tags()
    body += e.size(0) if version >= 7 else b""
    body += e.string("rack") if version >= 11 else b""
    return request(wire.FETCH, version, e.flexible, body + e.tags())


Part = tuple[int, bytes | None, int | None]  # error, records, aborted transactions


def fetch_response(version: int, topics: dict[str, list[Part]], error: int = 0) -> bytes:
    e = Encoder(version >= 12)
    out = struct.pack(">i", 7) + e.tags()
    out += struct.pack(">i", 0) if version >= 1 else b""
    out += struct.pack(">hi", error, 0) if version >= 7 else b""
    out += e.size(len(topics))
    for topic, parts in topics.items():
        out += e.string(topic) + e.size(len(parts))
        for number, (code, records, aborted) in enumerate(parts):
            out += struct.pack(">ihq", number, code, 10)
            out += struct.pack(">q", 10) if version >= 4 else b""
            out += struct.pack(">q", 0) if version >= 5 else b""
            if version >= 4:
                out += e.size(aborted) + (struct.pack(">qq", 1, 2) + e.tags()) * (aborted or 0)
            out += struct.pack(">i", -1) if version >= 11 else b""
            out += e.size(None if records is None else len(records)) + (records or b"")
            out += e.tags(b"diverging epoch" if code == 0 else b"")
        out += e.tags()
    return out + e.tags()


versions = st.integers(0, wire.FETCH_MAX)
names = st.text(min_size=1, max_size=200)
parts = st.tuples(
    st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from([None, b"", b"", b"r" * 200]), st.sampled_from([None, 0, 2])
)

# --- requests ---------------------------------------------------------------------------------------------------------


@given(versions, st.dictionaries(names, st.lists(st.integers(0, 9), max_size=3), max_size=3))
def test_a_fetch_says_how_long_it_waits_and_for_what(version: int, topics: dict[str, list[int]]) -> None:
    frame = fetch_request(version, 500, 1, topics)
    head = wire.header(frame)
    assert (head.key, head.version, head.correlation) == (wire.FETCH, version, 7)
    expected = tuple((topic, partition) for topic, partitions in topics.items() for partition in partitions)
    assert wire.fetch(frame, head) == wire.Fetch(0.5, 1, expected)


@pytest.mark.parametrize("kind", [FetchRequest_v1, FetchRequest_v4])
def test_a_fetch_of_aiokafka_is_read(kind: type) -> None:
    limits = () if kind is FetchRequest_v1 else (1 << 20, 0)
    body = kind(-1, 250, 1, *limits, [("t", [(3, 0, 1 << 20)])]).encode()
    frame = request(wire.FETCH, kind.API_VERSION, False, body)
    assert wire.fetch(frame, wire.header(frame)) == wire.Fetch(0.25, 1, (("t", 3),))


@given(st.integers(0, 9), st.sampled_from([0, 1, -1]), st.lists(st.binary(max_size=300), max_size=3), names)
def test_a_produce_says_where_it_writes_and_who_acknowledges(
    version: int, acks: int, batches: list[bytes], topic: str
) -> None:
    e = Encoder(version >= 9)
    body = e.string(None) if version >= 3 else b""
    body += struct.pack(">hi", acks, 1000) + e.size(1) + e.string(topic) + e.size(len(batches))
    for partition, batch in enumerate(batches):
        body += struct.pack(">i", partition) + e.size(len(batch)) + batch + e.tags()
    frame = request(wire.PRODUCE, version, e.flexible, body + e.tags() + e.tags(), client=None)
    read = wire.produce(frame, wire.header(frame))
    assert (read.acks, read.partitions) == (acks, tuple((topic, partition) for partition in range(len(batches))))
    asked = wire.acknowledged(frame, read)
    assert wire.produce(asked, wire.header(asked)) == wire.Produce(1, read.acks_at, read.partitions)
    assert len(asked) == len(frame)


# --- responses --------------------------------------------------------------------------------------------------------


@given(versions, st.dictionaries(names, st.lists(parts, max_size=3), max_size=3))
def test_an_answer_is_nothing_when_it_has_neither_records_nor_an_error(
    version: int, topics: dict[str, list[Part]]
) -> None:
    something = any(code or records for listed in topics.values() for code, records, _ in listed)
    assert wire.answers_nothing(fetch_response(version, topics), version) is not something


@pytest.mark.parametrize("version", [7, 12])
def test_an_error_of_the_whole_answer_is_something(version: int) -> None:
    assert not wire.answers_nothing(fetch_response(version, {}, error=70), version)


@pytest.mark.parametrize("version", [0, 3])
@pytest.mark.parametrize(("offered", "told"), [(4, 4), (12, 12), (13, 12), (17, 12)])
def test_fetch_is_offered_no_further_than_it_is_read(version: int, offered: int, told: int) -> None:
    def response(newest: int) -> bytes:
        e = Encoder(version >= 3)
        keys = [(wire.PRODUCE, 0, 9), (wire.FETCH, 0, newest), (wire.METADATA, 0, 12)]
        listed = b"".join(struct.pack(">hhh", *key) + e.tags() for key in keys)
        return struct.pack(">ih", 7, 0) + e.size(len(keys)) + listed + (struct.pack(">i", 0) if version else b"")

    assert wire.narrowed(response(offered), version) == response(told)


@pytest.mark.parametrize(("version", "flexible"), [(0, False), (8, False), (9, True), (12, True)])
@pytest.mark.parametrize("host", ["127.0.0.1", "kafka.example", "::1"])
def test_the_brokers_address_becomes_the_fronts(version: int, flexible: bool, host: str) -> None:
    def response(broker: str, port: int) -> bytes:
        e = Encoder(flexible)
        address = struct.pack(">i", 1) + e.string(broker) + struct.pack(">i", port)
        return struct.pack(">i", 7) + e.tags() + e.size(1) + address + e.string("127.0.0.1") + e.tags()

    head = wire.Header(wire.METADATA, version, 7, 0)
    told = wire.readdressed(response("127.0.0.1", 40000), head, ("127.0.0.1", 40000), (host, 9092))
    assert told == response(host, 9092)


@pytest.mark.parametrize("cluster", ["", "aflBp_TjTcmMT9-qaYRMkQ"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_brokers_and_their_cluster_are_read(count: int, cluster: str) -> None:
    e = Encoder(flexible=False)
    broker = struct.pack(">i", 1) + e.string("127.0.0.1") + struct.pack(">i", 9092) + struct.pack(">h", -1)
    frame = struct.pack(">i", 7) + e.size(count) + broker * count
    frame += (e.string(cluster) if cluster else struct.pack(">h", -1)) + struct.pack(">ii", 1, 0)
    assert wire.brokers(frame) == (count, cluster)


# --- rubbish ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, 14))
def test_rubbish_is_unreadable_and_nothing_worse(frame: bytes, version: int) -> None:
    for read in (
        lambda: wire.header(frame),
        lambda: wire.fetch(frame, wire.Header(wire.FETCH, version, 7, 0)),
        lambda: wire.produce(frame, wire.Header(wire.PRODUCE, version, 7, 0)),
        lambda: wire.answers_nothing(frame, version),
        lambda: wire.narrowed(frame, version),
        lambda: wire.brokers(frame),
    ):
        try:
            read()
        except wire.Unreadable:
            continue


@given(versions, st.data())
def test_a_truncated_fetch_is_unreadable(version: int, data: st.DataObject) -> None:
    frame = fetch_request(version, 500, 1, {"topic": [0, 1]})
    cut = data.draw(st.integers(wire.header(frame).body, len(frame) - 30))
    with pytest.raises(wire.Unreadable):
        wire.fetch(frame[:cut], wire.header(frame[:cut]))


def metadata_request(version: int, topic: str, create: bool) -> bytes:
    e = Encoder(version >= 9)
    body = e.size(1) + (bytes(16) if version >= 10 else b"") + e.string(topic) + e.tags()
    body += bytes([create]) if version >= 4 else b""
    body += b"\1" if 8 <= version <= 10 else b""
    body += b"\1" if version >= 8 else b""
    return request(wire.METADATA, version, e.flexible, body + e.tags())


@pytest.mark.parametrize("version", range(13))
def test_looking_for_a_topic_is_not_asking_for_it(version: int) -> None:
    """Of a Metadata request nothing but the flag that creates topics is changed; before version 4 there is none."""
    frame = metadata_request(version, "t", create=True)
    assert wire.looking(frame, wire.header(frame)) == metadata_request(version, "t", create=version < 4)
