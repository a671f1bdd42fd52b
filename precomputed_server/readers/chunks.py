"""The chunk-name mapping: what is stored for `KEY/x0-x1_y0-y1_z0-z1`, and for any box of a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import NotFound
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, cells_overlapping, is_cell
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, parse_chunk_name
from precomputed_server.readers.base import Chunk, Place
from precomputed_server.readers.registry import fill_value, find_cell, place_of
from precomputed_server.readers.volumes import Volumes
from precomputed_server.readers.voxels import voxels_of

MAXIMUM_CHUNK_BYTES = 1 << 30


def parted(path: str) -> tuple[str, Box | None]:
    """The directory of the scale and the box that the path of a chunk names; None where it can be no chunk's."""
    directory, _, leaf = path.rpartition("/")
    return directory, parse_chunk_name(leaf.removesuffix(CHUNK_TIFF_SUFFIX))


def find_chunk(tree: Tree, volumes: Volumes, path: str, *, cached: bool = False) -> Chunk | None:
    """The chunk that `path` names, with or without `.tiff`; None when that is no cell of a scale of a volume.

    Raises NotFound for a cell of which nothing is stored, Unreadable for what is there and cannot be a chunk,
    BlockingIOError as `Tree.open` does with `cached`.
    """
    directory, box = parted(path)
    found = None if box is None else volumes.scale_at(directory, cached=cached)
    if box is None or found is None or not is_cell(found[1], box):
        return None
    chunk = find_cell(place_of(tree, volumes, *found), box, cached=cached)
    if chunk is None:
        raise NotFound("Nothing is stored for this chunk.")
    return chunk


def scale_place(tree: Tree, volumes: Volumes, directory: str) -> Place:
    """The scale whose chunks lie in `directory`; raises NotFound."""
    found = volumes.scale_at(directory)
    if found is None:
        raise NotFound(f"{directory} is not the directory of a scale.")
    return place_of(tree, volumes, *found)


def read_box(
    place: Place, box: Box, limit: int = MAXIMUM_CHUNK_BYTES, check: Callable[[], None] | None = None
) -> NDArray[Any]:
    """The voxels of any box of a scale, "(C, Z, Y, X)"; what is outside or absent has the fill value.

    A chunk takes at most `limit` bytes. Before each one `check` may say by raising that it has been enough.
    Raises Unreadable, and OSError as `Source.open` does.
    """
    x, y, z = box.size
    voxels = np.full((place.info.num_channels, z, y, x), fill_value(place), place.info.dtype)
    for cell in cells_overlapping(place.scale, box):
        if check is not None:
            check()
        whole = cell_box(place.scale, cell)
        chunk = find_cell(place, whole)
        if chunk is None:
            continue
        with chunk.stored:
            content = voxels_of(chunk.decode(limit), place, whole)
        part = whole.clipped(box)
        voxels[part.within(box)] = content[part.within(whole)]
    return voxels
