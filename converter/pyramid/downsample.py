"""Making a coarser level from a finer one: averages for images, the most frequent label for segmentations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.format.geometry import Vector

Array = NDArray[Any]

_Z, _Y, _X = 1, 2, 3
_SUM_TYPES = {
    "uint8": np.uint16,
    "int8": np.int16,
    "uint16": np.uint32,
    "int16": np.int32,
    "uint32": np.uint64,
    "int32": np.int64,
}
"""Integer types whose sums over eight voxels fit a wider type."""


_PAIRS: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint16), "uint16": np.dtype(np.uint32)}
"""Types whose sums over eight voxels fit the type of twice the width, which then holds two neighbours."""


def average(block: Array, factor: Vector) -> Array:
    """Average `block` "(C, Z, Y, X)" over cells of `factor` (x, y, z, each 1 or 2) voxels: "(C, ⌈Z/z⌉, …)", same dtype.

    A cell at an odd end holds only the voxels that exist. Integers are rounded half to even and exact for every type;
    float32 is averaged in float64 without NaN, and is NaN where nothing else is there.
    """
    if block.dtype.kind == "f":
        return _float_average(block, factor)
    if block.dtype.name in _PAIRS and factor[0] == 2:
        return _pair_average(np.ascontiguousarray(block), factor)
    bits = factor.count(2)
    if block.dtype.name in _SUM_TYPES:
        total = _sum(block, factor, np.dtype(_SUM_TYPES[block.dtype.name]))
        quotient = total >> bits
        remainder = total & ((1 << bits) - 1)
    else:
        low = _sum(block & block.dtype.type((1 << bits) - 1), factor, block.dtype)
        quotient = _sum(block >> block.dtype.type(bits), factor, block.dtype) + (low >> low.dtype.type(bits))
        remainder = low & low.dtype.type((1 << bits) - 1)
    # twice the remainder against the divisor; an odd quotient goes up at exactly one half
    rounded_up = 2 * remainder + (quotient & quotient.dtype.type(1)) > quotient.dtype.type(1 << bits)
    rounded: Array = np.add(quotient, rounded_up).astype(block.dtype)
    return rounded


def maximum(block: Array, factor: Vector) -> Array:
    """The greatest value of each cell of `factor` voxels of `block` "(C, Z, Y, X)"; NaN only where nothing else is."""
    greatest = block
    larger = np.fmax if block.dtype.kind == "f" else np.maximum
    for axis, step in ((_Z, factor[2]), (_Y, factor[1]), (_X, factor[0])):
        if step == 2:
            greatest = larger(*_halves(greatest, axis))
    return greatest


def stride(block: Array, factor: Vector) -> Array:
    """The first voxel of each cell of `factor` voxels of `block` "(C, Z, Y, X)"."""
    return block[:, :: factor[2], :: factor[1], :: factor[0]]


def mode(block: Array, factor: Vector) -> Array:
    """The most frequent label of each cell of `factor` (x, y, z, each 1 or 2) voxels of `block` "(C, Z, Y, X)".

    Ties go to the smallest label; a cell at an odd end holds only the voxels that exist; the dtype stays.
    """
    labels = _members(block, factor)
    chosen: Array = labels[0].copy()
    mixed = (labels != chosen).any(axis=0)
    chosen[mixed] = _most_frequent(labels[:, mixed])
    return chosen


METHODS: dict[str, Callable[[Array, Vector], Array]] = {
    "average": average,
    "mode": mode,
    "max": maximum,
    "stride": stride,
}
"""The ways of making a coarser level, by their names on the command line."""


def _pair_average(block: Array, factor: Vector) -> Array:
    """`average` of a contiguous block of unsigned integers, a plane at a time so that it stays in a core's cache.

    Two neighbours along x are one number of twice the width: masking and shifting it sums them without a gather.
    """
    if block.shape[_X] % 2:
        block = np.concatenate([block, block[..., -1:]], axis=_X)
    channels, depth, rows, columns = block.shape
    result = np.empty((channels, -(-depth // factor[2]), -(-rows // factor[1]), columns // 2), block.dtype)
    for channel, z in np.ndindex(result.shape[:2]):
        first = factor[2] * z
        total = _pair_sums(block[channel, first])
        if factor[2] == 2:
            total += _pair_sums(block[channel, min(first + 1, depth - 1)])
        if factor[1] == 2:
            if rows % 2:
                total = np.concatenate([total, total[-1:]])
            total = total[0::2] + total[1::2]
        result[channel, z] = _halved(total, factor.count(2))
    return result


def _pair_sums(plane: Array) -> Array:
    """The sum of each two neighbours along x of a contiguous plane "(Y, X)" with an even X, in the wider type."""
    pairs = plane.view(_PAIRS[plane.dtype.name])
    bits = pairs.dtype.type(8 * plane.dtype.itemsize)
    total: Array = pairs & pairs.dtype.type((1 << int(bits)) - 1)
    total += pairs >> bits
    return total


def _halved(total: Array, bits: int) -> Array:
    """`total` divided by 2 ** bits, half to even: at exactly one half, an odd quotient goes up."""
    rounded = total >> bits
    rounded &= 1
    rounded += total
    rounded += (1 << (bits - 1)) - 1
    rounded >>= bits
    return rounded


def _float_average(block: Array, factor: Vector) -> Array:
    absent = np.isnan(block)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs have no average
        if not absent.any():
            return (_sum(block, factor, np.dtype(np.float64)) / (1 << factor.count(2))).astype(block.dtype)
        total = _sum(np.where(absent, block.dtype.type(0), block), factor, np.dtype(np.float64))
        count = _sum(~absent, factor, np.dtype(np.uint8))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(block.dtype)


def _sum(block: Array, factor: Vector, dtype: np.dtype[Any]) -> Array:
    """Add up each cell in `dtype`; the last voxel of an odd axis counts twice, which leaves averages as they are."""
    total = block
    for axis, step in ((_Z, factor[2]), (_Y, factor[1]), (_X, factor[0])):
        if step == 2:
            first, second = _halves(total, axis)
            total = np.add(first, second, dtype=dtype)
    return total.astype(dtype, copy=False)


def _halves(block: Array, axis: int) -> tuple[Array, Array]:
    """The even and the odd positions along `axis`; an odd end is repeated."""
    if block.shape[axis] % 2:
        last = block.take([-1], axis=axis)
        block = np.concatenate([block, last], axis=axis)
    before = (slice(None),) * axis
    return block[(*before, slice(0, None, 2))], block[(*before, slice(1, None, 2))]


def _members(block: Array, factor: Vector) -> Array:
    """The voxels of each cell, first axis: "(N, C, Z, Y, X)"; the last voxel of an odd axis counts twice."""
    parts = [block]
    for axis, step in ((_Z, factor[2]), (_Y, factor[1]), (_X, factor[0])):
        if step == 2:
            parts = [half for part in parts for half in _halves(part, axis)]
    return np.stack(parts)


def _most_frequent(labels: Array) -> Array:
    """The most frequent value along the first axis of `labels` "(N, M)", the smallest of several."""
    ordered = np.sort(labels, axis=0)
    best: Array = ordered[0].copy()
    most = np.ones(ordered.shape[1], np.uint8)
    run = most.copy()
    for index in range(1, len(ordered)):
        run = np.where(ordered[index] == ordered[index - 1], run + 1, 1).astype(np.uint8)
        longer = run > most  # strictly: an equal run of a greater label does not win
        best[longer] = ordered[index][longer]
        most = np.maximum(most, run)
    return best
