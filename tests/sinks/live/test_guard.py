"""Who may ask: the names of loopback, the token as bearer and by login, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sinks.live import guard
from sinks.live.guard import Guard, check_exposure, is_loopback
from streams.events import ConfigError


async def welcome(scope: Any, receive: Any, send: Any) -> None:
    """An application that tells everybody everything."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"welcome"})


@asynccontextmanager
async def asking(token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Guard(welcome, token))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("evil.example#@localhost", 421),
        ("10.0.0.1", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_only_requests_that_name_loopback_are_answered(host: str, expected: int) -> None:
    async with asking() as client:
        assert (await client.get("/api/conditions", headers={"Host": host})).status_code == expected


@pytest.mark.parametrize("path", ["/api/conditions", "/api/live", "/assets/x.js", "/openapi.json"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic c2VjcmV0"},
        {"Authorization": "secret"},
        {"Cookie": f"{guard.COOKIE}=secret"},
        {"Cookie": f"{guard.COOKIE}=9999999999.{'0' * 64}"},
        {"Cookie": f"{guard.COOKIE}=é"},
    ],
)
async def test_without_the_token_nothing_is_told(path: str, headers: dict[str, str]) -> None:
    async with asking("secret") as client:
        answer = await client.get(path, headers={k: v.encode() for k, v in headers.items()})
        assert answer.status_code == 401
        assert (await client.get(f"{path}?token=secret")).status_code == 401


async def test_the_token_opens_as_bearer_and_by_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REFUSAL_SECONDS", 0.0)
    async with asking("시크릿") as client:
        bearer = {"Authorization": "Bearer 시크릿".encode()}
        assert (await client.get("/api/conditions", headers=bearer)).status_code == 200  # type: ignore[arg-type]
        start = await client.get("/")
        assert (start.status_code, start.headers["location"]) == (303, "/login")
        form = await client.get("/login")
        assert (form.status_code, 'method="post"' in form.text) == (200, True)
        assert "form-action 'self'" in form.headers["content-security-policy"]
        refused = await client.post("/login", data={"token": "wrong"})
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
        welcome = await client.post("/login", data={"token": "시크릿"})
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
        cookie = welcome.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "시크릿" not in cookie
        assert (await client.get("/api/conditions")).status_code == 200
        assert (await client.post("/login", content=b"x" * 10_000)).status_code == 413
        assert (await client.put("/login")).status_code == 405


async def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SESSION_SECONDS", -1)
    async with asking("secret") as client:
        welcome = await client.post("/login", data={"token": "secret"})
        session = re.split("[=;]", welcome.headers["set-cookie"])[1]
        answer = await client.get("/api/conditions", headers={"Cookie": f"{guard.COOKIE}={session}"})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org")],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    check_exposure(host, "token")
    if expected:
        check_exposure(host, "")
    else:
        with pytest.raises(ConfigError, match=r"live\.token"):
            check_exposure(host, "")
