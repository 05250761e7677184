"""The streams' part of the settings: what a condition is worth, and when a stock is recommended."""

from __future__ import annotations

from datetime import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ConditionRule(BaseModel):
    """The streams' part of one `[[conditions]]`: how its memberships count."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="The condition's name in the HTS.")
    weight: float = Field(1.0, allow_inf_nan=False, description="What a membership adds to a stock's score.")
    hold: float = Field(
        0.0, ge=0, le=86_400, description="Seconds that a stock must stay before the membership counts."
    )
    cooldown: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Seconds in which a re-entry restores the reason as the same visit.",
    )
    window: tuple[time, time] | None = Field(
        None, description='A visit that begins outside it never counts, e.g. ["09:00", "15:20"] KST, the end not in it.'
    )
    algorithm_id: str = Field("", description="algorithm_id in rec_stocks; empty: the condition's name.")


class RecommendSettings(BaseModel):
    """`[recommend]`: when a score is a recommendation."""

    model_config = ConfigDict(extra="forbid")

    rule: str = Field("sum", description="Scoring rule: sum, confluence, reentry, or one of your own (docs/rules.md).")
    options: dict[str, Any] = Field(
        {}, description="The rule's options, e.g. {bonus = 0.5}; what it has is in docs/rules.md."
    )
    threshold: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Score at which a recommendation opens, and below which it closes.",
    )
    expiry: float = Field(
        0.0, ge=0, le=86_400, description="Seconds after which an open recommendation expires; 0 never."
    )


class StreamSettings(BaseModel):
    """`[stream]`: the worker."""

    model_config = ConfigDict(extra="forbid")

    app_id: str = Field("hitstream-streams", description="Consumer group of the workers.")
    state_dir: str = Field("", description="Folder of the worker's local files; empty: a temporary one.")
    stalled_after: float = Field(
        60.0, ge=1, description="Seconds without progress, while Kafka answers, after which a worker is ended as hung."
    )
    batch_records: int = Field(
        2000,
        ge=1,
        le=10_000,
        description="Records of a partition that are decided, sent, written and committed together, at most.",
    )
    state_interval: float = Field(
        0.25,
        ge=0.001,
        le=10,
        description="Seconds in which state gathers before it is written, behind the outputs, which do not wait for "
        "it: how much is decided again after a crash.",
    )
    commit_interval: float = Field(
        1.0, ge=0.05, le=60, description="Seconds between two commits of offsets; what is not committed is read again."
    )
    fetch_wait: float = Field(
        0.25,
        ge=0.01,
        le=5,
        description="Seconds that the broker may hold an empty answer. A record that comes ends the wait at once; a "
        "partition that is taken over may have to wait for it.",
    )
    instance: str = Field(
        "",
        description="Name of this worker, stable across its restarts and given to no other: after a crash it has its "
        "partitions back at once, instead of after the 6 s that show it dead. Empty: it has none.",
    )
