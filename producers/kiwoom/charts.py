"""Charts over REST: what ka10080 (minutes) and ka10081 (days) say of one stock and one day, as bars.

Both answer newest first, in pages. How many rows a page has is Kiwoom's to decide, so paging ends at the first row of
an earlier day. Prices carry the direction against the previous close as sign, and may be padded; a minute bar is
stamped with its start. Prices are as they were traded (`upd_stkpc_tp` 0): an adjusted one would not fit the hits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol

from streams.events import KST, Bar, HitstreamError

from . import frames

PATH: Final = "/api/dostk/chart"
_MILLION: Final = 1_000_000
_MOST_PAGES: Final = 50
_STAMP: Final = re.compile(r"(\d{8})(\d{6})?")

# What a list of shares has besides the shares of companies: a sample of these would be one of indices and oil.
_FUNDS: Final = re.compile(
    r"(?:KODEX|TIGER|RISE|KBSTAR|ACE|KINDEX|SOL|PLUS|ARIRANG|HANARO|KOSEF|KIWOOM|히어로즈|TIMEFOLIO|TIME|WON|1Q|BNK|"
    r"KoAct|KCGI|UNICORN|FOCUS|TREX|HK|ITF|마이티|마이다스|파워|에셋플러스|TRUSTON|VITA|DAISHIN343|대신343) "
    r"|.*\b(?:ETF|ETN|ELW)\b"
)
_FUND_MARKETS: Final = ("ETF", "ETN", "ELW")


class Pages(Protocol):
    """Who asks Kiwoom: `Rest`."""

    def pages(self, api_id: str, path: str, body: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """Every page of a TR's answer."""


class Chart(NamedTuple):
    """The bars of one stock and day, oldest first; `unreadable` rows were left out."""

    bars: tuple[Bar, ...]
    unreadable: int


class ChartBroken(HitstreamError):
    """The chart goes on for ever, or says the same again."""


async def minutes(rest: Pages, code: str, day: date, *, sample: bool, received_at: datetime) -> Chart:
    """The minute bars (ka10080) of a day.

    Raises:
        KiwoomError: not answered, or refused.
        ChartBroken: its pages have no end.
    """
    body = {"stk_cd": code, "tic_scope": "1", "upd_stkpc_tp": "0", "base_dt": f"{day:%Y%m%d}"}
    rows, unreadable = await _rows(rest.pages("ka10080", PATH, body), "stk_min_pole_chart_qry", "cntr_tm", day)
    return _chart((minute_bar(row, code, sample=sample, received_at=received_at) for row in rows), unreadable)


async def daily(rest: Pages, code: str, day: date, *, sample: bool, received_at: datetime) -> Chart:
    """The daily bar (ka10081) of a day: one, or none where the stock was not traded.

    Raises:
        KiwoomError: not answered, or refused.
        ChartBroken: its pages have no end.
    """
    body = {"stk_cd": code, "base_dt": f"{day:%Y%m%d}", "upd_stkpc_tp": "0"}
    rows, unreadable = await _rows(rest.pages("ka10081", PATH, body), "stk_dt_pole_chart_qry", "dt", day)
    return _chart((daily_bar(row, code, sample=sample, received_at=received_at) for row in rows), unreadable)


def minute_bar(row: dict[str, Any], code: str, *, sample: bool, received_at: datetime) -> Bar | None:
    """One row of ka10080; None if it says no bar."""
    return _bar(row, "cntr_tm", code, sample=sample, received_at=received_at)


def daily_bar(row: dict[str, Any], code: str, *, sample: bool, received_at: datetime) -> Bar | None:
    """One row of ka10081, dated at its midnight; its value comes in million won. None if it says no bar."""
    return _bar(row, "dt", code, sample=sample, received_at=received_at)


def is_company(name: str, market_name: str = "") -> bool:
    """Whether a row of ka10099 is a company's share, by its names; funds, notes and warrants are none.

    Kiwoom's list of KOSPI has them among the shares, and no field that is known to tell them apart.
    """
    return not _FUNDS.match(name) and not market_name.upper().startswith(_FUND_MARKETS)


def sample(codes: Iterable[str], size: int) -> tuple[str, ...]:
    """A fixed random sample: the codes with the lowest hashes, in order of code.

    The same list gives the same sample on every machine; a stock that is listed or delisted changes at most one of it.
    """
    by_chance = sorted(set(codes), key=lambda code: (hashlib.blake2b(code.encode(), digest_size=8).digest(), code))
    return tuple(sorted(by_chance[:size]))


async def _rows(
    pages: AsyncGenerator[dict[str, Any]], name: str, stamp: str, day: date
) -> tuple[list[dict[str, Any]], int]:
    """The rows of a day, each moment once, and how many had no time to tell the day by."""
    wanted = f"{day:%Y%m%d}"
    found: dict[str, dict[str, Any]] = {}
    unreadable = 0
    number = 0
    async with aclosing(pages):
        async for page in pages:
            number += 1
            if number > _MOST_PAGES:
                raise ChartBroken(f"a chart has more than {_MOST_PAGES} pages of {day:%Y-%m-%d} and later")
            rows = page.get(name)
            earlier = False
            for row in rows if isinstance(rows, list) else ():
                at = str(row.get(stamp) or "").strip() if isinstance(row, dict) else ""
                if _STAMP.fullmatch(at) is None:
                    unreadable += 1
                elif not at.startswith(wanted):
                    earlier = earlier or at[:8] < wanted
                elif frames.price(row.get("trde_qty")) != 0:  # a day without a trade may have a row of its own
                    found.setdefault(at, row)
            if earlier or not rows:
                break
    return [found[at] for at in sorted(found)], unreadable


def _bar(row: dict[str, Any], stamp: str, code: str, *, sample: bool, received_at: datetime) -> Bar | None:
    opening, high, low = (frames.price(row.get(f"{which}_pric")) for which in ("open", "high", "low"))
    close = frames.price(row.get("cur_prc"))
    volume = frames.price(row.get("trde_qty"))
    at = str(row[stamp]).strip()
    if not opening or not high or not low or not close or volume is None:
        return None
    if not low <= min(opening, close) <= max(opening, close) <= high:
        return None
    try:
        start = datetime.strptime(at.ljust(14, "0"), "%Y%m%d%H%M%S").replace(tzinfo=KST)
    except ValueError:
        return None
    value = frames.price(row.get("trde_prica"))
    return Bar(
        code=code,
        interval="1d" if stamp == "dt" else "1m",
        at=start,
        open=opening,
        high=high,
        low=low,
        close=close,
        volume=volume,
        value=None if value is None else value * _MILLION,
        received_at=received_at,
        sample=sample,
    )


def _chart(bars: Iterable[Bar | None], unreadable: int) -> Chart:
    read = list(bars)
    kept = tuple(bar for bar in read if bar is not None)
    return Chart(kept, unreadable + len(read) - len(kept))
