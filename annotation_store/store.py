"""The annotation store of a tree: reads a leaf, commits edits of it.

Synchronous and safe between threads and processes: every commit holds the block's lock file, opens its files anew and
reads what others have appended to the log.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from annotation_store.blocks import Blocks, Location, check_name, join, parse_block_info
from annotation_store.edits import Change, apply
from annotation_store.leaf import LockedLeaf, Snapshot, now, snapshot_of
from annotation_store.log import LOG, BlockLog, LogState, Record, open_log
from annotation_store.model import Items, parse_stored, serialize
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError, PreconditionFailed, Unreadable
from precomputed_server.files import Tree, typed
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO
from precomputed_server.recent import Recent
from precomputed_server.writing import atomic_write, exclusive_lock

ANY_VERSION = "*"

_LOCK = "lock"
_KNOWN_GOOD = 4096
_KNOWN_LOGS = 256
_PARSED, _PARSED_BYTES = 8, 256 << 10
_PARSED_LARGE, _PARSED_LARGE_BYTES = 1, 2 << 20
"""How many leaves are kept parsed, and up to which size: each MiB makes a collection of garbage 7 ms longer."""


@dataclass(frozen=True)
class EditRequest:
    """What somebody wants of a leaf; `if_match` are the strong entity tags of which one must be the stored one."""

    change: Change
    author: str
    session: str
    if_match: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a request ended: `edits` of it were applied; `etag` is None where a later edit was committed with it."""

    edits: int
    version: int
    etag: str | None


