"""Scales stored as shards: a chunk is found by its number in the index of a part of a shard.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_at, grid_shape
from precomputed_server.format.sharding import (
    ENTRY_BYTES,
    LISTED_BYTES,
    Sharding,
    chunk_number,
    minishard_range,
    minishard_table,
)
from precomputed_server.readers.base import Place
from precomputed_server.readers.compression import inflate
from precomputed_server.readers.per_file import checked, inflated
from precomputed_server.readers.stored import IDENTITY, Stored

_AT_ONCE = 1 << 13
"""Bytes of an index up to which it is read without leaving the event loop."""

_LONGEST_INDEX = 16 << 20
"""Of the index of one part of a shard: 700,000 chunks."""

_STREAM_BYTES = 1 << 10
"""What a compressed index may have more than a plain one."""

Table = NDArray[np.uint64]


@dataclass(frozen=True)
class Sharded:
    """The chunks of a scale in shards, none of which is also a file of its own."""

    place: Place
    sharding: Sharding
    fill_value: float = 0

    @classmethod
    def of(cls, place: Place) -> Sharded:
        """The reader of a scale with the member `sharding`; raises Unreadable."""
        members = place.scale.other["sharding"]
        if not isinstance(members, Mapping):
            raise Unreadable("sharding in info is not an object.")
        return cls(place, Sharding.from_json(members))

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """The chunk's part of its shard; see `ChunkReader`."""
        number = chunk_number(cell_at(self.place.scale, box.start), grid_shape(self.place.scale))
        number_of_shard, minishard = self.sharding.place(number)
        name = self.sharding.file_name(number_of_shard)
        try:
            shard = self.place.source.open(name, cached=cached)
        except FileNotFoundError:
            return None
        try:
            part = self._part(shard, (name, minishard), number, cached=cached)
        except BaseException:
            shard.close()
            raise
        if part is None:
            shard.close()
            return None
        offset, length = part
        encoding = IDENTITY if self.sharding.data_encoding == "raw" else "gzip"
        return checked(replace(shard, offset=offset, length=length, encoding=encoding), self.place, box)

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """Read and inflate; see `ChunkReader`."""
        return inflated(stored, self.place, box, limit)

    def _part(self, shard: Stored, listed: tuple[str, int], number: int, *, cached: bool) -> tuple[int, int] | None:
        """Offset and length of the chunk in the shard, None when it is not listed; raises Unreadable."""
        name, minishard = listed
        key = (f"{self.place.source.name}/{name}", minishard)

        def read() -> tuple[Table, int]:
            table = self._index(shard, minishard, cached=cached)
            return table, table.nbytes

        table = self.place.indices.of(key, shard.fingerprint, read)
        at = np.flatnonzero(table[0] == number)
        if len(at) == 0:
            return None
        offset, length = int(table[1, at[0]]) + self.sharding.index_bytes, int(table[2, at[0]])
        if offset + length > shard.length:
            raise Unreadable("the index of a shard names bytes behind the shard's end.")
        return offset, length

    def _index(self, shard: Stored, minishard: int, *, cached: bool) -> Table:
        """The chunks that a minishard lists: numbers, offsets and lengths."""
        base, entry = self.sharding.index_bytes, minishard * ENTRY_BYTES
        if base > shard.length:
            raise Unreadable("a shard is shorter than its index.")
        start, end = minishard_range(bytes(shard.read(entry, ENTRY_BYTES, cached=cached)))
        longest = min(_LONGEST_INDEX, LISTED_BYTES * prod(grid_shape(self.place.scale)))
        if base + end > shard.length or end - start > longest + _STREAM_BYTES:
            raise Unreadable("the index of a part of a shard is longer than it can be.")
        if start == end:
            return minishard_table(b"")
        if cached and end - start > _AT_ONCE:
            raise BlockingIOError(errno.EAGAIN, "reading this takes too long here")
        index = bytes(shard.read(base + start, end - start, cached=cached))
        if self.sharding.minishard_index_encoding == "gzip":
            index = inflate("gzip", index, longest)
        return minishard_table(index)
