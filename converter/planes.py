"""The planes of a TIFF file and their rows: the only module that knows tifffile."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from converter.metadata import Metadata, parse_ome
from precomputed_server.errors import SourceError, Unreadable
from precomputed_server.files import read_at

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks on damage are for logs, not for stderr

_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What tifffile and its codecs raise depends on which byte of a file is damaged."""

_HEADER, _BIG_HEADER = {b"II*\0": "<", b"MM\0*": ">"}, {b"II+\0": "<", b"MM\0+": ">"}


@dataclass(frozen=True)
class Plane:
    """One page of one file: `shape` is "(S, Y, X)" with S samples a pixel, `dtype` has the file's byte order.

    `interleaved` says that the file keeps the samples as "(Y, X, S)"; `offset` is where the pixels begin in bytes
    when they lie there uncompressed and in one piece, else None. `segment_rows` are decoded together.
    """

    path: str
    page: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    interleaved: bool = False
    offset: int | None = None
    segment_rows: int = 1

    @property
    def name(self) -> str:
        """How errors name the plane."""
        return self.path if self.page == 0 else f"{self.path} (page {self.page + 1})"

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of one stored sample plane."""
        return self.shape[2] * self.dtype.itemsize * (self.shape[0] if self.interleaved else 1)

    @property
    def bytes(self) -> int:
        """The bytes of the whole plane."""
        samples, rows, columns = self.shape
        return samples * rows * columns * self.dtype.itemsize


@dataclass(frozen=True)
class TiffContent:
    """The planes of one file in page order, without reduced-size copies, and the file's metadata."""

    planes: tuple[Plane, ...]
    metadata: Metadata


def read_content(path: str) -> TiffContent:
    """Describe every page of a TIFF without reading its pixels; raises SourceError naming the file."""
    try:
        with tifffile.TiffFile(path) as tiff:
            order = tiff.byteorder
            every: list[Any] = list(tiff.pages)
            pages = [(index, page) for index, page in enumerate(every) if not page.is_reduced]
            if not pages or _breaks_off(path):
                raise ValueError("the chain of its pages breaks off")
            planes = tuple(_plane(path, index, page, order) for index, page in pages)
            metadata = _metadata(tiff)
            file_bytes = tiff.filehandle.size
    except _DAMAGE as error:
        raise SourceError(f"{path} is not a readable TIFF ({_reason(error)}); replace the file.") from error
    planes = _with_implied_planes(planes, metadata)
    for plane in planes:
        if plane.offset is not None and plane.offset + plane.bytes > file_bytes:
            raise SourceError(f"{plane.name} is truncated: the file ends before the plane does; replace the file.")
    return TiffContent(planes, metadata)


