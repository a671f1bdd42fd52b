"""Converting a TIFF stack into a dataset: the whole of it, from the source to the finished destination."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import precomputed_server
from converter.build import Building, build
from converter.data_type import stored_type
from converter.destination import (
    Destination,
    Existing,
    check_keys,
    clear_leftovers,
    existing_pyramid,
    has_annotations,
    locked,
    must_transform,
    read_json,
)
from converter.options import ConvertOptions, Summary
from converter.progress import Progress
from converter.scales import Level, levels, volume_info
from converter.source import Stack, read_stack
from converter.statistics import statistics
from converter.swap import SwapPlan, TransformAnnotations, begin_swap, interrupted_swap, roll_forward
from converter.tasks import StoredScale, Volume
from converter.voxel_size import VoxelSize, voxel_size
from converter.writers import Voxels, writer
from precomputed_server.errors import InvalidInput
from precomputed_server.files import typed
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO, CONVERSION, RECORD, STATISTICS

_BLOCKS = f"{ANNOTATIONS}/{BLOCK_INFO}"


@dataclass(frozen=True)
class _Conversion:
    """A conversion that has been checked and can begin."""

    sources: tuple[str, ...]
    options: ConvertOptions
    stack: Stack
    voxel_size: VoxelSize
    volume: Volume
    levels: tuple[Level, ...]
    operation: str
    began: float

    @property
    def info(self) -> VolumeInfo:
        """The `info` that the dataset will have."""
        kind = "segmentation" if self.volume.segmentation else "image"
        return volume_info(self.levels, self.volume.dtype.name, self.volume.num_channels, kind)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the levels, finest first."""
        return tuple(level.scale.key for level in self.levels)


def convert(
    source: Sequence[str] | str,
    dest: Path,
    options: ConvertOptions,
    progress: Progress | None = None,
    transform_annotations: TransformAnnotations | None = None,
) -> Summary:
    """Convert the TIFF planes of `source` (directories, globs, files) into a precomputed dataset at `dest`.

    The pyramid is built beside whatever `dest` holds and put in place at the end, `info` last: a killed conversion
    leaves no new dataset, or is finished by the next one. A script that calls this needs the usual
    `if __name__ == "__main__":`, because worker processes import its module.

    Each process holds at most 256 MiB of voxels at a time, a few rows of chunks or a part of one row, or the eight
    chunks that one of the next level is made from where these are larger; beside them, the rows of one plane, or one
    decoded strip or tile of a compressed one.

    Raises InvalidInput, SourceError, DestinationExists, Busy, StorageFull and other PrecomputedErrors.
    """
    sources = (source,) if isinstance(source, str) else tuple(source)
    destination = Destination(Path(dest))
    try:
        finished = _finish_interrupted(destination, transform_annotations)
        if finished is not None and not options.overwrite and finished == _request(sources, options):
            return _finished_summary(destination)
        existing_pyramid(destination, options.overwrite)
        conversion = _prepare(sources, options)
        with locked(destination):
            return _run(conversion, destination, progress, transform_annotations)
    except OSError as error:
        raise typed(error, str(error.filename or dest), writing=True) from error


def was_made_of(dataset: Path, source: str, options: ConvertOptions) -> bool:
    """Whether the dataset at `dataset` was converted from `source` with these `options`."""
    return _request_recorded(Destination(dataset)) == _request((source,), options)


def _prepare(sources: tuple[str, ...], options: ConvertOptions) -> _Conversion:
    """Read and check the source; nothing is written."""
    began = time.time()
    stack = read_stack(sources)
    size = voxel_size(stack.metadata, options.voxel_size, options.assumed_voxel_size)
    dtype = stored_type(stack.dtype, options.dtype, options.segmentation)
    if options.segmentation and stack.num_channels > 1:
        raise InvalidInput(
            f"Labels have one channel and {sources[0]} has {stack.num_channels}; leave --segmentation out."
        )
    volume = Volume(dtype, stack.num_channels, options.segmentation)
    pyramid = levels(stack.size, size.nanometres, options.pyramid)
    return _Conversion(sources, options, stack, size, volume, pyramid, uuid.uuid4().hex, began)


