"""Pictures of every view: both languages, light and dark, wide and on a phone, for looking at.

    python tests/e2e/screenshots.py FOLDER          # all of them (make screenshots)
    python tests/e2e/screenshots.py --docs          # those of the documentation, into docs/

The market is the demo's. What only ClickHouse knows – how conditions fared, other days – is invented here as well.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from browser import ARGUMENTS, installed
from playwright.sync_api import Browser, Page, Route, sync_playwright

from sinks.live.demo import CONDITIONS
from streams.events import KST

ROOT: Final = Path(__file__).parents[2]
CODE: Final = "005930"
VIEWS: Final[dict[str, tuple[str, str]]] = {  # name: (place, what to press there)
    "now": ("#/", ""),
    "details": ("#/", '[data-testid="recommendation-row"] .chevron'),
    "feed": ("#/feed", ""),
    "stock": (f"#/stock/{CODE}", ""),
    "conditions": ("#/conditions", ""),
    "condition": (f"#/conditions/main/{CONDITIONS[0]}", ""),
    "health": ("#/health", ""),
    "settings": ("#/", '[data-testid="settings-button"]'),
    "recommend": ("#/", '[data-testid="recommend-button"]'),
}
SIZES: Final = {"wide": (1440, 900), "phone": (390, 844)}
DOCS: Final = {
    "dashboard.png": ("now", "ko", "light", "wide"),
    "dashboard-en.png": ("now", "en", "dark", "wide"),
    "dashboard-stock.png": ("stock", "ko", "light", "wide"),
    "dashboard-conditions.png": ("conditions", "ko", "dark", "wide"),
    "dashboard-phone.png": ("now", "ko", "light", "phone"),
}


def answer(route: Route) -> None:
    """Invent what ClickHouse would say; the rest is the demo's server's."""
    path = urlsplit(route.request.url).path.split("/api/", 1)[1]
    if path == "session":
        told = {"who": "trader", "may_write": True, "csrf": "", "may_log_out": False, "accounts": ["main"]}
        route.fulfill(json={**told, "has_history": True})
    elif path == "performance":
        route.fulfill(json=performance())
    elif path.endswith("/history"):
        route.fulfill(json=history())
    else:
        route.fallback()


def performance() -> list[dict[str, Any]]:
    """How conditions might have fared: some well, some not, some too seldom to say."""
    dice, rows = random.Random(5), []
    as_of = (datetime.now(KST) - timedelta(seconds=80)).isoformat()
    for number, condition in enumerate(CONDITIONS[:7]):
        cases, drift = (12, 140, 320, 85, 410, 33, 260)[number], (0.3, 0.45, -0.25, 0.1, 0.02, 0.6, -0.05)[number]
        for step, horizon in enumerate(("1m", "5m", "30m", "close", "next_open", "best", "worst")):
            mean = drift * (0.4, 1, 1.4, 1.7, 1.6, 3.2, -2.4)[step] + dice.gauss(0, 0.05)
            half = 1.96 * (0.5, 0.9, 1.8, 3.0, 3.4, 2.0, 2.0)[step] / math.sqrt(cases)
            rows.append({
                "account": "main", "condition": condition, "horizon": horizon, "hits": cases + 2 * number,
                "priced": cases, "without_price": number, "past_close": number * (horizon != "next_open"),
                "mean": mean, "median": mean * 0.7, "q1": mean - 0.9, "q3": mean + 0.8,
                "positive": min(0.95, max(0.05, 0.5 + mean / 6)), "low": mean - half, "high": mean + half,
                "sample_mean": 0.03, "sample_cases": 4_000, "difference": mean - 0.03,
                "difference_low": mean - half - 0.03, "difference_high": mean + half - 0.03, "gaps": int(number == 1),
                "as_of": as_of,
            })  # fmt: skip
    return rows


def history() -> list[dict[str, Any]]:
    """A few earlier days of a stock."""
    today = datetime.now(KST).replace(hour=9, minute=12)
    return [
        {"date": date.isoformat((today - timedelta(days=days)).date()), "account": "main", "condition": condition,
         "visits": 1 + days % 3, "first_at": (today + timedelta(minutes=7 * days)).isoformat(),
         "last_at": today.isoformat(), "dwell": 173.0 * days}
        for days in range(1, 6)
        for condition in CONDITIONS[: 1 + days % 2]
    ]  # fmt: skip


def take(browser: Browser, address: str, target: Path, view: str, lang: str, theme: str, size: str) -> list[str]:
    """Take one picture; what the browser complained about."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    choices = json.dumps({"hitstream.lang": lang, "hitstream.theme": theme})
    context.add_init_script(f"for (const [k, v] of Object.entries({choices})) localStorage.setItem(k, v)")
    page: Page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.route("**/api/**", answer)
    place, press = VIEWS[view]
    page.goto(address + place)
    page.wait_for_selector('[data-testid="connection"][data-state="live"]')
    page.wait_for_timeout(1_200)
    if press:
        page.click(press)
        page.wait_for_timeout(300)
    target.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=target)
    context.close()
    return errors


def main() -> int:
    """Take the pictures that were asked for; 1 if the browser complained about anything."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", nargs="?", type=Path, default=ROOT / ".cache" / "screenshots")
    arguments.add_argument("--docs", action="store_true")
    arguments.add_argument("--only", default="", help="only pictures whose name holds this")
    asked = arguments.parse_args()
    wanted = (
        {ROOT / "docs" / name: what for name, what in DOCS.items()}
        if asked.docs
        else {
            asked.folder / f"{view}-{lang}-{theme}-{size}.png": (view, lang, theme, size)
            for view in VIEWS
            for lang in ("ko", "en")
            for theme in ("light", "dark")
            for size in SIZES
        }
    )
    command = [sys.executable, "-m", "sinks.live.demo", "--port", "0", "--rate", "3", "--history", "400", "--seed", "3"]
    demo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    complaints: dict[str, list[str]] = {}
    try:
        assert demo.stdout is not None
        address = demo.stdout.readline().strip()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=installed(), args=ARGUMENTS)
            for target, (view, lang, theme, size) in wanted.items():
                if asked.only in target.name:
                    complaints[target.name] = take(browser, address, target, view, lang, theme, size)
                    print(target, flush=True)
            browser.close()
    finally:
        demo.terminate()
        demo.wait(10)
    wrong = {name: said for name, said in complaints.items() if said}
    if wrong:
        print(json.dumps(wrong, ensure_ascii=False, indent=1), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
