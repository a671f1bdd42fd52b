"""Chunks stored as TIFF: found to be one stream that can be sent as it lies, else decoded."""

from __future__ import annotations

import io
import struct

import numpy as np
import tifffile

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.tiff import HEADER_BYTES, parse_stream
from precomputed_server.readers.stored import TIFF, Stored, open_stored

_DAMAGED = (
    tifffile.TiffFileError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,  # the root of imagecodecs' errors
    ArithmeticError,
    EOFError,
    struct.error,
)


def chunk_shape(info: VolumeInfo, box: Box) -> tuple[int, int, int]:
    """The shape "(C·Z, Y, X)" that the pixels of a chunk's TIFF must have."""
    x, y, z = box.size
    return info.num_channels * z, y, x


def open_tiff(tree: Tree, path: str, info: VolumeInfo, box: Box, *, cached: bool = False) -> Stored:
    """Open a chunk's TIFF: its one stream when that can be sent as it lies, else the whole file as TIFF.

    Raises as `open_stored` does.
    """
    stored = open_stored(tree, path, TIFF, cached=cached)
    try:
        header = stored.read(0, min(HEADER_BYTES, stored.length), cached=cached)
    except BaseException:
        stored.close()
        raise
    shape = chunk_shape(info, box)
    decoded_bytes = info.array_bytes(box)
    stream = parse_stream(bytes(header), stored.length)
    if stream is None or stream.shape != shape or stream.dtype != info.dtype:
        return Stored(stored.descriptor, stored.fingerprint, 0, stored.length, TIFF, decoded_bytes)
    return Stored(
        stored.descriptor, stored.fingerprint, stream.offset, stream.length, stream.content_encoding, decoded_bytes
    )


def decode_tiff(data: bytes, info: VolumeInfo, box: Box) -> bytes:
    """Decode a chunk's TIFF of one page a plane (or volumetric pages) to little-endian bytes of "(C, Z, Y, X)".

    What the file declares is compared with the scale before a pixel is decoded. Raises Unreadable.
    """
    expected = chunk_shape(info, box)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = _declared_pages(file, expected, info)
            pixels = np.concatenate([page.asarray(maxworkers=1).reshape(-1, *expected[1:]) for page in pages])
    except _DAMAGED as error:
        raise Unreadable("the chunk's TIFF file is damaged.") from error
    return np.ascontiguousarray(pixels, info.dtype).tobytes()


def _declared_pages(
    file: tifffile.TiffFile, expected: tuple[int, int, int], info: VolumeInfo
) -> list[tifffile.TiffPage]:
    pages: list[tifffile.TiffPage] = []
    planes = 0
    for page in file.pages:
        if not isinstance(page, tifffile.TiffPage) or page.shape[-2:] != expected[1:]:
            raise Unreadable("the chunk's TIFF file has pages of another size than its name says.")
        if page.dtype is None or page.dtype.newbyteorder("<") != info.dtype:
            raise Unreadable(f"the chunk's TIFF file is {page.dtype} where info says {info.data_type}.")
        planes += int(np.prod(page.shape[:-2]))
        if planes > expected[0]:
            break
        pages.append(page)
    if planes != expected[0]:
        raise Unreadable("the chunk's TIFF file has another number of planes than its name says.")
    return pages
