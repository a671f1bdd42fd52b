"""What all pages are made with, directory listings, and the page around the interface's own description."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2
from aiohttp import web

from precomputed_server.files import Entry
from precomputed_server.format.names import ANNOTATIONS, COLLECTIONS
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target, tree_url

_HTML, _INFO = "text/html", "info"
_POLICY = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'self'"

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    auto_reload=False,
)
# Read once, before a loop runs: a request waits for no template file.
_TEMPLATES = {name: _environment.get_template(name) for name in _environment.list_templates()}


async def listing(request: web.Request, target: Target) -> web.StreamResponse:
    """The listing of a directory: plain relative links, directories with a trailing slash."""
    state = request.app[STATE]
    entries = await state.page(state.tree.listing, target.path)
    return await listing_of(request, target, _with_collections(entries))


def _with_collections(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries of a directory, and where it is an annotated dataset the collections, which lie on no disk."""
    names = {entry.name for entry in entries}
    if not names >= {_INFO, ANNOTATIONS} or COLLECTIONS in names:
        return entries
    at = next(number for number, entry in enumerate(entries, 1) if entry.name == ANNOTATIONS)
    return [*entries[:at], Entry(COLLECTIONS, True, 0), *entries[at:]]


async def listing_of(request: web.Request, target: Target, entries: Sequence[Entry]) -> web.StreamResponse:
    """The listing of a directory that has these entries, whether or not they lie on disk."""
    return _page(await request.app[STATE].page(_listing, target.path, way_home(request), entries))


def way_home(request: web.Request) -> str:
    """The relative link to the server's first page, which a proxy may have under a prefix."""
    depth = request.raw_path.partition("?")[0].count("/") - 1  # with prefixes and repeated slashes, as a browser counts
    return "../" * depth or "./"


async def page_of(request: web.Request, template: str, **values: object) -> web.StreamResponse:
    """The page that a template makes of values."""
    return _page(await request.app[STATE].page(functools.partial(_rendered, template, **values)))


def _listing(path: str, home: str, entries: Sequence[Entry]) -> str:
    return _rendered(
        "listing.html",
        path=f"/{path}/" if path else "/",
        entries=[(entry, _link(entry)) for entry in entries],
        up=bool(path),
        home=home,
    )


def source_of(path: str, origin: str) -> str:
    """The URL of what lies at `path` beneath the root."""
    return f"{origin}/{tree_url(path)}".rstrip("/")


def _link(entry: Entry) -> str:
    return "./" + quote(entry.name) + ("/" if entry.is_directory else "")


def _rendered(template: str, **values: object) -> str:
    return _TEMPLATES[template].render(**values)


def _page(text: str) -> web.Response:
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    return web.Response(text=text, content_type=_HTML, headers=headers)


def api_page() -> web.Response:
    """The page around Swagger UI."""
    return _page(_rendered("api.html"))
