"""What a dataset is to be written as, and the writer for it: the one table of formats and what each of them can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from converter.writers.encodings import COMPRESSED_SEGMENTATION, CompressedSegmentation, Encoding, Jpeg, Png, Raw
from converter.writers.protocol import Writer
from converter.writers.raw import COMPRESSIONS, RawWriter
from converter.writers.sharded import ShardedWriter
from converter.writers.tiff import TiffWriter
from converter.writers.zarr import COMPRESSORS, ZarrWriter
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.tiff import DEFLATE, ZSTD

ENCODINGS = ("raw", "jpeg", "png", COMPRESSED_SEGMENTATION)
_IMAGES = ("jpeg", "png")
_MIB = 1 << 20


@dataclass(frozen=True)
class Output:
    """The choice of a format; raises InvalidInput for what no volume can be written as.

    `compress` None is the format's own choice; `shard_size` is in MiB of voxels, `jpeg_quality` from 1 to 100.
    """

    format: str = "tiff"
    compress: str | None = None
    encoding: str = "raw"
    jpeg_quality: int = 90
    shard_size: int = 1024

    def __post_init__(self) -> None:
        if self.format == "blockfs":
            raise InvalidInput("--format blockfs is read but not written; --format sharded makes as few files.")
        if self.format not in FORMATS:
            raise InvalidInput(f"The format {self.format!r} cannot be written; use --format {_either(FORMATS)}.")
        chosen = FORMATS[self.format]
        if self.encoding not in chosen.encodings:
            others = [name for name, known in FORMATS.items() if self.encoding in known.encodings]
            remedy = f"--format {_either(others)}" if others else f"--encoding {_either(ENCODINGS)}"
            raise InvalidInput(f"--format {self.format} has no encoding {self.encoding}; use {remedy}.")
        if self.compress not in (None, *chosen.compressions):
            remedy = f"--compress {_either(chosen.compressions)}"
            raise InvalidInput(f"--format {self.format} is not compressed by {self.compress}; use {remedy}.")
        if self.encoding in _IMAGES and self.compress not in (None, "none"):
            raise InvalidInput(f"--encoding {self.encoding} is compressed already; leave --compress out.")
        if not 1 <= self.jpeg_quality <= 100:
            raise InvalidInput(f"--jpeg-quality {self.jpeg_quality} is not from 1 to 100.")
        if self.shard_size < 1:
            raise InvalidInput(f"--shard-size {self.shard_size} is not a number of MiB from 1.")

    @property
    def compression(self) -> str:
        """How it is compressed: as asked for, else as the format does."""
        if self.compress is None and self.encoding in _IMAGES:
            return "none"
        return self.compress or FORMATS[self.format].compressions[0]

    def to_json(self) -> dict[str, Any]:
        """What decides about the stored bytes, for the record of the conversion."""
        members: dict[str, Any] = {"format": self.format, "compress": self.compression, "encoding": self.encoding}
        if self.encoding == "jpeg":
            members["jpeg_quality"] = self.jpeg_quality
        if self.format == "sharded":
            members["shard_size"] = self.shard_size
        return members


@dataclass(frozen=True)
class Voxels:
    """What a writer is chosen for: the voxels' type and number of channels, and the voxels x, y, z of a chunk."""

    dtype: np.dtype[Any]
    num_channels: int
    chunk_size: Vector


@dataclass(frozen=True)
class _Format:
    """A format: how it can be compressed (its own choice first), its encodings, and what makes its writer."""

    compressions: tuple[str, ...]
    encodings: tuple[str, ...]
    make: Callable[[Output, Voxels], Writer]


def _tiff(output: Output, voxels: Voxels) -> Writer:
    return TiffWriter(ZSTD if output.compression == "zstd" else DEFLATE)


def _raw(output: Output, voxels: Voxels) -> Writer:
    return RawWriter(_encoding(output, voxels), output.compression)


def _sharded(output: Output, voxels: Voxels) -> Writer:
    chunk_bytes = prod(voxels.chunk_size) * voxels.num_channels * voxels.dtype.itemsize
    encoding = _encoding(output, voxels)
    return ShardedWriter(chunk_bytes, output.shard_size * _MIB, encoding, output.compression == "gzip")


def _zarr(output: Output, voxels: Voxels) -> Writer:
    return ZarrWriter(voxels.chunk_size, voxels.num_channels, output.compression, by_number=output.format == "ngff")


FORMATS: Mapping[str, _Format] = {
    "tiff": _Format(("deflate", "zstd"), ("raw",), _tiff),
    "raw": _Format(("none", *COMPRESSIONS), ENCODINGS, _raw),
    "sharded": _Format(("gzip", "none"), ENCODINGS, _sharded),
    "zarr": _Format(tuple(COMPRESSORS), ("raw",), _zarr),
    "ngff": _Format(tuple(COMPRESSORS), ("raw",), _zarr),
}
"""The output formats by their name on the command line."""

COMPRESSION_NAMES = tuple(dict.fromkeys(name for known in FORMATS.values() for name in known.compressions))


def writer(output: Output, voxels: Voxels) -> Writer:
    """The writer of a dataset of such voxels; raises InvalidInput for what the format or its encoding cannot hold."""
    return FORMATS[output.format].make(output, voxels)


def _encoding(output: Output, voxels: Voxels) -> Encoding:
    made: dict[str, Encoding] = {
        "raw": Raw(),
        "jpeg": Jpeg(output.jpeg_quality),
        "png": Png(),
        COMPRESSED_SEGMENTATION: CompressedSegmentation(),
    }
    encoding = made[output.encoding]
    encoding.check(voxels.dtype, voxels.num_channels, voxels.chunk_size)
    return encoding


def _either(names: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
