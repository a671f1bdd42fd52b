"""The annotation store of a tree: reads a leaf, commits edits of it.

Synchronous and safe between threads and processes: every commit holds the block's lock file, opens its files anew and
reads what others have appended to the log.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from annotation_store.blocks import ANNOTATIONS, BLOCK_INFO, HISTORY, Blocks, check_name, parse_block_info
from annotation_store.edits import Change, apply
from annotation_store.leaf import LockedLeaf, now
from annotation_store.log import BlockLog, LogState, Record, digest
from annotation_store.model import Items, is_json, parse_stored, serialize
from precomputed_server.errors import NotFound, PrecomputedError, PreconditionFailed, Unreadable
from precomputed_server.files import Tree, typed
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.recent import Recent
from precomputed_server.writing import atomic_write, exclusive_lock

ANY_VERSION = "*"

_LOG = "log.jsonl"
_LOCK = "lock"
_ETAG_DIGITS = 32
_PARSED = 8
_KNOWN_GOOD = 4096


@dataclass(frozen=True)
class Location:
    """Where a leaf lies once every symbolic link is followed: the identity of a leaf, whatever its URL."""

    directory: str
    leaf: str

    @property
    def path(self) -> str:
        """The file beneath the root."""
        return f"{self.directory}/{self.leaf}.json"

    @property
    def history(self) -> str:
        """The directory of the block's log and lock."""
        parent, _, block = self.directory.rpartition("/")
        return f"{parent}/{HISTORY}/{block}" if parent else f"{HISTORY}/{block}"


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


@dataclass(frozen=True)
class Snapshot:
    """The bytes of a leaf's file at one moment and their strong entity tag."""

    data: bytes
    etag: str


def etag_of(data: bytes) -> str:
    """The strong entity tag of a leaf's bytes, the same in every process."""
    return (digest(data) or "")[:_ETAG_DIGITS]


