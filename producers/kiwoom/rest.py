"""TR calls over REST: paced, paged, with the token that `Tokens` has.

Each call retries what is worth it – one time with a new token, a few times after a rate limit – and raises one of
`errors` for everything else. What the fields of a TR mean is read here, so that nobody else has to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import httpx

from streams.events import SearchRow, Stock

from . import frames
from .charts import is_company
from .errors import STALE_TOKEN, CallRefused, RateLimited, TokenRefused, embedded_code, masked, remedy
from .token import Tokens, post

MARKETS: Final = {"0": "KOSPI", "10": "KOSDAQ"}

_SPACING: Final = 0.2
_PAPER: Final = "//mockapi."
_PAPER_SPACING: Final = 1.0
_TRIES: Final = 4
_MOST_PAGES: Final = 1000
_WATCHED: Final = 100  # Stocks that one ka10095 may ask for.


class Rest:
    """Kiwoom's TR calls.

    Args:
        spacing: least real seconds between two calls, whoever makes them; None is the policy: 5 a second, 1 on the
            paper-trading host.
    """

    def __init__(self, http: httpx.AsyncClient, tokens: Tokens, *, rest_url: str, spacing: float | None = None) -> None:
        self._http = http
        self._tokens = tokens
        self._rest_url = rest_url.rstrip("/")
        self._spacing = spacing if spacing is not None else _PAPER_SPACING if _PAPER in rest_url else _SPACING
        self._turn = asyncio.Lock()
        self._next = 0.0

    async def pages(self, api_id: str, path: str, body: dict[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """Every page of a TR's answer.

        Raises:
            TokenRefused, RateLimited, Maintenance, Unreachable, CallRefused
        """
        paging: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            reply = await self._call(api_id, path, body, paging)
            yield reply
            if reply.get("cont-yn") != "Y" or not reply.get("next-key"):
                return
            paging = {"cont-yn": "Y", "next-key": str(reply["next-key"])}
        raise CallRefused(f"{api_id} has more than {_MOST_PAGES} pages")

    async def stocks(self, now: Callable[[], datetime]) -> AsyncIterator[Stock]:
        """The listed stocks of KOSPI and KOSDAQ (ka10099), with their previous close."""
        async for row, market in self._list():
            if (stock := listed(row, market, now())) is not None:
                yield stock

    async def companies(self) -> list[str]:
        """The codes of all shares of companies on KOSPI and KOSDAQ (ka10099), without funds and notes."""
        codes = []
        async for row, _ in self._list():
            if not isinstance(row, dict) or not isinstance(row.get("code"), str):
                continue
            found = frames.stock(row["code"])
            if found is not None and is_company(str(row.get("name") or ""), str(row.get("marketName") or "")):
                codes.append(found[0])
        return codes

    async def _list(self) -> AsyncIterator[tuple[Any, str]]:
        """The rows of KOSPI's and KOSDAQ's lists (ka10099), and which of the two each is of."""
        for number, market in MARKETS.items():
            async for page in self.pages("ka10099", "/api/dostk/stkinfo", {"mrkt_tp": number}):
                rows = page.get("list")
                for row in rows if isinstance(rows, list) else ():
                    yield row, market

    async def prices(self, codes: Sequence[str]) -> dict[str, SearchRow]:
        """Name and price of stocks now (ka10095), by code; a code that Kiwoom does not know is missing."""
        found: dict[str, SearchRow] = {}
        for start in range(0, len(codes), _WATCHED):
            asked = "|".join(codes[start : start + _WATCHED])
            async for page in self.pages("ka10095", "/api/dostk/stkinfo", {"stk_cd": asked}):
                rows = page.get("atn_stk_infr")
                for row in rows if isinstance(rows, list) else ():
                    if (priced := watched(row)) is not None:
                        found[priced.code] = priced
        return found

    async def _call(self, api_id: str, path: str, body: dict[str, str], paging: dict[str, str]) -> dict[str, Any]:
        renewed = False
        for attempt in range(1, _TRIES + 1):
            token = await self._tokens.get()
            await self._wait_turn()
            try:
                headers = {"authorization": f"Bearer {token}", "api-id": api_id}
                reply = await post(self._http, self._rest_url + path, body, headers | paging)
                _raise_for(api_id, reply, token)
            except RateLimited:
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(attempt)
            except TokenRefused as error:
                if renewed or error.code not in STALE_TOKEN:
                    raise
                renewed = True
                self._tokens.discard(token)
            else:
                return reply
        raise CallRefused(f"{api_id} was not answered in {_TRIES} tries")

    async def _wait_turn(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(max(0.0, self._next - loop.time()))
            self._next = loop.time() + self._spacing


def _raise_for(api_id: str, reply: dict[str, Any], token: str) -> None:
    code = reply.get("return_code")
    if code == 0:
        return
    message = masked(str(reply.get("return_msg", "")), token)
    inside = embedded_code(message)
    if code == 5 or inside == "1700":
        raise RateLimited(f"Kiwoom allows no more calls for now ({message})", inside)
    if inside in STALE_TOKEN or code == 3:
        raise TokenRefused(f"{api_id} was refused ({message}): {remedy(inside)}", inside)
    raise CallRefused(f"{api_id} was refused ({message or code})", inside)


def listed(row: Any, market: str, received_at: datetime) -> Stock | None:
    """One row of ka10099 as a record; None if it is no stock with a code and a name."""
    if not isinstance(row, dict) or not isinstance(row.get("code"), str) or not isinstance(row.get("name"), str):
        return None
    found = frames.stock(row["code"])
    name = row["name"].strip()
    if found is None or not name:
        return None
    return Stock(
        code=found[0],
        name=name,
        market=market,
        previous_close=frames.price(row.get("lastPrice")) or None,
        received_at=received_at,
    )


def watched(row: Any) -> SearchRow | None:
    """One row of ka10095; None if it is no stock. Its prices carry the direction as sign, its rate is plain percent."""
    if not isinstance(row, dict) or not isinstance(row.get("stk_cd"), str):
        return None
    found = frames.stock(row["stk_cd"])
    if found is None:
        return None
    falling = str(row.get("pred_pre_sig", "")).strip() in ("4", "5")
    change, rate = frames.price(row.get("pred_pre")), frames.decimal(row.get("flu_rt"))
    return SearchRow(
        code=found[0],
        exchange=found[1],
        name=str(row.get("stk_nm") or "").strip(),
        price=frames.price(row.get("cur_prc")),
        change=None if change is None else -change if falling else change,
        change_rate=None if rate is None else -abs(rate) if falling else abs(rate),
        open=frames.price(row.get("open_pric")),
        high=frames.price(row.get("high_pric")),
        low=frames.price(row.get("low_pric")),
        volume=frames.price(row.get("trde_qty")),
    )
