"""Each chunk in a file of the name that clients ask for, encoded as `info` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.writers.files import FilePerChunk, bytes_of, shaped
from converter.writers.protocol import Array, Pieces
from precomputed_server.format.geometry import Box


@dataclass(frozen=True)
class RawWriter(FilePerChunk):
    """Chunks as their little-endian voxels, x fastest, channel slowest."""

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """The voxels."""
        return (bytes_of(chunk),)

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The voxels."""
        return shaped(stored, box, channels, dtype)
