"""Lengths, sizes and counts as a microscopist writes them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNITS = ((1e6, "mm"), (1e3, "µm"), (0.0, "nm"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def length_text(nanometres: float) -> str:
    """A length: `1.8 µm`."""
    divisor, unit = next((size, name) for size, name in _UNITS if nanometres >= size)
    return f"{nanometres / (divisor or 1):.6g} {unit}"


def lengths_text(lengths_nm: Sequence[float]) -> str:
    """The edges of a voxel, x, y, z."""
    return " × ".join(map(length_text, lengths_nm))


def size_text(size: Sequence[int]) -> str:
    """An extent in voxels, x, y, z."""
    return " × ".join(map(str, size))


def bytes_text(count: int) -> str:
    """A number of bytes, in powers of 1000 and three digits: `1.23 GB`."""
    for size, name in _BYTES:
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count} B"


def kind_text(known: dict[str, Any]) -> str:
    """What the voxels of a dataset, or of a layer of one, are: `image, uint16, 2 channels`."""
    channels = known["num_channels"]
    parts = [known["type"], known["data_type"], f"{channels} channels" if channels > 1 else ""]
    return ", ".join(part for part in parts if part)


def counted(count: int, what: str) -> str:
    """A number of things: `1 dataset`, `20,000 datasets`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
