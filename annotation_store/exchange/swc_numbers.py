"""The node lines of many SWC fibres at a time, made by arrays of digits: no object for each node. Pure.

Positions are voxels times voxel edge, spelled so that dividing by the edge gives the same double again. A coordinate of
up to six decimals is multiplied exactly; of any other the product is spelled to an eighth of what tells neighbouring
doubles apart, computed in extended precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = Sequence[Sequence[float]]
Scale = tuple[Decimal, Decimal, Decimal]

_HAS_EXTENDED = np.finfo(np.longdouble).nmant >= 63
_FRACTION = 18
_SHORT = 6
_SMALLEST, _LARGEST = 1e-200, 2.0**22
_LARGEST_EDGE = 10**6
"""Of an edge's digits: the product of a coordinate and an edge has to fit 64 bits."""
_LONGEST = 2.0**62
_NANO = 10**9
_ZERO, _POINT, _MINUS, _SPACE, _NEWLINE = b"0.- \n"

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class NodeLines:
    """Spells the nodes of fibres whose voxels have edges `scale`; type and radius of every node are 0."""

    def __init__(self, scale: Scale) -> None:
        self._edges = scale
        self._wide = np.array([np.longdouble(str(edge)) for edge in scale])
        self._step = np.array([float(edge) for edge in scale]) / 8
        exponents = [-min(0, int(edge.as_tuple().exponent)) for edge in scale]
        factors = [int(edge.scaleb(decimals)) for edge, decimals in zip(scale, exponents, strict=True)]
        pairs = list(zip(factors, exponents, strict=True))
        can_be = [factor <= _LARGEST_EDGE and decimals <= _FRACTION - _SHORT for factor, decimals in pairs]
        self._is_short = np.array(can_be)
        short = [pair if is_short else (0, 0) for pair, is_short in zip(pairs, can_be, strict=True)]
        self._factors = np.array([factor for factor, _ in short])
        self._decimals = np.array([decimals for _, decimals in short])

    def texts(self, fibres: Sequence[Points], number: int) -> Iterator[bytes | None]:
        """The lines of each fibre, numbered from `number` on, padded with NUL; None for one that is not made here."""
        counts = [len(points) for points in fibres]
        flat: Any = chain.from_iterable(chain.from_iterable(fibres))
        try:
            voxels = np.fromiter(flat, np.float64, 3 * sum(counts)).reshape(-1, 3)
        except OverflowError:  # a whole number past all doubles
            yield from [None] * len(fibres)
            return
        whole, fraction, sound = self._products(voxels)
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
        are_sound = np.logical_and.reduceat(sound.all(axis=1), starts).tolist()
        lines = self._lines(whole, fraction, np.signbit(voxels), _parents(starts, len(voxels), number), number)
        width = lines.shape[1]
        data = lines.tobytes()
        for is_sound, start, count in zip(are_sound, starts.tolist(), counts, strict=True):
            yield data[start * width : (start + count) * width] if is_sound else None

    def _products(self, voxels: NDArray[np.float64]) -> tuple[Integers, Integers, NDArray[np.bool_]]:
        """The absolute products: whole part, 18 decimals, and whether that is what they are."""
        size = np.abs(voxels)
        sound = size < _LARGEST
        size = np.where(sound, size, 0)
        scaled = np.rint(size * 10**_SHORT)
        short = (scaled / 10**_SHORT == size) & self._is_short
        one = 10 ** (_SHORT + self._decimals)
        whole, rest = np.divmod(scaled.astype(np.int64) * self._factors, one)
        fraction = rest * 10 ** (_FRACTION - _SHORT - self._decimals)
        if short.all():
            return whole, fraction, sound
        long_whole, long_fraction, long_sound = self._long(size)
        sound &= short | long_sound
        return np.where(short, whole, long_whole), np.where(short, fraction, long_fraction), sound

    def _long(self, size: NDArray[np.float64]) -> tuple[Integers, Integers, NDArray[np.bool_]]:
        decimals = np.ceil(-np.log10(np.spacing(np.maximum(size, _SMALLEST)) * self._step)).astype(np.int64)
        product = size.astype(np.longdouble) * self._wide
        sound = (decimals <= _FRACTION) & (product < _LONGEST) & _HAS_EXTENDED
        product = np.where(sound, product, 0)
        step = 10 ** np.clip(_FRACTION - decimals, 0, _FRACTION)
        whole = np.floor(product).astype(np.int64)
        fraction = ((product - whole) * np.longdouble(10) ** _FRACTION).astype(np.int64)
        fraction = (fraction + step // 2) // step * step
        over = fraction >= 10**_FRACTION
        return whole + over, np.where(over, 0, fraction), sound

    def _lines(
        self, whole: Integers, fraction: Integers, minus: NDArray[np.bool_], parents: Integers, number: int
    ) -> Bytes:
        count = len(whole)
        space = np.full((count, 1), _SPACE, np.uint8)
        zero = np.full((count, 1), _ZERO, np.uint8)
        columns = [_digits(np.arange(number, number + count)), space, zero]
        point = np.full((count, 1), _POINT, np.uint8)
        signs = np.where(minus, np.uint8(_MINUS), np.uint8(0))
        for axis in range(3):
            columns += [space, signs[:, axis : axis + 1], _digits(whole[:, axis]), point, _decimals(fraction[:, axis])]
        sign = np.where(parents < 0, np.uint8(_MINUS), np.uint8(0))[:, None]
        newline = np.full((count, 1), _NEWLINE, np.uint8)
        return np.concatenate([*columns, space, zero, space, sign, _digits(np.abs(parents)), newline], axis=1)


def _parents(starts: Integers, count: int, number: int) -> Integers:
    parents = np.arange(number - 1, number - 1 + count)
    parents[starts] = -1
    return parents


def _digits(values: Integers) -> Bytes:
    """The digits of whole numbers, NUL before the first one."""
    width = len(str(int(values.max(initial=0))))
    digits = _all_digits(values, width)
    for column in range(width - 1):
        digits[values < 10 ** (width - 1 - column), column] = 0
    return digits


def _all_digits(values: Integers, width: int) -> Bytes:
    digits = np.empty((len(values), width), np.uint8)
    rest = values.astype(np.uint32) if width <= 9 else values
    for column in range(width - 1, -1, -1):
        above = rest // 10
        digits[:, column] = rest - above * 10 + _ZERO
        rest = above
    return digits


def _decimals(fraction: Integers) -> Bytes:
    """The digits of 18 decimals, NUL after the last that is not 0."""
    high = fraction // _NANO
    low = fraction - high * _NANO
    digits = _all_digits(high, 9)
    if low.any():
        digits = np.concatenate([digits, _all_digits(low, 9)], axis=1)
    keep = np.logical_or.accumulate(digits[:, ::-1] != _ZERO, axis=1)[:, ::-1]
    keep[:, 0] = True
    return digits * keep
