"""What a dataset is to be written as, and the writer for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.writers.protocol import Writer
from converter.writers.raw import RawWriter
from converter.writers.tiff import TiffWriter
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.tiff import DEFLATE, ZSTD


@dataclass(frozen=True)
class Output:
    """The choice of a format; raises InvalidInput for what no volume can be written as.

    `compress` None is the format's own choice.
    """

    format: str = "tiff"
    compress: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidInput(f"The format {self.format!r} cannot be written; use --format {' or '.join(FORMATS)}.")
        choices = FORMATS[self.format].compressions
        if self.compress not in (None, *choices):
            raise InvalidInput(
                f"--format {self.format} is not compressed by {self.compress}; use --compress {' or '.join(choices)}."
            )

    def to_json(self) -> dict[str, Any]:
        """What decides about the stored bytes, for the record of the conversion."""
        return {"format": self.format, "compress": self.compress}


@dataclass(frozen=True)
class Voxels:
    """What a writer is chosen for: the voxels' type and number of channels, and the voxels x, y, z of a chunk."""

    dtype: np.dtype[Any]
    num_channels: int
    chunk_size: Vector


@dataclass(frozen=True)
class _Format:
    """A format: how it can be compressed, its own choice first, and what makes its writer."""

    compressions: tuple[str, ...]
    make: Callable[[Output, Voxels], Writer]


def _tiff(output: Output, voxels: Voxels) -> Writer:
    return TiffWriter(ZSTD if output.compress == "zstd" else DEFLATE)


def _raw(output: Output, voxels: Voxels) -> Writer:
    return RawWriter()


FORMATS: Mapping[str, _Format] = {
    "tiff": _Format(("deflate", "zstd"), _tiff),
    "raw": _Format(("none",), _raw),
}
"""The output formats by their name on the command line."""


def writer(output: Output, voxels: Voxels) -> Writer:
    """The writer of a dataset of such voxels; raises InvalidInput for what the format or its encoding cannot hold."""
    return FORMATS[output.format].make(output, voxels)
