"""The contract: every record on every Hitstream topic.

A record is a frozen msgspec struct, JSON on the wire, with a `type` field that tells it apart from the others on its
topic. Unknown fields are ignored and new fields have defaults, so an old reader reads a new record and the other way
round. `docs/asyncapi.yaml` is generated from this module and from `topics`.

Units and conventions, once for all records:

- `at` is *when it happened* as the market says: KST (+09:00), whole seconds where Kiwoom is the source.
- `received_at` is *when we knew*: UTC with microseconds, on the product's one clock.
- Prices are whole won, rates are percent (3.92 means +3.92 %), volumes are shares, values are won, durations seconds.
- `code` is a stock's six alphanumeric characters (`005930`, `0004V0`); where it was seen on another market than KRX,
  `exchange` says so (`NXT`, or `AL` for both).
- `account` says in whose saved list a condition is; `condition` is its *name*, because Kiwoom re-assigns numbers.
- `id` is the record's identity: two records with one id are one fact said twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

#: Kafka header of a record that `hitstream dead-letters redrive` has sent back: the id of its dead letter.
REDRIVE_HEADER: Final = "hitstream-dead-letter"

# In base64 a third more, and 4 MiB is what a dead letter may have. A reason's characters may take six bytes each.
_LETTER_BYTES: Final = 2_900_000
_REASON_LENGTH: Final = 300

KST: Final = timezone(timedelta(hours=9), "KST")

Exchange = Literal["KRX", "NXT", "AL"]

#: A moment on the wire: it carries its UTC offset, and is refused without one.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class HitstreamError(Exception):
    """Root of the product's errors: one class, one cause, one sentence that says what to do. Exit code 1."""


class ConfigError(HitstreamError):
    """The program was called or configured wrongly; the sentence names the setting. Exit code 2."""


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_kebab):
    """Base of every record: JSON object with a `type` tag, the class name in kebab-case."""


# --- condition-events -------------------------------------------------------------------------------------------------


class ConditionEvent(Record, frozen=True, kw_only=True):
    """A stock entered (`hit`) or left (`exit`) a condition's result, as one REAL entry of type 02 said.

    `id` is `event_id(...)`. `session`, `frame` and `entry` are its provenance: which connection, which frame on it
    (counted from 1; a gap is loss), which entry in the frame, from 1. Entry 0 is a *confirmation*, with an identity of
    its own: what was said in the very second in which a session joined, said again some seconds later, because whole
    seconds cannot tell it from what another session said before. Whoever counts hits leaves it out.
    """

    id: str
    account: str
    condition: str
    seq: str
    code: str
    exchange: Exchange = "KRX"
    action: Literal["hit", "exit"]
    at: Moment
    ordinal: int = 0
    received_at: Moment
    session: str
    frame: int
    entry: int


class ConditionSnapshot(Record, frozen=True, kw_only=True):
    """All members of a condition at one moment: the complete, successful reply to a realtime CNSRREQ.

    It stands in the log where its request was sent: entries received since are published after it. It is state, not a
    fresh hit. `at` is when the request was sent, `received_at` when the reply was complete.
    """

    id: str
    account: str
    condition: str
    seq: str
    codes: tuple[str, ...]
    at: Moment
    received_at: Moment
    session: str
    frame: int


class SearchRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stock of a one-shot search. Price, change, open, high and low in won; `change_rate` in percent."""

    code: str
    exchange: Exchange = "KRX"
    name: str = ""
    price: int | None = None
    change: int | None = None
    change_rate: float | None = None
    open: int | None = None
    high: int | None = None
    low: int | None = None
    volume: int | None = None


class SearchResult(Record, frozen=True, kw_only=True):
    """One complete one-shot search. `source` says where rows and prices came from.

    `scheduled_for` is the planned time of a scheduled run (`search_at`), None for one that somebody asked for.
    """

    id: str
    account: str
    condition: str
    seq: str
    rows: tuple[SearchRow, ...]
    at: Moment
    received_at: Moment
    session: str
    scheduled_for: Moment | None = None
    source: Literal["search", "snapshot"] = "search"


class Gap(Record, frozen=True, kw_only=True):
    """A time in which a condition's hits and exits may have been missed: from the last proof of life until `to`."""

    id: str
    account: str
    condition: str
    from_: Moment = msgspec.field(name="from")
    to: Moment
    cause: str
    at: Moment
    received_at: Moment
    session: str


