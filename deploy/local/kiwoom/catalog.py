"""The listed stocks of the simulated market, and KRX's rules about their prices.

The list never depends on the market's seed: a code is the same company in every simulated world. Well-known large
caps stand among invented companies; all prices are invented. What happens to prices is `market`'s business.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from functools import cache
from typing import Final, Literal, NamedTuple

Market = Literal["KOSPI", "KOSDAQ"]


class Listing(NamedTuple):
    """One stock: `close` is the won price before the first simulated day, `shares` the number of listed shares.

    `liquidity` is the stock's share of the market's trades before normalisation. `etn` marks an exchange-traded
    note: Kiwoom prefixes its code with Q, and its tick is finer.
    """

    code: str
    name: str
    market: Market
    close: int
    shares: int
    liquidity: float
    etn: bool = False

    @property
    def prefixed(self) -> str:
        """The seven-character code of condition replies (`A005930`, `Q760020`)."""
        return ("Q" if self.etn else "A") + self.code


# KRX tick sizes since 2023-01-25, the same for KOSPI and KOSDAQ.
_BANDS: Final = (2_000, 5_000, 20_000, 50_000, 200_000, 500_000)
_TICKS: Final = (1, 5, 10, 50, 100, 500, 1_000)
_NOTE_TICKS: Final = (1, 5)


def tick_size(price: float, *, etn: bool = False) -> int:
    """The smallest step of a quote at `price`, in won: KRX's table; for exchange-traded notes 1 below 2,000, else 5."""
    if etn:
        return _NOTE_TICKS[price >= _BANDS[0]]
    return _TICKS[bisect_right(_BANDS, price)]


def price_limits(previous_close: int, *, etn: bool = False) -> tuple[int, int]:
    """Lowest and highest permitted price of a day: 30 % of the previous close, cut to whole ticks inwards."""
    tick = tick_size(previous_close, etn=etn)
    width = previous_close * 3 // 10 // tick * tick
    upper = previous_close + width
    upper -= upper % tick_size(upper, etn=etn)
    lower = previous_close - width
    lower += -lower % tick_size(lower, etn=etn)
    return lower, upper


_LARGE: Final[tuple[tuple[str, str, Market, int, int], ...]] = (
    ("005930", "삼성전자", "KOSPI", 71_300, 5_969_782_550),
    ("000660", "SK하이닉스", "KOSPI", 187_500, 728_002_365),
    ("373220", "LG에너지솔루션", "KOSPI", 341_500, 234_000_000),
    ("207940", "삼성바이오로직스", "KOSPI", 987_000, 71_174_000),
    ("005380", "현대차", "KOSPI", 214_500, 209_416_191),
    ("000270", "기아", "KOSPI", 98_700, 397_672_632),
    ("068270", "셀트리온", "KOSPI", 178_200, 217_011_500),
    ("035420", "NAVER", "KOSPI", 192_800, 158_437_008),
    ("035720", "카카오", "KOSPI", 41_950, 443_500_000),
    ("105560", "KB금융", "KOSPI", 84_600, 393_528_423),
    ("055550", "신한지주", "KOSPI", 52_400, 509_000_000),
    ("005490", "POSCO홀딩스", "KOSPI", 312_500, 82_624_377),
    ("006400", "삼성SDI", "KOSPI", 268_000, 68_764_530),
    ("051910", "LG화학", "KOSPI", 287_500, 70_592_343),
    ("012450", "한화에어로스페이스", "KOSPI", 356_000, 45_581_161),
    ("042700", "한미반도체", "KOSPI", 96_300, 96_742_840),
    ("247540", "에코프로비엠", "KOSDAQ", 148_900, 97_801_344),
    ("086520", "에코프로", "KOSDAQ", 81_700, 133_138_340),
    ("196170", "알테오젠", "KOSDAQ", 326_500, 53_316_849),
    ("028300", "HLB", "KOSDAQ", 68_400, 131_400_000),
    ("041510", "에스엠", "KOSDAQ", 78_900, 23_800_000),
    ("293490", "카카오게임즈", "KOSDAQ", 17_430, 82_400_000),
)

