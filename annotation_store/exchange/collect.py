"""Reading annotations out of the store, leaf by leaf and in pieces: each leaf in one version, however large it is."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from annotation_store.blocks import Blocks, Location, check_name
from annotation_store.cycles import without_collection
from annotation_store.digests import etag_of_hash
from annotation_store.exchange.rows import Export, Leaf, Lines, Made, Origin, Placed
from annotation_store.exchange.selection import Selection
from annotation_store.history.instants import instant
from annotation_store.history.segments import newest_state_in
from annotation_store.model import Item, line_of
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import Busy, Gone, InvalidInput, NotFound, Unreadable
from precomputed_server.files import Fingerprint

_PIECE = 1 << 17
"""Bytes of a file that are parsed at a time: the interpreter is held for a millisecond."""
_WAIT_S, _PATIENCE_S, _YOUNG_S = 0.02, 0.5, 1.0
"""Between the log's line and the file's new name a reader sees the older file: it looks again, for so long in all,
where one of the two is so young. A file that another program wrote differs for good."""


_AT_ONCE = 1000
"""How many annotations are handed on at a time."""

Edges = tuple[float, float, float] | None


@dataclass(frozen=True)
class Found:
    """One version of a leaf; `written` tells the state of the file that is known to hold it line by line."""

    leaf: Leaf
    location: Location
    made: Made
    written: Fingerprint | None = None


class Collection:
    """The chosen annotations of a dataset, now or `at` an instant; reads nothing before it is asked.

    `unreadable` names, as block/leaf, the leaves that `found` had to leave out because their files are damaged.
    Raises InvalidInput where authors are asked of an earlier instant.
    """

    def __init__(
        self,
        reader: AnnotationReader,
        dataset: str,
        blocks: Blocks,
        selection: Selection | None = None,
        at: datetime | None = None,
    ) -> None:
        self._reader = reader
        self._dataset = dataset
        self._blocks = blocks
        self._selection = selection or Selection()
        self._at = at
        self._patience_s = _PATIENCE_S
        self.unreadable: list[str] = []
        if at is not None and self._selection.authors:
            raise InvalidInput("Who edited an annotation last is known of the newest version only: leave out the one.")

    def found(self) -> list[Found]:
        """The leaves that are meant, each in the version that `annotations` reads; raises OSError."""
        self.unreadable = []
        found: dict[str, Found] = {}
        for leaf in self._leaves():
            try:
                location = self._reader.locate(self._dataset, *leaf)
                # Of the names of one file its own is taken.
                if location.path in found and not location.is_named(*leaf):
                    continue
                each = self._find(leaf, location)
            except Unreadable:
                self.unreadable.append("/".join(leaf))
                continue
            if each is not None:
                found[location.path] = each
        return sorted(found.values(), key=lambda each: each.leaf)

    def origin(self, found: list[Found], name: str) -> Origin:
        """What a file of these leaves of the dataset of that name is made from."""
        leaves = {each.leaf: each.made for each in found}
        at = None if self._at is None else instant(self._at)
        return Origin(name, instant(datetime.now(UTC)), leaves, self._selection, at, tuple(self.unreadable))

    def annotations(self, found: list[Found]) -> Iterator[Placed]:
        """The chosen annotations of these leaves; raises Unreadable, Gone, Busy, OSError."""
        chosen = self._selection
        for each in found:
            block, leaf = each.leaf
            version = each.made.version
            if chosen.takes_all:
                for item in self._items(each):
                    yield Placed(block, leaf, item, version)
                continue
            authors = self._authors(each) if chosen.authors else {}
            for item in self._items(each):
                if chosen.has(item, authors.get(item["id"])):
                    yield Placed(block, leaf, item, version)

    def export(self, found: list[Found], name: str, edges_nm: Edges, unit: str) -> Export:
        """All of these leaves of the dataset of that name for a format to write; it takes annotations or lines."""
        lines = self._lines(found) if self._selection.takes_all else None
        return Export(self.origin(found, name), self.annotations(found), edges_nm, unit, lines)

    def _lines(self, found: list[Found]) -> Iterator[Lines]:
        """All annotations of these leaves as they are stored; raises as `annotations` does."""
        for each in found:
            for lines in self._pieces_of(each):
                yield Lines(*each.leaf, lines)

    def _pieces_of(self, found: Found) -> Iterator[Sequence[bytes]]:
        """The annotations of a leaf, some at a time, each as JSON."""
        if found.written is not None:
            with _opened(self._reader, found.location) as descriptor:
                if descriptor is not None and Fingerprint.of(os.fstat(descriptor)) == found.written:
                    yield from _written_lines(descriptor)
                    return
        items = self._whole(found)
        while some := list(itertools.islice(items, _AT_ONCE)):
            yield list(map(line_of, some))

    def _leaves(self) -> Iterator[Leaf]:
        for block in sorted(self._blocks.existing):
            with contextlib.suppress(InvalidInput):
                check_name(block, "block")
                names = set(self._reader.leaves(self._dataset, block))
                if self._at is not None:
                    names |= set(self._reader.logged_leaves(self._reader.locate(self._dataset, block, "fibers")))
                yield from ((block, name) for name in sorted(names) if self._selection.has_leaf(name))

    def _find(self, leaf: Leaf, location: Location) -> Found | None:
        if self._at is not None:
            with contextlib.suppress(NotFound):
                return Found(leaf, location, Made(self._version_at(location, self._at), None))
            return None
        while True:
            tail = self._reader.tail(location)
            seen = self._digest(location)
            if seen is None:
                return None
            if tail is None:
                break
            if tail.after == seen[0]:
                # What an external record names was written by another tool, in whatever layout.
                layout = None if tail.external else seen[1]
                return Found(leaf, location, Made(tail.version, etag_of_hash(seen[0])), layout)
            if self._patience_s <= 0 or not self._is_young(location, seen[1]):
                break
            self._patience_s -= _WAIT_S
            time.sleep(_WAIT_S)
        snapshot = self._reader.check(location)
        return Found(leaf, location, Made(1 if tail is None else self._known(location, snapshot.etag), snapshot.etag))

    def _is_young(self, location: Location, state: Fingerprint) -> bool:
        """Whether a leaf's file or its log has just been written, so that the other may be about to follow."""
        log = None
        with contextlib.suppress(OSError):
            history = self._reader.tree.open_directory(location.history)
            try:
                log = newest_state_in(history)
            finally:
                os.close(history)
        written_ns = state.modified_ns if log is None else max(state.modified_ns, log.modified_ns)
        return time.time() - written_ns / 1e9 < _YOUNG_S

    def _known(self, location: Location, etag: str) -> int | None:
        """The number of a version that `check` gave for a file that the log does not know."""
        tail = self._reader.tail(location)
        return tail.version if tail is not None and (tail.after or "").startswith(etag) else None

    def _version_at(self, location: Location, moment: datetime) -> int:
        if self._reader.tail(location) is None:
            return self._reader.version_at(location, None, moment).version
        with self._reader.versions(location) as versions:
            return versions.at(location.leaf, moment)

    def _digest(self, location: Location) -> tuple[str, Fingerprint] | None:
        """The SHA-256 of a leaf's file and its state; None where there is no file."""
        with _opened(self._reader, location) as descriptor:
            if descriptor is None:
                return None
            state = Fingerprint.of(os.fstat(descriptor))
            digest = hashlib.sha256()
            for piece in _pieces(descriptor):
                digest.update(piece)
            return digest.hexdigest(), state

    def _items(self, found: Found) -> Iterator[Item]:
        if found.written is not None:
            with _opened(self._reader, found.location) as descriptor:
                if descriptor is not None and Fingerprint.of(os.fstat(descriptor)) == found.written:
                    try:
                        for lines in _written_lines(descriptor):
                            with without_collection():
                                items = orjson.loads(b"[" + b",".join(lines) + b"]")
                            yield from items
                    except orjson.JSONDecodeError as error:
                        raise Unreadable("the annotation file changed while it was read.") from error
                    return
        yield from self._whole(found)

    def _whole(self, found: Found) -> Iterator[Item]:
        """The annotations of a leaf that is not read piece by piece."""
        if found.made.version is None:
            snapshot = self._reader.check(found.location)
            if snapshot.etag != found.made.etag:
                raise Busy("Another program writes this annotation file while it is read; try again.")
            yield from orjson.loads(snapshot.data)
            return
        yield from self._reader.version_at(found.location, found.made.version, None).items.values()

    def _authors(self, found: Found) -> dict[str, str]:
        """Who edited each annotation of a leaf last, where the log still says it."""
        try:
            with self._reader.versions(found.location) as versions:
                return {id: entry.author for id, entry in versions.blame(found.location.leaf).items()}
        except (NotFound, Gone):
            return {}


@contextlib.contextmanager
def _opened(reader: AnnotationReader, location: Location) -> Iterator[int | None]:
    try:
        descriptor = reader.tree.open(location.path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("what should be an annotation file is something else.")
        yield descriptor
    finally:
        os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while piece := os.pread(descriptor, _PIECE, offset):
        offset += len(piece)
        yield piece


def _written_lines(descriptor: int) -> Iterator[list[bytes]]:
    """The annotations of a file that this program wrote: a bracket, then one annotation a line."""
    rest = b""
    for piece in _pieces(descriptor):
        rest += piece
        whole, newline, rest = rest.rpartition(b",\n")
        if newline:
            yield whole.removeprefix(b"[\n").split(b",\n")
    last = rest.removeprefix(b"[\n").removesuffix(b"\n]\n")
    if last != b"[]\n":
        yield [last]
