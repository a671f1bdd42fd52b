"""Arrays of zarr version 2: the metadata in `.zarray` and where a chunk lies.

Source: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from precomputed_server.errors import Unreadable

ARRAY_METADATA = ".zarray"
GROUP_METADATA = ".zgroup"
METADATA_NAMES = frozenset({ARRAY_METADATA, GROUP_METADATA, ".zattrs"})
"""The names beginning with a dot by which readers find arrays and groups."""

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, None: 0}
_NUMBERS = re.compile("[<>|][uif][1248]")
_MAXIMUM_DIMENSIONS = 5


@dataclass(frozen=True)
class ArrayMetadata:
    """An array: lengths slowest axis first, the `compressor` as its members or None."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    compressor: Mapping[str, Any] | None = field(hash=False)
    fill_value: float
    order: str
    separator: str

    def chunk_path(self, place: tuple[int, ...]) -> str:
        """The name of the chunk at `place` of the grid of chunks, in the array's directory."""
        return self.separator.join(str(number) for number in place)

    @classmethod
    def from_bytes(cls, text: bytes) -> ArrayMetadata:
        """Read `.zarray`; raises Unreadable."""
        try:
            members = json.loads(text)
            if members["zarr_format"] != 2 or members.get("filters"):
                raise Unreadable("the zarr array has filters, or is not of version 2, which is not read.")
            read = cls(
                shape=_lengths(members["shape"], 0),
                chunks=_lengths(members["chunks"], 1),
                dtype=_dtype(_text(members["dtype"])),
                compressor=_compressor(members["compressor"]),
                fill_value=_fill_value(members.get("fill_value")),
                order=_one_of(members["order"], "C", "F"),
                separator=_one_of(members.get("dimension_separator", "."), ".", "/"),
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise Unreadable(f"{ARRAY_METADATA} is damaged.") from error
        if len(read.shape) != len(read.chunks):
            raise Unreadable(f"{ARRAY_METADATA} has another number of axes in shape than in chunks.")
        return read


def _lengths(value: object, minimum: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not 3 <= len(value) <= _MAXIMUM_DIMENSIONS:
        raise ValueError("axes")
    if not all(type(length) is int and length >= minimum for length in value):
        raise ValueError("lengths")
    return tuple(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _dtype(text: str) -> np.dtype[Any]:
    if not _NUMBERS.fullmatch(text):
        raise ValueError(text)
    return np.dtype(text)


def _one_of(value: object, *allowed: str) -> str:
    text = _text(value)
    if text not in allowed:
        raise ValueError(text)
    return text


def _compressor(value: object) -> Mapping[str, Any] | None:
    if value is not None and not (isinstance(value, dict) and isinstance(value.get("id"), str)):
        raise ValueError("compressor")
    return value


def _fill_value(value: Any) -> float:  # noqa: ANN401  # any JSON value
    if value is None or isinstance(value, str):
        return _SPECIAL[value]
    if not isinstance(value, (int, float)):
        raise TypeError
    return value
