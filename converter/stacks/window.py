"""Fitting the values of an image into fewer bits: a linear window, rounded and clipped."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import InvalidInput

Array = NDArray[Any]
WINDOWED_TYPES = ("uint8", "uint16")
_TABLE_BYTES = 2
_VALUES_AT_ONCE = 1 << 18
WINDOW_BYTES = 4 * 8 * _VALUES_AT_ONCE
"""The most that `windowed` holds beside its argument and its result."""


@dataclass(frozen=True)
class Window:
    """The value that becomes 0 and the one that becomes the largest; what lies outside is clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InvalidInput(f"--window {self.low:g},{self.high:g} is not LO,HI with LO below HI, such as 100,4000.")


def parse_window(text: str) -> Window:
    """Read `LO,HI`; raises InvalidInput."""
    try:
        low, high = (float(Decimal(part.strip())) for part in text.split(","))
    except (ValueError, InvalidOperation) as error:
        raise InvalidInput(f"--window {text} is not LO,HI, such as 100,4000.") from error
    return Window(low, high)


def windowed(values: Array, window: Window, dtype: np.dtype[Any]) -> Array:
    """`values` "(…, Y, X)" as `dtype` (uint8 or uint16): `low` → 0, `high` → the largest, linearly between.

    Computed in float64, rounded half to even, clipped; NaN becomes 0.
    """
    result = np.empty(values.shape, dtype)
    height = values.shape[-2]
    rows = max(1, _VALUES_AT_ONCE * height // max(1, values.size))
    few = values.dtype.kind in "iu" and values.dtype.itemsize <= _TABLE_BYTES
    table = _table(values.dtype.kind, values.dtype.itemsize, window, dtype.name) if few else None
    for start in range(0, height, rows):
        part = values[..., start : start + rows, :]
        result[..., start : start + rows, :] = _computed(part, window, dtype) if table is None else table[part]
    return result


@lru_cache(maxsize=4)
def _table(kind: str, item_bytes: int, window: Window, dtype: str) -> Array:
    """What each value of an integer type becomes; negative values count from the end, as numpy's indices do."""
    unsigned = np.arange(1 << (8 * item_bytes), dtype=f"u{item_bytes}")
    return _computed(unsigned.view(f"{kind}{item_bytes}"), window, np.dtype(dtype))


def _computed(values: Array, window: Window, dtype: np.dtype[Any]) -> Array:
    largest = np.iinfo(dtype).max
    scaled = (values.astype(np.float64) - window.low) * (largest / (window.high - window.low))
    np.rint(scaled, out=scaled)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=largest, neginf=0.0)
    result: Array = np.clip(scaled, 0, largest, out=scaled).astype(dtype)
    return result
