"""The access token: one per app key, shared by all who need it, renewed before it ends.

Kiwoom says when a token ends (`expires_dt`, KST) and that is what counts; whether asking for a new one kills the old
is unknown, so one is asked for only when it is needed. It is kept in a file that only its owner can read, so that a
restart does not ask again; a lock file beside it keeps two processes of one key from asking at the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import structlog
from pydantic import SecretStr

from streams.events import KST

from .errors import Maintenance, RateLimited, TokenRefused, Unreachable, embedded_code, masked, remedy
from .lock import alone

_log = structlog.get_logger(__name__)

EARLY: Final = timedelta(minutes=10)

_OTHERS_WITHIN: Final = 20.0  # Seconds that another process may take to ask.


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token, the server that gave it, and when it ends."""

    token: str
    rest_url: str
    expires_at: datetime


def short_name(app_key: str) -> str:
    """A short public name of an app key: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(app_key.encode()).hexdigest()[:8]


class Tokens:
    """Gives out the current token of an app key.

    Args:
        http: the client to ask with.
        rest_url: Kiwoom's REST address, without a path.
        now: the product's clock.
        folder: where the token is kept between runs.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        rest_url: str,
        app_key: SecretStr,
        secret_key: SecretStr,
        now: Callable[[], datetime],
        folder: Path,
    ) -> None:
        self._http = http
        self._rest_url = rest_url.rstrip("/")
        self._app_key = app_key
        self._secret_key = secret_key
        self._now = now
        self._path = folder / f"token-{short_name(app_key.get_secret_value())}.json"
        self._asking = asyncio.Lock()
        self._token: Token | None = None
        self._discarded = ""

    async def get(self) -> str:
        """The current token, asked for anew if it ends within `EARLY`.

        Raises:
            TokenRefused: Kiwoom does not accept the key, its secret or this machine.
            Unreachable, Maintenance, RateLimited: try again later.
        """
        async with self._asking:
            for known in (self._token, self._read()):
                if known is not None and self._usable(known):
                    self._token = known
                    return known.token
            async with alone(self._path.with_suffix(".lock"), within=_OTHERS_WITHIN):
                # Whoever had the lock before us has perhaps just asked.
                known = self._read()
                if known is None or not self._usable(known):
                    known = await self._issue()
                    self._write(known)
            self._token = known
            return known.token

    def discard(self, token: str) -> None:
        """Forget a token that Kiwoom has refused: the next `get` asks for a new one."""
        self._discarded = token
        if self._token is not None and self._token.token == token:
            self._token = None

    def _usable(self, token: Token) -> bool:
        return (
            token.token != self._discarded
            and token.rest_url == self._rest_url
            and self._now() < token.expires_at - EARLY
        )

    async def _issue(self) -> Token:
        body = {
            "grant_type": "client_credentials",
            "appkey": self._app_key.get_secret_value(),
            "secretkey": self._secret_key.get_secret_value(),
        }
        reply = await post(self._http, f"{self._rest_url}/oauth2/token", body)
        if reply.get("return_code") != 0 or not isinstance(token := reply.get("token"), str) or not token:
            message = masked(str(reply.get("return_msg", "no reason given")), body["appkey"], body["secretkey"])
            code = embedded_code(message) or str(reply.get("return_code", ""))
            if code == "1700":
                raise RateLimited(f"Kiwoom gives no token for now ({message}): too many were asked for", code)
            raise TokenRefused(f"Kiwoom gives no token ({message}): {remedy(code)}", code)
        try:
            expires_at = datetime.strptime(str(reply.get("expires_dt")).strip(), "%Y%m%d%H%M%S").replace(tzinfo=KST)
        except ValueError:
            # Without a readable end, it is asked for anew when it is refused.
            expires_at = self._now().astimezone(KST) + timedelta(hours=12)
        _log.info("token received", expires_at=expires_at.isoformat())
        return Token(token=token, rest_url=self._rest_url, expires_at=expires_at)

    def _read(self) -> Token | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Token)
        except (OSError, msgspec.MsgspecError):
            return None

    def _write(self, token: Token) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        with suppress(FileNotFoundError):
            temporary.unlink()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(token))
        temporary.replace(self._path)


async def post(
    http: httpx.AsyncClient, url: str, body: dict[str, str], headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """One POST of JSON for JSON; paging headers of the reply are added as `cont-yn` and `next-key`.

    Raises:
        Unreachable: no connection or no answer in time.
        Maintenance: a web page, or a server error.
        RateLimited: HTTP 429.
    """
    content_type = {"Content-Type": "application/json;charset=UTF-8"}
    try:
        response = await http.post(url, json=body, headers=content_type | (headers or {}))
    except httpx.TransportError as error:
        raise Unreachable(f"Kiwoom does not answer at {url}: {str(error) or type(error).__name__}") from None
    except httpx.InvalidURL as error:
        raise Unreachable(f"{url} is no address ({error}): correct kiwoom.rest_url") from None
    if response.status_code == 429:
        raise RateLimited("Kiwoom allows no more calls for now (HTTP 429)", "429")
    try:
        reply = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise Maintenance(
            f"Kiwoom answered {url} with HTTP {response.status_code} and no JSON: it may be closed for maintenance"
        )
    return reply | {name: response.headers[name] for name in ("cont-yn", "next-key") if name in response.headers}
