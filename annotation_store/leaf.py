"""One leaf while its block's lock is held: brought to what the log says, then edited and written.

The order of a write: log on disk (the commit point), new file beside the old one and on disk, rename, directory on
disk. A crash between them leaves the file as it was before the group or as it is after it, and the log knows both.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from annotation_store.log import EXTERNAL, BlockLog, LeafTail, Record, digest
from annotation_store.model import Items, parse_stored, serialize
from precomputed_server.errors import Unreadable
from precomputed_server.files import read_at
from precomputed_server.writing import atomic_write

Parse = Callable[[bytes], Items]

_ETAG_DIGITS = 32


def now() -> str:
    """The time of a record: UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Snapshot:
    """The bytes of a leaf's file at one moment and their strong entity tag."""

    data: bytes
    etag: str


def snapshot_of(data: bytes) -> Snapshot:
    """What readers see of a file's bytes: an empty file is an empty list."""
    shown = data or serialize({})
    return Snapshot(shown, (digest(shown) or "")[:_ETAG_DIGITS])


class LockedLeaf:
    """The newest acknowledged content of a leaf; `directory` and `log` are open and the lock is held.

    `items` is the content, `version` counts from 1 (0: there was never one). Raises Unreadable when the file is damaged
    and the log knows no good version of it.
    """

    def __init__(self, directory: int, log: BlockLog, leaf: str, parse: Parse = parse_stored) -> None:
        self._directory = directory
        self._log = log
        self._leaf = leaf
        self._name = leaf + ".json"
        self._parse = parse
        self._data = _read(directory, self._name)
        self.items, self.version = self._recovered()

    @property
    def data(self) -> bytes | None:
        """The bytes of the file, None when there is none."""
        return self._data

    def write(self, records: Sequence[Record], items: Items) -> None:
        """Commit one group of edits whose result is `items`; raises OSError, and then nothing has happened."""
        data = serialize(items)
        self._log.append(records, digest(self._data), digest(data))
        try:
            atomic_write(self._directory, self._name, data)
        except OSError:
            self._undo(data)
            raise
        self._data, self.items, self.version = data, items, records[-1].version

    def _undo(self, written: bytes) -> None:
        """After a failed write take the log back, unless the rename was done before the failure."""
        with contextlib.suppress(OSError):
            if _read(self._directory, self._name) != written:
                self._log.undo(self._leaf)

    def _recovered(self) -> tuple[Items, int]:
        tail = self._log.tail(self._leaf)
        if tail is None:
            return ({}, 0) if self._data is None else self._adopted(None)
        found = digest(self._data)
        if found == tail.after:
            return self._parse(self._data or b""), tail.version
        if found == tail.before and not tail.external:
            return self._redone(tail)
        return self._adopted(tail)

    def _redone(self, tail: LeafTail) -> tuple[Items, int]:
        """Do the rename that a crash prevented."""
        items = {} if self._data is None else self._parse(self._data)
        items = self._log.replay(self._leaf, items, tail.start, tail.stop)
        if digest(serialize(items)) != tail.after:
            return self._adopted(tail)  # the group is damaged; nobody was told that it was written
        self._replace(items)
        return items, tail.version

    def _adopted(self, tail: LeafTail | None) -> tuple[Items, int]:
        """Make what another tool wrote a version of its own, when it can be read."""
        try:
            items = {} if self._data is None else self._parse(self._data)
        except Unreadable:
            if tail is None:
                raise
            return self._rejected(), tail.version
        version = 1 if tail is None else tail.version + 1
        record = Record(self._leaf, version, now(), EXTERNAL, "", EXTERNAL, items=items)
        self._log.append([record], None if tail is None else tail.after, digest(self._data))
        return items, version

    def _rejected(self) -> Items:
        """Set a damaged file aside and write the last good version in its place; there is a file at every moment."""
        items = self._log.newest(self._leaf)
        aside = f".{self._leaf}.rejected-{now().replace(':', '')}"
        try:
            os.link(self._name, aside, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)
        except OSError:  # a file system without hard links
            atomic_write(self._directory, aside, self._data or b"")
        self._replace(items)
        return items

    def _replace(self, items: Items) -> None:
        """Write what a crash kept from being written, and remove what it left."""
        data = serialize(items)
        for left in os.listdir(self._directory):
            if left.startswith(f".{self._name}.") and left.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    os.unlink(left, dir_fd=self._directory)
        atomic_write(self._directory, self._name, data)
        self._data = data


def _read(directory: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("what has the annotation file's name is no file.")
        return read_at(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)
