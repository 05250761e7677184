"""Who may ask: the ASGI layer in front of everything the dashboard serves.

Without a token the server listens on loopback only, and answers only requests that name it so: a page on the internet
whose name was made to point at 127.0.0.1 (DNS rebinding) gets nothing. With tokens every request must bring one, as
`Authorization: Bearer …` or through the session that `/login` opens; it is never taken from an address. A write must
also show that it comes from the dashboard's own page, unless it brings a token itself. Every answer carries the
security headers.

What tokens and sessions are is `access`'s. What passes here has a `Grant` in its scope's state.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog
from prometheus_client import Counter

from streams.events import ConfigError

from . import login
from .access import LEAST_TOKEN, SESSION_SECONDS, Access, Session, Token
from .answers import Problem
from .attempts import Attempts
from .proxies import Network, Origin, origin

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE: Final = "hitstream-session"
CSRF_HEADER: Final = b"x-hitstream-csrf"
GRANT: Final = "hitstream.grant"
OPEN_CSRF: Final = "loopback"
"""The word of a dashboard without tokens. It is no secret: that a page can send the header at all is what counts."""

BODY_SECONDS: Final = 10.0  # for a stranger to say what they have to say
_LOGIN_BYTES: Final = 4_096
_READING: Final = ("GET", "HEAD", "OPTIONS")
_SHOWN: Final = 64  # characters of an address in a log line

SECURITY_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        b"connect-src 'self'; media-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

_refused = Counter("hitstream_live_refused_total", "Requests that the dashboard refused, by why.", ["why"])
_log = structlog.get_logger(__name__)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may who was let in: as whom, whether to write, and what their page must send with a write."""

    label: str
    may_write: bool
    csrf: str
    may_log_out: bool = False


