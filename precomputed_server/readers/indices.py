"""What is kept of the files that say where chunks lie: parsed once, and again when a file changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from precomputed_server.files import Fingerprint
from precomputed_server.recent import Weighed

Parsed = TypeVar("Parsed")

_ENTRY_BYTES = 500
"""What an entry costs besides its value."""


class Indices:
    """Parsed headers and indices of at most `bound` bytes together; safe between threads."""

    def __init__(self, bound: int) -> None:
        self._known: Weighed[tuple[str, int], tuple[Fingerprint, object]] = Weighed(bound)

    def of(self, key: tuple[str, int], fingerprint: Fingerprint, read: Callable[[], tuple[Parsed, int]]) -> Parsed:
        """What `read` gives for the file `key` (path, and which part of it) in that state; its second is its bytes."""
        known = self._known.get(key)
        if known is not None and known[0] == fingerprint:
            return known[1]  # type: ignore[return-value]  # of one kind of file there is one kind of value
        value, weight = read()
        self._known.put(key, (fingerprint, value), weight + _ENTRY_BYTES)
        return value
