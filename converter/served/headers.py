"""The headers of a stack's planes, read once for as long as no file changes: as values and as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from converter.conversion import Conversion, of_stack
from converter.output.corrections import Corrected
from converter.output.provenance import Origin
from converter.served.record import Published
from converter.stacks.acquisition import Stack
from converter.stacks.channels import Channel
from converter.stacks.metadata import Metadata
from converter.stacks.plane import FileVersion, Plane
from converter.stacks.source import read_stack
from converter.stacks.voxel_size import VoxelSize, voxel_size
from precomputed_server.errors import SourceError, Unreadable
from precomputed_server.files import Tree

_FORMAT = 1


@dataclass(frozen=True)
class Headers:
    """What the files of a source said when they were in the state `version`: their planes, and the edges of a voxel.

    Planes of files that were unreadable then, or are missing, are in their places; reading them raises SourceError.
    """

    version: str
    stack: Stack
    size: VoxelSize

    def conversion(self, published: Published, source: str) -> Conversion:
        """The conversion whose dataset is served; raises InvalidInput for what cannot be made of the planes."""
        files = {plane.path: plane.version for pages in self.stack.planes for plane in pages}
        origin = Origin((source,), published.options, files, self.size, 0.0, self.version)
        return of_stack(self.stack, origin, Corrected())

    def to_json(self, root: str) -> dict[str, Any]:
        """Everything, with paths beneath `root`."""
        return {
            "format": _FORMAT,
            "version": self.version,
            "edges": [str(edge) for edge in self.size.micrometres],
            "origin": list(self.size.source),
            "channels": [channel.to_json() for channel in self.stack.channels],
            "planes": [[_plane_to_json(plane, root) for plane in pages] for pages in self.stack.planes],
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any], root: str) -> Headers:
        """Read them back; raises LookupError, TypeError or ValueError for what another version of ours wrote."""
        if members["format"] != _FORMAT:
            raise ValueError("another format")
        x, y, z = (Fraction(edge) for edge in members["edges"])
        from_x, from_y, from_z = members["origin"]
        planes = tuple(tuple(_plane_from_json(plane, root) for plane in pages) for pages in members["planes"])
        channels = tuple(Channel(channel["name"], channel["color"]) for channel in members["channels"])
        stack = Stack(planes, Metadata(), channels)
        return cls(members["version"], stack, VoxelSize((x, y, z), (from_x, from_y, from_z)))


def read_headers(source: str, published: Published, version: str, tree: Tree, root: str) -> Headers:
    """Read the headers of the files of `source`, which were in the state `version`, beneath `root`.

    Only a file that can be opened beneath the root is opened, and what its header said counts when it is the same
    afterwards: of what lies elsewhere nothing is told. Raises InvalidInput, SourceError as `read_stack`; InvalidInput
    for a voxel size that is unknown.
    """

    def admit(path: str) -> None:
        try:
            state_of_file(tree, relative(path, root))
        except OSError as error:
            raise SourceError(_elsewhere(path)) from error

    stack = read_stack([source], published.options.source, tolerant=True, admit=admit)
    size = voxel_size(stack.metadata, published.options.voxel_size, published.options.assumed_voxel_size)
    kept: dict[str, FileVersion | str] = {}
    planes = tuple(tuple(_checked(plane, tree, root, kept) for plane in pages) for pages in stack.planes)
    return Headers(version, replace(stack, planes=planes), size.seen(published.options.source.view))


def relative(path: str, root: str) -> str:
    """The path of a plane beneath the root, both of which are absolute and have no links in them."""
    return path.removeprefix(f"{root.rstrip('/')}/")


def state_of_file(tree: Tree, path: str, *, cached: bool = False) -> FileVersion:
    """The version of a file beneath the root, with its inode; raises OSError."""
    descriptor = tree.open(path, os.O_PATH, cached=cached)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return FileVersion(status.st_size, status.st_mtime_ns, status.st_ino)


def _checked(plane: Plane, tree: Tree, root: str, kept: dict[str, FileVersion | str]) -> Plane:
    """The plane with the inode of its file, or unreadable where the file is not one that is served."""
    if plane.version is None:
        return plane
    if plane.path not in kept:
        kept[plane.path] = _file(plane, tree, root)
    found = kept[plane.path]
    if isinstance(found, str):
        return replace(plane, version=None, unreadable=found)
    if found != plane.version:
        raise Unreadable(f"{plane.path} changed while its header was read; wait until nothing writes it.")
    return replace(plane, version=found)


def _file(plane: Plane, tree: Tree, root: str) -> FileVersion | str:
    try:
        return state_of_file(tree, relative(plane.path, root))
    except OSError:
        return _elsewhere(plane.path)


def _elsewhere(path: str) -> str:
    return f"{path} cannot be opened beneath the directory that is served; copy the file there."


def files_of(stack: Stack) -> Iterator[tuple[str, FileVersion | None]]:
    """Each file of a stack once, with its version when its header was read; None for what was unreadable."""
    seen = set()
    for pages in stack.planes:
        for plane in pages:
            if plane.path not in seen:
                seen.add(plane.path)
                yield plane.path, plane.version


def _plane_to_json(plane: Plane, root: str) -> list[Any]:
    version = plane.version
    return [
        relative(plane.path, root),
        plane.page,
        list(plane.shape),
        plane.dtype.str,
        plane.interleaved,
        plane.offset,
        plane.segment_rows,
        plane.segment_columns,
        plane.segment_bytes,
        plane.file_samples,
        None if plane.samples is None else list(plane.samples),
        None if version is None else [version.size, version.mtime_ns, version.inode],
        plane.unreadable,
    ]


def _plane_from_json(row: list[Any], root: str) -> Plane:
    path, page, shape, dtype, interleaved, offset, rows, columns, length, kept, samples, version, unreadable = row
    samples_of_pixel, height, width = shape
    return Plane(
        os.path.join(root, path),
        page,
        (samples_of_pixel, height, width),
        np.dtype(dtype),
        interleaved,
        offset,
        rows,
        columns,
        length,
        kept,
        None if samples is None else tuple(samples),
        None if version is None else FileVersion(*version),
        "",
        unreadable,
    )
