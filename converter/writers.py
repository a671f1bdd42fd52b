"""Storing chunks and reading them back, one class per output format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, chunk_name
from precomputed_server.format.tiff import DEFLATE, HEADER_BYTES, chunk_header, parse_stream
from precomputed_server.writing import write_all

Array = NDArray[Any]

_WINDOW_BITS = 13
"""Deflate looks back 8 KiB, a plane of a chunk of 64 × 64 voxels of 16 bits: 7 % faster than 32 KiB and as small."""


class Writer(Protocol):
    """How the chunks of a scale are kept in its directory; chunks are "(C, Z, Y, X)"."""

    def write(self, directory: Path, box: Box, chunk: Array) -> int:
        """Store the chunk of `box`, replacing what is there, and return its size in bytes; not yet durable."""

    def read(self, directory: Path, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Read the chunk of `box` back; raises Unreadable."""


@dataclass(frozen=True)
class RawWriter:
    """Chunks as their little-endian voxels, x fastest, channel slowest."""

    def write(self, directory: Path, box: Box, chunk: Array) -> int:
        """Store the chunk as `directory/NAME`."""
        return _store(directory / chunk_name(box), _bytes_of(chunk))

    def read(self, directory: Path, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Read the chunk of `directory/NAME`."""
        stored = _load(directory / chunk_name(box))
        return _shaped(stored, box, channels, dtype)


@dataclass(frozen=True)
class TiffWriter:
    """Chunks as TIFFs of one deflate stream; `level` is isal's, from 0 to 3."""

    level: int = 1

    def write(self, directory: Path, box: Box, chunk: Array) -> int:
        """Store the chunk as `directory/NAME.tiff`."""
        channels, depth, rows, columns = chunk.shape
        stream = isal_zlib.compress(_bytes_of(chunk), self.level, _WINDOW_BITS)
        header = chunk_header((channels * depth, rows, columns), chunk.dtype, len(stream), DEFLATE)
        return _store(_tiff_path(directory, box), header, stream)

    def read(self, directory: Path, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Inflate the chunk of `directory/NAME.tiff`."""
        path = _tiff_path(directory, box)
        stored = _load(path)
        where = parse_stream(stored[:HEADER_BYTES], len(stored))
        if where is None:
            raise Unreadable(f"{path.name} is not a chunk of this conversion; convert again.")
        try:
            voxels = isal_zlib.decompress(memoryview(stored)[where.offset : where.offset + where.length])
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub calls the class a value
            raise Unreadable(f"{path.name} is damaged; convert again.") from error
        return _shaped(voxels, box, channels, dtype)


WRITERS: dict[str, Writer] = {"tiff": TiffWriter(), "raw": RawWriter()}
"""The output formats by their name on the command line."""


def writer(name: str) -> Writer:
    """The writer of a format; raises InvalidInput."""
    if name not in WRITERS:
        raise InvalidInput(f"The format {name!r} cannot be written; use --format {' or '.join(WRITERS)}.")
    return WRITERS[name]


def _tiff_path(directory: Path, box: Box) -> Path:
    return directory / f"{chunk_name(box)}{CHUNK_TIFF_SUFFIX}"


def _bytes_of(chunk: Array) -> memoryview:
    little = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def _shaped(voxels: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
    columns, rows, depth = box.size
    shape = (channels, depth, rows, columns)
    if len(voxels) != channels * box.voxels * dtype.itemsize:
        raise Unreadable(f"chunk {chunk_name(box)} has {len(voxels)} bytes instead of those of {shape}; convert again.")
    return np.frombuffer(voxels, dtype.newbyteorder("<")).reshape(shape)


def _store(path: Path, *pieces: bytes | memoryview) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            write_all(descriptor, piece)  # type: ignore[arg-type]  # any buffer will do
    finally:
        os.close(descriptor)
    return sum(len(piece) for piece in pieces)


def _load(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"chunk {path.name} cannot be read back: {error.strerror}.") from error
