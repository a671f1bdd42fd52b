"""Where a conversion is built, and how an interrupted one is found again: by its request and its source."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from converter.output.destination import Destination, read_json
from converter.pyramid.plan import Plan, Pyramid
from converter.stacks.plane import FileVersion
from converter.writers import Writer
from precomputed_server.errors import StorageFull, Unreadable
from precomputed_server.format.grid import grid_shape
from precomputed_server.writing import replace_file

Files = Mapping[str, FileVersion | None]
"""The files of a source and their versions."""

_PLAN = "plan.json"
_JOURNAL = "journal"
_KEPT_FREE = 1.02  # what directories and the journal take, beside the chunks


@dataclass(frozen=True)
class Staged:
    """A conversion that has begun: the id of its operation, where it is built, and how its work is divided."""

    operation: str
    directory: Path
    plan: Plan
    files: Files = field(default_factory=dict)

    @property
    def has_progressed(self) -> bool:
        """Whether a task is done that need not be done again."""
        journal = self.directory / _JOURNAL
        return journal.exists() and any(journal.iterdir())


def staging_for(destination: Destination, identity: str, files: Files, make_plan: Callable[[], Plan]) -> Staged:
    """The interrupted conversion of that identity, or a new one; others that were interrupted are cleared away.

    One that was found has the versions that `files` had when it began. The caller holds the destination's lock and no
    swap is under way.
    """
    if destination.old.exists():
        shutil.rmtree(destination.old)
    found = None
    for directory in sorted(destination.staging.iterdir()) if destination.staging.exists() else ():
        staged = _read(directory, identity)
        if staged is None or found is not None or list(staged.files) != list(files):
            shutil.rmtree(directory)
        else:
            found = staged
    return found or _begin(destination, identity, files, make_plan())


def note_files(staged: Staged, identity: str, files: Files) -> None:
    """Say of which versions of the source's files the conversion is made from now on."""
    versions = {path: None if file is None else [file.size, file.mtime_ns] for path, file in files.items()}
    members = {"format": 1, "identity": identity, "plan": staged.plan.to_json(), "files": versions}
    replace_file(staged.directory / _PLAN, json.dumps(members).encode())


@contextmanager
def kept_if_worthwhile(destination: Destination, staged: Staged) -> Iterator[None]:
    """Leave what is done for the next run when this one fails; nothing where no task was done."""
    try:
        yield
    except BaseException:
        if not staged.has_progressed:
            shutil.rmtree(destination.staging, ignore_errors=True)
        raise


def check_space(destination: Destination, pyramid: Pyramid, writer: Writer, *, compressed: bool) -> None:
    """Raise StorageFull when the file system surely has not enough space or inodes for a new pyramid.

    How much compressed chunks take is not known beforehand: their space is not checked, their number is.
    """
    there = destination.path
    while not there.exists():
        there = there.absolute().parent
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    needed = sum(pyramid.bytes(level) for level in range(len(pyramid.scales)))
    if not compressed and needed * _KEPT_FREE > free:
        raise StorageFull(
            f"The dataset takes {needed / 1e9:.1f} GB and {there} has {free / 1e9:.1f} GB free; make room, or choose "
            "--format tiff, which is compressed."
        )
    files = sum(x * y * z for x, y, z in (grid_shape(scale) for scale in pyramid.scales))
    if status.f_files and files > status.f_favail:
        raise StorageFull(
            f"The dataset takes {files} files until it is finished, and {there} has room for {status.f_favail} more; "
            "choose a larger --chunk-size or another file system."
        )


def _read(directory: Path, identity: str) -> Staged | None:
    try:
        members = read_json(directory / _PLAN)
    except Unreadable:
        return None
    if members is None or members.get("identity") != identity:
        return None
    files = {path: None if file is None else FileVersion(*file) for path, file in members["files"].items()}
    return Staged(directory.name, directory, Plan.from_json(members["plan"]), files)


def _begin(destination: Destination, identity: str, files: Files, plan: Plan) -> Staged:
    operation = uuid.uuid4().hex
    directory = destination.staging / operation
    directory.mkdir(parents=True)
    staged = Staged(operation, directory, plan, files)
    note_files(staged, identity, files)
    return staged
