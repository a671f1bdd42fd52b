"""Replacing files atomically and locking them: the only code that writes where somebody may be reading."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from precomputed_server.errors import Busy

TEMPORARY = ".tmp"
"""How the names of files end that are not yet what they will be."""

_TEMPORARY_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}", re.DOTALL)

_libc = ctypes.CDLL(None, use_errno=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte, however often the kernel takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_in_place(path: Path, pieces: Iterable[bytes | memoryview], *, read_soon: bool = True) -> int:
    """Write a file where it lies and return its size in bytes; neither atomic nor durable.

    Bytes that are there already are written over and not cut off first: whoever writes the same content again, and is
    killed halfway, does no harm. Without `read_soon`, writing to the disk begins at once and the memory is given back.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = 0
        for piece in pieces:
            write_all(descriptor, piece)
            size += len(piece)
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
        if not read_soon:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return size


class Replacement:
    """The new content of a file, on disk beside it, which takes its place when `rename` is called.

    Owner, group, mode and ACL of the file that it replaces are kept as far as this process may; a new file gets what
    its directory and the umask imply. Raises OSError, and then nothing is left of it.
    """

    def __init__(self, directory: int, name: str, data: bytes, *, durable: bool = True) -> None:
        self._directory = directory
        self._name = name
        self._temporary = f".{name}.{secrets.token_hex(8)}{TEMPORARY}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._temporary, flags, 0o666, dir_fd=directory)
        try:
            try:
                _keep_attributes(directory, name, descriptor)
                write_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            self.discard()
            raise

    def rename(self) -> None:
        """Let readers see the new content; the directory has to be synced for it to last."""
        os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def discard(self) -> None:
        """Remove the new content."""
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._directory)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is what a crash left of a replacement."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def remove_temporaries(directory: int, names: Collection[str] | None = None) -> None:
    """Remove what a crash left of replacements in the open `directory`, of files of these names or of any.

    Nobody else may be replacing them.
    """
    for left in os.listdir(directory):
        match = _TEMPORARY_NAME.fullmatch(left)
        if match is not None and (names is None or match[1] in names):
            with contextlib.suppress(OSError):
                os.unlink(left, dir_fd=directory)


def atomic_write(directory: int, name: str, data: bytes, *, durable: bool = True) -> None:
    """Replace `name` in the open `directory` so that readers see the old or the new bytes, never a mixture.

    With `durable`, the bytes and the name are on disk when this returns. What else holds is said at Replacement.
    """
    replacement = Replacement(directory, name, data, durable=durable)
    try:
        replacement.rename()
    except BaseException:
        replacement.discard()
        raise
    if durable:
        os.fsync(directory)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """`atomic_write` by path, for files that no outsider names."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        atomic_write(directory, path.name, data, durable=durable)
    finally:
        os.close(directory)


def _keep_attributes(directory: int, name: str, descriptor: int) -> None:
    try:
        old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(old)
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, -1, status.st_gid)
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, -1)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        with contextlib.suppress(OSError):  # no ACL, or a file system without them
            acl = os.getxattr(old, "system.posix_acl_access")
            os.setxattr(descriptor, "system.posix_acl_access", acl)
    finally:
        os.close(old)


@contextlib.contextmanager
def exclusive_lock(directory: int, name: str, timeout: float) -> Iterator[None]:
    """Hold the lock file `name` in the open `directory` against every process; raises Busy after `timeout` seconds.

    flock(2): it goes when its holder dies, and it belongs to the open file, so threads exclude each other as well.
    """
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666, dir_fd=directory)
        try:
            _flock(descriptor, deadline)
            if _same_file(descriptor, directory, name):
                yield
                return
        finally:
            os.close(descriptor)


def is_locked(descriptor: int) -> bool:
    """Whether another process, on any host that shares the locks, holds `exclusive_lock` of an open lock file.

    Never where the mount has no locks. The asker holds a shared lock for the moment of asking.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _flock(descriptor: int, deadline: float) -> None:
    pause = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy("another process holds this block's lock; try again.") from None
        time.sleep(pause)
        pause = min(2 * pause, 0.008)


def _same_file(descriptor: int, directory: int, name: str) -> bool:
    """Whether the locked file is still the one of that name: a tool may have replaced it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def sync_filesystem(path: Path) -> None:
    """Put everything written so far on the file system of `path` on disk (syncfs); raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def forget_cached(path: Path) -> None:
    """Let the kernel give up its copy of a file in memory; what is not yet on disk stays there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of `path`, durable, when the block ends without an error.

    For content that memory is not to hold; what it replaces keeps no attributes. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
