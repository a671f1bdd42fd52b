"""Files of other hands in the directories of levels, which would be removed with a pyramid that is replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.output.destination import Destination, Existing, read_json
from converter.writers.raw import COMPRESSIONS
from precomputed_server.errors import DestinationExists
from precomputed_server.format.grid import is_cell
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, parse_chunk_name
from precomputed_server.writing import is_temporary

_SUFFIXES = {
    "tiff": {CHUNK_TIFF_SUFFIX},
    "raw": {"", *(compression.suffix for compression in COMPRESSIONS.values())},
}
_SHARDS = re.compile(r"[0-9a-f]+\.shard|\.chunks/.*")
_ARRAY = re.compile(r"\.zarray|\d+(/\d+)*")


def check_levels(destination: Destination, existing: Existing) -> None:
    """Raise DestinationExists naming a file in a directory of our scales that this program did not write."""
    made = read_json(destination.conversion) or {}
    options: dict[str, Any] = made.get("options") or {}
    for key in existing.scales:
        scale = None if existing.info is None else existing.info.scale(key)
        for name in _files(destination.path / key):
            if not _is_ours(name, options.get("format", ""), scale):
                raise DestinationExists(
                    f"{destination.path / key / name} was not written by this program and would be removed with the "
                    "pyramid that is replaced; move it away or choose another destination."
                )


def _files(directory: Path) -> Iterator[str]:
    """The files below a directory, by their paths in it; links count as files."""
    for place, directories, files in os.walk(directory):
        links = (name for name in directories if os.path.islink(os.path.join(place, name)))
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(place, name), directory)


def _is_ours(name: str, format_name: str, scale: ScaleInfo | None) -> bool:
    """Whether a conversion to that format writes files of such a name into the directory of the scale."""
    if is_temporary(name):
        return True
    if format_name == "sharded":
        return _SHARDS.fullmatch(name) is not None
    if format_name in ("zarr", "ngff"):
        return _ARRAY.fullmatch(name) is not None or is_temporary(os.path.basename(name))
    stem, dot, suffix = name.partition(".")
    box = parse_chunk_name(stem)
    if box is None or dot + suffix not in _SUFFIXES.get(format_name, {dot + suffix}):
        return False
    return scale is None or is_cell(scale, box)
