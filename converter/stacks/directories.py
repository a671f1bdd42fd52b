"""The directories of a TIFF as they lie in the file, without what tifffile makes of them."""

from __future__ import annotations

import os
import struct

_HEADER, _BIG_HEADER = {b"II*\0": "<", b"MM\0*": ">"}, {b"II+\0": "<", b"MM\0+": ">"}


def breaks_off(path: str) -> bool:
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
