"""Voxels that one stage of a conversion keeps aside for the next: exact, unlike some chunks, and gone at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.stacks.plane import PlanePlace
from precomputed_server.errors import Unreadable
from precomputed_server.files import read_at
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.writing import write_in_place

Array = NDArray[Any]


@dataclass(frozen=True)
class ScratchLevel:
    """A level of `size` voxels x, y, z in files of up to `piece_size` voxels each, "(C, Z, Y, X)" in `dtype`."""

    directory: Path
    size: Vector
    piece_size: Vector
    num_channels: int
    dtype: np.dtype[Any]

    def part(self, box: Box) -> ScratchLevel:
        """What reading within `box` takes, to be sent to a worker: this."""
        return self

    @property
    def plane_axis(self) -> int:
        """z."""
        return 2

    def read_bytes(self, box: Box) -> int:
        """The bytes that reading a box takes beside it: those of one row of a piece's plane, next to nothing."""
        return self.piece_size[0] * self.piece_size[1] * self.dtype.itemsize

    def read(self, box: Box) -> Array:
        """The voxels of a box, "(C, Z, Y, X)"; raises Unreadable when a piece is absent or too short."""
        x, y, z = box.size
        voxels = np.empty((self.num_channels, z, y, x), self.dtype)
        for index in self._pieces(box):
            self._read_piece(index, box, voxels)
        return voxels

    def read_readable(self, box: Box) -> tuple[Array, dict[PlanePlace, str]]:
        """The same: what this program wrote itself can be read, or the conversion ends."""
        return self.read(box), {}

    def write(self, box: Box, voxels: Array) -> None:
        """Keep the voxels "(C, Z, Y, X)" of `box`, whole pieces; doing it again writes the same files.

        It is one piece, and the voxel behind it where the level ends with one that is made of a part of the next block.
        """
        for index in self._pieces(box):
            z, y, x = _slices(self._box(index), box)
            content = memoryview(np.ascontiguousarray(voxels[:, z, y, x]).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            write_in_place(self._path(index), [content])

    def _pieces(self, box: Box) -> Iterator[Vector]:
        ranges = [
            range(low // length, -(-high // length))
            for low, high, length in zip(box.start, box.stop, self.piece_size, strict=True)
        ]
        return ((i, j, k) for k, j, i in product(*reversed(ranges)))

    def _path(self, index: Vector) -> Path:
        return self.directory / "-".join(map(str, index))

    def _box(self, index: Vector) -> Box:
        start = tuple(i * length for i, length in zip(index, self.piece_size, strict=True))
        stop = tuple(min(low + step, end) for low, step, end in zip(start, self.piece_size, self.size, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def _read_piece(self, index: Vector, box: Box, voxels: Array) -> None:
        """Copy what a piece holds of `box`, plane by plane."""
        mine = self._box(index)
        shared = box.clipped(mine)
        columns, rows, depth = mine.size
        into = _slices(shared, box)
        row_bytes = columns * self.dtype.itemsize
        first, count = shared.start[1] - mine.start[1], shared.size[1]
        left = shared.start[0] - mine.start[0]
        path = self._path(index)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unreadable(f"{path} cannot be read back: {error.strerror}; convert again.") from error
        try:
            for channel, z in product(range(self.num_channels), range(shared.size[2])):
                plane = channel * depth + shared.start[2] - mine.start[2] + z
                stored = read_at(descriptor, (plane * rows + first) * row_bytes, count * row_bytes)
                band = np.frombuffer(stored, self.dtype).reshape(count, columns)
                voxels[channel, into[0].start + z, into[1], into[2]] = band[:, left : left + shared.size[0]]
        finally:
            os.close(descriptor)


def _slices(box: Box, outer: Box) -> tuple[slice, slice, slice]:
    """Where `box` lies in an array "(Z, Y, X)" of `outer`."""
    x, y, z = (
        slice(low - origin, high - origin) for low, high, origin in zip(box.start, box.stop, outer.start, strict=True)
    )
    return z, y, x
