"""TIFF files of one page a plane, as precomputed-tif writes chunks: where the strips of all planes lie.

Only what its many files have in common is understood: classic TIFF, one sample a pixel, strips. Whatever else a file
is, is left to a library.
Source: TIFF 6.0 sections 2, 8 and 14.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

NONE, HORIZONTAL_DIFFERENCES = 1, 2
_SHORT, _LONG = 3, 4
_SIZES = {_SHORT: 2, _LONG: 4}
_DTYPES = {
    (order, number, bits): np.dtype(f"{order}{kind}{bits // 8}")
    for order in "<>"
    for number, kind in ((1, "u"), (2, "i"), (3, "f"))
    for bits in ((32, 64) if kind == "f" else (8, 16, 32, 64))
}
"""Byte order, SampleFormat and BitsPerSample → the type."""
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _FILL_ORDER, _STRIP_OFFSETS = 256, 257, 258, 259, 266, 273
_SAMPLES, _ROWS, _STRIP_COUNTS, _PREDICTOR, _TILE_WIDTH, _FORMAT, _DEPTH = 277, 278, 279, 317, 322, 339, 32997
_WANTED = {
    _WIDTH,
    _LENGTH,
    _BITS,
    _COMPRESSION,
    _FILL_ORDER,
    _STRIP_OFFSETS,
    _SAMPLES,
    _ROWS,
    _STRIP_COUNTS,
    _PREDICTOR,
    _TILE_WIDTH,
    _FORMAT,
    _DEPTH,
}
_LISTS = (_STRIP_OFFSETS, _STRIP_COUNTS)
_NEEDED = (_WIDTH, _LENGTH, *_LISTS)
_FOREIGN = {_TILE_WIDTH, _DEPTH}

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Page:
    """A plane of `length` by `width` pixels, and its strips from the top: offset and length in bytes of each."""

    width: int
    length: int
    dtype: np.dtype[Any]
    compression: int
    predictor: int
    rows_per_strip: int
    strips: tuple[tuple[int, int], ...]


def parse_pages(data: bytes, maximum: int) -> list[Page] | None:
    """The planes of a file; None when it has more than `maximum` or is not a file of this kind."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    pages: list[Page] = []
    like: _Like | None = None
    try:
        for block in _directories(data, order, maximum):
            page = None if like is None else like.page(block, len(data))
            if page is None:
                page = _page(dict(_entries(data, order, block)), order, len(data))
                if page is None:
                    return None
                like = _Like.of(page, block, order)
            pages.append(page)
    except (struct.error, _TooMany):
        return None
    return pages


@dataclass(frozen=True)
class _Like:
    """A page that those behind it are mostly like: but for where their strip lies, and for what nobody looks at."""

    page_before: Page
    mask: int
    masked: int
    offset_at: int
    count_at: int
    order: str

    @classmethod
    def of(cls, page: Page, block: bytes, order: str) -> _Like | None:
        """What is the same in a page like this one; None when it has several strips."""
        mask, fields = bytearray(b"\xff" * len(block)), {}
        for at, (tag, kind, values, _field) in enumerate(struct.iter_unpack(order + "HHII", block)):
            if tag in _LISTS and (kind, values) == (_LONG, 1):
                fields[tag] = 12 * at + 8
            if tag not in _WANTED or tag in fields:
                mask[12 * at + 8 : 12 * at + 12] = bytes(4)
        if len(fields) != len(_LISTS):
            return None
        bits = int.from_bytes(mask, "little")
        masked = int.from_bytes(block, "little") & bits
        return cls(page, bits, masked, fields[_STRIP_OFFSETS], fields[_STRIP_COUNTS], order)

    def page(self, block: bytes, file_bytes: int) -> Page | None:
        """The page of a directory that differs in nothing else; None for any other."""
        if int.from_bytes(block, "little") & self.mask != self.masked:
            return None
        (offset,) = struct.unpack_from(self.order + "I", block, self.offset_at)
        (count,) = struct.unpack_from(self.order + "I", block, self.count_at)
        if offset + count > file_bytes:
            return None
        one = self.page_before
        strips = ((offset, count),)
        return Page(one.width, one.length, one.dtype, one.compression, one.predictor, one.rows_per_strip, strips)


class _TooMany(Exception):
    """More directories or entries than any chunk has."""


def _directories(data: bytes, order: str, maximum: int) -> Iterator[bytes]:
    """The entries of each directory, 12 bytes each."""
    (start,) = struct.unpack_from(order + "I", data, 4)
    for _ in range(maximum):
        (count,) = struct.unpack_from(order + "H", data, start)
        block = data[start + 2 : start + 2 + 12 * count]
        if len(block) != 12 * count:
            raise _TooMany
        yield block
        (start,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
        if start == 0:
            return
    raise _TooMany


def _entries(data: bytes, order: str, block: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    for tag, kind, values, field in struct.iter_unpack(order + "HHII", block):
        if tag not in _WANTED or kind not in _SIZES:
            continue
        if values == 1:
            # A short lies in the first two bytes of the field.
            yield tag, (field if kind == _LONG else field & 0xFFFF if order == "<" else field >> 16,)
        elif values:
            yield tag, _many(data, order, kind, values, field)


def _many(data: bytes, order: str, kind: int, values: int, field: int) -> tuple[int, ...]:
    """Several numbers: in the field itself when they find room there, else where it says."""
    size = _SIZES[kind] * values
    if size > len(data):
        raise _TooMany
    form = f"{order}{values}{'H' if kind == _SHORT else 'I'}"
    if size <= 4:
        return struct.unpack_from(form, struct.pack(order + "I", field))
    return struct.unpack_from(form, data, field)


def _page(tags: Tags, order: str, file_bytes: int) -> Page | None:
    if _FOREIGN & tags.keys() or not all(tag in tags for tag in _NEEDED):
        return None
    if any(len(values) != 1 for tag, values in tags.items() if tag not in _LISTS):
        return None
    one = {tag: values[0] for tag, values in tags.items()}
    dtype = _dtype(one, order)
    if dtype is None or min(one[_WIDTH], one[_LENGTH]) < 1:
        return None
    rows = min(one.get(_ROWS, one[_LENGTH]), one[_LENGTH])
    strips = tuple(zip(tags[_STRIP_OFFSETS], tags[_STRIP_COUNTS], strict=False))
    if rows < 1 or len(strips) != -(-one[_LENGTH] // rows):
        return None
    if any(offset + count > file_bytes for offset, count in strips):
        return None
    return Page(one[_WIDTH], one[_LENGTH], dtype, one.get(_COMPRESSION, NONE), one.get(_PREDICTOR, 1), rows, strips)


def _dtype(one: dict[int, int], order: str) -> np.dtype[Any] | None:
    """The pixels' type; None for several samples a pixel, and for what numpy has no type of."""
    if one.get(_SAMPLES, 1) != 1 or one.get(_FILL_ORDER, 1) != 1:
        return None
    return _DTYPES.get((order, one.get(_FORMAT, 1), one.get(_BITS, 1)))
