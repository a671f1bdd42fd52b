"""One file a chunk: as it is, compressed beside its name, or as TIFF."""

from __future__ import annotations

from dataclasses import dataclass

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, chunk_name
from precomputed_server.readers.base import Place, encoded_limit, raw_bytes, read_whole
from precomputed_server.readers.compression import inflate
from precomputed_server.readers.stored import CODED, IDENTITY, SIBLINGS, Stored
from precomputed_server.readers.tiff import decode_tiff, find_stream

_SUFFIXES = (("", IDENTITY), (CHUNK_TIFF_SUFFIX, CODED), *SIBLINGS)
"""In the order in which they are looked for, which costs each chunk those before its own: the frequent ones first."""


@dataclass(frozen=True)
class PerFile:
    """A scale whose chunks are files of their names; the exact name wins, then TIFF, then a compressed sibling."""

    place: Place
    fill_value: float = 0

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """The file of the chunk, else its TIFF, else the first compressed sibling; see `ChunkReader`."""
        name = chunk_name(box)
        for suffix, encoding in _SUFFIXES:
            try:
                found = self.place.source.open(name + suffix, encoding, cached=cached)
            except FileNotFoundError:
                continue
            if encoding == CODED:
                return find_stream(found, self.place, box, cached=cached)
            return checked(found, self.place, box)
        return None

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """Read and inflate; see `ChunkReader`."""
        if stored.encoding == CODED:
            return decode_tiff(read_whole(stored, self.place, box), self.place.info, box)
        return inflated(stored, self.place, box, limit)


def checked(stored: Stored, place: Place, box: Box) -> Stored:
    """Give a raw chunk the length that it must have; raises Unreadable when plain bytes have another."""
    expected = raw_bytes(place, box)
    if expected is None:
        return stored
    if stored.encoding == IDENTITY and stored.length != expected:
        stored.close()
        raise Unreadable(f"the chunk has {stored.length} bytes where info says {expected}.")
    return Stored(stored.descriptor, stored.fingerprint, stored.offset, stored.length, stored.encoding, expected)


def inflated(stored: Stored, place: Place, box: Box, limit: int) -> bytes:
    """The bytes of a chunk that lie plain, or compressed by an HTTP content encoding; raises Unreadable."""
    data = read_whole(stored, place, box)
    if stored.encoding == IDENTITY:
        return data
    decoded = inflate(stored.encoding, data, encoded_limit(place, box, limit))
    if stored.decoded_bytes is not None and len(decoded) != stored.decoded_bytes:
        raise Unreadable("the chunk is shorter than its name says.")
    return decoded
