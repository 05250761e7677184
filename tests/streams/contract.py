"""The contract as it was released: how it is kept, and what may not change in it.

`samples/<version>/` holds each record as that version wrote it – with every field, and with the required ones only –
and `contract.json`, its topics and schemas. A folder is written once, when its version is released, and never again:

    .venv/bin/python tests/streams/contract.py

Kafka keeps records for weeks, and consumers are other people's programs. So a record may only grow: what was there
stays as it was, what is new has a default.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from streams import events, topics

SAMPLES: Final = Path(__file__).parent / "samples"
VERSION: Final = ".".join(version("hitstream").split(".")[:2])

#: What a field of this name holds in a sample; other fields hold something of their type.
_TELLING: Final[dict[str, Any]] = {
    "account": "main", "condition": "신고가 돌파", "seq": "7", "code": "0004V0", "name": "삼성전자", "market": "KOSPI",
    "session": "main-1", "by": "kim", "note": "실적 발표", "rule": "confluence", "algorithm_id": "A-7",
    "component": "session/main/a", "topic": "hitstream.condition-events",
    "change_rate": -5.24, "dwell": 12.0, "score": 2.5, "threshold": 2.0, "text": '{"trnm":"PING"}',
    "received_at": "2026-11-23T00:00:03.123456Z", "figures": {"lag": 1.5}, "codes": ["005930", "0004V0"],
}  # fmt: skip


def contract(records: Iterable[type[events.Record]] = ()) -> dict[str, Any]:
    """Topics (key, records) and the schemas of their records, without words that only people read."""
    public = [topic for topic in topics.ALL if topic.records]
    every = {record for topic in public for record in topic.records} if not records else set(records)
    _, schemas = msgspec.json.schema_components(
        sorted(every, key=lambda record: record.__name__), ref_template="{name}"
    )
    return {
        "topics": {
            topic.name: {"key": topic.key, "records": [record.__name__ for record in topic.records]} for topic in public
        },
        "schemas": {name: _without_words(schema) for name, schema in sorted(schemas.items())},
    }


def _without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    fields = schema.get("properties", {})
    plain = {key: _without_words(value) for key, value in schema.items() if key not in {"title", "description"}}
    return plain | ({"properties": {name: _without_words(field) for name, field in fields.items()}} if fields else {})


# --- samples ----------------------------------------------------------------------------------------------------------


def samples(released: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and value of every sample: each record with all its fields, and with the required ones only."""
    for record in sorted({name for topic in released["topics"].values() for name in topic["records"]}):
        schema = released["schemas"][record]
        full = _value(schema, record, released["schemas"])
        yield f"{full['type']}.full.json", full
        yield f"{full['type']}.least.json", {field: full[field] for field in schema["required"]}


def _value(schema: dict[str, Any], name: str, schemas: dict[str, Any]) -> Any:
    if name in _TELLING:
        return _TELLING[name]
    if "$ref" in schema:
        return _value(schemas[schema["$ref"]], name, schemas)
    if "enum" in schema:
        return schema["enum"][-1]
    if "anyOf" in schema:
        return _value(next(part for part in schema["anyOf"] if part != {"type": "null"}), name, schemas)
    if schema.get("contentEncoding") == "base64":
        return "/wA="
    match schema["type"]:
        case "object":
            return {field: _value(part, field, schemas) for field, part in schema["properties"].items()}
        case "array":
            return [_value(schema["items"], name, schemas)]
        case "integer":
            return 3
        case "number":
            return 1.5
        case "boolean":
            return True
    return {"date-time": "2026-11-23T09:00:03+09:00", "date": "2026-11-23"}.get(
        schema.get("format", ""), f"some {name}"
    )


# --- what may not change ----------------------------------------------------------------------------------------------


def broken(released: dict[str, Any], present: dict[str, Any]) -> list[str]:
    """Every change from the released contract to the present one that a reader or an old record would not survive.

    Allowed are new topics, new records, new fields with a default, and new words of an enumeration.
    """
    found: list[str] = []
    for name, topic in released["topics"].items():
        if name not in present["topics"]:
            found.append(f"{name}: the topic is gone")
            continue
        if present["topics"][name]["key"] != topic["key"]:
            found.append(f"{name}: its key was {topic['key']}")
        for gone in sorted(set(topic["records"]) - set(present["topics"][name]["records"])):
            found.append(f"{name}: {gone} is gone from it")
    for name, schema in released["schemas"].items():
        if name not in present["schemas"]:
            found.append(f"{name}: the record is gone")
        else:
            found += _differences(name, schema, present["schemas"][name])
    return found


def _differences(path: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if "enum" in old and "enum" in new:
        if gone := [word for word in old["enum"] if word not in new["enum"]]:
            yield f"{path}: no longer {', '.join(map(repr, gone))}"
        if "default" in old and "default" in new and old["default"] != new["default"]:
            yield f"{path}: its default was {old['default']!r}, now {new['default']!r}"
        return
    if len(old.get("anyOf", ())) != len(new.get("anyOf", ())):
        yield f"{path}: its type has changed"
        return
    for n, (before, after) in enumerate(zip(old.get("anyOf", ()), new.get("anyOf", ()), strict=True)):
        yield from _differences(f"{path}|{n}", before, after)
    for key in sorted({*old, *new} - {"properties", "required", "anyOf", "items"}):
        now_required_or_no_more = key == "default" and not (key in old and key in new)
        if old.get(key) != new.get(key) and not now_required_or_no_more:
            yield f"{path}: its {key} was {old.get(key)!r}, now {new.get(key)!r}"
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        yield from _differences(f"{path}[]", old["items"], new["items"])
    fields, now = old.get("properties", {}), new.get("properties", {})
    for field in fields:
        if field not in now:
            yield f"{path}.{field}: the field is gone"
        else:
            yield from _differences(f"{path}.{field}", fields[field], now[field])
    was, is_ = set(old.get("required", ())), set(new.get("required", ()))
    for field in sorted(is_ - was):
        yield f"{path}.{field}: required, but older records may lack it"
    for field in sorted((was - is_) & set(now)):
        yield f"{path}.{field}: readers rely on it, and it may be absent"


def _write(folder: Path) -> None:
    if folder.exists():
        sys.exit(f"{folder} is there already: what was released is not written anew")
    folder.mkdir(parents=True)
    released = contract()
    for name, value in [("contract.json", released), *samples(released)]:
        text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=name == "contract.json")
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    sys.stdout.write(f"{folder} written\n")


if __name__ == "__main__":
    _write(SAMPLES / VERSION)
