"""From the voxels of a plane to the pixels of a picture: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shifts and factors that spread numbers which are alike over all 64 bits (SplitMix64, https://prng.di.unimi.it)."""


def averaged(plane: Array, width: int, height: int) -> Array:
    """The plane "(Y, X)" in `height` rows of `width`: float32, each the mean of the voxels that it covers."""
    rows, row_counts = _parts(plane.shape[0], height)
    columns, column_counts = _parts(plane.shape[1], width)
    if plane.dtype.kind == "f":
        plane = np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0)
    tall = np.add.reduceat(plane, rows, axis=0, dtype=np.float32) / row_counts[:, None]
    mean: Array = np.add.reduceat(tall, columns, axis=1, dtype=np.float32) / column_counts
    return mean


def picked(plane: Array, width: int, height: int) -> Array:
    """The plane "(Y, X)" in `height` rows of `width`, each one of the voxels that it covers: for labels."""
    (rows, _), (columns, _) = _parts(plane.shape[0], height), _parts(plane.shape[1], width)
    chosen: Array = plane[rows[:, None], columns]
    return chosen


def paint(
    planes: Sequence[Array], contrast: Sequence[tuple[float, float]], colours: Sequence[str | None]
) -> NDArray[np.uint8]:
    """The pixels of channels "(Y, X)" under their contrasts, their colours (`#rrggbb`) added up.

    "(Y, X, 3)", or "(Y, X)" in shades of grey of a single channel without a colour.
    """
    levels = [np.clip((plane - low) / (high - low), 0, 1) for plane, (low, high) in zip(planes, contrast, strict=True)]
    if len(levels) == 1 and colours[0] is None:
        return _bytes(levels[0])
    total = np.zeros((*levels[0].shape, 3), np.float32)
    for level, colour in zip(levels, colours, strict=True):
        total += level[..., None] * _components(colour)
    return _bytes(np.minimum(total, 1))


def paint_labels(labels: Array) -> NDArray[np.uint8]:
    """The pixels "(Y, X, 3)" of labels "(Y, X)": a colour for each that is always the same, black for 0."""
    mixed = labels.astype(np.uint64)
    for shift, factor in _MIXERS:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hue, strength, brightness = (_unit(mixed, shift) for shift in (48, 32, 16))
    strength, brightness = 0.5 + strength / 2, (0.6 + 0.4 * brightness) * (labels != 0)
    turns = (6 * hue[..., None] + np.array([0, 4, 2], np.float32)) % 6
    pure = np.clip(np.abs(turns - 3) - 1, 0, 1)
    return _bytes(brightness[..., None] * (1 - strength[..., None] * (1 - pure)))


def _parts(length: int, count: int) -> tuple[Array, Array]:
    """Where each of `count` parts of a length begins, and how many voxels it has; at least one."""
    starts = np.arange(count) * length // count
    return starts, np.maximum(np.diff(starts, append=length), 1).astype(np.float32)


def _components(colour: str | None) -> Array:
    red, green, blue = bytes.fromhex((colour or "#ffffff").removeprefix("#"))
    return np.array([red, green, blue], np.float32) / 255


def _unit(mixed: Array, shift: int) -> Array:
    """16 bits of each number, from 0 to 1."""
    return ((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float32) / 0xFFFF


def _bytes(levels: Array) -> NDArray[np.uint8]:
    """Levels from 0 to 1 as bytes."""
    pixels: NDArray[np.uint8] = np.rint(levels * 255).astype(np.uint8)
    return pixels
