"""What one process remembers of leaves and logs between commits: never more than a bound, and never the truth.

Every commit reads its files anew and takes from here only what it would otherwise have to parse again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from annotation_store.committing.leaf import Content
from annotation_store.history.state import LogState
from annotation_store.model import Items
from precomputed_server.recent import Recent

_BLOCKS = 256
_KEPT_BYTES = 8 << 20
_A_REFERENCE = 100
"""About how many bytes the remembered versions of a leaf may take, and one annotation of one of them."""
_LEAST = 1024
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

    `set_by` says of fields of annotations when the newest request arrived that has set them.
    """

    content: Content | None = None
    versions: OrderedDict[str, Items] = field(default_factory=OrderedDict)
    set_by: dict[tuple[str, str], int] = field(default_factory=dict)
    _bytes: dict[str, int] = field(default_factory=dict)
    _kept: int = 0
    _newest: int = 0
    _prune_at: int = 4096

    @property
    def size(self) -> int:
        """About how many bytes of JSON are kept."""
        data = self.content.data if self.content is not None else None
        return _LEAST + len(data or b"") + self._kept

    def remember(self, content: Content) -> None:
        """Keep the newest content."""
        etag = content.etag
        if etag is None:
            return
        self.content = content
        self.keep(etag, content.items, content.fresh)

    def keep(self, etag: str, items: Items, fresh: int) -> None:
        """Keep a version, of which so many bytes are those of annotations that no other version has."""
        self.versions[etag] = items
        self.versions.move_to_end(etag)
        size = fresh + _A_REFERENCE * len(items)
        self._kept += size - self._bytes.get(etag, 0)
        self._bytes[etag] = size
        while self._kept > _KEPT_BYTES and len(self.versions) > 1:
            oldest, _ = self.versions.popitem(last=False)
            self._kept -= self._bytes.pop(oldest)

    def note(self, arrived: int, touched: Mapping[str, frozenset[str]]) -> None:
        """Keep what a request that `arrived` then has set."""
        for id, names in touched.items():
            for name in names:
                self.set_by[id, name] = max(arrived, self.set_by.get((id, name), 0))
        self._newest = max(self._newest, arrived)
        if len(self.set_by) > self._prune_at:
            oldest = time.monotonic_ns() - int(_LATE_S * 1e9)
            self.set_by = {place: moment for place, moment in self.set_by.items() if moment >= oldest}
            self._prune_at = max(4096, 2 * len(self.set_by))

    def set_later(self, arrived: int) -> frozenset[tuple[str, str]]:
        """What requests have set that arrived after `arrived`."""
        if self._newest <= arrived:
            return frozenset()
        return frozenset(place for place, moment in self.set_by.items() if moment > arrived)


class Memory:
    """What is remembered of every block; `bound` is how many bytes of files may be kept parsed."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._leaves: OrderedDict[str, LeafMemory] = OrderedDict()
        self._sizes: dict[str, int] = {}  # as they were measured last, and their sum
        self._total = 0
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

    def shrink(self, touched: Iterable[str]) -> None:
        """Forget the leaves used least recently until what is kept lies within the bound.

        `touched` are those whose memory a commit has used; only these are measured anew.
        """
        with self._lock:
            for path in touched:
                if path in self._leaves:
                    size = self._leaves[path].size
                    self._total += size - self._sizes.get(path, 0)
                    self._sizes[path] = size
            while self._total > self._bound and self._leaves:
                path, _ = self._leaves.popitem(last=False)
                self._total -= self._sizes.pop(path, 0)
