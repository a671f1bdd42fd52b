"""Files that installed packages bring: the built Neuroglancer client, Swagger UI and our own style and script."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
from pathlib import Path

from aiohttp import web

from precomputed_server.errors import MissingExtra, NotFound
from precomputed_server.files import Tree
from precomputed_server.readers.stored import find_stored
from precomputed_server.viewer_files import client_directory
from precomputed_server.web.openapi import OPENAPI_FILE, get_description
from precomputed_server.web.pages import api_page
from precomputed_server.web.send import Described, content_type_of, send_bytes, send_stored
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target

_STATIC = Tree(Path(__file__).parent / "static")
_CLIENT_PATH = "v/1"
_OUR_SCRIPT = b'<script src="../../../static/viewer.js"></script>'
_COMMENT_EVERY_SECONDS = 15


def _open_swagger() -> Tree | None:
    """The Swagger UI that the `aiohttp-swagger3` package carries, of which nothing else is used."""
    found = importlib.util.find_spec("aiohttp_swagger3")
    return None if found is None or found.origin is None else Tree(Path(found.origin).parent / "swagger_ui")


_SWAGGER = _open_swagger()


def open_client() -> Tree | None:
    """The built client that the `neuroglancer` package carries; None where it is not installed."""
    directory = client_directory()
    return None if directory is None else Tree(directory)


async def get_static(request: web.Request, target: Target) -> web.StreamResponse:
    """Our own style and script."""
    return await _send_packaged(request, _STATIC, target.path)


async def get_icon(request: web.Request, target: Target) -> web.StreamResponse:
    """The icon that browsers ask for on every page."""
    return await _send_packaged(request, _STATIC, "icon.svg")


async def get_api(request: web.Request, target: Target) -> web.StreamResponse:
    """Swagger UI, its assets and the interface description."""
    if target.path == "":
        if not target.directory:
            return web.Response(status=308, headers={"Location": "api/"})
        return api_page()
    if target.path == OPENAPI_FILE:
        return await get_description(request, target)
    if _SWAGGER is None:
        raise MissingExtra("Swagger UI is not installed here; install it with pip install aiohttp-swagger3.")
    return await _send_packaged(request, _SWAGGER, target.path)


async def get_viewer(request: web.Request, target: Target) -> web.StreamResponse:
    """The Neuroglancer client, and the event stream that it wants to see open."""
    client = request.app[STATE].viewer
    if client is None:
        raise MissingExtra(
            "The viewer is not installed here; install it with pip install 'precomputed-server[viewer]'."
        )
    if target.path == "events/1":
        return await _silent_stream(request)
    if target.path == _CLIENT_PATH and not target.directory:
        return web.Response(status=308, headers={"Location": "1/"})
    if target.path == _CLIENT_PATH:
        body = await request.app[STATE].far(_page_of, client)
        return await send_bytes(request, body, Described(hashlib.sha256(body).hexdigest()[:32], "text/html"))
    return await _send_packaged(request, client, target.path.removeprefix(_CLIENT_PATH + "/"))


def _page_of(client: Tree) -> bytes:
    """The client's page, which loads our script before its own."""
    return client.read("index.html").replace(b"<head>", b"<head>" + _OUR_SCRIPT, 1)


async def _send_packaged(request: web.Request, tree: Tree, path: str) -> web.StreamResponse:
    try:
        stored = await request.app[STATE].near(find_stored, tree, path)
    except IsADirectoryError:
        stored = None
    if stored is None:
        raise NotFound("There is no such file here.")
    with stored:
        return await send_stored(request, stored, Described(str(stored.fingerprint), content_type_of(path)))


async def _silent_stream(request: web.Request) -> web.StreamResponse:
    """An event stream that never says anything: without one the client shows itself as disconnected.

    It ends when the server stops, so that stopping does not wait for it.
    """
    stopping = request.app[STATE].stopping
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    while not stopping.is_set():
        await response.write(b":\n\n")
        try:
            await asyncio.wait_for(stopping.wait(), _COMMENT_EVERY_SECONDS)
        except TimeoutError:
            continue
    return response
