"""What every layout answers: the stored bytes of a chunk, and how they are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from precomputed_server.errors import Unreadable
from precomputed_server.files import Fingerprint
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.readers.indices import Indices
from precomputed_server.readers.source import Source
from precomputed_server.readers.stored import Stored

_SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """A scale of a volume: where its files lie, and what is known of them already.

    The `stack`, where the volume is one of planes that are served as they are, knows where they lie instead.
    """

    source: Source
    info: VolumeInfo
    scale: ScaleInfo
    indices: Indices
    stack: ServedStack | None = None


class ChunkReader(Protocol):
    """The chunks of one scale in one layout; absent is None, what is there and cannot be a chunk raises Unreadable.

    A chunk is named by its box, which is a cell of the grid of one of the scale's chunk sizes. Its version is the
    fingerprint of what is stored.
    """

    @property
    def fill_value(self) -> float:
        """What the voxels of absent chunks are."""

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """Where the chunk's bytes lie, open, and how they are encoded; nothing is decoded.

        Of a chunk that is put together from several parts, CODED, it is the first, with a fingerprint of them all.

        Raises Unreadable, OSError as `Source.open` does, BlockingIOError when `cached` and a disk would be waited for.
        """

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """The chunk's bytes as the scale's encoding has them, at most `limit`; raises Unreadable."""


class ServedStack(Protocol):
    """A volume without an `info` file: planes that are served as they are, in one state of theirs."""

    @property
    def info(self) -> VolumeInfo:
        """What there is of it by now: full resolution, and the coarser scales that were made."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Of that, and of all planes."""

    @property
    def source_bytes(self) -> int:
        """The bytes of the files of its planes."""

    def reader(self, place: Place) -> ChunkReader:
        """The chunks of one of its scales; what is there and cannot be read now raises Unreadable or Busy."""

    def statistics(self) -> bytes | None:
        """The text of `statistics.json`, which is made with the coarser scales; None before."""

    def check_absent(self, key: str) -> None:
        """Raise Busy for a scale that `info` does not have now and will have: nobody may take it for empty."""


class Stacks(Protocol):
    """The stacks of a tree that somebody asked to be served."""

    def at(self, path: str, *, cached: bool = False) -> ServedStack | None:
        """The stack whose dataset is the directory `path`, or None.

        Raises Unreadable for one that cannot be served as it is, Busy while it is being looked at, BlockingIOError
        when `cached` and a disk would be waited for.
        """

    def close(self) -> None:
        """Give back what is open."""


@dataclass(frozen=True)
class Chunk:
    """One cell of a scale and the stored bytes that answer for it; `stored` is open."""

    info: VolumeInfo
    box: Box
    stored: Stored
    reader: ChunkReader

    @property
    def array_bytes(self) -> int:
        """The length of the decoded array "(C, Z, Y, X)" in bytes."""
        return self.info.array_bytes(self.box)

    def decode(self, limit: int) -> bytes:
        """The chunk's bytes as the scale's encoding has them, at most `limit`; raises Unreadable."""
        if max(self.array_bytes, self.stored.length) > limit:
            raise beyond(limit)
        return self.reader.decode(self.stored, self.box, limit)


def beyond(limit: int) -> Unreadable:
    """What is said of a chunk that would take more memory than is allowed."""
    return Unreadable(f"the chunk has more than the {limit} bytes that this server decodes (--max-decoded).")


def longest(place: Place, box: Box) -> int:
    """The bytes beyond which nothing that is stored can be the chunk: several times those of its voxels."""
    return 4 * place.info.array_bytes(box) + _SPARE_BYTES


def encoded_limit(place: Place, box: Box, limit: int) -> int:
    """The bytes that a chunk may have in the scale's encoding: of a raw one what its box says, of others some more."""
    return place.info.array_bytes(box) if place.scale.encoding == "raw" else min(limit, longest(place, box))


def read_whole(stored: Stored, place: Place, box: Box) -> bytes:
    """All the stored bytes of a chunk; raises Unreadable before it reads what is much too long."""
    if stored.length > longest(place, box):
        raise Unreadable(f"{stored.length} bytes are stored for a chunk of {place.info.array_bytes(box)}.")
    return bytes(stored.read())


def raw_bytes(place: Place, box: Box) -> int | None:
    """The length that a decoded chunk must have; None where its encoding leaves that open."""
    return place.info.array_bytes(box) if place.scale.encoding == "raw" else None
