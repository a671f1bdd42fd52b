"""Writing chunks and reading them back; what formats have in common that keep each chunk in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.writers.protocol import Array, Channel, Pieces, Writer
from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.writing import write_in_place


def write_chunk(writer: Writer, directory: Path, scale: ScaleInfo, box: Box, chunk: Array) -> int:
    """Store the chunk of `box`, replacing what is there, and return its size in bytes; not yet durable."""
    return store(writer.path(directory, scale, box), writer.encode(box, chunk))


def read_chunk(
    writer: Writer, directory: Path, scale: ScaleInfo, box: Box, channels: int, dtype: np.dtype[Any]
) -> Array:
    """Read the chunk of `box` back; raises Unreadable."""
    return writer.decode(writer.stored(directory, scale, box), box, channels, dtype)


class FilePerChunk:
    """A format whose chunks are files that stay as they were written."""

    @property
    def lossy(self) -> bool:
        """Not unless the format says so."""
        return False

    def described(self, scale: ScaleInfo, level: int) -> ScaleInfo:
        """The scale as it is."""
        return scale

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """The file of the chunk's name."""
        return directory / chunk_name(box)

    def stored(self, directory: Path, scale: ScaleInfo, box: Box) -> bytes:
        """The content of that file."""
        return load(self.path(directory, scale, box))

    def packs(self, scale: ScaleInfo) -> Sequence[int]:
        """None."""
        return ()

    def pack(self, directory: Path, scale: ScaleInfo, number: int, *, may_lack: bool = False) -> int:
        """Nothing is packed."""
        raise NotImplementedError(f"{type(self).__name__} has no packs")

    def scale_files(self, info: VolumeInfo, scale: ScaleInfo) -> Mapping[str, bytes]:
        """None."""
        return {}

    def dataset_files(self, info: VolumeInfo, name: str, channels: Sequence[Channel]) -> Mapping[str, str]:
        """None."""
        return {}


def store(path: Path, pieces: Pieces) -> int:
    """Write a file in place, with the directories on its way, and return its size in bytes."""
    try:
        return write_in_place(path, pieces, read_soon=False)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_in_place(path, pieces, read_soon=False)


def load(path: Path) -> bytes:
    """Read a whole file; raises Unreadable naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"chunk {path.name} cannot be read back: {error.strerror}.") from error


def bytes_of(chunk: Array) -> memoryview:
    """The little-endian bytes of a chunk, x fastest, without copying where that is possible."""
    little = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def shaped(voxels: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
    """The chunk "(C, Z, Y, X)" of such bytes; raises Unreadable when they are too few or too many."""
    columns, rows, depth = box.size
    shape = (channels, depth, rows, columns)
    if len(voxels) != channels * box.voxels * dtype.itemsize:
        raise Unreadable(f"chunk {chunk_name(box)} has {len(voxels)} bytes instead of those of {shape}; convert again.")
    return np.frombuffer(voxels, dtype.newbyteorder("<")).reshape(shape)
