"""The page as its reader sees it: what is shown, that it stays still under the hand, and what it does with commands.

What each view says is in `docs/dashboard.md`; broken connections are in `test_connection`, accessibility in
`test_access`.
"""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Route, expect
from screen import DIP, HIGH, NAMES, SETTLED, Screen, Server, Story, new_screen

from sinks.live.access import Access, read_tokens
from sinks.live.commands import Refused
from streams.events import KST, Reason, Recommend, Withdraw

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def story(screen: Screen) -> Story:
    """A product that is well, at nine, and nothing has happened yet."""
    told = Story(screen.server)
    screen.server.feed(*told.opening())
    return told


def codes(screen: Screen) -> list[str]:
    return screen.rows("recommendation-row", "data-code")


def top_of(screen: Screen, code: str) -> float:
    box = screen.page.locator(f'[data-testid="recommendation-row"][data-code="{code}"]').bounding_box()
    assert box is not None
    return round(box["y"], 1)


# --- now --------------------------------------------------------------------------------------------------------------


def test_recommendations_are_ranked_with_prices_since_their_opening(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.recommend("005930", 2.0), story.recommend("000660", 3.0))
    server.pass_time(1)
    server.feed(story.quote("005930", 10_000))
    server.pass_time(60)
    server.feed(story.quote("005930", 10_300))
    server.pass_time(60)
    server.feed(story.quote("005930", 10_150))
    screen.open()
    assert codes(screen) == ["000660", "005930"]
    row = screen.page.locator('[data-testid="recommendation-row"][data-code="005930"]')
    expect(row).to_contain_text("10,150")
    expect(row.locator("td.since strong")).to_contain_text("+1.50%")
    expect(row.locator(".range")).to_contain_text("+3.0%")
    expect(row.locator(".fate > svg path").last).to_be_attached()
    server.pass_time(1)
    server.feed(story.quote("005930", 9_900))
    expect(row.locator("td.since strong")).to_contain_text("−1.00%")
    expect(row.locator(".range")).to_contain_text("−1.0%")
    without = screen.page.locator('[data-testid="recommendation-row"][data-code="000660"]')
    expect(without.locator("td.since strong")).to_have_text("–")


