"""Rows of planes that neighbouring chunks are cut from: read once for all of them, and kept for a while."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray

from converter.stacks.stack_source import StackSource
from precomputed_server.errors import SourceError
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from precomputed_server.recent import Weighed

Array = NDArray[Any]

_LOCKS = 16
_SHARE = 4
"""A band takes at most this part of what all may take."""


class Bands:
    """At most `bound` bytes of bands of several stacks; safe between threads, of which one reads each band."""

    def __init__(self, bound: int) -> None:
        self._most = bound // _SHARE
        self._kept: Weighed[tuple[str, Box], Array] = Weighed(bound)
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def cut(self, version: str, source: StackSource, scale: ScaleInfo, box: Box) -> Array:
        """The voxels "(C, Z, Y, X)" of the chunk `box` of a stack in that state; raises SourceError, InvalidInput."""
        voxel_bytes = source.num_channels * source.dtype.itemsize
        band = band_of(scale, box, source.grain[1], self._most // voxel_bytes)
        if band == box:
            return source.read(box)
        with self._locks[hash((version, band)) % _LOCKS]:
            voxels = self._kept.get((version, band))
            if voxels is None:
                try:
                    voxels = source.read(band)
                except SourceError:
                    return source.read(box)  # of which perhaps nothing is damaged
                self._kept.put((version, band), voxels, voxels.nbytes)
        return voxels[box.within(band)]


def band_of(scale: ScaleInfo, box: Box, grain: int, most: int) -> Box:
    """The chunks that are read together with the chunk `box`: neighbours along x, and along y where rows are decoded
    together.

    They have at most `most` voxels in all, and are the same for each of them. `grain` rows cost as much as one.
    """
    columns, rows, depth = scale.chunk_sizes[0]
    across = max(1, min(-(-scale.size[0] // columns), most // (columns * rows * depth)))
    width = across * columns
    whole = width >= scale.size[0]
    down = max(1, min(-(-grain // rows), most // (min(width, scale.size[0]) * rows * depth))) if whole else 1
    step = width, down * rows, depth
    low = tuple(
        (at - offset) // length * length + offset
        for at, offset, length in zip(box.start, scale.voxel_offset, step, strict=True)
    )
    high = tuple(at + length for at, length in zip(low, step, strict=True))
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).clipped(scale.bounds)
