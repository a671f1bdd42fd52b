"""Asking a running server at the address by which people reach it; nothing that it is asked changes anything."""

from __future__ import annotations

import http.client
import json
import math
import re
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from precomputed_server.doctor.judgement.proxy import ProxyFacts
from precomputed_server.errors import InvalidInput

_ANSWER_S = 10.0
_EVENTS_S = 3.0
_DESCRIPTION = "/api/openapi.json"
_SOURCE = re.compile(r"https?://[^\"|]+")


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class _Server:
    """Where it is reached; `prefix` is the path of the URL without a slash at its end."""

    scheme: str
    host: str
    port: int | None
    prefix: str

    def connection(self, timeout_s: float = _ANSWER_S) -> http.client.HTTPConnection:
        """A new connection, not yet opened."""
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> _Answer:
        """Ask; raises OSError and http.client.HTTPException."""
        connection = self.connection()
        try:
            connection.request("GET", self.prefix + path, headers={"Accept-Encoding": "identity", **(headers or {})})
            answer = connection.getresponse()
            return _Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


def look_at_proxy(url: str, largest: int) -> ProxyFacts:
    """Ask the server at `url`; `largest` is the most bytes that a save may have. Raises InvalidInput for no URL."""
    server = _server(url)
    facts = ProxyFacts(url.rstrip("/"), largest=largest)
    try:
        described = server.get(_DESCRIPTION)
        if described.status != 200 or b"/annotations/" not in described.body:
            return replace(facts, refused=f"{_DESCRIPTION} is answered with the status {described.status}")
        facts = replace(facts, **_asked_of_any(server, largest), **_asked_of_dataset(server, facts.url))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return replace(facts, refused=str(error) or type(error).__name__)
    return facts


def _server(url: str) -> _Server:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise InvalidInput(f"--url {url} is no URL such as https://data.example.org.")
    return _Server(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def _asked_of_any(server: _Server, largest: int) -> dict[str, Any]:
    """What can be asked of a server without datasets."""
    part = server.get(_DESCRIPTION, {"Range": "bytes=0-9"})
    packed = server.get(_DESCRIPTION, {"Accept-Encoding": "gzip"})
    return {
        "slash": server.get("/api/").status,
        "range": part.status if part.status != 206 or len(part.body) == 10 else 200,
        "tag": packed.headers["ETag"],
        "origins": tuple(part.headers.get_all("Access-Control-Allow-Origin", ())),
        "body": _announced(server, largest),
    }


def _announced(server: _Server, largest: int) -> int | None:
    """The status for a request that announces a body of that many bytes and sends none: of a path that takes none."""
    connection = server.connection()
    try:
        connection.putrequest("PUT", f"{server.prefix}/healthz")
        connection.putheader("Content-Length", str(largest))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        connection.sock.settimeout(_EVENTS_S)
        line = connection.sock.makefile("rb").readline(64).split()
        return int(line[1]) if len(line) > 1 and line[1].isdigit() else None
    except OSError:  # it waits for the body: it would take it
        return None
    finally:
        connection.close()


def _asked_of_dataset(server: _Server, url: str) -> dict[str, Any]:
    """What can be asked of a dataset; nothing where the server has none, or does not know of any yet."""
    path = _a_dataset(server)
    if path is None:
        return {}
    link = server.get(f"/api/v1/link?{urllib.parse.urlencode({'dataset': path})}")
    encoded = server.get(f"/api/v1/datasets/{urllib.parse.quote(path, safe='')}") if "/" in path else None
    return {
        "source": _source(link.body.decode(errors="replace"), path) if link.status == 200 else None,
        "encoded": None if encoded is None else encoded.status,
        "events_after_s": _events(server, "" if path == "." else f"/{urllib.parse.quote(path)}"),
    }


def _a_dataset(server: _Server) -> str | None:
    """A dataset that is whole, one in a directory if there is such."""
    listed = server.get("/api/v1/datasets?state=complete&limit=100")
    if listed.status != 200:
        return None
    paths = [str(dataset["path"]) for dataset in json.loads(listed.body)["datasets"]]
    return max(paths, key=lambda path: "/" in path, default=None)


def _source(link: str, path: str) -> str | None:
    """Where a link says that the dataset lies, without its path."""
    sources = _SOURCE.findall(json.dumps(json.loads(link).get("state")))
    end = "" if path == "." else f"/{urllib.parse.quote(path)}"
    found = next((source for source in sources if end in source), None)
    return None if found is None else found[: found.index(end)] if end else found.rstrip("/")


def _events(server: _Server, dataset: str) -> float | None:
    """After how many seconds a stream of edits begins; infinite when not within those waited for, None for none."""
    connection = server.connection(_EVENTS_S)
    began = time.monotonic()
    try:
        connection.request("GET", f"{server.prefix}{dataset}/annotations/events")
        answer = connection.getresponse()
        if answer.status != 200:
            return None
        answer.read1(1)
        return time.monotonic() - began
    except TimeoutError:
        return math.inf
    finally:
        connection.close()
