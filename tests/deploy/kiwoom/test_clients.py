"""Two independent clients from PyPI, unmodified: what works against Kiwoom must work here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from kiwoom_client.auth import AsyncKiwoomAuth
from kiwoom_client.base import AsyncBaseClient
from kiwoom_client.domestic.condition_search import ConditionSearch
from kiwoom_client.domestic.stock_info import StockInfo
from kiwoom_client.mcp.condition_search_session import ConditionSearchSession
from kiwoom_client.websocket import KiwoomWebSocket, KiwoomWebSocketError
from pyheroapi.exceptions import KiwoomAuthError
from pyheroapi.realtime import KiwoomRealtimeClient

from .conftest import DEADLINE, Local, Start


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_kiwoom_client_logs_in_lists_subscribes_receives_and_clears(start: Start) -> None:
    local = await start(speed=300.0, ping_interval=0.2)
    requests = ConditionSearch()
    replies: dict[str, list[dict[str, Any]]] = {trnm: [] for trnm in ("CNSRLST", "CNSRREQ", "CNSRCLR", "REG")}
    hits: list[dict[str, Any]] = []
    prices: list[dict[str, Any]] = []
    client = KiwoomWebSocket(await local.token(), ws_url=local.websocket_url)
    for trnm, collected in replies.items():
        client.on_trnm(trnm, collected.append)
    client.on("02", hits.append)
    client.on("0B", prices.append)
    await client.connect()
    listening = asyncio.create_task(client.listen())
    try:
        await client.send(requests.condition_list())
        await until(lambda: bool(replies["CNSRLST"]))
        seqs = {name: seq for seq, name in replies["CNSRLST"][0]["data"]}
        for name in ("신고가 돌파", "대왕개미단타"):
            await client.send(requests.condition_search_realtime(seqs[name]))
        await until(lambda: len(replies["CNSRREQ"]) == 2)
        members = [row["jmcode"][1:] for row in replies["CNSRREQ"][0]["data"]]
        await client.subscribe("0B", members[:50])
        await until(lambda: len(hits) > 5 and len(prices) > 5)
        assert {hit["values"]["841"] for hit in hits} <= {"5", "7"}
        assert {hit["values"]["843"] for hit in hits} <= {"I", "D"}
        assert {price["item"] for price in prices} <= set(members)
        await client.send(requests.condition_search(seqs["신고가 돌파"]))
        await until(lambda: len(replies["CNSRREQ"]) == 3)
        assert replies["CNSRREQ"][2]["data"][0]["302"]
        for name in ("신고가 돌파", "대왕개미단타"):
            await client.send(requests.condition_search_cancel(seqs[name]))
        await until(lambda: len(replies["CNSRCLR"]) == 2)
        assert (await local.state())["sessions"][0]["conditions"] == []
        await until_echoed(local)
    finally:
        await client.disconnect()
        await asyncio.wait_for(listening, DEADLINE)


async def until_echoed(local: Local) -> None:
    async with asyncio.timeout(DEADLINE):
        while not (await local.state())["sessions"][0]["echoes"]:
            await asyncio.sleep(0.01)


async def test_kiwoom_client_s_own_request_and_reply_session(start: Start) -> None:
    local = await start()

    async def connect() -> KiwoomWebSocket:
        client = KiwoomWebSocket(await local.token(), ws_url=local.websocket_url)
        await client.connect()
        return client

    session, requests = ConditionSearchSession(connect), ConditionSearch()
    try:
        reply = await session.request(requests.condition_list())
        assert reply is not None
        assert ["7", "신고가 돌파"] in reply["data"]
        reply = await session.request(requests.condition_search("7"))
        assert reply is not None
        assert reply["data"]
    finally:
        await session.close()


async def test_kiwoom_client_is_refused_with_a_bad_token(start: Start) -> None:
    local = await start()
    client = KiwoomWebSocket("nonsense", ws_url=local.websocket_url)
    with pytest.raises(KiwoomWebSocketError, match="8005"):
        await client.connect()
    await client.disconnect()


async def test_kiwoom_client_gets_its_token_and_all_pages_of_the_list(start: Start) -> None:
    local = await start()
    base = f"http://127.0.0.1:{local.port}"
    auth = AsyncKiwoomAuth("local-app-key", "local-secret-key", base)
    client = AsyncBaseClient("local-app-key", "local-secret-key", base_url=base, rate_limit=None, token_provider=auth)
    try:
        rows = await client.request_all(StockInfo.RESOURCE_URL, "ka10099", {"mrkt_tp": "10"}, data_key="list")
        assert len(rows) > 150
        assert {"code", "name", "lastPrice", "marketCode"} <= rows[0].keys()
    finally:
        await client.aclose()
        await auth.aclose()


async def test_pyheroapi_logs_in_lists_subscribes_receives_and_clears(start: Start) -> None:
    local = await start(speed=300.0, ping_interval=0.2)
    seen: dict[str, list[Any]] = {
        name: []
        for name in (
            "conditional_search_list",
            "conditional_search_results",
            "conditional_search_realtime",
            "conditional_search_clear",
            "0B",
        )
    }
    client = KiwoomRealtimeClient(await local.token(), auto_reconnect=False)
    client.ws_url = local.websocket_url
    for name, collected in seen.items():
        client.add_callback(name, collected.append)
    await client.connect()
    try:
        await client.get_conditional_search_list()
        await until(lambda: bool(seen["conditional_search_list"]))
        assert ["5", "대왕개미단타"] in seen["conditional_search_list"][0]["data"]
        await client.execute_conditional_search_realtime("7")
        await client.execute_conditional_search("18")
        await until(lambda: len(seen["conditional_search_results"]) == 2)
        await client.subscribe_stock_price([row["jmcode"][1:] for row in seen["conditional_search_results"][0]["data"]])
        await until(lambda: len(seen["conditional_search_realtime"]) > 5 and len(seen["0B"]) > 5)
        first = seen["conditional_search_realtime"][0]
        assert (first.seq, len(first.symbol), len(first.time)) == ("7", 6, 6)
        assert first.action in "ID"
        await client.cancel_conditional_search_realtime("7")
        await until(lambda: bool(seen["conditional_search_clear"]))
        assert seen["conditional_search_clear"][0]["return_code"] == 0
        await until_echoed(local)
    finally:
        await client.disconnect()


async def test_pyheroapi_is_refused_with_a_bad_token(start: Start) -> None:
    local = await start()
    client = KiwoomRealtimeClient("nonsense")
    client.ws_url = local.websocket_url
    with pytest.raises(KiwoomAuthError, match="8005"):
        await client.connect()
    await client.disconnect()
