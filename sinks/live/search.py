"""Finding a stock by what is typed: part of its name, its initial consonants (ㅅㅅㅈㅈ → 삼성전자), or code.

The page finds among the rows that it shows by the same rules (`web/src/lib/hangul.ts`); this finds among all listed
stocks. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from .answers import StockView

LONGEST: Final = 40  # characters that are looked at

_INITIALS: Final = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_CLUSTERS: Final = str.maketrans(
    {"ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ", "ㄽ": "ㄹㅅ", "ㄾ": "ㄹㅌ",
     "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ", "ㅄ": "ㅂㅅ"}
)  # fmt: skip
_FIRST: Final = 0xAC00  # 가
_LAST: Final = 0xD7A3  # 힣
_FINALS: Final = 28
_PER_INITIAL: Final = 21 * _FINALS


def find(typed: str, stocks: Iterable[StockView], limit: int) -> tuple[StockView, ...]:
    """The stocks that were meant: codes and names that begin so first, then the shorter name, then by code."""
    wanted = _plain(typed[:LONGEST]).translate(_CLUSTERS)
    if not wanted:
        return ()
    pattern = re.compile("".join(_pattern(char, n == len(wanted) - 1) for n, char in enumerate(wanted)))
    found: list[tuple[bool, int, str, StockView]] = []
    for stock in stocks:
        name = _plain(stock.name)
        match = pattern.search(name)
        begins = stock.code.lower().startswith(wanted)
        if match or begins:
            found.append((not (begins or (match is not None and match.start() == 0)), len(name), stock.code, stock))
    found.sort(key=lambda one: one[:3])
    return tuple(stock for *_, stock in found[:limit])


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).lower().split())


def _pattern(char: str, is_last: bool) -> str:
    if char in _INITIALS:
        first = _FIRST + _INITIALS.index(char) * _PER_INITIAL
        return f"[{char}{chr(first)}-{chr(first + _PER_INITIAL - 1)}]"
    syllable = ord(char)
    if is_last and _FIRST <= syllable <= _LAST and (syllable - _FIRST) % _FINALS == 0:
        # 서 → 성: still being typed, its final consonant may follow.
        return f"[{char}-{chr(syllable + _FINALS - 1)}]"
    return re.escape(char)
