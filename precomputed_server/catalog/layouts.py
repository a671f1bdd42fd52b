"""How the chunks of a scale lie on disk, how many bytes they have, and whether there are any."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from precomputed_server.files import Tree, join
from precomputed_server.format import blockfs, zarr
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, MANIFEST, parse_chunk_name

_MOST_ENTRIES = 100_000
"""Files that are looked at to count the bytes of a scale that has no manifest."""
_LOOKED_AT = 64
_MOST_MANIFEST_BYTES = 256 << 20

_MARKERS = {blockfs.DIRECTORY_NAME: "blockfs", zarr.ARRAY_METADATA: "zarr", "zarr.json": "zarr"}
_SUFFIXES = {CHUNK_TIFF_SUFFIX: "tiff", ".gz": "gzip", ".br": "brotli", ".zstd": "zstd"}


@dataclass(frozen=True)
class Stored:
    """What lies in the directory of a scale; `bytes` is None where there are too many files to count."""

    format: str
    bytes: int | None


def look_at(tree: Tree, dataset: str, scale: ScaleInfo) -> Stored | None:
    """What lies in the directory of a scale of the volume `dataset`; None where nothing does. Raises OSError."""
    directory = join(dataset, scale.key)
    try:
        descriptor = tree.open_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        with os.scandir(descriptor) as entries:
            first = [entry.name for entry in itertools.islice(entries, _LOOKED_AT)]
        found = _format(first, scale)
        if found is None:
            return None
        counted = _in_manifest(tree, dataset, scale)
        return Stored(found, _counted(descriptor) if counted is None else counted)
    finally:
        os.close(descriptor)


def _format(names: list[str], scale: ScaleInfo) -> str | None:
    """The layout that these names, the first of a directory, belong to; None where they belong to none."""
    if scale.other.get("sharding"):
        return "sharded" if names else None
    for name in names:
        if name in _MARKERS:
            return _MARKERS[name]
        stem, dot, suffix = name.partition(".")
        if parse_chunk_name(stem) is not None and (not dot or f".{suffix}" in _SUFFIXES):
            return _SUFFIXES[f".{suffix}"] if dot else scale.encoding
    return None


def _in_manifest(tree: Tree, dataset: str, scale: ScaleInfo) -> int | None:
    """The bytes of a scale that the conversion counted which made it."""
    name = f"{MANIFEST}/{scale.key}.npy"
    try:
        stored = tree.read(join(dataset, name))
        entries = np.load(io.BytesIO(stored), allow_pickle=False)
        return int(entries["size"].sum())
    except (OSError, ValueError, EOFError, IndexError):
        return None


def _counted(descriptor: int) -> int | None:
    """The bytes of the files beneath an open directory, two levels of directories deep as a nested zarr has them."""
    total = 0
    for number, size in enumerate(_sizes(descriptor, 3)):
        if number >= _MOST_ENTRIES:
            return None
        total += size
    return total


def _sizes(descriptor: int, depth: int) -> Iterator[int]:
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False).st_size
            elif depth and entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                try:
                    yield from _sizes(below, depth - 1)
                finally:
                    os.close(below)
