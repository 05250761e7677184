"""Who may ask: one line of a table for each rule, those that must be refused among them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from sinks.live import guard, login
from sinks.live.access import SESSION_SECONDS, Access, Token
from sinks.live.attempts import BURST, SECONDS_EACH
from sinks.live.guard import Guard, check_exposure, is_loopback
from sinks.live.proxies import networks
from streams.events import ConfigError

WRITER = Token(label="owner", secret="a token of the owner 시크릿", may_write=True)
READER = Token(label="desk", secret="a token of the desk", may_write=False)
HOST = "dash.example"
NOON = 1_700_000_000.0


class Clocks:
    """Both clocks, which stand until a test moves them."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 0.0


async def welcome(scope: Any, receive: Any, send: Any) -> None:
    """An application that tells everybody everything, and who they are."""
    body = msgspec.json.encode(scope["state"][guard.GRANT])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def asking(
    *tokens: Token,
    host: str = HOST,
    peer: str = "203.0.113.9",
    trusted: tuple[str, ...] = (),
    clocks: Clocks | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    clocks = clocks or Clocks()
    app = Guard(
        welcome,
        Access(tokens),
        trusted=networks(trusted),
        takes=lambda method, path: "GET, HEAD, OPTIONS" if path == "/api/status" else None,
        wall=lambda: clocks.wall,
        steady=lambda: clocks.steady,
    )
    transport = httpx.ASGITransport(app, client=(peer, 5))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        yield client


async def log_in(client: httpx.AsyncClient, token: Token = WRITER, **headers: str) -> str:
    """Log in; the word that writes must carry."""
    answer = await client.post("/login", data={"token": token.secret}, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return (await client.get("/api/session")).json()["csrf"]  # type: ignore[no-any-return]


# --- without tokens ---------------------------------------------------------------------------------------------------


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
    async with asking(host="localhost") as client:
        assert (await client.get("/api/conditions", headers={"Host": host})).status_code == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF}, 200, id="a program"),
        pytest.param(
            {
                "X-Hitstream-CSRF": guard.OPEN_CSRF,
                "Origin": "http://localhost",
                "Sec-Fetch-Site": "same-origin",
            },
            200,
            id="the page",
        ),
        pytest.param({}, 403, id="a form of any page on the internet"),
        pytest.param({"X-Hitstream-CSRF": "x"}, 403, id="another word"),
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF, "Origin": "https://evil.example"}, 403, id="another origin"),
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF, "Origin": "http://localhost:81"}, 403, id="another port"),
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF, "Origin": "null"}, 403, id="a sandboxed frame"),
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF, "Sec-Fetch-Site": "cross-site"}, 403, id="cross-site"),
        pytest.param({"X-Hitstream-CSRF": guard.OPEN_CSRF, "Sec-Fetch-Site": "same-site"}, 403, id="a sibling domain"),
    ],
)
async def test_a_write_without_tokens_comes_from_the_page_itself(headers: dict[str, str], expected: int) -> None:
    async with asking(host="localhost") as client:
        answer = await client.post("/api/commands/recommend", headers=headers)
        assert answer.status_code == expected
        assert (await client.get("/api/conditions")).json()["label"] == "owner"


# --- with tokens: reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/conditions", "/api/live", "/openapi.json"])
async def test_of_the_api_a_missing_token_is_told_as_every_refusal_is(path: str) -> None:
    async with asking(WRITER) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (401, {"error": "Bring a token: log in at /login."})


def bearer(secret: str) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {secret}".encode()}


