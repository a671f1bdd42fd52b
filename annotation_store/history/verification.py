"""Checking a log: every digest, the chain, versions and contents, and the files that it speaks of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from annotation_store.digests import file_hash
from annotation_store.history.lines import Line, header_of, opened, opened_old, whole_lines
from annotation_store.history.records import COMPACTED, CONTENT, EDITS, EXTERNAL, ORDER, SEGMENT, Members
from annotation_store.history.replay import Replay
from annotation_store.history.segments import OLD, Segment, name_of, numbers, open_segment, read_from, read_segment
from annotation_store.model import serialize
from precomputed_server.errors import Unreadable

Files = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: of which leaf, in which segment and line (from 1), where that is known."""

    leaf: str | None
    segment: int | None
    line: int | None
    sentence: str

    def told(self) -> str:
        """The finding as a person reads it."""
        place = {"": self.leaf, "segment ": self.segment, "line ": self.line}
        where = ", ".join(f"{name}{value}" for name, value in place.items() if value is not None)
        return f"{where}: {self.sentence}" if where else self.sentence


Lock = Callable[[], AbstractContextManager[None]]


def verify(history: int, files: Files, lock: Lock = contextlib.nullcontext) -> list[Finding]:
    """What is wrong with the log in the open directory `history`; nothing when all is well.

    `files` gives the bytes of a leaf's file, None where there is none. A zero-byte file says what an empty list says.
    `lock` takes the block's lock, only for what may still change: the newest group and what follows it, and the files.
    """
    check = _Check()
    with contextlib.ExitStack() as stack:
        found = numbers(history)
        check.all(history, found[:-1])
        newest = check.settled(history, found[-1], stack) if found else None
        with lock():
            if newest is None:
                found = found[:-1]
            elif _is_same(history, newest):
                check.rest(newest)
            else:  # it was compacted meanwhile
                check, found = _Check(), []
            check.all(history, [number for number in numbers(history) if number > max(found, default=-1)])
            check.files(files)
    return check.findings


@dataclass(frozen=True)
class _Newest:
    """The newest segment, open, of which the lines up to `stop` were checked."""

    number: int
    descriptor: int
    stop: int


def _is_same(history: int, newest: _Newest) -> bool:
    try:
        there = os.stat(name_of(newest.number), dir_fd=history, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(newest.descriptor))


def _settled(data: bytes) -> int:
    """Where the newest group of a segment begins: whoever holds the lock may take that group back, but none before."""
    ends: list[int] = []
    stop = data.rfind(b"\n") + 1
    while stop and len(ends) < 2:
        start = data.rfind(b"\n", 0, stop - 1) + 1
        line = opened(data[start : stop - 1])
        if line is not None and "files" in line.members:
            ends.append(stop)
        stop = start
    return ends[1] if len(ends) > 1 else 0


@dataclass
class _Known:
    """What the lines read so far say of a leaf."""

    version: int
    after: str | None
    sure: bool = True


