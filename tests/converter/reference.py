"""Slow and obvious computations that the converter's are compared with."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Vector = tuple[int, int, int]


def cells(block: Array, factor: Vector) -> tuple[tuple[int, int, int, int], Any]:
    """The shape of the coarser level, and an iterator of (index, the voxels of that cell that exist)."""
    channels, depth, rows, columns = block.shape
    shape = (channels, -(-depth // factor[2]), -(-rows // factor[1]), -(-columns // factor[0]))

    def members() -> Any:  # noqa: ANN401
        for index in np.ndindex(shape):
            c, z, y, x = index
            yield (
                index,
                block[
                    c,
                    z * factor[2] : (z + 1) * factor[2],
                    y * factor[1] : (y + 1) * factor[1],
                    x * factor[0] : (x + 1) * factor[0],
                ].ravel(),
            )

    return shape, members()


def average(block: Array, factor: Vector) -> Array:
    """Averages "(C, Z, Y, X)" with exact fractions, rounded half to even; of floats with math.fsum, without NaN."""
    shape, members = cells(block, factor)
    result = np.empty(shape, block.dtype)
    for index, voxels in members:
        if block.dtype.kind == "f":
            present = [float(value) for value in voxels if not math.isnan(value)]
            result[index] = math.fsum(present) / len(present) if present else math.nan
        else:
            result[index] = round(Fraction(sum(int(value) for value in voxels), len(voxels)))
    return result


def mode(block: Array, factor: Vector) -> Array:
    """The most frequent label of each cell, the smallest of several."""
    shape, members = cells(block, factor)
    result = np.empty(shape, block.dtype)
    for index, voxels in members:
        counts = Counter(int(value) for value in voxels)
        result[index] = min(label for label, count in counts.items() if count == max(counts.values()))
    return result


def fast_average(voxels: Array, factor: Vector) -> Array:
    """Averages of small unsigned integers "(Z, Y, X)" in float64, which is exact for them."""
    total = voxels.astype(np.float64)
    for axis, step in zip((2, 1, 0), factor, strict=True):
        if step == 2:
            padding = [(0, 0)] * 3
            padding[axis] = (0, total.shape[axis] % 2)
            total = np.pad(total, padding, mode="edge")
            total = (
                np.take(total, range(0, total.shape[axis], 2), axis)
                + np.take(total, range(1, total.shape[axis], 2), axis)
            ) / 2
    return np.rint(total).astype(voxels.dtype)
