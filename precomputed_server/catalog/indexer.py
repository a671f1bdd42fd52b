"""Bringing the catalog up to date with the tree: the scan is the truth, hints only make it look sooner."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from precomputed_server.catalog.database import Catalog
from precomputed_server.catalog.entries import Entry, KnownPlace
from precomputed_server.catalog.scan import Scanner, Unchanged
from precomputed_server.catalog.survey import Counter, Surveyor
from precomputed_server.errors import Busy, InvalidInput, PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.local_state import state_of
from precomputed_server.mounts import foreign_type
from precomputed_server.readers.volumes import Volumes
from precomputed_server.writing import exclusive_lock

_log = logging.getLogger(__name__)

DATABASE, LOCK = "catalog.sqlite", "catalog.lock"
_AT_ONCE = 500
"""So many datasets are written in one transaction: the first of many are listed before the last is looked at."""
_QUIET_S = 0.2
"""After a hint, this long is waited for more of them."""


def catalog_path(state: Path, root: Path) -> Path:
    """Where the catalog of a root lies in the state directory.

    Raises InvalidInput when the state directory cannot be used, or lies on a network file system, where SQLite
    databases are damaged.
    """
    directory = state_of(state, root)
    foreign = foreign_type(directory)
    if foreign is not None:
        raise InvalidInput(
            f"The state directory {state} is on {foreign}, where a database is not safe; "
            "name one on a local disk by --state."
        )
    return directory / DATABASE


@dataclass(frozen=True)
class Found:
    """What a scan did: datasets and stacks in all, those that were new or different, and those that are gone."""

    places: int
    changed: int
    gone: int
    seconds: float


class Indexer:
    """Keeps the catalog of one tree; used in one thread."""

    def __init__(self, tree: Tree, volumes: Volumes, path: Path, count: Counter = lambda path: None) -> None:
        self._path = path
        self._scanner = Scanner(Surveyor(tree, volumes, count))
        self._catalog = Catalog(path, writable=True)
        self._inode = os.stat(path).st_ino
        self._known = self._catalog.known()

    def close(self) -> None:
        """Give the database back."""
        self._catalog.close()

    def is_there(self) -> bool:
        """Whether the database still lies where it was opened, for others to read."""
        try:
            if os.stat(self._path).st_ino != self._inode:
                return False
            with closing(Catalog(self._path)) as catalog:
                catalog.last_scan()
        except sqlite3.OperationalError:  # busy
            return True
        except (OSError, sqlite3.DatabaseError):
            return False
        return True

    def scan(self) -> Found:
        """Go through the whole tree."""
        began = time.monotonic()
        found = self._look([""], lambda path: True)
        seconds = time.monotonic() - began
        self._catalog.note_scan(datetime.now(UTC), seconds)
        return Found(*found, seconds)

    def look_at(self, paths: Iterable[str]) -> Found:
        """Look at these directories and what lies beneath them: something may have happened there."""
        began = time.monotonic()
        starts = sorted({self._start(path) for path in paths})
        outermost = [path for path in starts if not any(_is_below(path, other) for other in starts if other != path)]
        found = self._look(outermost, lambda path: any(path == each or _is_below(path, each) for each in outermost))
        return Found(*found, time.monotonic() - began)

    def _start(self, path: str) -> str:
        """The dataset that a path lies in, or the path itself."""
        parts = path.split("/")
        for count in range(len(parts) + 1):
            above = "/".join(parts[:count])
            known = self._known.get(above)
            if known is not None and known.watched:
                return above
        return path

    def _look(self, starts: list[str], covers: Callable[[str], bool]) -> tuple[int, int, int]:
        seen: set[str] = set()
        changed: list[Entry] = []
        count = 0
        for start in starts:
            for place in self._scanner.scan(self._known, start):
                seen.add(place.path)
                if isinstance(place, Unchanged) or self._is_known(place):
                    continue
                changed.append(place)
                if len(changed) >= _AT_ONCE:
                    count += len(changed)
                    self._store(changed, [])
                    changed = []
        gone = [path for path in self._known if path not in seen and covers(path)]
        count += len(changed)
        self._store(changed, gone)
        return len(seen), count, len(gone)

    def _is_known(self, entry: Entry) -> bool:
        """Whether a stack is as it was found before: a dataset has a signature for that."""
        return not entry.watched and self._known.get(entry.path) == _known_as(entry)

    def _store(self, entries: list[Entry], gone: list[str]) -> None:
        if not entries and not gone:
            return
        self._catalog.store(entries, gone, datetime.now(UTC))
        for path in gone:
            del self._known[path]
        for entry in entries:
            self._known[entry.path] = _known_as(entry)


def _known_as(entry: Entry) -> KnownPlace:
    return KnownPlace(entry.state, entry.watched, entry.signature)


def _is_below(path: str, above: str) -> bool:
    return above == "" or path.startswith(f"{above}/")


@contextmanager
def only_indexer(path: Path) -> Iterator[None]:
    """Hold the lock of the catalog at `path`; raises Busy while another process holds it."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with exclusive_lock(directory, LOCK, timeout=0):
            yield
    except Busy as error:
        raise Busy("Another process keeps this root's catalog up to date; nothing is left to do.") from error
    finally:
        os.close(directory)


