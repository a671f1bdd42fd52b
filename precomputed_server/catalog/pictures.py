"""Small pictures of datasets: which plane of which scale is drawn, and its pixels as a PNG file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np

from precomputed_server.catalog.records import Contrast, Dataset
from precomputed_server.errors import Busy, NotFound
from precomputed_server.files import Fingerprint, Tree, join
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import count_overlapping
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import RECORD, STATISTICS
from precomputed_server.format.painting import averaged, paint, paint_labels, picked
from precomputed_server.format.viewer_state import shown_colours
from precomputed_server.readers.chunks import read_box
from precomputed_server.readers.registry import place_of
from precomputed_server.readers.volumes import Volumes
from precomputed_server.readers.voxels import can_decode

SEGMENTATION = "segmentation"

_ABOUT = 0.6
"""A scale that has this part of the pixels that may be drawn is taken rather than one of four times as many."""

_MOST_BYTES = 256 << 20
"""Of chunks that are decoded for one picture."""

_MOST_CHUNKS = 4096
_LONGEST_S = 20.0
"""One thread of a worker draws all its pictures."""

_FORMAT = 1
"""Of the pictures: another one is another version of each."""


@dataclass(frozen=True)
class Plane:
    """What is drawn: a plane of a scale.

    `z` is the plane in voxels of the scale, `shown_z` in those of the finest one, counted from the volume's beginning;
    `width` and `height` are in pixels.
    """

    dataset: Dataset
    scale: ScaleInfo
    z: int
    shown_z: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        """Its voxels."""
        (x0, y0, _), (x1, y1, _) = self.scale.bounds.start, self.scale.bounds.stop
        return Box((x0, y0, self.z), (x1, y1, self.z + 1))


def plane_of(tree: Tree, dataset: Dataset, longest: int, z: int | None = None) -> Plane:
    """The plane to draw with at most `longest` pixels a side: at `z` of the finest scale, by default in the middle.

    Raises NotFound where nothing can be drawn.
    """
    for scale in _suitable(_scales_with_voxels(tree, dataset), longest):
        plane = _plane(dataset, scale, longest, z)
        if _chunks(plane) <= _MOST_CHUNKS and _decoded_bytes(dataset.volume.info, plane) <= _MOST_BYTES:
            return plane
    raise NotFound(
        f"A plane of {_name(dataset)} is too large, or is in too many chunks, to be drawn; it has no coarser scale."
    )


def coarsest_plane(tree: Tree, dataset: Dataset) -> Plane:
    """The middle of the coarsest scale in one pixel, however large it is: it stands for the scale. Raises NotFound."""
    return _plane(dataset, _scales_with_voxels(tree, dataset)[-1], 1, None)


def drawable_scales(tree: Tree, dataset: Dataset) -> list[ScaleInfo]:
    """The scales that have a directory and an encoding that is known, finest first; raises NotFound without any."""
    there = [scale for scale in dataset.volume.info.scales if min(scale.size) > 0 and _is_there(tree, dataset, scale)]
    if not there:
        raise NotFound(f"{_name(dataset)} has no chunks yet that could be drawn.")
    known = [scale for scale in there if can_decode(scale)]
    if not known:
        raise NotFound(f"Chunks of encoding {there[0].encoding} are sent, but not drawn here.")
    return known


def version_of(tree: Tree, plane: Plane, contrast: Sequence[Contrast] | None = None) -> str:
    """What tells one state of a picture from another: an entity tag, unquoted. It changes with `info`, the record, the
    statistics and the directory of the scale.
    """
    volume = plane.dataset.volume
    paths = [join(volume.path, name) for name in (RECORD, STATISTICS, plane.scale.key)]
    state = [_FORMAT, volume.fingerprint, *(_fingerprint(tree, path) for path in paths), contrast]
    drawn = [volume.path, plane.scale.key, plane.z, plane.width, plane.height]
    return hashlib.sha256(repr((state, drawn)).encode()).hexdigest()[:32]


def draw(tree: Tree, volumes: Volumes, plane: Plane, contrast: Sequence[Contrast] | None, limit: int) -> bytes:
    """A PNG file of the plane under `contrast`, of labels in colours of their own.

    A chunk takes at most `limit` bytes. Raises Unreadable, OSError, Busy when its chunks take too long.
    """
    volume = plane.dataset.volume
    ends = time.monotonic() + _LONGEST_S

    def check_time() -> None:
        if time.monotonic() >= ends:
            raise Busy(f"Reading a plane of {_name(plane.dataset)} takes too long; try again later.", 30)

    voxels = read_box(place_of(tree, volumes, volume, plane.scale), plane.box, limit, check_time)[:, 0]
    if volume.info.volume_type == SEGMENTATION:
        pixels = paint_labels(picked(voxels[0], plane.width, plane.height))
    else:
        planes = [averaged(channel, plane.width, plane.height) for channel in voxels]
        colours = shown_colours(plane.dataset.channels, len(planes))
        pixels = paint(planes, contrast or [_whole_range(volume.info)] * len(planes), colours)
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def _scales_with_voxels(tree: Tree, dataset: Dataset) -> list[ScaleInfo]:
    if min(dataset.volume.info.scales[0].size) < 1:
        raise NotFound(f"{_name(dataset)} has no voxels that could be drawn.")
    return drawable_scales(tree, dataset)


def _plane(dataset: Dataset, scale: ScaleInfo, longest: int, z: int | None) -> Plane:
    finest = dataset.volume.info.scales[0]
    depth = finest.size[2]
    shown = depth // 2 if z is None else min(max(z, 0), depth - 1)
    return Plane(dataset, scale, _z_in(scale, finest, shown), shown, *_pixels(scale, longest))


def _suitable(scales: Sequence[ScaleInfo], longest: int) -> Iterator[ScaleInfo]:
    """The coarsest scale of about the wanted size, else the finest; behind it those that are coarser still."""
    enough = [number for number, scale in enumerate(scales) if max(scale.size[:2]) >= _ABOUT * longest]
    return iter(scales[enough[-1] if enough else 0 :])


def _z_in(scale: ScaleInfo, finest: ScaleInfo, z: int) -> int:
    """The plane of a scale that has plane `z` of the finest in it, which is counted from the volume's beginning."""
    factor = scale.resolution_nm[2] / finest.resolution_nm[2]
    at = int((finest.voxel_offset[2] + z + 0.5) // factor)
    return min(max(at, scale.bounds.start[2]), scale.bounds.stop[2] - 1)


def _pixels(scale: ScaleInfo, longest: int) -> tuple[int, int]:
    """Width and height in the proportions of the tissue, no more than there are voxels along the longer side."""
    width, height = (length * edge for length, edge in zip(scale.size[:2], scale.resolution_nm[:2], strict=True))
    pixels = min(longest, max(scale.size[:2])) / max(width, height)
    return max(1, round(width * pixels)), max(1, round(height * pixels))


def _chunks(plane: Plane) -> int:
    return count_overlapping(plane.scale, plane.box)


def _decoded_bytes(info: VolumeInfo, plane: Plane) -> int:
    """The bytes of all the chunks that have a part of the plane."""
    x, y, z = (min(step, length) for step, length in zip(plane.scale.chunk_sizes[0], plane.scale.size, strict=True))
    return _chunks(plane) * info.array_bytes(Box((0, 0, 0), (x, y, z)))


def _is_there(tree: Tree, dataset: Dataset, scale: ScaleInfo) -> bool:
    try:
        os.close(tree.open(join(dataset.path, scale.key), os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _fingerprint(tree: Tree, path: str) -> Fingerprint | None:
    try:
        descriptor = tree.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        return Fingerprint.of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _whole_range(info: VolumeInfo) -> Contrast:
    """The values that the data type has; those of floating point have none."""
    if info.dtype.kind == "f":
        return 0.0, 1.0
    limits = np.iinfo(info.dtype)
    return float(limits.min), float(limits.max)


def _name(dataset: Dataset) -> str:
    return dataset.path or "."
