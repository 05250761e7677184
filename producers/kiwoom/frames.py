"""Kiwoom's WebSocket frames: bytes ↔ values.

The one place that knows field numbers. It reads tolerantly – padded, missing, `null`, lists or objects – and never
raises: what can't be read becomes `Unreadable` or a `Discarded` entry with a reason, so that the session can count it.
What a frame *means* is the session's business.

A REAL frame carries a list of entries of mixed types, so types are told apart per entry. The `reason` words are a
fixed set: they become metric labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from streams.events import Exchange, SearchRow

CONDITION: Final = "02"
TRADE: Final = "0B"
MARKET_CLOCK: Final = "0s"

_CODE: Final = re.compile(r"[0-9A-Za-z]{6}")
_TIME: Final = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d[0-5]\d")
_SEQ_IN_TEXT: Final = re.compile(r"seq\s*=\s*([0-9A-Za-z]+)")

# --- out --------------------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="trnm"):
    """Base of the frames that we send."""

    def text(self) -> str:
        """The frame as it goes on the wire."""
        return msgspec.json.encode(self).decode()


class LoginRequest(Request, frozen=True, kw_only=True, tag="LOGIN"):
    """Must be the first frame on a connection. `token` is the raw token, without `Bearer`."""

    token: str


class ListRequest(Request, frozen=True, kw_only=True, tag="CNSRLST"):
    """Asks for the saved conditions. Without it, no CNSRREQ of the connection is answered."""


class RealtimeRequest(Request, frozen=True, kw_only=True, tag="CNSRREQ", omit_defaults=True):
    """Asks for a condition's members and to be told of every hit and exit from then on."""

    seq: str
    search_type: Literal["1"]
    stex_tp: Literal["K", "N", "A", ""] = ""


class SearchRequest(Request, frozen=True, kw_only=True, tag="CNSRREQ"):
    """Asks once for a condition's members with their prices."""

    seq: str
    search_type: Literal["0"] = "0"
    stex_tp: Literal["K", "N", "A"] = "K"
    cont_yn: Literal["Y", "N"] = "N"
    next_key: str = ""


class ClearRequest(Request, frozen=True, kw_only=True, tag="CNSRCLR"):
    """Ends what a RealtimeRequest of the same connection began."""

    seq: str


class Asked(msgspec.Struct, frozen=True):
    """A frame that was sent, as far as it decides what answers it. Fields that it has not are empty."""

    trnm: str = ""
    seq: str = ""
    search_type: str = ""
    stex_tp: str = ""
    next_key: str = ""


def request(text: str) -> Asked:
    """Read a frame that was sent, by us or another program. Never raises."""
    try:
        return msgspec.json.decode(text, type=Asked)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Asked()


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """Codes and the types asked of each."""

    item: Sequence[str]
    type: Sequence[str]


class RegisterRequest(Request, frozen=True, kw_only=True, tag="REG"):
    """Registers codes for realtime types. `refresh` "1" keeps the earlier ones, "0" drops them."""

    grp_no: str
    refresh: Literal["0", "1"] = "1"
    data: Sequence[Items]


class RemoveRequest(Request, frozen=True, kw_only=True, tag="REMOVE"):
    """Takes back a RegisterRequest."""

    grp_no: str
    data: Sequence[Items]


# --- in ---------------------------------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the frames that we receive."""


class Ping(Frame, frozen=True, kw_only=True):
    """The server's heartbeat, to be echoed verbatim."""


class System(Frame, frozen=True, kw_only=True):
    """A notice: that we are being disconnected (R10001, R10002, R10004), or news about the market."""

    code: str
    message: str


class Reply(Frame, frozen=True, kw_only=True):
    """Base of what answers a request. `code` 0 is success; None means that the frame had no readable one."""

    code: int | None
    message: str = ""


class LoginReply(Reply, frozen=True, kw_only=True):
    """The answer to LOGIN."""


class ListReply(Reply, frozen=True, kw_only=True):
    """The account's conditions as (seq, name). `complete` is False if part of the list could not be read."""

    conditions: tuple[tuple[str, str], ...] = ()
    complete: bool = True


class Member(msgspec.Struct, frozen=True):
    """A code of a realtime reply and where it was seen."""

    code: str
    exchange: Exchange = "KRX"


class ConditionReply(Reply, frozen=True, kw_only=True):
    """The answer to CNSRREQ.

    `seq` is the reply's own or, in a refusal, the one inside the text; empty if there is none. `search_type` is that of
    the request as far as the reply shows it: paging fields or prices are those of a one-shot search. `members` are the
    stocks, `rows` the same with prices where the search was one-shot. `discarded` counts rows of something that is no
    stock code. `complete` says that this is all: readable, and with no further page.
    """

    seq: str
    search_type: Literal["0", "1", ""] = ""
    members: tuple[Member, ...] = ()
    rows: tuple[SearchRow, ...] = ()
    discarded: int = 0
    complete: bool = True
    next_key: str = ""


