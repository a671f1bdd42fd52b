"""The leaves of a dataset as columns, brought up to date by looking at every file and reading those that changed."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from annotation_store.blocks import Location, check_name
from annotation_store.committing.leaf import Snapshot
from annotation_store.reader import AnnotationReader
from annotation_store.views.last_edits import LastEdits
from annotation_store.views.leaf_rows import NO_ROWS, LeafRows, lines_of, parsed_lines, read_leaf
from annotation_store.views.rows import Array
from precomputed_server.errors import Busy, InvalidInput, PrecomputedError, Unreadable
from precomputed_server.files import Tree, join, typed
from precomputed_server.format.names import ANNOTATIONS

ParseWhole = Callable[[Location, int], list[bytes]]
"""Gives the annotations, each as JSON, of a leaf of about so many bytes that was not written with one a line."""

Key = tuple[str, str]
"""The directory of a block and the name of a leaf."""

FileState = tuple[int, ...]
_TICK_NS = 100_000_000
"""A file that is replaced twice within a tick of the clock can look like the first again."""
_SUFFIX = ".json"


@dataclass(frozen=True)
class ReadLeaf:
    """A leaf as it was read; `state` is None when it may have changed since without showing it.

    `stamps` has those of the last edits, for the annotations of each geometry.
    """

    location: Location
    state: FileState | None
    etag: str
    rows: LeafRows
    stamps: Mapping[str, Array] = field(default_factory=dict)


class Leaves:
    """All leaves of the dataset at `dataset`."""

    def __init__(self, reader: AnnotationReader, dataset: str, parse_whole: ParseWhole | None = None) -> None:
        self.read: dict[Key, ReadLeaf] = {}
        self._linked: dict[Key, ReadLeaf] = {}  # further names of the same files
        self._parse_whole = parse_whole or self._parsed_here
        self._reader = reader
        self._dataset = dataset
        self._edits: dict[str, LastEdits] = {}

    def refresh(self) -> set[Key]:
        """Read what changed since; returns the leaves of which something is another than before, or which are gone."""
        states = dict(self._states())
        found = {key: self._read(key, state) for key, state in states.items()}
        leaves, linked = _apart({key: leaf for key, leaf in found.items() if leaf is not None})
        for key in leaves.keys() & self._linked.keys():  # its file had another name before, which is gone
            del self._linked[key]
            anew = self._read(key, states[key])
            leaves[key] = leaves[key] if anew is None else anew
        self._linked = {key: replace(leaf, rows=NO_ROWS, stamps={}) for key, leaf in linked.items()}
        histories = {leaf.location.history for leaf in leaves.values()}
        edited = {history for history in histories if self._refresh_edits(history)}
        for key, leaf in leaves.items():
            if leaf.rows is not self._known(key).rows or leaf.location.history in edited:
                leaves[key] = self._stamped(leaf)
        changed = {key for key in leaves.keys() | self.read.keys() if _differ(leaves.get(key), self.read.get(key))}
        self.read = {key: leaves[key] for key in sorted(leaves)}
        self._edits = {history: edits for history, edits in self._edits.items() if history in histories}
        return changed

    def authors(self) -> set[str]:
        """Who is named by the logs."""
        return {author for edits in self._edits.values() for author in edits.authors}

    def _known(self, key: Key) -> ReadLeaf:
        return self.read.get(key) or self._linked.get(key) or ReadLeaf(Location("", ""), None, "", NO_ROWS)

    def _states(self) -> Iterator[tuple[Key, FileState]]:
        tree, place = self._reader.tree, join(self._dataset, ANNOTATIONS)
        try:
            blocks = [entry.name for entry in tree.listing(place) if entry.is_directory and _is_name(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        for block in blocks:
            for leaf, state in leaf_states(tree, f"{place}/{block}"):
                yield (block, leaf), state

    def _read(self, key: Key, state: FileState) -> ReadLeaf | None:
        """The leaf, as it is known already where it is in that state; None for one of which no good version is known,
        which hides no other.
        """
        known = self._known(key)
        if known.state == state:
            return known
        settled = state if time.time_ns() - max(state[2:]) > _TICK_NS else None
        try:
            location = self._reader.locate(self._dataset, *key)
            snapshot = self._reader.load(location)
            if snapshot is None:
                return None
            if snapshot.etag == known.etag and location == known.location:
                return replace(known, state=settled)
            return ReadLeaf(location, settled, snapshot.etag, self._rows(location, snapshot, known.rows), known.stamps)
        except OSError as error:
            if isinstance(typed(error, "The annotation file"), Busy):
                raise
            return None
        except Busy:
            raise
        except PrecomputedError:
            return None

    def _rows(self, location: Location, snapshot: Snapshot, known: LeafRows) -> LeafRows:
        lines = lines_of(snapshot.data)
        with contextlib.suppress(Unreadable):
            if lines is not None:
                return read_leaf(lines, known)
        return read_leaf(self._parse_whole(location, len(snapshot.data)), known)

    def _parsed_here(self, location: Location, size: int) -> list[bytes]:
        return parsed_lines(self._reader.check(location).data)

    def _refresh_edits(self, history: str) -> bool:
        """Read the block's log on; False when it says nothing new. What cannot be read says nothing."""
        edits = self._edits.setdefault(history, LastEdits())
        with contextlib.suppress(OSError, PrecomputedError):
            directory = self._reader.tree.open_directory(history)
            try:
                return edits.refresh(directory)
            finally:
                os.close(directory)
        return False

    def _stamped(self, leaf: ReadLeaf) -> ReadLeaf:
        stamp = self._edits[leaf.location.history].of(leaf.location.leaf).get
        stamps = {
            type: np.fromiter((stamp(id, 0) for id in rows.ids.tolist()), np.uint64, len(rows))
            for type, rows in leaf.rows.rows.items()
        }
        return replace(leaf, stamps=stamps)