@pytest.mark.parametrize("path", ["/api/conditions", "/api/live", "/assets/x.js", "/openapi.json", "/login.css/x"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param(bearer("wrong"), id="a wrong token"),
        pytest.param(bearer(""), id="an empty token"),
        pytest.param(bearer(WRITER.secret[:-1]), id="a part of the token"),
        pytest.param({"Authorization": b"Bearer \xff\xfe"}, id="no UTF-8"),
        pytest.param({"Authorization": b"Basic c2VjcmV0"}, id="another scheme"),
        pytest.param({"Authorization": WRITER.secret.encode()}, id="no scheme"),
        pytest.param({"Cookie": f"{guard.COOKIE}={'secret'}".encode()}, id="a cookie that is none"),
        pytest.param(
            {"Cookie": f"{guard.COOKIE}={'0' * 16}.9999999999.{'0' * 32}.{'0' * 64}".encode()}, id="an invented cookie"
        ),
        pytest.param({"Cookie": f"{guard.COOKIE}=é".encode()}, id="a cookie that can't be read"),
    ],
)
async def test_without_a_token_nothing_is_told(path: str, headers: dict[str, bytes]) -> None:
    async with asking(WRITER, READER) as client:
        answer = await client.get(path, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert (await client.get(f"{path}?token=a+token+of+the+desk")).status_code == 401, "an address is no place"


@pytest.mark.parametrize("token", [WRITER, READER], ids=["writing", "reading"])
async def test_a_token_opens_as_bearer_and_by_login(token: Token) -> None:
    async with asking(WRITER, READER) as client:
        answer = await client.get("/api/session", headers=bearer(token.secret))  # type: ignore[arg-type]
        assert answer.json() == {"label": token.label, "may_write": token.may_write, "csrf": "", "may_log_out": False}
        start = await client.get("/")
        assert (start.status_code, start.headers["location"]) == (303, "/login")
        await log_in(client, token)
        granted = (await client.get("/api/session")).json()
        assert (granted["label"], granted["may_write"], granted["may_log_out"]) == (token.label, token.may_write, True)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("", "접속 토큰"), ("ko-KR,ko;q=0.9,en;q=0.5", "접속 토큰"), ("en-US,ko;q=0.5", "Token"), ("de", "접속 토큰")],
)
async def test_the_login_page_speaks_the_readers_language(accepted: str, expected: str) -> None:
    async with asking(WRITER) as client:
        page = await client.get("/login", headers={"Accept-Language": accepted})
        assert page.status_code == 200
        assert expected in page.text
        assert "<script" not in page.text
        assert " style=" not in page.text
        wrong = await client.post("/login", data={"token": "wrong"}, headers={"Accept-Language": accepted})
        assert login.WORDS[login.language(accepted)].wrong in wrong.text
        assert (await client.get(login.STYLE_PATH)).headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    ("trusted", "headers", "is_secure"),
    [
        ((), {}, False),
        ((), {"X-Forwarded-Proto": "https"}, False),
        (("203.0.113.0/24",), {"X-Forwarded-Proto": "https"}, True),
        (("203.0.113.0/24",), {}, False),
    ],
    ids=["plain", "a client's claim", "a proxy's word", "a proxy without TLS"],
)
async def test_the_cookie_is_for_this_site_and_no_script(
    trusted: tuple[str, ...], headers: dict[str, str], is_secure: bool
) -> None:
    async with asking(WRITER, trusted=trusted) as client:
        answer = await client.post("/login", data={"token": WRITER.secret}, headers=headers)
        said = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_SECONDS}"} <= set(said)
        assert ("Secure" in said) is is_secure
        assert "Domain" not in answer.headers["set-cookie"]
        assert "token" not in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [("POST", b"x" * 10_000, 413), ("PUT", b"", 405), ("POST", b"", 403), ("POST", b"token=wrong", 403)],
)
async def test_a_login_that_is_none_is_refused(method: str, body: bytes, expected: int) -> None:
    async with asking(WRITER) as client:
        answer = await client.request(method, "/login", content=body)
        assert (answer.status_code, "set-cookie" in answer.headers) == (expected, False)


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_no_other_site_can_log_a_browser_in(headers: dict[str, str]) -> None:
    async with asking(WRITER) as client:
        answer = await client.post("/login", data={"token": WRITER.secret}, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


async def test_a_login_whose_words_do_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def nothing() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/login", "headers": [], "client": ("203.0.113.9", 5)}
    await Guard(welcome, Access([WRITER]))(scope, nothing, send)
    assert sent[0]["status"] == 408


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_ends_by_itself() -> None:
    clocks = Clocks()
    async with asking(WRITER, clocks=clocks) as client:
        await log_in(client)
        clocks.wall += SESSION_SECONDS - 1
        assert (await client.get("/api/conditions")).status_code == 200
        clocks.wall += 2
        assert (await client.get("/api/conditions")).status_code == 401


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param((WRITER, READER), 200, id="another hub, or a restart"),
        pytest.param((READER, WRITER), 200, id="in another order"),
        pytest.param((Token(label="owner", secret="another", may_write=True),), 401, id="the token was changed"),
        pytest.param((READER,), 401, id="the token was removed"),
        pytest.param((Token(label="owner", secret=WRITER.secret, may_write=False),), 200, id="it may read only now"),
    ],
)
async def test_a_session_is_good_where_its_token_is(after: tuple[Token, ...], expected: int) -> None:
    async with asking(WRITER, READER) as client:
        await log_in(client)
        cookies = client.cookies
    async with asking(*after) as client:
        client.cookies = cookies
        answer = await client.get("/api/session")
        assert answer.status_code == expected
        if expected == 200:
            assert answer.json()["may_write"] is next(t.may_write for t in after if t.label == "owner")


async def test_logging_out_ends_the_session_also_for_whoever_copied_its_cookie() -> None:
    async with asking(WRITER) as client:
        csrf = await log_in(client)
        stolen = client.cookies[guard.COOKIE]
        assert (await client.post("/logout")).status_code == 403, "another site must not log a browser out"
        answer = await client.post("/logout", headers={"X-Hitstream-CSRF": csrf})
        assert answer.status_code == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        client.cookies.clear()
        assert (await client.get("/api/session", headers={"Cookie": f"{guard.COOKIE}={stolen}"})).status_code == 401