class _Check:
    """A log while its segments are read, oldest first."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._segment = -1
        self._compacted = False
        self._line = 0
        self._digest: str | None = None  # what the next line has to name
        self._leaves: dict[str, _Known] = {}
        self._replays: dict[str, Replay] = {}
        self._external: set[str] = set()
        self._made: list[Members] = []  # the lines of the group that is being read
        self._has_end = True

    def find(self, leaf: str | None, segment: int | None, line: int | None, sentence: str) -> None:
        """Put something on the list."""
        self.findings.append(Finding(leaf, segment, line, sentence))

    def all(self, history: int, found: Iterable[int]) -> None:
        """Go through the segments of these numbers after all those before them."""
        for number in found:
            try:
                segment = read_segment(history, number)
            except Unreadable as error:
                self.find(None, number, 1, str(error))
                continue
            if segment is not None:
                self._begin(number, segment)
                self._go_on(segment.data)
                self._end(segment)

    def settled(self, history: int, number: int, stack: contextlib.ExitStack) -> _Newest | None:
        """Go through what can no longer change of the newest segment; None where that is to be read as a whole."""
        with contextlib.suppress(OSError, Unreadable):
            descriptor = open_segment(history, number)
            stack.callback(os.close, descriptor)
            data = read_from(descriptor, 0)
            stop = _settled(data) if number != OLD and header_of(data) is not None else 0
            if stop:
                self._begin(number, Segment(number, data, None))
                self._go_on(data[:stop])
                return _Newest(number, descriptor, stop)
        return None

    def rest(self, newest: _Newest) -> None:
        """Go through what of the newest segment was not read yet."""
        data = read_from(newest.descriptor, newest.stop)
        self._go_on(data)
        self._end(Segment(newest.number, data, None))

    def _begin(self, number: int, segment: Segment) -> None:
        if self._segment >= OLD and number != self._segment + 1:
            self._say("segments before this one are missing.", number)
            self._digest = None
        self._segment, self._line = number, 0
        self._compacted = segment.compacted is not None
        self._replays, self._made, self._has_end = {}, [], number == OLD

    def _go_on(self, data: bytes) -> None:
        for line in self._lines(data):
            if line.members["operation"] in (SEGMENT, COMPACTED):
                continue
            self._made.append(line.members)
            if "files" in line.members:
                self._group(self._made, line.members["files"])
                self._made = []

    def _end(self, segment: Segment) -> None:
        """Compare what a segment's lines come to with what its last groups say of the files."""
        if not self._has_end:
            self._say("the last line has no end.")
        if self._made:
            self._say("the log ends in the middle of a group, which never happened.")
        for leaf, replay in sorted(self._replays.items()):
            known = self._leaves[leaf]
            if known.sure and not replay.gives(known.after):
                self._say(f"what the lines say of {leaf} is not what version {known.version} was.", leaf=leaf)
        compacted = segment.compacted
        if compacted is not None:
            self._digest = compacted.members["was"]
            if segment.dropped:
                for known in self._leaves.values():
                    known.sure = False

    def files(self, files: Files) -> None:
        """Compare the newest version of every leaf with its file."""
        for leaf, known in sorted(self._leaves.items()):
            data = files(leaf)
            same = file_hash(data) == known.after
            if not same and not (data == b"" and known.after == file_hash(serialize({}))):
                sentence = f"the file of {leaf} is not what version {known.version}, the newest one, says."
                self.find(leaf, None, None, sentence)

    def _say(self, sentence: str, segment: int | None = None, leaf: str | None = None) -> None:
        self.find(leaf, self._segment if segment is None else segment, self._line or None, sentence)

    def _lines(self, data: bytes) -> Iterator[Line]:
        """The sound lines of the next bytes of a segment; says of each other one that it is damaged."""
        self._has_end = data.endswith(b"\n") if data else self._has_end
        for raw, _ in whole_lines(data):
            self._line += 1
            line = opened_old(raw) if self._segment == OLD else opened(raw)
            if line is None:
                self._say("this line is damaged.")
                self._digest = None
                continue
            if self._digest is not None and line.previous != self._digest:
                self._say("this line does not follow the one before it: lines are missing or were put in.")
            self._digest = line.digest
            if self._line == 1 and self._segment != OLD:
                self._header(line)
            yield line

    def _header(self, line: Line) -> None:
        """Compare what a segment begins with with what was read before it."""
        members = line.members
        if members.get("operation") != SEGMENT or members["number"] != self._segment:
            self._say("the segment does not begin with its own header.")
            return
        for leaf in sorted({*members["leaves"], *self._leaves}):
            known, told = self._leaves.get(leaf), members["leaves"].get(leaf)
            if told is None:
                self._say(f"the header does not know {leaf}, which segments before it know.", leaf=leaf)
                continue
            differs = known is not None and (known.version, known.after) != (told["version"], told["after"])
            if differs and known is not None and known.sure:
                self._say(f"the header says of {leaf} what the segments before it do not say.", leaf=leaf)
            self._leaves[leaf] = _Known(told["version"], told["after"])
            if told["external"]:
                self._external.add(leaf)

    def _group(self, group: list[Members], files: Members) -> None:
        begun = {leaf: known.version for leaf, known in self._leaves.items()}
        made = set()
        for members in group:
            leaf = members["leaf"]
            if members["operation"] == CONTENT:
                self._content(members)
            elif members["operation"] in EDITS or members["operation"] == EXTERNAL:
                made.add(leaf)
                self._edit(members, begun.get(leaf, 0))
            elif members["operation"] == ORDER:
                self._replays.setdefault(leaf, Replay()).apply(members)
        for leaf in sorted(made - files.keys()) if not self._compacted else ():
            self._say(f"a group does not say what becomes of the file of {leaf}.", leaf=leaf)
        for leaf, file in files.items():
            known = self._leaves.setdefault(leaf, _Known(0, None))
            if "before" in file and known.sure and known.after != file["before"]:
                self._say(f"{leaf} begins as no version of it ended.", leaf=leaf)
            known.after, known.sure = file["after"], True

    def _content(self, members: Members) -> None:
        leaf = members["leaf"]
        replay = self._replays[leaf] = Replay()
        replay.apply(members)
        known = self._leaves.get(leaf)
        if "files" in members:  # all that is left of a segment that was dropped
            self._leaves[leaf] = _Known(members["version"], None)
        elif known is None or known.version != members["version"]:
            self._say(f"the content of {leaf} is not that of its newest version.", leaf=leaf)
        elif known.sure and leaf not in self._external and not replay.gives(known.after):
            self._say(f"the content of {leaf} is not what version {known.version} was.", leaf=leaf)

    def _edit(self, members: Members, begun_with: int) -> None:
        leaf, version = members["leaf"], members["version"]
        known = self._leaves.setdefault(leaf, _Known(0, None))
        if version <= begun_with or version < known.version:
            self._say(f"the version of {leaf} does not grow.", leaf=leaf)
        known.version = version
        if members["operation"] == EXTERNAL:
            self._external.add(leaf)
        else:
            self._external.discard(leaf)
        try:
            self._replays.setdefault(leaf, Replay()).apply(members)
        except Unreadable as error:
            self._say(str(error), leaf=leaf)
