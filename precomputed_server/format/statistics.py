"""What is learned of voxels by looking at them: range and histogram of each channel, or how many labels there are.

Tasks of a conversion look at the full-resolution voxels while they have them; what they find adds up in any order to
the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
HISTOGRAM_BINS = 256
_EVERY_ROW_VOXELS = 1 << 26
_MOST_ROWS_SKIPPED = 16
_KEYS = 1 << 16
_AT_ONCE = 1 << 16  # values of 16 bits whose counts stay in a core's cache


def row_stride(voxels: int) -> int:
    """Of how many rows one is counted in histograms, for a volume of so many voxels: every row up to 2^26 voxels."""
    return min(max(1, voxels // _EVERY_ROW_VOXELS), _MOST_ROWS_SKIPPED)


@dataclass
class Channel:
    """The figures of one channel: the exact range of its finite values, and how often each `key` occurs."""

    low: float | int | None = None
    high: float | int | None = None
    counts: Array = field(default_factory=lambda: np.zeros(_KEYS, np.int64))

    def look(self, voxels: Array, counted: Array) -> None:
        """Take the range of `voxels` into account, and the counts of `counted`, a part of them; both of any shape."""
        if voxels.dtype.kind == "f":
            voxels, counted = voxels[np.isfinite(voxels)], counted[np.isfinite(counted)]
        if voxels.size == 0:
            return
        self._widen(voxels.min().item(), voxels.max().item())
        keys = _keys(counted).reshape(-1)
        for start in range(0, keys.size, _AT_ONCE):
            counts = np.bincount(keys[start : start + _AT_ONCE])
            self.counts[: len(counts)] += counts

    def add(
        self, low: float | int | None, high: float | int | None, keys: Sequence[int], counts: Sequence[int]
    ) -> None:
        """Add the figures of another part of the channel, its counts as pairs of key and number."""
        if low is not None and high is not None:
            self._widen(low, high)
        np.add.at(self.counts, np.asarray(keys, np.intp), np.asarray(counts, np.int64))

    def to_json(self) -> dict[str, Any]:
        """What `add` takes."""
        keys = np.flatnonzero(self.counts)
        return {"low": self.low, "high": self.high, "keys": keys.tolist(), "counts": self.counts[keys].tolist()}

    def figures(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        """Minimum, maximum, percentiles and histogram, as `statistics.json` has them; null without finite values."""
        if self.low is None or self.high is None:
            return {**dict.fromkeys(("min", "max", "p01", "p998")), "edges": [], "counts": []}
        values, counts = self._values(dtype)
        edges, binned = self._histogram(values, counts, dtype)
        return {
            "min": self.low,
            "max": self.high,
            "p01": _percentile(values, counts, LOW_PERCENTILE),
            "p998": _percentile(values, counts, HIGH_PERCENTILE),
            "edges": edges,
            "counts": binned,
        }

    def _widen(self, low: float | int, high: float | int) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def _values(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """The values that occur, ascending, and how often; those of wide types to three digits, within the range."""
        keys = np.flatnonzero(self.counts)
        values = np.clip(_values_of(keys, dtype), self.low, self.high)
        return values, self.counts[keys]

    def _histogram(self, values: Array, counts: Array, dtype: np.dtype[Any]) -> tuple[list[float], list[int]]:
        """Bins of equal width over the range; where there are fewer whole numbers than bins, one bin for each."""
        assert self.low is not None
        assert self.high is not None
        if dtype.kind in "iu":
            span = int(self.high) - int(self.low) + 1
            bins = min(HISTOGRAM_BINS, span)
            edges = np.linspace(float(self.low), float(self.low) + span, bins + 1)
        else:
            high = self.high if self.high > self.low else np.nextafter(np.float32(self.low), np.float32(np.inf)).item()
            edges = np.linspace(self.low, high, HISTOGRAM_BINS + 1)
        binned, _ = np.histogram(values, edges, weights=counts)
        return edges.tolist(), binned.astype(np.int64).tolist()


def count_labels(block: Array) -> Array:
    """The distinct labels of a block of any shape, ascending."""
    flat = block.reshape(-1)
    if flat.size == 0:
        return flat
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.concatenate([flat[:1], flat[changes]]))


def _keys(values: Array) -> Array:
    """Whole numbers below 65,536 that are ordered as the values are.

    Values of 8 and 16 bits have a key each. Of wider ones, it is the upper half of their float32 representation, turned
    so that its order is that of the numbers: sign, exponent and the first 7 bits after the point.
    """
    if values.dtype.itemsize <= 2:
        if values.dtype.kind == "u":
            return values
        return values.astype(np.int32) + (1 << (8 * values.dtype.itemsize - 1))
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) >> np.uint32(16)
    return np.where(bits & 0x8000, 0xFFFF - bits, bits | 0x8000)


def _values_of(keys: Array, dtype: np.dtype[Any]) -> Array:
    """The values that have these keys: for wide types the one in the middle of those that share one."""
    if dtype.itemsize <= 2:
        return keys if dtype.kind == "u" else keys - (1 << (8 * dtype.itemsize - 1))
    upper = np.where(keys & 0x8000, keys & 0x7FFF, 0xFFFF - keys).astype(np.uint32) << np.uint32(16)
    middle = np.where(upper & np.uint32(0x7FFFFFFF), upper | np.uint32(0x8000), upper).view(np.float32)
    values = middle.astype(np.float64)
    return np.rint(values) if dtype.kind in "iu" else values


def _percentile(values: Array, counts: Array, percent: float) -> float | int:
    """The value at `percent` of all that were counted, taking the nearest one."""
    total = int(counts.sum())
    rank = int(np.rint(percent / 100 * (total - 1)))
    found = values[np.searchsorted(np.cumsum(counts), rank, side="right")]
    number: float | int = found.item()
    return int(number) if float(number).is_integer() else number
