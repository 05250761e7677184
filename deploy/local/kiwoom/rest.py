"""Tokens and TR calls: the REST half of the local Kiwoom, as a function from request to reply.

Pure: the shell hands in method, path, headers, body and the time. As with the real server, nearly every refusal is an
HTTP 200 whose `return_code` and the code inside `return_msg` say what is wrong.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from streams.events import KST

from .catalog import Listing, by_code, listings, tick_size
from .exchange import Exchange, moment
from .faults import NONE, REFUSALS, TOKEN_REFUSALS, Faults
from .market import MinuteBar
from .protocol import sign_of, signed

DONE: Final = "정상적으로 처리되었습니다"
TOKEN_LIFE: Final = timedelta(hours=24)
SHORT_LIFE: Final = timedelta(seconds=60)
MARKETS: Final = {"0": ("KOSPI", "거래소"), "10": ("KOSDAQ", "코스닥")}
WATCHED: Final = 100
"""Stocks that one ka10095 may ask for."""


_Row = TypeVar("_Row")


class Limits(NamedTuple):
    """Calls of one TR per app key: `per_second` in the long run (Kiwoom's policy), `burst` at once; rows per page."""

    per_second: float = 5.0
    burst: int = 20
    page: int = 100


class Reply(NamedTuple):
    """An HTTP reply: a JSON object, or a page of text."""

    body: dict[str, Any] | str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Tokens:
    """Access tokens that prove themselves, so that a restart of the server leaves them valid.

    A token is the app key and its end, signed with the secret key. Keys that begin with the app key and a hyphen
    (`local-app-key-2`) are further keys of the same account, with the same secret.
    """

    def __init__(self, app_key: str, secret_key: str) -> None:
        self._app_key = app_key
        self._secret_key = secret_key
        self._revoked: set[str] = set()
        self._issued: set[str] = set()

    def refusal(self, app_key: object, secret_key: object) -> tuple[int, str] | None:
        """Why a pair of keys is not accepted: `return_code` and text; None if it is."""
        if not app_key or not secret_key:
            return 2, "입력 값 오류입니다[8020:입력파라미터로 appkey 또는 secretkey가 전달되지 않았습니다.]"
        if app_key != self._app_key and not str(app_key).startswith(self._app_key + "-"):
            return 3, "인증에 실패했습니다[8001:App Key와 Secret Key 검증에 실패했습니다]"
        if secret_key != self._secret_key:
            return 3, "인증에 실패했습니다[8002:App Key와 Secret Key 검증에 실패했습니다]"
        return None

    def issue(self, app_key: str, until: datetime, nonce: int) -> str:
        """A new token; `nonce` makes it differ from others with the same end."""
        content = f"{app_key}.{until.astimezone(KST):%Y%m%d%H%M%S}.{nonce}"
        token = f"{content.encode().hex()}.{self._signature(content)}"
        self._issued.add(token)
        return token

    def revoke(self, token: str) -> None:
        """Let a token be valid no longer."""
        self._revoked.add(token)

    def expire(self, app_key: str = "") -> None:
        """Let no token be valid that was issued so far (by this process), to one app key or to all."""
        ended = {token for token in self._issued if token.startswith(f"{app_key}.".encode().hex() if app_key else "")}
        self._revoked |= ended
        self._issued -= ended

    def app_key_of(self, token: str, now: datetime) -> str | None:
        """The app key of a valid token, None for any other."""
        encoded, _, signature = token.partition(".")
        try:
            content = bytes.fromhex(encoded).decode()
        except ValueError:
            return None
        if token in self._revoked or not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            return None
        app_key, until, _ = content.rsplit(".", 2)
        return app_key if f"{now.astimezone(KST):%Y%m%d%H%M%S}" < until else None

    def _signature(self, content: str) -> str:
        return hmac.new(self._secret_key.encode(), content.encode(), sha256).hexdigest()


class Rest:
    """The endpoints.

    Args:
        exchange: the market; read, never advanced.
        tokens: who may call.
        limits: how often, and how many rows a page has.
    """

    def __init__(self, exchange: Exchange, tokens: Tokens, limits: Limits) -> None:
        self.faults: Faults = NONE
        self._exchange = exchange
        self._tokens = tokens
        self._limits = limits
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._issued = 0

    def answer(self, path: str, headers: Mapping[str, str], body: bytes, *, real: float, latest: datetime) -> Reply:
        """Answer one POST.

        Args:
            path: of the URL.
            headers: with lower-case names.
            body: the JSON object asked with.
            real: seconds of a monotonic clock, for the rate.
            latest: the later of market and real time, for tokens (see `_issue`).
        """
        if self.faults.on("maintenance"):
            return Reply("<!DOCTYPE html><html><body><h1>시스템 점검 중입니다</h1></body></html>")
        if self.faults.on("server-error"):
            return Reply("", 500)
        try:
            asked = msgspec.json.decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeError):
            asked = None
        if not isinstance(asked, dict):
            return _refusal(2, "입력 값 오류입니다[1517:입력 값 형식이 올바르지 않습니다]")
        if path == "/oauth2/token":
            return self._issue(asked, latest)
        if path == "/oauth2/revoke":
            return self._revoke(asked)
        return self._call(path, headers, asked, real, latest)

    def _issue(self, asked: dict[str, Any], latest: datetime) -> Reply:
        if self.faults.on("too-many-tokens"):
            text = "허용된 요청 개수를 초과하였습니다"
            return _refusal(5, f"{text}[1700:{text}. API ID=au10001]", status=429)
        if refused := self.faults.refusal(REFUSALS):
            return _refusal(3, f"인증에 실패했습니다[{refused[0]}:{refused[1]}]")
        if self.faults.on("quoting-refusals"):
            quoted = f"appkey={asked.get('appkey')}, secretkey={asked.get('secretkey')}"
            return _refusal(3, f"인증에 실패했습니다[8001:App Key와 Secret Key 검증에 실패했습니다({quoted})]")
        refusal = self._tokens.refusal(asked.get("appkey"), asked.get("secretkey"))
        if refusal is not None:
            return _refusal(*refusal)
        if asked.get("grant_type") != "client_credentials":
            return _refusal(2, "입력 값 오류입니다[1516:grant_type이 올바르지 않습니다]")
        # Some clients compare the end with market time, some with the machine's: the later of the two suits both.
        if self.faults.on("one-token"):
            self._tokens.expire(str(asked["appkey"]))
        until = latest + (SHORT_LIFE if self.faults.on("short-tokens") else TOKEN_LIFE)
        self._issued += 1
        return Reply(
            {
                "expires_dt": f"{until.astimezone(KST):%Y%m%d%H%M%S}",
                "token_type": "bearer",
                "token": self._tokens.issue(asked["appkey"], until, self._issued),
                "return_code": 0,
                "return_msg": DONE,
            }
        )

    def _revoke(self, asked: dict[str, Any]) -> Reply:
        refusal = self._tokens.refusal(asked.get("appkey"), asked.get("secretkey"))
        if refusal is not None:
            return _refusal(*refusal)
        self._tokens.revoke(str(asked.get("token", "")))
        return Reply({"return_code": 0, "return_msg": DONE})

    def _call(
        self,
        path: str,
        headers: Mapping[str, str],
        asked: dict[str, Any],
        real: float,
        latest: datetime,
    ) -> Reply:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        app_key = self._tokens.app_key_of(token.strip(), latest) if scheme.lower() == "bearer" else None
        refused = self.faults.refusal(TOKEN_REFUSALS)
        if app_key is None or refused:
            code, text = refused or TOKEN_REFUSALS["bad-token"]
            return _refusal(3, f"인증에 실패했습니다[{code}:{text}]")
        if self.faults.on("quoting-refusals"):
            return _refusal(3, f"인증에 실패했습니다[8005:Token이 유효하지 않습니다(token={token.strip()})]")
        api_id = headers.get("api-id", "")
        if not api_id:
            return _refusal(2, "입력 값 오류입니다[1501:API ID가 Null이거나 값이 없습니다]")
        found = self._CALLS.get(api_id)
        if found is None or found[0] != path:
            text = f"해당 URI에서는 지원하는 API ID가 아닙니다. 요청하신 URI={path}, API ID={api_id}"
            return _refusal(2, f"입력 값 오류입니다[1504:{text}]")
        if self.faults.on("too-many") or not self._within_rate(app_key, api_id, real):
            text = f"허용된 요청 개수를 초과하였습니다. API ID={api_id}"
            return _refusal(5, f"허용된 요청 개수를 초과하였습니다[1700:{text}]", status=429)
        _, required, call = found
        missing = next((name for name in required if not isinstance(asked.get(name), str) or not asked[name]), None)
        if missing is not None:
            text = f"필수 입력 값에 값이 존재하지 않습니다. 필수입력 파라미터={missing}"
            return _refusal(2, f"입력 값 오류입니다[1511:{text}]")
        if path == "/api/dostk/chart" and self.faults.on("refuse-charts") and _bare(asked["stk_cd"]).endswith("50"):
            return _refusal(2, "입력 값 오류입니다[1902:종목 정보가 없습니다. 입력한 종목코드 값을 확인바랍니다]")
        start = headers.get("next-key", "") if headers.get("cont-yn") == "Y" else ""
        content, following = call(self, asked, int(start) if start.isdigit() else 0)
        return Reply(
            {**content, "return_code": 0, "return_msg": DONE},
            headers=(
                ("api-id", api_id),
                ("cont-yn", "Y" if following else "N"),
                ("next-key", f"{following:010d}" if following else ""),
            ),
        )

    def _within_rate(self, app_key: str, api_id: str, real: float) -> bool:
        burst = float(self._limits.burst)
        tokens, at = self._buckets.get((app_key, api_id), (burst, real))
        tokens = min(burst, tokens + (real - at) * self._limits.per_second)
        allowed = tokens >= 1
        self._buckets[app_key, api_id] = (tokens - allowed, real)
        return allowed

    # --- the TRs: content without return_code, and where the next page starts (0: nowhere)

    def _stocks(self, asked: dict[str, Any], start: int) -> tuple[dict[str, Any], int]:
        """ka10099: the listed stocks of a market."""
        number = asked["mrkt_tp"]
        market, label = MARKETS.get(number, ("", ""))
        stocks = [stock for stock in listings() if stock.market == market]
        shown, following = self._page(stocks, start)
        return {"list": [self._stock_row(stock, number, label) for stock in shown]}, following

    def _stock_row(self, stock: Listing, number: str, label: str) -> dict[str, str]:
        standing = self._exchange.day.standing(stock.code)
        assert standing is not None
        return {
            "code": stock.code,
            "name": stock.name,
            "listCount": f"{stock.shares:016d}",
            "auditInfo": "정상",
            "regDay": "20100104",
            "lastPrice": f"{standing.previous_close:08d}",
            "state": "증거금40%|담보대출|신용가능",
            "marketCode": number,
            "marketName": label,
            "upName": "",
            "upSizeName": "",
            "companyClassName": "",
            "orderWarning": "0",
            "nxtEnable": "N",
        }

    def _stock(self, asked: dict[str, Any], _start: int) -> tuple[dict[str, Any], int]:
        """ka10001: one stock."""
        row = self._watch_row(asked["stk_cd"])
        stock = by_code().get(_bare(asked["stk_cd"]))
        if row is None or stock is None:
            return {"stk_cd": asked["stk_cd"], "stk_nm": ""}, 0
        bars = self._exchange.daily(stock.code)[-250:]
        close = int(row["base_pric"])
        return {
            **{name: row[name] for name in ("stk_cd", "stk_nm", "cur_prc", "pred_pre", "flu_rt", "trde_qty")},
            **{name: row[name] for name in ("open_pric", "high_pric", "low_pric", "upl_pric", "lst_pric", "base_pric")},
            "pre_sig": row["pred_pre_sig"],
            "mac": row["mac"],
            "flo_stk": str(stock.shares // 1_000),
            "250hgst": signed(max((bar.high for bar in bars), default=close), close),
            "250lwst": signed(min((bar.low for bar in bars), default=close), close),
        }, 0

    def _watched(self, asked: dict[str, Any], _start: int) -> tuple[dict[str, Any], int]:
        """ka10095: up to `WATCHED` stocks, their codes joined by `|`."""
        rows = (self._watch_row(code) for code in asked["stk_cd"].split("|")[:WATCHED])
        return {"atn_stk_infr": [row for row in rows if row is not None]}, 0

    def _watch_row(self, asked: str) -> dict[str, str] | None:
        stock = by_code().get(_bare(asked))
        s = self._exchange.day.standing(stock.code) if stock else None
        if stock is None or s is None:
            return None
        before = s.previous_close
        change = s.price - before
        tick = tick_size(s.price, etn=stock.etn)
        ask, bid = (s.price, s.price - tick) if s.size > 0 else (s.price + tick, s.price)
        sold = s.volume - s.bought
        at = moment(self._exchange.day.date, s.at + self._exchange.day.offset if s.volume else 0)
        return {
            "stk_cd": asked,
            "stk_nm": stock.name,
            "cur_prc": signed(s.price, before),
            "base_pric": str(before),
            "pred_pre": f"{change:+d}" if change else "0",
            "pred_pre_sig": sign_of(s.price, s),
            "flu_rt": f"{change / before * 100:+.2f}" if change else "0.00",
            "trde_qty": str(s.volume),
            "trde_prica": str(s.value // 1_000_000),
            "cntr_qty": f"{s.size:+d}" if s.size else "0",
            "cntr_str": f"{s.bought / sold * 100 if sold else 0.0:.2f}",
            "sel_bid": signed(ask, before),
            "buy_bid": signed(bid, before),
            "upl_pric": signed(s.upper_limit, before),
            "lst_pric": signed(s.lower_limit, before),
            "open_pric": signed(s.open, before),
            "high_pric": signed(s.high, before),
            "low_pric": signed(s.low, before),
            "mac": str(s.price * stock.shares // 100_000_000),
            "dt": f"{self._exchange.day.date:%Y%m%d}",
            "cntr_tm": f"{at:%H%M%S}",
        }

    def _minutes(self, asked: dict[str, Any], start: int) -> tuple[dict[str, Any], int]:
        """ka10080: minute bars, newest first, gathered to `tic_scope` minutes."""
        code = _bare(asked["stk_cd"])
        scope = asked["tic_scope"]
        width = int(scope) if scope in ("1", "3", "5", "10", "15", "30", "45", "60") else 1
        rows = []
        for date, bar in _gathered(self._exchange.minutes(code), width):
            if str(asked.get("base_dt") or "99991231") >= f"{date:%Y%m%d}":
                rows.append(
                    {
                        "cur_prc": str(bar.close),
                        "trde_qty": str(bar.volume),
                        "cntr_tm": f"{moment(date, bar.minute * 60):%Y%m%d%H%M%S}",
                        "open_pric": str(bar.open),
                        "high_pric": str(bar.high),
                        "low_pric": str(bar.low),
                    }
                )
        standing = self._exchange.day.standing(code)
        if standing is not None:
            for row in rows:
                for name in ("cur_prc", "open_pric", "high_pric", "low_pric"):
                    row[name] = signed(int(row[name]), standing.previous_close)
        return self._chart(asked, "stk_min_pole_chart_qry", rows, start)

    def _days(self, asked: dict[str, Any], start: int) -> tuple[dict[str, Any], int]:
        """ka10081: daily bars up to `base_dt`, newest first; value in million won."""
        code = _bare(asked["stk_cd"])
        bars = self._exchange.daily(code)
        rows = []
        for number, bar in enumerate(bars):
            before = bars[number - 1].close if number else bar.open
            change = bar.close - before
            if str(asked.get("base_dt") or "99991231") >= f"{bar.date:%Y%m%d}":
                rows.append(
                    {
                        "cur_prc": str(bar.close),
                        "trde_qty": str(bar.volume),
                        "trde_prica": str(bar.value // 1_000_000),
                        "dt": f"{bar.date:%Y%m%d}",
                        "open_pric": str(bar.open),
                        "high_pric": str(bar.high),
                        "low_pric": str(bar.low),
                        "pred_pre": f"{change:+d}" if change else "0",
                        "pred_pre_sig": "2" if change > 0 else "5" if change < 0 else "3",
                        "trde_tern_rt": f"{bar.volume / by_code()[code].shares * 100:+.2f}",
                    }
                )
        return self._chart(asked, "stk_dt_pole_chart_qry", rows, start)

    def _chart(
        self, asked: dict[str, Any], name: str, rows: list[dict[str, str]], start: int
    ) -> tuple[dict[str, Any], int]:
        """A page of a chart, newest first."""
        newest_first = rows[::-1]
        shown, following = self._page(newest_first, start)
        if self.faults.on("padded-charts"):
            prices = ("cur_prc", "open_pric", "high_pric", "low_pric")
            shown = [row | {price: _padded(row[price]) for price in prices} for row in shown]
        if self.faults.on("broken-charts") and shown:
            priceless, timeless = (
                shown[0] | {"cur_prc": ""},
                {k: v for k, v in shown[0].items() if k[-2:] not in _TIMES},
            )
            untraded = shown[-1] | {"trde_qty": "0"}
            shown = [*newest_first[start - 1 : start], timeless, *shown, priceless, untraded]
        return {"stk_cd": asked["stk_cd"], name: shown}, following

    def _page(self, rows: list[_Row], start: int) -> tuple[list[_Row], int]:
        end = start + self._limits.page
        return rows[start:end], end if end < len(rows) else 0

    _CALLS: Final[
        dict[
            str,
            tuple[str, tuple[str, ...], Callable[[Rest, dict[str, Any], int], tuple[dict[str, Any], int]]],
        ]
    ] = {
        "ka10001": ("/api/dostk/stkinfo", ("stk_cd",), _stock),
        "ka10095": ("/api/dostk/stkinfo", ("stk_cd",), _watched),
        "ka10099": ("/api/dostk/stkinfo", ("mrkt_tp",), _stocks),
        "ka10080": ("/api/dostk/chart", ("stk_cd", "tic_scope"), _minutes),
        "ka10081": ("/api/dostk/chart", ("stk_cd", "base_dt"), _days),
    }


def _refusal(code: int, text: str, *, status: int = 200) -> Reply:
    return Reply({"return_code": code, "return_msg": text}, status)


_TIMES: Final = ("tm", "dt")


def _padded(price: str) -> str:
    return f"{int(price):+011d}" if price[:1] in "+-" else f"{int(price):011d}"


def _bare(code: str) -> str:
    """A stock's code without the market's suffix (`005930_AL`)."""
    return code.partition("_")[0]


def _gathered(bars: Iterable[tuple[Any, MinuteBar]], width: int) -> list[tuple[Any, MinuteBar]]:
    gathered: list[tuple[Any, MinuteBar]] = []
    for date, bar in bars:
        minute = bar.minute // width * width
        if gathered and gathered[-1][0] == date and gathered[-1][1].minute == minute:
            last = gathered[-1][1]
            joined = MinuteBar(
                minute,
                last.open,
                max(last.high, bar.high),
                min(last.low, bar.low),
                bar.close,
                last.volume + bar.volume,
                last.value + bar.value,
            )
            gathered[-1] = (date, joined)
        else:
            gathered.append((date, bar._replace(minute=minute)))
    return gathered
