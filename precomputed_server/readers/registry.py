"""Which layout a scale is stored in, by what lies in its directory."""

from __future__ import annotations

from collections.abc import Iterator

from precomputed_server.files import Tree, join
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from precomputed_server.readers import blockfs, zarr
from precomputed_server.readers.base import Chunk, ChunkReader, Place
from precomputed_server.readers.per_file import PerFile
from precomputed_server.readers.sharded import Sharded
from precomputed_server.readers.source import Directory
from precomputed_server.readers.volumes import Volume, Volumes

_WHOLE = -1
"""Of a key of `Indices`: not a part of a file, but the scale."""


def layouts(place: Place, *, cached: bool = False) -> Iterator[ChunkReader]:
    """The layouts in which a chunk of the scale may lie, in the order in which they are asked.

    Files of single chunks come first, so that what is most frequent costs no look at anything else. Raises as
    `Source.open` does.
    """
    if place.stack is not None:
        yield place.stack.reader(place)
        return
    if place.scale.other.get("sharding") is not None:
        yield Sharded.of(place)
        return
    yield PerFile(place)
    for found in (blockfs.found, zarr.found):
        reader = found(place, cached=cached)
        if reader is not None:
            yield reader


def fill_value(place: Place) -> float:
    """What the voxels are of which nothing is stored; raises as `layouts` does."""
    *_, last = layouts(place)
    return last.fill_value


def place_of(tree: Tree, volumes: Volumes, volume: Volume, scale: ScaleInfo) -> Place:
    """A scale in its directory; made once for each state of `info`."""
    directory = join(volume.path, scale.key)

    if volume.stack is not None:  # which is remembered by who found it, and not for longer
        return Place(Directory(tree, directory), volume.info, scale, volumes.indices, volume.stack)

    def make() -> tuple[Place, int]:
        return Place(Directory(tree, directory), volume.info, scale, volumes.indices), 0

    return volumes.indices.of((directory, _WHOLE), volume.fingerprint, make)


def find_cell(place: Place, box: Box, *, cached: bool = False) -> Chunk | None:
    """The chunk `box` of a scale, open, or None when no layout has it; raises as `ChunkReader.stored` does."""
    for reader in layouts(place, cached=cached):
        stored = reader.stored(box, cached=cached)
        if stored is not None:
            return Chunk(place.info, box, stored, reader)
    return None
