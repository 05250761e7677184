"""The page in headless Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Error, async_playwright
from playwright.async_api import Page as Tab

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """The system's Chromium, or None: then playwright looks for its own."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """An open dashboard, and everything that went wrong on it."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.errors: list[str] = []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    async def rows(self, name: str) -> list[dict[str, str]]:
        """The attributes of every element with this `data-testid`."""
        found: list[dict[str, str]] = await self.tab.eval_on_selector_all(
            f'[data-testid="{name}"]',
            "all => all.map(one => Object.fromEntries([...one.attributes].map(each => [each.name, each.value])))",
        )
        return found


@contextlib.asynccontextmanager
async def open_page(address: str) -> AsyncIterator[Page]:
    """Open the dashboard; skips the test where no Chromium can be started."""
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=installed(), args=ARGUMENTS)
        except Error as error:
            pytest.skip(
                f"everything but the page was checked, as no Chromium can be started: {str(error).splitlines()[0]}"
            )
        try:
            page = Page(await browser.new_page())
            await page.tab.goto(address)
            yield page
        finally:
            await browser.close()
