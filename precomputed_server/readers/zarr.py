"""Scales stored as arrays of zarr version 2, one beside the other under the keys of `info`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.files import Fingerprint, Tree, join
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cells_overlapping, count_overlapping, whole_cell_box
from precomputed_server.format.zarr import ARRAY_METADATA, GROUP_METADATA, ArrayMetadata
from precomputed_server.readers.base import Place
from precomputed_server.readers.compression import inflate, unpack
from precomputed_server.readers.padded import Padded, Piece, check_raw
from precomputed_server.readers.stored import CODED, IDENTITY, Stored, open_stored
from precomputed_server.readers.volumes import Volumes

_MAXIMUM_METADATA = 1 << 20
_VALUE_BYTES = 1000
_CONTENT_ENCODINGS = {None: IDENTITY, "zlib": "deflate", "gzip": "gzip", "zstd": "zstd"}
"""The compressor → the HTTP content encoding that its bytes are."""

Array = NDArray[Any]

_PACKED = ("blosc", "lz4", "bz2")


def found(place: Place, *, cached: bool = False) -> Padded | None:
    """The reader of a scale in whose directory `.zarray` lies, else None; raises as `Source.open`."""
    try:
        stored = place.source.open(ARRAY_METADATA, cached=cached)
    except FileNotFoundError:
        return None

    def read() -> tuple[ArrayMetadata, int]:
        if stored.length > _MAXIMUM_METADATA:
            raise Unreadable(f"{ARRAY_METADATA} is too long.")
        if cached and stored.length > _MAXIMUM_METADATA >> 4:
            raise BlockingIOError(errno.EAGAIN, "reading this takes too long here")
        return ArrayMetadata.from_bytes(bytes(stored.read(cached=cached))), stored.length + _VALUE_BYTES

    with stored:
        array = place.indices.of((f"{place.source.name}/{ARRAY_METADATA}", 0), stored.fingerprint, read)
    check_raw(place, "a zarr array")
    _check(array, place)
    return Padded(place, _ArrayChunks(place, array, stored.fingerprint))


def describes(tree: Tree, volumes: Volumes, path: str, *, cached: bool = False) -> bool:
    """Whether a file of METADATA_NAMES lies in the directory of an array, of a group or of a volume.

    Raises as `open_stored` and `Volumes.at` do.
    """
    directory = path.rpartition("/")[0]
    for name in (GROUP_METADATA, ARRAY_METADATA):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            open_stored(tree, join(directory, name), cached=cached).close()
            return True
    return volumes.at(directory, cached=cached) is not None


def _check(array: ArrayMetadata, place: Place) -> None:
    """Raise Unreadable when the array is not what `info` describes."""
    x, y, z = place.scale.size
    wanted = (1, place.info.num_channels, z, y, x)[-len(array.shape) :]
    if array.shape != wanted or (len(wanted) == 3 and place.info.num_channels != 1):
        raise Unreadable(f"the zarr array has the shape {array.shape} where info says {wanted}.")
    if len(wanted) == 5 and array.chunks[0] != 1:
        raise Unreadable("the chunks of the zarr array hold several points in time, which are not read.")
    if array.dtype.newbyteorder("<") != place.info.dtype:
        raise Unreadable(f"the zarr array holds {array.dtype} where info says {place.info.data_type}.")
    if not _is_voxel(array.fill_value, array.dtype):
        raise Unreadable(f"the fill value {array.fill_value} of the zarr array is none of {place.info.data_type}.")
    if array.compressor is not None and array.compressor["id"] not in (*_CONTENT_ENCODINGS, *_PACKED):
        raise Unreadable(f"the zarr array is compressed by {array.compressor['id']}, which is not read.")


def _is_voxel(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max) and value == int(value)


@dataclass(frozen=True)
class _ArrayChunks:
    """The chunks of an array with the axes z, y, x, before them c, before that t; see `Cells`."""

    place: Place
    array: ArrayMetadata
    fingerprint: Fingerprint

    @property
    def fill_value(self) -> float:
        return self.array.fill_value

    @property
    def content_encoding(self) -> str:
        """Only little-endian voxels in the order of precomputed chunks can be taken as they lie."""
        if self.array.order != "C" or self.array.dtype.newbyteorder("<") != self.array.dtype:
            return CODED
        return _CONTENT_ENCODINGS.get(self._codec, CODED)

    @property
    def _codec(self) -> str | None:
        return None if self.array.compressor is None else self.array.compressor["id"]

    @property
    def _step(self) -> Vector:
        z, y, x = self.array.chunks[-3:]
        return x, y, z

    @property
    def _channels(self) -> int:
        """How many channels a chunk holds."""
        return self.array.chunks[-4] if len(self.array.chunks) > 3 else 1

    def pieces(self, box: Box) -> Iterator[Piece]:
        groups = range(-(-self.place.info.num_channels // self._channels))
        before = len(self.array.shape) - 3
        for group, (x, y, z) in product(groups, cells_overlapping(self.place.scale, box, self._step)):
            channels = (group * self._channels, (group + 1) * self._channels)
            cell = (0, group, z, y, x)[2 - before :]
            yield Piece(cell, whole_cell_box(self.place.scale, (x, y, z), self._step), channels)

    def count(self, box: Box) -> int:
        groups = -(-self.place.info.num_channels // self._channels)
        return groups * count_overlapping(self.place.scale, box, self._step)

    def open(self, piece: Piece, *, cached: bool = False) -> Stored | None:
        """The file of a chunk."""
        try:
            return self.place.source.open(self.array.chunk_path(piece.cell), CODED, cached=cached)
        except FileNotFoundError:
            return None

    def decode(self, data: bytes, piece: Piece) -> Array:
        """The voxels of a whole chunk."""
        length = prod(self.array.chunks) * self.array.dtype.itemsize
        content = self._content(data, length)
        if len(content) != length:
            raise Unreadable("a chunk of the zarr array has another length than the array says.")
        voxels: Array = np.frombuffer(content, self.array.dtype)
        if self.array.order == "F":
            return voxels.reshape(self.array.chunks[::-1]).T.reshape(piece.shape)
        return voxels.reshape(piece.shape)

    def _content(self, data: bytes, length: int) -> bytes:
        if self._codec in _PACKED:
            return unpack(self._codec, data, length)
        encoding = _CONTENT_ENCODINGS[self._codec]
        return data if encoding == IDENTITY else inflate(encoding, data, length)
