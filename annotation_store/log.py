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

from annotation_store.edits import Edit
from annotation_store.model import Items, serialize
from precomputed_server.errors import Unreadable
from precomputed_server.writing import write_all

FORMAT = 1
LOG = "log.jsonl"
EXTERNAL = "external"
"""Author and operation of a version that another tool wrote."""

_PIECE = 1 << 20
_END = 256
"""Bytes at the end of what was read that tell this log from another: they hold hashes of the file and of the chain."""


def digest(data: bytes | None) -> str | None:
    """The SHA-256 of a file's bytes; None for a file that does not exist."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def open_log(history: int) -> int:
    """Open the log in a block's open history directory for appending, and create it when there is none."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(LOG, flags, dir_fd=history)
    except FileNotFoundError:
        descriptor = os.open(LOG, flags | os.O_CREAT, 0o666, dir_fd=history)
    if os.fstat(descriptor).st_size == 0:
        os.fsync(history)  # the log's name has to be on disk before what it says counts
    return descriptor


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
    """What the log says of a leaf's newest group: hashes of its file before and after, and where its lines lie.

    `external` tells a group that says what another tool wrote: there is no write of ours that it could announce.
    """

    version: int
    before: str | None
    after: str | None
    start: int
    stop: int
    external: bool


@dataclass
class LogState:
    """What has been read of a log file: up to where, how that ends, its last line's hash, and each leaf's tail."""

    inode: int = -1
    read: int = 0
    end: bytes = b""
    last_hash: str = ""
    leaves: dict[str, LeafTail] = field(default_factory=dict)

    def forget(self, inode: int) -> None:
        """Begin again with the log file of that inode."""
        self.inode, self.read, self.end, self.last_hash, self.leaves = inode, 0, b"", "", {}


class BlockLog:
    """The log file behind an open descriptor; who appends or repairs holds the block's lock."""

    def __init__(self, descriptor: int, state: LogState) -> None:
        self._descriptor = descriptor
        self._state = state

    def refresh(self, *, repair: bool) -> None:
        """Read what was appended since; with `repair`, cut off a group that a crash left torn."""
        status = os.fstat(self._descriptor)
        if status.st_ino != self._state.inode or not self._is_as_read():
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
        self._state.end = lines[-1][-_END:]
        self._state.last_hash = previous
        last = records[-1]
        external = last.operation == EXTERNAL
        self._state.leaves[last.leaf] = LeafTail(last.version, before, after, start, self._state.read, external)

    def undo(self, leaf: str) -> None:
        """Take the newest group, which is of `leaf`, back: its file could not be written and nobody was told of it."""
        start = self._state.leaves[leaf].start
        self._state.forget(-1)
        os.ftruncate(self._descriptor, start)
        os.fdatasync(self._descriptor)

    def replay(self, leaf: str, items: Items, start: int = 0, stop: int | None = None) -> Items:
        """`items` after every edit of `leaf` whose group begins at a byte from `start` to before `stop`."""
        items = dict(items)
        for group in _groups(self._descriptor, start):
            if stop is not None and group.start >= stop:
                break
            for members in group.members:
                if members["leaf"] == leaf:
                    _apply_to(items, members)
        return items

    def newest(self, leaf: str) -> Items:
        """What the newest version of `leaf` holds; raises Unreadable when the log does not know it for sure."""
        tail = self.tail(leaf)
        if tail is None:
            raise Unreadable("the annotation file is damaged and its log knows no earlier version.")
        items = self.replay(leaf, {})
        if not tail.external and digest(serialize(items)) != tail.after:
            raise Unreadable("the annotation file is damaged and so is its log.")
        return items

    def _is_as_read(self) -> bool:
        """Whether the file still holds what was read: another one may have the inode of one that was deleted."""
        end = self._state.end
        return os.pread(self._descriptor, len(end), self._state.read - len(end)) == end

    def _learn(self, group: _Group) -> None:
        last = group.members[-1]
        self._state.read = group.stop
        self._state.end = group.end
        self._state.last_hash = group.last_hash
        self._state.leaves[last["leaf"]] = LeafTail(
            last["version"],
            last["file"]["before"],
            last["file"]["after"],
            group.start,
            group.stop,
            last["operation"] == EXTERNAL,
        )


@dataclass(frozen=True)
class _Group:
    members: list[dict[str, Any]]
    start: int
    stop: int
    end: bytes
    last_hash: str


def _groups(descriptor: int, start: int) -> Iterator[_Group]:
    """The whole groups from byte `start`.

    What comes after the last whole one is torn. A line before it that cannot be read was damaged later: it is passed
    over, because what follows it was committed and still counts.
    """
    members: list[dict[str, Any]] = []
    position = start
    for line in _lines(descriptor, start):
        position += len(line) + 1
        record = _read_record(line)
        if record is None:
            continue
        members.append(record)
        if "file" in record:
            yield _Group(members, start, position, (line + b"\n")[-_END:], hashlib.sha256(line).hexdigest())
            members, start = [], position


def _read_record(line: bytes) -> dict[str, Any] | None:
    """The members of a line, None for a damaged one; raises Unreadable for one from a newer program."""
    try:
        record = orjson.loads(line)
        if record["format"] > FORMAT:
            raise Unreadable("the edit log was written by a newer version of this program; update this one.")
        needed = [record["leaf"], record["version"], record["operation"]]
        needed += [item["id"] for item in record["items"]] if "items" in record else [record["id"]]
        if "file" in record:
            needed += [record["file"]["before"], record["file"]["after"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    members: dict[str, Any] = record
    return members if isinstance(needed[0], str) and isinstance(needed[1], int) else None


def _lines(descriptor: int, offset: int) -> Iterator[bytes]:
    """The whole lines from byte `offset`, without their ends."""
    rest = b""
    while piece := os.pread(descriptor, _PIECE, offset):
        offset += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _apply_to(items: Items, members: dict[str, Any]) -> None:
    if "items" in members:
        items.clear()
        items.update((item["id"], item) for item in members["items"])
    elif "after" in members:
        items[members["id"]] = members["after"]
    else:
        items.pop(members["id"], None)
