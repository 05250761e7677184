"""The server as a client meets it: sockets, the clock, restarts and the control surface."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import websockets

from deploy.clock import Clock
from deploy.local.kiwoom import PortTaken, serve
from deploy.local.kiwoom.protocol import Rules
from streams.events import KST, HitstreamError

from .conftest import DEADLINE, KEYS, MONDAY_TEN, Start, Wire, later


def realtime(seq: str) -> dict[str, Any]:
    return {"trnm": "CNSRREQ", "seq": seq, "search_type": "1", "stex_tp": "K"}


async def closing(wire: Wire) -> tuple[list[dict[str, Any]], int, str]:
    """All frames until the server closes, with code and reason."""
    frames: list[dict[str, Any]] = []
    try:
        while True:
            frames.append(await wire.receive())
    except websockets.ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else 1006, closed.rcvd.reason if closed.rcvd else ""


async def test_hits_arrive_and_are_the_truth(start: Start) -> None:
    local = await start(speed=120.0)
    told: dict[str, list[tuple[str, str, str]]] = {"7": [], "5": []}
    async with local.login() as wire:
        members = {}
        for seq in told:
            reply = await wire.ask(realtime(seq))
            members[seq] = {row["jmcode"][1:] for row in reply["data"]}
        assert members["7"] & members["5"]
        while sum(map(len, told.values())) < 60:
            for entry in (await wire.until("REAL"))["data"]:
                values = entry["values"]
                told[values["841"]].append((values["9001"], {"I": "hit", "D": "exit"}[values["843"]], values["20"]))
    truth = await local.truth()
    assert truth["date"] == "2026-03-09"
    for seq, events in told.items():
        true = [(e["code"], e["action"], e["time"]) for e in truth["events"] if e["seq"] == seq]
        assert events
        position = true.index(events[0])
        assert true[position : position + len(events)] == events
        inside = set()
        for code, action, _ in true[:position]:
            (inside.add if action == "hit" else inside.discard)(code)
        assert inside == members[seq]  # nothing is lost between the snapshot and the first entry


async def test_truth_can_be_asked_in_parts(start: Start) -> None:
    local = await start(speed=1.0)
    whole = await local.truth()
    assert whole["total"] >= len(whole["events"]) > 50
    part = await local.truth("?from=10&limit=5")
    assert part["events"] == whole["events"][10:15]
    for name in ("7", "신고가 돌파"):
        one = await local.truth(f"?condition={name}")
        assert {event["condition"] for event in one["events"]} == {"신고가 돌파"}
        assert list(one["members"]) == ["신고가 돌파"]
    first = whole["events"][0]
    assert datetime.fromisoformat(first["at"]).strftime("%H%M%S") == first["time"]
    assert (await local.http.get("/local/truth?from=x")).status_code == 400


async def test_state_tells_time_sessions_and_counters(start: Start) -> None:
    local = await start(ping_interval=0.2)
    async with local.login() as wire:
        await wire.ask(realtime("7"))
        await wire.send({"trnm": "NOPE"})
        await wire.ask({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": ["005930"], "type": ["0B"]}]})
        async with asyncio.timeout(DEADLINE):
            while not (state := await local.state())["sessions"][0]["echoes"]:
                await asyncio.wait_for(wire.receive(), DEADLINE)
        (session,) = state["sessions"]
        assert session["app_key"] == "local-app-key"
        assert (session["conditions"], session["codes"], session["listed"]) == (["7"], ["005930"], True)
        assert session["ignored"] == {"unknown trnm NOPE": 1}
        assert session["pings"] >= session["echoes"]
        assert datetime.fromisoformat(state["market_time"]) >= MONDAY_TEN
        assert state["open"]


async def test_without_cnsrlst_a_session_hears_only_pings(start: Start) -> None:
    local = await start(ping_interval=0.1)
    async with local.login(listed=False) as wire:
        await wire.send(realtime("7"))
        pings = []
        while len(pings) < 5:
            text = await asyncio.wait_for(wire.socket.recv(), DEADLINE)
            pings.append(text)
            await wire.socket.send(text)
        assert set(pings) == {'{"trnm":"PING"}'}


async def test_the_second_login_of_an_app_key_displaces_the_first(start: Start) -> None:
    local = await start()
    async with local.login() as first, local.login("local-app-key-2") as other, local.login() as second:
        frames, code, reason = await closing(first)
        assert frames[-1]["code"] == "R10001"
        assert (code, reason) == (1000, "Bye")
        assert (await second.ask({"trnm": "CNSRLST"}))["return_code"] == 0
        assert (await other.ask({"trnm": "CNSRLST"}))["return_code"] == 0


async def test_a_client_that_does_not_echo_is_closed_with_r10002(start: Start) -> None:
    local = await start(ping_interval=0.1, rules=Rules())
    async with local.login() as wire:
        wire.echo = False
        frames, code, reason = await closing(wire)
        assert frames[-1]["code"] == "R10002"
        assert (code, reason) == (1000, "Bye")


async def test_a_request_before_login_is_closed_with_r10004(start: Start) -> None:
    local = await start()
    async with local.connect() as wire:
        await wire.send({"trnm": "CNSRLST"})
        frames, code, _ = await closing(wire)
        assert [frame["code"] for frame in frames] == ["R10004"]
        assert code == 1000


async def test_a_bad_token_is_answered_before_the_connection_closes(start: Start) -> None:
    local = await start()
    async with local.connect() as wire:
        await wire.send({"trnm": "LOGIN", "token": "expired"})
        frames, code, _ = await closing(wire)
        assert [frame["return_code"] for frame in frames] == [805004]
        assert code == 1000


async def test_a_restart_goes_on_with_the_day(start: Start, tmp_path: Path) -> None:
    clock = Clock(MONDAY_TEN, 60.0)
    local = await start(state_dir=tmp_path, clock=clock)
    token = await local.token()
    before = await local.truth()
    await local.stop()
    again = await start(state_dir=tmp_path, at=later(clock.now(), 60), port=local.port)
    truth = await again.truth()
    assert truth["total"] > before["total"]
    assert truth["events"][: before["total"]] == before["events"]
    async with again.connect() as wire:
        assert (await wire.ask({"trnm": "LOGIN", "token": token}))["return_code"] == 0


async def test_an_unreadable_state_file_is_passed_over(start: Start, tmp_path: Path) -> None:
    (tmp_path / "market.json").write_text("{")
    local = await start(state_dir=tmp_path)
    assert (await local.truth())["total"] > 0
    assert json.loads((tmp_path / "market.json").read_text())["seed"] == 7


async def test_who_is_connected_changes_nothing(start: Start) -> None:
    """Two servers of one seed and start: one is watched and asked, the other is left alone."""
    watched, alone = await start(speed=30.0), await start(speed=30.0)
    async with watched.login() as wire:
        for seq in ("7", "5", "18"):
            await wire.ask(realtime(seq))
        for _ in range(5):
            await wire.until("REAL")
    one, other = await watched.truth(), await alone.truth()
    common = min(one["total"], other["total"])
    assert common > 100
    assert one["events"][:common] == other["events"][:common]


async def test_a_pause_makes_the_market_quiet_and_a_resume_moves_it_on(start: Start) -> None:
    local = await start(speed=600.0)
    async with local.login() as wire:
        await wire.ask(realtime("7"))
        await wire.until("REAL")
        assert (await local.http.post("/local/pause")).json() == {"paused": True}
        quiet = await local.truth()
        state = await local.state()
        async with asyncio.timeout(DEADLINE):
            while (await local.state())["market_time"] < state["market_time"][:15]:
                pass
        assert (await local.truth())["total"] == quiet["total"]
        assert not (await local.state())["open"]
        assert (await local.http.post("/local/resume")).json() == {"paused": False}
        async with asyncio.timeout(DEADLINE):
            while (await local.truth())["total"] == quiet["total"]:
                await wire.until("REAL")


async def test_faults_are_switched_over_http(start: Start) -> None:
    local = await start(ping_interval=60.0)
    known = (await local.http.get("/local/faults")).json()
    assert {"silent-cnsrreq", "drop-registration", "no-ping", "before-ack-real", "mixed-frames"} <= set(
        known["standing"]
    )
    assert {"close", "system-notice", "garbage-frame"} <= set(known["momentary"])
    async with local.login() as wire:
        await local.fault("silent-cnsrreq", seqs=["7"])
        assert (await local.state())["faults"] == {"silent-cnsrreq": ["7"]}
        await wire.send(realtime("7"))
        assert (await wire.ask(realtime("5")))["seq"] == "5"
        await local.fault("silent-cnsrreq", on=False)
        assert (await wire.ask(realtime("7")))["seq"] == "7"
        await local.fault("no-ping")
        assert (await local.http.post("/local/faults", json={"clear": True})).json() == {"in_force": {}}
        await local.fault("system-notice")
        assert (await wire.until("SYSTEM"))["code"] == "N00001"
        await local.fault("close")
        assert (await closing(wire))[1:] == (1000, "Bye")
    async with local.login() as wire:
        await local.fault("close-abrupt")
        assert (await closing(wire))[1] == 1006
    for wrong in ({"name": "nonsense"}, {"nome": "close"}, {"name": 5}):
        assert (await local.http.post("/local/faults", json=wrong)).status_code == 400


async def test_what_is_not_there_is_404(start: Start) -> None:
    local = await start()
    for method, path in (("GET", "/"), ("GET", "/oauth2/token"), ("GET", "/local/nonsense"), ("POST", "/local/truth")):
        assert (await local.http.request(method, path)).status_code == 404
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"ws://127.0.0.1:{local.port}/elsewhere")


async def test_token_and_stocks_over_http(start: Start) -> None:
    local = await start()
    reply = await local.call("ka10099", "/api/dostk/stkinfo", {"mrkt_tp": "10"})
    assert reply.headers["content-type"] == "application/json;charset=UTF-8"
    assert (reply.headers["cont-yn"], len(reply.json()["list"])) == ("Y", 100)
    reply = await local.call(
        "ka10099", "/api/dostk/stkinfo", {"mrkt_tp": "10"}, **{"cont-yn": "Y", "next-key": reply.headers["next-key"]}
    )
    assert reply.headers["cont-yn"] == "N"


async def test_a_token_s_end_suits_clients_that_compare_it_with_either_clock(start: Start) -> None:
    for year in (2001, 2091):
        local = await start(at=datetime(year, 3, 9, 10, tzinfo=KST))
        reply = (await local.http.post("/oauth2/token", json=KEYS)).json()
        end = datetime.strptime(reply["expires_dt"], "%Y%m%d%H%M%S").replace(tzinfo=KST)
        assert end > datetime.now(KST)
        assert end.year >= year


async def test_frames_of_megabytes_and_abrupt_ends_hurt_nobody(start: Start) -> None:
    local = await start()
    async with local.login() as wire:
        await wire.send({"trnm": "NOPE", "data": "x" * (4 << 20)})
        await wire.send("{" * 100_000)
        assert (await wire.ask({"trnm": "CNSRLST"}))["return_code"] == 0
        async with local.login("local-app-key-2") as other:
            await other.ask(realtime("7"))
            other.socket.transport.abort()
        async with asyncio.timeout(DEADLINE):
            while len((await local.state())["sessions"]) > 1:
                await asyncio.sleep(0.01)
        assert (await wire.ask({"trnm": "CNSRLST"}))["return_code"] == 0


async def test_a_client_that_does_not_read_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.kiwoom.server.BACKLOG", 50)
    local = await start(speed=1.0, rules=Rules(burst=1_000_000, per_second=1e9))
    token = await local.token()
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    try:
        await loop.sock_connect(raw, ("127.0.0.1", local.port))
        protocol = websockets.client.ClientProtocol(websockets.uri.parse_uri(local.websocket_url))
        protocol.send_request(protocol.connect())
        await loop.sock_sendall(raw, b"".join(protocol.data_to_send()))
        protocol.receive_data(await loop.sock_recv(raw, 4096))
        assert list(protocol.events_received())
        for frame in ({"trnm": "LOGIN", "token": token}, {"trnm": "CNSRLST"}):
            protocol.send_text(json.dumps(frame).encode())
        for _ in range(4_000):
            protocol.send_text(b'{"trnm":"CNSRREQ","seq":"18","search_type":"0","stex_tp":"K"}')
        sending = asyncio.create_task(loop.sock_sendall(raw, b"".join(protocol.data_to_send())))
        async with asyncio.timeout(DEADLINE):
            while not (await local.state())["sessions"]:
                await asyncio.sleep(0.01)
            while (await local.state())["sessions"]:
                await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.wait((sending,))
        assert sending.cancelled() or sending.exception() is not None or sending.done()
    finally:
        raw.close()


async def test_a_taken_port_is_one_sentence_that_says_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}.*--port") as caught:
            await serve(host="127.0.0.1", port=port, seed=1, clock=Clock(), state_dir=None, ready=lambda _: None)
        assert isinstance(caught.value, HitstreamError)


async def test_it_stops_in_an_orderly_way_and_frees_its_port(start: Start) -> None:
    local = await start()
    async with local.login() as wire:
        stopping = asyncio.create_task(local.stop())
        assert (await closing(wire))[1:] == (1000, "Bye")
        await asyncio.wait_for(stopping, DEADLINE)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", local.port))


async def test_a_fast_clock_carries_the_market_with_it_in_larger_frames(start: Start) -> None:
    local = await start(at=datetime(2026, 3, 9, 8, 30, tzinfo=KST), speed=1800.0, hours="market")
    async with local.login() as wire:
        for seq in ("7", "5", "18", "1"):
            await wire.ask(realtime(seq))
        largest = 0
        async with asyncio.timeout(DEADLINE):
            while largest < 5:
                largest = max(largest, len((await wire.until("REAL"))["data"]))
        assert (await local.state())["date"] == "2026-03-09"


async def test_outside_hours_it_answers_and_is_quiet(start: Start) -> None:
    local = await start(at=datetime(2026, 3, 9, 7, 30, tzinfo=KST), hours="market", speed=1.0)
    async with local.login() as wire:
        assert (await wire.ask(realtime("7")))["data"] is None
        state = await local.state()
        assert (state["open"], state["events"], state["date"]) == (False, 0, "2026-03-09")
