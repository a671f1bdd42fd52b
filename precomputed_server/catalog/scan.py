"""Finding the datasets of a tree by walking it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from precomputed_server.catalog.records import Dataset, describe
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree, typed
from precomputed_server.readers.volumes import Volumes


@dataclass(frozen=True)
class Damaged:
    """A directory that cannot be looked at, and why, in a sentence."""

    path: str
    reason: str


def find_datasets(tree: Tree, volumes: Volumes, limit: int = 10_000) -> tuple[list[Dataset], list[Damaged]]:
    """Every dataset beneath the root by path, and every damaged place, at most `limit` of both.

    The walk stops at a volume.
    """
    found = list(itertools.islice(_walk(tree, volumes, "", set()), limit))
    datasets = [place for place in found if isinstance(place, Dataset)]
    return datasets, [place for place in found if isinstance(place, Damaged)]


def _walk(tree: Tree, volumes: Volumes, path: str, seen: set[tuple[int, int]]) -> Iterator[Dataset | Damaged]:
    try:
        if not _is_new(tree, path, seen):
            return
        volume = volumes.at(path)
        if volume is not None:
            yield describe(tree, volume)
            return
        entries = tree.listing(path)
    except OSError as error:
        yield Damaged(path, str(typed(error, "the directory")))
        return
    except PrecomputedError as error:
        yield Damaged(path, str(error))
        return
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
