"""The chunk grid of a scale: which cells there are and which voxels each holds.

A cell is counted from the scale's `voxel_offset`; the last cell of an axis is clipped to the volume.
"""

from __future__ import annotations

from collections.abc import Iterator

from precomputed_server.format.geometry import Box, Vector, ceil_divide, subtract
from precomputed_server.format.info import ScaleInfo


def grid_shape(scale: ScaleInfo, chunk_size: Vector | None = None) -> Vector:
    """How many cells x, y, z the scale has for `chunk_size` (default: its first)."""
    return ceil_divide(scale.size, chunk_size or scale.chunk_sizes[0])


def whole_cell_box(scale: ScaleInfo, cell: Vector, chunk_size: Vector | None = None) -> Box:
    """The voxels of `cell` (0-based x, y, z), whether they exist or not."""
    step = chunk_size or scale.chunk_sizes[0]
    start = tuple(offset + index * length for offset, index, length in zip(scale.voxel_offset, cell, step, strict=True))
    stop = tuple(low + length for low, length in zip(start, step, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def cell_box(scale: ScaleInfo, cell: Vector, chunk_size: Vector | None = None) -> Box:
    """The voxels of `cell` (0-based x, y, z), clipped to the volume."""
    return whole_cell_box(scale, cell, chunk_size).clipped(scale.bounds)


def cells(scale: ScaleInfo, chunk_size: Vector | None = None) -> Iterator[Vector]:
    """Every cell, x fastest."""
    columns, rows, layers = grid_shape(scale, chunk_size)
    return ((x, y, z) for z in range(layers) for y in range(rows) for x in range(columns))


def cells_overlapping(scale: ScaleInfo, box: Box, chunk_size: Vector | None = None) -> Iterator[Vector]:
    """The cells of `chunk_size` (default: the scale's first) that share a voxel with `box`, x fastest."""
    touched = _touched(scale, box, chunk_size)
    x_range, y_range, z_range = (range(low, high) for low, high in zip(touched.start, touched.stop, strict=True))
    return ((x, y, z) for z in z_range for y in y_range for x in x_range)


def count_overlapping(scale: ScaleInfo, box: Box, chunk_size: Vector | None = None) -> int:
    """How many cells `cells_overlapping` gives."""
    return _touched(scale, box, chunk_size).voxels


def _touched(scale: ScaleInfo, box: Box, chunk_size: Vector | None) -> Box:
    """The cells that share a voxel with `box`, as a box of cells; empty when there are none."""
    inside = box.clipped(scale.bounds)
    if min(inside.size) < 1:
        return Box((0, 0, 0), (0, 0, 0))
    first = cell_at(scale, inside.start, chunk_size)
    x, y, z = cell_at(scale, subtract(inside.stop, (1, 1, 1)), chunk_size)
    return Box(first, (x + 1, y + 1, z + 1))


def cell_at(scale: ScaleInfo, start: Vector, chunk_size: Vector | None = None) -> Vector:
    """The cell in which the voxel `start` lies."""
    step = chunk_size or scale.chunk_sizes[0]
    x, y, z = ((low - offset) // length for low, offset, length in zip(start, scale.voxel_offset, step, strict=True))
    return x, y, z


def is_cell(scale: ScaleInfo, box: Box) -> bool:
    """Whether `box` is exactly one cell of the grid of one of the scale's chunk sizes."""
    # Axis by axis and without making boxes: this is asked for every chunk that is served.
    axes = tuple(zip(box.start, box.stop, scale.voxel_offset, scale.size, strict=True))
    for step in scale.chunk_sizes:
        for (low, high, offset, extent), length in zip(axes, step, strict=True):
            if low < offset or (low - offset) % length or high != min(low + length, offset + extent):
                break
        else:
            return True
    return False
