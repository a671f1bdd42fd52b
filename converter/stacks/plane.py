"""One page of one file as a value: where its pixels are and how they are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

PlanePlace = tuple[int, int]
"""Which plane of a dataset's stack one is: its place along the axis across which they lie, and its first channel."""


@dataclass(frozen=True)
class FileVersion:
    """What tells that a file has not changed: its size in bytes and its time of modification.

    With an `inode` it is that very file, wherever its name may lead by now.
    """

    size: int
    mtime_ns: int
    inode: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Plane:
    """One page of one file: `shape` is "(S, Y, X)" with S samples a pixel, `dtype` has the file's byte order.

    `interleaved` says that the file keeps the samples as "(Y, X, S)"; `offset` is where the pixels begin in bytes
    when they lie there uncompressed and in one piece, else None. `segment_rows` by `segment_columns` pixels are decoded
    together, and doing so takes at most `segment_bytes` beside the pixels that are asked for. `file_samples` is how
    many samples the file keeps for a pixel, `samples` which of them the plane has (None: all). `version` is that of
    the file when its header was read. `unreadable` is the sentence that reading the plane raises, where that is known
    beforehand: its file is damaged, or not there.
    """

    path: str
    page: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    interleaved: bool = False
    offset: int | None = None
    segment_rows: int = 1
    segment_columns: int = 1
    segment_bytes: int = 0
    file_samples: int = 1
    samples: tuple[int, ...] | None = None
    version: FileVersion | None = None
    storage: str = ""
    unreadable: str = ""

    @property
    def name(self) -> str:
        """How errors name the plane."""
        return self.path if self.page == 0 else f"{self.path} (page {self.page + 1})"

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of one stored sample plane."""
        return self.shape[2] * self.dtype.itemsize * (self.file_samples if self.interleaved else 1)

    @property
    def bytes(self) -> int:
        """The bytes of the whole page, all its samples."""
        _, rows, columns = self.shape
        return self.file_samples * rows * columns * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether reading a few rows decodes all of them."""
        return self.offset is None and self.segment_rows >= self.shape[1] > 1
