"""One block while its lock is held: its leaves, its log, and the one write that commits edits of any of them.

The order of a write: new files beside the old ones, on disk; the log's group on disk (the commit point); renames;
directory on disk. What fails before the commit point leaves nothing; a crash after it is made good from the log.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from annotation_store.blocks import Location
from annotation_store.committing.leaf import Content, Known, LockedLeaf, written
from annotation_store.history.log import BlockLog
from annotation_store.history.records import FileChange, Record
from annotation_store.history.state import LogState
from precomputed_server.files import Tree
from precomputed_server.writing import Replacement, exclusive_lock, remove_temporaries

LOCK = "lock"


class ChangedMeanwhile(Exception):
    """Another tool has written a leaf since it was read under the lock: everything is to be done anew."""


class LockedBlock:
    """The block of the open `directory`, whose lock is held; `history` is its open history directory."""

    def __init__(self, directory: int, history: int, log: BlockLog, known: Known) -> None:
        self.history = history
        self.log = log
        self._directory = directory
        self._known = known
        self._leaves: dict[str, LockedLeaf] = {}

    def leaf(self, name: str) -> LockedLeaf:
        """A leaf as the log says it is; raises Unreadable."""
        if name not in self._leaves:
            self._leaves[name] = LockedLeaf(self._directory, self.log, name, self._known)
        return self._leaves[name]

    def clean(self) -> None:
        """Remove what a crash left of writes that were not committed, before a leaf is asked for.

        A group of several lines that was on its way to the disk when the power went may have come there in part, its
        last line included: where none of its files was renamed, nobody was told of it.
        """
        for directory in (self._directory, self.history):
            remove_temporaries(directory)
        files = self.log.incomplete_group()
        if files and all(written(self._directory, f"{leaf}.json", file.get("before")) for leaf, file in files.items()):
            self.log.take_back()

    def write(self, records: Sequence[Record], changed: Mapping[str, Content], versions: Mapping[str, int]) -> None:
        """Commit one group of records, after which the leaves `changed` hold that; raises OSError, and nothing is."""
        leaves = {name: self.leaf(name) for name in changed}
        files = {name: FileChange(leaf.content.hash, changed[name].hash) for name, leaf in leaves.items()}
        with contextlib.ExitStack() as stack:
            replacements = []
            for name, leaf in leaves.items():
                replacement = Replacement(self._directory, leaf.name, changed[name].data or b"")
                stack.callback(replacement.discard)
                replacements.append((replacement, leaf.name, changed[name].hash))
            if not all(leaf.is_as_read() for leaf in leaves.values()):
                raise ChangedMeanwhile
            self.log.append(records, files, {name: leaf.content.items for name, leaf in leaves.items()})
            if not all(leaf.is_as_read() for leaf in leaves.values()):  # while the disk was waited for
                self.log.undo()
                raise ChangedMeanwhile
            self._rename(replacements)
            stack.pop_all()
        for name, leaf in leaves.items():
            leaf.content, leaf.version = changed[name], versions[name]

    def _rename(self, replacements: Sequence[tuple[Replacement, str, str | None]]) -> None:
        """Let readers see what the log says; when that fails at the first file, the log takes the group back."""
        done = 0
        try:
            for replacement, name, hash in replacements:
                try:
                    replacement.rename()
                except OSError:  # some network file systems report a rename that was done as failed
                    if not written(self._directory, name, hash):
                        raise
                done += 1
            if replacements:
                os.fsync(self._directory)
        except OSError:
            if done == 0:
                with contextlib.suppress(OSError):
                    self.log.undo()
            raise


@contextlib.contextmanager
def locked(tree: Tree, location: Location, state: LogState, timeout: float, known: Known) -> Iterator[LockedBlock]:
    """Hold the lock of a leaf's block and give the block; what is missing is created.

    Raises Busy after `timeout` seconds, OSError.
    """
    with contextlib.ExitStack() as stack:
        directory = tree.open_directory(location.directory, create=True)
        stack.callback(os.close, directory)
        lock = tree.open_directory(location.history, create=True)
        stack.callback(os.close, lock)
        stack.enter_context(exclusive_lock(lock, LOCK, timeout))
        # Anew once the lock is held: a network file system looks again for what another host has made meanwhile.
        history = tree.open_directory(location.history)
        stack.callback(os.close, history)
        log = stack.enter_context(contextlib.closing(BlockLog(history, state)))
        log.refresh(repair=True)
        yield LockedBlock(directory, history, log, known)
