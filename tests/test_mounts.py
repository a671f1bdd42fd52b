"""Whether edits are safe on a mount: what /proc says, and what really happens there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from precomputed_server import mounts, writing
from precomputed_server.mounts import Mount, host_only_locks, is_local, mounts_of, parse_mountinfo, why_not_writable

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /data rw,relatime - nfs4 server:/export rw,vers=4.2,local_lock=none
41 40 0:36 / /data/scratch\040space rw - lustre mds@tcp:/fs rw,localflock
42 22 0:37 / /database ro - xfs /dev/vdb ro
broken line
"""


def test_the_mount_of_a_directory_and_those_beneath_it() -> None:
    found = mounts_of(Path("/data"), parse_mountinfo(MOUNTINFO))
    assert [(mount.path, mount.kind) for mount in found] == [("/data", "nfs4"), ("/data/scratch space", "lustre")]
    assert [mount.path for mount in mounts_of(Path("/database/x"), parse_mountinfo(MOUNTINFO))] == ["/database"]
    assert [mount.path for mount in mounts_of(Path("/home"), parse_mountinfo(MOUNTINFO))] == ["/"]


@pytest.mark.parametrize(
    ("kinds", "answer"), [(["ext4"], True), (["ext4", "tmpfs"], True), (["ext4", "nfs4"], False), ([], False)]
)
def test_which_roots_are_on_this_host_alone(kinds: list[str], answer: bool) -> None:
    assert is_local([Mount("/", kind, frozenset()) for kind in kinds]) is answer


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("nfs4", {"rw", "local_lock=none"}, None),
        ("nfs", {"nolock"}, "nolock"),
        ("nfs", {"local_lock=flock"}, "local_lock=flock"),
        ("nfs", {"local_lock=all"}, "local_lock=all"),
        ("nfs", {"local_lock=posix"}, None),
        ("lustre", {"localflock"}, "localflock"),
        ("lustre", {"flock"}, None),
        ("lustre", {"rw"}, "no flock option"),
        ("ext4", {"rw"}, None),
    ],
)
def test_locks_that_hold_on_one_host_only(kind: str, options: set[str], named: str | None) -> None:
    reason = host_only_locks([Mount("/data", kind, frozenset(options))])
    assert (reason is None) if named is None else (reason is not None and named in reason)


def test_such_a_mount_takes_edits_only_for_a_single_host(tmp_path: Path) -> None:
    unsafe = [Mount("/data", "nfs", frozenset({"nolock"}))]
    reason = why_not_writable(tmp_path, single_host=False, mounts=unsafe)
    assert reason is not None
    assert "--single-host" in reason
    assert why_not_writable(tmp_path, single_host=True, mounts=unsafe) is None


def test_the_probe_of_a_sound_directory_leaves_nothing(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path, single_host=False, mounts=[]) is None
    assert list(tmp_path.iterdir()) == []


def test_locks_that_do_not_hold_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def no_lock(*_arguments: object, **_named: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(mounts, "exclusive_lock", no_lock)
    reason = why_not_writable(tmp_path, single_host=True, mounts=[])
    assert reason is not None
    assert "locks do not hold" in reason


def test_a_rename_that_does_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_write_only(directory: int, name: str, data: bytes) -> None:
        if data == b"1":
            writing.atomic_write(directory, name, data)

    monkeypatch.setattr(mounts, "atomic_write", first_write_only)
    reason = why_not_writable(tmp_path, single_host=True, mounts=[])
    assert reason == "a renamed file keeps its old content"


@pytest.mark.parametrize(
    ("code", "refuses"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EROFS, False), (errno.ENOSPC, False)]
)
def test_only_what_will_not_pass_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, refuses: bool
) -> None:
    """A worker that is born while the disk is full must take edits once it is not."""

    def fails(*_arguments: object, **_named: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(mounts, "exclusive_lock", fails)
    assert (why_not_writable(tmp_path, single_host=True, mounts=[]) is not None) is refuses
