"""One block's log, read on from where it was read to: what was appended becomes events.

The log is read without its lock while others append to it, begin new segments and compact old ones. A position is good
for as long as the bytes before it are the same; else what is new is found by its time, which never goes back in a log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from annotation_store.events.contents import LONGEST_CONTENT, Contents
from annotation_store.events.event import Event, event_of
from annotation_store.history.lines import Group, groups, header_of
from annotation_store.history.segments import (
    OLD,
    Segment,
    exists,
    newest_first,
    open_segment,
    read_from,
    read_segment,
)
from precomputed_server.errors import Gone

_END = 256
_LOOKS_AT_A_HOLE = 20
"""How often bytes that another host has not written yet are waited for, before they count as damage."""


@dataclass
class _Position:
    """Up to which byte of which segment the log was read, and what lies there: inode, and the bytes before it."""

    number: int
    inode: int
    offset: int = 0
    end: bytes = b""
    holes_seen: int = 0

    def move(self, data: bytes, start: int, stop: int) -> None:
        """Go to byte `stop` of the segment, whose bytes from `start` on are `data`."""
        known = max(self.offset, stop - _END) - start
        self.end = (self.end + data[known : stop - start])[-_END:]
        self.offset, self.holes_seen = stop, 0


class BlockTail:
    """The events of the block of that name, from the moment `since` of the log on."""

    def __init__(self, block: str, since: str) -> None:
        self.contents = Contents()
        self._block = block
        self._since = since
        self._time = ""
        self._position: _Position | None = None

    def read(self, history: int, *, all_of_it: bool = False) -> Iterator[Event]:
        """The events that are new in the log in the open directory `history`, oldest first.

        To be exhausted before it is called again. With `all_of_it`, raises Gone when something that was written since
        is not kept any longer. Raises OSError, Unreadable.
        """
        descriptor = self._opened(history)
        if descriptor is None:
            yield from self._by_time(history, all_of_it)
            return
        try:
            yield from self._read_on(history, descriptor)
            while self._position is not None and exists(history, self._position.number + 1):
                # Once there is a next segment, nothing is appended to this one any more: now it is read to its end.
                yield from self._read_on(history, descriptor)
                following = open_segment(history, self._position.number + 1)
                os.close(descriptor)
                descriptor = following
                self._position = _Position(self._position.number + 1, os.fstat(descriptor).st_ino)
                yield from self._read_on(history, descriptor)
        finally:
            os.close(descriptor)

    def _opened(self, history: int) -> int | None:
        """The open segment of the position, None when there is no position or what it was in is another file."""
        position = self._position
        if position is None:
            return None
        try:
            descriptor = open_segment(history, position.number)
        except FileNotFoundError:
            return None
        before = os.pread(descriptor, len(position.end), position.offset - len(position.end))
        if os.fstat(descriptor).st_ino == position.inode and before == position.end:
            return descriptor
        os.close(descriptor)
        return None

    def _read_on(self, history: int, descriptor: int, since: str = "") -> Iterator[Event]:
        """Read the segment of the position to its end; what is older than `since` is no event."""
        position = self._position
        assert position is not None
        begun = position.offset
        data = self._written(read_from(descriptor, begun), position)
        if begun == 0:
            self.contents.learned_from = position.number
            if position.number != OLD and data:
                header = header_of(data)
                self._time = max(self._time, header.members["time"] if header is not None else "")
                position.move(data, 0, header.size if header is not None else data.find(b"\n") + 1)
        start, old = position.offset - begun, position.number == OLD
        for group in groups(data, start, begun, old=old, contents=LONGEST_CONTENT):
            if self.contents.learned_from != position.number and self.contents.lacks(group):
                self._learn_before(history, position.number, group)
            yield from self._events(group, since)
            position.move(data, begun, group.stop)

    @staticmethod
    def _written(data: bytes, position: _Position) -> bytes:
        """The bytes up to a hole: the second half of what another host writes may arrive before the first."""
        hole = data.find(b"\0")
        if hole < 0 or position.holes_seen >= _LOOKS_AT_A_HOLE:
            return data
        position.holes_seen += 1
        return data[:hole]

    def _learn_before(self, history: int, number: int, group: Group) -> None:
        """Learn what the annotations held before a group, from the beginning of its segment on."""
        self.contents.forget()
        self.contents.learned_from = number
        segment = read_segment(history, number)
        for earlier in segment.groups(contents=LONGEST_CONTENT) if segment is not None else ():
            if earlier.start >= group.start:
                return
            for line in earlier.lines:
                self.contents.pass_line(line)

    def _events(self, group: Group, since: str) -> Iterator[Event]:
        for line in group.lines:
            self.contents.pass_line(line)
            self._time = max(self._time, line.members["time"])
            if self._time >= since:
                event = event_of(self._block, group.host, line.members, self.contents, self._time)
                if event is not None:
                    yield event

    def _by_time(self, history: int, all_of_it: bool) -> Iterator[Event]:
        """Find what is new by its time, and take up the position behind it."""
        self.contents.forget()
        since = self._since = max(self._since, self._time)
        self._time, self._position = "", None
        found: list[int] = []
        for segment in newest_first(history):
            found.append(segment.number)
            if _begins_before(segment, since):
                break
        if all_of_it and found:
            self._check_kept(history, found[-1])
        for number in reversed(found):
            descriptor = open_segment(history, number)
            try:
                self._position = _Position(number, os.fstat(descriptor).st_ino)
                yield from self._read_on(history, descriptor, since)
            finally:
                os.close(descriptor)

    def _check_kept(self, history: int, oldest: int) -> None:
        """Raise Gone unless all that was written since is in the segments from `oldest` on."""
        segment = read_segment(history, oldest)
        if segment is None:
            return
        last, sentence = segment.compacted, "read the annotations anew and follow them from now"
        began_later = segment.header is not None and segment.leaves and not _begins_before(segment, self._since)
        if began_later or (segment.dropped and last is not None and last.members["time"] >= self._since):
            raise Gone(f"Edits of that time are not kept any longer; {sentence}.")


def _begins_before(segment: Segment, moment: str) -> bool:
    """Whether a segment says that it began before a moment."""
    return segment.header is not None and bool(segment.header.members["time"] < moment)
