"""The page at `/`: a few files by a table of names, so that nothing in a request is looked up on the disk."""

from __future__ import annotations

from functools import partial
from importlib import resources
from types import ModuleType
from typing import NamedTuple

from fastapi import APIRouter, Response

from emb.search import server, web

# The header says what the page's own tag cannot: that no other page may show it in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    package: ModuleType
    name: str
    type: str


_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_FILES = {
    "/": _File(server, "index.html", "text/html; charset=utf-8"),
    **{
        f"/page/{name}": _File(server, name, _SCRIPT)
        for name in ("app.js", "column.js", "lines.js", "ranks.js", "server.js", "switch.js")
    },
    "/page/compare.css": _File(server, "compare.css", _STYLE),
    # Shared with the page that needs no server.
    "/page/results.js": _File(web, "results.js", _SCRIPT),
    "/page/style.css": _File(web, "style.css", _STYLE),
    "/page/icon.svg": _File(web, "icon.svg", "image/svg+xml"),
}
PAGE = tuple(_FILES)  # paths; they hold nothing of the index, and a browser has no key when it asks for them


def page_routes() -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False)
    for path, file in _FILES.items():
        content = resources.files(file.package).joinpath("page", file.name).read_bytes()
        router.add_api_route(path, partial(_answer, content, file.type), methods=["GET"], response_class=Response)
    return router


async def _answer(content: bytes, kind: str) -> Response:
    return Response(content, headers={**_HEADERS, "Content-Type": kind})