def _run(
    conversion: _Conversion,
    destination: Destination,
    progress: Progress | None,
    transform: TransformAnnotations | None,
) -> Summary:
    existing = existing_pyramid(destination, conversion.options.overwrite)
    check_keys(destination, existing, conversion.keys)
    info = _with_kept_members(conversion.info, existing)
    transforming = must_transform(destination, existing, info, conversion.options.annotations)
    if transforming and transform is None:
        raise InvalidInput("Annotations are moved by the command line; use `precomputed convert`.")
    blocks = _replaced_blocks(conversion, destination, existing)
    clear_leftovers(destination)
    staging = destination.staging / conversion.operation
    try:
        stored = _stored_scales(conversion, staging)
        steps = tuple(level.step for level in conversion.levels)
        written = build(Building(conversion.stack, stored, steps, conversion.options.processes), progress)
        plan = SwapPlan(
            operation=conversion.operation,
            new_scales=conversion.keys,
            old_scales=existing.scales,
            info=info,
            old_info=existing.info,
            transform=transforming,
            files={**_files(conversion, stored[-1]), **blocks},
            new_files=_new_files(conversion, destination),
        )
    except BaseException:
        shutil.rmtree(destination.staging, ignore_errors=True)
        raise
    begin_swap(destination, plan)
    roll_forward(destination, plan, transform)
    seconds = time.time() - conversion.began
    return Summary(destination.path, info, conversion.voxel_size, written.chunks, written.bytes, seconds)


def _stored_scales(conversion: _Conversion, staging: Path) -> tuple[StoredScale, ...]:
    stored = []
    volume, options = conversion.volume, conversion.options
    chosen = writer(options.output, Voxels(volume.dtype, volume.num_channels, options.chunk_size))
    for level in conversion.levels:
        directory = staging / level.scale.key
        directory.mkdir(parents=True)
        stored.append(StoredScale(directory, level.scale, chosen, conversion.volume))
    return tuple(stored)


def _with_kept_members(info: VolumeInfo, existing: Existing) -> VolumeInfo:
    """The new info with the members of the old one that this program does not know, such as a mesh directory."""
    return info if existing.info is None else replace(info, other={**info.other, **existing.info.other})


def _files(conversion: _Conversion, coarsest: StoredScale) -> dict[str, str]:
    """The files that each conversion replaces."""
    record = {
        "format": 1,
        "scales": list(conversion.keys),
        **_request(conversion.sources, conversion.options),
        "command": sys.argv,
        "voxel_size": conversion.voxel_size.to_json(),
        "versions": {
            "precomputed-server": precomputed_server.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "began": _time_text(conversion.began),
        "ended": _time_text(time.time()),
    }
    return {
        CONVERSION: _json_text(record),
        STATISTICS: _json_text(statistics(coarsest)),
    }


def _new_files(conversion: _Conversion, destination: Destination) -> dict[str, str]:
    """The files that are somebody's own as soon as they exist."""
    record = {
        "format": 1,
        "id": uuid.uuid4().hex,
        "title": destination.path.resolve().name,
        "voxel_size": conversion.voxel_size.to_json(),
    }
    return {
        RECORD: _json_text(record),
        _BLOCKS: _block_info(conversion.options.annotation_block or conversion.stack.size),
    }


def _replaced_blocks(conversion: _Conversion, destination: Destination, existing: Existing) -> dict[str, str]:
    """The block sizes, where a conversion left its own before and no annotation lies in such a block.

    Raises InvalidInput when --annotation-block differs from what annotations lie in.
    """
    asked = conversion.options.annotation_block
    path = destination.path / _BLOCKS
    old = path.read_text() if path.exists() else None
    new = _block_info(asked or conversion.stack.size)
    if old is None or old == new:
        return {}
    if has_annotations(destination):
        if asked is not None:
            raise InvalidInput(
                f"The annotations of {destination.path} lie in blocks of {old.strip()} voxels; leave "
                "--annotation-block out to keep them."
            )
        return {}
    ours = existing.info is not None and old == _block_info(existing.info.scales[0].size)
    return {_BLOCKS: new} if ours or asked is not None else {}


def _block_info(size: Vector) -> str:
    return ",".join(map(str, size)) + "\n"


def _finish_interrupted(destination: Destination, transform: TransformAnnotations | None) -> dict[str, Any] | None:
    """Carry out a swap that was interrupted; returns the request that it was for."""
    if not destination.swap.exists():
        return None
    with locked(destination):
        plan = interrupted_swap(destination)
        if plan is not None:
            roll_forward(destination, plan, transform)
    return _request_recorded(destination)


def _finished_summary(destination: Destination) -> Summary:
    record = read_json(destination.conversion) or {}
    info = VolumeInfo.from_bytes(destination.info.read_bytes())
    return Summary(destination.path, info, VoxelSize.from_json(record["voxel_size"]))


def _request(sources: tuple[str, ...], options: ConvertOptions) -> dict[str, Any]:
    """What tells one conversion from another."""
    return {"source": [os.path.abspath(source) for source in sources], "options": options.to_json()}


def _request_recorded(destination: Destination) -> dict[str, Any]:
    """The request that the dataset was made for."""
    record = read_json(destination.conversion) or {}
    return {name: record.get(name) for name in ("source", "options")}


def _json_text(members: dict[str, Any]) -> str:
    return json.dumps(members, indent=2) + "\n"


def _time_text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
