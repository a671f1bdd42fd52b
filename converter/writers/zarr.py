"""OME-Zarr 0.4: each level an array of zarr version 2, for napari, Fiji and Python; `info` lies beside it.

Sources: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html and https://ngff.openmicroscopy.org/0.4/
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from converter.writers.compression import Buffer, deflated, inflated, zstd_compressed, zstd_decompressed
from converter.writers.files import FilePerChunk, bytes_of, shaped
from converter.writers.ome import image_attributes
from converter.writers.protocol import Array, Channel, Pieces
from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name

_BLOSC_LEVEL, _BIT_SHUFFLE = 1, 2
_BLOSC_HEADER = struct.Struct("<4B3I")
_GROUP = {"zarr_format": 2}


@dataclass(frozen=True)
class Compressor:
    """How zarr compresses chunks of voxels of so many bytes, and how its metadata says so."""

    members: Mapping[str, Any] | None
    compress: Callable[[Buffer, int], bytes]
    decompress: Callable[[Buffer, str], bytes]


def _blosc(data: Any, voxel_bytes: int) -> bytes:  # noqa: ANN401  # any buffer
    compressed = imagecodecs.blosc_encode(
        data, level=_BLOSC_LEVEL, compressor="zstd", shuffle=_BIT_SHUFFLE, typesize=voxel_bytes, numthreads=1
    )
    return bytes(compressed)


def _unblosc(data: Any, name: str) -> bytes:  # noqa: ANN401  # any buffer
    damaged = Unreadable(f"{name} is damaged; convert again.")
    # The library believes the header, which ends with the length of the whole.
    if len(data) < _BLOSC_HEADER.size or _BLOSC_HEADER.unpack_from(data)[-1] != len(data):
        raise damaged
    try:
        return bytes(imagecodecs.blosc_decode(data, numthreads=1))
    except (RuntimeError, ValueError) as error:
        raise damaged from error


COMPRESSORS: Mapping[str, Compressor] = {
    "blosc": Compressor(
        {"id": "blosc", "cname": "zstd", "clevel": _BLOSC_LEVEL, "shuffle": _BIT_SHUFFLE, "blocksize": 0},
        _blosc,
        _unblosc,
    ),
    "zstd": Compressor({"id": "zstd", "level": 1}, lambda data, _: zstd_compressed(data), zstd_decompressed),
    "deflate": Compressor({"id": "zlib", "level": 1}, lambda data, _: deflated(data), inflated),
    "none": Compressor(None, lambda data, _: bytes(data), lambda data, _: bytes(data)),
}


@dataclass(frozen=True)
class ZarrWriter(FilePerChunk):
    """Arrays "(Z, Y, X)", of several channels "(C, Z, Y, X)", whose chunks hold every channel and are never clipped.

    With `by_number` as precomputed-tif's `ngff`: always "(T, C, Z, Y, X)", and levels are called 0, 1, 2 …
    """

    chunk_size: Vector
    channels: int
    compression: str = "blosc"
    by_number: bool = False

    @property
    def axes(self) -> str:
        """The array's axes, slowest first."""
        if self.by_number:
            return "tczyx"
        return "zyx" if self.channels == 1 else "czyx"

    def described(self, scale: ScaleInfo, level: int) -> ScaleInfo:
        """The scale, by its number if that is wanted."""
        return replace(scale, key=str(level)) if self.by_number else scale

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """The place of the chunk in its grid, slowest axis first, a directory each: `0/2/5`."""
        offset = scale.voxel_offset
        x, y, z = ((low - first) // edge for low, first, edge in zip(box.start, offset, self.chunk_size, strict=True))
        place = {"x": x, "y": y, "z": z}
        return directory.joinpath(*(str(place.get(axis, 0)) for axis in self.axes))

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """The chunk, filled up to its whole size with zeros, compressed."""
        x, y, z = self.chunk_size
        whole = chunk
        if box.size != self.chunk_size:
            whole = np.zeros((self.channels, z, y, x), chunk.dtype)
            _, depth, rows, columns = chunk.shape
            whole[:, :depth, :rows, :columns] = chunk
        return (COMPRESSORS[self.compression].compress(bytes_of(whole), chunk.dtype.itemsize),)

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The chunk without what filled it up."""
        voxels = COMPRESSORS[self.compression].decompress(stored, f"the chunk of {chunk_name(box)}")
        columns, rows, depth = box.size
        whole = shaped(voxels, Box((0, 0, 0), self.chunk_size), channels, dtype)
        return whole[:, :depth, :rows, :columns]

    def scale_files(self, info: VolumeInfo, scale: ScaleInfo) -> Mapping[str, bytes]:
        """The array's metadata."""
        compressor = COMPRESSORS[self.compression].members
        members = {
            "zarr_format": 2,
            "shape": self._of_axes(scale.size),
            "chunks": self._of_axes(self.chunk_size),
            "dtype": info.dtype.str,
            "compressor": compressor,
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
        return {".zarray": _text(members).encode()}

    def dataset_files(self, info: VolumeInfo, name: str, channels: Sequence[Channel]) -> Mapping[str, str]:
        """The group and what OME says of it."""
        return {".zgroup": _text(_GROUP), ".zattrs": _text(image_attributes(info, self.axes, name, channels))}

    def _of_axes(self, size: Vector) -> list[int]:
        lengths = {**dict(zip("xyz", size, strict=True)), "c": self.channels, "t": 1}
        return [lengths[axis] for axis in self.axes]


def _text(members: Mapping[str, Any]) -> str:
    return json.dumps(members, indent=2) + "\n"
