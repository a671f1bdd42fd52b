"""Making the chunks of a finished dataset again, from the stack that it was made of."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converter.conversion import Conversion, prepare
from converter.output.corrections import Corrected, corrected_edges
from converter.output.recorded import Manifest, Recorded
from converter.pyramid.build import Build, make_plan
from converter.pyramid.crew import ThisMachine
from converter.pyramid.results import Found, gather
from converter.pyramid.target import Mending, Stamp
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import ScaleInfo, VolumeInfo

Cells = Mapping[int, frozenset[Vector]]
"""Cells by level."""


def conversion_of(dataset: Recorded, source: tuple[str, ...], jobs: int | None) -> Conversion:
    """The conversion that made the dataset, of `source` if the stack lies elsewhere now.

    Raises InvalidInput when it would make another dataset now.
    """
    # With the edges that it knew: what was said of a voxel later moves no level.
    known = Corrected(corrected_edges(dataset.record, dataset.options.source.view))
    options = replace(dataset.options, jobs=jobs, on_error=dataset.on_error)
    conversion = prepare(source or dataset.sources, options, known)
    found, made = _voxels(conversion.info), _voxels(dataset.info)
    if found == made and [_shape(scale) for scale in conversion.scales] != [_shape(scale) for scale in dataset.scales]:
        raise InvalidInput(
            f"This version of the program would make other levels or chunks of the source than those of "
            f"{dataset.destination.path}; convert again with --overwrite."
        )
    if found != made:
        raise InvalidInput(
            f"The source is not the one that {dataset.destination.path} was made of: it has {found} instead of {made}; "
            "name the right one with --from."
        )
    return conversion


def remade(dataset: Recorded, conversion: Conversion, only: Cells | None, write: Cells) -> Found:
    """What comes out when chunks are made again: all, or `only` those; of others nothing is said then.

    Those of `write` are written of which the same comes out as the conversion wrote; nothing else is. Planes that the
    conversion left out are left out; raises SourceError for others that cannot be read.
    """
    directory = dataset.destination.verifying / uuid.uuid4().hex
    wanted = _recorded(dataset.manifest, write)
    target = Mending(dataset.destination.path, dataset.scales, dataset.writer, wanted)
    crew = ThisMachine(conversion.options.processes, conversion.options.memory)
    pyramid, source = conversion.pyramid, conversion.source.without(dataset.lost)
    plan = make_plan(pyramid, source, crew)
    on_error = conversion.options.on_error
    build = Build(pyramid, source, conversion.volume, target, directory, plan, crew, on_error, only)
    shutil.rmtree(dataset.destination.verifying, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        build.run(None)
        found = gather(build.journal, conversion.pyramid, conversion.volume)
    finally:
        shutil.rmtree(dataset.destination.verifying, ignore_errors=True)
    lost = set(found.unreadable) - set(dataset.unreadable)
    if lost:
        raise SourceError(min(lost))  # the conversion could read it
    return found


def _recorded(manifest: Manifest, cells: Cells) -> dict[int, dict[Vector, Stamp]]:
    """Sizes and checksums of what the conversion wrote at these cells."""
    return {
        level: {(x, y, z): _stamp(manifest[level][z, y, x]) for x, y, z in places} for level, places in cells.items()
    }


def _stamp(element: Any) -> Stamp:  # noqa: ANN401
    return int(element["size"]), int(element["crc32"]), int(element["adler32"])


def _shape(scale: ScaleInfo) -> tuple[object, ...]:
    """What a scale is, wherever it lies and whatever the size of its voxels."""
    return scale.key, scale.size, scale.chunk_sizes, scale.encoding


def _voxels(info: VolumeInfo) -> str:
    more = f" in {info.num_channels} channels" if info.num_channels > 1 else ""
    return f"{' × '.join(map(str, info.scales[0].size))} voxels of {info.data_type}{more}"
