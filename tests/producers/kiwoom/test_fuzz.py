"""Frames of any content never end the process: they are counted, journaled, and the session goes on.

Seeded, so that what fails fails again. `HITSTREAM_TEST_FUZZ` says how many frames; `make fuzz` takes a million.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from producers.conditions import Conditions
from producers.kiwoom import frames
from producers.kiwoom.session import Ignored, Moment, Send, Session, Traced, Wanted
from streams.events import Frame, encode

COUNT = int(os.environ.get("HITSTREAM_TEST_FUZZ", "20000"))
START = datetime(2026, 3, 9, 0, 0, tzinfo=UTC)
WORDS: list[Any] = [
    None, True, False, 0, -1, 1e308, 10**25, "", " ", "0", "4", "7", "005930", "A005930", "0004V0", "005930_AL",
    "삼성전자",
    "I", "D", "02", "0B", "0s", "093000", "999999", "2  ", "\u0000", "\ud800", "N", "Y", "R10001", [], {}, [[]], [{}],
    [["4", "돌파"], ["7", "눌림목"]], [{"jmcode": "A005930"}], {"841": "4"},
    "이미 등록된 조건검색 일련번호입니다.(seq=4)",
]  # fmt: skip
KINDS = ["PING", "REAL", "CNSRREQ", "CNSRLST", "CNSRCLR", "LOGIN", "SYSTEM", "REG", "REMOVE", "?"]
KEYS = ["trnm", "seq", "return_code", "return_msg", "data", "cont_yn", "next_key", "code", "message", "search_type"]
FIELDS = ["841", "9001", "843", "20", "907", "10", "11", "12", "13", "15", "215", "302"]
GOOD = [
    '{"trnm":"CNSRLST","return_code":0,"data":[["4","돌파"],["7","눌림목"]]}',
    '{"trnm":"CNSRREQ","seq":"4","return_code":0,"data":[{"jmcode":"A005930"}]}',
    '{"trnm":"REAL","data":[{"values":{"841":"4","9001":"005930","843":"I","20":"093000"},"type":"02"}]}',
    '{"trnm":"PING"}',
]


def frame(rng: random.Random) -> bytes:
    """One frame: noise, a good one that is damaged, or a well-formed one of wrong parts."""
    kind = rng.random()
    if kind < 0.15:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.45:
        good = bytearray(rng.choice(GOOD).encode())
        for _ in range(rng.randrange(1, 5)):
            good[rng.randrange(len(good))] = rng.randrange(256)
        return bytes(good[: rng.randrange(len(good)) + 1]) if rng.random() < 0.3 else bytes(good)
    if kind < 0.47:
        return b'{"trnm":"REAL","data":' + b"[" * rng.randrange(3000) + b"]" * rng.randrange(3000) + b"}"
    content: Any = {key: value(rng, 0) for key in rng.sample(KEYS, rng.randrange(len(KEYS)))}
    content["trnm"] = rng.choice(KINDS) if rng.random() < 0.95 else value(rng, 0)
    if content["trnm"] == "SYSTEM" and rng.random() < 0.9:
        content["code"] = "N00001"  # else the session would be over too often
    if content["trnm"] == "REAL" and rng.random() < 0.8:
        content["data"] = [entry(rng) for _ in range(rng.randrange(4))]
    return json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def entry(rng: random.Random) -> Any:
    values = {name: value(rng, 2) for name in rng.sample(FIELDS, rng.randrange(len(FIELDS)))}
    return {"values": values, "type": rng.choice(["02", "0B", "0s", value(rng, 2)]), "item": value(rng, 2)}


def value(rng: random.Random, depth: int) -> Any:
    if depth < 2 and rng.random() < 0.2:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 2 and rng.random() < 0.1:
        return {rng.choice(FIELDS + KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(WORDS)


def test_no_frame_ends_the_decoder_or_the_session() -> None:
    rng = random.Random(20260309)
    conditions = Conditions("main", "p", ["돌파", "눌림목"], START)
    ignored: Counter[str] = Counter()
    sessions, journaled, t = 0, 0, 0.0
    session: Session | None = None
    for _ in range(COUNT):
        if session is None or session.over:
            session = Session([Wanted("돌파"), Wanted("눌림목")], token="secret-token")
            sessions += 1
            conditions.connecting(f"p-{sessions}-a", START)
            session.opened(Moment(t, START + timedelta(seconds=t)))
            session.received('{"trnm":"LOGIN","return_code":0}', Moment(t, START + timedelta(seconds=t)))
        t += rng.expovariate(2.0)
        now = Moment(t, START + timedelta(seconds=t))
        raw = frame(rng)
        before = session.over
        read = frames.decode(raw)
        actions = session.received(raw, now) + session.tick(now)
        for action in actions:
            match action:
                case Ignored():
                    ignored[action.reason] += action.count
                case Traced(direction="in"):
                    # Whatever it was, it can be journaled.
                    encode(Frame(connection="p", number=action.number, direction="in", at=action.at, text=action.text))
                    journaled += 1
                case _:
                    pass
            for record in conditions.apply(action, now.at):
                encode(record)
        if isinstance(read, frames.Ping) and not before:
            assert isinstance(actions[0], Send)
        if isinstance(read, frames.Unreadable) and not before:
            assert any(isinstance(action, Ignored) for action in actions)
        if isinstance(read, frames.Real) and not before:
            useless = sum(isinstance(one, frames.Discarded) for one in read.entries)
            assert sum(action.count for action in actions if isinstance(action, Ignored)) >= useless
    assert journaled == COUNT
    assert {"not-json", "no-trnm", "unknown-trnm", "no-seq", "bad-code", "no-action"} <= ignored.keys()
    print(f"{COUNT:,} frames, {sessions:,} sessions, ignored: {dict(ignored.most_common())}")