@pytest.mark.parametrize("part", [0, 1, 2, 3])
async def test_a_cookie_that_was_changed_is_none(part: int) -> None:
    async with asking(WRITER, READER) as client:
        await log_in(client)
        parts = client.cookies[guard.COOKIE].split(".")
        parts[part] = ("1" if parts[part][0] != "1" else "2") + parts[part][1:]
        client.cookies.clear()
        answer = await client.get("/api/session", headers={"Cookie": f"{guard.COOKIE}={'.'.join(parts)}"})
        assert answer.status_code == 401


# --- writing ----------------------------------------------------------------------------------------------------------

OWN = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("token", "headers", "expected"),
    [
        pytest.param(WRITER, OWN | {"X-Hitstream-CSRF": "{csrf}"}, 200, id="the page"),
        pytest.param(WRITER, {"X-Hitstream-CSRF": "{csrf}"}, 200, id="a browser that says no origin"),
        pytest.param(WRITER, OWN, 403, id="no word"),
        pytest.param(WRITER, OWN | {"X-Hitstream-CSRF": "x"}, 403, id="a wrong word"),
        pytest.param(WRITER, OWN | {"X-Hitstream-CSRF": guard.OPEN_CSRF}, 403, id="the word of others"),
        pytest.param(WRITER, {"X-Hitstream-CSRF": "{csrf}", "Origin": "http://evil.example"}, 403, id="another origin"),
        pytest.param(WRITER, {"X-Hitstream-CSRF": "{csrf}", "Origin": f"http://{HOST}:81"}, 403, id="another port"),
        pytest.param(WRITER, {"X-Hitstream-CSRF": "{csrf}", "Origin": "null"}, 403, id="no origin's frame"),
        pytest.param(WRITER, {"X-Hitstream-CSRF": "{csrf}", "Sec-Fetch-Site": "cross-site"}, 403, id="cross-site"),
        pytest.param(READER, OWN | {"X-Hitstream-CSRF": "{csrf}"}, 403, id="a token that may only read"),
    ],
)
async def test_a_write_of_a_session(token: Token, headers: Mapping[str, str], expected: int, method: str) -> None:
    async with asking(WRITER, READER) as client:
        csrf = await log_in(client, token)
        said = {name: value.format(csrf=csrf) for name, value in headers.items()}
        answer = await client.request(method, "/api/commands/recommend", headers=said)
        assert answer.status_code == expected
        if expected == 403:
            assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://dash.outside"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HOST}"}, 403),
        ({"Origin": "https://dash.outside"}, 403),
    ],
    ids=["a proxy that asks by another name", "a browser that knows better", "an old browser behind such a proxy"],
)
async def test_a_browser_that_says_where_a_write_comes_from_is_believed(headers: dict[str, str], expected: int) -> None:
    async with asking(WRITER) as client:
        csrf = await log_in(client)
        answer = await client.post("/api/commands/recommend", headers=headers | {"X-Hitstream-CSRF": csrf})
        assert answer.status_code == expected


async def test_the_word_of_one_session_is_none_of_another() -> None:
    async with asking(WRITER) as client:
        first = await log_in(client)
        second = await log_in(client)
        assert first != second
        answer = await client.post("/api/commands/recommend", headers={"X-Hitstream-CSRF": first})
        assert answer.status_code == 403


@pytest.mark.parametrize(("token", "expected"), [(WRITER, 200), (READER, 403)])
async def test_a_program_writes_with_its_token_alone(token: Token, expected: int) -> None:
    async with asking(WRITER, READER) as client:
        answer = await client.post("/api/commands/recommend", headers=bearer(token.secret))  # type: ignore[arg-type]
        assert answer.status_code == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    ("tokens", "headers", "expected"),
    [
        pytest.param((), {}, 405, id="without tokens"),
        pytest.param((), {"Host": "evil.example"}, 421, id="without tokens, by another name"),
        pytest.param((), {"Origin": "https://evil.example"}, 403, id="without tokens, from another site"),
        pytest.param((), {"Sec-Fetch-Site": "same-site"}, 403, id="without tokens, from a sibling domain"),
        pytest.param((WRITER,), {}, 401, id="nobody"),
        pytest.param((WRITER,), bearer("a wrong one"), 401, id="a wrong token"),
        pytest.param((WRITER,), {"Cookie": f"{guard.COOKIE}=x"}, 401, id="no session"),
        pytest.param((WRITER,), bearer(WRITER.secret), 405, id="a token"),
        pytest.param((READER,), bearer(READER.secret), 405, id="a token that may only read"),
    ],
)
async def test_only_who_may_ask_is_told_how_a_path_is_asked(
    tokens: tuple[Token, ...], headers: dict[str, Any], expected: int, method: str
) -> None:
    async with asking(*tokens, host="localhost" if not tokens else HOST) as client:
        answer = await client.request(method, "/api/status", headers=headers)
        assert (answer.status_code, answer.headers.get("allow")) == (
            expected,
            "GET, HEAD, OPTIONS" if expected == 405 else None,
        )
        assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(("headers", "expected"), [(OWN, 405), (OWN | {"Sec-Fetch-Site": "cross-site"}, 403)])
