"""A client's connection to the server: kept open, opened anew when it broke."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass

ETAG_DIGITS = 32
"""How much of the SHA-256 of a body, in hex, is its entity tag."""

TIMEOUT_S = 20.0
"""How long a client waits for an answer before it counts as none."""


class UnansweredError(Exception):
    """The connection broke or nothing came in time: nobody knows whether the request was carried out."""


@dataclass(frozen=True)
class Answer:
    """A status, the headers by their lower-case names, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def version(self) -> int | None:
        """The version that an edit was answered with."""
        text = self.headers.get("precomputed-version", "")
        return int(text) if text.isdecimal() else None

    @property
    def said(self) -> str:
        """What became of an edit: applied, merged, unchanged or parked; empty when the server does not say it."""
        return self.headers.get("precomputed-edit", "").partition(";")[0].strip()

    @property
    def etag(self) -> str:
        """The strong entity tag without its quotes, empty without one."""
        return self.headers.get("etag", "").strip('"')


def etag_of(body: bytes) -> str:
    """The entity tag that these bytes have to be answered with."""
    return hashlib.sha256(body).hexdigest()[:ETAG_DIGITS]


class Connection:
    """One connection to 127.0.0.1; used by one thread at a time."""

    def __init__(self, port: int, agent: str) -> None:
        self._agent = agent
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; raises UnansweredError."""
        try:
            self._connection.request(method, path, body, {"User-Agent": self._agent, **(headers or {})})
            answer = self._connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnansweredError(str(error)) from error

    def send_only(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], wait_s: float) -> None:
        """Send one request and leave without its answer after `wait_s` seconds."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._connection.request(method, path, body, {"User-Agent": self._agent, **headers})
            time.sleep(wait_s)
        self._connection.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