def _apart(found: Mapping[Key, ReadLeaf]) -> tuple[dict[Key, ReadLeaf], dict[Key, ReadLeaf]]:
    """Each file once, by its own name where that is among them, and what its other names lead to."""
    names: dict[str, Key] = {}
    for key, leaf in sorted(found.items(), key=lambda each: each[0]):
        if names.setdefault(leaf.location.path, key) != key and leaf.location.is_named(*key):
            names[leaf.location.path] = key
    own = {key: leaf for key, leaf in found.items() if names[leaf.location.path] == key}
    return own, {key: leaf for key, leaf in found.items() if key not in own}


def leaf_states(tree: Tree, directory: str) -> list[tuple[str, FileState]]:
    """The leaves in a block's directory, each with what tells one state of its file from another."""
    try:
        descriptor = tree.open_directory(directory)
    except OSError:
        return []
    found = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                leaf = entry.name.removesuffix(_SUFFIX)
                if leaf != entry.name and _is_name(leaf):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISLNK(status.st_mode):
                        status = _target(tree, f"{directory}/{entry.name}") or status
                    if stat.S_ISREG(status.st_mode):
                        found.append((leaf, _state_of(status)))
    finally:
        os.close(descriptor)
    return found


def _target(tree: Tree, path: str) -> os.stat_result | None:
    """What a link leads to beneath the root."""
    try:
        descriptor = tree.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _state_of(status: os.stat_result) -> FileState:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_name(name: str) -> bool:
    try:
        check_name(name, "leaf")
    except InvalidInput:
        return False
    return True


def _differ(one: ReadLeaf | None, other: ReadLeaf | None) -> bool:
    """Whether two readings of a leaf say something else of any annotation."""
    if one is None or other is None:
        return one is not other
    if one.rows is not other.rows:
        return True
    return any(not np.array_equal(stamps, other.stamps[type]) for type, stamps in one.stamps.items())