async def test_a_session_is_told_how_a_path_is_asked_but_no_other_site(headers: dict[str, str], expected: int) -> None:
    async with asking(WRITER) as client:
        await log_in(client)
        assert (await client.post("/api/status", headers=headers)).status_code == expected
        assert (await client.post("/logout", headers={"X-Hitstream-CSRF": "x"})).status_code == 403


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["login", "bearer"])
async def test_attempts_are_limited_and_the_right_token_must_wait_too(how: str) -> None:
    clocks = Clocks()
    async with asking(WRITER, clocks=clocks) as client:

        async def attempt(secret: str) -> httpx.Response:
            if how == "login":
                return await client.post("/login", data={"token": secret})
            return await client.get("/api/session", headers=bearer(secret))  # type: ignore[arg-type]

        refused, welcomed = (403, 303) if how == "login" else (401, 200)
        for _ in range(BURST):
            assert (await attempt("wrong")).status_code == refused
        blocked = await attempt(WRITER.secret)
        assert blocked.status_code == 429, "else it would tell which token is right"
        assert 0 < int(blocked.headers["retry-after"]) <= SECONDS_EACH
        clocks.steady += SECONDS_EACH
        assert (await attempt(WRITER.secret)).status_code == welcomed


async def test_a_session_goes_on_while_somebody_at_its_address_tries_tokens() -> None:
    async with asking(WRITER) as client:
        await log_in(client)
        for _ in range(BURST + 1):
            await client.post("/login", data={"token": "wrong"})
        assert (await client.get("/api/session")).status_code == 200


@pytest.mark.parametrize(
    ("trusted", "same", "expected"),
    [
        pytest.param((), "198.51.100.1", 429, id="a client's claim is not believed"),
        pytest.param(("203.0.113.9",), "198.51.100.1", 403, id="behind a proxy of ours each address counts alone"),
        pytest.param(("203.0.113.9",), "198.51.100.7, 198.51.100.2", 429, id="what a client adds counts for nothing"),
    ],
)
async def test_attempts_count_by_address(trusted: tuple[str, ...], same: str, expected: int) -> None:
    async with asking(WRITER, trusted=trusted) as client:
        for _ in range(BURST):
            await client.post("/login", data={"token": "wrong"}, headers={"X-Forwarded-For": "198.51.100.2"})
        answer = await client.post("/login", data={"token": "wrong"}, headers={"X-Forwarded-For": same})
        assert answer.status_code == expected


# --- everything -------------------------------------------------------------------------------------------------------


async def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        async with asking(WRITER) as client:
            await client.post("/login", data={"token": "a wrong one"})
            csrf = await log_in(client)
            cookie = client.cookies[guard.COOKIE]
            await client.get("/api/session", headers=bearer("another wrong one"))  # type: ignore[arg-type]
            await client.get("/api/conditions?token=in-an-address")
    said = repr(lines) + caplog.text.replace("in-an-address", "", 1)  # httpx's own line of the request
    assert [line["event"] for line in lines] == ["live.wrong_token", "live.logged_in", "live.wrong_token"]
    for secret in (WRITER.secret, "a wrong one", "another wrong one", csrf, cookie, "in-an-address"):
        assert secret not in said


async def test_only_http_is_spoken() -> None:
    async def nothing(*_: Any) -> None:
        raise AssertionError("the application was asked")

    with pytest.raises(NotImplementedError, match="websocket"):
        await Guard(nothing, Access())({"type": "websocket"}, nothing, nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/", "/login", "/login.css", "/api/x", "/logout"])
async def test_every_answer_carries_the_security_headers(path: str) -> None:
    async with asking(WRITER) as client:
        headers = (await client.get(path)).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
        assert not re.search(r"unsafe|https?:|\*", headers["content-security-policy"])
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org")],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    check_exposure(host, [WRITER])
    short = Token(label="short", secret="short", may_write=False)
    if expected:
        check_exposure(host, [])
        check_exposure(host, [short])
    else:
        with pytest.raises(ConfigError, match=r"live\.token"):
            check_exposure(host, [])
        with pytest.raises(ConfigError, match="'short' is shorter than 12"):
            check_exposure(host, [WRITER, short])
