"""Shards: files that hold many chunks, and how a chunk is found in them.

A chunk's number is the compressed Morton code of its cell; a hash of it says in which shard, and in which part of the
shard's index, it is listed. Offsets in a shard count from the end of its first index.
Sources: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md
and volume.md#compressed-morton-code beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.format.murmurhash import murmurhash3_x86_128

SHARDED_V1 = "neuroglancer_uint64_sharded_v1"
IDENTITY_HASH, MURMUR_HASH = "identity", "murmurhash3_x86_128"
_ENCODINGS = ("raw", "gzip")
_PAIR = struct.Struct("<QQ")

ENTRY_BYTES = _PAIR.size
"""What a minishard takes in a shard's first index."""

LISTED_BYTES = 24
"""What a chunk takes in the index of a minishard."""


@dataclass(frozen=True)
class Sharding:
    """How the chunks of a scale are spread over shards: the member `sharding` of a scale."""

    preshift_bits: int
    minishard_bits: int
    shard_bits: int
    hash: str = IDENTITY_HASH
    minishard_index_encoding: str = "raw"
    data_encoding: str = "raw"

    @property
    def index_bytes(self) -> int:
        """The length of a shard's first index, from whose end offsets count."""
        return _PAIR.size << self.minishard_bits

    def place(self, chunk: int) -> tuple[int, int]:
        """The shard, and the minishard in it, that lists the chunk of that number."""
        shifted = chunk >> self.preshift_bits
        hashed = murmurhash3_x86_128(shifted.to_bytes(8, "little")) if self.hash == MURMUR_HASH else shifted
        minishard = hashed & ((1 << self.minishard_bits) - 1)
        return (hashed >> self.minishard_bits) & ((1 << self.shard_bits) - 1), minishard

    def file_name(self, shard: int) -> str:
        """The name of a shard: `0f.shard`."""
        return f"{shard:0{-(-self.shard_bits // 4)}x}.shard"

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Sharding:
        """Read the member of `info`; raises Unreadable."""
        if members.get("@type") != SHARDED_V1 or members.get("hash") not in (IDENTITY_HASH, MURMUR_HASH):
            raise Unreadable("sharding in info is of a kind that this program does not know.")
        bits = [members.get(name) for name in ("preshift_bits", "minishard_bits", "shard_bits")]
        encodings = [members.get(name, "raw") for name in ("minishard_index_encoding", "data_encoding")]
        if not all(type(number) is int and 0 <= number <= 64 for number in bits) or set(encodings) - {*_ENCODINGS}:
            raise Unreadable("sharding in info has numbers of bits or encodings that cannot be.")
        preshift, minishard, shard = bits
        return cls(preshift or 0, minishard or 0, shard or 0, members["hash"], encodings[0], encodings[1])

    def to_json(self) -> dict[str, Any]:
        """The member of `info`."""
        return {
            "@type": SHARDED_V1,
            "preshift_bits": self.preshift_bits,
            "hash": self.hash,
            "minishard_bits": self.minishard_bits,
            "shard_bits": self.shard_bits,
            "minishard_index_encoding": self.minishard_index_encoding,
            "data_encoding": self.data_encoding,
        }


def code_bits(grid: Vector) -> list[tuple[int, int]]:
    """What the bits of a chunk's number are, lowest first: (axis, bit of the cell's place on it).

    `grid` is the number of cells x, y, z. A bit that no cell of an axis has set is left out.
    """
    highest = max((length - 1).bit_length() for length in grid)
    return [(axis, bit) for bit in range(highest) for axis in range(3) if 1 << bit < grid[axis]]


def chunk_number(cell: Vector, grid: Vector) -> int:
    """The compressed Morton code of `cell` x, y, z."""
    return sum((cell[axis] >> bit & 1) << position for position, (axis, bit) in enumerate(code_bits(grid)))


def chunk_cell(number: int, grid: Vector) -> Vector:
    """The cell x, y, z of that number, which may lie outside the grid."""
    cell = [0, 0, 0]
    for position, (axis, bit) in enumerate(code_bits(grid)):
        cell[axis] |= (number >> position & 1) << bit
    return cell[0], cell[1], cell[2]


@dataclass(frozen=True)
class Listed:
    """A chunk of a shard: its number, and where its bytes lie from the end of the shard's first index."""

    number: int
    offset: int
    length: int


def shard_index(minishards: Sequence[tuple[int, int]]) -> bytes:
    """The first bytes of a shard: start and end of each minishard's index."""
    return b"".join(_PAIR.pack(start, end) for start, end in minishards)


def minishard_range(entry: bytes) -> tuple[int, int]:
    """Start and end of a minishard's index from its 16 bytes of the shard's first index; raises Unreadable."""
    if len(entry) != _PAIR.size:
        raise Unreadable("a shard is shorter than its index.")
    start, end = _PAIR.unpack(entry)
    if end < start:
        raise Unreadable("a shard's index is damaged.")
    return start, end


def minishard_index(chunks: Sequence[Listed]) -> bytes:
    """The index of a minishard, before any compression; `chunks` by ascending number."""
    table = np.array([(chunk.number, chunk.offset, chunk.length) for chunk in chunks], np.uint64).reshape(-1, 3)
    ends = table[:-1, 1] + table[:-1, 2]
    deltas = table.copy()
    deltas[1:, 0] -= table[:-1, 0]
    deltas[1:, 1] -= ends  # modulo 2**64, as readers add it again
    return np.ascontiguousarray(deltas.T).astype("<u8").tobytes()


def minishard_table(index: bytes) -> NDArray[np.uint64]:
    """The chunks of a minishard's index, decompressed: rows of numbers, offsets and lengths; raises Unreadable."""
    if len(index) % LISTED_BYTES:
        raise Unreadable("the index of a part of a shard is damaged.")
    deltas = np.frombuffer(index, "<u8").reshape(3, -1)
    table = np.cumsum(deltas, axis=1, dtype=np.uint64)
    table[1, 1:] += table[2, :-1]
    table[2] = deltas[2]
    return table


def listed_chunks(index: bytes) -> Iterator[Listed]:
    """The chunks of a minishard's index, decompressed; raises Unreadable."""
    return (Listed(number, offset, length) for number, offset, length in minishard_table(index).T.tolist())
