"""Coarser levels of a stack that is served as it is: files as a conversion writes them, in the state directory."""

from __future__ import annotations

from dataclasses import dataclass

from precomputed_server.errors import Busy
from precomputed_server.format.geometry import Box
from precomputed_server.readers.base import Place
from precomputed_server.readers.per_file import PerFile
from precomputed_server.readers.stored import Stored


@dataclass(frozen=True)
class LevelReader:
    """The chunks of a level that was made: there always is one, or the level was removed to make room."""

    place: Place
    fill_value: float = 0

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """The file of the chunk; see `ChunkReader`."""
        found = PerFile(self.place).stored(box, cached=cached)
        if found is None:
            raise Busy("This level of the stack was removed to make room for others; try again later.", 10)
        return found

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """Read it; see `ChunkReader`."""
        return PerFile(self.place).decode(stored, box, limit)
