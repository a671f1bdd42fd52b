"""One segment read for one leaf: the versions that it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from annotation_store.digests import etag_of, etag_of_hash
from annotation_store.history.lines import Group
from annotation_store.history.records import CONTENT, EDITS, EXTERNAL, ORDER, Members
from annotation_store.history.replay import Replay
from annotation_store.history.segments import Segment
from annotation_store.model import Items, serialize
from precomputed_server.errors import Gone, Unreadable

MAKES_VERSION = EDITS | {EXTERNAL}
"""The operations that make a version."""

_RECENT_ANNOTATIONS = 400_000
"""How many annotations, counted once for each version, may be held at a time."""


@dataclass(frozen=True)
class Version:
    """A leaf as it was: `data` are the bytes of its file, an empty list where that was empty or deleted."""

    version: int
    time: str
    author: str
    items: Items
    data: bytes
    etag: str


@dataclass(frozen=True)
class Held:
    """What a leaf held in a version."""

    version: int
    time: str
    items: Items


class Scan:
    """One segment, read for one leaf from its beginning; `newest` is the newest version seen."""

    def __init__(self, segment: Segment, leaf: str) -> None:
        self._segment = segment
        self._leaf = leaf
        self.newest = 0
        self.exact = True

    def content(self, version: int) -> Version | None:
        """The version, None when the segment does not hold it; raises Gone, Unreadable."""
        self._check_ranges(version)
        replay = Replay()
        begun: Members | None = None  # the content line of this version: edits may follow that leave it as it is
        for group in self._segment.groups():
            head = None
            for members in _contents_and_edits(group, self._leaf):
                if members["version"] > version and (head or begun):
                    return self._version(head or begun or members, replay)
                replay.apply(members)
                self.newest = max(self.newest, members["version"])
                if members["version"] == version and members["operation"] == CONTENT:
                    begun = members
                elif members["version"] == version:
                    head = members
            if head is not None:
                self._check(group, version, replay)
                return self._version(head, replay)
        return None if begun is None else self._version(begun, replay)

    def _check_ranges(self, version: int) -> None:
        for first, last, _, _ in self._segment.ranges.get(self._leaf, ()):
            if first <= version <= last:
                raise Gone(folded(self._leaf, version, first - 1))

    def _check(self, group: Group, version: int, replay: Replay) -> None:
        file = group.files.get(self._leaf)
        if file is not None and not replay.gives(file["after"]):
            raise Unreadable(f"the edit log is damaged: version {version} of {self._leaf} cannot be made from it.")

    def _version(self, head: Members, replay: Replay) -> Version:
        data = replay.data() or serialize({})
        if head["operation"] == CONTENT:
            self.exact = replay.gives(self._segment.leaves.get(self._leaf, {}).get("after"))
        return Version(head["version"], head["time"], head["author"], replay.items, data, etag_of(data))

    def by_etag(self, wanted: Collection[str]) -> dict[str, Items]:
        """What the file held under each of these entity tags that it had in the segment."""
        found: dict[str, Items] = {}
        replay = Replay()
        for group in self._segment.groups():
            for members in of_leaf(group, self._leaf):
                replay.apply(members)
                if members["operation"] == CONTENT and (etag := etag_of(replay.data() or b"")) in wanted:
                    found[etag] = dict(replay.items)
            after = (group.files.get(self._leaf) or {}).get("after") or ""
            if etag_of_hash(after) in wanted and replay.gives(after):
                found[etag_of_hash(after)] = dict(replay.items)
        return found

    def recent(self, since: str, bound: int) -> list[Held]:
        """What the file held after each group since then and before the first of them, newest first."""
        starts = [group.start for group in self._segment.groups(contents=False) if self._leaf in group.files]
        wanted = set(starts[-bound:])
        found: deque[Held] = deque()
        replay = Replay()
        for group in self._segment.groups():
            head: Members = {}
            for head in _contents_and_edits(group, self._leaf):
                replay.apply(head)
                if head["operation"] == CONTENT:
                    found.append(Held(head["version"], head["time"], dict(replay.items)))
            if group.start in wanted:
                if head["time"] < since:
                    found.clear()
                found.append(Held(head["version"], head["time"], dict(replay.items)))
                _shorten(found)
        return list(found)[::-1]


def of_leaf(group: Group, leaf: str) -> Iterator[Members]:
    """The lines of a group that are about a leaf."""
    return (line.members for line in group.lines if line.members["leaf"] == leaf)


def lines_of(segment: Segment, leaf: str) -> Iterator[Members]:
    """The lines of a segment that are about a leaf, oldest first."""
    for group in segment.groups():
        yield from of_leaf(group, leaf)


def folded(leaf: str, version: int, nearest: int) -> str:
    """What somebody is told who asks for a version that was folded."""
    told = f"Version {version} of {leaf} stood for less than 10 seconds and is not kept any longer"
    return f"{told}; the nearest one before it is version {nearest}." if nearest else f"{told}."


def _contents_and_edits(group: Group, leaf: str) -> Iterator[Members]:
    return (members for members in of_leaf(group, leaf) if members["operation"] in CONTENTS_AND_EDITS)


CONTENTS_AND_EDITS = MAKES_VERSION | {CONTENT, ORDER}


def _shorten(found: deque[Held]) -> None:
    size = sum(len(held.items) for held in found)
    while len(found) > 1 and size > _RECENT_ANNOTATIONS:
        size -= len(found.popleft().items)
