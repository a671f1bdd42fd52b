"""Many chunks a file, for file systems that count files.

Chunks are written as files into a hidden directory, one for each shard; when all are there each shard is packed once,
whole. Shards hold neighbours: the hash is the identity of the chunks' Morton codes.
Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converter.writers.compression import gzipped, inflated
from converter.writers.encodings import Encoding, Raw
from converter.writers.files import load
from converter.writers.protocol import Array, Channel, Pieces
from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, grid_shape
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.format.sharding import (
    Listed,
    Sharding,
    chunk_cell,
    chunk_number,
    code_bits,
    listed_chunks,
    minishard_index,
    minishard_range,
    shard_index,
)
from precomputed_server.writing import replacing

_NEIGHBOURS_BITS = 6
"""4 × 4 × 4 chunks are listed together: a viewer finds them by one reading of an index."""

_WRITTEN = ".chunks"
_ENTRY_BYTES = 16


@dataclass(frozen=True)
class ShardedWriter:
    """Chunks in shards of about `shard_bytes` before compression; `chunk_bytes` are those of a whole chunk."""

    chunk_bytes: int
    shard_bytes: int
    encoding: Encoding = Raw()
    gzip: bool = True

    @property
    def lossy(self) -> bool:
        """As the encoding is."""
        return self.encoding.lossy

    def described(self, scale: ScaleInfo, level: int) -> ScaleInfo:
        """With its encoding, and how its chunks are spread over shards."""
        sharding = spread(grid_shape(scale), max(1, self.shard_bytes // self.chunk_bytes), self.gzip)
        other = {**scale.other, **self.encoding.members, "sharding": sharding.to_json()}
        return replace(scale, encoding=self.encoding.name, other=other)

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """A file in the hidden directory of its shard."""
        shards = _Shards.of(directory, scale)
        shard, _ = shards.sharding.place(shards.number(box))
        return shards.written(shard) / chunk_name(box)

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """The encoded chunk as the shard is to hold it."""
        encoded = self.encoding.encode(chunk)
        return (gzipped(encoded) if self.gzip else encoded,)

    def stored(self, directory: Path, scale: ScaleInfo, box: Box) -> bytes:
        """The chunk as written, else as packed."""
        written = self.path(directory, scale, box)
        return load(written) if written.exists() else _Shards.of(directory, scale).packed(box)

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """Both undone."""
        data = inflated(stored, f"chunk {chunk_name(box)}") if self.gzip else stored
        return self.encoding.decode(data, box, channels, dtype)

    def packs(self, scale: ScaleInfo) -> Sequence[int]:
        """The shards that have a chunk."""
        shards = _Shards.of(Path(), scale)
        count = 1 << shards.sharding.shard_bits
        return [shard for shard in range(count) if any(True for _ in shards.boxes(shard))]

    def pack(self, directory: Path, scale: ScaleInfo, number: int, *, may_lack: bool = False) -> int:
        """Write the shard beside its name, durable, and put it in place; then remove what it was made of."""
        shards = _Shards.of(directory, scale)
        path, written = shards.path(number), shards.written(number)
        if written.exists() or not (path.exists() or may_lack):
            with replacing(path) as file:
                shards.write(number, file, may_lack)
            shutil.rmtree(written)
        with contextlib.suppress(OSError):  # until the last shard is packed, it is not empty
            os.rmdir(directory / _WRITTEN)
        return path.stat().st_size if path.exists() else 0

    def scale_files(self, info: VolumeInfo, scale: ScaleInfo) -> Mapping[str, bytes]:
        """None."""
        return {}

    def dataset_files(self, info: VolumeInfo, name: str, channels: Sequence[Channel]) -> Mapping[str, str]:
        """None."""
        return {}


def spread(grid: Vector, chunks_per_shard: int, gzip: bool) -> Sharding:
    """Spread the chunks of a grid over shards of at most so many, neighbours together."""
    bits = len(code_bits(grid))
    inside = min(bits, chunks_per_shard.bit_length() - 1)
    preshift = min(_NEIGHBOURS_BITS, inside)
    return Sharding(
        preshift_bits=preshift,
        minishard_bits=inside - preshift,
        shard_bits=bits - inside,
        minishard_index_encoding="gzip",
        data_encoding="gzip" if gzip else "raw",
    )


@dataclass(frozen=True)
class _Shards:
    """The shards of a scale in its directory."""

    directory: Path
    scale: ScaleInfo
    sharding: Sharding
    grid: Vector

    @classmethod
    def of(cls, directory: Path, scale: ScaleInfo) -> _Shards:
        return cls(directory, scale, Sharding.from_json(scale.other["sharding"]), grid_shape(scale))

    def path(self, shard: int) -> Path:
        return self.directory / self.sharding.file_name(shard)

    def written(self, shard: int) -> Path:
        """Where the chunks lie that this shard is made of."""
        return self.directory / _WRITTEN / f"{shard:x}"

    def number(self, box: Box) -> int:
        step, offset = self.scale.chunk_sizes[0], self.scale.voxel_offset
        x, y, z = ((low - first) // edge for low, first, edge in zip(box.start, offset, step, strict=True))
        return chunk_number((x, y, z), self.grid)

    def boxes(self, shard: int) -> Iterator[tuple[int, Box]]:
        """Number and box of the chunks of a shard, by ascending number, which is by minishard as well."""
        bits = self.sharding.preshift_bits + self.sharding.minishard_bits
        for number in range(shard << bits, (shard + 1) << bits):
            cell = chunk_cell(number, self.grid)
            if all(place < count for place, count in zip(cell, self.grid, strict=True)):
                yield number, cell_box(self.scale, cell)

    def write(self, shard: int, file: BinaryIO, may_lack: bool) -> None:
        """Write a shard from the chunks written for it, and those of the shard that it replaces."""
        minishards: dict[int, list[Listed]] = {}
        base = self.sharding.index_bytes
        file.write(bytes(base))
        for number, box in self.boxes(shard):
            path = self.written(shard) / chunk_name(box)
            data = self._found(path, box, may_lack)
            if data is None:
                continue
            listed = Listed(number, file.tell() - base, len(data))
            minishards.setdefault(self.sharding.place(number)[1], []).append(listed)
            file.write(data)
        ranges = [(0, 0)] * (1 << self.sharding.minishard_bits)
        for minishard, chunks in sorted(minishards.items()):
            start = file.tell() - base
            file.write(gzipped(minishard_index(chunks)))
            ranges[minishard] = start, file.tell() - base
        file.seek(0)
        file.write(shard_index(ranges))

    def _found(self, path: Path, box: Box, may_lack: bool) -> bytes | None:
        """A chunk as written, else as packed; None where it may be missing."""
        if path.exists():
            return load(path)
        try:
            return self.packed(box)
        except Unreadable:
            if may_lack:
                return None
            raise

    def packed(self, box: Box) -> bytes:
        """The bytes of a chunk in its shard; raises Unreadable."""
        number = self.number(box)
        shard, minishard = self.sharding.place(number)
        path, base = self.path(shard), self.sharding.index_bytes
        try:
            with path.open("rb") as file:
                file.seek(_ENTRY_BYTES * minishard)
                start, end = minishard_range(file.read(_ENTRY_BYTES))
                file.seek(base + start)
                index = inflated(file.read(end - start), f"the index of {path.name}") if end > start else b""
                for listed in listed_chunks(index):
                    if listed.number == number:
                        file.seek(base + listed.offset)
                        return file.read(listed.length)
        except OSError as error:
            raise Unreadable(f"chunk {chunk_name(box)} cannot be read back: {error.strerror}.") from error
        raise Unreadable(f"chunk {chunk_name(box)} is not in {path.name}; convert again.")
