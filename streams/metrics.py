"""The worker's figures for Prometheus, on the default registry; docs/metrics.md lists those of all roles.

Nothing here decides anything: `streams.app` says what happened, and this module knows what that is called.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

from .events import DeadLetter, Recommendation, Transition
from .lane import Output

_LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_DURATIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

RECORDS_IN: Final = Counter("hitstream_stream_records", "Records read, decided and done.", ["topic"])
RECORDS_OUT: Final = Counter("hitstream_stream_outputs", "Records published and acknowledged.", ["topic"])
IGNORED: Final = Counter(
    "hitstream_stream_ignored", "Records, or parts of them, that changed nothing.", ["topic", "reason"]
)
DEAD: Final = Counter(
    "hitstream_stream_dead_letters",
    "Records that could not be read or applied, by the class of the reason.",
    ["topic", "cause"],
)
TRANSITIONS: Final = Counter("hitstream_stream_transitions", "Transitions published.", ["kind", "origin"])
RECOMMENDATIONS: Final = Counter(
    "hitstream_stream_recommendations", "Revisions of recommendations published.", ["state", "cause"]
)
LANES: Final = Gauge("hitstream_stream_lanes", "Partitions that this worker owns.", ["topic"])
OPEN: Final = Gauge("hitstream_stream_open_recommendations", "Recommendations of our partitions that are open.")
LAG: Final = Gauge(
    "hitstream_stream_lag_records", "Records of a partition of ours not yet done.", ["topic", "partition"]
)
BATCH_RECORDS: Final = Histogram(
    "hitstream_stream_batch_records",
    "Records of one batch.",
    ["topic"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000),
)
BATCH_SECONDS: Final = Histogram(
    "hitstream_stream_batch_seconds",
    "From a batch's begin until its outputs are acknowledged.",
    ["topic"],
    buckets=_DURATIONS,
)
LATENCY: Final = Histogram(
    "hitstream_stream_latency_seconds",
    "From a hit's receipt to its record on the topic, acknowledged; on the product's clock.",
    ["topic"],
    buckets=_LATENCIES,
)
COMMITS: Final = Counter(
    "hitstream_stream_commits", "Commits of offsets: `done`, or `refused` by the group.", ["outcome"]
)
RECOVERIES: Final = Counter("hitstream_stream_recoveries", "Partitions taken over with their state.", ["topic"])
REBALANCES: Final = Counter("hitstream_stream_rebalances", "Assignments that were taken back.")
PROGRESS: Final = Gauge(
    "hitstream_stream_progress_timestamp_seconds",
    "Unix time at which a batch was last done, or nothing was waiting.",
)


_measured: Final[set[tuple[str, int]]] = set()


def published(outputs: Sequence[Output], now: datetime) -> None:
    """Count the outputs of a batch that Kafka has acknowledged; `now` is the product's clock."""
    counts = collections.Counter[Any]()
    latencies = {topic: LATENCY.labels(topic) for topic in {o.topic for o in outputs if o.heard_at}}
    for output in outputs:
        counts[RECORDS_OUT, output.topic] += 1
        if output.heard_at is not None:
            latencies[output.topic].observe(max(0.0, (now - output.heard_at).total_seconds()))
        match output.record:
            case Transition(kind=kind, origin=origin):
                counts[TRANSITIONS, kind, origin] += 1
            case Recommendation(state=state, cause=cause):
                counts[RECOMMENDATIONS, state, cause] += 1
            case DeadLetter(topic=source, cause=cause):
                counts[DEAD, source, cause] += 1
    for (counter, *labels), count in counts.items():
        counter.labels(*labels).inc(count)


def done(topic: str, records: int, seconds: float) -> None:
    """Count a batch of so many records that is done, and how long it took."""
    RECORDS_IN.labels(topic).inc(records)
    BATCH_RECORDS.labels(topic).observe(records)
    BATCH_SECONDS.labels(topic).observe(seconds)
    PROGRESS.set(time.time())


def behind(ends: Mapping[Any, int | None], positions: Mapping[Any, int | None]) -> None:
    """Note the lag of the partitions that are ours (keys have `topic` and `partition`), and of no other."""
    lags = {
        (tp.topic, tp.partition): max(0, (ends.get(tp) or 0) - position)
        for tp, position in positions.items()
        if position is not None
    }
    for topic, partition in _measured - lags.keys():
        LAG.remove(topic, partition)
    for (topic, partition), lag in lags.items():
        LAG.labels(topic, partition).set(lag)
    _measured.clear()
    _measured.update(lags)
    if not any(lags.values()):
        PROGRESS.set(time.time())