def read_rows(planes: Sequence[Plane], start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Read the rows from `start` up to `stop` of each plane in turn: "(S, Y, X)" in the file's dtype.

    Of a compressed plane only the strips or tiles that hold these rows are decoded, one at a time.
    Raises SourceError naming the plane.
    """
    for path, group in groupby(planes, key=lambda plane: plane.path):
        members = list(group)
        if all(plane.offset is not None for plane in members):
            yield from _read_stored(path, members, start, stop)
        else:
            yield from _decode(path, members, start, stop)


def _read_stored(path: str, planes: list[Plane], start: int, stop: int) -> Iterator[NDArray[Any]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        for plane in planes:
            yield _stored_rows(descriptor, plane, start, stop)
    except (OSError, Unreadable) as error:
        raise SourceError(f"{path} cannot be read ({_reason(error)}); replace the file.") from error
    finally:
        os.close(descriptor)


def _stored_rows(descriptor: int, plane: Plane, start: int, stop: int) -> NDArray[Any]:
    samples, rows, columns = plane.shape
    origin = (plane.offset or 0) + start * plane.row_bytes
    length = (stop - start) * plane.row_bytes
    if plane.interleaved:
        band = np.frombuffer(read_at(descriptor, origin, length), plane.dtype)
        return band.reshape(stop - start, columns, samples).transpose(2, 0, 1)
    pieces = [read_at(descriptor, origin + sample * rows * plane.row_bytes, length) for sample in range(samples)]
    band = np.frombuffer(pieces[0] if samples == 1 else b"".join(pieces), plane.dtype)
    return band.reshape(samples, stop - start, columns)


def _decode(path: str, planes: list[Plane], start: int, stop: int) -> Iterator[NDArray[Any]]:
    try:
        with tifffile.TiffFile(path) as tiff:
            for plane in planes:
                yield _decoded_rows(tiff.pages[plane.page], plane, start, stop)
    except _DAMAGE as error:
        raise SourceError(f"{path} cannot be decoded ({_reason(error)}); replace the file.") from error


def _decoded_rows(page: Any, plane: Plane, start: int, stop: int) -> NDArray[Any]:  # noqa: ANN401
    samples, _, columns = plane.shape
    band = np.full((samples, stop - start, columns), page.nodata, plane.dtype.newbyteorder("="))
    for index in _segments(page, start, stop):
        segment, (sample, _, top, left, _), _ = page.decode(_segment_bytes(page, index), index, **_tables(page))
        if segment is None:
            continue
        low, high = max(top, start), min(top + segment.shape[1], stop)
        rows = segment[0, low - top : high - top, : columns - left].transpose(2, 0, 1)
        width = rows.shape[2]
        band[sample : sample + len(rows), low - start : high - start, left : left + width] = rows
    return band


def _segments(page: Any, start: int, stop: int) -> Iterator[int]:  # noqa: ANN401
    """The strips or tiles that hold any of the rows: they are numbered row by row, sample plane by sample plane."""
    length = page.tilelength if page.is_tiled else page.rowsperstrip
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    down = -(-page.imagelength // length)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    for plane in range(planes):
        first = plane * down + start // length
        last = plane * down + (stop - 1) // length
        yield from range(first * across, (last + 1) * across)


def _segment_bytes(page: Any, index: int) -> bytes | None:  # noqa: ANN401
    """The stored bytes of a strip or tile; None for one that was left out because it is empty."""
    offset, length = page.dataoffsets[index], page.databytecounts[index]
    if length == 0 or offset == 0:
        return None
    handle = page.parent.filehandle
    handle.seek(offset)
    data = bytes(handle.read(length))
    if len(data) != length:
        raise ValueError("the file ends within a strip or tile")
    return data


def _tables(page: Any) -> dict[str, Any]:  # noqa: ANN401
    """What strips and tiles in JPEG share."""
    return {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}


def _plane(path: str, index: int, page: Any, byte_order: str) -> Plane:  # noqa: ANN401
    if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"page {index + 1} has axes {page.axes} and data type {page.dtype}")
    shape = (1, *page.shape) if page.axes == "YX" else page.shape
    if page.axes == "YXS":
        shape = (shape[2], shape[0], shape[1])
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    if max((offset + length for offset, length in ends), default=0) > page.parent.filehandle.size:
        raise ValueError("it is truncated")
    dtype = np.dtype(page.dtype).newbyteorder("<" if byte_order == "<" else ">")
    offset = page.dataoffsets[0] if page.is_final else None
    segment_rows = 1 if page.is_final else page.tilelength if page.is_tiled else page.rowsperstrip
    return Plane(path, index, shape, dtype, page.axes == "YXS", offset, min(segment_rows, shape[1]))


def _with_implied_planes(planes: tuple[Plane, ...], metadata: Metadata) -> tuple[Plane, ...]:
    """Add the planes that ImageJ stores behind the only page of a file over 4 GiB."""
    count = int(metadata.imagej.get("images", 1))
    if len(planes) != 1 or count <= 1 or planes[0].offset is None:
        return planes
    first, offset = planes[0], planes[0].offset
    return tuple(replace(first, page=index, offset=offset + index * first.bytes) for index in range(count))


def _metadata(tiff: tifffile.TiffFile) -> Metadata:
    page: Any = tiff.pages[0]
    shaped = (tiff.shaped_metadata or ({},))[0] if tiff.is_shaped else {}
    return Metadata(
        imagej=dict(tiff.imagej_metadata or {}) if tiff.is_imagej else {},
        ome=parse_ome(tiff.ome_metadata) if tiff.is_ome and tiff.ome_metadata else None,
        shape=tuple(shaped.get("shape", ())),
        axes=str(shaped.get("axes", "")),
        pixels_per_unit=(_ratio(page.tags.get("XResolution")), _ratio(page.tags.get("YResolution"))),
        resolution_unit=int(page.resolutionunit),
    )


def _ratio(tag: Any) -> Fraction | None:  # noqa: ANN401
    if tag is None or not isinstance(tag.value, tuple) or 0 in tag.value:
        return None
    return Fraction(int(tag.value[0]), int(tag.value[1]))


def _breaks_off(path: str) -> bool:
    """Whether a page's directory lies beyond the end of the file, where tifffile would silently stop.

    Source: TIFF 6.0 section 2; BigTIFF has 8-byte offsets and counts.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        mark = file.read(4)
        order, big = (_HEADER.get(mark) or _BIG_HEADER.get(mark)), mark in _BIG_HEADER
        if order is None:  # a relative of TIFF that tifffile knows and this function does not
            return False
        offset_format, count_format, entry_bytes = (
            (f"{order}Q", f"{order}Q", 20) if big else (f"{order}I", f"{order}H", 12)
        )
        file.seek(8 if big else 4)
        width, seen = struct.calcsize(offset_format), set()
        (offset,) = struct.unpack(offset_format, file.read(width))
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            count = file.read(struct.calcsize(count_format))
            if len(count) < struct.calcsize(count_format):
                return True
            file.seek(struct.unpack(count_format, count)[0] * entry_bytes, os.SEEK_CUR)
            following = file.read(width)
            if len(following) < width or file.tell() > size:
                return True
            (offset,) = struct.unpack(offset_format, following)
        return False


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def write_plane(path: Path, pixels: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    """Write one plane "(C, Y, X)" as an ImageJ TIFF that tells its voxel size, x, y, z in micrometres."""
    x, y, z = voxel_size
    tifffile.imwrite(
        path, pixels, imagej=True, resolution=(1 / x, 1 / y), metadata={"axes": "CYX", "unit": "um", "spacing": z}
    )
