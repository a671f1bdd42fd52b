"""The files of a block's log, segments, by their number; number 0 is the log of format 1."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from annotation_store.history.lines import OPENS_COMPACTED, Group, Line, groups, header_of, opened
from annotation_store.history.records import Members
from precomputed_server.errors import Unreadable

OLD = 0
_OLD_NAME = "log.jsonl"
_NAME = re.compile(r"log-(\d{6,12})\.jsonl")
_ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def name_of(number: int) -> str:
    """The name of a segment's file."""
    return _OLD_NAME if number == OLD else f"log-{number:06d}.jsonl"


def numbers(history: int) -> list[int]:
    """The numbers of the segments in the open history directory, oldest first."""
    names = os.listdir(history)
    found = [int(match[1]) for name in names if (match := _NAME.fullmatch(name)) and name_of(int(match[1])) == name]
    return sorted([*found, OLD] if _OLD_NAME in names else found)


@dataclass(frozen=True)
class State:
    """What tells whether a log was written to, without opening it: its newest segment's number and state."""

    number: int
    inode: int
    size: int
    modified_ns: int


def newest_state(parent: int, name: str) -> State | None:
    """The state of the log in the directory of that name in the open directory `parent`; None without segments."""
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
    try:
        return newest_state_in(directory)
    finally:
        os.close(directory)


def newest_state_in(history: int) -> State | None:
    """The state of the log in the open history directory; None without segments."""
    found = numbers(history)
    return _state(history, ".", found[-1]) if found else None


def state_of(parent: int, name: str, known: State) -> State | None:
    """As `newest_state`, of a log whose state was `known` before: two questions to the file system."""
    state = _state(parent, name, known.number)
    return newest_state(parent, name) if state is None or _state(parent, name, known.number + 1) else state


def _state(parent: int, name: str, number: int) -> State | None:
    try:
        status = os.stat(f"{name}/{name_of(number)}", dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return State(number, status.st_ino, status.st_size, status.st_mtime_ns)


def exists(history: int, number: int) -> bool:
    """Whether there is a segment of that number."""
    return os.access(name_of(number), os.F_OK, dir_fd=history, follow_symlinks=False)


def open_segment(history: int, number: int, *, writing: bool = False) -> int:
    """Open a segment; raises FileNotFoundError, OSError."""
    return os.open(name_of(number), (os.O_RDWR if writing else os.O_RDONLY) | _ALWAYS, dir_fd=history)


def stat_segment(history: int, number: int) -> tuple[int, int, int]:
    """What tells one state of a segment from another: inode, size and time of change; raises FileNotFoundError."""
    status = os.stat(name_of(number), dir_fd=history, follow_symlinks=False)
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_from(descriptor: int, start: int) -> bytes:
    """The bytes of an open segment from `start` to where it ends now."""
    pieces = []
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("what has the edit log's name is no file.")
    remaining = status.st_size - start
    while remaining > 0 and (piece := os.pread(descriptor, remaining, start)):
        pieces.append(piece)
        start, remaining = start + len(piece), remaining - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True)
class Segment:
    """A segment as it was read; `header` is None where it is damaged, and in format 1."""

    number: int
    data: bytes
    header: Line | None

    @property
    def leaves(self) -> Members:
        """What the header says of each leaf that the log knew when the segment began."""
        leaves: Members = self.header.members["leaves"] if self.header else {}
        return leaves

    @property
    def compacted(self) -> Line | None:
        """The last line of a segment that was compacted."""
        start = self.data.rfind(b"\n", 0, -1) + 1
        return opened(self.data[start:-1]) if self.data.startswith(OPENS_COMPACTED, start) else None

    @property
    def ranges(self) -> Members:
        """The versions that compaction gave up: for each leaf [[first, last, time of the first, until when]]."""
        line = self.compacted
        ranges: Members = line.members["ranges"] if line else {}
        return ranges

    @property
    def dropped(self) -> bool:
        """Whether of this segment only the newest content of some leaves is left."""
        line = self.compacted
        return line is not None and bool(line.members.get("dropped"))

    def groups(self, *, contents: bool | int = True) -> Iterator[Group]:
        """The whole groups, oldest first."""
        start = self.header.size if self.header else 0
        return groups(self.data, start, old=self.number == OLD, contents=contents)


def read_segment(history: int, number: int) -> Segment | None:
    """A segment's content, None when there is none of that number; raises OSError, Unreadable."""
    try:
        descriptor = open_segment(history, number)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unreadable("what has the edit log's name is a link.") from error
        raise
    try:
        data = read_from(descriptor, 0)
    finally:
        os.close(descriptor)
    return Segment(number, data, None if number == OLD else header_of(data))


def newest_first(history: int) -> Iterator[Segment]:
    """The segments, each read when it is asked for."""
    for number in reversed(numbers(history)):
        segment = read_segment(history, number)
        if segment is not None:
            yield segment