class ClearReply(Reply, frozen=True, kw_only=True):
    """The answer to CNSRCLR."""

    seq: str


class RegisterReply(Reply, frozen=True, kw_only=True):
    """The answer to REG or REMOVE. Success proves nothing: a bogus code is acknowledged too."""

    trnm: Literal["REG", "REMOVE"]


class ConditionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A stock entered (`hit`) or left (`exit`) a condition. `time` is HHMMSS in KST, None if it was unreadable."""

    seq: str
    code: str
    exchange: Exchange
    action: Literal["hit", "exit"]
    time: str | None


class TradeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A trade (0B). Prices in won without the direction sign, `change` in won and `change_rate` in percent with it.

    `size` is what was traded, above 0 for a buyer and below for a seller; `value` is cumulative, in million won.
    """

    code: str
    exchange: Exchange
    time: str | None
    price: int
    change: int | None = None
    change_rate: float | None = None
    size: int | None = None
    day_volume: int | None = None
    value: int | None = None
    open: int | None = None
    high: int | None = None
    low: int | None = None


class ClockEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The market clock (0s): `state` is FID 215 (3 open, 4 close, 8 regular end, 9 all end)."""

    state: str
    time: str | None


Reason = Literal[
    "no-seq", "no-code", "bad-code", "no-action", "bad-action", "no-price", "no-values", "other-type", "not-an-entry"
]


class Discarded(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that says nothing we can use, and why."""

    reason: Reason


Entry = ConditionEntry | TradeEntry | ClockEntry | Discarded


class Real(Frame, frozen=True, kw_only=True):
    """Realtime entries, in the order in which they stood in the frame."""

    entries: tuple[Entry, ...] = ()


class Unreadable(Frame, frozen=True, kw_only=True):
    """Bytes that are no frame, or a frame of an unknown kind."""

    reason: Literal["not-json", "not-an-object", "no-trnm", "unknown-trnm"]
    detail: str = ""


Received = Ping | System | LoginReply | ListReply | ConditionReply | ClearReply | RegisterReply | Real | Unreadable


class _Wire(msgspec.Struct):
    """Every field that any frame has at its top; nothing is promised of their types."""

    trnm: Any = None
    return_code: Any = None
    return_msg: Any = None
    code: Any = None
    message: Any = None
    seq: Any = None
    cont_yn: Any = None
    next_key: Any = None
    data: Any = None


class _Values(msgspec.Struct, frozen=True):
    """The fields that we read of a realtime entry, whatever its type, where all of them are text."""

    f10: str | None = msgspec.field(name="10", default=None)
    f11: str | None = msgspec.field(name="11", default=None)
    f12: str | None = msgspec.field(name="12", default=None)
    f13: str | None = msgspec.field(name="13", default=None)
    f14: str | None = msgspec.field(name="14", default=None)
    f15: str | None = msgspec.field(name="15", default=None)
    f16: str | None = msgspec.field(name="16", default=None)
    f17: str | None = msgspec.field(name="17", default=None)
    f18: str | None = msgspec.field(name="18", default=None)
    f20: str | None = msgspec.field(name="20", default=None)
    f215: str | None = msgspec.field(name="215", default=None)
    f841: str | None = msgspec.field(name="841", default=None)
    f843: str | None = msgspec.field(name="843", default=None)
    f9001: str | None = msgspec.field(name="9001", default=None)
    f9081: str | None = msgspec.field(name="9081", default=None)


class _Told(msgspec.Struct, frozen=True):
    """A realtime entry as Kiwoom writes it."""

    type: str
    values: _Values
    item: str | None = None


class _RealWire(msgspec.Struct, frozen=True, tag_field="trnm", tag="REAL"):
    """A REAL frame as Kiwoom writes it: most of what comes. What is written otherwise is read as a `_Wire`."""

    data: list[_Told]


_FIELDS: Final = tuple(field.encode_name for field in msgspec.structs.fields(_Values))
_decoder = msgspec.json.Decoder(_Wire)
_real_decoder = msgspec.json.Decoder(_RealWire)


def decode(raw: bytes | str) -> Received:
    """Read one frame. Never raises."""
    try:
        real = _real_decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _decode_any(raw)
    return Real(entries=tuple([_entry(told) for told in real.data]))


