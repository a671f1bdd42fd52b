"""The logs of all blocks of a dataset, watched: which have changed is seen by their newest segments' state.

A segment that grows changes its size; nothing else is asked of the blocks that nobody edits, so that thousands of them
can be looked at every few seconds. Whoever knows which block was edited has only that one looked at.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from annotation_store.blocks import HISTORY, BlockOf
from annotation_store.events.contents import MOST_BYTES
from annotation_store.events.event import Event
from annotation_store.events.tail import BlockTail
from annotation_store.history.instants import seconds_of
from annotation_store.history.segments import State, newest_state, state_of
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import join
from precomputed_server.format.names import ANNOTATIONS

_TICK_NS = 2_000_000_000
_CLOCKS_DIFFER_S = 600.0
"""By how much the clocks of a file server and of those who write may differ."""


@dataclass
class _Watched:
    """A block: its tail, and the state of its newest segment when that was read last; `used` counts looks."""

    block: BlockOf
    tail: BlockTail
    state: State | None = None
    used: int = 0


class DatasetTail:
    """The events of a dataset from the moment `since` of the log on, in the order in which they are found.

    To be used by one thread at a time.
    """

    def __init__(self, store: AnnotationReader, dataset: str, since: str) -> None:
        self._store = store
        self._dataset = dataset
        self._since = since
        self._blocks: dict[str, _Watched] = {}
        self._looks = 0
        self._directories: object = None
        self.place = _place_of(store, dataset)

    def is_of(self, directory: str) -> bool:
        """Whether the block at a directory beneath the root is of this dataset, as far as that is known."""
        return directory in self._blocks or directory.rpartition("/")[0] == self.place

    def look(self) -> Iterator[Event]:
        """What is new in any block."""
        self._looks += 1
        self._find_blocks()
        parents: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            for directory, watched in list(self._blocks.items()):
                parent, _, name = watched.block.location("").history.rpartition("/")
                with contextlib.suppress(OSError):
                    if parent not in parents:
                        parents[parent] = self._store.tree.open_directory(parent)
                        stack.callback(os.close, parents[parent])
                    yield from self._look(directory, watched, parents[parent], name)
        self._forget_some()

    def look_at(self, directories: Iterable[str]) -> Iterator[Event]:
        """What is new in the blocks at these directories beneath the root."""
        self._looks += 1
        for directory in directories:
            parent, _, name = directory.rpartition("/")
            if directory not in self._blocks and parent == self.place:
                self._blocks[directory] = _Watched(BlockOf(name, directory), BlockTail(name, self._since))
            if directory in self._blocks:
                yield from self._read(self._blocks[directory])
        self._forget_some()

    def _look(self, directory: str, watched: _Watched, parent: int, name: str) -> Iterator[Event]:
        state = newest_state(parent, name) if watched.state is None else state_of(parent, name, watched.state)
        if state == watched.state:
            return
        if watched.state is None and is_older(state, self._since):
            watched.state = state  # nothing since: it is read when it grows
            return
        if (yield from self._read(watched)):
            watched.state = state  # as it was before it was read

    def _read(self, watched: _Watched) -> Generator[Event, None, bool]:
        """What is new in a block; returns whether it was read to its end."""
        watched.used = self._looks
        try:
            history = self._store.tree.open_directory(watched.block.location("").history)
            try:
                yield from watched.tail.read(history)
            finally:
                os.close(history)
        except OSError:
            return False
        except PrecomputedError:  # of a newer version of this program: nobody can read it before it changes
            pass
        return True

    def _find_blocks(self) -> None:
        """Know the blocks that have a log, when the directories that list them have changed."""
        directories = [self._state_of_directory(place) for place in (self.place, f"{self.place}/{HISTORY}")]
        if directories == self._directories and self._looks % 32:
            return
        with contextlib.suppress(OSError):
            for block in blocks_of(self._store, self._dataset):
                if block.directory not in self._blocks:
                    self._blocks[block.directory] = _Watched(block, BlockTail(block.name, self._since))
            # Directories that have just changed may change again within the same tick of the file system's clock.
            just_now = time.time_ns() - _TICK_NS
            settled = all(directory is None or directory[1] < just_now for directory in directories)
            self._directories = directories if settled else None

    def _state_of_directory(self, path: str) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            descriptor = self._store.tree.open(path, os.O_PATH)
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            return status.st_ino, status.st_mtime_ns
        return None

    def _forget_some(self) -> None:
        """Let go of what annotations hold in the blocks that were not read for the longest time."""
        total = sum(watched.tail.contents.size for watched in self._blocks.values())
        if total <= MOST_BYTES:
            return
        for watched in sorted(self._blocks.values(), key=lambda each: each.used)[:-1]:
            total -= watched.tail.contents.size
            watched.tail.contents.forget()
            if total <= MOST_BYTES:
                return


def blocks_of(store: AnnotationReader, dataset: str) -> Iterator[BlockOf]:
    """The blocks of a dataset that have a log, each once and by the same name for everybody; raises OSError."""
    place, found = _place_of(store, dataset), set()
    for block in store.logged_blocks(dataset):
        parent, _, name = block.directory.rpartition("/")
        if block.directory not in found:
            found.add(block.directory)
            yield BlockOf(name, block.directory) if parent == place else block


def _place_of(store: AnnotationReader, dataset: str) -> str:
    """The directory of a dataset's blocks beneath the root, links followed."""
    place = join(dataset, ANNOTATIONS)
    try:
        return store.tree.real_path(place)
    except OSError:
        return place


def is_older(state: State | None, moment: str) -> bool:
    """Whether a log of that state was last written to so long before a moment that it says nothing since."""
    return state is not None and state.modified_ns / 1e9 < seconds_of(moment) - _CLOCKS_DIFFER_S