class AnnotationStore:
    """The annotations beneath a tree; `lock_timeout` in seconds."""

    def __init__(self, tree: Tree, lock_timeout: float) -> None:
        self._tree = tree
        self._lock_timeout = lock_timeout
        self._logs: dict[str, LogState] = {}
        self._parsed: Recent[str, Items] = Recent(_PARSED)
        self._good: Recent[str, bool] = Recent(_KNOWN_GOOD)

    def blocks(self, dataset: str, bounds: Box) -> Blocks:
        """The blocks of the dataset at `dataset`, whose volume has `bounds`; raises Unreadable for a bad csv."""
        place = _join(dataset, ANNOTATIONS)
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
        directory = self._tree.open_directory(_join(dataset, ANNOTATIONS), create=True)
        try:
            atomic_write(directory, BLOCK_INFO, (",".join(str(length) for length in size) + "\n").encode())
        finally:
            os.close(directory)

    def locate(self, dataset: str, directory: str, leaf: str) -> Location:
        """Find a leaf of a block's directory by following links that stay beneath the root; raises InvalidInput."""
        check_name(leaf, "leaf")
        place = f"{_join(dataset, ANNOTATIONS)}/{directory}"
        with contextlib.suppress(FileNotFoundError):
            real = self._tree.real_path(f"{place}/{leaf}.json")
            place, _, name = real.rpartition("/")
            return Location(place, name.removesuffix(".json"))
        with contextlib.suppress(FileNotFoundError):
            place = self._tree.real_path(place)
        return Location(place, leaf)

    def leaves(self, dataset: str, directory: str) -> list[str]:
        """The names of the leaves in a block's directory."""
        entries = self._tree.listing(f"{_join(dataset, ANNOTATIONS)}/{directory}")
        return [entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json")]

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
        try:
            descriptor = self._tree.open(f"{location.history}/{_LOG}")
        except (FileNotFoundError, NotADirectoryError):
            return 1 if self._exists(location) else 0
        try:
            log = BlockLog(descriptor, LogState())
            log.refresh(repair=False)
            tail = log.tail(location.leaf)
        finally:
            os.close(descriptor)
        return tail.version if tail else int(self._exists(location))

    def load(self, location: Location) -> Snapshot | None:
        """The leaf as it lies, None when there is none; whether it can be read as JSON is what `check` says."""
        try:
            data = self._tree.read(location.path) or serialize({})
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Snapshot(data, etag_of(data))

    def is_good(self, snapshot: Snapshot) -> bool:
        """Whether these bytes have been read as JSON before."""
        return self._good.get(snapshot.etag) is not None

    def mark_good(self, etag: str) -> None:
        """Remember that the bytes of that tag are JSON."""
        self._good.put(etag, True)

    def check(self, location: Location) -> Snapshot:
        """The leaf when it is JSON, else the newest good version that the log knows; raises Unreadable, NotFound."""
        snapshot = self.load(location)
        if snapshot is None:
            raise NotFound("There are no annotations in this file yet.")
        if not is_json(snapshot.data):
            data = self._last_good(location)
            snapshot = Snapshot(data, etag_of(data))
        self.mark_good(snapshot.etag)
        return snapshot

    def commit(self, location: Location, requests: Sequence[EditRequest]) -> list[Outcome | PrecomputedError]:
        """Apply `requests` in their order as one durable write; each ends by itself, as an Outcome or an error."""
        try:
            if not self._exists(location) and _nothing_wanted(requests):
                return _ended_without_file(requests)
            with self._locked(location) as leaf:
                return self._commit(location, leaf, requests)
        except OSError as error:
            return [typed(error, "The annotation file")] * len(requests)
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
                _check_version(request, leaf.data if not records else serialize(items))
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
        etag = None if leaf.data is None else etag_of(leaf.data)
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
            log = BlockLog(_open_log(history, stack), self._logs.setdefault(location.history, LogState()))
            log.refresh(repair=True)
            yield LockedLeaf(directory, log, location.leaf, self._parse)

    def _last_good(self, location: Location) -> bytes:
        try:
            descriptor = self._tree.open(f"{location.history}/{_LOG}")
        except FileNotFoundError as error:
            raise Unreadable("the annotation file is damaged and its log knows no earlier version.") from error
        try:
            log = BlockLog(descriptor, LogState())
            log.refresh(repair=False)
            if log.tail(location.leaf) is None:
                raise Unreadable("the annotation file is damaged and its log knows no earlier version.")
            return serialize(log.replay(location.leaf, {}))
        finally:
            os.close(descriptor)

    def _exists(self, location: Location) -> bool:
        try:
            os.close(self._tree.open(location.path, os.O_PATH))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _parse(self, data: bytes) -> Items:
        key = etag_of(data)
        items = self._parsed.get(key)
        return parse_stored(data) if items is None else items

    def _remember(self, leaf: LockedLeaf) -> None:
        if leaf.data is not None:
            self._parsed.put(etag_of(leaf.data), leaf.items)
            self.mark_good(etag_of(leaf.data))


def _open_log(history: int, stack: contextlib.ExitStack) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(_LOG, flags, dir_fd=history)
    except FileNotFoundError:
        descriptor = os.open(_LOG, flags | os.O_CREAT, 0o666, dir_fd=history)
        os.fsync(history)  # the log's name has to be on disk before what it says counts
    stack.callback(os.close, descriptor)
    return descriptor


def _check_version(request: EditRequest, stored: bytes | None) -> None:
    if request.if_match is None:
        return
    etag = None if stored is None else etag_of(stored)
    if etag is None or not {etag, ANY_VERSION} & set(request.if_match):
        raise PreconditionFailed("The stored version is not the one that If-Match names; read it again.", etag)


def _nothing_wanted(requests: Sequence[EditRequest]) -> bool:
    """Whether none of `requests` would put anything into a file that does not exist."""
    return all(isinstance(ended, PrecomputedError) or not ended for ended in map(_edits_of_nothing, requests))


def _ended_without_file(requests: Sequence[EditRequest]) -> list[Outcome | PrecomputedError]:
    ends = [_edits_of_nothing(request) for request in requests]
    return [end if isinstance(end, PrecomputedError) else Outcome(0, 0, None) for end in ends]


def _edits_of_nothing(request: EditRequest) -> list[object] | PrecomputedError:
    try:
        _check_version(request, None)
        return list(request.change.edits({}))
    except PrecomputedError as error:
        return error


def _join(dataset: str, name: str) -> str:
    return f"{dataset}/{name}" if dataset else name
