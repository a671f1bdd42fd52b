"""Who edited each annotation of a block last, and when, read from its log without its lock and remembered.

Confirming an annotation is no edit of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from annotation_store.history.instants import seconds_of
from annotation_store.history.lines import Group, groups
from annotation_store.history.records import EDITS, EXTERNAL
from annotation_store.history.segments import OLD, numbers, open_segment, read_from, stat_segment
from annotation_store.history.versions import Versions
from annotation_store.review import line_is_only_review
from annotation_store.views.numbers import label_number
from precomputed_server.errors import PrecomputedError

Stamp = int
"""Upper 32 bits: the second of an edit since 1970; lower ones: the number of its author. 0: nobody knows."""

_END = 256
_LAST_SECOND = (1 << 32) - 1


def stamp_of(time: str, author: str) -> Stamp:
    """The stamp of an edit at a moment of the log."""
    return max(0, min(_LAST_SECOND, int(seconds_of(time)))) << 32 | label_number(author)


class LastEdits:
    """The last edit of each annotation of one block; `authors` are all that were met.

    What another tool wrote has no author whom anybody knows, and so has what was there before the log began.
    """

    def __init__(self) -> None:
        self.authors: set[str] = set()
        self._leaves: dict[str, dict[str, Stamp]] = {}
        self._closed: dict[int, tuple[int, ...]] = {}
        self._newest: tuple[int, tuple[int, ...]] | None = None
        self._read = 0
        self._end = b""

    def of(self, leaf: str) -> Mapping[str, Stamp]:
        """The stamps of a leaf's annotations, by id."""
        return self._leaves.get(leaf, {})

    def refresh(self, history: int) -> bool:
        """Read what the log in the open directory `history` says that is new; False when there is nothing.

        Raises OSError, Unreadable for a log that a newer program wrote.
        """
        found = numbers(history)
        states = {number: stat_segment(history, number) for number in found}
        known = self._closed if self._newest is None else {**self._closed, self._newest[0]: self._newest[1]}
        if known == states:
            return False
        if not self._goes_on(history, states):
            self.__init__()  # type: ignore[misc]  # every member as in a new one
        unclear: set[str] = set()
        for number in found:
            if number not in self._closed:
                self._read_segment(history, number, unclear)
                state = states[number]
                if number != found[-1]:
                    self._closed[number] = state
                    self._read, self._end = 0, b""
                else:
                    self._newest = number, state
        for leaf in unclear:
            self._leaves[leaf] = self._blamed(history, leaf)
        return True

    def _goes_on(self, history: int, states: Mapping[int, tuple[int, ...]]) -> bool:
        """Whether all that was read is still there as it was."""
        if self._newest is None or any(states.get(number) != state for number, state in self._closed.items()):
            return False
        number, (inode, *_) = self._newest
        if number not in states or states[number][0] != inode:
            return False
        descriptor = open_segment(history, number)
        try:
            return os.pread(descriptor, len(self._end), self._read - len(self._end)) == self._end
        finally:
            os.close(descriptor)

    def _read_segment(self, history: int, number: int, unclear: set[str]) -> None:
        descriptor = open_segment(history, number)
        try:
            start = self._read
            data = read_from(descriptor, start)
        finally:
            os.close(descriptor)
        for group in groups(data, 0, old=number == OLD, contents=False):
            self._learn(group, unclear)
            self._read = start + group.stop
        read = data[: self._read - start]
        self._end = (self._end + read)[-_END:] if read else self._end

    def _learn(self, group: Group, unclear: set[str]) -> None:
        for members in (line.members for line in group.lines):
            operation = members["operation"]
            if operation in EDITS:
                stamps = self._leaves.setdefault(members["leaf"], {})
                if operation == "delete":
                    stamps.pop(members["id"], None)
                elif not line_is_only_review(members):
                    self.authors.add(members["author"])
                    stamps[members["id"]] = stamp_of(members["time"], members["author"])
            elif operation == EXTERNAL and self._leaves.get(members["leaf"]):
                unclear.add(members["leaf"])

    def _blamed(self, history: int, leaf: str) -> dict[str, Stamp]:
        """The stamps where another tool wrote the file in between: what it left as it was keeps its author."""
        try:
            entries = Versions(history).blame(leaf)
        except PrecomputedError:
            return {}
        edits = {id: entry for id, entry in entries.items() if entry.operation != EXTERNAL}
        return {id: stamp_of(entry.time, entry.author) for id, entry in edits.items()}
