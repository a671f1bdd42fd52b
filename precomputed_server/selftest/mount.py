"""What locking, renaming and syncing do on a mount, measured."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from precomputed_server.mounts import host_only_locks, read_mounts

_RENAMES = 300
_SYNCS = 40
_BYTES = 16_384


@dataclass(frozen=True)
class MountReport:
    """How a mount behaves; `fsync_us` and `directory_fsync_us` are medians in microseconds.

    `lock_excludes`: a second open file of the same name cannot be locked. `torn` counts readers who saw a mixture of
    two files or none while one replaced the other. `warning` says why locks may not hold on another host.
    """

    kind: str
    path: str
    options: str
    lock_excludes: bool
    lock_is_freed: bool
    renames: int
    torn: int
    fsync_us: float
    directory_fsync_us: float
    warning: str | None

    @property
    def is_sound(self) -> bool:
        """Whether edits are safe there."""
        return self.lock_excludes and self.lock_is_freed and self.torn == 0


def measure(directory: Path) -> MountReport:
    """Lock, rename and sync in a directory of its own beneath `directory`, which is removed; raises OSError."""
    mounts = read_mounts(directory)
    place = Path(tempfile.mkdtemp(prefix=".precomputed-mount-", dir=directory))
    try:
        excludes, freed = _lock(place / "lock")
        renames, torn = _rename(place)
        file_us, directory_us = _sync(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return MountReport(
        kind=mounts[0].kind if mounts else "unknown",
        path=mounts[0].path if mounts else "?",
        options=",".join(sorted(mounts[0].options)) if mounts else "",
        lock_excludes=excludes,
        lock_is_freed=freed,
        renames=renames,
        torn=torn,
        fsync_us=file_us,
        directory_fsync_us=directory_us,
        warning=host_only_locks(mounts),
    )


@contextlib.contextmanager
def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path) -> tuple[bool, bool]:
    """Whether a lock excludes a second open file, and whether it goes when the first is closed."""
    with _opened(path) as second:
        with _opened(path) as first:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            excludes = not _can_lock(second)
        return excludes, _can_lock(second)


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rename(place: Path) -> tuple[int, int]:
    """Replace a file while another thread reads it; returns how often, and how many readings were no whole file."""
    path, over, torn = place / "file", threading.Event(), []
    path.write_bytes(b"0" * _BYTES)

    def read() -> None:
        while not over.is_set():
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                torn.append("none")
                continue
            if len(data) != _BYTES or len(set(data)) != 1:
                torn.append("mixture")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(_RENAMES):
            new = place / "new"
            new.write_bytes(bytes([number % 256]) * _BYTES)
            new.rename(path)
    finally:
        over.set()
        reader.join()
    return _RENAMES, len(torn)


def _sync(place: Path) -> tuple[float, float]:
    """The medians of fsync of a file with 4 KiB more, and of its directory, in microseconds."""
    files, directories = [], []
    with _opened(place, os.O_RDONLY | os.O_DIRECTORY) as directory:
        for number in range(_SYNCS):
            with _opened(place / f"synced-{number}") as descriptor:
                os.write(descriptor, b"0" * 4096)
                files.append(_microseconds(descriptor))
            directories.append(_microseconds(directory))
    return statistics.median(files), statistics.median(directories)


def _microseconds(descriptor: int) -> float:
    begun = time.perf_counter()
    os.fsync(descriptor)
    return (time.perf_counter() - begun) * 1e6
