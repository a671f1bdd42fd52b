"""What the mount of the root can do: which file systems lie beneath it and whether edits are safe on them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from precomputed_server.errors import Busy
from precomputed_server.writing import atomic_write, exclusive_lock

LOCAL_TYPES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "zfs", "f2fs", "overlay", "bcachefs"}
"""File systems of this host alone, on which opening a file whose name is cached waits for nothing."""

_HOST_ONLY_LOCKS = {"localflock", "nolock", "local_lock=flock", "local_lock=all"}
_LUSTRE_SHARED_LOCKS = "flock"
_CANNOT_LOCK = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo: where, of which type, with which options."""

    path: str
    kind: str
    options: frozenset[str]


def parse_mountinfo(text: str) -> list[Mount]:
    """Read /proc/self/mountinfo (proc(5)); octal escapes in paths are undone."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if len(left) < 6 or len(right) < 3:
            continue
        path = left[4].encode().decode("unicode_escape")
        mounts.append(Mount(path, right[0], frozenset(left[5].split(",")) | frozenset(right[2].split(","))))
    return mounts


def mounts_of(root: Path, mounts: list[Mount]) -> list[Mount]:
    """The mount that `root` lies on and those mounted beneath it."""
    own: Mount | None = None
    beneath = []
    place = str(root.resolve())
    for mount in mounts:
        prefix = mount.path.rstrip("/") + "/"
        if (place + "/").startswith(prefix) and (own is None or len(mount.path) >= len(own.path)):
            own = mount
        elif mount.path.startswith(place.rstrip("/") + "/"):
            beneath.append(mount)
    return ([own] if own else []) + beneath


def read_mounts(root: Path) -> list[Mount]:
    """`mounts_of` this process; empty where there is no /proc."""
    try:
        return mounts_of(root, parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))
    except OSError:
        return []


def is_local(mounts: list[Mount]) -> bool:
    """Whether everything in and beneath the root is on file systems of this host."""
    return bool(mounts) and all(mount.kind in LOCAL_TYPES for mount in mounts)


def foreign_type(directory: Path) -> str | None:
    """The type of the file system that `directory` itself is on, where that is none of this host alone; else None."""
    mounts = [mount for mount in read_mounts(directory) if not mount.path.startswith(f"{directory}/")]
    return mounts[0].kind if mounts and mounts[0].kind not in LOCAL_TYPES else None


def host_only_locks(mounts: list[Mount]) -> str | None:
    """Why a lock taken here may not hold on another host, or None.

    Such a mount passes every probe from one host and still loses edits between two.
    """
    for mount in mounts:
        named = sorted(mount.options & _HOST_ONLY_LOCKS)
        if named:
            return f"it is mounted with {named[0]}, so locks hold on this host only"
        if mount.kind == "lustre" and _LUSTRE_SHARED_LOCKS not in mount.options:
            return "this Lustre mount has no flock option, so files cannot be locked"
    return None


def why_not_writable(root: Path, *, single_host: bool, mounts: list[Mount]) -> str | None:
    """Why this server must not take edits on `root`, in words that follow "because"; None when it may.

    Locks, renames and syncs for real in a directory of its own that it removes again. Where that cannot be made,
    nothing can be tried, and each edit says for itself whether it could be made.
    """
    reason = None if single_host else host_only_locks(mounts)
    if reason is not None:
        return f"{reason}; if no other host serves this root, start with --single-host"
    probe = root / f".precomputed-probe-{secrets.token_hex(6)}"
    try:
        probe.mkdir()
        return _probed(probe)
    except OSError as error:
        if error.errno in _CANNOT_LOCK:
            return f"files cannot be locked there: {os.strerror(error.errno)}"
        return None  # a full disk or a missing right: each edit says it for itself, for as long as it lasts
    finally:
        with contextlib.suppress(OSError):
            for left in probe.iterdir():
                left.unlink()
            probe.rmdir()


def _probed(directory: Path) -> str | None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        atomic_write(descriptor, "file", b"1")
        atomic_write(descriptor, "file", b"2")
        if (directory / "file").read_bytes() != b"2":
            return "a renamed file keeps its old content"
        with exclusive_lock(descriptor, "lock", timeout=0):
            try:
                with exclusive_lock(descriptor, "lock", timeout=0):
                    return "a locked file can be locked again, so locks do not hold"
            except Busy:
                return None
    finally:
        os.close(descriptor)
