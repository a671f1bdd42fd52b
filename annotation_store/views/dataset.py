"""The collections of one dataset, always of the newest version of every leaf."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotation_store.reader import AnnotationReader
from annotation_store.views.cells import Cells
from annotation_store.views.collection import Collection, Labels, Members
from annotation_store.views.collections import KINDS, TYPES, CollectionName, kind_of
from annotation_store.views.collisions import Settled, collisions, read_settled, settle, settle_durably
from annotation_store.views.grid import Grid, grid_of
from annotation_store.views.leaves import Key, Leaves, ParseWhole, ReadLeaf
from annotation_store.views.numbers import label_number, number_of
from annotation_store.views.rows import Array, Rows, joined
from precomputed_server.errors import PrecomputedError
from precomputed_server.format.info import VolumeInfo

_NO_COUNT = "unknown"
_BEFORE_THE_LOG = ""


@dataclass(frozen=True)
class Found:
    """An annotation's id, and the block and leaf that it lies in; `also` are others that have the same id."""

    id: str
    block: str
    leaf: str
    also: tuple[Key, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The members of an answer."""
        also = [{"block": block, "leaf": leaf} for block, leaf in self.also]
        return {"id": self.id, "block": self.block, "leaf": self.leaf} | ({"also": also} if also else {})


class DatasetView:
    """What stock Neuroglancer is shown of the annotations of the dataset at `dataset`.

    `memory` is how many bytes of encoded cells are kept. Safe between threads; what was taken from `collection` stays
    as it is.
    """

    def __init__(
        self,
        reader: AnnotationReader,
        dataset: str,
        volume: VolumeInfo,
        memory: int,
        parse_whole: ParseWhole | None = None,
    ) -> None:
        self.cells = Cells(memory)
        self.grid: Grid = grid_of(volume.scales[0].bounds, volume.scales[0].resolution_nm)
        self._reader = reader
        self._dataset = dataset
        self._leaves = Leaves(reader, dataset, parse_whole)
        self._settled: Settled = {}
        self._collections: Mapping[CollectionName, Collection] = {}
        self._places: Mapping[str, list[Key]] = {}
        self._outdated: set[str] = set()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """About how many bytes are held."""
        return self.cells.size + 2 * sum(collection.members.rows.size for collection in self._collections.values())

    def refresh(self) -> None:
        """Bring the view to what the files and logs say now; raises OSError."""
        with self._lock:
            self._outdated |= {kind_of(leaf) for _, leaf in self._leaves.refresh()}
            if self._outdated:
                settled = self._settled_now()
                if settled != self._settled:
                    self._settled = settled
                    self._outdated |= {kind_of(leaf) for _, leaf in self._leaves.read}
                self._build(self._outdated)
                self._outdated = set()

    def names(self) -> list[CollectionName]:
        """The collections that hold something."""
        return sorted(self._collections)

    def collection(self, name: CollectionName) -> Collection | None:
        """A collection as it is now; an empty one of a kind that every dataset has, None of any other."""
        found = self._collections.get(name)
        if found is None and name.kind in KINDS:
            return self._collection(name, [])
        return found

    def find(self, number: int) -> Found | None:
        """The annotation of that number, None when there is none."""
        found: list[tuple[Key, str]] = []
        for name, collection in self._collections.items():
            keys = self._places[name.kind]
            for row in collection.rows_of_number(number).tolist():
                members = collection.members
                found.append((keys[members.leaves[row]], members.rows.ids[row]))
        if not found:
            return None
        (key, id), *others = sorted(found)
        return Found(id, *key, also=tuple(other for other, _ in others))

    def _build(self, kinds: Iterable[str]) -> None:
        """Make the collections of these kinds anew."""
        collections = dict(self._collections)
        places = dict(self._places)
        for kind in kinds:
            leaves = {key: leaf for key, leaf in self._leaves.read.items() if kind_of(key[1]) == kind}
            places[kind] = list(leaves)
            for type in TYPES:
                name = CollectionName(kind, type)
                collections.pop(name, None)
                if any(type in leaf.rows.rows for leaf in leaves.values()):
                    collections[name] = self._collection(name, list(leaves.values()))
        self._collections, self._places = collections, places

    def _collection(self, name: CollectionName, leaves: list[ReadLeaf]) -> Collection:
        parts = [(at, leaf, leaf.rows.rows[name.type]) for at, leaf in enumerate(leaves) if name.type in leaf.rows.rows]
        rows = joined([rows for _, _, rows in parts])
        stamps = [np.zeros(0, np.uint64), *(leaf.stamps[name.type] for _, leaf, _ in parts)]
        counts = [len(rows) for _, _, rows in parts]
        owners = np.repeat(np.array([at for at, _, _ in parts], np.int64), counts)
        members = Members(self._renumbered(rows), np.concatenate(stamps), owners)
        return Collection(name, self.grid, members, self._labels(leaves), self.cells)

    def _labels(self, leaves: list[ReadLeaf]) -> Labels:
        anntypes = {text for leaf in leaves for text in leaf.rows.anntypes}
        return Labels(_meanings(anntypes, "none"), _meanings(self._leaves.authors(), _NO_COUNT))

    def _settled_now(self) -> Settled:
        """What has been settled of ids with the same number, and what has to be now."""
        parts = [rows for leaf in self._leaves.read.values() for rows in leaf.rows.rows.values()]
        rows = joined(parts)
        settled = read_settled(self._reader.tree, self._dataset)
        if not collisions(rows.ids, rows.numbers, settled):
            return settled

        def settle_anew(known: Settled) -> Settled:
            return settle(collisions(rows.ids, rows.numbers, known), rows.numbers, known, self._first_seen)

        return settle_durably(self._reader.tree, self._dataset, settle_anew)

    def _first_seen(self, id: str) -> str:
        seen = []
        for leaf in self._leaves.read.values():
            if any(id in rows.ids for rows in leaf.rows.rows.values()):
                seen.append(self._first_of(leaf, id))
        return min(seen, default=_BEFORE_THE_LOG)

    def _first_of(self, leaf: ReadLeaf, id: str) -> str:
        try:
            with self._reader.versions(leaf.location) as versions:
                entries, _ = versions.entries(leaf.location.leaf, 1 << 62, id=id)
        except PrecomputedError:
            return _BEFORE_THE_LOG
        # An id that was deleted and is back came to be when it came back: its number may have another holder by now.
        return next((entry.time for entry in entries if entry.before is None), _BEFORE_THE_LOG)

    def _renumbered(self, rows: Rows) -> Rows:
        numbers: Array = rows.numbers
        for id, number in self._settled.items():
            same = np.flatnonzero(rows.numbers == np.uint64(number_of(id)))
            for at in same.tolist():
                if rows.ids[at] == id and number != number_of(id):
                    numbers = numbers.copy()
                    numbers[at] = number
        return rows if numbers is rows.numbers else replace(rows, numbers=numbers)


def _meanings(texts: Iterable[str], of_none: str) -> dict[int, str]:
    """What each number means; one that two texts share means either."""
    found: dict[int, list[str]] = {0: [of_none]}
    for text in sorted(texts):
        if text:
            found.setdefault(label_number(text), []).append(text)
    return {number: " | ".join(texts) for number, texts in found.items()}
