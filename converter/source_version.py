"""Whether the files that a dataset was made of are still the same: by their names, sizes and times."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from converter.options import ConvertOptions
from converter.output.destination import Destination, read_json
from converter.output.provenance import modified
from converter.stacks.plane import FileVersion
from converter.stacks.source import find_files
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.names import PROVENANCE


def source_version(sources: Sequence[str], files: Mapping[str, FileVersion | None], options: ConvertOptions) -> str:
    """A digest of everything that `sources` mean now, and of `files`, which were read, as they were then."""
    found = {path: _version(path) for path in _listed(sources, options) if path not in files}
    read = {path: None if file is None else [file.size, file.mtime_ns] for path, file in files.items()}
    return _digest({**found, **read})


def is_made_of_its_source(destination: Destination, options: ConvertOptions) -> bool:
    """Whether the source of a finished dataset is as it was; not, where that is not known."""
    try:
        record = read_json(destination.conversion) or {}
        files = [str(file["path"]) for file in (read_json(destination.path / PROVENANCE) or {})["files"]]
    except (Unreadable, KeyError, TypeError):
        return False
    paths = {*files, *_listed(record.get("source", ()), options)}
    return record.get("source_version") == _digest({path: _version(path) for path in paths})


def changed_files(destination: Destination, files: Mapping[str, FileVersion | None]) -> list[str]:
    """Those of `files` that are not as a dataset's provenance has them, by size and time; by size, where all moved."""
    try:
        rows = (read_json(destination.path / PROVENANCE) or {})["files"]
        known = {str(row["path"]): (row.get("bytes"), row.get("modified")) for row in rows}
    except (Unreadable, KeyError, TypeError, AttributeError):
        return []
    if known.keys().isdisjoint(files) and len(known) == len(files):
        sizes = (size for size, _ in known.values())
        return [path for (path, file), size in zip(files.items(), sizes, strict=True) if file and file.size != size]
    now = {path: (None, None) if file is None else (file.size, modified(file)) for path, file in files.items()}
    return [path for path in {**known, **now} if known.get(path) != now.get(path)]


def bytes_of(source: str, options: ConvertOptions, limit: int) -> int:
    """How many bytes the files of a source have; it is not counted further once they are more than `limit`."""
    total = 0
    for path in _listed([source], options):
        total += (_version(path) or [0])[0]
        if total > limit:
            break
    return total


def _listed(sources: Iterable[str], options: ConvertOptions) -> list[str]:
    pattern = options.source.pattern
    with contextlib.suppress(InvalidInput):
        return find_files(list(sources), pattern.depth if pattern else 0)
    return []


def _version(path: str) -> list[int] | None:
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return None


def _digest(versions: Mapping[str, list[int] | None]) -> str:
    listed = sorted((os.path.abspath(path), version) for path, version in versions.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