def is_loopback(host: str) -> bool:
    """Whether listening on `host` reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tokens: Sequence[Token]) -> None:
    """Refuse to listen on anything but loopback without tokens that are hard to guess.

    Raises:
        ConfigError: there is no token for an address that others can reach, or a short one.
    """
    if is_loopback(host):
        return
    if not tokens:
        raise ConfigError(
            f"live.host is {host!r}, which others can reach: set live.token (HITSTREAM_LIVE__TOKEN), "
            "or listen on 127.0.0.1."
        )
    if short := [token.label for token in tokens if len(token.secret) < LEAST_TOKEN]:
        raise ConfigError(
            f"The token of {short[0]!r} is shorter than {LEAST_TOKEN} characters, and others can reach live.host "
            f"{host!r}: make a longer one, for example with `openssl rand -hex 16`."
        )


class Guard:
    """The ASGI application `app`, behind the host check or the tokens.

    Args:
        app: what answers those who may ask.
        access: the tokens; without any a request must be addressed to loopback by name.
        user: who gives the commands where there are no tokens.
        trusted: proxies whose headers are believed.
        takes: the methods that a path takes, if it is there and does not take this one (method, path); else None.
        wall, steady: the clocks of sessions and of attempts.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        *,
        user: str = "owner",
        trusted: Sequence[Network] = (),
        takes: Callable[[str, str], str | None] = lambda method, path: None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._access = access
        self._user = user
        self._trusted = trusted
        self._takes = takes
        self._wall = wall
        self._steady = steady
        self._attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, pass on or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"The dashboard does not speak {scope['type']}.")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        headers: dict[bytes, bytes] = {name.lower(): value for name, value in scope["headers"]}
        peer = (scope.get("client") or ("",))[0]
        asked = origin(peer, scope.get("scheme", "http"), headers, self._trusted)
        answer = _Answer(scope, send_guarded)
        if not self._access.tokens:
            await self._pass_on_loopback(scope, receive, answer, headers, asked)
        elif scope["path"] == login.STYLE_PATH and scope["method"] in _READING:
            await answer.text(200, login.STYLE, media="text/css")
        elif scope["path"] == "/login":
            await self._login(scope, receive, answer, headers, asked)
        else:
            await self._pass_with_token(scope, receive, answer, headers, asked)

    # --- without tokens ----------------------------------------------------------------------------------------------

    async def _pass_on_loopback(
        self, scope: Scope, receive: Receive, answer: _Answer, headers: dict[bytes, bytes], asked: Origin
    ) -> None:
        if not _names_loopback(asked.host):
            await answer.refuse(421, "host", "This server answers to localhost only: ask for http://localhost.")
            return
        grant = Grant(label=self._user, may_write=True, csrf=OPEN_CSRF)
        if scope["method"] not in _READING and not await self._is_own_write(scope, answer, headers, asked, grant):
            return
        await self._let_in(scope, receive, answer, grant)

    # --- with tokens -------------------------------------------------------------------------------------------------

    async def _pass_with_token(
        self, scope: Scope, receive: Receive, answer: _Answer, headers: dict[bytes, bytes], asked: Origin
    ) -> None:
        session: Session | None = None
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            token = await self._tried(answer, credentials.strip().decode("utf-8", "surrogateescape"), asked)
            if token is None:
                return
            grant = Grant(label=token.label, may_write=token.may_write, csrf="")
        else:
            session = self._access.session(_cookie(headers), self._wall())
            if session is None:
                await answer.ask_to_log_in()
                return
            token = session.token
            grant = Grant(
                label=token.label, may_write=token.may_write, csrf=self._access.csrf(session), may_log_out=True
            )
        if scope["method"] not in _READING:
            # A page of another site can make a browser send its cookie, but not a token that the browser does not have.
            if session is not None and not await self._is_own_write(scope, answer, headers, asked, grant):
                return
            if scope["path"] == "/logout" and scope["method"] == "POST":
                if session is not None:
                    self._access.revoke(session, self._wall())
                await answer.text(204, "", (b"set-cookie", _set_cookie("", 0, asked.is_https)))
                return
            if await self._is_taken_otherwise(scope, answer):
                return
            if not grant.may_write:
                await answer.refuse(403, "read-only", f"The token of {token.label} may read only: log in with another.")
                return
        await self._let_in(scope, receive, answer, grant)

    async def _let_in(self, scope: Scope, receive: Receive, answer: _Answer, grant: Grant) -> None:
        scope["state"] = {**scope.get("state", {}), GRANT: grant}
        await self._app(scope, receive, answer.send)

    async def _tried(self, answer: _Answer, given: str, asked: Origin) -> Token | None:
        """The token that was given; None if it was answered that there is no such, or that there were too many."""
        if wait := self._attempts.wait(asked.address, self._steady()):
            await answer.refuse(429, "attempts", f"Too many wrong tokens: try again in {math.ceil(wait)} s.",
                                (b"retry-after", str(math.ceil(wait)).encode()))  # fmt: skip
            return None
        token = self._access.token(given)
        if token is None:
            self._count_attempt(asked)
            await answer.refuse(401, "token", "That is no token: bring another, or log in at /login.",
                                (b"www-authenticate", b"Bearer"))  # fmt: skip
        return token

    def _count_attempt(self, asked: Origin) -> None:
        self._attempts.failed(asked.address, self._steady())
        _log.warning("live.wrong_token", address=asked.address[:_SHOWN])

    async def _is_taken_otherwise(self, scope: Scope, answer: _Answer) -> bool:
        """Whether a path takes other methods only, which whoever may ask is told; answered if so."""
        if scope["path"] == "/logout" or not (methods := self._takes(scope["method"], scope["path"])):
            return False
        await answer.refuse(405, "method", only(methods), (b"allow", methods.encode()))
        return True

    async def _is_own_write(
        self, scope: Scope, answer: _Answer, headers: dict[bytes, bytes], asked: Origin, grant: Grant
    ) -> bool:
        """Whether a write is one, and comes from the dashboard's own page; answered if not."""
        if not _is_same_site(headers, asked):
            await answer.refuse(403, "foreign", "This write comes from another site: use the dashboard's own page.")
            return False
        if await self._is_taken_otherwise(scope, answer):
            return False
        given = headers.get(CSRF_HEADER, b"")
        if not hmac.compare_digest(given, grant.csrf.encode()):
            await answer.refuse(
                403, "csrf", "A write needs the header X-Hitstream-CSRF with the csrf of /api/session: ask for it anew."
            )
            return False
        return True

    # --- logging in --------------------------------------------------------------------------------------------------

    async def _login(
        self, scope: Scope, receive: Receive, answer: _Answer, headers: dict[bytes, bytes], asked: Origin
    ) -> None:
        lang = login.language(headers.get(b"accept-language", b"").decode("latin-1"))
        words = login.WORDS[lang]
        if scope["method"] in ("GET", "HEAD"):
            await answer.page(200, login.page(lang))
            return
        if scope["method"] != "POST":
            await answer.text(405, "Only GET and POST.", (b"allow", b"GET, HEAD, POST"))
            return
        if not _is_same_site(headers, asked):
            _refused.labels("foreign").inc()
            await answer.page(403, login.page(lang, words.foreign))
            return
        try:
            body = await _read(receive, _LOGIN_BYTES)
        except TimeoutError:
            await answer.text(408, "Nothing came.", (b"connection", b"close"))
            return
        if body is None:
            await answer.text(413, "Too long.", (b"connection", b"close"))
            return
        if wait := self._attempts.wait(asked.address, self._steady()):
            _refused.labels("attempts").inc()
            seconds = math.ceil(wait)
            await answer.page(
                429, login.page(lang, words.wait.format(seconds=seconds)), (b"retry-after", str(seconds).encode())
            )
            return
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        token = self._access.token(given)
        if token is None:
            self._count_attempt(asked)
            _refused.labels("token").inc()
            await answer.page(403, login.page(lang, words.wrong))
            return
        _log.info("live.logged_in", who=token.label, address=asked.address[:_SHOWN])
        cookie = _set_cookie(self._access.open(token, self._wall()), SESSION_SECONDS, asked.is_https)
        await answer.text(303, "", (b"location", b"/"), (b"set-cookie", cookie))


