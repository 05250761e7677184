"""The producer's part of the settings: the account, the servers, and which conditions to keep open."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class KiwoomSettings(BaseModel):
    """`[kiwoom]`: where Kiwoom is and which account reads it."""

    model_config = ConfigDict(extra="forbid")

    rest_url: str = Field(
        "", description="REST address, e.g. https://api.kiwoom.com (paper: https://mockapi.kiwoom.com)."
    )
    websocket_url: str = Field(
        "", description="WebSocket address, e.g. wss://api.kiwoom.com:10000/api/dostk/websocket."
    )
    app_key: SecretStr = Field(
        SecretStr(""), description="App key of the Open REST API; or HITSTREAM_KIWOOM__APP_KEY_FILE."
    )
    secret_key: SecretStr = Field(SecretStr(""), description="Its secret key; or HITSTREAM_KIWOOM__SECRET_KEY_FILE.")
    account: str = Field(
        "main", pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the account whose saved conditions these are."
    )
    hours: Literal["market", "always"] = Field(
        "market", description="`market` rests outside trading hours, `always` never."
    )
    stex_tp: Literal["K", "N", "A", ""] = Field(
        "K", description="Exchange of a condition request: K KRX, N NXT, A both, empty leaves it out."
    )


class ConditionSource(BaseModel):
    """The producer's part of one `[[conditions]]`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="The condition's name in the HTS.")
    seq: str = Field("", description="Its number, only where two conditions have one name.")
