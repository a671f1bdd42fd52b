"""Scales stored on a grid of their own, whose cells are never clipped: BlockFS and zarr.

A chunk that is exactly one such cell, in bytes that clients understand, is sent as it lies; every other is cut out of
the cells that it touches.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Busy, Unreadable
from precomputed_server.files import Fingerprint
from precomputed_server.format.geometry import Box
from precomputed_server.readers.base import Place, beyond
from precomputed_server.readers.per_file import checked, inflated
from precomputed_server.readers.stored import CODED, Stored

_AT_ONCE = 16
"""Cells up to which a chunk's are looked up without leaving the event loop."""

_MOST = 4096


@dataclass(frozen=True)
class Piece:
    """A stored cell: the voxels and channels (first, behind the last) that it holds, also those outside the volume."""

    cell: tuple[int, ...]
    box: Box
    channels: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its voxels, "(C, Z, Y, X)"."""
        x, y, z = self.box.size
        return self.channels[1] - self.channels[0], z, y, x


def check_raw(place: Place, layout: str) -> None:
    """Raise Unreadable when chunks are to be encoded, which nobody does while they are sent."""
    if place.scale.encoding != "raw":
        raise Unreadable(f"info says encoding {place.scale.encoding}, but {layout} gives raw voxels; make it raw.")


class Cells(Protocol):
    """How a layout stores its cells."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the file that describes the grid."""

    @property
    def fill_value(self) -> float:
        """Of what is absent."""

    @property
    def content_encoding(self) -> str:
        """The HTTP content encoding that the bytes of a whole cell are, CODED when clients cannot take them."""

    def pieces(self, box: Box) -> Iterator[Piece]:
        """The cells that share a voxel with `box`, all channels."""

    def count(self, box: Box) -> int:
        """How many those are, without making them."""

    def open(self, piece: Piece, *, cached: bool = False) -> Stored | None:
        """Where the cell's bytes lie, None when it is absent; raises as `ChunkReader.stored`."""

    def decode(self, data: bytes, piece: Piece) -> NDArray[Any]:
        """The voxels of `piece.shape`, of any byte order; raises Unreadable."""


@dataclass(frozen=True)
class Padded:
    """The chunks of a scale that is stored as `cells`."""

    place: Place
    cells: Cells

    @property
    def fill_value(self) -> float:
        """Of absent chunks."""
        return self.cells.fill_value

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """The one cell, or the first of those there are with a fingerprint that stands for all; see `ChunkReader`."""
        count = self.cells.count(box)
        if count > _MOST:
            raise Unreadable(f"the chunk lies in {count} stored ones, and at most {_MOST} are put together.")
        if cached and count > _AT_ONCE:
            raise BlockingIOError(errno.EAGAIN, "many files have to be looked up")
        pieces = list(self.cells.pieces(box))
        as_it_lies = len(pieces) == 1 and self._is_whole(pieces[0], box) and self.cells.content_encoding != CODED
        if not as_it_lies:
            several = self._several(pieces, cached=cached)
            expected = self.place.info.array_bytes(box)
            return None if several is None else replace(several, decoded_bytes=expected)
        stored = self.cells.open(pieces[0], cached=cached)
        if stored is None:
            return None
        return checked(replace(stored, encoding=self.cells.content_encoding), self.place, box)

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """Decode every cell and cut the chunk out; see `ChunkReader`."""
        if stored.encoding != CODED:
            return inflated(stored, self.place, box, limit)
        pieces = list(self.cells.pieces(box))
        channels, (x, y, z) = self.place.info.num_channels, box.size
        voxels = np.full((channels, z, y, x), self.fill_value, self.place.info.dtype)
        seen: list[Fingerprint | None] = [self.cells.fingerprint]
        for piece in pieces:
            if prod(piece.shape) * voxels.itemsize > limit:
                raise beyond(limit)
            found = self.cells.open(piece)
            seen.append(None if found is None else found.fingerprint)
            if found is not None:
                with found:
                    self._put(voxels, box, piece, self._read(found, limit))
        if _together(seen) != stored.fingerprint:
            raise Busy("the dataset was changed while a chunk of it was read; try again.")
        return voxels.tobytes()

    def _read(self, found: Stored, limit: int) -> bytes:
        if found.length > limit:
            raise beyond(limit)
        return bytes(found.read())

    def _put(self, voxels: NDArray[Any], box: Box, piece: Piece, data: bytes) -> None:
        part = piece.box.clipped(box)
        first, behind = piece.channels
        behind = min(behind, len(voxels))
        content = self.cells.decode(data, piece)
        voxels[first:behind][part.within(box)] = content[: behind - first][part.within(piece.box)]

    def _several(self, pieces: Sequence[Piece], *, cached: bool) -> Stored | None:
        first: Stored | None = None
        seen: list[Fingerprint | None] = [self.cells.fingerprint]
        try:
            for piece in pieces:
                found = self.cells.open(piece, cached=cached)
                seen.append(None if found is None else found.fingerprint)
                if first is None:
                    first = found
                elif found is not None:
                    found.close()
        except BaseException:
            if first is not None:
                first.close()
            raise
        if first is None:
            return None
        return replace(first, fingerprint=_together(seen), encoding=CODED)

    def _is_whole(self, piece: Piece, box: Box) -> bool:
        return piece.box == box and piece.channels == (0, self.place.info.num_channels)


def _together(fingerprints: Sequence[Fingerprint | None]) -> Fingerprint:
    """One that changes when any of them does; the same in every process."""
    digest = hashlib.blake2b(" ".join(map(str, fingerprints)).encode(), digest_size=8).digest()
    there = [each for each in fingerprints if each is not None]
    newest = max(each.modified_ns for each in there)
    return Fingerprint(int.from_bytes(digest, "little"), newest, sum(each.size for each in there))
