"""The edit log of one block: one JSON line an edit, chained by hashes, appended before a file is replaced.

A record says leaf, version, time, author, session, operation, annotation id and the annotation after it. What one
commit writes is a group: its last record holds the SHA-256 of the leaf's file before and after the whole group, so that
a group without such an end was torn by a crash and never happened. `previous` is the SHA-256 of the line before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from annotation_store.edits import Edit, apply
from annotation_store.model import Items
from precomputed_server.errors import Unreadable
from precomputed_server.writing import write_all

FORMAT = 1
EXTERNAL = "external"
"""Author and operation of a version that another tool wrote."""

_PIECE = 1 << 20


def digest(data: bytes | None) -> str | None:
    """The SHA-256 of a file's bytes; None for a file that does not exist."""
    return None if data is None else hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Record:
    """One line of the log; `items` is the whole content where `operation` is external."""

    leaf: str
    version: int
    time: str
    author: str
    session: str
    operation: str
    id: str | None = None
    after: dict[str, Any] | None = None
    items: Items | None = None

    def to_json(self) -> dict[str, Any]:
        """The members of the line, without its place in the chain."""
        members: dict[str, Any] = {
            "format": FORMAT,
            "leaf": self.leaf,
            "version": self.version,
            "time": self.time,
            "author": self.author,
            "session": self.session,
            "operation": self.operation,
        }
        if self.id is not None:
            members["id"] = self.id
        if self.after is not None:
            members["after"] = self.after
        if self.items is not None:
            members["items"] = list(self.items.values())
        return members

    @classmethod
    def of_edit(cls, edit: Edit, head: Record) -> Record:
        """The record of `edit` in the version that `head` describes."""
        return cls(head.leaf, head.version, head.time, head.author, head.session, edit.operation, edit.id, edit.after)


@dataclass(frozen=True)
class LeafTail:
    """What the log says of a leaf's newest group: hashes of its file before and after, and where its lines lie."""

    version: int
    before: str | None
    after: str | None
    start: int
    stop: int


@dataclass
class LogState:
    """What has been read of a log file: up to where, the hash of the last line, and the tail of each leaf."""

    inode: int = -1
    read: int = 0
    last_hash: str = ""
    leaves: dict[str, LeafTail] = field(default_factory=dict)

    def forget(self, inode: int) -> None:
        """Begin again with the log file of that inode."""
        self.inode, self.read, self.last_hash, self.leaves = inode, 0, "", {}


class BlockLog:
    """The log file behind an open descriptor; its caller holds the block's lock."""

    def __init__(self, descriptor: int, state: LogState) -> None:
        self._descriptor = descriptor
        self._state = state

    def refresh(self, *, repair: bool) -> None:
        """Read what was appended since; with `repair`, cut off a group that a crash left torn."""
        status = os.fstat(self._descriptor)
        if status.st_ino != self._state.inode or status.st_size < self._state.read:
            self._state.forget(status.st_ino)
        stop = self._state.read
        for group in _groups(self._descriptor, stop):
            self._learn(group)
            stop = group.stop
        if repair and stop < status.st_size:
            os.ftruncate(self._descriptor, stop)
            os.fdatasync(self._descriptor)

    def tail(self, leaf: str) -> LeafTail | None:
        """The newest group of `leaf`, None when the log does not know it."""
        return self._state.leaves.get(leaf)

    def append(self, records: Sequence[Record], before: str | None, after: str | None) -> None:
        """Write one group and put it on disk: the commit point. Nothing of it stays when that fails."""
        lines = []
        previous = self._state.last_hash
        for number, record in enumerate(records):
            members = record.to_json() | {"previous": previous}
            if number == len(records) - 1:
                members["file"] = {"before": before, "after": after}
            line = orjson.dumps(members)
            previous = hashlib.sha256(line).hexdigest()
            lines.append(line + b"\n")
        start = self._state.read
        data = b"".join(lines)
        try:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, start)
            raise
        self._state.read = start + len(data)
        self._state.last_hash = previous
        last = records[-1]
        self._state.leaves[last.leaf] = LeafTail(last.version, before, after, start, self._state.read)

    def undo(self, leaf: str) -> None:
        """Take the newest group, which is of `leaf`, back: its file could not be written and nobody was told of it."""
        os.ftruncate(self._descriptor, self._state.leaves[leaf].start)
        os.fdatasync(self._descriptor)
        self._state.forget(-1)

    def replay(self, leaf: str, items: Items, start: int = 0, stop: int | None = None) -> Items:
        """`items` after every edit of `leaf` whose group begins at a byte from `start` to before `stop`."""
        for group in _groups(self._descriptor, start):
            if stop is not None and group.start >= stop:
                break
            if group.members[-1]["leaf"] == leaf:
                for members in group.members:
                    items = _applied(items, members)
        return items

    def _learn(self, group: _Group) -> None:
        last = group.members[-1]
        self._state.read = group.stop
        self._state.last_hash = group.last_hash
        self._state.leaves[last["leaf"]] = LeafTail(
            last["version"], last["file"]["before"], last["file"]["after"], group.start, group.stop
        )


@dataclass(frozen=True)
class _Group:
    members: list[dict[str, Any]]
    start: int
    stop: int
    last_hash: str


def _groups(descriptor: int, start: int) -> Iterator[_Group]:
    """The whole groups from byte `start`; what comes after the last whole one is torn and passed over."""
    members: list[dict[str, Any]] = []
    position = start
    for line in _lines(descriptor, start):
        position += len(line) + 1
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if record.get("format", 0) > FORMAT:
            raise Unreadable("the edit log was written by a newer version of this program; update this one.")
        members.append(record)
        if "file" in record:
            yield _Group(members, start, position, hashlib.sha256(line).hexdigest())
            members, start = [], position


def _lines(descriptor: int, offset: int) -> Iterator[bytes]:
    """The whole lines from byte `offset`, without their ends."""
    rest = b""
    while piece := os.pread(descriptor, _PIECE, offset):
        offset += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _applied(items: Items, members: dict[str, Any]) -> Items:
    if "items" in members:
        return {item["id"]: item for item in members["items"]}
    return apply(items, [Edit(members["operation"], members["id"], members.get("after"))])
