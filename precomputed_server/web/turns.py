"""How long tiles are answered in one turn of the event loop: a storm of them leaves turns for whatever else waits.

A save takes several turns in its worker. If each of them were as long as answering everybody who asks for a tile, it
would take as long as many storms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

_TURN_S = 0.001
"""How long tiles are answered in one turn: a few large ones, or two dozen small ones."""


class Turns:
    """The tiles of one worker, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._until = 0.0
        self._begun = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._resuming = False

    def take(self, later: Callable[[], None]) -> bool:
        """Whether a tile may be answered now; else `later` is called in one of the next turns, and asks again."""
        if not self._begun:
            self._begun = True
            self._until = time.monotonic() + _TURN_S
            asyncio.get_running_loop().call_soon(self._next)
        if self._resuming or (not self._waiting and time.monotonic() < self._until):
            return True
        self._waiting.append(later)
        return False

    def _next(self) -> None:
        """Begin a turn with those who wait from the one before."""
        self._begun = False
        if not self._waiting:
            return
        self._begun = True
        self._until = time.monotonic() + _TURN_S
        asyncio.get_running_loop().call_soon(self._next)
        self._resuming = True
        try:
            while self._waiting and time.monotonic() < self._until:
                self._waiting.popleft()()
        finally:
            self._resuming = False
