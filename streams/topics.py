"""Every topic: its name, key, partitions, how long it keeps what, and the records on it.

The one place for partition counts. Nothing relies on a broker creating topics by itself: `hitstream topics` creates
and verifies what stands here, the changelogs of the stream tables included.
"""

from __future__ import annotations

from typing import Final

import msgspec

from . import events

#: Bytes of a record that any broker takes: 1 MiB by default, less what Kafka adds.
MAX_RECORD: Final = 1_000_000

PREFIX: Final = "hitstream."
_DAY_MS: Final = 86_400_000


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `retention_ms` None means compacted; `settings` are further Kafka topic settings."""

    name: str
    key: str
    partitions: int
    retention_ms: int | None
    records: tuple[type[events.Record], ...]
    doc: str
    settings: dict[str, str] = {}

    @property
    def config(self) -> dict[str, str]:
        """The topic settings to create it with and to verify."""
        kept = (
            {"cleanup.policy": "compact"}
            if self.retention_ms is None
            else {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        )
        return kept | self.settings


CONDITION_EVENTS: Final = Topic(
    name=f"{PREFIX}condition-events",
    key="account/condition",
    partitions=4,
    retention_ms=7 * _DAY_MS,
    records=(events.ConditionEvent, events.ConditionSnapshot, events.SearchResult, events.Gap, events.Due),
    doc="Every hit and exit, snapshot, one-shot search and gap of every condition, in order per condition.",
)
TRANSITIONS: Final = Topic(
    name=f"{PREFIX}transitions",
    key="stock code",
    partitions=4,
    retention_ms=30 * _DAY_MS,
    records=(events.Transition, events.SearchReason, events.Recommend, events.Withdraw, events.Due),
    doc="The deduplicated stream: who entered and left which condition, and whatever else decides recommendations.",
)
RECOMMENDATIONS: Final = Topic(
    name=f"{PREFIX}recommendations",
    key="stock code",
    partitions=4,
    retention_ms=None,
    records=(events.Recommendation,),
    doc="Each revision of each recommendation, with its reasons: all for 30 days, the last for ever.",
    settings={"min.compaction.lag.ms": str(30 * _DAY_MS)},
)
STOCKS: Final = Topic(
    name=f"{PREFIX}stocks",
    key="stock code",
    partitions=1,
    retention_ms=None,
    records=(events.Stock,),
    doc="Names and markets of the listed stocks.",
)
QUOTES: Final = Topic(
    name=f"{PREFIX}quotes",
    key="stock code",
    partitions=4,
    retention_ms=_DAY_MS,
    records=(events.Quote,),
    doc="Prices of the stocks that hold a price slot.",
)
BARS: Final = Topic(
    name=f"{PREFIX}bars",
    key="stock code",
    partitions=4,
    retention_ms=30 * _DAY_MS,
    records=(events.Bar,),
    doc="Minute and daily bars fetched after the close.",
)
COMMANDS: Final = Topic(
    name=f"{PREFIX}commands",
    key="stock code",
    partitions=4,
    retention_ms=30 * _DAY_MS,
    records=(events.Recommend, events.Withdraw),
    doc="What a person enters by hand.",
)
STATUS: Final = Topic(
    name=f"{PREFIX}status",
    key="component",
    partitions=1,
    retention_ms=None,
    records=(events.Status,),
    doc="What every component is doing: the last record of a component is what is true now.",
    # All say it again every few seconds: it is compacted soon, and what nobody says any more is gone after a week.
    settings={
        "cleanup.policy": "compact,delete",
        "retention.ms": str(7 * _DAY_MS),
        "segment.ms": str(_DAY_MS // 24),
    },
)
FRAMES: Final = Topic(
    name=f"{PREFIX}frames",
    key="connection",
    partitions=1,
    retention_ms=7 * _DAY_MS,
    records=(events.Frame,),
    doc="Raw frames as received and sent, secrets masked.",
)
DEAD_LETTERS: Final = Topic(
    name=f"{PREFIX}dead-letters",
    key="source topic",
    partitions=1,
    retention_ms=30 * _DAY_MS,
    records=(events.DeadLetter, events.Redrive),
    doc="What could not be read or applied: the untouched bytes, where they stood, and why; and what was sent back.",
    # Base64 makes a third more of the largest record that a broker takes (1 MiB), and a dead letter must always fit.
    settings={"max.message.bytes": str(4 * 1024 * 1024)},
)

# State of the stream tables. Internal: the values are the worker's own and may change between versions.
MEMBERS_STATE: Final = Topic(
    name=f"{PREFIX}state-members",
    key="table key",
    partitions=CONDITION_EVENTS.partitions,
    retention_ms=None,
    records=(),
    doc="Changelog of the membership table; partitioned as condition-events.",
)
STANDINGS_STATE: Final = Topic(
    name=f"{PREFIX}state-standings",
    key="table key",
    partitions=TRANSITIONS.partitions,
    retention_ms=None,
    records=(),
    doc="Changelog of the recommendation table; partitioned as transitions.",
)

ALL: Final = (
    CONDITION_EVENTS,
    TRANSITIONS,
    RECOMMENDATIONS,
    STOCKS,
    QUOTES,
    BARS,
    COMMANDS,
    STATUS,
    FRAMES,
    DEAD_LETTERS,
    MEMBERS_STATE,
    STANDINGS_STATE,
)
