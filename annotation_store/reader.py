"""Finding and reading the annotations of a tree: blocks, leaves, their versions, and what is parked."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from annotation_store.blocks import BlockOf, Blocks, Location, check_name, parse_block_info
from annotation_store.committing.leaf import Snapshot, snapshot_of
from annotation_store.history.instants import instant_of
from annotation_store.history.log import BlockLog
from annotation_store.history.records import EXTERNAL, ParkedRecord
from annotation_store.history.state import LeafTail, LogState
from annotation_store.history.versions import Version, Versions
from annotation_store.model import Items, parse_stored
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.files import Tree, join, read_at
from precomputed_server.format.geometry import Box
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO
from precomputed_server.recent import Recent

_KNOWN_GOOD = 4096
_KNOWN_LOGS = 256
_SNAPSHOTS, _SNAPSHOT_BYTES = 64, 1 << 20
"""How many files are kept as they lie, and up to which size."""
_TICK_NS = 100_000_000


@dataclass(frozen=True)
class ParkedSave:
    """Removals that one save asked for and that wait for a person; `block` is the directory's name."""

    block: str
    location: Location
    record: ParkedRecord

    def to_json(self) -> dict[str, Any]:
        """The row of a listing."""
        head = self.record.head
        return {
            "id": self.record.parked,
            "block": self.block,
            "leaf": self.record.leaf,
            "time": head.time,
            "author": head.author,
            "session": head.session,
            "reason": self.record.reason,
            "remove": list(self.record.remove),
        }


