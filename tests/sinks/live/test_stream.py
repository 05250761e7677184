"""One client of the stream: what it owes, when it is cut off, and bytes that any browser can read."""

from __future__ import annotations

import gzip
import zlib

import pytest
from day import NINE
from hypothesis import given
from hypothesis import strategies as st

from sinks.live.hub import Hub
from sinks.live.server import takes_gzip
from sinks.live.stream import Broadcaster, Client, ClientLimits, Told, as_chunk, event
from sinks.live.views import Heartbeat


class Line:
    """A transport that takes as much as a test says."""

    def __init__(self) -> None:
        self.written = b""
        self.buffered = 0
        self.takes = True
        self.end = ""

    def write(self, data: bytes) -> None:
        assert not self.end
        self.written += data
        if not self.takes:
            self.buffered += len(data)

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def is_closing(self) -> bool:
        return bool(self.end)

    def get_write_buffer_size(self) -> int:
        return self.buffered


def told(text: str = "x" * 100) -> Told:
    return Told(text.encode())


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """The body of chunks, and whether it is complete."""
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        count = int(size, 16)
        body += rest[:count]
        assert rest[count : count + 2] == b"\r\n"
        data = rest[count + 2 :]
        if not count:
            return body, True
    return body, False


# --- what it owes -----------------------------------------------------------------------------------------------------


def test_a_client_that_owes_too_much_is_cut_off_and_one_large_event_is_no_reason() -> None:
    line = Line()
    client = Client(line, ClientLimits(owed_bytes=1_000))
    line.takes = False
    client.put(told("x" * 50_000))
    assert line.end == ""
    client.put(told())
    assert (line.end, client.closed) == ("aborted", True)
    client.put(told())
    client.close()
    client.cut_off("again")
    assert line.end == "aborted"


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        pytest.param([0, 0, 0, 0], "aborted", id="nothing"),
        pytest.param([0, 1, 1, 0], "", id="a byte now and then"),
        pytest.param([300, 0, 0, 0], "", id="all"),
        pytest.param([1, 0, 0, 0], "aborted", id="nothing any more"),
    ],
)
def test_a_client_that_takes_nothing_for_too_long_is_cut_off(takes: list[int], expected: str) -> None:
    line = Line()
    client = Client(line, ClientLimits(stalled_seconds=9.0))
    line.takes = False
    client.put(told("x" * 100))
    for n, taken in enumerate(takes):
        line.buffered = max(0, line.buffered - taken)
        client.look(5.0 * n)
    assert line.end == expected


def test_all_together_owe_no_more_than_they_may_and_those_go_first_who_owe_most() -> None:
    broadcaster = Broadcaster(Hub(epoch="e"), lambda: NINE, ClientLimits(owed_bytes_of_all=1_000))
    lines = [Line() for _ in range(4)]
    owed = []
    for line, owes in zip(lines, (0, 300, 900, 400), strict=True):
        line.buffered = owes
        owed.append((owes, Client(line, ClientLimits())))
    broadcaster._cut_down(owed)
    assert [line.end for line in lines] == ["", "", "aborted", ""]


def test_nothing_is_written_to_a_line_that_is_gone() -> None:
    line = Line()
    client = Client(line, ClientLimits())
    line.abort()
    client.put(told())
    client.close()
    assert (line.written, client.owed) == (b"", 0)


# --- bytes ------------------------------------------------------------------------------------------------------------

EVENTS = st.lists(st.text(min_size=1, max_size=200), max_size=20)


@given(EVENTS, st.booleans(), st.booleans())
def test_whoever_reads_gets_every_event_and_a_proper_end(events: list[str], packed: bool, chunked: bool) -> None:
    line = Line()
    client = Client(line, ClientLimits(), gzip=packed, chunked=chunked)
    for each in events:
        client.put(told(each))
    client.close()
    body, is_whole = dechunked(line.written) if chunked else (line.written, True)
    assert is_whole
    assert line.end == "closed"
    assert (gzip.decompress(body) if packed else body).decode() == "".join(events)


@given(EVENTS, st.data())
def test_an_event_can_be_read_as_soon_as_it_has_come_whoever_came_when(events: list[str], data: st.DataObject) -> None:
    """The same bytes fit into every client's stream, though each has another past."""
    late = data.draw(st.integers(0, len(events)))
    lines = [Line(), Line()]
    clients = [Client(lines[0], ClientLimits(), gzip=True)]
    readers = [zlib.decompressobj(wbits=31), zlib.decompressobj(wbits=31)]
    read, seen = [0, 0], ["", ""]
    for n, text in enumerate(events):
        if n == late:
            clients.append(Client(lines[1], ClientLimits(), gzip=True))
        same = told(text)
        for i, client in enumerate(clients):
            client.put(same)
            body, _ = dechunked(lines[i].written)
            seen[i] += readers[i].decompress(body[read[i] :]).decode()
            read[i] = len(body)
    assert seen[0] == "".join(events)
    assert seen[1] == "".join(events[late:])


def test_an_event_is_made_once_for_all_who_take_it_in_one_form() -> None:
    one = told()
    assert one.form(True, True) is one.form(True, True)
    assert one.form(False, True) is one.form(False, True)
    assert one.form(False, False) == one.plain
    assert one.form(True, True) == as_chunk(one.form(True, False))


def test_an_events_data_is_one_line() -> None:
    said = event("heartbeat", Heartbeat(now=NINE), "e-1")
    assert said == b'id: e-1\nevent: heartbeat\ndata: {"now":"2026-03-04T00:00:00Z"}\n\n'


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (b"", False),
        (b"gzip", True),
        (b"gzip, deflate, br, zstd", True),
        (b"br;q=1.0, GZIP;q=0.8", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.0", False),
        (b"deflate", False),
        (b"x-gzip", False),
    ],
)
def test_gzip_is_for_those_who_take_it(accepted: bytes, expected: bool) -> None:
    assert takes_gzip(accepted) is expected
