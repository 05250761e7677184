"""Tokens as settings give them, attempts in bounded memory, and who is believed behind a proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.live.access import Access, Token, read_tokens, tokens
from sinks.live.attempts import BURST, SECONDS_EACH, Attempts
from sinks.live.proxies import networks, origin
from sinks.settings import LiveSettings
from streams.events import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("desk:abc", {"desk": "abc"}),
        ("desk:abc, phone:d:e:f", {"desk": "abc", "phone": "d:e:f"}),
        ("desk:abc\nphone:def\n", {"desk": "abc", "phone": "def"}),
        ("김@home:abc", {"김@home": "abc"}),
    ],
)
def test_tokens_have_labels(text: str, expected: dict[str, str]) -> None:
    found = read_tokens(text, may_write=False, setting="live.read_tokens")
    assert {token.label: token.secret for token in found} == expected
    assert not any(token.may_write for token in found)


@pytest.mark.parametrize("text", ["justasecret", "desk:", ":abc", "a b:abc", "desk:abc,secret2", "x" * 41 + ":abc"])
def test_a_token_without_a_label_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match=r"of live\.read_tokens can't be read") as refused:
        read_tokens(text, may_write=False, setting="live.read_tokens")
    assert text not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_settings_give_one_token_and_lists_of_further_ones() -> None:
    settings = LiveSettings(token="first", user="kim", write_tokens="lee:second", read_tokens="desk:third")  # type: ignore[arg-type]
    assert [(t.label, t.secret, t.may_write) for t in tokens(settings)] == [
        ("kim", "first", True),
        ("lee", "second", True),
        ("desk", "third", False),
    ]
    assert tokens(LiveSettings()) == ()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (Token(label="b", secret="x", may_write=True), "are the same"),
        (Token(label="a", secret="y", may_write=True), "label"),
    ],
)
def test_who_somebody_is_must_be_clear(second: Token, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Access([Token(label="a", secret="x", may_write=False), second])


def test_sessions_that_were_logged_out_are_remembered_until_they_would_have_ended() -> None:
    access = Access([Token(label="a", secret="x", may_write=True)])
    cookies = [access.open(access.tokens[0], now=0.0) for _ in range(3)]
    for cookie in cookies[:2]:
        session = access.session(cookie, 1.0)
        assert session is not None
        access.revoke(session, 1.0)
    assert [access.session(cookie, 2.0) is None for cookie in cookies] == [True, True, False]
    third = access.session(cookies[2], 2.0)
    assert third is not None
    access.revoke(third, third.expires + 1)
    assert len(access._revoked) == 1


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_an_address_gets_its_attempts_back_one_by_one() -> None:
    it = Attempts()
    for _ in range(BURST):
        assert it.wait("10.0.0.1", 100.0) == 0
        it.failed("10.0.0.1", 100.0)
    assert it.wait("10.0.0.1", 100.0) == SECONDS_EACH
    assert it.wait("10.0.0.1", 100.0 + SECONDS_EACH) == 0
    it.failed("10.0.0.1", 100.0 + SECONDS_EACH)
    assert it.wait("10.0.0.1", 100.0 + SECONDS_EACH) == SECONDS_EACH
    assert it.wait("10.0.0.2", 100.0) == 0
    assert it.wait("10.0.0.1", 10_000.0) == 0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("nonsense", "nonsense", True),
        ("", "10.0.0.1", False),
    ],
)
def test_what_one_household_has_counts_together(one: str, other: str, together: bool) -> None:
    it = Attempts()
    for _ in range(BURST):
        it.failed(one, 0.0)
    assert (it.wait(other, 0.0) > 0) is together


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 10**6)), max_size=50))
def test_memory_is_bounded_whoever_tries(tries: list[tuple[int, float]]) -> None:
    it = Attempts(addresses=10)
    for address, now in tries:
        it.failed(str(address), now)
        assert it.wait(str(address), now) >= 0
    assert len(it) <= 10


# --- proxies ----------------------------------------------------------------------------------------------------------

TRUSTED = ("10.0.0.0/8", "::1", "192.0.2.7")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.1.1.1", "1.2.3.4", "1.2.3.4"),
        ("::ffff:10.1.1.1", "1.2.3.4", "1.2.3.4"),
        ("::1", "1.2.3.4", "1.2.3.4"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.1.1.1", "6.6.6.6, 1.2.3.4, 192.0.2.7", "1.2.3.4"),
        ("10.1.1.1", "10.9.9.9", "10.9.9.9"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "nonsense", "nonsense"),
        ("10.1.1.1", "1.2.3.4, ", "10.1.1.1"),
        ("", "1.2.3.4", ""),
    ],
)
def test_the_first_address_that_is_no_proxy_of_ours_asks(peer: str, forwarded: str, expected: str) -> None:
    headers = {
        b"host": b"dash.example",
        b"x-forwarded-for": forwarded.encode(),
        b"x-forwarded-host": b"outside.example",
    }
    asked = origin(peer, "http", headers, networks(TRUSTED))
    assert asked.address == expected
    assert asked.host == ("outside.example" if peer not in ("203.0.113.9", "") else "dash.example")
    assert not asked.is_https


def test_a_proxy_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"live\.trusted_proxies.*10\.0\.0\.0/8"):
        networks(["the proxy"])
