"""Everybody can use the page: axe finds nothing serious in any view, and every control is reached by the keyboard."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, expect
from screen import DIP, HIGH, Screen, Server, Story, new_screen, screen_of

from sinks.live import page as built
from sinks.live.access import Access, read_tokens
from streams.events import Reason

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

AXE = built.DIST.parent / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = {
    "now": "#/",
    "conditions": "#/conditions",
    "condition": f"#/conditions/main/{HIGH}",
    "stock": "#/stock/005930",
    "health": "#/health",
    "feed": "#/feed",
}
DIALOGS = {
    "settings": '[data-testid="settings-button"]',
    "recommend": '[data-testid="recommend-button"]',
    "help": "button.help",
    "withdraw": "tr.details button",
}


def furnish(server: Server) -> None:
    """Something of everything that a view can show."""
    story = Story(server)
    manual = Reason(kind="manual", by="trader", note="note", since=server.at, score=1.0)
    server.feed(*story.opening(), story.subscription(DIP, "refused", "900001"), story.enter("005930"))
    server.feed(story.leave("005930"), story.enter("005930"), story.enter("000660", origin="snapshot", initial=True))
    server.feed(story.recommend("005930", 2.0), story.recommend("000660", 3.0, reasons=(manual,)))
    server.feed(story.recommend("035420", 0.0, revision=2, state="closed", cause="expired", reasons=()))
    server.pass_time(1)
    server.feed(story.quote("005930", 10_000))
    server.pass_time(60)
    server.feed(story.quote("005930", 10_100), story.quote("000660", 9_900))
    server.feed(*story.opening((HIGH,)), story.subscription(DIP, "refused", "900001"))  # everybody still reports


def findings(screen: Screen, *, only: str = "", but: str = "") -> list[str]:
    """What axe finds serious or critical on the page as it is now, by one rule only or by all but one."""
    screen.page.evaluate("() => Promise.all(document.getAnimations().map((each) => each.finished.catch(() => {})))")
    found: list[dict[str, Any]] = screen.page.evaluate(
        """async ([only, but]) => (await axe.run(document, {
            resultTypes: ['violations'],
            ...(only ? { runOnly: [only] } : {}),
            ...(but ? { rules: { [but]: { enabled: false } } } : {}),
        })).violations""",
        [only, but],
    )
    return [
        f"{one['id']}: {[node['target'] for node in one['nodes']][:3]} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def axe() -> str:
    """The checker's source; evaluated from outside, as the page's own policy lets nothing else in."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make setup")
    return AXE.read_text()


@pytest.mark.parametrize(("lang", "theme"), [("ko", "light"), ("en", "dark")])
def test_axe_finds_nothing_serious(chromium: Browser, server: Server, axe: str, lang: str, theme: str) -> None:
    furnish(server)
    with new_screen(chromium, server, lang=lang, theme=theme) as screen:
        screen.open()
        screen.page.evaluate(axe)
        screen.page.click('[data-testid="recommendation-row"] .chevron')
        screen.page.click('[data-area="now"] summary')
        wrong: dict[str, list[str]] = {}
        for view, place in VIEWS.items():
            screen.go(place)
            wrong[view] = findings(screen)
        screen.page.evaluate("location.hash = '#/'")
        screen.page.click('[data-testid="recommendation-row"] .chevron')
        for name, button in DIALOGS.items():
            screen.page.click(button)
            wrong[name] = findings(screen)
            screen.page.keyboard.press("Escape")
        assert screen.errors == []
        server.stop()
        screen.page.wait_for_selector('[data-testid="stale-banner"]')
        wrong["stale"] = findings(screen)
        assert {view: found for view, found in wrong.items() if found} == {}


