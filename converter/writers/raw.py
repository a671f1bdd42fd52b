"""Each chunk in a file of the name that clients ask for, or in a compressed sibling that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converter.writers.compression import Buffer, gzipped, inflated, zstd_compressed, zstd_decompressed
from converter.writers.encodings import Encoding, Raw
from converter.writers.files import FilePerChunk
from converter.writers.protocol import Array, Pieces
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import chunk_name


@dataclass(frozen=True)
class Compression:
    """A way to compress whole files: what it adds to their names, and both directions."""

    suffix: str
    compress: Callable[[Buffer], bytes]
    decompress: Callable[[Buffer, str], bytes]


COMPRESSIONS: Mapping[str, Compression] = {
    "gzip": Compression(".gz", gzipped, inflated),
    "zstd": Compression(".zstd", zstd_compressed, zstd_decompressed),
}
"""The suffixes are those that cloud-volume writes and reads; the server sends such files as they lie."""


@dataclass(frozen=True)
class RawWriter(FilePerChunk):
    """Chunks as files; `compression` is one of COMPRESSIONS or `none`."""

    encoding: Encoding = Raw()
    compression: str = "none"

    @property
    def lossy(self) -> bool:
        """As the encoding is."""
        return self.encoding.lossy

    def described(self, scale: ScaleInfo, level: int) -> ScaleInfo:
        """With its encoding."""
        return replace(scale, encoding=self.encoding.name, other={**scale.other, **self.encoding.members})

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """The chunk's name, with what the compression adds."""
        return directory / f"{chunk_name(box)}{self._suffix}"

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """The encoded chunk."""
        encoded = self.encoding.encode(chunk)
        compression = COMPRESSIONS.get(self.compression)
        return (encoded if compression is None else compression.compress(encoded),)

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Both undone."""
        compression = COMPRESSIONS.get(self.compression)
        if compression is not None:
            stored = compression.decompress(stored, f"{chunk_name(box)}{self._suffix}")
        return self.encoding.decode(stored, box, channels, dtype)

    @property
    def _suffix(self) -> str:
        compression = COMPRESSIONS.get(self.compression)
        return "" if compression is None else compression.suffix
