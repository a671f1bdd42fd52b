"""What the events of a dataset's conversions say: whether one is under way, how far it is, or how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import dataclass
from typing import Any

from precomputed_server.files import Tree, read_at
from precomputed_server.format.names import EVENTS, LOCK

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
    event = _last_event(_tail(tree, f"{dataset}/{EVENTS}" if dataset else EVENTS))
    if event is None:
        return None
    state = str(event.get("state", ""))
    return Conversion(
        state,
        state not in ("done", "skipped", "failed") and _is_locked(tree, f"{dataset}/{LOCK}" if dataset else LOCK),
        _count(event.get("done")),
        _count(event.get("total")),
        str(event.get("message", "")),
    )


def _tail(tree: Tree, path: str) -> bytes:
    try:
        descriptor = tree.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        start = max(0, status.st_size - _TAIL_BYTES)
        return read_at(descriptor, start, status.st_size - start)
    finally:
        os.close(descriptor)


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
    """Whether a process, on any host that shares the locks, holds a conversion's lock."""
    try:
        descriptor = tree.open(path)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a mount without locks: what it last said is all there is
        return False
    else:
        return False
    finally:
        os.close(descriptor)
