"""How long a connection may stall: a head that does not become whole, an answer that is not taken."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

logger = logging.getLogger("precomputed_server")

_LEAST_TAKEN = 16 << 10
"""Bytes of an answer that a client must take in each period, while some wait for it."""

_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class PatientHandler(RequestHandler):
    """One connection, which is ended when it stalls for `client_timeout` seconds."""

    __slots__ = ("_client_timeout", "_head_began", "_head_timer", "_left", "_taking_timer")

    def __init__(self, client_timeout: float, manager: web.Server, **given: Any) -> None:
        super().__init__(manager, **given)
        self._client_timeout = client_timeout
        self._head_began = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._left = 0
        self._taking_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take what came; a head of which only a part came is given some time."""
        super().data_received(data)
        waiter = self._waiter
        if self._messages or self._request_in_progress or (waiter is not None and waiter.done()):
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif data and self._head_timer is None and self.transport is not None:
            self._head_began = self._loop.time()
            self._head_timer = self._loop.call_later(self._client_timeout, self._head_is_late)

    def pause_writing(self) -> None:
        """Too much of an answer waits for the client: look now and then whether it takes some."""
        super().pause_writing()
        if self.transport is not None:
            self._left = self.transport.get_write_buffer_size()
            self._taking_timer = self._loop.call_later(self._client_timeout, self._look_what_was_taken)

    def resume_writing(self) -> None:
        """The client has taken nearly all."""
        super().resume_writing()
        self._stop_looking()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._stop_looking()
        super().connection_lost(exc)

    def _head_is_late(self) -> None:
        self._head_timer = None
        answered_since = self._next_keepalive_close_time - self._keepalive_timeout > self._head_began
        if answered_since or self._request_in_progress or self._messages or self.transport is None:
            return  # what was taken for a part of a head was one of a body
        self.transport.write(_TOO_LATE)
        self.force_close()

    def _look_what_was_taken(self) -> None:
        if self.transport is None:
            return
        left = self.transport.get_write_buffer_size()
        if self._left - left < _LEAST_TAKEN:
            logger.info("a client took too little of its answer within %s s", self._client_timeout)
            self.transport.abort()
            return
        self._left = left
        self._taking_timer = self._loop.call_later(self._client_timeout, self._look_what_was_taken)

    def _stop_looking(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None
