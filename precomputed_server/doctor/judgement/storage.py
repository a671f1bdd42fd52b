"""The root, its mount, what locking, renaming and syncing do on it, and how much room is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from precomputed_server.doctor.judgement.finding import FAIL, OK, WARN, Finding, some

_SLOW_SYNC_S = 0.1
_CLOCK_OFF_S = 2.0
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_JUMPED_S = 0.5
_LITTLE_BYTES, _FEW_FILES = 1 << 30, 10_000
_NO_BYTES, _NO_FILES = 1 << 20, 16

Place = Literal["directory", "file", "absent", "dangling", "unreachable"]


@dataclass(frozen=True)
class RootFacts:
    """What lies at the root, who asks and who owns it; `mount` is the file system's type, `link` where a link leads."""

    path: str
    place: Place
    link: str = ""
    is_readable: bool = False
    is_writable: bool = False
    user: str = ""
    owner: str = ""
    mode: str = ""
    mount: str = ""
    mounted_at: str = ""
    is_read_only: bool = False
    is_local: bool = True
    locks: str | None = None
    single_host: bool = False


@dataclass(frozen=True)
class Trial:
    """What happened when a directory was made, files in it locked, replaced and synced, and all removed again.

    `refused` says why it could not be begun, "" where it could; `is_full` that this was for want of room. Each of
    `lock` and `rename` is "" where it does what it should, else what it did. `clock_off_s` is how much later the file
    system dated a new file than this machine's clock says.
    """

    refused: str = ""
    is_full: bool = False
    lock: str = ""
    rename: str = ""
    fsync_s: float = 0.0
    clock_off_s: float = 0.0
    jumped_s: float = 0.0


@dataclass(frozen=True)
class Room:
    """What is left on a file system for this user; `files` None where it does not count files."""

    what: str
    path: str
    bytes: int
    bytes_in_all: int
    files: int | None
    files_in_all: int


@dataclass(frozen=True)
class LinkFacts:
    """Symbolic links beneath the root that lead nowhere, and those that lead out of it."""

    dangling: tuple[str, ...]
    outside: tuple[str, ...]


def judge_root(facts: RootFacts) -> Iterator[Finding]:
    """What is at the root, whether it can be read and written, and what its mount promises."""
    wrong = {
        "absent": f"There is no {facts.path}. Name the directory that holds your datasets, or mount it.",
        "dangling": f"{facts.path} is a link to {facts.link}, which is not there. Mount that, or mend the link.",
        "file": f"{facts.path} is a file. Name the directory that holds your datasets.",
        "unreachable": f"User {facts.user} may not look into {facts.path} or a directory above it."
        " Let the server run as a user who may, or give that one the right by chmod o+x or setfacl.",
    }.get(facts.place)
    if wrong is not None:
        yield Finding(FAIL, "root", wrong)
        return
    yield _rights(facts)
    yield _mount(facts)


def _rights(facts: RootFacts) -> Finding:
    owned = f"it belongs to {facts.owner}, with the mode {facts.mode}"
    if not facts.is_readable:
        return Finding(
            FAIL,
            "root",
            f"User {facts.user} may not read {facts.path}: {owned}. Start the server as {facts.owner}, or give"
            f" {facts.user} the right: setfacl -R -m u:{facts.user}:rX {facts.path}.",
        )
    if facts.is_read_only:
        return Finding(OK, "root", f"User {facts.user} may read {facts.path}.")
    if not facts.is_writable:
        return Finding(
            WARN,
            "root",
            f"User {facts.user} may read {facts.path} but not write in it: {owned}. Where views are to be saved and"
            f" annotations made, start the server as {facts.owner}, or setfacl -R -m u:{facts.user}:rwX {facts.path}.",
        )
    return Finding(OK, "root", f"User {facts.user} may read and write {facts.path}; {owned}.")


def _mount(facts: RootFacts) -> Finding:
    said = f"{facts.path} is on {facts.mount or 'a file system of unknown type'}, mounted at {facts.mounted_at or '?'}"
    if facts.is_read_only:
        return Finding(
            WARN,
            "mount",
            f"{said}, read-only: datasets are shown, and annotations cannot be saved."
            " If they are to be, mount it read-write; if not, name a directory for saved views by --shared.",
        )
    if facts.locks is not None and not facts.single_host:
        return Finding(
            FAIL,
            "mount",
            f"{said}, and annotations cannot be saved: {facts.locks}. Mount it with locks that all hosts share (NFS:"
            " without nolock and local_lock, Lustre: flock), or, if no other host serves it, start with --single-host.",
        )
    if not facts.is_local:
        return Finding(OK, "mount", f"{said}; what other hosts write there is found by going through it.")
    return Finding(OK, "mount", f"{said}, a disk of this host.")


