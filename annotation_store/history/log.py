"""The edit log of one block as the process uses it that holds the block's lock."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from annotation_store.history.encoding import count, encoded
from annotation_store.history.instants import instant_of, seconds_of
from annotation_store.history.lines import Group, are_chained, groups, header_of, sealed, whole_lines
from annotation_store.history.records import EDITS, EditRecord, FileChange, Members, ParkedRecord, Record
from annotation_store.history.replay import Replay
from annotation_store.history.requests import Done, older_requests
from annotation_store.history.segments import OLD, exists, name_of, numbers, open_segment, read_from, read_segment
from annotation_store.history.state import LeafTail as LeafTail
from annotation_store.history.state import LogState as LogState
from annotation_store.history.state import contents_before
from annotation_store.model import Items
from precomputed_server.errors import Unreadable
from precomputed_server.local_state import this_host
from precomputed_server.writing import atomic_write, write_all

SEGMENT_BYTES = 16 << 20
"""From how many bytes of edits on a new segment is begun."""

_CONTENT_SHARE, _KEYS_LIVE_S = 4, 86_400.0
_END = 256
"""Bytes at the end of what was read that tell this log from another one: they hold digests of the chain."""


class BlockLog:
    """The log in the open directory `history`; who appends, repairs or takes back holds the block's lock.

    `state` is what this process remembers of it. Everything but `refresh` speaks of what was last refreshed.
    """

    def __init__(
        self,
        history: int,
        state: LogState,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._state = state
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._descriptor = -1
        self._appended_at: int | None = None

    def __enter__(self) -> BlockLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor of the newest segment back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def refresh(self, *, repair: bool) -> None:
        """Read what was appended since; with `repair`, cut off a group that a crash left torn.

        Raises Unreadable for a log that a newer program wrote, OSError.
        """
        state = self._state
        if not self._is_as_read(repair):
            self._begin_anew(repair)
        if state.segment < 0:
            return
        size = self._read_on()
        while exists(self._history, state.segment + 1):
            self._go_on(state.segment + 1, repair)
            size = self._read_on()
        if repair and size > state.read:
            os.ftruncate(self._descriptor, state.read)
            os.fdatasync(self._descriptor)

    def tail(self, leaf: str) -> LeafTail | None:
        """The newest version of `leaf`, None when the log does not know it."""
        return self._state.leaves.get(leaf)

    def leaves(self) -> Mapping[str, LeafTail]:
        """The newest version of every leaf that the log knows."""
        return self._state.leaves

    def open_parked(self) -> Mapping[str, ParkedRecord]:
        """The parked removals that were neither applied nor discarded, oldest first, by their id."""
        return self._state.parked

    def newest_group(self) -> Sequence[Members]:
        """The lines of the group that was committed last."""
        return self._state.newest

    def time(self, now: float | None = None) -> str:
        """The time of a record that is to be made: `now` in seconds since 1970, but never before an earlier one."""
        self._state.time = max(self._state.time, instant_of(self._clock() if now is None else now))
        return self._state.time

    def clock(self) -> str | None:
        """What the clock says where that is before the time of a record that is made now."""
        now = instant_of(self._clock())
        return now if now < self._state.time else None

    def done(self, op: str) -> Done | None:
        """What the request of that operation id came to, None when it is not among the last ones."""
        found = self._state.operations.get(op)
        if found is None and self._read_older():
            found = self._state.operations.get(op)
        return found

    def done_key(self, key: str) -> Done | None:
        """What the request with that Idempotency-Key came to within the last 24 hours, None when there was none."""
        found = self._state.keys.get(key)
        if found is None and self._read_older():
            found = self._state.keys.get(key)
        return found if found is not None and found.time >= self._keys_live_from() else None

    def append(self, records: Sequence[Record], files: Mapping[str, FileChange], contents: Mapping[str, Items]) -> None:
        """Write one group and put it on disk: the commit point; raises OSError, and then nothing of it stays.

        `files` says what becomes of each leaf's file that the group changes, `contents` what these leaves held before.
        """
        if self._state.segment < 0:
            self.refresh(repair=True)
        if self._state.segment <= OLD or self._is_full():
            self.begin_segment()
        group = [self._encoded(record) for record in records]
        group[-1] |= {"host": this_host(), "files": {leaf: change.to_json() for leaf, change in files.items()}}
        lines, digest, content_bytes = [], self._state.digest, 0
        for members in contents_before(self._state, records, files, contents):
            line, digest = sealed(members, digest)
            lines.append(line)
            content_bytes += len(line)
        for members in group:
            line, digest = sealed(members, digest)
            lines.append(line)
        start = self._state.read
        data = b"".join(lines)
        self._write(data, start)
        state = self._state
        self._have_read(data, start + len(data), digest)
        state.other_bytes += content_bytes
        state.edit_bytes += len(data) - content_bytes
        state.learn(group, group[-1]["files"], start, state.read)

    def incomplete_group(self) -> Mapping[str, Members]:
        """What the newest group says of its files, where not all of its lines came to the disk; else nothing."""
        state = self._state
        if state.segment <= OLD or state.begun < 0:
            return {}
        data = os.pread(self._descriptor, state.read - state.begun, state.begun)
        return {} if are_chained(data) else state.newest[-1]["files"]

    def take_back(self) -> None:
        """Take back the newest group, of which nobody was told."""
        self._appended_at = self._state.begun
        self.undo()

    def undo(self) -> None:
        """Take back the group appended last: its files could not be written and nobody was told of it."""
        if self._appended_at is not None:
            start, self._appended_at = self._appended_at, None
            self._state.forget()
            os.ftruncate(self._descriptor, start)
            os.fdatasync(self._descriptor)
            self.refresh(repair=True)

    def redo(self, leaf: str, items: Items) -> Items:
        """`items`, which the file held before the newest group of `leaf`, after it; raises Unreadable."""
        tail = self._state.leaves[leaf]
        replay = Replay(items)
        replay.apply_all(self._groups(tail, from_byte=tail.start), leaf)
        return replay.items if replay.gives(tail.after) else self.newest(leaf)

    def newest(self, leaf: str) -> Items:
        """What the newest version of `leaf` holds; raises Unreadable when the log does not know it for sure."""
        return self._newest(leaf).items

    def newest_data(self, leaf: str) -> bytes | None:
        """The bytes of the newest version's file, None where there was none; raises Unreadable as `newest`."""
        return self._newest(leaf).data()

    def _newest(self, leaf: str) -> Replay:
        tail = self._state.leaves.get(leaf)
        if tail is None:
            raise Unreadable("the annotation file is damaged and its log knows no earlier version.")
        replay = Replay()
        replay.apply_all(self._groups(tail), leaf)
        if not replay.gives(tail.after):
            raise Unreadable("the annotation file is damaged and so is its log.")
        return replay

    def _groups(self, tail: LeafTail, from_byte: int = 0) -> Iterator[Group]:
        segment = read_segment(self._history, tail.segment)
        return (group for group in (segment.groups() if segment else ()) if group.start >= from_byte)

    def is_empty(self) -> bool:
        """Whether the newest segment holds nothing but its header, or there is none."""
        return self._state.segment < 0 or self._state.edit_bytes == 0

    def begin_segment(self) -> None:
        """Go on in a new segment, which begins with what all those before say; raises OSError."""
        number = max(self._state.segment, OLD) + 1
        if exists(self._history, number):
            raise FileExistsError(errno.EEXIST, "the next segment is there already", name_of(number))
        header = self._state.header(number, self.time())
        line, digest = sealed(header, self._state.digest)
        atomic_write(self._history, name_of(number), line)
        self._go_on(number, repair=True)
        self._have_read(line, len(line), digest)
        self._state.other_bytes = len(line)

    def _is_full(self) -> bool:
        state = self._state
        return state.edit_bytes > max(self._segment_bytes, _CONTENT_SHARE * state.other_bytes)

    def _write(self, data: bytes, start: int) -> None:
        try:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError:
            try:
                os.ftruncate(self._descriptor, start)
            except OSError:
                self._state.forget()  # what it holds now is found out by reading it
            raise
        self._appended_at = start

    def _encoded(self, record: Record) -> Members:
        members = encoded(record, self._state.counts)
        if isinstance(record, EditRecord):
            count(members, self._state.counts)
        return members

    def _is_as_read(self, writing: bool) -> bool:
        """Whether what was read is still there: another file may have the inode of one that was deleted."""
        state = self._state
        if state.segment < 0:
            return False
        try:
            if self._descriptor < 0:
                self._descriptor = open_segment(self._history, state.segment, writing=writing)
        except FileNotFoundError:
            return False
        if os.fstat(self._descriptor).st_ino != state.inode:
            return False
        return os.pread(self._descriptor, len(state.end), state.read - len(state.end)) == state.end

    def _begin_anew(self, writing: bool) -> None:
        """Forget everything and begin with the newest segment that says what was before it."""
        self.close()
        self._state.forget()
        first = None
        for number in reversed(numbers(self._history)):
            segment = read_segment(self._history, number)
            if segment is None:
                break
            first = number
            if segment.header is not None:
                break
        if first is not None:
            self._go_on(first, writing)

    def _go_on(self, number: int, repair: bool) -> None:
        self.close()
        self._descriptor = open_segment(self._history, number, writing=repair)
        self._state.begin(number, os.fstat(self._descriptor).st_ino)

    def _read_on(self) -> int:
        """Learn what is new in the newest segment; returns its size in bytes."""
        state = self._state
        offset = state.read
        data = read_from(self._descriptor, offset)
        if not data:
            return offset
        start = 0
        if offset == 0 and state.segment != OLD:
            header = header_of(data)
            if header is not None:
                state.learn_header(header.members)
            start = header.size if header is not None else next((stop for _, stop in whole_lines(data)), 0)
            self._have_read(data[:start], start, header.digest if header is not None else "")
            state.other_bytes = start
        for group in groups(data, start, offset, old=state.segment == OLD, contents=False):
            lines = [line.members for line in group.lines]
            state.learn(lines, group.files, group.start, group.stop)
            for members in lines:
                if members["operation"] in EDITS:
                    count(members, state.counts)
            size = sum(line.size for line in group.lines)
            state.edit_bytes += size
            state.other_bytes += group.stop - group.start - size
            stop = group.stop - offset
            self._have_read(data[max(0, stop - _END) : stop], group.stop, group.lines[-1].digest)
        return offset + len(data)

    def _have_read(self, data: bytes, stop: int, digest: str) -> None:
        self._state.end, self._state.read, self._state.digest = data[-_END:], stop, digest

    def _read_older(self) -> bool:
        """Read the requests of the last 24 hours from the segments before the newest, if that was not done yet."""
        state = self._state
        if state.older_read:
            return False
        state.older_read = True
        for requests in older_requests(self._history, state.segment, self._keys_live_from()):
            state.learn_older(requests)
        return True

    def _keys_live_from(self) -> str:
        return instant_of(seconds_of(self.time()) - _KEYS_LIVE_S)
