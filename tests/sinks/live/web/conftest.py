"""Chromium for the tests of the page: started once for a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "e2e"))

from browser import ARGUMENTS, installed
from screen import Screen, Server, new_screen, serving

from sinks.live import page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; skips where none can be started, or the page has not been built."""
    if not (page.DIST / "index.html").exists():
        pytest.skip("the page has not been built: make setup")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=installed(), args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A hub and its server, with nothing in it."""
    with serving() as running:
        yield running


@pytest.fixture
def screen(chromium: Browser, server: Server) -> Iterator[Screen]:
    """A page that nothing has been opened in yet; what goes wrong on it fails the test."""
    with new_screen(chromium, server, lang="ko") as one:
        yield one
        assert one.errors == []
