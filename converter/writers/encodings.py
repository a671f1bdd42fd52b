"""How the voxels of a chunk become bytes: the member `encoding` of a scale.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md#chunk-encoding
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import imagecodecs
import numpy as np

from converter.writers.files import bytes_of, shaped
from converter.writers.protocol import Array
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format import compressed_segmentation
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.names import chunk_name

COMPRESSED_SEGMENTATION = "compressed_segmentation"

_JPEG_EDGE, _PNG_EDGE = 65535, 1_000_000  # of a PNG, what libpng opens unasked
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
_SMALLER = "use smaller chunks (--chunk-size)."
_RUNS, _LEFT = 3, 16
"""PNG by runs of equal differences to the pixel at the left: thrice as fast as what libpng takes, and as small."""

_BLOCK: Vector = (8, 8, 8)


class Encoding(Protocol):
    """An encoding of chunks "(C, Z, Y, X)": a value."""

    @property
    def name(self) -> str:
        """As `info` spells it."""

    @property
    def lossy(self) -> bool:
        """Whether voxels change."""

    @property
    def members(self) -> Mapping[str, Any]:
        """What else a scale of `info` says of it."""

    def check(self, dtype: np.dtype[Any], channels: int, chunk_size: Vector) -> None:
        """Raise InvalidInput when such chunks cannot be encoded."""

    def encode(self, chunk: Array) -> bytes | memoryview:
        """The bytes of a chunk."""

    def decode(self, data: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The chunk of such bytes; raises Unreadable."""


