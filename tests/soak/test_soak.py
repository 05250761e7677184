"""Half a trading day with a fault every virtual minute; `make soak` does a week of it."""

from __future__ import annotations

from datetime import date, time
from typing import Any

import msgspec
import pytest

from producers.journal import Header
from producers.kiwoom import audit
from producers.kiwoom.session import Timing, Wanted
from producers.replay import Replay
from streams.events import Frame, Gap, Record, Status

from .days import Report, run
from .virtual import NAMES

MONDAY = date(2026, 3, 9)
AUDIT_AFTER = 300.0


@pytest.fixture(scope="module")
def half_day() -> tuple[Report, list[Frame], list[Record]]:
    frames: list[Frame] = []
    records: list[Record] = []
    report = run(first=MONDAY, until=time(12, 30), seed=5, on_frame=frames.append, on_record=records.append)
    return report, frames, records


def test_the_transitions_are_the_truth_outside_recorded_gaps(half_day: Any) -> None:
    report, *_ = half_day
    assert report.wrong == []
    assert report.count["truth"] > 1_000
    assert sum(report.faults.values()) > 150
    assert report.count["truth in gaps"] < report.count["truth"] / 3


def test_silence_is_noticed_in_time() -> None:
    faults = {"no-ping", "half-open", "silent-cnsrreq", "silent-cnsrlst", "silent-login", "close-abrupt"}
    report = run(first=MONDAY, until=time(10, 30), seed=2, only=faults)
    assert report.wrong == []
    assert report.times.silence
    assert max(report.times.silence) <= 45
    assert report.times.unanswered
    assert max(report.times.unanswered) <= 45


def test_all_conditions_are_live_soon(half_day: Any) -> None:
    times = half_day[0].times
    assert times.live
    assert max(times.live) <= 10


def test_a_registration_that_is_dropped_is_noticed_by_the_audit() -> None:
    report = run(first=MONDAY, until=time(11, 30), seed=3, only={"forget-registration", "system-notice"})
    assert report.wrong == []
    assert len(report.times.dropped) > 3
    assert max(report.times.dropped) <= AUDIT_AFTER + 15


HARMLESS = {
    "duplicate-real", "reorder-real", "mixed-frames", "odd-entries", "odd-codes", "null-real", "garbage-frames",
    "system-notice", "padded-seq", "small-pages", "object-list",
}  # fmt: skip


@pytest.mark.parametrize("faults", [set(), HARMLESS])
def test_what_harms_nobody_alarms_nobody(faults: set[str]) -> None:
    """No fault, or such as cost nothing: no gap, and nothing requested anew."""
    records: list[Record] = []
    end = time(10, 30)
    report = run(first=MONDAY, until=end, seed=4, faults=bool(faults), only=faults, on_record=records.append)
    assert report.wrong == []
    assert report.faults.keys() == faults
    assert (report.connections, report.count["snapshots"], report.count["gaps"]) == (1, len(NAMES), 0)
    told = " ".join(r.cause for r in records if isinstance(r, Status))
    assert "missed" not in told
    assert report.count["truth"] > 700


def test_the_journal_of_such_a_day_replays_to_the_same_records(half_day: Any) -> None:
    _, frames, records = half_day
    # In virtual time, no timer is ever late.
    replay = Replay(Header(conditions=tuple(Wanted(name) for name in NAMES.values())), late=1e-5)
    replayed = [record for frame in frames for record in replay.feed(frame)] + replay.finish()
    assert [same(record) for record in replayed] == [same(r) for r in records if not isinstance(r, Status)]
    assert (replay.figures.lost, replay.figures.skipped, replay.figures.unlike) == (0, 0, 0)


def same(record: Record) -> Record:
    """A record without what no frame tells: how a connection was cut."""
    return msgspec.structs.replace(record, cause="") if isinstance(record, Gap) else record


def test_a_market_that_goes_mute_and_speaks_again_is_found_out() -> None:
    """But for what left no trace: stocks that came and went, or went and came back, within the silence.

    A search shows who is in, not who was; and whether a market that says nothing has nothing to say, nothing tells.
    """
    report = run(first=MONDAY, until=time(11, 30), seed=1, only={"zombie"})
    assert report.wrong == []
    assert report.count["truth in gaps"] > 500
    assert report.count["traceless"] < report.count["truth in gaps"] / 10


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without audits and contradictions, what a mute market has not told is lost, and found to be."""
    monkeypatch.setattr(audit, "MOST_CONTRADICTIONS", 0)
    timing = Timing(audit_after=1e6)
    report = run(first=MONDAY, until=time(10, 30), seed=1, only={"zombie"}, timing=timing)
    assert any("lost outside every gap" in line for line in report.wrong)
