"""The page when its connection dies, its server is started anew or its machine sleeps: never old figures as current."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from screen import HIGH, Screen, Story

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def story(screen: Screen) -> Story:
    """A product that is well, with a recommendation and a line of the feed, on an open page."""
    told = Story(screen.server)
    screen.server.feed(*told.opening(), told.recommend("005930", 2.0), told.enter("005930"))
    screen.open()
    screen.until("the recommendation", lambda: shown(screen) == ["005930"])
    return told


def shown(screen: Screen) -> list[str]:
    return screen.rows("recommendation-row", "data-code")


def feed(screen: Screen) -> list[str]:
    return screen.rows("feed-row", "data-transition-id")


def held(screen: Screen) -> list[str]:
    """What the feed has to show, by the hub itself."""
    return [line.transition.id for line in screen.server.hub.transitions(limit=1_000)]


def is_stale(screen: Screen) -> bool:
    return screen.rows("connection", "data-state") == ["stale"]


def forgive(screen: Screen) -> None:
    """The browser itself writes an error for each request that fails; those are what the test makes happen."""
    screen.errors = [error for error in screen.errors if "ERR_" not in error]


def test_what_is_stale_is_greyed_dated_and_stands_still(screen: Screen, story: Story) -> None:
    del story
    screen.server.stop()
    page = screen.page
    banner = page.locator('[data-testid="stale-banner"]')
    expect(banner).to_be_visible()
    expect(banner).to_contain_text("09:00:0")
    expect(page.locator("main.figures")).to_have_css("filter", "grayscale(1)")
    expect(page.locator("header .clock")).to_have_css("filter", "grayscale(1)")
    assert "⚠" in page.title()
    clock = page.inner_text("header .clock strong")
    page.wait_for_timeout(1_500)
    assert page.inner_text("header .clock strong") == clock, "a clock that runs would call the figures current"
    forgive(screen)


def test_after_a_restart_the_page_goes_on_by_itself(screen: Screen, story: Story) -> None:
    server = screen.server
    server.stop()
    screen.until("the page to notice", lambda: is_stale(screen))
    server.pass_time(30)
    server.start(story.enter("000660"), story.recommend("000660", 3.0))
    screen.live()
    screen.until("what it missed", lambda: shown(screen) == ["000660", "005930"])
    assert feed(screen) == held(screen)
    server.pass_time(1)
    server.feed(story.enter("035420"))
    screen.until("what comes next", lambda: feed(screen) == held(screen))
    forgive(screen)


def test_a_cut_connection_is_resumed_without_a_gap_or_a_repeat(screen: Screen, story: Story) -> None:
    server = screen.server
    screen.page.context.set_offline(True)  # no new connection comes about
    server.cut()
    screen.until("the page to notice", lambda: is_stale(screen))
    for code in ("000660", "035420"):
        server.pass_time(1)
        server.feed(story.enter(code), story.recommend(code, 3.0))
    screen.page.context.set_offline(False)
    screen.live()
    screen.until("what it missed", lambda: feed(screen) == held(screen))
    assert sorted(shown(screen)) == ["000660", "005930", "035420"]
    forgive(screen)


def test_a_line_that_is_open_and_dead_is_noticed(screen: Screen, story: Story) -> None:
    screen.server.hang(4.0)
    screen.until("the page to notice", lambda: is_stale(screen))
    screen.live()
    screen.server.pass_time(1)
    screen.server.feed(story.enter("000660"))
    screen.until("what comes next", lambda: feed(screen) == held(screen))
    forgive(screen)


def test_a_laptop_that_slept_does_not_call_its_figures_current(screen: Screen, story: Story) -> None:
    """Asleep, timers stand still and the steady clock may too; the wall's has gone on when it wakes."""
    page, server = screen.page, screen.server
    page.evaluate("""() => {
        window.states = [];
        const real = Date.now;
        window.slept = 0;
        Date.now = () => real() + window.slept;
        const pill = document.querySelector('[data-testid="connection"]');
        new MutationObserver(() => window.states.push(pill.dataset.state)).observe(pill, { attributes: true });
    }""")
    asleep = page.context.new_cdp_session(page)
    asleep.send("Page.setWebLifecycleState", {"state": "frozen"})
    server.pass_time(3_600)
    server.feed(story.enter("000660"), story.recommend("000660", 3.0), story.subscription(HIGH))
    asleep.send("Page.setWebLifecycleState", {"state": "active"})
    # The next heartbeat may come before the page has judged: an hour more, until it has.
    screen.until(
        "the page to judge", lambda: page.evaluate("() => { slept += 3_600_000; return states.includes('stale'); }")
    )
    screen.until("what it missed", lambda: feed(screen) == held(screen) and "000660" in shown(screen))
    screen.live()
    expect(page.locator("header .clock strong")).to_contain_text("10:00:0")


def test_a_hub_that_is_deaf_is_not_shown_as_current(screen: Screen, story: Story) -> None:
    """The page's own line is well, and what it shows is old all the same."""
    server = screen.server
    server.feed(
        story.subscription(HIGH, "disconnected", "no PING for 35 s"), story.subscription("눌림목", "disconnected")
    )
    state = screen.page.locator('[data-testid="feed-state"]')
    expect(state).to_have_attribute("data-state", "cut")
    expect(screen.page.locator('[data-area="now"] .scroll')).to_have_css("filter", "grayscale(1)")
    assert "⚠" in screen.page.title()
    server.pass_time(1)
    server.feed(story.subscription(HIGH))
    expect(state).to_have_count(0)
