"""The cells that were encoded, kept until what they hold changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from annotation_store.committing.leaf import Snapshot, snapshot_of

CellKey = tuple[str, str, int]
"""Collection, level and number of the cell."""


class Cells:
    """Encoded cells of one dataset, those used last within `bound` bytes; safe between threads.

    `encoded` counts how often a cell was encoded.
    """

    def __init__(self, bound: int) -> None:
        self.encoded = 0
        self.size = 0
        self._bound = bound
        self._lock = threading.Lock()
        self._kept: OrderedDict[CellKey, tuple[int, Snapshot]] = OrderedDict()

    def of(self, key: CellKey, content: int, encode: Callable[[], bytes]) -> Snapshot:
        """The bytes of a cell; encoded anew unless those of the same `content` are kept."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == content:
                self._kept.move_to_end(key)
                return kept[1]
        made = snapshot_of(encode())
        with self._lock:
            self.encoded += 1
            replaced = self._kept.pop(key, None)
            self._kept[key] = content, made
            self.size += len(made.data) - (0 if replaced is None else len(replaced[1].data))
            while self.size > self._bound and len(self._kept) > 1:
                _, (_, oldest) = self._kept.popitem(last=False)
                self.size -= len(oldest.data)
        return made
