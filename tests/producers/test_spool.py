"""The spool: order, limits, restarts and torn ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.spool import Spool, Spooled, SpoolFull


def record(n: int, size: int = 10) -> Spooled:
    return Spooled("topic", f"k{n}".encode(), b"v" * size, float(n))


def drained(spool: Spool) -> list[float]:
    found = []
    while batch := spool.peek(7, 1000):
        found += [r.received_at for r in batch]
        spool.advance(len(batch))
    return found


def test_records_come_out_in_order_and_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 20, segment=100)
    sent = [record(n, n % 50) for n in range(100)]
    for r in sent:
        spool.append(r)
    assert (len(spool), spool.peek(3, 10_000)) == (100, sent[:3])
    assert drained(spool) == [float(n) for n in range(100)]
    assert (len(spool), spool.size, list(tmp_path.glob("*.spool"))) == (0, 0, [])


def test_a_spool_that_nothing_needs_leaves_no_trace(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=1000)
    assert (len(spool), spool.peek(1, 1)) == (0, [])
    assert not (tmp_path / "spool").exists()


def test_one_record_comes_however_large_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 24)
    for n in range(3):
        spool.append(record(n, 1_000_000))
    assert [r.received_at for r in spool.peek(10, 100)] == [0.0]
    assert drained(spool) == [0.0, 1.0, 2.0]


def test_another_process_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 20, segment=100)
    for n in range(10):
        spool.append(record(n))
    spool.advance(4)
    again = Spool(tmp_path, limit=1 << 20, segment=100)
    spool.close()
    again.append(record(10))
    assert drained(again) == [float(n) for n in range(4, 11)]
    assert len(Spool(tmp_path, limit=1 << 20)) == 0


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_end_is_cut_off_and_the_rest_is_there(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, limit=1 << 20)
    for n in range(3):
        spool.append(record(n))
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    os.truncate(segment, segment.stat().st_size - cut)
    again = Spool(tmp_path, limit=1 << 20)
    assert again.torn == 1
    again.append(record(3))
    assert drained(again) == [0.0, 1.0, 3.0]


def test_changed_bytes_are_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 20)
    spool.append(record(0))
    spool.append(record(1))
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    assert drained(Spool(tmp_path, limit=1 << 20)) == [0.0]


def test_a_full_spool_refuses_and_takes_again_once_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=300, segment=100)
    n = 0
    while spool.size < 260:
        spool.append(record(n))
        n += 1
    with pytest.raises(SpoolFull, match="is full"):
        spool.append(record(n, 60))
    assert spool.crowded
    spool.advance(3)
    spool.append(record(n))
    assert drained(spool) == [float(i) for i in range(3, n + 1)]


def test_a_disk_that_takes_nothing_is_a_full_spool(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool", limit=1000)
    with pytest.raises(SpoolFull, match="make room"):
        spool.append(record(0))


def test_sigkill_keeps_what_was_appended(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from producers.spool import Spool, Spooled
        spool = Spool(Path({str(tmp_path)!r}), limit=1 << 20)
        for n in range(1000):
            spool.append(Spooled("t", b"k", b"v", float(n)))
        print("done", flush=True)
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert drained(Spool(tmp_path, limit=1 << 20)) == [float(n) for n in range(1000)]


def test_a_segment_that_goes_bad_while_it_waits_costs_only_itself(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 20, segment=100)
    for n in range(9):
        spool.append(record(n))
    first = min(tmp_path.glob("*.spool"))
    first.write_bytes(b"\0" * first.stat().st_size)
    left = drained(spool)
    assert left == [float(n) for n in range(9 - len(left), 9)]
    assert (spool.torn, len(spool)) == (1, 0)
    assert left


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 120)),
            st.tuples(st.just("take"), st.integers(1, 9)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_it_is_a_queue_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, model, n = Spool(folder, limit=3000, segment=200), deque[float](), 0
    for step, number in steps:
        match step:
            case "append":
                try:
                    spool.append(record(n, number))
                except SpoolFull:
                    pass
                else:
                    model.append(float(n))
                n += 1
            case "take":
                batch = spool.peek(number, 150)
                assert [r.received_at for r in batch] == list(model)[: len(batch)]
                assert batch or not model
                spool.advance(len(batch))
                for _ in batch:
                    model.popleft()
            case _:
                spool.close()
                spool = Spool(folder, limit=3000, segment=200)
        assert len(spool) == len(model)
    assert drained(spool) == list(model)