_FIRST: Final = (
    "가람 한빛 대명 세진 동아름 미르 누리 새봄 청운 태강 신우 백두 한결 다온 라온 은성 금오 해든 늘찬 보람 "
    "하늘 도담 우진 성원 정림 유성 현암 남해 동림 서경 북성 광명 인화 덕진 진우 상록 문성 수림 아람 예림"
)
_LAST: Final = (
    "전자 바이오 테크 화학 제약 물산 건설 소프트 반도체 로보틱스 에너지 엔터 머티리얼즈 시스템 정밀 식품 "
    "홀딩스 산업 메디칼 네트웍스 모빌리티 솔루션 케미칼 이노베이션 게임즈 디스플레이 항공 해운 철강 제지"
)
_NOTES: Final = (
    ("760020", "한빛 인버스 2X 코스닥150 선물 ETN"),
    ("760031", "한빛 레버리지 천연가스 선물 ETN(H)"),
    ("580054", "가람 레버리지 WTI원유 선물 ETN"),
    ("530107", "미르 인버스 구리 선물 ETN(H)"),
    ("610088", "누리 K방산 TOP5 ETN"),
)
_LETTERS: Final = "CDGHJKLMNPRSTVWX"


@cache
def listings() -> tuple[Listing, ...]:
    """All listed stocks, in code order: 340 of them, some with alphanumeric codes, five exchange-traded notes."""
    rng = random.Random("hitstream catalogue")
    taken: set[str] = {code for code, *_ in _LARGE}
    stocks = [
        Listing(code, name, market, close, shares, rng.uniform(2.0, 5.0))
        for code, name, market, close, shares in _LARGE
    ]
    stocks += [
        Listing(
            code, name, "KOSPI", _aligned(rng.uniform(3_000, 18_000), etn=True), 5_000_000, rng.uniform(0.5, 2.0), True
        )
        for code, name in _NOTES
    ]
    taken.update(code for code, _ in _NOTES)
    names = [first + last for first in _FIRST.split() for last in _LAST.split()]
    rng.shuffle(names)
    alphanumeric = {"0004V0", "0007C0", "0011M0", "0015P0", "0023X0", "0037T0", "0041K0", "0056G0", "0062S0", "0091L0"}
    codes = sorted(alphanumeric)
    taken.update(codes)
    while len(stocks) + len(codes) < 332:
        code = f"{rng.randrange(200, 39_000):05d}0" if rng.random() < 0.9 else _mixed(rng)
        if code not in taken:
            taken.add(code)
            codes.append(code)
    for code in codes:
        market: Market = "KOSPI" if rng.random() < 0.4 else "KOSDAQ"
        close = _aligned(min(640_000.0, max(900.0, rng.lognormvariate(9.4, 1.0))))
        shares = max(1_000, int(rng.lognormvariate(17.0, 0.7)) // 1_000 * 1_000)
        stocks.append(Listing(code, names.pop(), market, close, shares, rng.lognormvariate(0.0, 1.1)))
    common = [stock for stock in stocks if stock.market == "KOSPI" and not stock.etn and stock.code.endswith("0")]
    for stock in rng.sample(common, 8):  # preference shares: the same code with a 5
        code = stock.code[:5] + "5"
        if code not in taken:
            taken.add(code)
            close = _aligned(stock.close * rng.uniform(0.55, 0.85))
            stocks.append(Listing(code, stock.name + "우", "KOSPI", close, stock.shares // 8, stock.liquidity * 0.3))
    return tuple(sorted(stocks))


@cache
def by_code() -> dict[str, Listing]:
    """The same stocks by code."""
    return {stock.code: stock for stock in listings()}


def _mixed(rng: random.Random) -> str:
    return f"{rng.randrange(1, 130):04d}{rng.choice(_LETTERS)}0"


def _aligned(price: float, *, etn: bool = False) -> int:
    tick = tick_size(price, etn=etn)
    return int(price // tick * tick)