def test_the_row_under_the_pointer_stays_where_it_is(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(*(story.recommend(code, score) for code, score in (("005930", 4.0), ("000660", 3.0), ("035420", 2.0))))
    screen.open()
    row = screen.page.locator('[data-testid="recommendation-row"][data-code="000660"]')
    row.hover()
    at = top_of(screen, "000660")
    more = tuple(
        Reason(kind="condition", condition=name, algorithm_id=name, since=server.at, visits=9, score=1.0)
        for name in ("가", "나나나나나나나나", "다", "라라라라라라라라라", "마", "바")
    )
    server.feed(
        story.recommend("005930", 0.0, revision=2, state="closed", cause="score", reasons=()),  # above it: closes
        story.recommend("035420", 9.0, revision=2, reasons=more),  # below it: now first, with more reasons than fit
        story.recommend("035720", 8.0),  # new: ranks above it
    )
    screen.until("the new one", lambda: "035720" in codes(screen))
    assert codes(screen) == ["005930", "000660", "035420", "035720"]
    assert top_of(screen, "000660") == at
    assert screen.rows("recommendation-row", "data-state") == ["closed", "open", "open", "open"]
    screen.page.mouse.move(700, 20)
    screen.until("the right order", lambda: codes(screen) == ["035420", "035720", "000660"])


def test_the_row_with_the_keyboard_in_it_stays_where_it_is(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.recommend("005930", 3.0), story.recommend("000660", 2.0))
    screen.open()
    screen.page.keyboard.press("j")
    screen.page.keyboard.press("j")
    at = top_of(screen, "000660")
    server.feed(story.recommend("000660", 9.0, revision=2), story.recommend("035420", 8.0))
    screen.until("the new one", lambda: "035420" in codes(screen))
    assert codes(screen)[:2] == ["005930", "000660"]
    assert top_of(screen, "000660") == at
    screen.page.keyboard.press("/")
    screen.until("the right order", lambda: codes(screen) == ["000660", "035420", "005930"])


def test_a_new_one_does_not_move_what_is_being_read(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(*(story.recommend(f"1{n:05}", 2.0) for n in range(60)))
    screen.open()
    screen.page.eval_on_selector('[data-area="now"] .scroll', "box => box.scrollTo(0, 1200)")
    screen.page.wait_for_timeout(100)
    read = codes(screen)[25]
    at = top_of(screen, read)
    server.feed(story.recommend("005930", 9.0))
    screen.until("the new one", lambda: codes(screen)[0] == "005930")
    screen.page.wait_for_timeout(300)  # a slide, if there were one
    assert abs(top_of(screen, read) - at) < 1.5


def test_sorting_filtering_searching_and_pinning(screen: Screen, story: Story) -> None:
    server = screen.server
    dip = (Reason(kind="condition", condition=DIP, algorithm_id=DIP, since=server.at, visits=1, score=2.0),)
    server.feed(
        story.recommend("005930", 4.0), story.recommend("000660", 3.0, reasons=dip), story.recommend("0004V0", 2.0)
    )
    server.pass_time(1)
    server.feed(story.quote("005930", 9_900), story.quote("000660", 10_100))
    screen.open()
    page = screen.page
    page.fill("#search-now", "ㅅㅅㅈㅈ")
    screen.until("the search by initial consonants", lambda: codes(screen) == ["005930"])
    page.fill("#search-now", "0004v")
    screen.until("the search by code", lambda: codes(screen) == ["0004V0"])
    page.keyboard.press("Escape")
    screen.until("everything again", lambda: len(codes(screen)) == 3)
    page.select_option('[data-area="now"] .filters select >> nth=0', DIP)
    screen.until("one condition", lambda: codes(screen) == ["000660"])
    page.select_option('[data-area="now"] .filters select >> nth=0', "")
    page.click("th.price button")
    screen.until("by the day's change", lambda: codes(screen) == ["000660", "005930", "0004V0"])
    assert page.get_attribute("th.price", "aria-sort") == "descending"
    page.click("th.price button")
    screen.until("the other way round", lambda: codes(screen) == ["005930", "000660", "0004V0"])
    page.hover('[data-testid="recommendation-row"][data-code="0004V0"]')
    page.click('[data-area="now"] [data-pin="0004V0"]')
    screen.until("pinned", lambda: codes(screen) == ["0004V0", "005930", "000660"])
    page.reload()
    screen.live()
    screen.until("pinned still", lambda: codes(screen) == ["0004V0", "005930", "000660"])


def test_a_file_of_the_table_is_what_the_table_shows_and_runs_nothing(screen: Screen, story: Story) -> None:
    note = (Reason(kind="manual", by="=cmd|' /C calc'!A0", since=screen.server.at, score=2.0),)
    screen.server.feed(story.recommend("005930", 3.0), story.recommend("035420", 2.0, reasons=note))
    screen.open()
    page = screen.page
    page.wait_for_selector('[data-testid="recommendation-row"]')
    with page.expect_download() as downloading:
        page.click('[data-area="now"] [data-csv]')
    raw = downloading.value.path().read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf"), "Excel reads UTF-8 by its mark"
    head, *lines = csv.reader(io.StringIO(raw.decode("utf-8-sig")))
    assert head[:2] == ["코드", "종목명"]
    assert [(line[0], line[1], float(line[4])) for line in lines] == [
        ("005930", "삼성전자", 3.0),
        ("035420", "NAVER", 2.0),
    ]
    assert lines[1][6].startswith("'=cmd")


# --- feed -------------------------------------------------------------------------------------------------------------


def test_the_feed_marks_what_came_again_and_what_was_inferred(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.enter("005930"), story.leave("005930"))
    server.pass_time(5)
    server.feed(story.enter("005930"))
    server.feed(story.enter("000660", origin="snapshot", gap_from=server.at, gap_to=server.at))
    server.feed(story.enter("035420", origin="snapshot", initial=True))
    screen.open()
    again = screen.page.locator('[data-testid="feed-row"][data-code="005930"][data-entry="2"]')
    expect(again).to_contain_text("재진입 1회")
    assert again.get_attribute("data-inferred") == "false"
    for code, word in (("000660", "공백 중"), ("035420", "첫 목록")):
        row = screen.page.locator(f'[data-testid="feed-row"][data-code="{code}"]')
        expect(row).to_contain_text(word)
        assert row.get_attribute("data-inferred") == "true"


def test_a_paused_feed_stands_still_and_counts_what_waits(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.enter("005930"))
    screen.open()
    screen.page.click('[data-testid="pause"]')
    shown = screen.rows("feed-row", "data-transition-id")
    server.feed(story.enter("000660"), story.enter("035420", DIP))
    waits = screen.page.locator('[data-testid="pause"][data-waiting="2"]')
    expect(waits).to_be_visible()
    expect(screen.page.locator('[data-area="feed"]')).to_contain_text("새 기록 2건 대기")
    assert screen.rows("feed-row", "data-transition-id") == shown
    screen.page.mouse.move(400, 20)
    screen.page.keyboard.press("p")
    screen.until("what waited", lambda: len(screen.rows("feed-row", "data-transition-id")) == 3)


# --- stock ------------------------------------------------------------------------------------------------------------


def test_a_stock_has_an_address_its_day_and_a_way_back(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.enter("005930"), story.recommend("005930", 2.0), story.quote("005930", 10_000))
    server.pass_time(300)
    server.feed(story.leave("005930"), story.enter("005930", DIP), story.quote("005930", 10_200))
    screen.open()
    page = screen.page
    page.click('[data-testid="recommendation-row"][data-code="005930"] .name')
    expect(page.locator('[data-testid="stock"]')).to_have_attribute("data-code", "005930")
    assert page.url.endswith("#/stock/005930")
    chart = page.locator('[data-testid="chart"]')
    expect(chart).to_have_attribute("data-bars", "2")
    # Two entries, one exit, one recommendation; entry and recommendation at nine are marks of their own.
    expect(chart).to_have_attribute("data-marks", "4")
    expect(page.locator('[data-testid="chart"] canvas').first).to_be_visible()
    expect(page.locator('[data-testid="visit"]')).to_have_count(2)
    assert screen.rows("visit", "data-open") == ["true", "false"]
    expect(page.locator('[data-testid="history-line"]')).to_have_count(1)
    expect(page.locator('[data-testid="stock-price"]')).to_contain_text("10,200")
    server.pass_time(29 * 60)
    server.feed(story.quote("005930", 10_500))
    expect(chart).to_have_attribute("data-last", "10500")
    expect(chart).to_have_attribute("data-bars", "3")
    page.go_back()
    page.wait_for_selector('[data-area="now"]')
    page.go_forward()
    page.wait_for_selector('[data-testid="stock"]')
    page.keyboard.press("Escape")
    page.wait_for_selector('[data-area="now"]')


def test_what_came_before_the_first_candle_is_not_drawn_at_its_price(screen: Screen, story: Story) -> None:
    server, page = screen.server, screen.page
    server.feed(story.enter("005930", origin="snapshot", initial=True))
    server.pass_time(180)
    server.feed(story.quote("005930", 10_000), story.enter("005930", DIP))
    server.feed(story.quote("000660", 10_000), story.enter("000660", DIP))
    screen.open("#/stock/005930")
    chart, before = page.locator('[data-testid="chart"]'), page.locator('[data-testid="marks-before"]')
    expect(chart).to_have_attribute("data-marks", "2")
    expect(before).to_be_visible()
    screen.go("#/stock/000660")
    expect(chart).to_have_attribute("data-marks", "1")
    expect(before).to_have_count(0)


COLUMNS = """colour => {
    const [canvas] = [...document.querySelectorAll('[data-testid="chart"] canvas')].sort((a, b) => b.width - a.width);
    const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let [first, last] = [Infinity, -Infinity];
    for (let at = 0; at < data.length; at += 4)
        if (colour.every((part, index) => data[at + index] === part)) {
            first = Math.min(first, (at / 4) % width);
            last = Math.max(last, (at / 4) % width);
        }
    return last < first ? null : [first, last];
}"""


@pytest.mark.parametrize("late", ["**/api/stocks/005930", "**/api/stocks/005930/bars?*"])
def test_a_mark_is_drawn_at_its_candle_beside_what_has_none(screen: Screen, story: Story, late: str) -> None:
    server, page, held = screen.server, screen.page, list[Route]()
    for condition in (HIGH, DIP):
        server.feed(story.enter("005930", condition))
        server.pass_time(120)
    server.feed(story.quote("005930", 10_000))
    server.pass_time(60)
    server.feed(story.quote("005930", 10_000), story.leave("005930"))
    server.pass_time(60)
    server.feed(story.quote("005930", 10_000))

    def hold(route: Route) -> None:
        held.append(route)

    page.route(late, hold)
    screen.open("#/stock/005930")
    page.evaluate(SETTLED)
    assert len(held) == 1
    held[0].continue_()
    page.unroute(late)
    expect(page.locator('[data-testid="chart"]')).to_have_attribute("data-marks", "3")
    page.evaluate(SETTLED)
    down, volume = [28, 89, 189], [233, 233, 228]  # the colours of the exit and of all the bars below the candles
    screen.until("the bars", lambda: bool(page.evaluate(COLUMNS, volume)))
    page.wait_for_timeout(300)  # the next bars, which draw everything anew, come much later
    exit_, volumes = page.evaluate(COLUMNS, down), page.evaluate(COLUMNS, volume)
    assert exit_, "the exit is drawn"
    assert abs(sum(exit_) - sum(volumes)) < (volumes[1] - volumes[0]) / 3, "at the second of three candles"


def test_a_link_to_a_stock_opens_it_and_a_wrong_one_leads_home(screen: Screen, story: Story) -> None:
    del story
    screen.open("#/stock/0004V0")
    expect(screen.page.locator("#stock-title")).to_have_text("엔비알모션")
    screen.open("#/stock/<b>")
    screen.page.wait_for_selector('[data-area="now"]')


def test_a_stock_without_bars_and_what_is_not_there_are_said_in_words(screen: Screen, story: Story) -> None:
    server, page = screen.server, screen.page
    server.feed(story.enter("005930"), story.quote("005930", 10_000), story.enter("000660"))
    screen.open("#/stock/005930")
    empty, button = page.locator('[data-testid="chart-empty"]'), page.locator('[data-testid="recommend-stock"]')
    expect(page.locator('[data-testid="chart"]')).to_have_attribute("data-bars", "1")
    expect(empty).to_have_count(0)
    screen.go("#/stock/000660")
    expect(empty).to_have_text("아직 받은 체결이 없습니다. 체결이 오면 봉이 나타납니다.")
    expect(page.locator('[data-testid="chart"]')).not_to_be_visible()
    expect(button).to_be_enabled()
    screen.go("#/stock/999999")
    expect(empty).to_have_text("그런 종목이 없습니다.")
    expect(button).to_have_count(0)
    screen.go("#/conditions/main/없는 조건")
    expect(page.locator('[data-testid="conditions-view"] .empty')).to_contain_text("그런 조건이 없습니다.")
    screen.errors = [error for error in screen.errors if "404" not in error]  # the browser's own line about it


def test_what_clickhouse_cannot_say_is_said_and_the_rest_stays(screen: Screen, story: Story) -> None:
    screen.server.past.is_away = True
    screen.server.feed(story.enter("005930"))
    screen.open("#/stock/005930")
    stock = screen.page.locator('[data-testid="stock"]')
    expect(stock).to_contain_text("ClickHouse does not answer")
    assert screen.rows("visit", "data-condition") == [HIGH]
    screen.errors = [error for error in screen.errors if "503" not in error]  # the browser's own line about it


# --- conditions -------------------------------------------------------------------------------------------------------


def test_a_condition_never_shows_a_bare_percentage(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.enter("005930"), story.enter("000660"), story.leave("000660"))
    server.feed(story.subscription(DIP, "refused", "900001: no result"))
    screen.open("#/conditions")
    page = screen.page
    panel = page.locator(f'[data-testid="condition-panel"][data-condition="{HIGH}"]')
    assert panel.get_attribute("data-members") == "1"
    figures = panel.locator('[data-testid="performance-row"] .figure')
    expect(figures.first).to_be_visible()
    for text in figures.all_inner_texts():
        assert "n " in text, text
        assert "[" in text or "구간 없음" in text, text
    as_of = panel.locator('[data-testid="performance-as-of"]')
    expect(as_of).to_have_text("09:00 기준")
    server.pass_time(600)
    server.feed(story.enter("005930", DIP))
    expect(as_of).to_have_text("09:00 기준 (10분 전)")
    expect(panel.locator('[data-testid="performance-gaps"]')).to_contain_text("공백이 2번")
    expect(panel.locator('[data-testid="performance-unpriced"]')).to_contain_text("기준 가격이 없어 어디에도")
    expect(panel.locator('[data-testid="performance-unpriced"]')).to_contain_text("진입 3번")
    expect(panel.locator('[data-testid="performance-past-close"]')).to_contain_text("셈하지 않음: 30분 뒤 12")
    expect(panel.locator('[data-testid="performance-unknown"]')).to_have_text("아직 모름: 다음 시가 107")
    expect(panel.locator(".u-wrap canvas")).to_be_visible()
    refused = page.locator(f'[data-testid="condition-panel"][data-condition="{DIP}"]')
    expect(refused).to_contain_text("거부됨")
    expect(refused).to_contain_text("900001: no result")
    panel.locator("h3 a").click()
    page.wait_for_selector('[data-testid="member"]')
    assert screen.rows("member", "data-code") == ["005930"]
    assert screen.rows("performance-row", "data-horizon")[-2:] == ["best", "worst"]


@pytest.mark.parametrize(
    ("lang", "said"),
    [
        ("ko", "5초 안에 CNSRREQ 응답 없음 (3번 중 2번째 시도)"),
        ("en", "CNSRREQ was not answered within 5 s (try 2 of 3)"),
    ],
)
def test_a_cause_is_in_the_language_of_the_page(chromium: Browser, server: Server, lang: str, said: str) -> None:
    story = Story(server)
    server.feed(
        *story.opening(), story.subscription(HIGH, "unanswered", "CNSRREQ was not answered within 5 s (try 2 of 3)")
    )
    with new_screen(chromium, server, lang=lang) as screen:
        for place in ("#/", "#/conditions", "#/health"):
            screen.open(place)
            expect(screen.page.get_by_text(said).first).to_be_visible()
        assert screen.errors == []


def test_a_quiet_condition_says_when_it_was_looked_at(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.enter("005930"))
    server.pass_time(70)
    server.feed(story.subscription(HIGH, "live", "quiet since 09:00:00; audit at 09:01:00: agrees"))
    screen.open("#/health")
    quiet = screen.page.locator(f'[data-testid="subscription"][data-condition="{HIGH}"]')
    expect(quiet).to_have_attribute("data-word", "quiet")
    expect(quiet).to_contain_text("09:00:00부터 조용함 · 09:01:00 점검: 일치")


# --- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_is_only_sent_until_the_stream_brings_it_back(screen: Screen, story: Story) -> None:
    server, page = screen.server, screen.page
    screen.open()
    page.keyboard.press("r")
    page.keyboard.type("ㅅㅅㅈㅈ")
    page.wait_for_selector("#stock-005930")
    page.keyboard.press("Enter")
    page.fill("#note", "수급 좋음")
    page.select_option("#expiry", "30m")
    page.click('[data-testid="dialog-recommend"] [type="submit"]')
    sent = page.locator('[data-testid="sent-command"]')
    expect(sent).to_have_attribute("data-state", "sent")
    assert codes(screen) == [], "nothing is shown as recommended because it was asked for"
    [asked] = server.told.records
    assert isinstance(asked, Recommend)
    assert (asked.account, asked.code, asked.note, asked.by) == ("main", "005930", "수급 좋음", "trader")
    assert asked.expires_at is not None
    assert timedelta(minutes=30) <= asked.expires_at - server.at < timedelta(minutes=32)
    reason = Reason(kind="manual", by="trader", note="수급 좋음", since=server.at, score=1.5)
    server.feed(story.recommend("005930", 1.5, cause="command", cause_id=asked.id, reasons=(reason,)))
    expect(sent).to_have_attribute("data-state", "done")
    assert codes(screen) == ["005930"]
    page.click('[data-testid="recommendation-row"] .chevron')
    details = page.locator("tr.details")
    expect(details).to_contain_text("trader")
    expect(details).to_contain_text("수급 좋음")
    expect(details).to_contain_text(f"{server.at.astimezone(KST):%H:%M:%S}부터")


def test_withdrawing_asks_first(screen: Screen, story: Story) -> None:
    screen.server.feed(story.recommend("005930", 2.0))
    screen.open()
    page = screen.page
    page.click('[data-testid="recommendation-row"] .chevron')
    page.click("tr.details button")
    page.wait_for_selector('[data-testid="dialog-withdraw"]')
    page.keyboard.press("Escape")
    page.wait_for_selector('[data-testid="dialog-withdraw"]', state="detached")
    assert screen.server.told.records == []
    page.click("tr.details button")
    page.click('[data-testid="dialog-withdraw"] [type="submit"]')
    expect(page.locator('[data-testid="sent-command"]')).to_have_attribute("data-state", "sent")
    [asked] = screen.server.told.records
    assert isinstance(asked, Withdraw)
    assert (asked.account, asked.code, asked.by) == ("main", "005930", "trader")
    assert codes(screen) == ["005930"], "it stands until the stream says otherwise"


def test_a_key_that_is_quicker_than_the_answer_who_the_reader_is_counts(screen: Screen, story: Story) -> None:
    del story
    page, held = screen.page, list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/session", hold)
    screen.open()
    page.keyboard.press("r")
    page.keyboard.type("ㅅㅅㅈㅈ")
    page.wait_for_selector("#stock-005930")
    page.keyboard.press("Enter")
    dialog = page.locator('[data-testid="dialog-recommend"]')
    expect(dialog.locator(".problem")).to_have_count(0)
    expect(dialog.locator('[type="submit"]')).to_be_disabled()
    for route in held:
        route.continue_()
    dialog.locator('[type="submit"]').click()
    expect(page.locator('[data-testid="sent-command"]')).to_have_attribute("data-state", "sent")


def test_a_refused_command_says_why_and_can_be_sent_again(screen: Screen, story: Story) -> None:
    del story
    screen.server.told.refusal = Refused("It would have expired already.")
    screen.open()
    page = screen.page
    page.keyboard.press("r")
    page.keyboard.type("ㅅㅅㅈㅈ")
    page.wait_for_selector("#stock-005930")
    page.keyboard.press("Enter")
    page.click('[data-testid="dialog-recommend"] [type="submit"]')
    expect(page.locator('[data-testid="dialog-recommend"] .problem')).to_have_text("It would have expired already.")
    screen.server.told.refusal = None
    page.click('[data-testid="dialog-recommend"] [type="submit"]')
    page.wait_for_selector('[data-testid="dialog-recommend"]', state="detached")
    screen.errors = [error for error in screen.errors if "409" not in error]


def test_a_read_only_reader_is_told_so(screen: Screen, story: Story) -> None:
    server = screen.server
    server.feed(story.recommend("005930", 2.0))
    server.stop()
    server.access = Access(read_tokens("guest:a-guests-own-token", may_write=False, setting="live.read_tokens"))
    server.start()
    screen.log_in("a-guests-own-token", "#/stock/005930")
    assert screen.page.url.endswith("/#/stock/005930"), "a link that was sent leads there through the login, too"
    screen.open()
    page = screen.page
    button = page.locator('[data-testid="recommend-button"]')
    expect(button).to_be_disabled()
    assert "읽기 전용" in (button.get_attribute("title") or "")
    page.click('[data-testid="recommendation-row"] .chevron')
    expect(page.locator("tr.details button")).to_be_disabled()
    expect(page.locator("tr.details")).to_contain_text("읽기 전용 토큰으로는")
    page.keyboard.press("r")
    assert page.locator("dialog").count() == 0
    page.click('[data-testid="settings-button"]')
    expect(page.locator('[data-testid="login"]')).to_contain_text("guest")
    page.click('[data-testid="log-out"]')
    page.wait_for_selector('input[name="token"]')
    screen.errors = [error for error in screen.errors if "401" not in error]  # the login page's own answer


# --- alerts and settings ----------------------------------------------------------------------------------------------

FAKE_NOTIFICATIONS = """
    window.told = []; window.asked = 0;
    class Notification {
      static permission = "default";
      static async requestPermission() { window.asked++; return (Notification.permission = "granted"); }
      constructor(title, options) { window.told.push(`${title} | ${options.body}`); }
      close() {}
    }
    Object.defineProperty(window, "Notification", { value: Notification });
"""


def test_alerts_are_off_until_asked_for_and_do_not_repeat(screen: Screen, story: Story) -> None:
    server, page = screen.server, screen.page
    page.add_init_script(FAKE_NOTIFICATIONS)
    screen.open()
    server.feed(story.enter("005930"))
    screen.until("the hit", lambda: screen.rows("feed-row", "data-code") == ["005930"])
    assert page.evaluate("[window.asked, window.told.length]") == [0, 0], "nothing is asked and nothing rings unasked"
    page.click('[data-testid="settings-button"]')
    rule = page.locator(f'[data-testid="alert-rule"][data-condition="{HIGH}"]')
    rule.locator("input").nth(1).check()
    assert page.evaluate("window.asked") == 1
    page.keyboard.press("Escape")
    server.feed(story.leave("005930"), story.enter("000660"), story.enter("035420", DIP))
    server.feed(story.enter("035720", origin="snapshot", initial=True))
    screen.until("the notification", lambda: page.evaluate("window.told.length") > 0)
    server.feed(story.leave("000660"), story.enter("000660"))
    screen.until("the re-entry", lambda: len(screen.rows("feed-row", "data-code")) == 7)
    page.wait_for_timeout(200)
    assert page.evaluate("window.told") == [f"진입 SK하이닉스 | {HIGH} · 09:00:00"]


@pytest.mark.parametrize(
    ("choice", "up"), [("korean", "rgb(196, 30, 44)"), ("western", "rgb(11, 110, 63)"), ("safe", "rgb(138, 83, 0)")]
)
def test_up_and_down_are_said_by_colour_sign_and_shape(screen: Screen, story: Story, choice: str, up: str) -> None:
    server, page = screen.server, screen.page
    server.feed(story.recommend("005930", 2.0))
    server.pass_time(1)
    server.feed(story.quote("005930", 10_100))
    screen.open()
    page.click('[data-testid="settings-button"]')
    page.locator(f'input[name="colours"] >> nth={["korean", "western", "safe"].index(choice)}').check()
    page.keyboard.press("Escape")
    change = page.locator('[data-testid="recommendation-row"] td.price .small > span')
    expect(change).to_have_css("color", up)
    expect(change).to_contain_text("+1.00%")
    expect(change.locator("svg.up")).to_be_visible()
    page.reload()
    screen.live()
    expect(page.locator('[data-testid="recommendation-row"] td.price .small > span')).to_have_css("color", up)


def test_single_keys_lead_everywhere_and_can_be_switched_off(screen: Screen, story: Story) -> None:
    del story
    screen.open()
    page = screen.page
    page.keyboard.press("3")
    page.wait_for_selector('[data-testid="conditions-view"]')
    page.keyboard.press("4")
    page.wait_for_selector('[data-testid="health"]')
    page.keyboard.press("Escape")
    page.wait_for_selector('[data-testid="health"]', state="detached")
    page.keyboard.press("1")
    page.wait_for_selector('[data-area="now"]')
    page.keyboard.press("?")
    page.wait_for_selector('[data-testid="dialog-help"]')
    page.keyboard.press("Escape")
    page.click('[data-testid="settings-button"]')
    page.locator('[data-testid="dialog-settings"] fieldset >> nth=3').locator("input").uncheck()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("3")
    page.keyboard.press("?")
    page.wait_for_selector('[data-testid="dialog-help"]')
    assert page.url.endswith("#/")


def test_bars_are_drawn_when_their_minutes_change_and_not_with_every_entry(screen: Screen, story: Story) -> None:
    """Each change of any condition would else have the bars of all of them drawn, many times a second."""
    server, page = screen.server, screen.page
    for condition in (HIGH, DIP):
        server.feed(story.enter("005930", condition))
    screen.open("#/conditions")
    expect(page.locator('[data-testid="conditions-view"] canvas')).to_have_count(2)
    page.evaluate(SETTLED)
    page.evaluate(
        """() => {
            window.drawn = 0;
            const clear = CanvasRenderingContext2D.prototype.clearRect;
            CanvasRenderingContext2D.prototype.clearRect = function (...of) { window.drawn++; clear.apply(this, of); };
        }"""
    )
    entered = page.locator('[data-testid="conditions-view"] li', has_text=HIGH)
    for number in range(20):
        server.feed(story.enter(f"1{number:05}"))
        expect(entered).to_contain_text(str(number + 2))
    assert page.evaluate("window.drawn") < 10, "each asks for its minutes again only now and then"


# --- on a phone -------------------------------------------------------------------------------------------------------

BROKEN = """() => {
    const broken = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    for (let node; (node = walk.nextNode()); )
        for (const { index, 0: word } of node.data.matchAll(/\\d\\d:\\d\\d(:\\d\\d)?|^[\\w가-힣]+$/g)) {
            const range = document.createRange();
            range.setStart(node, index);
            range.setEnd(node, index + word.length);
            if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) broken.push(word);
        }
    return broken;
}"""


@pytest.mark.parametrize("lang", ["ko", "en"])
def test_on_a_phone_no_time_is_broken_and_no_button_sticks_out(chromium: Browser, server: Server, lang: str) -> None:
    story = Story(server)
    server.feed(*story.opening())
    for _ in range(12):
        server.feed(story.enter("0004V0"), story.enter("0004V0", DIP), story.enter("005930"))
        server.feed(story.quote("0004V0", 123_400))
        server.pass_time(754)
        server.feed(story.leave("0004V0"), story.leave("0004V0", DIP))
    server.feed(story.enter("0004V0"), *(story.recommend(f"1{n:05}", 2.0) for n in range(120)))
    server.feed(story.recommend("0004V0", 2.0), story.quote("0004V0", 112_300))
    server.pass_time(61)
    server.feed(story.recommend("0004V0", 1.0, revision=2, state="closed", cause="score", opened_at=server.at))
    with new_screen(chromium, server, lang=lang, narrow=True) as screen:
        for place in ("#/", "#/stock/0004V0", f"#/conditions/main/{HIGH}"):
            screen.open(place)
            screen.page.evaluate(SETTLED)
            assert screen.page.evaluate(BROKEN) == [], place
            beyond = "all => all.filter(one => one.checkVisibility() && one.getBoundingClientRect().right > 375).length"
            assert screen.page.eval_on_selector_all("main button, main .list td", beyond) == 0, place
        assert screen.errors == []


@pytest.mark.parametrize("lang", ["ko", "en"])
@pytest.mark.parametrize("narrow", [True, False])
def test_choices_stand_beside_what_they_are_of(chromium: Browser, server: Server, lang: str, narrow: bool) -> None:
    server.feed(*Story(server).opening())
    with new_screen(chromium, server, lang=lang, narrow=narrow) as screen:
        screen.open()
        screen.page.click('[data-testid="settings-button"]')
        places = screen.page.eval_on_selector_all(
            "dialog fieldset",
            """all => all.map(set => {
                const right = set.querySelector("legend").getBoundingClientRect().right;
                return [...set.querySelectorAll("label")].every(label => label.getBoundingClientRect().left >= right);
            })""",
        )
        assert len(places) >= 4
        assert all(places)


# --- much, and for long -----------------------------------------------------------------------------------------------


def test_a_torrent_is_drawn_a_few_times_and_leaves_nothing_behind(screen: Screen, story: Story) -> None:
    """A burst of deltas is gathered into a few drawings, and what is in the document stays bounded."""
    server, page = screen.server, screen.page
    screen.open()
    page.evaluate("""() => {
        window.drawings = 0;
        new MutationObserver(() => window.drawings++).observe(
            document.querySelector('[data-area="feed"] .scroll'), { childList: true, subtree: true });
    }""")
    codes_ = list(NAMES)

    def burst(count: int) -> None:
        for _ in range(count // 100):
            lines = []
            for n in range(50):
                server.pass_time(0.01)
                code = codes_[n % len(codes_)]
                lines += [story.enter(code, f"조건 {n % 7}"), story.leave(code, f"조건 {n % 7}")]
            server.feed_each(lines)
            newest = f'[data-area="feed"] li:first-child[data-transition-id="{lines[-1].id}"]'
            page.wait_for_selector(newest)

    burst(100)  # a hundred deltas, written at once
    drawings = int(page.evaluate("window.drawings"))
    assert 0 < drawings < 40, drawings
    burst(800)
    held = page.evaluate("document.querySelectorAll('*').length")
    burst(800)
    assert len(screen.rows("feed-row", "data-code")) == 200
    assert page.evaluate("document.querySelectorAll('*').length") <= held * 1.02
