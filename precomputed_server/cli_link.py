"""`precomputed link`: the link that shows datasets in Neuroglancer, as a running server makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import click

from precomputed_server import listening, settings
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError, Unreadable
from precomputed_server.setting_options import setting_options

_EXAMPLE = "http://127.0.0.1:9000"
_TIMEOUT_S = 60.0


@click.command("link", short_help="Print the link that shows datasets in Neuroglancer.")
@click.argument("paths", metavar="DATASET...", nargs=-1, required=True)
@click.option("--server", metavar="URL", help="The server, as browsers reach it  [default: as the settings say]")
@setting_options("host", "port", "bind")
def link(paths: tuple[str, ...], server: str | None, config: Path | None, **given: Any) -> None:
    """Print the link that shows each DATASET, one over another, in Neuroglancer.

    A DATASET is named by its path beneath the root of the server, which has to run; `.` is the root itself.
    """
    server = server or listening.own_url(settings.load(None, given, config=config)).rstrip("/")
    found = _asked(server, paths)
    if not isinstance(found, dict) or not (isinstance(found.get("url"), str) or isinstance(found.get("reason"), str)):
        raise Unreadable(f"{server} does not answer as a precomputed server does; name the server by --server URL.")
    if found["url"] is None:
        raise NotFound(f"There is no link: {found['reason']}")
    click.echo(found["url"])


def _asked(server: str, paths: tuple[str, ...]) -> Any:  # noqa: ANN401
    """What the server answers; raises what it refuses, and Unreadable where nobody answers."""
    if urlsplit(server).scheme not in ("http", "https"):
        raise InvalidInput(f"--server {server} is no URL such as {_EXAMPLE}.")
    url = f"{server.rstrip('/')}/api/v1/link?{urlencode([('dataset', path.strip('/') or '.') for path in paths])}"
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise _refused(error, server) from error
    except (URLError, OSError, ValueError) as error:
        raise Unreadable(
            f"{server} does not answer; start it with `precomputed serve`, or name it by --server."
        ) from error


def _refused(error: HTTPError, server: str) -> PrecomputedError:
    """What the server says in its problem document."""
    with error:
        try:
            return NotFound(str(json.load(error)["detail"]))
        except (ValueError, KeyError, TypeError, OSError):
            return Unreadable(f"{server} answers {error.code}; name a precomputed server by --server URL.")
