"""Hints from the kernel: which directories of a tree were written to. The only module that knows watchdog.

Only directories that lead to datasets, and those that a dataset's signature is made of, are worth a hint; chunks are
many, and are not. Where nothing can be watched (no more inotify watches, a network disk) the periodic scan does alone.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from precomputed_server.catalog.indexer import Hints
from precomputed_server.format.names import ANNOTATIONS, PRIVATE, parse_chunk_name
from precomputed_server.mounts import is_local, read_mounts
from precomputed_server.saved_states import DIRECTORY as SAVED

_log = logging.getLogger(__name__)
_watchdog_log = logging.getLogger("watchdog.observers.inotify_c")

# Of a directory that is found twice as it is made watchdog says so with all that it watches: megabytes of text.
warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)

_EVENTS: list[type[events.FileSystemEvent]] = [
    events.DirCreatedEvent,
    events.DirDeletedEvent,
    events.DirMovedEvent,
    events.FileClosedEvent,
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileMovedEvent,
]


class _Handler(events.FileSystemEventHandler):
    def __init__(self, root: str, hints: Hints) -> None:
        self._root = root
        self._hints = hints

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            place = self._place(os.fsdecode(path), event.is_directory)
            if place is not None:
                self._hints.add(place)

    def _place(self, path: str, is_directory: bool) -> str | None:
        """The directory that is to be looked at because of an event, beneath the root; None for none."""
        if not path or not path.startswith(f"{self._root}/"):
            return None
        directory, _, name = path[len(self._root) + 1 :].rpartition("/")
        if parse_chunk_name(name.partition(".")[0]) is not None:
            return None
        parts = directory.split("/") if directory else []
        parts += [name] if is_directory else []
        if "/".join([*parts, ""]).startswith(f"{SAVED}/"):
            return None
        # What lies in these belongs to the dataset around them; other names with a dot belong to nobody.
        inside = next((at for at, part in enumerate(parts) if part in (PRIVATE, ANNOTATIONS)), len(parts))
        return None if any(part.startswith(".") for part in parts[:inside]) else "/".join(parts[:inside])


class _Overflows(logging.Handler):
    """Hears what watchdog logs when the kernel dropped events: it tells nobody else."""

    def __init__(self, hints: Hints) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:
        """Let everything be looked at."""
        self._hints.lost()


@contextmanager
def watching(root: Path, hints: Hints) -> Iterator[None]:
    """Give hints of what happens beneath `root`, as far as that can be had; what keeps it from that is logged.

    It is not tried on network disks: what other hosts write is not told, and to watch every directory takes long.
    """
    if not is_local(read_mounts(root)):
        yield
        return
    observer = Observer()
    overflows = _Overflows(hints)
    _watchdog_log.addHandler(overflows)
    try:
        place = os.path.realpath(root)
        observer.schedule(_Handler(place, hints), place, recursive=True, event_filter=_EVENTS)
        observer.start()
        _one_more(observer)
    except OSError as error:
        _log.warning(
            "changes beneath %s are found by scanning alone, at least in part (%s); more are found at once when"
            " fs.inotify.max_user_watches is raised",
            root,
            error.strerror,
        )
    try:
        yield
    finally:
        _watchdog_log.removeHandler(overflows)
        if observer.is_alive():
            observer.stop()
            observer.join()


def _one_more(observer: BaseObserver) -> None:
    """Watch one directory more than wanted; raises OSError at the limit, where watchdog leaves out others silently."""
    observer.schedule(events.FileSystemEventHandler(), os.sep, event_filter=[events.DirDeletedEvent])