@dataclass(frozen=True)
class Raw:
    """The little-endian voxels, x fastest, channel slowest."""

    @property
    def name(self) -> str:
        """`raw`."""
        return "raw"

    @property
    def lossy(self) -> bool:
        """No."""
        return False

    @property
    def members(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def check(self, dtype: np.dtype[Any], channels: int, chunk_size: Vector) -> None:
        """Every chunk can be."""

    def encode(self, chunk: Array) -> bytes | memoryview:
        """The voxels."""
        return bytes_of(chunk)

    def decode(self, data: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The voxels."""
        return shaped(data, box, channels, dtype)


@dataclass(frozen=True)
class Jpeg:
    """An image x wide and y·z high; three channels are red, green and blue, in full resolution. `quality` 1 to 100."""

    quality: int

    @property
    def name(self) -> str:
        """`jpeg`."""
        return "jpeg"

    @property
    def lossy(self) -> bool:
        """Yes."""
        return True

    @property
    def members(self) -> Mapping[str, Any]:
        """The quality, as tensorstore and cloud-volume name it."""
        return {"jpeg_quality": self.quality}

    def check(self, dtype: np.dtype[Any], channels: int, chunk_size: Vector) -> None:
        """Raise InvalidInput for anything but 1 or 3 channels of uint8, and for too large chunks."""
        if dtype != np.uint8 or channels not in (1, 3):
            raise InvalidInput(
                f"--encoding jpeg holds 1 or 3 channels of uint8, not {channels} of {dtype.name}; use --encoding raw."
            )
        if max(chunk_size[0], chunk_size[1] * chunk_size[2]) > _JPEG_EDGE:
            raise InvalidInput(f"A chunk is an image of x by y·z pixels, in a JPEG up to {_JPEG_EDGE}; {_SMALLER}")

    def encode(self, chunk: Array) -> bytes | memoryview:
        """The file."""
        return bytes(imagecodecs.jpeg8_encode(_image(chunk), level=self.quality, subsampling="444"))

    def decode(self, data: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The image as a client sees it."""
        try:
            _check_end(data, _JPEG_END)
            return _chunk(imagecodecs.jpeg8_decode(data), box, channels, dtype)
        except (RuntimeError, ValueError) as error:
            raise Unreadable(f"chunk {chunk_name(box)} is not a JPEG file; convert again.") from error


@dataclass(frozen=True)
class Png:
    """An image x wide and y·z high, a sample for each channel."""

    @property
    def name(self) -> str:
        """`png`."""
        return "png"

    @property
    def lossy(self) -> bool:
        """No."""
        return False

    @property
    def members(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def check(self, dtype: np.dtype[Any], channels: int, chunk_size: Vector) -> None:
        """Raise InvalidInput for anything but 1 to 4 channels of uint8 or uint16, and for too large chunks."""
        if dtype not in (np.uint8, np.uint16) or channels > 4:
            raise InvalidInput(
                f"--encoding png holds 1 to 4 channels of uint8 or uint16, not {channels} of {dtype.name}; "
                "use --encoding raw."
            )
        if max(chunk_size[0], chunk_size[1] * chunk_size[2]) > _PNG_EDGE:
            raise InvalidInput(f"A chunk is an image of x by y·z pixels, in a PNG up to {_PNG_EDGE}; {_SMALLER}")

    def encode(self, chunk: Array) -> bytes | memoryview:
        """The file."""
        return bytes(imagecodecs.png_encode(_image(chunk), level=1, strategy=_RUNS, filter=_LEFT))

    def decode(self, data: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The samples."""
        try:
            _check_end(data, _PNG_END)
            return _chunk(imagecodecs.png_decode(data), box, channels, dtype)
        except (RuntimeError, ValueError) as error:
            raise Unreadable(f"chunk {chunk_name(box)} is not a PNG file; convert again.") from error


@dataclass(frozen=True)
class CompressedSegmentation:
    """Labels by blocks of 8 × 8 × 8 voxels, each with a table of those in it."""

    @property
    def name(self) -> str:
        """`compressed_segmentation`."""
        return COMPRESSED_SEGMENTATION

    @property
    def lossy(self) -> bool:
        """No."""
        return False

    @property
    def members(self) -> Mapping[str, Any]:
        """The size of a block."""
        return {"compressed_segmentation_block_size": list(_BLOCK)}

    def check(self, dtype: np.dtype[Any], channels: int, chunk_size: Vector) -> None:
        """Raise InvalidInput for anything but uint32 and uint64, and for chunks that may turn out too large."""
        if dtype not in (np.uint32, np.uint64):
            remedy = "--encoding raw or --dtype uint32" if dtype.kind == "u" else "--encoding raw"
            raise InvalidInput(
                f"--encoding compressed_segmentation holds uint32 and uint64, not {dtype}; use {remedy}."
            )
        if compressed_segmentation.longest(chunk_size, _BLOCK, dtype.itemsize) > compressed_segmentation.MAXIMUM_BYTES:
            raise InvalidInput(f"--encoding compressed_segmentation may not hold all labels of a chunk; {_SMALLER}")

    def encode(self, chunk: Array) -> bytes | memoryview:
        """The blocks of each channel."""
        return compressed_segmentation.encode(chunk, _BLOCK)

    def decode(self, data: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The labels."""
        columns, rows, depth = box.size
        return compressed_segmentation.decode(data, (channels, depth, rows, columns), dtype, _BLOCK)


def _image(chunk: Array) -> Array:
    """ "(C, Z, Y, X)" as an image "(Z·Y, X, C)", of one channel "(Z·Y, X)"."""
    channels, depth, rows, columns = chunk.shape
    native = chunk.astype(chunk.dtype.newbyteorder("="), copy=False)
    image = np.ascontiguousarray(np.moveaxis(native, 0, -1)).reshape(depth * rows, columns, channels)
    return image[:, :, 0] if channels == 1 else image


def _check_end(data: bytes, end: bytes) -> None:
    """Raise ValueError for a file that was cut short, of which decoders make up the rest."""
    if not data.endswith(end):
        raise ValueError("the file has no end")


def _chunk(image: Array, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
    """The chunk of such an image; raises ValueError when it is of another size or type."""
    if image.dtype != dtype:
        raise ValueError(f"pixels are {image.dtype}")
    columns, rows, depth = box.size
    return np.moveaxis(image.reshape(depth, rows, columns, channels), -1, 0)
