"""A short way for what is asked for hundreds of times a second: chunks and ranges of shards that lie in memory.

Between two requests of a connection, data that is one whole GET without a body, spelled strictly, and that can be
answered without waiting, is answered at once. Everything else goes to aiohttp, which sees it as if this module were not
there: so there is no answer here that it would not give too, and nothing has to be decided twice.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from precomputed_server.web.malformed import answer_to_malformed
from precomputed_server.web.patience import PatientHandler
from precomputed_server.web.ready import ready
from precomputed_server.web.state import STATE, State

_HEADER_LINE = re.compile(r"([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*?)[ \t]*")
_REMEMBERED_BYTES = 2048
"""Length up to which the header lines of a request are remembered: a client sends the same ones again and again."""

_HELD_BYTES = 1 << 16

_WITHOUT_BODY = re.compile(rb"(?:GET|HEAD|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")
"""The request lines after whose heads no body follows, where no header announces one; without a fragment."""

_SERVER_ERRORS = 500
_GET = b"GET "
_END = b"\r\n\r\n"
_OF_BODIES = frozenset(("content-length", "transfer-encoding", "upgrade", "expect"))
"""Headers after which more may follow than the head."""

_NOT_HERE = frozenset(("if-match", "if-none-match", "if-range", "if-modified-since", "if-unmodified-since"))
"""Headers whose meaning is aiohttp's way alone."""


class ExpressHandler(PatientHandler):
    """One connection."""

    __slots__ = ("_between_requests", "_held", "_state")

    def __init__(self, state: State, manager: web.Server, **given: Any) -> None:
        super().__init__(state.settings.client_timeout, manager, **given)
        self._state = state
        # Whether all that came so far were whole requests without a body. Once that is not sure, it never is again:
        # what looks like a request might be a part of a body.
        self._between_requests = True
        self._held = b""  # a request that waits for its turn, and what came behind it

    def data_received(self, data: bytes) -> None:
        """Answer at once, or in one of the next turns, or let aiohttp do it."""
        if self._held:
            self._held += data
            if len(self._held) > _HELD_BYTES and self.transport is not None:
                self.transport.pause_reading()
            return
        if self._between_requests:
            line, _, rest = data.partition(b"\r\n")
            headers = _known_headers(rest) if len(rest) <= _REMEMBERED_BYTES else None
            match = None if headers is None else _WITHOUT_BODY.fullmatch(line)
            if headers is None or match is None:
                self._between_requests = False
            elif line.startswith(_GET) and self._is_for_here(headers):
                if not self._state.turns.take(self._go_on):
                    self._held = data
                    return
                if self._answered(match[1], headers):
                    return
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as every other mistake, with no traceback in the log: anybody can send it."""
        if status >= _SERVER_ERRORS or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self.logger.debug("a request from %s could not be read: %s", request.remote, exc)
        return answer_to_malformed(status, exc)

    def _go_on(self) -> None:
        """Take what was held back until this turn."""
        held, self._held = self._held, b""
        if self.transport is None:
            return
        if len(held) > _HELD_BYTES:
            self.transport.resume_reading()
        self.data_received(held)

    def _is_for_here(self, headers: Mapping[str, str]) -> bool:
        waiter = self._waiter
        if waiter is None or waiter.done() or self._messages or self._paused or self.transport is None:
            return False  # a request before this one is not answered yet, or not taken
        return not (self._close or self._force_close or self._logging_enabled or "" in headers)

    def _answered(self, path: bytes, headers: Mapping[str, str]) -> bool:
        parts = ready(self._state, path, headers)
        if parts is None or self.transport is None:
            return False
        self.transport.writelines(parts)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._manager is not None:
            self._manager.requests_count += 1
        return True


class _ExpressServer(web.Server):
    """Makes an ExpressHandler of each connection."""

    def __init__(self, state: State, server: web.Server) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            loop=server._loop,
            **server._kwargs,
        )
        self._state = state

    def __call__(self) -> RequestHandler:
        return ExpressHandler(self._state, self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application with the short way before it."""

    async def _make_server(self) -> web.Server:
        return _ExpressServer(self.app[STATE], await super()._make_server())


def _read_headers(rest: bytes) -> Mapping[str, str] | None:
    """The headers, names in lower case, of the lines after the request line; None when it is not sure that they end it.

    The name "" says that the request is not for here.
    """
    if not rest.endswith(_END) and rest != b"\r\n":
        return None
    try:
        lines = rest.decode("ascii")[: -len(_END)].split("\r\n")
    except UnicodeDecodeError:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in _OF_BODIES:
            return None
        if name in headers or name in _NOT_HERE:
            headers[""] = name
        headers[name] = match[2]
    if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
        headers[""] = "connection"
    return headers


_known_headers = functools.lru_cache(maxsize=1024)(_read_headers)
