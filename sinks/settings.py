"""The sinks' part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class ClickHouseSettings(BaseModel):
    """`[clickhouse]`: where rows go, and how they are batched."""

    model_config = ConfigDict(extra="forbid")

    dsn: str = Field("", description="clickhouse://user:password@host:8123/database (clickhouses:// for TLS).")
    cluster: str = Field("", description="Cluster on which `migrate` makes the tables, replicated and distributed.")
    group: str = Field("hitstream-clickhouse", description="Consumer group of the writers.")
    batch_rows: int = Field(20_000, ge=1, description="Records that end a batch.")
    batch_seconds: float = Field(0.5, gt=0, description="Seconds that end a batch.")
    keep_events: int = Field(
        0, ge=0, le=36_500, description="Days that hits, snapshots and searches are kept; 0 for ever."
    )
    keep_decisions: int = Field(
        0, ge=0, le=36_500, description="Days that transitions, recommendations and gaps are kept; 0 for ever."
    )
    keep_quotes: int = Field(0, ge=0, le=36_500, description="Days that quotes are kept; 0 for ever.")
    keep_bars: int = Field(0, ge=0, le=36_500, description="Days that bars are kept; 0 for ever.")
    keep_statuses: int = Field(0, ge=0, le=36_500, description="Days that statuses are kept; 0 for ever.")


class LiveSettings(BaseModel):
    """`[live]`: the dashboard's server."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs a token.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the dashboard.")
    token: SecretStr = Field(SecretStr(""), description="A token that may write; anything but loopback needs one.")
    user: str = Field("owner", pattern=r"^[\w.@-]{1,40}$", description="Who gives the commands of token, or of nobody.")
    write_tokens: SecretStr = Field(
        SecretStr(""), description="Further tokens that may write: label:token, separated by commas or lines."
    )
    read_tokens: SecretStr = Field(
        SecretStr(""), description="Tokens that may only read: label:token, separated by commas or lines."
    )
    trusted_proxies: list[str] = Field(
        default=[], description="Addresses or networks of proxies whose X-Forwarded-* headers are believed."
    )
    fetch_wait: float = Field(
        0.1, gt=0, le=5, description="Seconds that Kafka may hold an empty answer: the longest that a partition waits."
    )
