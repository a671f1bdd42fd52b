"""The stack to convert: its files in natural order, every plane checked."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.axes import page_grid
from converter.metadata import Metadata
from converter.plane import Plane
from converter.planes import TiffContent, read_content
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Vector

_TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Stack:
    """Planes that fit together: `planes[z]` are the pages of that z, each with the same number of samples.

    The channels are the samples of the first page of a z, then those of the next: "(C, Z, Y, X)" in all.
    """

    planes: tuple[tuple[Plane, ...], ...]
    metadata: Metadata

    @property
    def size(self) -> Vector:
        """The extent x, y, z in voxels."""
        _, rows, columns = self.planes[0][0].shape
        return columns, rows, len(self.planes)

    @property
    def num_channels(self) -> int:
        """How many channels each voxel has."""
        return sum(plane.shape[0] for plane in self.planes[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the voxels in this machine's byte order."""
        return self.planes[0][0].dtype.newbyteorder("=")

    @property
    def segment_rows(self) -> int:
        """How many rows have to be decoded to read one: 1 where the pixels lie uncompressed in the files."""
        return max(plane.segment_rows for pages in self.planes for plane in pages)


def read_stack(source: Sequence[str] | str) -> Stack:
    """Find the files of `source` and check that every plane has the shape and data type of the first.

    Raises InvalidInput when no file matches, SourceError naming the first file that is unreadable or different.
    """
    sources = [source] if isinstance(source, str) else list(source)
    planes: list[tuple[Plane, ...]] = []
    metadata: Metadata | None = None
    for path in find_files(sources):
        content = read_content(path)
        metadata = metadata or content.metadata
        for pages in _by_z(content, path):
            _check(pages, planes[0] if planes else pages)
            planes.append(pages)
    return Stack(tuple(planes), metadata or Metadata())


def find_files(sources: Sequence[str]) -> list[str]:
    """The TIFF files of directories, globs and paths in natural order: `img_2` before `img_10`.

    Raises InvalidInput when one of the sources matches nothing.
    """
    found: dict[str, None] = {}
    for source in sources:
        matches = list(_matches(source))
        if not matches:
            raise InvalidInput(_nothing_found(source))
        found.update(dict.fromkeys(matches))
    if not found:
        raise InvalidInput("No source was given; give a directory of planes, a quoted glob or a multi-page TIFF.")
    return sorted(found, key=natural_key)


def _nothing_found(source: str) -> str:
    if os.path.isdir(source):
        return f"{source} holds no file that ends in .tif or .tiff; give the directory of the planes themselves."
    if glob.has_magic(source):
        return f"No TIFF file matches {source!r}; * ? and [ ] are wildcards in a glob: give the directory instead."
    return f"{source} does not exist; give a directory of planes, a quoted glob or a multi-page TIFF."


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key that compares runs of digits as numbers; names that differ only in leading zeros stay ordered."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _matches(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        names = (name for name in os.listdir(source) if not name.startswith("."))
        return (os.path.join(source, name) for name in names if name.lower().endswith(_TIFF_SUFFIXES))
    paths = [source] if os.path.exists(source) else glob.glob(source, recursive=True)
    return (path for path in paths if os.path.isfile(path))


def _by_z(content: TiffContent, path: str) -> list[tuple[Plane, ...]]:
    first = content.planes[0]
    grid = page_grid(content.metadata, len(content.planes), first.shape[0], path)
    return [tuple(content.planes[page] for page in pages) for pages in grid]


def _check(pages: tuple[Plane, ...], reference: tuple[Plane, ...]) -> None:
    """Refuse pages that do not fit the first ones of the stack."""
    first = reference[0]
    for plane in pages:
        if plane.shape != first.shape:
            raise SourceError(
                f"{plane.name} is {_extent(plane)}, but {first.name} is {_extent(first)}; "
                "convert only planes of one shape together."
            )
        if plane.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
            raise SourceError(
                f"{plane.name} is {plane.dtype.name}, but {first.name} is {first.dtype.name}; "
                "convert only planes of one data type together."
            )
    if len(pages) != len(reference):
        raise SourceError(
            f"{pages[0].name} has {len(pages)} channels, but {first.name} has {len(reference)}; "
            "convert only files with the same channels together."
        )


def _extent(plane: Plane) -> str:
    samples, rows, columns = plane.shape
    return f"{columns} × {rows}" + (f" × {samples} samples" if samples > 1 else "")
