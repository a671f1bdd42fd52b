"""Opening and reading beneath the root: the only code that turns a path from outside into a file.

A path that came from outside is opened by `Tree` alone, with openat2(RESOLVE_BENEATH): no spelling, symbolic link or
race leads out of the root. Where the kernel has no openat2, each component is opened without following links.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from precomputed_server.errors import (
    Busy,
    NotFound,
    NotPermitted,
    PrecomputedError,
    StorageFull,
    Unreadable,
    WritesRefused,
)

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH, _RESOLVE_CACHED = 0x02, 0x08, 0x20
_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_RACES = 100
_FILES = {stat.S_IFREG, stat.S_IFLNK}
_libc = ctypes.CDLL(None, use_errno=True)

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Entry:
    """One name in a directory listing; `size` in bytes."""

    name: str
    is_directory: bool
    size: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one state of a file from another without reading it: the key of caches and of chunk ETags."""

    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """Take it from a stat."""
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)

    def __str__(self) -> str:
        return f"{self.inode:x}-{self.modified_ns:x}-{self.size:x}"


class Tree:
    """The directory that is served; paths are relative, separated by `/`, and never lead out of it."""

    def __init__(self, root: Path) -> None:
        """Open the root; raises NotFound when it is no directory."""
        try:
            self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"{root} is not a directory that can be served: {error.strerror}.") from error
        self.uses_openat2 = _has_openat2(self._root)

    def close(self) -> None:
        """Give the descriptor of the root back."""
        os.close(self._root)

    def open(self, path: str, flags: int = os.O_RDONLY, *, cached: bool = False) -> int:
        """Open `path` beneath the root and return a descriptor; never blocks on a FIFO or a device.

        With `cached`, raises BlockingIOError instead of waiting for a disk. Raises OSError as open(2) does, EXDEV for
        what leads out of the root.
        """
        if not self.uses_openat2:
            if cached:
                raise BlockingIOError(errno.EAGAIN, "the lookup may wait for a disk")
            return self._walk(path, flags)
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (_RESOLVE_CACHED if cached else 0)
        for _ in range(1 if cached else _RACES):
            descriptor = _openat2(self._root, path or ".", flags, resolve)
            if descriptor >= 0:
                return descriptor
            if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                break
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)

    def open_directory(self, path: str, *, create: bool = False) -> int:
        """Open a directory beneath the root; with `create`, make what is missing, each durable before the next."""
        try:
            return self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if not create or not path:
                raise
        parent_path, _, name = path.rpartition("/")
        parent = self.open_directory(parent_path, create=True)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)
            os.fsync(parent)
        finally:
            os.close(parent)
        return self.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, path: str) -> bytes:
        """Read a whole regular file; raises OSError, IsADirectoryError for what is no regular file."""
        descriptor = self.open(path)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a regular file", path)
            return read_at(descriptor, 0, status.st_size)
        finally:
            os.close(descriptor)

    def listing(self, path: str) -> list[Entry]:
        """The entries of a directory by name, without those that begin with a dot or are neither file nor directory."""
        directory = self.open_directory(path)
        try:
            names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
            return [entry for name in names if (entry := self._entry(path, name)) is not None]
        finally:
            os.close(directory)

    def states(self, path: str) -> dict[str, os.stat_result]:
        """The files and symbolic links of a directory by name, links not followed, without names that begin with a dot.

        Much cheaper than `listing` where only those are looked at that have changed.
        """
        directory = self.open_directory(path)
        try:
            with os.scandir(directory) as entries:
                named = ((entry.name, entry) for entry in entries if not entry.name.startswith("."))
                found = {}
                for name, entry in named:
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        found[name] = entry.stat(follow_symlinks=False)
        finally:
            os.close(directory)
        return {name: found[name] for name in sorted(found) if stat.S_IFMT(found[name].st_mode) in _FILES}

    def real_path(self, path: str) -> str:
        """Where an existing file lies beneath the root once symbolic links are followed; raises OSError."""
        for _ in range(_RACES):
            descriptor = self.open(path, os.O_PATH)
            try:
                inside = os.readlink(f"/proc/self/fd/{descriptor}")
                root = os.readlink(f"/proc/self/fd/{self._root}")
                # Of a file that was replaced in between, the kernel says where it was and appends "(deleted)".
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.lstat(inside)):
                        return os.path.relpath(inside, root)
            finally:
                os.close(descriptor)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def _entry(self, path: str, name: str) -> Entry | None:
        try:
            descriptor = self.open(join(path, name), os.O_PATH)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return None
        return Entry(name, stat.S_ISDIR(status.st_mode), status.st_size)

    def _walk(self, path: str, flags: int) -> int:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise OSError(errno.EXDEV, "leads out of the root", path)
        current = os.open(".", os.O_RDONLY | os.O_DIRECTORY | _ALWAYS, dir_fd=self._root)
        if not parts:
            return current
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | _ALWAYS, dir_fd=current)
                os.close(current)
                current = below
            return os.open(parts[-1], flags | os.O_NOFOLLOW | _ALWAYS, dir_fd=current)
        finally:
            os.close(current)


