"""The job that every contestant of `bench_streams` does: leave out what is said twice, derive recommendations.

As a competent user would write it in an afternoon: one dictionary per stage, times as the strings that they are. Each
transition has the same fields as Hitstream's, each recommendation too, so the same bytes are moved. It knows nothing
of late records, snapshots, gaps, deadlines, holds, rules, or of a crash between two writes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

WEIGHT, THRESHOLD = 1.0, 1.0


class Event(msgspec.Struct, tag_field="type", tag="condition-event"):
    """What is used of a condition event."""

    id: str
    account: str
    condition: str
    code: str
    exchange: str
    action: str
    at: str
    received_at: str
    session: str


class Transition(msgspec.Struct, tag_field="type", tag="transition", kw_only=True):
    id: str
    account: str
    condition: str
    code: str
    exchange: str
    kind: str
    origin: str
    date: str
    entry: int
    at: str
    since: str
    dwell: float | None
    initial: bool = False
    gap_from: str | None = None
    gap_to: str | None = None
    event_id: str
    session: str
    received_at: str


class Reason(msgspec.Struct, kw_only=True):
    kind: str
    condition: str
    algorithm_id: str
    since: str
    visits: int
    score: float
    by: str = ""
    note: str = ""


class Recommendation(msgspec.Struct, tag_field="type", tag="recommendation", kw_only=True):
    id: str
    recommendation_id: str
    revision: int
    account: str
    code: str
    date: str
    state: str
    cause: str
    cause_id: str
    rule: str
    score: float
    threshold: float
    reasons: list[Reason]
    opened_at: str
    at: str
    expires_at: str | None = None
    received_at: str


def identity(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def deduplicate(member: dict[str, Any] | None, event: Event) -> tuple[dict[str, Any], Transition | None]:
    """The state of (condition, code) after an event, and the transition that it is, if it is one."""
    if member is None:
        member = {"inside": False, "entry": 0, "since": "", "seen": []}
    if event.id in member["seen"]:
        return member, None
    member["seen"].append(event.id)
    hit = event.action == "hit"
    if hit == member["inside"]:
        return member, None
    if hit:
        member["entry"] += 1
        member["since"] = event.at
    member["inside"] = hit
    day, kind = event.at[:10], "entered" if hit else "exited"
    dwell = (
        None if hit else (datetime.fromisoformat(event.at) - datetime.fromisoformat(member["since"])).total_seconds()
    )
    return member, Transition(
        id=identity("transition", event.account, event.condition, event.code, day, member["entry"], kind),
        account=event.account,
        condition=event.condition,
        code=event.code,
        exchange=event.exchange,
        kind=kind,
        origin="realtime",
        date=day,
        entry=member["entry"],
        at=event.at,
        since=member["since"],
        dwell=dwell,
        event_id=event.id,
        session=event.session,
        received_at=event.received_at,
    )


def recommend(standing: dict[str, Any] | None, move: Transition) -> tuple[dict[str, Any], Recommendation | None]:
    """The state of a stock after a transition, and the recommendation's next revision, if there is one."""
    if standing is None:
        standing = {"reasons": {}, "visits": {}, "openings": 0, "open": None}
    reasons, visits = standing["reasons"], standing["visits"]
    if visits.get(move.condition, [0, ""]) == [move.entry, move.kind]:
        return standing, None
    visits[move.condition] = [move.entry, move.kind]
    if move.kind == "entered":
        reasons[move.condition] = [move.since, move.entry]
    else:
        reasons.pop(move.condition, None)
    told = [
        Reason(kind="condition", condition=name, algorithm_id=name, since=since, visits=count, score=WEIGHT)
        for name, (since, count) in sorted(reasons.items(), key=lambda item: (item[1][0], item[0]))
    ]
    score = sum(reason.score for reason in told)
    opening, cause = standing["open"], "reason"
    if opening is None:
        if score < THRESHOLD:
            return standing, None
        standing["openings"] += 1
        number = standing["openings"]
        opening = {"id": identity("recommendation", move.account, move.code, move.date, number), "revision": 0}
        opening["opened_at"] = move.at
        cause = "threshold"
    state = "open" if score >= THRESHOLD else "closed"
    opening["revision"] += 1
    standing["open"] = opening if state == "open" else None
    return standing, Recommendation(
        id=f"{opening['id']}-{opening['revision']}",
        recommendation_id=opening["id"],
        revision=opening["revision"],
        account=move.account,
        code=move.code,
        date=move.date,
        state=state,
        cause=cause if state == "open" else "score",
        cause_id=move.id,
        rule="sum",
        score=score,
        threshold=THRESHOLD,
        reasons=told,
        opened_at=opening["opened_at"],
        at=move.at,
        received_at=move.received_at,
    )