def with_head(methods: str) -> str:
    """Methods that a path takes, as it takes HEAD wherever it takes GET."""
    return methods.replace("GET", "GET, HEAD") if "HEAD" not in methods else methods


def only(methods: str) -> str:
    """What is said to who asks with another method than these."""
    return f"This can be asked with {methods} only."


# --- requests ---------------------------------------------------------------------------------------------------------


def _cookie(headers: dict[bytes, bytes]) -> str:
    try:
        morsel = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _set_cookie(value: str, seconds: int, secure: bool) -> bytes:
    return (
        f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
    ).encode()


def _is_same_site(headers: dict[bytes, bytes], asked: Origin) -> bool:
    """Whether a browser says that a request comes from a page of this server; one that says nothing is no browser.

    `Sec-Fetch-Site` says it plainly, whatever name a proxy asks us by; browsers send it over https and to localhost.
    """
    if (site := headers.get(b"sec-fetch-site")) is not None:
        return site in (b"same-origin", b"none")
    if (said := headers.get(b"origin")) is None:
        return True
    try:
        return bool(asked.host) and urlsplit(said.decode("ascii")).netloc.lower() == asked.host.lower()
    except ValueError:
        return False


def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname if host.isascii() else None
    except ValueError:
        return False
    return name is not None and is_loopback(name)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """A request's body, None if it is longer than `limit`; one that was broken off is empty.

    Raises:
        TimeoutError: it did not come.
    """
    body, more = b"", True
    async with asyncio.timeout(BODY_SECONDS):
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            body += message.get("body", b"")
            if len(body) > limit:
                return None
            more = message.get("more_body", False)
    return body


# --- answers ----------------------------------------------------------------------------------------------------------


class _Answer:
    """How one request is answered here: the API with a `Problem`, everything else in plain words."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.send = send
        self._is_api = scope["path"].startswith("/api/") or scope["path"] == "/openapi.json"
        self._is_start = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")

    async def text(self, status: int, text: str, *headers: tuple[bytes, bytes], media: str = "text/plain") -> None:
        body = text.encode()
        described = (
            (b"content-type", f"{media}; charset=utf-8".encode()),
            (b"content-length", str(len(body)).encode()),
        )
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*(described if status != 204 else ()), (b"cache-control", b"no-store"), *headers],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    async def page(self, status: int, html: str, *headers: tuple[bytes, bytes]) -> None:
        await self.text(status, html, *headers, media="text/html")

    async def refuse(self, status: int, why: str, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        _refused.labels(why).inc()
        if self._is_api:
            problem = msgspec.json.encode(Problem(error=sentence)).decode()
            await self.text(status, problem, *headers, media="application/json")
        else:
            await self.text(status, sentence, *headers)

    async def ask_to_log_in(self) -> None:
        if self._is_start:
            await self.text(303, "Log in first.", (b"location", b"/login"))
        else:
            await self.refuse(401, "token", "Bring a token: log in at /login.", (b"www-authenticate", b"Bearer"))
