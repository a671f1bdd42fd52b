"""Each chunk as a TIFF file of one stream, which the server sends as it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.writers.compression import deflated, inflated, zstd_compressed, zstd_decompressed
from converter.writers.files import FilePerChunk, bytes_of, shaped
from converter.writers.protocol import Array, Pieces
from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, chunk_name
from precomputed_server.format.tiff import DEFLATE, HEADER_BYTES, ZSTD, chunk_header, parse_stream


@dataclass(frozen=True)
class TiffWriter(FilePerChunk):
    """Chunks as `NAME.tiff`, "(C·Z, Y, X)"; `compression` is DEFLATE or ZSTD."""

    compression: int = DEFLATE

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """The chunk's name with `.tiff`."""
        return directory / f"{chunk_name(box)}{CHUNK_TIFF_SUFFIX}"

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """Header and stream."""
        channels, depth, rows, columns = chunk.shape
        compress = zstd_compressed if self.compression == ZSTD else deflated
        stream = compress(bytes_of(chunk))
        header = chunk_header((channels * depth, rows, columns), chunk.dtype, len(stream), self.compression)
        return header, stream

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Inflate the stream."""
        name = f"{chunk_name(box)}{CHUNK_TIFF_SUFFIX}"
        where = parse_stream(stored[:HEADER_BYTES], len(stored))
        if where is None:
            raise Unreadable(f"{name} is not a chunk of this conversion; convert again.")
        decompress = zstd_decompressed if where.compression == ZSTD else inflated
        voxels = decompress(memoryview(stored)[where.offset : where.offset + where.length], name)
        return shaped(voxels, box, channels, dtype)
