"""Where a conversion puts its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isal import isal_zlib
from numpy.typing import NDArray

from converter.pyramid.journal import Done
from converter.writers import Pieces, Writer
from converter.writers.files import store
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import grid_shape
from precomputed_server.format.info import ScaleInfo
from precomputed_server.writing import replace_file

Array = NDArray[Any]
Row = tuple[int, int, int]


@dataclass(frozen=True)
class Target:
    """Where and how the chunks of every level are kept: `scales` have their real voxel_offset.

    The boxes of chunks are counted from the first voxel of their level.
    """

    directory: Path
    scales: tuple[ScaleInfo, ...]
    writer: Writer

    def path(self, level: int, box: Box) -> Path:
        """The file that a chunk is written to."""
        scale = self.scales[level]
        return self.writer.path(self.directory / scale.key, scale, box.moved(scale.voxel_offset))

    def store(self, level: int, cell: Vector, box: Box, chunk: Array) -> tuple[Path | None, Row]:
        """Write the chunk "(C, Z, Y, X)" at `cell`; returns the file written, if any, and a row of `journal.ENTRY`."""
        scale = self.scales[level]
        pieces = self.writer.encode(box.moved(scale.voxel_offset), chunk)
        columns, rows, _ = grid_shape(scale)
        row = (cell[2] * rows + cell[1]) * columns + cell[0], sum(map(len, pieces)), checksum(pieces)
        return self.put(level, cell, box, pieces), row

    def put(self, level: int, cell: Vector, box: Box, pieces: Pieces) -> Path | None:
        """Write the bytes of a chunk; not yet durable."""
        path = self.path(level, box)
        store(path, pieces)
        return path


@dataclass(frozen=True)
class Mending(Target):
    """A finished dataset, of which only the cells that are `wrong`, by level, are written: whole, or not at all."""

    wrong: Mapping[int, frozenset[Vector]] = field(default_factory=dict)

    def put(self, level: int, cell: Vector, box: Box, pieces: Pieces) -> Path | None:
        """Replace the file of a chunk that is wrong; durable."""
        if cell not in self.wrong.get(level, ()):
            return None
        path = self.path(level, box)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, b"".join(pieces))
        return path


@dataclass(frozen=True)
class Pack:
    """The task to make one of the files that a finished level is packed into; `may_lack`: chunks were left out."""

    target: Target
    level: int
    number: int
    may_lack: bool = False

    def run(self) -> Done:
        """Make it whole, or leave it as it is where that was done before."""
        scale = self.target.scales[self.level]
        self.target.writer.pack(self.target.directory / scale.key, scale, self.number, may_lack=self.may_lack)
        return Done()


def checksum(pieces: tuple[bytes | memoryview, ...]) -> int:
    """The CRC-32 of a file that consists of `pieces`."""
    result = 0
    for piece in pieces:
        result = isal_zlib.crc32(piece, result)
    return result
