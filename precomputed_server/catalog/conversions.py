"""What the events of a dataset's conversions say: whether one is under way, how far it is, or how it ended."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from precomputed_server.errors import NotFound
from precomputed_server.files import Tree, join
from precomputed_server.format.names import EVENTS, LOCK
from precomputed_server.readers.stored import open_stored
from precomputed_server.writing import is_locked

_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class Conversion:
    """The newest event of a dataset; `is_running` tells that its process holds the dataset's lock."""

    state: str
    is_running: bool
    done: int | None
    total: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether it came to a good end."""
        return self.state in ("done", "skipped")


def last_conversion(tree: Tree, dataset: str) -> Conversion | None:
    """The newest conversion into a dataset, None where none has left events; raises OSError but for absence."""
    event = _last_event(_tail(tree, join(dataset, EVENTS)))
    if event is None:
        return None
    state = str(event.get("state", ""))
    return Conversion(
        state,
        state not in ("done", "skipped", "failed") and _is_locked(tree, join(dataset, LOCK)),
        _count(event.get("done")),
        _count(event.get("total")),
        str(event.get("message", "")),
    )


def _tail(tree: Tree, path: str) -> bytes:
    try:
        with open_stored(tree, path) as stored:
            return stored.read(max(0, stored.length - _TAIL_BYTES))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotFound):
        return b""


def _last_event(text: bytes) -> dict[str, Any] | None:
    """The last whole line; a kill may have torn the one behind it."""
    for line in reversed(text.splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            return event
    return None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _is_locked(tree: Tree, path: str) -> bool:
    """Whether a conversion's process holds its lock."""
    try:
        descriptor = tree.open(path)
    except OSError:
        return False
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)
