"""Giving a volume another offset: its `info`, and the files whose names say where their chunk lies.

Shards and zarr arrays number their chunks from the first one: nothing of theirs is renamed. Files of single chunks get
new names in a new directory, as hard links, and the directories are exchanged as after a conversion.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from converter.output.destination import Destination
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.grid import is_cell
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name, parse_chunk_name

_BLOCKFS = "precomputed.blockfs"
_OPERATION = "describe-"


def shifted(info: VolumeInfo, offset: Vector, known: Any) -> tuple[VolumeInfo, dict[str, Any]]:  # noqa: ANN401
    """The info whose finest scale begins at `offset`, and what the record has to keep of it.

    Coarser scales move by as many of their own voxels, rounded: by up to half of one they lie beside their place. What
    is kept are the offsets that the scales were made with, so that rounding does not add up: `known` is what was kept
    last, which counts if the scales are still where it put them.
    """
    now = [list(scale.voxel_offset) for scale in info.scales]
    made = known["made"] if isinstance(known, dict) and known.get("now") == now else now
    factors = [_factor(scale, info.scales[0]) for scale in info.scales]
    scales = []
    for scale, start, factor in zip(info.scales, made, factors, strict=True):
        x, y, z = (
            begin + round((wanted - first) / step)
            for begin, wanted, first, step in zip(start, offset, made[0], factor, strict=True)
        )
        scales.append(replace(scale, voxel_offset=(x, y, z)))
    return replace(info, scales=tuple(scales)), {"made": made, "now": [list(scale.voxel_offset) for scale in scales]}


def must_rename(destination: Destination, before: VolumeInfo, after: VolumeInfo) -> list[ScaleInfo]:
    """The scales, as they were, of which files have to be renamed; raises InvalidInput where that cannot be done."""
    found = []
    for old, new in zip(before.scales, after.scales, strict=True):
        directory = destination.path / old.key
        if old.voxel_offset == new.voxel_offset or not directory.is_dir():
            continue
        if (directory / _BLOCKFS).exists():
            raise InvalidInput(f"{directory} is BlockFS, whose chunks cannot be moved; convert it again instead.")
        with os.scandir(directory) as entries:
            if any(_renamed(entry.name, old, (0, 0, 0)) for entry in entries):
                _check_key(old.key)
                found.append(old)
    return found


def stage_renamed(destination: Destination, operation: str, scales: Sequence[ScaleInfo], after: VolumeInfo) -> None:
    """Build the directories of these scales anew in the staging area, each file under its new name."""
    for old in scales:
        new = after.scale(old.key)
        assert new is not None
        x, y, z = (b - a for a, b in zip(old.voxel_offset, new.voxel_offset, strict=True))
        staged = destination.staging / operation / old.key
        staged.mkdir(parents=True)
        with os.scandir(destination.path / old.key) as entries:
            for entry in entries:
                name = _renamed(entry.name, old, (x, y, z)) or entry.name
                _link(Path(entry.path), staged / name)


def forget_begun(destination: Destination) -> None:
    """Remove what a correction that was killed had staged; the caller holds the destination's lock."""
    for directory in destination.staging.glob(f"{_OPERATION}*"):
        shutil.rmtree(directory)


def _renamed(name: str, scale: ScaleInfo, shift: Vector) -> str | None:
    """The new name of a chunk's file, such as `0-64_0-64_0-25.tiff`; None for other files."""
    stem, dot, suffix = name.partition(".")
    box = parse_chunk_name(stem)
    return f"{chunk_name(box.moved(shift))}{dot}{suffix}" if box is not None and is_cell(scale, box) else None


def _factor(scale: ScaleInfo, finest: ScaleInfo) -> tuple[Fraction, Fraction, Fraction]:
    """How many voxels of the finest scale one of this scale is long, x, y, z."""
    edges = zip(scale.resolution_nm, finest.resolution_nm, strict=True)
    x, y, z = (Fraction(coarse) / Fraction(fine) for coarse, fine in edges)
    return x, y, z


def _check_key(key: str) -> None:
    if not set(key.split("/")).isdisjoint({"", ".", ".."}):
        raise InvalidInput(f"The scale {key!r} does not lie in the dataset; its chunks are not moved.")


def _link(path: Path, new: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, new, copy_function=os.link)
        return
    try:
        os.link(path, new)
    except OSError as error:
        raise InvalidInput(
            f"{new.parent} cannot be made of hard links ({error.strerror}), which moving chunks takes; convert again, "
            "with --crop, to another offset."
        ) from error