class Due(Record, frozen=True, kw_only=True):
    """A deadline that has passed, written into the log so that a replay applies it at the same place.

    `at` is the deadline itself. `kind` says which: `day-end` of (account, condition) on `condition-events`; `hold` or
    `cooldown` of (account, condition, code), `expiry` of `recommendation_id`, `day-end` of (account, code) on
    `transitions`. Fields that do not apply are empty.
    """

    id: str
    kind: Literal["day-end", "hold", "cooldown", "expiry"]
    at: Moment
    account: str
    condition: str = ""
    code: str = ""
    recommendation_id: str = ""


# --- transitions ------------------------------------------------------------------------------------------------------


class Transition(Record, frozen=True, kw_only=True):
    """A stock became (`entered`) or ceased to be (`exited`) a member of a condition: the deduplicated stream.

    `entry` counts the visits of the trading `date` from 1. `since` is when this visit began, `dwell` how long it
    lasted in seconds (exits only). `origin` says how we know: seen in `realtime`, inferred from a `snapshot`, or
    closed by the `day-end`. `initial` marks what the day's first snapshot showed: state, not news. For an entry that a
    later snapshot revealed, it happened between `gap_from` and `gap_to`. `event_id` is the record that caused it.
    """

    id: str
    account: str
    condition: str
    code: str
    exchange: Exchange = "KRX"
    kind: Literal["entered", "exited"]
    origin: Literal["realtime", "snapshot", "day-end"]
    date: date
    entry: int
    at: Moment
    since: Moment
    dwell: float | None = None
    initial: bool = False
    gap_from: Moment | None = None
    gap_to: Moment | None = None
    event_id: str
    session: str
    received_at: Moment


class SearchReason(Record, frozen=True, kw_only=True):
    """One stock of a `SearchResult`, keyed by code: a reason that counts until the day ends."""

    id: str
    account: str
    condition: str
    code: str
    exchange: Exchange = "KRX"
    name: str = ""
    date: date
    at: Moment
    received_at: Moment
    price: int | None = None
    change_rate: float | None = None
    search_id: str
    scheduled_for: Moment | None = None


# --- commands ---------------------------------------------------------------------------------------------------------


class Recommend(Record, frozen=True, kw_only=True):
    """A person recommends a stock by hand. On `commands`, and once accepted, unchanged on `transitions`."""

    id: str
    account: str = "main"
    code: str
    by: str
    note: str = ""
    at: Moment
    expires_at: Moment | None = None


class Withdraw(Record, frozen=True, kw_only=True):
    """A person withdraws a stock's recommendation. On `commands`, and once accepted, unchanged on `transitions`."""

    id: str
    account: str = "main"
    code: str
    by: str
    note: str = ""
    at: Moment


# --- recommendations --------------------------------------------------------------------------------------------------


