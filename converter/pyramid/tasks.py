"""What a worker does: make one block of the last level of a stage, and all the chunks that it is made from.

Tasks are values that can be pickled; each writes files that no other task writes, so they may run in any order, on any
machine that sees the source and the destination, and more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from converter.pyramid.downsample import METHODS
from converter.pyramid.journal import ENTRY, Done, Journal
from converter.pyramid.plan import SINGLE, Pyramid, Stage, block_box, cells_below, made_part, task_box, used_part
from converter.pyramid.scratch import ScratchLevel
from converter.pyramid.target import Row, Target
from converter.stacks.plane import PlanePlace
from converter.stacks.view import completed
from precomputed_server.errors import SourceError
from precomputed_server.format.geometry import Box, Vector, multiply
from precomputed_server.format.grid import grid_shape
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.statistics import Channel, count_labels
from precomputed_server.writing import forget_cached, sync_filesystem

Array = NDArray[Any]

FAIL, SKIP, BLANK = "fail", "skip", "blank"
"""What is done about a plane that cannot be read: end; leave out the full-resolution chunks that need it; take it as 0.

A chunk holds all channels, and is left out with all of them. Coarser levels take the plane as 0 in either case.
"""


class Task(Protocol):
    """A part of a conversion that one worker does by itself."""

    def run(self) -> Done:
        """Do it; doing it again gives the same files."""


class VoxelSource(Protocol):
    """Where the voxels of a stage's first level come from."""

    def read(self, box: Box) -> Array:
        """The voxels of a box, "(C, Z, Y, X)" in the dtype of the conversion; raises SourceError."""

    def read_readable(self, box: Box) -> tuple[Array, dict[PlanePlace, str]]:
        """The same with 0 where a plane cannot be read, and why each of these cannot."""

    @property
    def plane_axis(self) -> int:
        """The axis x, y, z = 0, 1, 2 across which planes lie that are readable or not as a whole."""

    def read_bytes(self, box: Box) -> int:
        """The bytes that reading it takes beside the voxels themselves, at most."""

    def part(self, box: Box) -> VoxelSource:
        """A source for boxes within `box` alone, small enough to be sent to a worker."""


@dataclass(frozen=True)
class Volume:
    """What tasks share: the voxels' dtype, how many channels each has, and how coarser levels are made."""

    dtype: np.dtype[Any]
    num_channels: int
    segmentation: bool = False
    method: str = "average"
    row_stride: int = 1

    def coarsened(self, block: Array, step: Vector) -> Array:
        """The next level of `block` "(C, Z, Y, X)"."""
        return block if step == SINGLE else METHODS[self.method](block, step)


@dataclass(frozen=True)
class BuildBlock:
    """Make the block that begins at `cell` of the stage's last level, and all that lies below it.

    `source` counts the first voxel of the stage's first level as `origin`: a stack has a place of its own, wherever the
    dataset says that it lies. `next_level`, if any, takes what the next stage is made from. `on_error` says what is
    done when a plane cannot be read: with SKIP the finest chunks that need it are left out, with BLANK its voxels are
    0, else SourceError is raised. `known` are the places of planes of which that is known.
    """

    pyramid: Pyramid
    stage: Stage
    cell: Vector
    source: VoxelSource
    volume: Volume
    target: Target
    journal: Journal
    next_level: ScratchLevel | None = None
    on_error: str = FAIL
    known: tuple[PlanePlace, ...] = ()
    origin: Vector = (0, 0, 0)

    def run(self) -> Done:
        """Do it, put it on disk and record it; doing it again gives the same files."""
        making = _Making(self)
        done = making.run()
        sync_filesystem(self.journal.directory)
        for path in making.paths:  # the memory is for what people look at, and for the next task's chunks
            forget_cached(path)
        self.journal.record(self.stage.first, self.cell, done)
        return done


