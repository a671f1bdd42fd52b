"""What the engine asks of an output format. Chunks are "(C, Z, Y, X)", boxes are in voxels of their scale.

A writer is a value: frozen, equal when it writes the same, and made to be sent to worker processes. The engine

1. replaces each scale by `described`, which is what `info` and the writer itself then know of it;
2. writes `scale_files` into the scale's directory and each chunk at `path` (`files.write_chunk`), in any order;
3. when all chunks of a scale are written, calls `pack` for each of `packs`, in any order and any process; a kill in
   between leaves a directory in which doing it again ends it;
4. writes `dataset_files` beside `info`.

The same chunks give the same bytes, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo, VolumeInfo

Array = NDArray[Any]
Pieces = tuple[bytes | memoryview, ...]
"""A stored chunk, to be written one after the other."""


@dataclass(frozen=True)
class Channel:
    """What a viewer is told of a channel: its name, colour (`RRGGBB`) and the range of values that it should show.

    None is left to the format.
    """

    name: str
    color: str | None = None
    window: tuple[float, float] | None = None


class Writer(Protocol):
    """How the chunks of a dataset are kept."""

    @property
    def lossy(self) -> bool:
        """Whether what is read back may differ from what was written."""

    def described(self, scale: ScaleInfo, level: int) -> ScaleInfo:
        """The scale as `info` has it, with the key, encoding and other members that this format gives it.

        `level` counts from 0, the finest.
        """

    def path(self, directory: Path, scale: ScaleInfo, box: Box) -> Path:
        """Where the chunk of `box` is to be written; directories on the way may have to be made."""

    def encode(self, box: Box, chunk: Array) -> Pieces:
        """The bytes of the file at `path`; raises InvalidInput for a chunk that the encoding cannot hold."""

    def stored(self, directory: Path, scale: ScaleInfo, box: Box) -> bytes:
        """The bytes that `encode` gave, found again wherever they lie, also after `pack`; raises Unreadable."""

    def decode(self, stored: bytes, box: Box, channels: int, dtype: np.dtype[Any]) -> Array:
        """The chunk as clients see it; raises Unreadable."""

    def packs(self, scale: ScaleInfo) -> Sequence[int]:
        """The numbers of the files that are made of the written chunks; none where each chunk stays a file."""

    def pack(self, directory: Path, scale: ScaleInfo, number: int, *, may_lack: bool = False) -> int:
        """Make such a file whole, remove the chunks it was made of and return its bytes.

        A chunk that was written again after it had been packed replaces the packed one. Raises Unreadable when a chunk
        is missing, unless it `may_lack` some.
        """

    def scale_files(self, info: VolumeInfo, scale: ScaleInfo) -> Mapping[str, bytes]:
        """Other files of the scale's directory, by name."""

    def dataset_files(self, info: VolumeInfo, name: str, channels: Sequence[Channel]) -> Mapping[str, str]:
        """Other files beside `info`, by name; `channels` is empty or has one for each of the volume's."""
