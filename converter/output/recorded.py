"""A dataset that this program converted, with all that its records say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.options import ConvertOptions, options_from_json
from converter.output.destination import Destination, read_info, read_json
from converter.pyramid.results import STORED
from converter.pyramid.tasks import BLANK, FAIL, SKIP
from converter.stacks.plane import PlanePlace
from converter.writers import Voxels, Writer, writer
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.format.grid import cell_box, grid_shape
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import MANIFEST, PROVENANCE

Manifest = tuple[NDArray[Any], ...]
"""An element of STORED for each cell of a level, "(Z, Y, X)"."""


_OLDER = np.dtype([("size", "<u8"), ("crc32", "<u4")])
"""What manifests had before."""


@dataclass(frozen=True)
class Recorded:
    """A converted dataset: `record` is that of the conversion, `manifest` what it wrote."""

    destination: Destination
    record: Mapping[str, Any]
    options: ConvertOptions
    info: VolumeInfo
    writer: Writer
    manifest: Manifest

    @property
    def scales(self) -> tuple[ScaleInfo, ...]:
        """The levels, finest first."""
        return self.info.scales

    @property
    def sources(self) -> tuple[str, ...]:
        """What it was made of."""
        return tuple(self.record["source"])

    @property
    def lost(self) -> Mapping[PlanePlace, str]:
        """Why the conversion left planes out, by their places in the source."""
        return {(place, channel): str(reason) for place, channel, reason in self.record.get("lost", ())}

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The sentences on these planes, of which older records do not tell the places."""
        if "lost" in self.record:
            return tuple(self.lost.values())
        return tuple((read_json(self.destination.path / PROVENANCE) or {}).get("unreadable", ()))

    @property
    def on_error(self) -> str:
        """What the conversion did about planes that it could not read; where there were none, there are to be none."""
        if not self.unreadable:
            return FAIL
        lacks = not self.manifest[0]["size"].all()
        return str(self.record.get("on_error", SKIP if lacks else BLANK))

    def stored(self, scale: ScaleInfo, cell: Vector) -> bytes | None:
        """The bytes of a chunk as they lie; None where there is no chunk."""
        try:
            return self.writer.stored(self.destination.path / scale.key, scale, cell_box(scale, cell))
        except Unreadable:
            return None


def open_recorded(destination: Destination) -> Recorded:
    """Read the records of a dataset; raises NotFound, InvalidInput for one that this program did not convert."""
    info = read_info(destination)
    record = read_json(destination.conversion)
    if record is None or "options" not in record or not (destination.path / MANIFEST).is_dir():
        raise InvalidInput(
            f"{destination.path} has no manifest of its chunks; only what this program converted has one."
        )
    options = options_from_json(record["options"])
    chosen = writer(options.output, Voxels(info.dtype, info.num_channels, options.chunk_size))
    manifest = tuple(_load(destination, scale) for scale in info.scales)
    return Recorded(destination, record, options, info, chosen, manifest)


def _load(destination: Destination, scale: ScaleInfo) -> NDArray[Any]:
    path = destination.path / MANIFEST / f"{scale.key}.npy"
    try:
        entries: NDArray[Any] = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise Unreadable(f"The manifest {path} cannot be read; convert again with --overwrite.") from error
    if entries.dtype not in (STORED, _OLDER) or entries.shape != grid_shape(scale)[::-1]:
        raise Unreadable(f"The manifest {path} is not that of scale {scale.key}; convert again with --overwrite.")
    return entries
