"""Dividing a scale into bands: the chunks that one task makes, so that a task holds a bounded part of a stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from precomputed_server.format.geometry import Box, Vector, multiply
from precomputed_server.format.grid import cell_box, grid_shape
from precomputed_server.format.info import ScaleInfo

MAXIMUM_BAND_BYTES = 256 << 20
_PREFERRED_BAND_BYTES = 32 << 20
_MINIMUM_BAND_BYTES = 4 << 20
_TASKS_PER_JOB = 4

SINGLE: Vector = (1, 1, 1)


@dataclass(frozen=True)
class Band:
    """Chunks side by side: `box` holds them all, in voxels, `chunks` lists each."""

    box: Box
    chunks: tuple[Box, ...]


def bands(scale: ScaleInfo, voxel_bytes: int, budget: int, group: Vector = SINGLE) -> Iterator[Band]:
    """Divide a scale into bands of at most `budget` bytes, or of one group where a single group has more.

    A group of x, y, z chunks stays together; a band is one group deep and as wide as the volume, if the budget allows
    one such row of groups, else a part of a row. `voxel_bytes` counts every channel.
    """
    columns, rows, layers = grid_shape(scale)
    wide, high = _extent(scale, voxel_bytes, budget, group)
    for z in range(0, layers, group[2]):
        for y in range(0, rows, high):
            for x in range(0, columns, wide):
                end = min(x + wide, columns), min(y + high, rows), min(z + group[2], layers)
                yield _band(scale, (x, y, z), end)


def band_budget(scale: ScaleInfo, voxel_bytes: int, jobs: int) -> int:
    """How many bytes of voxels a task should hold so that every job has some tasks and none is tiny."""
    share = scale.bounds.voxels * voxel_bytes // (_TASKS_PER_JOB * jobs)
    return min(_PREFERRED_BAND_BYTES, max(share, _MINIMUM_BAND_BYTES))


def group_bytes(scale: ScaleInfo, voxel_bytes: int, group: Vector) -> int:
    """The bytes of one group of chunks."""
    x, y, z = _clipped(scale, group)
    return x * y * z * voxel_bytes


def _clipped(scale: ScaleInfo, group: Vector) -> Vector:
    x, y, z = (min(a, b) for a, b in zip(multiply(scale.chunk_sizes[0], group), scale.size, strict=True))
    return x, y, z


def _extent(scale: ScaleInfo, voxel_bytes: int, budget: int, group: Vector) -> tuple[int, int]:
    """How many chunks a band is wide and high."""
    columns, rows, _ = grid_shape(scale)
    x, y, z = _clipped(scale, group)
    row_bytes = scale.size[0] * y * z * voxel_bytes
    if row_bytes > budget:
        return min(columns, group[0] * max(1, budget // (x * y * z * voxel_bytes))), group[1]
    return columns, min(rows, group[1] * max(1, budget // row_bytes))


def _band(scale: ScaleInfo, first: Vector, end: Vector) -> Band:
    (x0, y0, z0), (x1, y1, z1) = first, end
    boxes = (cell_box(scale, (x, y, z)) for z in range(z0, z1) for y in range(y0, y1) for x in range(x0, x1))
    chunks = tuple(boxes)
    return Band(Box(chunks[0].start, chunks[-1].stop), chunks)
