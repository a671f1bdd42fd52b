"""Where links lead: our own Neuroglancer, or another one that may read from this server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from precomputed_server.format.names import VIEWER_PATH
from precomputed_server.web.respond import origin_of
from precomputed_server.web.state import STATE

_INSTALL = "install the viewer with pip install 'precomputed-server[viewer]'"


@dataclass(frozen=True)
class ViewerPlace:
    """Where the viewer lies; without an address, `reason` is a sentence that says why there is none."""

    url: str | None
    reason: str | None = None


def viewer_place(request: web.Request) -> ViewerPlace:
    """Our own viewer, else the one of the setting where a browser would let it read from here."""
    if request.app[STATE].viewer is not None:
        return ViewerPlace(f"{origin_of(request)}/{VIEWER_PATH}")
    other = request.app[STATE].settings.viewer_url
    scheme = urlsplit(other).scheme
    if scheme not in ("http", "https"):
        return ViewerPlace(None, f"--viewer-url is {other!r}, which is no address of a viewer; {_INSTALL}.")
    if scheme == "https" and request.scheme == "http":
        return ViewerPlace(
            None,
            f"{other} is an https page, and browsers do not let it read from a server that is reached by http; "
            f"{_INSTALL}, serve by https, or name a viewer by --viewer-url that is reached by http.",
        )
    return ViewerPlace(other)