@dataclass
class _Making:
    task: BuildBlock
    entries: dict[int, list[Row]] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    labels: Array | None = None
    lost: dict[PlanePlace, str] = field(default_factory=dict)
    """Why planes cannot be read."""
    blank: set[int] = field(default_factory=set)
    """Where along the source's plane axis, counted from the level's first voxel, the block lacks one of them."""

    def run(self) -> Done:
        task = self.task
        stage, pyramid = task.stage, task.pyramid
        if stage.first == 0 and not task.volume.segmentation:
            self.channels = [Channel() for _ in range(task.volume.num_channels)]
        own = self._own(stage.last, task.cell)
        phase = (0, 0, 0) if task.next_level is None else pyramid.phases[stage.last + 1]
        x, y, z = (low - min(low, shift) for low, shift in zip(own.start, phase, strict=True))
        box = Box((x, y, z), own.stop)
        voxels = self.block(stage.last, task.cell, box)
        if task.next_level is not None:
            self._keep(voxels, box, task.next_level)
        return Done(
            source_bytes=pyramid.bytes(0, task_box(pyramid, stage, task.cell)) if stage.first == 0 else 0,
            entries={level: np.array(sorted(rows), ENTRY) for level, rows in self.entries.items()},
            channels=tuple(channel.to_json() for channel in self.channels),
            labels=() if self.labels is None else tuple(self.labels.tolist()),
            lost=self.lost,
            known=task.known,
        )

    def block(self, level: int, cell: Vector, box: Box) -> Array:
        """Make a block of a level and store its chunks; returns the voxels "(C, Z, Y, X)" of `box`.

        `box` is that of the block, or begins a little before it, where a voxel of the level above does.
        """
        voxels = self._read(box, cell) if level == self.task.stage.first else self._from_below(level, cell, box)
        self._store(level, cell, box, voxels)
        return voxels

    def _own(self, level: int, cell: Vector) -> Box:
        return block_box(self.task.pyramid.scales[level], cell, self.task.stage.block(level))

    def _from_below(self, level: int, cell: Vector, box: Box) -> Array:
        """The voxels of `box` from the blocks below."""
        pyramid, voxels = self.task.pyramid, self._zeros(box)
        for below in cells_below(pyramid, self.task.stage, level, cell):
            finer_box = self._box_below(level, cell, box, below)
            finer = self.block(level - 1, below, finer_box)
            part = made_part(pyramid, level, finer_box).clipped(box)
            voxels[within(part, box)] = self._coarsened(level, part, finer, finer_box)
            del finer  # before the next block is made
        return voxels

    def _box_below(self, level: int, cell: Vector, box: Box, below: Vector) -> Box:
        """What the block at `below` has to give for `box`: all that `box` is made from, or where its voxels begin."""
        pyramid, own = self.task.pyramid, self._own(level - 1, below)
        edges = zip(
            below,
            multiply(cell, pyramid.steps[level]),
            own.start,
            used_part(pyramid, level, box).start,
            pyramid.phases[level],
            strict=True,
        )
        x, y, z = (needed if index == first else start - phase for index, first, start, needed, phase in edges)
        return Box((x, y, z), own.stop)

    def _coarsened(self, level: int, part: Box, finer: Array, finer_box: Box) -> Array:
        """The voxels of `part` of a level from those of `finer_box` of the level below."""
        pyramid = self.task.pyramid
        used = used_part(pyramid, level, part)
        block = finer[within(used, finer_box)]
        missing = [shift if low == 0 else 0 for shift, low in zip(pyramid.phases[level], used.start, strict=True)]
        return self.task.volume.coarsened(completed(block, (missing[0], missing[1], missing[2])), pyramid.steps[level])

    def _zeros(self, box: Box) -> Array:
        x, y, z = box.size
        return np.zeros((self.task.volume.num_channels, z, y, x), self.task.volume.dtype)

    def _read(self, box: Box, cell: Vector) -> Array:
        task = self.task
        self.blank.clear()
        try:
            voxels = task.source.read(box.moved(task.origin))
        except SourceError:
            if task.on_error == FAIL:
                raise
            voxels = None  # and go on when what it had read is forgotten
        if voxels is None:
            voxels = self._read_readable(box)
        if task.stage.first == 0:
            for part in self._counted(self._own(0, cell)):
                self._look(voxels[within(part, box)], part)
        return voxels

    def _read_readable(self, box: Box) -> Array:
        """Read a box with 0 for the planes that cannot be read; what other channels have there is kept."""
        task, axis = self.task, self.task.source.plane_axis
        voxels, lost = task.source.read_readable(box.moved(task.origin))
        self.lost |= lost
        self.blank |= {place - task.origin[axis] for place, _ in lost}
        return voxels

    def _counted(self, box: Box) -> Iterable[Box]:
        """The parts of a box whose voxels count in the statistics."""
        if self.task.on_error != SKIP or not self.blank:
            return (box,)
        axis = self.task.source.plane_axis
        return (part for part in _planes(box, axis) if part.start[axis] not in self.blank)

    def _is_left_out(self, level: int, chunk: Box) -> bool:
        if level or self.task.on_error != SKIP:
            return False
        axis = self.task.source.plane_axis
        return not self.blank.isdisjoint(range(chunk.start[axis], chunk.stop[axis]))

    def _look(self, voxels: Array, box: Box) -> None:
        """Take full-resolution voxels into account in the statistics."""
        volume = self.task.volume
        if volume.segmentation:
            labels = count_labels(voxels)
            self.labels = labels if self.labels is None else np.union1d(self.labels, labels)
            return
        first = -box.start[1] % volume.row_stride
        for channel, values in zip(self.channels, voxels, strict=True):
            channel.look(values, values[:, first :: volume.row_stride])

    def _store(self, level: int, cell: Vector, box: Box, voxels: Array) -> None:
        task = self.task
        rows = self.entries.setdefault(level, [])
        for at in _cells(task.pyramid.scales[level], cell, task.stage.block(level)):
            chunk = block_box(task.pyramid.scales[level], at, SINGLE)
            if self._is_left_out(level, chunk):
                task.target.leave_out(level, chunk)
                continue
            path, row = task.target.store(level, at, chunk, voxels[within(chunk, box)])
            if path is not None:
                self.paths.append(path)
            rows.append(row)

    def _keep(self, voxels: Array, box: Box, pieces: ScratchLevel) -> None:
        """Keep aside what the next level is made from."""
        level = self.task.stage.last + 1
        part = made_part(self.task.pyramid, level, box)
        pieces.write(part, self._coarsened(level, part, voxels, box))


def _planes(box: Box, axis: int) -> Iterator[Box]:
    """The parts of a box that are one voxel thick along an axis."""
    for at in range(box.start[axis], box.stop[axis]):
        low, high = list(box.start), list(box.stop)
        low[axis], high[axis] = at, at + 1
        yield Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _cells(scale: ScaleInfo, cell: Vector, block: Vector) -> Iterator[Vector]:
    """The cells of a block, x fastest."""
    x, y, z = (
        range(low, min(low + length, end)) for low, length, end in zip(cell, block, grid_shape(scale), strict=True)
    )
    return ((i, j, k) for k in z for j in y for i in x)


def within(box: Box, outer: Box) -> tuple[slice, slice, slice, slice]:
    """Where `box` lies in an array "(C, Z, Y, X)" of `outer`."""
    x, y, z = (
        slice(low - origin, high - origin) for low, high, origin in zip(box.start, box.stop, outer.start, strict=True)
    )
    return slice(None), z, y, x
