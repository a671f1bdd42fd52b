"""What one process remembers of leaves and logs between commits: never more than a bound, and never the truth.

Every commit reads its files anew and takes from here only what it would otherwise have to parse again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from annotation_store.history.state import LogState
from annotation_store.leaf import Content
from annotation_store.model import Items
from precomputed_server.recent import Recent

_BLOCKS = 256
_KEPT_ANNOTATIONS = 50_000
"""How many annotations, counted once for each version, the remembered versions of a leaf may have."""
_LATE_S = 180.0
"""For how long a save may be under way: after that none can come that arrived before one that is committed."""


@dataclass
class BlockMemory:
    """What is remembered of a block's log; `cleaned` once what a crash left in it was removed."""

    state: LogState = field(default_factory=LogState)
    cleaned: bool = False


@dataclass
class LeafMemory:
    """What is remembered of a leaf: its newest content, recent versions by entity tag, and what was set when.

    `set_by` holds, for each recent edit, when its request arrived and which fields of which annotations it set.
    """

    content: Content | None = None
    versions: OrderedDict[str, Items] = field(default_factory=OrderedDict)
    set_by: list[tuple[int, frozenset[tuple[str, str]]]] = field(default_factory=list)

    def remember(self, content: Content) -> None:
        """Keep the newest content."""
        etag = content.etag
        if etag is None:
            return
        self.content = content
        self.versions[etag] = content.items
        self.versions.move_to_end(etag)
        while len(self.versions) > 1 and sum(len(items) + 1 for items in self.versions.values()) > _KEPT_ANNOTATIONS:
            self.versions.popitem(last=False)

    def note(self, arrived: int, touched: Mapping[str, frozenset[str]]) -> None:
        """Keep what a request that `arrived` then has set."""
        oldest = time.monotonic_ns() - int(_LATE_S * 1e9)
        if self.set_by and self.set_by[0][0] < oldest:
            self.set_by = [entry for entry in self.set_by if entry[0] >= oldest]
        self.set_by.append((arrived, frozenset((id, name) for id, names in touched.items() for name in names)))

    def set_later(self, arrived: int) -> frozenset[tuple[str, str]]:
        """What requests have set that arrived after `arrived`."""
        found: set[tuple[str, str]] = set()
        for moment, touched in self.set_by:
            if moment > arrived:
                found |= touched
        return frozenset(found)


class Memory:
    """What is remembered of every block; `bound` is how many bytes of files may be kept parsed."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._leaves: OrderedDict[str, LeafMemory] = OrderedDict()
        self._blocks: Recent[str, BlockMemory] = Recent(_BLOCKS)

    def block(self, history: str) -> BlockMemory:
        """The memory of the block whose log lies in `history`; used under that block's lock."""
        found = self._blocks.get(history) or BlockMemory()
        self._blocks.put(history, found)
        return found

    def leaf(self, path: str) -> LeafMemory:
        """The memory of a leaf; used under its block's lock."""
        with self._lock:
            found = self._leaves.setdefault(path, LeafMemory())
            self._leaves.move_to_end(path)
            return found

    def shrink(self) -> None:
        """Forget the leaves used least recently until what is kept lies within the bound."""
        with self._lock:
            sizes = {path: _size(leaf) for path, leaf in self._leaves.items()}
            total = sum(sizes.values())
            for path in self._oldest_first():
                if total <= self._bound:
                    return
                total -= sizes[path]
                del self._leaves[path]

    def _oldest_first(self) -> Iterator[str]:
        return iter(list(self._leaves))


_LEAST = 1024


def _size(leaf: LeafMemory) -> int:
    """About how many bytes of JSON are kept of a leaf."""
    data = leaf.content.data if leaf.content is not None else None
    return _LEAST + len(data or b"")
