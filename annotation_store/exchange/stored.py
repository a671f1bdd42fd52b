"""The annotations of a dataset as an import sees them: what is stored now, and what a file was made from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson

from annotation_store.blocks import Blocks, Location, check_name, slice_digits
from annotation_store.digests import etag_of_hash
from annotation_store.exchange.rows import Leaf, Made
from annotation_store.history.versions import Kept
from annotation_store.model import Items, parse_stored
from annotation_store.reader import AnnotationReader
from annotation_store.slices import NANOMETRE, recorded_naming
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError, Unreadable

MOST_VERSIONS = 16
"""How many versions of one leaf a file may have been made from."""


_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class StoredLeaf:
    """A leaf as it is; `etag` is None where there is none yet."""

    location: Location
    items: Items
    etag: str | None
    size: int


class Stored:
    """The leaves of a dataset, each read once and when it is needed."""

    def __init__(self, reader: AnnotationReader, dataset: str, blocks: Blocks) -> None:
        self._reader = reader
        self._dataset = dataset
        self.blocks = blocks
        self._leaves: dict[Leaf, StoredLeaf] = {}
        self._kept: dict[tuple[str, str, int], Kept | None] = {}
        self._bases: dict[tuple[Leaf, Made], Items | None] = {}
        self._places: dict[str, tuple[Leaf, ...]] | None = None
        self._files: dict[Leaf, str] = {}
        self._unreadable: dict[Leaf, str] = {}
        self._damaged: dict[Leaf, set[str]] = {}
        self._logged: dict[str, set[str]] = {}

    @property
    def notes(self) -> list[str]:
        """Sentences on the leaves that were passed over because their files are damaged."""
        return [f"{why} It was not looked at for annotations of this file." for why in self._unreadable.values()]

    def leaf(self, leaf: Leaf) -> StoredLeaf:
        """A leaf as it is now; raises InvalidInput for names that none may have, Unreadable, OSError."""
        if leaf not in self._leaves:
            self._leaves[leaf] = self._read(leaf)
        return self._leaves[leaf]

    def file(self, leaf: Leaf) -> str:
        """What is the same for all names of a leaf; raises Unreadable."""
        if leaf not in self._files:
            is_there = self.exists(leaf)
            self._files[leaf] = self._reader.locate(self._dataset, *leaf).path if is_there else "/".join(leaf)
        return self._files[leaf]

    def find(self, id: str) -> tuple[Leaf, ...]:
        """The leaves in which an annotation of that id lies."""
        if self._places is None:
            self._places = {}
            for leaf, stored in self._readable():
                alone = (leaf,)
                for each in stored.items:
                    found = self._places.setdefault(each, alone)
                    if found is not alone:
                        self._places[each] = (*found, leaf)
        return self._places.get(id, ())

    def was_there(self, leaf: Leaf, id: str) -> bool:
        """Whether the log of a leaf's block tells of an annotation of that id, or the leaf's damaged file does."""
        history = self._reader.locate(self._dataset, *leaf).history
        if history not in self._logged:
            self._logged[history] = set()
            with contextlib.suppress(NotFound), self._reader.versions_in(history) as log:
                self._logged[history] = log.ids()
        return id in self._logged[history] or self.damaged_with(id) == leaf

    def damaged_with(self, id: str) -> Leaf | None:
        """The leaf that cannot be read, of those that were looked at, in whose file that id stands."""
        for leaf in self._unreadable.keys() - self._damaged.keys():
            self._damaged[leaf] = self._ids_in_file(leaf)
        return next((leaf for leaf, ids in self._damaged.items() if id in ids), None)

    def _ids_in_file(self, leaf: Leaf) -> set[str]:
        snapshot = None
        with contextlib.suppress(PrecomputedError):
            snapshot = self._reader.load(self._reader.locate(self._dataset, *leaf))
        ids: set[str] = set()
        for match in _ID.finditer(snapshot.data if snapshot is not None else b""):
            with contextlib.suppress(orjson.JSONDecodeError):
                ids.add(orjson.loads(match[1]))
        return ids

    def exists(self, leaf: Leaf) -> bool:
        """Whether both names may be those of a block that there is, and of a leaf."""
        with contextlib.suppress(InvalidInput):
            for name, what in zip(leaf, ("block", "leaf"), strict=True):
                check_name(name, what)
            return leaf[0] in self.blocks.existing
        return False

    def prepare(self, wanted: Iterable[tuple[Leaf, Made]]) -> None:
        """Read what a file was made from, each log once; raises InvalidInput where it is of too many versions."""
        versions: dict[Leaf, set[int]] = {}
        for leaf, made in wanted:
            if made.version is not None and self.exists(leaf):
                versions.setdefault(leaf, set()).add(made.version)
                if len(versions[leaf]) > MOST_VERSIONS:
                    raise InvalidInput(
                        f"The file names more than {MOST_VERSIONS} versions of {'/'.join(leaf)}; export it anew, or"
                        " leave out the column version."
                    )
        logs: dict[str, dict[str, set[int]]] = {}
        for leaf, numbers in versions.items():
            if older := {number for number in numbers if self._now(leaf, Made(number, None)) is None}:
                location = self._reader.locate(self._dataset, *leaf)
                logs.setdefault(location.history, {}).setdefault(location.leaf, set()).update(older)
        for history, older_versions in logs.items():
            self._read_log(history, older_versions)

    def _read_log(self, history: str, versions: dict[str, set[int]]) -> None:
        kept: dict[tuple[str, int], Kept] = {}
        with contextlib.suppress(NotFound, Unreadable), self._reader.versions_in(history) as log:
            kept = log.several(versions)
        for name, numbers in versions.items():
            self._kept |= {(history, name, number): kept.get((name, number)) for number in numbers}

    def base(self, leaf: Leaf, made: Made) -> Items | None:
        """What the leaf held in the version that a file was made from; None where nobody knows that any longer."""
        key = (leaf, made)
        if key not in self._bases:
            self._bases[key] = self._base(leaf, made) if self.exists(leaf) else None
        return self._bases[key]

    def all_leaves(self) -> list[Leaf]:
        """Every leaf that there is, one that several names mean only once."""
        found: dict[str, Leaf] = {}
        for block in sorted(self.blocks.existing):
            with contextlib.suppress(InvalidInput):
                check_name(block, "block")
                for name in sorted(self._reader.leaves(self._dataset, block)):
                    found.setdefault(self._reader.locate(self._dataset, block, name).path, (block, name))
        return list(found.values())

    def slices_in_nm(self, edge_nm: float) -> bool:
        """Whether the leaves of slices are named by nanometres, as an older set-up did: the record or they say it."""
        recorded = recorded_naming(self._reader.tree, self._dataset)
        if recorded is not None:
            return recorded == NANOMETRE
        for place, stored in self._readable(lambda leaf: slice_digits(leaf[1]) is not None):
            digits = slice_digits(place[1])
            for item in stored.items.values():
                z = _height(item)
                if z is not None and int(z // 1) % 10_000 != digits:
                    return int(z * edge_nm // 1) % 10_000 == digits
        return False

    def _readable(self, wanted: Callable[[Leaf], bool] = lambda leaf: True) -> Iterator[tuple[Leaf, StoredLeaf]]:
        for leaf in filter(wanted, self.all_leaves()):
            try:
                yield leaf, self.leaf(leaf)
            except Unreadable as error:
                self._unreadable[leaf] = str(error)

    def _read(self, leaf: Leaf) -> StoredLeaf:
        for name, what in zip(leaf, ("block", "leaf"), strict=True):
            check_name(name, what)
        location = self._reader.locate(self._dataset, *leaf)
        try:
            snapshot = self._reader.check(location)
            return StoredLeaf(location, parse_stored(snapshot.data), snapshot.etag, len(snapshot.data))
        except NotFound:
            return StoredLeaf(location, {}, None, 0)
        except Unreadable as error:
            raise Unreadable(f"{'/'.join(leaf)} cannot be read: {error}") from error

    def _base(self, leaf: Leaf, made: Made) -> Items | None:
        try:
            now = self.leaf(leaf)
        except Unreadable as error:
            self._unreadable[leaf] = str(error)
            return None
        found = self._now(leaf, made)
        if found is not None:
            return found
        if made.version is None:
            return self._by_etag(now.location, made.etag)
        key = (now.location.history, now.location.leaf, made.version)
        if key not in self._kept:
            self.prepare([(leaf, made)])
        kept = self._kept.get(key)
        # A number alone could be that of another dataset's leaf.
        return kept.items if kept is not None and kept.etag.startswith(made.etag or "") else None

    def _now(self, leaf: Leaf, made: Made) -> Items | None:
        """What a leaf holds if that is what it was made from, as it mostly is."""
        try:
            now = self.leaf(leaf)
        except Unreadable:
            return None
        if made.etag is not None:
            return now.items if (now.etag or "").startswith(made.etag) else None
        tail = self._reader.tail(now.location)
        if tail is None:
            return now.items if made.version == 1 and now.etag is not None else None
        is_newest = tail.version == made.version and etag_of_hash(tail.after or "") == now.etag
        return now.items if is_newest else None

    def _by_etag(self, location: Location, etag: str | None) -> Items | None:
        if etag is None:
            return None
        with contextlib.suppress(PrecomputedError), self._reader.versions(location) as versions:
            return versions.by_etag(location.leaf, etag)
        return None


def _height(item: dict[str, object]) -> float | None:
    points = item.get("points")
    point = points[0] if isinstance(points, list) and points else item.get("point")
    z = point[2] if isinstance(point, list) and len(point) == 3 else None
    return z if isinstance(z, (int, float)) else None