def _decode_any(raw: bytes | str) -> Received:
    """Read a frame of which nothing is promised."""
    try:
        wire = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        return Unreadable(reason="not-an-object", detail=str(error))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # ValueError: text with lone surrogates. RecursionError: brackets nested thousands deep.
        return Unreadable(reason="not-json", detail=str(error))
    match wire.trnm:
        case "REAL":
            return Real(entries=tuple(_entries(wire.data)))
        case "PING":
            return Ping()
        case "CNSRREQ":
            return _condition_reply(wire)
        case "CNSRLST":
            return _list_reply(wire)
        case "CNSRCLR":
            return ClearReply(seq=_seq(wire), code=_number(wire.return_code), message=_text(wire.return_msg))
        case "LOGIN":
            return LoginReply(code=_number(wire.return_code), message=_text(wire.return_msg))
        case "SYSTEM":
            return System(code=_text(wire.code), message=_text(wire.message))
        case "REG" | "REMOVE":
            return RegisterReply(trnm=wire.trnm, code=_number(wire.return_code), message=_text(wire.return_msg))
        case str() as trnm:
            return Unreadable(reason="unknown-trnm", detail=trnm[:40])
        case _:
            return Unreadable(reason="no-trnm")


def answers(asked: Asked, reply: Received) -> bool:
    """Whether a frame may be the answer to a request. A refusal without any seq may answer every CNSRREQ."""
    match reply:
        case LoginReply():
            return asked.trnm == "LOGIN"
        case ListReply():
            return asked.trnm == "CNSRLST"
        case ClearReply():
            return asked.trnm == "CNSRCLR"
        case ConditionReply(seq=seq) if asked.trnm == "CNSRREQ":
            if seq != asked.seq.strip() and (seq or reply.code == 0):
                return False
            return reply.search_type in ("", asked.search_type)
    return False


@lru_cache(maxsize=8192)
def stock(text: str) -> tuple[str, Exchange] | None:
    """A code as Kiwoom writes it → (six characters, exchange), or None if it is no stock code.

    `005930_NX` is NXT and `005930_AL` both exchanges. One leading A, J or Q is a kind of paper and not part of the
    code – but only where there are seven characters: `A00123` alone would be a code.
    """
    exchange: Exchange = "KRX"
    code, suffix, market = text.strip().partition("_")
    if suffix:
        known: dict[str, Exchange] = {"NX": "NXT", "AL": "AL"}
        if market.strip() not in known:
            return None
        exchange = known[market.strip()]
    if len(code) == 7 and code[0] in "AJQ":
        code = code[1:]
    return (code, exchange) if _CODE.fullmatch(code) and code.isascii() else None


# --- the parts --------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """A field as stripped text; what is neither text nor a whole number counts as missing."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        # Python refuses to print integers of more than 4,300 digits; no field has one.
        return str(value) if abs(value) < 10**18 else ""
    return ""


def _number(value: Any) -> int | None:
    """A field as a whole number: `"000019600"`, `"-00000100"`, `"+2"`, `" 0"`; None if it is none."""
    text = _text(value)
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or len(digits) > 18 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(text)


def price(value: Any) -> int | None:
    """A price in won. Its sign says only the direction against the previous close."""
    number = _number(value)
    return None if number is None else abs(number)


def decimal(value: Any) -> float | None:
    """A plain decimal number, `"-5.24"`; None if it is none."""
    text = _text(value)
    if not re.fullmatch(r"[+-]?\d{1,9}(?:\.\d{1,9})?", text, re.ASCII):
        return None
    return float(text)


def _time(value: Any) -> str | None:
    return _clock(_text(value))


@lru_cache(maxsize=1024)
def _clock(text: str) -> str | None:
    return text if _TIME.fullmatch(text) and text.isascii() else None


def _seq(wire: _Wire) -> str:
    """The reply's seq; a refusal may have it inside the text only."""
    if seq := _text(wire.seq):
        return seq
    found = _SEQ_IN_TEXT.search(_text(wire.return_msg))
    return found[1] if found else ""


def _list_reply(wire: _Wire) -> ListReply:
    conditions: list[tuple[str, str]] = []
    complete = wire.data is None or isinstance(wire.data, list)
    for row in wire.data if isinstance(wire.data, list) else ():
        match row:
            case [seq, name, *_]:
                pair = (_text(seq), _text(name))
            case {"seq": seq, "name": name}:
                pair = (_text(seq), _text(name))
            case _:
                pair = ("", "")
        if all(pair):
            conditions.append(pair)
        else:
            complete = False
    return ListReply(
        code=_number(wire.return_code),
        message=_text(wire.return_msg),
        conditions=tuple(conditions),
        complete=complete,
    )