class Reason(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a stock is recommended, and how much of the score this is.

    `since` is when the current visit (or the search, or the command) began, `visits` how often the stock entered the
    condition today. `condition` is empty for a manual reason, which has `by` and `note` instead.
    """

    kind: Literal["condition", "search", "manual"]
    condition: str = ""
    algorithm_id: str = ""
    since: Moment
    visits: int = 1
    score: float
    by: str = ""
    note: str = ""


class Recommendation(Record, frozen=True, kw_only=True):
    """One revision of a recommendation of a stock.

    `recommendation_id` is one opening, `revision` counts from 1 within it, `id` is the two together. `state` is what
    this revision left it in, `cause` why the revision was made: `threshold` (opened by score), `command` (opened by a
    person), `reason` (a reason came, went or changed), `score` (fell below the threshold), `expired`, `withdrawn`,
    `day-end`. `cause_id` is the record that caused it.
    """

    id: str
    recommendation_id: str
    revision: int
    account: str
    code: str
    date: date
    state: Literal["open", "closed"]
    cause: Literal["threshold", "command", "reason", "score", "expired", "withdrawn", "day-end"]
    cause_id: str
    rule: str
    score: float
    threshold: float
    reasons: tuple[Reason, ...]
    opened_at: Moment
    at: Moment
    expires_at: Moment | None = None
    received_at: Moment


# --- stocks, quotes, bars ---------------------------------------------------------------------------------------------


class Stock(Record, frozen=True, kw_only=True):
    """A listed stock, from ka10099 at login. `previous_close` in won, None where the list has none."""

    code: str
    name: str
    market: str
    previous_close: int | None = None
    received_at: Moment


class Quote(Record, frozen=True, kw_only=True):
    """A stock's price: the last, and what happened since the quote before.

    `high`, `low`, `volume` and `trades` cover the trades since the previous `Quote` of this code, exchange and session,
    so that conflation loses no extreme; `change_rate` is against the previous close; `day_volume` is cumulative, as the
    exchange says it. Where it grew by more than `volume` since the quote before, the rest was traded unheard.
    `received_at` is when the last of the trades was heard; with code, exchange and session it is the identity.
    """

    code: str
    exchange: Exchange = "KRX"
    at: Moment
    received_at: Moment
    price: int
    high: int
    low: int
    volume: int
    trades: int
    change_rate: float | None = None
    day_volume: int | None = None
    session: str = ""


class Bar(Record, frozen=True, kw_only=True):
    """A minute (`1m`) or daily (`1d`) bar fetched after the close. `at` is its start; `value` in won.

    `sample` says that the stock is one of the fixed random sample which conditions are compared with, whether or not a
    condition also hit it that day.
    """

    code: str
    interval: Literal["1m", "1d"]
    at: Moment
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int | None = None
    received_at: Moment
    sample: bool = False


# --- status, frames, dead letters -------------------------------------------------------------------------------------


class Status(Record, frozen=True, kw_only=True):
    """What one component is doing. Keyed by `component`, so the last one of each is what is true now.

    `component` is `session/<account>/<producer>`, `subscription/<account>/<producer>/<condition>`, or
    `<role>/<instance>`. `state` is a word of that kind's own (a subscription: `disconnected`, `listing`, `requested`,
    `live`, `refused`, `unanswered`, `missing`, `displaced`, `resting`), in force since `since` because of `cause`.
    `retired`, in any kind, is a component's last word: it is no longer configured, and nobody need see it.
    `proof_of_life` is when the component last showed that it is alive.
    """

    component: str
    kind: Literal["session", "subscription", "worker", "sink", "diagnosis"]
    state: str
    cause: str = ""
    since: Moment
    at: Moment
    account: str = ""
    condition: str = ""
    session: str = ""
    proof_of_life: Moment | None = None
    last_frame: Moment | None = None
    last_ping: Moment | None = None
    members: int | None = None
    figures: dict[str, float] = {}


class Frame(Record, frozen=True, kw_only=True):
    """One raw frame as received (`in`) or sent (`out`) on a connection, numbered from 1 per direction, masked.

    A missing number is a lost frame, except for those of nothing but prices that were left out on purpose: `left_out`
    counts them from the beginning of the connection to this frame.
    """

    connection: str
    number: int
    direction: Literal["in", "out"]
    at: Moment
    text: str
    left_out: int = 0


LetterCause = Literal["empty", "malformed", "invalid", "key", "failed", "unfit", "refused"]


class DeadLetter(Record, frozen=True, kw_only=True):
    """A record that could not be read or applied: its untouched bytes (base64 in JSON), where it stood, and why.

    `component` says who could not; `cause` is the class of the `reason`: `empty`, `malformed` (no JSON), `invalid` (not
    a record of this topic), `key` (not that of its content), `failed` (a rule or a bug), `unfit` (what it leads to
    can't be written), `refused` (by the store). `value` is None for an empty record, and where `omitted` says that its
    bytes were too many for a letter: they are only at their place. `redriven` is the letter that this one is of again,
    after it was sent back to its topic.
    """

    id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    omitted: int = 0
    cause: str = ""
    reason: str
    component: str
    redriven: str = ""
    at: Moment


class Redrive(Record, frozen=True, kw_only=True):
    """That a dead letter is sent back: said before (`done` false), and again with the same `id` once it has arrived.

    `partition` is where it goes and `after` the end of that partition before it was sent, so that whoever finds only
    the first word can look whether the record has arrived. `offset` is where it stands, None where it was handed to
    the store that had refused it (`topic` is empty then).
    """

    id: str
    letter_id: str
    topic: str
    partition: int = 0
    after: int = 0
    offset: int | None = None
    done: bool
    at: Moment


# --- reading, writing, identity ---------------------------------------------------------------------------------------

ConditionRecord = ConditionEvent | ConditionSnapshot | SearchResult | Gap | Due
StockRecord = Transition | SearchReason | Recommend | Withdraw | Due
Command = Recommend | Withdraw

_encoder = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """One record as the JSON bytes that go on a topic."""
    return _encoder.encode(record)


@lru_cache(maxsize=1024)
def condition_key(account: str, condition: str) -> bytes:
    """Kafka key of everything that is said of one condition."""
    return f"{account}/{condition}".encode()


def identity(*parts: object) -> str:
    """A stable 128-bit identity of a fact, as 32 hex digits."""
    return _digest("\x1f".join(map(str, parts)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def letter_id(component: str, topic: str, partition: int, offset: int, timestamp: int) -> str:
    """Identity of a dead letter: a record at its place, and who could not take it.

    With Kafka's `timestamp` (ms), because a topic that is made anew counts its offsets from 0 again.
    """
    return identity("dead-letter", component, topic, partition, offset, timestamp)


def dead_letter(
    *,
    component: str,
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    cause: LetterCause,
    reason: str,
    at: datetime,
    headers: Sequence[tuple[str, bytes]] = (),
) -> DeadLetter:
    """The dead letter of a Kafka record, which always fits on its topic: a poison record must not stop its reader.

    A reason may quote what the record said, so it is cut; bytes that don't fit are left out and only at their place.
    """
    redriven = next((name.decode(errors="replace") for header, name in headers if header == REDRIVE_HEADER), "")
    omitted = 0
    if len(value or b"") + len(key or b"") > _LETTER_BYTES:
        omitted = len(value or b"")
        value = None
        key = key if len(key or b"") <= _LETTER_BYTES else None
        reason = f"{reason[:_REASON_LENGTH]} (its {omitted} bytes are too many for a dead letter and only at its place)"
    return DeadLetter(
        id=letter_id(component, topic, partition, offset, timestamp),
        topic=topic,
        partition=partition,
        offset=offset,
        key=key,
        value=value,
        omitted=omitted,
        cause=cause,
        reason=reason[: 2 * _REASON_LENGTH],
        component=component,
        redriven=redriven[:64],
        at=at,
    )


def event_id(account: str, condition: str, code: str, action: str, at: datetime, ordinal: int) -> str:
    """Identity of a hit or exit: the same from every producer, restart and replay.

    `at` carries the trading date and Kiwoom's whole second; `ordinal` counts equal tuples within one connection.
    """
    # What `identity("event", …)` gives, put together in one go: there is one of these for every hit.
    return _digest(f"event\x1f{account}\x1f{condition}\x1f{code}\x1f{action}\x1f{_second(at)}\x1f{ordinal}")


@lru_cache(maxsize=256)
def _second(at: datetime) -> str:
    return at.astimezone(KST).isoformat(timespec="seconds")


def transition_id(account: str, condition: str, code: str, day: date, entry: int, kind: str) -> str:
    """Identity of a transition: the n-th visit of a stock to a condition on a trading date, entered or exited."""
    return identity("transition", account, condition, code, day.isoformat(), entry, kind)


def revision_id(recommendation_id: str, revision: int) -> str:
    """Identity of one revision of one opening of a recommendation."""
    return f"{recommendation_id}-{revision}"


def trading_date(at: datetime) -> date:
    """The trading date of a moment: its calendar date in KST."""
    return at.astimezone(KST).date()


@lru_cache(maxsize=64)
def day_end(day: date) -> datetime:
    """The deadline of a trading date: midnight KST at its end."""
    return datetime(day.year, day.month, day.day, tzinfo=KST) + timedelta(days=1)
