"""From the bytes of a chunk to its voxels: the member `encoding` of a scale, undone.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md#chunk-encoding
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.format import compressed_segmentation
from precomputed_server.format.geometry import Box
from precomputed_server.format.images import ImageSize, jpeg_size, png_size
from precomputed_server.format.info import ScaleInfo
from precomputed_server.readers.base import Place

Array = NDArray[Any]

_SEGMENTATION_BLOCK = "compressed_segmentation_block_size"


def voxels_of(data: bytes, place: Place, box: Box) -> Array:
    """The voxels "(C, Z, Y, X)" of the chunk `box`; raises Unreadable, of an encoding that is not known too."""
    decode = _DECODERS.get(place.scale.encoding)
    if decode is None:
        raise Unreadable(f"chunks of encoding {place.scale.encoding} are sent, but not decoded here.")
    return decode(data, place, box)


def can_decode(scale: ScaleInfo) -> bool:
    """Whether `voxels_of` knows the encoding of a scale."""
    return scale.encoding in _DECODERS


def _shape(place: Place, box: Box) -> tuple[int, int, int, int]:
    x, y, z = box.size
    return place.info.num_channels, z, y, x


def _raw(data: bytes, place: Place, box: Box) -> Array:
    if len(data) != place.info.array_bytes(box):
        raise Unreadable(f"the chunk has {len(data)} bytes where info says {place.info.array_bytes(box)}.")
    return np.frombuffer(data, place.info.dtype).reshape(_shape(place, box))


def _segmentation(data: bytes, place: Place, box: Box) -> Array:
    block = place.scale.other.get(_SEGMENTATION_BLOCK)
    if not (isinstance(block, list) and len(block) == 3 and all(type(edge) is int and edge > 0 for edge in block)):
        raise Unreadable(f"{_SEGMENTATION_BLOCK} in info is not three whole numbers.")
    return compressed_segmentation.decode(data, _shape(place, box), place.info.dtype, (block[0], block[1], block[2]))


def _png(data: bytes, place: Place, box: Box) -> Array:
    return _image(data, place, box, png_size, imagecodecs.png_decode)


def _jpeg(data: bytes, place: Place, box: Box) -> Array:
    return _image(data, place, box, jpeg_size, imagecodecs.jpeg8_decode)


def _image(
    data: bytes,
    place: Place,
    box: Box,
    size_of: Callable[[bytes], ImageSize | None],
    decode: Callable[[bytes], Array],
) -> Array:
    """The pixels line by line are the voxels x fastest, however wide the image is; its samples are the channels."""
    size = size_of(data)
    if size is None or size.width * size.height != box.voxels:
        raise Unreadable("the chunk is no image, or one of another number of pixels than its name says.")
    try:
        pixels = decode(data)
    except (RuntimeError, ValueError) as error:
        raise Unreadable("the chunk's image is damaged.") from error
    channels, depth, rows, columns = _shape(place, box)
    if pixels.size != channels * box.voxels or pixels.dtype != place.info.dtype:
        raise Unreadable("the chunk's image has other channels, or another data type, than info says.")
    return np.moveaxis(pixels.reshape(depth, rows, columns, channels), -1, 0)


_DECODERS: dict[str, Callable[[bytes, Place, Box], Array]] = {
    "raw": _raw,
    "png": _png,
    "jpeg": _jpeg,
    "compressed_segmentation": _segmentation,
}
