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

from precomputed_server.catalog.indexer import Hints
from precomputed_server.format.names import ANNOTATIONS, PRIVATE, parse_chunk_name

_log = logging.getLogger(__name__)

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
        # What lies in these belongs to the dataset around them; other names with a dot belong to nobody.
        inside = next((at for at, part in enumerate(parts) if part in (PRIVATE, ANNOTATIONS)), len(parts))
        return None if any(part.startswith(".") for part in parts[:inside]) else "/".join(parts[:inside])


@contextmanager
def watching(root: Path, hints: Hints) -> Iterator[bool]:
    """Give hints of what happens beneath `root`; yields False, which is logged, where that cannot be had."""
    observer = Observer()
    try:
        place = os.path.realpath(root)
        observer.schedule(_Handler(place, hints), place, recursive=True, event_filter=_EVENTS)
        observer.start()
    except OSError as error:
        _log.warning("changes of %s are found by scanning only (%s)", root, error.strerror)
        yield False
        return
    try:
        yield True
    finally:
        observer.stop()
        observer.join()