class AnnotationStore:
    """The annotations beneath a tree; `lock_timeout` in seconds."""

    def __init__(self, tree: Tree, lock_timeout: float) -> None:
        self._tree = tree
        self._lock_timeout = lock_timeout
        self._logs: Recent[str, LogState] = Recent(_KNOWN_LOGS)  # each used under its block's lock
        self._seen: Recent[str, LogState] = Recent(_KNOWN_LOGS)  # used without it, by one thread at a time
        self._seeing = threading.Lock()
        self._parsed: Recent[str, Items] = Recent(_PARSED)
        self._parsed_large: Recent[str, Items] = Recent(_PARSED_LARGE)
        self._good: Recent[str, bool] = Recent(_KNOWN_GOOD)

    def blocks(self, dataset: str, bounds: Box) -> Blocks:
        """The blocks of the dataset at `dataset`, whose volume has `bounds`; raises Unreadable for a bad csv."""
        place = join(dataset, ANNOTATIONS)
        try:
            existing = [entry.name for entry in self._tree.listing(place) if entry.is_directory]
        except FileNotFoundError:
            return Blocks(None, (), bounds)
        try:
            text = self._tree.read(f"{place}/{BLOCK_INFO}").decode(errors="replace")
        except FileNotFoundError:
            return Blocks(None, frozenset(existing), bounds)
        return Blocks(parse_block_info(text), frozenset(existing), bounds)

    def write_block_info(self, dataset: str, size: Vector) -> None:
        """Write how large the dataset's blocks are, x, y, z in voxels; raises OSError."""
        directory = self._tree.open_directory(join(dataset, ANNOTATIONS), create=True)
        try:
            atomic_write(directory, BLOCK_INFO, (",".join(str(length) for length in size) + "\n").encode())
        finally:
            os.close(directory)

    def locate(self, dataset: str, directory: str, leaf: str) -> Location:
        """Find a leaf of a block's directory by following links that stay beneath the root.

        Raises InvalidInput for a name that no leaf may have, Unreadable for a link to a file of another kind.
        """
        check_name(leaf, "leaf")
        place = f"{join(dataset, ANNOTATIONS)}/{directory}"
        with contextlib.suppress(FileNotFoundError):
            parent, _, name = self._tree.real_path(f"{place}/{leaf}.json").rpartition("/")
            if not name.endswith(".json"):
                raise Unreadable("the annotation file is a link to a file whose name does not end in .json.")
            return Location(parent, name.removesuffix(".json"))
        with contextlib.suppress(FileNotFoundError):
            place = self._tree.real_path(place)
        return Location(place, leaf)

    def leaves(self, dataset: str, directory: str) -> dict[str, int]:
        """The names of the leaves in a block's directory and the size of their files in bytes."""
        sizes = {}
        for entry in self._tree.listing(f"{join(dataset, ANNOTATIONS)}/{directory}"):
            with contextlib.suppress(InvalidInput):
                leaf = entry.name.removesuffix(".json")
                check_name(leaf, "leaf")
                if entry.name != leaf and not entry.is_directory:
                    sizes[leaf] = entry.size
        return sizes

    def size(self, location: Location) -> int:
        """The size of the leaf's file in bytes, 0 when there is none."""
        try:
            descriptor = self._tree.open(location.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def version(self, location: Location) -> int:
        """The newest version that the log knows; 1 for a file without a log, 0 when there is neither."""
        with self._log_to_read(location) as log:
            tail = log.tail(location.leaf) if log else None
        return tail.version if tail else int(self._exists(location))

    def load(self, location: Location) -> Snapshot | None:
        """The leaf as it lies, None when there is none; whether it can be used is what `check` says."""
        try:
            return snapshot_of(self._tree.read(location.path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_good(self, snapshot: Snapshot) -> bool:
        """Whether these bytes are known to be those of a leaf."""
        return self._good.get(snapshot.etag) is not None

    def mark_good(self, etag: str) -> None:
        """Remember that the bytes of that tag are those of a leaf."""
        self._good.put(etag, True)

    def check(self, location: Location) -> Snapshot:
        """The leaf when an edit would accept it, else the newest version that the log knows.

        Raises NotFound, and Unreadable when the log does not know one.
        """
        snapshot = self.load(location)
        if snapshot is None:
            raise NotFound("There are no annotations in this file yet.")
        try:
            self._parse(snapshot.data)
        except Unreadable:
            with self._log_to_read(location) as log:
                if log is None or log.tail(location.leaf) is None:
                    raise
                snapshot = snapshot_of(serialize(log.newest(location.leaf)))
        self.mark_good(snapshot.etag)
        return snapshot

    def count(self, location: Location) -> int:
        """How many annotations the leaf's file holds; raises Unreadable."""
        snapshot = self.load(location)
        return 0 if snapshot is None else len(self._parse(snapshot.data))

    def commit(self, location: Location, requests: Sequence[EditRequest]) -> list[Outcome | PrecomputedError]:
        """Apply `requests` in their order as one durable write; each ends by itself, as an Outcome or an error."""
        try:
            if not self._exists(location) and _nothing_wanted(requests):
                return _ended_without_file(requests, self.version(location))
            with self._locked(location) as leaf:
                return self._commit(location, leaf, requests)
        except OSError as error:
            return [typed(error, "The annotation file", writing=True)] * len(requests)
        except PrecomputedError as error:
            return [error] * len(requests)

    def _commit(
        self, location: Location, leaf: LockedLeaf, requests: Sequence[EditRequest]
    ) -> list[Outcome | PrecomputedError]:
        outcomes: list[Outcome | PrecomputedError] = []
        records: list[Record] = []
        items, version = leaf.items, leaf.version
        for request in requests:
            try:
                if request.if_match is not None:
                    _check_version(request.if_match, serialize(items) if records else leaf.data)
                edits = request.change.edits(items)
            except PrecomputedError as error:
                outcomes.append(error)
                continue
            if edits:
                version += 1
                head = Record(location.leaf, version, now(), request.author, request.session, "")
                records += [Record.of_edit(edit, head) for edit in edits]
                items = apply(items, edits)
            outcomes.append(Outcome(len(edits), version, None))
        if records:
            leaf.write(records, items)
        self._remember(leaf)
        etag = None if leaf.data is None else snapshot_of(leaf.data).etag
        return [
            Outcome(outcome.edits, version, etag)
            if isinstance(outcome, Outcome) and outcome.version == version
            else outcome
            for outcome in outcomes
        ]

    @contextlib.contextmanager
    def _locked(self, location: Location) -> Iterator[LockedLeaf]:
        """Hold the block's lock and give the leaf as the log says it is."""
        with contextlib.ExitStack() as stack:
            directory = self._tree.open_directory(location.directory, create=True)
            stack.callback(os.close, directory)
            history = self._tree.open_directory(location.history, create=True)
            stack.callback(os.close, history)
            stack.enter_context(exclusive_lock(history, _LOCK, self._lock_timeout))
            descriptor = open_log(history)
            stack.callback(os.close, descriptor)
            log = BlockLog(descriptor, _state_of(location, self._logs))
            log.refresh(repair=True)
            yield LockedLeaf(directory, log, location.leaf, self._parse)

    @contextlib.contextmanager
    def _log_to_read(self, location: Location) -> Iterator[BlockLog | None]:
        """The log of a leaf's block as it lies, without its lock; None when there is none."""
        try:
            descriptor = self._tree.open(f"{location.history}/{LOG}")
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            with self._seeing:
                log = BlockLog(descriptor, _state_of(location, self._seen))
                log.refresh(repair=False)
                yield log
        finally:
            os.close(descriptor)

    def _exists(self, location: Location) -> bool:
        try:
            os.close(self._tree.open(location.path, os.O_PATH))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _parse(self, data: bytes) -> Items:
        key = snapshot_of(data).etag
        items = self._parsed.get(key) or self._parsed_large.get(key)
        return parse_stored(data) if items is None else items

    def _remember(self, leaf: LockedLeaf) -> None:
        if leaf.data is not None:
            etag = snapshot_of(leaf.data).etag
            self.mark_good(etag)
            if len(leaf.data) <= _PARSED_BYTES:
                self._parsed.put(etag, leaf.items)
            elif len(leaf.data) <= _PARSED_LARGE_BYTES:
                self._parsed_large.put(etag, leaf.items)


def _state_of(location: Location, states: Recent[str, LogState]) -> LogState:
    state = states.get(location.history) or LogState()
    states.put(location.history, state)
    return state


def _check_version(if_match: tuple[str, ...], stored: bytes | None) -> None:
    etag = None if stored is None else snapshot_of(stored).etag
    if etag is None or not {etag, ANY_VERSION} & set(if_match):
        raise PreconditionFailed("The stored version is not the one that If-Match names; read it again.", etag)


def _nothing_wanted(requests: Sequence[EditRequest]) -> bool:
    """Whether none of `requests` would put anything into a file that does not exist."""
    return all(isinstance(ended, PrecomputedError) or not ended for ended in map(_edits_of_nothing, requests))


def _ended_without_file(requests: Sequence[EditRequest], version: int) -> list[Outcome | PrecomputedError]:
    ends = [_edits_of_nothing(request) for request in requests]
    return [end if isinstance(end, PrecomputedError) else Outcome(0, version, None) for end in ends]


def _edits_of_nothing(request: EditRequest) -> list[object] | PrecomputedError:
    try:
        if request.if_match is not None:
            _check_version(request.if_match, None)
        return list(request.change.edits({}))
    except PrecomputedError as error:
        return error
