"""Earlier versions of a block's leaves, read from its log without its lock."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from annotation_store.digests import etag_of
from annotation_store.history.entries import Entry as Entry
from annotation_store.history.entries import Window, entries_of
from annotation_store.history.instants import instant, instant_of
from annotation_store.history.records import EDITS, EXTERNAL, PARKED, Members, ParkedRecord, parked_of
from annotation_store.history.replay import Replay, ids_of
from annotation_store.history.scan import MAKES_VERSION, Held, Scan, folded, lines_of
from annotation_store.history.scan import Version as Version
from annotation_store.history.segments import Segment, newest_first
from annotation_store.history.several import Kept as Kept
from annotation_store.history.several import kept_versions
from annotation_store.model import Items
from annotation_store.review import is_only_review
from precomputed_server.errors import Gone, NotFound, PrecomputedError

_HELD_S = 90_000.0
"""A page may have read so long ago what it holds still: a day, and an hour by which its note may be older."""
_RECENT = 256
_EDITED = EDITS | {EXTERNAL}


class Versions:
    """The versions that the log in the open directory `history` keeps; what is torn at its end is passed over."""

    def __init__(self, history: int) -> None:
        self._history = history

    def content(self, leaf: str, version: int) -> Version:
        """The leaf as it was in a version; raises NotFound, Gone where it is not kept any longer, Unreadable."""
        newest, inexact = 0, None
        for segment in newest_first(self._history):
            known = _version_before(segment, leaf)
            if version >= known or version < 1:
                scan = Scan(segment, leaf)
                found = scan.content(version)
                if found is not None and scan.exact:
                    return found
                inexact = inexact or found
                known = max(known, scan.newest)
            newest = newest or known
            if newest and not 0 < version <= newest:
                break
        if inexact is not None:
            return inexact
        raise _missing(leaf, version, newest)

    def several(self, wanted: Mapping[str, Collection[int]]) -> dict[tuple[str, int], Kept]:
        """Many versions of several leaves, as far as they are kept, for one reading of the log."""
        return kept_versions(self._history, wanted)

    def ids(self) -> set[str]:
        """The ids of all annotations that the log tells of, in any leaf, whatever became of them."""
        found: set[str] = set()
        for segment in newest_first(self._history):
            for group in segment.groups():
                for line in group.lines:
                    found |= ids_of(line.members)
        return found

    def edits_since(self, moment: str) -> Iterator[Members]:
        """The lines of what was edited since then in any leaf, newest first."""
        for segment in newest_first(self._history):
            if segment.dropped:
                return
            lines = [line.members for group in segment.groups(contents=False) for line in group.lines]
            for members in reversed(lines):
                if members["operation"] in _EDITED and members["time"] >= moment:
                    yield members
            if segment.header is not None and segment.header.members["time"] < moment:
                return

    def at(self, leaf: str, moment: datetime) -> int:
        """The version in force at a moment; raises NotFound before the first, Gone where it is not kept any longer."""
        wanted, known, later = instant(moment), False, 0
        before, dropped = None, False
        for segment in newest_first(self._history):
            before, dropped = segment.leaves.get(leaf), segment.dropped
            if before is not None and before["time"] > wanted:
                known, later = True, before["version"]
                continue
            if dropped:
                break
            found, first = _in_force(segment, leaf, wanted)
            if found is not None:
                return found
            known = known or first
        if later > 1 and (dropped or before is not None) or dropped and before is not None:
            raise Gone(f"What {leaf} was at {wanted} is not kept any longer.")
        raise NotFound(f"{leaf} did not exist yet at {wanted}." if known else f"The log does not know {leaf}.")

    def entries(
        self, leaf: str, limit: int, before: int | None = None, id: str | None = None, author: str | None = None
    ) -> tuple[list[Entry], int | None]:
        """Edits of versions older than `before`, newest first, at least `limit` of them where there are so many.

        A version is never split. The second value is the `before` that goes on, None at the end.
        """
        found: list[tuple[int, list[Entry]]] = []
        for segment in newest_first(self._history):
            if segment.dropped:
                break
            window = Window(limit - sum(len(entries) for _, entries in found))
            for entry in self._entries(segment, leaf):
                older = before is None or entry.version < before
                if older and id in (None, entry.id) and author in (None, entry.author):
                    window.put(entry)
            for version, entries in window.newest_first():
                if found and found[-1][0] == version:
                    found[-1][1].extend(entries)
                else:
                    found.append((version, entries))
            if len(found) > 1 and sum(len(entries) for _, entries in found[:-1]) >= limit:
                break
        return _page(found, limit)

    def by_etag(self, leaf: str, etag: str, newest_first_within_s: float = _HELD_S) -> Items | None:
        """The annotations of the version of that entity tag, None when none in force since then has it."""
        return self.by_etags(leaf, {etag}, newest_first_within_s).get(etag)

    def by_etags(self, leaf: str, etags: Collection[str], newest_first_within_s: float = _HELD_S) -> dict[str, Items]:
        """The annotations of each version of these entity tags that was in force since then."""
        nothing = etag_of(b"")
        found: dict[str, Items] = {nothing: {}} if nothing in etags else {}
        since = instant_of(time.time() - newest_first_within_s)
        for segment in newest_first(self._history):
            wanted = {etag for etag in etags if etag not in found and f'"{etag}'.encode() in segment.data}
            if wanted:
                found |= Scan(segment, leaf).by_etag(wanted)
            missing = [etag for etag in etags if etag not in found]
            begun_with = (segment.leaves.get(leaf) or {}).get("after") or ""
            old = segment.header is not None and segment.header.members["time"] < since
            if not missing or (old and not any(begun_with.startswith(etag) for etag in missing)):
                break
        return found

    def recent(self, leaf: str, since: str) -> Iterator[Held]:
        """What the file held since then and when that began, newest first; a bounded number of them."""
        count, last = 0, 0
        for segment in newest_first(self._history):
            for held in Scan(segment, leaf).recent(since, _RECENT - count):
                if held.version != last:  # a segment begins with the version that the one before ends with
                    yield held
                    count, last = count + 1, held.version
                if count >= _RECENT or held.time < since:
                    return
            if leaf not in segment.leaves:
                return

    def parked(self, id: str) -> ParkedRecord:
        """The parked removals of that id, whatever became of them; raises NotFound."""
        for segment in newest_first(self._history):
            lines = [line.members for group in segment.groups(contents=False) for line in group.lines]
            listed = segment.header.members["parked"] if segment.header else []
            for members in [*listed, *lines]:
                if members["operation"] == PARKED and members["parked"] == id:
                    return parked_of(members)
        raise NotFound("Nothing was parked under that id.")

    def body_of(self, record: ParkedRecord) -> Items:
        """The body that asked for parked removals; raises Gone when what it was made from is not kept any longer."""
        items = {} if record.etag is None else self.content(record.leaf, record.version).items
        differing = {item["id"]: item for item in record.differing}
        missing = set(record.missing)
        kept = {id: differing.pop(id, item) for id, item in items.items() if id not in missing}
        return kept | differing

    def blame(self, leaf: str) -> dict[str, Entry]:
        """The last change of each annotation that the leaf holds now, where it is still kept.

        That somebody has confirmed it is no change of what was drawn.
        """
        current: Items | None = None
        found: dict[str, Entry] = {}
        for segment in newest_first(self._history):
            last: dict[str, Entry] = {}
            replay = Replay()
            for entry in self._entries(segment, leaf, replay):
                if entry.operation != PARKED and not is_only_review(entry.before, entry.after):
                    last[entry.id] = entry
            if current is None and last:
                current = replay.items
            found = {id: entry for id, entry in last.items() if current is not None and id in current} | found
            if current is not None and len(found) == len(current):
                break
        return {id: found[id] for id in current or {} if id in found}

    def _entries(self, segment: Segment, leaf: str, replay: Replay | None = None) -> Iterator[Entry]:
        """The entries of a segment, oldest first."""
        known = Replay() if replay is None else replay
        first = True
        for members in lines_of(segment, leaf):
            if first and members["operation"] in (EXTERNAL, PARKED) and leaf in segment.leaves:
                known.items = self._items_of(leaf, segment.leaves[leaf]["version"])
            first = False
            yield from entries_of(members, known)

    def _items_of(self, leaf: str, version: int) -> Items:
        try:
            return dict(self.content(leaf, version).items)
        except PrecomputedError:
            return {}


def _page(found: list[tuple[int, list[Entry]]], limit: int) -> tuple[list[Entry], int | None]:
    entries: list[Entry] = []
    following = None
    for version, made in found:
        if len(entries) >= limit and following is not None:
            return entries, following
        entries += made
        following = version
    return entries, None


def _version_before(segment: Segment, leaf: str) -> int:
    before = segment.leaves.get(leaf)
    return 0 if before is None else int(before["version"])


def _in_force(segment: Segment, leaf: str, wanted: str) -> tuple[int | None, bool]:
    """The version that a segment names for a moment, and whether it knows the leaf; raises Gone."""
    for first, last, begun, until in segment.ranges.get(leaf, ()):
        if begun <= wanted < until:
            raise Gone(folded(leaf, last, first - 1))
    before = segment.leaves.get(leaf)
    made = [line for line in lines_of(segment, leaf) if line["operation"] in MAKES_VERSION]
    versions = [int(line["version"]) for line in made if line["time"] <= wanted]
    if not versions and before is not None:
        versions = [int(before["version"])]
    return (versions[-1] if versions else None), bool(made)


def _missing(leaf: str, version: int, newest: int) -> PrecomputedError:
    if newest == 0:
        return NotFound(f"The log does not know {leaf}.")
    if not 0 < version <= newest:
        return NotFound(f"{leaf} has no version {version}; the newest is {newest}.")
    return Gone(f"Version {version} of {leaf} is not kept any longer.")
