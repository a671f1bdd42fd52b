"""How many pixels an image file says that it has, read before anything is decoded.

Sources: https://www.w3.org/TR/png-3/#11IHDR and ITU-T T.81, B.2.2 (the frame header of JPEG).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_JPEG = b"\xff\xd8"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class ImageSize:
    """Pixels of a line, and lines."""

    width: int
    height: int


def png_size(data: bytes) -> ImageSize | None:
    """The size of a PNG file; None when it is none."""
    if len(data) < 24 or not data.startswith(_PNG):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return ImageSize(width, height)


def jpeg_size(data: bytes) -> ImageSize | None:
    """The size of a JPEG file; None when it is none."""
    at = len(_JPEG) if data.startswith(_JPEG) else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _ALONE or marker == 0xFF:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return ImageSize(width, height)
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    return None
