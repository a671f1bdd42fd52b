"""The front of a TIFF file of many planes: everything but the pixels, which follow plane by plane as one array.

It is a hyperstack of ImageJ: its axes, the size of a voxel and the place of the first one are in the description of the
first page. Each plane has a page of its own, so that other readers see them all.
Sources: TIFF 6.0; https://www.awaresystems.be/imaging/tiff/bigtiff.html; ImageJ's ij/io/FileOpener.java (the names in
the description) and ij/io/TiffEncoder.java.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import Resolution

_SHORT, _LONG, _ASCII, _RATIONAL, _LONG8 = 3, 4, 2, 5, 16
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_DESCRIPTION, _STRIP_OFFSET, _X_RESOLUTION, _Y_RESOLUTION = 270, 273, 282, 283
_TAGS, _MORE_TAGS = 11, 3
"""Of every page, and besides of the first."""

_CLASSIC = np.dtype([("tag", "<u2"), ("kind", "<u2"), ("count", "<u4"), ("value", "<u4")])
_BIG = np.dtype([("tag", "<u2"), ("kind", "<u2"), ("count", "<u8"), ("value", "<u8")])

_PAGES_AT_ONCE = 4096
_UNIT_NM = 1000
_FINEST = 1_000_000
"""Parts of a nanometre in which an edge is told."""

_MOST_COLOURS = 7
"""Channels that ImageJ lays over one another; more are shown one at a time."""


@dataclass(frozen=True)
class TiffStack:
    """The file of an array `shape` "(Z, C, Y, X)" of a little-endian type that has at most 32 bits.

    `origin` is the place of its first voxel, x, y, z, in voxels of `resolution_nm`.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    resolution_nm: Resolution
    origin: Vector

    @property
    def is_big(self) -> bool:
        """Whether it has to be a BigTIFF, which ImageJ itself does not open: one above 4 GiB."""
        return self._bytes(big=False) > 0xFFFFFFFF

    @property
    def file_bytes(self) -> int:
        """The length of the file, pixels included."""
        return self._bytes(big=self.is_big)

    def front(self) -> Iterator[bytes]:
        """What comes before the pixels, in pieces of less than 1 MiB."""
        big = self.is_big
        description = self._description()
        yield struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
        first = self._pages(0, 1, described=True).tobytes()
        yield first + self._resolution() + description
        for start in range(1, self._planes, _PAGES_AT_ONCE):
            yield self._pages(start, min(start + _PAGES_AT_ONCE, self._planes), described=False).tobytes()

    @property
    def _planes(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def _plane_bytes(self) -> int:
        return prod(self.shape[2:]) * self.dtype.itemsize

    def _bytes(self, *, big: bool) -> int:
        return self._front_bytes(big=big) + self._planes * self._plane_bytes

    def _front_bytes(self, *, big: bool) -> int:
        return self._second_page(big=big) + (self._planes - 1) * self._page(big=big, described=False).itemsize

    def _second_page(self, *, big: bool) -> int:
        """Where the page of the second plane begins, or would."""
        return self._values(big=big) + len(self._resolution()) + len(self._description())

    def _values(self, *, big: bool) -> int:
        """Where that begins which lies behind the first page: two rationals and the description."""
        return (16 if big else 8) + self._page(big=big, described=True).itemsize

    def _page(self, *, big: bool, described: bool) -> np.dtype[Any]:
        entries = _TAGS + _MORE_TAGS * described
        number = "<u8" if big else "<u2"
        behind = "<u8" if big else "<u4"
        return np.dtype([("number", number), ("entries", _BIG if big else _CLASSIC, (entries,)), ("next", behind)])

    def _pages(self, start: int, stop: int, *, described: bool) -> np.ndarray[Any, Any]:
        """The pages of the planes from `start` up to `stop`."""
        big = self.is_big
        tags = self._tags(big=big, described=described)
        pages = np.zeros(stop - start, self._page(big=big, described=described))
        pages["number"] = len(tags)
        for place, (tag, (kind, count, value)) in enumerate(sorted(tags.items())):
            pages["entries"]["tag"][:, place] = tag
            pages["entries"]["kind"][:, place] = kind
            pages["entries"]["count"][:, place] = count
            pages["entries"]["value"][:, place] = value
        planes = np.arange(start, stop, dtype=np.uint64)
        offsets = pages["entries"]["value"][:, sorted(tags).index(_STRIP_OFFSET)]
        offsets[:] = self._front_bytes(big=big) + planes * self._plane_bytes
        pages["next"] = self._second_page(big=big) + planes * self._page(big=big, described=False).itemsize
        if stop == self._planes:
            pages["next"][-1] = 0
        return pages

    def _tags(self, *, big: bool, described: bool) -> dict[int, tuple[int, int, int]]:
        """Of a page: its tags with type, count and value; the place of the pixels is filled in for each."""
        long = _LONG8 if big else _LONG
        tags = {
            256: (_LONG, 1, self.shape[3]),
            257: (_LONG, 1, self.shape[2]),
            258: (_SHORT, 1, 8 * self.dtype.itemsize),
            259: (_SHORT, 1, 1),
            262: (_SHORT, 1, 1),
            _STRIP_OFFSET: (long, 1, 0),
            277: (_SHORT, 1, 1),
            278: (_LONG, 1, self.shape[2]),
            279: (long, 1, self._plane_bytes),
            296: (_SHORT, 1, 1),  # no unit but that of the description
            339: (_SHORT, 1, _SAMPLE_FORMAT[self.dtype.kind]),
        }
        if not described:
            return tags
        values, resolution = self._values(big=big), self._resolution()
        # A rational lies in the entry itself where there is room for it.
        x, y = struct.unpack("<QQ", resolution) if big else (values, values + 8)
        return tags | {
            _X_RESOLUTION: (_RATIONAL, 1, x),
            _Y_RESOLUTION: (_RATIONAL, 1, y),
            _DESCRIPTION: (_ASCII, len(self._description()), values + len(resolution)),
        }

    def _resolution(self) -> bytes:
        """Pixels a micrometre in x and y, as two rationals."""
        edges_nm = (
            max(Fraction(edge).limit_denominator(_FINEST), Fraction(1, _FINEST)) for edge in self.resolution_nm[:2]
        )
        pixels = (_UNIT_NM / edge for edge in edges_nm)
        return b"".join(struct.pack("<II", *_rational(value)) for value in pixels)

    def _description(self) -> bytes:
        depth, channels = self.shape[:2]
        lines = ["ImageJ=1.54f", f"images={depth * channels}"]
        if channels > 1:
            mode = "composite" if channels <= _MOST_COLOURS else "grayscale"
            lines += [f"channels={channels}", f"slices={depth}", "hyperstack=true", f"mode={mode}"]
        else:
            lines += [f"slices={depth}"]
        lines += ["unit=um", f"spacing={self.resolution_nm[2] / _UNIT_NM!r}", "loop=false"]
        lines += [f"{axis}origin={-first}" for axis, first in zip("xyz", self.origin, strict=True)]
        return ("\n".join(lines) + "\n\0").encode()


def _rational(value: Fraction) -> tuple[int, int]:
    """Numerator and denominator of the nearest value that two numbers of 32 bits give; it is above 0."""
    if value > 1:
        denominator, numerator = _rational(1 / value)
        return numerator, denominator
    near = value.limit_denominator(0xFFFFFFFF)
    return max(near.numerator, 1), near.denominator
