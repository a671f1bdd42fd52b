"""Annotations of one geometry as columns, so that a hundred thousand of them are encoded as a few arrays. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_store.model import GEOMETRY, Item
from annotation_store.review import is_confirmed, is_visited
from annotation_store.views.numbers import label_number, number_of

Array = NDArray[Any]

_LARGEST = float(np.finfo(np.float32).max)
_SEGMENTS = 1 << 64
_PER_ROW_BYTES = 300
"""About what one annotation takes beside its columns: its id, and who edited it last."""


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, one after the other: `values` "(sum of counts, …)" and `counts` "(N,)"."""

    counts: Array
    values: Array

    @property
    def starts(self) -> Array:
        """Where each list begins in `values`."""
        return np.cumsum(self.counts) - self.counts

    def take(self, rows: Array) -> Ragged:
        """The lists of these rows, in this order."""
        counts = self.counts[rows]
        return Ragged(counts, self.values[spread(self.starts[rows], counts)])


def spread(starts: Array, counts: Array) -> Array:
    """The indices `starts[i]` to `starts[i] + counts[i]`, one after the other."""
    before = np.cumsum(counts) - counts
    indices: Array = np.arange(int(counts.sum())) + np.repeat(starts - before, counts)
    return indices


@dataclass(frozen=True)
class Rows:
    """Annotations of one geometry.

    `numbers` are those of their ids, `lines` tell their lines in the file from others, `flags` has reviewed in its
    lowest byte and visited in the next, `points` "(P, 3)" are single-precision voxels x, y, z.
    """

    ids: Array
    numbers: Array
    lines: Array
    flags: Array
    anntypes: Array
    points: Ragged
    segments: Ragged

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def columns(self) -> tuple[Array, Array, Array, Array, Array]:
        """What each annotation has one of."""
        return self.ids, self.numbers, self.lines, self.flags, self.anntypes

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        columns = (*self.columns, self.points.values, self.segments.values)
        return sum(column.nbytes for column in columns) + _PER_ROW_BYTES * len(self)

    def take(self, rows: Array) -> Rows:
        """These rows, in this order."""
        ids, numbers, lines, flags, anntypes = (column[rows] for column in self.columns)
        return Rows(ids, numbers, lines, flags, anntypes, self.points.take(rows), self.segments.take(rows))


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one geometry, one after the other."""
    if len(parts) == 1:
        return parts[0]
    parts = [*parts, _NOTHING]
    together = zip(*(part.columns for part in parts), strict=True)
    ids, numbers, lines, flags, anntypes = (np.concatenate(columns) for columns in together)
    points, segments = _joined([part.points for part in parts]), _joined([part.segments for part in parts])
    return Rows(ids, numbers, lines, flags, anntypes, points, segments)


def _joined(parts: Sequence[Ragged]) -> Ragged:
    return Ragged(np.concatenate([part.counts for part in parts]), np.concatenate([part.values for part in parts]))


class RowsBuilder:
    """Annotations of one geometry as they are read; `add` takes those that can be shown."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._numbers, self._lines = array("Q"), array("q")
        self._flags, self._anntypes = array("I"), array("I")
        self._point_counts, self._points = array("q"), array("d")
        self._segment_counts, self._segments = array("q"), array("Q")

    def add(self, item: Item, points: Sequence[Sequence[float]], line: int) -> bool:
        """Take an annotation and its points, both unchecked; False when these are no places."""
        known = len(self._points)
        try:
            if not points or any(len(point) != 3 for point in points):
                return False
            self._points.extend(chain.from_iterable(points))
        except (TypeError, OverflowError):
            del self._points[known:]
            return False
        self._point_counts.append(len(points))
        self._ids.append(item["id"])
        self._numbers.append(number_of(item["id"]))
        self._lines.append(line)
        self._flags.append(is_confirmed(item) | is_visited(item) << 8)
        anntype = item.get("anntype")
        self._anntypes.append(label_number(anntype) if isinstance(anntype, str) else 0)
        before = len(self._segments)
        if item.get("segments"):
            self._segments.extend(dict.fromkeys(_segments_of(item["segments"])))
        self._segment_counts.append(len(self._segments) - before)
        return True

    def built(self) -> Rows:
        """What was taken."""
        points = np.array(self._points, np.float64).reshape(-1, 3)
        ids = np.empty(len(self._ids), object)
        ids[:] = self._ids
        return Rows(
            ids,
            np.array(self._numbers, np.uint64),
            np.array(self._lines, np.int64),
            np.array(self._flags, np.uint32),
            np.array(self._anntypes, np.uint32),
            Ragged(np.array(self._point_counts, np.int64), np.clip(points, -_LARGEST, _LARGEST).astype(np.float32)),
            Ragged(np.array(self._segment_counts, np.int64), np.array(self._segments, np.uint64)),
        )


_NOTHING = RowsBuilder().built()


def points_of(item: Item) -> Sequence[Sequence[float]]:
    """The points of an annotation of a known type, as the geometry that shows it has them; unchecked.

    A polygon ends where it begins, and a line of one point goes from there to there. Raises KeyError.
    """
    fields = GEOMETRY[item["type"]]
    if fields != ("points",):
        return [item[field] for field in fields]
    points: Any = item["points"]
    if not isinstance(points, list) or not points:
        return []
    is_open = item["type"] == "polygon" and points[0] != points[-1]
    return [*points, points[0]] if is_open or len(points) == 1 else points


def _segments_of(value: object) -> Iterator[int]:
    """The object ids in a list of them, or of lists of them, as numbers or as texts; what is none is passed over."""
    if isinstance(value, list):
        for each in value:
            yield from _segments_of(each)
    elif isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) <= 20 and int(value) < _SEGMENTS:
            yield int(value)
    elif type(value) is int and 0 <= value < _SEGMENTS:
        yield value