@pytest.mark.parametrize(("lang", "theme"), [("ko-KR", "dark"), ("en-US", "light")])
def test_the_login_page_is_for_everybody_too(
    chromium: Browser, server: Server, axe: str, lang: str, theme: Literal["light", "dark"]
) -> None:
    server.stop()
    server.access = Access(read_tokens("kim:a-token-of-kims-own", may_write=True, setting="live.write_tokens"))
    server.start()
    context = chromium.new_context(locale=lang, color_scheme=theme)
    try:
        screen = screen_of(context, server)
        screen.page.goto(f"http://127.0.0.1:{server.port}/")
        screen.page.evaluate(axe)
        assert findings(screen) == []
        assert screen.page.evaluate("document.activeElement.name") == "token"
        screen.page.keyboard.type("a-wrong-token")
        screen.page.keyboard.press("Enter")
        screen.page.wait_for_selector("[role=alert]:not(:empty)")
        screen.page.evaluate(axe)
        assert findings(screen) == []
    finally:
        context.close()


@pytest.mark.parametrize("colours", ["western", "safe"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_other_colours_are_legible_too(chromium: Browser, server: Server, axe: str, theme: str, colours: str) -> None:
    furnish(server)
    with new_screen(chromium, server, theme=theme, colours=colours) as screen:
        screen.open()
        screen.page.evaluate(axe)
        screen.page.wait_for_selector('[data-testid="recommendation-row"]')
        assert findings(screen, only="color-contrast") == []


def test_a_phone_shows_everything_and_nothing_beside_the_screen(chromium: Browser, server: Server, axe: str) -> None:
    furnish(server)
    with new_screen(chromium, server, narrow=True) as screen:
        screen.open()
        screen.page.evaluate(axe)
        wrong: dict[str, Any] = {}
        for view, place in VIEWS.items():
            screen.go(place)
            width = screen.page.evaluate("document.documentElement.scrollWidth")
            found = findings(screen, but="color-contrast")  # the colours are those of a wide window
            if width > 390 or found:
                wrong[view] = (width, found)
        assert wrong == {}


@pytest.mark.parametrize("place", ["#/", "#/conditions", "#/stock/005930", "#/health"])
def test_every_control_is_reached_with_tab_and_seen_there(screen: Screen, place: str) -> None:
    furnish(screen.server)
    screen.open(place)
    page = screen.page
    page.wait_for_timeout(300)
    page.evaluate("document.activeElement?.blur()")
    # The feed and the table change under the hand otherwise; what is there now is what has to be reached.
    controls = """() => [...document.querySelectorAll(
            'a[href], button:enabled, input:enabled, select:enabled, summary, [tabindex="0"]')]
        .filter((each) => each.checkVisibility() && !each.closest('[inert]'))"""
    wanted = page.evaluate(
        f"() => {{ const all = ({controls})(); all.forEach((each, n) => (each.dataset.n = n)); return all.length; }}"
    )
    assert wanted > 20
    reached: set[str] = set()
    unseen: list[str] = []
    for _ in range(int(wanted) + 10):
        page.keyboard.press("Tab")
        at = page.evaluate("""() => {
            const one = document.activeElement;
            if (!one || one === document.body) return null;
            const style = getComputedStyle(one), around = one.closest("label") ?? one;
            const seen = style.outlineStyle !== "none" || getComputedStyle(around).outlineStyle !== "none";
            return [one.dataset.n ?? "", seen, one.outerHTML.slice(0, 80)];
        }""")
        if at is None:
            continue
        reached.add(at[0])
        if not at[1]:
            unseen.append(at[2])
    missing = page.evaluate(
        """reached => [...document.querySelectorAll('[data-n]')]
            .filter((each) => !reached.includes(each.dataset.n)).map((each) => each.outerHTML.slice(0, 80))""",
        sorted(reached),
    )
    assert missing == []
    assert unseen == [], "whoever uses the keyboard sees where it is"


def test_a_dialog_keeps_the_focus_and_gives_it_back(screen: Screen) -> None:
    furnish(screen.server)
    screen.open()
    page = screen.page
    expect(page.locator('[data-testid="recommend-button"]')).to_be_enabled()  # once it is known who the reader is
    page.focus('[data-testid="recommend-button"]')
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.evaluate("document.activeElement.id") == "stock"
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert page.evaluate("document.activeElement.dataset.testid") == "recommend-button"
