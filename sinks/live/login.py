"""The login page: one form, in Korean or English, without a script.

It and its style sheet are all that a stranger is shown.
"""

from __future__ import annotations

from typing import Final

import msgspec

STYLE_PATH: Final = "/login.css"

STYLE: Final = """:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { display: grid; place-content: center; min-height: 90vh; margin: 0; padding: 1rem; }
form { display: grid; gap: .75rem; width: min(20rem, 88vw); }
label { display: grid; gap: .25rem; }
input, button { font: inherit; padding: .5rem .75rem; }
[role=alert]:empty { display: none; }
"""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the page says in one language. `wrong` and `wait` come after an attempt."""

    field: str
    button: str
    wrong: str
    wait: str
    foreign: str


WORDS: Final = {
    "ko": Words(
        field="접속 토큰",
        button="로그인",
        wrong="토큰이 맞지 않습니다.",
        wait="시도가 너무 많았습니다. {seconds}초 뒤에 다시 해 주십시오.",
        foreign="다른 사이트에서 온 요청입니다. 이 페이지에서 로그인해 주십시오.",
    ),
    "en": Words(
        field="Token",
        button="Log in",
        wrong="That is not the token.",
        wait="Too many attempts: try again in {seconds} s.",
        foreign="This came from another site: log in on this page.",
    ),
}

_PAGE: Final = """<!doctype html>
<html lang="{lang}">
<head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>Hitstream</title>
<link rel="stylesheet" href="{style}"></head>
<body>
<main>
<h1>Hitstream</h1>
<form method="post">
<p role="alert">{said}</p>
<label>{field} <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>{button}</button>
</form>
</main>
</body>
</html>
"""


def language(accepted: str) -> str:
    """`ko` or `en`, by what an Accept-Language header names first; Korean where it names neither."""
    for wanted in accepted.lower().split(","):
        tag = wanted.partition(";")[0].strip().partition("-")[0]
        if tag in WORDS:
            return tag
    return "ko"


def page(lang: str, said: str = "") -> str:
    """The page in one language; `said` is one of its words."""
    words = WORDS[lang]
    return _PAGE.format(lang=lang, style=STYLE_PATH, said=said, field=words.field, button=words.button)
