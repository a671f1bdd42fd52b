"""Finding the datasets of a tree by walking it: everything at first, later only what has changed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from precomputed_server.catalog.entries import COMPLETE, CONVERTING, STACK, UNUSABLE, Entry, KnownPlace
from precomputed_server.catalog.records import Dataset, describe
from precomputed_server.catalog.survey import Surveyor
from precomputed_server.files import Tree, join, typed
from precomputed_server.format.names import parse_chunk_name
from precomputed_server.readers.volumes import Volumes

_PLANES = (".tif", ".tiff", ".btf")
_SETTLED_NS = 2_000_000_000
"""A directory that was written more recently may be written again within the same tick of its clock."""

Known = Mapping[str, KnownPlace]


@dataclass(frozen=True)
class Unchanged:
    """A place that is as it was when it was looked at last."""

    path: str


@dataclass
class Scanner:
    """Walks a tree again and again; directories that have not been written since are not listed again."""

    surveyor: Surveyor
    _listed: dict[str, tuple[tuple[int, int], _Listing]] = field(default_factory=dict)

    def scan(self, known: Known, below: str = "") -> Iterator[Entry | Unchanged]:
        """Every dataset, stack and unreadable place at or beneath `below`, in the order of the walk.

        The walk stops at a dataset. Symbolic links are followed as far as they stay beneath the root, each directory
        once.
        """
        seen: set[tuple[int, int]] = set()
        waiting = [below]
        while waiting:
            path = waiting.pop()
            try:
                found, children = self._place(path, known, seen)
            except OSError as error:
                if path == below and isinstance(error, (FileNotFoundError, NotADirectoryError)):
                    return
                if not isinstance(error, FileNotFoundError):
                    reason = str(typed(error, "the directory"))
                    yield Entry(path, UNUSABLE, reason, title=_name(path), signature=reason)
                continue
            if found is not None:
                yield found
            waiting += reversed(children)

    def _place(self, path: str, known: Known, seen: set[tuple[int, int]]) -> tuple[Entry | Unchanged | None, list[str]]:
        """What lies at a path, and the directories beneath it that are still to be looked at."""
        directory = self.surveyor.tree.open(path, os.O_PATH | os.O_DIRECTORY)
        try:
            status = os.fstat(directory)
        finally:
            os.close(directory)
        if (status.st_dev, status.st_ino) in seen:
            return None, []
        seen.add((status.st_dev, status.st_ino))
        before = known.get(path)
        if before is not None and before.state not in (CONVERTING, STACK) and self._is_same(path, before):
            return Unchanged(path), []
        state = (status.st_ino, status.st_mtime_ns)
        listed = self._listed.get(path)
        if listed is None or listed[0] != state or listed[1].planes:  # which somebody may have published since
            entry = self.surveyor.entry(path)
            if entry is not None:
                self._listed.pop(path, None)
                return entry, []
            listing = _list(self.surveyor.tree, path)
            listed = state, listing
            if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
                self._listed[path] = listed
        return listed[1].stack(path), listed[1].children(path)

    def _is_same(self, path: str, before: KnownPlace) -> bool:
        return bool(before.watched) and self.surveyor.signature(path, before.watched) == before.signature


@dataclass(frozen=True)
class _Listing:
    """The directories in a directory, and how many TIFF planes lie in it beside them."""

    directories: tuple[str, ...]
    planes: int
    first_plane: str

    def children(self, path: str) -> list[str]:
        """The paths of the directories."""
        return [join(path, name) for name in self.directories]

    def stack(self, path: str) -> Entry | None:
        """The folder of planes, if it is one."""
        if not self.planes:
            return None
        files = "1 TIFF file" if self.planes == 1 else f"{self.planes} TIFF files"
        remedy = "convert them, or have them served as they are with `precomputed describe`"
        reason = f"{files}, the first of them {self.first_plane}, not published; {remedy}."
        return Entry(path, STACK, reason, title=_name(path), total=self.planes, signature=reason)


def _list(tree: Tree, path: str) -> _Listing:
    descriptor = tree.open_directory(path)
    directories, planes, first = [], 0, ""
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_directory(tree, path, entry):
                    directories.append(entry.name)
                elif _is_plane(entry.name):
                    planes, first = planes + 1, min(first or entry.name, entry.name)
    finally:
        os.close(descriptor)
    return _Listing(tuple(sorted(directories)), planes, first)


def _is_directory(tree: Tree, path: str, entry: os.DirEntry[str]) -> bool:
    """Whether a name is that of a directory, or of a symbolic link that leads to one beneath the root."""
    if not entry.is_symlink():
        return entry.is_dir(follow_symlinks=False)
    try:
        os.close(tree.open(join(path, entry.name), os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_plane(name: str) -> bool:
    """Whether a name is that of a TIFF file which is no chunk."""
    stem, dot, _ = name.partition(".")
    return bool(dot) and name.lower().endswith(_PLANES) and parse_chunk_name(stem) is None


@dataclass(frozen=True)
class Damaged:
    """A directory that cannot be looked at, and why, in a sentence."""

    path: str
    reason: str


class _Glance(Surveyor):
    """Tells volumes from other directories and looks no further: for pages that somebody waits for."""

    def entry(self, path: str) -> Entry | None:
        """Only what it is."""
        volume, reason = self.volume(path)
        if reason:
            return Entry(path, UNUSABLE, reason)
        return None if volume is None else Entry(path, COMPLETE)


def find_datasets(tree: Tree, volumes: Volumes, limit: int = 10_000) -> tuple[list[Dataset], list[Damaged]]:
    """Every volume beneath the root by path, and every damaged place, at most `limit` of both.

    For pages without a catalog.
    """
    glance = _Glance(tree, volumes)
    places = (place for place in Scanner(glance).scan({}) if isinstance(place, Entry) and place.state != STACK)
    datasets, damaged = [], []
    for place in itertools.islice(places, limit):
        volume, reason = glance.volume(place.path)
        if volume is not None:
            datasets.append(describe(tree, volume))
        elif place.state == UNUSABLE:
            damaged.append(Damaged(place.path, reason or place.reason))
    return sorted(datasets, key=lambda dataset: dataset.path), damaged
