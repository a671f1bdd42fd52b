"""The chunk grid of a scale: which cells there are and which voxels each holds.

A cell is counted from the scale's `voxel_offset`; the last cell of an axis is clipped to the volume.
"""

from __future__ import annotations

from collections.abc import Iterator

from precomputed_server.format.geometry import Box, Vector, ceil_divide
from precomputed_server.format.info import ScaleInfo


def grid_shape(scale: ScaleInfo, chunk_size: Vector | None = None) -> Vector:
    """How many cells x, y, z the scale has for `chunk_size` (default: its first)."""
    return ceil_divide(scale.size, chunk_size or scale.chunk_sizes[0])


def cell_box(scale: ScaleInfo, cell: Vector, chunk_size: Vector | None = None) -> Box:
    """The voxels of `cell` (0-based x, y, z), clipped to the volume."""
    step = chunk_size or scale.chunk_sizes[0]
    start = tuple(offset + index * length for offset, index, length in zip(scale.voxel_offset, cell, step, strict=True))
    stop = tuple(low + length for low, length in zip(start, step, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).clipped(scale.bounds)


def cells(scale: ScaleInfo, chunk_size: Vector | None = None) -> Iterator[Vector]:
    """Every cell, x fastest."""
    columns, rows, layers = grid_shape(scale, chunk_size)
    return ((x, y, z) for z in range(layers) for y in range(rows) for x in range(columns))


def cells_overlapping(scale: ScaleInfo, box: Box) -> Iterator[Vector]:
    """The cells of the scale's first chunk size that share a voxel with `box`, x fastest."""
    inside = box.clipped(scale.bounds)
    if min(inside.size) < 1:
        return iter(())
    step, offset = scale.chunk_sizes[0], scale.voxel_offset
    first = [(low - start) // length for low, start, length in zip(inside.start, offset, step, strict=True)]
    last = [(high - 1 - start) // length for high, start, length in zip(inside.stop, offset, step, strict=True)]
    x_range, y_range, z_range = (range(low, high + 1) for low, high in zip(first, last, strict=True))
    return ((x, y, z) for z in z_range for y in y_range for x in x_range)


def is_cell(scale: ScaleInfo, box: Box) -> bool:
    """Whether `box` is exactly one cell of the grid of one of the scale's chunk sizes."""
    for step in scale.chunk_sizes:
        distance = tuple(low - offset for low, offset in zip(box.start, scale.voxel_offset, strict=True))
        cell = (distance[0] // step[0], distance[1] // step[1], distance[2] // step[2])
        if min(distance) >= 0 and cell_box(scale, cell, step) == box:
            return True
    return False
