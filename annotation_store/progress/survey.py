"""The leaves of a dataset and their tallies: each is counted anew when its file has changed, and only then."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from annotation_store.blocks import Location, check_name
from annotation_store.cycles import without_collection
from annotation_store.model import Items, parse_stored
from annotation_store.progress.drawn import DrawnInBlock
from annotation_store.progress.listing import After, Wanted, rows_of
from annotation_store.progress.tally import Drawn, Tally, tally_of
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError, Unreadable
from precomputed_server.files import join, typed
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.recent import Weighed

_TICK_NS = 100_000_000
"""A file that was written so shortly before can be replaced within the same tick of the clock."""
_LARGE = 1 << 20
"""Bytes of a file, or of what is new in a log, up to which a thread of a serving process may parse them."""

FileState = tuple[int, int, int, int]
"""What tells one state of a file from another: inode, times of change in ns, size."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Leaf:
    """A leaf of a dataset: the name of the block's directory there, where it really lies, and the file's state."""

    block: str
    name: str
    location: Location
    state: FileState


@dataclass(frozen=True)
class _Known:
    """A tally, the entity tag of the file that was counted, and its state once nothing can be mistaken for it."""

    tally: Tally
    etag: str
    state: FileState | None


class Survey:
    """Tallies of the leaves beneath a reader's tree within a bound of memory in bytes; safe between threads."""

    def __init__(self, reader: AnnotationReader, memory: int) -> None:
        self._reader = reader
        self._tallies: Weighed[str, _Known] = Weighed(memory)
        self._drawn: Weighed[str, DrawnInBlock] = Weighed(memory)
        self._reading_logs = threading.Lock()

    def leaves(self, dataset: str, directories: Sequence[str]) -> list[Leaf]:
        """The leaves of these block directories, sorted by name; one that several names lead to is there once."""
        found: dict[Location, Leaf] = {}
        for directory in directories:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for leaf in self._leaves_of(dataset, directory):
                    found.setdefault(leaf.location, leaf)
        return sorted(found.values(), key=lambda leaf: (leaf.block, leaf.name))

    def known(self, leaf: Leaf) -> Tally | None:
        """The tally of a leaf where its file is the one that was counted; raises Unreadable, NotFound, OSError."""
        kept = self._tallies.get(leaf.location.path)
        if kept is None:
            return None
        if kept.state == leaf.state:
            return kept.tally
        # The file was touched, or was too young when it was counted.
        snapshot = self._reader.load(leaf.location)
        if snapshot is None or snapshot.etag != kept.etag:
            return None
        self.remember(leaf, kept.etag, kept.tally)
        return kept.tally

    def is_large(self, leaf: Leaf) -> bool:
        """Whether to count a leaf would hold the interpreter for long."""
        if leaf.state[-1] > _LARGE:
            return True
        with self._history(leaf.location) as history, self._reading_logs:
            return history is not None and self._drawn_in(leaf.location).unread(history) > _LARGE

    def count(self, leaf: Leaf) -> Tally:
        """Count a leaf, and remember it; raises Unreadable, NotFound, OSError."""
        tally, etag = self.counted(leaf.location)
        self.remember(leaf, etag, tally)
        return tally

    def remember(self, leaf: Leaf, etag: str, tally: Tally) -> None:
        """Keep the tally of what had that entity tag."""
        is_settled = time.time_ns() - max(leaf.state[1:3]) > _TICK_NS
        known = _Known(tally, etag, leaf.state if is_settled else None)
        self._tallies.put(leaf.location.path, known, tally.weight)

    def counted(self, location: Location) -> tuple[Tally, str]:
        """The tally of a leaf as readers are answered it, and its entity tag; raises Unreadable, NotFound, OSError."""
        with without_collection():
            return self._tallied(location)

    def rows(self, location: Location, wanted: Wanted, after: After, limit: int) -> tuple[Rows, After | None]:
        """Rows of a leaf as `rows_of` gives them; raises Unreadable, NotFound, OSError."""
        with without_collection():
            return self._rows(location, wanted, after, limit)

    # What is parsed is gone before collection goes on: each of these has it in a frame of its own.

    def _tallied(self, location: Location) -> tuple[Tally, str]:
        items, etag = self._items(location)
        return tally_of(items, self._drawn_of(location)), etag

    def _rows(self, location: Location, wanted: Wanted, after: After, limit: int) -> tuple[Rows, After | None]:
        items, _ = self._items(location)
        return rows_of(items, self._drawn_of(location), wanted, after, limit)

    def _leaves_of(self, dataset: str, directory: str) -> list[Leaf]:
        place = f"{join(dataset, ANNOTATIONS)}/{directory}"
        real = self._reader.tree.real_path(place)
        leaves = []
        for name, status in self._reader.tree.states(place).items():
            leaf = name.removesuffix(".json")
            with contextlib.suppress(InvalidInput, Unreadable, OSError):
                check_name(leaf, "leaf")
                if leaf == name:
                    continue
                if stat.S_ISLNK(status.st_mode):
                    location = self._reader.locate(dataset, directory, leaf)
                    leaves.append(Leaf(directory, leaf, location, self._state(location)))
                else:
                    leaves.append(Leaf(directory, leaf, Location(real, leaf), _state_of(status)))
        return leaves

    def _state(self, location: Location) -> FileState:
        descriptor = self._reader.tree.open(location.path, os.O_PATH)
        try:
            return _state_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _items(self, location: Location) -> tuple[Items, str]:
        snapshot = self._reader.load(location)
        if snapshot is None:
            raise NotFound("There are no annotations in this file yet.")
        try:
            return parse_stored(snapshot.data), snapshot.etag
        except Unreadable:
            good = self._reader.check(location)  # the last good version
            return parse_stored(good.data), snapshot.etag

    def _drawn_of(self, location: Location) -> Drawn:
        """Who drew the annotations of a leaf whose file was read before: the log is never behind a file."""
        with self._history(location) as history, self._reading_logs:
            if history is None:
                return {}
            drawn = self._drawn_in(location)
            drawn.refresh(history)
            self._drawn.put(location.history, drawn, drawn.weight)
            return drawn.of(location.leaf)

    def _drawn_in(self, location: Location) -> DrawnInBlock:
        return self._drawn.get(location.history) or DrawnInBlock()

    @contextlib.contextmanager
    def _history(self, location: Location) -> Iterator[int | None]:
        try:
            history = self._reader.tree.open_directory(location.history)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            yield history
        finally:
            os.close(history)


_surveys: WeakKeyDictionary[AnnotationReader, Survey] = WeakKeyDictionary()


def survey_of(reader: AnnotationReader, memory: int) -> Survey:
    """The one survey of a reader of this process."""
    return _surveys.setdefault(reader, Survey(reader, memory))


def counted_of(reader: AnnotationReader, location: Location, memory: int) -> tuple[Tally, str] | str:
    """`Survey.counted` of a leaf, or the sentence that says why it cannot be counted."""
    try:
        return survey_of(reader, memory).counted(location)
    except (PrecomputedError, OSError) as error:
        return sentence_of(error)


def rows_in(
    reader: AnnotationReader, location: Location, wanted: Wanted, after: After, limit: int, memory: int
) -> tuple[Rows, After | None]:
    """`Survey.rows` of the survey of that reader."""
    return survey_of(reader, memory).rows(location, wanted, after, limit)


def sentence_of(error: PrecomputedError | OSError) -> str:
    """What is said of a leaf that cannot be read."""
    return str(typed(error, "The annotation file") if isinstance(error, OSError) else error)


def _state_of(status: os.stat_result) -> FileState:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
