"""Scales stored as BlockFS: blosc frames of whole blocks in a few files."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.files import Fingerprint
from precomputed_server.format.blockfs import (
    DIRECTORY_NAME,
    PREFIX_BYTES,
    BlockDirectory,
    metadata_bytes,
    parse_directory,
)
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cells_overlapping, count_overlapping, whole_cell_box
from precomputed_server.readers.base import Place
from precomputed_server.readers.compression import blosc_length, unpack
from precomputed_server.readers.padded import Padded, Piece, check_raw
from precomputed_server.readers.stored import CODED, Stored

_VALUE_BYTES = 200
_AT_ONCE = 1 << 16
"""Bytes of metadata up to which they are read without leaving the event loop."""


def found(place: Place, *, cached: bool = False) -> Padded | None:
    """The reader of a scale in whose directory `precomputed.blockfs` lies, else None; raises as `Source.open`."""
    try:
        stored = place.source.open(DIRECTORY_NAME, cached=cached)
    except FileNotFoundError:
        return None

    def read() -> tuple[BlockDirectory, int]:
        prefix = bytes(stored.read(0, min(PREFIX_BYTES, stored.length), cached=cached))
        length = metadata_bytes(prefix, stored.length)
        if cached and length > _AT_ONCE:
            raise BlockingIOError(errno.EAGAIN, "reading this takes too long here")
        metadata = bytes(stored.read(PREFIX_BYTES, length, cached=cached))
        return parse_directory(prefix, metadata), length + _VALUE_BYTES

    with stored:
        key = (f"{place.source.name}/{DIRECTORY_NAME}", 0)
        directory = place.indices.of(key, stored.fingerprint, read)
    check_raw(place, "BlockFS")
    _check(directory, place)
    return Padded(place, _Blocks(place, directory, stored.fingerprint))


def _check(directory: BlockDirectory, place: Place) -> None:
    if place.info.num_channels != 1:
        raise Unreadable(f"{DIRECTORY_NAME} holds one channel, and info says {place.info.num_channels}.")
    if directory.dtype.newbyteorder("<") != place.info.dtype or directory.extent != place.scale.size:
        raise Unreadable(f"{DIRECTORY_NAME} is of another size or data type than info says.")


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a scale; see `Cells`."""

    place: Place
    directory: BlockDirectory
    fingerprint: Fingerprint
    fill_value: float = 0
    content_encoding: str = CODED

    def pieces(self, box: Box) -> Iterator[Piece]:
        size = self.directory.block_size
        for cell in cells_overlapping(self.place.scale, box, size):
            yield Piece(cell, whole_cell_box(self.place.scale, cell, size), (0, 1))

    def count(self, box: Box) -> int:
        return count_overlapping(self.place.scale, box, self.directory.block_size)

    def open(self, piece: Piece, *, cached: bool = False) -> Stored | None:
        """The part of a block file that the table names."""
        x, y, z = piece.cell
        number = self.directory.number((x, y, z))
        offset, length = self._look_up(number, cached=cached)
        if length == 0:
            return None
        try:
            stored = self.place.source.open(self.directory.file_name(number), CODED, cached=cached)
        except FileNotFoundError as error:
            raise Unreadable("a file of blocks that the table names is not there.") from error
        if offset + length > stored.length:
            stored.close()
            raise Unreadable("a file of blocks is shorter than its table says.")
        return replace(stored, offset=offset, length=length)

    def decode(self, data: bytes, piece: Piece) -> NDArray[Any]:
        """The voxels of a whole block; at the volume's end some writers fill it up, and others do not."""
        dtype = self.place.info.dtype
        inside = piece.box.clipped(self.place.scale.bounds)
        x, y, z = inside.size
        if blosc_length(data) != inside.voxels * dtype.itemsize:
            content = unpack("blosc", data, piece.box.voxels * dtype.itemsize)
            return np.frombuffer(content, dtype).reshape(piece.shape)
        content = unpack("blosc", data, inside.voxels * dtype.itemsize)
        voxels = np.zeros(piece.shape, dtype)
        voxels[inside.within(piece.box)] = np.frombuffer(content, dtype).reshape(1, z, y, x)
        return voxels

    def _look_up(self, number: int, *, cached: bool) -> tuple[int, int]:
        start, length = self.directory.entry(number), self.directory.entry_bytes
        with self.place.source.open(DIRECTORY_NAME, cached=cached) as stored:
            if start + length > stored.length:
                raise Unreadable(f"{DIRECTORY_NAME} is shorter than its table.")
            return self.directory.place(bytes(stored.read(start, length, cached=cached)))
