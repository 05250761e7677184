"""The producer's part of the settings: the account, the servers, and which conditions to keep open."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class KiwoomSettings(BaseModel):
    """`[kiwoom]`: where Kiwoom is and which account reads it."""

    model_config = ConfigDict(extra="forbid")

    rest_url: str = Field("", description="REST address: https://api.kiwoom.com, paper https://mockapi.kiwoom.com.")
    websocket_url: str = Field("", description="WebSocket address: wss://api.kiwoom.com:10000/api/dostk/websocket.")
    app_key: SecretStr = Field(SecretStr(""), description="App key of the Open REST API.")
    secret_key: SecretStr = Field(SecretStr(""), description="The app key's secret key.")
    account: str = Field("main", pattern=r"^[A-Za-z0-9_.-]+$", description="Account whose saved conditions these are.")
    hours: Literal["market", "always"] = Field("market", description="`market` rests outside trading hours.")
    stex_tp: Literal["K", "N", "A", ""] = Field(
        "K", description="Exchange asked: K KRX, N NXT, A both, empty leaves it out."
    )
    journal: bool = Field(True, description="Whether every raw frame goes to the `frames` topic, secrets masked.")
    login_pause: float = Field(
        1.5, ge=0, le=60, description="Seconds between the LOGIN reply and the next frame: Kiwoom swallows bursts."
    )
    send_spacing: float = Field(0.35, ge=0, le=60, description="Least seconds between two frames that are sent.")


class ConditionSource(BaseModel):
    """The producer's part of one `[[conditions]]`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="The condition's name in the HTS.")
    seq: str = Field("", description="Its number, only where two conditions have one name.")
