"""What a worker does: cut a band of the source into chunks, or make the chunks of a coarser level.

Tasks are values that can be pickled; each writes files that no other task writes, so they may run in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from converter.data_type import converted
from converter.downsample import average, mode
from converter.plan import SINGLE, Band
from converter.planes import Plane, read_rows
from converter.writers import Writer, read_chunk, write_chunk
from precomputed_server.format.geometry import Box, Vector, ceil_divide, multiply
from precomputed_server.format.grid import cell_box, cells_overlapping
from precomputed_server.format.info import ScaleInfo

Array = NDArray[Any]


@dataclass(frozen=True)
class Written:
    """What a task, or several, stored."""

    chunks: int = 0
    bytes: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.chunks + other.chunks, self.bytes + other.bytes)


class Task(Protocol):
    """A part of a conversion that one worker does by itself."""

    def run(self) -> Written:
        """Do it; doing it again gives the same files."""


@dataclass(frozen=True)
class Volume:
    """What tasks share: the voxels' dtype, how many channels each has, and whether they are labels."""

    dtype: np.dtype[Any]
    num_channels: int
    segmentation: bool = False

    @property
    def voxel_bytes(self) -> int:
        """The bytes of one voxel with all its channels."""
        return self.num_channels * self.dtype.itemsize

    def coarsened(self, block: Array, step: Vector) -> Array:
        """The next level of `block` "(C, Z, Y, X)"."""
        return mode(block, step) if self.segmentation else average(block, step)


@dataclass(frozen=True)
class StoredScale:
    """Where and how the chunks of a scale are kept."""

    directory: Path
    scale: ScaleInfo
    writer: Writer
    volume: Volume

    def write(self, box: Box, chunk: Array) -> Written:
        """Store one chunk "(C, Z, Y, X)"."""
        return Written(1, write_chunk(self.writer, self.directory, self.scale, box, chunk))

    def read(self, box: Box) -> Array:
        """Read any box of the scale from its chunks: "(C, Z, Y, X)"."""
        x, y, z = box.size
        voxels = np.empty((self.volume.num_channels, z, y, x), self.volume.dtype)
        channels, dtype = self.volume.num_channels, self.volume.dtype
        for cell in cells_overlapping(self.scale, box):
            chunk_box = cell_box(self.scale, cell)
            chunk = read_chunk(self.writer, self.directory, self.scale, chunk_box, channels, dtype)
            shared = box.clipped(chunk_box)
            voxels[_within(shared, box)] = chunk[_within(shared, chunk_box)]
        return voxels


@dataclass(frozen=True)
class CutBand:
    """Read the rows of a band from the planes of its z range and store its chunks, and those of `coarser` if given.

    Memory: the voxels of the band (see `plan.bands`) and, beside them, the rows of one plane or one of its strips or
    tiles, and the sums of one chunk of `coarser`. `planes[z]` are the pages of that z, beginning with the band's
    first. For `coarser` the band consists of whole groups of the chunks that make one of its chunks.
    """

    band: Band
    planes: tuple[tuple[Plane, ...], ...]
    target: StoredScale
    coarser: StoredScale | None = None
    step: Vector = SINGLE

    def run(self) -> Written:
        """Store the chunks of the band."""
        voxels = self._voxels()
        written = Written()
        for box in self.band.chunks:
            written += self.target.write(box, voxels[_within(box, self.band.box)])
        if self.coarser is not None:
            written += self._coarsen(self.coarser, voxels)
        return written

    def _coarsen(self, coarser: StoredScale, voxels: Array) -> Written:
        """Store the chunks of the next level, whose voxels are all in `voxels` "(C, Z, Y, X)"."""
        written = Written()
        inside = Box(ceil_divide(self.band.box.start, self.step), ceil_divide(self.band.box.stop, self.step))
        for cell in cells_overlapping(coarser.scale, inside):
            box = cell_box(coarser.scale, cell)
            finer = _finer(box, self.step).clipped(self.band.box)
            written += coarser.write(box, coarser.volume.coarsened(voxels[_within(finer, self.band.box)], self.step))
        return written

    def _voxels(self) -> Array:
        """The voxels of the band, "(C, Z, Y, X)"."""
        (x0, y0, _), (x1, y1, _) = self.band.box.start, self.band.box.stop
        volume = self.target.volume
        voxels = np.empty((volume.num_channels, len(self.planes), y1 - y0, x1 - x0), volume.dtype)
        pages = [(z, index, page) for z, pages in enumerate(self.planes) for index, page in enumerate(pages)]
        for (z, index, page), rows in zip(pages, read_rows([page for _, _, page in pages], y0, y1), strict=True):
            samples = len(rows)
            part = converted(rows[:, :, x0:x1], volume.dtype, page.name)
            voxels[index * samples : (index + 1) * samples, z] = part
        return voxels


@dataclass(frozen=True)
class CoarsenBand:
    """Make the chunks of a band from the stored scale below.

    Memory: the voxels that one chunk is made from, eight times its own, and their sums.
    """

    band: Band
    source: StoredScale
    target: StoredScale
    step: Vector

    def run(self) -> Written:
        """Store the chunks of the band."""
        written = Written()
        for box in self.band.chunks:
            block = self.source.read(_finer(box, self.step).clipped(self.source.scale.bounds))
            written += self.target.write(box, self.target.volume.coarsened(block, self.step))
        return written


def _finer(box: Box, step: Vector) -> Box:
    """The voxels that those of `box` are made from."""
    return Box(multiply(box.start, step), multiply(box.stop, step))


def _within(box: Box, outer: Box) -> tuple[slice, slice, slice, slice]:
    """Where `box` lies in an array "(C, Z, Y, X)" of `outer`."""
    x, y, z = (
        slice(low - origin, high - origin) for low, high, origin in zip(box.start, box.stop, outer.start, strict=True)
    )
    return slice(None), z, y, x
