"""The root and its file system, tried for real in a directory that is removed again."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from precomputed_server.doctor.judgement.storage import Place, Room, RootFacts, Trial
from precomputed_server.mounts import LOCAL_TYPES, host_only_locks, is_local, read_mounts
from precomputed_server.writing import atomic_write, exclusive_lock

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_SYNCS = 3
_OTHER_S = 20
_TAKES_LOCK = """
import fcntl, os, sys
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(7)
"""
_HELD = 7


def look_at_root(root: Path, *, single_host: bool) -> RootFacts:
    """What is at `root`, and what this user may do there; raises OSError where a dead mount is."""
    facts = RootFacts(str(root), _place(root), user=user_name(os.geteuid()), single_host=single_host)
    if facts.place == "dangling":
        return replace(facts, link=os.readlink(root))
    if facts.place != "directory":
        return facts
    status, mounts = os.stat(root), read_mounts(root)
    own = mounts[0] if mounts else None
    return replace(
        facts,
        is_readable=_may(root, os.R_OK | os.X_OK),
        is_writable=_may(root, os.W_OK | os.X_OK),
        owner=f"{user_name(status.st_uid)}:{_group_name(status.st_gid)}",
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        mount=own.kind if own else "",
        mounted_at=own.path if own else "",
        is_read_only=bool(os.statvfs(root).f_flag & os.ST_RDONLY),
        is_local=is_local(mounts) if own is None else own.kind in LOCAL_TYPES,
        locks=host_only_locks(mounts),
    )


def _place(root: Path) -> Place:
    try:
        return "directory" if stat.S_ISDIR(os.stat(root).st_mode) else "file"
    except PermissionError:
        return "unreachable"
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return "dangling" if root.is_symlink() else "absent"


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def user_name(uid: int) -> str:
    """A user as people know it, else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def try_writing(root: Path) -> Trial:
    """Lock, replace, sync and date files in a directory of its own beneath `root`, which is removed."""
    probe = root / f".precomputed-probe-{secrets.token_hex(6)}"
    began, steady = time.time(), time.monotonic()
    try:
        probe.mkdir()
        with _opened(probe) as directory:
            trial = _tried(probe, directory)
    except OSError as error:
        return Trial(refused=error.strerror or str(error), is_full=error.errno in _FULL)
    finally:
        _remove(probe)
    return replace(trial, jumped_s=(time.time() - began) - (time.monotonic() - steady))


def _tried(probe: Path, directory: int) -> Trial:
    syncs = []
    for _ in range(_SYNCS):
        began = time.monotonic()
        atomic_write(directory, "file", b"1")
        syncs.append(time.monotonic() - began)
    asked = time.time()
    atomic_write(directory, "file", b"2")
    replaced = (probe / "file").read_bytes() == b"2"
    dated = os.stat("file", dir_fd=directory).st_mtime
    return Trial(
        lock=_lock(probe, directory),
        rename="" if replaced else "A file that was replaced keeps its old content",
        fsync_s=min(syncs),
        clock_off_s=dated - asked,
    )


def _lock(probe: Path, directory: int) -> str:
    """What is wrong with a lock that another process wants too, or ""."""
    try:
        with exclusive_lock(directory, "lock", timeout=0):
            other = [sys.executable, "-I", "-S", "-c", _TAKES_LOCK, str(probe / "lock")]
            code = subprocess.run(other, capture_output=True, timeout=_OTHER_S).returncode
    except OSError as error:
        return f"Files cannot be locked ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"A second process that wants a lock waits for more than {_OTHER_S} s"
    return "" if code == _HELD else "A file that one process has locked can be locked by another"


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(probe: Path) -> None:
    with contextlib.suppress(OSError):
        for left in probe.iterdir():
            left.unlink()
        probe.rmdir()


def look_at_room(what: str, path: Path) -> Room:
    """The room for `what` on the file system of the directory `path`; raises OSError."""
    left = os.statvfs(path)
    is_root = os.geteuid() == 0  # who may use what is kept back for him
    mine = left.f_bavail or (left.f_bfree if is_root else 0)
    return Room(
        what,
        str(path),
        mine * left.f_frsize,
        left.f_blocks * left.f_frsize,
        (left.f_ffree if is_root else left.f_favail) if left.f_files else None,
        left.f_files,
    )
