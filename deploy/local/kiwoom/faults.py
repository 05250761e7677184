"""What can be made to go wrong, by name: one fault per cause that a client must tell apart.

A value object. `POST /local/faults` changes the set in force; `protocol` and `rest` ask it at the places where the
real server is known to misbehave. A standing fault holds until it is switched off; a momentary one happens once, to
every session that is logged in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from streams.events import ConfigError, HitstreamError

STANDING: Final[Mapping[str, str]] = {
    # the connection
    "refuse-connection": "the WebSocket handshake is refused (HTTP 403)",
    "hang-connection": "the WebSocket handshake is never answered",
    "half-open": "TCP is alive, but nothing is sent and nothing is heard; once it is over, the connection is cut",
    "no-ping": "no PINGs are sent",
    "echo-unheard": "the echoes of PINGs do not arrive: R10002 after a while",
    "contested-key": "another program logs in with the app key 3 s after every login: R10001",
    "zombie": "PINGs go on, REAL entries do not",
    # LOGIN
    "silent-login": "LOGIN gets no reply",
    "refuse-login": "LOGIN is refused with 805004, as with a bad token",
    "login-unheard": "LOGIN does not arrive: R10004 and close",
    "early-system": "a SYSTEM notice and a PING come before the LOGIN reply",
    "deaf-after-login": "a request less than 1.4 s after the LOGIN reply gets no reply",
    # the list
    "silent-cnsrlst": "CNSRLST gets no reply",
    "renumbered": "every condition has another seq than before (the user edited the list)",
    "reassigned": "the conditions have each other's seqs (the user edited the list)",
    "stale-list": "CNSRLST still tells the seqs of before an edit: CNSRREQ for them gets 900004",
    "withdrawn": "the account's list of conditions lacks the seqs named, or is empty",
    "twin-names": "a condition is in the list twice, under two seqs",
    "object-list": "CNSRLST tells conditions as objects instead of pairs",
    # CNSRREQ
    "silent-cnsrreq": "CNSRREQ gets no reply: one condition is broken, or the condition module is down",
    "silent-realtime": "a realtime CNSRREQ gets no reply, a one-shot one does",
    "silent-search": "a one-shot CNSRREQ gets no reply, a realtime one does",
    "key-without-right": "CNSRREQ gets no reply with the account's first app key; with its further keys (…-2) it does",
    "refuse-cnsrreq": "CNSRREQ is refused with a code that nobody has documented (900099)",
    "rate-limited": "CNSRREQ is refused with 105110",
    "swallow-bursts": "a request less than 0.3 s after the one before it gets no reply",
    "require-stex-tp": "CNSRREQ without stex_tp gets no reply",
    "no-search-while-live": "a one-shot CNSRREQ gets no reply while a realtime one is registered in the session",
    "already-registered": "a realtime CNSRREQ gets 900003 until the session has sent CNSRCLR for it",
    "silent-repeat": "a CNSRREQ for a registered seq gets silence instead of 900003",
    "drop-registration": "CNSRREQ is answered, but the condition is silently not registered",
    "late-reply": "CNSRREQ is answered 5 s late; REAL entries come meanwhile",
    "replies-out-of-order": "the reply to a CNSRREQ waits for the one to the next, for 1 s at most",
    "before-ack-real": "the CNSRREQ reply waits until a REAL entry of the condition was sent",
    "incomplete-reply": "the CNSRREQ reply has a row without a code",
    "no-return-code": "the CNSRREQ reply has no return_code",
    "small-pages": "a one-shot search is answered in pages of five rows",
    "missing-page": "the same, and all pages but the first get no reply",
    "silent-cnsrclr": "CNSRCLR is heard, but gets no reply",
    "refuse-reg": "REG is refused with 105111",
    "refuse-some-reg": "the same, where one of its items has a code with a letter in it",
    "rate-limited-reg": "REG and REMOVE are refused with 105110",
    "silent-reg": "REG and REMOVE are heard, but get no reply",
    "deaf-reg": "REG and REMOVE are neither heard nor answered",
    "few-slots": "a session registers 20 codes at most: 105115",
    "drop-reg": "REG is acknowledged, but its codes are silently not registered",
    "padded-seq": "replies have a seq padded with blanks",
    # REAL
    "mixed-frames": "one REAL frame holds 02 and 0B entries in the order of the tape",
    "duplicate-real": "every REAL frame is sent twice",
    "reorder-real": "the entries of a REAL frame come in another order (those of one stock keep theirs)",
    "odd-entries": "REAL frames also hold entries that say nothing: without 843, 841 or values, of unknown types",
    "odd-codes": "codes come with a leading A, a suffix _AL or _NX, or blanks",
    # REST
    "quoting-refusals": "tokens, LOGIN and TR calls are refused in words that quote the secrets they were asked with",
    "bad-token": "every token is refused with 8005, on REST and at LOGIN",
    "one-token": "a new token ends the validity of the app key's earlier ones",
    "short-tokens": "new tokens are valid for 60 s",
    "wrong-app-key": "no token: 8001",
    "wrong-secret-key": "no token: 8002",
    "missing-keys": "no token: 8020",
    "unknown-ip": "no token: 8050, this address is not registered",
    "other-ip": "8010 on REST and at LOGIN: the token was issued to another address",
    "unknown-device": "8103 on REST and at LOGIN: the token or the device is not accepted",
    "wrong-environment": "8030 for a token, 8031 on REST and at LOGIN: real key against paper trading or the reverse",
    "too-many": "REST answers 429 with 1700",
    "too-many-tokens": "the token endpoint answers 429 with 1700",
    "maintenance": "REST answers an HTML page",
    "server-error": "REST answers HTTP 500 and nothing else",
    "hang-rest": "REST answers nothing at all",
    "padded-charts": "prices of charts are zero-padded, with the sign inside the padding",
    "broken-charts": "a page of a chart repeats the row before it, and has rows without a time, a price or a trade",
    "refuse-charts": "the charts of stocks whose code ends with 50 are refused",
}
"""Standing faults and what each does. Those about conditions take `seqs`; without, they hold for all."""

MOMENTARY: Final[Mapping[str, str]] = {
    "close": "the connection is closed with 1000 Bye",
    "close-abrupt": "the connection is cut without a close frame (1006)",
    "system-notice": "a SYSTEM market notice that asks for nothing",
    "garbage-frame": "a frame that is no JSON",
    "garbage-frames": "frames of every wrong kind: no text, no JSON, no object, no trnm, an unknown one, wrong fields",
    "large-frame": "a REAL frame of 4 MB whose entries are of a condition that nobody asked for",
    "oversized-frame": "a frame of 17 MB, more than any client takes",
    "null-real": "a REAL frame with data null",
    "list-forgotten": "the session has to send CNSRLST once more before it may ask for conditions",
    "forget-prices": "all codes that are registered for prices are silently registered no longer",
    "forget-registration": "the conditions named are silently registered no longer, all of them without seqs",
    "token-expired": "every token issued so far is valid no longer",
    "displaced": "SYSTEM R10001 and close, as if the app key logged in elsewhere",
    "heartbeat-lost": "SYSTEM R10002 and close, as if no PING had been echoed",
    "login-missing": "SYSTEM R10004 and close, as if LOGIN had not come first",
}
"""Faults that happen once, to every session that is logged in; the one about registrations takes `seqs`."""

MUTE: Final = frozenset({"list-forgotten", "forget-prices", "forget-registration", "token-expired"})
"""The momentary faults that nothing on the wire tells of."""

REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "wrong-app-key": (8001, "App Key와 Secret Key 검증에 실패했습니다"),
    "wrong-secret-key": (8002, "App Key와 Secret Key 검증에 실패했습니다"),
    "missing-keys": (8020, "입력파라미터로 appkey 또는 secretkey가 전달되지 않았습니다."),
    "unknown-ip": (8050, "지정단말기 인증에 실패했습니다."),
    "wrong-environment": (8030, "투자구분(실전/모의)이 달라서 Appkey를 사용할수가 없습니다."),
}
"""With which code and text a token is refused under a fault."""

TOKEN_REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "bad-token": (8005, "Token이 유효하지 않습니다"),
    "other-ip": (8010, "Token을 발급받은 IP와 서비스를 요청한 IP가 동일하지 않습니다"),
    "unknown-device": (8103, "토큰 인증 또는 단말기인증에 실패했습니다"),
    "wrong-environment": (8031, "투자구분(실전/모의)이 달라서 Token를 사용할수가 없습니다."),
}
"""With which code and text a token that was issued is refused under a fault, on REST and at LOGIN."""


class UnknownFault(HitstreamError):
    """No fault of that name."""


class Faults:
    """The standing faults in force. Immutable: `switched` returns another one."""

    __slots__ = ("_standing",)

    def __init__(self, standing: Mapping[str, frozenset[str]] | None = None) -> None:
        self._standing = dict(standing or {})

    def on(self, name: str, seq: str | None = None) -> bool:
        """Whether a fault is in force – for this condition, if one is given."""
        seqs = self._standing.get(name)
        return seqs is not None and (not seqs or seq is None or seq in seqs)

    def switched(self, name: str, on: bool, seqs: Iterable[str] = ()) -> Faults:
        """These faults with one switched on (for some conditions, or for all) or off.

        Raises:
            UnknownFault: there is no standing fault of that name.
        """
        if name not in STANDING:
            raise UnknownFault(f"There is no standing fault {name!r}; there are {', '.join(STANDING)}.")
        standing = {known: affected for known, affected in self._standing.items() if known != name}
        if on:
            standing[name] = frozenset(seqs)
        return Faults(standing)

    def refusal(self, refusals: Mapping[str, tuple[int, str]]) -> tuple[int, str] | None:
        """Code and text of the first of these faults that is in force; None if none is."""
        return next((refused for name, refused in refusals.items() if name in self._standing), None)

    def listed(self) -> dict[str, list[str]]:
        """Faults in force by name, each with the seqs it is limited to."""
        return {name: sorted(seqs) for name, seqs in self._standing.items()}


NONE: Final = Faults()


def named(texts: Iterable[str]) -> Faults:
    """The faults of a command line, each written `NAME` or `NAME:SEQ,SEQ`.

    Raises:
        ConfigError: there is no standing fault of that name.
    """
    faults = NONE
    for text in texts:
        name, _, seqs = text.partition(":")
        try:
            faults = faults.switched(name.strip(), True, (seq.strip() for seq in seqs.split(",") if seq.strip()))
        except UnknownFault as error:
            raise ConfigError(f"--fault {text}: {error}") from None
    return faults