class AnnotationReader:
    """The annotations beneath a tree, to read; safe between threads."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._logs: Recent[str, LogState] = Recent(_KNOWN_LOGS)  # of logs that are read without their lock
        self._reading_log = threading.Lock()
        self._snapshots: Recent[str, tuple[tuple[int, ...], Snapshot]] = Recent(_SNAPSHOTS)
        self._good: Recent[str, bool] = Recent(_KNOWN_GOOD)

    def blocks(self, dataset: str, bounds: Box) -> Blocks:
        """The blocks of the dataset at `dataset`, whose volume has `bounds`; raises Unreadable for a bad csv."""
        place = join(dataset, ANNOTATIONS)
        try:
            existing = [entry.name for entry in self.tree.listing(place) if entry.is_directory]
        except FileNotFoundError:
            return Blocks(None, (), bounds)
        try:
            text = self.tree.read(f"{place}/{BLOCK_INFO}").decode(errors="replace")
        except FileNotFoundError:
            return Blocks(None, frozenset(existing), bounds)
        return Blocks(parse_block_info(text), frozenset(existing), bounds)

    def locate(self, dataset: str, directory: str, leaf: str) -> Location:
        """Find a leaf of a block's directory by following links that stay beneath the root.

        Raises InvalidInput for a name that no leaf may have, Unreadable for a link to a file of another kind.
        """
        check_name(leaf, "leaf")
        place = f"{join(dataset, ANNOTATIONS)}/{directory}"
        with contextlib.suppress(FileNotFoundError):
            parent, _, name = self.tree.real_path(f"{place}/{leaf}.json").rpartition("/")
            if not name.endswith(".json"):
                raise Unreadable("the annotation file is a link to a file whose name does not end in .json.")
            return Location(parent, name.removesuffix(".json"))
        with contextlib.suppress(FileNotFoundError):
            place = self.tree.real_path(place)
        return Location(place, leaf)

    def leaves(self, dataset: str, directory: str) -> dict[str, int]:
        """The names of the leaves in a block's directory and the size of their files in bytes."""
        sizes = {}
        for entry in self.tree.listing(f"{join(dataset, ANNOTATIONS)}/{directory}"):
            with contextlib.suppress(InvalidInput):
                leaf = entry.name.removesuffix(".json")
                check_name(leaf, "leaf")
                if entry.name != leaf and not entry.is_directory:
                    sizes[leaf] = entry.size
        return sizes

    def size(self, location: Location) -> int:
        """The size of the leaf's file in bytes, 0 when there is none."""
        try:
            descriptor = self.tree.open(location.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def version(self, location: Location) -> int:
        """The newest version that the log knows; 1 for a file without a log, 0 when there is neither."""
        tail = self.tail(location)
        return tail.version if tail else int(self._exists(location.path))

    def logged_leaves(self, location: Location) -> list[str]:
        """The names of the leaves of a block that its log knows."""
        with self._log_to_read(location) as log:
            return sorted(log.leaves()) if log else []

    def load(self, location: Location, *, cached: bool = False) -> Snapshot | None:
        """The leaf as it lies, None when there is none; whether it can be used is what `check` says.

        With `cached`, raises BlockingIOError instead of waiting for a disk or of hashing a large file.
        """
        try:
            descriptor = self.tree.open(location.path, cached=cached)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a regular file", location.path)
            state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            known = self._snapshots.get(location.path)
            if known is not None and known[0] == state:
                return known[1]
            if cached and status.st_size > _SNAPSHOT_BYTES:
                raise BlockingIOError(errno.EAGAIN, "a large file is hashed in a thread")
            snapshot = snapshot_of(bytes(read_at(descriptor, 0, status.st_size, cached=cached)))
        finally:
            os.close(descriptor)
        # A file that is replaced twice within a tick of the clock can look like the first again.
        if status.st_size <= _SNAPSHOT_BYTES and time.time_ns() - max(state[1:3]) > _TICK_NS:
            self._snapshots.put(location.path, (state, snapshot))
        return snapshot

    def is_good(self, snapshot: Snapshot) -> bool:
        """Whether these bytes are known to be those of a leaf."""
        return self._good.get(snapshot.etag) is not None

    def mark_good(self, etag: str) -> None:
        """Remember that the bytes of that tag are those of a leaf."""
        self._good.put(etag, True)

    def check(self, location: Location) -> Snapshot:
        """The leaf when an edit would accept it, else the newest version that the log knows.

        Raises NotFound, and Unreadable when the log does not know one.
        """
        snapshot = self.load(location)
        if snapshot is None:
            raise NotFound("There are no annotations in this file yet.")
        try:
            parse_stored(snapshot.data)
        except Unreadable:
            tail = self.tail(location)
            if tail is None:
                raise
            with self.versions(location) as versions:
                snapshot = snapshot_of(versions.content(location.leaf, tail.version).data)
        self.mark_good(snapshot.etag)
        return snapshot

    def count(self, location: Location) -> int:
        """How many annotations the leaf's file holds; raises Unreadable."""
        snapshot = self.load(location)
        return 0 if snapshot is None else len(parse_stored(snapshot.data))

    @contextlib.contextmanager
    def versions(self, location: Location) -> Iterator[Versions]:
        """The versions of the leaves of a block; raises NotFound when nothing was ever edited in it."""
        with self.versions_in(location.history) as versions:
            yield versions

    @contextlib.contextmanager
    def versions_in(self, directory: str) -> Iterator[Versions]:
        """The versions that the log in a directory beneath the root keeps; raises NotFound where there is none."""
        try:
            history = self.tree.open_directory(directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("This annotation file has never been edited: there is no earlier version of it.") from error
        try:
            yield Versions(history)
        finally:
            os.close(history)

    def version_at(self, location: Location, version: int | None, instant: datetime | None) -> Version:
        """The leaf as it was in a version, or at an instant; raises NotFound, Gone."""
        if self.tail(location) is None:
            return self._unlogged(location, version, instant)
        with self.versions(location) as versions:
            number = version if version is not None else versions.at(location.leaf, instant or datetime.now(UTC))
            return versions.content(location.leaf, number)

    def _unlogged(self, location: Location, version: int | None, instant: datetime | None) -> Version:
        """A file that no log knows yet is version 1, since it was last written, by whoever wrote it."""
        snapshot = self.check(location)
        descriptor = self.tree.open(location.path, os.O_PATH)
        try:
            written_s = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        if version not in (None, 1) or (instant is not None and instant < datetime.fromtimestamp(written_s, UTC)):
            raise NotFound("This annotation file has never been edited here: there is only version 1 of it.")
        return Version(1, instant_of(written_s), EXTERNAL, parse_stored(snapshot.data), snapshot.data, snapshot.etag)

    def logged_blocks(self, dataset: str) -> Iterator[BlockOf]:
        """The blocks of the dataset in which something was edited; raises OSError."""
        place = join(dataset, ANNOTATIONS)
        with contextlib.suppress(FileNotFoundError):
            for entry in self.tree.listing(place):
                if entry.is_directory:
                    block = BlockOf(entry.name, self.tree.real_path(f"{place}/{entry.name}"))
                    if self._exists(block.location("").history):
                        yield block

    def parked(self, dataset: str) -> list[ParkedSave]:
        """What of the dataset's saves waits to be applied or discarded; raises OSError."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for block in self.logged_blocks(dataset):
                with self._log_to_read(block.location("")) as log:
                    records = [] if log is None else list(log.open_parked().values())
                found += [ParkedSave(block.name, block.location(record.leaf), record) for record in records]
        return found

    def find_parked(self, dataset: str, id: str) -> ParkedSave | None:
        """The save of `parked` of that id."""
        return next((save for save in self.parked(dataset) if save.record.parked == id), None)

    def parked_body(self, save: ParkedSave) -> Items:
        """What the page sent that time; raises Gone."""
        with self.versions(save.location) as versions:
            return versions.body_of(save.record)

    def tail(self, location: Location) -> LeafTail | None:
        """What the log says of the leaf's newest version; None where it does not know the leaf."""
        with self._log_to_read(location) as log:
            return log.tail(location.leaf) if log else None

    @contextlib.contextmanager
    def _log_to_read(self, location: Location) -> Iterator[BlockLog | None]:
        """The log of a leaf's block as it lies, without its lock; None when there is none."""
        try:
            history = self.tree.open_directory(location.history)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            with self._reading_log:
                state = self._logs.get(location.history) or LogState()
                self._logs.put(location.history, state)
                with contextlib.closing(BlockLog(history, state)) as log:
                    log.refresh(repair=False)
                    yield log
        finally:
            os.close(history)

    def _exists(self, path: str) -> bool:
        try:
            os.close(self.tree.open(path, os.O_PATH))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True
