"""Who drew the annotations of a block: read from its edit log without its lock, and from then on only what is new."""

from __future__ import annotations

import contextlib
import os
import sys

from annotation_store.history.lines import groups
from annotation_store.history.records import CONTENT, EXTERNAL, Members
from annotation_store.history.segments import OLD, Segment, numbers, open_segment, read_from, stat_segment
from annotation_store.model import parse_stored
from annotation_store.progress.tally import Drawn
from precomputed_server.errors import Unreadable

_END = 256
"""Bytes before the place that was read to, which must be the same again: a crash may take a group back."""
_A_NAME = 200
"""About how many bytes an id takes that is remembered."""


class DrawnInBlock:
    """Who drew what in one block; an annotation belongs to whoever added it, whatever became of it later.

    What another tool wrote belongs to `external`. Of what is older than the kept days nobody knows who drew it.
    """

    def __init__(self) -> None:
        self._leaves: dict[str, dict[str, str | None]] = {}
        self._segment, self._inode, self._read, self._end = -1, -1, 0, b""
        self._begins_late = False

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return _A_NAME * sum(map(len, self._leaves.values()))

    def of(self, leaf: str) -> Drawn:
        """Who drew the annotations of a leaf, as far as the log says."""
        return self._leaves.get(leaf, {})

    def unread(self, history: int) -> int:
        """About how many bytes of the log `refresh` would read; raises OSError."""
        count = 0
        for number in (number for number in numbers(history) if number >= self._segment):
            with contextlib.suppress(FileNotFoundError):
                inode, size, _ = stat_segment(history, number)
                count += size - (self._read if (number, inode) == (self._segment, self._inode) else 0)
        return count

    def refresh(self, history: int) -> None:
        """Read what is new in the log in the open directory `history`; raises OSError, Unreadable."""
        found = numbers(history)
        for number in (number for number in found if number >= self._segment):
            try:
                descriptor = open_segment(history, number)
            except FileNotFoundError:  # compacted away since it was listed
                continue
            try:
                self._read_on(descriptor, number, is_first=number == found[0])
            except _TakenBack:
                self.__init__()  # type: ignore[misc]  # every member as in a new one
                self.refresh(history)
                return
            finally:
                os.close(descriptor)

    def _read_on(self, descriptor: int, number: int, *, is_first: bool) -> None:
        status = os.fstat(descriptor)
        if (number, status.st_ino) != (self._segment, self._inode):  # another one, or the same compacted
            self._segment, self._inode, self._read, self._end = number, status.st_ino, 0, b""
        elif status.st_size < self._read or self._end != _before(descriptor, self._read):
            raise _TakenBack
        if status.st_size == self._read:
            return
        data = read_from(descriptor, self._read)
        if self._read == 0:
            late = is_first and number > 1
            self._begins_late = self._begins_late or late or Segment(number, data, None).dropped
        begun = self._read
        for group in groups(data, 0, begun, old=number == OLD, contents=self._begins_late):
            for line in group.lines:
                self._learn(line.members)
            self._read = group.stop
        self._end = _before(descriptor, self._read)

    def _learn(self, members: Members) -> None:
        operation, leaf = members["operation"], members.get("leaf", "")
        if operation == "add":
            self._leaves.setdefault(leaf, {})[members["id"]] = sys.intern(members["author"])
        elif operation == "restore" and members.get("after") is not None:
            self._leaves.setdefault(leaf, {}).setdefault(members["id"], None)
        elif operation in (EXTERNAL, CONTENT):
            drawn = self._leaves.setdefault(leaf, {})
            for id in _ids_of(members):
                drawn.setdefault(id, EXTERNAL if operation == EXTERNAL else None)


class _TakenBack(Exception):
    """What was read last is not in the log any more."""


def _before(descriptor: int, stop: int) -> bytes:
    start = max(0, stop - _END)
    return os.pread(descriptor, stop - start, start)


def _ids_of(members: Members) -> list[str]:
    """The ids of a line that holds a whole leaf."""
    if "items" in members:
        return [item["id"] for item in members["items"]]
    with contextlib.suppress(Unreadable):
        return list(parse_stored((members["text"] or "").encode()))
    return []
