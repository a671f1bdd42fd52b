"""BlockFS: all blocks of a scale in a few files, found by a table in the file `precomputed.blockfs`.

The file is the mark, two 32-bit numbers (length of the metadata, offset of the table), the metadata as JSON, and the
table: for each block a little-endian number whose low bits are the block's offset and whose next bits are its length.
Source: https://github.com/chunglabmit/blockfs
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Vector

DIRECTORY_NAME = "precomputed.blockfs"
_MARK = b"BlockFS\0"
_NUMBERS = struct.Struct("<II")
PREFIX_BYTES = len(_MARK) + _NUMBERS.size
_TYPES = re.compile("u?int(8|16|32|64)|float(32|64)|[<|]?[uif][1248]")
_MAXIMUM_METADATA = 16 << 20


@dataclass(frozen=True)
class BlockDirectory:
    """What the head of a directory file says; lengths are in voxels x, y, z, `table` in bytes from its beginning."""

    block_size: Vector
    extent: Vector
    strides: Vector
    dtype: np.dtype[Any]
    offset_bits: int
    size_bits: int
    table: int
    file_names: tuple[str, ...]

    @property
    def entry_bytes(self) -> int:
        """The length of a block's entry in the table."""
        return -(-(self.offset_bits + self.size_bits) // 8)

    def number(self, cell: Vector) -> int:
        """The number of the block at `cell` x, y, z of the grid of blocks."""
        return sum(place * stride for place, stride in zip(cell, self.strides, strict=True))

    def file_name(self, number: int) -> str:
        """In which file the block of that number lies, beside the directory file."""
        return self.file_names[number % len(self.file_names)]

    def entry(self, number: int) -> int:
        """Where the block's entry lies in the directory file."""
        return self.table + number * self.entry_bytes

    def place(self, entry: bytes) -> tuple[int, int]:
        """Offset and length of a block in its file; length 0 stands for absent."""
        value = int.from_bytes(entry, "little")
        return value & ((1 << self.offset_bits) - 1), value >> self.offset_bits & ((1 << self.size_bits) - 1)


def metadata_bytes(prefix: bytes, file_bytes: int) -> int:
    """How long the metadata is that follows the first PREFIX_BYTES; raises Unreadable."""
    length = _numbers(prefix)[0]
    if length > min(file_bytes - PREFIX_BYTES, _MAXIMUM_METADATA):
        raise Unreadable(f"{DIRECTORY_NAME} is shorter than it says.")
    return length


def parse_directory(prefix: bytes, metadata: bytes) -> BlockDirectory:
    """Read the metadata; raises Unreadable."""
    _, table = _numbers(prefix)
    try:
        members = json.loads(metadata)
        offset_bits, size_bits = _number(members, "NOffsetBits", 0, 64), _number(members, "NSizeBits", 1, 64)
        return BlockDirectory(
            block_size=_vector(members, "BlockSize", 1),
            extent=_vector(members, "Extent", 1),
            strides=_vector(members, "Stride", 0),
            dtype=_dtype(members["DType"]),
            offset_bits=offset_bits,
            size_bits=size_bits,
            table=table,
            file_names=_file_names(members["BlockFilenames"]),
        )
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Unreadable(f"the metadata in {DIRECTORY_NAME} are damaged.") from error


def _numbers(prefix: bytes) -> tuple[int, int]:
    if len(prefix) != PREFIX_BYTES or not prefix.startswith(_MARK):
        raise Unreadable(f"{DIRECTORY_NAME} does not begin as such a file does.")
    length, table = _NUMBERS.unpack_from(prefix, len(_MARK))
    return length, table


def _vector(members: Mapping[str, Any], name: str, minimum: int) -> Vector:
    x, y, z = (_number(members, axis + name, minimum, 1 << 40) for axis in "XYZ")
    return x, y, z


def _number(members: Mapping[str, Any], name: str, minimum: int, maximum: int) -> int:
    value = members[name]
    if type(value) is not int or not minimum <= value <= maximum:
        raise ValueError(name)
    return value


def _dtype(name: object) -> np.dtype[Any]:
    if not isinstance(name, str) or not _TYPES.fullmatch(name):
        raise ValueError("DType")
    return np.dtype(name)


def _file_names(paths: object) -> tuple[str, ...]:
    """The last segments of the paths, which are those of the machine that wrote the files."""
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise ValueError("BlockFilenames")
    names = tuple(path.replace("\\", "/").rpartition("/")[2] for path in paths)
    if any(not name or name.startswith(".") or "\0" in name for name in names):
        raise ValueError("BlockFilenames")
    return names
