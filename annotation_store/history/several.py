"""Many versions of the leaves of a block at a time: each segment of the log is gone through once for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from annotation_store.digests import etag_of, etag_of_hash
from annotation_store.history.records import CONTENT, Members
from annotation_store.history.replay import Replay
from annotation_store.history.scan import CONTENTS_AND_EDITS
from annotation_store.history.segments import Segment, newest_first
from annotation_store.model import Items, serialize


@dataclass(frozen=True)
class Kept:
    """What a leaf held in a version, and the entity tag of its file."""

    items: Items
    etag: str


def kept_versions(history: int, wanted: Mapping[str, Collection[int]]) -> dict[tuple[str, int], Kept]:
    """What the leaves held in the wanted versions, by name and version, as far as the log in `history` keeps them.

    Damaged versions are left out. Raises OSError, Unreadable for a log of a newer program.
    """
    missing = {leaf: set(versions) for leaf, versions in wanted.items()}
    found: dict[tuple[str, int], Kept] = {}
    inexact: dict[tuple[str, int], Kept] = {}
    for segment in newest_first(history):
        scans = {}
        for leaf, versions in missing.items():
            begun = (segment.leaves.get(leaf) or {}).get("version", 0)
            here = {version for version in versions if version >= begun}
            if here:
                scans[leaf] = _LeafScan(segment, leaf, here)
        if scans:
            _scan(segment, scans)
        for leaf, scan in scans.items():
            found |= {(leaf, version): kept for version, kept in scan.found.items()}
            inexact |= {(leaf, version): kept for version, kept in scan.inexact.items()}
            missing[leaf] -= scan.found.keys() | scan.given_up
        if not any(missing.values()):
            break
    return inexact | found


def _scan(segment: Segment, scans: Mapping[str, _LeafScan]) -> None:
    for group in segment.groups():
        for line in group.lines:
            scan = scans.get(line.members["leaf"])
            if scan is not None and line.members["operation"] in CONTENTS_AND_EDITS:
                scan.take(line.members)
        for leaf, file in group.files.items():
            if leaf in scans:
                scans[leaf].end_group(file["after"])
    for scan in scans.values():
        scan.end()


class _LeafScan:
    """One leaf in one segment: the wanted versions that it holds."""

    def __init__(self, segment: Segment, leaf: str, wanted: set[int]) -> None:
        self.found: dict[int, Kept] = {}
        self.inexact: dict[int, Kept] = {}
        self.given_up = {version for version in wanted if _is_folded(segment, leaf, version)}
        self._wanted = wanted - self.given_up
        self._begun_with = (segment.leaves.get(leaf) or {}).get("after")
        self._replay = Replay()
        self._at: Members | None = None  # the last line of a wanted version, as long as nothing came after it

    def take(self, members: Members) -> None:
        """Go past a line."""
        if self._at is not None and members["version"] > self._at["version"]:
            self._keep()
        self._replay.apply(members)
        if members["version"] in self._wanted and members["version"] not in self.found:
            self._at = members

    def end_group(self, after: str | None) -> None:
        """Go past the end of a group that leaves a file of that hash."""
        if self._at is None or self._at["operation"] == CONTENT:
            return
        if self._replay.gives(after):
            self.found[self._at["version"]] = Kept(dict(self._replay.items), etag_of_hash(after or ""))
        else:
            self.given_up.add(self._at["version"])
            self._wanted.discard(self._at["version"])
        self._at = None

    def end(self) -> None:
        """Go past the end of the segment."""
        if self._at is not None:
            self._keep()

    def _keep(self) -> None:
        assert self._at is not None
        is_exact = self._at["operation"] != CONTENT or self._replay.gives(self._begun_with)
        kept = Kept(dict(self._replay.items), etag_of(self._replay.data() or serialize({})))
        (self.found if is_exact else self.inexact)[self._at["version"]] = kept
        self._at = None


def _is_folded(segment: Segment, leaf: str, version: int) -> bool:
    return any(first <= version <= last for first, last, _, _ in segment.ranges.get(leaf, ()))
