"""Who may ask: the ASGI layer in front of everything the dashboard serves.

Without a token the server listens on loopback only, and answers only requests that name it so: a page on the internet
whose name was made to point at 127.0.0.1 (DNS rebinding) gets nothing. With a token every request must bring it, as
`Authorization: Bearer …` or through the cookie that `/login` sets; it is never taken from an address. Every answer
carries the security headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from streams.events import ConfigError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE: Final = "hitstream-session"
SESSION_SECONDS: Final = 12 * 3600
REFUSAL_SECONDS: Final = 0.5  # a wrong token is answered no sooner
_LOGIN_BYTES: Final = 4_096

SECURITY_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

_LOGIN = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>Hitstream</title></head>
<body>
<h1>Hitstream</h1>
<form method="post" action="/login">
<p><label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Log in</button></p>
</form>
<p role="alert">{said}</p>
</body>
</html>
"""


def is_loopback(host: str) -> bool:
    """Whether listening on `host` reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str) -> None:
    """Refuse to listen on anything but loopback without a token.

    Raises:
        ConfigError: there is no token for an address that others can reach.
    """
    if not token and not is_loopback(host):
        raise ConfigError(
            f"live.host is {host!r}, which others can reach: set live.token (HITSTREAM_LIVE__TOKEN), "
            "or listen on 127.0.0.1."
        )


class Guard:
    """The ASGI application `app`, behind the host check or the token.

    Args:
        app: what answers those who may ask.
        token: what a request must bring; empty for none, and then it must be addressed to loopback by name.
    """

    def __init__(self, app: App, token: str = "") -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, pass on or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._token:
            if _names_loopback(headers.get(b"host", b"")):
                await self._app(scope, receive, send_guarded)
            else:
                await _answer(send_guarded, 421, "This server answers to localhost only: ask for http://localhost.")
        elif scope["path"] == "/login":
            await self._login(scope, receive, send_guarded)
        elif self._has_token(headers):
            await self._app(scope, receive, send_guarded)
        elif scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await _answer(send_guarded, 303, "Log in first.", (b"location", b"/login"))
        else:
            await _answer(send_guarded, 401, "Bring the token: log in at /login.", (b"www-authenticate", b"Bearer"))

    def _has_token(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return False
        expires, _, signature = cookie.value.partition(".") if cookie else ("", "", "")
        if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
            return False
        is_ours = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return is_ours and int(expires) > time.time()

    def _sign(self, expires: str) -> str:
        return hmac.new(self._token, f"session {expires}".encode(), hashlib.sha256).hexdigest()

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await _answer_page(send, 200, "")
            return
        if scope["method"] != "POST":
            await _answer(send, 405, "Only GET and POST.", (b"allow", b"GET, HEAD, POST"))
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _LOGIN_BYTES:
                await _answer(send, 413, "Too long.", (b"connection", b"close"))
                return
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self._token):
            await asyncio.sleep(REFUSAL_SECONDS)
            await _answer_page(send, 403, "That is not the token.")
            return
        expires = str(int(time.time()) + SESSION_SECONDS)
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = (
            f"{COOKIE}={expires}.{self._sign(expires)}; Path=/; Max-Age={SESSION_SECONDS}; "
            f"HttpOnly; SameSite=Strict{secure}"
        )
        await _answer(send, 303, "Welcome.", (b"location", b"/"), (b"set-cookie", cookie.encode()))


def _names_loopback(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


async def _answer(send: Send, status: int, text: str, *headers: tuple[bytes, bytes], media: str = "text/plain") -> None:
    body = text.encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", f"{media}; charset=utf-8".encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _answer_page(send: Send, status: int, said: str) -> None:
    await _answer(send, status, _LOGIN.replace("{said}", said), media="text/html")
