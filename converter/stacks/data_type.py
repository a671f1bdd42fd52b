"""Which data types a dataset can hold, and the exact conversions into one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import InvalidInput
from precomputed_server.format.info import DATA_TYPES

_INTEGERS = tuple(name for name in DATA_TYPES if name != "float32")
CONVERSIONS = {"float64": ("float32",), "float16": ("float32",), "bool": ("uint8",), "int64": _INTEGERS}
"""Data types that a dataset cannot hold → the ones that their values can be given as."""


def becomes(source: np.dtype[Any]) -> tuple[str, ...]:
    """The data types that planes of `source` can be stored as: its own, those above, and all that hold every value."""
    own = (source.name,) if source.name in DATA_TYPES else CONVERSIONS.get(source.name, ())
    wider = (name for name in DATA_TYPES if name not in own and np.can_cast(source, name, "safe"))
    return (*own, *(wider if own else ()))


def label_type(source: np.dtype[Any]) -> str | None:
    """The data type for labels where only uint32 and uint64 can be stored: uint32 if that holds all, else None."""
    return "uint32" if source.name != "uint32" and np.can_cast(source, np.uint32, "safe") else None


def label_remarks(dtype: np.dtype[Any]) -> tuple[str, ...]:
    """What is to be said of voxels that nobody called labels."""
    if dtype.name not in ("uint32", "uint64"):
        return ()
    return (
        f"The voxels are {dtype.name}, as labels often are; if they are labels, use --segmentation: without it coarser "
        "levels hold averages, which are no labels.",
    )


def stored_type(source: np.dtype[Any], requested: str | None, segmentation: bool) -> np.dtype[Any]:
    """The data type to store; raises InvalidInput naming the `--dtype` that converts one that cannot be stored."""
    choices = becomes(source)
    if not choices:
        raise InvalidInput(f"The planes are {source.name}, which no dataset can hold; save them as one of {_listed()}.")
    if requested is None and source.name not in DATA_TYPES:
        exact = CONVERSIONS[source.name]
        more = f" (or another of {', '.join(exact)})" if len(exact) > 1 else ""
        best = "int32" if source.name == "int64" else choices[0]
        raise InvalidInput(f"The planes are {source.name}, which no dataset can hold; add --dtype {best}{more}.")
    if requested is not None and requested not in choices:
        raise InvalidInput(f"{source.name} planes cannot become {requested}; use --dtype {' or '.join(choices)}.")
    chosen = requested or source.name
    if segmentation and chosen == "float32":
        raise InvalidInput("Labels are whole numbers, but the planes are float32; leave --segmentation out.")
    return np.dtype(chosen)


def converted(rows: NDArray[Any], dtype: np.dtype[Any], plane: str) -> NDArray[Any]:
    """`rows` of any shape in `dtype`, every value the same; raises InvalidInput naming the plane where one is not.

    float64 is rounded to the nearest float32.
    """
    if rows.dtype == dtype:
        return rows
    if dtype.kind in "iu" and rows.dtype.kind == "i" and rows.size:
        limits = np.iinfo(dtype)
        low, high = int(rows.min()), int(rows.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(
                f"{plane} has values from {low} to {high}, which {dtype.name} cannot hold; choose a wider --dtype."
            )
    with np.errstate(over="ignore"):
        result = rows.astype(dtype)
    if rows.dtype == np.float64 and not np.array_equal(np.isinf(result), np.isinf(rows)):
        raise InvalidInput(f"{plane} has values beyond {np.finfo(dtype).max:.3g}, which {dtype.name} cannot hold.")
    return result


def _listed() -> str:
    return ", ".join(DATA_TYPES)
