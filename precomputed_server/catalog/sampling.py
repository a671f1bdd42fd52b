"""Range and histogram of a volume that was not converted by us: of a part of its coarsest scale."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from precomputed_server.catalog.pictures import SEGMENTATION, drawable_scales
from precomputed_server.catalog.records import Dataset
from precomputed_server.errors import NotFound
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, grid_shape
from precomputed_server.format.statistics import Channel
from precomputed_server.readers.chunks import read_box
from precomputed_server.readers.registry import place_of
from precomputed_server.readers.volumes import Volumes

_MOST_BYTES = 32 << 20
"""Of voxels that are looked at; at least one chunk is."""

_MOST_CHUNKS = 256
_LONGEST_S = 20.0
"""After which the chunks that were looked at, at least one, are the sample."""


def sampled_figures(tree: Tree, volumes: Volumes, dataset: Dataset, limit: int) -> list[dict[str, Any]]:
    """The figures of each channel, as `statistics.json` has them, of chunks spread over the coarsest scale.

    A chunk takes at most `limit` bytes. Raises NotFound where there is nothing to measure, Unreadable, OSError.
    """
    volume = dataset.volume
    if volume.info.volume_type == SEGMENTATION:
        raise NotFound(f"{dataset.path or '.'} has no histogram: labels are counted, not measured.")
    scale = drawable_scales(tree, dataset)[-1]
    shape = grid_shape(scale)
    x, y, z = (min(step, length) for step, length in zip(scale.chunk_sizes[0], scale.size, strict=True))
    chunk_bytes = volume.info.array_bytes(Box((0, 0, 0), (x, y, z)))
    if chunk_bytes > limit:
        raise NotFound(f"{dataset.path or '.'} has no histogram: its chunks are larger than this server decodes.")
    count = min(max(1, _MOST_BYTES // chunk_bytes), _MOST_CHUNKS)
    total = shape[0] * shape[1] * shape[2]
    place = place_of(tree, volumes, volume, scale)
    channels = [Channel() for _ in range(volume.info.num_channels)]
    ends = time.monotonic() + _LONGEST_S
    for number in _spread(total, count):
        cell = (number % shape[0], number // shape[0] % shape[1], number // (shape[0] * shape[1]))
        voxels = read_box(place, cell_box(scale, cell), limit)
        for channel, part in zip(channels, voxels, strict=True):
            channel.look(part, part)
        if time.monotonic() >= ends:
            break
    return [channel.figures(volume.info.dtype) for channel in channels]


def _spread(total: int, count: int) -> Iterator[int]:
    """At most `count` of the numbers below `total`, the middle of as many equal parts; the first few spread as well."""
    parts = min(total, count)
    stride = next(step for step in range(max(1, round(parts * 0.618)), 2 * parts + 1) if math.gcd(step, parts) == 1)
    return ((2 * (part * stride % parts) + 1) * total // (2 * parts) for part in range(parts))
