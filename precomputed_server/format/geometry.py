"""Integer vectors and boxes in voxels, always in the order x, y, z."""

from __future__ import annotations

from dataclasses import dataclass

Vector = tuple[int, int, int]


def ceil_divide(vector: Vector, divisor: Vector) -> Vector:
    """Divide each axis and round up: how many cells of `divisor` voxels cover `vector` voxels."""
    x, y, z = (-(-length // step) for length, step in zip(vector, divisor, strict=True))
    return x, y, z


def multiply(first: Vector, second: Vector) -> Vector:
    """Multiply axis by axis."""
    return first[0] * second[0], first[1] * second[1], first[2] * second[2]


def subtract(first: Vector, second: Vector) -> Vector:
    """Subtract axis by axis."""
    return first[0] - second[0], first[1] - second[1], first[2] - second[2]


@dataclass(frozen=True)
class Box:
    """The voxels from `start` up to, not including, `stop`."""

    start: Vector
    stop: Vector

    @property
    def size(self) -> Vector:
        """The extent of each axis in voxels."""
        return self.stop[0] - self.start[0], self.stop[1] - self.start[1], self.stop[2] - self.start[2]

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        x, y, z = self.size
        return x * y * z

    def contains(self, point: Vector) -> bool:
        """Whether the voxel at `point` is inside."""
        return all(low <= at < high for low, at, high in zip(self.start, point, self.stop, strict=True))

    def moved(self, by: Vector) -> Box:
        """The same box, `by` voxels further along each axis."""
        x, y, z = ((low + step, high + step) for low, high, step in zip(self.start, self.stop, by, strict=True))
        return Box((x[0], y[0], z[0]), (x[1], y[1], z[1]))

    def clipped(self, other: Box) -> Box:
        """The part of this box that lies in `other`; a side may be empty or negative when none does."""
        low = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        high = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def within(self, whole: Box) -> tuple[slice, slice, slice, slice]:
        """Where this box lies in an array "(C, Z, Y, X)" of the voxels of `whole`, which holds it."""
        x, y, z = (
            slice(low - first, high - first)
            for low, high, first in zip(self.start, self.stop, whole.start, strict=True)
        )
        return slice(None), z, y, x

    def covered_by(self, cell: Vector) -> Box:
        """The cells of `cell` voxels, counted from voxel 0, that share a voxel with this box, as a box of cells.

        The bounds of a coarser scale, `cell` being its factor: its `voxel_offset` rounds down and its end up, so that
        each of its voxels lies exactly over the voxels that it is made from.
        """
        low = tuple(start // length for start, length in zip(self.start, cell, strict=True))
        return Box((low[0], low[1], low[2]), ceil_divide(self.stop, cell))
