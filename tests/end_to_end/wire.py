"""HTTP as it is on the wire: no automatic decoding, no normalised paths, no retries."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.conftest import RunningServer

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """A whole answer; `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  # any JSON value
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """One kept-open connection; a context manager that closes it."""

    def __init__(self, server: RunningServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and read its whole answer."""
        self._connection.request(method, path, body, dict(headers or {}))
        response = self._connection.getresponse()
        content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def get(self, path: str, **headers: str) -> Answer:
        """GET `path`; `accept_encoding="deflate"` is the header Accept-Encoding."""
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def put_json(self, path: str, value: object) -> Answer:
        """PUT `value` as JSON."""
        return self.request("PUT", path, json.dumps(value).encode())

    def patch_json(self, path: str, item: Mapping[str, Any]) -> Answer:
        """PATCH the annotation `item` by its id."""
        return self.request("PATCH", f"{path}?id={item['id']}", json.dumps(item).encode())


def ask(server: RunningServer, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own."""
    with Connection(server) as connection:
        return connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )


def send_raw(server: RunningServer, request: bytes) -> bytes:
    """Send bytes as they are and read until the server closes; `request` should ask for that."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)
