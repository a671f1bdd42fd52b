"""The state directory, the catalog and the datasets; none of them is changed, and nothing is made."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from precomputed_server.catalog.database import Catalog, Query
from precomputed_server.catalog.entries import INCOMPLETE, STACK, UNUSABLE, Entry
from precomputed_server.catalog.indexer import DATABASE, LOCK
from precomputed_server.catalog.scan import Scanner
from precomputed_server.catalog.survey import Surveyor
from precomputed_server.doctor.judgement.datasets import CatalogFacts, DatasetFacts, Problem
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.local_state import place_of
from precomputed_server.readers.volumes import Volumes
from precomputed_server.settings import Settings
from precomputed_server.writing import is_locked

_SCAN_S = 10.0
_OF_THE_DISK = "lost+found"
"""Lies at the top of ext file systems, and only root may look into it."""


def look_at_catalog(settings: Settings) -> CatalogFacts:
    """Whether there is a catalog, when it was made, and whether a process keeps it."""
    directory = place_of(settings.state, settings.root)
    path = directory / DATABASE
    if not path.exists():
        return CatalogFacts(str(path), "absent")
    kept = _is_kept(directory / LOCK)
    try:
        with closing(Catalog(path, once=True)) as catalog:
            catalog.search(Query(limit=1))
            return CatalogFacts(str(path), "readable", kept, scanned=catalog.last_scan())
    except sqlite3.OperationalError as error:
        if kept:  # it is being written
            return CatalogFacts(str(path), "readable", kept)
        return CatalogFacts(str(path), "damaged", kept, str(error))
    except sqlite3.Error as error:
        return CatalogFacts(str(path), "damaged", kept, str(error))


def _is_kept(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)


def look_at_datasets(root: Path, user: str, *, is_read_only: bool, seconds: float = _SCAN_S) -> DatasetFacts:
    """Look for datasets beneath `root`, for so long, as the catalog does: their state as it is now."""
    try:
        tree = Tree(root)
    except PrecomputedError as error:
        return DatasetFacts(0, refused=str(error))
    until = time.monotonic() + seconds
    count, problems, unwritable, stopped = 0, [], [], False
    try:
        for entry in _entries(tree):
            stopped = time.monotonic() > until
            if stopped:
                break
            count += 1
            if entry.state in (UNUSABLE, INCOMPLETE):
                state = entry.state if _may_read(root / entry.path) else "forbidden"
                problems.append(Problem(entry.path, state, entry.reason))
            elif not is_read_only and not _may_annotate(root / entry.path):
                unwritable.append(entry.path or str(root))
    finally:
        tree.close()
    return DatasetFacts(count, tuple(problems), tuple(unwritable), user, seconds if stopped else None)


def _entries(tree: Tree) -> Iterator[Entry]:
    scanner = Scanner(Surveyor(tree, Volumes(tree)))
    entries = (place for place in scanner.scan({}) if isinstance(place, Entry))
    return (entry for entry in entries if entry.state != STACK and entry.path != _OF_THE_DISK)


def _may_read(place: Path) -> bool:
    """Whether this user may look into a directory and read its `info`, where there is one."""
    may = os.access(place, os.R_OK | os.X_OK, effective_ids=True)
    info = place / "info"
    return may and (not info.exists() or os.access(info, os.R_OK, effective_ids=True))


def _may_annotate(dataset: Path) -> bool:
    """Whether this user may write where annotations lie, or in the directory that is to hold them."""
    annotations = dataset / ANNOTATIONS
    try:
        with os.scandir(annotations) as entries:
            places = [annotations, *(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))]
    except FileNotFoundError:
        places = [dataset]
    except OSError:
        return False
    return all(os.access(place, os.W_OK | os.X_OK, effective_ids=True) for place in places)
