"""Parameters that an address has and the function behind it does not take: refused, not passed over.

`?sttae=open` would otherwise be answered with everything, and look like an answer.
"""

from __future__ import annotations

import difflib
from typing import Any

from litestar import Request
from litestar.exceptions import ValidationException


async def refuse_unknown(request: Request[Any, Any, Any]) -> None:
    """Refuse a question to the API with a parameter that it does not take.

    Raises:
        ValidationException: which, and which was probably meant.
    """
    if not request.scope["path"].startswith("/api/"):
        return
    known = sorted({*called(request).values()} - {*request.path_params, "body", "request"})
    for name in request.query_params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}."
            raise ValidationException(f"There is no parameter {name[:40]!r} here; {hint}")


def called(request: Request[Any, Any, Any]) -> dict[str, str]:
    """What the asker calls the parameters of the function that is to answer, by what it calls them itself."""
    parameters = request.route_handler.parsed_fn_signature.parameters
    names = {name: getattr(field.kwarg_definition, "name", None) or name for name, field in parameters.items()}
    return names | {"data": "body"}
