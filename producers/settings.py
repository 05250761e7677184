"""The producer's part of the settings: the account, the servers, and which conditions to keep open."""

from __future__ import annotations

from datetime import time
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

_TIME: Final = r"^([01]\d|2[0-3]):[0-5]\d$"


class KiwoomSettings(BaseModel):
    """`[kiwoom]`: where Kiwoom is and which account reads it."""

    model_config = ConfigDict(extra="forbid")

    rest_url: str = Field("", description="REST address: https://api.kiwoom.com, paper https://mockapi.kiwoom.com.")
    websocket_url: str = Field("", description="WebSocket address: wss://api.kiwoom.com:10000/api/dostk/websocket.")
    app_key: SecretStr = Field(SecretStr(""), description="App key of the Open REST API.")
    secret_key: SecretStr = Field(SecretStr(""), description="The app key's secret key.")
    account: str = Field("main", pattern=r"^[A-Za-z0-9_.-]+$", description="Account whose saved conditions these are.")
    hours: Literal["market", "always"] = Field("market", description="`market` rests outside trading hours.")
    login_at: str = Field("08:40", pattern=_TIME, description="KST at which a session is opened on a trading day.")
    open_at: str = Field("09:00", pattern=_TIME, description="KST at which the market opens.")
    close_at: str = Field("15:30", pattern=_TIME, description="KST at which it closes.")
    logout_at: str = Field("15:40", pattern=_TIME, description="KST at which the session rests.")
    days: list[str] = Field([], description="Days unlike the calendar: '2026-06-03 closed', '2026-11-19 10:00-16:30'.")
    audit_after: float = Field(
        300.0, gt=0, description="Seconds between two audits of a condition: a one-shot search is compared with it."
    )
    state_dir: str = Field(
        "", description="Folder of locks and tokens, shared by all processes of this user; empty: the usual place."
    )
    spool_bytes: int = Field(
        1 << 30, ge=1 << 10, description="Most bytes that wait on the disk while Kafka takes nothing."
    )
    stex_tp: Literal["K", "N", "A", ""] = Field(
        "K", description="Exchange asked: K KRX, N NXT, A both, empty leaves it out."
    )
    doctor_at: tuple[time, ...] = Field(
        (), description='Times (KST) of the diagnosis on every trading day, e.g. ["08:50", "09:01"].'
    )
    journal: bool = Field(True, description="Whether every raw frame goes to the `frames` topic, secrets masked.")
    login_pause: float = Field(
        1.5, ge=0, le=60, description="Seconds between the LOGIN reply and the next frame: Kiwoom swallows bursts."
    )
    send_spacing: float = Field(0.35, ge=0, le=60, description="Least seconds between two frames that are sent.")

    @model_validator(mode="after")
    def _hours_follow_each_other(self) -> KiwoomSettings:
        if not self.login_at <= self.open_at < self.close_at <= self.logout_at:
            raise ValueError("login_at, open_at, close_at and logout_at must follow each other")
        return self


class QuotesSettings(BaseModel):
    """`[quotes]`: prices of the stocks that are in a condition or recommended."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Whether prices are told at all.")
    slots: int = Field(150, ge=1, le=200, description="Most stocks at a time; Kiwoom takes 200 per session.")
    per_second: int = Field(4, ge=1, le=20, description="Most quotes of a stock per second; none loses an extreme.")
    keep: float = Field(
        1800.0, ge=0, description="Seconds for which a stock that has left keeps its slot while nobody else wants it."
    )
    journal: bool = Field(False, description="Whether raw frames of nothing but prices go to the `frames` topic, too.")


class ConditionSource(BaseModel):
    """The producer's part of one `[[conditions]]`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="The condition's name in the HTS.")
    seq: str = Field("", description="Its number, only where two conditions have one name.")
    search_at: tuple[time, ...] = Field(
        (), description='Times (KST) of a one-shot search on every trading day, e.g. ["15:37"].'
    )


class BarsSettings(BaseModel):
    """`[bars]`: minute and daily bars after the close, of what was hit and of a fixed random sample."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Whether they are fetched every trading day; `hitstream bars` does anyway.")
    at: str = Field("15:45", pattern=_TIME, description="KST at which they are fetched, after the close.")
    sample: int = Field(
        200, ge=0, le=2000, description="Stocks of the fixed random sample that conditions are compared with."
    )
