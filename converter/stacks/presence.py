"""Whether a source is there at all, and may be read: said before anything is done."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.info import VolumeInfo


def check_there(sources: Sequence[str]) -> None:
    """Raise InvalidInput for a source that is empty or not there, and for a level of a dataset."""
    for source in sources:
        if not os.path.lexists(source) and next(glob.iglob(source, recursive=True), None) is None:
            raise InvalidInput(nothing_found(source))
        path = Path(source).absolute()
        if path.is_dir() and path.name in _levels(path.parent):
            raise InvalidInput(f"{source} is a level of the dataset {path.parent}; give the stack that it was made of.")


def nothing_found(source: str) -> str:
    """Why a source gives no file, in a sentence."""
    if not source:
        return "A source is empty; give a directory of planes, a quoted glob or a multi-page TIFF."
    if forbidden := _forbidden(Path(source).absolute()):
        return f"{forbidden} cannot be read (Permission denied); ask its owner for the right to read it."
    if os.path.isdir(source):
        return f"{source} holds no file that ends in .tif or .tiff; give the directory of the planes themselves."
    if glob.has_magic(source):
        return f"No TIFF file matches {source!r}; * ? and [ ] are wildcards in a glob: give the directory instead."
    return f"{source} does not exist; give a directory of planes, a quoted glob or a multi-page TIFF."


def _levels(dataset: Path) -> set[str]:
    """The directories of the levels of a dataset; none where there is no dataset."""
    with contextlib.suppress(OSError, Unreadable):
        return {scale.key for scale in VolumeInfo.from_bytes((dataset / "info").read_bytes()).scales}
    return set()


def _forbidden(path: Path) -> Path | None:
    """The uppermost directory on the way to a path that this user may not look into; its own list, where it is one."""
    for directory in reversed(path.parents):
        if directory.is_dir() and not os.access(directory, os.X_OK):
            return directory
    return path if path.is_dir() and not os.access(path, os.R_OK | os.X_OK) else None