def judge_trial(trial: Trial, path: str) -> Iterator[Finding]:
    """Locks, renames, syncs and the clock of the file system; nothing where nothing could be tried."""
    if trial.refused:
        if trial.is_full:
            yield Finding(
                FAIL, "write", f"Nothing can be written in {path}: {trial.refused}. Make room or raise the quota."
            )
        return
    yield _judged("lock", trial.lock, "A locked file keeps other processes out.", path)
    yield _judged("rename", trial.rename, "A file is replaced at once: readers see the old or the new.", path)
    yield _sync(trial.fsync_s, path)
    yield _clock(trial)


def _judged(name: str, wrong: str, right: str, path: str) -> Finding:
    if not wrong:
        return Finding(OK, name, right)
    return Finding(
        FAIL,
        name,
        f"{wrong}, so annotations in {path} would not be safe. Mount the file system so that it holds what POSIX"
        " promises, or move the datasets to another one.",
    )


def _sync(seconds: float, path: str) -> Finding:
    took = f"{seconds * 1000:.1f} ms" if seconds < _SLOW_SYNC_S else f"{seconds:.2f} s"
    if seconds < _SLOW_SYNC_S:
        return Finding(OK, "fsync", f"Putting a small file on the disk takes {took}.")
    return Finding(
        WARN,
        "fsync",
        f"Putting a small file on the disk of {path} takes {took}, and each saved annotation waits for several."
        " Look whether the disk is busy or failing, or move the datasets to a faster one.",
    )


def _clock(trial: Trial) -> Finding:
    if abs(trial.clock_off_s) > _CLOCK_OFF_S:
        late = "ahead of" if trial.clock_off_s > 0 else "behind"
        return Finding(
            WARN,
            "clock",
            f"The clock of the file system is {abs(trial.clock_off_s):.0f} s {late} that of this machine, so times in"
            " the history are wrong. Let both be set by the same time server (chrony, ntpd).",
        )
    if abs(trial.jumped_s) > _JUMPED_S:
        return Finding(
            WARN,
            "clock",
            f"The clock of this machine jumped by {trial.jumped_s:.1f} s meanwhile. Let a time server set it (chrony,"
            " ntpd), and nothing else.",
        )
    return Finding(OK, "clock", "This machine's clock and the file system's agree.")


def judge_room(room: Room) -> Finding:
    """The space and the files that are left."""
    name, left = f"space of {room.what}", f"{_size(room.bytes)} of {_size(room.bytes_in_all)}"
    files = "" if room.files is None else f" and {room.files:,} more files"
    remedy = f"Remove what nobody needs from {room.path}, or move {room.what} to a larger disk."
    if room.bytes < _NO_BYTES:
        return Finding(FAIL, name, f"{room.path} is full: {left} are left. {remedy}")
    if room.files is not None and room.files < _NO_FILES:
        return Finding(
            FAIL, name, f"{room.path} can hold {room.files} more files (inodes), although {left} are left. {remedy}"
        )
    if room.bytes < min(_LITTLE_BYTES, room.bytes_in_all // 10):
        return Finding(WARN, name, f"{room.path} is nearly full: {left} are left. {remedy}")
    if room.files is not None and room.files < min(_FEW_FILES, room.files_in_all // 10):
        return Finding(
            WARN, name, f"{room.path} can hold only {room.files:,} more files (inodes), with {left} left. {remedy}"
        )
    return Finding(OK, name, f"{room.path} has room for {left}{files}.")


def judge_links(facts: LinkFacts) -> Iterator[Finding]:
    """Links that are not served."""
    if facts.dangling:
        yield Finding(
            WARN,
            "links",
            f"These links lead nowhere: {some(facts.dangling)}. Mount what they lead to, or remove them.",
        )
    if facts.outside:
        yield Finding(
            WARN,
            "links",
            f"These links lead out of the root and are not served: {some(facts.outside)}."
            " Mount what they lead to beneath the root instead (mount --bind).",
        )
    if not facts.dangling and not facts.outside:
        yield Finding(OK, "links", "No symbolic link leads nowhere or out of the root.")


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    steps = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**steps:.1f} {_UNITS[steps - 1]}"
