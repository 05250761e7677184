"""The contract may grow and nothing else: what was ever released decodes for ever, and a reader of it reads on."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from streams import events, topics

from .contract import SAMPLES, VERSION, broken, contract, samples

RELEASES = sorted(path for path in SAMPLES.iterdir() if path.is_dir())
RECORDS = {record.__struct_config__.tag: record for topic in topics.ALL for record in topic.records}
by_release = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def test_this_version_has_its_samples() -> None:
    """No version is released without them: `.venv/bin/python tests/streams/contract.py` writes them."""
    assert (SAMPLES / VERSION / "contract.json").exists()


@by_release
def test_every_record_of_a_release_has_its_samples(release: Path) -> None:
    """And they are what the release's own contract says: nobody has touched them."""
    assert {path.name: read(path) for path in release.glob("*.json") if path.name != "contract.json"} == dict(
        samples(read(release / "contract.json"))
    )


@pytest.mark.parametrize(
    "path",
    [path for release in RELEASES for path in sorted(release.glob("*.*.json"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_what_was_released_decodes_for_ever(path: Path) -> None:
    """Nothing of what it said is lost or changed on the way in and out."""
    said = read(path)
    record = msgspec.json.decode(path.read_bytes(), type=RECORDS[said["type"]])
    says = json.loads(events.encode(record))
    assert {field: says[field] for field in said} == said


@by_release
def test_the_contract_has_only_grown(release: Path) -> None:
    """A released record keeps its fields and their types. Give a new field a default, or make a new record."""
    assert broken(read(release / "contract.json"), contract()) == []


# --- what counts as broken --------------------------------------------------------------------------------------------

Fields = dict[str, Any]


def altered(base: type[events.Record], *, drop: str = "", add: list[Any] | None = None, tag: str = "") -> Any:
    """`base` with a field dropped, replaced or added (as `msgspec.defstruct` takes them), or with another tag."""
    fields = []
    for field in msgspec.structs.fields(base):
        default = (
            (field.default,)
            if field.default is not msgspec.NODEFAULT
            else (msgspec.field(default_factory=field.default_factory),)
            if field.default_factory is not msgspec.NODEFAULT
            else ()
        )
        if field.name != drop:
            fields.append((field.name, field.type, *default))
    return msgspec.defstruct(
        base.__name__,
        [*fields, *(add or [])],
        tag_field="type",
        tag=tag or base.__struct_config__.tag,
        kw_only=True,
        rename={"from_": "from"} if base is events.Gap else None,
    )


EVENT, STATUS, DUE, TRANSITION = events.ConditionEvent, events.Status, events.Due, events.Transition
BREAKS: dict[str, tuple[type[events.Record], Fields, str]] = {
    "a field removed": (EVENT, {"drop": "ordinal"}, "ConditionEvent.ordinal: the field is gone"),
    "a field renamed": (
        TRANSITION,
        {"drop": "dwell", "add": [("seconds", float | None, None)]},
        "Transition.dwell: the field is gone",
    ),
    "a required field added": (EVENT, {"add": [("venue", str)]}, "ConditionEvent.venue: required"),
    "a field that became required": (
        EVENT,
        {"drop": "ordinal", "add": [("ordinal", int)]},
        "ConditionEvent.ordinal: required",
    ),
    "a required field that may be absent": (
        EVENT,
        {"drop": "frame", "add": [("frame", int, 0)]},
        "ConditionEvent.frame: readers rely on it",
    ),
    "a type narrowed: no longer null": (
        TRANSITION,
        {"drop": "dwell", "add": [("dwell", float, 0.0)]},
        "Transition.dwell: its type has changed",
    ),
    "a type narrowed: no longer fractions": (
        STATUS,
        {"drop": "figures", "add": [("figures", dict[str, int], {})]},
        "Status.figures: its additionalProperties was",
    ),
    "a type narrowed: a day, not a moment": (
        DUE,
        {"drop": "at", "add": [("at", date)]},
        "Due.at: its format was 'date-time', now 'date'",
    ),
    "a type changed": (EVENT, {"drop": "seq", "add": [("seq", int)]}, "ConditionEvent.seq: its type was 'string'"),
    "a type widened: old readers can't read null": (
        EVENT,
        {"drop": "seq", "add": [("seq", str | None)]},
        "ConditionEvent.seq: its type has changed",
    ),
    "a list's elements changed": (
        events.ConditionSnapshot,
        {"drop": "codes", "add": [("codes", tuple[int, ...])]},
        "ConditionSnapshot.codes[]: its type was 'string'",
    ),
    "another default": (
        EVENT,
        {"drop": "ordinal", "add": [("ordinal", int, 1)]},
        "ConditionEvent.ordinal: its default was 0, now 1",
    ),
    "another default word": (
        EVENT,
        {"drop": "exchange", "add": [("exchange", events.Exchange, "NXT")]},
        "ConditionEvent.exchange: its default was 'KRX', now 'NXT'",
    ),
    "another tag": (EVENT, {"tag": "hit-or-exit"}, "ConditionEvent.type: no longer 'condition-event'"),
    "a word of an enumeration removed": (
        DUE,
        {"drop": "kind", "add": [("kind", Literal["day-end", "hold", "expiry"])]},
        "Due.kind: no longer 'cooldown'",
    ),
    "a limit set": (
        EVENT,
        {"drop": "seq", "add": [("seq", Annotated[str, msgspec.Meta(max_length=2)])]},
        "ConditionEvent.seq: its maxLength was None, now 2",
    ),
}


def with_changed(base: type[events.Record], changes: Fields) -> dict[str, Any]:
    """The present contract, had `base` been changed."""
    now = contract()
    now["schemas"] |= contract([altered(base, **changes)])["schemas"]
    return now


@pytest.mark.parametrize("name", BREAKS)
def test_a_change_that_breaks_a_reader_is_refused(name: str) -> None:
    base, changes, sentence = BREAKS[name]
    found = broken(contract(), with_changed(base, changes))
    assert len(found) >= 1
    assert found[0].startswith(sentence)


@pytest.mark.parametrize("base", sorted(RECORDS.values(), key=lambda record: record.__name__))
def test_an_unchanged_record_is_not_refused(base: type[events.Record]) -> None:
    """The alteration itself changes nothing, so what the other tests see is what they altered."""
    assert broken(contract(), with_changed(base, {})) == []


def test_growth_is_allowed() -> None:
    """A field with a default, another word of an enumeration, another record on a topic, another topic."""
    kinds = Literal["day-end", "hold", "expiry", "cooldown", "half-time"]
    assert broken(contract(), with_changed(EVENT, {"add": [("venue", str, "KRX")]})) == []
    assert broken(contract(), with_changed(DUE, {"drop": "kind", "add": [("kind", kinds)]})) == []
    more = contract()
    more["topics"]["hitstream.new"] = {"key": "code", "records": ["New"]}
    more["topics"]["hitstream.quotes"]["records"].append("New")
    more["schemas"]["New"] = {"type": "object"}
    assert broken(contract(), more) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda now: now["topics"].pop("hitstream.quotes"), "hitstream.quotes: the topic is gone"),
        (lambda now: now["topics"]["hitstream.quotes"].update(key="x"), "hitstream.quotes: its key was stock code"),
        (lambda now: now["topics"]["hitstream.quotes"]["records"].clear(), "hitstream.quotes: Quote is gone from it"),
        (lambda now: now["schemas"].pop("Reason"), "Reason: the record is gone"),
    ],
)
def test_what_is_gone_from_the_contract_is_told(change: Any, sentence: str) -> None:
    now = contract()
    change(now)
    assert broken(contract(), now) == [sentence]


def test_a_record_of_an_older_version_must_not_miss_what_a_newer_one_requires() -> None:
    """The samples alone would notice, too: they lack the new field."""
    newer = altered(EVENT, add=[("venue", str)])
    with pytest.raises(msgspec.ValidationError, match="missing required field `venue`"):
        msgspec.json.decode((RELEASES[0] / "condition-event.full.json").read_bytes(), type=newer)
