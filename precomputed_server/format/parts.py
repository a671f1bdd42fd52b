"""In which parts a box is read so that they, one behind the other, are the whole array in C order: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo

Range = tuple[int, int]

CZYX = "CZYX"
"""The order of raw chunks and of numpy arrays here, slowest axis first."""

ZCYX = "ZCYX"
"""Plane by plane, the channels of each behind one another: the order of ImageJ's hyperstacks."""

_SPATIAL = "XYZ"


@dataclass(frozen=True)
class Part:
    """Voxels to be read at once: `channels` are a range of the places in the list of the chosen ones."""

    channels: Range
    box: Box

    @property
    def voxels(self) -> int:
        """How many values those are, all channels."""
        return (self.channels[1] - self.channels[0]) * self.box.voxels


@dataclass(frozen=True)
class _Axis:
    """From `start` up to `stop`, on a grid of cells of `step` that begins at `origin`."""

    start: int
    stop: int
    step: int
    origin: int = 0

    @property
    def length(self) -> int:
        return self.stop - self.start

    def divided(self, most: int) -> Iterator[Range]:
        """Ranges of at most `most`, each up to the end of a cell where it reaches one."""
        start = self.start
        while start < self.stop:
            end = start + most
            boundary = self.origin + (end - self.origin) // self.step * self.step
            stop = self.stop if end >= self.stop else boundary if boundary > start else end
            yield start, stop
            start = stop


def parts(scale: ScaleInfo, box: Box, channels: int, order: str, sizes: tuple[int, int]) -> Iterator[Part]:
    """The parts of `box` of a scale in the `order` of the array that they make up, such as CZYX.

    `sizes` are two numbers of values: no part has more than the second; layers of chunks are put together while they
    have no more than the first. A layer of chunks that is larger than a part is read several times.
    """
    enough, most = sizes
    axes = {"C": _Axis(0, channels, channels)}
    for name, *given in zip(_SPATIAL, box.start, box.stop, scale.chunk_sizes[0], scale.voxel_offset, strict=True):
        axes[name] = _Axis(*given)
    for ranges in _runs([axes[name] for name in order], enough, most):
        found = dict(zip(order, ranges, strict=True))
        (x0, x1), (y0, y1), (z0, z1) = (found[name] for name in _SPATIAL)
        yield Part(found["C"], Box((x0, y0, z0), (x1, y1, z1)))


def _runs(axes: Sequence[_Axis], enough: int, most: int) -> Iterator[tuple[Range, ...]]:
    """A range of each axis, slowest first: what follows on one another in C order, at most `most` values at once."""
    if not axes:
        yield ()
        return
    first, others = axes[0], axes[1:]
    below = prod(axis.length for axis in others)
    if first.length == 1 or below > most:
        for at in range(first.start, first.stop):
            for ranges in _runs(others, enough, most):
                yield (at, at + 1), *ranges
        return
    layers = max(min(first.step, most // below), enough // below, 1)
    for part in first.divided(layers):
        yield part, *((axis.start, axis.stop) for axis in others)
