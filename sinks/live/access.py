"""Tokens and what they open: who somebody is, sessions made of a token, and the word that a write must carry.

Pure: the time is passed in, nothing is read from a request. `guard` takes requests apart and asks here.

The one idea: **nothing is remembered about a session that is valid.** Its cookie is signed with a key made of its
token, so it is good at every hub that knows the token, ends everywhere when the token is changed or removed, and says
nothing about the token. Only the sessions that were logged out are remembered, until they would have ended anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from sinks.settings import LiveSettings
from streams.events import ConfigError

SESSION_SECONDS: Final = 12 * 3600
LEAST_TOKEN: Final = 12  # characters of a token that strangers may try
_REVOKED: Final = 10_000  # sessions that are remembered as logged out
_LABEL: Final = re.compile(r"[\w.@-]{1,40}")
_COOKIE: Final = re.compile(r"([0-9a-f]{16})\.([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A secret, whose it is, and whether it may write."""

    label: str
    secret: str
    may_write: bool

    def key(self, purpose: str) -> bytes:
        """A key for one purpose, from which nobody finds the token or the key for another."""
        return hmac.new(self.secret.encode(), f"hitstream {purpose}".encode(), hashlib.sha256).digest()


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A login: of which token, what names it, and when it ends (seconds since 1970)."""

    token: Token
    nonce: str
    expires: int


def read_tokens(text: str, *, may_write: bool, setting: str) -> tuple[Token, ...]:
    """Tokens as settings give them: `label:token`, separated by commas or lines.

    Raises:
        ConfigError: a part has another form; it is named by its place, never quoted.
    """
    tokens = []
    parts = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    for place, part in enumerate(parts, 1):
        label, _, secret = part.partition(":")
        if not _LABEL.fullmatch(label) or not secret:
            raise ConfigError(
                f"Part {place} of {setting} can't be read: write label:token, separated by commas or lines; a label "
                "has up to 40 letters, digits or . _ @ -"
            )
        tokens.append(Token(label=label, secret=secret, may_write=may_write))
    return tuple(tokens)


def tokens(settings: LiveSettings) -> tuple[Token, ...]:
    """The tokens that settings give.

    Raises:
        ConfigError: they can't be read.
    """
    first = settings.token.get_secret_value()
    return (
        *((Token(label=settings.user, secret=first, may_write=True),) if first else ()),
        *read_tokens(settings.write_tokens.get_secret_value(), may_write=True, setting="live.write_tokens"),
        *read_tokens(settings.read_tokens.get_secret_value(), may_write=False, setting="live.read_tokens"),
    )


class Access:
    """The tokens in force, and the sessions that were logged out.

    Raises:
        ConfigError: one secret or one label stands for two tokens.
    """

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self.tokens = tuple(tokens)
        if len({token.secret for token in tokens}) < len(self.tokens):
            raise ConfigError("Two tokens of live.token, live.write_tokens and live.read_tokens are the same.")
        if len({token.label for token in tokens}) < len(self.tokens):
            raise ConfigError(
                "Two tokens of live.token, live.write_tokens and live.read_tokens have one label; live.token's is "
                "live.user."
            )
        self._by_key = {token.key("name").hex()[:16]: token for token in self.tokens}
        self._digests = tuple((token, _digest(token.secret)) for token in self.tokens)
        self._revoked: OrderedDict[str, int] = OrderedDict()

    def token(self, given: str) -> Token | None:
        """The token that was given, None if there is no such. Takes the same time whichever it is, and however long."""
        digest = _digest(given)
        found = None
        for token, its in self._digests:
            if hmac.compare_digest(its, digest):
                found = token
        return found

    def open(self, token: Token, now: float) -> str:
        """A new session's cookie."""
        head = f"{token.key('name').hex()[:16]}.{int(now) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{head}.{_sign(token, 'session', head)}"

    def session(self, cookie: str, now: float) -> Session | None:
        """The session of a cookie, None if it is none of ours, has ended, or was logged out."""
        match = _COOKIE.fullmatch(cookie)
        if match is None:
            return None
        name, expires, nonce, signature = match.groups()
        token = self._by_key.get(name)
        if token is None or not hmac.compare_digest(signature, _sign(token, "session", f"{name}.{expires}.{nonce}")):
            return None
        if int(expires) <= now or nonce in self._revoked:
            return None
        return Session(token=token, nonce=nonce, expires=int(expires))

    def csrf(self, session: Session) -> str:
        """The word that a write of this session must carry: the same at every hub, another for every session."""
        return _sign(session.token, "csrf", session.nonce)

    def revoke(self, session: Session, now: float) -> None:
        """End a session before its time, at this hub."""
        while self._revoked and (len(self._revoked) >= _REVOKED or next(iter(self._revoked.values())) <= now):
            self._revoked.popitem(last=False)
        self._revoked[session.nonce] = session.expires


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _sign(token: Token, purpose: str, text: str) -> str:
    return hmac.new(token.key(purpose), text.encode(), hashlib.sha256).hexdigest()
