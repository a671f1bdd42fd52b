"""Where a conversion puts its chunks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
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
from precomputed_server.writing import remove_temporaries, replace_file

Array = NDArray[Any]
Stamp = tuple[int, int, int]
"""Size, CRC-32 and Adler-32 of a stored chunk: an element of the manifest."""
Row = tuple[int, int, int, int]


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
        row = (cell[2] * rows + cell[1]) * columns + cell[0], *stamp(pieces)
        return self.put(level, cell, box, pieces), row

    def put(self, level: int, cell: Vector, box: Box, pieces: Pieces) -> Path | None:
        """Write the bytes of a chunk; not yet durable."""
        path = self.path(level, box)
        store(path, pieces)
        return path

    def leave_out(self, level: int, box: Box) -> None:
        """See that there is no chunk, whatever an earlier attempt stored."""
        self.path(level, box).unlink(missing_ok=True)

    def remove_torn(self) -> None:
        """Remove what killed workers left of files that they were about to put in place."""
        for scale in self.scales:
            with suppress(FileNotFoundError):  # somebody removed the level, of which nothing is written
                descriptor = os.open(self.directory / scale.key, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    remove_temporaries(descriptor)
                finally:
                    os.close(descriptor)

    @property
    def may_lack(self) -> bool:
        """Whether packs may be made of fewer chunks than there are places."""
        return False


@dataclass(frozen=True)
class Coarser(Target):
    """Keeps the levels from `first` on: those before it are read from the stack itself."""

    first: int = 1

    def store(self, level: int, cell: Vector, box: Box, chunk: Array) -> tuple[Path | None, Row]:
        """As `Target.store`; a chunk that is not kept has a row of nothing."""
        if level >= self.first:
            return super().store(level, cell, box, chunk)
        columns, rows, _ = grid_shape(self.scales[level])
        return None, ((cell[2] * rows + cell[1]) * columns + cell[0], 0, 0, 0)


@dataclass(frozen=True)
class Mending(Target):
    """A finished dataset, of which only the cells that are `wrong`, by level, are written: whole, or not at all.

    `wrong` has the sizes and checksums of what the conversion wrote there: whatever else comes out now is not written.
    """

    wrong: Mapping[int, Mapping[Vector, Stamp]] = field(default_factory=dict)

    def put(self, level: int, cell: Vector, box: Box, pieces: Pieces) -> Path | None:
        """Replace the file of a chunk that is wrong, durable, by what it was."""
        if self.wrong.get(level, {}).get(cell) != stamp(pieces):
            return None
        path = self.path(level, box)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, b"".join(pieces))
        return path

    def leave_out(self, level: int, box: Box) -> None:
        """Nothing is removed: a plane that cannot be read now may have been read then."""

    @property
    def may_lack(self) -> bool:
        """What cannot be mended stays as it is, and keeps nothing else from being packed."""
        return True


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


def stamp(pieces: Pieces) -> Stamp:
    """What tells a stored chunk from others."""
    crc, adler = 0, 1
    for piece in pieces:
        crc, adler = isal_zlib.crc32(piece, crc), isal_zlib.adler32(piece, adler)
    return sum(map(len, pieces)), crc, adler
