"""One leaf while its block's lock is held: brought to what the log says before anybody edits it.

A crash between the log's commit point and the rename leaves the file as it was before a group or as it is after it,
and the log knows both. What is neither was written by another tool.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from annotation_store.digests import etag_of, etag_of_hash, file_hash
from annotation_store.history.log import BlockLog
from annotation_store.history.records import EXTERNAL, ExternalRecord, FileChange, Head
from annotation_store.history.state import LeafTail
from annotation_store.model import Items, joined, line_of, parse_stored, serialize
from precomputed_server.errors import Unreadable
from precomputed_server.files import read_at
from precomputed_server.writing import atomic_write


@dataclass(frozen=True)
class Snapshot:
    """The bytes of a leaf's file at one moment and their strong entity tag."""

    data: bytes
    etag: str


def snapshot_of(data: bytes) -> Snapshot:
    """What readers see of a file's bytes."""
    return Snapshot(data or serialize({}), etag_of(data))


Lines = dict[str, bytes | None]
"""The line of each annotation in a file, in its order; None where it is still to be made."""


@dataclass(frozen=True)
class Content:
    """A leaf as one process knows it: bytes of the file (None: there is none), their hash, annotations and lines."""

    data: bytes | None
    hash: str | None
    items: Items
    lines: Lines
    fresh: int = 0
    """The bytes of the lines that were made for it."""

    @classmethod
    def read(cls, data: bytes | None, hash: str | None) -> Content:
        """What was read from a file; raises Unreadable."""
        items = {} if data is None else parse_stored(data)
        return cls(data, hash, items, dict.fromkeys(items), len(data or b""))

    @classmethod
    def of(cls, items: Items, lines: Lines | None = None) -> Content:
        """What the file will be that holds `items`; `lines` has those that need not be made again."""
        lines = dict.fromkeys(items) if lines is None else lines
        made = {id: line if line is not None else line_of(items[id]) for id, line in lines.items()}
        data = joined(made.values())
        fresh = sum(len(made[id]) for id, line in lines.items() if line is None)
        return cls(data, file_hash(data), items, {**made}, fresh)

    @property
    def etag(self) -> str | None:
        """The entity tag of what readers see, None when there is no file."""
        if not self.data:
            return None if self.data is None else etag_of(self.data)
        return etag_of_hash(self.hash or "")


NO_FILE = Content(None, None, {}, {})
Known = Callable[[str], Content | None]
"""What is remembered of the leaf of a name."""


class LockedLeaf:
    """The newest acknowledged content of a leaf; `directory` and `log` are open and the lock is held.

    `version` counts from 1 (0: there was never one). Raises Unreadable when the file is damaged and the log knows no
    good version of it.
    """

    def __init__(self, directory: int, log: BlockLog, leaf: str, known: Known) -> None:
        self._directory = directory
        self._log = log
        self.leaf_name = leaf
        self.name = leaf + ".json"
        self._known = known(leaf)
        self._state = _state(directory, self.name)
        self.content, self.version = self._recovered()

    def is_as_read(self) -> bool:
        """Whether nobody has written the file since it was read."""
        return _state(self._directory, self.name) == self._state

    def _recovered(self) -> tuple[Content, int]:
        data = _read(self._directory, self.name)
        known = self._known if self._known is not None and self._known.data == data else None
        found = file_hash(data) if known is None else known.hash
        tail = self._log.tail(self.leaf_name)
        if tail is None:
            return (NO_FILE, 0) if data is None else self._adopted(data, None)
        if found == tail.after:
            return known or Content.read(data, found), tail.version
        if found == tail.before and not tail.external:
            return self._redone(data, tail)
        return self._adopted(data, tail)

    def _redone(self, data: bytes | None, tail: LeafTail) -> tuple[Content, int]:
        """Do the rename that a crash prevented."""
        try:
            redone = Content.of(self._log.redo(self.leaf_name, parse_stored(data or b"")))
        except Unreadable:
            return self._adopted(data, tail)
        if redone.hash != tail.after:
            return self._adopted(data, tail)  # the group is damaged; nobody was told that it was written
        self._replace(redone)
        return redone, tail.version

    def _adopted(self, data: bytes | None, tail: LeafTail | None) -> tuple[Content, int]:
        """Make what another tool wrote a version of its own, when it can be read."""
        try:
            content = Content.read(data, file_hash(data))
        except Unreadable:
            if tail is None:
                raise
            return self._rejected(data or b"", tail.version)
        _sync(self._directory, self.name)  # the other tool need not have done it
        version = 1 if tail is None else tail.version + 1
        text = None if data is None else data.decode()
        record = ExternalRecord(self.leaf_name, version, Head(self._log.time(), EXTERNAL, ""), text)
        self._log.append([record], {self.leaf_name: FileChange(tail.after if tail else None, content.hash)}, {})
        return content, version

    def _rejected(self, damaged: bytes, version: int) -> tuple[Content, int]:
        """Set a damaged file aside and write the last good version in its place; there is a file at every moment."""
        data = self._log.newest_data(self.leaf_name)
        content = NO_FILE if data is None else Content.read(data, file_hash(data))
        aside = f".{self.leaf_name}.rejected-{self._log.time().replace(':', '')}"
        try:
            os.link(self.name, aside, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)
        except OSError:  # a file system without hard links
            atomic_write(self._directory, aside, damaged)
        if data is None:  # another tool had deleted the file before a damaged one came
            os.unlink(self.name, dir_fd=self._directory)
            os.fsync(self._directory)
            self._state = None
        else:
            self._replace(content)
        return content, version

    def _replace(self, content: Content) -> None:
        """Write what a crash kept from being written."""
        atomic_write(self._directory, self.name, content.data or b"")
        self._state = _state(self._directory, self.name)


def _state(directory: int, name: str) -> tuple[int, ...] | None:
    """What tells one state of a file from another, None where there is none."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


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


def _sync(directory: int, name: str) -> None:
    """Put a file, or that there is none, on disk."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    os.fsync(directory)


def written(directory: int, name: str, hash: str | None) -> bool:
    """Whether the file of that name holds the bytes of that hash."""
    with contextlib.suppress(OSError, Unreadable):
        return file_hash(_read(directory, name)) == hash
    return False
