"""The dashboard's files: what `make setup` built into `web/dist`, with the right type and caching for each.

Files under `assets/` have a hash of their content in their name and may be kept for ever; anything else is asked for
again. There is no listing and nothing outside the folder can be named.
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Final

import msgspec

DIST: Final = Path(__file__).parent / "web" / "dist"

_TEXT: Final = frozenset({".css", ".html", ".js", ".json", ".map", ".svg", ".txt", ".webmanifest"})
_WORTH: Final = 1_000  # bytes

_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}

NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Hitstream</title></head>
<body>
<h1>Hitstream</h1>
<p>The live hub is running, but the dashboard has not been built yet.</p>
<p>Build it with <code>make setup</code> and reload this page. Until then:
<a href="/api/recommendations">recommendations</a>, <a href="/api/conditions">conditions</a>,
<a href="/api/transitions">transitions</a>, <a href="/api/status">status</a>,
<a href="/openapi.json">OpenAPI</a>.</p>
</body>
</html>
"""


class File(msgspec.Struct, frozen=True):
    """A file to answer with: its bytes, also compressed, content type and Cache-Control."""

    content: bytes
    media_type: str
    cache: str
    gzipped: bytes | None = None  # where that is worth it


def find(dist: Path, path: str) -> File | None:
    """The file of a request path; the start page for `/`. None if there is none.

    Blocks on the disk, and the first time to compress.
    """
    name = path.lstrip("/") or "index.html"
    root = dist.resolve()
    try:
        target = (root / name).resolve()
        content = target.read_bytes() if target.is_relative_to(root) else None
    except (OSError, ValueError):
        content = None
    if content is None:
        return File(NOT_BUILT.encode(), _TYPES[".html"], "no-store") if name == "index.html" else None
    hashed = target.relative_to(root).parts[0] == "assets"
    return File(
        content,
        _TYPES.get(target.suffix.lower(), "application/octet-stream"),
        "public, max-age=31536000, immutable" if hashed else "no-cache",
        _gzipped(content) if target.suffix.lower() in _TEXT and len(content) > _WORTH else None,
    )


@functools.lru_cache(maxsize=64)
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
