"""Finding the datasets of a tree by walking it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from precomputed_server.catalog.records import Dataset, describe
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.readers.volumes import Volumes


def find_datasets(tree: Tree, volumes: Volumes, limit: int = 10_000) -> list[Dataset]:
    """Every dataset beneath the root by path, at most `limit`; the walk stops at a volume and at damaged places."""
    found = []
    for dataset in _walk(tree, volumes, "", set()):
        found.append(dataset)
        if len(found) == limit:
            break
    return found


def _walk(tree: Tree, volumes: Volumes, path: str, seen: set[tuple[int, int]]) -> Iterator[Dataset]:
    try:
        if not _is_new(tree, path, seen):
            return
        volume = volumes.at(path)
        if volume is not None:
            yield describe(tree, volume)
            return
        entries = tree.listing(path)
    except (OSError, PrecomputedError):
        return  # one damaged directory hides itself, not its neighbours
    for entry in entries:
        if entry.is_directory:
            yield from _walk(tree, volumes, f"{path}/{entry.name}" if path else entry.name, seen)


def _is_new(tree: Tree, path: str, seen: set[tuple[int, int]]) -> bool:
    """Whether the directory was not met before: symbolic links inside the root may form loops."""
    directory = tree.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.fstat(directory)
    finally:
        os.close(directory)
    place = (status.st_dev, status.st_ino)
    if place in seen:
        return False
    seen.add(place)
    return True
