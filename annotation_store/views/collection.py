"""One collection at one moment: its `info`, its cells, and its annotations by their number or their objects."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from annotation_store.committing.leaf import Snapshot, snapshot_of
from annotation_store.views.cells import Cells
from annotation_store.views.collections import CollectionName
from annotation_store.views.encoding import encoded, many, one, properties
from annotation_store.views.grid import Grid
from annotation_store.views.levels import (
    Boxes,
    Halvings,
    Level,
    level_name,
    levels_of,
    mixed,
    parse_level_name,
)
from annotation_store.views.numbers import parse_number
from annotation_store.views.rows import Array, Rows
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import Resolution

INFO, BY_ID, SEGMENTS = "info", "by_id", "segments"
_MARK = "neuroglancer_annotations_v1"
_LABELS = 1000
"""How many anntypes or authors `info` names, the most frequent ones."""
_KEPT_LEVELS = 32

_CELL = re.compile(r"(0|[1-9][0-9]{0,8})_(0|[1-9][0-9]{0,8})_(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Members:
    """The annotations of a collection in any order: columns, stamps of their last edits, and the leaf of each."""

    rows: Rows
    stamps: Array
    leaves: Array

    def take(self, rows: Array) -> Members:
        """These of them, in this order."""
        return Members(self.rows.take(rows), self.stamps[rows], self.leaves[rows])


@dataclass(frozen=True)
class Labels:
    """What the numbers of anntypes and authors mean."""

    anntypes: Mapping[int, str]
    authors: Mapping[int, str]


class Collection:
    """A collection whose annotations do not change any more; safe between threads."""

    def __init__(self, name: CollectionName, grid: Grid, members: Members, labels: Labels, cells: Cells) -> None:
        self.name = name
        # By number, which is by chance: a viewer that draws a part of a cell draws its first ones.
        self.members = members.take(np.argsort(members.rows.numbers, kind="stable"))
        self._grid = grid
        self._labels = labels
        self._cells = cells
        self._levels: dict[Halvings, Level] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.members.rows)

    def answer(self, path: str, resolution_nm: Resolution) -> Snapshot | None:
        """What lies in the collection under `path`, None where nothing does."""
        if path == INFO:
            return snapshot_of(self.info(resolution_nm))
        directory, _, name = path.rpartition("/")
        if directory in (BY_ID, SEGMENTS):
            number = parse_number(name)
            data = None if number is None else (self.by_id if directory == BY_ID else self.related)(number)
            return None if data is None else snapshot_of(data)
        halvings, match = parse_level_name(directory, self._grid), _CELL.fullmatch(name)
        if halvings is None or match is None:
            return None
        return self.cell(halvings, (int(match[1]), int(match[2]), int(match[3])))

    @functools.cached_property
    def halvings(self) -> Halvings:
        """The levels that suit what the collection holds now."""
        chosen = levels_of(self._boxes, self._grid)
        with self._lock:
            self._levels |= chosen
        return max(chosen, key=len)

    def levels(self) -> list[Halvings]:
        """Each of these levels, coarsest first."""
        return [self.halvings[: count + 1] for count in range(len(self.halvings))]

    def directories(self) -> list[str]:
        """The names of the directories beside `info`."""
        return [BY_ID, SEGMENTS, *map(level_name, self.levels())]

    def info(self, resolution_nm: Resolution) -> bytes:
        """The bytes of `info`, for a volume whose voxels have these edges."""
        bounds = self._grid.bounds
        members = {
            "@type": _MARK,
            "dimensions": {axis: [edge / 1e9, "m"] for axis, edge in zip("xyz", resolution_nm, strict=True)},
            "lower_bound": list(bounds.start),
            "upper_bound": list(bounds.stop),
            "annotation_type": self.name.type.upper(),
            "properties": self._properties,
            "relationships": [{"id": SEGMENTS, "key": SEGMENTS}],
            "by_id": {"key": BY_ID},
            "spatial": [self._described(halvings) for halvings in self.levels()],
        }
        return orjson.dumps(members)

    def cell(self, halvings: Halvings, cell: Vector) -> Snapshot | None:
        """A cell of the last of these levels, which may be empty; None where the level has no such cell."""
        number = self._grid.number(len(halvings) - 1, cell)
        if number is None:
            return None
        level = self._level(halvings)
        rows = level.rows_of(number)
        content = hash((len(rows), int(self._contents[rows].sum(dtype=np.uint64))))
        key = str(self.name), level_name(halvings), number
        return self._cells.of(key, content, lambda: self._encoded(rows))

    def filled_cells(self, halvings: Halvings) -> Iterator[tuple[Vector, bytes]]:
        """The cells of the last of these levels that hold something."""
        level = self._level(halvings)
        for number in level.cells.tolist():
            yield self._grid.cell(len(halvings) - 1, number), self._encoded(level.rows_of(number))

    def by_id(self, number: int) -> bytes | None:
        """The annotation of that number."""
        rows = self.rows_of_number(number)[:1]
        if not len(rows):
            return None
        return one(self._words(rows), self.members.rows.segments.take(rows).values)

    def singles(self) -> Iterator[tuple[int, bytes]]:
        """Every annotation by its number, as `by_id` gives it."""
        rows = self.members.rows
        words = encoded(self.name.type, rows, *_split(self.members.stamps))
        starts, stops = words.starts.tolist(), (words.starts + words.counts).tolist()
        first, last = rows.segments.starts.tolist(), (rows.segments.starts + rows.segments.counts).tolist()
        known = None
        for at, number in enumerate(rows.numbers.tolist()):
            if number != known:
                yield number, one(words.values[starts[at] : stops[at]], rows.segments.values[first[at] : last[at]])
            known = number

    def related(self, segment: int) -> bytes:
        """The annotations of an object."""
        objects, rows = self._objects
        wanted = np.uint64(segment)
        start, stop = np.searchsorted(objects, wanted), np.searchsorted(objects, wanted, "right")
        return self._encoded(rows[start:stop])

    def segments(self) -> list[int]:
        """The objects that annotations name."""
        found: list[int] = np.unique(self._objects[0]).tolist()
        return found

    def rows_of_number(self, number: int) -> Array:
        """The places of the annotations of that number: several where leaves share an id."""
        numbers, wanted = self.members.rows.numbers, np.uint64(number)
        return np.arange(np.searchsorted(numbers, wanted), np.searchsorted(numbers, wanted, "right"))

    def _encoded(self, rows: Array) -> bytes:
        taken = self.members.take(rows)
        return many(encoded(self.name.type, taken.rows, *_split(taken.stamps)), taken.rows.numbers)

    def _words(self, rows: Array) -> Array:
        taken = self.members.take(rows)
        return encoded(self.name.type, taken.rows, *_split(taken.stamps)).values

    def _described(self, halvings: Halvings) -> dict[str, Any]:
        level = len(halvings) - 1
        return {
            "key": level_name(halvings),
            "grid_shape": list(self._grid.shapes[level]),
            "chunk_size": list(self._grid.cell_size(level)),
            # What is there, not what there might be: a viewer draws a part of what it takes for too dense.
            "limit": max(1, self._level(halvings).most),
        }

    def _level(self, halvings: Halvings) -> Level:
        """The last of these levels."""
        with self._lock:
            found = self._levels.get(halvings)
        if found is None:
            levels = levels_of(self._boxes, self._grid, halvings)
            with self._lock:
                if len(self._levels) >= _KEPT_LEVELS:
                    self._levels.clear()
                self._levels |= levels
            found = levels[halvings]
        return found

    @functools.cached_property
    def _contents(self) -> Array:
        """For each annotation a word that is another one when anything of it is."""
        rows = self.members.rows
        return mixed(rows.lines.view(np.uint64) ^ mixed(rows.numbers ^ mixed(self.members.stamps)))

    @functools.cached_property
    def _boxes(self) -> Boxes:
        rows = self.members.rows
        points, starts = rows.points.values.astype(np.float64), rows.points.starts
        if not len(rows):
            return Boxes(rows.numbers, points, points)
        if self.name.type == "ellipsoid":
            centers, radii = points[::2], np.abs(points[1::2])
            return Boxes(rows.numbers, centers - radii, centers + radii)
        return Boxes(rows.numbers, np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts))

    @functools.cached_property
    def _objects(self) -> tuple[Array, Array]:
        """Every object that an annotation names, in order, and the annotation."""
        segments = self.members.rows.segments
        order = np.argsort(segments.values, kind="stable")
        return segments.values[order], np.repeat(np.arange(len(segments.counts)), segments.counts)[order]

    @functools.cached_property
    def _properties(self) -> list[dict[str, Any]]:
        _, authors = _split(self.members.stamps)
        return properties(
            _named(self.members.rows.anntypes, self._labels.anntypes), _named(authors, self._labels.authors)
        )


def with_numbers(members: Members, numbers: Array) -> Members:
    """The same annotations under other numbers."""
    return replace(members, rows=replace(members.rows, numbers=numbers))


def _split(stamps: Array) -> tuple[Array, Array]:
    """The times and the authors of stamps."""
    return (stamps >> np.uint64(32)).astype(np.uint32), stamps.astype(np.uint32)


def _named(column: Array, labels: Mapping[int, str]) -> dict[int, str]:
    """The numbers that a column has and what they mean, by their text."""
    numbers, counts = np.unique(column, return_counts=True)
    frequent = numbers[np.argsort(-counts, kind="stable")[:_LABELS]].tolist()
    return dict(sorted(((n, labels[n]) for n in frequent if n in labels), key=lambda label: label[1]))
