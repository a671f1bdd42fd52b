"""Writing every level of a pyramid: which tasks there are, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from converter.executor import executor
from converter.plan import MAXIMUM_BAND_BYTES, SINGLE, band_budget, bands, group_bytes
from converter.progress import Progress
from converter.source import Stack
from converter.tasks import CoarsenBand, CutBand, StoredScale, Task, Written
from precomputed_server.format.geometry import Vector
from precomputed_server.format.grid import grid_shape

_TOO_LITTLE_FOR_PROCESSES = 32 << 20


@dataclass(frozen=True)
class Building:
    """A pyramid to write: `steps[n]` is the factor x, y, z from level n - 1 to level n, `jobs` the processes to use."""

    stack: Stack
    stored: tuple[StoredScale, ...]
    steps: tuple[Vector, ...]
    jobs: int

    @property
    def voxel_bytes(self) -> int:
        """The bytes of one voxel with all its channels."""
        return self.stored[0].volume.voxel_bytes

    @property
    def processes(self) -> int:
        """How many processes are worth starting."""
        little = self.stored[0].scale.bounds.voxels * self.voxel_bytes < _TOO_LITTLE_FOR_PROCESSES
        return 1 if little else self.jobs

    @property
    def chunks(self) -> int:
        """How many chunks all levels have."""
        return sum(int(np.prod(grid_shape(level.scale))) for level in self.stored)


def build(building: Building, progress: Progress | None) -> Written:
    """Write every chunk of every level, each level from the one before it."""
    total, written = building.chunks, Written()

    def done(part: Written) -> None:
        nonlocal written
        written += part
        if progress is not None:
            progress(written.chunks, total)

    with executor(building.processes) as running:
        together = _makes_two_levels(building)
        running.run(_cutting(building, together), done)
        for index in range(2 if together else 1, len(building.stored)):
            running.run(_coarsening(building, index), done)
    return written


def _rows_lie_apart(building: Building) -> bool:
    """Whether a band can be read without decoding much more of its planes."""
    return building.stack.segment_rows <= building.stored[0].scale.chunk_sizes[0][1]


def _makes_two_levels(building: Building) -> bool:
    """Whether the second level is made while the first is in memory, which saves reading it back.

    It takes bands of twice the planes, hence fewer rows each: not where a plane would be decoded more often for it,
    nor where the chunks for one of the next level are too large.
    """
    if len(building.stored) < 2 or not _rows_lie_apart(building):
        return False
    return group_bytes(building.stored[0].scale, building.voxel_bytes, building.steps[1]) <= MAXIMUM_BAND_BYTES


def _cutting(building: Building, together: bool) -> Iterator[Task]:
    finest, stack = building.stored[0], building.stack
    budget = MAXIMUM_BAND_BYTES  # each band decodes whole planes again: few, large ones
    if _rows_lie_apart(building):
        budget = band_budget(finest.scale, building.voxel_bytes, building.processes)
    coarser, group = (building.stored[1], building.steps[1]) if together else (None, SINGLE)
    for band in bands(finest.scale, building.voxel_bytes, budget, group):
        yield CutBand(band, stack.planes[band.box.start[2] : band.box.stop[2]], finest, coarser, group)


def _coarsening(building: Building, index: int) -> Iterator[Task]:
    finer, coarser = building.stored[index - 1], building.stored[index]
    budget = band_budget(coarser.scale, building.voxel_bytes, building.processes)
    for band in bands(coarser.scale, building.voxel_bytes, budget):
        yield CoarsenBand(band, finer, coarser, building.steps[index])