def _condition_reply(wire: _Wire) -> ConditionReply:
    members: list[Member] = []
    rows: list[SearchRow] = []
    discarded = 0
    # `"data": null` is how Kiwoom says that nothing matches.
    complete = (wire.data is None or isinstance(wire.data, list)) and _text(wire.cont_yn) != "Y"
    for row in wire.data if isinstance(wire.data, list) else ():
        written = _text(row.get("jmcode")) or _text(row.get("9001")) if isinstance(row, dict) else ""
        if not written:
            complete = False
        elif found := stock(written):
            members.append(Member(*found))
            if "9001" in row:
                rows.append(_search_row(row, *found))
        else:
            discarded += 1
    return ConditionReply(
        seq=_seq(wire),
        search_type="0" if rows else "1" if members else "0" if wire.cont_yn is not None else "",
        code=_number(wire.return_code),
        message=_text(wire.return_msg),
        members=tuple(members),
        rows=tuple(rows),
        discarded=discarded,
        complete=complete,
        next_key=_text(wire.next_key),
    )


def _search_row(row: dict[str, Any], code: str, exchange: Exchange) -> SearchRow:
    falling = _text(row.get("25")) in ("4", "5")
    change, rate = _number(row.get("11")), _number(row.get("12"))
    if falling:
        change = None if change is None else -abs(change)
        rate = None if rate is None else -abs(rate)
    return SearchRow(
        code=code,
        exchange=exchange,
        name=_text(row.get("302")),
        price=price(row.get("10")),
        change=change,
        change_rate=None if rate is None else rate / 1000,
        open=price(row.get("16")),
        high=price(row.get("17")),
        low=price(row.get("18")),
        volume=_number(row.get("13")),
    )


def _entry(told: _Told) -> Entry:
    """One entry of a frame that is as Kiwoom writes it."""
    values = told.values
    match told.type.strip():
        case "02":
            return _condition_entry(
                values.f841, values.f9001, told.item, values.f843, time=values.f20, market=values.f9081
            )
        case "0B":
            return _trade_entry(told.item, values)
        case "0s":
            return ClockEntry(state=_text(values.f215), time=_time(values.f20))
        case _:
            return Discarded(reason="other-type")


def _entries(data: Any) -> Iterator[Entry]:
    """The entries of a frame of which nothing is promised."""
    if data is None:
        return
    for entry in data if isinstance(data, list) else [data]:
        if not isinstance(entry, dict):
            yield Discarded(reason="not-an-entry")
            continue
        values = entry.get("values")
        match _text(entry.get("type")):
            case kind if kind not in (CONDITION, TRADE, MARKET_CLOCK):
                yield Discarded(reason="other-type")
            case _ if not isinstance(values, dict):
                yield Discarded(reason="no-values")
            case kind:
                texts = {f"f{name}": _text(values.get(name)) for name in _FIELDS}
                yield _entry(_Told(kind, _Values(**texts), _text(entry.get("item"))))


def _condition_entry(
    seq: str | None, code: str | None, item: str | None, action: str | None, *, time: str | None, market: str | None
) -> ConditionEntry | Discarded:
    if not (seq := _text(seq)):
        return Discarded(reason="no-seq")
    if not (written := _text(code) or _text(item)):
        return Discarded(reason="no-code")
    if (found := stock(written)) is None:
        return Discarded(reason="bad-code")
    does: Literal["hit", "exit"]
    match _text(action):
        case "I":
            does = "hit"
        case "D":
            does = "exit"
        case "":
            return Discarded(reason="no-action")
        case _:
            return Discarded(reason="bad-action")
    return ConditionEntry(seq=seq, code=found[0], exchange=_exchange(found[1], market), action=does, time=_time(time))


def _trade_entry(item: str | None, values: _Values) -> TradeEntry | Discarded:
    if not (written := _text(item) or _text(values.f9001)):
        return Discarded(reason="no-code")
    if (found := stock(written)) is None:
        return Discarded(reason="bad-code")
    if (last := price(values.f10)) is None:
        return Discarded(reason="no-price")
    return TradeEntry(
        code=found[0],
        exchange=_exchange(found[1], values.f9081),
        time=_time(values.f20),
        price=last,
        change=_number(values.f11),
        change_rate=decimal(values.f12),
        size=_number(values.f15),
        day_volume=_number(values.f13),
        value=_number(values.f14),
        open=price(values.f16),
        high=price(values.f17),
        low=price(values.f18),
    )


def _exchange(from_suffix: Exchange, market: str | None) -> Exchange:
    """The suffix of the code decides; without one, field 9081 may name NXT."""
    return "NXT" if market and from_suffix == "KRX" and market.strip() == "NXT" else from_suffix