def join(directory: str, name: str) -> str:
    """The path of `name` in a directory beneath the root, either of which may be "": the directory itself."""
    return f"{directory}/{name}" if directory and name else directory or name


def read_at(descriptor: int, offset: int, length: int, *, cached: bool = False) -> bytes:
    """Read exactly `length` bytes from `offset`; raises Unreadable when the file ends before.

    With `cached`, raises BlockingIOError instead of waiting for a disk.
    """
    if cached:
        return _read_cached(descriptor, offset, length)
    pieces = []
    while length > 0:
        piece = os.pread(descriptor, length, offset)
        if not piece:
            raise Unreadable("the file is shorter than it should be.")
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_cached(descriptor: int, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    try:
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT) if length else 0
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EAGAIN):
            raise BlockingIOError(errno.EAGAIN, "the read may wait for a disk") from error
        raise
    if count < length:
        raise BlockingIOError(errno.EAGAIN, "a part of the file is not in the page cache")
    return buffer  # type: ignore[return-value]  # a bytearray is sent as it is; a copy to bytes would cost a tenth


def typed(error: OSError, what: str, *, writing: bool = False) -> PrecomputedError:
    """The error of this project that an OSError means, said of `what` and without a path of this host.

    What may not be read is Unreadable: a viewer draws 403 as empty.
    """
    if error.errno in _ABSENT:
        return NotFound(f"{what} does not exist.")
    if error.errno in _FULL:
        return StorageFull(f"{what} could not be written: the disk or a quota is full.")
    if error.errno in _FORBIDDEN:
        kind = NotPermitted if writing else Unreadable
        return kind(f"{what} is not accessible to the user that this program runs as.")
    if error.errno == errno.EROFS:
        return WritesRefused(f"{what} lies on a read-only file system.")
    if error.errno == errno.ENOLCK:
        return WritesRefused(f"{what} cannot be locked: {os.strerror(errno.ENOLCK)}.")
    if error.errno == errno.ESTALE:  # of a network file system: the name may mean another file by now
        return Busy(f"{what} was replaced while it was used ({os.strerror(errno.ESTALE)}); try again.")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Busy("the server has too many files open or no memory left; try again.")
    return Unreadable(f"{what} could not be read or written: {os.strerror(error.errno or errno.EIO)}.")


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = _open_how(flags, resolve)
    return int(_libc.syscall(_SYS_OPENAT2, directory, path.encode("utf-8", "surrogateescape"), how, len(how)))


@functools.lru_cache
def _open_how(flags: int, resolve: int) -> bytes:
    """The argument of openat2(2) that says how to open."""
    return struct.pack("QQQ", flags | (os.O_CLOEXEC if flags & os.O_PATH else _ALWAYS), 0, resolve)


def _has_openat2(root: int) -> bool:
    descriptor = _openat2(root, ".", os.O_PATH, _RESOLVE_BENEATH)
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0
