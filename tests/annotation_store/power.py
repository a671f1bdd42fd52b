"""A disk that remembers what was put on it for sure, and what it may hold after the power has gone.

`Recorder` writes down what a process does to the files of a directory. `Disk` follows that record and makes images: of
what was synced everything, of what was not each write, cut and name by chance, in any combination.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

ROOT = 0
SECTOR = 512

Kind = TypeVar("Kind")

Change = dict[str, int | None]
"""What becomes of names in a directory at one stroke: the file that they mean then, None for none."""


@dataclass(frozen=True)
class Names:
    """Names in a directory change; `made` is a file that begins to exist, `is_directory` says of what kind."""

    directory: int
    change: Change
    made: int | None = None
    is_directory: bool = False


@dataclass(frozen=True)
class Written:
    """Bytes of a file change."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file gets another length."""

    node: int
    size: int


@dataclass(frozen=True)
class Synced:
    """All that was done to a file or a directory so far is on disk."""

    node: int


@dataclass(frozen=True)
class Acknowledged:
    """Somebody was told that step `number` is done."""

    number: int


Event = Names | Written | Cut | Synced | Acknowledged


class Recorder:
    """Writes down what this process does beneath `root` from now on; syncs are noted and left out, for speed."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.events: list[Event] = []
        self.names: dict[int, str] = {}
        self.directories: set[int] = set()
        self._nodes: dict[tuple[int, int], int] = {}
        self._count = 0
        self._real: dict[str, Callable[..., Any]] = {}
        self.disk = Disk()
        self._take(root, self._node_of(os.stat(root), ""))
        for name in ("open", "mkdir", "rename", "link", "unlink", "write", "pwrite", "ftruncate", "fsync", "fdatasync"):
            self._real[name] = getattr(os, name)
            monkeypatch.setattr(os, name, getattr(self, f"_{name}"))

    def acknowledge(self, number: int) -> None:
        """Note that step `number` is done."""
        self.events.append(Acknowledged(number))

    def _take(self, path: Path, node: int) -> None:
        """Read what is there at first: all of it is on disk."""
        self.directories.add(node)
        entries: dict[str, int] = {}
        for entry in sorted(path.iterdir()):
            below = entries[entry.name] = self._node_of(entry.lstat(), entry.name)
            if entry.is_dir():
                self._take(entry, below)
            else:
                self.disk.files[below] = File(entry.read_bytes())
        self.disk.directories[node] = Directory(entries)

    def _node_of(self, status: os.stat_result, name: str) -> int:
        node, self._count = self._count, self._count + 1
        self._nodes[status.st_dev, status.st_ino] = node
        self.names[node] = name
        return node

    def _known(self, descriptor: int | None) -> int | None:
        if descriptor is None:
            return None
        status = os.fstat(descriptor)
        return self._nodes.get((status.st_dev, status.st_ino))

    def _status(self, name: str, directory: int | None) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        parent = self._known(dir_fd)
        before = None if parent is None else self._status(path, dir_fd)
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if parent is not None and flags & os.O_CREAT and before is None:
            node = self._node_of(os.fstat(descriptor), path)
            self.events.append(Names(parent, {path: node}, made=node))
        known = self._known(descriptor)
        if known is not None and flags & os.O_TRUNC and before is not None:
            self.events.append(Cut(known, 0))
        return descriptor

    def _mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        parent, status = self._known(dir_fd), self._status(path, dir_fd)
        if parent is not None and status is not None:
            node = self._node_of(status, path)
            self.directories.add(node)
            self.events.append(Names(parent, {path: node}, made=node, is_directory=True))

    def _named(self, name: str, directory: int | None) -> int:
        status = self._status(name, directory)
        assert status is not None
        return self._nodes[status.st_dev, status.st_ino]

    def _forget(self, name: str, directory: int | None) -> None:
        """The inode of a file whose last name goes may soon be another file's."""
        status = self._status(name, directory)
        if status is not None and status.st_nlink == 1:
            del self._nodes[status.st_dev, status.st_ino]

    def _rename(self, old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        parent = self._known(src_dir_fd)
        if parent is not None:
            assert parent == self._known(dst_dir_fd)
            self.events.append(Names(parent, {old: None, new: self._named(old, src_dir_fd)}))
            self._forget(new, dst_dir_fd)
        self._real["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def _link(self, old: str, new: str, **given: Any) -> None:
        self._real["link"](old, new, **given)
        parent = self._known(given.get("dst_dir_fd"))
        if parent is not None:
            self.events.append(Names(parent, {new: self._named(old, given["src_dir_fd"])}))

    def _unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        parent = self._known(dir_fd)
        if parent is not None and self._status(name, dir_fd) is not None:
            self.events.append(Names(parent, {name: None}))
            self._forget(name, dir_fd)
        self._real["unlink"](name, dir_fd=dir_fd)

    def _write(self, descriptor: int, data: bytes) -> int:
        node = self._known(descriptor)
        offset = 0 if node is None else os.lseek(descriptor, 0, os.SEEK_CUR)
        count: int = self._real["write"](descriptor, data)
        if node is not None:
            self.events.append(Written(node, offset, bytes(data[:count])))
        return count

    def _pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        count: int = self._real["pwrite"](descriptor, data, offset)
        node = self._known(descriptor)
        if node is not None:
            self.events.append(Written(node, offset, bytes(data[:count])))
        return count

    def _ftruncate(self, descriptor: int, size: int) -> None:
        self._real["ftruncate"](descriptor, size)
        node = self._known(descriptor)
        if node is not None:
            self.events.append(Cut(node, size))

    def _fsync(self, descriptor: int) -> None:
        node = self._known(descriptor)
        if node is not None:
            self.events.append(Synced(node))

    _fdatasync = _fsync


@dataclass
class File:
    """A file's bytes that are on disk, and what was done to it since."""

    durable: bytes = b""
    pending: list[Written | Cut] = field(default_factory=list)


@dataclass
class Directory:
    """A directory's names that are on disk, and what was done to them since."""

    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)


Survives = Literal["nothing", "everything", "a beginning", "anything"]
_SURVIVES: tuple[Survives, ...] = ("nothing", "everything", "a beginning", "anything", "anything", "anything")


class Disk:
    """What is on disk for sure, and what may be."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.directories: dict[int, Directory] = {}
        self.damaged: Damage = cut_or_zero

    def follow(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Names):
            if event.made is not None and event.is_directory:
                self.directories[event.made] = Directory()
            elif event.made is not None:
                self.files[event.made] = File()
            self.directories[event.directory].pending.append(event.change)
        elif isinstance(event, (Written, Cut)):
            self.files[event.node].pending.append(event)
        elif isinstance(event, Synced):
            self._sync(event.node)

    def _sync(self, node: int) -> None:
        if node in self.files:
            file = self.files[node]
            self.files[node] = File(_after(file.durable, file.pending))
        else:
            directory = self.directories[node]
            self.directories[node] = Directory(_named_after(directory.durable, directory.pending))

    def crash(self, image: Path, dice: random.Random) -> None:
        """Write to the new directory `image` what may be there after the power has gone now."""
        survives = dice.choice(_SURVIVES)
        self._write(ROOT, image, survives, dice)

    def _write(self, node: int, path: Path, survives: Survives, dice: random.Random) -> None:
        if node in self.files:
            file = self.files[node]
            pending = list(_surviving(file.pending, survives, dice, self.damaged))
            cut = next((change for change in file.pending if isinstance(change, Cut)), None)
            if cut is not None and cut not in pending:
                # What another program writes after it has cut a file off goes to new places on the disk: without the
                # cut it is not there either.
                pending = pending[:0]
            path.write_bytes(_after(file.durable, pending))
            return
        path.mkdir()
        directory = self.directories[node]
        changes = list(_surviving(directory.pending, survives, dice, lambda change, _: change))
        for name, below in _named_after(directory.durable, changes).items():
            self._write(below, path / name, survives, dice)


def _surviving(
    pending: Sequence[Kind], survives: Survives, dice: random.Random, damaged: Callable[[Kind, random.Random], Kind]
) -> Iterator[Kind]:
    """Of what was not synced, what came to the disk all the same."""
    if survives == "everything":
        yield from pending
    elif survives == "a beginning":
        yield from pending[: dice.randint(0, len(pending))]
    elif survives == "anything":
        yield from (damaged(change, dice) for change in pending if dice.random() < 0.6)


def cut_or_zero(change: Written | Cut, dice: random.Random) -> Written | Cut:
    """A write of which only the beginning, or only the length, came to the disk."""
    if isinstance(change, Cut):
        return change
    data, wish = change.data, dice.random()
    if wish < 0.4:
        data = data[: dice.randint(0, len(data))]
    elif wish < 0.6:
        data = bytes(len(data))
    return Written(change.node, change.offset, data)


def in_sectors(change: Written | Cut, dice: random.Random) -> Written | Cut:
    """A write of which only some sectors came to the disk."""
    if isinstance(change, Cut):
        return change
    data = change.data
    sectors = [data[start : start + SECTOR] for start in range(0, len(data), SECTOR)]
    data = b"".join(sector if dice.random() < 0.5 else bytes(len(sector)) for sector in sectors)
    return Written(change.node, change.offset, data)


Damage = Callable[[Written | Cut, random.Random], Written | Cut]


def _after(data: bytes, changes: Sequence[Written | Cut]) -> bytes:
    content = bytearray(data)
    for change in changes:
        if isinstance(change, Cut):
            content = content[: change.size].ljust(change.size, b"\0")
        else:
            content = content.ljust(change.offset, b"\0")
            content[change.offset : change.offset + len(change.data)] = change.data
    return bytes(content)


def _named_after(names: dict[str, int], changes: Sequence[Change]) -> dict[str, int]:
    result: dict[str, int | None] = {**names}
    for change in changes:
        result.update(change)
    return {name: node for name, node in result.items() if node is not None}
