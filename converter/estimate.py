"""How large a dataset will be, and how long its conversion takes: measured on a few chunks of the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from isal import isal_zlib

from converter.pyramid.scales import Level
from converter.stacks.stack_source import StackSource
from precomputed_server.format.geometry import Box, Vector

_SAMPLES = 3
_LONGEST_S = 3.0


@dataclass(frozen=True)
class Estimate:
    """What a dataset takes: bytes as raw voxels and as deflated chunks, and seconds with that many processes."""

    raw_bytes: int
    deflated_bytes: int
    seconds: float
    processes: int

    def to_json(self) -> dict[str, Any]:
        """The members of the estimate."""
        return {
            "raw_bytes": self.raw_bytes,
            "deflated_bytes": self.deflated_bytes,
            "seconds": round(self.seconds, 1),
            "processes": self.processes,
        }


def estimate(source: StackSource, pyramid: tuple[Level, ...], processes: int) -> Estimate:
    """Read and deflate chunks at the beginning, in the middle and at the end, and take the rest to be like them.

    Raises SourceError for planes that cannot be read.
    """
    chunk = pyramid[0].scale.chunk_sizes[0]
    voxel_bytes = source.num_channels * source.dtype.itemsize
    raw = sum(level.scale.bounds.voxels for level in pyramid) * voxel_bytes
    read_s = deflate_s = 0.0
    decoded = voxels = deflated = 0
    for box in _samples(source.bounds, chunk):
        began = time.perf_counter()
        block = source.read(box)
        read = time.perf_counter()
        deflated += len(isal_zlib.compress(memoryview(block.reshape(-1).view(np.uint8).data), 1))
        deflate_s += time.perf_counter() - read
        read_s += read - began
        decoded, voxels = decoded + source.decoded_bytes(box), voxels + block.nbytes
        if read_s + deflate_s > _LONGEST_S:
            break
    share = Fraction(raw, voxels)
    once = source.decoded_bytes(source.bounds) / decoded
    seconds = (read_s * once + deflate_s * float(share)) / processes
    return Estimate(raw, int(deflated * share), seconds, processes)


def _samples(bounds: Box, chunk: Vector) -> Iterator[Box]:
    for number in range(_SAMPLES):
        start = [
            low + (length - min(length, step)) * number // (_SAMPLES - 1)
            for low, length, step in zip(bounds.start, bounds.size, chunk, strict=True)
        ]
        stop = [low + min(length, step) for low, length, step in zip(start, bounds.size, chunk, strict=True)]
        yield Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
