"""The planes of a TIFF file and their rows: the only module that knows tifffile."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from converter.stacks.directories import breaks_off
from converter.stacks.metadata import Metadata
from converter.stacks.ome import parse_ome
from converter.stacks.plane import FileVersion
from converter.stacks.plane import Plane as Plane
from converter.stacks.stored import Part, cannot_open, check_unchanged, read_stored, version_of
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
    Unreadable,
    ValueError,
    struct.error,
)
"""What tifffile and its codecs raise depends on which byte of a file is damaged."""

_TABLE_ENTRY_BYTES = 200
"""What tifffile holds for each strip or tile of an open page: the Python numbers of its offset and length."""

_KNOWN_PAGES, _KNOWN_SEGMENTS = 512, 64
_known_pages: dict[tuple[str, int, FileVersion | None], Any] = {}
"""Pages without pixels that were decoded lately: a task goes through its planes once for each band of rows, and to
describe a page takes as long as to decode a strip of it. They are 15 MB at most."""


@dataclass(frozen=True)
class TiffContent:
    """The planes of one file in page order, without reduced-size copies, and the file's metadata."""

    planes: tuple[Plane, ...]
    metadata: Metadata


def read_content(path: str, with_metadata: bool = True) -> TiffContent:
    """Describe every page of a TIFF without reading its pixels; raises SourceError naming the file.

    Without metadata where another file of an OME-TIFF has it: each file of a set holds the XML of the whole.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            version = version_of(tiff.filehandle.fileno())
            every: list[Any] = list(tiff.pages)
            pages = [(index, page) for index, page in enumerate(every) if not page.is_reduced]
            if not pages or breaks_off(path):
                raise ValueError("the chain of its pages breaks off")
            planes = tuple(_plane(path, index, page, version) for index, page in pages)
            metadata = _metadata(tiff) if with_metadata else Metadata()
    except (FileNotFoundError, PermissionError) as error:
        raise cannot_open(path, error) from error
    except _DAMAGE as error:
        raise SourceError(f"{path} is not a readable TIFF ({_reason(error)}); replace the file.") from error
    planes = _with_implied_planes(planes, metadata)
    for plane in planes:
        if plane.offset is not None and plane.offset + plane.bytes > version.size:
            raise SourceError(f"{plane.name} is truncated: the file ends before the plane does; replace the file.")
    return TiffContent(planes, metadata)


def read_rows(
    planes: Sequence[Plane], start: int, stop: int, columns: tuple[int, int] | None = None
) -> Iterator[NDArray[Any]]:
    """Read the rows from `start` up to `stop` of each plane in turn: "(S, Y, X)" in the file's dtype.

    `columns` are the first pixel of each row and the one behind the last, by default all. Of a compressed plane only
    the strips or tiles that hold these pixels are decoded, one at a time. Raises SourceError naming the plane, also
    when its file is not the one any more whose header was read.
    """
    for path, group in groupby(planes, key=lambda plane: plane.path):
        members = list(group)
        parts = [Part(plane, start, stop, *(columns or (0, plane.shape[2]))) for plane in members]
        unreadable = next((plane.unreadable for plane in members if plane.unreadable), "")
        if unreadable:
            raise SourceError(unreadable)
        if all(plane.offset is not None for plane in members):
            yield from read_stored(path, parts)
        else:
            yield from _decode(path, parts)


def _decode(path: str, parts: list[Part]) -> Iterator[NDArray[Any]]:
    name = path
    try:
        with ExitStack() as opened:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            tiff: tifffile.TiffFile | None = None
            for part in parts:
                name = part.plane.name
                check_unchanged(descriptor, part.plane)
                page = _known_pages.get(_key(part.plane))
                if page is None:
                    tiff = tiff or opened.enter_context(tifffile.TiffFile(path))
                    page = _described_page(tiff, part.plane)
                yield _decoded_rows(descriptor, page, part)
                check_unchanged(descriptor, part.plane)
    except (FileNotFoundError, PermissionError) as error:
        raise cannot_open(path, error) from error
    except _DAMAGE as error:
        raise SourceError(f"{name} cannot be decoded ({_reason(error)}); replace the file.") from error


def _key(plane: Plane) -> tuple[str, int, FileVersion | None]:
    return plane.path, plane.page, plane.version


def _described_page(tiff: tifffile.TiffFile, plane: Plane) -> Any:  # noqa: ANN401
    """A page without its pixels, which may be used when the file is closed; small ones are kept for the next band."""
    page: Any = tiff.pages[plane.page]
    _ = page.decode, _tables(page)  # reads from the file what it needs of it
    if len(page.dataoffsets) <= _KNOWN_SEGMENTS:
        _known_pages[_key(plane)] = page
        while len(_known_pages) > _KNOWN_PAGES:
            _known_pages.pop(next(iter(_known_pages)), None)
    return page


def _decoded_rows(descriptor: int, page: Any, part: Part) -> NDArray[Any]:  # noqa: ANN401
    plane = part.plane
    shape = (plane.file_samples, part.stop - part.start, part.right - part.left)
    band = np.full(shape, page.nodata, plane.dtype.newbyteorder("="))
    for index in _segments(page, part):
        _place_segment(descriptor, page, index, part, band)
    return band if plane.samples is None else band[list(plane.samples)]


def _place_segment(descriptor: int, page: Any, index: int, part: Part, band: NDArray[Any]) -> None:  # noqa: ANN401
    """Decode a strip or tile into `band`; a function by itself, so that one is gone before the next is decoded."""
    stored = _segment_bytes(descriptor, page, index)
    segment, (sample, _, top, left, _), _ = page.decode(stored, index, **_tables(page))
    if segment is None:
        return
    low, high = max(top, part.start), min(top + segment.shape[1], part.stop)
    first, last = max(left, part.left), min(left + segment.shape[2], part.right)
    pixels = segment[0, low - top : high - top, first - left : last - left].transpose(2, 0, 1)
    rows, columns = slice(low - part.start, high - part.start), slice(first - part.left, last - part.left)
    band[sample : sample + len(pixels), rows, columns] = pixels


def _segments(page: Any, part: Part) -> Iterator[int]:  # noqa: ANN401
    """The strips or tiles that hold any of the pixels: they are numbered row by row, sample plane by sample plane."""
    length = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    across, down = -(-page.imagewidth // width), -(-page.imagelength // length)
    wanted = range(part.plane.file_samples) if part.plane.samples is None else sorted(set(part.plane.samples))
    for sample in wanted if page.planarconfig == 2 and page.samplesperpixel > 1 else (0,):
        for row in range(part.start // length, (part.stop - 1) // length + 1):
            first = (sample * down + row) * across
            yield from range(first + part.left // width, first + (part.right - 1) // width + 1)


def _segment_bytes(descriptor: int, page: Any, index: int) -> bytes | None:  # noqa: ANN401
    """The stored bytes of a strip or tile; None for one that was left out because it is empty."""
    offset, length = page.dataoffsets[index], page.databytecounts[index]
    if length == 0 or offset == 0:
        return None
    return read_at(descriptor, offset, length)


def _tables(page: Any) -> dict[str, Any]:  # noqa: ANN401
    """What strips and tiles in JPEG share."""
    return {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}


def _plane(path: str, index: int, page: Any, version: FileVersion) -> Plane:  # noqa: ANN401
    if page.dtype is None or page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"page {index + 1} has axes {page.axes} and data type {page.dtype}")
    shape = (1, *page.shape) if page.axes == "YX" else page.shape
    if page.axes == "YXS":
        shape = (shape[2], shape[0], shape[1])
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    if max((offset + length for offset, length in ends), default=0) > page.parent.filehandle.size:
        raise ValueError("it is truncated")
    dtype = np.dtype(page.dtype).newbyteorder("<" if page.parent.byteorder == "<" else ">")
    return Plane(
        path,
        index,
        shape,
        dtype,
        interleaved=page.axes == "YXS",
        offset=page.dataoffsets[0] if page.is_final else None,
        file_samples=shape[0],
        version=version,
        **_segmentation(page, shape),
    )


def _segmentation(page: Any, shape: tuple[int, int, int]) -> dict[str, Any]:  # noqa: ANN401
    """How a page is cut into strips or tiles, as members of Plane."""
    if page.is_final:
        return {"segment_rows": 1, "segment_columns": 1, "storage": "uncompressed, in one piece"}
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, shape[2])
    rows = rows if page.is_tiled else min(rows, shape[1])
    decoded = rows * columns * page.dtype.itemsize * (page.samplesperpixel if page.planarconfig == 1 else 1)
    cut = (
        f"tiles of {columns} × {rows}" if page.is_tiled else f"strips of {rows} rows" if rows < shape[1] else "1 strip"
    )
    return {
        "segment_rows": min(rows, shape[1]),
        "segment_columns": min(columns, shape[2]),
        # as it lies, decompressed, with the predictor undone; and the table of all of them
        "segment_bytes": 2 * decoded + max(page.databytecounts, default=0) + _TABLE_ENTRY_BYTES * len(page.dataoffsets),
        "storage": f"{_compression(page)}, {cut}",
    }


def _compression(page: Any) -> str:  # noqa: ANN401
    name = getattr(page.compression, "name", str(page.compression)).lower()
    known = {"none": "uncompressed", "adobe_deflate": "deflate", "packbits": "PackBits", "jpeg": "JPEG", "lzw": "LZW"}
    predictor = " with predictor" if int(page.predictor) > 1 else ""
    return known.get(name, name) + predictor


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
        photometric=getattr(page.photometric, "name", ""),
        rgb=getattr(page.photometric, "name", "") in ("RGB", "YCBCR") and page.samplesperpixel >= 3,
    )


def _ratio(tag: Any) -> Fraction | None:  # noqa: ANN401
    if tag is None or not isinstance(tag.value, tuple) or 0 in tag.value:
        return None
    return Fraction(int(tag.value[0]), int(tag.value[1]))


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def write_plane(path: Path, pixels: NDArray[Any], voxel_size: tuple[float, float, float]) -> None:
    """Write one plane "(C, Y, X)" as an ImageJ TIFF that tells its voxel size, x, y, z in micrometres."""
    x, y, z = voxel_size
    tifffile.imwrite(
        path, pixels, imagej=True, resolution=(1 / x, 1 / y), metadata={"axes": "CYX", "unit": "um", "spacing": z}
    )
