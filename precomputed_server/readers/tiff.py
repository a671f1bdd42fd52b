"""Chunks stored as TIFF: found to be one stream that can be sent as it lies, else decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, chunk_name
from precomputed_server.format.tiff import HEADER_BYTES, PASSED_THROUGH, ChunkStream, parse_stream
from precomputed_server.format.tiff_pages import HORIZONTAL_DIFFERENCES, NONE, Page, parse_pages
from precomputed_server.readers.base import Place
from precomputed_server.readers.compression import inflate
from precomputed_server.readers.stored import CODED, Stored

_DAMAGED = (
    tifffile.TiffFileError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,  # the root of imagecodecs' errors
    ArithmeticError,
    EOFError,
    MemoryError,  # of a size that a damaged file declares
    struct.error,
)
_DECODED_HERE = {NONE, *PASSED_THROUGH}
_BOUNDED = {NONE, 5, 32773, 34925, *PASSED_THROUGH}
"""Compressions whose decoders stop at the size of the strip or tile: none, LZW, PackBits, LZMA, deflate and zstd.

Those that hold images of their own (JPEG and the like) believe what these declare.
"""

_HEADER_COST = 300
"""Bytes that a parsed header and its key take."""

Shape = tuple[int, int, int]


def chunk_shape(info: VolumeInfo, box: Box) -> Shape:
    """The shape "(C·Z, Y, X)" that the pixels of a chunk's TIFF must have."""
    x, y, z = box.size
    return info.num_channels * z, y, x


def find_stream(stored: Stored, place: Place, box: Box, *, cached: bool = False) -> Stored:
    """The one stream of a chunk's TIFF when that can be sent as it lies, else the whole file as CODED.

    Takes `stored`, the whole file, over; raises as `Stored.read` does.
    """

    def read() -> tuple[ChunkStream | None, int]:
        header = stored.read(0, min(HEADER_BYTES, stored.length), cached=cached)
        return parse_stream(bytes(header), stored.length), _HEADER_COST

    try:
        name = f"{place.source.name}/{chunk_name(box)}{CHUNK_TIFF_SUFFIX}"
        stream = place.indices.of((name, 0), stored.fingerprint, read)
    except BaseException:
        stored.close()
        raise
    info = place.info
    shape = chunk_shape(info, box)
    decoded_bytes = info.array_bytes(box)
    if stream is None or stream.shape != shape or stream.dtype != info.dtype:
        return Stored(stored.descriptor, stored.fingerprint, 0, stored.length, CODED, decoded_bytes)
    return Stored(
        stored.descriptor, stored.fingerprint, stream.offset, stream.length, stream.content_encoding, decoded_bytes
    )


def decode_tiff(data: bytes, info: VolumeInfo, box: Box) -> bytes:
    """Decode a chunk's TIFF of one page a plane (or volumetric pages) to little-endian bytes of "(C, Z, Y, X)".

    What the file declares is compared with the scale before a pixel is decoded. Raises Unreadable.
    """
    expected = chunk_shape(info, box)
    pages = parse_pages(data, expected[0])
    if pages is not None and _are_common(pages, expected, info):
        return _decode_pages(data, pages, info).tobytes()
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            declared = _declared_pages(file, expected, info)
            pixels = np.concatenate([page.asarray(maxworkers=1).reshape(-1, *expected[1:]) for page in declared])
    except _DAMAGED as error:
        raise Unreadable("the chunk's TIFF file is damaged.") from error
    return np.ascontiguousarray(pixels, info.dtype).tobytes()


def _are_common(pages: Sequence[Page], expected: Shape, info: VolumeInfo) -> bool:
    """Whether these are all planes of the chunk, in what is decoded here: ten times as fast as by a library."""
    return len(pages) == expected[0] and all(
        (page.length, page.width) == expected[1:]
        and page.dtype.newbyteorder("<") == info.dtype
        and page.compression in _DECODED_HERE
        and (page.predictor == 1 or (page.predictor == HORIZONTAL_DIFFERENCES and page.dtype.kind != "f"))
        for page in pages
    )


def _decode_pages(data: bytes, pages: Sequence[Page], info: VolumeInfo) -> NDArray[Any]:
    """The pixels "(C·Z, Y, X)"."""
    pixels = np.empty((len(pages), pages[0].length, pages[0].width), info.dtype)
    for plane, page in zip(pixels, pages, strict=True):
        for number, (offset, count) in enumerate(page.strips):
            rows = plane[number * page.rows_per_strip : (number + 1) * page.rows_per_strip]
            strip = data[offset : offset + count]
            if page.compression != NONE:
                strip = inflate(PASSED_THROUGH[page.compression], strip, rows.nbytes)
            if len(strip) != rows.nbytes:
                raise Unreadable("a strip of the chunk's TIFF file has another length than its header says.")
            found = np.frombuffer(strip, page.dtype).reshape(rows.shape)
            rows[:] = found if page.predictor == 1 else np.cumsum(found, axis=1, dtype=info.dtype)
    return pixels


def _declared_pages(file: tifffile.TiffFile, expected: Shape, info: VolumeInfo) -> list[tifffile.TiffPage]:
    pages: list[tifffile.TiffPage] = []
    planes = 0
    for page in file.pages:
        if not isinstance(page, tifffile.TiffPage) or page.shape[-2:] != expected[1:]:
            raise Unreadable("the chunk's TIFF file has pages of another size than its name says.")
        if page.dtype is None or page.dtype.newbyteorder("<") != info.dtype:
            raise Unreadable(f"the chunk's TIFF file is {page.dtype} where info says {info.data_type}.")
        _check_bounded(page, expected)
        planes += int(np.prod(page.shape[:-2]))
        if planes > expected[0]:
            break
        pages.append(page)
    if planes != expected[0]:
        raise Unreadable("the chunk's TIFF file has another number of planes than its name says.")
    return pages


def _check_bounded(page: tifffile.TiffPage, expected: Shape) -> None:
    """Raise Unreadable where decoding could take much more memory than the chunk has."""
    if int(page.compression) not in _BOUNDED:
        raise Unreadable(f"the chunk's TIFF file is compressed as {page.compression!s}, which is not decoded here.")
    if int(np.prod(page.chunks)) > 4 * int(np.prod(expected)) + (1 << 16):
        raise Unreadable("the chunk's TIFF file has larger tiles than the whole chunk.")