class Hints:
    """Paths where something may have happened, from threads that watch; `lost` says that any path may be one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paths: set[str] = set()
        self._all = False
        self._stopped = False

    def add(self, path: str) -> None:
        """Something happened in the directory `path`."""
        with self._changed:
            self._paths.add(path)
            self._changed.notify()

    def lost(self) -> None:
        """Something happened, and nobody knows where."""
        with self._changed:
            self._all = True
            self._changed.notify()

    def stop(self) -> None:
        """End whoever waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def wait(self, timeout_s: float) -> set[str] | None:
        """The paths that were added until it was quiet; None when everything is to be looked at."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._paths or self._all or self._stopped, timeout_s):
                return None
            if self._stopped:
                return set()
        time.sleep(_QUIET_S)
        with self._changed:
            paths, everywhere = self._paths, self._all
            self._paths, self._all = set(), False
        return None if everywhere else paths


def keep(
    open_indexer: Callable[[], Indexer],
    watch: Callable[[], AbstractContextManager[None]],
    hints: Hints,
    period_s: float,
) -> None:
    """Scan at once, every `period_s` seconds, and where hints say so sooner, until they are stopped.

    A catalog that was damaged or removed in the meantime is made anew. To watch a large tree takes long, so that is
    begun after the first scan, and what happened in between is found by another.
    """
    with ExitStack() as watched:
        kept = _Kept(open_indexer)
        watched.callback(kept.close)
        kept.look(None)
        watched.enter_context(watch())
        paths: set[str] | None = None
        due = 0.0
        while not hints.is_stopped:
            if paths is None:
                due = time.monotonic() + period_s
            kept.look(paths)
            paths = hints.wait(max(0.0, due - time.monotonic()))


class _Kept:
    """An indexer that is opened again after a failure."""

    def __init__(self, open_indexer: Callable[[], Indexer]) -> None:
        self._open = open_indexer
        self._indexer: Indexer | None = None

    def look(self, paths: set[str] | None) -> None:
        """At these, or at everything; what fails is logged and tried again next time."""
        try:
            if self._indexer is None or not self._indexer.is_there():
                self.close()
                self._indexer, paths = self._open(), None
            if paths is None:
                self._indexer.scan()
            else:
                self._indexer.look_at(paths)
        except (sqlite3.Error, PrecomputedError, OSError) as error:
            _log.warning("the catalog could not be brought up to date (%s); it is tried again", error)
            self.close()

    def close(self) -> None:
        """Give the database back."""
        if self._indexer is not None:
            self._indexer.close()
            self._indexer = None
