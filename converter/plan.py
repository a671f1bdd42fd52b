"""Dividing a scale into bands: the chunks that one task makes, so that a task holds a bounded part of a stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, grid_shape
from precomputed_server.format.info import ScaleInfo

MAXIMUM_BAND_BYTES = 256 << 20
_PREFERRED_BAND_BYTES = 64 << 20
_MINIMUM_BAND_BYTES = 4 << 20
_TASKS_PER_JOB = 4


@dataclass(frozen=True)
class Band:
    """Chunks side by side in one layer of chunks: `box` holds them all, in voxels, `chunks` lists each."""

    box: Box
    chunks: tuple[Box, ...]


def bands(scale: ScaleInfo, voxel_bytes: int, budget: int) -> Iterator[Band]:
    """Divide a scale into bands of at most `budget` bytes, or of one chunk where a single chunk has more.

    `voxel_bytes` counts every channel. A band is one chunk deep and as wide as the volume, if the budget allows one
    such row of chunks, else a part of a row.
    """
    columns, rows, layers = grid_shape(scale)
    wide, high = _extent(scale, voxel_bytes, budget)
    for z in range(layers):
        for y in range(0, rows, high):
            for x in range(0, columns, wide):
                yield _band(scale, (x, y, z), (min(x + wide, columns), min(y + high, rows), z + 1))


def band_budget(scale: ScaleInfo, voxel_bytes: int, jobs: int, rows_lie_apart: bool) -> int:
    """How many bytes of voxels a task should hold.

    Where rows can be read alone, bands are small enough for every job to have some. Where a plane must be decoded as
    a whole, as it will be for each of its bands, they are as large as they may be.
    """
    if not rows_lie_apart:
        return MAXIMUM_BAND_BYTES
    share = scale.bounds.voxels * voxel_bytes // (_TASKS_PER_JOB * jobs)
    return min(_PREFERRED_BAND_BYTES, max(share, _MINIMUM_BAND_BYTES))


def _extent(scale: ScaleInfo, voxel_bytes: int, budget: int) -> tuple[int, int]:
    """How many chunks a band is wide and high."""
    columns, rows, _ = grid_shape(scale)
    x, y, z = (min(chunk, length) for chunk, length in zip(scale.chunk_sizes[0], scale.size, strict=True))
    row_bytes = scale.size[0] * y * z * voxel_bytes
    if row_bytes > budget:
        return min(columns, max(1, budget // (x * y * z * voxel_bytes))), 1
    return columns, min(rows, max(1, budget // row_bytes))


def _band(scale: ScaleInfo, first: Vector, end: Vector) -> Band:
    (x0, y0, z), (x1, y1, _) = first, end
    chunks = tuple(cell_box(scale, (x, y, z)) for y in range(y0, y1) for x in range(x0, x1))
    return Band(Box(chunks[0].start, chunks[-1].stop), chunks)
