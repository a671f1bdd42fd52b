"""TIFF files that hold one chunk as one compressed stream, so that the stream can be sent as it lies in the file.

The chunk is a single volumetric tile (TileWidth, TileLength, TileDepth are the image's own width, length and depth),
little-endian, one sample a pixel, no predictor; channels are stacked along z: the pixels are "(C·Z, Y, X)".
Source: TIFF 6.0 sections 2 and 15; ImageDepth and TileDepth are the SGI extension, tags 32997 and 32998.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

DEFLATE = 8
DEFLATE_OLD = 32946
ZSTD = 50000
PASSED_THROUGH = {DEFLATE: "deflate", DEFLATE_OLD: "deflate", ZSTD: "zstd"}
"""TIFF compression → the HTTP content encoding whose stream it is (HTTP's `deflate` is the zlib format, RFC 9110)."""

HEADER_BYTES = 4096
"""How much of a file `parse_stream` wants to see."""

_SHORT, _LONG = 3, 4
_TYPE_SIZE = {1: 1, 2: 1, _SHORT: 2, _LONG: 4, 16: 8}
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_KIND = {number: kind for kind, number in _SAMPLE_FORMAT.items()}
_MAXIMUM_ENTRIES = 200

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT_TAG = 322, 323, 324, 325, 339
_DEPTH, _TILE_DEPTH = 32997, 32998


@dataclass(frozen=True, slots=True)
class ChunkStream:
    """Where the one stream of a TIFF lies (bytes) and what it inflates to: `shape` is "(C·Z, Y, X)"."""

    offset: int
    length: int
    compression: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @property
    def content_encoding(self) -> str:
        """The HTTP content encoding that the stream is."""
        return PASSED_THROUGH[self.compression]


def chunk_header(shape: tuple[int, int, int], dtype: np.dtype[Any], compressed: int, compression: int) -> bytes:
    """Everything of a chunk's TIFF that comes before its stream.

    `shape` is "(C·Z, Y, X)", `dtype` any integer or float type, `compressed` the length of the stream in bytes,
    `compression` one of PASSED_THROUGH.
    """
    depth, length, width = shape
    entries = {
        _WIDTH: (_LONG, width),
        _LENGTH: (_LONG, length),
        _BITS: (_SHORT, 8 * dtype.itemsize),
        _COMPRESSION: (_SHORT, compression),
        _PHOTOMETRIC: (_SHORT, 1),
        _SAMPLES: (_SHORT, 1),
        _PLANAR: (_SHORT, 1),
        _TILE_WIDTH: (_LONG, width),
        _TILE_LENGTH: (_LONG, length),
        _TILE_OFFSETS: (_LONG, 0),
        _TILE_COUNTS: (_LONG, compressed),
        _SAMPLE_FORMAT_TAG: (_SHORT, _SAMPLE_FORMAT[dtype.kind]),
        _DEPTH: (_LONG, depth),
        _TILE_DEPTH: (_LONG, depth),
    }
    offset = 8 + 2 + 12 * len(entries) + 4
    entries[_TILE_OFFSETS] = (_LONG, offset)
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + packed + struct.pack("<I", 0)


def parse_stream(header: bytes, file_bytes: int) -> ChunkStream | None:
    """Find the one stream of a TIFF from its first HEADER_BYTES; None when its pixels cannot be sent as they lie.

    A TIFF qualifies when it is little-endian, has one page of one sample, and one strip or tile that holds it all,
    deflate or zstd without predictor.
    """
    tags = _first_directory(header)
    if tags is None or not _is_plain(tags):
        return None
    width, length = tags.get(_WIDTH, 0), tags.get(_LENGTH, 0)
    depth = tags.get(_DEPTH, 1)
    where = _only_segment(tags, (depth, length, width))
    kind, bits = _KIND.get(tags.get(_SAMPLE_FORMAT_TAG, 1)), tags.get(_BITS, 1)
    if where is None or kind is None or bits not in (8, 16, 32, 64) or (kind, bits) == ("f", 8):
        return None
    offset, count = where
    if min(width, length, depth, count) <= 0 or offset + count > file_bytes:
        return None
    dtype = np.dtype(f"<{kind}{bits // 8}")
    return ChunkStream(offset, count, tags[_COMPRESSION], (depth, length, width), dtype)


def _is_plain(tags: dict[int, int]) -> bool:
    return (
        tags.get(_COMPRESSION) in PASSED_THROUGH
        and tags.get(_PREDICTOR, 1) == 1
        and tags.get(_FILL_ORDER, 1) == 1
        and tags.get(_SAMPLES, 1) == 1
    )


def _only_segment(tags: dict[int, int], shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """Offset and length of the one tile or strip, both in bytes, when it holds all of `shape` "(Z, Y, X)"."""
    depth, length, width = shape
    if _TILE_OFFSETS in tags:
        tile = (tags.get(_TILE_DEPTH, 1), tags.get(_TILE_LENGTH), tags.get(_TILE_WIDTH))
        return (tags[_TILE_OFFSETS], tags.get(_TILE_COUNTS, 0)) if tile == shape else None
    if _STRIP_OFFSETS in tags and depth == 1 and tags.get(_ROWS_PER_STRIP, length) >= length:
        return tags[_STRIP_OFFSETS], tags.get(_STRIP_COUNTS, 0)
    return None


def _first_directory(header: bytes) -> dict[int, int] | None:
    """The single-valued tags of the only page of a little-endian TIFF; None when it is not such a file."""
    if len(header) < 8 or header[:4] != b"II*\0":
        return None
    (start,) = struct.unpack_from("<I", header, 4)
    if start + 2 > len(header):
        return None
    (count,) = struct.unpack_from("<H", header, start)
    end = start + 2 + 12 * count
    if count > _MAXIMUM_ENTRIES or end + 4 > len(header) or struct.unpack_from("<I", header, end) != (0,):
        return None
    tags: dict[int, int] = {}
    for position in range(start + 2, end, 12):
        tag, kind, values = struct.unpack_from("<HHI", header, position)
        size = _TYPE_SIZE.get(kind)
        if values == 1 and size in (2, 4):
            (tags[tag],) = struct.unpack_from("<H" if size == 2 else "<I", header, position + 8)
        elif tag in (_TILE_OFFSETS, _STRIP_OFFSETS, _BITS):
            return None
    return tags
