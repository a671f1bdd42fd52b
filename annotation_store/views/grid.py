"""The grids of the spatial index: level 0 is one cell of the whole volume, each next one halves the longest sides.

Pure. They follow from the volume alone, so that they stay when annotations change.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/annotations.md#spatial-index
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotation_store.views.rows import Array, spread
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.info import Resolution

_LEVELS = 12
MOST_CELLS = 8
"""In how many cells of a level an annotation may lie; a larger one belongs to a coarser level."""


@dataclass(frozen=True)
class Grid:
    """The volume in voxels, and how many cells x, y, z each level has."""

    bounds: Box
    shapes: tuple[Vector, ...]

    def cell_size(self, level: int) -> tuple[float, float, float]:
        """The edges of a cell in voxels."""
        x, y, z = (length / count for length, count in zip(self.bounds.size, self.shapes[level], strict=True))
        return x, y, z

    def spans(self, level: int, low: Array, high: Array) -> tuple[Array, Array]:
        """The first cell "(N, 3)" of each box and how many it reaches along each axis; what lies outside of the volume
        belongs to the cells at its faces.
        """
        start, last = np.array(self.bounds.start, np.float64), np.array(self.shapes[level]) - 1
        first, end = (
            np.clip(np.floor((corner - start) / self.cell_size(level)), 0, last).astype(np.int64)
            for corner in (low, high)
        )
        return first, end - first + 1

    def pairs(self, level: int, low: Array, high: Array) -> tuple[Array, Array]:
        """Every cell, by its number, with every box that reaches into it, boxes in their order."""
        first, spans = self.spans(level, low, high)
        counts = spans.prod(axis=1)
        boxes = np.repeat(np.arange(len(counts)), counts)
        place = spread(np.zeros_like(counts), counts)
        x, place = place % spans[boxes, 0], place // spans[boxes, 0]
        y, z = place % spans[boxes, 1], place // spans[boxes, 1]
        return self._numbered(level, first[boxes] + np.stack([x, y, z], axis=1)), boxes

    def number(self, level: int, cell: Vector) -> int | None:
        """The number of a cell, None when the level does not have it."""
        if not all(0 <= at < count for at, count in zip(cell, self.shapes[level], strict=True)):
            return None
        return int(self._numbered(level, np.array([cell]))[0])

    def cell(self, level: int, number: int) -> Vector:
        """The cell of that number."""
        x, y, _ = self.shapes[level]
        return number % x, number // x % y, number // x // y

    def _numbered(self, level: int, cells: Array) -> Array:
        x, y, _ = self.shapes[level]
        numbers: Array = cells[:, 0] + x * (cells[:, 1] + y * cells[:, 2])
        return numbers


def grid_of(bounds: Box, resolution: Resolution) -> Grid:
    """The grids of a volume with `bounds` and edges of a voxel as `resolution`, in any unit.

    An axis is halved where its cells are longer than half of the longest ones, but not below a voxel.
    """
    shapes: list[Vector] = [(1, 1, 1)]
    while len(shapes) < _LEVELS:
        shape = shapes[-1]
        voxels = [length / count for length, count in zip(bounds.size, shape, strict=True)]
        longest = max((n * edge for n, edge in zip(voxels, resolution, strict=True) if n >= 2), default=0.0)
        halved = [n >= 2 and 2 * n * edge > longest for n, edge in zip(voxels, resolution, strict=True)]
        if not any(halved):
            break
        x, y, z = (count * (1 + half) for count, half in zip(shape, halved, strict=True))
        shapes.append((x, y, z))
    return Grid(bounds, tuple(shapes))
