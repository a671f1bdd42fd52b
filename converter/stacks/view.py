"""A view of a stack: its axes in another order or direction, and a part of it.

The axes are first put in their new order, then turned round, then cut; so a crop is in the voxels of the dataset that
the whole stack would become, and a cropped dataset lies where it would lie in that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Box, Vector

AXES = "xyz"
Array = NDArray[Any]
Range = tuple[int | None, int | None]
WHOLE: Range = (None, None)


@dataclass(frozen=True)
class View:
    """Which voxels of a stack become which of the dataset.

    `order[n]` is the axis of the stack (x, y, z = 0, 1, 2) that axis n of the dataset shows, `flipped[n]` whether that
    axis runs backwards, `crop[n]` the voxels kept of it, from start up to stop; None is an end of the stack.
    Boxes of the dataset are in voxels from the corner of the whole stack, as its `voxel_offset` is.
    """

    order: Vector = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    crop: tuple[Range, Range, Range] = (WHOLE, WHOLE, WHOLE)

    def bounds(self, size: Vector) -> Box:
        """The voxels that the dataset has of a stack of `size`; raises InvalidInput for a crop beyond it."""
        whole = self.permuted(size)
        low = tuple(start or 0 for start, _ in self.crop)
        high = tuple(length if stop is None else stop for (_, stop), length in zip(self.crop, whole, strict=True))
        for axis, start, stop, length in zip(AXES, low, high, whole, strict=True):
            if not 0 <= start < stop <= length:
                raise InvalidInput(
                    f"--crop keeps {axis} from {start} up to {stop}, but the stack has {axis} from 0 up to {length}; "
                    "give a part of it."
                )
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def permuted(self, vector: Vector) -> Vector:
        """A vector x, y, z of the stack along the axes of the dataset."""
        x, y, z = (vector[axis] for axis in self.order)
        return x, y, z

    def permuted_edges(self, edges: tuple[Fraction, Fraction, Fraction]) -> tuple[Fraction, Fraction, Fraction]:
        """The edges of a voxel of the stack along the axes of the dataset."""
        x, y, z = (edges[axis] for axis in self.order)
        return x, y, z

    def stack_box(self, box: Box, size: Vector) -> Box:
        """The box of a stack of `size` whose voxels the dataset has in `box`."""
        low, high = [0, 0, 0], [0, 0, 0]
        for axis, length, start, stop in zip(self.order, self.permuted(size), box.start, box.stop, strict=True):
            low[axis], high[axis] = (
                (length - stop, length - start)
                if self.flipped[self.order.index(axis)]
                else (
                    start,
                    stop,
                )
            )
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def of_stack(self, voxels: Array) -> Array:
        """The voxels "(C, Z, Y, X)" of a box of the stack as the dataset has them; shares memory."""
        return self._turned(voxels.transpose(0, *(3 - axis for axis in reversed(self.order))))

    def as_stack(self, voxels: Array) -> Array:
        """The voxels "(C, Z, Y, X)" of a box of the dataset as the stack has them; shares memory."""
        x, y, z = (self.order.index(axis) for axis in range(3))
        return self._turned(voxels).transpose(0, 3 - z, 3 - y, 3 - x)

    def _turned(self, voxels: Array) -> Array:
        x, y, z = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return voxels[:, z, y, x]


def parse_order(text: str) -> Vector:
    """Read a permutation such as `yxz`: the new x is the old y; raises InvalidInput."""
    if sorted(text.lower()) != sorted(AXES):
        raise InvalidInput(f"--transpose {text} is not the letters x, y, z in another order, such as yxz.")
    x, y, z = (AXES.index(letter) for letter in text.lower())
    return x, y, z


def parse_flipped(text: str) -> tuple[bool, bool, bool]:
    """Read the axes to turn round, such as `z` or `xy`; raises InvalidInput."""
    letters = text.lower().replace(",", "")
    if not letters or set(letters) - set(AXES) or len(set(letters)) < len(letters):
        raise InvalidInput(f"--flip {text} names no axes; give z, or several such as xy.")
    return "x" in letters, "y" in letters, "z" in letters


def parse_crop(text: str) -> tuple[Range, Range, Range]:
    """Read `x0:x1,y0:y1,z0:z1`, where an end or a whole axis may be left out; raises InvalidInput."""
    parts = text.split(",")
    if len(parts) > len(AXES):
        raise InvalidInput(f"--crop {text} has more than x, y and z, such as 100:900,,5:20.")
    x, y, z = (_range(part.strip(), text) for part in (*parts, "", "")[: len(AXES)])
    return x, y, z


def _range(part: str, text: str) -> Range:
    ends = part.split(":") if part else ["", ""]
    if len(ends) != 2 or not all(end == "" or (end.isascii() and end.isdigit()) for end in ends):
        raise InvalidInput(f"--crop {text} is not x0:x1,y0:y1,z0:z1 in whole numbers, such as 100:900,,5:20.")
    start, stop = (int(end) if end else None for end in ends)
    return start, stop


def completed(block: Array, missing: Vector) -> Array:
    """`block` "(C, Z, Y, X)" with the cells at its low ends made whole: their voxels repeated `missing` x, y, z times.

    The levels of a cropped dataset lie on the grid of the uncropped one: voxel i of a level is made from the voxels
    i · factor up to (i + 1) · factor that exist. Where the first of these cells is cut, repeating what there is of it
    changes neither its average (with its rounding), nor its mode, nor its largest value.
    """
    x, y, z = missing
    return np.pad(block, [(0, 0), (z, 0), (y, 0), (x, 0)], mode="edge") if any(missing) else block
